//! What an application is to [`serve`](super::serve), and what it sees of a connection.

use super::room::{RoomWaiters, WaitForRoom};
use crate::id::UserExecutionContext;
use crate::manager::{Message, PooledWebSocketManager, SendOutcome, Session};
use crate::pool::Tie;
use crate::reason::{EndReason, Revoked};
use crate::slab::{Key, Owner};
use bytes::Bytes;
use std::error::Error;
use std::fmt;
use std::future::{Future, ready};
use std::marker::PhantomData;
use std::sync::Arc;

/// An application: what happens when a connection opens, says something, and is over.
///
/// The methods are written as `async fn`. While one is pending, nothing more is read from that
/// connection; what is queued for it is sent all the same. When the lease ends, a pending method's
/// future is dropped.
///
/// ```
/// use ws_manager_pool::serve::{Application, Connection, HandlerError, Received};
///
/// struct Echo;
///
/// impl Application for Echo {
///     type Session = ();
///
///     async fn received(
///         &self,
///         conn: &mut Connection<'_, ()>,
///         message: Received<'_>,
///     ) -> Result<(), HandlerError> {
///         let _ = conn.send(message.to_message());
///         Ok(())
///     }
/// }
/// ```
pub trait Application: Send + Sync {
    /// The application's own state of a connection, kept in the pool.
    type Session: Session;

    /// Every future of [`received`](Self::received) is ready when it is first polled, as that of
    /// [`application()`] is. The crate's own engine then leaves a message where it came in; one that a
    /// handler waits with is put aside first. Said wrongly, it costs memory while handlers wait.
    const IS_IMMEDIATE: bool = false;

    /// The connection is open. Nothing has been read yet.
    ///
    /// # Errors
    ///
    /// An error closes the connection with code 1011.
    fn connected(
        &self,
        conn: &mut Connection<'_, Self::Session>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = conn;
        ready(Ok(()))
    }

    /// A text or binary message came in.
    ///
    /// # Errors
    ///
    /// An error closes the connection with code 1011.
    fn received(
        &self,
        conn: &mut Connection<'_, Self::Session>,
        message: Received<'_>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// The connection is over and its manager is free. Called once for each connection whose serving
    /// began, that is, was polled, whatever way it ended, also when the task was cancelled. Synchronous: keep it short.
    fn closed(&self, report: &CloseReport) {
        let _ = report;
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {
        $(impl<A: Application> Application for $pointer {
            type Session = A::Session;

            const IS_IMMEDIATE: bool = A::IS_IMMEDIATE;

            fn connected(
                &self,
                conn: &mut Connection<'_, Self::Session>,
            ) -> impl Future<Output = Result<(), HandlerError>> + Send {
                A::connected(self, conn)
            }

            fn received(
                &self,
                conn: &mut Connection<'_, Self::Session>,
                message: Received<'_>,
            ) -> impl Future<Output = Result<(), HandlerError>> + Send {
                A::received(self, conn, message)
            }

            fn closed(&self, report: &CloseReport) {
                A::closed(self, report);
            }
        })*
    };
}

forward!(&A, Arc<A>);

/// An application that is one synchronous closure, called for each message. What needs to wait, or to
/// know of openings and closings, implements [`Application`].
///
/// ```
/// use ws_manager_pool::serve::application;
///
/// let echo = application::<(), _>(|conn, message| {
///     let _ = conn.send(message.to_message());
///     Ok(())
/// });
/// # let _ = echo;
/// ```
pub fn application<S, F>(on_message: F) -> impl Application<Session = S>
where
    S: Session,
    F: Fn(&mut Connection<'_, S>, Received<'_>) -> Result<(), HandlerError> + Send + Sync,
{
    OnMessage { on_message, session: PhantomData }
}

struct OnMessage<S, F> {
    on_message: F,
    session: PhantomData<fn() -> S>,
}

impl<S, F> Application for OnMessage<S, F>
where
    S: Session,
    F: Fn(&mut Connection<'_, S>, Received<'_>) -> Result<(), HandlerError> + Send + Sync,
{
    type Session = S;

    const IS_IMMEDIATE: bool = true;

    fn received(
        &self,
        conn: &mut Connection<'_, S>,
        message: Received<'_>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        ready((self.on_message)(conn, message))
    }
}

/// The application's view of its connection. Every use may find that the lease is over; then there is
/// nothing left to do, and the pending method is dropped at its next await.
pub struct Connection<'a, S: Session> {
    tie: &'a Tie<S>,
    owner: &'a mut Owner,
    waiters: &'a RoomWaiters,
    wants_close: bool,
}

impl<'a, S: Session> Connection<'a, S> {
    pub(super) fn new(tie: &'a Tie<S>, owner: &'a mut Owner, waiters: &'a RoomWaiters) -> Self {
        Self { tie, owner, waiters, wants_close: false }
    }

    pub(super) fn wants_close(&self) -> bool {
        self.wants_close
    }

    /// The manager's key: what others need to send to it, or to evict it.
    pub fn key(&self) -> Key {
        self.tie.key()
    }

    /// Who the connection belongs to.
    pub fn context(&self) -> &UserExecutionContext {
        self.tie.context()
    }

