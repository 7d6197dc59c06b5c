//! The command line.

use lexopt::prelude::*;
use ws_manager_pool::DuplicatePolicy;

pub(crate) const HELP: &str = "\
A chat server on ws-manager-pool, with a page to chat on and the pool's figures beside it.

Usage: chat_server [OPTIONS]

  --addr <host:port>      where to listen; port 0 takes a free one [127.0.0.1:8080]
  --max-per-user <n>      connections that one user may have [20]
  --capacity <n>          connections in all [100000]
  --duplicate <policy>    a second connection on one thread of one user [allow]
                            allow    both stay, as with several tabs
                            replace  the new one takes the old one's place
                            reject   the new one is refused
  --help                  this text

Ctrl-C or SIGTERM closes every connection and ends; a second one ends at once.
";

/// What the command line asks for.
pub(crate) enum Command {
    Help,
    Serve(Options),
}

pub(crate) struct Options {
    pub(crate) addr: String,
    pub(crate) max_per_user: usize,
    /// `None`: the pool's own default.
    pub(crate) capacity: Option<usize>,
    pub(crate) duplicates: DuplicatePolicy,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            addr: "127.0.0.1:8080".to_owned(),
            max_per_user: 20,
            capacity: None,
            duplicates: DuplicatePolicy::Allow,
        }
    }
}

/// Reads the process's arguments. Ranges are the pool's to check.
pub(crate) fn parse() -> Result<Command, lexopt::Error> {
    let mut options = Options::default();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("addr") => options.addr = arguments.value()?.string()?,
            Long("max-per-user") => options.max_per_user = number(&mut arguments, "--max-per-user")?,
            Long("capacity") => options.capacity = Some(number(&mut arguments, "--capacity")?),
            Long("duplicate") => options.duplicates = policy(&arguments.value()?.string()?)?,
            Short('h') | Long("help") => return Ok(Command::Help),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Command::Serve(options))
}

fn number(arguments: &mut lexopt::Parser, option: &str) -> Result<usize, lexopt::Error> {
    let text = arguments.value()?.string()?;
    text.parse().map_err(|_| format!("{option} {text}: that is no whole number").into())
}

fn policy(name: &str) -> Result<DuplicatePolicy, String> {
    match name {
        "allow" => Ok(DuplicatePolicy::Allow),
        "replace" => Ok(DuplicatePolicy::Replace),
        "reject" => Ok(DuplicatePolicy::Reject),
        _ => Err(format!("--duplicate {name}: that is none of allow, replace, reject")),
    }
}
