//! The pool's leases against the kernel's own count of the upgraded sockets.

#[path = "../../examples/chat_server/kernel.rs"]
mod counted;

use super::*;
use axum::serve::Listener;
use counted::{SocketInode, UpgradedSockets, WatchedListener};
use std::future::{Future, pending};
use tokio::net::TcpListener;
use tokio_tungstenite::client_async;

/// Tells [`a_client_in_a_process_of_its_own`] where to connect.
const ADDR: &str = "CHAT_SERVER_TEST_ADDR";

impl Server {
    /// Waits for a quiet point with so many live connections, at which the kernel counts as many.
    async fn agrees_on(&self, live: usize) {
        let turns = async {
            loop {
                let pool = self.pool().await;
                if pool["live"] == live && pool["kernel_agrees"] == true {
                    assert_eq!(pool["kernel_sockets"], live);
                    assert_eq!(pool["kernel_sockets_note"], Value::Null);
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(BOUND, turns).await.is_err() {
            let Value::Object(mut pool) = self.pool().await else { panic!("/pool is no object") };
            pool.retain(|name, _| name == "live" || name.starts_with("kernel"));
            panic!("never {live} live connections with as many sockets: {pool:?}");
        }
    }

    /// A connection that is kept alive after a request and its answer.
    async fn kept_alive(&self, path: &str, status: u16) -> TcpStream {
        self.answered(path, "", status).await
    }

    /// A connection that is kept alive after its handshake was refused.
    async fn refused(&self, query: &str, status: u16) -> TcpStream {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n";
        self.answered(&format!("/ws?{query}"), upgrade, status).await
    }

    async fn answered(&self, path: &str, headers: &str, status: u16) -> TcpStream {
        let mut stream = TcpStream::connect(&self.addr).await.expect("connect");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.addr);
        stream.write_all(request.as_bytes()).await.expect("send the request");
        // Head and body, to the last byte: the next answer is not to begin in the middle of this one.
        let mut answer = Vec::new();
        let whole = async {
            while !is_whole(&answer) {
                assert!(stream.read_buf(&mut answer).await.expect("an answer") > 0, "{path} was hung up on");
            }
        };
        timeout(BOUND, whole).await.expect("in time");
        assert_eq!(Answer::parse(&String::from_utf8(answer).expect("UTF-8")).status, status, "{path}");
        stream
    }

    /// Opens a WebSocket on a connection that was used for something else before.
    async fn open_on(&self, stream: TcpStream, query: &str) -> WebSocketStream<TcpStream> {
        let url = format!("ws://{}/ws?{query}", self.addr);
        let opened = timeout(BOUND, client_async(url, stream)).await.expect("the server answers");
        opened.expect("it may come in").0
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    text.contains("\r\n\r\n") && {
        let Answer { headers, body, .. } = Answer::parse(&text);
        headers["content-length"].parse() == Ok(body.len())
    }
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let turns = async {
        while !is_so().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, turns).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

/// Not a test: what [`the_kernel_counts_as_many_upgraded_sockets_as_there_are_leases`] kills.
#[tokio::test]
#[ignore = "started by another test, in a process of its own"]
async fn a_client_in_a_process_of_its_own() {
    let Ok(addr) = std::env::var(ADDR) else { return };
    let url = format!("ws://{addr}/ws?user=eve");
    let _open = [connect_async(&url).await.expect("open"), connect_async(&url).await.expect("open")];
    pending().await
}

#[tokio::test]
async fn the_kernel_counts_as_many_upgraded_sockets_as_there_are_leases() {
    let mut server = Server::start(&["--max-per-user", "3"]);
    server.agrees_on(0).await;
    // They stay open throughout, and none of them is an upgraded socket.
    let silent = TcpStream::connect(&server.addr).await.expect("connect");
    let _plain = join_all((0..3).map(|_| server.kept_alive("/", 200))).await;
    let asked_why = server.kept_alive("/ws?user=ada", 426).await;
    let _bad = [server.refused("user=", 400).await, server.refused("user=%ff", 400).await];

    let mut ada = join_all((0..3).map(|_| server.open("user=ada"))).await;
    let bob = join_all((0..3).map(|_| server.open("user=bob"))).await;
    let _full = join_all((0..3).map(|_| server.refused("user=ada", 429))).await;
    server.agrees_on(6).await;

    ada.pop().expect("three").close(None).await.expect("close"); // properly
    server.agrees_on(5).await;
    for socket in bob {
        let MaybeTlsStream::Plain(stream) = socket.into_inner() else { panic!("no TLS here") };
        stream.set_zero_linger().expect("a socket"); // a reset instead of an end
    }
    server.agrees_on(2).await;

    let mut client = Command::new(std::env::current_exe().expect("the path of this test"))
        .args(["--exact", "kernel::a_client_in_a_process_of_its_own", "--ignored"])
        .env(ADDR, &server.addr)
        .stdout(Stdio::null())
        .spawn()
        .expect("start a client");
    server.agrees_on(4).await;
    client.kill().expect("a child of ours");
    client.wait().expect("a child of ours");
    server.agrees_on(2).await;

    // Used for something else first, and refused first.
    let asked = server.open_on(asked_why, "user=carol").await;
    let silent = server.open_on(silent, "user=carol").await;
    server.agrees_on(4).await;
    drop(ada); // without a close frame
    server.agrees_on(2).await;

    server.signal(Signal::TERM);
    drop((asked, silent)); // so that the drain need not wait for their answers
    assert_eq!(server.exit().await.code(), Some(0));
    let printed = server.printed();
    assert!(printed.contains("kernel: upgraded sockets 0\n"), "{printed}");
}

#[tokio::test]
async fn a_socket_may_outlive_its_lease_for_a_goodbye_and_no_longer() {
    let server = Server::start(&["--duplicate", "replace"]);
    let deaf = server.open("user=ada&thread=thread_one").await;
    server.agrees_on(1).await;
    let _new = server.open("user=ada&thread=thread_one").await;
    // Nobody reads from the old one, so nobody answers the goodbye.
    eventually("the difference shows", || async {
        let pool = server.pool().await;
        assert_eq!(pool["live"], 1, "a takeover is one moment");
        let is_different = pool["kernel_agrees"] == false;
        if is_different {
            assert_eq!(pool["kernel_sockets"], 2);
            let note = pool["kernel_sockets_note"].as_str().expect("a note");
            assert!(note.starts_with("1 more than leases"), "{note}");
        }
        is_different
    })
    .await;
    server.agrees_on(1).await;
    drop(deaf);
}

struct Acceptor {
    listener: WatchedListener,
    sockets: UpgradedSockets,
}

impl Acceptor {
    async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let sockets = UpgradedSockets::default();
        Self { listener: WatchedListener { listener, sockets: sockets.clone() }, sockets }
    }

    /// Both ends of a new connection, the accepted one second.
    async fn connection(&mut self) -> (TcpStream, TcpStream) {
        let addr = self.listener.local_addr().expect("bound");
        let client = TcpStream::connect(addr).await.expect("connect");
        (client, self.listener.accept().await.0)
    }

    async fn count(&self) -> usize {
        self.sockets.count().await.expect("the kernel tells")
    }
}

#[tokio::test]
async fn a_socket_counts_from_its_upgrade_to_its_end_and_its_number_is_nobody_elses() {
    let mut acceptor = Acceptor::bind().await;
    let (_client, stream) = acceptor.connection().await;
    assert_eq!(acceptor.count().await, 0, "accepted, but not upgraded");
    acceptor.sockets.upgraded(SocketInode::of(&stream));
    assert_eq!(acceptor.count().await, 1);
    let (_other_client, other) = acceptor.connection().await;
    assert_eq!(acceptor.count().await, 1);

    // The kernel has come round to the number, which it does after some four billion of them.
    acceptor.sockets.accepted(&stream);
    assert_eq!(acceptor.count().await, 0);

    acceptor.sockets.upgraded(SocketInode::of(&other));
    drop(other);
    assert_eq!(acceptor.count().await, 0);
}

#[tokio::test]
async fn counts_at_the_same_time_and_new_sockets_do_not_disturb_each_other() {
    let mut acceptor = Acceptor::bind().await;
    let mut open = Vec::new();
    for round in 0..100 {
        let counts: Vec<_> = (0..8)
            .map(|_| {
                let sockets = acceptor.sockets.clone();
                tokio::spawn(async move { sockets.count().await.expect("the kernel tells") })
            })
            .collect();
        let (client, stream) = acceptor.connection().await;
        acceptor.sockets.upgraded(SocketInode::of(&stream));
        open.push((client, stream));
        for counted in join_all(counts).await {
            let counted = counted.expect("no panic");
            assert!((round..=open.len()).contains(&counted), "{counted} of {}", open.len());
        }
        assert_eq!(acceptor.count().await, open.len());
    }
}

#[tokio::test]
async fn closed_sockets_are_forgotten_though_nobody_asks_for_the_count() {
    let mut acceptor = Acceptor::bind().await;
    for _ in 0..1_500 {
        let (client, stream) = acceptor.connection().await;
        acceptor.sockets.upgraded(SocketInode::of(&stream));
        client.set_zero_linger().expect("a socket"); // leaves no port behind that waits
    }
    eventually("a thousand are forgotten", || async {
        let shown = format!("{:?}", acceptor.sockets);
        let noted = shown.trim_start_matches("UpgradedSockets { noted: ").trim_end_matches(" }");
        noted.parse::<usize>().expect("a number") <= 500
    })
    .await;
}
