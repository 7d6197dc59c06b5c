//! One thread alone against two at once, and acquired on one core to be released on another:
//! `cargo bench --manifest-path benches/peers/Cargo.toml --bench contention`, and `-- --full` for ten times
//! as many blocks.
//!
//! A block counts only if neither thread was put off its core meanwhile, and both ran all the time.

use ws_manager_pool_peers::machine::exit_on_panic;
use ws_manager_pool_peers::measure::{Effort, contention, hand_off};
use ws_manager_pool_peers::roster::{CAPACITY, Contenders, core, whole};

fn main() {
    exit_on_panic();
    let effort = Effort::of_arguments();
    compare("the pool alone", core(CAPACITY), effort);
    compare("the whole pool", whole(CAPACITY), effort);
}

fn compare(what: &str, contenders: Contenders, effort: Effort) {
    let contended = contention::compare(&contenders, effort);
    let handed_off = hand_off::compare(&contenders, effort);
    println!(
        "{:<36} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>14} {:>10}",
        what, "alone", "median", "both", "median", "ratio", "million", "blocks kept", "hand-off"
    );
    for ((contender, contended), hand_off) in contenders.iter().zip(contended).zip(handed_off) {
        let Some(contended) = contended else {
            println!("{:<36} nothing was kept", contender.name());
            continue;
        };
        print!("{:<36} {:>8.1} {:>8.1}", contender.name(), contended.alone.min, contended.alone.median);
        if let (Some(both), Some((ratio, _)), Some(million)) =
            (contended.both, contended.ratio(), contended.throughput())
        {
            let kept = format!("{} of {}", both.kept, both.kept + both.dropped);
            print!(" {:>8.1} {:>8.1} {ratio:>8.2} {million:>8.1} {kept:>14}", both.min, both.median);
        }
        println!(" {:>10}", hand_off.map_or(String::new(), |summary| format!("{:.1}", summary.median)));
    }
    println!();
}
