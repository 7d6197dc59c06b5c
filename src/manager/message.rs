//! What is sent: a text or binary message, and what became of it.

use bytes::Bytes;
use std::error::Error;
use std::fmt;

/// An outbound message: text or binary.
///
/// The payload is [`Bytes`], so a clone copies a pointer and a broadcast shares one payload. A
/// payload that is a slice of a larger buffer keeps the whole buffer alive until the message is
/// sent or dropped; the queue's byte limits count only the slice. Where that matters, copy it:
/// `Message::binary(Bytes::copy_from_slice(&slice))`.
///
/// A text message is UTF-8 by construction. `Debug` shows kind and length, never content.
///
/// ```
/// use ws_manager_pool::manager::Message;
///
/// let greeting = Message::text_static("hello");
/// assert_eq!(greeting.as_text(), Some("hello"));
/// assert_eq!(format!("{greeting:?}"), "Message(text, 5 bytes)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    payload: Bytes,
    /// The number of an agent's event in its thread, 0 for every other message; and above it [`TEXT`].
    tag: u64,
}

/// The bit of a tag that says that the message is a text.
const TEXT: u64 = 1 << 63;

impl Message {
    /// A text message. A `String` is taken over without a copy.
    pub fn text(text: impl Into<String>) -> Self {
        Self { payload: Bytes::from(text.into()), tag: TEXT }
    }

    /// A text message that lives as long as the program: neither this nor a clone allocates.
    pub const fn text_static(text: &'static str) -> Self {
        Self { payload: Bytes::from_static(text.as_bytes()), tag: TEXT }
    }

    /// A text message from bytes that are expected to be UTF-8, without a copy.
    ///
    /// # Errors
    ///
    /// [`InvalidUtf8`] with the bytes handed back: send them as [`Message::binary`] or refuse them.
    pub fn text_from_utf8(payload: Bytes) -> Result<Self, InvalidUtf8> {
        match std::str::from_utf8(&payload) {
            Ok(_) => Ok(Self { payload, tag: TEXT }),
            Err(error) => Err(InvalidUtf8 { valid_up_to: error.valid_up_to(), payload }),
        }
    }

    /// A binary message.
    pub fn binary(payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), tag: 0 }
    }

    /// An agent's event, with its number in its thread.
    pub(crate) fn of_event(text: String, number: u64) -> Self {
        Self { payload: Bytes::from(text), tag: number | TEXT }
    }

    pub(crate) fn event(&self) -> u64 {
        self.tag & !TEXT
    }

    /// The same without a number, which means something in its own thread only: what has left a queue may be
    /// passed on to another.
    pub(crate) fn unnumbered(self) -> Self {
        Self { tag: self.tag & TEXT, ..self }
    }

    /// Length of the payload in bytes.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Is the payload empty?
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Is it a text message?
    pub fn is_text(&self) -> bool {
        self.tag & TEXT != 0
    }

    /// The text; `None` for a binary message.
    ///
    /// Checks the bytes again (linear in the length): the crate keeps `unsafe` out of messages.
    pub fn as_text(&self) -> Option<&str> {
        if self.is_text() { std::str::from_utf8(&self.payload).ok() } else { None }
    }

    /// The payload of either kind.
    pub fn as_bytes(&self) -> &[u8] {
        &self.payload
    }

    /// The payload of either kind, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.payload
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_text() { "text" } else { "binary" };
        write!(f, "Message({kind}, {} bytes)", self.len())
    }
}

impl From<&'static str> for Message {
    fn from(text: &'static str) -> Self {
        Self::text_static(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<Bytes> for Message {
    /// A binary message.
    fn from(payload: Bytes) -> Self {
        Self::binary(payload)
    }
}

impl From<Vec<u8>> for Message {
    /// A binary message.
    fn from(payload: Vec<u8>) -> Self {
        Self::binary(payload)
    }
}

/// The bytes that were to be a text message are not UTF-8. They come back inside.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidUtf8 {
    /// The bytes, untouched.
    pub payload: Bytes,
    /// So many bytes from the start are UTF-8.
    pub valid_up_to: usize,
}

impl fmt::Debug for InvalidUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvalidUtf8")
            .field("bytes", &self.payload.len())
            .field("valid_up_to", &self.valid_up_to)
            .finish()
    }
}

