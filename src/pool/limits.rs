//! Who gets in when something is full: the limits of users and tenants, and the places that are claimed
//! from the user's own connections.

use super::core::{Core, Seat, SeatSlot};
use super::occupant::{Heir, Occupants, alarm_at};
use super::quota::Full;
use super::registry::{Hash32, Shard, UserRef, UserRules};
use crate::clock::Timestamp;
use crate::config::{AtLimit, Config, DuplicatePolicy};
use crate::error::ReserveError;
use crate::id::{UserExecutionContext, UserId};
use crate::manager::{PooledWebSocketManager, Session};
use crate::reason::EndReason;
use crate::slab::{Key, Shortage, Starting, State};
use crate::sync::Ordering;

/// The thread is open, and duplicates are rejected.
pub(super) struct ThreadInUse;

/// The slab is to be grown, outside the section.
pub(super) struct Grow;

impl<S: Session> Core<S> {
    /// Counts one more for the user in the domain, and claims a slot; both or neither. In the user's
    /// section.
    pub(super) fn claim_counted(
        &self,
        user: &UserId,
        max_managers: usize,
        config: &Config,
    ) -> Result<Result<Starting<'_, Occupants<S>>, Grow>, ReserveError> {
        let claim = || self.slab.start_in_place();
        let claimed = match &self.attached.quotas {
            Some(quotas) => quotas.take(user, max_managers, claim).map_err(|full| match full {
                Full::User => ReserveError::UserFull { max_managers },
                Full::Tenant { max_managers } => ReserveError::TenantFull { max_managers },
            })?,
            None => claim(),
        };
        match claimed {
            Ok(starting) => Ok(Ok(starting)),
            Err(Shortage::Grow) => Ok(Err(Grow)),
            Err(Shortage::Full) => Err(ReserveError::PoolFull { capacity: config.capacity }),
        }
    }

    /// Takes one out of the domain's count of a user who holds a place. In the user's section.
    pub(super) fn uncount(&self, shard: &mut Shard, user: UserRef) {
        if let Some(quotas) = &self.attached.quotas
            && let Some(entry) = shard.holder(user)
            && !fault!("end_not_told_to_the_domain")
        {
            quotas.give(&entry.user);
        }
    }

    /// The policy that answers this refusal: the user's own, else the tenant's, else the pool's. A full
    /// pool ends nobody's connection.
    pub(super) fn at_limit(
        &self,
        user: &UserId,
        rules: UserRules,
        refusal: ReserveError,
        config: &Config,
    ) -> AtLimit {
        match refusal {
            ReserveError::UserFull { .. } | ReserveError::TenantFull { .. } => {
                self.policy_of(user, rules, config)
            }
            _ => AtLimit::Reject,
        }
    }

    pub(super) fn policy_of(&self, user: &UserId, rules: UserRules, config: &Config) -> AtLimit {
        let of_tenant = || self.attached.quotas.as_ref().and_then(|quotas| quotas.policy_of(user));
        rules.at_limit.or_else(of_tenant).unwrap_or(config.at_limit)
    }

    /// No place is left, but the thread is live: its connection's place is claimed. One claim each.
    pub(super) fn inherit(
        &self,
        shard: &Shard,
        isolation_hash: Hash32,
        context: &UserExecutionContext,
        deadline: Timestamp,
        config: &Config,
    ) -> Option<Seat> {
        if config.duplicates != DuplicatePolicy::Replace {
            return None;
        }
        let of = self.twin(shard, isolation_hash, context)?;
        self.claim_place_of(of, deadline, EndReason::Takeover)
    }

    /// No place is left, but the policy makes one: that of the user's oldest, or idlest, connection is
    /// claimed. One in an agent's run only if all are.
    pub(super) fn replace_own(
        &self,
        shard: &Shard,
        user_hash: Hash32,
        context: &UserExecutionContext,
        policy: AtLimit,
        deadline: Timestamp,
    ) -> Option<Seat> {
        if policy == AtLimit::Reject {
            return None;
        }
        let (_, of) = self.next_victim(shard, user_hash, context.user_id(), policy)?;
        self.claim_place_of(of, deadline, EndReason::Limit)
    }

    /// The connection that a policy takes next, and whether it is in a run, as all others are then.
    fn next_victim(
        &self,
        shard: &Shard,
        user_hash: Hash32,
        user: &UserId,
        policy: AtLimit,
    ) -> Option<((bool, Timestamp), Key)> {
        let now = self.clock.now();
        let members = &shard.user(user_hash, user)?.members;
        let rank = |&key: &Key| {
            let is_claimed = self.notes(key, |notes| notes.heir().is_some())?;
            let rank = self.look(key, |manager| forcing_rank(manager, policy, now))?;
            (!is_claimed).then_some((rank, key))
        };
        members.iter().filter_map(rank).min_by_key(|&(rank, _)| rank)
    }

    /// At the opening, with the victim about to end: its thread may have been opened meanwhile, and then
    /// that connection makes room; or the victim is in a run by now, and another is not. An error: the
    /// thread is open, and duplicates are rejected.
    pub(super) fn choose_again(
        &self,
        shard: &Shard,
        seat: &mut Seat,
        isolation_hash: Hash32,
        context: &UserExecutionContext,
    ) -> Result<(), ThreadInUse> {
        let SeatSlot::Heir { of, heir, reason: EndReason::Limit } = seat.slot else { return Ok(()) };
        if self.slab.state(of) != Some(State::Live) || !self.has_heir(of, heir) {
            return Ok(()); // it has ended on its own, or the claim has
        }
        let config = self.settings.load();
        let user_hash = seat.user.hash;
        let rules = shard.rules(user_hash, context.user_id());
        let now = self.clock.now();
        let twin = self.twin(shard, isolation_hash, context);
        let is_in_run = || self.look(of, |manager| manager.is_running(now)) == Some(true);
        let chosen = match (config.duplicates, twin) {
            (DuplicatePolicy::Reject, Some(_)) => return Err(ThreadInUse),
            (DuplicatePolicy::Replace, Some(twin)) => Some((twin, EndReason::Takeover)),
            _ if is_in_run() => {
                let policy = self.policy_of(context.user_id(), rules, &config);
                let next = self.next_victim(shard, user_hash, context.user_id(), policy);
                next.filter(|&((is_running, _), _)| !is_running).map(|(_, key)| (key, EndReason::Limit))
            }
            _ => None,
        };
        if let Some((key, reason)) = chosen {
            let deadline = now.after(config.reservation_deadline);
            // First the new claim: there is none on a twin that somebody else has claimed.
            if let Some(moved) = self.claim_place_of(key, deadline, reason) {
                self.disinherit(of, heir);
                *seat = moved;
            }
        }
        Ok(())
    }

    fn claim_place_of(&self, of: Key, deadline: Timestamp, reason: EndReason) -> Option<Seat> {
        // Relaxed: only uniqueness counts.
        let heir = Heir::new(self.heirs.fetch_add(1, Ordering::Relaxed));
        let user = self.notes(of, |notes| {
            if notes.heir().is_some() {
                return None;
            }
            notes.name_heir(heir, deadline);
            Some(notes.user())
        })??;
        self.slab.arm(of, alarm_at(deadline));
        Some(Seat { user, slot: SeatSlot::Heir { of, heir, reason } })
    }
}

/// Who is forced out first: those outside a run, and of them the oldest, or those idle for longest.
pub(crate) fn forcing_rank(
    manager: &PooledWebSocketManager<'_>,
    policy: AtLimit,
    now: Timestamp,
) -> (bool, Timestamp) {
    let since = match policy {
        AtLimit::EvictIdlest => manager.last_activity(),
        AtLimit::EvictOldest | AtLimit::Reject => manager.opened_at(),
    };
    (manager.is_running(now), since)
}
