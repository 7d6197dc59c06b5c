//! Who has what: users with their counts and keys, and one isolation entry for each lease.
//!
//! Sharded by user. A shard is a lock around plain hash tables, and everything that begins or ends a
//! user's reservation or lease happens in one section of that user's shard: header, links and counts
//! together. So under the lock every key in a table is `Live`, pinning it succeeds, and the counts
//! are exact. No section takes two shards, calls foreign code, or waits.

use super::ends::Ends;
use crate::clock::Timestamp;
use crate::config::{AtLimit, Config};
use crate::control::{AlertLevel, Load, Watch};
use crate::id::UserId;
use crate::slab::Key;
use crate::sync::{Mutex, MutexGuard};
use crossbeam_utils::CachePadded;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hash};

/// All shards.
pub(super) struct Registry {
    hasher: Hasher,
    shards: Box<[CachePadded<Mutex<Shard>>]>,
}

#[cfg(not(pool_loom))]
type Hasher = std::hash::RandomState;
/// A model must do the same each time it runs.
#[cfg(pool_loom)]
type Hasher = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

/// Slots for each shard, so that a table of one shard grows by at most 64 KiB at a time.
const SLOTS_PER_SHARD: usize = 256;
const MIN_SHARDS: usize = if cfg!(pool_loom) { 1 } else { 16 };
const MAX_SHARDS: usize = 1 << 16;

/// Emptied member lists that a shard keeps for its next users, and how long each may be.
const SPARE_LISTS: usize = 32;
const SPARE_MEMBERS: usize = 64;

const SPARE_LISTS_OF_A_QUIET_SHARD: usize = 2;

/// A table for no more entries than this is not worth shrinking.
const SMALL_TABLE: usize = 28;

#[derive(Default)]
pub(super) struct Shard {
    users: HashTable<UserEntry>,
    isolation: HashTable<IsolationEntry>,
    rules: HashTable<RuleEntry>,
    /// How these users' last leases ended.
    pub(super) ends: Ends,
    /// Users that went while their level was raised, for those who observe.
    departed: Vec<Departed>,
    spare: Vec<Vec<Key>>,
    next_serial: u64,
    /// Running sums over the users, so that a check need not visit them.
    reserved: usize,
    live: usize,
}

/// A user with at least one reservation or lease.
pub(super) struct UserEntry {
    hash: u64,
    /// Unlike the hash, no two users of a shard ever share it.
    pub(super) serial: u64,
    pub(super) user: UserId,
    /// Reservations that hold a place in the quota.
    reserved: usize,
    /// The user's live managers.
    pub(super) members: Vec<Key>,
    /// The monitor's memory of the user. It goes with the entry.
    pub(super) watch: Watch,
    /// None of the managers is dead before this moment, if not by its own state.
    pub(super) next_look: Timestamp,
    /// A manager may have become dead by its own state, or by the end of a run.
    pub(super) may_be_due: bool,
    /// One clean for a user at a time.
    pub(super) is_cleaning: bool,
    /// When the last emergency clean began.
    pub(super) emergency_at: Timestamp,
}

/// A user without managers, whose level had been raised.
pub(super) struct Departed {
    pub(super) user: UserId,
    pub(super) level: AlertLevel,
    pub(super) max_managers: usize,
}

/// Of those who went between two samples, so many are told of.
const MAX_DEPARTED: usize = 64;

struct IsolationEntry {
    hash: u64,
    key: Key,
}

struct RuleEntry {
    hash: u64,
    user: UserId,
    rules: UserRules,
}

/// What is set for a single user, over what is configured for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UserRules {
    pub(crate) max_managers: Option<usize>,
    pub(crate) at_limit: Option<AtLimit>,
}

/// Where a user's entry is: hash for the shard and the table, serial for certainty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserRef {
    pub(super) hash: u64,
    pub(super) serial: u64,
}

/// What the tables hold, for the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) users: usize,
    pub(super) reserved: usize,
    pub(super) live: usize,
    pub(super) isolation_keys: usize,
}

impl Registry {
    pub(super) fn new(capacity: usize) -> Self {
        let shards = (capacity / SLOTS_PER_SHARD).next_power_of_two().clamp(MIN_SHARDS, MAX_SHARDS);
        Self {
            hasher: Hasher::default(),
            shards: std::iter::repeat_with(CachePadded::default).take(shards).collect(),
        }
    }

    pub(super) fn hash(&self, value: &impl Hash) -> u64 {
        self.hasher.hash_one(value)
    }

