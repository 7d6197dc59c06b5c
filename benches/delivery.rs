//! Delivery through the pool against delivery as it is usually written: an `mpsc` channel for each
//! connection, the senders in a map.
//!
//! ```text
//! cargo bench --bench delivery --features tungstenite               # all parts
//! cargo bench --bench delivery --features tungstenite -- enqueue    # or `sockets`, or `slow`
//! ```
//!
//! - *enqueue*: the one call that hands a message to thousands of connections.
//! - *sockets*: messages a second and latency, end to end, over loopback sockets and with the same
//!   WebSocket library.
//! - *slow*: what a client that has stopped reading does to the others.
//!
//! The contenders take turns within one run, so that a busy machine is busy for all of them. A message
//! that is lost, or out of order, ends the run with an error; times are printed, not asserted.

#![allow(clippy::disallowed_methods)] // a benchmark reads the precise clock

#[path = "delivery/client.rs"]
mod client;
#[path = "delivery/contender.rs"]
mod contender;
#[path = "delivery/enqueue.rs"]
mod enqueue;
#[path = "../examples/idle_memory/handshake.rs"]
mod handshake;
#[path = "../examples/idle_memory/loopback.rs"]
mod loopback;
#[path = "delivery/process.rs"]
mod process;
#[path = "delivery/server.rs"]
mod server;
#[path = "delivery/slow.rs"]
mod slow;
#[path = "delivery/sockets.rs"]
mod sockets;
#[path = "delivery/table.rs"]
mod table;

use contender::Contender;
use loopback::Result;
use process::{Awake, Cores};

/// How much of each is done.
#[derive(Clone, Copy)]
enum Effort {
    /// Enough for figures.
    Measure,
    /// Enough to see that it runs.
    Try,
}

impl Effort {
    fn choose<T>(self, measure: T, try_it: T) -> T {
        match self {
            Self::Measure => measure,
            Self::Try => try_it,
        }
    }
}

fn main() -> Result<()> {
    if let Some(role) = loopback::role()? {
        let (contender, core) = Contender::of_role(&role)?;
        return server::run(contender, core);
    }
    let cores = Cores::allowed()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` only looks whether it runs.
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let effort = if is_bench { Effort::Measure } else { Effort::Try };
    let parts: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = parts.iter().find(|part| !["enqueue", "sockets", "slow"].contains(part)) {
        return Err(format!("{unknown:?} is none of `enqueue`, `sockets` and `slow`").into());
    }
    let wants = |part| parts.is_empty() || parts.contains(&part);
    println!("{}\n", process::machine());
    let _awake = Awake::keep(cores);
    if wants("enqueue") {
        enqueue::compare(effort)?;
    }
    if wants("sockets") {
        sockets::compare(effort, cores)?;
    }
    if wants("slow") {
        slow::compare(effort, cores)?;
    }
    Ok(())
}
