//! The command line.

use crate::doors::{Adapter, Way};
use lexopt::prelude::*;

pub(crate) const HELP: &str = "\
Sends back every text and binary message, over a WebSocket library of your choice.

Usage: echo_server [OPTIONS]

  --addr <host:port>   where to listen; port 0 takes a free one [127.0.0.1:9001]
  --adapter <name>     the library behind the connections [tungstenite]
                         axum              a route of axum
                         tungstenite       tokio-tungstenite
                         tokio-websockets  tokio-websockets
                         fastwebsockets    fastwebsockets, upgraded by hyper
                         generic           tokio-tungstenite once more, as a library of which the
                                           crate knows nothing
  --way <1|2|3>        who reads and who keeps the buffers [1]
                         1  the library
                         2  the library, over buffers of the pool; with axum and tungstenite
                         3  the crate's own engine, on a socket of its own, or with --adapter axum on
                            the socket under a route of axum
  --help               this text

The address is printed when the server is ready. Ctrl-C closes every connection and ends.
";

/// What the command line asks for.
pub(crate) enum Command {
    Help,
    Serve(Options),
}

pub(crate) struct Options {
    pub(crate) addr: String,
    pub(crate) adapter: Adapter,
    pub(crate) way: Way,
}

/// Reads the process's arguments.
pub(crate) fn parse() -> Result<Command, lexopt::Error> {
    let mut options =
        Options { addr: "127.0.0.1:9001".to_owned(), adapter: Adapter::Tungstenite, way: Way::One };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("addr") => options.addr = arguments.value()?.string()?,
            Long("adapter") => options.adapter = adapter(&arguments.value()?.string()?)?,
            Long("way") => options.way = way(&arguments.value()?.string()?)?,
            Short('h') | Long("help") => return Ok(Command::Help),
            _ => return Err(argument.unexpected()),
        }
    }
    let Options { adapter, way, .. } = options;
    if way == Way::Two && !matches!(adapter, Adapter::Axum | Adapter::Tungstenite) {
        return Err("--way 2 goes with --adapter axum or tungstenite".into());
    }
    Ok(Command::Serve(options))
}

fn way(number: &str) -> Result<Way, String> {
    match number {
        "1" => Ok(Way::One),
        "2" => Ok(Way::Two),
        "3" => Ok(Way::Three),
        _ => Err(format!("--way {number}: that is none of 1, 2, 3")),
    }
}

fn adapter(name: &str) -> Result<Adapter, String> {
    match name {
        "axum" => Ok(Adapter::Axum),
        "tungstenite" => Ok(Adapter::Tungstenite),
        "tokio-websockets" => Ok(Adapter::TokioWebsockets),
        "fastwebsockets" => Ok(Adapter::Fastwebsockets),
        "generic" => Ok(Adapter::Generic),
        _ => Err(format!(
            "--adapter {name}: that is none of axum, tungstenite, tokio-websockets, fastwebsockets, generic"
        )),
    }
}
