//! tokio-tungstenite, split into a reader and a writer task.

use super::Buffers;
use super::hub::{Hub, Peer};
use crate::loopback::Result;
use crate::protocol::{TUNED_BUFFER, user};
use crate::stopwatch;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

pub(crate) async fn run(listener: TcpListener, buffers: Buffers) -> Result<()> {
    let hub = Hub::new();
    let config = match buffers {
        Buffers::Default => WebSocketConfig::default(),
        Buffers::Tuned => {
            WebSocketConfig::default().read_buffer_size(TUNED_BUFFER).write_buffer_size(TUNED_BUFFER)
        }
    };
    loop {
        let (stream, _) = listener.accept().await?;
        stopwatch::accepted();
        tokio::spawn(connection(stream, config, hub.clone()));
    }
}

async fn connection(stream: TcpStream, config: WebSocketConfig, hub: Arc<Hub<Message>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut name = String::new();
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let admit = |request: &Request, response: Response| match user(request.uri().query()) {
        Some(user) => {
            user.clone_into(&mut name);
            Ok(response)
        }
        None => Err(bad_request()),
    };
    let socket = accept_hdr_async_with_config(stream, admit, Some(config)).await.ok()?;
    // A task keeps the size of its largest moment, which is over: a smaller one for the rest.
    tokio::spawn(talk(socket, name, hub));
    Some(())
}

async fn talk(socket: WebSocketStream<TcpStream>, name: String, hub: Arc<Hub<Message>>) -> Option<()> {
    let (sink, mut messages) = socket.split();
    let (entry, queue) = hub.enter(&name);
    let writer = tokio::spawn(write(sink, queue, entry.peer()));
    while let Some(Ok(message)) = messages.next().await {
        match message {
            Message::Text(text) => {
                let said = entry.said(&text, || Message::Text(text.clone()), Message::text);
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
    Some(())
}

type Sink = SplitSink<WebSocketStream<TcpStream>, Message>;

async fn write(mut sink: Sink, mut queue: mpsc::Receiver<Message>, peer: Arc<Peer<Message>>) -> Option<()> {
    let mut heartbeat = peer.heartbeat();
    loop {
        tokio::select! {
            message = queue.recv() => sink.send(message?).await.ok()?,
            _ = heartbeat.tick() => {
                if peer.is_silent() {
                    return None;
                }
                sink.send(Message::Ping(Bytes::new())).await.ok()?;
            }
        }
    }
}

fn bad_request() -> ErrorResponse {
    let mut response = ErrorResponse::new(Some("say who you are: ?user=name".to_owned()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
