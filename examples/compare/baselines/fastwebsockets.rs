//! fastwebsockets, upgraded by hyper and split into a reader and a writer task. Its read buffer is 8 KiB
//! and cannot be set, so there is one server of it, which counts as tuned.

use super::hub::{Hub, Peer};
use crate::loopback::Result;
use crate::protocol::user;
use crate::stopwatch;
use ::fastwebsockets::upgrade::{UpgradeFut, upgrade};
use ::fastwebsockets::{FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError, WebSocketWrite};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use tokio::io::WriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

pub(crate) async fn run(listener: TcpListener) -> Result<()> {
    let hub = Hub::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stopwatch::accepted();
        tokio::spawn(http(stream, hub.clone()));
    }
}

/// What the writer sends. The library's own frames cannot be cloned.
#[derive(Clone)]
enum Outgoing {
    Text(Bytes),
    Pong(Bytes),
    Close(Bytes),
}

async fn http(stream: TcpStream, hub: Arc<Hub<Outgoing>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let answer = service_fn(|request| ready(Ok::<_, Infallible>(enter(request, &hub))));
    http1::Builder::new().serve_connection(TokioIo::new(stream), answer).with_upgrades().await.ok()
}

fn enter(mut request: Request<Incoming>, hub: &Arc<Hub<Outgoing>>) -> Response<Full<Bytes>> {
    let Some(user) = user(request.uri().query()).map(str::to_owned) else {
        return bad_request("say who you are: ?user=name");
    };
    match upgrade(&mut request) {
        Ok((response, upgraded)) => {
            tokio::spawn(connection(upgraded, user, hub.clone()));
            response.map(|_empty| Full::default())
        }
        Err(_no_handshake) => bad_request("connect by WebSocket"),
    }
}

fn bad_request(why: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(why));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

async fn connection(upgraded: UpgradeFut, user: String, hub: Arc<Hub<Outgoing>>) -> Option<()> {
    let (reader, sink) = upgraded.await.ok()?.split(tokio::io::split);
    let mut reader = FragmentCollectorRead::new(reader);
    let (entry, queue) = hub.enter(&user);
    let writer = tokio::spawn(write(sink, queue, entry.peer()));
    // Pongs and the answer to a close frame, which the library leaves to us.
    let mut reply = async |frame: Frame<'_>| {
        let payload = Bytes::copy_from_slice(&frame.payload);
        let reply = if frame.opcode == OpCode::Pong { Outgoing::Pong } else { Outgoing::Close };
        entry.send(reply(payload)).await.ok_or(WebSocketError::ConnectionClosed)
    };
    while let Ok(frame) = reader.read_frame(&mut reply).await {
        match frame.opcode {
            OpCode::Text => {
                let payload = shared(frame.payload);
                let Ok(text) = std::str::from_utf8(&payload) else { break };
                let message = || Outgoing::Text(payload.clone());
                if entry.said(text, message, |answer| Outgoing::Text(answer.into())).await.is_none() {
                    break;
                }
            }
            OpCode::Close => break,
            _ => entry.heard(),
        }
    }
    drop(entry);
    writer.abort();
    Some(())
}

/// Copies only what the library itself has borrowed.
fn shared(payload: Payload<'_>) -> Bytes {
    match payload {
        Payload::Bytes(bytes) => bytes.freeze(),
        Payload::Owned(bytes) => bytes.into(),
        Payload::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
        Payload::BorrowedMut(bytes) => Bytes::copy_from_slice(bytes),
    }
}

type Sink = WebSocketWrite<WriteHalf<TokioIo<Upgraded>>>;

async fn write(mut sink: Sink, mut queue: mpsc::Receiver<Outgoing>, peer: Arc<Peer<Outgoing>>) -> Option<()> {
    let mut heartbeat = peer.heartbeat();
    loop {
        tokio::select! {
            outgoing = queue.recv() => {
                let outgoing = outgoing?;
                let frame = match &outgoing {
                    Outgoing::Text(text) => Frame::text(Payload::Borrowed(text)),
                    Outgoing::Pong(payload) => Frame::pong(Payload::Borrowed(payload)),
                    Outgoing::Close(payload) => Frame::close_raw(Payload::Borrowed(payload)),
                };
                sink.write_frame(frame).await.ok()?;
            }
            _ = heartbeat.tick() => {
                if peer.is_silent() {
                    return None;
                }
                let ping = Frame::new(true, OpCode::Ping, None, Payload::Borrowed(&[]));
                sink.write_frame(ping).await.ok()?;
            }
        }
    }
}
