//! What the double's one lock protects: plain tables, and the rules of the pool over them.

use super::life::{After, Life};
use super::waiting::{Ticket, Waiter};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, DuplicatePolicy};
use crate::error::{Late, OpenError, ReserveError};
use crate::id::{IsolationKey, UserExecutionContext, UserId};
use crate::pool::{Refusals, Tally};
use crate::reason::EndReason;
use crate::slab::Key;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub(super) struct State {
    pub(super) config: Arc<Config>,
    clock: Clock,
    pub(super) slots: Vec<Slot>,
    free: Vec<u32>,
    pub(super) users: HashMap<UserId, User>,
    limits: HashMap<UserId, usize>,
    pub(super) waiters: BTreeMap<Ticket, Waiter>,
    pub(super) tally: Tally,
    pub(super) refused: Refusals,
    pub(super) mismatches: u64,
    is_draining: bool,
    /// The last number given to a waiter or a claim.
    last_number: u64,
}

pub(super) struct Slot {
    generation: u32,
    pub(super) holder: Holder,
    last_end: Option<(Key, EndReason)>,
}

pub(super) enum Holder {
    Nobody,
    Reserved { user: UserId, deadline: Timestamp, claim: Option<Claim> },
    Live { life: Arc<Life>, heir: Option<(Claim, Timestamp)> },
}

#[derive(Default)]
pub(super) struct User {
    pub(super) reserved: usize,
    pub(super) members: Vec<Key>,
}

/// A place in the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// A slot of its own.
    Own(Key),
    /// The slot of a lease, to be inherited when that ends or this opens.
    Heir { of: Key, claim: Claim },
}

impl Seat {
    pub(super) fn is_inherited(self) -> bool {
        matches!(self, Self::Heir { .. })
    }
}

/// Of a waiter or a claim; no two are the same.
pub(super) type Number = u64;
type Claim = Number;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Places {
    /// A free slot, or a live lease's by takeover.
    Any,
    /// Only a live lease's: the free ones are for those who wait.
    Inherited,
}

impl State {
    pub(super) fn new(config: Arc<Config>, clock: Clock) -> Self {
        Self {
            config,
            clock,
            slots: Vec::new(),
            free: Vec::new(),
            users: HashMap::new(),
            limits: HashMap::new(),
            waiters: BTreeMap::new(),
            tally: Tally::default(),
            refused: Refusals::default(),
            mismatches: 0,
            is_draining: false,
            last_number: 0,
        }
    }

    /// Reserves without overtaking anyone who waits for the same place. A refusal looks for
    /// forgotten reservations first.
    pub(super) fn reserve_in_turn(
        &mut self,
        context: &UserExecutionContext,
        after: &mut After,
    ) -> Result<Seat, ReserveError> {
        let places = if self.serve(after) { Places::Inherited } else { Places::Any };
        match self.reserve(context, places) {
            Err(ReserveError::UserFull { .. } | ReserveError::PoolFull { .. }) if self.expire(after) > 0 => {
                self.reserve_in_turn(context, after)
            }
            outcome => outcome,
        }
    }

    pub(super) fn reserve(
        &mut self,
        context: &UserExecutionContext,
        places: Places,
    ) -> Result<Seat, ReserveError> {
        if self.is_draining {
            return Err(ReserveError::Draining);
        }
        let user = context.user_id();
        let twin = self.twin(context);
        if self.config.duplicates == DuplicatePolicy::Reject && twin.is_some() {
            return Err(ReserveError::ThreadInUse);
        }
        let max_managers = self.limits.get(user).copied().unwrap_or(self.config.max_managers_per_user);
        let capacity = self.config.capacity;
        let held = self.users.get(user).map_or(0, |user| user.reserved + user.members.len());
        let error = if held >= max_managers {
            ReserveError::UserFull { max_managers }
        } else if places == Places::Inherited || self.occupied() == capacity {
            ReserveError::PoolFull { capacity }
        } else {
            return Ok(self.claim_slot(user));
        };
        twin.and_then(|of| self.claim_on(of)).ok_or(error)
    }

