//! A connection that says nothing, or that lasts too long, is closed by its own driver.

use crate::scripted::Scripted;
use crate::support::{Obedient, Server, close_code, connect, context, eventually, hear, say};
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message as Wire;
use ws_manager_pool::serve::serve;
use ws_manager_pool::{Clock, Config, EndReason, Environment, ManualClock, Message, Pool};

const IDLE: Duration = Duration::from_secs(100);
const LIFETIME: Duration = Duration::from_secs(1_000);
const AGES: Duration = Duration::from_secs(24 * 60 * 60);

/// No jitter, no pings, and no sweep after the first.
fn config() -> Config {
    let mut config = Config::preset(Environment::Ci);
    config.idle_background = Some(IDLE);
    (config.idle_proactive, config.idle_emergency) = (IDLE, IDLE);
    config.max_lifetime = Some(LIFETIME);
    config.deadline_jitter = 0.0;
    (config.heartbeat_interval, config.background_interval) = (AGES, AGES);
    config
}

async fn server(name: &str, config: Config) -> (Server, ManualClock) {
    let (clock, hand) = Clock::manual();
    let pool = Pool::builder().config(config).name(name).clock(clock).build().unwrap();
    pool.maintain(pool.clock().now()); // the first sweep, in a pool that is empty
    (Server::start(pool).await, hand)
}

/// The driver has had a turn, and this is no activity.
async fn has_a_turn(client: &mut crate::support::Client) {
    client.send(Wire::Ping("turn".into())).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Wire::Pong("turn".into()));
}

#[tokio::test]
async fn one_that_says_nothing_is_idle_and_pings_do_not_help_it() {
    let (mut server, hand) = server("idle", config()).await;
    let mut client = connect(server.address, "ada").await;
    hand.advance(IDLE - Duration::from_millis(1));
    has_a_turn(&mut client).await;
    assert_eq!(server.keys_of("ada").len(), 1, "not yet");
    hand.advance(Duration::from_millis(1));
    assert_eq!(close_code(&mut client).await, 4003);
    assert_eq!(server.report().await.reason, EndReason::Idle);
    server.is_empty().await;
}

#[tokio::test]
async fn a_message_either_way_puts_it_off() {
    let (mut server, hand) = server("idle-active", config()).await;
    let mut client = connect(server.address, "ada").await;
    let key = server.keys_of("ada")[0];
    for number in 1..4 {
        hand.advance(IDLE - Duration::from_millis(1));
        say(&mut client, "in").await;
        assert_eq!(hear(&mut client).await, format!("{number} in"));
        hand.advance(IDLE - Duration::from_millis(1));
        assert!(server.pool.send(key, Message::from("out")).is_queued());
        assert_eq!(hear(&mut client).await, "out");
    }
    hand.advance(IDLE);
    assert_eq!(close_code(&mut client).await, 4003);
    assert_eq!(server.report().await.reason, EndReason::Idle);
}

#[tokio::test]
async fn however_busy_it_is_it_ends_at_its_maximum_lifetime() {
    let (mut server, hand) = server("lifetime", config()).await;
    let mut client = connect(server.address, "ada").await;
    for number in 1..=10 {
        hand.advance(LIFETIME / 10 - Duration::from_millis(1));
        say(&mut client, "busy").await;
        assert_eq!(hear(&mut client).await, format!("{number} busy"));
    }
    hand.advance(Duration::from_millis(10));
    assert_eq!(close_code(&mut client).await, 4004);
    assert_eq!(server.report().await.reason, EndReason::MaxLifetime);
    server.is_empty().await;
}

#[tokio::test]
async fn a_handler_comes_to_its_end_first() {
    let (mut server, hand) = server("lifetime-handler", config()).await;
    let mut client = connect(server.address, "ada").await;
    let key = server.keys_of("ada")[0];
    say(&mut client, "wait").await;
    eventually("it waits", || server.pool.inspect(key, |manager| manager.messages_in()) == Some(1)).await;
    hand.advance(2 * LIFETIME);
    // Turns with a pending handler, in which nobody is found idle or old.
    for _ in 0..3 {
        assert!(server.pool.send(key, Message::from("meanwhile")).is_queued());
        assert_eq!(hear(&mut client).await, "meanwhile");
    }
    let mut other = connect(server.address, "bob").await;
    say(&mut other, "open the gate").await;
    assert_eq!(close_code(&mut client).await, 4004);
    assert_eq!(server.report().await.reason, EndReason::MaxLifetime);
}

