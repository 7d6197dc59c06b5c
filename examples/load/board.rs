//! What all connections of a run count on.

use crate::checker::{Inbox, Outbox, Verdict};
use hdrhistogram::Histogram;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Longer times than this count as this.
const LONGEST: Duration = Duration::from_secs(3_600);

pub(crate) struct Board {
    epoch: Instant,
    figures: Mutex<Figures>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { epoch: Instant::now(), figures: Mutex::new(Figures::new()) }
    }

    /// Nanoseconds since the tool began.
    pub(crate) fn stamp(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// For a moment: every connection waits for it.
    pub(crate) fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock()
    }
}

pub(crate) struct Figures {
    /// Places that have a connection, or were refused one, at least once.
    pub(crate) settled: usize,
    /// Now.
    pub(crate) open: usize,
    /// Handshakes that succeeded.
    pub(crate) connected: u64,
    pub(crate) refused: BTreeMap<u16, u64>,
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) setup: Histogram<u64>,
    pub(crate) latency: Histogram<u64>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) wrong_user: u64,
    pub(crate) duplicates: u64,
    pub(crate) out_of_order: u64,
    /// Texts that nobody of this run wrote.
    pub(crate) strange: u64,
    /// What the server said it could not deliver, and the first such text.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// By who ended it, or how, and the code that was heard.
    pub(crate) ends: BTreeMap<(&'static str, Option<u16>), u64>,
    /// Connections that have been told of everything that was under way.
    pub(crate) quiet: usize,
    pub(crate) outboxes: Vec<Outbox>,
    pub(crate) inboxes: Vec<Inbox>,
}

impl Figures {
    fn new() -> Self {
        let times = || Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3).expect("good bounds");
        Self {
            settled: 0,
            open: 0,
            connected: 0,
            refused: BTreeMap::new(),
            failed: BTreeMap::new(),
            setup: times(),
            latency: times(),
            sent: 0,
            received: 0,
            wrong_user: 0,
            duplicates: 0,
            out_of_order: 0,
            strange: 0,
            errors: 0,
            first_error: None,
            ends: BTreeMap::new(),
            quiet: 0,
            outboxes: Vec::new(),
            inboxes: Vec::new(),
        }
    }

    pub(crate) fn heard(&mut self, verdict: Verdict, nanoseconds: u64) {
        match verdict {
            Verdict::Good => {
                self.received += 1;
                self.latency.saturating_record(nanoseconds);
            }
            Verdict::WrongUser => self.wrong_user += 1,
            Verdict::Duplicate => self.duplicates += 1,
            Verdict::OutOfOrder => self.out_of_order += 1,
        }
    }

    pub(crate) fn error(&mut self, text: &str) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| text.to_owned());
    }

    pub(crate) fn ended(&mut self, how: &'static str, code: Option<u16>) {
        *self.ends.entry((how, code)).or_default() += 1;
    }

    pub(crate) fn failed(&mut self, why: String) {
        *self.failed.entry(why).or_default() += 1;
    }

    pub(crate) fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }
}
