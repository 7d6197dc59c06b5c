//! What the double's tables say, and what is set in them from outside.

use super::life::Life;
use super::state::{Claim, Holder, Seat, Slot, State, key, next};
use crate::config::{AtLimit, Config};
use crate::control::Load;
use crate::error::ReserveError;
use crate::id::{IsolationKey, UserExecutionContext, UserId};
use crate::manager::PooledWebSocketManager;
use crate::pool::{ENDS_PER_USER, End, UserRules};
use crate::reason::EndReason;
use crate::slab::Key;
use std::sync::Arc;

/// Ends that are remembered of all users together.
const ENDS: usize = 512;

impl State {
    /// The parts of a live manager; `None` if the key is stale.
    pub(super) fn life(&self, key: Key) -> Option<&Arc<Life>> {
        match &self.slot(key)?.holder {
            Holder::Live { life, .. } => Some(life),
            _ => None,
        }
    }

    /// Reads a live manager; `None` if the key is stale.
    pub(super) fn read<T>(&self, key: Key, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Option<T> {
        self.life(key)?.read(f)
    }

    /// All live managers, in the order of their slots.
    pub(super) fn lives(&self) -> impl Iterator<Item = (Key, &Arc<Life>)> {
        self.keys().filter_map(|(key, slot)| match &slot.holder {
            Holder::Live { life, .. } => Some((key, life)),
            _ => None,
        })
    }

    pub(super) fn keys_of(&self, user: &UserId) -> &[Key] {
        self.users.get(user).map_or(&[], |user| &user.members)
    }

    /// The connections of a user's thread. A user who has connections, but none of this thread,
    /// counts as a mismatch.
    pub(super) fn address(&mut self, to: &IsolationKey) -> Vec<Key> {
        let members = self.keys_of(to.user_id());
        let is_addressed =
            |key: &&Key| self.read(**key, |manager| manager.thread_id() == to.thread_id()) == Some(true);
        let addressed: Vec<_> = members.iter().filter(is_addressed).copied().collect();
        if addressed.is_empty() && !members.is_empty() {
            self.mismatches += 1;
        }
        addressed
    }

    /// The first live lease of the same user and thread.
    pub(super) fn twin(&self, context: &UserExecutionContext) -> Option<Key> {
        let is_twin =
            |key: &&Key| self.read(**key, |manager| manager.thread_id() == context.thread_id()) == Some(true);
        self.keys_of(context.user_id()).iter().find(is_twin).copied()
    }

    /// The slot that a seat holds, if it still does.
    pub(super) fn reserved_key(&self, seat: Seat) -> Option<Key> {
        let (key, owed) = match seat {
            Seat::Own(key) => (key, None),
            Seat::Heir { of, claim, .. } => (key(of.index(), next(of.generation())), Some(claim)),
        };
        match self.slot(key)?.holder {
            Holder::Reserved { claim, .. } if owed.is_none() || claim == owed => Some(key),
            _ => None,
        }
    }

    pub(super) fn is_heir(&self, of: Key, claim: Claim) -> bool {
        let holder = self.slot(of).map(|slot| &slot.holder);
        matches!(holder, Some(Holder::Live { heir: Some((named, _)), .. }) if *named == claim)
    }

    pub(super) fn slot(&self, key: Key) -> Option<&Slot> {
        self.slots.get(key.index() as usize).filter(|slot| slot.generation == key.generation())
    }

    pub(super) fn holder_mut(&mut self, key: Key) -> Option<&mut Holder> {
        let slot = self.slots.get_mut(key.index() as usize)?;
        (slot.generation == key.generation()).then_some(&mut slot.holder)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (Key, &Slot)> {
        self.slots.iter().enumerate().map(|(index, slot)| (slot.key(index as u32), slot))
    }

    pub(super) fn occupied(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn load_of(&self, user: &UserId, config: &Config) -> Load {
        let max = self.rules_of(user).max_managers.unwrap_or(config.max_managers_per_user);
        Load { count: self.users.get(user).map_or(0, |user| user.count()), max }
    }

    /// What happens at the user's limit: as is set for the user, else the tenant, else all.
    pub(super) fn policy_of(&self, user: &UserId, config: &Config) -> AtLimit {
        let of_tenant = || self.quotas.as_ref().and_then(|quotas| quotas.policy_of(user));
        self.rules_of(user).at_limit.or_else(of_tenant).unwrap_or(config.at_limit)
    }

    fn rules_of(&self, user: &UserId) -> UserRules {
        self.rules.get(user).copied().unwrap_or_default()
    }

    /// Sets something for a single user.
    pub(super) fn change_rules(&mut self, user: &UserId, change: impl FnOnce(&mut UserRules)) {
        change(self.rules.entry(user.clone()).or_default());
        self.rules.retain(|_, rules| *rules != UserRules::default());
        self.place_freed();
    }

    pub(super) fn start_drain(&mut self) {
        self.is_draining = true;
        self.serve();
    }

    pub(super) fn refused(&mut self, error: ReserveError) {
        *match error {
            ReserveError::UserFull { .. } => &mut self.refused.user_full,
            ReserveError::TenantFull { .. } => &mut self.refused.tenant_full,
            ReserveError::PoolFull { .. } => &mut self.refused.pool_full,
            ReserveError::ThreadInUse => &mut self.refused.thread_in_use,
            ReserveError::Draining => &mut self.refused.draining,
            ReserveError::SessionPanicked => &mut self.refused.session_panicked,
        } += 1;
    }

    /// Why a lease is over, as far as that is still known.
    pub(super) fn last_end(&self, key: Key) -> Option<EndReason> {
        let (ended, reason) = self.slots.get(key.index() as usize)?.last_end?;
        (ended == key).then_some(reason)
    }

    /// Adds to the last ends, and forgets the oldest of the user, or of all, if they are too many.
    pub(super) fn remember(&mut self, end: End) {
        let of_user = |known: &&End| known.user_id == end.user_id;
        let is_full_of_user = self.ends.iter().filter(of_user).count() >= ENDS_PER_USER;
        let oldest = if is_full_of_user {
            self.ends.iter().position(|known| known.user_id == end.user_id)
        } else {
            (self.ends.len() >= ENDS).then_some(0)
        };
        if let Some(oldest) = oldest {
            self.ends.remove(oldest);
        }
        self.ends.push(end);
    }
}
