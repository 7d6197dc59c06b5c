//! Any [`Place`] as a [`Contender`]: the loops that are timed.
//!
//! They are the same for all, and compiled for each place; what is dynamic is the call of a whole block.

use crate::place::{Contender, Crowd, Facts, HandOff, Place, Stretch, Timed};
use crate::record::Ids;
use crossbeam_queue::ArrayQueue;
use hdrhistogram::Histogram;
use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::yield_now;
use std::time::{Duration, Instant};

/// Managers that are handed over at once.
pub const BATCH: u64 = 64;

/// Any place as a contender.
pub struct Row<P>(pub Facts, pub P);

impl<P: Place> Contender for Row<P> {
    fn facts(&self) -> Facts {
        self.0
    }

    fn lives(&self, ids: &mut Ids, most: u64, over: &AtomicBool) -> Stretch {
        let place = &self.1;
        let begun = Instant::now();
        let mut operations = 0;
        // The flag's line is only read until the end, and seldom.
        while operations < most && !over.load(Ordering::Relaxed) {
            for _ in 0..32 {
                place.release(black_box(place.acquire(ids)));
            }
            operations += 32;
        }
        over.store(true, Ordering::Relaxed);
        Stretch { begun, ended: Instant::now(), operations }
    }

    fn latencies(&self, ids: &mut Ids, lives: u64, into: &mut Histogram<u64>) -> Option<()> {
        let place = &self.1;
        for _ in 0..lives {
            let begun = Instant::now();
            let held = black_box(place.acquire(ids));
            let took = begun.elapsed();
            place.release(held);
            into.saturating_record(took.as_nanos() as u64);
        }
        Some(())
    }

    fn halves(&self, ids: &mut Ids, managers: usize) -> Option<(Duration, Duration)> {
        let place = &self.1;
        let mut held = Vec::with_capacity(managers);
        let begun = Instant::now();
        held.extend((0..managers).map(|_| place.acquire(ids)));
        let acquired = begun.elapsed();
        let begun = Instant::now();
        held.into_iter().for_each(|held| place.release(held));
        Some((acquired, begun.elapsed()))
    }

    fn churn(&self, live: usize) -> Option<Timed<'_>> {
        let place = &self.1;
        let mut ids = Ids::new(0);
        let mut live = Returned { place, held: (0..live).map(|_| place.acquire(&mut ids)).collect() };
        Some(Box::new(move |replacements| {
            let held = &mut live.held;
            let begun = Instant::now();
            for _ in 0..replacements {
                place.release(held.swap_remove(ids.below(held.len())));
                held.push(place.acquire(&mut ids));
            }
            begun.elapsed()
        }))
    }

    fn gets(&self, live: usize) -> Option<Timed<'_>> {
        if !P::HAS_KEYS {
            return None;
        }
        let place = &self.1;
        let mut ids = Ids::new(0);
        let held: Vec<_> = (0..live).map(|_| place.acquire(&mut ids)).collect();
        let keys: Vec<_> = held.iter().map(|held| place.key(held)).collect();
        let held = Returned { place, held };
        Some(Box::new(move |gets| {
            let _all_stay = &held;
            let begun = Instant::now();
            let found: u64 = (0..gets).filter_map(|_| place.get(&keys[ids.below(live)])).sum();
            let took = begun.elapsed();
            assert_eq!(found, gets, "every key is live, and every counter is 1");
            took
        }))
    }

    fn walks(&self, live: usize) -> Option<Timed<'_>> {
        if !P::CAN_WALK {
            return None;
        }
        let place = &self.1;
        let mut ids = Ids::new(0);
        let held = Returned { place, held: (0..live).map(|_| place.acquire(&mut ids)).collect() };
        Some(Box::new(move |walks| {
            let live = held.held.len() as u64;
            let begun = Instant::now();
            let seen: u64 = (0..walks).map(|_| place.walk()).sum();
            let took = begun.elapsed();
            assert_eq!(seen, walks * live, "each is seen once, and every counter is 1");
            took
        }))
    }

    fn hand_off(&self) -> Option<HandOff<'_>> {
        let place = &self.1;
        // The empty batches come back, so that nothing is allocated for the way.
        let full = Arc::new(ArrayQueue::<Vec<P::Held<'_>>>::new(UNDER_WAY));
        let empty = Arc::new(ArrayQueue::new(UNDER_WAY));
        while empty.push(Vec::with_capacity(BATCH as usize)).is_ok() {}
        let (arrives, comes_back) = (full.clone(), empty.clone());
        let mut ids = Ids::new(0);
        let acquires = move |batches| {
            for _ in 0..batches {
                let mut batch = wait(|| comes_back.pop());
                batch.extend((0..BATCH).map(|_| place.acquire(&mut ids)));
                full.push(batch).ok().expect("there are no more than there is room for");
            }
        };
        let releases = move |batches| {
            for _ in 0..batches {
                let mut batch = wait(|| arrives.pop());
                batch.drain(..).for_each(|held| place.release(held));
                empty.push(batch).ok().expect("there are no more than there is room for");
            }
        };
        Some([Box::new(acquires), Box::new(releases)])
    }

    fn crowd(&self) -> Option<Box<dyn Crowd + '_>> {
        P::IS_COUNTED
            .then(|| -> Box<dyn Crowd + '_> { Box::new(Returned { place: &self.1, held: Vec::new() }) })
    }
}

