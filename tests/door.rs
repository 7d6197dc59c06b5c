//! The axum door, request by request: whatever refuses does so before the handshake.

use axum::Router;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::any;
use std::future::pending;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use ws_manager_pool::serve::{
    ClientAddress, Entrance, Identify, PooledUpgrade, Refusal, Throttle, application,
};
use ws_manager_pool::{Config, DuplicatePolicy, Environment, IdGenerator, Pool, UserExecutionContext};

const PATIENCE: Duration = Duration::from_secs(60);

/// Believes the headers `user` and `thread`, but lets nobody in who is called mallory.
struct ByHeader;

impl Identify for ByHeader {
    type Session = ();

    async fn identify(&self, request: &Parts) -> Result<UserExecutionContext, Refusal> {
        let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
        let user = match header("user") {
            None => return Err(Refusal::new(StatusCode::UNAUTHORIZED, "say who you are")),
            Some("mallory") => return Err(Refusal::new(StatusCode::FORBIDDEN, "not you")),
            Some("sphinx") => pending().await,
            Some(user) => user,
        };
        let mut ids = IdGenerator::user_context_ids(user, "test");
        if let Some(thread) = header("thread") {
            ids = ids.with_client_thread(thread)?;
        }
        Ok(UserExecutionContext::from_websocket_request(user, ids)?)
    }
}

async fn enter(upgrade: PooledUpgrade<ByHeader>) -> Response {
    let upgrade = upgrade.protocols(["chat.v2", "chat.v1"]);
    let chosen = upgrade.selected_protocol().and_then(|name| name.to_str().ok()).unwrap_or("none").to_owned();
    upgrade.serve(application(move |conn, _| {
        let _ = conn.send(ws_manager_pool::Message::text(chosen.clone()));
        Ok(())
    }))
}

struct Server {
    pool: Pool,
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Server {
    async fn start(name: &str, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_behind(name, change, |entrance| entrance).await
    }

    async fn start_behind(
        name: &str,
        change: impl FnOnce(&mut Config),
        finish: impl FnOnce(Entrance<ByHeader>) -> Entrance<ByHeader>,
    ) -> Self {
        let mut config = Config::preset(Environment::Ci);
        (config.heartbeat_interval, config.reservation_deadline) = (PATIENCE, PATIENCE);
        change(&mut config);
        let pool = Pool::builder().name(name).config(config).build().unwrap();
        let router =
            Router::new().fallback(any(enter)).with_state(finish(Entrance::new(pool.clone(), ByHeader)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { pool, address, _serving: serving }
    }

    /// Asks for a WebSocket with these headers, and reads the whole head of the answer.
    async fn ask(&self, headers: &[(&str, &str)]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut request = "GET / HTTP/1.1\r\nHost: pool.example\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
            .to_owned();
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        stream.write_all((request + "\r\n").as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, stream.read_u8()).await.expect("an answer").unwrap());
        }
        Answer { head: String::from_utf8(head).unwrap().to_ascii_lowercase(), stream }
    }

    async fn status(&self, headers: &[(&str, &str)]) -> u16 {
        self.ask(headers).await.status()
    }

    fn is_untouched(&self) {
        let snapshot = self.pool.snapshot();
        assert_eq!((snapshot.live, snapshot.reserved), (0, 0), "a refusal leaves nothing behind");
    }
}

struct Answer {
    head: String,
    stream: TcpStream,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&*prefix))
    }

    /// Sends bytes, and returns the code of the close frame that answers.
    async fn close_code(mut self, bytes: &[u8]) -> u16 {
        self.stream.write_all(bytes).await.unwrap();
        let mut close = [0; 4];
        timeout(PATIENCE, self.stream.read_exact(&mut close)).await.expect("an answer").unwrap();
        assert_eq!(close[0], 0x88);
        u16::from_be_bytes([close[2], close[3]])
    }
}

#[tokio::test]
async fn whoever_is_refused_is_refused_before_the_handshake() {
    let server = Server::start("door-refusals", |config| {
        (config.capacity, config.max_managers_per_user) = (2, 1);
        config.duplicates = DuplicatePolicy::Reject;
    })
    .await;
    assert_eq!(server.status(&[("user", "a\tb")]).await, 400);
    assert_eq!(server.status(&[("user", "ada"), ("thread", "7")]).await, 400);
    assert_eq!(server.status(&[]).await, 401);
    assert_eq!(server.status(&[("user", "mallory")]).await, 403);
    assert_eq!(server.status(&[("user", "ada"), ("origin", "https://evil.example")]).await, 403);
    server.is_untouched();

    let ada = server.ask(&[("user", "ada"), ("thread", "thread_1")]).await;
    assert_eq!(ada.status(), 101);
    assert_eq!(server.status(&[("user", "ada"), ("thread", "thread_1")]).await, 409);
    let full = server.ask(&[("user", "ada")]).await;
    assert_eq!((full.status(), full.header("retry-after")), (429, Some("5")));
    let bob = server.ask(&[("user", "bob")]).await;
    assert_eq!(bob.status(), 101);
    let full = server.ask(&[("user", "eve")]).await;
    assert_eq!((full.status(), full.header("retry-after")), (503, Some("5")));
}

