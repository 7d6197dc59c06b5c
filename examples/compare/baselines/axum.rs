//! A route of axum, split into a reader and a writer task.

use super::Buffers;
use super::hub::{Hub, Peer};
use crate::loopback::Result;
use crate::protocol::{TUNED_BUFFER, user};
use crate::stopwatch;
use ::axum::Router;
use ::axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use ::axum::extract::{RawQuery, State};
use ::axum::http::StatusCode;
use ::axum::response::{IntoResponse, Response};
use ::axum::routing::any;
use ::axum::serve::Listener;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

pub(crate) async fn run(listener: TcpListener, buffers: Buffers) -> Result<()> {
    let router = Router::new().route("/", any(enter)).with_state((Hub::new(), buffers));
    Ok(::axum::serve(Timed(listener), router).await?)
}

type Room = (Arc<Hub<Message>>, Buffers);

async fn enter(
    State((hub, buffers)): State<Room>,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let Some(user) = user(query.as_deref()).map(str::to_owned) else {
        return (StatusCode::BAD_REQUEST, "say who you are: ?user=name").into_response();
    };
    let upgrade = match buffers {
        Buffers::Default => upgrade,
        Buffers::Tuned => upgrade.read_buffer_size(TUNED_BUFFER).write_buffer_size(TUNED_BUFFER),
    };
    upgrade.on_upgrade(move |socket| connection(socket, user, hub))
}

async fn connection(socket: WebSocket, user: String, hub: Arc<Hub<Message>>) {
    let (sink, mut messages) = socket.split();
    let (entry, queue) = hub.enter(&user);
    let writer = tokio::spawn(write(sink, queue, entry.peer()));
    while let Some(Ok(message)) = messages.next().await {
        match message {
            Message::Text(text) => {
                let said = entry.said(&text, || Message::Text(text.clone()), Message::from);
                if said.await.is_none() {
                    break;
                }
            }
            Message::Close(_) => break,
            _ => entry.heard(),
        }
    }
    drop(entry);
    writer.abort();
}

type Sink = SplitSink<WebSocket, Message>;

async fn write(mut sink: Sink, mut queue: mpsc::Receiver<Message>, peer: Arc<Peer<Message>>) -> Option<()> {
    let mut heartbeat = peer.heartbeat();
    loop {
        tokio::select! {
            message = queue.recv() => sink.send(message?).await.ok()?,
            _ = heartbeat.tick() => {
                if peer.is_silent() {
                    return None;
                }
                sink.send(Message::Ping(Vec::new().into())).await.ok()?;
            }
        }
    }
}

/// A listener that sets `TCP_NODELAY` and looks at the clock: what the other servers do in their loops.
pub(crate) struct Timed(pub(crate) TcpListener);

impl Listener for Timed {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let accepted = Listener::accept(&mut self.0).await;
        stopwatch::accepted();
        // A socket that is broken already ends at its first use.
        let _ = accepted.0.set_nodelay(true);
        accepted
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