#[tokio::test]
async fn a_run_is_waited_for_until_it_ends() {
    let (clock, hand) = Clock::manual();
    let mut config = config();
    config.heartbeat_interval = Duration::from_secs(1);
    config.heartbeat_timeout = AGES;
    let pool = Pool::builder().config(config).name("lifetime-run").clock(clock).build().unwrap();
    pool.maintain(pool.clock().now());
    let lease = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
    let (run, key) = (lease.begin_run().unwrap(), lease.key());
    let (socket, remote) = Scripted::new();
    let (app, _closed) = Obedient::new();
    let serving = tokio::spawn(serve(socket, lease, app));
    let sent = |number: usize| remote.heard().len() == number;
    eventually("the welcome", || sent(1)).await;
    hand.advance(IDLE + Duration::from_secs(1));
    eventually("a ping: it has had a turn", || sent(2)).await;
    assert!(pool.inspect(key, |_| ()).is_some(), "its run is under way");
    drop(run);
    // The next turn, whatever it is for, finds it idle.
    remote.says(ws_manager_pool::serve::Frame::Pong("".into()));
    assert_eq!(serving_ends(serving, &remote).await, EndReason::Idle);
    assert_eq!(remote.close_code(), Some(4003));
}

async fn serving_ends(
    serving: tokio::task::JoinHandle<ws_manager_pool::serve::CloseReport>,
    remote: &crate::scripted::Remote,
) -> EndReason {
    eventually("a close frame", || remote.close_code().is_some()).await;
    remote.hangs_up();
    serving.await.unwrap().reason
}

#[tokio::test]
async fn other_numbers_hold_for_connections_that_are_open() {
    let mut forever = config();
    (forever.idle_background, forever.max_lifetime) = (None, None);
    let (mut server, hand) = server("lifetime-other", forever).await;
    let mut ada = connect(server.address, "ada").await;
    hand.advance(LIFETIME);
    has_a_turn(&mut ada).await;
    assert_eq!(server.keys_of("ada").len(), 1);
    let mut shorter = config();
    shorter.max_lifetime = None;
    server.pool.reconfigure(shorter).unwrap();
    assert_eq!(close_code(&mut ada).await, 4003, "it has been idle for longer than that");
    assert_eq!(server.report().await.reason, EndReason::Idle);

    let mut bob = connect(server.address, "bob").await;
    let mut shorter = config();
    shorter.max_lifetime = Some(Duration::from_secs(10));
    server.pool.reconfigure(shorter).unwrap();
    hand.advance(Duration::from_secs(10));
    assert_eq!(close_code(&mut bob).await, 4004);
    assert_eq!(server.report().await.reason, EndReason::MaxLifetime);
}

#[tokio::test]
async fn what_was_queued_before_is_said_before_the_close() {
    let (clock, hand) = Clock::manual();
    let pool = Pool::builder().config(config()).name("lifetime-last").clock(clock).build().unwrap();
    let lease = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
    let key = lease.key();
    let (socket, remote) = Scripted::new();
    let (app, _closed) = Obedient::new();
    remote.stops_reading();
    let serving = tokio::spawn(serve(socket, lease, app));
    eventually("it is served", || pool.inspect(key, |manager| manager.queued()) == Some(0)).await;
    for number in 0..20 {
        assert!(pool.send(key, Message::text(number.to_string())).is_queued());
    }
    hand.advance(LIFETIME);
    eventually("it is free", || pool.inspect(key, |_| ()).is_none()).await;
    eventually("all is read", || {
        remote.reads_one();
        remote.close_code().is_some()
    })
    .await;
    remote.hangs_up();
    let report = serving.await.unwrap();
    assert_eq!((report.reason, report.messages_out), (EndReason::MaxLifetime, 21));
    assert_eq!(remote.heard().len(), 22, "the welcome, twenty messages, the close");
}
