//! What a server needs of the pool beside leases: what a driver asks of its lease's manager, and the
//! number of connections that are still being served.

use super::Pool;
use super::doorway::Doorway;
use super::draining::DrainReport;
use super::handle::LeaseHandle;
use super::keeper::Keepers;
use super::lease::Tie;
use super::occupant::alarm_at;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::id::UserExecutionContext;
use crate::manager::{Message, Room, SendOutcome, Session};
use crate::reason::{EndReason, Revoked};
use crate::slab::{Cells, Key, Stale, thread_number};
use crate::sync::{Mutex, Ordering};
use std::ops::Deref;
use std::sync::Arc;
use std::task::Waker;

/// The part of the core that servers use.
pub(super) struct Keeping {
    pub(super) keepers: Keepers,
    pub(super) doorway: Doorway,
    /// The drain that is under way, or the last one.
    pub(super) drain: Mutex<Option<DrainReport>>,
    serves: Cells<2>,
}

const BEGUN: usize = 0;
const ENDED: usize = 1;

impl Keeping {
    pub(super) fn new() -> Self {
        Self {
            keepers: Keepers::new(),
            doorway: Doorway::default(),
            drain: Mutex::default(),
            serves: Cells::new(),
        }
    }
}

impl<S: Session> Tie<S> {
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// The numbers in force: for a moment, not to be kept.
    pub(crate) fn config(&self) -> impl Deref<Target = Arc<Config>> {
        self.handle.settings.load()
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
            shared.outbound.register(waker);
            glance.manager.polled(now);
        });
        // Registered first, so that an end after this look finds the waker.
        if watched.is_ok() && self.is_live() { Ok(()) } else { Err(self.why()) }
    }

    /// The keeper is to wake the owner at `at`.
    pub(crate) fn wake_wanted(&self, at: Timestamp) {
        let wanted = self.handle.slab.pin(self.key, |glance, _| glance.manager.wake_wanted(at));
        // Stale: the next `watch` says so.
        if wanted.is_ok() && !fault!("wish_without_alarm") {
            self.handle.slab.arm(self.key, alarm_at(at));
        }
    }

    /// Since when a message is incomplete; [`Timestamp::ZERO`]: it is complete now.
    pub(crate) fn unfinished(&self, since: Timestamp) {
        // Stale: the next turn finds out.
        let _: Result<(), Stale> =
            self.handle.slab.pin(self.key, |glance, _| glance.manager.unfinished(since));
    }

    /// Until when runs protect the manager; [`Timestamp::ZERO`] if none is under way.
    pub(crate) fn run_until(&self) -> Timestamp {
        let until = self.handle.slab.pin(self.key, |glance, _| glance.manager.run_until());
        until.unwrap_or_default()
    }

    /// Whether the outbound queue is low, or empty.
    pub(crate) fn has_room(&self) -> Result<bool, Revoked> {
        let limits = self.handle.settings.outbound();
        let low = |of: usize| (limits.low_water() * of as f64) as usize;
        self.with(|manager| {
            manager.queued() <= low(limits.messages()) && manager.queued_bytes() <= low(limits.bytes())
        })
    }

    /// Why the lease is over, for whoever is to be told. A task that starts late may find that its slot's
    /// memory has gone with the reason; in a drain that was most likely it, and true in any case.
    pub(crate) fn why_for_the_peer(&self) -> EndReason {
        match self.why().reason() {
            EndReason::Unknown if self.handle.is_draining.load(Ordering::Acquire) => EndReason::Drain,
            reason => reason,
        }
    }

    /// A connection is being served, until [`Tie::end_serving`].
    pub(crate) fn begin_serving(&self) {
        self.handle.keeping.serves.add(BEGUN, 1);
    }

    pub(crate) fn end_serving(&self) {
        self.handle.keeping.serves.add(ENDED, 1);
    }

    /// What all connections share.
    pub(crate) fn room(&self) -> &Room {
        &self.handle.slab.resident().room
    }

    /// Takes a message out for the time after the lease. Its bytes stay in the pool's account, until
    /// `held` is dropped.
    pub(crate) fn pop_held(&self, held: &mut Held<S>) -> Option<Message> {
        let said = self.handle.next_said(self, |_| ()).ok()??;
        held.bytes += said.budgeted;
        Some(said.message)
    }

    /// Holds no bytes yet.
    pub(crate) fn hold(&self) -> Held<S> {
        Held::nothing(self.handle.clone())
    }
}

/// Bytes of the pool's outbound budget that outlive their queue.
pub(crate) struct Held<S: Session> {
    handle: LeaseHandle<S>,
    bytes: usize,
}

impl<S: Session> Held<S> {
    pub(super) fn nothing(handle: LeaseHandle<S>) -> Self {
        Self { handle, bytes: 0 }
    }

    /// The numbers in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.handle.settings.load_full()
    }

    /// What all connections share.
    pub(crate) fn room(&self) -> &Room {
        &self.handle.slab.resident().room
    }
}

impl<S: Session> Drop for Held<S> {
    fn drop(&mut self) {
        self.handle.slab.resident().room.budget.give(thread_number(), self.bytes);
    }
}

impl<S: Session> Pool<S> {
    /// What all connections share.
    #[cfg(feature = "engine")]
    pub(crate) fn room(&self) -> &Room {
        &self.handle.slab.resident().room
    }

    /// Connections that are being served, those included whose manager is free already and that are
    /// saying goodbye.
    pub(crate) fn serving(&self) -> usize {
        let serves = &self.handle.keeping.serves;
        // The ended ones first: what begins and ends in between must not count as never begun.
        let ended = serves.sum(ENDED);
        serves.sum(BEGUN).wrapping_sub(ended) as usize
    }

    /// Connections that have been served to their end since the pool was built.
    pub(crate) fn served(&self) -> usize {
        self.handle.keeping.serves.sum(ENDED) as usize
    }
}
