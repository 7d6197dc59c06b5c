//! The heart of the pool: how a place is reserved, opened and given back.
//!
//! A lease begins and ends **inside its user's shard section**: header, links and counts change
//! together under that lock. Waking, cleaning and foreign code come after it. `ending.rs` has the
//! other half.

use super::builder::PoolName;
use super::events::{EventId, Journals};
#[cfg(feature = "serve")]
use super::keeping::Keeping;
use super::ledger::{Beginning, Books};
use super::limits::Grow;
use super::log::Log;
use super::maintenance::Maintenance;
use super::metrics::CleanupBooks;
use super::observer::Attachments;
use super::occupant::{Heir, Notes, Occupants, Public, alarm_at};
use super::registry::{Hash32, Registry, Section, Shard, UserRef};
use super::settings::Settings;
use crate::clock::Clock;
use crate::config::{Config, DuplicatePolicy};
use crate::control::Load;
use crate::error::{OpenError, ReserveError};
use crate::id::{ThreadId, UserExecutionContext, UserId};
use crate::manager::{PooledWebSocketManager, Room, Session, StateBroken};
use crate::reason::EndReason;
use crate::slab::{Closing, Key, Options, Owner, Shortage, Slab, Starting, State};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, snooze};
use crossbeam_utils::{Backoff, CachePadded};
use std::panic::Location;

/// What all handles of a pool share.
pub(super) struct Core<S: Session> {
    pub(super) name: PoolName,
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    pub(super) attached: Attachments,
    pub(super) log: Log,
    pub(super) slab: Slab<Occupants<S>>,
    pub(super) registry: Registry,
    pub(super) journals: Journals,
    pub(super) books: Books,
    pub(super) cleanups: CleanupBooks,
    pub(super) maintenance: Maintenance,
    pub(super) is_draining: AtomicBool,
    pub(super) last_expiry: AtomicU64,
    #[cfg(feature = "serve")]
    pub(super) keeping: Keeping,
    /// Written by each claim on a lease, so not beside what all threads read.
    pub(super) heirs: CachePadded<AtomicU32>,
}

/// A place in the quota, and what will be the manager's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) user: UserRef,
    pub(super) slot: SeatSlot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeatSlot {
    /// A slot of its own, counted.
    Reserved(Key),
    /// The slot of a lease, to be inherited when that ends or this opens, and then for this reason.
    /// Counted once that has ended.
    Heir { of: Key, heir: Heir, reason: EndReason },
}

/// Which places a reservation may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Places {
    /// A free slot, or a live lease's by takeover.
    Any,
    /// Only a live lease's: the free ones are for those who wait.
    Inherited,
}

/// Whether the user's dead may be cleaned before the reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cleaning {
    /// They are, from the proactive threshold on. Foreign code may run: no lock is held.
    Allowed,
    /// They have been, or a lock is held.
    Done,
}

/// How a seat ended without becoming a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeatEnd {
    GivenBack,
    Expired,
}

/// A seat that was just taken. Its slot is in our hands alone until [`Core::prepare`] or
/// [`Taken::leave_reserved`].
#[must_use = "dropped, the slot is free again, but the count is not"]
pub(super) struct Taken<'a, S: Session> {
    seat: Seat,
    /// `None` for an heir, whose slot is still in use.
    starting: Option<Starting<'a, Occupants<S>>>,
}

impl<S: Session> Taken<'_, S> {
    /// Leaves the seat to whoever opens it, unprepared.
    pub(super) fn leave_reserved(self) -> Seat {
        self.starting.map(Starting::reserve);
        self.seat
    }
}

enum Refusal {
    /// Clean the user's dead outside the section and try again.
    Clean,
    /// Grow the slab outside the section and try again.
    Grow,
    Final(ReserveError),
}

/// Turns that `open` waits for the last readers of the slot that it inherits.
const HANDOVER_TURNS: usize = 1_000;