    /// The section of a user. Blocks while another thread is in it; sections are short.
    #[inline]
    pub(super) fn section(&self, user_hash: u64) -> MutexGuard<'_, Shard> {
        // The tables go by the lowest and the highest bits, so the shard goes by those between.
        self.shards[(user_hash >> 32) as usize & (self.shards.len() - 1)].lock()
    }

    /// Gives back the memory that the tables keep from a peak, one shard after the other.
    pub(super) fn shrink(&self) {
        self.shards.iter().for_each(|shard| shard.lock().shrink());
    }

    /// Waits until every section that was running has ended.
    pub(super) fn pass_through(&self) {
        self.shards.iter().for_each(|shard| drop(shard.lock()));
    }

    /// Visits every shard, one after the other, each in its section.
    pub(super) fn for_each_shard(&self, mut visit: impl FnMut(&mut Shard)) {
        self.shards.iter().for_each(|shard| visit(&mut shard.lock()));
    }

    /// The running sums, which visit no user.
    pub(super) fn running_totals(&self) -> Totals {
        self.shards.iter().fold(Totals::default(), |sum, shard| {
            let shard = shard.lock();
            Totals {
                users: sum.users + shard.users.len(),
                reserved: sum.reserved + shard.reserved,
                live: sum.live + shard.live,
                isolation_keys: sum.isolation_keys + shard.isolation.len(),
            }
        })
    }

    /// Adds up the tables, one shard after the other.
    pub(super) fn totals(&self) -> Totals {
        self.shards.iter().fold(Totals::default(), |sum, shard| {
            let shard = shard.lock();
            Totals {
                users: sum.users + shard.users.len(),
                reserved: sum.reserved + shard.users.iter().map(|user| user.reserved).sum::<usize>(),
                live: sum.live + shard.users.iter().map(|user| user.members.len()).sum::<usize>(),
                isolation_keys: sum.isolation_keys + shard.isolation.len(),
            }
        })
    }
}

impl Shard {
    pub(super) fn user(&self, hash: u64, user: &UserId) -> Option<&UserEntry> {
        self.users.find(hash, |entry| entry.hash == hash && entry.user == *user)
    }

    /// The user's entry, made if there is none. An entry without a place is to be [`Shard::leave`]d
    /// before the section ends.
    pub(super) fn enter(&mut self, hash: u64, user: &UserId) -> &mut UserEntry {
        let Self { users, spare, departed, next_serial, .. } = self;
        let is_user = |entry: &UserEntry| entry.hash == hash && entry.user == *user;
        users
            .entry(hash, is_user, |entry| entry.hash)
            .or_insert_with(|| {
                *next_serial += 1;
                let members = spare.pop().unwrap_or_default();
                // Back before anybody was told that it went: it takes its level up again.
                let known = departed.iter().position(|gone| gone.user == *user);
                let watch = known.map_or(Watch::default(), |place| {
                    let gone = departed.swap_remove(place);
                    Watch { level: gone.level, max: gone.max_managers }
                });
                UserEntry {
                    hash,
                    serial: *next_serial,
                    user: user.clone(),
                    reserved: 0,
                    members,
                    watch,
                    next_look: Timestamp::ZERO,
                    may_be_due: false,
                    is_cleaning: false,
                    emergency_at: Timestamp::ZERO,
                }
            })
            .into_mut()
    }

    /// The entry of a place that is held, and so exists.
    pub(super) fn holder(&mut self, user: UserRef) -> Option<&mut UserEntry> {
        self.users.find_mut(user.hash, |entry| entry.hash == user.hash && entry.serial == user.serial)
    }

    pub(super) fn user_mut(&mut self, hash: u64, user: &UserId) -> Option<&mut UserEntry> {
        self.users.find_mut(hash, |entry| entry.hash == hash && entry.user == *user)
    }

    /// Every user, with what is set for it alone.
    pub(super) fn for_each_user(&mut self, mut visit: impl FnMut(&mut UserEntry, UserRules)) {
        let Self { users, rules, .. } = self;
        for entry in users.iter_mut() {
            let own = rules.find(entry.hash, |rule| rule.hash == entry.hash && rule.user == entry.user);
            visit(entry, own.map_or(UserRules::default(), |rule| rule.rules));
        }
    }

    /// Those who went since the last call, with a raised level.
    pub(super) fn take_departed(&mut self) -> Vec<Departed> {
        std::mem::take(&mut self.departed)
    }

    /// Counts a reservation for a user whose entry exists.
    pub(super) fn add_reserved(&mut self, user: UserRef) {
        if let Some(entry) = self.holder(user) {
            entry.reserved += 1;
            self.reserved += 1;
        }
    }

    /// Takes a reservation out of the count.
    pub(super) fn remove_reserved(&mut self, user: UserRef) {
        if let Some(entry) = self.holder(user) {
            entry.reserved -= 1;
            self.reserved -= 1;
        }
    }

