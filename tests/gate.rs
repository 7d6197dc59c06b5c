//! The crate's own way in: what is answered to whom, and that nothing is left behind, whatever a client does
//! or leaves undone.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Cx, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use ws_manager_pool::engine::Request;
use ws_manager_pool::serve::{
    Admission, Application, Connection, Door, Gate, HandlerError, Received, Rejection, application, door,
};
use ws_manager_pool::{
    Config, EndReason, Environment, IdGenerator, Message, OpenError, Pool, UserExecutionContext, UserId,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn config() -> Config {
    let mut config = Config::preset(Environment::Ci);
    (config.heartbeat_interval, config.reservation_deadline) = (PATIENCE, PATIENCE);
    config.close_timeout = PATIENCE;
    config.message_timeout = PATIENCE;
    config
}

/// Whoever is named in the query.
fn by_query(request: &Request<'_>) -> Result<Admission, Rejection> {
    let user =
        request.query().ok_or(Rejection::new(401, "say who you are").with_header("X-Why", "nameless"))?;
    let ids = IdGenerator::user_context_ids(user, "gate");
    let admission = Admission::new(UserExecutionContext::from_websocket_request(user, ids)?);
    let spoken = request.protocols().find(|&offered| offered == "chat.v2").map(str::to_owned);
    Ok(spoken.into_iter().fold(admission, |admission, protocol| admission.protocol(protocol)))
}

/// The same, and it takes a while.
struct Slow;

impl Door for Slow {
    type Session = ();

    async fn admit(&self, request: &Request<'_>) -> Result<Admission, Rejection> {
        tokio::task::yield_now().await;
        by_query(request)
    }
}

struct Server {
    pool: Pool,
    address: SocketAddr,
    _accepting: JoinSet<()>,
}

impl Server {
    async fn start(name: &str, config: Config) -> Self {
        Self::with(name, config, |pool| Gate::new(pool, door(by_query)).with_header("Server", "pool"), echo())
            .await
    }

    async fn with<D, A>(name: &str, config: Config, gate: impl FnOnce(&Pool) -> Gate<D>, app: A) -> Self
    where
        D: Door<Session = ()>,
        A: Application<Session = ()> + Clone + 'static,
    {
        let pool = Pool::builder().name(format!("gate-{name}")).config(config).build().unwrap();
        let gate = gate(&pool);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(gate.accept(stream, app.clone()));
            }
        });
        Self { pool, address, _accepting: accepting }
    }

    async fn client(&self, request: &str) -> Client {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        Client(stream)
    }

    /// A client whose connection is open.
    async fn open(&self, user: &str) -> Client {
        let mut client = self.client(&request(&format!("/?{user}"), "")).await;
        let answer = client.answer().await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        client
    }

    async fn is_empty(&self) {
        eventually("every manager is free", || {
            let ledger = self.pool.ledger();
            ledger.balanced && ledger.occupied_slots == 0
        })
        .await;
        eventually("nobody is in the doorway", || self.pool.unauthenticated() == 0).await;
        eventually("no buffer is leased", || self.pool.snapshot().inbound.leased_bytes == 0).await;
    }
}

struct Client(TcpStream);

impl Client {
    /// Up to the empty line; of a refusal everything.
    async fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        let reading = async {
            let mut byte = [0];
            while !answer.ends_with(b"\r\n\r\n") && self.0.read(&mut byte).await.unwrap() > 0 {
                answer.push(byte[0]);
            }
            if !answer.starts_with(b"HTTP/1.1 101 ") {
                self.0.read_to_end(&mut answer).await.unwrap();
            }
        };
        timeout(PATIENCE, reading).await.expect("an answer in time");
        String::from_utf8(answer).unwrap()
    }

    async fn send(&mut self, first: u8, payload: &[u8]) {
        self.0.write_all(&frame(first, payload)).await.unwrap();
    }

    /// The payload of an unmasked frame of at most 125 bytes, and its first byte.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let reading = async {
            let mut head = [0; 2];
            self.0.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; head[1].into()];
            self.0.read_exact(&mut payload).await.unwrap();
            (head[0], payload)
        };
        timeout(PATIENCE, reading).await.expect("a frame in time")
    }

    async fn close_code(&mut self) -> u16 {
        let (first, payload) = self.frame().await;
        assert_eq!(first, 0x88, "a close frame");
        u16::from_be_bytes([payload[0], payload[1]])
    }
}

