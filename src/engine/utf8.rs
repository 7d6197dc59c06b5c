//! UTF-8 that comes in pieces.

use std::str::from_utf8;

/// What a piece of text left behind: the first bytes of a character whose others are still to come. Not
/// UTF-8 as soon as no byte that may follow could make it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    bytes: [u8; 3],
    len: u8,
}

/// The text is not UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotUtf8;

impl Tail {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; 3], len: 0 }
    }

    /// Whether the text so far ends between two characters.
    pub(super) fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Checks the next piece.
    pub(super) fn check(&mut self, mut piece: &[u8]) -> Result<(), NotUtf8> {
        while !self.is_empty() {
            let Some((&next, rest)) = piece.split_first() else { return Ok(()) };
            self.complete_with(next)?;
            piece = rest;
        }
        let (characters, begun) = piece.split_at(piece.len() - begun(piece));
        simdutf8::basic::from_utf8(characters).map_err(|_| NotUtf8)?;
        self.keep(begun)
    }

    /// The next byte of the character that has begun.
    fn complete_with(&mut self, next: u8) -> Result<(), NotUtf8> {
        let [a, b, c] = self.bytes;
        let mut character = [a, b, c, 0];
        let len = usize::from(self.len);
        character[len] = next;
        self.keep(&character[..=len])
    }

    /// Keeps the first bytes of a character; nothing, if it is a whole one.
    fn keep(&mut self, character: &[u8]) -> Result<(), NotUtf8> {
        let rest = match from_utf8(character) {
            Ok(_) => &[],
            Err(error) if error.error_len().is_none() => character,
            Err(_) => return Err(NotUtf8),
        };
        // Fewer than four: four are a character or none.
        self.bytes[..rest.len()].copy_from_slice(rest);
        self.len = rest.len() as u8;
        Ok(())
    }
}

/// How many bytes at the end are a character whose others are to come; right if it is one at all.
fn begun(text: &[u8]) -> usize {
    let mut last = text.iter().rev().zip(1..=3).skip_while(|(byte, _)| matches!(byte, 0x80..=0xbf));
    let Some((&first, there)) = last.next() else { return 0 };
    let width = match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
        _ => 1,
    };
    if width > there { there } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_in_pieces(text: &[u8], cuts: &[usize]) -> Result<Tail, NotUtf8> {
        let mut tail = Tail::new();
        let mut from = 0;
        for &to in cuts.iter().chain([&text.len()]) {
            tail.check(&text[from..to])?;
            from = to;
        }
        Ok(tail)
    }

    #[test]
    fn text_is_the_same_however_it_is_cut() {
        let text = "aß√😀b".as_bytes();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                assert_eq!(check_in_pieces(text, &[first, second]).map(Tail::is_empty), Ok(true));
            }
        }
    }

    /// Overlong forms, surrogates, beyond the last character, stray and missing bytes: refused at the first
    /// byte that settles it.
    #[test]
    fn what_cannot_become_utf8_is_refused_at_once() {
        let settled_by_last: &[&[u8]] = &[
            b"\x80",
            b"\xc0",
            b"\xc1",
            b"\xf5",
            b"\xff",
            b"\xe0\x9f",
            b"\xed\xa0",
            b"\xf0\x8f",
            b"\xf4\x90",
            b"\xc3a",
            b"\xe2\x88a",
            b"\xf0\x9f\x98a",
        ];
        for text in settled_by_last {
            let (_, begun) = text.split_last().unwrap();
            for cut in 0..text.len() {
                assert!(check_in_pieces(begun, &[cut]).is_ok(), "{text:x?} was refused too early");
                assert_eq!(check_in_pieces(text, &[cut]), Err(NotUtf8), "{text:x?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_character_that_has_only_begun_is_no_text() {
        for text in [&b"\xc3"[..], b"\xe2\x88", b"\xf0\x9f\x98"] {
            assert_eq!(check_in_pieces(text, &[]).map(Tail::is_empty), Ok(false));
        }
    }
}
