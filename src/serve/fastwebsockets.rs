//! `serve` over a `fastwebsockets::WebSocket`, whose reads and writes are futures that must not be
//! dropped half done.
//!
//! The library parses frames and formats headers. It reads one half of the socket, in a future that is
//! kept between polls and set anew in its place, so that no frame costs a boxed future and a pending
//! read holds up no write; the other half is written here.

use super::fragments::{Fragments, Part};
use super::transport::{CloseFrame, Fault, Frame, Transport};
use crate::config::Config;
use ::fastwebsockets::{Frame as WireFrame, OpCode, Payload, Role, WebSocket, WebSocketError};
use bytes::{Buf, Bytes, BytesMut};
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadHalf, Sink, WriteHalf, join, sink, split};
use tokio_util::io::poll_write_buf;

/// A server's connection of fastwebsockets, for [`serve`](super::serve()): right after its handshake,
/// before anything has been read from it. Its settings are made here, with the sizes of the
/// configuration; the feature `simd` of the library is its user's to choose.
///
/// Beyond what the library checks, an unmasked frame, a control frame of more than 125 bytes and a
/// fragmented message that grows past the bound are refused.
///
/// ```
/// use fastwebsockets::upgrade::UpgradeFut;
/// use ws_manager_pool::serve::{application, fastwebsockets, serve};
/// use ws_manager_pool::{Pool, Reservation};
///
/// async fn connection(upgrade: UpgradeFut, pool: Pool, reservation: Reservation) {
///     let Ok(socket) = upgrade.await else { return };
///     let Ok(lease) = reservation.open() else { return };
///     let socket = fastwebsockets(socket, &pool.config());
///     serve(socket, lease, application(|_, _| Ok(()))).await;
/// }
/// ```
pub fn fastwebsockets<S>(socket: WebSocket<S>, config: &Config) -> impl Transport + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (read_half, write_half) = split(socket.into_inner());
    // What the library would answer by itself, to a close, goes nowhere: `serve` answers.
    let mut reader = WebSocket::after_handshake(join(read_half, sink()), Role::Server);
    reader.set_auto_pong(false);
    // It refuses from this size on.
    reader.set_max_message_size(config.inbound_frame_bytes.saturating_add(1));
    FastWebSocket {
        reading: read(reader),
        read: read::<S>,
        is_over: false,
        fragments: Fragments::new(config.inbound_message_bytes),
        outbound: Outbound { io: write_half, buffer: BytesMut::new(), tail: Bytes::new() },
    }
}

/// The library's part, which has the socket's reading half only.
type Reader<S> = WebSocket<Join<ReadHalf<S>, Sink>>;

