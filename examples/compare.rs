//! Servers of this crate against servers as they are usually written, over real loopback sockets:
//!
//! ```text
//! cargo run --release --example compare --features axum,tungstenite,fastwebsockets,engine
//! cargo run --release --example compare --features axum,tungstenite,fastwebsockets,engine -- --quick
//! ```
//!
//! Each server is this program once more, in a process and on a core of its own; the clients are on
//! another. They take turns, so that a busy machine is busy for all of them. What is done to a server is
//! in `compare/measure.rs`; the usual servers are in `compare/baselines`, the pooled ones in
//! `compare/ours.rs`.
//!
//! - *set-up*: from `accept` returned, which it does once the request is there, until what another task sends
//!   to that user is delivered: in the usual servers once their library has answered, in way 3 once the request
//!   is admitted. The median of connections that come one at a time. What the client waits is another column.
//! - *memory*: what the server's process has (its proportional set size) with N connections, less what it
//!   has with none, for each of them. What the kernel keeps for a socket is not in it.
//! - *CPU*: of the server, kernel included, while N connect, 16 at once.
//!
//! Both cores are kept awake by threads of the lowest priority: waking a core of a virtual machine takes as
//! long as a set-up, and would be in each figure alike.

#![allow(clippy::disallowed_methods)] // it measures time

#[path = "compare/allocations.rs"]
mod allocations;
#[path = "compare/baselines/mod.rs"]
mod baselines;
#[path = "compare/chart.rs"]
mod chart;
#[path = "compare/client.rs"]
mod client;
#[path = "compare/figures.rs"]
mod figures;
#[path = "compare/html.rs"]
mod html;
#[path = "compare/json.rs"]
mod json;
#[path = "compare/limits.rs"]
mod limits;
#[path = "idle_memory/loopback.rs"]
mod loopback;
#[path = "compare/machine.rs"]
mod machine;
#[path = "compare/measure.rs"]
mod measure;
#[path = "compare/options.rs"]
mod options;
#[path = "compare/ours.rs"]
mod ours;
#[path = "../benches/delivery/process.rs"]
mod process;
#[path = "compare/progress.rs"]
mod progress;
#[path = "compare/protocol.rs"]
mod protocol;
#[path = "compare/results.rs"]
mod results;
#[path = "compare/server.rs"]
mod server;
#[path = "compare/stopwatch.rs"]
mod stopwatch;
#[path = "compare/table.rs"]
mod table;
#[path = "compare/verdict.rs"]
mod verdict;

use loopback::Result;
use machine::Machine;
use measure::Plan;
use options::{Command, Options};
use process::{Awake, Cores};
use progress::Progress;
use results::{Measured, Results};
use std::process::ExitCode;
use std::time::Instant;
use verdict::Verdict;

/// Bad arguments.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let outcome = match loopback::role() {
        Ok(Some(role)) => server::run(&role).map(|()| ExitCode::SUCCESS),
        Ok(None) => match options::parse() {
            Ok(Command::Help) => {
                print!("{}", options::HELP);
                Ok(ExitCode::SUCCESS)
            }
            Ok(Command::Compare(options)) => compare(&options),
            Err(error) => {
                eprintln!("compare: {error}\n\n{}", options::HELP);
                Ok(ExitCode::from(USAGE))
            }
        },
        Err(error) => Err(error),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("compare: {error}");
        ExitCode::FAILURE
    })
}

fn compare(options: &Options) -> Result<ExitCode> {
    let begun = Instant::now();
    let machine = Machine::look();
    let cores = Cores::allowed()?;
    let (connections, mut notes) = limits::fit(options.connections)?;
    if cores.server == cores.client {
        notes.push("server and clients shared the one core there is".to_owned());
    }
    if cfg!(debug_assertions) {
        notes.push("a debug build: nothing of this counts".to_owned());
    }
    process::pin(cores.client)?;
    let plan = Plan {
        connections,
        setups: connections.min(options.setups),
        per_user: options.per_user,
        core: cores.server,
    };
    let awake = Awake::keep(cores);
    let (servers, repetitions) = take_turns(options, plan)?;
    drop(awake);
    let results = Results {
        machine,
        connections,
        setups: plan.setups,
        per_user: plan.per_user,
        repetitions,
        took: begun.elapsed(),
        notes,
        servers,
    };
    let is_met = Verdict::of(&results).is_none_or(|verdict| verdict.is_met());
    tell(options, &results)?;
    Ok(if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Each server in each repetition, and how many there were; nobody is always the first.
fn take_turns(options: &Options, plan: Plan) -> Result<(Vec<Measured>, usize)> {
    let begun = Instant::now();
    let mut servers: Vec<_> = options.contenders.iter().copied().map(Measured::new).collect();
    // The set-ups of all are one turn more.
    let mut progress = Progress::new((servers.len() + 1) * options.repetitions);
    let mut repetitions = 0;
    while repetitions < options.repetitions {
        let mut measured = Vec::with_capacity(servers.len());
        for server in &servers {
            let tell = |server: &str, does: &str| progress.tell(&format!("{server} {does}"));
            measured.push((server.contender, measure::load(server.contender, plan, &tell)?));
            progress.count(server.name());
        }
        measure::setups(&mut measured, plan, &|server, does| progress.tell(&format!("{server} {does}")))?;
        progress.count("set-ups, one by one, in turns");
        for (server, (_, figures)) in servers.iter_mut().zip(&measured) {
            server.add(figures);
        }
        servers.rotate_left(1);
        repetitions += 1;
        let with_one_more = begun.elapsed() / repetitions as u32 * (repetitions as u32 + 1);
        if options.budget.is_some_and(|budget| with_one_more > budget) {
            break;
        }
    }
    progress.clear();
    let count = servers.len();
    servers.rotate_right(repetitions % count);
    Ok((servers, repetitions))
}

fn tell(options: &Options, results: &Results) -> Result<()> {
    let report = json::report(results);
    if let Some(folder) = &options.out {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("compare.json"), format!("{report:#}\n"))?;
        std::fs::write(folder.join("compare.html"), html::page(results))?;
    }
    if options.is_json {
        println!("{report:#}");
        return Ok(());
    }
    table::print(results);
    if let Some(folder) = &options.out {
        println!("more to look at: {}", folder.join("compare.html").display());
    }
    Ok(())
}
