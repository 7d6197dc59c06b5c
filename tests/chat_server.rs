//! The chat server, as a process, over real sockets.

#![cfg(unix)]

#[path = "chat_server/agent.rs"]
mod agent;
#[path = "chat_server/ends.rs"]
mod ends;
#[cfg(target_os = "linux")]
#[path = "chat_server/kernel.rs"]
mod kernel;
#[path = "chat_server/numbers.rs"]
mod numbers;

use futures_util::{SinkExt, StreamExt, future::join_all};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, empty};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Far more than anything here takes. A wait this long is a failure.
const BOUND: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The example's binary, which `cargo test` builds beside this test's.
fn binary() -> PathBuf {
    let this = std::env::current_exe().expect("the path of this test");
    let profile = this.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    let path = profile.join("examples").join("chat_server");
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo build --example chat_server --features axum,serde`, or run \
         `cargo test --all-features` without naming a test target",
        path.display()
    );
    path
}

/// Runs the server where it is expected to end by itself, saying no more than a pipe holds.
fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("run the chat server");
    const TURN: Duration = Duration::from_millis(5);
    for _ in 0..BOUND.as_millis() / TURN.as_millis() {
        if process.try_wait().expect("a child of ours").is_some() {
            return process.wait_with_output().expect("what it said");
        }
        std::thread::sleep(TURN);
    }
    let _ = process.kill();
    let _ = process.wait();
    panic!("{arguments:?} did not end it");
}

struct Server {
    process: Child,
    stdout: Box<dyn BufRead + Send>,
    /// `127.0.0.1:port`
    addr: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(binary())
            .args(["--addr", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the chat server");
        let mut stdout = Box::new(BufReader::new(process.stdout.take().expect("piped above")));
        let mut url = String::new();
        stdout.read_line(&mut url).expect("the server prints its URL");
        let addr = url.trim().strip_prefix("http://").and_then(|rest| rest.strip_suffix('/'));
        let addr = addr.unwrap_or_else(|| panic!("{url:?} is no URL")).to_owned();
        Self { process, stdout, addr }
    }

    async fn open(&self, query: &str) -> Socket {
        self.try_open(query).await.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    async fn try_open(&self, query: &str) -> Result<Socket, tungstenite::Error> {
        let url = format!("ws://{}/ws?{query}", self.addr);
        let connected = timeout(BOUND, connect_async(url)).await.expect("the server answers");
        connected.map(|(socket, _)| socket)
    }

    /// A plain GET, as the page makes it to learn why its socket was refused.
    async fn get(&self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.addr);
        let mut stream = TcpStream::connect(&self.addr).await.expect("connect");
        stream.write_all(request.as_bytes()).await.expect("send the request");
        let mut answer = String::new();
        timeout(BOUND, stream.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
        Answer::parse(&answer)
    }

    async fn pool(&self) -> Value {
        serde_json::from_str(&self.get("/pool").await.body).expect("/pool is JSON")
    }

    /// Waits until `/pool` shows so many live connections.
    async fn live_becomes(&self, live: usize) -> Value {
        let turns = async {
            loop {
                let pool = self.pool().await;
                if pool["live"] == live {
                    return pool;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(BOUND, turns).await.unwrap_or_else(|_| panic!("never {live} live connections"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("the server is there");
    }

    async fn exit(&mut self) -> ExitStatus {
        let turns = async {
            loop {
                if let Some(status) = self.process.try_wait().expect("a child of ours") {
                    return status;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(BOUND, turns).await.expect("the server ends")
    }

    /// The next line that it prints.
    async fn line(&mut self) -> String {
        let mut stdout = std::mem::replace(&mut self.stdout, Box::new(empty()));
        let reading = spawn_blocking(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).map(|_| (line, stdout))
        });
        let line;
        (line, self.stdout) =
            timeout(BOUND, reading).await.expect("in time").expect("no panic").expect("UTF-8");
        line.trim_end().to_owned()
    }

    /// What it printed since it was last asked.
    fn printed(&mut self) -> String {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).expect("UTF-8");
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error: it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Answer {
    status: u16,
    /// Names in lower case.
    headers: HashMap<String, String>,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Self { status: status.parse().expect("a number"), headers, body: body.to_owned() }
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

async fn say(socket: &mut Socket, text: impl Into<String>) {
    socket.send(Message::text(text.into())).await.expect("send");
}

/// The next message. The bound is for all of the wait: the server's pings do not lengthen it.
async fn next(socket: &mut Socket) -> Message {
    let messages = async {
        loop {
            let message = socket.next().await.expect("open").expect("no error");
            if !message.is_ping() {
                return message;
            }
        }
    };
    timeout(BOUND, messages).await.expect("in time")
}

/// The next text frame, which is JSON.
async fn hear(socket: &mut Socket) -> Value {
    let message = next(socket).await;
    serde_json::from_str(message.to_text().expect("a text frame")).expect("JSON")
}

/// Reads up to the close frame, and answers it.
async fn close_code(socket: &mut Socket) -> u16 {
    loop {
        if let Message::Close(frame) = next(socket).await {
            // The answer goes out while reading on. An error is an end as well.
            while let Some(Ok(_)) = timeout(BOUND, socket.next()).await.expect("in time") {}
            return frame.expect("a close code").code.into();
        }
    }
}

/// The refusal before the handshake.
fn refusal(opened: Result<Socket, tungstenite::Error>) -> (u16, Option<String>, String) {
    match opened {
        Err(tungstenite::Error::Http(answer)) => {
            let retry_after =
                answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
            let body = answer.body().as_deref().unwrap_or_default();
            (answer.status().as_u16(), retry_after, String::from_utf8_lossy(body).into_owned())
        }
        Err(error) => panic!("not an HTTP answer: {error}"),
        Ok(_) => panic!("it was accepted"),
    }
}

#[tokio::test]
async fn two_tabs_chat_and_closing_one_shows_at_once() {
    let server = Server::start(&[]);
    let mut first = server.open("user=ada&thread=thread_tabs").await;
    let mut second = server.open("user=ada&thread=thread_tabs").await;
    let pool = server.live_becomes(2).await;
    assert_eq!(pool["users"], 1);
    assert_eq!(pool["capacity"], 100_000);
    assert_eq!(pool["managers"].as_array().unwrap().len(), 2);
    assert_eq!(pool["managers"][0]["user_id"], "ada");
    let ledger = &pool["ledger"];
    for source in ["leases", "users_sum", "occupied_slots", "isolation_keys"] {
        assert_eq!(ledger[source], 2, "{source}");
    }
    assert_eq!((&ledger["verdict"], &ledger["balanced"]), (&json!("balanced"), &json!(true)));

    for text in ["hello", "hello yourself"] {
        say(&mut first, text).await;
        std::mem::swap(&mut first, &mut second);
        for socket in [&mut first, &mut second] {
            assert_eq!(hear(socket).await, json!({"from": "ada", "text": text}));
        }
    }

    first.close(None).await.expect("close");
    let pool = server.live_becomes(1).await;
    assert_eq!(pool["ledger"]["balanced"], true);
    drop(second); // without a close frame
    let pool = server.live_becomes(0).await;
    assert_eq!(pool["users"], 0);
}

#[tokio::test]
async fn the_21st_connection_of_a_user_is_refused_before_the_handshake() {
    let server = Server::start(&[]);
    let _open = join_all((0..20).map(|_| server.open("user=ada"))).await;
    let (status, retry_after, body) = refusal(server.try_open("user=ada").await);
    assert_eq!(status, 429);
    assert!(retry_after.expect("Retry-After").parse::<u32>().expect("seconds") > 0);
    assert!(body.contains("20 open connections"), "{body}");
    let plain = server.get("/ws?user=ada").await;
    assert_eq!(plain.status, 429, "a browser asks again without an upgrade to learn the reason");
    assert!(plain.headers.contains_key("retry-after"));
    assert_eq!(plain.body, body);
    let _other_user = server.open("user=bob").await;
    server.live_becomes(21).await;
}

#[tokio::test]
async fn a_burst_of_200_gets_exactly_20_places() {
    let server = Server::start(&[]);
    let burst = join_all((0..200).map(|_| server.try_open("user=ada&thread=thread_burst"))).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = burst.into_iter().partition(Result::is_ok);
    assert_eq!((accepted.len(), refused.len()), (20, 180));
    assert!(refused.into_iter().all(|attempt| refusal(attempt).0 == 429));
    let pool = server.live_becomes(20).await;
    assert_eq!(pool["ledger"]["balanced"], true);
    drop(accepted);
    server.live_becomes(0).await;
}

#[tokio::test]
async fn a_full_pool_answers_503() {
    let server = Server::start(&["--capacity", "1"]);
    let _open = server.open("user=ada").await;
    let (status, retry_after, body) = refusal(server.try_open("user=bob").await);
    assert_eq!(status, 503);
    assert!(retry_after.is_some());
    assert_eq!(server.get("/ws?user=bob").await.body, body);
}

#[tokio::test]
async fn two_users_with_the_same_thread_never_meet() {
    let server = Server::start(&[]);
    let mut ada = server.open("user=ada&thread=thread_same").await;
    let mut bob = server.open("user=bob&thread=thread_same").await;
    say(&mut ada, "for ada alone").await;
    assert_eq!(hear(&mut ada).await["text"], "for ada alone");
    say(&mut bob, "for bob alone").await;
    assert_eq!(hear(&mut bob).await["text"], "for bob alone", "and nothing of Ada's before it");
    say(&mut ada, "again").await;
    assert_eq!(hear(&mut ada).await["text"], "again", "and nothing of Bob's before it");
}

#[tokio::test]
async fn a_text_can_be_addressed_to_another_user() {
    let server = Server::start(&[]);
    let mut ada = server.open("user=ada").await;
    let mut bob = [server.open("user=bob").await, server.open("user=bob").await];
    server.live_becomes(3).await;
    say(&mut ada, r#"{"to": "bob", "text": "hi \"Bob\""}"#).await;
    for socket in &mut bob {
        assert_eq!(hear(socket).await, json!({"from": "ada", "text": "hi \"Bob\""}));
    }

    say(&mut ada, r#"{"to": "carol", "text": "hi"}"#).await;
    let error = hear(&mut ada).await;
    assert!(error["error"].as_str().expect("an error").contains("carol"), "{error}");
    say(&mut ada, r#"{"to": "", "text": "hi"}"#).await;
    let error = hear(&mut ada).await;
    assert!(error["error"].as_str().expect("an error").contains("user_id is empty"), "{error}");
}

#[tokio::test]
async fn any_other_text_is_plain_text() {
    let server = Server::start(&[]);
    let mut ada = server.open("user=ada").await;
    let deep = "[".repeat(10_000);
    for text in [
        "",
        r#"{"to": "bob"}"#,
        r#"{"to": "bob", "text": 7}"#,
        r#"{"to": "bob", "text": "hi", "more": 1}"#,
        r#"["bob", "hi"]"#,
        r#"{"to": "bob", "text": "hi""#,
        "<img src=x onerror=alert(1)>",
        "\u{202e}abc \u{0} \"' & ✓",
        &deep,
    ] {
        say(&mut ada, text).await;
        assert_eq!(hear(&mut ada).await, json!({"from": "ada", "text": text}));
    }
    ada.send(Message::binary(vec![1, 2, 3])).await.expect("send");
    assert!(hear(&mut ada).await["error"].is_string());
}

#[tokio::test]
async fn a_bad_id_gets_400_and_the_rule() {
    let server = Server::start(&[]);
    let long = format!("user={}", "a".repeat(129));
    for (query, rule) in [
        ("", "user_id is empty: send 1 to 128 bytes"),
        ("user=", "user_id is empty: send 1 to 128 bytes"),
        (long.as_str(), "user_id has 129 bytes"),
        ("user=a%00b", "control character U+0000"),
        ("user=%ff", "user is not UTF-8"),
        ("user=ada&thread=", "thread_id does not start with `thread_`"),
        ("user=ada&thread=7", "thread_id does not start with `thread_`"),
        ("user=ada&thread=thread_a%3Ab", "[A-Za-z0-9_.-]"),
    ] {
        let (status, _, body) = refusal(server.try_open(query).await);
        assert_eq!(status, 400, "{query}");
        assert!(body.contains(rule), "{query}: {body}");
        let plain = server.get(&format!("/ws?{query}")).await;
        assert_eq!((plain.status, plain.body), (400, body), "{query}");
    }
    assert_eq!(server.pool().await["ledger"]["tally"]["reserved"], 0, "a bad id never got as far");
}

#[tokio::test]
async fn a_plain_get_that_nothing_is_wrong_with_is_told_to_upgrade() {
    let server = Server::start(&[]);
    let answer = server.get("/ws?user=ada").await;
    assert_eq!((answer.status, answer.headers["upgrade"].as_str()), (426, "websocket"));
    let pool = server.live_becomes(0).await;
    assert_eq!((&pool["reserved"], &pool["ledger"]["balanced"]), (&json!(0), &json!(true)));
}

#[tokio::test]
async fn names_of_any_script_come_back_as_they_were() {
    let server = Server::start(&[]);
    let names = ["Ådå Łövelace 🌍", "爱丽丝", "a&b=c+d%20/?#", "a:b", "<b onclick='alert(1)'>\"x\"</b>"];
    for name in names {
        let mut socket = server.open(&format!("user={}&thread=thread_x", encoded(name))).await;
        say(&mut socket, "hi").await;
        assert_eq!(hear(&mut socket).await, json!({"from": name, "text": "hi"}));
        let to_self = json!({"to": name, "text": name}).to_string();
        say(&mut socket, to_self).await;
        assert_eq!(hear(&mut socket).await, json!({"from": name, "text": name}));
        assert_eq!(server.pool().await["managers"][0]["user_id"], name);
        socket.close(None).await.expect("close");
        server.live_becomes(0).await;
    }
}

#[tokio::test]
async fn a_duplicate_takes_over_or_is_refused_as_asked() {
    let server = Server::start(&["--duplicate", "replace"]);
    let mut old = server.open("user=ada&thread=thread_one").await;
    server.live_becomes(1).await; // its manager opens after the handshake
    let mut new = server.open("user=ada&thread=thread_one").await;
    assert_eq!(close_code(&mut old).await, 4001);
    say(&mut new, "still here").await;
    assert_eq!(hear(&mut new).await["text"], "still here");
    server.live_becomes(1).await;

    let server = Server::start(&["--duplicate=reject"]);
    let _first = server.open("user=ada&thread=thread_one").await;
    server.live_becomes(1).await;
    assert_eq!(refusal(server.try_open("user=ada&thread=thread_one").await).0, 409);
}

#[cfg(not(target_os = "linux"))]
#[tokio::test]
async fn where_the_kernel_does_not_tell_that_is_said() {
    let server = Server::start(&[]);
    let _open = server.open("user=ada").await;
    let pool = server.live_becomes(1).await;
    assert_eq!((&pool["kernel_sockets"], &pool["kernel_agrees"]), (&Value::Null, &Value::Null));
    assert_eq!(pool["kernel_sockets_note"], "only Linux tells");
}

#[tokio::test]
async fn the_page_needs_nothing_else_and_shows_strangers_texts_as_text() {
    let server = Server::start(&[]);
    let page = server.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.headers["content-type"].starts_with("text/html"));
    assert!(page.headers["content-security-policy"].contains("default-src 'none'"));
    for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "src=\"", "@import"] {
        assert!(!page.body.contains(forbidden), "{forbidden}");
    }
}

#[tokio::test]
async fn sigterm_tells_everyone_1001_and_ends_with_a_ledger_of_zero() {
    let mut server = Server::start(&[]);
    let mut sockets =
        [server.open("user=ada").await, server.open("user=ada").await, server.open("user=bob").await];
    server.live_becomes(3).await;
    server.signal(Signal::TERM);
    for code in join_all(sockets.iter_mut().map(close_code)).await {
        assert_eq!(code, 1001);
    }
    assert_eq!(server.exit().await.code(), Some(0));
    let printed = server.printed();
    let account = "leases 0, users' sum 0, occupied slots 0, isolation keys 0";
    assert!(printed.contains("Balanced") && printed.contains(account), "{printed}");
}

#[tokio::test]
async fn it_drains_even_if_nobody_reads_what_it_prints() {
    let mut server = Server::start(&[]);
    let mut socket = server.open("user=ada").await;
    server.live_becomes(1).await;
    server.stdout = Box::new(empty()); // closes the pipe
    server.signal(Signal::INT);
    assert_eq!(close_code(&mut socket).await, 1001);
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&[]);
    // Nobody reads from it, so nobody answers the close frame and the drain has to wait.
    let _deaf = server.open("user=ada").await;
    server.live_becomes(1).await;
    server.signal(Signal::INT);
    let line = server.line().await;
    assert!(line.starts_with("draining"), "{line}");
    server.signal(Signal::INT);
    assert_eq!(server.exit().await.code(), Some(130));
}

#[tokio::test]
async fn a_port_in_use_is_said_and_ends_with_2() {
    let server = Server::start(&[]);
    let second = run(&["--addr", &server.addr]);
    assert_eq!(second.status.code(), Some(2));
    let message = String::from_utf8(second.stderr).expect("UTF-8");
    assert!(message.contains(&server.addr) && message.contains("in use"), "{message}");
    assert!(second.stdout.is_empty());
}

#[test]
fn bad_arguments_are_said_and_end_with_2() {
    for (arguments, message) in [
        (&["--no-such"][..], "--no-such"),
        (&["extra"], "extra"),
        (&["--addr"], "--addr"),
        (&["--addr", "nonsense"], "nonsense"),
        (&["--max-per-user", "many"], "--max-per-user many"),
        (&["--max-per-user", "0"], "max_managers_per_user is 0"),
        (&["--capacity", "0"], "capacity is 0"),
        (&["--capacity", "-1"], "--capacity"),
        (&["--duplicate", "perhaps"], "perhaps"),
        (&["--at-limit", "newest"], "--at-limit newest: that is none of reject, oldest, idlest"),
        (&["--config"], "--config"),
    ] {
        let output = run(arguments);
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
    }
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8(help.stdout).expect("UTF-8").contains("--max-per-user"));
}
