//! The axum door: who is let in, and what those hear who are not.

use axum::Router;
use axum::extract::State;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::any;
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message as Wire};
use tokio_tungstenite::{WebSocketStream, client_async};
use ws_manager_pool::serve::{Entrance, Identify, OriginPolicy, PooledUpgrade, Refusal, application, drain};
use ws_manager_pool::{
    DuplicatePolicy, EndReason, Environment, IdGenerator, Pool, PoolBuilder, UserExecutionContext, UserId,
};

const PATIENCE: Duration = Duration::from_secs(60);

type Client = WebSocketStream<TcpStream>;

/// Believes the path: `/user` or `/user/thread`.
struct ByPath;

impl Identify for ByPath {
    type Session = ();

    async fn identify(&self, request: &Parts) -> Result<UserExecutionContext, Refusal> {
        let mut path = request.uri.path().split('/').skip(1);
        let user = path.next().unwrap_or_default();
        let ids = IdGenerator::user_context_ids(user, "test");
        let ids = match path.next() {
            Some(thread) => ids.with_client_thread(thread)?,
            None => ids,
        };
        Ok(UserExecutionContext::from_websocket_request(user, ids)?)
    }
}

async fn echo(upgrade: PooledUpgrade<ByPath>, State(_): State<Entrance<ByPath>>) -> Response {
    upgrade.serve(application(|conn, message| {
        let _ = conn.send(message.to_message());
        Ok(())
    }))
}

struct Server {
    pool: Pool,
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Server {
    async fn start(builder: PoolBuilder<()>) -> Self {
        Self::start_for(builder, OriginPolicy::default()).await
    }

    async fn start_for(builder: PoolBuilder<()>, origins: OriginPolicy) -> Self {
        let pool = builder.build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let entrance = Entrance::with_origins(pool.clone(), ByPath, origins);
        let router = Router::new().fallback(any(echo)).with_state(entrance);
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { pool, address, _serving: serving }
    }

    async fn connect(&self, path: &str) -> Result<Client, Refused> {
        self.connect_from(path, None).await
    }

    async fn connect_from(&self, path: &str, origin: Option<&str>) -> Result<Client, Refused> {
        let mut request = format!("ws://{}/{path}", self.address).into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("Origin", origin.parse().unwrap());
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        match client_async(request, stream).await {
            Ok((client, _)) => Ok(client),
            Err(Error::Http(response)) => Err(Refused {
                status: response.status().as_u16(),
                retry_after: response.headers().get("Retry-After").map(|at| at.to_str().unwrap().to_owned()),
                text: String::from_utf8(response.body().clone().unwrap_or_default()).unwrap(),
            }),
            Err(error) => panic!("{error}"),
        }
    }

    async fn is_empty(&self) {
        eventually("every manager is free", || {
            let ledger = self.pool.ledger();
            ledger.balanced && (ledger.leases, ledger.users_sum, ledger.occupied_slots) == (0, 0, 0)
        })
        .await;
    }
}

#[derive(Debug)]
struct Refused {
    status: u16,
    retry_after: Option<String>,
    text: String,
}

fn pool(name: &str) -> PoolBuilder<()> {
    let builder = Pool::builder().name(name).environment(Environment::Ci);
    builder.reservation_deadline(PATIENCE).heartbeat_interval(PATIENCE)
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "in vain: {what}");
}

