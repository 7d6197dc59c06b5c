use super::IdError;
use rand::RngExt;
use rand::rngs::ThreadRng;
use std::fmt;
use std::str::FromStr;

/// 128 bits that are shown as 32 lower-case hex digits.
///
/// Bytes and not a `u128`, whose alignment of 16 would make a [`ThreadId`](super::ThreadId) larger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Bits([u8; 16]);

impl Bits {
    /// As one number and not as bytes, of which `rand` would draw each by itself, four times as many.
    fn fresh(source: &mut ThreadRng) -> Self {
        Self(source.random::<u128>().to_ne_bytes())
    }

    /// Upper case is refused: an id has exactly one text.
    fn parse(text: &str) -> Option<Self> {
        let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(lower_hex) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|bits| Self(bits.to_be_bytes()))
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $malformed:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Bits);

        impl $name {
            /// A new one from a cryptographic generator.
            pub(super) fn fresh(source: &mut ThreadRng) -> Self {
                Self(Bits::fresh(source))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Bits::parse(text).map(Self).ok_or($malformed)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

random_id! {
    /// One run of a thread: 128 random bits, fresh for each connection, also when a client
    /// reconnects to its thread. Shown as 32 lower-case hex digits, and read back from exactly those.
    RunId, IdError::RunIdFormat
}

random_id! {
    /// One request to connect: 128 random bits, to find a connection in logs. Shown as 32 lower-case
    /// hex digits, and read back from exactly those.
    RequestId, IdError::RequestIdFormat
}
