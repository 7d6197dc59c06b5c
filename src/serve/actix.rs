//! `serve` over the two halves that `actix_ws::handle` gives.

use super::fragments::{Fragments, Part};
use super::transport::{CloseFrame, Fault, Frame, Transport};
use crate::config::Config;
use ::actix_ws::{CloseReason, Item, Message, MessageStream, ProtocolError, Session};
use actix_http::error::PayloadError;
use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;
use std::io;
use std::pin::Pin;
use std::str::Utf8Error;
use std::task::{Context, Poll, ready};

/// A connection of actix-ws, for [`serve`](super::serve()): what `actix_ws::handle` gives beside the
/// response, with the sizes of the configuration. Nothing here is `Send`, so spawn it on Actix's own
/// threads.
///
/// Of Actix's own: a frame that is too long is refused only once it has been read to its end; a mistake
/// is heard of before the messages that came in with it; and after the close handshake Actix waits for
/// the client to hang up, though a WebSocket client waits for the server to, unless
/// `HttpServer::client_disconnect_timeout` is zero.
///
/// ```
/// use actix_web::rt;
/// use actix_web::web::{Data, Payload};
/// use actix_web::{Error, HttpRequest, HttpResponse, error};
/// use ws_manager_pool::serve::{actix, application, serve};
/// use ws_manager_pool::{IdGenerator, Pool, UserExecutionContext};
///
/// async fn connect(request: HttpRequest, body: Payload, pool: Data<Pool>) -> Result<HttpResponse, Error> {
///     let user = request.query_string(); // a real server authenticates here
///     let ids = IdGenerator::user_context_ids(user, "chat");
///     let context = UserExecutionContext::from_websocket_request(user, ids)
///         .map_err(error::ErrorBadRequest)?;
///     let reservation = pool.reserve(&context).map_err(error::ErrorServiceUnavailable)?;
///     let (response, session, stream) = actix_ws::handle(&request, body)?;
///     rt::spawn(async move {
///         let Ok(lease) = reservation.open() else { return };
///         let socket = actix(session, stream, &pool.config());
///         serve(socket, lease, application(|_, _| Ok(()))).await;
///     });
///     Ok(response)
/// }
/// ```
pub fn actix(session: Session, stream: MessageStream, config: &Config) -> impl Transport + use<> {
    Actix {
        session,
        stream: stream.max_frame_size(config.inbound_frame_bytes),
        fragments: Fragments::new(config.inbound_message_bytes),
        pong: None,
        is_over: false,
    }
}

struct Actix {
    session: Session,
    stream: MessageStream,
    fragments: Fragments,
    /// The answer to the last ping, as long as the session has no room for it.
    pong: Option<Bytes>,
    is_over: bool,
}

impl Transport for Actix {
    fn poll_recv(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Fault>>> {
        // Ends: what came in was bounded by Actix.
        while !self.is_over {
            let Some(message) = ready!(Pin::new(&mut self.stream).poll_next(cx)) else { break };
            match message.map_err(fault).and_then(|message| accept(message, &mut self.fragments)) {
                Ok(None) => {}
                Ok(Some(frame)) => {
                    if let Frame::Ping(payload) = &frame {
                        self.pong = Some(payload.clone());
                        // Pending or failed: the next flush finds out.
                        let _ = self.poll_pong(cx);
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Err(fault) => {
                    self.is_over = true;
                    return Poll::Ready(Some(Err(fault)));
                }
            }
        }
        Poll::Ready(None)
    }

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        ready!(self.poll_pong(cx))?;
        Pin::new(&mut self.session).poll_ready(cx).map_err(|_closed| Fault::Socket)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> Result<(), Fault> {
        let message = message(frame)?;
        Pin::new(&mut self.session).start_send(message).map_err(|_closed| Fault::Socket)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        ready!(self.poll_pong(cx))?;
        Pin::new(&mut self.session).poll_flush(cx).map_err(|_closed| Fault::Socket)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Pin::new(&mut self.session).poll_close(cx).map_err(|_closed| Fault::Socket)
    }
}

impl Actix {
    /// Answers a ping that is not answered yet.
    fn poll_pong(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.pong.is_some() {
            ready!(Pin::new(&mut self.session).poll_ready(cx)).map_err(|_closed| Fault::Socket)?;
        }
        match self.pong.take() {
            Some(payload) => {
                let sent = Pin::new(&mut self.session).start_send(Message::Pong(payload));
                Poll::Ready(sent.map_err(|_closed| Fault::Socket))
            }
            None => Poll::Ready(Ok(())),
        }
    }
}

/// A message as `serve` takes it, once all its fragments are there.
fn accept(message: Message, fragments: &mut Fragments) -> Result<Option<Frame>, Fault> {
    match message {
        Message::Text(text) => fragments.add(Part::Text, text.into_bytes(), true),
        Message::Binary(payload) => fragments.add(Part::Binary, payload, true),
        Message::Continuation(Item::FirstText(payload)) => fragments.add(Part::Text, payload, false),
        Message::Continuation(Item::FirstBinary(payload)) => fragments.add(Part::Binary, payload, false),
        Message::Continuation(Item::Continue(payload)) => fragments.add(Part::Continuation, payload, false),
        Message::Continuation(Item::Last(payload)) => fragments.add(Part::Continuation, payload, true),
        Message::Ping(payload) => Ok(Some(Frame::Ping(payload))),
        Message::Pong(payload) => Ok(Some(Frame::Pong(payload))),
        Message::Close(close) => Ok(Some(Frame::Close(close.map(|CloseReason { code, description }| {
            CloseFrame::new(code.into(), description.unwrap_or_default())
        })))),
        Message::Nop => Ok(None),
    }
}

fn message(frame: Frame) -> Result<Message, Fault> {
    let text = |payload: Bytes| payload.try_into().map_err(|_| Fault::InvalidUtf8);
    Ok(match frame {
        Frame::Text(payload) => Message::Text(text(payload)?),
        Frame::Binary(payload) => Message::Binary(payload),
        Frame::Ping(payload) => Message::Ping(payload),
        Frame::Pong(payload) => Message::Pong(payload),
        Frame::Close(None) => Message::Close(None),
        Frame::Close(Some(CloseFrame { code, reason })) => {
            let reason = String::from_utf8(reason.into()).map_err(|_| Fault::InvalidUtf8)?;
            Message::Close(Some(CloseReason { code: code.into(), description: Some(reason) }))
        }
    })
}

fn fault(error: ProtocolError) -> Fault {
    match error {
        ProtocolError::Overflow => Fault::TooLarge,
        ProtocolError::Io(error) => io_fault(&error),
        _ => Fault::Protocol,
    }
}

/// The library reports what the peer did wrong as an I/O error, too.
fn io_fault(error: &io::Error) -> Fault {
    match error.get_ref() {
        Some(cause) if cause.is::<Utf8Error>() => Fault::InvalidUtf8,
        Some(cause) if cause.is::<PayloadError>() => Fault::Socket,
        _ if error.kind() == io::ErrorKind::InvalidData => Fault::Protocol,
        _ => Fault::Socket,
    }
}
