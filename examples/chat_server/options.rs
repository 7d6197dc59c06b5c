//! The command line, and the pool's numbers that it asks for.

use lexopt::prelude::*;
use std::path::PathBuf;
use ws_manager_pool::{AtLimit, Config, ConfigError, DuplicatePolicy, Environment};

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
  --at-limit <policy>     a connection too many for one user [reject]
                            reject   it is refused
                            oldest   the user's oldest connection makes room
                            idlest   the one that has been idle for longest does
  --config <file>         the pool's numbers from a file of TOML, such as docs/pool.toml, and from
                          variables such as WS_POOL_SUSPECT_AGE; the options above are stronger.
                          SIGHUP reads them again. Needs the feature `config`
  --help                  this text

Ctrl-C or SIGTERM closes every connection and ends; a second one ends at once.
";

/// Events of a thread that a tab may have missed, and is handed when it comes back.
const REPLAY_EVENTS: usize = 200;

/// What the command line asks for.
pub(crate) enum Command {
    Help,
    Serve(Options),
}

pub(crate) struct Options {
    pub(crate) addr: String,
    /// `None`: the file's, here and below.
    max_per_user: Option<usize>,
    capacity: Option<usize>,
    duplicates: Option<DuplicatePolicy>,
    at_limit: Option<AtLimit>,
    /// Of the configuration. `None`: there is none to be read, nor any variable.
    pub(crate) file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            addr: "127.0.0.1:8080".to_owned(),
            max_per_user: None,
            capacity: None,
            duplicates: None,
            at_limit: None,
            file: None,
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
            Long("max-per-user") => options.max_per_user = Some(number(&mut arguments, "--max-per-user")?),
            Long("capacity") => options.capacity = Some(number(&mut arguments, "--capacity")?),
            Long("duplicate") => options.duplicates = Some(duplicates(&arguments.value()?.string()?)?),
            Long("at-limit") => options.at_limit = Some(at_limit(&arguments.value()?.string()?)?),
            Long("config") => options.file = Some(file(arguments.value()?.into())?),
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

fn duplicates(name: &str) -> Result<DuplicatePolicy, String> {
    match name {
        "allow" => Ok(DuplicatePolicy::Allow),
        "replace" => Ok(DuplicatePolicy::Replace),
        "reject" => Ok(DuplicatePolicy::Reject),
        _ => Err(format!("--duplicate {name}: that is none of allow, replace, reject")),
    }
}

fn at_limit(name: &str) -> Result<AtLimit, String> {
    match name {
        "reject" => Ok(AtLimit::Reject),
        "oldest" => Ok(AtLimit::EvictOldest),
        "idlest" => Ok(AtLimit::EvictIdlest),
        _ => Err(format!("--at-limit {name}: that is none of reject, oldest, idlest")),
    }
}

fn file(path: PathBuf) -> Result<PathBuf, String> {
    if cfg!(feature = "config") {
        return Ok(path);
    }
    Err(format!("--config {}: this program was built without the feature `config`", path.display()))
}

impl Options {
    /// The pool's numbers. Reads the file, if one was named: call it again to read it again.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or says something that is not allowed.
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        let mut config = self.layers()?;
        config.max_managers_per_user = self.max_per_user.unwrap_or(config.max_managers_per_user);
        config.capacity = self.capacity.unwrap_or(config.capacity);
        config.duplicates = self.duplicates.unwrap_or(config.duplicates);
        config.at_limit = self.at_limit.unwrap_or(config.at_limit);
        Ok(config)
    }

    /// What the options are laid over.
    fn layers(&self) -> Result<Config, ConfigError> {
        #[cfg(feature = "config")]
        if let Some(file) = &self.file {
            // The chat's own defaults come first: the file is stronger.
            let own = format!("duplicates = \"allow\"\nreplay_events = {REPLAY_EVENTS}");
            return ws_manager_pool::ConfigLayers::new().toml("chat_server", own).file(file).load();
        }
        let mut config = Config::preset(Environment::Production);
        config.duplicates = DuplicatePolicy::Allow; // several tabs on one thread
        config.replay_events = REPLAY_EVENTS;
        Ok(config)
    }
}
