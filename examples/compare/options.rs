//! The command line.

use crate::server::{CONTENDERS, Contender};
use lexopt::prelude::*;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const HELP: &str = "\
Compares servers of this crate with servers as they are usually written: memory, set-up time, CPU.

Usage: compare [OPTIONS]

  --connections <n>    idle connections, at least 8 [10000]
  --repetitions <n>    how often each server is measured; they take turns [5]
  --per-user <n>       connections of each user [4]
  --server <name>      only this one and those that are named likewise
  --quick              1500 connections, and as many repetitions as half a minute holds, at most 3:
                       a first look
  --out <folder>       where compare.html and compare.json go [target/compare]
  --json               print the JSON and nothing else; files are written only with --out
  --help               this text

Exits with 0 if the best way there is takes 30 % less time to set up and 20 % less memory than the best
tuned server, 1 if not or if a server fails, 2 for bad arguments.
";

/// What a quick run may take.
const QUICK: Duration = Duration::from_secs(33);

/// Fewer are no crowd.
const FEWEST: usize = 8;

/// What the command line asks for.
pub(crate) enum Command {
    Help,
    Compare(Options),
}

pub(crate) struct Options {
    pub(crate) connections: usize,
    pub(crate) repetitions: usize,
    pub(crate) per_user: usize,
    pub(crate) contenders: Vec<&'static Contender>,
    /// Set-ups that are timed one by one, at most.
    pub(crate) setups: usize,
    /// No repetition is begun that would not be over by then.
    pub(crate) budget: Option<Duration>,
    /// `None`: no files.
    pub(crate) out: Option<PathBuf>,
    pub(crate) is_json: bool,
}

/// Reads the process's arguments.
pub(crate) fn parse() -> Result<Command, lexopt::Error> {
    let (mut connections, mut repetitions, mut per_user) = (None, None, 4);
    let (mut contenders, mut out, mut is_json, mut is_quick) = (Vec::new(), None, false, false);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("connections") => connections = Some(number(&mut arguments, "--connections", FEWEST)?),
            Long("repetitions") => repetitions = Some(number(&mut arguments, "--repetitions", 1)?),
            Long("per-user") => per_user = number(&mut arguments, "--per-user", 1)?,
            Long("server") => {
                let named = contender(&arguments.value()?.string()?)?;
                if !contenders.iter().any(|known: &&Contender| known.name == named.name) {
                    contenders.push(named);
                }
            }
            Long("quick") => is_quick = true,
            Long("out") => out = Some(PathBuf::from(arguments.value()?)),
            Long("json") => is_json = true,
            Short('h') | Long("help") => return Ok(Command::Help),
            _ => return Err(argument.unexpected()),
        }
    }
    if contenders.is_empty() {
        contenders.extend(&CONTENDERS);
    }
    Ok(Command::Compare(Options {
        connections: connections.unwrap_or(if is_quick { 1_500 } else { 10_000 }),
        repetitions: repetitions.unwrap_or(if is_quick { 3 } else { 5 }),
        setups: if is_quick { 1_000 } else { 2_000 },
        budget: is_quick.then_some(QUICK),
        per_user,
        contenders,
        out: out.or_else(|| (!is_json).then(|| PathBuf::from("target/compare"))),
        is_json,
    }))
}

fn number(arguments: &mut lexopt::Parser, name: &str, least: usize) -> Result<usize, lexopt::Error> {
    let number: usize = arguments.value()?.parse()?;
    if number < least { Err(format!("{name}: at least {least}").into()) } else { Ok(number) }
}

fn contender(name: &str) -> Result<&'static Contender, String> {
    Contender::named(name).ok_or_else(|| {
        let known: Vec<_> = CONTENDERS.iter().map(|contender| contender.name).collect();
        format!("--server {name}: that is none of {}", known.join(", "))
    })
}
