//! Sends back what it hears, over any of the WebSocket libraries: the server that the Autobahn test
//! suite is run against (docs/AUTOBAHN.md), and a first look at each adapter.
//!
//! ```text
//! cargo run --release --example echo_server \
//!     --features axum,tungstenite,tokio-websockets,fastwebsockets,engine -- --adapter fastwebsockets
//! ```
//!
//! or, by `--way 3`, with the crate's own engine and no library.
//!
//! Each connection to `/` is a user of its own. Read on in `doors.rs` (one way in for each library)
//! and `talk.rs` (what happens on a connection).

#[path = "echo_server/doors.rs"]
mod doors;
#[path = "echo_server/options.rs"]
mod options;
#[path = "echo_server/talk.rs"]
mod talk;

use options::{Command, Options};
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::signal::ctrl_c;
use ws_manager_pool::serve::drain;
use ws_manager_pool::{BuildError, Config, Environment, Pool};

/// Bad arguments, or an address that can't be had.
const USAGE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match options::parse() {
        Ok(Command::Serve(options)) => options,
        Ok(Command::Help) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => return give_up(format!("{error}\n\n{}", options::HELP)),
    };
    let pool = match build_pool() {
        Ok(pool) => pool,
        Err(error) => return give_up(error),
    };
    let listener = match TcpListener::bind(&options.addr).await {
        Ok(listener) => listener,
        Err(error) => {
            return give_up(format!("can't listen on {}: {error}; choose another --addr", options.addr));
        }
    };
    run(listener, pool, &options).await.unwrap_or_else(give_up)
}

/// Limits so wide that whatever a test sends is sent back.
fn build_pool() -> Result<Pool, BuildError> {
    const MESSAGE: usize = 64 << 20;
    let mut config = Config::preset(Environment::Production);
    (config.inbound_message_bytes, config.inbound_frame_bytes) = (MESSAGE, MESSAGE);
    config.outbound =
        config.outbound.with_messages(1 << 16).with_bytes(4 * MESSAGE).with_message_bytes(MESSAGE);
    config.outbound_pool_bytes = 16 * MESSAGE;
    Pool::builder().name("echo").config(config).build()
}

/// Serves until Ctrl-C, then ends every connection and gives account.
async fn run(listener: TcpListener, pool: Pool, options: &Options) -> io::Result<ExitCode> {
    say(format_args!("ws://{}/", listener.local_addr()?));
    let serving = tokio::spawn(doors::open(listener, pool.clone(), options.adapter, options.way));
    ctrl_c().await?;
    let report = drain(&pool).await;
    serving.abort();

    let ledger = pool.ledger();
    say(format_args!("drain: {} told, {} gone, {} left", report.evicted, report.finished, report.remaining));
    say(format_args!("ledger: {:?}; occupied slots {}", ledger.verdict, ledger.occupied_slots));
    let is_zero = ledger.balanced && ledger.occupied_slots == 0;
    Ok(if is_zero { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a line; does not panic if nobody reads.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn give_up(why: impl Display) -> ExitCode {
    eprintln!("echo_server: {why}");
    ExitCode::from(USAGE)
}
