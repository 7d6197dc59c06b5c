//! Several runtimes in one process share a pool, and none depends on another one being driven.

use crate::support::{Count, Server, close_code, connect};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use ws_manager_pool::{Clock, EndReason, Environment, Pool};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// On the first one somebody was served; then it is neither driven nor dropped.
fn a_silent_peer_is_found_beside_a_runtime_that_stands_still(name: &str, second: fn() -> Runtime) {
    let (clock, hand) = Clock::manual();
    let builder = Pool::builder().name(name).environment(Environment::Ci);
    let pool: Pool<Count> = builder.clock(clock).idle_background(None).build().unwrap();
    let first = current_thread();
    first.block_on(async {
        let server = Server::start(pool.clone()).await;
        connect(server.address, "ada").await.close(None).await.unwrap();
        server.is_empty().await;
    });
    let (connected, wait_for_connection) = oneshot::channel();
    let served = thread::spawn(move || {
        second().block_on(async {
            let mut server = Server::start(pool).await;
            let mut client = connect(server.address, "bob").await;
            connected.send(()).unwrap();
            let report = server.report().await;
            assert_eq!(close_code(&mut client).await, 4005);
            report.reason
        })
    });
    wait_for_connection.blocking_recv().unwrap();
    while !served.is_finished() {
        hand.advance(Duration::from_millis(100));
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(served.join().unwrap(), EndReason::Heartbeat);
    drop(first);
}

#[test]
fn a_silent_peer_is_found_on_a_current_thread_beside_a_runtime_that_stands_still() {
    a_silent_peer_is_found_beside_a_runtime_that_stands_still("runtimes-one", current_thread);
}

#[test]
fn a_silent_peer_is_found_on_many_threads_beside_a_runtime_that_stands_still() {
    a_silent_peer_is_found_beside_a_runtime_that_stands_still("runtimes-many", multi_thread);
}

/// Each is served where it came in, and each may end what is served elsewhere.
#[test]
fn a_user_on_one_runtime_reaches_and_ends_its_connection_on_another() {
    let pool: Pool<Count> =
        Pool::builder().name("runtimes-reach").environment(Environment::Ci).build().unwrap();
    let (one, other) = (current_thread(), multi_thread());
    let mut there = other.block_on(Server::start(pool.clone()));
    let mut client = other.block_on(connect(there.address, "ada/thread_1"));
    one.block_on(async {
        let here = Server::start(pool.clone()).await;
        let mut newer = connect(here.address, "ada/thread_1").await;
        let report = there.report().await;
        assert_eq!(report.reason, EndReason::Takeover);
        newer.close(None).await.unwrap();
        here.is_empty().await;
    });
    assert_eq!(other.block_on(close_code(&mut client)), 4001);
    other.block_on(there.is_empty());
}
