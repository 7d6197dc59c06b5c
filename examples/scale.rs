//! How the pool grows: managers in one process up to a million, and real sockets up to what the machine
//! allows.
//!
//! ```text
//! cargo run --release --example scale --features tungstenite
//! cargo run --release --example scale --features tungstenite -- --only managers --managers 10000,1000000
//! ```
//!
//! *Managers*: what each takes in memory; how long an acquire takes when so many are there, for a user whom
//! the caches know and for one whom they don't; what a look by key, a sweep, a check and a snapshot take;
//! and what is left in memory when all have gone.
//!
//! *Sockets*: a server behind `serve`, and clients in a process of their own, from several addresses. How
//! fast they connect, what each takes, how long a broadcast takes until everybody has it, what happens
//! when all lines are cut and everybody comes back at once, and a drain. Whatever goes wrong ends it: the
//! figures are of runs in which everybody heard everything and every account was balanced.
//!
//! Times are the machine's: compare them within one run. Read on in `scale/managers.rs` and
//! `scale/sockets.rs`.

#![allow(clippy::disallowed_methods)] // it reads the precise clock

#[path = "scale/client.rs"]
mod client;
#[path = "idle_memory/handshake.rs"]
mod handshake;
#[path = "idle_memory/loopback.rs"]
mod loopback;
#[path = "scale/managers.rs"]
mod managers;
#[path = "scale/memory.rs"]
mod memory;
#[path = "scale/options.rs"]
mod options;
#[path = "scale/server.rs"]
mod server;
#[path = "scale/sockets.rs"]
mod sockets;
#[path = "scale/table.rs"]
mod table;
#[path = "scale/ways.rs"]
mod ways;

use loopback::Result;
use options::{Command, Effort, Options, Way};
use std::process::ExitCode;
use table::{Figures, growing, plain};

/// Bad arguments.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match loopback::role() {
        Ok(Some(role)) => end(play(&role)),
        Ok(None) => match options::parse(lexopt::Parser::from_env()) {
            Ok(Command::Help) => {
                print!("{}", options::HELP);
                ExitCode::SUCCESS
            }
            Ok(Command::Measure(options)) => end(measure(&options)),
            Err(error) => {
                eprintln!("scale: {error}");
                ExitCode::from(USAGE)
            }
        },
        Err(error) => end(Err(error)),
    }
}

