//! Acquired on one core, released on another, in batches that go through a channel and come back empty.

use super::Effort;
use super::samples::{Samples, Summary};
use crate::machine::{cores, involuntary_switches, pin};
use crate::place::Contender;
use crate::row::BATCH;
use std::sync::Barrier;
use std::thread::scope;
use std::time::Instant;

/// Batches of one block: some 0.2 ms.
const BATCHES: u64 = 16;

pub fn compare(contenders: &[Box<dyn Contender>], effort: Effort) -> Vec<Option<Summary>> {
    let turns = effort.choose([1, 3, 20]);
    let mut samples: Vec<_> = contenders.iter().map(|_| Samples::default()).collect();
    for _ in 0..turns {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            turn(&**contender, effort, samples);
        }
    }
    samples.iter().map(Samples::summary).collect()
}

fn turn(contender: &dyn Contender, effort: Effort, samples: &mut Samples) {
    let Some(sides) = contender.hand_off() else { return };
    let (cores, barrier) = (cores(), Barrier::new(2));
    let blocks = effort.choose([1, 8, 40]);
    let times: Vec<Vec<_>> = scope(|threads| {
        let started: Vec<_> = sides
            .into_iter()
            .zip(cores.iter().cycle())
            .map(|(mut side, &core)| {
                let barrier = &barrier;
                threads.spawn(move || {
                    pin(core);
                    side(BATCHES);
                    let one = |_| {
                        barrier.wait();
                        let before = involuntary_switches();
                        let begun = Instant::now();
                        side(BATCHES);
                        (begun, Instant::now(), involuntary_switches() != before)
                    };
                    (0..blocks).map(one).collect()
                })
            })
            .collect();
        started.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    for (acquired, released) in times[0].iter().zip(&times[1]) {
        let took = acquired.1.max(released.1) - acquired.0.min(released.0);
        samples.add_time(took, BATCHES * BATCH, acquired.2 || released.2);
    }
}
