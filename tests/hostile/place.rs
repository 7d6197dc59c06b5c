//! A server and its clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::Request as TheirRequest;
use ws_manager_pool::engine::Request;
use ws_manager_pool::serve::{Application, Gate, HandlerError, Rejection, application, door, serve};
use ws_manager_pool::{Config, Environment, IdGenerator, Pool, SendOutcome, UserExecutionContext};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Who parses the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Library = 1,
    Own = 3,
}

/// Numbers for which a test waits.
pub(crate) fn config() -> Config {
    let mut config = Config::preset(Environment::Ci);
    config.capacity = 500;
    config.max_managers_per_user = 20;
    config.heartbeat_interval = Duration::from_millis(200);
    config.heartbeat_timeout = Duration::from_millis(200);
    config.reservation_deadline = Duration::from_millis(500);
    config.message_timeout = Duration::from_millis(500);
    config
}

/// `/?user` or `/?user=thread`.
pub(crate) fn identify(query: Option<&str>) -> Result<UserExecutionContext, Rejection> {
    let query = query.ok_or(Rejection::new(401, "say who you are"))?;
    let (user, thread) = query.split_once('=').unwrap_or((query, ""));
    let mut ids = IdGenerator::user_context_ids(user, "hostile");
    if !thread.is_empty() {
        ids = ids.with_client_thread(thread)?;
    }
    Ok(UserExecutionContext::from_websocket_request(user, ids)?)
}

pub(crate) struct Server {
    pub(crate) pool: Pool,
    pub(crate) address: SocketAddr,
    _running: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(name: &str, config: Config, way: Way) -> Self {
        Self::with(name, config, way, echo).await
    }

    pub(crate) async fn with<A>(
        name: &str,
        config: Config,
        way: Way,
        app: impl Fn() -> A + Send + Sync + Copy + 'static,
    ) -> Self
    where
        A: Application<Session = ()> + Send + 'static,
    {
        let pool =
            Pool::builder().name(format!("hostile-{name}-{}", way as u8)).config(config).build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut running = JoinSet::new();
        let serving = pool.clone();
        running.spawn(async move {
            match way {
                Way::Own => {
                    let gate = Gate::new(&serving, door(|request: &Request<'_>| identify(request.query())));
                    match gate.listen(listener, app).await {}
                }
                Way::Library => loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    tokio::spawn(with_a_library(serving.clone(), stream, app));
                },
            }
        });
        Self { pool, address, _running: running }
    }

    pub(crate) async fn open(&self, who: &str) -> Client {
        Client::open(self.address, who).await.expect("let in")
    }

    /// Everybody is gone, and nothing is left of them.
    pub(crate) async fn is_empty(&self) {
        eventually("every manager is free", || {
            let ledger = self.pool.ledger();
            ledger.balanced && ledger.occupied_slots == 0
        })
        .await;
        eventually("every buffer is back", || {
            let snapshot = self.pool.snapshot();
            snapshot.inbound.leased_bytes == 0 && snapshot.outbound_bytes == 0
        })
        .await;
    }
}

async fn with_a_library<A>(pool: Pool, stream: TcpStream, app: impl Fn() -> A) -> Option<()>
where
    A: Application<Session = ()> + Send + 'static,
{
    let mut query = None;
    #[expect(clippy::result_large_err, reason = "tungstenite's")]
    let handshake = accept_hdr_async(stream, |request: &TheirRequest, response| {
        query = request.uri().query().map(str::to_owned);
        Ok(response)
    });
    let deadline = pool.config().reservation_deadline;
    let socket = timeout(deadline, handshake).await.ok()?.ok()?;
    let lease = pool.reserve(&identify(query.as_deref()).ok()?).ok()?.open().ok()?;
    serve(socket, lease, app()).await;
    Some(())
}

pub(crate) fn echo() -> impl Application<Session = ()> {
    application(|conn, message| match conn.send(message.to_message()) {
        SendOutcome::Queued => Ok(()),
        refused => Err(HandlerError::new(format!("an echo was not queued: {refused:?}"))),
    })
}

/// Speaks the protocol byte by byte, and answers pings only when it is asked to read.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    /// `None`: the line, or the server, did not let it.
    pub(crate) async fn open(address: SocketAddr, who: &str) -> Option<Self> {
        let opening = async {
            let mut stream = TcpStream::connect(address).await.ok()?;
            stream.write_all(request(who).as_bytes()).await.ok()?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(stream.read_u8().await.ok()?);
            }
            answer.starts_with(b"HTTP/1.1 101 ").then_some(Self(stream))
        };
        timeout(PATIENCE, opening).await.expect("a handshake ends in time")
    }

    pub(crate) async fn send(&mut self, payload: &[u8]) -> Option<()> {
        self.0.write_all(&frame(0x82, payload)).await.ok()
    }

    /// The next message; `None`: the connection is over.
    pub(crate) async fn receive(&mut self) -> Option<Vec<u8>> {
        loop {
            let (first, payload) = timeout(PATIENCE, self.frame()).await.expect("something in time")?;
            match first {
                0x89 => self.0.write_all(&frame(0x8a, &payload)).await.ok()?,
                0x88 => return None,
                _ => return Some(payload),
            }
        }
    }

    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, second) = (self.0.read_u8().await.ok()?, self.0.read_u8().await.ok()?);
        let len = match second {
            126 => usize::from(self.0.read_u16().await.ok()?),
            127 => self.0.read_u64().await.ok()? as usize,
            short => usize::from(short),
        };
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((first, payload))
    }

    /// Sends and hears it again.
    pub(crate) async fn echoes(&mut self, payload: &[u8]) {
        self.send(payload).await.expect("the connection is open");
        assert_eq!(self.receive().await.as_deref(), Some(payload));
    }
}

pub(crate) fn request(who: &str) -> String {
    format!(
        "GET /?{who} HTTP/1.1\r\nHost: pool\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A frame with a mask.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

impl Server {
    /// Nobody is connected; somebody may be about to be.
    pub(crate) async fn is_empty_but_for_handshakes(&self) {
        eventually("every lease is over", || self.pool.ledger().leases == 0).await;
    }
}

/// Talks to the server all the time, on a line without faults.
pub(crate) struct Bystander {
    echoes: Arc<AtomicUsize>,
    talking: JoinSet<()>,
}

impl Bystander {
    pub(crate) async fn come(server: &Server) -> Self {
        let (mut client, echoes) = (server.open("bystander").await, Arc::<AtomicUsize>::default());
        let (mut talking, count) = (JoinSet::new(), echoes.clone());
        talking.spawn(async move {
            loop {
                client.echoes(b"still here").await;
                count.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { echoes, talking }
    }

    /// From now on, once more.
    pub(crate) async fn is_served(&self, after: &str) {
        let before = self.echoes.load(Ordering::SeqCst);
        eventually(after, || self.echoes.load(Ordering::SeqCst) > before + 1).await;
    }

    pub(crate) async fn go(mut self) {
        self.talking.shutdown().await;
    }
}