/// A place of which lives are all that can be measured.
pub struct LivesOnly<P>(pub Row<P>);

impl<P: Place> Contender for LivesOnly<P> {
    fn facts(&self) -> Facts {
        self.0.facts()
    }

    fn lives(&self, ids: &mut Ids, most: u64, over: &AtomicBool) -> Stretch {
        self.0.lives(ids, most, over)
    }

    fn latencies(&self, ids: &mut Ids, lives: u64, into: &mut Histogram<u64>) -> Option<()> {
        self.0.latencies(ids, lives, into)
    }
}

/// Batches between the two sides.
const UNDER_WAY: usize = 4;

/// Waits awake: a sleep costs more than what is measured, and how much is the machine's.
fn wait<T>(mut comes: impl FnMut() -> Option<T>) -> T {
    loop {
        for _ in 0..100_000 {
            if let Some(value) = comes() {
                return value;
            }
            spin_loop();
        }
        yield_now(); // the other side may want this very core
    }
}

/// Managers that are given back at the end.
struct Returned<'a, P: Place> {
    place: &'a P,
    held: Vec<P::Held<'a>>,
}

impl<P: Place> Drop for Returned<'_, P> {
    fn drop(&mut self) {
        self.held.drain(..).for_each(|held| self.place.release(held));
    }
}

impl<P: Place> Crowd for Returned<'_, P> {
    fn grow_to(&mut self, managers: usize) {
        let mut ids = Ids::new(0);
        self.held.reserve_exact(managers - self.held.len());
        while self.held.len() < managers {
            self.held.push(self.place.acquire(&mut ids));
        }
    }

    fn thin_out_to(&mut self, managers: usize) {
        let mut ids = Ids::new(1);
        while self.held.len() > managers {
            self.place.release(self.held.swap_remove(ids.below(self.held.len())));
        }
        self.held.shrink_to_fit();
    }

    fn turn_over(&mut self) {
        let mut ids = Ids::new(2);
        for number in 0..self.held.len() {
            // Before the old one goes, as a client that comes back does.
            let new = self.place.acquire(&mut ids);
            self.place.release(std::mem::replace(&mut self.held[number], new));
        }
    }

    fn trim(&self) {
        self.place.trim();
    }

    fn bytes_of_the_holder(&self) -> usize {
        self.held.capacity() * size_of::<P::Held<'_>>()
    }
}