    /// Reads the manager. Lock-free.
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    pub fn with<T>(&self, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Result<T, Revoked> {
        self.tie.with(f)
    }

    /// Uses the application's own state. Synchronous, under a pin: keep it short.
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    pub fn with_session<T>(&mut self, f: impl FnOnce(&mut S) -> T) -> Result<T, Revoked> {
        self.tie.with_session(self.owner, f)
    }

    /// Queues a message for this connection. It leaves before anything more is read, or while the
    /// present method is pending.
    pub fn send(&self, message: Message) -> SendOutcome {
        self.tie.send(message)
    }

    /// Waits until what is queued for this connection has fallen to its low water
    /// ([`OutboundLimits::low_water`](crate::OutboundLimits::low_water)): for a handler that has much to
    /// say, and is to say it no faster than the peer listens. Ready at once if so little is queued already.
    ///
    /// ```
    /// use ws_manager_pool::Message;
    /// use ws_manager_pool::serve::{Connection, HandlerError};
    ///
    /// async fn count(conn: &mut Connection<'_, ()>) -> Result<(), HandlerError> {
    ///     for number in 0..1_000_000 {
    ///         conn.room().await?;
    ///         let _ = conn.send(Message::text(number.to_string()));
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// It may be dropped at any time, and waited for by several futures of the handler side by side, as in a
    /// `select` or in `FuturesUnordered`.
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    pub fn room(&self) -> impl Future<Output = Result<(), Revoked>> + Send {
        WaitForRoom::new(self.tie, self.waiters)
    }

    /// Asks for the end of the connection, with code 1000, once the present method has returned and
    /// what is queued has been sent.
    pub fn close(&mut self) {
        self.wants_close = true;
    }
}

impl<S: Session> fmt::Debug for Connection<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("key", &self.key())
            .field("context", self.context())
            .field("wants_close", &self.wants_close)
            .finish_non_exhaustive()
    }
}

/// A message that came in, borrowed. `Debug` shows kind and length, never content.
#[derive(Clone, Copy)]
pub struct Received<'a> {
    payload: &'a [u8],
    /// The same, where the WebSocket library gave one that can be shared.
    shared: Option<&'a Bytes>,
    is_text: bool,
}

impl<'a> Received<'a> {
    #[cfg(feature = "engine")]
    pub(super) fn borrowed(payload: &'a [u8], is_text: bool) -> Self {
        Self { payload, shared: None, is_text }
    }

    pub(super) fn shared(payload: &'a Bytes, is_text: bool) -> Self {
        Self { payload, shared: Some(payload), is_text }
    }

    /// Is it a text message?
    pub fn is_text(&self) -> bool {
        self.is_text
    }

    /// The text; `None` for a binary message. Checks the bytes again, linear in the length: take it
    /// once.
    pub fn as_text(&self) -> Option<&'a str> {
        if self.is_text { std::str::from_utf8(self.payload).ok() } else { None }
    }

    /// The payload of either kind.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.payload
    }

    /// Length of the payload in bytes.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Is the payload empty?
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// The payload to keep. Shares it where the WebSocket library gave a shared one, else copies it.
    pub fn to_bytes(&self) -> Bytes {
        self.shared.map_or_else(|| Bytes::copy_from_slice(self.payload), Bytes::clone)
    }

    /// The message to keep, or to send on. Shares the payload where the WebSocket library gave a
    /// shared one, else copies it.
    pub fn to_message(&self) -> Message {
        let payload = self.to_bytes();
        if !self.is_text {
            return Message::binary(payload);
        }
        // Not UTF-8: the library that said it was text broke its promise. The bytes go on as they are.
        Message::text_from_utf8(payload).unwrap_or_else(|invalid| Message::binary(invalid.payload))
    }
}

impl fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_text { "text" } else { "binary" };
        write!(f, "Received({kind}, {} bytes)", self.len())
    }
}

/// Why a handler gave up. Any error becomes one by `?`; the connection is closed with code 1011, and
/// the peer learns nothing more.
pub struct HandlerError(Box<dyn Error + Send + Sync>);

impl HandlerError {
    /// From an error, or from a text that says what went wrong.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }

    /// The error itself.
    pub fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a connection ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct CloseReport {
    /// The manager's key. Stale by now.
    pub key: Key,
    /// Whose connection it was.
    pub context: UserExecutionContext,
    /// Why it ended.
    pub reason: EndReason,
    /// The close code: the peer's if it closed (1005 if it gave none, 1006 if it vanished without a
    /// close frame), else the one that it is told.
    pub close_code: u16,
    /// Application messages that came in.
    pub messages_in: u64,
    /// Application messages that were handed to the socket.
    pub messages_out: u64,
    /// What the handler returned, if that was the end.
    pub handler_error: Option<HandlerError>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_received_message_keeps_its_kind_and_shows_no_content() {
        let payload = Bytes::from("hunter2");
        let (text, binary) = (Received::shared(&payload, true), Received::shared(&payload, false));
        assert_eq!((text.as_text(), binary.as_text()), (Some("hunter2"), None));
        assert_eq!((text.to_message().is_text(), binary.to_message().is_text()), (true, false));
        assert_eq!(text.to_message().as_bytes().as_ptr(), payload.as_ptr(), "shared, not copied");
        assert_eq!(format!("{text:?} {binary:?}"), "Received(text, 7 bytes) Received(binary, 7 bytes)");
    }

    #[test]
    fn text_that_is_none_goes_on_as_bytes() {
        let payload = Bytes::from_static(b"\xff");
        let message = Received::shared(&payload, true);
        assert_eq!((message.as_text(), message.to_message().is_text()), (None, false));
    }
}