    fn claim_slot(&mut self, user: &UserId) -> Seat {
        let index = self.free.pop().unwrap_or_else(|| {
            // A random start, so that the keys of two pools do not collide.
            let generation = rand::random::<u32>().max(1);
            self.slots.push(Slot { generation, holder: Holder::Nobody, last_end: None });
            (self.slots.len() - 1) as u32
        });
        let deadline = self.deadline();
        let slot = &mut self.slots[index as usize];
        slot.holder = Holder::Reserved { user: user.clone(), deadline, claim: None };
        let key = slot.key(index);
        self.users.entry(user.clone()).or_default().reserved += 1;
        self.tally.reserved += 1;
        Seat::Own(key)
    }

    /// No place is left, but the thread is live: its connection's place is claimed. One claim each.
    fn claim_on(&mut self, of: Key) -> Option<Seat> {
        if self.config.duplicates != DuplicatePolicy::Replace {
            return None;
        }
        let (claim, deadline) = (self.number(), self.deadline());
        match self.holder_mut(of)? {
            Holder::Live { heir: heir @ None, .. } => *heir = Some((claim, deadline)),
            _ => return None,
        }
        Some(Seat::Heir { of, claim })
    }

    /// Brings a seat to a slot of its own: ends the lease that it takes over, if that is still live.
    pub(super) fn take_over(&mut self, seat: Seat, after: &mut After) -> Result<Seat, OpenError> {
        if self.is_overdue(seat) {
            self.release(seat, |tally| &mut tally.expired);
            self.serve(after);
            return Err(OpenError::Expired);
        }
        if let Seat::Heir { of, claim } = seat
            && self.is_heir(of, claim)
        {
            self.end(of, EndReason::Takeover, after).map_err(|Late| OpenError::Expired)?;
        }
        self.reserved_key(seat).map(Seat::Own).ok_or(OpenError::Expired)
    }

    fn is_overdue(&self, seat: Seat) -> bool {
        let now = self.clock.now();
        let key = match seat {
            Seat::Heir { of, claim } if self.is_heir(of, claim) => of,
            _ => match self.reserved_key(seat) {
                Some(key) => key,
                None => return false,
            },
        };
        match self.slots[key.index() as usize].holder {
            Holder::Reserved { deadline, .. } | Holder::Live { heir: Some((_, deadline)), .. } => {
                deadline <= now
            }
            _ => false,
        }
    }

    /// Turns a seat with its own slot into a lease.
    pub(super) fn open(&mut self, seat: Seat, life: Life, after: &mut After) -> Result<Key, OpenError> {
        let key = self.reserved_key(seat).ok_or(OpenError::Expired)?;
        let context = life.read(|manager| manager.context().clone()).ok_or(OpenError::Expired)?;
        match (self.config.duplicates, self.twin(&context)) {
            (DuplicatePolicy::Reject, Some(_)) => return Err(OpenError::ThreadInUse),
            (DuplicatePolicy::Replace, Some(old)) => {
                self.close(old, EndReason::Takeover, after).map_err(|Late| OpenError::Expired)?;
            }
            _ => {}
        }
        let user = self.users.entry(context.user_id().clone()).or_default();
        user.reserved -= 1;
        user.members.push(key);
        self.slots[key.index() as usize].holder = Holder::Live { life: Arc::new(life), heir: None };
        self.tally.opened += 1;
        if self.config.duplicates == DuplicatePolicy::Replace {
            // Only now: a waiter of this thread can claim the new connection.
            self.serve(after);
        }
        Ok(key)
    }

    /// Ends a lease. Exactly one caller per life gets `Ok`.
    pub(super) fn end(&mut self, key: Key, reason: EndReason, after: &mut After) -> Result<(), Late> {
        self.close(key, reason, after)?;
        self.serve(after);
        Ok(())
    }

