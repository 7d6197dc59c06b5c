use super::text::Text;
use super::{IdError, RunId};
use std::fmt;
use std::str::FromStr;

/// What every thread id begins with.
const PREFIX: &str = "thread_";

/// A conversation. It belongs to a user: alone it addresses nothing, and two users with the same
/// thread id never meet (see [`IsolationKey`](super::IsolationKey)).
///
/// Either generated, `thread_` and the 32 hex digits of the run that began it, or brought by a client
/// that comes back to its thread. A client that brings a generated id back means that very thread:
/// both are equal and hash alike.
///
/// Generated ids, and clients' ids with up to 40 bytes after the prefix, are stored inline and never
/// allocate. Not a file name: `thread_..` is a valid id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ThreadId(Origin);

/// `Client` holds what follows the prefix, and never the text of a generated id: so one text has one value
/// and the derived equality is equality of texts.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Origin {
    Generated(RunId),
    Client(Text),
}

impl ThreadId {
    /// The most bytes that may follow `thread_`.
    pub const MAX_NAME_BYTES: usize = 120;

    /// Reads a thread id that a client brought: `thread_` and 1 to 120 of `[A-Za-z0-9_.-]`, already
    /// percent-decoded. Wait-free up to 40 bytes after the prefix; a longer one allocates once.
    ///
    /// ```
    /// use ws_manager_pool::id::{IdError, ThreadId};
    ///
    /// assert_eq!(ThreadId::from_client("thread_7")?.to_string(), "thread_7");
    /// assert_eq!(ThreadId::from_client("7"), Err(IdError::ThreadIdPrefix));
    /// # Ok::<(), IdError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Refuses a text without the prefix, with nothing or more than 120 bytes after it, or with any
    /// other character. The length is looked at before the characters.
    pub fn from_client(text: &str) -> Result<Self, IdError> {
        let name = text.strip_prefix(PREFIX).ok_or(IdError::ThreadIdPrefix)?;
        if name.is_empty() {
            return Err(IdError::ThreadIdEmpty);
        }
        if name.len() > Self::MAX_NAME_BYTES {
            return Err(IdError::ThreadIdTooLong { bytes: name.len() });
        }
        if !name.bytes().all(|byte| is_allowed(byte.into()))
            && let Some((offset, character)) =
                name.char_indices().find(|&(_, character)| !is_allowed(character))
        {
            return Err(IdError::ThreadIdCharacter { character, at: PREFIX.len() + offset });
        }
        Ok(Self(match name.parse() {
            Ok(run) => Origin::Generated(run),
            Err(_) => Origin::Client(Text::new(name)),
        }))
    }

    /// The thread that `run` begins.
    pub(super) fn begun_by(run: RunId) -> Self {
        Self(Origin::Generated(run))
    }
}

impl FromStr for ThreadId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::from_client(text)
    }
}

impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::Generated(run) => write!(f, "{PREFIX}{run}"),
            Origin::Client(name) => write!(f, "{PREFIX}{}", name.as_str()),
        }
    }
}

impl fmt::Debug for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadId({self})")
    }
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-')
}
