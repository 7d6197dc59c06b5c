//! Puts fragmented messages together, for libraries that hand out frames.

use super::transport::{Fault, Frame};
use bytes::{Bytes, BytesMut};

/// What a data frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The first frame of a text, or all of it.
    Text,
    /// The first frame of a binary message, or all of it.
    Binary,
    /// More of the message that has begun.
    Continuation,
}

/// The message that is being put together, if one is. Bounded: no more is kept than a message may have.
pub(super) struct Fragments {
    message_bytes: usize,
    begun: Option<Begun>,
}

struct Begun {
    is_text: bool,
    payload: BytesMut,
    /// Of a text, how many bytes are known to be UTF-8. Up to three of a character may wait for the rest.
    checked: usize,
}

impl Fragments {
    pub(super) fn new(message_bytes: usize) -> Self {
        Self { message_bytes, begun: None }
    }

    /// Takes a frame; the last one gives the message. A text of one frame must have been checked before.
    pub(super) fn add(&mut self, part: Part, payload: Bytes, is_last: bool) -> Result<Option<Frame>, Fault> {
        let had = self.begun.as_ref().map_or(0, |begun| begun.payload.len());
        if payload.len() > self.message_bytes - had {
            return Err(Fault::TooLarge);
        }
        let begun = match (part, &mut self.begun) {
            (Part::Continuation, Some(begun)) => begun,
            (Part::Continuation, None) | (Part::Text | Part::Binary, Some(_)) => return Err(Fault::Protocol),
            (Part::Text, None) if is_last => return Ok(Some(Frame::Text(payload))),
            (Part::Binary, None) if is_last => return Ok(Some(Frame::Binary(payload))),
            (Part::Text | Part::Binary, begun) => {
                begun.insert(Begun { is_text: part == Part::Text, payload: BytesMut::new(), checked: 0 })
            }
        };
        begun.payload.extend_from_slice(&payload);
        if begun.is_text {
            begun.check(is_last)?;
        }
        Ok(if is_last { self.begun.take().map(Begun::finish) } else { None })
    }
}

impl Begun {
    /// Fails at the first fragment that no later one can mend.
    fn check(&mut self, is_last: bool) -> Result<(), Fault> {
        match std::str::from_utf8(&self.payload[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            Err(error) if is_last || error.error_len().is_some() => return Err(Fault::InvalidUtf8),
            Err(cut) => self.checked += cut.valid_up_to(),
        }
        Ok(())
    }

    fn finish(self) -> Frame {
        let payload = self.payload.freeze();
        if self.is_text { Frame::Text(payload) } else { Frame::Binary(payload) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(
        fragments: &mut Fragments,
        part: Part,
        payload: &[u8],
        is_last: bool,
    ) -> Result<Option<Frame>, Fault> {
        fragments.add(part, Bytes::copy_from_slice(payload), is_last)
    }

    #[test]
    fn a_message_is_put_together_wherever_its_characters_are_cut() {
        let text = "κόσμε 🦀".as_bytes();
        for cut in 0..=text.len() {
            let mut fragments = Fragments::new(100);
            let (head, tail) = text.split_at(cut);
            assert_eq!(add(&mut fragments, Part::Text, head, false), Ok(None));
            assert_eq!(add(&mut fragments, Part::Continuation, b"", false), Ok(None));
            let whole = add(&mut fragments, Part::Continuation, tail, true);
            assert_eq!(whole, Ok(Some(Frame::Text(Bytes::from_static(text)))), "cut at {cut}");
            assert_eq!(add(&mut fragments, Part::Continuation, b"", true), Err(Fault::Protocol));
        }
    }

    #[test]
    fn a_text_that_nothing_can_mend_fails_at_once_and_one_that_is_cut_short_at_its_end() {
        let mut fragments = Fragments::new(100);
        assert_eq!(add(&mut fragments, Part::Text, b"\xce", false), Ok(None));
        assert_eq!(add(&mut fragments, Part::Continuation, b"a", false), Err(Fault::InvalidUtf8));
        let mut fragments = Fragments::new(100);
        assert_eq!(add(&mut fragments, Part::Text, b"a\xce", false), Ok(None));
        assert_eq!(add(&mut fragments, Part::Continuation, b"", true), Err(Fault::InvalidUtf8));
        let mut fragments = Fragments::new(100);
        assert_eq!(add(&mut fragments, Part::Binary, b"\xff", false), Ok(None), "bytes are bytes");
    }

    #[test]
    fn a_message_has_its_bound_and_does_not_begin_within_another() {
        let mut fragments = Fragments::new(4);
        assert_eq!(add(&mut fragments, Part::Binary, b"12345", true), Err(Fault::TooLarge));
        assert!(add(&mut fragments, Part::Binary, b"1234", true).unwrap().is_some());
        assert_eq!(add(&mut fragments, Part::Binary, b"123", false), Ok(None));
        assert_eq!(add(&mut fragments, Part::Text, b"", true), Err(Fault::Protocol));
        assert_eq!(add(&mut fragments, Part::Continuation, b"45", true), Err(Fault::TooLarge));
    }
}
