//! One way in for each library: a place in the pool before the handshake, the connection after it.

use crate::talk::{echo, echoing, stranger};
use axum::Router;
use axum::http::request::Parts;
use axum::routing::any;
use http_body_util::{Either, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use ws_manager_pool::serve::{
    Entrance, Gate, Identify, LeasedIo, LeasedListener, OriginPolicy, PooledUpgrade, Refusal, WireMessage,
    adapt, door, fastwebsockets, lean,
};
use ws_manager_pool::{Pool, UserExecutionContext};

/// The library behind the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adapter {
    Axum,
    Tungstenite,
    TokioWebsockets,
    Fastwebsockets,
    Generic,
}

/// Who reads the socket, and whose the buffers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The library.
    One,
    /// The library, over buffers of the pool.
    Two,
    /// The crate's own engine.
    Three,
}

/// Lets people in until the task is ended.
pub(crate) async fn open(listener: TcpListener, pool: Pool, adapter: Adapter, way: Way) -> io::Result<()> {
    let gate = Gate::new(&pool, door(|_| Ok(stranger()))).with_origins(OriginPolicy::Any);
    if let Adapter::Axum = adapter {
        return axum_route(listener, pool, way).await;
    }
    if way == Way::Three {
        match gate.listen(listener, echoing).await {}
    }
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let pool = pool.clone();
        tokio::spawn(async move {
            // Whoever fails the handshake has heard of it, or is gone.
            match adapter {
                Adapter::TokioWebsockets => with_tokio_websockets(stream, pool).await,
                Adapter::Fastwebsockets => with_fastwebsockets(stream, pool).await,
                Adapter::Generic => with_an_unknown_library(stream, pool).await,
                Adapter::Tungstenite | Adapter::Axum if way == Way::Two => {
                    with_a_lean_one(stream, pool).await
                }
                Adapter::Tungstenite | Adapter::Axum => with_tungstenite(stream, pool).await,
            }
        });
    }
}

/// Everybody is a stranger.
struct Anybody;

impl Identify for Anybody {
    type Session = ();

    async fn identify(&self, _: &Parts) -> Result<UserExecutionContext, Refusal> {
        Ok(stranger())
    }
}

async fn axum_route(listener: TcpListener, pool: Pool, way: Way) -> io::Result<()> {
    let enter = async move |upgrade: PooledUpgrade<Anybody>| match way {
        Way::One => upgrade.serve(echoing()),
        Way::Two => upgrade.lean().serve(echoing()),
        Way::Three => upgrade.adopt(echoing()),
    };
    let router = Router::new().fallback(any(enter)).with_state(Entrance::new(pool.clone(), Anybody));
    match way {
        Way::Two => axum::serve(LeasedListener::new(listener, &pool), router).await,
        Way::One | Way::Three => axum::serve(listener, router).await,
    }
}

async fn with_tungstenite(stream: TcpStream, pool: Pool) -> Option<()> {
    let reservation = pool.reserve(&stranger()).ok()?;
    let sizes = WebSocketConfig::from(&*pool.config());
    let socket = accept_async_with_config(stream, Some(sizes)).await.ok()?;
    echo(socket, reservation).await;
    Some(())
}

async fn with_a_lean_one(stream: TcpStream, pool: Pool) -> Option<()> {
    let reservation = pool.reserve(&stranger()).ok()?;
    let sizes = lean(&pool.config());
    let stream = LeasedIo::new(stream, &pool);
    let socket = accept_async_with_config(stream, Some(sizes)).await.ok()?;
    echo(socket, reservation).await;
    Some(())
}

/// As if the crate did not know the message type.
async fn with_an_unknown_library(stream: TcpStream, pool: Pool) -> Option<()> {
    let reservation = pool.reserve(&stranger()).ok()?;
    let sizes = WebSocketConfig::from(&*pool.config());
    let socket = accept_async_with_config(stream, Some(sizes)).await.ok()?;
    let socket = adapt(socket, Message::into_frame, Message::from_frame, Message::fault);
    echo(socket, reservation).await;
    Some(())
}

async fn with_tokio_websockets(stream: TcpStream, pool: Pool) -> Option<()> {
    let reservation = pool.reserve(&stranger()).ok()?;
    let builder = tokio_websockets::ServerBuilder::new().limits((&*pool.config()).into());
    let (_request, socket) = builder.accept(stream).await.ok()?;
    echo(socket, reservation).await;
    Some(())
}

async fn with_fastwebsockets(stream: TcpStream, pool: Pool) -> Option<()> {
    let answer = service_fn(|request| std::future::ready(Ok::<_, Infallible>(upgrade(request, &pool))));
    let http = hyper::server::conn::http1::Builder::new();
    http.serve_connection(TokioIo::new(stream), answer).with_upgrades().await.ok()
}

type Answer = hyper::Response<Either<Empty<Bytes>, Full<Bytes>>>;

/// The handshake of one request; the connection is served in a task of its own.
fn upgrade(mut request: hyper::Request<Incoming>, pool: &Pool) -> Answer {
    let reservation = match pool.reserve(&stranger()) {
        Ok(reservation) => reservation,
        Err(error) => return refusal(error.http_status(), error.to_string()),
    };
    let (response, upgraded) = match ::fastwebsockets::upgrade::upgrade(&mut request) {
        Ok(upgrade) => upgrade,
        Err(error) => return refusal(400, format!("{error}: connect by WebSocket")),
    };
    let pool = pool.clone();
    tokio::spawn(async move {
        if let Ok(socket) = upgraded.await {
            echo(fastwebsockets(socket, &pool.config()), reservation).await;
        }
    });
    response.map(Either::Left)
}

fn refusal(status: u16, why: String) -> Answer {
    let mut response = hyper::Response::new(Either::Right(Full::from(why)));
    *response.status_mut() = status.try_into().unwrap_or_default();
    response
}
