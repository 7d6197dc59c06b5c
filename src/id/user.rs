use super::IdError;
use super::text::Text;
use std::fmt;
use std::str::FromStr;

/// The application's own name for a user: 1 to 128 bytes of UTF-8 in any script, without control
/// characters.
///
/// It is **opaque**. `a` and `a:b` are different users, and so are `Ada` and `ada`, or an `é` of one
/// code point and one of two: nothing is trimmed, folded, normalised, split or matched by prefix.
/// An application whose users type their ids normalises them before they come here.
///
/// Control characters are Unicode's category Cc (C0, DEL, C1), so an id cannot break a log line or
/// end a C string. Invisible and direction-changing characters (U+200B, U+202E) belong to scripts
/// that need them and are accepted: what shows an id to people must isolate it.
///
/// Up to 40 bytes are stored inline and never allocate; a longer id allocates once, when it is made.
///
/// ```
/// use ws_manager_pool::id::{IdError, UserId};
///
/// let user: UserId = "mañana:7".parse()?;
/// assert_eq!(user.as_str(), "mañana:7");
/// assert_eq!(UserId::new(""), Err(IdError::UserIdEmpty));
/// # Ok::<(), IdError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Text);

impl UserId {
    /// The longest user id, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 128;

    /// Takes the text as it is. Wait-free up to 40 bytes; a longer one allocates once.
    ///
    /// # Errors
    ///
    /// Refuses a text that is empty, longer than 128 bytes, or holds a control character. The length
    /// is looked at first, so a megabyte costs no more than an empty text.
    pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(IdError::UserIdEmpty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(IdError::UserIdTooLong { bytes: text.len() });
        }
        // Most ids are plain ASCII, and this says so of 16 bytes at a time.
        let is_plain = text.bytes().fold(true, |is_plain, byte| is_plain & matches!(byte, b' '..=b'~'));
        if !is_plain
            && let Some((at, character)) = text.char_indices().find(|(_, character)| character.is_control())
        {
            return Err(IdError::UserIdControlCharacter { character, at });
        }
        Ok(Self(Text::new(text)))
    }

    /// The id as it was given. Wait-free.
    #[inline]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for UserId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl AsRef<str> for UserId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UserId").field(&self.as_str()).finish()
    }
}
