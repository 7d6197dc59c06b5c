//! What the pool keeps in a slot: the manager, and the pool's own notes beside it.

use super::core::Core;
use super::deliveries::Deliveries;
use super::registry::{Hash32, UserRef};
use super::waiting::Waiting;
use crate::clock::Timestamp;
use crate::control::Figures;
use crate::manager::{Glance, ManagerState, Owned, PooledWebSocketManager, Room, Session, Shared, wake};
use crate::reason::EndReason;
use crate::slab::{Alarm, Fate, Key, Resident, State, Vacated, thread_number};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::marker::PhantomData;
use std::sync::{OnceLock, Weak};
use std::task::Waker;

/// The slab's resident: managers with an application state `S`.
pub(super) struct Occupants<S: Session> {
    /// The memory that all connections share.
    pub(super) room: Room,
    pub(super) deliveries: Deliveries,
    /// Those who wait for a slot.
    pub(super) waiting: Waiting,
    /// Rung when a slot becomes free, for those who wait for one.
    bell: OnceLock<Weak<Core<S>>>,
    session: PhantomData<fn() -> S>,
}

impl<S: Session> Occupants<S> {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            deliveries: Deliveries::new(),
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

    /// When somebody has to look after the slot, which is in this state: at the deadline of a reservation or
    /// of a claim, or when the owner wants to be woken.
    pub(super) fn alarm(&self, state: State) -> Alarm {
        // The heir before its deadline: see `name_heir`.
        let has_claim = !matches!(state, State::Live | State::Closing) || self.notes.heir().is_some();
        let claim = if has_claim { self.notes.deadline() } else { None };
        let wish = if state == State::Live { self.manager.wake_at() } else { None };
        let alarm = |moment: Option<Timestamp>| moment.map_or(Alarm::NONE, alarm_at);
        alarm(claim).or(alarm(wish))
    }
}

/// Milliseconds of a unit of an alarm: as coarse as lets them last for 8 years. After that all have come, and
/// every scan looks at every slot that has one.
const ALARM_UNIT: u64 = 64;

/// The unit in which a moment lies, so the alarm comes at that moment at the latest.
pub(super) fn alarm_unit(moment: Timestamp) -> u32 {
    u32::try_from(moment.as_millis() / ALARM_UNIT).unwrap_or(u32::MAX)
}

pub(super) fn alarm_at(moment: Timestamp) -> Alarm {
    Alarm::at(alarm_unit(moment))
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
        let cleaned = shared.clean(&glance.manager, &self.room);
        self.room.budget.give(thread_number(), cleaned.queued_bytes);
        self.deliveries.unsent(cleaned.unsent);
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
    /// When a reservation, or an heir's claim, is taken back; 0 while there is none.
    deadline: AtomicU64,
    user_hash: AtomicU32,
    user_serial: AtomicU32,
    /// Position in the user's member list, if that is long.
    place: AtomicU32,
    /// Who inherits the slot when its occupant ends; 0 for nobody.
    heir: AtomicU32,
    /// The last heir that the slot was handed to: a claim that was withdrawn in time is not this one,
    /// and has no right to the slot's next life.
    handed_to: AtomicU32,
    last_end: AtomicU32,
}

/// A claim to inherit a slot. Never 0; and the same number again only when four billion claims of the pool
/// lie between, of which one lasts no longer than a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heir(u32);

impl Heir {
    pub(super) fn new(number: u32) -> Self {
        Self(number.max(1))
    }
}

// Relaxed throughout, unless said otherwise: a section's lock, or the slot's header, orders these.
impl Notes {
    /// The slot was claimed for a user's reservation. Its alarm is the caller's to set.
    pub(super) fn reserved(&self, user: UserRef, deadline: Timestamp) {
        self.set_user(user);
        // Release: pairs with the Acquire in `deadline`, after which the user is read.
        self.deadline.store(deadline.as_millis(), Ordering::Release);
    }

    /// The reservation became a lease.
    pub(super) fn opened(&self, user: UserRef) {
        self.set_user(user);
        self.deadline.store(0, Ordering::Relaxed);
    }

