//! What the double's one lock protects: plain tables, and how a place is taken and opened. `ending.rs` has
//! the other half.

use super::events::Thread;
use super::life::{After, Life};
use super::upkeep::Schedule;
use super::waiting::{Ticket, Waiter};
use crate::clock::{Clock, Timestamp};
use crate::config::{AtLimit, Config, DuplicatePolicy};
use crate::control::{Load, Watch};
use crate::error::{Late, OpenError, ReserveError};
use crate::id::{IsolationKey, UserExecutionContext, UserId};
use crate::manager::Room;
use crate::pool::{
    Alert, Beginning, CleanupBooks, DeliveryFigures, EXPIRY_INTERVAL, End, Full, QuotaDomain, Refusals,
    Settings, Tally, UserRules, forcing_rank,
};
use crate::reason::EndReason;
use crate::slab::Key;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub(super) struct State {
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    pub(super) quotas: Option<QuotaDomain>,
    pub(super) slots: Vec<Slot>,
    pub(super) free: Vec<u32>,
    pub(super) users: BTreeMap<UserId, User>,
    pub(super) rules: HashMap<UserId, UserRules>,
    pub(super) waiters: BTreeMap<Ticket, Waiter>,
    pub(super) threads: HashMap<IsolationKey, Thread>,
    pub(super) room: Arc<Room>,
    pub(super) delivery: DeliveryFigures,
    pub(super) tally: Tally,
    pub(super) refused: Refusals,
    pub(super) mismatches: u64,
    pub(super) is_draining: bool,
    /// The last ends, oldest first.
    pub(super) ends: Vec<End>,
    /// Of users that went while their level was raised.
    pub(super) departed: Vec<Alert>,
    pub(super) cleanups: CleanupBooks,
    pub(super) schedule: Schedule,
    /// Foreign code to be run when the lock is free again.
    pub(super) after: After,
    pub(super) last_expiry: Timestamp,
    /// The last number given to a waiter or a claim.
    last_number: Number,
}

pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) holder: Holder,
    pub(super) last_end: Option<(Key, EndReason)>,
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
    pub(super) watch: Watch,
    /// None of the managers is dead before this moment, if not by its own state.
    pub(super) next_look: Timestamp,
    /// A manager may have become dead by its own state, or by the end of a run.
    pub(super) may_be_due: bool,
    /// When the last emergency clean began.
    pub(super) emergency_at: Option<Timestamp>,
}

impl User {
    pub(super) fn count(&self) -> usize {
        self.reserved + self.members.len()
    }
}

/// A place in the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// A slot of its own.
    Own(Key),
    /// The slot of a lease, to be inherited when that ends or this opens, and then for this reason.
    Heir { of: Key, claim: Claim, reason: EndReason },
}

impl Seat {
    pub(super) fn is_inherited(self) -> bool {
        matches!(self, Self::Heir { .. })
    }

    fn beginning(self) -> Beginning {
        match self {
            Self::Own(_) => Beginning::Fresh,
            Self::Heir { reason: EndReason::Limit, .. } => Beginning::Limit,
            Self::Heir { .. } => Beginning::Takeover,
        }
    }
}

/// Of a waiter or a claim; no two are the same.
pub(super) type Number = u64;
pub(super) type Claim = Number;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Places {
    /// A free slot, or a live lease's by takeover.
    Any,
    /// Only a live lease's: the free ones are for those who wait.
    Inherited,
}

impl State {
    pub(super) fn new(config: Config, clock: Clock, quotas: Option<QuotaDomain>, room: Arc<Room>) -> Self {
        let now = clock.now();
        Self {
            settings: Settings::new(config, now),
            quotas,
            slots: Vec::new(),
            free: Vec::new(),
            users: BTreeMap::new(),
            rules: HashMap::new(),
            waiters: BTreeMap::new(),
            threads: HashMap::new(),
            room,
            delivery: DeliveryFigures::default(),
            tally: Tally::default(),
            refused: Refusals::default(),
            mismatches: 0,
            is_draining: false,
            ends: Vec::new(),
            departed: Vec::new(),
            cleanups: CleanupBooks::default(),
            schedule: Schedule::new(now),
            after: After::default(),
            last_expiry: Timestamp::ZERO,
            last_number: 0,
            clock,
        }
    }

    /// Reserves without overtaking anyone who waits for the same place. A refusal looks for
    /// forgotten reservations first, now and then.
    pub(super) fn reserve_in_time(&mut self, context: &UserExecutionContext) -> Result<Seat, ReserveError> {
        let outcome = self.reserve_in_turn(context);
        let is_full = matches!(
            outcome,
            Err(ReserveError::UserFull { .. }
                | ReserveError::TenantFull { .. }
                | ReserveError::PoolFull { .. })
        );
        let now = self.clock.now();
        let is_due = self.last_expiry == Timestamp::ZERO || now.since(self.last_expiry) >= EXPIRY_INTERVAL;
        if is_full && is_due && self.expire(now) > 0 { self.reserve_in_turn(context) } else { outcome }
    }