fn request(target: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: here\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A masked frame of at most 125 bytes.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [9, 8, 7, 6];
    let mut bytes = vec![first, 0x80 | payload.len() as u8];
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn echo() -> impl Application<Session = ()> + Clone {
    std::sync::Arc::new(application(|conn, message| {
        let _ = conn.send(message.to_message());
        Ok(())
    }))
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "in vain: {what}");
}

#[tokio::test]
async fn a_handshake_is_answered_with_what_was_agreed_on() {
    let server = Server::start("agreed", config()).await;
    let offers = "Sec-WebSocket-Protocol: chat.v3, chat.v2\r\nOrigin: http://here\r\n";
    let mut client = server.client(&request("/?ada", offers)).await;
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    for line in [
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: chat.v2",
        "Server: pool",
    ] {
        assert!(answer.contains(line), "{answer} lacks {line}");
    }
    client.send(0x81, b"hello").await;
    assert_eq!(client.frame().await, (0x81, b"hello".to_vec()));
    assert!(server.pool.send_to_user(&UserId::new("ada").unwrap(), Message::from("you")).is_complete());
    assert_eq!(client.frame().await, (0x81, b"you".to_vec()));
    drop(client);
    server.is_empty().await;
}

#[tokio::test]
async fn who_is_not_let_in_hears_why_and_leaves_nothing() {
    let mut config = config();
    (config.max_managers_per_user, config.capacity) = (1, 2);
    let server = Server::start("refused", config).await;
    let _one = server.open("ada").await;
    for (request, status, words) in [
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405, "use that method"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "Connection: Upgrade"),
        (request("/?eve", "").replace("13", "8"), 426, "version 13"),
        ("\u{16}\u{3}\u{1}".to_owned(), 400, "without TLS"),
        (request("/?eve", &format!("X: {}\r\n", "x".repeat(9_000))), 431, "8 KiB"),
        (request("/?eve", "Origin: http://elsewhere\r\n"), 403, "from a page of this host"),
        (request("/", ""), 401, "say who you are"),
        (request(&format!("/?{}", "x".repeat(200)), ""), 400, "128"),
        (request("/?ada", ""), 429, ""),
    ] {
        let answer = server.client(&request).await.answer().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert!(answer.contains(words) && answer.contains("\r\nConnection: close"), "{answer}");
        assert_eq!(status == 429, answer.contains("Retry-After"), "{answer}");
        assert_eq!(status == 401, answer.contains("X-Why: nameless"), "{answer}");
    }
    let _two = server.open("bob").await;
    let answer = server.client(&request("/?eve", "")).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    eventually("two are left", || server.pool.ledger().leases == 2).await;
    drop((_one, _two));
    server.is_empty().await;
}

#[tokio::test]
async fn a_request_may_come_in_any_pieces_and_frames_right_behind_it() {
    let server = Server::start("pieces", config()).await;
    let mut bytes = request("/?ada", "").into_bytes();
    bytes.extend(frame(0x81, b"early"));
    for cut in [1, 17, bytes.len() - 13, bytes.len() - 11, bytes.len() - 5, bytes.len()] {
        let mut client = server.client("").await;
        client.0.set_nodelay(true).unwrap();
        client.0.write_all(&bytes[..cut]).await.unwrap();
        tokio::task::yield_now().await;
        client.0.write_all(&bytes[cut..]).await.unwrap();
        assert!(client.answer().await.starts_with("HTTP/1.1 101 "));
        assert_eq!(client.frame().await, (0x81, b"early".to_vec()), "cut at {cut}");
        drop(client);
        server.is_empty().await;
    }
}

#[tokio::test]
async fn a_door_may_take_its_time() {
    let server = Server::with("slow-door", config(), |pool| Gate::new(pool, Slow), echo()).await;
    let mut client = server.open("ada").await;
    client.send(0x82, b"x").await;
    assert_eq!(client.frame().await, (0x82, b"x".to_vec()));
    let answer = server.client(&request("/", "")).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    drop(client);
    server.is_empty().await;
}

