//! One server for each WebSocket library: the library's connection alone in a task, with a lease beside
//! it, or driven by `serve`.
//!
//! After the handshake a connection moves to a small task of its own, since a task keeps the size of its
//! largest moment. axum has such a task already. tungstenite's buffers, 128 KiB each by default, are set
//! to 4 KiB, and to next to nothing where the pool has buffers for all.

use crate::loopback::Result;
use crate::options::{Adapter, Layer, NotCompiledIn, Subject, Way};
use crate::server::Open;
#[cfg(any(feature = "tungstenite", feature = "tokio-websockets", feature = "fastwebsockets"))]
use futures_util::FutureExt;
#[cfg(any(feature = "tungstenite", feature = "tokio-websockets"))]
use futures_util::{Stream, StreamExt};
#[cfg(any(feature = "tungstenite", feature = "tokio-websockets", feature = "fastwebsockets"))]
use std::future::Future;
#[cfg(any(feature = "tungstenite", feature = "tokio-websockets"))]
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
#[cfg(any(feature = "tungstenite", feature = "tokio-websockets", feature = "fastwebsockets"))]
use ws_manager_pool::serve::{Transport, application, serve};
use ws_manager_pool::{Environment, IdGenerator, Lease, Pool, UserExecutionContext};

#[cfg(any(feature = "axum", feature = "tungstenite"))]
const BUFFER: usize = 4 * 1_024;

/// No ping, and nothing else to do, while the memory is looked at.
const SILENCE: Duration = Duration::from_secs(3_600);

pub(crate) async fn run(subject: Subject, layer: Layer, listener: TcpListener) -> Result<()> {
    let pool = Pool::builder()
        .name("idle-memory")
        .environment(Environment::Production)
        .heartbeat_interval(SILENCE)
        .idle_background(None)
        .build()?;
    let house = House { pool, layer, way: subject.way };
    match subject.adapter {
        #[cfg(feature = "axum")]
        Adapter::Axum => with_axum::run(house, listener).await,
        #[cfg(feature = "tungstenite")]
        Adapter::Tungstenite => with_tungstenite::run(house, listener).await,
        #[cfg(feature = "tokio-websockets")]
        Adapter::TokioWebsockets => with_tokio_websockets::run(house, listener).await,
        #[cfg(feature = "fastwebsockets")]
        Adapter::Fastwebsockets => with_fastwebsockets::run(house, listener).await,
        #[allow(unreachable_patterns)] // with all features there is no other
        other => {
            drop((house, listener));
            Err(NotCompiledIn(other.name()).into())
        }
    }
}

/// Where connections go after the handshake.
#[derive(Clone)]
struct House {
    pool: Pool,
    layer: Layer,
    way: Way,
}

impl House {
    #[cfg(any(feature = "tungstenite", feature = "tokio-websockets", feature = "fastwebsockets"))]
    /// Gives a connection a task of its own, which waits in the library, or is driven through `transport`.
    fn take_in<C, W, T>(
        &self,
        connection: C,
        wait: impl FnOnce(C) -> W,
        transport: impl FnOnce(C, &Pool) -> T,
    ) -> Result<()>
    where
        W: Future<Output = ()> + Send + 'static,
        T: Transport + Send + 'static,
    {
        let open = Open::new();
        match self.layer {
            Layer::Serve => {
                let serving =
                    serve(transport(connection, &self.pool), self.lease()?, application(|_, _| Ok(())));
                tokio::spawn(serving.map(|report| drop((report, open))));
            }
            Layer::Manager => {
                let lease = self.lease()?;
                tokio::spawn(wait(connection).map(|()| drop((lease, open))));
            }
            Layer::Task | Layer::Library => {
                tokio::spawn(wait(connection).map(|()| drop(open)));
            }
        }
        Ok(())
    }

    fn lease(&self) -> Result<Lease> {
        let lease = self.pool.reserve(&stranger()?)?.open()?;
        lease.connected()?;
        Ok(lease)
    }
}

/// A user whom nobody has seen before.
fn stranger() -> Result<UserExecutionContext> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let user = format!("user-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let ids = IdGenerator::user_context_ids(&user, "idle");
    Ok(UserExecutionContext::from_websocket_request(user, ids)?)
}

/// Waits in the library for what never comes.
#[cfg(any(feature = "tungstenite", feature = "tokio-websockets"))]
fn until_closed(connection: impl Stream) -> impl Future<Output = ()> {
    connection.for_each(|_| ready(()))
}

#[cfg(feature = "tungstenite")]
mod with_tungstenite {
    use super::*;
    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio_tungstenite::accept_async_with_config;
    use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
    use ws_manager_pool::serve::{LeasedIo, lean};

    pub(super) async fn run(house: House, listener: TcpListener) -> Result<()> {
        let tuned = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(BUFFER);
        let lean = lean(&house.pool.config());
        loop {
            let (stream, _) = listener.accept().await?;
            match house.way {
                Way::Library => drop(tokio::spawn(enter(house.clone(), stream, tuned))),
                Way::Leased => {
                    let stream = LeasedIo::new(stream, &house.pool);
                    tokio::spawn(enter(house.clone(), stream, lean));
                }
            }
        }
    }

    async fn enter<IO>(house: House, stream: IO, sizes: WebSocketConfig) -> Option<()>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = accept_async_with_config(stream, Some(sizes)).await.ok()?;
        house.take_in(connection, until_closed, |connection, _| connection).ok()
    }
}

