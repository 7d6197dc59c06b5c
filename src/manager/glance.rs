//! What anybody may read of a slot at any time.

use super::state::StateCell;
use crate::clock::{Offset, Timestamp};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// A slot's figures: atomics only, readable at any time, also while the slot is being reset for
/// another connection.
///
/// A reader takes each word as it is (`Relaxed`: every word is its own message) and finds out from
/// the slot's header whether the words belong together: header, words, `Acquire` fence, header
/// again. [`begin`](Self::begin) and [`end`](Self::end) issue the `Release` fence that pairs with
/// it, between the header's change and the first word they write: a reader that saw a word of the new
/// occupant sees the changed header too.
///
/// Times are counted from the opening: see [`Offset`].
#[derive(Default)]
pub(crate) struct Glance {
    pub(super) state: StateCell,
    /// In milliseconds.
    opened_at: AtomicU64,
    last_activity: AtomicU32,
    last_poll: AtomicU32,
    wake_at: AtomicU32,
    unfinished_since: AtomicU32,
    thread_runs_until: AtomicU32,
    runs: Runs,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Glance {
    /// The lease is open and its owner at work.
    pub(crate) fn opened(&self, now: Timestamp) {
        self.opened_at.store(now.as_millis(), Ordering::Relaxed);
        self.note(&self.last_activity, now);
        self.note(&self.last_poll, now);
    }

    /// An application message of `bytes` bytes came in. Pings and pongs are no activity.
    pub(crate) fn received(&self, bytes: usize, now: Timestamp) {
        self.messages_in.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.active(now);
    }

    /// The same by a driver, who is the only one to note what came in.
    #[cfg(feature = "serve")]
    pub(crate) fn received_by_driver(&self, bytes: usize, now: Timestamp) {
        add(&self.messages_in, 1);
        add(&self.bytes_in, bytes as u64);
        self.active(now);
    }

    /// Application messages went out, of `bytes` bytes in all. Pings and pongs are no activity. Only the
    /// owner takes messages, and notes it.
    pub(crate) fn sent(&self, messages: usize, bytes: usize, now: Timestamp) {
        add(&self.messages_out, messages as u64);
        add(&self.bytes_out, bytes as u64);
        self.active(now);
    }

    /// Messages that were noted as sent will be sent later.
    #[cfg(feature = "serve")]
    pub(crate) fn unsent(&self, messages: usize, bytes: usize) {
        add(&self.messages_out, (messages as u64).wrapping_neg());
        add(&self.bytes_out, (bytes as u64).wrapping_neg());
    }

    fn active(&self, now: Timestamp) {
        if !fault!("clean_by_age") {
            self.note(&self.last_activity, now);
        }
    }

    /// The owner ran.
    pub(crate) fn polled(&self, now: Timestamp) {
        self.note(&self.last_poll, now);
    }

    /// When the owner ran last.
    pub(crate) fn last_poll(&self) -> Option<Timestamp> {
        self.noted(&self.last_poll)
    }

    /// The owner wants to be woken at `at`; [`Timestamp::ZERO`] takes the wish back.
    pub(crate) fn wake_wanted(&self, at: Timestamp) {
        self.note(&self.wake_at, at);
    }

    /// When the owner wants to be woken.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.noted(&self.wake_at)
    }

    /// Since when a message is incomplete, and so has memory; [`Timestamp::ZERO`] while none is.
    pub(crate) fn unfinished(&self, since: Timestamp) {
        self.note(&self.unfinished_since, since);
    }

    #[cfg(feature = "serve")]
    pub(crate) fn unfinished_since(&self) -> Option<Timestamp> {
        self.noted(&self.unfinished_since)
    }

    /// An agent's run begins: it protects the manager until `until`, or until it ends.
    pub(crate) fn run_began(&self, until: Timestamp) {
        self.runs.begin(until);
    }

    /// A run ended.
    pub(crate) fn run_ended(&self) {
        self.runs.end();
    }

    /// Until when runs of its thread protect the manager; [`Timestamp::ZERO`] if none is in progress. In
    /// the thread's journal's section.
    pub(crate) fn thread_runs_until(&self, until: Timestamp) {
        self.note(&self.thread_runs_until, until);
    }

    /// Until when runs protect the manager; [`Timestamp::ZERO`] if none is under way.
    pub(crate) fn run_until(&self) -> Timestamp {
        self.runs.until().max(self.noted(&self.thread_runs_until).unwrap_or_default())
    }

    pub(crate) fn state(&self) -> super::ManagerState {
        self.state.state()
    }

    pub(crate) fn errored_at(&self) -> Option<Timestamp> {
        self.state.errored_at()
    }

    pub(crate) fn opened_at(&self) -> Timestamp {
        Timestamp::from_millis(self.opened_at.load(Ordering::Relaxed))
    }

    pub(crate) fn last_activity(&self) -> Timestamp {
        self.noted(&self.last_activity).unwrap_or_default()
    }

    pub(crate) fn messages_in(&self) -> u64 {
        self.messages_in.load(Ordering::Relaxed)
    }

    pub(crate) fn messages_out(&self) -> u64 {
        self.messages_out.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    /// A life begins: `Connecting`, zeroed counters, fresh times.
    pub(super) fn begin(&self, now: Timestamp) {
        fence(Ordering::Release);
        self.state.restart();
        self.runs.clear();
        self.thread_runs_until(Timestamp::ZERO);
        for counter in [&self.messages_in, &self.messages_out, &self.bytes_in, &self.bytes_out] {
            counter.store(0, Ordering::Relaxed);
        }
        self.opened(now);
    }

    /// A life ends: `Disconnected`, nobody to be woken. Times and counters stay readable until the
    /// next one begins.
    pub(super) fn end(&self) {
        fence(Ordering::Release);
        self.state.end();
        self.runs.clear();
        self.thread_runs_until(Timestamp::ZERO);
        self.wake_wanted(Timestamp::ZERO);
        self.unfinished(Timestamp::ZERO);
    }

    /// [`Timestamp::ZERO`] stands for "none".
    fn note(&self, cell: &AtomicU32, time: Timestamp) {
        let offset = if time == Timestamp::ZERO { Offset::NONE } else { Offset::new(self.opened_at(), time) };
        cell.store(offset.to_bits(), Ordering::Relaxed);
    }

    fn noted(&self, cell: &AtomicU32) -> Option<Timestamp> {
        Offset::from_bits(cell.load(Ordering::Relaxed)).moment(self.opened_at())
    }
}

/// The agent's runs of one life: until (milliseconds) 48 · runs under way 16.
///
/// Every access is `Relaxed`: the word is the whole message.
#[derive(Default)]
struct Runs(AtomicU64);

const RUN_COUNT_BITS: u32 = 16;
const MAX_RUNS: u64 = (1 << RUN_COUNT_BITS) - 1;

impl Runs {
    fn begin(&self, until: Timestamp) {
        let until = until.as_millis().min(u64::MAX >> RUN_COUNT_BITS);
        self.update(|latest, count| (latest.max(until), (count + 1).min(MAX_RUNS)));
    }

    fn end(&self) {
        self.update(|latest, count| if count > 1 { (latest, count - 1) } else { (0, 0) });
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn until(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed) >> RUN_COUNT_BITS)
    }

    /// Lock-free: a round is repeated only because another update went through.
    fn update(&self, change: impl Fn(u64, u64) -> (u64, u64)) {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let (until, count) = change(seen >> RUN_COUNT_BITS, seen & MAX_RUNS);
            let next = until << RUN_COUNT_BITS | count;
            match self.0.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => seen = newer,
            }
        }
    }
}

/// For a counter with one writer.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}
