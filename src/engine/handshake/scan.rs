//! Where a request's head ends.

use super::check::RequestError;
use memchr::memchr;

/// Looks for the end of a head that comes in pieces, each byte once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadScanner {
    /// How many bytes were looked at.
    looked_at: u16,
    /// Where the line begins that has not ended yet.
    line: u16,
    /// Whether a line was not empty: before the first, empty ones are skipped.
    has_begun: bool,
}

impl HeadScanner {
    /// The longest head that is read, in bytes.
    pub const LONGEST: usize = 8 << 10;

    /// Nothing has been looked at.
    pub const fn new() -> Self {
        Self { looked_at: 0, line: 0, has_begun: false }
    }

    /// Where the head ends among the bytes that have come so far, all from the connection's first on; `None`
    /// as long as it does not. What stands behind it, the client has sent without waiting for an answer:
    /// the first frames.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if it cannot become a head, or is longer than [`LONGEST`](Self::LONGEST).
    pub fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, RequestError> {
        if bytes.first().is_some_and(|&first| !first.is_ascii_graphic() && !matches!(first, b'\r' | b'\n')) {
            return Err(RequestError::NotHttp);
        }
        let bytes = &bytes[..bytes.len().min(Self::LONGEST)];
        let mut at = usize::from(self.looked_at);
        while let Some(found) = bytes.get(at..).and_then(|new| memchr(b'\n', new)) {
            let end = at + found;
            let line = &bytes[usize::from(self.line)..end];
            at = end + 1;
            self.line = at as u16;
            if !matches!(line, b"" | b"\r") {
                self.has_begun = true;
            } else if self.has_begun {
                self.looked_at = at as u16;
                return Ok(Some(at));
            }
        }
        self.looked_at = bytes.len() as u16;
        if bytes.len() == Self::LONGEST { Err(RequestError::HeadTooLong) } else { Ok(None) }
    }
}

const _: () = assert!(HeadScanner::LONGEST < u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn the_end_is_the_same_however_the_head_comes() {
        let stream = [HEAD, b"\x81\x80mask\n\n"].concat();
        for step in 1..=stream.len() {
            let mut scanner = HeadScanner::new();
            for come in (0..=stream.len()).step_by(step) {
                let expected = (come >= HEAD.len()).then_some(HEAD.len());
                assert_eq!(scanner.find_end(&stream[..come]), Ok(expected), "{come} bytes by {step}");
                if expected.is_some() {
                    break;
                }
            }
        }
        assert_eq!(HeadScanner::new().find_end(b"GET / HTTP/1.1\nHost: a\n\nx"), Ok(Some(24)));
    }

    #[test]
    fn a_head_may_have_8_kib() {
        let mut head = vec![b'a'; HeadScanner::LONGEST];
        head[HeadScanner::LONGEST - 4..].copy_from_slice(b"\r\n\r\n");
        assert_eq!(HeadScanner::new().find_end(&head), Ok(Some(HeadScanner::LONGEST)));
        head.insert(0, b'a');
        let mut scanner = HeadScanner::new();
        assert_eq!(scanner.find_end(&head[..HeadScanner::LONGEST - 1]), Ok(None));
        assert_eq!(scanner.find_end(&head), Err(RequestError::HeadTooLong));
        assert_eq!(HeadScanner::new().find_end(&head), Err(RequestError::HeadTooLong));
    }

    #[test]
    fn what_is_no_http_is_told_so_by_its_first_byte() {
        let hello = [0x16, 0x03, 0x01];
        assert_eq!(HeadScanner::new().find_end(&hello), Err(RequestError::NotHttp));
        assert_eq!(HeadScanner::new().find_end(b" GET"), Err(RequestError::NotHttp));
        assert_eq!(HeadScanner::new().find_end(b""), Ok(None));
    }
}