#[cfg(feature = "tokio-websockets")]
mod with_tokio_websockets {
    use super::*;
    use tokio::net::TcpStream;

    pub(super) async fn run(house: House, listener: TcpListener) -> Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(enter(house.clone(), stream));
        }
    }

    async fn enter(house: House, stream: TcpStream) -> Option<()> {
        let (_request, connection) = tokio_websockets::ServerBuilder::new().accept(stream).await.ok()?;
        house.take_in(connection, until_closed, |connection, _| connection).ok()
    }
}

#[cfg(feature = "fastwebsockets")]
mod with_fastwebsockets {
    use super::*;
    use ::fastwebsockets::WebSocket;
    use ::fastwebsockets::upgrade::upgrade;
    use http_body_util::Empty;
    use hyper::body::{Bytes, Incoming};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper::upgrade::Upgraded;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use ws_manager_pool::serve::fastwebsockets;

    type Connection = WebSocket<TokioIo<Upgraded>>;

    pub(super) async fn run(house: House, listener: TcpListener) -> Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            let house = house.clone();
            tokio::spawn(async move {
                let answer = service_fn(|request| std::future::ready(enter(&house, request)));
                let http = http1::Builder::new();
                http.serve_connection(TokioIo::new(stream), answer).with_upgrades().await
            });
        }
    }

    fn enter(
        house: &House,
        mut request: Request<Incoming>,
    ) -> std::result::Result<Response<Empty<Bytes>>, ::fastwebsockets::WebSocketError> {
        let (response, upgraded) = upgrade(&mut request)?;
        let house = house.clone();
        tokio::spawn(async move {
            let connection = upgraded.await.ok()?;
            house
                .take_in(connection, until_closed, |connection, pool| {
                    fastwebsockets(connection, &pool.config())
                })
                .ok()
        });
        Ok(response)
    }

    #[expect(clippy::manual_async_fn, reason = "an `async fn` would keep its argument twice")]
    fn until_closed(mut connection: Connection) -> impl Future<Output = ()> {
        async move { while connection.read_frame().await.is_ok() {} }
    }
}

#[cfg(feature = "axum")]
mod with_axum {
    use super::*;
    use ::axum::Router;
    use ::axum::extract::State;
    use ::axum::extract::ws::WebSocketUpgrade;
    use ::axum::http::StatusCode;
    use ::axum::http::request::Parts;
    use ::axum::response::Response;
    use ::axum::routing::any;
    use ws_manager_pool::Application;
    use ws_manager_pool::serve::{
        Connection, Entrance, HandlerError, Identify, LeasedListener, PooledUpgrade, Received, Refusal,
    };

    /// As `PooledUpgrade::lean` has them.
    const LEAN: (usize, usize) = (128, 512);

    pub(super) async fn run(house: House, listener: TcpListener) -> Result<()> {
        let (pool, way) = (house.pool.clone(), house.way);
        let pooled = Entrance::new(pool.clone(), Anybody);
        let router = match (house.layer, way) {
            (Layer::Serve, Way::Library) => Router::new().fallback(any(serve_it)).with_state(pooled),
            (Layer::Serve, Way::Leased) => Router::new().fallback(any(serve_it_lean)).with_state(pooled),
            (Layer::Task | Layer::Library | Layer::Manager, _) => {
                Router::new().fallback(any(let_it_wait)).with_state(house)
            }
        };
        match way {
            Way::Library => ::axum::serve(listener, router).await?,
            Way::Leased => ::axum::serve(LeasedListener::new(listener, &pool), router).await?,
        }
        Ok(())
    }

    fn tuned(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
        upgrade.read_buffer_size(BUFFER).write_buffer_size(BUFFER)
    }

    async fn serve_it(upgrade: PooledUpgrade<Anybody>) -> Response {
        upgrade.configure(tuned).serve(Silent { _open: Open::new() })
    }

    async fn serve_it_lean(upgrade: PooledUpgrade<Anybody>) -> Response {
        upgrade.lean().serve(Silent { _open: Open::new() })
    }

    async fn let_it_wait(State(house): State<House>, upgrade: WebSocketUpgrade) -> Response {
        let upgrade = match house.way {
            Way::Library => tuned(upgrade),
            Way::Leased => upgrade.read_buffer_size(LEAN.0).write_buffer_size(LEAN.1),
        };
        if house.layer == Layer::Library {
            return upgrade.on_upgrade(|mut connection| async move {
                let _open = Open::new();
                while let Some(Ok(_)) = connection.recv().await {}
            });
        }
        upgrade.on_upgrade(|mut connection| async move {
            let Ok(_lease) = house.lease() else { return };
            let _open = Open::new();
            while let Some(Ok(_)) = connection.recv().await {}
        })
    }

    struct Anybody;

    impl Identify for Anybody {
        type Session = ();

        async fn identify(&self, _: &Parts) -> std::result::Result<UserExecutionContext, Refusal> {
            stranger().map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
        }
    }

    /// Says nothing, and is counted.
    struct Silent {
        _open: Open,
    }

    impl Application for Silent {
        type Session = ();

        async fn received(
            &self,
            _: &mut Connection<'_, ()>,
            _: Received<'_>,
        ) -> std::result::Result<(), HandlerError> {
            Ok(())
        }
    }
}