    fn set_user(&self, user: UserRef) {
        self.user_hash.store(user.hash.to_bits(), Ordering::Relaxed);
        self.user_serial.store(user.serial, Ordering::Relaxed);
    }

    pub(super) fn user(&self) -> UserRef {
        UserRef {
            hash: Hash32::from_bits(self.user_hash.load(Ordering::Relaxed)),
            serial: self.user_serial.load(Ordering::Relaxed),
        }
    }

    pub(super) fn place(&self) -> usize {
        self.place.load(Ordering::Relaxed) as usize
    }

    pub(super) fn set_place(&self, place: usize) {
        // As a rule right: whoever uses it looks whether it is.
        self.place.store(place as u32, Ordering::Relaxed);
    }

    /// When a reservation, or an heir's claim, is taken back.
    fn deadline(&self) -> Option<Timestamp> {
        match self.deadline.load(Ordering::Acquire) {
            0 => None,
            deadline => Some(Timestamp::from_millis(deadline)),
        }
    }

    /// Whether a reservation, or an heir's claim, is past its deadline.
    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now) && !fault!("forgotten_for_good")
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

    /// Names an heir. In the user's section, with the occupant live and no heir yet. The slot's alarm is the
    /// caller's to set, after this.
    pub(super) fn name_heir(&self, heir: Heir, deadline: Timestamp) {
        // First: whoever sees this heir sees its deadline, and not that of a claim that was withdrawn.
        self.deadline.store(deadline.as_millis(), Ordering::Release);
        // Release: pairs with the Acquire in `heir`.
        self.heir.store(heir.0, Ordering::Release);
    }

    /// Gives an heir more time. In the user's section, with the occupant live.
    pub(super) fn prolong(&self, deadline: Timestamp) {
        self.deadline.store(deadline.as_millis(), Ordering::Release); // as in `reserved`
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

/// The last-end word of a slot: the generation's lowest 24 bits · one more than the reason 8. It tells the
/// owner of that generation why it was revoked; one that asks after exactly 16,777,216 lives, or a multiple, is
/// told the reason of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastEnd(u32);

impl LastEnd {
    fn new(key: Key, reason: EndReason) -> Self {
        Self(key.generation() << 8 | (reason as u32 + 1))
    }

    fn to_bits(self) -> u32 {
        self.0
    }

    /// The reason, if the word speaks of this life.
    fn read(bits: u32, key: Key) -> Option<EndReason> {
        let reason = (bits as u8).checked_sub(1)?;
        (bits >> 8 == key.generation() << 8 >> 8).then(|| EndReason::from_number(reason))
    }
}

#[cfg(all(test, not(pool_loom)))]
mod tests {
    use super::*;

    /// What an idle connection is made of; these are promised in sum.
    #[test]
    fn a_connection_holds_little() {
        let slot = size_of::<Public>() + size_of::<Shared>() + size_of::<Owned<()>>();
        assert!(slot.next_multiple_of(8) <= 368, "a slot without state of the application: {slot}");
        assert!(size_of::<crate::Lease>() <= 168);
        assert!(size_of::<crate::Reservation>() <= 200);
        assert!(size_of::<crate::pool::registry::UserEntry>() <= 104);
        assert!(size_of::<crate::Message>() <= 40);
    }

    #[test]
    fn the_last_end_word_speaks_only_of_its_own_life() {
        let key = Key::from_bits(5 << 32 | 77);
        let word = LastEnd::new(key, EndReason::Takeover).to_bits();
        assert_eq!(LastEnd::read(word, key), Some(EndReason::Takeover));
        assert_eq!(LastEnd::read(word, Key::from_bits(5 << 32 | 78)), None);
        let round = Key::from_bits(5 << 32 | 1 << 24);
        assert_eq!(LastEnd::read(0, round), None, "nobody has ended");
        let word = LastEnd::new(round, EndReason::Closed).to_bits();
        assert_eq!(LastEnd::read(word, round), Some(EndReason::Closed));
    }
}
