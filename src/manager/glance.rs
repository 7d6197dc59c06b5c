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
        store(&self.last_activity, now);
    }

    /// An application message of `bytes` bytes went out. Pings and pongs are no activity.
    pub(crate) fn sent(&self, bytes: usize, now: Timestamp) {
        self.messages_out.fetch_add(1, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        store(&self.last_activity, now);
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
        self.wake_wanted(Timestamp::ZERO);
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
