//! The command line.

use lexopt::prelude::*;
use std::ops::RangeInclusive;
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Simulates a day of a chat server's users in virtual time, over the real pool: they open tabs, chat, idle,
reconnect, vanish, and come all at once; and every minute the pool's account is checked.

Usage: simulate [OPTIONS]

  --hours <n>    virtual hours, from 08:00 on; minutes without failures follow [24]
  --users <n>    users [10000]
  --seed <n>     the same seed, hours and users give the same day [1]
  --leaky        clients that vanish without closing, and a server without heartbeats: the same day with
                 proactive cleaning and without, side by side
  --json         one JSON object; only what ends in _seconds differs between two runs
  --html <path>  writes a picture of the day
  --help         this text

Exit code 1, and the command that replays it: managers accumulated, a minute was unbalanced, something
active was cleaned, or a user hit the limit on a normal day. Exit code 2: an option is wrong.
";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Simulate(Options),
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) hours: u32,
    pub(crate) users: u32,
    pub(crate) seed: u64,
    pub(crate) is_leaky: bool,
    pub(crate) is_json: bool,
    pub(crate) html: Option<PathBuf>,
}

/// Reads the arguments of a process.
pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut options =
        Options { hours: 24, users: 10_000, seed: 1, is_leaky: false, is_json: false, html: None };
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("hours") => options.hours = number(&mut arguments, "--hours", 1..=10_000)? as u32,
            Long("users") => options.users = number(&mut arguments, "--users", 1..=1_000_000)? as u32,
            Long("seed") => options.seed = number(&mut arguments, "--seed", 0..=u64::MAX)?,
            Long("leaky") => options.is_leaky = true,
            Long("json") => options.is_json = true,
            Long("html") => options.html = Some(arguments.value()?.into()),
            Short('h') | Long("help") => return Ok(Command::Help),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Command::Simulate(options))
}

fn number(
    arguments: &mut lexopt::Parser,
    option: &str,
    allowed: RangeInclusive<u64>,
) -> Result<u64, lexopt::Error> {
    let text = arguments.value()?.string()?;
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    let (least, most) = allowed.into_inner();
    number.ok_or_else(|| format!("{option} {text}: a whole number from {least} to {most} is wanted").into())
}
