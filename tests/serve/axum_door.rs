//! With axum: its own shutdown beside a drain, and a porch in front of it.

use crate::support::{PATIENCE, close_code, eventually, hear, knock, say};
use axum::Router;
use axum::http::request::Parts;
use axum::routing::{any, get};
use std::io::Result;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use ws_manager_pool::serve::{
    Entrance, Identify, PooledUpgrade, Porch, PorchListener, Refusal, application, drain,
};
use ws_manager_pool::{Config, Environment, IdGenerator, Pool, UserExecutionContext};

struct Anybody;

impl Identify for Anybody {
    type Session = ();

    async fn identify(&self, _: &Parts) -> std::result::Result<UserExecutionContext, Refusal> {
        Ok(UserExecutionContext::from_websocket_request("ada", IdGenerator::user_context_ids("ada", "test"))?)
    }
}

/// Longer than the short deadline of the tests below.
const SLOW: Duration = Duration::from_millis(600);
const DEADLINE: Duration = Duration::from_millis(200);

fn router(pool: &Pool) -> Router {
    let echo = |upgrade: PooledUpgrade<Anybody>| async {
        upgrade.serve(application(|conn, message| {
            let _ = conn.send(message.to_message());
            Ok(())
        }))
    };
    let slow = || async {
        sleep(SLOW).await;
        "slow"
    };
    Router::new()
        .route("/ws", any(echo))
        .route("/health", get(|| async { "well" }))
        .route("/slow", get(slow))
        .with_state(Entrance::new(pool.clone(), Anybody))
}

fn patient() -> Config {
    let mut config = Config::preset(Environment::Ci);
    for span in [
        &mut config.close_timeout,
        &mut config.drain_timeout,
        &mut config.heartbeat_interval,
        &mut config.reservation_deadline,
    ] {
        *span = PATIENCE;
    }
    config
}

/// Asks for a path, and reads the whole answer.
async fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer
}

#[tokio::test]
async fn a_drain_and_axums_shutdown_go_together_and_other_requests_are_answered_meanwhile() {
    let pool: Pool = Pool::builder().config(patient()).name("axum-shutdown").build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, asked_to_stop) = oneshot::channel::<()>();
    let draining = pool.clone();
    let shutdown = async move {
        asked_to_stop.await.unwrap();
        drain(&draining).await;
    };
    let router = router(&pool);
    let server: JoinHandle<Result<()>> =
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(shutdown).await });
    let mut client = knock(address, "ws").await.unwrap();
    say(&mut client, "hello").await;
    assert_eq!(hear(&mut client).await, "hello");

    stop.send(()).unwrap();
    eventually("it drains", || pool.drain_progress().is_some_and(|so_far| so_far.evicted == 1)).await;
    // The client has not read the close frame, so the drain goes on.
    assert!(ask(address, "/health").await.ends_with("well"));
    assert_eq!(knock(address, "ws").await.map(drop), Err(503));
    assert!(!server.is_finished() && pool.drain_progress().unwrap().remaining == 1);

    assert_eq!(close_code(&mut client).await, 1001);
    timeout(PATIENCE, server).await.expect("nothing is left to wait for").unwrap().unwrap();
    let report = pool.drain_progress().unwrap();
    assert!(report.is_over && (report.finished, report.remaining) == (1, 0), "{report:?}");
    assert!(pool.ledger().balanced && pool.ledger().occupied_slots == 0);
}

async fn with_porch(name: &str, max_unauthenticated: usize, deadline: Duration) -> (Pool, SocketAddr) {
    let mut config = patient();
    (config.max_unauthenticated, config.reservation_deadline) = (max_unauthenticated, deadline);
    let pool: Pool = Pool::builder().config(config).name(name).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = PorchListener::new(Porch::new(&pool), listener);
    let router = router(&pool);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (pool, address)
}

#[tokio::test]
async fn sockets_that_say_nothing_fill_the_porch_only_until_their_deadline() {
    let (pool, address) = with_porch("axum-porch", 2, DEADLINE).await;
    let mut silent = Vec::new();
    for begun in ["", "GET /ws HTTP/1.1\r\nHost: a\r\n", "", ""] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    let mut client = timeout(PATIENCE, knock(address, "ws")).await.expect("its turn comes").unwrap();
    say(&mut client, "hello").await;
    assert_eq!(hear(&mut client).await, "hello");
    for mut stream in silent {
        let end = timeout(PATIENCE, stream.read(&mut [0; 100])).await.expect("it is closed");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    eventually("nobody is on the porch", || pool.unauthenticated() == 0).await;
    say(&mut client, "still here").await;
    assert_eq!(hear(&mut client).await, "still here");
}

#[tokio::test]
async fn whoever_has_asked_is_on_the_porch_until_it_is_answered_and_no_deadline_ends_it() {
    let (pool, address) = with_porch("axum-porch-slow", 10, DEADLINE).await;
    let asking = tokio::spawn(async move { ask(address, "/slow").await });
    eventually("it is there", || pool.unauthenticated() == 1).await;
    assert!(asking.await.unwrap().ends_with("slow"));
    eventually("it has left", || pool.unauthenticated() == 0).await;
}