impl fmt::Display for InvalidUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text message must be UTF-8; byte {} of {} is not", self.valid_up_to, self.payload.len())
    }
}

impl Error for InvalidUtf8 {}

/// What became of a message that was offered to one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a message that was not queued is lost unless the outcome is looked at"]
pub enum SendOutcome {
    /// It is in the connection's queue.
    Queued,
    /// It is gone: the connection is closing and reads its queue no more, or an overflow policy
    /// gave a message up.
    Dropped,
    /// It was not taken, here it is back: the connection's queue is full (messages or bytes), the
    /// message is over the size limit, or the pool's byte budget is used up.
    Full(Message),
    /// It is in the connection's queue, and so many of the oldest messages are gone from there, by
    /// [`OverflowPolicy::DropOldest`].
    Displaced(usize),
    /// The queue was full and [`OverflowPolicy::Disconnect`] has ended the connection. Here the message is
    /// back.
    Ended(Message),
    /// The key's connection is over.
    Stale,
    /// Nobody is there under this user, or this user and thread.
    NoSuchUser,
}

impl SendOutcome {
    /// Is the message in the queue?
    pub fn is_queued(&self) -> bool {
        matches!(self, Self::Queued | Self::Displaced(_))
    }
}

/// What happens to a message that finds the queue full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OverflowPolicy {
    /// The new message goes back to its sender as [`SendOutcome::Full`]; the queue stays as it is.
    #[default]
    DropNewest,
    /// The oldest messages make room for the new one, which is [`SendOutcome::Displaced`]. For what is
    /// soon out of date: positions, prices, who is typing.
    DropOldest,
    /// The connection ends, with code 1013; the new message comes back as [`SendOutcome::Ended`]. For
    /// clients that must have every message, or reconnect and ask for what they missed.
    Disconnect,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keeps_its_kind_and_bytes() {
        for message in [
            Message::text("żółw"),
            Message::text_static("żółw"),
            Message::from("żółw"),
            Message::from(String::from("żółw")),
            Message::text_from_utf8(Bytes::from("żółw")).unwrap(),
        ] {
            assert!(message.is_text());
            assert_eq!(message.as_text(), Some("żółw"));
            assert_eq!(message.len(), 7);
            assert_eq!(message.as_bytes(), "żółw".as_bytes());
            assert_eq!(message.into_bytes(), Bytes::from("żółw"));
        }
    }

    #[test]
    fn binary_is_never_text_even_where_it_could_be() {
        for message in
            [Message::binary("abc"), Message::from(Bytes::from("abc")), Message::from(b"abc".to_vec())]
        {
            assert!(!message.is_text());
            assert_eq!(message.as_text(), None);
            assert_eq!(message.as_bytes(), b"abc");
        }
        assert!(Message::binary(Bytes::new()).is_empty());
    }

    #[test]
    fn bytes_that_are_not_utf8_come_back() {
        let bytes = Bytes::from_static(b"ok\xff");
        let error = Message::text_from_utf8(bytes.clone()).unwrap_err();
        assert_eq!((error.valid_up_to, &error.payload), (2, &bytes));
        assert_eq!(error.to_string(), "a text message must be UTF-8; byte 2 of 3 is not");
    }

    #[test]
    fn a_clone_shares_the_payload() {
        let message = Message::text("x".repeat(1_000));
        assert_eq!(message.clone().as_bytes().as_ptr(), message.as_bytes().as_ptr());
    }

    #[test]
    fn debug_never_shows_content() {
        let secret = "hunter2";
        let shown = [
            format!("{:?}", Message::text(secret)),
            format!("{:?}", Message::binary(secret)),
            format!("{:#?}", SendOutcome::Full(Message::text(secret))),
            format!("{:?}", InvalidUtf8 { payload: Bytes::from(secret), valid_up_to: 0 }),
        ];
        for shown in shown {
            assert!(!shown.contains("hunter") && !shown.contains("104"), "{shown}");
        }
    }
}