async fn echoes(client: &mut Client, text: &str) {
    client.send(Wire::text(text)).await.unwrap();
    loop {
        match in_time(client.next()).await.unwrap().unwrap() {
            Wire::Text(answer) => return assert_eq!(answer, text),
            Wire::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn close_code(client: &mut Client) -> u16 {
    loop {
        if let Wire::Close(close) = in_time(client.next()).await.unwrap().unwrap() {
            let _ = client.flush().await; // sends the answer
            return close.unwrap().code.into();
        }
    }
}

#[tokio::test]
async fn the_connection_above_the_limit_is_refused_before_the_handshake() {
    let builder = pool("axum-limit").max_managers_per_user(20);
    let server = Server::start(builder).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(server.connect("ada").await.unwrap());
    }
    let refused = server.connect("ada").await.unwrap_err();
    assert_eq!(refused.status, 429);
    assert!(refused.retry_after.unwrap().parse::<u32>().unwrap() > 0);
    assert!(refused.text.contains("20 open connections"), "{}", refused.text);
    server.connect("bob").await.expect("the limit is the user's own");

    clients.pop().unwrap().close(None).await.unwrap();
    let mut next = loop {
        match server.connect("ada").await {
            Ok(client) => break client,
            Err(refused) => assert_eq!(refused.status, 429), // the close is under way
        }
    };
    echoes(&mut next, "in again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_burst_exactly_the_limit_is_accepted() {
    let builder = pool("axum-burst").max_managers_per_user(20);
    let server = Server::start(builder).await;
    let outcomes = join_all((0..200).map(|_| server.connect("ada"))).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(accepted.len(), 20);
    assert!(refused.into_iter().all(|refused| refused.unwrap_err().status == 429));
    eventually("all are open", || server.pool.snapshot().live == 20).await;
    drop(accepted);
    server.is_empty().await;
}

#[tokio::test]
async fn a_user_at_the_limit_in_a_full_pool_reconnects_with_a_live_thread() {
    let builder = pool("axum-reconnect").capacity(20).max_managers_per_user(20);
    let builder = builder.duplicates(DuplicatePolicy::Replace);
    let server = Server::start(builder).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = server.connect(&format!("ada/thread_{number}")).await.unwrap();
        echoes(&mut client, "here").await;
        clients.push(client);
    }
    assert_eq!(server.connect("bob").await.unwrap_err().status, 503);
    assert_eq!(server.connect("ada/thread_20").await.unwrap_err().status, 429);
    let mut again = server.connect("ada/thread_7").await.expect("its own place is taken over");
    echoes(&mut again, "again").await;
    assert_eq!(close_code(&mut clients[7]).await, 4001);
    let snapshot = server.pool.snapshot();
    assert_eq!((snapshot.live, snapshot.reserved, snapshot.ledger.balanced), (20, 0, true));
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_unless_the_policy_says_otherwise() {
    let same = Server::start(pool("axum-origin").capacity(100).max_managers_per_user(100)).await;
    let port = same.address.port();
    let foreign = [
        "https://evil.example",
        "null",
        "",
        "file://",
        &format!("http://127.0.0.1:{}", port ^ 1),
        &format!("http://127.0.0.1:{port}.evil.example"),
        &format!("http://evil@127.0.0.1:{port}"),
    ];
    for origin in foreign {
        let refused = same.connect_from("ada", Some(origin)).await.unwrap_err();
        assert_eq!((refused.status, refused.retry_after), (403, None), "{origin}");
        assert!(refused.text.contains("origin"));
    }
    same.connect_from("ada", Some(&format!("http://127.0.0.1:{port}"))).await.unwrap();
    same.connect_from("ada", None).await.unwrap();

    let listed = OriginPolicy::List(vec!["https://chat.example".to_owned()]);
    let listed = Server::start_for(pool("axum-listed"), listed).await;
    listed.connect_from("ada", Some("https://chat.example")).await.unwrap();
    assert_eq!(listed.connect_from("ada", Some("http://chat.example")).await.unwrap_err().status, 403);

    let any = Server::start_for(pool("axum-any"), OriginPolicy::Any).await;
    any.connect_from("ada", Some("https://evil.example")).await.unwrap();
}

#[tokio::test]
async fn a_bad_id_is_refused_with_the_rule() {
    let server = Server::start(pool("axum-ids")).await;
    for (path, rule) in [
        ("", "user_id is empty"),
        (&*"x".repeat(129), "user_id has 129 bytes"),
        ("ada/7", "thread_id does not start with `thread_`"),
        ("ada/thread_%20", "thread_id has the character U+0025"),
    ] {
        let refused = server.connect(path).await.unwrap_err();
        assert_eq!((refused.status, refused.retry_after), (400, None));
        assert!(refused.text.contains(rule), "{path}: {}", refused.text);
    }
    assert_eq!(server.pool.snapshot().reserved, 0);
}

#[tokio::test]
async fn a_draining_server_says_so() {
    let server = Server::start(pool("axum-drain")).await;
    let mut client = server.connect("ada").await.unwrap();
    echoes(&mut client, "here").await;
    let (report, code) = tokio::join!(drain(&server.pool), close_code(&mut client));
    assert_eq!((report.evicted, report.remaining, code), (1, 0, 1001));
    let refused = server.connect("ada").await.unwrap_err();
    assert_eq!((refused.status, refused.retry_after.as_deref()), (503, Some("30")));
}

#[tokio::test]
async fn a_client_that_vanishes_during_the_handshake_leaves_no_reservation() {
    let server = Server::start(pool("axum-vanish")).await;
    for _ in 0..50 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = "GET /ada HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
    eventually("nothing is reserved", || server.pool.snapshot().reserved == 0).await;
    server.is_empty().await;
}

#[tokio::test]
async fn a_manager_was_made_where_the_application_lets_it_in() {
    let server = Server::start(pool("axum-made-at")).await;
    let _client = server.connect("ada").await.unwrap();
    eventually("it is open", || server.pool.snapshot().live == 1).await;
    let made_at = server.pool.managers(1).remove(0).made_at;
    assert!(made_at.starts_with(file!()), "{made_at}");
}

#[tokio::test]
async fn a_plain_request_is_answered_and_reserves_nothing() {
    use tokio::io::AsyncReadExt;
    let server = Server::start(pool("axum-plain")).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /ada HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    in_time(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(server.pool.snapshot().reserved, 0);
}

/// Fails if axum is built on another version of tungstenite than the one whose errors are looked at.
#[tokio::test]
async fn the_peers_mistakes_are_told_apart() {
    let server = Server::start(pool("axum-faults")).await;
    let too_large = [0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mistakes: [(&[u8], u16); 3] =
        [(&[0x81, 0x01, b'a'], 1002), (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007), (&too_large, 1009)];
    for (bytes, code) in mistakes {
        let mut client = server.connect("ada").await.unwrap();
        client.get_mut().write_all(bytes).await.unwrap();
        assert_eq!(close_code(&mut client).await, code);
        server.is_empty().await;
    }
    drop(server.connect("ada").await.unwrap());
    server.is_empty().await;
    let ends = server.pool.ledger().tally.ends_by_reason;
    let expected = [
        EndReason::InvalidUtf8,
        EndReason::ProtocolError,
        EndReason::SocketError, // the one that only went away
        EndReason::TooLarge,
    ];
    assert_eq!(ends, expected.map(|reason| (reason.name(), 1)).into());
}

#[tokio::test]
async fn an_evicted_client_is_told_why() {
    let server = Server::start(pool("axum-evict")).await;
    let mut client = server.connect("ada").await.unwrap();
    echoes(&mut client, "here").await;
    let evicted =
        server.pool.cleanup_all_user_managers(&UserId::new("ada").unwrap(), EndReason::Operator).cleaned;
    assert_eq!((evicted, close_code(&mut client).await), (1, 4002));
    server.is_empty().await;
}
