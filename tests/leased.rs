//! Sockets that are read into the pool's buffers, under tungstenite and axum: whatever is sent comes back,
//! and a connection that waits has no buffer.

#[path = "../examples/echo_server/doors.rs"]
#[expect(dead_code, reason = "the libraries that keep their buffers")]
mod doors;
#[path = "../examples/echo_server/talk.rs"]
mod talk;

use doors::{Adapter, Way};
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use proptest::prelude::*;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Wire;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async};
use ws_manager_pool::serve::{Application, Connection, HandlerError, LeasedIo, Received, lean, serve};
use ws_manager_pool::{Environment, InboundFigures, OutboundLimits, Pool};

const PATIENCE: Duration = Duration::from_secs(60);

const LIBRARIES: [Adapter; 2] = [Adapter::Tungstenite, Adapter::Axum];

/// What a read from the socket takes at most.
const READ: usize = 16 << 10;

type Client = WebSocketStream<TcpStream>;

struct Server {
    pool: Pool,
    address: SocketAddr,
    _accepting: JoinSet<()>,
}

impl Server {
    async fn start(name: &str, library: Adapter, inbound_bytes: usize) -> Self {
        let pool = Pool::builder()
            .name(format!("leased-{name}-{library:?}"))
            .environment(Environment::Ci)
            .heartbeat_interval(PATIENCE)
            .reservation_deadline(PATIENCE)
            .outbound(OutboundLimits::default().with_bytes(64 << 20).with_messages(1_000))
            .inbound_pool_bytes(inbound_bytes)
            .build()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepting = JoinSet::new();
        let served = pool.clone();
        accepting.spawn(async move { doors::open(listener, served, library, Way::Two).await.unwrap() });
        Self { pool, address, _accepting: accepting }
    }

    async fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        client_async(format!("ws://{}/", self.address), stream).await.unwrap().0
    }

    fn inbound(&self) -> InboundFigures {
        self.pool.snapshot().inbound
    }

    /// Everybody is gone, and has left nothing.
    async fn is_empty(&self) {
        eventually("every manager is free", || {
            let ledger = self.pool.ledger();
            ledger.balanced && (ledger.leases, ledger.occupied_slots) == (0, 0)
        })
        .await;
        eventually("no buffer is leased", || self.inbound().leased_bytes == 0).await;
    }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "in vain: {what}");
}

/// The same bytes for a number, and other ones for another.
fn payload(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ number.wrapping_mul(101)) as u8).collect()
}

async fn echoed(client: &mut Client) -> Vec<u8> {
    loop {
        let next = timeout(PATIENCE, client.next()).await.expect("in time").unwrap().unwrap();
        if next.is_binary() || next.is_text() {
            return next.into_data().to_vec();
        }
    }
}

/// The bytes of a masked frame.
fn frame(payload: &[u8], opcode: Data) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let header = FrameHeader { opcode: OpCode::Data(opcode), mask: Some(MASK), ..FrameHeader::default() };
    let mut bytes = Vec::new();
    header.format(payload.len() as u64, &mut bytes).unwrap();
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

#[tokio::test]
async fn what_is_said_is_echoed_from_an_empty_message_to_a_mebibyte() {
    for library in LIBRARIES {
        let server = Server::start("sizes", library, 64 << 20).await;
        let mut client = server.connect().await;
        for (number, len) in
            [0, 1, 125, 126, READ - 1, READ, READ + 1, 65_535, 65_536, 1 << 20].into_iter().enumerate()
        {
            let said = payload(number, len);
            client.send(Wire::binary(said.clone())).await.unwrap();
            assert!(echoed(&mut client).await == said, "{len} bytes");
            // The task has waited for more since, or does in a moment.
            eventually("no buffer between two messages", || server.inbound().leased_bytes == 0).await;
        }
        assert_eq!(server.inbound().exhausted, 0);
        // In pieces, and others in one piece.
        let said = payload(77, 300_000);
        for (at, part) in said.chunks(70_000).enumerate() {
            let opcode = if at == 0 { Data::Binary } else { Data::Continue };
            let frame = Frame::message(part.to_vec(), OpCode::Data(opcode), at == 4);
            client.feed(Wire::Frame(frame)).await.unwrap();
        }
        for number in 0..500 {
            client.feed(Wire::binary(payload(number, number))).await.unwrap();
        }
        client.flush().await.unwrap();
        assert!(echoed(&mut client).await == said);
        for number in 0..500 {
            assert_eq!(echoed(&mut client).await, payload(number, number));
        }
        client.close(None).await.unwrap();
        server.is_empty().await;
    }
}

