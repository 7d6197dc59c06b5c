//! Counters that no two running threads write: each thread owns a lane, a reader adds them up.
//!
//! A lane is a cache line of its own, so an increment is a plain load and store. The first
//! [`OWNED`] threads of the process own one lane each; later ones, and threads that are being torn
//! down, share a few more and pay for a read-modify-write.

use crate::sync::{AtomicU64, Ordering};
use crossbeam_utils::CachePadded;

const OWNED: usize = if cfg!(pool_loom) { 0 } else { 64 };
const SHARED: usize = if cfg!(pool_loom) { 1 } else { 8 };

/// `N` counters, each spread over all lanes. Counters only grow.
#[derive(Debug)]
pub(crate) struct Cells<const N: usize> {
    lanes: Box<[Lane<N>]>,
}

type Lane<const N: usize> = CachePadded<[AtomicU64; N]>;

impl<const N: usize> Cells<N> {
    pub(crate) fn new() -> Self {
        let lane = || CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { lanes: std::iter::repeat_with(lane).take(OWNED + SHARED).collect() }
    }

    /// Adds to a counter. Wait-free.
    #[inline]
    pub(crate) fn add(&self, counter: usize, amount: u64) {
        let thread = thread_number();
        // Release: a reader that sees the count sees what was done before it was counted.
        if thread < OWNED {
            let cell = &self.lanes[thread][counter];
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Release);
        } else {
            self.lanes[OWNED + thread % SHARED][counter].fetch_add(amount, Ordering::Release);
        }
    }

    /// A counter's sum: at least what happened before the call, at most what happened before its
    /// return. Acquire: pairs with `add`.
    pub(crate) fn sum(&self, counter: usize) -> u64 {
        self.lanes.iter().fold(0, |sum, lane| sum.wrapping_add(lane[counter].load(Ordering::Acquire)))
    }
}

/// This thread's number: small, dense, and no other running thread's as long as it is below
/// [`OWNED`]. A number is given back when its thread ends.
#[cfg(not(pool_loom))]
#[inline]
pub(crate) fn thread_number() -> usize {
    match numbers::KNOWN.get() {
        numbers::UNKNOWN => numbers::learn(),
        known => known,
    }
}

#[cfg(pool_loom)]
pub(crate) fn thread_number() -> usize {
    0
}

#[cfg(not(pool_loom))]
mod numbers {
    use crate::sync::Mutex;
    use std::cell::Cell;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    struct Numbers {
        next: usize,
        returned: BinaryHeap<Reverse<usize>>,
    }

    static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { next: 0, returned: BinaryHeap::new() });

    pub(super) const UNKNOWN: usize = usize::MAX;

    /// A thread that is being torn down shares a lane: its number may belong to another by now.
    const NONE: usize = usize::MAX - 1;

    /// Owns the thread's number, and has a destructor for that.
    struct Number(usize);

    thread_local! {
        /// The number as it is read: without a destructor this is one load, at any time of a thread's life.
        pub(super) static KNOWN: Cell<usize> = const { Cell::new(UNKNOWN) };

        static MINE: Number = {
            let mut numbers = NUMBERS.lock();
            Number(numbers.returned.pop().map_or_else(
                || {
                    numbers.next += 1;
                    numbers.next - 1
                },
                |Reverse(number)| number,
            ))
        };
    }

    #[cold]
    pub(super) fn learn() -> usize {
        let number = MINE.try_with(|mine| mine.0).unwrap_or(NONE);
        KNOWN.set(number);
        number
    }

    impl Drop for Number {
        fn drop(&mut self) {
            KNOWN.set(NONE);
            NUMBERS.lock().returned.push(Reverse(self.0));
        }
    }
}

#[cfg(all(test, not(pool_loom)))]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier};

    #[test]
    fn more_threads_than_lanes_lose_no_count() {
        let cells = Arc::new(Cells::<2>::new());
        let all_are_there = Arc::new(Barrier::new(OWNED + 20)); // else each takes the number of the last
        let threads: Vec<_> = (0..OWNED + 20)
            .map(|_| {
                let (cells, all_are_there) = (cells.clone(), all_are_there.clone());
                std::thread::spawn(move || {
                    thread_number();
                    all_are_there.wait();
                    (0..1_000).for_each(|_| cells.add(1, 2));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((cells.sum(0), cells.sum(1)), (0, (OWNED as u64 + 20) * 2_000));
    }

    #[test]
    fn a_number_is_given_back_when_its_thread_ends() {
        let numbers: Vec<_> = (0..200).map(|_| std::thread::spawn(thread_number).join().unwrap()).collect();
        assert!(numbers.iter().max() < Some(&150), "numbers are reused: {numbers:?}");
    }
}
