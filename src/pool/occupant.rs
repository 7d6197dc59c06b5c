//! What the pool keeps in a slot: the manager, and the pool's own notes beside it.

use super::core::Core;
use super::registry::UserRef;
use super::waiting::Waiting;
use crate::clock::Timestamp;
use crate::control::Figures;
use crate::manager::{
    ByteBudget, Glance, ManagerState, Owned, PooledWebSocketManager, Session, Shared, wake,
};
use crate::reason::EndReason;
use crate::slab::{Fate, Key, Resident, Vacated, thread_number};
use crate::sync::{AtomicU64, Ordering};
use std::marker::PhantomData;
use std::sync::{OnceLock, Weak};
use std::task::Waker;

/// The slab's resident: managers with an application state `S`.
pub(super) struct Occupants<S: Session> {
    /// Bytes that all outbound queues may hold together.
    pub(super) budget: ByteBudget,
    /// Those who wait for a slot.
    pub(super) waiting: Waiting,
    /// Rung when a slot becomes free, for those who wait for one.
    bell: OnceLock<Weak<Core<S>>>,
    session: PhantomData<fn() -> S>,
}

impl<S: Session> Occupants<S> {
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self {
            budget: ByteBudget::new(budget_bytes),
            waiting: Waiting::new(),
            bell: OnceLock::new(),
            session: PhantomData,
        }
    }

    /// The core, for those who must not keep it.
    #[cfg(feature = "serve")]
    pub(super) fn core(&self) -> Option<&Weak<Core<S>>> {
        self.bell.get()
    }

    pub(super) fn connect_bell(&self, core: Weak<Core<S>>) {
        drop(self.bell.set(core));
    }
}

/// Anyone may look: the manager's atomics, and the pool's notes.
#[derive(Default)]
pub(super) struct Public {
    pub(super) manager: Glance,
    pub(super) notes: Notes,
}

impl Public {
    /// What a sweep needs to know. The words may be from different moments.
    #[inline]
    pub(super) fn figures(&self) -> Figures {
        let manager = &self.manager;
        let state = manager.state();
        Figures {
            state,
            errored_at: if state == ManagerState::Errored { manager.errored_at() } else { None },
            last_activity: manager.last_activity(),
            run_until: manager.run_until(),
        }
    }
}

/// The same of a manager that is pinned.
pub(crate) fn figures_of(manager: &PooledWebSocketManager<'_>) -> Figures {
    Figures {
        state: manager.state(),
        errored_at: manager.errored_at(),
        last_activity: manager.last_activity(),
        run_until: manager.run_until(),
    }
}

impl<S: Session> Resident for Occupants<S> {
    type Glance = Public;
    type Shared = Shared;
    type Owned = Owned<S>;
    type Residue = Residue;

    fn clean(&self, vacated: Vacated<'_, Self>) -> (Fate, Residue) {
        let Vacated { glance, shared, owned, is_winner, has_next_life } = vacated;
        let cleaned = shared.clean(&glance.manager);
        self.budget.give(thread_number(), cleaned.queued_bytes);
        // The application's reset may be slow or panic: it never runs on a thread that only happened
        // to hold the last pin.
        let is_broken = if is_winner {
            owned.reset_now().is_err()
        } else {
            owned.mark_dirty();
            false
        };
        let (fate, orphan) = if is_broken || !has_next_life {
            (Fate::Retire, glance.notes.take_claim())
        } else {
            (glance.notes.settle(), None)
        };
        (fate, Residue { waker: cleaned.waker, orphan })
    }

    fn freed(&self, residue: Residue) {
        if let Some(waker) = residue.waker {
            wake(waker);
        }
        // The core's count is a line that all threads share: touched only for somebody who waits.
        if residue.orphan.is_none() && !self.waiting.is_awaited() {
            return;
        }
        if let Some(core) = self.bell.get().and_then(Weak::upgrade) {
            if let Some(user) = residue.orphan {
                core.orphaned(user);
            }
            core.serve_waiting();
        }
    }
}

/// What is left to do once a slot is free.
pub(super) struct Residue {
    waker: Option<Waker>,
    /// Whose claim it was on a slot that was retired instead of being handed over.
    orphan: Option<UserRef>,
}

/// The pool's notes on a slot. Written in sections of the occupant's user (or by the finaliser, who
/// is alone), read by walks.
#[derive(Default)]
pub(super) struct Notes {
    user_hash: AtomicU64,
    user_serial: AtomicU64,
    isolation_hash: AtomicU64,
    /// Position in the user's member list.
    place: AtomicU64,
    /// When a reservation, or an heir's claim, is taken back; 0 while there is none.
    deadline: AtomicU64,
    /// Who inherits the slot when its occupant ends; 0 for nobody.
    heir: AtomicU64,
    /// The last heir that the slot was handed to: a claim that was withdrawn in time is not this one,
    /// and has no right to the slot's next life.
    handed_to: AtomicU64,
    last_end: AtomicU64,
}

/// A claim to inherit a slot. Never 0, never the same twice in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heir(u64);

impl Heir {
    pub(super) fn new(number: u64) -> Self {
        Self(number.max(1))
    }
}

