//! How long a single acquire takes when 4 threads acquire and release all the time.
//!
//! Each figure includes the reading of a precise clock, twice in part, which the first row shows.

use super::Effort;
use crate::place::Contender;
use crate::record::Ids;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread::scope;
use std::time::Instant;

const THREADS: usize = 4;

/// Lives of a thread in one turn: some 0.2 ms.
const LIVES: u64 = 1_000;

/// In nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    pub p50: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub max: u64,
    pub acquires: u64,
}

/// The clock's own cost, and every contender that can hold more than one manager.
pub fn compare(contenders: &[Box<dyn Contender>], effort: Effort) -> (Latency, Vec<Option<Latency>>) {
    let rounds = effort.choose([2, 40, 400]);
    let barrier = Barrier::new(THREADS);
    let mut clock = histogram();
    let mut all: Vec<Option<Histogram<u64>>> = contenders.iter().map(|_| Some(histogram())).collect();
    scope(|threads| {
        let started: Vec<_> = (0..THREADS)
            .map(|number| {
                threads.spawn({
                    let barrier = &barrier;
                    move || run(contenders, number, rounds, barrier)
                })
            })
            .collect();
        for thread in started {
            let (of_clock, of_thread) = thread.join().expect("it does not panic");
            clock += of_clock;
            for (all, own) in all.iter_mut().zip(of_thread) {
                match (all.as_mut(), own) {
                    (Some(all), Some(own)) => *all += own,
                    _ => *all = None,
                }
            }
        }
    });
    (figures(&clock), all.iter().map(|histogram| histogram.as_ref().map(figures)).collect())
}

fn run(
    contenders: &[Box<dyn Contender>],
    number: usize,
    rounds: usize,
    barrier: &Barrier,
) -> (Histogram<u64>, Vec<Option<Histogram<u64>>>) {
    let mut ids = Ids::new(number);
    let mut clock = histogram();
    let mut own: Vec<_> = contenders.iter().map(|_| Some(histogram())).collect();
    for _ in 0..rounds {
        barrier.wait();
        for _ in 0..LIVES {
            let begun = Instant::now();
            clock.saturating_record(black_box(begun).elapsed().as_nanos() as u64);
        }
        for (contender, histogram) in contenders.iter().zip(&mut own) {
            barrier.wait();
            if let Some(into) = histogram {
                // Its own in the caches first, and not measured.
                let mut warm = self::histogram();
                let can = contender.latencies(&mut ids, LIVES / 10, &mut warm);
                if can.and_then(|()| contender.latencies(&mut ids, LIVES, into)).is_none() {
                    *histogram = None;
                }
            }
        }
    }
    (clock, own)
}

/// Up to 10 s, three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("a valid range")
}

fn figures(histogram: &Histogram<u64>) -> Latency {
    Latency {
        p50: histogram.value_at_quantile(0.5),
        p99: histogram.value_at_quantile(0.99),
        p99_9: histogram.value_at_quantile(0.999),
        max: histogram.max(),
        acquires: histogram.len(),
    }
}