fn end(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One of the other processes.
fn play(role: &str) -> Result<()> {
    match role.split(' ').collect::<Vec<_>>()[..] {
        ["managers", count, "quick"] => managers::run(count.parse()?, Effort::Quick),
        ["managers", count, _] => managers::run(count.parse()?, Effort::Full),
        ["server", way, sockets] => {
            server::run(Way::numbered(way).ok_or("an unknown way")?, sockets.parse()?)
        }
        ["client", server] => client::run(server.parse()?),
        _ => Err(format!("{role:?} is no role").into()),
    }
}

fn measure(options: &Options) -> Result<()> {
    let of_managers = options.managers.iter().map(|&count| managers::measure(count, options.effort));
    let of_managers = of_managers.collect::<Result<Vec<_>>>()?;
    if !options.is_json {
        print_managers(&options.managers, &of_managers);
    }
    let sizes = sockets::sizes(options.sockets.as_deref())?;
    let mut by_way = Vec::new();
    for &way in options.ways.iter().filter(|_| !sizes.is_empty()) {
        let of_sockets = sizes.iter().map(|&size| sockets::measure(way, size, options.effort));
        let of_sockets = of_sockets.collect::<Result<Vec<_>>>()?;
        if !options.is_json {
            print_sockets(way, &sizes, &of_sockets);
        }
        by_way.push((way, of_sockets));
    }
    if options.is_json {
        print_json(&of_managers, &by_way);
    }
    Ok(())
}

fn print_json(managers: &[Figures], sockets: &[(Way, Vec<Figures>)]) {
    let list = |figures: &[Figures]| figures.iter().map(Figures::to_json).collect::<serde_json::Value>();
    let ways = sockets.iter().map(|(way, figures)| (way.to_string(), list(figures)));
    let ways: serde_json::Map<_, _> = ways.collect();
    println!("{}", serde_json::json!({ "managers": list(managers), "sockets_by_way": ways }));
}

fn print_managers(sizes: &[usize], figures: &[Figures]) {
    if sizes.is_empty() {
        return;
    }
    let lines = [
        growing("bytes each, of the process's memory", "bytes_each_resident"),
        growing("bytes each, as allocated", "bytes_each_allocated"),
        growing("allocations each, while they grow", "allocations_each"),
        growing("reserve → open while they grow, ns         p50", "fill_p50_ns"),
        growing("                                           p99", "fill_p99_ns"),
        growing("                                         p99.9", "fill_p999_ns"),
        plain("                                           max", "fill_max_ns"),
        growing("reserve → open, one user again and again   p50", "acquire_hot_p50_ns"),
        growing("                                           p99", "acquire_hot_p99_ns"),
        growing("                                         p99.9", "acquire_hot_p999_ns"),
        growing("reserve → open, any of them comes back     p50", "acquire_any_p50_ns"),
        growing("                                           p99", "acquire_any_p99_ns"),
        growing("                                         p99.9", "acquire_any_p999_ns"),
        growing("  the same, and nothing in the caches      p50", "acquire_flushed_p50_ns"),
        growing("                                           p99", "acquire_flushed_p99_ns"),
        growing("a read of any place in as much memory, ns", "miss_ns"),
        growing("get by key, the same, ns", "get_hot_ns"),
        growing("get by key, any, ns", "get_cold_ns"),
        plain("sweep that finds nobody, µs", "sweep_us"),
        growing("  each, ns", "sweep_ns_each"),
        plain("check(), µs", "check_us"),
        plain("ledger(), µs", "ledger_us"),
        growing("  each, ns", "ledger_ns_each"),
        plain("snapshot(), µs", "snapshot_us"),
        growing("  each, ns", "snapshot_ns_each"),
        growing("release, each, ns", "release_ns_each"),
        plain("tidying up after all have gone, ms", "tidy_ms"),
        plain("left then, KiB as allocated", "left_kib_allocated"),
        plain("  % of what all took", "left_percent_allocated"),
        plain("  % of it in the process's memory *", "left_percent_resident"),
        plain("all once more, % of the memory of the first time", "again_percent_resident"),
    ];
    table::print("managers in process", sizes, figures, &lines);
    println!("* what was freed, glibc keeps for what comes next, unless `malloc_trim` is called");
    explain(sizes, figures);
    println!();
}

/// Why an acquire takes longer in a large pool: whether by what it does, or by what the caches don't have.
fn explain(sizes: &[usize], figures: &[Figures]) {
    let base = sizes.iter().position(|&size| size >= 10_000).unwrap_or_default();
    let last = sizes.len() - 1;
    let grew = |name: &str| Some(figures[last].get(name)? / figures[base].get(name)?);
    let (Some(hot), Some(flushed), Some(any)) =
        (grew("acquire_hot_p50_ns"), grew("acquire_flushed_p50_ns"), grew("acquire_any_p50_ns"))
    else {
        return;
    };
    if base < last {
        println!(
            "\nFrom {} to {} managers an acquire takes {hot:.2} × as long with all it needs in the caches, \
             {flushed:.2} × with\nnothing of it, and {any:.2} × as it comes: the smaller pool is in the caches, \
             the larger is not.",
            sizes[base], sizes[last],
        );
    }
}

fn print_sockets(way: Way, sizes: &[usize], figures: &[Figures]) {
    let lines = [
        growing("connects a second, 100 at a time", "connects_per_second"),
        growing("  each: p50, µs", "connect_p50_us"),
        growing("  each: p99, µs", "connect_p99_us"),
        growing("  the server's CPU for each, µs", "server_cpu_us_per_connect"),
        growing("bytes each, of the server's memory", "bytes_each"),
        growing("  after broadcasts", "bytes_each_after_broadcasts"),
        growing("  after the storm *", "bytes_each_after_storm"),
        growing("bytes each, as allocated", "allocated_each"),
        growing("  after broadcasts", "allocated_each_after_broadcasts"),
        growing("  after the storm", "allocated_each_after_storm"),
        growing("allocations for each connect", "allocations_per_connect"),
        plain("broadcast to all: enqueued, µs", "broadcast_enqueue_us"),
        growing("  each, ns", "broadcast_enqueue_ns_each"),
        plain("  heard by all, ms", "broadcast_heard_ms"),
        plain("all cut, all back at once: live again, ms", "storm_ms"),
        growing("  connects a second", "storm_per_second"),
        plain("  each: p50, µs", "storm_p50_us"),
        plain("  each: p99, µs", "storm_p99_us"),
        plain("  attempts that had to be repeated", "storm_retries"),
        plain("  failures", "storm_failures"),
        plain("drain, ms", "drain_ms"),
        plain("left in memory then, KiB *", "left_kib"),
        plain("  as allocated", "left_kib_allocated"),
    ];
    table::print(&format!("sockets, way {way}"), sizes, figures, &lines);
    println!("* with what glibc keeps of the handshakes that were under way at once\n");
}
