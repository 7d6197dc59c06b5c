//! What lines do to bytes.

use crate::line::{Fate, Line};
use crate::place::{Bystander, Client, PATIENCE, Server, Way, config, frame, request};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use ws_manager_pool::{DuplicatePolicy, EndReason};

/// How long a client waits on a line that may be dead. Its server does not wait for that.
const HANG_UP: Duration = Duration::from_millis(700);

/// One short, one that needs a longer length, one that fills a thread's buffer.
const SIZES: [usize; 3] = [5, 700, 20_000];

/// Says something, and hears it as long as the line is there; what is heard is what was said, unless the line
/// has lost some of it.
async fn talk(line: SocketAddr, fate: Fate, who: String) -> usize {
    let Some(mut client) = Client::open(line, &who).await else { return 0 };
    let mut heard = 0;
    for (number, size) in SIZES.into_iter().enumerate() {
        let message = vec![number as u8 + 1; size];
        if client.send(&message).await.is_none() {
            break;
        }
        // A line that loses bytes may say nothing, until the server ends it.
        match client.receive().await {
            Some(echo) => {
                assert!(echo == message || matches!(fate, Fate::Loss(_)), "{who}, {fate:?}: {echo:?}")
            }
            None => break,
        }
        heard += 1;
    }
    heard
}

/// Three at a time, who hang up when nothing comes. How many messages each has heard.
async fn talk_over(server: &Server, fate: Fate, number: usize, hang_up: Duration) -> Vec<usize> {
    let line = Line::to(server.address, fate).await;
    let mut talking = JoinSet::new();
    for client in 0..3 {
        let talk = talk(line.address, fate, format!("user-{number}-{client}"));
        talking.spawn(async move { timeout(hang_up, talk).await.unwrap_or_default() });
    }
    let mut heard = Vec::new();
    while let Some(one) = talking.join_next().await {
        heard.push(one.unwrap());
    }
    heard
}

async fn whatever_the_line_does(way: Way) {
    let mut patient = config();
    (patient.heartbeat_interval, patient.reservation_deadline) = (PATIENCE, PATIENCE);
    patient.message_timeout = PATIENCE;
    let server = Server::start("slow-lines", patient, way).await;
    let slow = [
        Fate::Trickle(if way == Way::Own { 0 } else { 100 }),
        Fate::Delay(Duration::from_millis(5)),
        Fate::Late(Duration::from_millis(50)),
    ];
    for (number, fate) in slow.into_iter().enumerate() {
        assert_eq!(talk_over(&server, fate, number, PATIENCE).await, [SIZES.len(); 3], "{fate:?}");
    }
    server.is_empty().await;

    let server = Server::start("lines", config(), way).await;
    let bystander = Bystander::come(&server).await;
    let request = request("user-00-0").len();
    let places = [0, 10, request, request + 1, request + 9, request + 300, request + 15_000];
    for (number, at) in places.into_iter().enumerate() {
        for fate in [Fate::Cut(at), Fate::Reset(at), Fate::HalfOpen(at), Fate::Loss(at)] {
            talk_over(&server, fate, number, HANG_UP).await;
            bystander.is_served(&format!("{fate:?}")).await;
        }
    }
    bystander.go().await;
    server.is_empty().await;
}

#[tokio::test]
async fn whatever_the_line_does_nothing_is_left_and_the_others_are_served() {
    whatever_the_line_does(Way::Own).await;
}

#[tokio::test]
async fn whatever_the_line_does_to_a_library() {
    whatever_the_line_does(Way::Library).await;
}

