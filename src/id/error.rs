use super::{ThreadId, UserId};
use std::fmt;

/// Why a text is no id. The message names the part, the rule and what to send instead, and is fit
/// for the body of an HTTP 400.
///
/// It never repeats the refused text, which may be huge or hostile: at most its length, or one
/// character as `U+XXXX` with its place. So an error is 16 bytes, `Copy`, and safe to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdError {
    /// The user id is missing or empty: send 1 to 128 bytes.
    UserIdEmpty,
    /// The user id is longer than 128 bytes: shorten it, or send a digest of it.
    UserIdTooLong {
        /// Its length in bytes of UTF-8.
        bytes: usize,
    },
    /// The user id holds a control character: send it without.
    UserIdControlCharacter {
        /// The first one.
        character: char,
        /// Where it begins, in bytes from the start.
        at: usize,
    },
    /// The thread id does not start with `thread_`: send it as the server gave it, or none.
    ThreadIdPrefix,
    /// Nothing follows `thread_`: send the rest too, or no thread id.
    ThreadIdEmpty,
    /// More than 120 bytes follow `thread_`: shorten it.
    ThreadIdTooLong {
        /// How many bytes of UTF-8 follow `thread_`.
        bytes: usize,
    },
    /// The thread id holds something else than `[A-Za-z0-9_.-]`: send it without.
    ThreadIdCharacter {
        /// The first such character.
        character: char,
        /// Where it begins, in bytes from the start of the whole id.
        at: usize,
    },
    /// The run id is not 32 lower-case hex digits: send it as it was shown.
    RunIdFormat,
    /// The request id is not 32 lower-case hex digits: send it as it was shown.
    RequestIdFormat,
}

impl IdError {
    /// The part that was refused: `user_id`, `thread_id`, `run_id` or `request_id`.
    pub const fn part(&self) -> &'static str {
        match self {
            Self::UserIdEmpty | Self::UserIdTooLong { .. } | Self::UserIdControlCharacter { .. } => "user_id",
            Self::ThreadIdPrefix
            | Self::ThreadIdEmpty
            | Self::ThreadIdTooLong { .. }
            | Self::ThreadIdCharacter { .. } => "thread_id",
            Self::RunIdFormat => "run_id",
            Self::RequestIdFormat => "request_id",
        }
    }
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user_max = UserId::MAX_BYTES;
        let name_max = ThreadId::MAX_NAME_BYTES;
        write!(f, "{} ", self.part())?;
        match *self {
            Self::UserIdEmpty => write!(f, "is empty: send 1 to {user_max} bytes"),
            Self::UserIdTooLong { bytes } => {
                write!(f, "has {bytes} bytes: send 1 to {user_max} bytes, of a longer id its digest")
            }
            Self::UserIdControlCharacter { character, at } => {
                let code = u32::from(character);
                write!(f, "has the control character U+{code:04X} at byte {at}: ")?;
                write!(f, "send 1 to {user_max} bytes without control characters")
            }
            Self::ThreadIdPrefix => write!(f, "does not start with `thread_`: {}", ThreadRule),
            Self::ThreadIdEmpty => write!(f, "has nothing after `thread_`: {}", ThreadRule),
            Self::ThreadIdTooLong { bytes } => {
                write!(f, "has {bytes} bytes after `thread_`, at most {name_max} are allowed: {}", ThreadRule)
            }
            Self::ThreadIdCharacter { character, at } => {
                let code = u32::from(character);
                write!(f, "has the character U+{code:04X} at byte {at}: {}", ThreadRule)
            }
            Self::RunIdFormat | Self::RequestIdFormat => {
                f.write_str("is malformed: send 32 lower-case hex digits")
            }
        }
    }
}

impl std::error::Error for IdError {}

/// What a client may send as its thread, in words.
struct ThreadRule;

impl fmt::Display for ThreadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name_max = ThreadId::MAX_NAME_BYTES;
        write!(f, "send `thread_` and 1 to {name_max} of [A-Za-z0-9_.-], or leave it out for a new thread")
    }
}
