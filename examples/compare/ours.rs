//! The pooled servers, one function for each way. An application is written once, and all of them drive it.

use crate::baselines::axum::Timed;
use crate::loopback::Result;
use crate::protocol::{Command, HEARTBEAT, QUEUE, TUNED_BUFFER, user};
use crate::stopwatch;
use axum::Router;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::any;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response as Accepted};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use ws_manager_pool::serve::{
    Application, CloseReport, Connection, Entrance, Gate, HandlerError, Identify, LeasedIo, LeasedListener,
    PooledUpgrade, Received, Refusal, door, lean, serve,
};
use ws_manager_pool::{
    Environment, IdError, IdGenerator, Message, Pool, SendOutcome, Session, UserExecutionContext, UserId,
};

/// The pool that every way leads to, for so many connections in all and of each user.
pub(crate) fn pool(connections: usize, per_user: usize) -> Result<Pool<Chat>> {
    let pool = Pool::builder()
        .name("compare")
        .environment(Environment::Production)
        .capacity(connections)
        .max_managers_per_user(per_user)
        .heartbeat_interval(HEARTBEAT)
        .build()?;
    let config = pool.config();
    assert_eq!(config.outbound.messages(), QUEUE, "the same bound as everywhere");
    let maintained = pool.clone();
    stopwatch::maintained_by(move || drop(maintained.maintain(maintained.clock().now())));
    Ok(pool)
}

/// Way 1: `serve` over tokio-tungstenite, with the tuned buffers.
pub(crate) async fn way_1(listener: TcpListener, pool: Pool<Chat>) -> Result<()> {
    let relay = Arc::new(Relay { pool });
    loop {
        let (stream, _) = listener.accept().await?;
        stopwatch::accepted();
        stream.set_nodelay(true)?;
        tokio::spawn(over_tungstenite(stream, relay.clone(), tuned));
    }
}

async fn over_tungstenite<IO>(
    stream: IO,
    relay: Arc<Relay>,
    sizes: fn(&Pool<Chat>) -> WebSocketConfig,
) -> Option<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut reservation = None;
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let admit = |request: &Request, response: Accepted| {
        let context = context(request.uri().query()).map_err(|error| refusal(400, error.to_string()))?;
        let place = relay.pool.reserve(&context).map_err(|e| refusal(e.http_status(), e.to_string()))?;
        reservation = Some(place);
        Ok(response)
    };
    let sizes = sizes(&relay.pool);
    let socket = accept_hdr_async_with_config(stream, admit, Some(sizes)).await.ok()?;
    let lease = reservation?.open().ok()?;
    // A task keeps the size of its largest moment, which is over: a small one for the rest.
    tokio::spawn(serve(socket, lease, relay));
    Some(())
}

fn tuned(pool: &Pool<Chat>) -> WebSocketConfig {
    WebSocketConfig::from(&*pool.config()).read_buffer_size(TUNED_BUFFER).write_buffer_size(TUNED_BUFFER)
}

fn refusal(status: u16, why: String) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(why));
    *response.status_mut() = status.try_into().unwrap_or_default();
    response
}

/// Way 1 behind a route of axum, with the tuned buffers.
pub(crate) async fn way_1_behind_axum(listener: TcpListener, pool: Pool<Chat>) -> Result<()> {
    let relay = Arc::new(Relay { pool: pool.clone() });
    let enter = |upgrade: PooledUpgrade<ByQuery>| async move {
        let tuned = upgrade.configure(|it| it.read_buffer_size(TUNED_BUFFER).write_buffer_size(TUNED_BUFFER));
        tuned.serve(relay) as Response
    };
    let router = Router::new().route("/", any(enter)).with_state(Entrance::new(pool, ByQuery));
    Ok(axum::serve(Timed(listener), router).await?)
}

/// Way 2: the same over buffers of the pool.
pub(crate) async fn way_2(listener: TcpListener, pool: Pool<Chat>) -> Result<()> {
    let relay = Arc::new(Relay { pool });
    loop {
        let (stream, _) = listener.accept().await?;
        stopwatch::accepted();
        stream.set_nodelay(true)?;
        let stream = LeasedIo::new(stream, &relay.pool);
        tokio::spawn(over_tungstenite(stream, relay.clone(), |pool| lean(&pool.config())));
    }
}