#[tokio::test]
async fn who_cannot_be_identified_in_time_is_sent_away() {
    let server =
        Server::start("door-slow", |config| config.reservation_deadline = Duration::from_millis(20)).await;
    let answer = server.ask(&[("user", "sphinx")]).await;
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")));
    server.is_untouched();
}

#[tokio::test]
async fn the_best_subprotocol_that_both_speak_is_agreed_on() {
    let server = Server::start("door-protocols", |_| {}).await;
    for (asked, agreed) in
        [("chat.v1", Some("chat.v1")), ("chat.v1, chat.v2", Some("chat.v2")), ("soap", None)]
    {
        let answer = server.ask(&[("user", "ada"), ("sec-websocket-protocol", asked)]).await;
        assert_eq!((answer.status(), answer.header("sec-websocket-protocol")), (101, agreed));
    }
    assert_eq!(server.ask(&[("user", "ada")]).await.header("sec-websocket-protocol"), None);
}

#[tokio::test]
async fn frames_and_messages_have_sizes_of_their_own() {
    let server = Server::start("door-sizes", |config| {
        (config.inbound_message_bytes, config.inbound_frame_bytes) = (150, 100);
    })
    .await;
    let frame = |first: u8, len: u8| {
        let mut bytes = vec![first, 0x80 | len, 0, 0, 0, 0];
        bytes.resize(6 + usize::from(len), 0);
        bytes
    };
    let too_large = frame(0x82, 101);
    assert_eq!(server.ask(&[("user", "ada")]).await.close_code(&too_large).await, 1009);
    let too_many = [frame(0x02, 100), frame(0x80, 51)].concat();
    assert_eq!(server.ask(&[("user", "ada")]).await.close_code(&too_many).await, 1009);
    let close = [frame(0x02, 100), frame(0x80, 50), vec![0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]].concat();
    let mut fits = server.ask(&[("user", "ada")]).await;
    fits.stream.write_all(&close).await.unwrap();
    let mut said = [0; 2 + 4 + 4];
    timeout(PATIENCE, fits.stream.read_exact(&mut said)).await.unwrap().unwrap();
    assert_eq!(said[..6], *b"\x81\x04none");
}

fn twice() -> NonZeroU32 {
    NonZeroU32::new(2).unwrap()
}

#[tokio::test]
async fn an_address_and_a_user_that_come_too_often_are_told_when_to_come_again() {
    let throttle = Throttle::new().per_user(twice(), PATIENCE);
    let server =
        Server::start_behind("door-user", |_| {}, |it| it.with_throttle(throttle, ClientAddress::Peer)).await;
    for status in [101, 101, 429] {
        assert_eq!(server.status(&[("user", "ada")]).await, status);
    }
    assert_eq!(server.status(&[("user", "bob")]).await, 101);

    let throttle = Throttle::new().per_address(twice(), PATIENCE);
    let server =
        Server::start_behind("door-peer", |_| {}, |it| it.with_throttle(throttle, ClientAddress::Peer)).await;
    for (user, status) in [("ada", 101), ("bob", 101), ("eve", 429)] {
        assert_eq!(server.status(&[("user", user)]).await, status);
    }
    let refused = server.ask(&[]).await;
    assert_eq!(refused.status(), 429, "before anybody asks who it is");
    let seconds = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=PATIENCE.as_secs() / 2).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn behind_a_proxy_the_address_is_the_last_that_the_header_names() {
    let address = ClientAddress::Header("x-forwarded-for".try_into().unwrap());
    let throttle = Throttle::new().per_address(twice(), PATIENCE);
    let server = Server::start_behind("door-proxy", |_| {}, |it| it.with_throttle(throttle, address)).await;
    for (number, status) in [(1, 101), (2, 101), (3, 429)] {
        // What the client says before it changes nothing.
        let header = format!("10.0.0.{number}, 192.0.2.1");
        assert_eq!(server.status(&[("user", "ada"), ("x-forwarded-for", &header)]).await, status);
    }
    assert_eq!(server.status(&[("user", "ada"), ("x-forwarded-for", "192.0.2.2")]).await, 101);
    assert_eq!(server.status(&[("user", "ada"), ("x-forwarded-for", "somewhere")]).await, 400);
    assert_eq!(server.status(&[("user", "ada")]).await, 400);
}
