//! Loads a chat server, and checks what arrives:
//!
//! ```text
//! cargo run --release --example chat_server --features axum,serde
//! cargo run --release --example load
//! cargo run --release --example load -- --users 100 --connections 10 --rate 1000 --seconds 20
//! ```
//!
//! `--help` has the options. Any server will do that speaks as the chat server does: a text to
//! `?user=…&thread=…` comes back to all of that thread as `{"from": …, "text": …}`, and `{"to": user,
//! "text": …}` goes to all connections of that user. Read on in `load/place.rs` (what a connection does)
//! and `load/checker.rs` (what must have arrived).

#[path = "load/board.rs"]
mod board;
#[path = "load/checker.rs"]
mod checker;
#[path = "load/door.rs"]
mod door;
#[path = "load/options.rs"]
mod options;
#[path = "load/place.rs"]
mod place;
#[path = "load/progress.rs"]
mod progress;
#[path = "load/report.rs"]
mod report;

use board::Board;
use door::NotOpened;
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use options::{Command, DEFAULT_URL, Plan};
use place::{Phase, Place, Run, user_name};
use progress::Progress;
use report::{Report, grouped};
use std::fmt::Display;
use std::io::{self, Write};
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use tokio::signal::ctrl_c;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

/// A message reached somebody whom it was not for, or came twice, or late.
const FAILED: u8 = 1;
/// Bad arguments, or no server.
const USAGE: u8 = 2;

/// A second Ctrl-C: 128 and the signal's number.
const INTERRUPTED: i32 = 130;

/// Handshakes at a time: no more than a server's queue of new connections holds.
const DOORS: usize = 64;

/// For everybody to connect, or to be refused.
const RUSH: Duration = Duration::from_secs(120);

/// For what is under way to arrive, when all has been sent.
const REST: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> ExitCode {
    let plan = match options::parse(lexopt::Parser::from_env()) {
        Ok(Command::Load(plan)) => plan,
        Ok(Command::Help) => {
            say(options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => return give_up(format_args!("{error}\n\n{}", options::HELP)),
    };
    raise_file_limit();
    let id = rand::random();
    if let Err(why) = look_for_server(&plan, id).await {
        return give_up(why);
    }
    let run = Arc::new(Run {
        plan,
        board: Board::new(),
        id,
        phase: watch::Sender::new(Phase::Connecting),
        doors: Semaphore::new(DOORS),
        writers: AtomicU32::new(0),
    });
    let took = load(&run).await;
    report(&run, took)
}

/// From the first connection to the last. How long messages were sent.
async fn load(run: &Arc<Run>) -> Duration {
    let Run { plan, board, phase, .. } = &**run;
    let progress = Progress::new();
    if !plan.is_json {
        let ends: Vec<_> = plan.ends.iter().map(|ending| ending.name()).collect();
        say(format_args!(
            "{}: {} users × {} connections = {}, {} messages a second for {} s, ends: {}\n",
            plan.target,
            plan.users,
            plan.connections,
            grouped(plan.places() as u64),
            grouped(plan.rate.into()),
            plan.span.as_secs(),
            if ends.is_empty() { "none".to_owned() } else { ends.join(", ") }
        ));
    }
    let places = (0..plan.places()).map(|index| {
        let run = run.clone();
        tokio::spawn(async move { Place::new(&run, index).hold().await })
    });
    let places: Vec<_> = places.collect();
    progress.until(board, "connecting", RUSH, |board| board.figures().settled == plan.places()).await;

    let since = Instant::now();
    phase.send_replace(Phase::Sending { since });
    tokio::select! {
        () = sleep(plan.span) => {}
        _ = ctrl_c() => {}
        never = progress.watch(board, "loading") => never,
    }
    let took = since.elapsed();
    tokio::spawn(async { ctrl_c().await.map(|()| process::exit(INTERRUPTED)) });
    phase.send_replace(Phase::Settling);
    let is_quiet = |board: &Board| {
        let figures = board.figures();
        figures.quiet == figures.open
    };
    progress.until(board, "settling", REST, is_quiet).await;
    phase.send_replace(Phase::Leaving);
    // Elapsed: what is still open ends with this process.
    let _ = timeout(2 * REST, join_all(places)).await;
    progress.clear();
    took
}

fn report(run: &Run, took: Duration) -> ExitCode {
    let figures = run.board.figures();
    let report = Report::new(&run.plan, &figures, took);
    match run.plan.is_json {
        true => say(format_args!("{}\n", report.to_json())),
        false => say(&report),
    }
    let failures = report.failures();
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("load: FAILED: {}", failures.join("; "));
    ExitCode::from(FAILED)
}

/// Asks once, before anything is measured, whether there is a server that speaks our language.
async fn look_for_server(plan: &Plan, run: u32) -> Result<(), String> {
    let target = &plan.target;
    let user = format!("{}-probe", user_name(run, 0));
    let start = format!(
        "Start one:\n\n  cargo run --release --example chat_server --features axum,serde\n\n\
         and name its socket by --url if that is not {DEFAULT_URL}"
    );
    let mut socket = match door::open(target, &user, &format!("thread_{user}")).await {
        Ok(socket) => socket,
        // Full already: that is a figure, not a mistake.
        Err(NotOpened::Refused { status: 429 | 503, .. }) => return Ok(()),
        Err(NotOpened::Refused { status, .. }) => {
            return Err(format!(
                "{target} answers {status}: that is no chat server's socket; the path may be missing. {start}"
            ));
        }
        Err(NotOpened::Unreachable(error)) => {
            return Err(format!("no server at {}: {error}. {start}", target.addr));
        }
        Err(NotOpened::Failed(why)) => {
            return Err(format!("{target} does not answer as a WebSocket does: {why}. {start}"));
        }
    };
    let echo = async {
        socket.send(Message::text("probe")).await.ok()?;
        while let Some(Ok(message)) = socket.next().await {
            let text = message.to_text().unwrap_or_default();
            if text.contains("\"from\"") && text.contains("probe") {
                return Some(());
            }
        }
        None
    };
    let Ok(Some(())) = timeout(REST, echo).await else {
        return Err(format!(
            "{target} takes a connection, but a text does not come back to its thread as {{\"from\": …, \
             \"text\": …}}: that is no chat server. {start}"
        ));
    };
    let _ = timeout(REST, socket.close(None)).await;
    Ok(())
}

/// Each connection is an open file, and many shells allow 1,024.
fn raise_file_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        // Refused: then connections fail, and say why.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// Whoever closes our output early has read enough.
fn say(text: impl Display) {
    let _ = write!(io::stdout().lock(), "{text}");
}

fn give_up(why: impl Display) -> ExitCode {
    eprintln!("load: {why}");
    ExitCode::from(USAGE)
}