    fn close(&mut self, key: Key, reason: EndReason, after: &mut After) -> Result<(), Late> {
        let (life, heir) = match self.holder_mut(key) {
            Some(Holder::Live { life, heir }) => (life.clone(), heir.take()),
            _ => return Err(Late),
        };
        self.tally.ended += 1;
        *self.tally.ends_by_reason.entry(reason.name()).or_default() += 1;
        self.slots[key.index() as usize].last_end = Some((key, reason));
        self.vacate(key.index());
        if let Some(user_id) = life.read(|manager| manager.user_id().clone()) {
            let user = self.users.entry(user_id.clone()).or_default();
            user.members.retain(|&member| member != key);
            if let Some((claim, deadline)) = heir {
                // The place is the heir's from now on, and counts as its reservation.
                user.reserved += 1;
                self.tally.reserved += 1;
                self.free.pop();
                let holder = Holder::Reserved { user: user_id, deadline, claim: Some(claim) };
                self.slots[key.index() as usize].holder = holder;
            } else {
                self.leave(&user_id);
            }
        }
        after.ended.push(life);
        Ok(())
    }

    /// Gives a seat back. `false`: it had been opened or taken back before.
    pub(super) fn give_back(&mut self, seat: Seat, after: &mut After) -> bool {
        let is_back = self.release(seat, |tally| &mut tally.given_back);
        self.serve(after);
        is_back
    }

    /// Takes back every reservation and claim that is past its deadline. Returns how many.
    pub(super) fn expire(&mut self, after: &mut After) -> usize {
        let now = self.clock.now();
        let overdue = self.keys().filter_map(|(key, slot)| match slot.holder {
            Holder::Reserved { deadline, .. } if deadline <= now => Some(Seat::Own(key)),
            Holder::Live { heir: Some((claim, deadline)), .. } if deadline <= now => {
                Some(Seat::Heir { of: key, claim })
            }
            _ => None,
        });
        // One after the other, like the pool: each may be what the first waiter waits for.
        let mut expired = 0;
        for seat in overdue.collect::<Vec<_>>() {
            expired += usize::from(self.release(seat, |tally| &mut tally.expired));
            self.serve(after);
        }
        expired
    }

    fn release(&mut self, seat: Seat, count: impl FnOnce(&mut Tally) -> &mut u64) -> bool {
        if let Seat::Heir { of, claim } = seat
            && self.is_heir(of, claim)
            && let Some(Holder::Live { heir, .. }) = self.holder_mut(of)
        {
            *heir = None; // while the occupant lives, the claim holds no count of its own
            return true;
        }
        let Some(key) = self.reserved_key(seat) else { return false };
        if let Holder::Reserved { user, .. } = self.vacate(key.index()) {
            self.users.entry(user.clone()).or_default().reserved -= 1;
            self.leave(&user);
        }
        *count(&mut self.tally) += 1;
        true
    }

    /// Makes a slot free, under its next generation.
    fn vacate(&mut self, index: u32) -> Holder {
        let slot = &mut self.slots[index as usize];
        slot.generation = next(slot.generation);
        self.free.push(index);
        std::mem::replace(&mut slot.holder, Holder::Nobody)
    }

    /// Forgets a user that has no place left.
    fn leave(&mut self, user: &UserId) {
        if self.users.get(user).is_some_and(|user| user.reserved == 0 && user.members.is_empty()) {
            self.users.remove(user);
        }
    }

    pub(super) fn set_limit(&mut self, user: &UserId, max_managers: Option<usize>, after: &mut After) {
        match max_managers {
            Some(max_managers) => self.limits.insert(user.clone(), max_managers),
            None => self.limits.remove(user),
        };
        self.serve(after);
    }

    pub(super) fn start_drain(&mut self, after: &mut After) {
        self.is_draining = true;
        self.serve(after);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining
    }

