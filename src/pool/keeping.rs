//! What a server needs of the pool beside leases: somebody who keeps the time, so that a connection
//! needs no timer of its own, and the number of connections that are still being served.

use super::Pool;
use super::core::Core;
use super::handle::Handle;
use super::lease::Tie;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::id::UserExecutionContext;
use crate::manager::{Message, SendOutcome, Session, wake};
use crate::reason::{EndReason, Revoked};
use crate::slab::{Cells, Cursor, Key, Stale, State, thread_number};
use crate::sync::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

/// The part of the core that servers use.
pub(super) struct Keeping {
    /// Somebody calls [`Keeper::turn`] regularly.
    has_keeper: AtomicBool,
    serves: Cells<2>,
}

const BEGUN: usize = 0;
const ENDED: usize = 1;

/// Slots that a walk looks at under one epoch guard.
const BATCH: usize = 4_096;

impl Keeping {
    pub(super) fn new() -> Self {
        Self { has_keeper: AtomicBool::new(false), serves: Cells::new() }
    }
}

impl<S: Session> Tie<S> {
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.handle.settings.load_full()
    }

    pub(crate) fn context(&self) -> &UserExecutionContext {
        &self.context
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.handle.clock.now()
    }

    pub(crate) fn send(&self, message: Message) -> SendOutcome {
        self.handle.send(self.key, message)
    }

    /// The owner is at work. It will be woken by a message, by the end of the lease, and by the
    /// keeper.
    pub(crate) fn watch(&self, waker: &Waker, now: Timestamp) -> Result<(), Revoked> {
        let watched = self.handle.slab.pin(self.key, |glance, shared| {
            shared.waker.register(waker);
            glance.manager.polled(now);
        });
        // Registered first, so that an end after this look finds the waker.
        if watched.is_ok() && self.is_live() { Ok(()) } else { Err(self.why()) }
    }

    /// The keeper is to wake the owner at `at`.
    pub(crate) fn wake_wanted(&self, at: Timestamp) {
        // Stale: the next `watch` says so.
        let _: Result<(), Stale> = self.handle.slab.pin(self.key, |glance, _| glance.manager.wake_wanted(at));
    }

    /// Counts a connection as being served until the guard is dropped.
    pub(crate) fn begin_serving(&self) -> Serving<S> {
        self.handle.keeping.serves.add(BEGUN, 1);
        Serving { handle: self.handle.clone() }
    }

    /// Takes a message out for the time after the lease. Its bytes stay in the pool's account, until
    /// `held` is dropped.
    pub(crate) fn pop_held(&self, held: &mut Held<S>) -> Option<Message> {
        let popped = self.handle.slab.pin(self.key, |glance, shared| {
            let message = shared.outbound.pop()?;
            glance.manager.sent(message.len(), self.now());
            Some(message)
        });
        let message = popped.ok().flatten()?;
        held.bytes += message.len();
        Some(message)
    }

    /// Holds no bytes yet.
    pub(crate) fn hold(&self) -> Held<S> {
        Held { handle: self.handle.clone(), bytes: 0 }
    }

    /// Makes the caller the pool's keeper, if it has none.
    pub(crate) fn become_keeper(&self) -> Option<Keeper<S>> {
        self.handle.become_keeper()
    }
}

/// A connection that is being served.
pub(crate) struct Serving<S: Session> {
    handle: Handle<S>,
}

impl<S: Session> Drop for Serving<S> {
    fn drop(&mut self) {
        self.handle.keeping.serves.add(ENDED, 1);
    }
}

/// Bytes of the pool's outbound budget that outlive their queue.
pub(crate) struct Held<S: Session> {
    handle: Handle<S>,
    bytes: usize,
}

impl<S: Session> Drop for Held<S> {
    fn drop(&mut self) {
        self.handle.slab.resident().budget.give(thread_number(), self.bytes);
    }
}

/// The one who keeps the time for a pool. Does not keep the pool itself.
pub(crate) struct Keeper<S: Session> {
    core: Weak<Core<S>>,
    /// Scratch.
    due: Vec<Key>,
}

impl<S: Session> Keeper<S> {
    /// The pool's numbers, as long as it lives.
    pub(crate) fn config(&self) -> Option<Arc<Config>> {
        self.core.upgrade().map(|core| core.settings.load_full())
    }

    /// Wakes the owners whose time has come, and does the pool's housekeeping if asked. `false`: the
    /// pool is gone.
    pub(crate) fn turn(&mut self, is_housekeeping: bool) -> bool {
        let Some(core) = self.core.upgrade() else { return false };
        let now = core.clock.now();
        core.wake_due(now, &mut self.due);
        if is_housekeeping {
            core.maintain(now);
        }
        true
    }
}

impl<S: Session> Drop for Keeper<S> {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            core.keeping.has_keeper.store(false, Ordering::Release);
            // Whoever runs on another runtime finds the post vacant and takes it.
            core.wake_due(Timestamp::NEVER, &mut self.due);
        }
    }
}

impl<S: Session> Core<S> {
    fn become_keeper(&self) -> Option<Keeper<S>> {
        let has_keeper = &self.keeping.has_keeper;
        // Every turn of every connection asks: a load leaves the line shared. AcqRel: pairs with the
        // Release of a keeper that goes.
        if has_keeper.load(Ordering::Relaxed) || has_keeper.swap(true, Ordering::AcqRel) {
            return None;
        }
        let core = self.slab.resident().core()?.clone();
        Some(Keeper { core, due: Vec::new() })
    }

    /// Wakes every owner that wanted to be woken by now.
    fn wake_due(&self, now: Timestamp, due: &mut Vec<Key>) {
        let mut cursor = Cursor::default();
        let mut has_more = true;
        while has_more {
            let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
            has_more = self.slab.walk(
                &mut cursor,
                BATCH,
                |glance| is_due(glance.manager.wake_at()),
                |key, state, is_due| {
                    if is_due && state == State::Live {
                        due.push(key);
                    }
                },
            );
            for key in due.drain(..) {
                let waker = self.slab.pin(key, |_, shared| shared.waker.take());
                if let Ok(Some(waker)) = waker {
                    wake(waker);
                }
            }
        }
    }
}

impl<S: Session> Pool<S> {
    /// Makes the caller the pool's keeper, if it has none.
    pub(crate) fn become_keeper(&self) -> Option<Keeper<S>> {
        self.handle.become_keeper()
    }

    /// Connections that are being served, those included whose manager is free already and that are
    /// saying goodbye.
    pub(crate) fn serving(&self) -> usize {
        let serves = &self.handle.keeping.serves;
        // The ended ones first: what begins and ends in between must not count as never begun.
        let ended = serves.sum(ENDED);
        serves.sum(BEGUN).wrapping_sub(ended) as usize
    }

    /// Ends every lease that is live throughout the call. Returns how many.
    pub(crate) fn evict_all(&self, reason: EndReason) -> usize {
        let mut cursor = Cursor::default();
        let mut live = Vec::new();
        let mut evicted = 0;
        let mut has_more = true;
        while has_more {
            has_more = self.handle.slab.live_keys(&mut cursor, BATCH, &mut live);
            evicted += live.drain(..).filter(|&key| self.evict(key, reason).is_ok()).count();
        }
        evicted
    }

    /// Leases and reservations.
    pub(crate) fn occupied(&self) -> usize {
        self.handle.slab.occupied()
    }
}
