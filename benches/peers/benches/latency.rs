//! How long single acquires take with 4 threads at it, as a distribution:
//! `cargo bench --manifest-path benches/peers/Cargo.toml --bench latency`, and `-- --full` for ten times as
//! many.

use ws_manager_pool_peers::machine::exit_on_panic;
use ws_manager_pool_peers::measure::Effort;
use ws_manager_pool_peers::measure::latency::{self, Latency};
use ws_manager_pool_peers::roster::{CAPACITY, Contenders, core, whole};

fn main() {
    exit_on_panic();
    let effort = Effort::of_arguments();
    compare("acquire with 4 threads at it, ns", core(CAPACITY), effort);
    compare("the whole pool, ns", whole(CAPACITY), effort);
}

fn compare(what: &str, contenders: Contenders, effort: Effort) {
    let (clock, all) = latency::compare(&contenders, effort);
    println!("{what:<36} {:>8} {:>8} {:>8} {:>12} {:>10}", "p50", "p99", "p99.9", "max", "acquires");
    let print = |name: &str, latency: Latency| {
        let Latency { p50, p99, p99_9, max, acquires } = latency;
        println!("{name:<36} {p50:>8} {p99:>8} {p99_9:>8} {max:>12} {acquires:>10}");
    };
    print("(reading the clock)", clock);
    for (contender, latency) in contenders.iter().zip(all) {
        if let Some(latency) = latency {
            print(contender.name(), latency);
        }
    }
    println!();
}
