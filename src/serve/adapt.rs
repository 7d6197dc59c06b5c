//! `serve` over a library that this crate does not know.

use super::transport::{Fault, Frame, Transport};
use futures_core::Stream;
use futures_sink::Sink;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A connection of any WebSocket library, for [`serve`](super::serve()): a `Stream` of `Result`s of its
/// message type and a `Sink` of it, and three functions that translate. What the library has to do by
/// itself is said at [`Transport`]. For a message type of your own,
/// [`WireMessage`](super::WireMessage) does the same without this function.
///
/// - `into_frame`: a message that came in; `None` for what is not meant for the application;
/// - `from_frame`: a message to be sent; a [`Fault`] if the library has no such message;
/// - `fault`: what the library's error means.
///
/// ```
/// # use futures_core::Stream;
/// # use futures_sink::Sink;
/// # mod library {
/// #     pub enum Message { Text(String), Bytes(Vec<u8>), Ping(Vec<u8>), Pong(Vec<u8>), Bye(u16) }
/// #     pub enum Error { BadFrame, BadText, TooLong, Io(std::io::Error) }
/// # }
/// use library::{Error, Message};
/// use ws_manager_pool::Lease;
/// use ws_manager_pool::serve::{CloseFrame, Fault, Frame, adapt, application, serve};
///
/// async fn connection<S>(socket: S, lease: Lease<()>)
/// where
///     S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error>,
/// {
///     let into_frame = |message| {
///         Some(match message {
///             Message::Text(text) => Frame::Text(text.into()),
///             Message::Bytes(bytes) => Frame::Binary(bytes.into()),
///             Message::Ping(bytes) => Frame::Ping(bytes.into()),
///             Message::Pong(bytes) => Frame::Pong(bytes.into()),
///             Message::Bye(code) => Frame::Close(Some(CloseFrame::new(code, ""))),
///         })
///     };
///     let from_frame = |frame| {
///         Ok(match frame {
///             Frame::Text(text) => {
///                 Message::Text(String::from_utf8(text.into()).map_err(|_| Fault::InvalidUtf8)?)
///             }
///             Frame::Binary(bytes) => Message::Bytes(bytes.into()),
///             Frame::Ping(bytes) => Message::Ping(bytes.into()),
///             Frame::Pong(bytes) => Message::Pong(bytes.into()),
///             Frame::Close(close) => Message::Bye(close.map_or(1000, |close| close.code)),
///         })
///     };
///     let fault = |error| match error {
///         Error::BadFrame => Fault::Protocol,
///         Error::BadText => Fault::InvalidUtf8,
///         Error::TooLong => Fault::TooLarge,
///         Error::Io(_) => Fault::Socket,
///     };
///     let socket = adapt(socket, into_frame, from_frame, fault);
///     serve(socket, lease, application(|_, _| Ok(()))).await;
/// }
/// ```
pub fn adapt<T, M, E, I, F, G>(socket: T, into_frame: I, from_frame: F, fault: G) -> impl Transport
where
    T: Stream<Item = Result<M, E>> + Sink<M, Error = E>,
    I: FnMut(M) -> Option<Frame>,
    F: FnMut(Frame) -> Result<M, Fault>,
    G: FnMut(E) -> Fault,
{
    Adapted { socket, into_frame, from_frame, fault }
}

pin_project! {
    struct Adapted<T, I, F, G> {
        #[pin]
        socket: T,
        into_frame: I,
        from_frame: F,
        fault: G,
    }
}

impl<T, M, E, I, F, G> Transport for Adapted<T, I, F, G>
where
    T: Stream<Item = Result<M, E>> + Sink<M, Error = E>,
    I: FnMut(M) -> Option<Frame>,
    F: FnMut(Frame) -> Result<M, Fault>,
    G: FnMut(E) -> Fault,
{
    fn poll_recv(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Fault>>> {
        let this = self.project();
        poll_recv(this.socket, cx, this.into_frame, this.fault)
    }

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let this = self.project();
        this.socket.poll_ready(cx).map_err(this.fault)
    }

    fn start_send(self: Pin<&mut Self>, frame: Frame) -> Result<(), Fault> {
        let this = self.project();
        start_send(this.socket, frame, this.from_frame, this.fault)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let this = self.project();
        this.socket.poll_flush(cx).map_err(this.fault)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let this = self.project();
        this.socket.poll_close(cx).map_err(this.fault)
    }
}

/// The next message that is a frame.
pub(super) fn poll_recv<T, M, E>(
    mut socket: Pin<&mut T>,
    cx: &mut Context<'_>,
    mut into_frame: impl FnMut(M) -> Option<Frame>,
    mut fault: impl FnMut(E) -> Fault,
) -> Poll<Option<Result<Frame, Fault>>>
where
    T: Stream<Item = Result<M, E>>,
{
    // Ends: a library hands out few messages that are none.
    loop {
        match socket.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => {
                if let Some(frame) = into_frame(message) {
                    return Poll::Ready(Some(Ok(frame)));
                }
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(fault(error)))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Takes a frame. A library that is closing by itself, since the peer did or made a mistake, refuses our
/// close frame; its own is as good.
pub(super) fn start_send<T, M, E>(
    socket: Pin<&mut T>,
    frame: Frame,
    mut from_frame: impl FnMut(Frame) -> Result<M, Fault>,
    mut fault: impl FnMut(E) -> Fault,
) -> Result<(), Fault>
where
    T: Sink<M, Error = E>,
{
    let is_close = matches!(frame, Frame::Close(_));
    match socket.start_send(from_frame(frame)?) {
        Err(error) if !is_close => Err(fault(error)),
        _ => Ok(()),
    }
}
