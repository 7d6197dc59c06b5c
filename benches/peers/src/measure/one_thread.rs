//! Churn, get by key, and walk, on one thread that is pinned to a core.

use super::Effort;
use super::samples::{Samples, Summary};
use crate::machine::{cores, involuntary_switches, pin};
use crate::place::{Contender, Timed};
use crate::roster::LIVE;
use std::thread::scope;

/// Operations before the blocks of one contender: what the ones before it have left in the caches is gone.
const WARM: u64 = 2 * LIVE as u64;

/// Blocks of one contender in one round.
const BLOCKS: usize = 5;

/// Replaces random ones of [`LIVE`] managers.
pub fn churn(contenders: &[Box<dyn Contender>], effort: Effort) -> Vec<Option<Summary>> {
    in_turn(contenders, |contender| contender.churn(LIVE), [WARM, 1_000], effort)
}

/// Gets random ones of [`LIVE`] managers by key.
pub fn gets(contenders: &[Box<dyn Contender>], effort: Effort) -> Vec<Option<Summary>> {
    in_turn(contenders, |contender| contender.gets(LIVE), [WARM, 4_000], effort)
}

/// Walks over [`LIVE`] managers; the figures are for one manager.
pub fn walks(contenders: &[Box<dyn Contender>], effort: Effort) -> Vec<Option<Summary>> {
    let of_a_manager = |summary: Summary| Summary {
        min: summary.min / LIVE as f64,
        median: summary.median / LIVE as f64,
        p90: summary.p90 / LIVE as f64,
        ..summary
    };
    let walks = in_turn(contenders, |contender| contender.walks(LIVE), [2, 1], effort);
    walks.into_iter().map(|summary| summary.map(of_a_manager)).collect()
}

fn in_turn<'a>(
    contenders: &'a [Box<dyn Contender>],
    prepare: impl Fn(&'a dyn Contender) -> Option<Timed<'a>> + Sync,
    [warm, block]: [u64; 2],
    effort: Effort,
) -> Vec<Option<Summary>> {
    let rounds = effort.choose([1, 15, 100]);
    let measure = || {
        pin(cores()[0]);
        let mut timed: Vec<_> =
            contenders.iter().map(|contender| (prepare(&**contender), Samples::default())).collect();
        for _ in 0..rounds {
            for (timed, samples) in &mut timed {
                let Some(timed) = timed else { continue };
                timed(warm);
                for _ in 0..BLOCKS {
                    let before = involuntary_switches();
                    let took = timed(block);
                    samples.add_time(took, block, involuntary_switches() != before);
                }
            }
        }
        timed.iter().map(|(_, samples)| samples.summary()).collect()
    };
    // In a thread of its own, whose pin goes with it.
    scope(|threads| threads.spawn(measure).join().expect("it does not panic"))
}
