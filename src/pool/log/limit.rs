//! How many lines of a kind a second takes, and how many it left out.

use crate::clock::Timestamp;
use crate::sync::{AtomicU64, Ordering};

/// Lines of one kind in one second. A person reads fewer, a disk takes them all (every kind at its limit
/// is some 300 KiB a second), and a cold start of 1,000 connections in ten seconds is told in full.
pub(super) const LINES_PER_SECOND: u32 = 100;

/// The lines of one kind in the present second, told or not.
#[derive(Default)]
pub(super) struct Limit(AtomicU64);

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct Verdict {
    pub(super) is_told: bool,
    /// Lines that an earlier second left out, to be told by whoever learns of them: nobody else does.
    pub(super) left_out: u32,
}

/// The word: second 32 · lines 32. Seconds count from the clock's origin and stop at the end of 136
/// years.
#[derive(Clone, Copy)]
struct Second {
    number: u32,
    lines: u32,
}

impl Limit {
    /// Counts a line. Lock-free.
    pub(super) fn admit(&self, now: Timestamp) -> Verdict {
        let number = Second::number_of(now);
        // Relaxed, here and below: the word is all there is, nothing else is published with it.
        let mut bits = self.0.load(Ordering::Relaxed);
        // Ends: an exchange fails only when another line was counted.
        loop {
            let last = Second::from_bits(bits);
            // A thread that has read the clock a moment ago counts in the second that others began.
            let is_new = number > last.number;
            let lines = if is_new { 1 } else { last.lines.saturating_add(1) };
            let next = Second { number: number.max(last.number), lines };
            let set =
                self.0.compare_exchange_weak(bits, next.to_bits(), Ordering::Relaxed, Ordering::Relaxed);
            match set {
                Ok(_) => {
                    let left_out = if is_new { last.left_out() } else { 0 };
                    return Verdict { is_told: lines <= LINES_PER_SECOND, left_out };
                }
                Err(current) => bits = current,
            }
        }
    }

    /// How many lines the last second left out, if it is over and nobody has told: for kinds that have
    /// fallen silent. Wait-free.
    pub(super) fn settle(&self, now: Timestamp) -> u32 {
        let number = Second::number_of(now);
        let bits = self.0.load(Ordering::Relaxed);
        let last = Second::from_bits(bits);
        if number <= last.number || last.left_out() == 0 {
            return 0;
        }
        let silent = Second { number, lines: 0 };
        // Refused: a line has come, and with it somebody who tells.
        match self.0.compare_exchange(bits, silent.to_bits(), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => last.left_out(),
            Err(_) => 0,
        }
    }
}

impl Second {
    fn number_of(now: Timestamp) -> u32 {
        u32::try_from(now.as_millis() / 1_000).unwrap_or(u32::MAX)
    }

    fn from_bits(bits: u64) -> Self {
        Self { number: (bits >> 32) as u32, lines: bits as u32 }
    }

    fn to_bits(self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.lines)
    }

    fn left_out(self) -> u32 {
        self.lines.saturating_sub(LINES_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_second_tells_its_share_and_the_next_one_how_many_are_missing() {
        let limit = Limit::default();
        let told = (0..250).filter(|_| limit.admit(at(1)).is_told).count();
        assert_eq!(told, LINES_PER_SECOND as usize);
        assert_eq!(limit.settle(at(999)), 0, "the second is not over");
        assert_eq!(limit.admit(at(1_000)), Verdict { is_told: true, left_out: 150 });
        assert_eq!(limit.admit(at(2_000)), Verdict { is_told: true, left_out: 0 });
    }

    #[test]
    fn what_was_left_out_is_told_once_though_no_line_comes() {
        let limit = Limit::default();
        for _ in 0..101 {
            let _ = limit.admit(at(1));
        }
        assert_eq!(limit.settle(at(5_000)), 1);
        assert_eq!(limit.settle(at(6_000)), 0);
        assert_eq!(limit.admit(at(7_000)), Verdict { is_told: true, left_out: 0 });
    }

    #[test]
    fn a_thread_with_an_old_time_counts_in_the_second_that_others_began() {
        let limit = Limit::default();
        let _ = limit.admit(at(2_000));
        let told = (0..100).filter(|_| limit.admit(at(1_999)).is_told).count();
        assert_eq!(told, 99);
    }

    #[test]
    fn no_line_of_many_threads_is_lost_to_the_count() {
        let limit = Limit::default();
        let count = |_| {
            let each = (0..4_000).map(|turn| limit.admit(at(turn)));
            let sum = |(told, left_out), verdict: Verdict| {
                (told + u32::from(verdict.is_told), left_out + verdict.left_out)
            };
            each.fold((0, 0), sum)
        };
        let (told, left_out) = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || count(number))).collect();
            let counts = threads.into_iter().map(|thread| thread.join().expect("no panic"));
            counts.fold((0, 0), |(told, left_out), more| (told + more.0, left_out + more.1))
        });
        assert_eq!(told + left_out + limit.settle(Timestamp::NEVER), 4 * 4_000);
    }
}
