//! What RFC 6455 calls a frame: opcodes, close codes, and what a client may do wrong.

use crate::reason::EndReason;
use std::fmt;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// A message goes on.
    Continuation = 0x0,
    /// A text message begins.
    Text = 0x1,
    /// A binary message begins.
    Binary = 0x2,
    /// The sender says nothing more.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping, or just shows life.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode of this number; `None` for those that are reserved.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Whether it is of the connection rather than of a message: a control frame comes whole, has at most
    /// 125 bytes, and may stand between the frames of a message.
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// Which kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl From<Kind> for Opcode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Binary => Self::Binary,
        }
    }
}

/// The longest payload of a control frame.
pub(super) const LONGEST_CONTROL: usize = 125;

/// Whether a close frame may carry this code: those that the RFC and IANA give a meaning on the wire, and
/// the ranges for libraries (3000 to 3999) and applications (4000 to 4999).
pub const fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// What the client did that ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// It broke the protocol; the text says which rule.
    Protocol(&'static str),
    /// It sent text that is not UTF-8.
    InvalidUtf8,
    /// It sent, or announced, more than [`Limits`](super::Limits) allow.
    TooLarge,
}

impl Violation {
    /// How the connection ends for it; this knows the close code, too.
    pub const fn end_reason(self) -> EndReason {
        match self {
            Self::Protocol(_) => EndReason::ProtocolError,
            Self::InvalidUtf8 => EndReason::InvalidUtf8,
            Self::TooLarge => EndReason::TooLarge,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protocol(rule) => rule,
            Self::InvalidUtf8 => "text is not UTF-8",
            Self::TooLarge => "the frame or its message is larger than is allowed",
        })
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_six_opcodes_have_a_meaning() {
        let known: Vec<u8> = (0..=255).filter(|&bits| Opcode::from_bits(bits).is_some()).collect();
        assert_eq!(known, [0, 1, 2, 8, 9, 10]);
        for bits in known {
            let opcode = Opcode::from_bits(bits).unwrap();
            assert_eq!((opcode as u8, opcode.is_control()), (bits, bits >= 8));
        }
    }

    #[test]
    fn a_close_code_is_one_that_may_be_sent() {
        let refused = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535];
        let allowed = [1000, 1001, 1002, 1003, 1007, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
        assert_eq!(refused.into_iter().find(|&code| is_close_code(code)), None);
        assert_eq!(allowed.into_iter().find(|&code| !is_close_code(code)), None);
    }

    #[test]
    fn a_violation_has_the_close_code_of_its_kind() {
        let code = |violation: Violation| violation.end_reason().close_code();
        assert_eq!(code(Violation::Protocol("")), 1002);
        assert_eq!((code(Violation::InvalidUtf8), code(Violation::TooLarge)), (1007, 1009));
    }
}
