//! What an idle connection costs in memory, layer by layer, for each WebSocket library:
//!
//! ```text
//! cargo run --release --example idle_memory \
//!     --features axum,tungstenite,tokio-websockets,fastwebsockets
//! cargo run --release --example idle_memory --features axum -- --adapter axum --connections 1000 --json
//! ```
//!
//! A server in a process of its own is measured four times, each time with one layer more: a task that
//! waits for its socket; the same with the WebSocket library's connection; with a lease of the pool; and
//! as `serve` drives it; for axum and tungstenite also over a socket that is read into a buffer of the pool
//! (way 2). Measured is the process's memory (its proportional set size) with all
//! connections and without, after both have settled; the median of three counts. What the kernel keeps
//! for a socket is not in it.
//!
//! Read on in `server.rs` and `libraries.rs`.

#![allow(clippy::disallowed_methods)] // it waits with a deadline of its own

#[path = "idle_memory/handshake.rs"]
mod handshake;
#[cfg(any(
    feature = "axum",
    feature = "tungstenite",
    feature = "tokio-websockets",
    feature = "fastwebsockets"
))]
#[path = "idle_memory/libraries.rs"]
mod libraries;
#[path = "idle_memory/loopback.rs"]
mod loopback;
#[path = "idle_memory/measure.rs"]
mod measure;
#[path = "idle_memory/options.rs"]
mod options;
#[path = "idle_memory/server.rs"]
mod server;

use loopback::Result;
use measure::Footprint;
use options::{Command, Layer, Subject};
use std::process::ExitCode;

/// Bad arguments.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match loopback::role() {
        Ok(Some(role)) => end(server::run(&role)),
        Ok(None) => by_arguments(),
        Err(error) => end(Err(error)),
    }
}

fn by_arguments() -> ExitCode {
    match options::parse() {
        Ok(Command::Help) => {
            print!("{}", options::HELP);
            ExitCode::SUCCESS
        }
        Ok(Command::Measure(options)) => end(measure_all(&options)),
        Err(error) => {
            eprintln!("idle_memory: {error}");
            ExitCode::from(USAGE)
        }
    }
}

fn end(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idle_memory: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure_all(options: &options::Options) -> Result<()> {
    loopback::raise_file_limit(options.connections as u64 + 1_000)?;
    let footprints = measure::footprints(options)?;
    if options.is_json {
        print_json(options.connections, &footprints);
    } else {
        print_table(options.connections, &footprints);
    }
    Ok(())
}

fn print_table(connections: usize, footprints: &[(Subject, Footprint)]) {
    println!("{connections} idle connections, bytes of the process's memory for each (kernel excluded)\n");
    let line = |what: &str, figure: &dyn Fn(&Subject, &Footprint) -> String| {
        print!("{what:<32}");
        for (subject, footprint) in footprints {
            print!("{:>20}", figure(subject, footprint));
        }
        println!();
    };
    line("", &|subject, _| subject.to_string());
    for layer in Layer::ALL {
        line(layer.label(), &|_, footprint| format!("{:.0}", footprint.of(layer)));
    }
    line("whole", &|_, footprint| format!("{:.0}", footprint.whole()));
}

fn print_json(connections: usize, footprints: &[(Subject, Footprint)]) {
    let subjects: Vec<_> = footprints
        .iter()
        .map(|(Subject { adapter, way }, footprint)| {
            let whole = footprint.whole().round();
            let mut object =
                serde_json::json!({ "adapter": adapter.name(), "way": *way as u8, "whole": whole });
            for layer in Layer::ALL {
                object[layer.name()] = footprint.of(layer).round().into();
            }
            object
        })
        .collect();
    println!("{}", serde_json::json!({ "connections": connections, "bytes_each": subjects }));
}
