//! Delivery. Every send is addressed: by key, by user, by user and thread, or to all. There is no
//! "current" connection and no sending by position.

use super::Pool;
use super::core::Core;
use super::observer::Pressure;
use super::registry::Hash32;
use crate::id::{IsolationKey, UserId};
use crate::manager::{Message, Offer, OutboundLimits, PooledWebSocketManager, SendOutcome, Session, Turned};
use crate::reason::EndReason;
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
    /// So many older messages were given up for it.
    pub displaced: usize,
    /// So many connections are closing and will not read it.
    pub dropped: usize,
    /// So many queues, or the pool's byte budget, had no room for it.
    pub full: usize,
    /// So many connections were ended, as their queues were full and that is the policy.
    pub ended: usize,
    /// So many connections ended before it reached them.
    pub stale: usize,
    /// The user, or the thread, has no connection at all.
    pub is_nobody: bool,
}

impl SendReport {
    /// Connections that were addressed.
    pub fn addressed(&self) -> usize {
        self.queued + self.dropped + self.full + self.ended + self.stale
    }

    /// It reached every connection that was addressed, there was one, and nothing was given up for it.
    pub fn is_complete(&self) -> bool {
        self.queued > 0 && self.queued == self.addressed() && self.displaced == 0
    }

    pub(crate) fn count(&mut self, outcome: &SendOutcome) {
        self.is_nobody = false;
        *match outcome {
            SendOutcome::Queued => &mut self.queued,
            SendOutcome::Displaced(messages) => {
                self.displaced += messages;
                &mut self.queued
            }
            SendOutcome::Dropped => &mut self.dropped,
            SendOutcome::Full(_) => &mut self.full,
            SendOutcome::Ended(_) => &mut self.ended,
            SendOutcome::Stale | SendOutcome::NoSuchUser => &mut self.stale,
        } += 1;
    }

    /// Of nobody, so far.
    pub(crate) fn of_nobody() -> Self {
        Self { is_nobody: true, ..Self::default() }
    }
}

/// What became of a message to the connections of a list of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "stale keys want to be taken out of the list"]
#[non_exhaustive]
pub struct ManyReport {
    /// In numbers.
    pub sum: SendReport,
    /// The keys whose connections are over, in the order of the list.
    pub stale_keys: Vec<Key>,
}

/// Slots that a broadcast looks at under one epoch guard.
const BATCH: usize = 1_024;

/// Bytes that a message to many takes from the budget at a time.
const PAID_AT_ONCE: usize = 64 * 1024;

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
            core.send_each(keys, message, |_| ())
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
            core.send_each(keys, message, |_| ())
        })
    }

    /// Queues a message for the connections of these keys, such as the members of a room. The report names
    /// those that are over, and allocates only for them. Payloads are shared, not copied.
    pub fn send_many(&self, keys: &[Key], message: Message) -> ManyReport {
        let mut stale_keys = Vec::new();
        let sum = self.handle.send_each(keys, message, |key| stale_keys.push(key));
        ManyReport { sum, stale_keys }
    }

    /// Queues a message for every connection that is live throughout the call. Holds no lock over
    /// all: goes through the slots in batches.
    pub fn broadcast(&self, message: Message) -> SendReport {
        let core = &*self.handle;
        with_scratch(|keys| {
            let mut cursor = Cursor::default();
            let mut report = SendReport::of_nobody();
            loop {
                let has_more = core.slab.live_keys(&mut cursor, BATCH, keys);
                core.add_each(&mut report, keys, &message, |_| ());
                keys.clear();
                if !has_more {
                    return report;
                }
            }
        })
    }
}

impl<S: Session> Core<S> {
    pub(super) fn send(&self, key: Key, message: Message) -> SendOutcome {
        self.send_within(&self.settings.outbound(), key, message, false)
    }

    /// Stale: bytes that were paid for are the caller's to give back.
    fn send_within(&self, limits: &OutboundLimits, key: Key, message: Message, is_paid: bool) -> SendOutcome {
        let room = &self.slab.resident().room;
        // In an `Option`, so that the closure can give it away under the pin.
        let mut message = Some(message);
        let offered = self.slab.pin(key, |_, shared| {
            let message = message.take()?;
            let stripe = thread_number();
            Some(match is_paid {
                true => shared.offer_paid(message, limits, room, stripe),
                false => shared.offer(message, limits, room, stripe),
            })
        });
        match offered {
            Ok(Some(offer)) => self.settle(key, offer),
            Ok(None) | Err(Stale) => SendOutcome::Stale,
        }
    }

