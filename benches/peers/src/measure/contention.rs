//! One thread alone against two at once, each on a core of its own.
//!
//! Plain "2 threads" timings hide what sharing costs: on a busy machine the two seldom run at the same
//! moment. So the blocks are short, the two begin together, the first that is done stops the other, and a
//! block counts only if neither thread was put off its core meanwhile.

use super::Effort;
use super::samples::{Samples, Summary};
use crate::machine::{cores, involuntary_switches, pin};
use crate::place::{Contender, Stretch};
use crate::record::Ids;
use serde::Serialize;
use std::array::from_fn;
use std::hint::spin_loop;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::scope;
use std::time::Duration;

/// How long a block shall be: several times shorter than a scheduler's slice.
const BLOCK: Duration = Duration::from_micros(300);

/// Lives before a block, to have one's own in the caches again.
const WARM: u64 = 64;

/// One contender's figures, in ns for one operation of one thread.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Contended {
    pub alone: Summary,
    /// `None`: there is one core only, or the two never ran at once undisturbed.
    pub both: Option<Summary>,
}

impl Contended {
    /// How much longer an operation takes when another core does the same: of medians, and of minima.
    pub fn ratio(&self) -> Option<(f64, f64)> {
        self.both.map(|both| (both.median / self.alone.median, both.min / self.alone.min))
    }

    /// Operations a second of both cores together, in millions.
    pub fn throughput(&self) -> Option<f64> {
        self.both.map(|both| 2e3 / both.median)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Alone(usize),
    Both,
}

const TURNS: [Turn; 3] = [Turn::Alone(0), Turn::Alone(1), Turn::Both];

/// A moment at which one or both run.
#[derive(Default)]
#[repr(align(128))]
struct Gate {
    arrived: AtomicUsize,
    over: AtomicBool,
}

/// What a thread did in a turn; `None`: it was not its turn.
type Done = Option<(Stretch, bool)>;

pub fn compare(contenders: &[Box<dyn Contender>], effort: Effort) -> Vec<Option<Contended>> {
    let rounds = effort.choose([2, 60, 600]);
    let cores = cores();
    let gates: Vec<Gate> = (0..rounds * contenders.len() * TURNS.len()).map(|_| Gate::default()).collect();
    let barrier = Barrier::new(2);
    let [first, second] = scope(|threads| {
        let started: [_; 2] = from_fn(|number| {
            let (gates, barrier) = (&gates, &barrier);
            let core = cores[number % cores.len()];
            threads.spawn(move || run(contenders, number, core, gates, barrier))
        });
        started.map(|thread| thread.join().expect("it does not panic"))
    });

    let mut samples: Vec<[Samples; 2]> = contenders.iter().map(|_| Default::default()).collect();
    for (number, done) in first.into_iter().zip(second).enumerate() {
        let [alone, both] = &mut samples[number / TURNS.len() % contenders.len()];
        match done {
            (Some((stretch, was_disturbed)), None) | (None, Some((stretch, was_disturbed))) => {
                alone.add_time(stretch.took(), stretch.operations, was_disturbed);
            }
            (Some((first, disturbed)), Some((second, also_disturbed))) => {
                let (took, operations) = (first.took() + second.took(), first.operations + second.operations);
                let together = overlap(&first, &second) && cores.len() > 1;
                both.add_time(took, operations, disturbed || also_disturbed || !together);
            }
            (None, None) => {}
        }
    }
    // Two that never ran at once say nothing; one that was disturbed says something.
    let at_once = |both: &Samples| both.summary().filter(|both| both.kept > 0);
    let figures =
        |[alone, both]: &[Samples; 2]| Some(Contended { alone: alone.summary()?, both: at_once(both) });
    samples.iter().map(figures).collect()
}

fn run(
    contenders: &[Box<dyn Contender>],
    number: usize,
    core: usize,
    gates: &[Gate],
    barrier: &Barrier,
) -> Vec<Done> {
    pin(core);
    let mut ids = Ids::new(number);
    // Operations of a block, by contender and by whether both run.
    let mut lengths: Vec<[u64; 2]> = contenders.iter().map(|_| [320; 2]).collect();
    let mut done = Vec::with_capacity(gates.len());
    for (turn, gate) in gates.iter().enumerate() {
        let (contender, mode) = (turn / TURNS.len() % contenders.len(), TURNS[turn % TURNS.len()]);
        let both = mode == Turn::Both;
        barrier.wait(); // asleep, so that who is alone is alone
        if !both && mode != Turn::Alone(number) {
            done.push(None);
            continue;
        }
        let length = &mut lengths[contender][usize::from(both)];
        let contender = &contenders[contender];
        contender.lives(&mut ids, WARM, &AtomicBool::new(false));
        if both {
            gate.arrived.fetch_add(1, Ordering::AcqRel);
            while gate.arrived.load(Ordering::Acquire) < 2 {
                spin_loop();
            }
        }
        let before = involuntary_switches();
        let stretch = contender.lives(&mut ids, *length, &gate.over);
        // None at all: the other was done before this one began.
        let was_disturbed = involuntary_switches() != before || stretch.operations == 0;
        // The first few find the length; one that was disturbed says nothing about it.
        if !was_disturbed {
            let each = stretch.took().as_nanos() as u64 / stretch.operations;
            *length = (BLOCK.as_nanos() as u64 / each.max(1)).clamp(64, 100_000);
        }
        done.push(Some((stretch, was_disturbed)));
    }
    done
}

/// Whether both ran for nearly all of the time.
fn overlap(first: &Stretch, second: &Stretch) -> bool {
    let together = first.ended.min(second.ended).saturating_duration_since(first.begun.max(second.begun));
    let whole = first.ended.max(second.ended) - first.begun.min(second.begun);
    together.as_secs_f64() >= 0.9 * whole.as_secs_f64()
}
