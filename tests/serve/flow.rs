//! What goes in and out while a connection lives.

use crate::support::{Client, PATIENCE, Server, close_code, connect, context, eventually, hear, say};
use futures_util::{SinkExt, StreamExt};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message as Wire;
use ws_manager_pool::{
    Clock, DuplicatePolicy, EndReason, Environment, ManualClock, Message, OutboundLimits, Pool, PoolBuilder,
    ReserveError, Session,
};

fn pool<S: Session>(name: &str) -> PoolBuilder<S> {
    Pool::builder().name(name).environment(Environment::Ci)
}

/// A server whose silences are measured by hand.
async fn timed_server(name: &str) -> (Server, ManualClock) {
    let (clock, hand) = Clock::manual();
    (Server::start(pool(name).clock(clock).build().unwrap()).await, hand)
}

async fn next(client: &mut Client) -> Wire {
    tokio::time::timeout(PATIENCE, client.next()).await.expect("a frame in time").unwrap().unwrap()
}

#[tokio::test]
async fn messages_come_in_the_order_in_which_they_were_sent() {
    let builder = pool("flow-order").outbound(OutboundLimits::default().with_messages(10_000));
    let server = Server::start(builder.build().unwrap()).await;
    let mut client = connect(server.address, "ada").await;
    let key = server.keys_of("ada")[0];
    for number in 0..5_000 {
        assert!(server.pool.send(key, Message::text(number.to_string())).is_queued());
    }
    for number in 0..5_000 {
        assert_eq!(hear(&mut client).await, number.to_string());
    }
}

#[tokio::test]
async fn what_comes_in_is_answered_in_order_although_it_came_at_once() {
    let server = Server::start(pool("flow-echo").build().unwrap()).await;
    let mut client = connect(server.address, "ada").await;
    for number in 1..=1_000 {
        client.feed(Wire::text(number.to_string())).await.unwrap();
        if number % 50 == 0 {
            client.flush().await.unwrap();
            for answer in number - 49..=number {
                assert_eq!(hear(&mut client).await, format!("{answer} {answer}"));
            }
        }
    }
    let block: Vec<u8> = (0..1_000_000).map(|byte| byte as u8).collect();
    client.send(Wire::binary(block.clone())).await.unwrap();
    assert_eq!(next(&mut client).await, Wire::binary(block));
}

#[tokio::test]
async fn a_pending_handler_stops_the_reading_and_not_the_sending() {
    let server = Server::start(pool("flow-pending").build().unwrap()).await;
    let mut client = connect(server.address, "ada").await;
    let key = server.keys_of("ada")[0];
    say(&mut client, "hang").await;
    say(&mut client, "one more").await;
    for number in 0..100 {
        assert!(server.pool.send(key, Message::text(number.to_string())).is_queued());
        assert_eq!(hear(&mut client).await, number.to_string());
    }
    assert_eq!(server.pool.inspect(key, |manager| manager.messages_in()), Some(1));
}

#[tokio::test]
async fn a_ping_is_answered_and_is_no_activity() {
    let (server, hand) = timed_server("flow-ping").await;
    let mut client = connect(server.address, "ada").await;
    let key = server.keys_of("ada")[0];
    let last_activity = || server.pool.inspect(key, |manager| manager.last_activity()).unwrap();
    let before = last_activity();
    hand.advance(Duration::from_millis(100));
    client.send(Wire::Ping("are you there".into())).await.unwrap();
    assert_eq!(next(&mut client).await, Wire::Pong("are you there".into()));
    assert_eq!(last_activity(), before);
}

#[tokio::test]
async fn a_client_that_answers_pings_lives_as_long_as_it_likes() {
    let (mut server, hand) = timed_server("flow-alive").await;
    let mut client = connect(server.address, "ada").await;
    for _ in 0..5 {
        hand.advance(server.pool.config().heartbeat_interval);
        assert_eq!(next(&mut client).await, Wire::Ping("".into()));
        // A round trip, without a message: the answer to the ping has been heard after it.
        client.send(Wire::Ping("heard".into())).await.unwrap();
        assert_eq!(next(&mut client).await, Wire::Pong("heard".into()));
    }
    client.close(None).await.unwrap();
    assert_eq!(server.report().await.reason, EndReason::Closed);
}

#[tokio::test]
async fn nobody_is_found_dead_while_the_handler_keeps_the_server_from_reading() {
    let (mut server, hand) = timed_server("flow-suspended").await;
    let mut client = connect(server.address, "ada").await;
    let key = server.keys_of("ada")[0];
    say(&mut client, "hang").await;
    let hangs = || server.pool.inspect(key, |manager| manager.messages_in()) == Some(1);
    eventually("the handler hangs", hangs).await;
    for _ in 0..5 {
        hand.advance(10 * server.pool.config().heartbeat_interval);
        // Its answer will not be read.
        assert_eq!(next(&mut client).await, Wire::Ping("".into()));
    }
    assert!(server.pool.inspect(key, |_| ()).is_some());
    server.pool.evict(key, EndReason::Operator).unwrap();
    assert_eq!(close_code(&mut client).await, 4002);
    assert_eq!(server.report().await.reason, EndReason::Operator);
}

#[tokio::test]
async fn a_reservation_is_waited_for_and_only_for_so_long() {
    let pool: Pool = pool("flow-within").capacity(1).duplicates(DuplicatePolicy::Allow).build().unwrap();
    let (ada, bob) = (context("ada", None), context("bob", None));
    let lease = pool.reserve(&ada).unwrap().open().unwrap();
    let refused = pool.reserve_within(&bob, Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(refused, ReserveError::PoolFull { capacity: 1 });
    let waiting = pool.reserve_within(&bob, PATIENCE);
    let (reservation, ()) = tokio::join!(waiting, async { drop(lease) });
    assert_eq!(reservation.unwrap().context().user_id().as_str(), "bob");
    assert_eq!(pool.snapshot().waiting, 0);
}

/// Two runtimes of one thread each share a pool. The first one, which keeps the time, ends.
#[test]
fn a_runtime_that_ends_leaves_the_others_in_good_time() {
    let (clock, hand) = Clock::manual();
    // Its time flies: nobody is to be idle.
    let pool = pool("flow-runtimes").clock(clock).idle_background(None).build().unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    let first = runtime();
    first.block_on(async {
        let server = Server::start(pool.clone()).await;
        connect(server.address, "ada").await.close(None).await.unwrap();
        server.is_empty().await;
    });
    let (connected, wait_for_connection) = oneshot::channel();
    let second = thread::spawn({
        let pool = pool.clone();
        move || {
            runtime().block_on(async {
                let mut server = Server::start(pool).await;
                let mut client = connect(server.address, "bob").await;
                connected.send(()).unwrap();
                // Nobody reads, nobody answers.
                let report = server.report().await;
                assert_eq!(close_code(&mut client).await, 4005);
                report.reason
            })
        }
    });
    wait_for_connection.blocking_recv().unwrap();
    drop(first);
    while !second.is_finished() {
        hand.advance(Duration::from_millis(100));
        thread::yield_now();
    }
    assert_eq!(second.join().unwrap(), EndReason::Heartbeat);
}

#[tokio::test]
async fn the_keeper_does_not_keep_the_pool() {
    let builder = pool("flow-keeper");
    let mut server = Server::start(builder.build().unwrap()).await;
    connect(server.address, "ada").await.close(None).await.unwrap();
    server.report().await;
    drop(server);
    // Its name is free once the last handle is gone.
    eventually("the pool is gone", || pool::<()>("flow-keeper").build().is_ok()).await;
}
