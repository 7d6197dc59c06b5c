//! Every way in which a connection can end frees its manager, and tells the client the right code.

use crate::support::{
    Count, Obedient, PATIENCE, Server, close_code, connect, context, eventually, hear, reset, say,
};
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use ws_manager_pool::serve::{CloseReport, drain, serve};
use ws_manager_pool::{EndReason, Environment, Pool, PoolBuilder, ReserveError};

/// One that waits for its clients for as long as they like.
async fn server(name: &str) -> Server {
    Server::start(patient(name).close_timeout(10 * PATIENCE).build().unwrap()).await
}

fn patient(name: &str) -> PoolBuilder<Count> {
    let builder = Pool::builder().name(name).environment(Environment::Ci);
    builder.heartbeat_interval(10 * PATIENCE).reservation_deadline(PATIENCE).drain_timeout(PATIENCE)
}

async fn impatient_server(name: &str) -> Server {
    Server::start(Pool::builder().name(name).environment(Environment::Ci).build().unwrap()).await
}

/// The next connection to end did so for this reason, and nobody is left.
async fn ends(server: &mut Server, reason: EndReason) -> CloseReport {
    let report = server.report().await;
    assert_eq!(report.reason, reason, "{report:?}");
    server.is_empty().await;
    report
}

#[tokio::test]
async fn the_client_closes() {
    let mut server = server("ends-close").await;
    let mut client = connect(server.address, "ada").await;
    say(&mut client, "hello").await;
    assert_eq!(hear(&mut client).await, "1 hello");
    client.close(Some(CloseFrame { code: 3000.into(), reason: "done".into() })).await.unwrap();
    assert_eq!(close_code(&mut client).await, 3000, "its own code comes back");
    let report = ends(&mut server, EndReason::Closed).await;
    assert_eq!((report.messages_in, report.messages_out, report.close_code), (1, 2, 3000));
    assert_eq!(report.context.user_id().as_str(), "ada");
}

#[tokio::test]
async fn the_client_goes_without_a_close_frame() {
    let mut server = server("ends-eof").await;
    drop(connect(server.address, "ada").await);
    assert_eq!(ends(&mut server, EndReason::SocketError).await.close_code, 1006);
}

#[tokio::test]
async fn the_client_resets() {
    let mut server = server("ends-reset").await;
    reset(connect(server.address, "ada").await);
    assert_eq!(ends(&mut server, EndReason::SocketError).await.close_code, 1006);
}

#[tokio::test]
async fn the_client_is_silent() {
    let mut server = impatient_server("ends-silence").await;
    // It is there, but it reads nothing and so answers no ping.
    let mut client = connect(server.address, "ada").await;
    ends(&mut server, EndReason::Heartbeat).await;
    assert_eq!(close_code(&mut client).await, 4005);
}

#[tokio::test]
async fn the_client_breaks_the_protocol() {
    // A frame that is not masked; a masked text frame that is not UTF-8; a reserved opcode.
    let broken: [(&[u8], EndReason, u16); 3] = [
        (&[0x81, 0x01, b'a'], EndReason::ProtocolError, 1002),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], EndReason::InvalidUtf8, 1007),
        (&[0x83, 0x80, 0, 0, 0, 0], EndReason::ProtocolError, 1002),
    ];
    let mut server = server("ends-protocol").await;
    for (bytes, reason, code) in broken {
        let mut client = connect(server.address, "ada").await;
        client.get_mut().write_all(bytes).await.unwrap();
        assert_eq!(close_code(&mut client).await, code, "{bytes:?}");
        ends(&mut server, reason).await;
    }
}

