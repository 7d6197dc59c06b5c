//! Bytes and allocations, as the allocator sees them. See the `memory` program.

use crate::place::{Contender, Facts};
use crate::record::{Ids, RECORD_BYTES};
use crate::roster::{self, Contenders};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::scope;

/// The managers of a peak, and those that outlive it.
const PEAK: usize = 100_000;
const SURVIVORS: usize = 1_000;

/// What a counting allocator has seen.
#[derive(Debug)]
pub struct Counts {
    pub allocations: AtomicU64,
    pub taken: AtomicU64,
    pub given: AtomicU64,
}

impl Counts {
    fn live(&self) -> i64 {
        self.taken.load(Ordering::Relaxed) as i64 - self.given.load(Ordering::Relaxed) as i64
    }

    /// Allocations in `work`.
    fn during(&self, work: impl FnOnce()) -> u64 {
        let before = self.allocations.load(Ordering::Relaxed);
        work();
        self.allocations.load(Ordering::Relaxed) - before
    }
}

/// One contender's figures. Bytes are those asked for; what the allocator adds is its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Memory {
    pub name: String,
    /// For each of 10,000 live ones, beyond the manager's own.
    pub overhead: f64,
    /// For each of 1,000 that survive a peak of 100,000: right away, and when each was replaced once.
    pub after_peak: Option<f64>,
    pub turned_over: Option<f64>,
    /// For each of 1,000 where there was no peak.
    pub fresh: f64,
    /// Allocations for a life: one after the other, with 10,000 live, and across threads.
    pub life: f64,
    pub churn: f64,
    pub hand_off: f64,
}

impl Memory {
    /// How much more than a fresh one of the survivors' number.
    pub fn beyond_fresh(&self) -> Option<[f64; 2]> {
        Some([self.after_peak? / self.fresh, self.turned_over? / self.fresh])
    }
}

/// Measures one contender, in a process of its own that counts its allocations in `counts`.
pub fn measure(name: &str, counts: &Counts) -> Option<Memory> {
    let make = |capacity| contenders(capacity).into_iter().find(|contender| contender.name() == name);
    let facts = make(1)?.facts();

    let empty = counts.live();
    let contender = make(roster::LIVE)?;
    let live = held_by(&*contender, counts, empty, |crowd| crowd.grow_to(roster::LIVE))?;
    let own_bytes = if facts.has_manager { RECORD_BYTES } else { 0 };
    let overhead = live / roster::LIVE as f64 - own_bytes as f64;
    drop(contender);
    let [life, churn, hand_off] = steady(&*make(roster::CAPACITY)?, counts);

    let (fresh, after) = (fresh(&make, counts)?, after_peak(&make, facts, counts));
    let (after_peak, turned_over) = after.unzip();
    Some(Memory { name: name.to_owned(), overhead, after_peak, turned_over, fresh, life, churn, hand_off })
}

/// Bytes that a contender and what it holds have taken since `empty`, once `work` was done.
fn held_by(
    contender: &dyn Contender,
    counts: &Counts,
    empty: i64,
    work: impl FnOnce(&mut dyn crate::place::Crowd),
) -> Option<f64> {
    let mut crowd = contender.crowd()?;
    work(&mut *crowd);
    Some((counts.live() - empty) as f64 - crowd.bytes_of_the_holder() as f64)
}

type Make<'a> = dyn Fn(usize) -> Option<Box<dyn Contender>> + 'a;

fn fresh(make: &Make, counts: &Counts) -> Option<f64> {
    let empty = counts.live();
    let contender = make(SURVIVORS)?;
    Some(held_by(&*contender, counts, empty, |crowd| crowd.grow_to(SURVIVORS))? / SURVIVORS as f64)
}

fn after_peak(make: &Make, facts: Facts, counts: &Counts) -> Option<(f64, f64)> {
    if !facts.can_be_large {
        return None;
    }
    let empty = counts.live();
    let contender = make(PEAK + 1)?; // one more, as a manager is replaced before it goes
    let mut crowd = contender.crowd()?;
    let each = |crowd: &dyn crate::place::Crowd| {
        crowd.trim();
        (counts.live() - empty - crowd.bytes_of_the_holder() as i64) as f64 / SURVIVORS as f64
    };
    crowd.grow_to(PEAK);
    crowd.thin_out_to(SURVIVORS);
    let right_away = each(&*crowd);
    crowd.turn_over();
    Some((right_away, each(&*crowd)))
}

/// Allocations of one life, in the three steady states.
fn steady(contender: &dyn Contender, counts: &Counts) -> [f64; 3] {
    const LIVES: u64 = 32 * 500;
    let mut ids = Ids::new(3);
    let mut lives = |most| {
        contender.lives(&mut ids, most, &AtomicBool::new(false));
    };
    lives(LIVES);
    let life = counts.during(|| lives(LIVES)) as f64 / LIVES as f64;

    let churn = contender.churn(roster::LIVE).map_or(f64::NAN, |mut churn| {
        churn(20 * LIVES); // until the longest lists have been as long as they get
        counts.during(|| _ = churn(LIVES)) as f64 / LIVES as f64
    });

    let hand_off = contender.hand_off().map_or(f64::NAN, |sides| {
        let batches = LIVES / crate::row::BATCH;
        let barrier = std::sync::Barrier::new(3);
        let counted = scope(|threads| {
            for mut side in sides {
                let barrier = &barrier;
                threads.spawn(move || {
                    side(batches);
                    barrier.wait(); // warm
                    barrier.wait();
                    side(batches);
                    barrier.wait();
                });
            }
            barrier.wait();
            counts.during(|| {
                barrier.wait();
                barrier.wait();
            })
        });
        counted as f64 / LIVES as f64
    });
    [life, churn, hand_off]
}

fn contenders(capacity: usize) -> Contenders {
    let mut all = roster::core(capacity);
    all.extend(roster::whole(capacity));
    all
}

/// All contenders, each in a process of its own: `program` is the one that counts.
pub fn compare(program: &Path) -> Vec<Memory> {
    let names = contenders(1).into_iter().filter(|contender| contender.crowd().is_some());
    names.filter_map(|contender| ask(program, contender.name())).collect()
}

fn ask(program: &Path, name: &str) -> Option<Memory> {
    let answer = Command::new(program).arg(name).output();
    let parsed = answer.map(|answer| serde_json::from_slice(&answer.stdout));
    match parsed {
        Ok(Ok(memory)) => Some(memory),
        Ok(Err(error)) => {
            eprintln!("no figures of memory of {name}: {error}");
            None
        }
        Err(error) => {
            eprintln!("{} can't be started: {error}", program.display());
            None
        }
    }
}

pub fn table(all: &[Memory]) -> String {
    let mut text = format!(
        "{:<36} {:>10} {:>12} {:>12} {:>10} {:>8} {:>8} {:>8}\n",
        "bytes of a live manager",
        "overhead",
        "after peak",
        "turned over",
        "fresh",
        "life",
        "churn",
        "threads"
    );
    for memory in all {
        let optional = |bytes: Option<f64>| bytes.map_or("-".to_owned(), |bytes| format!("{bytes:.0}"));
        let _ = writeln!(
            text,
            "{:<36} {:>10.0} {:>12} {:>12} {:>10.0} {:>8.2} {:>8.2} {:>8.2}",
            memory.name,
            memory.overhead,
            optional(memory.after_peak),
            optional(memory.turned_over),
            memory.fresh,
            memory.life,
            memory.churn,
            memory.hand_off
        );
    }
    text
}