    /// Forgets a user that has no place left.
    pub(super) fn leave(&mut self, user: UserRef) {
        let is_user = |entry: &UserEntry| entry.hash == user.hash && entry.serial == user.serial;
        let Ok(occupied) = self.users.find_entry(user.hash, is_user) else { return };
        if occupied.get().count() > 0 {
            return;
        }
        let (entry, _) = occupied.remove();
        let level = entry.watch.level;
        if level > AlertLevel::Normal && self.departed.len() < MAX_DEPARTED {
            let max_managers = entry.watch.max;
            self.departed.push(Departed { user: entry.user, level, max_managers });
        }
        let mut members = entry.members;
        if self.spare.len() < SPARE_LISTS && members.capacity() <= SPARE_MEMBERS {
            members.clear();
            self.spare.push(members);
        }
    }

    /// Turns a user's reservation into a lease, in both tables. Returns its place in the user's list.
    pub(super) fn link(&mut self, user: UserRef, isolation_hash: u64, key: Key) -> Option<usize> {
        self.isolation
            .insert_unique(isolation_hash, IsolationEntry { hash: isolation_hash, key }, |entry| entry.hash);
        self.remove_reserved(user);
        let entry = self.holder(user)?;
        entry.members.push(key);
        let place = entry.members.len() - 1;
        self.live += 1;
        Some(place)
    }

    /// Takes a lease out of both tables. Returns the member that moved into its place, if any.
    pub(super) fn unlink(
        &mut self,
        user: UserRef,
        isolation_hash: u64,
        key: Key,
        place: usize,
    ) -> Option<Key> {
        // By the key: another connection of the same thread has an entry under the same hash.
        let is_ours = |entry: &IsolationEntry| cfg!(fault = "unlink_by_isolation_key") || entry.key == key;
        if let Ok(entry) = self.isolation.find_entry(isolation_hash, is_ours) {
            entry.remove();
        }
        let members = &mut self.holder(user)?.members;
        let is_listed = members.get(place) == Some(&key) && !cfg!(fault = "dead_references_counted");
        if is_listed {
            members.swap_remove(place);
        }
        let moved = members.get(place).copied();
        self.live -= usize::from(is_listed);
        moved
    }

    /// The keys under an isolation hash. Different pairs may share a hash: compare the ids as well.
    pub(super) fn same_isolation_hash(&self, hash: u64) -> impl Iterator<Item = Key> {
        self.isolation.iter_hash(hash).filter(move |entry| entry.hash == hash).map(|entry| entry.key)
    }

    fn shrink(&mut self) {
        shrink_table(&mut self.users, |entry| entry.hash);
        shrink_table(&mut self.isolation, |entry| entry.hash);
        shrink_table(&mut self.rules, |entry| entry.hash);
        self.spare.truncate(self.users.len().max(SPARE_LISTS_OF_A_QUIET_SHARD));
    }

    /// What is set for a single user.
    pub(super) fn rules(&self, hash: u64, user: &UserId) -> UserRules {
        let entry = self.rules.find(hash, |entry| entry.hash == hash && entry.user == *user);
        entry.map_or(UserRules::default(), |entry| entry.rules)
    }

    pub(super) fn change_rules(&mut self, hash: u64, user: &UserId, change: impl FnOnce(&mut UserRules)) {
        let mut rules = self.rules(hash, user);
        change(&mut rules);
        if let Ok(entry) = self.rules.find_entry(hash, |entry| entry.hash == hash && entry.user == *user) {
            entry.remove();
        }
        if rules != UserRules::default() {
            let entry = RuleEntry { hash, user: user.clone(), rules };
            self.rules.insert_unique(hash, entry, |entry| entry.hash);
        }
    }
}

impl UserEntry {
    /// Whether the user's dead are to be looked for before another reservation, or its level has changed.
    pub(super) fn needs_clean(&self, load: Load, now: Timestamp, config: &Config) -> bool {
        let is_proactive = load.is_proactive(config) && !cfg!(fault = "never_proactive");
        is_proactive && (self.may_have_dead(now) || { self.watch }.sample(load, config).0.is_some())
    }

    /// Whether any of the user's managers can be dead by now.
    pub(super) fn may_have_dead(&self, now: Timestamp) -> bool {
        let is_flagged = self.may_be_due && !cfg!(fault = "flag_not_looked_at");
        (is_flagged || now >= self.next_look) && !cfg!(fault = "never_proactive")
    }

    /// Places that the user holds.
    pub(super) fn count(&self) -> usize {
        self.reserved + self.members.len()
    }

    pub(super) fn as_ref(&self) -> UserRef {
        UserRef { hash: self.hash, serial: self.serial }
    }
}

/// Shrinks a table that is less than an eighth full, to twice what it holds, so that a breathing load
/// does not thrash.
pub(super) fn shrink_table<T>(table: &mut HashTable<T>, hash: impl Fn(&T) -> u64) {
    if table.capacity() > SMALL_TABLE && table.len() < table.capacity() / 8 {
        table.shrink_to((2 * table.len()).max(SMALL_TABLE / 2), hash);
    }
}
