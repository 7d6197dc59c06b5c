//! The servers that are compared. Same WebSocket library, same buffers, same bounds, same heartbeat; a
//! message goes to everybody, or to the user that it names.

use crate::client::addressee;
use crate::contender::Contender;
use crate::loopback::Result;
use crate::process::pin;
use futures_util::SinkExt;
use futures_util::stream::{SplitSink, StreamExt};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::interval;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message as Wire};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};
use ws_manager_pool::serve::{Application, Connection, HandlerError, Received, serve};
use ws_manager_pool::{IdGenerator, OutboundLimits, OverflowPolicy, Pool, UserExecutionContext, UserId};

/// Messages that may wait for one connection, in every server.
pub(crate) const QUEUE: usize = 64;

const PING_AFTER: Duration = Duration::from_secs(20);
const DEAD_AFTER: Duration = Duration::from_secs(10);

/// Serves until the process is killed. The first line it prints is its address.
pub(crate) fn run(contender: Contender, core: usize) -> Result<()> {
    pin(core)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        match contender {
            Contender::Pool => pooled(listener).await,
            Contender::Channel => channelled(listener, false).await,
            Contender::BatchingChannel => channelled(listener, true).await,
        }
    })
}

/// Shakes hands, and says as whom.
async fn accept(stream: TcpStream) -> Result<(WebSocketStream<TcpStream>, String)> {
    stream.set_nodelay(true)?;
    let mut user = String::new();
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let hear = |request: &Request, response: Response| {
        request.uri().query().unwrap_or_default().clone_into(&mut user);
        Ok(response)
    };
    let config = WebSocketConfig::default().read_buffer_size(4_096).write_buffer_size(4_096);
    let socket = accept_hdr_async_with_config(stream, hear, Some(config)).await?;
    Ok((socket, user))
}

async fn pooled(listener: TcpListener) -> Result<()> {
    let outbound = OutboundLimits::default().with_messages(QUEUE).with_overflow(OverflowPolicy::Disconnect);
    let pool: Pool = Pool::builder()
        .name("bench-delivery")
        .heartbeat_interval(PING_AFTER)
        .heartbeat_timeout(DEAD_AFTER)
        .outbound(outbound)
        .build()?;
    answer_for(pool.clone());
    let app = Arc::new(Relay { pool: pool.clone() });
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(pooled_connection(stream, pool.clone(), app.clone()));
    }
}

async fn pooled_connection(stream: TcpStream, pool: Pool, app: Arc<Relay>) -> Option<()> {
    let (socket, user) = accept(stream).await.ok()?;
    let ids = IdGenerator::user_context_ids(&user, "bench");
    let context = UserExecutionContext::from_websocket_request(&user, ids).ok()?;
    let lease = pool.reserve(&context).ok()?.open().ok()?;
    // A small task for the long time after the handshake.
    tokio::spawn(async move { drop(serve(socket, lease, app).await) });
    Some(())
}

struct Relay {
    pool: Pool,
}

impl Application for Relay {
    type Session = ();

    async fn received(
        &self,
        _conn: &mut Connection<'_, ()>,
        message: Received<'_>,
    ) -> std::result::Result<(), HandlerError> {
        let to = addressee(message.as_bytes()).ok_or_else(|| HandlerError::new("no addressee"))?;
        // What was not taken is missed by its receiver, who counts.
        let _ = if to.is_empty() {
            self.pool.broadcast(message.to_message())
        } else {
            self.pool.send_to_user(&UserId::new(to)?, message.to_message())
        };
        Ok(())
    }
}

/// Answers questions about the pool, one a line: `queued USER`, `last_end USER`, `balanced`.
fn answer_for(pool: Pool) {
    std::thread::spawn(move || {
        for question in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
            let (what, user) = question.split_once(' ').unwrap_or((&question, ""));
            let user = UserId::new(user);
            match (what, user) {
                ("queued", Ok(user)) => {
                    let key = pool.keys_of(&user).first().copied();
                    let queued = key.and_then(|key| pool.inspect(key, |manager| manager.queued()));
                    println!("{}", queued.unwrap_or(0));
                }
                ("last_end", Ok(user)) => match pool.last_ends_of(&user).first() {
                    Some(end) => println!("{} {}", end.reason.close_code(), end.reason.name()),
                    None => println!("none"),
                },
                ("live", _) => println!("{}", pool.snapshot().live),
                _ => println!("what?"),
            }
        }
        std::process::exit(0); // whoever asked is gone
    });
}

type Senders = Arc<RwLock<HashMap<String, mpsc::Sender<Wire>>>>;

async fn channelled(listener: TcpListener, is_batching: bool) -> Result<()> {
    let senders = Senders::default();
    loop {
        let (stream, _) = listener.accept().await?;
        let senders = senders.clone();
        tokio::spawn(async move {
            let (socket, user) = accept(stream).await.ok()?;
            tokio::spawn(channelled_connection(socket, user, senders, is_batching));
            Some(())
        });
    }
}

async fn channelled_connection(
    socket: WebSocketStream<TcpStream>,
    user: String,
    senders: Senders,
    is_batching: bool,
) {
    let (sink, mut frames) = socket.split();
    let (sender, queue) = mpsc::channel(QUEUE);
    senders.write().insert(user.clone(), sender.clone());
    let writer = if is_batching {
        tokio::spawn(write_in_batches(sink, queue))
    } else {
        tokio::spawn(write_each(sink, queue))
    };
    let mut heartbeat = interval(PING_AFTER / 4);
    let mut heard_at = Instant::now();
    loop {
        tokio::select! {
            frame = frames.next() => match frame {
                Some(Ok(Wire::Binary(payload))) => {
                    heard_at = Instant::now();
                    deliver(&senders, payload);
                }
                Some(Ok(Wire::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => heard_at = Instant::now(),
            },
            _ = heartbeat.tick() => {
                let silence = heard_at.elapsed();
                if silence >= PING_AFTER + DEAD_AFTER {
                    break;
                }
                if silence >= PING_AFTER {
                    // Full: something is on its way to the peer.
                    let _ = sender.try_send(Wire::Ping(Bytes::new()));
                }
            }
        }
    }
    senders.write().remove(&user);
    writer.abort();
}

fn deliver(senders: &Senders, payload: Bytes) {
    let Some(to) = addressee(&payload).map(str::to_owned) else { return };
    let message = Wire::Binary(payload);
    let senders = senders.read();
    // What was not taken is missed by its receiver, who counts.
    if to.is_empty() {
        for sender in senders.values() {
            let _ = sender.try_send(message.clone());
        }
    } else if let Some(sender) = senders.get(&to) {
        let _ = sender.try_send(message);
    }
}

type Sink = SplitSink<WebSocketStream<TcpStream>, Wire>;

async fn write_each(mut sink: Sink, mut queue: mpsc::Receiver<Wire>) {
    while let Some(message) = queue.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

async fn write_in_batches(mut sink: Sink, mut queue: mpsc::Receiver<Wire>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, QUEUE).await > 0 {
        for message in batch.drain(..) {
            if sink.feed(message).await.is_err() {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}