    fn reserve_in_turn(&mut self, context: &UserExecutionContext) -> Result<Seat, ReserveError> {
        if !self.is_draining {
            self.clean_if_due(context.user_id());
        }
        let is_alone = !self.is_awaited();
        let places = if self.serve() { Places::Inherited } else { Places::Any };
        let outcome = self.reserve(context, places);
        let may_be_for_the_dead = matches!(
            outcome,
            Err(ReserveError::ThreadInUse | ReserveError::UserFull { .. } | ReserveError::TenantFull { .. })
        );
        if is_alone && may_be_for_the_dead && self.clean_if_refused(context.user_id()) {
            return self.reserve(context, places);
        }
        outcome
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.waiting() > 0
    }

    /// The user's entry, made if there is none. Back before anybody was told that it went, it takes its
    /// level up again.
    fn enter(&mut self, user: &UserId) -> &mut User {
        let gone = self.departed.iter().position(|gone| gone.user_id.as_ref() == Some(user));
        let gone = gone.map(|place| self.departed.swap_remove(place));
        let entry = self.users.entry(user.clone()).or_default();
        if let Some(gone) = gone {
            entry.watch = Watch { level: gone.from, max: gone.max_managers };
        }
        entry
    }

    pub(super) fn reserve(
        &mut self,
        context: &UserExecutionContext,
        places: Places,
    ) -> Result<Seat, ReserveError> {
        if self.is_draining {
            return Err(ReserveError::Draining);
        }
        let config = self.settings.load_full();
        let user = context.user_id();
        let twin = self.twin(context);
        if config.duplicates == DuplicatePolicy::Reject && twin.is_some() {
            return Err(ReserveError::ThreadInUse);
        }
        let deadline = self.clock.now().after(config.reservation_deadline);
        let refused = match self.claim_slot(user, places, deadline, &config) {
            Ok(seat) => return Ok(seat),
            Err(refused) => refused,
        };
        let claimed = twin
            .filter(|_| config.duplicates == DuplicatePolicy::Replace)
            .and_then(|of| self.claim_on(of, EndReason::Takeover, deadline));
        claimed
            .or_else(|| {
                let of = self.victim(user, refused, &config)?;
                self.claim_on(of, EndReason::Limit, deadline)
            })
            .ok_or(refused)
    }