#[tokio::test]
async fn the_client_sends_too_much() {
    let mut server = server("ends-too-large").await;
    let mut client = connect(server.address, "ada").await;
    // The header of a frame of 2⁶² bytes.
    let header = [0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    client.get_mut().write_all(&header).await.unwrap();
    assert_eq!(close_code(&mut client).await, 1009);
    ends(&mut server, EndReason::TooLarge).await;
}

#[tokio::test]
async fn the_application_closes_after_its_last_words() {
    let mut server = server("ends-done").await;
    let mut client = connect(server.address, "ada").await;
    say(&mut client, "close").await;
    assert_eq!(hear(&mut client).await, "bye");
    assert_eq!(close_code(&mut client).await, 1000);
    assert_eq!(ends(&mut server, EndReason::Closed).await.messages_out, 2);
}

#[tokio::test]
async fn the_handler_returns_an_error() {
    let mut server = server("ends-error").await;
    let mut client = connect(server.address, "ada").await;
    say(&mut client, "fail").await;
    assert_eq!(close_code(&mut client).await, 1011);
    let report = ends(&mut server, EndReason::HandlerError).await;
    assert_eq!(report.handler_error.unwrap().to_string(), "as commanded");
}

#[tokio::test]
async fn the_handler_panics() {
    let mut server = server("ends-panic").await;
    let mut client = connect(server.address, "ada").await;
    say(&mut client, "panic").await;
    assert_eq!(close_code(&mut client).await, 1011);
    ends(&mut server, EndReason::HandlerPanic).await;
}

#[tokio::test]
async fn the_manager_is_free_by_the_time_the_client_hears_of_the_end() {
    let server = server("ends-before").await;
    for command in ["close", "fail", "panic"] {
        let mut client = connect(server.address, "ada").await;
        say(&mut client, command).await;
        while !client.next().await.unwrap().unwrap().is_close() {}
        // Its answer has not been sent yet.
        assert_eq!(server.pool.ledger().leases, 0, "{command}");
    }
}

#[tokio::test]
async fn the_task_is_cancelled_and_the_application_hears_of_it() {
    let mut server = server("ends-cancel").await;
    let mut client = connect(server.address, "ada").await;
    say(&mut client, "cancel").await;
    assert_eq!(server.heard().await, EndReason::Dropped);
    server.is_empty().await;
    assert!(client.next().await.is_none_or(|end| end.is_err()), "the socket was closed");
}

#[tokio::test]
async fn an_operator_evicts() {
    let mut server = server("ends-evict").await;
    let mut client = connect(server.address, "ada").await;
    let key = server.keys_of("ada")[0];
    server.pool.evict(key, EndReason::Operator).unwrap();
    assert_eq!(server.pool.ledger().leases, 0, "free at once");
    assert_eq!(close_code(&mut client).await, 4002);
    assert_eq!(ends(&mut server, EndReason::Operator).await.close_code, 4002);
}

#[tokio::test]
async fn a_takeover_survives_the_late_close_of_the_old_connection() {
    let mut server = server("ends-takeover").await;
    let mut old = connect(server.address, "ada/thread_1").await;
    let mut new = connect(server.address, "ada/thread_1").await;
    let key = server.keys_of("ada")[0];
    assert_eq!(close_code(&mut old).await, 4001);
    let report = server.report().await;
    assert_eq!(report.reason, EndReason::Takeover);
    assert_ne!(report.key, key);
    assert_eq!(server.keys_of("ada"), [key], "the late close harmed nobody");
    say(&mut new, "still here").await;
    assert_eq!(hear(&mut new).await, "1 still here");
    new.close(None).await.unwrap();
    ends(&mut server, EndReason::Closed).await;
}

#[tokio::test]
async fn a_drain_ends_everything_and_waits_for_the_goodbyes() {
    let mut server = server("ends-drain").await;
    let mut clients = Vec::new();
    for user in ["ada", "bob", "cyd"] {
        clients.push(connect(server.address, user).await);
    }
    let pool = server.pool.clone();
    let draining = tokio::spawn(async move { drain(&pool).await });
    for client in &mut clients {
        assert_eq!(close_code(client).await, 1001);
    }
    let report = draining.await.unwrap();
    assert_eq!((report.evicted, report.finished, report.remaining), (3, 3, 0));
    for _ in &clients {
        ends(&mut server, EndReason::Drain).await;
    }
    let refused = server.pool.reserve(&context("ada", None)).unwrap_err();
    assert_eq!(refused, ReserveError::Draining);
}

#[tokio::test]
async fn a_handler_that_never_returns_is_dropped_and_its_slot_used_again() {
    let mut server = Server::start(patient("ends-hang").capacity(1).build().unwrap()).await;
    let mut client = connect(server.address, "ada").await;
    let key = server.keys_of("ada")[0];
    say(&mut client, "hang").await;
    let has_come_in = || server.pool.inspect(key, |manager| manager.messages_in()) == Some(1);
    eventually("the handler hangs", has_come_in).await;
    server.pool.evict(key, EndReason::Operator).unwrap();
    let next = server.pool.reserve(&context("bob", None)).unwrap().open().unwrap();
    assert_eq!(next.key().index(), key.index(), "without waiting for the owner");
    assert_eq!(close_code(&mut client).await, 4002);
    drop(next);
    ends(&mut server, EndReason::Operator).await;
}

#[tokio::test]
async fn a_leaked_lease_is_evicted() {
    let server = server("ends-leak").await;
    let lease = server.pool.reserve(&context("ada", None)).unwrap().open().unwrap();
    let key = lease.key();
    std::mem::forget(lease);
    server.pool.evict(key, EndReason::Operator).unwrap();
    server.is_empty().await;
}

#[tokio::test]
async fn a_forgotten_reservation_expires_by_itself() {
    let mut server = impatient_server("ends-forgotten").await;
    // Somebody is being served, so somebody keeps the time.
    let mut client = connect(server.address, "ada").await;
    std::mem::forget(server.pool.reserve(&context("bob", None)).unwrap());
    eventually("it is taken back", || server.pool.snapshot().reserved == 0).await;
    client.close(None).await.unwrap();
    // The heartbeat may have been quicker than this client, which did not read while it waited.
    server.report().await;
    server.is_empty().await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_delays_nothing_but_its_own_task() {
    let mut server = Server::start(patient("ends-blocked").build().unwrap()).await;
    let client = connect(server.address, "ada").await;
    let key = server.keys_of("ada")[0];
    // As much as the kernel takes, and more.
    let block = vec![0; 200 * 1024];
    let is_full = || !server.pool.send(key, block.clone().into()).is_queued();
    let mut fulls = 0;
    eventually("the socket is blocked", || {
        fulls = if is_full() { fulls + 1 } else { 0 };
        fulls > 100
    })
    .await;
    server.pool.evict(key, EndReason::Operator).unwrap();
    assert_eq!(server.pool.ledger().leases, 0, "free at once");
    // Comes at all: the goodbye is given up.
    ends(&mut server, EndReason::Operator).await;
    drop(client);
}

#[tokio::test]
async fn a_lease_that_is_over_before_it_is_served_ends_at_once() {
    let server = server("ends-early").await;
    let lease = server.pool.reserve(&context("ada", None)).unwrap().open().unwrap();
    server.pool.evict(lease.key(), EndReason::Operator).unwrap();
    let (near, far) = tokio::io::duplex(1_024);
    let near = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
    let mut far = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
    let (app, mut closed) = Obedient::new();
    let (report, code) = tokio::join!(serve(near, lease, app), close_code(&mut far));
    assert_eq!((report.reason, code), (EndReason::Operator, 4002));
    assert_eq!(closed.recv().await, Some(EndReason::Operator));
    server.is_empty().await;
}