type Reading<S> = (Reader<S>, Result<WireFrame<'static>, WebSocketError>);

async fn read<S: AsyncRead + AsyncWrite + Unpin>(mut reader: Reader<S>) -> Reading<S> {
    let frame = reader.read_frame().await;
    (reader, frame)
}

pin_project! {
    struct FastWebSocket<S, F, R> {
        #[pin]
        reading: F,
        // Makes the next `reading`.
        read: R,
        is_over: bool,
        fragments: Fragments,
        outbound: Outbound<S>,
    }
}

impl<S, F, R> Transport for FastWebSocket<S, F, R>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Reading<S>>,
    R: Fn(Reader<S>) -> F,
{
    fn poll_recv(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Fault>>> {
        let mut this = self.project();
        // Ends: a socket that always has more is made to wait by the runtime.
        while !*this.is_over {
            let (reader, frame) = ready!(this.reading.as_mut().poll(cx));
            this.reading.set((this.read)(reader));
            match frame.map_err(fault).and_then(|frame| accept(frame, this.fragments)) {
                Ok(None) => {}
                Ok(Some(frame)) => {
                    if let Frame::Ping(payload) = &frame {
                        this.outbound.put(OpCode::Pong, payload.clone());
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Err(fault) => {
                    *this.is_over = true;
                    return Poll::Ready(Some(Err(fault)));
                }
            }
        }
        Poll::Ready(None)
    }

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let outbound = self.project().outbound;
        if outbound.has_room() { Poll::Ready(Ok(())) } else { outbound.poll_write(cx) }
    }

    fn start_send(self: Pin<&mut Self>, frame: Frame) -> Result<(), Fault> {
        let outbound = self.project().outbound;
        match frame {
            Frame::Text(payload) => outbound.put(OpCode::Text, payload),
            Frame::Binary(payload) => outbound.put(OpCode::Binary, payload),
            Frame::Ping(payload) => outbound.put(OpCode::Ping, payload),
            Frame::Pong(payload) => outbound.put(OpCode::Pong, payload),
            Frame::Close(None) => outbound.put(OpCode::Close, Bytes::new()),
            Frame::Close(Some(CloseFrame { code, reason })) => {
                outbound.put(OpCode::Close, [&code.to_be_bytes(), &*reason].concat().into());
            }
        }
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.project().outbound.poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let outbound = self.project().outbound;
        ready!(outbound.poll_flush(cx))?;
        Pin::new(&mut outbound.io).poll_shutdown(cx).map_err(|_| Fault::Socket)
    }
}

/// A frame as `serve` takes it, once the message that it belongs to is complete.
fn accept(mut frame: WireFrame<'_>, fragments: &mut Fragments) -> Result<Option<Frame>, Fault> {
    const IS_MASKED: u8 = 0x80;
    const LONGEST_CONTROL: usize = 125;

    let mut head = [0; HEAD];
    frame.fmt_head(&mut head);
    let is_control = matches!(frame.opcode, OpCode::Close | OpCode::Ping | OpCode::Pong);
    if head[1] & IS_MASKED == 0 || (is_control && frame.payload.len() > LONGEST_CONTROL) {
        return Err(Fault::Protocol);
    }
    let (is_last, opcode) = (frame.fin, frame.opcode);
    let payload = match frame.payload {
        Payload::Bytes(payload) => payload.freeze(),
        payload => Bytes::from(Vec::from(payload)),
    };
    match opcode {
        OpCode::Text => fragments.add(Part::Text, payload, is_last),
        OpCode::Binary => fragments.add(Part::Binary, payload, is_last),
        OpCode::Continuation => fragments.add(Part::Continuation, payload, is_last),
        OpCode::Ping => Ok(Some(Frame::Ping(payload))),
        OpCode::Pong => Ok(Some(Frame::Pong(payload))),
        OpCode::Close => Ok(Some(Frame::Close(close_frame(payload)))),
    }
}

/// The library has checked code and text.
fn close_frame(mut payload: Bytes) -> Option<CloseFrame> {
    let code = payload.try_get_u16().ok()?;
    Some(CloseFrame::new(code, payload))
}

fn fault(error: WebSocketError) -> Fault {
    match error {
        WebSocketError::InvalidUTF8 => Fault::InvalidUtf8,
        WebSocketError::FrameTooLarge => Fault::TooLarge,
        WebSocketError::UnexpectedEOF | WebSocketError::IoError(_) | WebSocketError::ConnectionClosed => {
            Fault::Socket
        }
        _ => Fault::Protocol,
    }
}

/// Room for the longest header, as the library asks.
const HEAD: usize = 16;

/// A payload of more bytes is written from where it is.
const COPIED: usize = 4 << 10;

/// As many bytes may wait before one more frame has no room.
const WAITING: usize = 8 << 10;

/// What is written, in this order: small frames together, then the payload of a large one.
struct Outbound<S> {
    io: WriteHalf<S>,
    buffer: BytesMut,
    tail: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Outbound<S> {
    fn has_room(&self) -> bool {
        self.tail.is_empty() && self.buffer.len() < WAITING
    }

    fn put(&mut self, opcode: OpCode, payload: Bytes) {
        // A pong has no room to wait for.
        self.buffer.extend_from_slice(&std::mem::take(&mut self.tail));
        let mut head = [0; HEAD];
        let head_len = WireFrame::new(true, opcode, None, Payload::Borrowed(&payload)).fmt_head(&mut head);
        self.buffer.extend_from_slice(&head[..head_len]);
        if payload.len() <= COPIED {
            self.buffer.extend_from_slice(&payload);
        } else {
            self.tail = payload;
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Self { io, buffer, tail } = self;
        while buffer.has_remaining() || tail.has_remaining() {
            match ready!(poll_write_buf(Pin::new(&mut *io), cx, &mut (&mut *buffer).chain(&mut *tail))) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(Fault::Socket)),
            }
        }
        // Written out: a large payload is let go, and so is a buffer that had to take one.
        *tail = Bytes::new();
        if buffer.capacity() > WAITING {
            *buffer = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        ready!(self.poll_write(cx))?;
        Pin::new(&mut self.io).poll_flush(cx).map_err(|_| Fault::Socket)
    }
}
