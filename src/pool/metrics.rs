//! How the cleaning goes, by operation.

use super::sweep::{Operation, SweepReport};
use crate::clock::Timestamp;
use crate::sync::Mutex;
use std::time::Duration;

/// Bucket `n` counts sweeps of less than 2ⁿ µs, and at least half of that; the last one all that took
/// longer.
const BUCKETS: usize = 28;

/// The books of the sweeps. Under one lock: a sweep is rare, and much longer.
#[derive(Default)]
pub(crate) struct CleanupBooks(Mutex<[Book; Operation::ALL.len()]>);

#[derive(Clone, Copy, Default)]
struct Book {
    runs: u64,
    attempts: u64,
    successes: u64,
    failures: u64,
    last_at: Option<Timestamp>,
    longest: Duration,
    buckets: [u64; BUCKETS],
}

/// How an operation's clean-ups went, since the pool was built.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CleanupMetrics {
    /// The operation.
    pub operation: Operation,
    /// Sweeps.
    pub runs: u64,
    /// Managers that it tried to clean.
    pub attempts: u64,
    /// Managers that were clean afterwards, by it or by somebody who was faster.
    pub successes: u64,
    /// Managers that it could not clean: the code of the application that it asked has panicked.
    pub failures: u64,
    /// Successes by attempts; 1 without attempts. The target is above 0.95.
    pub success_ratio: f64,
    /// When the last sweep began.
    pub last_at: Option<Timestamp>,
    /// Microseconds that the longest sweep took.
    pub longest_us: u64,
    /// How long the sweeps took.
    pub durations: Vec<DurationBucket>,
}

/// Sweeps that took less than `below_us`, and no less than half of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DurationBucket {
    /// Microseconds; a power of two.
    pub below_us: u64,
    /// Sweeps.
    pub sweeps: u64,
}

impl CleanupBooks {
    pub(crate) fn note(&self, report: &SweepReport, began: Timestamp) {
        let micros = u64::try_from(report.took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        let mut books = self.0.lock();
        let book = &mut books[report.operation as usize];
        book.runs += 1;
        book.attempts += (report.cleaned + report.late + report.failed) as u64;
        book.successes += (report.cleaned + report.late) as u64;
        book.failures += report.failed as u64;
        book.last_at = Some(began);
        book.longest = book.longest.max(report.took);
        book.buckets[bucket.min(BUCKETS - 1)] += 1;
    }

    pub(crate) fn read(&self) -> Vec<CleanupMetrics> {
        let books = *self.0.lock();
        Operation::ALL.iter().zip(books).map(|(&operation, book)| book.read(operation)).collect()
    }
}

impl Book {
    fn read(&self, operation: Operation) -> CleanupMetrics {
        let filled = self.buckets.iter().enumerate().filter(|&(_, &sweeps)| sweeps > 0);
        CleanupMetrics {
            operation,
            runs: self.runs,
            attempts: self.attempts,
            successes: self.successes,
            failures: self.failures,
            success_ratio: match self.attempts {
                0 => 1.0,
                attempts => self.successes as f64 / attempts as f64,
            },
            last_at: self.last_at,
            longest_us: u64::try_from(self.longest.as_micros()).unwrap_or(u64::MAX),
            durations: filled
                .map(|(bucket, &sweeps)| DurationBucket { below_us: 1 << bucket, sweeps })
                .collect(),
        }
    }
}
