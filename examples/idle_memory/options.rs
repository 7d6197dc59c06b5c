//! The command line.

use lexopt::prelude::*;
use std::fmt;

pub(crate) const HELP: &str = "\
Measures what an idle WebSocket connection costs in memory, by layer.

Usage: idle_memory [OPTIONS]

  --adapter <name>     axum, tungstenite, tokio-websockets, fastwebsockets
                       [all that are compiled in]
  --way <n>            1: the library reads the socket; 2, for axum and tungstenite: from a buffer of
                       the pool, and keeps next to none [both]
  --connections <n>    how many, at least 100 [10000]
  --repeat <n>         how often each layer is measured; the median counts [3]
  --json               one line of JSON in place of the table
  --help               this text
";

/// Fewer drown in what the process needs anyway.
const FEWEST: usize = 100;

/// What the command line asks for.
pub(crate) enum Command {
    Help,
    Measure(Options),
}

pub(crate) struct Options {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) connections: usize,
    pub(crate) repetitions: usize,
    pub(crate) is_json: bool,
}

/// The library behind the connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adapter {
    Axum,
    Tungstenite,
    TokioWebsockets,
    Fastwebsockets,
}

impl Adapter {
    const ALL: [Self; 4] = [Self::Tungstenite, Self::Axum, Self::TokioWebsockets, Self::Fastwebsockets];

    /// As the crate's feature is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Axum => "axum",
            Self::Tungstenite => "tungstenite",
            Self::TokioWebsockets => "tokio-websockets",
            Self::Fastwebsockets => "fastwebsockets",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|adapter| adapter.name() == name)
    }

    fn is_compiled_in(self) -> bool {
        match self {
            Self::Axum => cfg!(feature = "axum"),
            Self::Tungstenite => cfg!(feature = "tungstenite"),
            Self::TokioWebsockets => cfg!(feature = "tokio-websockets"),
            Self::Fastwebsockets => cfg!(feature = "fastwebsockets"),
        }
    }
}

/// Who reads the socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The library, with 4 KiB where it can be told.
    Library = 1,
    /// `LeasedIo`, under a library that keeps next to nothing.
    Leased = 2,
}

impl Way {
    const ALL: [Self; 2] = [Self::Library, Self::Leased];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|&way| (way as u8).to_string() == name)
    }

    fn is_of(self, adapter: Adapter) -> bool {
        self == Self::Library || matches!(adapter, Adapter::Axum | Adapter::Tungstenite)
    }
}

/// What is measured.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) adapter: Adapter,
    pub(crate) way: Way,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.way {
            Way::Library => f.write_str(self.adapter.name()),
            Way::Leased => write!(f, "{}, way 2", self.adapter.name()),
        }
    }
}

/// An adapter that this build does not have.
#[derive(Debug)]
pub(crate) struct NotCompiledIn(pub(crate) &'static str);

impl fmt::Display for NotCompiledIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{0} is not compiled in: cargo run --release --example idle_memory --features {0} -- --adapter {0}",
            self.0
        )
    }
}

impl std::error::Error for NotCompiledIn {}

/// What a server is made of; each holds those before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    Task,
    Library,
    Manager,
    Serve,
}

impl Layer {
    pub(crate) const ALL: [Self; 4] = [Self::Task, Self::Library, Self::Manager, Self::Serve];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Task => "task_and_socket",
            Self::Library => "library",
            Self::Manager => "manager",
            Self::Serve => "serve",
        }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Task => "task and socket",
            Self::Library => "+ the library's connection",
            Self::Manager => "+ the pool's manager and lease",
            Self::Serve => "+ what serve adds",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.name() == name)
    }
}

/// Reads the process's arguments.
pub(crate) fn parse() -> Result<Command, lexopt::Error> {
    let mut options = Options { subjects: Vec::new(), connections: 10_000, repetitions: 3, is_json: false };
    let mut adapters: Vec<_> = Adapter::ALL.into_iter().filter(|adapter| adapter.is_compiled_in()).collect();
    let mut ways = Way::ALL.to_vec();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("adapter") => adapters = vec![adapter(&arguments.value()?.string()?)?],
            Long("way") => {
                let name = arguments.value()?.string()?;
                ways =
                    vec![Way::named(&name).ok_or_else(|| format!("--way {name}: that is neither 1 nor 2"))?];
            }
            Long("connections") => {
                options.connections = arguments.value()?.parse()?;
                if options.connections < FEWEST {
                    return Err(format!("--connections: at least {FEWEST}").into());
                }
            }
            Long("repeat") => {
                options.repetitions = arguments.value()?.parse()?;
                if options.repetitions == 0 {
                    return Err("--repeat: at least 1".into());
                }
            }
            Long("json") => options.is_json = true,
            Short('h') | Long("help") => return Ok(Command::Help),
            _ => return Err(argument.unexpected()),
        }
    }
    if adapters.is_empty() {
        return Err(NotCompiledIn(Adapter::Tungstenite.name()).to_string().into());
    }
    for adapter in adapters {
        let ways = ways.iter().filter(|way| way.is_of(adapter));
        options.subjects.extend(ways.map(|&way| Subject { adapter, way }));
    }
    if options.subjects.is_empty() {
        return Err("--way 2 is for axum and tungstenite".into());
    }
    Ok(Command::Measure(options))
}

fn adapter(name: &str) -> Result<Adapter, String> {
    let known = Adapter::ALL.map(Adapter::name).join(", ");
    let adapter = Adapter::named(name).ok_or_else(|| format!("--adapter {name}: that is none of {known}"))?;
    if adapter.is_compiled_in() { Ok(adapter) } else { Err(NotCompiledIn(adapter.name()).to_string()) }
}