    /// A free slot, counted.
    fn claim_slot(
        &mut self,
        user: &UserId,
        places: Places,
        deadline: Timestamp,
        config: &Config,
    ) -> Result<Seat, ReserveError> {
        let Load { count, max: max_managers } = self.load_of(user, config);
        let capacity = config.capacity;
        if count >= max_managers {
            return Err(ReserveError::UserFull { max_managers });
        }
        if places == Places::Inherited {
            return Err(ReserveError::PoolFull { capacity });
        }
        let is_full = self.occupied() == capacity;
        let claim = || if is_full { Err(ReserveError::PoolFull { capacity }) } else { Ok(()) };
        match &self.quotas {
            Some(quotas) => quotas.take(user, max_managers, claim).map_err(|full| match full {
                Full::User => ReserveError::UserFull { max_managers },
                Full::Tenant { max_managers } => ReserveError::TenantFull { max_managers },
            })?,
            None => claim(),
        }?;
        let index = self.free.pop().unwrap_or_else(|| {
            // A random start, so that the keys of two pools do not collide.
            let generation = rand::random::<u32>().max(1);
            self.slots.push(Slot { generation, holder: Holder::Nobody, last_end: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.holder = Holder::Reserved { user: user.clone(), deadline, claim: None };
        let key = slot.key(index);
        self.enter(user).reserved += 1;
        self.tally.reserved += 1;
        Ok(Seat::Own(key))
    }

    /// The user's own connection that the policy at the limit would end.
    fn victim(&self, user: &UserId, refused: ReserveError, config: &Config) -> Option<Key> {
        let is_at_limit = matches!(refused, ReserveError::UserFull { .. } | ReserveError::TenantFull { .. });
        let policy = self.policy_of(user, config);
        if !is_at_limit || policy == AtLimit::Reject {
            return None;
        }
        let now = self.clock.now();
        let ranked = self.keys_of(user).iter().filter_map(|&key| {
            let is_claimed = matches!(self.slot(key)?.holder, Holder::Live { heir: Some(_), .. });
            let rank = self.read(key, |manager| forcing_rank(manager, policy, now))?;
            (!is_claimed).then_some((rank, key))
        });
        ranked.min_by_key(|&(rank, _)| rank).map(|(_, key)| key)
    }

    /// No place is left, but that of a connection can be claimed. One claim each.
    fn claim_on(&mut self, of: Key, reason: EndReason, deadline: Timestamp) -> Option<Seat> {
        let claim = self.number();
        match self.holder_mut(of)? {
            Holder::Live { heir: heir @ None, .. } => *heir = Some((claim, deadline)),
            _ => return None,
        }
        Some(Seat::Heir { of, claim, reason })
    }

    /// Brings a seat to a slot of its own: ends the lease that it takes over, if that is still live.
    pub(super) fn take_over(
        &mut self,
        seat: &mut Seat,
        context: &UserExecutionContext,
    ) -> Result<Key, OpenError> {
        if self.is_overdue(*seat) {
            self.release(*seat, |tally| &mut tally.expired);
            self.place_freed();
            return Err(OpenError::Expired);
        }
        if self.choose_again(seat, context).is_err() {
            self.release(*seat, |tally| &mut tally.given_back);
            self.place_freed();
            return Err(OpenError::ThreadInUse);
        }
        let seat = *seat;
        if let Seat::Heir { of, claim, reason } = seat
            && self.is_heir(of, claim)
        {
            self.end(of, reason).map_err(|Late| OpenError::Expired)?;
        }
        self.reserved_key(seat).ok_or(OpenError::Expired)
    }

    /// At the opening, with a victim about to end: its thread may have been opened meanwhile, and then
    /// that connection makes room; or the victim is in a run by now, and another is not.
    fn choose_again(&mut self, seat: &mut Seat, context: &UserExecutionContext) -> Result<(), OpenError> {
        let Seat::Heir { of, claim, reason: EndReason::Limit } = *seat else { return Ok(()) };
        if !self.is_heir(of, claim) {
            return Ok(());
        }
        let config = self.settings.load_full();
        let now = self.clock.now();
        let is_in_run = |key| self.read(key, |manager| manager.is_running(now)) == Some(true);
        let chosen = match (config.duplicates, self.twin(context)) {
            (DuplicatePolicy::Reject, Some(_)) => return Err(OpenError::ThreadInUse),
            (DuplicatePolicy::Replace, Some(twin)) => Some((twin, EndReason::Takeover)),
            _ if is_in_run(of) => {
                let refused = ReserveError::UserFull { max_managers: 0 };
                let next = self.victim(context.user_id(), refused, &config);
                next.filter(|&key| !is_in_run(key)).map(|key| (key, EndReason::Limit))
            }
            _ => None,
        };
        if let Some((key, reason)) = chosen {
            let deadline = now.after(config.reservation_deadline);
            if let Some(moved) = self.claim_on(key, reason, deadline) {
                if let Some(Holder::Live { heir, .. }) = self.holder_mut(of) {
                    *heir = None;
                }
                *seat = moved;
            }
        }
        Ok(())
    }

    fn is_overdue(&self, seat: Seat) -> bool {
        let now = self.clock.now();
        let key = match seat {
            Seat::Heir { of, claim, .. } if self.is_heir(of, claim) => of,
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

    /// Turns a seat, which has brought its slot, into a lease.
    pub(super) fn open(&mut self, seat: Seat, key: Key, life: Life) -> Result<(), OpenError> {
        if self.reserved_key(Seat::Own(key)).is_none() {
            return Err(OpenError::Expired);
        }
        let context = life.read(|manager| manager.context().clone()).ok_or(OpenError::Expired)?;
        let mut beginning = seat.beginning();
        match (self.settings.load_full().duplicates, self.twin(&context)) {
            (DuplicatePolicy::Reject, Some(_)) => return Err(OpenError::ThreadInUse),
            (DuplicatePolicy::Replace, Some(old)) => {
                self.close(old, EndReason::Takeover).map_err(|Late| OpenError::Expired)?;
                if beginning == Beginning::Fresh {
                    beginning = Beginning::Takeover;
                }
            }
            _ => {}
        }
        let user = self.enter(context.user_id());
        user.reserved -= 1;
        user.members.push(key);
        self.join_runs(&life, &context);
        self.slots[key.index() as usize].holder = Holder::Live { life: Arc::new(life), heir: None };
        self.tally.opened += 1;
        *self.tally.begins_by_cause.entry(beginning.name()).or_default() += 1;
        // Only now: a waiter can claim the new connection.
        self.place_freed();
        Ok(())
    }

    pub(super) fn number(&mut self) -> Number {
        self.last_number += 1;
        self.last_number
    }
}

impl Slot {
    pub(super) fn key(&self, index: u32) -> Key {
        key(index, self.generation)
    }
}

pub(super) fn key(index: u32, generation: u32) -> Key {
    Key::from_bits(u64::from(index) << 32 | u64::from(generation))
}

/// Generations are never 0.
pub(super) fn next(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}
