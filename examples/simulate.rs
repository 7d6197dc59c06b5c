//! A day of traffic in seconds, over the real pool:
//!
//! ```text
//! cargo run --release --example simulate
//! cargo run --release --example simulate -- --leaky --html day.html
//! ```
//!
//! `--help` has the options. Read on in `simulate/engine.rs`.

#[path = "simulate/engine.rs"]
mod engine;
#[path = "simulate/options.rs"]
mod options;
#[path = "simulate/picture.rs"]
mod picture;
#[path = "simulate/table.rs"]
mod table;

use engine::{Cleaning, Clients, Outcome, Plan, run};
use options::{Command, Options};
use serde_json::json;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use table::{Table, grouped};

/// Something that must never happen did.
const FAILED: u8 = 1;
/// Bad arguments, or a picture that can't be written.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match options::parse(lexopt::Parser::from_env()) {
        Ok(Command::Help) => {
            say(options::HELP);
            ExitCode::SUCCESS
        }
        Ok(Command::Simulate(options)) => simulate(&options),
        Err(error) => {
            eprintln!("simulate: {error}\n\n{}", options::HELP);
            ExitCode::from(USAGE)
        }
    }
}

fn simulate(options: &Options) -> ExitCode {
    let outcomes = if options.is_leaky {
        vec![
            ("with proactive cleaning", outcome(options, Clients::Leaky, Cleaning::All)),
            ("without", outcome(options, Clients::Leaky, Cleaning::BackgroundOnly)),
        ]
    } else {
        vec![("a day", outcome(options, Clients::Ordinary, Cleaning::All))]
    };
    let shown: Vec<(&str, &Outcome)> = outcomes.iter().map(|(title, outcome)| (*title, outcome)).collect();
    match *shown {
        [(_, with), (_, without)] => say_both(options, with, without),
        _ if options.is_json => say(format_args!("{}\n", shown[0].1.to_json())),
        _ => say(Table(&shown)),
    }
    if let Some(path) = &options.html
        && let Err(error) = std::fs::write(path, picture::page(&shown))
    {
        eprintln!("simulate: can't write {}: {error}", path.display());
        return ExitCode::from(USAGE);
    }
    let failures: Vec<String> = outcomes.iter().flat_map(|(_, outcome)| outcome.failures()).collect();
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    let Options { hours, users, seed, is_leaky, .. } = options;
    let leaky = if *is_leaky { " --leaky" } else { "" };
    eprintln!("simulate: seed {seed} failed: {}", failures.join("; "));
    eprintln!(
        "replay: cargo run --release --example simulate -- --hours {hours} --users {users} --seed {seed}{leaky}"
    );
    ExitCode::from(FAILED)
}

fn outcome(options: &Options, clients: Clients, cleaning: Cleaning) -> Outcome {
    let &Options { hours, users, seed, .. } = options;
    let plan = Plan { hours, users, seed, clients, cleaning };
    let is_watched = io::stderr().is_terminal();
    let outcome = run(&plan, |hour, so_far| {
        if is_watched {
            let connections = grouped(so_far.counts.connections);
            eprint!("\rhour {hour} of {hours}, {connections} connections");
        }
    });
    if is_watched {
        eprint!("\r\x1b[K");
    }
    outcome
}

/// With proactive cleaning and without, side by side.
fn say_both(options: &Options, with: &Outcome, without: &Outcome) {
    let fewer = |with: u64, without: u64| match without {
        0 => 0.0, // nothing to prevent
        _ => 1.0 - with as f64 / without as f64,
    };
    let hits = fewer(with.counts.limit_hits, without.counts.limit_hits);
    let lockouts = fewer(with.lockouts, without.lockouts);
    if options.is_json {
        let both = json!({
            "with": with.to_json(),
            "without": without.to_json(),
            "limit_hits_prevented": hits,
            "lockouts_prevented": lockouts,
        });
        return say(format_args!("{both}\n"));
    }
    say(Table(&[("with proactive cleaning", with), ("without", without)]));
    say(format_args!(
        "\nlimit hits: {} instead of {}, {:.1} % fewer; lockouts: {:.1} % fewer\n",
        grouped(with.counts.limit_hits),
        grouped(without.counts.limit_hits),
        100.0 * hits,
        100.0 * lockouts
    ));
}

/// Whoever closes our output early has read enough.
fn say(text: impl std::fmt::Display) {
    let _ = write!(io::stdout().lock(), "{text}");
}
