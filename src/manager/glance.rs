//! What anybody may read of a slot at any time.

use super::state::StateCell;
use crate::clock::Timestamp;
use crate::sync::{AtomicU64, Ordering, fence};

/// A slot's figures: atomics only, readable at any time, also while the slot is being reset for
/// another connection.
///
/// A reader takes each word as it is (`Relaxed`: every word is its own message) and finds out from
/// the slot's header whether the words belong together: header, words, `Acquire` fence, header
/// again. [`begin`](Self::begin) and [`end`](Self::end) issue the `Release` fence that pairs with
/// it, between the header's change and the first word they write: a reader that saw a word of the new
/// occupant sees the changed header too.
///
/// Times are milliseconds; 0 stands for "none", as no event of a connection is at the clock's origin.
#[derive(Default)]
pub(crate) struct Glance {
    pub(super) state: StateCell,
    opened_at: AtomicU64,
    last_activity: AtomicU64,
    last_poll: AtomicU64,
    wake_at: AtomicU64,
    runs: Runs,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Glance {
    /// The lease is open and its owner at work.
    pub(crate) fn opened(&self, now: Timestamp) {
        store(&self.opened_at, now);
        store(&self.last_activity, now);
        store(&self.last_poll, now);
    }

    /// An application message of `bytes` bytes came in. Pings and pongs are no activity.
    pub(crate) fn received(&self, bytes: usize, now: Timestamp) {
        self.messages_in.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.active(now);
    }

    /// An application message of `bytes` bytes went out. Pings and pongs are no activity.
    pub(crate) fn sent(&self, bytes: usize, now: Timestamp) {
        self.messages_out.fetch_add(1, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.active(now);
    }

    fn active(&self, now: Timestamp) {
        if !cfg!(fault = "clean_by_age") {
            store(&self.last_activity, now);
        }
    }

    /// The owner ran.
    pub(crate) fn polled(&self, now: Timestamp) {
        store(&self.last_poll, now);
    }

    /// When the owner ran last.
    pub(crate) fn last_poll(&self) -> Option<Timestamp> {
        load(&self.last_poll)
    }

    /// The owner wants to be woken at `at`; [`Timestamp::ZERO`] takes the wish back.
    pub(crate) fn wake_wanted(&self, at: Timestamp) {
        store(&self.wake_at, at);
    }

    /// When the owner wants to be woken.
    #[cfg(any(test, feature = "serve"))]
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        load(&self.wake_at)
    }

    /// An agent's run begins: it protects the manager until `until`, or until it ends.
    pub(crate) fn run_began(&self, until: Timestamp) {
        self.runs.begin(until);
    }

    /// A run ended.
    pub(crate) fn run_ended(&self) {
        self.runs.end();
    }

    /// Until when runs protect the manager; [`Timestamp::ZERO`] if none is under way.
    pub(crate) fn run_until(&self) -> Timestamp {
        self.runs.until()
    }

    pub(crate) fn state(&self) -> super::ManagerState {
        self.state.state()
    }

    pub(crate) fn errored_at(&self) -> Option<Timestamp> {
        self.state.errored_at()
    }

    pub(crate) fn opened_at(&self) -> Timestamp {
        load(&self.opened_at).unwrap_or_default()
    }

    pub(crate) fn last_activity(&self) -> Timestamp {
        load(&self.last_activity).unwrap_or_default()
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
        self.wake_wanted(Timestamp::ZERO);
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

fn store(cell: &AtomicU64, time: Timestamp) {
    cell.store(time.as_millis(), Ordering::Relaxed);
}

fn load(cell: &AtomicU64) -> Option<Timestamp> {
    match cell.load(Ordering::Relaxed) {
        0 => None,
        millis => Some(Timestamp::from_millis(millis)),
    }
}
