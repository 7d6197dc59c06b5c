//! Delivery. Every send is addressed: by key, by user, by user and thread, or to all. There is no
//! "current" connection and no sending by position.

use super::Pool;
use super::core::Core;
use crate::id::{IsolationKey, UserId};
use crate::manager::{Message, SendOutcome, Session};
use crate::slab::{Cursor, Key, Stale, thread_number};
use std::cell::Cell;

/// What became of a message to several connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[must_use = "a message may not have been taken"]
#[non_exhaustive]
pub struct SendReport {
    /// It is in so many queues.
    pub queued: usize,
    /// So many connections are closing and will not read it.
    pub dropped: usize,
    /// So many queues, or the pool's byte budget, had no room for it.
    pub full: usize,
    /// So many connections ended before it reached them.
    pub stale: usize,
    /// The user, or the thread, has no connection at all.
    pub is_nobody: bool,
}

impl SendReport {
    /// Connections that were addressed.
    pub fn addressed(&self) -> usize {
        self.queued + self.dropped + self.full + self.stale
    }

    /// It reached every connection that was addressed, and there was one.
    pub fn is_complete(&self) -> bool {
        self.queued > 0 && self.queued == self.addressed()
    }

    pub(crate) fn count(&mut self, outcome: &SendOutcome) {
        *match outcome {
            SendOutcome::Queued => &mut self.queued,
            SendOutcome::Dropped => &mut self.dropped,
            SendOutcome::Full(_) => &mut self.full,
            SendOutcome::Stale | SendOutcome::NoSuchUser => &mut self.stale,
        } += 1;
    }
}

/// Slots that a broadcast looks at under one epoch guard.
const BATCH: usize = 1_024;

thread_local! {
    /// Keys on their way from a section to the sends outside it. Taken out while in use, so that a
    /// waker that sends again finds an empty one instead of this one's keys.
    static SCRATCH: Cell<Vec<Key>> = const { Cell::new(Vec::new()) };
}

/// Scratch for more keys than this is given back after use.
const KEPT_SCRATCH: usize = 4_096;

impl<S: Session> Pool<S> {
    /// Queues a message for one connection and wakes its task. Takes only that queue's lock, for a
    /// moment; otherwise lock-free.
    pub fn send(&self, key: Key, message: Message) -> SendOutcome {
        self.handle.send(key, message)
    }

    /// Queues a message for all connections of a user. Payloads are shared, not copied.
    pub fn send_to_user(&self, user: &UserId, message: Message) -> SendReport {
        let core = &*self.handle;
        with_scratch(|keys| {
            core.copy_keys_of_user(core.registry.hash(user), user, keys);
            core.send_each(keys, message)
        })
    }

    /// Queues a message for all connections of one user's thread. A thread is always addressed with
    /// its user: two users with the same thread id never meet.
    ///
    /// A user who has connections, but none of this thread, counts as an id mismatch: the ids were
    /// probably made twice.
    pub fn send_to_thread(&self, to: &IsolationKey, message: Message) -> SendReport {
        let core = &*self.handle;
        with_scratch(|keys| {
            core.copy_keys_of(to, keys);
            core.send_each(keys, message)
        })
    }

    /// Queues a message for the connections of these keys. Stale ones are counted in the report.
    pub fn send_many(&self, keys: &[Key], message: Message) -> SendReport {
        self.handle.send_each(keys, message)
    }

    /// Queues a message for every connection that is live throughout the call. Holds no lock over
    /// all: goes through the slots in batches.
    pub fn broadcast(&self, message: Message) -> SendReport {
        let core = &*self.handle;
        with_scratch(|keys| {
            let mut cursor = Cursor::default();
            let mut report = SendReport { is_nobody: true, ..SendReport::default() };
            loop {
                let has_more = core.slab.live_keys(&mut cursor, BATCH, keys);
                let batch = core.send_each(keys, message.clone());
                keys.clear();
                report.queued += batch.queued;
                report.dropped += batch.dropped;
                report.full += batch.full;
                report.stale += batch.stale;
                report.is_nobody &= batch.is_nobody;
                if !has_more {
                    return report;
                }
            }
        })
    }
}

impl<S: Session> Core<S> {
    pub(super) fn send(&self, key: Key, message: Message) -> SendOutcome {
        let config = self.settings.load();
        // In an `Option`, so that the closure can give it away under the pin.
        let mut message = Some(message);
        let sent = self.slab.pin(key, |_, shared| {
            let budget = &self.slab.resident().budget;
            message.take().map(|message| shared.offer(message, &config.outbound, budget, thread_number()))
        });
        match sent {
            Ok(Some(outcome)) => outcome,
            Ok(None) | Err(Stale) => SendOutcome::Stale,
        }
    }

    /// The keys of a user.
    pub(super) fn copy_keys_of_user(&self, hash: u64, user: &UserId, keys: &mut Vec<Key>) {
        let shard = self.registry.section(hash);
        keys.extend_from_slice(shard.user(hash, user).map_or(&[], |entry| &entry.members));
    }

    /// The keys of a user's thread. None, while the user has other connections, is a mismatch: it is
    /// counted and logged.
    pub(super) fn copy_keys_of(&self, to: &IsolationKey, keys: &mut Vec<Key>) {
        let user_hash = self.registry.hash(to.user_id());
        let isolation_hash = self.registry.hash(&(to.user_id(), to.thread_id()));
        let shard = self.registry.section(user_hash);
        let is_addressed = |key: &Key| {
            self.look(*key, |manager| {
                manager.user_id() == to.user_id() && manager.thread_id() == to.thread_id()
            }) == Some(true)
        };
        keys.extend(shard.same_isolation_hash(isolation_hash).filter(is_addressed));
        if cfg!(fault = "mismatch_falls_back_to_user") && keys.is_empty() {
            keys.extend_from_slice(shard.user(user_hash, to.user_id()).map_or(&[], |entry| &entry.members));
        }
        let other = match shard.user(user_hash, to.user_id()) {
            Some(entry) if keys.is_empty() => entry.members.first().copied(),
            _ => None,
        };
        drop(shard);
        if let Some(other) = other {
            self.books.mismatched();
            let live = self.look(other, |manager| manager.context().isolation_key());
            self.log.mismatched(to, live.as_ref());
        }
    }

    fn send_each(&self, keys: &[Key], message: Message) -> SendReport {
        let mut report = SendReport { is_nobody: keys.is_empty(), ..SendReport::default() };
        for &key in keys {
            report.count(&self.send(key, message.clone()));
        }
        report
    }
}

/// Runs with an empty list that is used again.
pub(super) fn with_scratch<T>(f: impl FnOnce(&mut Vec<Key>) -> T) -> T {
    let mut keys = SCRATCH.try_with(Cell::take).unwrap_or_default();
    let result = f(&mut keys);
    keys.clear();
    if keys.capacity() <= KEPT_SCRATCH {
        // An error: the thread is being torn down, and its scratch is gone.
        let _ = SCRATCH.try_with(|scratch| scratch.set(keys));
    }
    result
}
