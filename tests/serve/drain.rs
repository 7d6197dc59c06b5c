//! A server that goes tells everybody, paced, within its deadline, and lets nobody in meanwhile.

use crate::scripted::Scripted;
use crate::support::PATIENCE;
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::duplex;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Wire;
use tokio_tungstenite::tungstenite::protocol::Role;
use ws_manager_pool::serve::{DrainReport, application, drain, serve};
use ws_manager_pool::{Config, Environment, IdGenerator, Pool, ReserveError, UserExecutionContext};

fn context(user: usize) -> UserExecutionContext {
    let user = format!("user{user}");
    let ids = IdGenerator::user_context_ids(&user, "test");
    UserExecutionContext::from_websocket_request(user, ids).unwrap()
}

fn pool(name: &str) -> Pool {
    let mut config = Config::preset(Environment::Production);
    config.drain_timeout = PATIENCE;
    Pool::builder().config(config).name(name).build().unwrap()
}

/// Connects a client in memory. The server's task goes to `serving`, the client's, which reports the code
/// that it hears, to `clients`.
async fn connect(pool: &Pool, user: usize, serving: &mut JoinSet<()>, clients: &mut JoinSet<u16>) {
    let lease = pool.reserve(&context(user)).unwrap().open().unwrap();
    let (near, far) = duplex(256);
    let near = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
    let mut far = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
    let echo = application(|conn, message| {
        let _ = conn.send(message.to_message());
        Ok(())
    });
    // From here on a drain knows of it, however late the task comes to run.
    let served = serve(near, lease, echo);
    serving.spawn(async move { drop(served.await) });
    clients.spawn(async move {
        far.send(Wire::text("hello")).await.unwrap();
        loop {
            match far.next().await {
                Some(Ok(Wire::Close(Some(close)))) => {
                    let _ = far.flush().await; // the answer
                    return close.code.into();
                }
                Some(Ok(_)) => {}
                _ => return 0,
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_connections_are_told_at_a_pace_and_nobody_is_let_in() {
    const CONNECTIONS: usize = 5_000;
    let pool = pool("drain-many");
    let (mut serving, mut clients) = (JoinSet::new(), JoinSet::new());
    for number in 0..CONNECTIONS {
        connect(&pool, number / 10, &mut serving, &mut clients).await;
    }
    assert_eq!(pool.snapshot().live, CONNECTIONS);
    assert_eq!(pool.drain_progress(), None);
    let seen: Arc<Mutex<Vec<DrainReport>>> = Arc::default();
    let (door, shown) = (pool.clone(), seen.clone());
    let draining = drain(&pool).rate(5_000).on_progress(move |so_far| {
        let refused = door.reserve(&context(0)).map(drop);
        assert_eq!(refused, Err(ReserveError::Draining));
        assert_eq!(door.drain_progress(), Some(*so_far), "and it can be read elsewhere");
        println!("{so_far:?}");
        shown.lock().push(*so_far);
    });
    let report = tokio::time::timeout(2 * PATIENCE, draining).await.expect("it ends by itself");
    assert_eq!((report.evicted, report.finished, report.remaining), (CONNECTIONS, CONNECTIONS, 0));
    assert!(report.is_over && Duration::from_millis(report.elapsed_ms) < PATIENCE, "{report:?}");
    let mut told = 0;
    while let Some(code) = clients.join_next().await {
        assert_eq!(code.unwrap(), 1001);
        told += 1;
    }
    assert_eq!(told, CONNECTIONS);
    while let Some(served) = serving.join_next().await {
        served.unwrap();
    }
    let seen = seen.lock();
    assert!(seen.len() > 10, "in many steps: {}", seen.len());
    let is_forward = |pair: &[DrainReport]| {
        pair[0].evicted <= pair[1].evicted
            && pair[0].finished <= pair[1].finished
            && pair[0].elapsed_ms <= pair[1].elapsed_ms
            && !pair[0].is_over
    };
    assert!(seen.windows(2).all(is_forward), "{seen:#?}");
    assert_eq!(seen.last(), Some(&report));
    let ledger = pool.ledger();
    assert!(ledger.balanced && ledger.occupied_slots == 0, "{ledger:#?}");
    assert_eq!(pool.reserve(&context(0)).map(drop), Err(ReserveError::Draining));
}

/// In virtual time.
#[tokio::test(start_paused = true)]
async fn it_keeps_to_its_rate_and_is_faster_if_its_time_would_not_do() {
    for (rate, seconds, expected) in [(100, 60, 10.0), (1, 60, 30.0)] {
        let pool = pool("drain-rate");
        let (mut serving, mut clients) = (JoinSet::new(), JoinSet::new());
        for number in 0..1_000 {
            connect(&pool, number / 10, &mut serving, &mut clients).await;
        }
        let report = drain(&pool).rate(rate).timeout(Duration::from_secs(seconds)).await;
        assert_eq!((report.evicted, report.remaining), (1_000, 0));
        let took = report.elapsed_ms as f64 / 1_000.0;
        assert!((took - expected).abs() < 0.5, "{rate} a second: {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_hangs_is_reported_and_not_waited_for() {
    let pool = pool("drain-hang");
    let (mut serving, mut clients) = (JoinSet::new(), JoinSet::new());
    connect(&pool, 1, &mut serving, &mut clients).await;
    let lease = pool.reserve(&context(2)).unwrap().open().unwrap();
    let (near, _far) = duplex(256);
    let near = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
    // Made, and never polled: whoever should do so hangs.
    let _hanging = serve(near, lease, application(|_, _| Ok(())));
    let report = drain(&pool).timeout(Duration::from_secs(10)).await;
    assert_eq!((report.evicted, report.finished, report.remaining), (2, 1, 1));
    assert_eq!((report.elapsed_ms, report.is_over), (10_000, true));
    assert_eq!(pool.ledger().leases, 0, "its manager is free all the same");
    assert_eq!(clients.join_next().await.unwrap().unwrap(), 1001);
}

#[tokio::test(start_paused = true)]
async fn whoever_opens_late_is_told_too() {
    let pool = pool("drain-late");
    let reservation = pool.reserve(&context(1)).unwrap();
    let draining = tokio::spawn(async move { drain(&pool).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lease = reservation.open().unwrap();
    let (near, far) = duplex(256);
    let near = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
    let mut far = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
    let serving = tokio::spawn(serve(near, lease, application(|_, _| Ok(()))));
    let Some(Ok(Wire::Close(Some(close)))) = far.next().await else { panic!("a close frame") };
    assert_eq!(u16::from(close.code), 1001);
    let _ = far.flush().await;
    assert_eq!(serving.await.unwrap().close_code, 1001);
    assert_eq!(draining.await.unwrap().remaining, 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_dropped_is_finished_by_the_next_and_a_panic_in_the_callback_harms_nobody() {
    let pool = pool("drain-twice");
    let (mut serving, mut clients) = (JoinSet::new(), JoinSet::new());
    for user in 0..100 {
        connect(&pool, user, &mut serving, &mut clients).await;
    }
    let slow = drain(&pool).rate(1);
    assert!(tokio::time::timeout(Duration::from_secs(1), slow).await.is_err());
    assert!(pool.is_draining() && pool.snapshot().live > 0);
    let report = drain(&pool).on_progress(|_| panic!("as a test wants")).await;
    assert_eq!((report.remaining, pool.snapshot().live), (0, 0));
    while let Some(code) = clients.join_next().await {
        assert_eq!(code.unwrap(), 1001);
    }
}

/// On a server that is so busy that tasks begin to run long after their leases have been ended.
#[tokio::test(start_paused = true)]
async fn whoever_starts_when_all_else_is_forgotten_tells_its_peer_all_the_same() {
    let pool = pool("drain-forgotten");
    let app = || application(|_, _| Ok(()));
    let mut waiting = Vec::new();
    for number in 0..1_000 {
        let lease = pool.reserve(&context(number / 20)).unwrap().open().unwrap();
        let (socket, remote) = Scripted::new();
        waiting.push((serve(socket, lease, app()), remote));
    }
    let report = drain(&pool).timeout(Duration::from_secs(1)).await;
    assert_eq!((report.evicted, report.remaining), (1_000, 1_000));
    for _ in 0..3 {
        pool.maintain(pool.clock().now()); // memory goes back
    }
    for (serving, remote) in waiting {
        remote.hangs_up();
        let report = serving.await;
        assert_eq!((report.close_code, remote.close_code()), (1001, Some(1001)), "{report:?}");
    }
}
