//! Encodes what a server sends. Its frames are whole messages and have no mask, so a head and the
//! payload's own bytes behind it are a frame.

use super::frame::{LONGEST_CONTROL, Opcode, is_close_code};
use std::ops::Deref;

/// The head of a frame, 2 to 10 bytes.
#[derive(Clone, Copy, Debug)]
pub struct FrameHead {
    bytes: [u8; 10],
    len: u8,
}

/// The head of an unfragmented frame whose payload has this length. One of a control frame has 125 bytes at
/// most: the caller sees to it.
pub fn head(opcode: Opcode, payload: usize) -> FrameHead {
    let mut bytes = [0; 10];
    bytes[0] = 0x80 | opcode as u8;
    let len = match payload {
        0..=125 => {
            bytes[1] = payload as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    };
    debug_assert!(!opcode.is_control() || len == 2, "a control frame of {payload} bytes");
    FrameHead { bytes, len }
}

impl Deref for FrameHead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The payload of a close frame, at most 125 bytes.
#[derive(Clone, Copy, Debug)]
pub struct ClosePayload {
    bytes: [u8; LONGEST_CONTROL],
    len: u8,
}

impl ClosePayload {
    /// Without a code: the answer to one without.
    pub const EMPTY: Self = Self { bytes: [0; LONGEST_CONTROL], len: 0 };

    /// A code and a few words. Of more than 123 bytes only what fits is kept, cut between two characters.
    /// Empty if the code [may not be sent](is_close_code), as 1005 and 1006.
    pub fn new(code: u16, reason: &str) -> Self {
        let mut payload = Self::EMPTY;
        if is_close_code(code) {
            let reason = &reason.as_bytes()[..reason.floor_char_boundary(LONGEST_CONTROL - 2)];
            payload.bytes[..2].copy_from_slice(&code.to_be_bytes());
            payload.bytes[2..2 + reason.len()].copy_from_slice(reason);
            payload.len = 2 + reason.len() as u8;
        }
        payload
    }
}

impl Deref for ClosePayload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_written_in_the_shortest_way() {
        assert_eq!(*head(Opcode::Text, 0), [0x81, 0]);
        assert_eq!(*head(Opcode::Close, 125), [0x88, 125]);
        assert_eq!(*head(Opcode::Binary, 126), [0x82, 126, 0, 126]);
        assert_eq!(*head(Opcode::Text, 0xffff), [0x81, 126, 0xff, 0xff]);
        assert_eq!(*head(Opcode::Text, 0x1_0000), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_reason_that_is_too_long_is_cut_between_two_characters() {
        let payload = ClosePayload::new(4001, &"ß".repeat(100));
        assert_eq!(payload.len(), 2 + 122);
        assert_eq!(payload[..2], 4001_u16.to_be_bytes());
        assert_eq!(std::str::from_utf8(&payload[2..]), Ok("ß".repeat(61).as_str()));
        assert_eq!(*ClosePayload::new(1000, ""), [0x03, 0xe8]);
    }

    #[test]
    fn a_code_that_may_not_be_sent_is_not() {
        assert!(ClosePayload::new(1005, "no code").is_empty() && ClosePayload::new(1006, "").is_empty());
    }
}
