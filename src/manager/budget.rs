//! The pool's byte budget: one number for all queues, without a line that all threads share.
//!
//! Each stripe holds some credit, taken from and given back to by one atomic read-modify-write. A
//! stripe that runs dry draws a quantum from the reserve; one that holds more than two quanta
//! returns all but one. Credit moves between reserve and stripes under one lock only, so whoever
//! holds it and finds too little everywhere has seen all the credit that nobody was using: none is
//! stranded, and a budget smaller than a quantum is exact too.
//!
//! Credit is only ever moved, never made, so what is taken can't exceed the total.

use crate::sync::{AtomicUsize, Mutex, Ordering};
use crossbeam_utils::CachePadded;
use std::fmt;

const STRIPES: usize = if cfg!(pool_loom) { 1 } else { 16 };
const QUANTUM: usize = 64 * 1024;

/// A number of bytes that may be in use at a time.
pub(crate) struct ByteBudget {
    total: usize,
    reserve: CachePadded<Mutex<usize>>,
    stripes: Box<[CachePadded<Credit>]>,
}

impl ByteBudget {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            total,
            reserve: CachePadded::new(Mutex::new(total)),
            stripes: std::iter::repeat_with(CachePadded::default).take(STRIPES).collect(),
        }
    }

    /// Takes all of `bytes` or nothing. `stripe` is any number that differs between threads.
    ///
    /// Lock-free while the stripe has credit, else it may block briefly.
    #[must_use]
    pub(crate) fn try_take(&self, stripe: usize, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        self.stripe(stripe).take(bytes) || self.draw(stripe, bytes)
    }

    /// Gives back `bytes` that were taken, on any stripe.
    ///
    /// Lock-free, except that a stripe with more than two quanta returns credit and may block
    /// briefly.
    pub(crate) fn give(&self, stripe: usize, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let stripe = self.stripe(stripe);
        if stripe.put(bytes) > 2 * QUANTUM {
            let mut reserve = self.reserve.lock();
            *reserve += stripe.take_above(QUANTUM);
        }
    }

    /// Bytes in use; approximate while others take and give. May block briefly.
    pub(crate) fn taken(&self) -> usize {
        let reserve = self.reserve.lock();
        let free = self.stripes.iter().fold(*reserve, |sum, stripe| sum.saturating_add(stripe.amount()));
        self.total.saturating_sub(free)
    }

    fn stripe(&self, stripe: usize) -> &Credit {
        &self.stripes[stripe % STRIPES]
    }

    /// The stripe has too little: take from the reserve, then from the other stripes.
    #[cold]
    fn draw(&self, stripe: usize, bytes: usize) -> bool {
        let mut reserve = self.reserve.lock();
        let own = self.stripe(stripe);
        let mut held = own.take_up_to(bytes);
        let drawn = (*reserve).min((bytes - held).max(QUANTUM));
        *reserve -= drawn;
        held += drawn;
        if held >= bytes {
            own.put(held - bytes);
            return true;
        }
        for offset in 1..STRIPES {
            held += self.stripe(stripe.wrapping_add(offset)).take_up_to(bytes - held);
            if held == bytes {
                return true;
            }
        }
        *reserve += held;
        false
    }
}

impl fmt::Debug for ByteBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteBudget").field("total", &self.total).field("taken", &self.taken()).finish()
    }
}

/// The credit of one stripe, in bytes.
///
/// Relaxed throughout: an amount is moved by the read-modify-write itself and publishes no other
/// memory. Each loop inside `fetch_update` repeats only because another thread moved credit.
#[derive(Default)]
struct Credit(AtomicUsize);

impl Credit {
    fn amount(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// The amount afterwards.
    fn put(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |credit| credit.checked_sub(bytes)).is_ok()
    }

    fn take_up_to(&self, most: usize) -> usize {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |credit| {
                (credit > 0).then(|| credit.saturating_sub(most))
            })
            .map_or(0, |before| before.min(most))
    }

    fn take_above(&self, keep: usize) -> usize {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |credit| (credit > keep).then_some(keep))
            .map_or(0, |before| before - keep)
    }
}

#[cfg(all(test, not(pool_loom)))]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_small_budget_is_exact() {
        let budget = ByteBudget::new(1_000);
        for stripe in 0..1_000 {
            assert!(budget.try_take(stripe, 1), "byte {stripe} of 1,000");
        }
        assert_eq!(budget.taken(), 1_000);
        assert!(!budget.try_take(0, 1));
        budget.give(7, 1);
        assert!(!budget.try_take(3, 2));
        assert!(budget.try_take(3, 1));
    }

    #[test]
    fn all_or_nothing_is_taken() {
        let budget = ByteBudget::new(100);
        assert!(!budget.try_take(0, 101));
        assert!(budget.try_take(0, 0));
        assert_eq!(budget.taken(), 0);
        assert!(budget.try_take(0, 100));
        assert!(budget.try_take(0, 0));
        assert!(!ByteBudget::new(0).try_take(0, 1));
    }

    #[test]
    fn no_credit_is_stranded_on_another_stripe() {
        let total = 4 * QUANTUM;
        let budget = ByteBudget::new(total);
        for stripe in 0..4 {
            assert!(budget.try_take(stripe, 1));
        }
        assert!(budget.try_take(9, total - 4), "all credit lies on other stripes");
        assert_eq!(budget.taken(), total);
        for _ in 0..total / QUANTUM {
            budget.give(5, QUANTUM);
        }
        assert!(budget.try_take(12, total));
    }

    #[test]
    fn credit_above_two_quanta_goes_back_to_the_reserve() {
        let budget = ByteBudget::new(10 * QUANTUM);
        assert!(budget.try_take(0, 10 * QUANTUM));
        budget.give(0, 10 * QUANTUM);
        assert_eq!((budget.stripe(0).amount(), *budget.reserve.lock()), (QUANTUM, 9 * QUANTUM));
        assert_eq!(budget.taken(), 0);
    }

    /// The shadow counter is raised after each take and lowered before each give, so it is never more
    /// than what is really taken.
    fn never_exceeded(total: usize, sizes: &[usize]) {
        const THREADS: usize = 4;
        let budget = ByteBudget::new(total);
        let shadow = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (budget, shadow) = (&budget, &shadow);
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for step in 0..20_000 {
                        let size = sizes[(step + thread) % sizes.len()];
                        if budget.try_take(thread, size) {
                            let now = shadow.fetch_add(size, Ordering::SeqCst) + size;
                            assert!(now <= total, "{now} of {total} bytes are taken");
                            held.push(size);
                        }
                        if held.len() > step % 13 {
                            let size = held.swap_remove(step % held.len());
                            shadow.fetch_sub(size, Ordering::SeqCst);
                            budget.give(thread + step, size);
                        }
                    }
                    for size in held {
                        shadow.fetch_sub(size, Ordering::SeqCst);
                        budget.give(thread, size);
                    }
                });
            }
        });
        assert_eq!(budget.taken(), 0, "what was given back is free again");
        assert!(budget.try_take(0, total), "to the last byte");
    }

    #[test]
    fn the_total_is_never_exceeded_and_comes_back_whole() {
        never_exceeded(1_000, &[1, 7, 100, 400]);
        never_exceeded(3 * QUANTUM + 17, &[100, QUANTUM, 5_000, 2 * QUANTUM]);
        never_exceeded(64 * QUANTUM, &[100, 3 * QUANTUM, 5 * QUANTUM]);
    }
}
