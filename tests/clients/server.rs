//! The chat server, as a process.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Far more than anything here takes. A wait this long is a failure.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// An example's binary, which `cargo test` builds beside this test's.
pub(crate) fn example(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of this test");
    let profile = this.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    let path = profile.join("examples").join(name);
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo build --examples --all-features`, or run `cargo test \
         --all-features` without naming a test target",
        path.display()
    );
    path
}

pub(crate) struct Server {
    process: Child,
    stdout: BufReader<ChildStdout>,
    /// `127.0.0.1:port`
    pub(crate) addr: String,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(example("chat_server"))
            .args(["--addr", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the chat server");
        let mut stdout = BufReader::new(process.stdout.take().expect("piped above"));
        let mut url = String::new();
        stdout.read_line(&mut url).expect("the server prints its URL");
        let addr = url.trim().strip_prefix("http://").and_then(|rest| rest.strip_suffix('/'));
        let addr = addr.unwrap_or_else(|| panic!("{url:?} is no URL")).to_owned();
        Self { process, stdout, addr }
    }

    pub(crate) fn socket(&self, query: &str) -> String {
        format!("ws://{}/ws?{query}", self.addr)
    }

    /// The pool's own account.
    pub(crate) async fn pool(&self) -> Value {
        let request = format!("GET /pool HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.addr);
        let mut stream = TcpStream::connect(&self.addr).await.expect("connect");
        stream.write_all(request.as_bytes()).await.expect("send the request");
        let mut answer = String::new();
        timeout(BOUND, stream.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        serde_json::from_str(body).expect("/pool is JSON")
    }

    /// Waits until `/pool` shows so many live connections.
    pub(crate) async fn live_becomes(&self, live: usize) -> Value {
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

    /// Waits until nobody is left, and looks whether the account agrees.
    pub(crate) async fn is_empty_again(&self) {
        let ledger = &self.live_becomes(0).await["ledger"];
        assert_eq!(ledger["balanced"], true, "{ledger}");
        for source in ["leases", "users_sum", "reserved", "occupied_slots", "isolation_keys"] {
            assert_eq!(ledger[source], 0, "{source}: {ledger}");
        }
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        use rustix::process::{Pid, Signal, kill_process};
        kill_process(Pid::from_child(&self.process), Signal::INT).expect("the server is there");
    }

    /// Waits for its end, after which it has given account.
    pub(crate) async fn ends_with_nothing_left(mut self) {
        let turns = async {
            loop {
                if let Some(status) = self.process.try_wait().expect("a child of ours") {
                    return status;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let status = timeout(BOUND, turns).await.expect("the server ends");
        let mut account = String::new();
        self.stdout.read_to_string(&mut account).expect("UTF-8");
        assert!(status.success() && account.contains("leases 0"), "{status}: {account}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
