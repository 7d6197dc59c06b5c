//! A server on a loopback port, and its clients.

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::{read_dir, read_link};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WireError, Message as Wire};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async};
use ws_manager_pool::serve::{Application, CloseReport, serve};
use ws_manager_pool::{ManagerKey, Pool, Reservation, ReserveError, UserExecutionContext};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
pub(crate) const PAUSE: Duration = Duration::from_millis(2);

/// An application with a door: who comes in by a path, and when connections begin and end.
pub(crate) trait Host: Application + 'static {
    /// The place for a request with this path and query.
    fn reserve(&self, path: &str) -> Result<Reservation<Self::Session>, ReserveError>;

    /// The moment, as the host counts them.
    fn moment(&self) -> u64 {
        0
    }

    /// A connection's lease is open, since that moment at the earliest; it is served from now on.
    fn opened(&self, key: ManagerKey, context: &UserExecutionContext, opening: u64) {
        let _ = (key, context, opening);
    }

    /// `serve` has returned.
    fn over(&self, report: &CloseReport) {
        let _ = report;
    }
}

/// How much the kernel keeps for a connection on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Buffers {
    /// As much as it likes.
    Any,
    /// As little as it can, so that a client that does not read is soon felt.
    Small,
}

impl Buffers {
    const SMALL: u32 = 4 * 1024;

    /// The library's: with small buffers it writes each message at once, and keeps none.
    fn config(self) -> WebSocketConfig {
        let config = WebSocketConfig::default();
        if self == Self::Small { config.write_buffer_size(0) } else { config }
    }

    fn socket(self) -> TcpSocket {
        let socket = TcpSocket::new_v4().unwrap();
        if self == Self::Small {
            socket.set_send_buffer_size(Self::SMALL).unwrap();
            socket.set_recv_buffer_size(Self::SMALL).unwrap();
        }
        socket
    }
}

pub(crate) struct Server<H: Host> {
    pub(crate) address: SocketAddr,
    pool: Pool<H::Session>,
    /// Shared with the one who accepts, and with every task that has a connection.
    held: Arc<()>,
    _accepting: JoinSet<()>,
}

impl<H: Host> Server<H> {
    pub(crate) fn start(pool: Pool<H::Session>, host: Arc<H>, buffers: Buffers) -> Self {
        let socket = buffers.socket();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1_024).unwrap();
        let address = listener.local_addr().unwrap();
        let held = Arc::new(());
        let holder = held.clone();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (host, hold) = (host.clone(), holder.clone());
                tokio::spawn(async move {
                    connection(stream, host, buffers).await;
                    drop(hold);
                });
            }
        });
        Self { address, pool, held, _accepting: accepting }
    }

    /// Waits until so many connections have a task, and no more.
    pub(crate) async fn serves(&self, connections: usize) {
        eventually("the other connections' tasks have ended", || {
            Arc::strong_count(&self.held) == 2 + connections
        })
        .await;
    }

    /// Waits for the tasks of all connections. Nothing is waited for after them, but for who only looks.
    pub(crate) async fn is_empty(&self) {
        self.serves(0).await;
        eventually("no slot waits for a reader", || self.pool.ledger().closing == 0).await;
    }
}

#[expect(clippy::result_large_err, reason = "the handshake's callback returns a whole response")]
async fn connection<H: Host>(stream: TcpStream, host: Arc<H>, buffers: Buffers) {
    // Small frames one after the other are not to wait for acknowledgements.
    stream.set_nodelay(true).unwrap();
    let mut reservation = None;
    let admit = |request: &Request, response: Response| {
        let refusal = |error: ReserveError| {
            let mut refusal = ErrorResponse::new(Some(error.to_string()));
            *refusal.status_mut() = error.http_status().try_into().unwrap();
            refusal
        };
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        reservation = Some(host.reserve(path.trim_start_matches('/')).map_err(refusal)?);
        Ok(response)
    };
    let config = Some(buffers.config());
    let Ok(socket) = accept_hdr_async_with_config(stream, admit, config).await else { return };
    let reservation = reservation.unwrap();
    let (context, opening) = (reservation.context().clone(), host.moment());
    let lease = reservation.open().unwrap();
    host.opened(lease.key(), &context, opening);
    let report = serve(socket, lease, host.clone()).await;
    host.over(&report);
}

pub(crate) struct Client(WebSocketStream<TcpStream>);

/// What a client hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Text(String),
    /// The server closes, with this code.
    Closed(u16),
    /// The socket is over.
    Gone,
}

impl Client {
    /// Asks to be let in. A refusal is the status of the answer.
    pub(crate) async fn knock(address: SocketAddr, path: &str, buffers: Buffers) -> Result<Self, u16> {
        let stream = buffers.socket().connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        match client_async(format!("ws://{address}/{path}"), stream).await {
            Ok((client, _)) => Ok(Self(client)),
            Err(WireError::Http(refusal)) => Err(refusal.status().as_u16()),
            Err(error) => panic!("neither let in nor refused: {error}"),
        }
    }

    /// Knocks until there is a place: the last connection's may not be free yet.
    pub(crate) async fn connect(address: SocketAddr, path: &str, buffers: Buffers) -> Self {
        let knocking = async {
            loop {
                match Self::knock(address, path, buffers).await {
                    Ok(client) => return client,
                    Err(429 | 503) => tokio::task::yield_now().await,
                    Err(status) => panic!("refused with {status}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, knocking).await.expect("a place in time")
    }

    /// An error is one that `hear` will find too.
    pub(crate) async fn say(&mut self, text: &str) {
        let _ = self.0.send(Wire::text(text)).await;
    }

    /// The next text, or the end.
    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.expect("something to hear in time") {
                Some(Ok(Wire::Text(text))) => return Heard::Text(text.to_string()),
                Some(Ok(Wire::Close(close))) => {
                    let _ = self.0.flush().await; // sends the answer
                    return Heard::Closed(close.map_or(1005, |close| close.code.into()));
                }
                Some(Ok(Wire::Ping(_) | Wire::Pong(_))) => {}
                Some(Ok(other)) => panic!("a text was expected, not {other:?}"),
                Some(Err(_)) | None => return Heard::Gone,
            }
        }
    }

    /// Begins the closing handshake. What is still on its way can be heard.
    pub(crate) async fn close(&mut self) {
        let _ = self.0.close(None).await;
    }

    /// Resets the connection instead of closing it.
    pub(crate) fn reset(self) {
        let stream = self.0.into_inner();
        let _ = stream.set_zero_linger();
    }
}

pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "in vain: {what}");
}

/// One test over sockets at a time, so that the sockets that are open are its own.
static STAGE: Mutex<()> = Mutex::new(());

/// Plays a test on a runtime of its own. At its end as many sockets are open as before.
pub(crate) fn play(test: impl Future<Output = ()>) {
    let _alone = STAGE.lock();
    raise_file_limit();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let sockets = open_sockets();
        test.await;
        eventually("as many open sockets as before", || open_sockets() == sockets).await;
    });
}

/// Sockets of this process, as the kernel counts them.
fn open_sockets() -> usize {
    let files = read_dir("/proc/self/fd").unwrap();
    // One that is gone by now is none.
    let targets = files.filter_map(|file| read_link(file.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// Both ends of a thousand connections are in this process, and those that are on their way out.
fn raise_file_limit() {
    const NEEDED: u64 = 4_000;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < NEEDED) {
        let raised = Rlimit { current: Some(NEEDED), maximum };
        setrlimit(Resource::Nofile, raised).expect("a hard limit of 4,000 open files or more");
    }
}