/// A client comes back on its thread before the server hears that it was gone, again and again.
#[tokio::test]
async fn a_close_that_arrives_after_the_next_connection_harms_nobody() {
    for way in [Way::Own, Way::Library] {
        let mut config = config();
        config.duplicates = DuplicatePolicy::Replace;
        let server = Server::start("late", config, way).await;
        let line = Line::to(server.address, Fate::Late(Duration::from_millis(30))).await;
        let mut before = None;
        for round in 0..20 {
            let mut client = Client::open(line.address, "ada=thread_1").await.expect("let in");
            drop(before.take()); // heard in 30 ms
            client.echoes(format!("round {round}").as_bytes()).await;
            before = Some(client);
        }
        sleep(Duration::from_millis(100)).await; // every close has arrived
        before.as_mut().unwrap().echoes(b"the last one is alive").await;
        assert_eq!(server.pool.ledger().leases, 1);
        drop(before);
        server.is_empty().await;
        let ends = server.pool.ledger().tally.ends_by_reason;
        assert_eq!(ends.get(EndReason::Takeover.name()), Some(&19), "{ends:?}");
    }
}

/// Many send the head of a request, a byte at a time and never to its end; others come all the same.
#[tokio::test]
async fn slow_handshakes_keep_nobody_out() {
    let mut config = config();
    config.max_unauthenticated = 8;
    let server = Server::start("loris", config, Way::Own).await;
    let mut slow = JoinSet::new();
    for _ in 0..40 {
        let address = server.address;
        slow.spawn(async move {
            loop {
                let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                for byte in request("loris").bytes().cycle().take(150) {
                    if stream.write_all(&[byte]).await.is_err() {
                        break;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
                let _closed = stream.read(&mut [0; 64]).await;
            }
        });
    }
    for number in 0..5 {
        let mut client = server.open(&format!("user-{number}")).await;
        client.echoes(b"through").await;
        assert!(server.pool.unauthenticated() <= 8);
        assert_eq!(server.pool.ledger().leases, 1, "none of the slow ones is let in");
        drop(client);
        server.is_empty_but_for_handshakes().await;
    }
    slow.shutdown().await;
    server.is_empty().await;
}

/// Frames that come a byte at a time on many sockets: what is kept of them is bounded, and those that do not
/// end are ended.
#[tokio::test]
async fn trickled_frames_on_many_sockets_are_bounded() {
    let mut config = config();
    (config.inbound_pool_bytes, config.heartbeat_interval) = (256 << 10, PATIENCE);
    let server = Server::start("trickle", config, Way::Own).await;
    let mut slow = JoinSet::new();
    for number in 0..200 {
        let mut client = server.open(&format!("slow-{number}")).await;
        slow.spawn(async move {
            for byte in frame(0x82, &[7; 2_000]) {
                if client.0.write_all(&[byte]).await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(1)).await;
            }
        });
    }
    let mut client = server.open("ada").await;
    for _ in 0..20 {
        client.echoes(&[1; 3_000]).await;
        assert!(server.pool.snapshot().inbound.leased_bytes <= 256 << 10);
    }
    drop(client);
    while let Some(ended) = slow.join_next().await {
        ended.unwrap();
    }
    server.is_empty().await;
    let ends = server.pool.ledger().tally.ends_by_reason;
    assert!(ends.get(EndReason::Unfinished.name()).is_some_and(|&ended| ended > 100), "{ends:?}");
}

/// As many at once as the files allow, with room for few handshakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_once_gets_in() {
    const CROWD: usize = 4_000;
    let mut config = config();
    (config.capacity, config.max_unauthenticated) = (CROWD, 64);
    (config.heartbeat_interval, config.reservation_deadline) = (PATIENCE, PATIENCE);
    let server = Server::start("crowd", config, Way::Own).await;
    let mut crowd = JoinSet::new();
    for number in 0..CROWD {
        let address = server.address;
        crowd.spawn(async move { Client::open(address, &format!("user-{number}")).await.expect("let in") });
    }
    let mut clients = Vec::new();
    while let Some(client) = crowd.join_next().await {
        clients.push(client.unwrap());
    }
    assert_eq!(server.pool.ledger().leases, CROWD);
    for client in clients.iter_mut().step_by(100) {
        client.echoes(b"each of them").await;
    }
    drop(clients);
    server.is_empty().await;
}