/// Way 2 behind a route of axum.
pub(crate) async fn way_2_behind_axum(listener: TcpListener, pool: Pool<Chat>) -> Result<()> {
    let relay = Arc::new(Relay { pool: pool.clone() });
    let enter = |upgrade: PooledUpgrade<ByQuery>| async move { upgrade.lean().serve(relay) as Response };
    let listener = LeasedListener::new(Timed(listener), &pool);
    let router = Router::new().route("/", any(enter)).with_state(Entrance::new(pool, ByQuery));
    Ok(axum::serve(listener, router).await?)
}

/// Way 3: the pool owns the connection.
pub(crate) async fn way_3(listener: TcpListener, pool: Pool<Chat>) -> Result<()> {
    let gate = Gate::new(&pool, door(|request| Ok(context(request.query())?)));
    let relay = Arc::new(Relay { pool });
    loop {
        let vacancy = gate.vacancy().await;
        let (stream, _) = listener.accept().await?;
        stopwatch::accepted();
        stream.set_nodelay(true)?;
        tokio::spawn(vacancy.accept(stream, relay.clone()));
    }
}

/// Way 3 behind a route of axum.
pub(crate) async fn way_3_behind_axum(listener: TcpListener, pool: Pool<Chat>) -> Result<()> {
    let relay = Arc::new(Relay { pool: pool.clone() });
    let enter = |upgrade: PooledUpgrade<ByQuery>| async move { upgrade.adopt(relay) as Response };
    let router = Router::new().route("/", any(enter)).with_state(Entrance::new(pool, ByQuery));
    Ok(axum::serve(Timed(listener), router).await?)
}

struct ByQuery;

impl Identify for ByQuery {
    type Session = Chat;

    async fn identify(&self, request: &Parts) -> std::result::Result<UserExecutionContext, Refusal> {
        Ok(context(request.uri.query())?)
    }
}

/// Who comes. Nobody is no valid user.
fn context(query: Option<&str>) -> std::result::Result<UserExecutionContext, IdError> {
    let user = user(query).unwrap_or_default();
    UserExecutionContext::from_websocket_request(user, IdGenerator::user_context_ids(user, "compare"))
}

/// A connection's own state.
#[derive(Debug, Default)]
pub(crate) struct Chat {
    messages: u64,
}

impl Session for Chat {
    fn reset(&mut self) {
        self.messages = 0;
    }
}

/// The application of every way.
struct Relay {
    pool: Pool<Chat>,
}

impl Application for Relay {
    type Session = Chat;

    /// Nothing here waits.
    const IS_IMMEDIATE: bool = true;

    /// What is sent is delivered since `open`, a little earlier, which is not ours to see in every way.
    async fn connected(&self, _: &mut Connection<'_, Chat>) -> std::result::Result<(), HandlerError> {
        stopwatch::registered();
        Ok(())
    }

    fn closed(&self, _: &CloseReport) {
        stopwatch::left();
    }

    async fn received(
        &self,
        conn: &mut Connection<'_, Chat>,
        message: Received<'_>,
    ) -> std::result::Result<(), HandlerError> {
        conn.with_session(|chat| chat.messages += 1)?;
        let Some(text) = message.as_text() else { return Ok(()) };
        // A full queue misses what comes from others, and the client counts.
        match Command::of(text) {
            Command::Broadcast => {
                let message = message.to_message();
                stopwatch::broadcast(|| _ = self.pool.broadcast(message));
            }
            Command::To(user) => _ = self.pool.send_to_user(&UserId::new(user)?, message.to_message()),
            Command::Answer(length) => match conn.send(Message::text(length.to_string())) {
                SendOutcome::Queued => {}
                refused => return Err(HandlerError::new(format!("no room for an answer: {refused:?}"))),
            },
        }
        Ok(())
    }
}