    pub(super) fn refused(&mut self, error: ReserveError) {
        *match error {
            ReserveError::UserFull { .. } => &mut self.refused.user_full,
            ReserveError::PoolFull { .. } => &mut self.refused.pool_full,
            ReserveError::ThreadInUse => &mut self.refused.thread_in_use,
            ReserveError::Draining => &mut self.refused.draining,
            ReserveError::SessionPanicked => &mut self.refused.session_panicked,
        } += 1;
    }

    // Looking things up.

    /// The parts of a live manager; `None` if the key is stale.
    pub(super) fn life(&self, key: Key) -> Option<&Arc<Life>> {
        match &self.slot(key)?.holder {
            Holder::Live { life, .. } => Some(life),
            _ => None,
        }
    }

    /// All live managers, in the order of their slots.
    pub(super) fn lives(&self) -> impl Iterator<Item = (Key, Arc<Life>)> {
        self.keys().filter_map(|(key, slot)| match &slot.holder {
            Holder::Live { life, .. } => Some((key, life.clone())),
            _ => None,
        })
    }

    pub(super) fn last_end(&self, key: Key) -> Option<EndReason> {
        let (ended, reason) = self.slots.get(key.index() as usize)?.last_end?;
        (ended == key).then_some(reason)
    }

    pub(super) fn keys_of(&self, user: &UserId) -> &[Key] {
        self.users.get(user).map_or(&[], |user| &user.members)
    }

    /// The connections of a user's thread. A user who has connections, but none of this thread,
    /// counts as a mismatch.
    pub(super) fn address(&mut self, to: &IsolationKey) -> Vec<Key> {
        let members = self.keys_of(to.user_id());
        let is_addressed = |key: &&Key| {
            let thread = self.life(**key).and_then(|life| life.read(|manager| manager.thread_id().clone()));
            thread.as_ref() == Some(to.thread_id())
        };
        let addressed: Vec<_> = members.iter().filter(is_addressed).copied().collect();
        if addressed.is_empty() && !members.is_empty() {
            self.mismatches += 1;
        }
        addressed
    }

    /// The first live lease of the same user and thread.
    fn twin(&self, context: &UserExecutionContext) -> Option<Key> {
        let is_twin = |key: &&Key| {
            let life = self.life(**key);
            life.and_then(|life| life.read(|manager| manager.thread_id() == context.thread_id()))
                == Some(true)
        };
        self.keys_of(context.user_id()).iter().find(is_twin).copied()
    }

    /// The slot that a seat holds, if it still does.
    fn reserved_key(&self, seat: Seat) -> Option<Key> {
        let (key, owed) = match seat {
            Seat::Own(key) => (key, None),
            Seat::Heir { of, claim } => (key(of.index(), next(of.generation())), Some(claim)),
        };
        match self.slot(key)?.holder {
            Holder::Reserved { claim, .. } if owed.is_none() || claim == owed => Some(key),
            _ => None,
        }
    }

    fn is_heir(&self, of: Key, claim: Claim) -> bool {
        let holder = self.slot(of).map(|slot| &slot.holder);
        matches!(holder, Some(Holder::Live { heir: Some((named, _)), .. }) if *named == claim)
    }

    fn slot(&self, key: Key) -> Option<&Slot> {
        self.slots.get(key.index() as usize).filter(|slot| slot.generation == key.generation())
    }

    fn holder_mut(&mut self, key: Key) -> Option<&mut Holder> {
        let slot = self.slots.get_mut(key.index() as usize)?;
        (slot.generation == key.generation()).then_some(&mut slot.holder)
    }

    fn keys(&self) -> impl Iterator<Item = (Key, &Slot)> {
        self.slots.iter().enumerate().map(|(index, slot)| (slot.key(index as u32), slot))
    }

    pub(super) fn occupied(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn deadline(&self) -> Timestamp {
        self.clock.now().after(self.config.reservation_deadline)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

impl Slot {
    fn key(&self, index: u32) -> Key {
        key(index, self.generation)
    }
}

fn key(index: u32, generation: u32) -> Key {
    Key::from_bits(u64::from(index) << 32 | u64::from(generation))
}

/// Generations are never 0.
fn next(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}