/// 200 connections at once. Each checks every byte, so one of another's would be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_connections_leave_no_buffer_behind() {
    for library in LIBRARIES {
        let server = Server::start("many", library, 64 << 20).await;
        let talk = async |number: usize| {
            let mut client = server.connect().await;
            for round in 0..10 {
                let said = payload(number, 1 + (number * 977 + round * 7_919) % 40_000);
                client.send(Wire::binary(said.clone())).await.unwrap();
                assert!(echoed(&mut client).await == said, "connection {number}, round {round}");
            }
            client
        };
        let clients = join_all((0..200).map(talk)).await;
        eventually("nobody who waits has a buffer", || server.inbound().leased_bytes == 0).await;
        assert_eq!(server.pool.snapshot().live, 200);
        // Half of them say goodbye, the others vanish in the middle of a message.
        let leave = async |(number, mut client): (usize, Client)| {
            if number % 2 == 0 {
                client.close(None).await.unwrap();
            } else {
                let half = frame(&payload(number, 50_000), Data::Binary);
                client.get_mut().write_all(&half[..30_000]).await.unwrap();
            }
        };
        join_all(clients.into_iter().enumerate().map(leave)).await;
        server.is_empty().await;
    }
}

#[tokio::test]
async fn nothing_waits_and_nothing_fails_where_the_limit_is_used_up() {
    for library in LIBRARIES {
        let server = Server::start("limit", library, READ).await;
        let talk = async |number: usize| {
            let mut client = server.connect().await;
            let said = payload(number, 200_000);
            let bytes = frame(&said, Data::Binary);
            // Half a message each, so that whoever got the one buffer keeps it.
            let (first, rest) = bytes.split_at(100_000);
            client.get_mut().write_all(first).await.unwrap();
            tokio::task::yield_now().await;
            client.get_mut().write_all(rest).await.unwrap();
            assert!(echoed(&mut client).await == said);
            client.close(None).await.unwrap();
        };
        join_all((0..10).map(talk)).await;
        server.is_empty().await;

        let tiny = Server::start("nothing", library, 1).await;
        let mut client = tiny.connect().await;
        client.send(Wire::binary(payload(1, 100_000))).await.unwrap();
        assert!(echoed(&mut client).await == payload(1, 100_000));
        assert!(tiny.inbound().exhausted > 0);
        client.close(None).await.unwrap();
        tiny.is_empty().await;
    }
}

/// Never done with a message.
struct Hanging;

impl Application for Hanging {
    type Session = ();

    async fn received(&self, _: &mut Connection<'_, ()>, _: Received<'_>) -> Result<(), HandlerError> {
        pending().await
    }
}

#[tokio::test]
async fn what_a_cancelled_connection_has_not_read_goes_back_and_then_to_the_system() {
    const CONNECTIONS: usize = 5;
    let name = "leased-cancelled";
    let pool: Pool = Pool::builder().name(name).environment(Environment::Ci).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut serving, mut clients) = (JoinSet::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let lease = pool.reserve(&talk::stranger()).unwrap().open().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let leased = LeasedIo::new(listener.accept().await.unwrap().0, &pool);
        let sizes = lean(&pool.config());
        serving.spawn(async move {
            let socket = accept_async_with_config(leased, Some(sizes)).await.unwrap();
            serve(socket, lease, Hanging).await
        });
        let (mut client, _) = client_async(format!("ws://{address}/"), stream).await.unwrap();
        let two = [frame(b"hang", Data::Text), frame(&payload(1, 5_000), Data::Binary)].concat();
        client.get_mut().write_all(&two).await.unwrap();
        clients.push(client);
    }
    let inbound = || pool.snapshot().inbound;
    eventually("the second is unread", || inbound().leased_bytes == CONNECTIONS * READ).await;

    serving.shutdown().await;
    // Two of them are the thread's own.
    assert_eq!((inbound().leased_bytes, inbound().spare_bytes), (0, (CONNECTIONS - 2) * READ));
    eventually("nothing lies ready", || {
        pool.maintain(pool.clock().now());
        inbound().spare_bytes == 0
    })
    .await;
    assert!(pool.ledger().balanced);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// However the frames are cut on their way, and with whatever pauses.
    #[test]
    fn messages_cut_anywhere_come_back_whole(
        lens in prop::collection::vec(prop_oneof![4 => 0..300_usize, 1 => 0..40_000_usize], 1..20),
        cuts in prop::collection::vec(1..20_000_usize, 1..10),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for library in LIBRARIES {
                let server = Server::start("cut", library, 64 << 20).await;
                let mut client = server.connect().await;
                let mut bytes: Vec<u8> = lens.iter().enumerate()
                    .flat_map(|(number, &len)| frame(&payload(number, len), Data::Binary))
                    .collect();
                for cut in cuts.iter().cycle() {
                    let rest = bytes.split_off(bytes.len().min(*cut));
                    client.get_mut().write_all(&bytes).await.unwrap();
                    tokio::task::yield_now().await;
                    bytes = rest;
                    if bytes.is_empty() {
                        break;
                    }
                }
                for (number, &len) in lens.iter().enumerate() {
                    assert!(echoed(&mut client).await == payload(number, len), "message {number}");
                }
                client.close(None).await.unwrap();
                server.is_empty().await;
            }
        });
    }
}