// Relaxed throughout, unless said otherwise: a section's lock, or the slot's header, orders these.
impl Notes {
    /// The slot was claimed for a user's reservation.
    pub(super) fn reserved(&self, user: UserRef, deadline: Timestamp) {
        self.user_hash.store(user.hash, Ordering::Relaxed);
        self.user_serial.store(user.serial, Ordering::Relaxed);
        // Release: pairs with the Acquire in `is_overdue`, after which the user is read.
        self.deadline.store(deadline.as_millis(), Ordering::Release);
    }

    /// The reservation became a lease.
    pub(super) fn opened(&self, user: UserRef, isolation_hash: u64) {
        self.user_hash.store(user.hash, Ordering::Relaxed);
        self.user_serial.store(user.serial, Ordering::Relaxed);
        self.isolation_hash.store(isolation_hash, Ordering::Relaxed);
        self.deadline.store(0, Ordering::Relaxed);
    }

    pub(super) fn user(&self) -> UserRef {
        UserRef {
            hash: self.user_hash.load(Ordering::Relaxed),
            serial: self.user_serial.load(Ordering::Relaxed),
        }
    }

    pub(super) fn isolation_hash(&self) -> u64 {
        self.isolation_hash.load(Ordering::Relaxed)
    }

    pub(super) fn place(&self) -> usize {
        self.place.load(Ordering::Relaxed) as usize
    }

    pub(super) fn set_place(&self, place: usize) {
        self.place.store(place as u64, Ordering::Relaxed);
    }

    /// Whether a reservation, or an heir's claim, is past its deadline.
    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        let deadline = self.deadline.load(Ordering::Acquire);
        deadline != 0 && deadline <= now.as_millis() && !cfg!(fault = "forgotten_for_good")
    }

    pub(super) fn heir(&self) -> Option<Heir> {
        // Acquire: pairs with `settle`, so that `was_handed_to` is seen once the claim is gone.
        match self.heir.load(Ordering::Acquire) {
            0 => None,
            heir => Some(Heir(heir)),
        }
    }

    /// Takes the claim out of a slot that will not be handed over: whose it was. For the finaliser, who
    /// is alone.
    fn take_claim(&self) -> Option<UserRef> {
        // AcqRel: against `disinherit`, exactly one of the two gets the claim.
        (self.heir.swap(0, Ordering::AcqRel) != 0).then(|| self.user())
    }

    /// Names an heir. In the user's section, with the occupant live and no heir yet.
    pub(super) fn name_heir(&self, heir: Heir, deadline: Timestamp) {
        // First: whoever sees this heir sees its deadline, and not that of a claim that was withdrawn.
        self.deadline.store(deadline.as_millis(), Ordering::Release);
        // Release: pairs with the Acquire in `heir`.
        self.heir.store(heir.0, Ordering::Release);
    }

    /// Takes an heir's claim back. `false`: the slot was handed over already, or the claim is gone.
    pub(super) fn disinherit(&self, heir: Heir) -> bool {
        // The deadline stays: the slot may be another's by the next instruction. Without an heir it
        // means nothing to a live slot, and opening or vacating it clears it.
        // Acquire if it fails: as in `heir`.
        self.heir.compare_exchange(heir.0, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The finaliser's decision: to the heir, whose deadline stands, or free for anyone.
    fn settle(&self) -> Fate {
        let heir = self.heir.load(Ordering::Relaxed);
        // First, so that whoever finds the claim gone finds also where it went.
        self.handed_to.store(heir, Ordering::Relaxed);
        // AcqRel: against `disinherit`, exactly one of the two gets the claim.
        let taken = self.heir.compare_exchange(heir, 0, Ordering::AcqRel, Ordering::Relaxed);
        if heir != 0 && taken.is_ok() {
            return Fate::Heir;
        }
        self.handed_to.store(0, Ordering::Relaxed);
        self.deadline.store(0, Ordering::Relaxed);
        Fate::Free
    }

    /// Whether the slot went to this heir. To be asked after its `Reserved` header was seen, or, of a
    /// closing slot, after the claim was found gone.
    pub(super) fn was_handed_to(&self, heir: Heir) -> bool {
        self.handed_to.load(Ordering::Relaxed) == heir.0
    }

    pub(super) fn ended(&self, key: Key, reason: EndReason) {
        // Release: pairs with the Acquire in `last_end`.
        self.last_end.store(LastEnd::new(key, reason).to_bits(), Ordering::Release);
    }

    pub(super) fn last_end(&self, key: Key) -> Option<EndReason> {
        LastEnd::read(self.last_end.load(Ordering::Acquire), key)
    }
}

/// The last-end word of a slot: generation 32 · unused 24 · reason 8. It tells the owner of that
/// generation why it was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastEnd(u64);

impl LastEnd {
    fn new(key: Key, reason: EndReason) -> Self {
        Self(u64::from(key.generation()) << 32 | reason as u64)
    }

    fn to_bits(self) -> u64 {
        self.0
    }

    /// The reason, if the word speaks of this life.
    fn read(bits: u64, key: Key) -> Option<EndReason> {
        (bits >> 32 == u64::from(key.generation())).then(|| EndReason::from_number(bits as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_end_word_speaks_only_of_its_own_life() {
        let key = Key::from_bits(5 << 32 | 77);
        let word = LastEnd::new(key, EndReason::Takeover).to_bits();
        assert_eq!(LastEnd::read(word, key), Some(EndReason::Takeover));
        assert_eq!(LastEnd::read(word, Key::from_bits(5 << 32 | 78)), None);
    }
}
