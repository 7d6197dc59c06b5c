//! The command line.

use lexopt::prelude::*;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio_tungstenite::tungstenite::http::Uri;

pub(crate) const HELP: &str = "\
Loads a chat server with users who connect, write to each other, vanish and come back, and checks that
each message reached exactly those whom it was for, once and in order.

Usage: load [OPTIONS]

  --url <url>          the server's socket, ws:// only [ws://127.0.0.1:8080/ws]
  --users <n>          users [10]
  --connections <n>    connections that each user holds at a time, so there are --users times as many
                       in all. The chat server allows a user 20 [3]
  --rate <n>           messages a second from all connections together. Each is for a user drawn by
                       lot, and goes to all connections of that user [100]
  --seconds <n>        how long messages are sent, from when everybody has connected [10]
  --ends <way,…>       how connections end while it runs; each is replaced by a new one on the same
                       thread. The ways take turns [close,reset]
                         close   a close frame, as a tab that is closed
                         reset   the network drops it
                         kill    its process dies without a word
                         silent  it stops reading and answering, but stays; it counts against its
                                 user's limit until the server gives it up
                         none    they all stay to the end
  --life <seconds>     how long a connection lives on average, unless --ends is none [5]
  --json               prints one JSON object at the end, and nothing else, on stdout
  --help               this text

Refusals such as 429 and 503 are counted, and tried again when the server says. Ctrl-C ends the run early,
and reports; a second one ends at once. Exit code 1: a message reached a wrong user, came twice, or came out
of order. Exit code 2: an option is wrong, or there is no such server.
";

pub(crate) const DEFAULT_URL: &str = "ws://127.0.0.1:8080/ws";

/// A client has one address, and about so many ports to connect from.
const MOST_CONNECTIONS: usize = 60_000;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Load(Plan),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) users: u32,
    /// Of each user.
    pub(crate) connections: u32,
    /// Messages a second, in all.
    pub(crate) rate: u32,
    pub(crate) span: Duration,
    /// None: connections stay.
    pub(crate) ends: Vec<Ending>,
    /// The mean of a connection's life.
    pub(crate) life: Duration,
    pub(crate) is_json: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            target: Target::read(DEFAULT_URL).expect("a good address"),
            users: 10,
            connections: 3,
            rate: 100,
            span: Duration::from_secs(10),
            ends: vec![Ending::Close, Ending::Reset],
            life: Duration::from_secs(5),
            is_json: false,
        }
    }
}

impl Plan {
    /// Connections in all.
    pub(crate) fn places(&self) -> usize {
        self.users as usize * self.connections as usize
    }
}

/// How the tool ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Close,
    Reset,
    Kill,
    Silent,
}

impl Ending {
    const ALL: [(&str, Self); 4] =
        [("close", Self::Close), ("reset", Self::Reset), ("kill", Self::Kill), ("silent", Self::Silent)];

    pub(crate) fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, ending)| *ending == self);
        found.map_or("?", |(name, _)| name)
    }
}

/// Where the socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// `host:port`, as a stream connects to it.
    pub(crate) addr: String,
    url: String,
}

impl Target {
    fn read(url: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("--url {url}: {why}, as in {DEFAULT_URL}");
        let uri: Uri = url.parse().map_err(|_| wrong("that is no address; give one"))?;
        match uri.scheme_str() {
            Some("ws") => {}
            Some("wss") => return Err(wrong("this tool speaks no TLS; load the server behind it by ws://")),
            _ => return Err(wrong("the address of a WebSocket begins with ws://")),
        }
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| wrong("it names no host"))?;
        let addr = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        Ok(Self { addr, url: url.to_owned() })
    }

    /// The address of a user's connection on a thread. Both are safe in a query as they stand.
    pub(crate) fn url(&self, user: &str, thread: &str) -> String {
        let joint = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{joint}user={user}&thread={thread}", self.url)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Reads the arguments of a process.
pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut plan = Plan::default();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("url") => plan.target = Target::read(&arguments.value()?.string()?)?,
            Long("users") => plan.users = number(&mut arguments, "--users", 1..=60_000)?,
            Long("connections") => plan.connections = number(&mut arguments, "--connections", 1..=60_000)?,
            Long("rate") => plan.rate = number(&mut arguments, "--rate", 0..=10_000_000)?,
            Long("seconds") => plan.span = seconds(&mut arguments, "--seconds")?,
            Long("ends") => plan.ends = ends(&arguments.value()?.string()?)?,
            Long("life") => plan.life = seconds(&mut arguments, "--life")?,
            Long("json") => plan.is_json = true,
            Short('h') | Long("help") => return Ok(Command::Help),
            _ => return Err(argument.unexpected()),
        }
    }
    if plan.places() > MOST_CONNECTIONS {
        let Plan { users, connections, .. } = plan;
        return Err(format!(
            "--users {users} --connections {connections}: that is {} connections, and one client has ports for \
             {MOST_CONNECTIONS}; --connections counts those of each user",
            plan.places()
        )
        .into());
    }
    Ok(Command::Load(plan))
}

fn number(
    arguments: &mut lexopt::Parser,
    option: &str,
    allowed: RangeInclusive<u32>,
) -> Result<u32, lexopt::Error> {
    let text = arguments.value()?.string()?;
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    let (least, most) = allowed.into_inner();
    number.ok_or_else(|| format!("{option} {text}: a whole number from {least} to {most} is wanted").into())
}

fn seconds(arguments: &mut lexopt::Parser, option: &str) -> Result<Duration, lexopt::Error> {
    number(arguments, option, 1..=86_400).map(|seconds| Duration::from_secs(seconds.into()))
}

fn ends(list: &str) -> Result<Vec<Ending>, String> {
    if list == "none" {
        return Ok(Vec::new());
    }
    let known = |name: &str| Ending::ALL.iter().find(|(known, _)| *known == name).map(|(_, ending)| *ending);
    let read = |name: &str| {
        let wanted = "some of close, reset, kill, silent, separated by commas, or none";
        known(name).ok_or_else(|| format!("--ends {list}: `{name}` is no way to end; {wanted}"))
    };
    list.split(',').map(read).collect()
}