    /// What is left to do for an offer, without a lock or a pin: counts it, wakes, drops, tells those who
    /// observe, and ends the connection if that is the policy.
    pub(super) fn settle(&self, key: Key, offer: Offer) -> SendOutcome {
        self.slab.resident().deliveries.offered(&offer.offered);
        let turned = offer.turned;
        let outcome = offer.settle();
        if turned.is_some() {
            self.tell_turned(key);
        }
        if let SendOutcome::Ended(_) = outcome
            && !fault!("overflow_is_forgiven")
        {
            // Late: it is over anyway.
            let _ = self.evict_if(key, EndReason::SlowConsumer, |_| true);
        }
        outcome
    }

    /// Tells those who observe that a queue has become high, or low: one after the other, whichever threads it
    /// turned on. Foreign code.
    #[cold]
    pub(super) fn tell_turned(&self, key: Key) {
        if !self.attached.is_observed() {
            return;
        }
        let mut is_telling = false;
        // Ends: when the level is the one that was told last.
        loop {
            let pressure = self.slab.pin(key, |glance, shared| {
                let manager = PooledWebSocketManager::of(&glance.manager, shared)?;
                let turned = shared.outbound.untold(is_telling)?;
                Some(Pressure {
                    key,
                    to: manager.context().isolation_key(),
                    is_high: turned == Turned::High,
                    queued: manager.queued(),
                    queued_bytes: manager.queued_bytes(),
                })
            });
            let Ok(Some(pressure)) = pressure else { return };
            is_telling = true;
            self.attached.pressure(&pressure);
        }
    }

    /// The keys of a user.
    pub(super) fn copy_keys_of_user(&self, hash: Hash32, user: &UserId, keys: &mut Vec<Key>) {
        let shard = self.registry.section(hash);
        keys.extend_from_slice(shard.user(hash, user).map_or(&[], |entry| &entry.members));
    }

    /// The keys of a user's thread. None, while the user has other connections, is a mismatch: it is
    /// counted and logged.
    pub(super) fn copy_keys_of(&self, to: &IsolationKey, keys: &mut Vec<Key>) {
        let user_hash = self.registry.hash(to.user_id());
        let isolation_hash = self.isolation_hash(user_hash, to.thread_id());
        let shard = self.registry.section(user_hash);
        let is_addressed = |key: &Key| {
            self.look(*key, |manager| {
                manager.user_id() == to.user_id() && manager.thread_id() == to.thread_id()
            }) == Some(true)
        };
        keys.extend(shard.same_isolation_hash(isolation_hash).filter(is_addressed));
        if fault!("mismatch_falls_back_to_user") && keys.is_empty() {
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

    fn send_each(&self, keys: &[Key], message: Message, on_stale: impl FnMut(Key)) -> SendReport {
        let mut report = SendReport::of_nobody();
        self.add_each(&mut report, keys, &message, on_stale);
        report
    }

    fn add_each(
        &self,
        report: &mut SendReport,
        keys: &[Key],
        message: &Message,
        mut on_stale: impl FnMut(Key),
    ) {
        let limits = self.settings.outbound();
        let room = &self.slab.resident().room;
        let (size, stripe) = (message.len(), thread_number());
        // The budget is asked once for several, if it has as much; but not for all: foreign code runs in
        // between, and what is held for a stale key is missing elsewhere.
        let at_once = (PAID_AT_ONCE / size.max(1)).max(1);
        for keys in keys.chunks(at_once) {
            let is_paid = size <= limits.message_bytes()
                && keys.len() > 1
                && room.budget.try_take(stripe, keys.len() * size);
            let mut unused = 0;
            for &key in keys {
                let outcome = self.send_within(&limits, key, message.clone(), is_paid);
                report.count(&outcome);
                unused += usize::from(outcome == SendOutcome::Stale);
                if outcome == SendOutcome::Stale && !fault!("stale_key_not_named") {
                    on_stale(key);
                }
            }
            if is_paid && unused > 0 {
                room.budget.give(stripe, unused * size);
            }
        }
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