#[tokio::test]
async fn a_socket_that_says_nothing_is_closed_in_time_and_a_crowd_of_them_is_bounded() {
    let mut config = config();
    (config.reservation_deadline, config.max_unauthenticated) = (Duration::from_millis(50), 2);
    let server = Server::start("silent", config).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(server.client("GET /").await);
    }
    assert!(server.pool.unauthenticated() <= 2);
    for mut client in silent {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, client.0.read_to_end(&mut rest)).await.expect("closed in time");
        assert!(rest.is_empty() || read.is_err(), "{rest:?}");
    }
    server.is_empty().await;
}

/// More come at once than may be without an owner: they wait in the kernel, and nobody is turned away.
#[tokio::test]
async fn a_crowd_waits_for_a_vacancy_and_all_of_it_gets_in() {
    const CROWD: usize = 60;
    let mut config = config();
    (config.max_unauthenticated, config.reservation_deadline) = (2, PATIENCE);
    let pool: Pool = Pool::builder().name("gate-crowd").config(config).build().unwrap();
    let gate = Gate::new(&pool, door(by_query));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let outcomes: Arc<[AtomicUsize; 2]> = Arc::default();
    let mut accepting = JoinSet::new();
    let (seen, told) = (pool.clone(), outcomes.clone());
    accepting.spawn(async move {
        loop {
            let vacancy = gate.vacancy().await;
            let (stream, _) = listener.accept().await.unwrap();
            assert!(seen.unauthenticated() <= 2);
            let (serving, told) = (vacancy.accept(stream, echo()), told.clone());
            tokio::spawn(async move {
                {
                    let is_ok = serving.await.is_ok();
                    told[usize::from(is_ok)].fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    let mut clients = JoinSet::new();
    for number in 0..CROWD {
        clients.spawn(async move {
            let mut client = Client(TcpStream::connect(address).await.unwrap());
            tokio::task::yield_now().await;
            client.0.write_all(request(&format!("/?user-{number}"), "").as_bytes()).await.unwrap();
            let answer = client.answer().await;
            assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    eventually("all have come and gone", || outcomes[1].load(Ordering::SeqCst) == CROWD).await;
    assert_eq!(outcomes[0].load(Ordering::SeqCst), 0, "nobody was turned away");
    assert!(pool.ledger().balanced && pool.ledger().occupied_slots == 0);
    assert_eq!(pool.unauthenticated(), 1, "the vacancy that waits for the next");
    accepting.shutdown().await;
    assert_eq!(pool.unauthenticated(), 0);
}

/// Waits for ever, with a message in its hands.
#[derive(Clone)]
struct Hanging;

impl Application for Hanging {
    type Session = ();

    async fn received(
        &self,
        conn: &mut Connection<'_, ()>,
        message: Received<'_>,
    ) -> Result<(), HandlerError> {
        let _ = conn.send(message.to_message());
        std::future::pending::<()>().await;
        unreachable!("{message:?} is borrowed until then")
    }
}

#[tokio::test]
async fn a_message_that_a_handler_waits_with_lies_aside_and_the_manager_can_be_taken_back() {
    let server = Server::with("hanging", config(), |pool| Gate::new(pool, door(by_query)), Hanging).await;
    let mut client = server.open("ada").await;
    client.send(0x81, &[b'x'; 100]).await;
    assert_eq!(client.frame().await.1, [b'x'; 100]);
    assert_eq!(server.pool.snapshot().inbound.leased_bytes, 1 << 10, "as little as holds it");
    let key = server.pool.keys_of(&UserId::new("ada").unwrap())[0];
    server.pool.evict(key, EndReason::Operator).unwrap();
    assert_eq!(client.close_code().await, 4002);
    drop(client);
    server.is_empty().await;
}

#[tokio::test]
async fn trickled_heads_of_frames_lease_nothing() {
    let server = Server::start("trickle", config()).await;
    let mut clients = Vec::new();
    for number in 0..40 {
        let mut client = server.open(&format!("user-{number}")).await;
        client.0.write_all(&frame(0x82, &[0; 100])[..5]).await.unwrap();
        clients.push(client);
    }
    eventually("all of them have begun", || server.pool.managers(100).len() == 40).await;
    assert_eq!(server.pool.snapshot().inbound.leased_bytes, 0);
    for client in &mut clients {
        client.0.write_all(&frame(0x82, &[0; 100])[5..]).await.unwrap();
        assert_eq!(client.frame().await.1.len(), 100);
    }
    drop(clients);
    server.is_empty().await;
}

#[tokio::test]
async fn a_message_that_is_never_finished_ends_its_connection() {
    let mut config = config();
    (config.message_timeout, config.reservation_deadline) = (Duration::from_millis(50), PATIENCE);
    let server = Server::start("unfinished", config).await;
    let mut client = server.open("ada").await;
    client.send(0x01, b"half of").await; // no final fragment follows, and pings do not help
    client.send(0x89, b"").await;
    assert_eq!(client.frame().await.0, 0x8a);
    assert_eq!(client.close_code().await, 1013);
    eventually("it ended for that", || {
        server.pool.ledger().tally.ends_by_reason.get(EndReason::Unfinished.name()) == Some(&1)
    })
    .await;
    drop(client);
    server.is_empty().await;
}

#[tokio::test]
async fn where_buffers_are_short_the_longest_unfinished_makes_room() {
    let mut config = config();
    config.inbound_pool_bytes = 64 << 10;
    let server = Server::start("short", config).await;
    // Each holds a buffer for what it does not finish.
    let mut hoarders = Vec::new();
    for number in 0..80 {
        let mut client = server.open(&format!("hoarder-{number}")).await;
        client.send(0x02, &[1; 120]).await;
        hoarders.push(client);
    }
    eventually("the limit is used up", || server.pool.snapshot().inbound.exhausted > 0).await;
    let mut client = server.open("ada").await;
    client.send(0x82, b"let me through").await;
    assert_eq!(client.frame().await.1, b"let me through");
    let ended = || server.pool.ledger().tally.ends_by_reason.get("unfinished").copied().unwrap_or(0);
    eventually("somebody made room", || ended() > 0).await;
    assert_eq!(hoarders[0].close_code().await, 1013, "the one who began first");
    drop((hoarders, client));
    server.is_empty().await;
}

/// Handlers keep what buffers there are: whoever finds none has begun nothing, and waits.
#[tokio::test]
async fn who_finds_no_buffer_is_not_taken_for_unfinished() {
    let mut config = config();
    (config.inbound_pool_bytes, config.message_timeout) = (64 << 10, Duration::from_millis(50));
    let server = Server::with("starved", config, |pool| Gate::new(pool, door(by_query)), Hanging).await;
    let mut hoarders = Vec::new();
    while server.pool.snapshot().inbound.exhausted == 0 {
        let mut client = server.open(&format!("hoarder-{}", hoarders.len())).await;
        client.send(0x82, &[1; 120]).await;
        assert_eq!(client.frame().await.1, [1; 120]);
        hoarders.push(client);
        assert!(hoarders.len() < 200, "the limit is used up long before");
    }
    let mut client = server.open("ada").await;
    client.send(0x82, b"patience").await;
    tokio::time::sleep(2 * server.pool.config().message_timeout).await;
    // From here on it asks for a buffer again, and again, or it has been ended.
    let exhausted = || server.pool.snapshot().inbound.exhausted;
    let before = exhausted();
    while exhausted() < before + 2 {
        assert_eq!(server.pool.ledger().tally.ended, 0, "nobody was ended");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for number in 0..hoarders.len() {
        let user = UserId::new(format!("hoarder-{number}")).unwrap();
        server.pool.evict(server.pool.keys_of(&user)[0], EndReason::Operator).unwrap();
    }
    assert_eq!(client.frame().await.1, b"patience");
    drop(client);
    let ada = server.pool.keys_of(&UserId::new("ada").unwrap())[0];
    server.pool.evict(ada, EndReason::Operator).unwrap(); // its handler waits for ever
    server.is_empty().await;
}

#[tokio::test]
async fn a_task_that_is_cancelled_at_any_moment_leaves_nothing() {
    let pool: Pool = Pool::builder().name("gate-cancelled").config(config()).build().unwrap();
    let gate = Gate::new(&pool, door(by_query));
    let mut script = request("/?ada", "").into_bytes();
    script.extend(frame(0x01, b"one "));
    script.extend(frame(0x80, b"message"));
    script.extend(&frame(0x82, &[7; 100])[..50]);
    for sent in (0..script.len()).step_by(7).chain([script.len()]) {
        let (mut theirs, ours) = tokio::io::duplex(1 << 10);
        let mut accepting = Box::pin(gate.accept(ours, echo()));
        theirs.write_all(&script[..sent]).await.unwrap();
        for _ in 0..4 {
            let turn = std::future::poll_fn(|cx| std::task::Poll::Ready(accepting.as_mut().poll(cx)));
            assert!(turn.await.is_pending(), "after {sent} bytes");
        }
        drop(accepting);
        assert!(pool.ledger().balanced && pool.ledger().occupied_slots == 0, "after {sent} bytes");
        assert_eq!((pool.unauthenticated(), pool.snapshot().inbound.leased_bytes), (0, 0), "after {sent}");
    }
}

/// The lease begins before the answer is written: what is said at once needs no write of its own.
#[tokio::test]
async fn the_answer_and_what_is_said_at_once_go_out_in_one_piece() {
    let pool: Pool = Pool::builder().name("gate-one-piece").config(config()).build().unwrap();
    for gate in [Gate::new(&pool, door(by_query)), Gate::new(&pool, door(by_query)).with_header("A", "b")] {
        let (mut theirs, ours) = tokio::io::duplex(4 << 10);
        let writes = Arc::new(AtomicUsize::new(0));
        let welcoming = tokio::spawn(gate.accept(Counted { io: ours, writes: writes.clone() }, Welcoming));
        theirs.write_all(request("/?ada", "").as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"\x07welcome") {
            assert_ne!(theirs.read_buf(&mut heard).await.unwrap(), 0, "it hung up after {heard:?}");
        }
        assert!(heard.starts_with(b"HTTP/1.1 101 "));
        assert_eq!(writes.load(Ordering::Relaxed), 1);
        drop(theirs);
        assert_eq!(welcoming.await.unwrap().unwrap().reason, EndReason::SocketError);
    }
    assert!(pool.ledger().balanced && pool.ledger().occupied_slots == 0);
}

#[derive(Clone)]
struct Welcoming;

impl Application for Welcoming {
    type Session = ();

    async fn connected(&self, conn: &mut Connection<'_, ()>) -> Result<(), HandlerError> {
        let _ = conn.send(Message::from("welcome"));
        Ok(())
    }

    async fn received(&self, _: &mut Connection<'_, ()>, _: Received<'_>) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// Counts what is written at a time.
struct Counted<IO> {
    io: IO,
    writes: Arc<AtomicUsize>,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Counted<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Cx<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, space)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Counted<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Cx<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[test]
fn a_place_that_is_gone_is_told_by_a_status() {
    let told = |error: OpenError| {
        let rejection = Rejection::from(error);
        (rejection.status(), rejection.retry_after())
    };
    let soon = Some(Duration::from_secs(1));
    assert_eq!(told(OpenError::Expired), (503, soon));
    assert_eq!(told(OpenError::Busy), (503, soon));
    assert_eq!(told(OpenError::ThreadInUse), (409, None));
    assert_eq!(told(OpenError::SessionPanicked), (500, None));
}

/// Beyond the shelves' sizes a buffer is made to measure: it has to grow by steps that grow with it.
#[tokio::test]
async fn a_message_of_many_mebibytes_in_small_frames_is_put_together() {
    const MESSAGE: usize = 4 << 20;
    let mut config = config();
    (config.inbound_message_bytes, config.inbound_frame_bytes) = (MESSAGE, MESSAGE);
    let server = Server::with("large", config, |pool| Gate::new(pool, door(by_query)), Measuring).await;
    let mut client = server.open("ada").await;
    let part = [b'x'; 64];
    let mut bytes = Vec::new();
    for number in 0..MESSAGE / part.len() {
        let is_last = number + 1 == MESSAGE / part.len();
        bytes.extend(frame(u8::from(number == 0) | if is_last { 0x80 } else { 0 }, &part));
    }
    client.0.write_all(&bytes).await.unwrap();
    assert_eq!(client.frame().await.1, MESSAGE.to_string().as_bytes());
    drop(client);
    server.is_empty().await;
}

/// Says how long a message was.
#[derive(Clone)]
struct Measuring;

impl Application for Measuring {
    type Session = ();

    async fn received(
        &self,
        conn: &mut Connection<'_, ()>,
        message: Received<'_>,
    ) -> Result<(), HandlerError> {
        let _ = conn.send(Message::text(message.len().to_string()));
        Ok(())
    }
}