impl<S: Session> Core<S> {
    pub(super) fn new(name: PoolName, clock: Clock, config: Config, attached: Attachments) -> Self {
        let occupants = Occupants::new(Room::new(config.outbound_pool_bytes, config.inbound_pool_bytes));
        let now = clock.now();
        let settings = Settings::new(config, now);
        let config = settings.load_full();
        Self {
            slab: Slab::new(occupants, Options::with_capacity(config.capacity)),
            registry: Registry::new(&config),
            journals: Journals::new(config.replay_pool_bytes),
            books: Books::new(),
            cleanups: CleanupBooks::default(),
            maintenance: Maintenance::new(now),
            is_draining: AtomicBool::new(false),
            last_expiry: AtomicU64::new(0),
            #[cfg(feature = "serve")]
            keeping: Keeping::new(),
            heirs: CachePadded::new(AtomicU32::new(1)),
            settings,
            attached,
            log: Log::new(name.as_str(), &clock),
            name,
            clock,
        }
    }

    /// Reserves a place, or says why there is none. Does not wait, and counts no refusal.
    pub(super) fn reserve(
        &self,
        context: &UserExecutionContext,
        places: Places,
        mut cleaning: Cleaning,
    ) -> Result<Taken<'_, S>, ReserveError> {
        let user_hash = self.registry.hash(context.user_id());
        let isolation_hash = self.isolation_hash(user_hash, context.thread_id());
        // Ends: each turn but the last follows the one clean, or a growth of the slab.
        loop {
            let mut shard = self.registry.section(user_hash);
            match self.reserve_in(&mut shard, user_hash, isolation_hash, context, places, cleaning) {
                Ok(taken) => return Ok(taken),
                Err(Refusal::Clean) => {
                    drop(shard);
                    self.clean_before_reserve(user_hash, context.user_id());
                    cleaning = Cleaning::Done;
                }
                Err(Refusal::Grow) => {
                    drop(shard); // pages are allocated outside the section
                    self.slab.grow();
                }
                Err(Refusal::Final(error)) => return Err(error),
            }
        }
    }

    /// The section of [`Core::reserve`]: quota, slot and count, or nothing.
    fn reserve_in(
        &self,
        section: &mut Section,
        user_hash: Hash32,
        isolation_hash: Hash32,
        context: &UserExecutionContext,
        places: Places,
        cleaning: Cleaning,
    ) -> Result<Taken<'_, S>, Refusal> {
        // In the section: `start_drain` passes through each after it has set the flag, so whoever comes
        // later sees it, and whoever came before is counted.
        if self.is_draining.load(Ordering::Relaxed) {
            return Err(Refusal::Final(ReserveError::Draining));
        }
        let Section { config, shard } = section;
        let user_id = context.user_id();
        let rules = shard.rules(user_hash, user_id);
        let max_managers = rules.max_managers.unwrap_or(config.max_managers_per_user);
        let now = self.clock.now();
        let mut may_have_dead = false;
        let found = shard.find(user_hash, user_id);
        let count = match found.and_then(|place| shard.at(place)) {
            Some(entry) => {
                let is_late = fault!("check_then_register");
                let count = if is_late { entry.members.len() } else { entry.count() };
                let load = Load { count, max: max_managers };
                if cleaning == Cleaning::Allowed && entry.needs_clean(load, now, config) {
                    return Err(Refusal::Clean);
                }
                may_have_dead = cleaning == Cleaning::Allowed && entry.may_have_dead(now);
                load.count
            }
            None => 0,
        };
        let deadline = now.after(config.reservation_deadline);
        let is_reject = config.duplicates == DuplicatePolicy::Reject;
        if is_reject && self.twin(shard, isolation_hash, context).is_some() {
            if may_have_dead {
                return Err(Refusal::Clean); // the twin may be
            }
            return Err(Refusal::Final(ReserveError::ThreadInUse));
        }
        let claimed = if count >= max_managers + usize::from(fault!("one_too_many")) {
            Err(ReserveError::UserFull { max_managers })
        } else if places == Places::Inherited {
            Err(ReserveError::PoolFull { capacity: config.capacity })
        } else {
            match self.claim_counted(user_id, max_managers, config) {
                Ok(Ok(starting)) => Ok(starting),
                Ok(Err(Grow)) => return Err(Refusal::Grow),
                Err(error) => Err(error),
            }
        };
        match claimed {
            Ok(mut starting) => {
                let user = shard.reserve(found, user_hash, user_id);
                starting.value(|glance, _, _| glance.notes.reserved(user, deadline));
                if fault!("reuse_allocates") {
                    drop(std::hint::black_box(Box::new(deadline)));
                }
                if !fault!("reservation_without_alarm") {
                    starting.arm(alarm_at(deadline));
                }
                self.books.reserved();
                let seat = Seat { user, slot: SeatSlot::Reserved(starting.key()) };
                Ok(Taken { seat, starting: Some(starting) })
            }
            // A tenant, or a domain of several pools, may be full while the user's share of this pool is small.
            Err(ReserveError::UserFull { .. } | ReserveError::TenantFull { .. }) if may_have_dead => {
                Err(Refusal::Clean)
            }
            Err(error) => {
                let policy = self.at_limit(user_id, rules, error, config);
                self.inherit(shard, isolation_hash, context, deadline, config)
                    .or_else(|| self.replace_own(shard, user_hash, context, policy, deadline))
                    .map(|seat| Taken { seat, starting: None })
                    .ok_or(Refusal::Final(error))
            }
        }
    }

    /// Makes the application's state fit for its next connection: foreign code, outside any lock. A
    /// slot whose state is beyond repair is retired, and the seat with it.
    pub(super) fn prepare(&self, taken: Taken<'_, S>) -> Result<Seat, ReserveError> {
        let Taken { seat, starting } = taken;
        let Some(mut starting) = starting else { return Ok(seat) };
        if starting.value(|_, _, owned| owned.prepare().is_ok()) {
            starting.reserve();
            return Ok(seat);
        }
        self.retire(seat.user, starting);
        Err(ReserveError::SessionPanicked)
    }

    /// The same for a seat that somebody else has taken for us.
    pub(super) fn prepare_seat(&self, seat: Seat) -> Result<Seat, ReserveError> {
        let starting = match seat.slot {
            SeatSlot::Reserved(key) => self.slab.begin(key).ok(), // expired, `open` will say
            SeatSlot::Heir { .. } => None,
        };
        self.prepare(Taken { seat, starting })
    }

    /// Counts and tells a refusal, with nothing locked.
    pub(super) fn refused(&self, context: &UserExecutionContext, error: ReserveError) {
        self.books.refused(error);
        self.log.refused(context, error);
    }

    /// Opens a seat: `Reserved → Starting → Live`, linked and counted in one section, in which a
    /// takeover swaps the old lease for the new one.
    pub(super) fn open(
        &self,
        mut seat: Seat,
        context: &UserExecutionContext,
        made_at: &'static Location<'static>,
        after: Option<EventId>,
    ) -> Result<Owner, OpenError> {
        let Seat { user, .. } = seat;
        let isolation_hash = self.isolation_hash(user.hash, context.thread_id());
        let key = match seat.slot {
            SeatSlot::Reserved(key) => key,
            SeatSlot::Heir { .. } => self.take_over(&mut seat, isolation_hash, context)?,
        };
        let mut starting = self.slab.begin(key).map_err(|_| OpenError::Expired)?;
        let now = self.clock.now();
        if starting.value(|glance, _, _| glance.notes.is_overdue(now)) {
            drop(starting); // back to `Reserved`, and from there
            self.give_back(Seat { slot: SeatSlot::Reserved(key), ..seat }, SeatEnd::Expired);
            return Err(OpenError::Expired);
        }
        let prepared = starting.value(|glance, shared, owned| {
            owned.prepare()?;
            shared.reset_for_new_connection(&glance.manager, context.clone(), now, made_at);
            if let Some(after) = after {
                shared.catch_up_from(after.missed());
            }
            glance.notes.opened(user);
            Ok::<(), StateBroken>(())
        });
        if prepared.is_err() {
            self.retire(user, starting);
            return Err(OpenError::SessionPanicked);
        }
        let mut shard = self.registry.section(user.hash);
        let twin = self.twin(&shard, isolation_hash, context);
        let replaced = match (shard.config.duplicates, twin) {
            (DuplicatePolicy::Reject, Some(_)) => {
                drop(shard);
                drop(starting); // back to `Reserved`, and from there
                self.give_back(Seat { slot: SeatSlot::Reserved(key), ..seat }, SeatEnd::GivenBack);
                return Err(OpenError::ThreadInUse);
            }
            (DuplicatePolicy::Replace, Some(old)) if !fault!("takeover_leaves_the_old") => {
                self.end_in(&mut shard, old, EndReason::Takeover).ok()
            }
            _ => None,
        };
        if let Some(place) = shard.link(user, isolation_hash, key) {
            starting.value(|glance, _, _| glance.notes.set_place(place));
        }
        let owner = starting.publish();
        let beginning = match seat.slot {
            SeatSlot::Heir { reason: EndReason::Limit, .. } => Beginning::Limit,
            SeatSlot::Heir { .. } => Beginning::Takeover,
            SeatSlot::Reserved(_) if replaced.is_some() => Beginning::Takeover,
            SeatSlot::Reserved(_) => Beginning::Fresh,
        };
        self.books.opened(beginning);
        drop(shard);
        self.join_runs(owner.key(), user.hash, isolation_hash, context);
        if let Some(replaced) = replaced {
            self.finish(replaced);
        }
        self.log.opened(context, beginning);
        // There is a connection to take over, or to end at a limit, now. No fence: a waiter of this user has
        // looked for it in the same section, either after us, or before, and then we see that it waits.
        if !self.waiting().is_empty() {
            self.serve_waiting();
        }
        Ok(owner)
    }

    /// Brings an heir to its slot: ends the lease that it takes over, if that is still live, and
    /// waits for the slot; or takes another one if there is one. A claim that is past its deadline ends
    /// nobody.
    fn take_over(
        &self,
        seat: &mut Seat,
        isolation_hash: Hash32,
        context: &UserExecutionContext,
    ) -> Result<Key, OpenError> {
        let user = seat.user;
        let mut shard = self.registry.section(user.hash);
        let refused = if self.is_late(seat.slot) {
            Some((SeatEnd::Expired, OpenError::Expired))
        } else if self.choose_again(&shard, seat, isolation_hash, context).is_err() {
            Some((SeatEnd::GivenBack, OpenError::ThreadInUse))
        } else {
            None
        };
        if let Some((how, error)) = refused {
            drop(shard);
            self.give_back(*seat, how);
            return Err(error);
        }
        let SeatSlot::Heir { of, heir, reason } = seat.slot else { return Err(OpenError::Expired) };
        let is_ours = self.slab.state(of) == Some(State::Live) && self.has_heir(of, heir);
        let ended = if is_ours {
            // The claim was opened in time. Were it overdue between here and its slot, both connections would
            // be lost. Its alarm stays: one that comes early looks, and is set anew.
            let deadline = self.clock.now().after(shard.config.reservation_deadline);
            if !fault!("claim_expires_on_the_way") {
                self.notes(of, |notes| notes.prolong(deadline));
            }
            self.end_in(&mut shard, of, reason).ok()
        } else {
            None
        };
        drop(shard);
        if let Some(ended) = ended {
            self.finish(ended); // without pins the slot is handed over before this returns
        }
        let backoff = Backoff::new();
        let mut turns = 0;
        // Ends: after some turns the claim is withdrawn, unless the slot is being handed over, and then
        // the header that ends the loop is about to be written.
        loop {
            let state = self.slab.state(of);
            if let Some(own) = self.inherited(of, heir) {
                return Ok(own);
            }
            if !self.has_heir(of, heir) && !self.is_being_handed_over(of, state, heir) {
                return Err(OpenError::Expired);
            }
            let mut shard = self.registry.section(user.hash);
            let has_claim = self.has_heir(of, heir);
            let spare = if has_claim { self.slab.claim_in_place() } else { Err(Shortage::Full) };
            if spare == Err(Shortage::Grow) {
                drop(shard);
                self.slab.grow();
                continue;
            }
            if let Ok(key) = spare
                && self.disinherit(of, heir)
            {
                // The other slot will be free for anyone. A deadline only now: before, nobody counts it.
                let deadline = self.clock.now().after(self.settings.load().reservation_deadline);
                self.notes(key, |notes| notes.reserved(user, deadline));
                self.slab.arm(key, alarm_at(deadline));
                return Ok(key);
            }
            turns += 1;
            if turns > HANDOVER_TURNS && self.disinherit(of, heir) {
                self.unreserve(&mut shard, user, SeatEnd::GivenBack);
                drop(shard);
                self.place_freed(); // the user's place; the slot waits for its reader
                return Err(OpenError::Busy);
            }
            // Handed over this instant after all: the spare one is not needed. It leaves the account
            // with the section, and is cleaned after it.
            let unneeded = spare.map(|key| self.slab.abort(key));
            drop(shard);
            drop(unneeded);
            snooze(&backoff);
        }
    }

    /// Gives a seat back. `false`: it had been opened or taken back before.
    pub(super) fn give_back(&self, seat: Seat, how: SeatEnd) -> bool {
        let Seat { user, slot, .. } = seat;
        let backoff = Backoff::new();
        // Ends: a turn that decides nothing saw the finaliser between taking the claim and writing the
        // header.
        loop {
            let mut shard = self.registry.section(user.hash);
            // Again, now that the section is ours: its owner may have opened it in time.
            if how == SeatEnd::Expired && !self.is_overdue(slot) && !fault!("expiry_looks_once") {
                return false;
            }
            let own = match slot {
                SeatSlot::Reserved(key) => Some(key),
                SeatSlot::Heir { of, heir, .. } => {
                    let is_live = self.slab.state(of) == Some(State::Live);
                    if self.disinherit(of, heir) {
                        // While the occupant lives, the claim holds no count of its own.
                        if !is_live {
                            self.unreserve(&mut shard, user, how);
                        }
                        drop(shard);
                        self.place_freed();
                        return true;
                    }
                    if self.is_being_handed_over(of, self.slab.state(of), heir) {
                        drop(shard);
                        snooze(&backoff);
                        continue;
                    }
                    self.inherited(of, heir)
                }
            };
            let Some(closing) = own.and_then(|key| self.slab.abort(key).ok()) else { return false };
            self.unreserve(&mut shard, user, how);
            drop(shard);
            drop(closing);
            self.place_freed_in_domain();
            return true;
        }
    }

    /// A started slot whose state is beyond repair goes out of use, and its seat with it.
    fn retire(&self, user: UserRef, starting: Starting<'_, Occupants<S>>) {
        let mut shard = self.registry.section(user.hash);
        starting.retire();
        self.unreserve(&mut shard, user, SeatEnd::GivenBack);
        drop(shard);
        self.place_freed();
    }

    /// The slot that an heir was to inherit went out of use, and the claim with it.
    pub(super) fn orphaned(&self, user: UserRef) {
        self.unreserve(&mut self.registry.section(user.hash), user, SeatEnd::Expired);
        self.place_freed_in_domain();
    }

    /// Takes a reservation out of the user's count. In the user's section.
    fn unreserve(&self, shard: &mut Shard, user: UserRef, how: SeatEnd) {
        self.uncount(shard, user);
        shard.unreserve(user);
        self.books.unreserved(how);
    }

    /// The live lease of the same user and thread, if there is one. In the user's section, where
    /// every key in the tables is live, so that pinning it succeeds.
    pub(super) fn twin(
        &self,
        shard: &Shard,
        isolation_hash: Hash32,
        context: &UserExecutionContext,
    ) -> Option<Key> {
        let is_twin = |key: &Key| {
            self.look(*key, |manager| {
                (fault!("thread_without_user") || manager.user_id() == context.user_id())
                    && manager.thread_id() == context.thread_id()
            })
        };
        shard.same_isolation_hash(isolation_hash).find(|key| is_twin(key) == Some(true))
    }

    /// Reads a live manager; `None` if the key is stale.
    pub(super) fn look<T>(&self, key: Key, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Option<T> {
        let read = |glance: &Public, shared: &_| {
            PooledWebSocketManager::of(&glance.manager, shared).map(|manager| f(&manager))
        };
        self.slab.pin(key, read).ok().flatten()
    }

    /// The notes of a slot, whoever is in it.
    pub(super) fn notes<T>(&self, key: Key, f: impl FnOnce(&Notes) -> T) -> Option<T> {
        self.slab.glance(key.index(), |glance| f(&glance.notes))
    }

    pub(super) fn hash_of_thread(&self, user: &UserId, thread: &ThreadId) -> Hash32 {
        self.isolation_hash(self.registry.hash(user), thread)
    }

    /// The same for a user who is hashed already.
    pub(super) fn isolation_hash(&self, user_hash: Hash32, thread: &ThreadId) -> Hash32 {
        if fault!("thread_without_user") {
            return self.registry.hash(thread);
        }
        self.registry.hash(&(user_hash, thread))
    }

    /// The reserved slot that a claim became, if that was not withdrawn before: else the same slot may
    /// be reserved by somebody else by now.
    fn inherited(&self, of: Key, heir: Heir) -> Option<Key> {
        let next = self.slab.next_life(of)?;
        let is_reserved = self.slab.state(next) == Some(State::Reserved);
        // After the header: it publishes whom the slot was handed to.
        let is_ours = fault!("inherit_by_key") || self.notes(next, |notes| notes.was_handed_to(heir))?;
        (is_reserved && is_ours).then_some(next)
    }

    /// A claim on a live lease that nobody has withdrawn yet, but that is past its deadline.
    fn is_late(&self, slot: SeatSlot) -> bool {
        matches!(slot, SeatSlot::Heir { of, heir, .. } if self.has_heir(of, heir)) && self.is_overdue(slot)
    }

    fn is_overdue(&self, slot: SeatSlot) -> bool {
        let (SeatSlot::Reserved(key) | SeatSlot::Heir { of: key, .. }) = slot;
        let now = self.clock.now();
        self.notes(key, |notes| notes.is_overdue(now)).unwrap_or(false)
    }

    pub(super) fn has_heir(&self, of: Key, heir: Heir) -> bool {
        self.notes(of, |notes| notes.heir() == Some(heir)).unwrap_or(false)
    }

    /// For a claim that is not in the slot any more: the finaliser took it, and is about to write the
    /// header.
    fn is_being_handed_over(&self, of: Key, state: Option<State>, heir: Heir) -> bool {
        state == Some(State::Closing) && self.notes(of, |notes| notes.was_handed_to(heir)).unwrap_or(false)
    }

    pub(super) fn disinherit(&self, of: Key, heir: Heir) -> bool {
        self.notes(of, |notes| notes.disinherit(heir)).unwrap_or(false)
    }
}

/// A lease that was ended in a section; its winner's work outside it is still to be done.
pub(super) type Ended<'a, S> = Closing<'a, Occupants<S>>;
