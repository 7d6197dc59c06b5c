//! A WebSocket client of some language, driven from here.
//!
//! A client that is not Rust is a process. It reads a command from each line of stdin and writes its
//! answer, a line, to stdout:
//!
//! | command | answer |
//! | --- | --- |
//! | `open` name, url | `opened`, or `refused` (status), `retry_after`, `body` |
//! | `text` name, pieces (the frames' bytes), repeat (so many times) | `sent` |
//! | `binary` name, payload | `sent` |
//! | `ping` name, payload | `pong`: the same payload came back |
//! | `next` name | `text`, or `closed` with `code` and `reason` |
//! | `close` name, code, reason | `closed`: what the server answered |
//! | `lose` name | `lost`: the connection is gone without a word |

use crate::rust::RustClient;
use crate::server::BOUND;
use crate::tools;
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Whose client it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rust,
    Python,
    Node,
    Chromium,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) kind: Kind,
    means: Means,
}

#[derive(Debug)]
enum Means {
    Here(RustClient),
    There(Box<Process>),
}

#[derive(Debug)]
struct Process {
    child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// The server's answer to a handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// `None`, as the others: a page is not told.
    pub(crate) status: Option<u64>,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Option<String>,
}

impl Client {
    /// `None`: it is not installed here, which has been said.
    pub(crate) fn start(kind: Kind) -> Option<Self> {
        let means = match kind {
            Kind::Rust => Means::Here(RustClient::default()),
            Kind::Python => {
                let python = tools::or_skip(tools::python())?;
                spawn(Command::new(python).arg(tools::script("client.py")))
            }
            Kind::Node => {
                let (node, packages) = tools::or_skip(tools::node())?;
                spawn(Command::new(node).arg(tools::script("client.mjs")).current_dir(packages))
            }
            Kind::Chromium => {
                let (node, packages) = tools::or_skip(tools::node())?;
                let chromium = tools::or_skip(tools::chromium())?;
                let mut command = Command::new(node);
                spawn(command.arg(tools::script("browser.mjs")).arg(chromium).current_dir(packages))
            }
        };
        Some(Self { kind, means })
    }

    /// Gives a command, and waits for its answer.
    pub(crate) async fn ask(&mut self, command: Value) -> Value {
        let kind = self.kind;
        let answer = async {
            match &mut self.means {
                Means::Here(client) => client.answer(&command).await,
                Means::There(process) => {
                    let line = format!("{command}\n");
                    process.stdin.write_all(line.as_bytes()).await.expect("it reads");
                    let line = process.answers.next_line().await.expect("it writes");
                    let line = line.unwrap_or_else(|| panic!("{kind:?} ended at {command}; see its stderr"));
                    serde_json::from_str(&line).expect("an answer is JSON")
                }
            }
        };
        timeout(2 * BOUND, answer).await.unwrap_or_else(|_| panic!("{kind:?} never answered {command}"))
    }

    pub(crate) async fn try_open(&mut self, name: &str, url: &str) -> Result<(), Refused> {
        let answer = self.ask(json!({"do": "open", "name": name, "url": url})).await;
        if answer["opened"] == true {
            return Ok(());
        }
        let text = |field: &str| answer[field].as_str().map(str::to_owned);
        Err(Refused {
            status: answer["refused"].as_u64(),
            retry_after: text("retry_after"),
            body: text("body"),
        })
    }

    pub(crate) async fn open(&mut self, name: &str, url: &str) {
        self.try_open(name, url).await.unwrap_or_else(|refused| panic!("{url}: {refused:?}"));
    }

    pub(crate) async fn say(&mut self, name: &str, text: &str) {
        self.say_in_frames(name, &[text.as_bytes()]).await;
    }

    /// One message in so many frames.
    pub(crate) async fn say_in_frames(&mut self, name: &str, pieces: &[&[u8]]) {
        self.ask(json!({"do": "text", "name": name, "pieces": pieces, "repeat": 1})).await;
    }

    /// A text of so many `x`.
    pub(crate) async fn say_much(&mut self, name: &str, bytes: usize) {
        self.ask(json!({"do": "text", "name": name, "pieces": [b"x"], "repeat": bytes})).await;
    }

    /// The next text of the chat.
    pub(crate) async fn hear(&mut self, name: &str) -> Value {
        let answer = self.ask(json!({"do": "next", "name": name})).await;
        let text = answer["text"].as_str().unwrap_or_else(|| panic!("{answer} is no text"));
        serde_json::from_str(text).expect("the chat speaks JSON")
    }

    /// The code and the reason with which the server ends the connection, next.
    pub(crate) async fn hear_close(&mut self, name: &str) -> (u64, String) {
        closed(&self.ask(json!({"do": "next", "name": name})).await)
    }

    /// Ends the connection, and hears the server's answer.
    pub(crate) async fn close(&mut self, name: &str, code: u16, reason: &str) -> (u64, String) {
        closed(&self.ask(json!({"do": "close", "name": name, "code": code, "reason": reason})).await)
    }

    /// Without a close frame.
    pub(crate) async fn lose(&mut self, name: &str) {
        self.ask(json!({"do": "lose", "name": name})).await;
    }

    /// Lets a process end by itself: a browser has processes of its own to see to.
    pub(crate) async fn end(self) {
        if let Means::There(process) = self.means {
            let Process { mut child, stdin, answers: _answers } = *process;
            drop(stdin);
            let ended = timeout(BOUND, child.wait()).await.expect("it ends").expect("a child of ours");
            assert!(ended.success(), "{:?}: {ended}", self.kind);
        }
    }
}

fn spawn(command: &mut Command) -> Means {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("start the client");
    let stdin = child.stdin.take().expect("piped above");
    let answers = BufReader::new(child.stdout.take().expect("piped above")).lines();
    Means::There(Box::new(Process { child, stdin, answers }))
}

fn closed(answer: &Value) -> (u64, String) {
    let end = &answer["closed"];
    let code = end["code"].as_u64().unwrap_or_else(|| panic!("{answer} is no close"));
    (code, end["reason"].as_str().expect("a reason").to_owned())
}
