//! Who has what: users with their counts and keys, and one isolation entry for each lease.
//!
//! Sharded by user. A shard is a lock around plain hash tables, and everything that begins or ends a
//! user's reservation or lease happens in one section of that user's shard: header, links and counts
//! together. So under the lock every key in a table is `Live`, pinning it succeeds, and the counts
//! are exact. No section takes two shards, calls foreign code, or waits.

use super::ends::Ends;
use super::occupant::alarm_at;
use crate::clock::Timestamp;
use crate::config::{AtLimit, Config};
use crate::control::{Action, AlertLevel, Change, Load, Watch};
use crate::id::UserId;
use crate::slab::{Alarm, Key};
use crate::sync::{Mutex, MutexGuard};
use crossbeam_utils::CachePadded;
use hashbrown::HashTable;
use smallvec::SmallVec;
use std::hash::{BuildHasher, Hash};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// All shards.
pub(super) struct Registry {
    hasher: Hasher,
    shards: Box<[CachePadded<Mutex<Section>>]>,
}

/// Keyed with random numbers of this pool alone, which never leave it: whoever chooses a user's or a
/// thread's name does not know where it goes, and sees no hash to find it out by. (SipHash would stand
/// even against one who sees hashes, and took a tenth of a connection's whole life.)
#[cfg(not(pool_loom))]
type Hasher = foldhash::quality::RandomState;
/// A model must do the same each time it runs.
#[cfg(pool_loom)]
type Hasher = foldhash::quality::FixedState;

/// Slots for each shard, so that a table of one shard grows by at most 64 KiB at a time.
const SLOTS_PER_SHARD: usize = 256;
const MIN_SHARDS: usize = if cfg!(pool_loom) { 1 } else { 16 };
const MAX_SHARDS: usize = 1 << 16;

/// Entries that a shard keeps for its next users, and for how many members each may have room.
const SPARE_ENTRIES: usize = 32;
const SPARE_MEMBERS: usize = 64;

const SPARE_ENTRIES_OF_A_QUIET_SHARD: usize = 2;

/// The members of a list that is longer know their places in it.
const SEARCHED_MEMBERS: usize = 32;

/// A table for no more entries than this is not worth shrinking.
const SMALL_TABLE: usize = 28;

/// A keyed hash of a user, or of a user and a thread. Of two users with the same one, which a million have
/// some hundred times, each is still known by its name and its serial number; so 32 bits are enough, and the
/// slots and tables that hold it are small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hash32(u32);

impl Hash32 {
    /// Over 64 bits, for tables that use the lowest and the highest.
    #[inline]
    pub(super) fn spread(self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Of so many shards, a power of two: by bits between those that tables use.
    #[inline]
    pub(super) fn shard(self, shards: usize) -> usize {
        (self.spread() >> 32) as usize & (shards - 1)
    }

    pub(super) const fn to_bits(self) -> u32 {
        self.0
    }

    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// What a section is in: a shard, and the numbers in force. They lie here so that a section reads them
/// without touching anything that other shards' sections touch; other numbers are put into one shard after
/// the other.
pub(super) struct Section {
    pub(super) config: Arc<Config>,
    pub(super) shard: Shard,
}

#[derive(Default)]
pub(super) struct Shard {
    /// Boxed: of a table's places a third is free, as a rule.
    users: HashTable<Box<UserEntry>>,
    isolation: HashTable<IsolationEntry>,
    rules: HashTable<RuleEntry>,
    /// How these users' last leases ended.
    pub(super) ends: Ends,
    /// Users that went while their level was raised, for those who observe.
    departed: Vec<Departed>,
    #[expect(clippy::vec_box, reason = "they come out of the table as they are, and go back")]
    spare: Vec<Box<UserEntry>>,
    next_serial: u32,
    /// Running sums over the users, so that a check need not visit them.
    reserved: usize,
    live: usize,
}

/// A user with at least one reservation or lease.
pub(super) struct UserEntry {
    hash: Hash32,
    /// Unlike the hash, no two users that a shard knows share it.
    serial: u32,
    pub(super) user: UserId,
    /// Reservations that hold a place in the quota.
    reserved: u32,
    /// The user's live managers.
    pub(super) members: Members,
    /// The monitor's memory of the user, see [`UserEntry::watch`]. It goes with the entry.
    level: AlertLevel,
    sampled_max: u32,
    /// None of the managers is dead before this moment, if not by its own state.
    next_look: Alarm,
    /// A manager may have become dead by its own state, or by the end of a run.
    pub(super) may_be_due: bool,
    /// One clean for a user at a time.
    pub(super) is_cleaning: bool,
    /// When the last emergency clean began.
    pub(super) emergency_at: Timestamp,
}

/// The first two keys lie in the entry itself, where the pointer to more would be.
pub(super) type Members = SmallVec<[Key; 2]>;

/// A user without managers, whose level had been raised.
pub(super) struct Departed {
    pub(super) user: UserId,
    pub(super) level: AlertLevel,
    pub(super) max_managers: usize,
}

/// Of those who went between two samples, so many are told of.
const MAX_DEPARTED: usize = 64;

struct IsolationEntry {
    hash: Hash32,
    key: Key,
}

struct RuleEntry {
    hash: Hash32,
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
    pub(super) hash: Hash32,
    pub(super) serial: u32,
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
    pub(super) fn new(config: &Arc<Config>) -> Self {
        let shards = (config.capacity / SLOTS_PER_SHARD).next_power_of_two().clamp(MIN_SHARDS, MAX_SHARDS);
        let section = || Section { config: config.clone(), shard: Shard::default() };
        Self {
            hasher: Hasher::default(),
            shards: std::iter::repeat_with(|| CachePadded::new(Mutex::new(section()))).take(shards).collect(),
        }
    }

    #[inline]
    pub(super) fn hash(&self, value: &impl Hash) -> Hash32 {
        Hash32(self.hasher.hash_one(value) as u32)
    }

    /// The section of a user. Blocks while another thread is in it; sections are short.
    #[inline]
    pub(super) fn section(&self, user_hash: Hash32) -> MutexGuard<'_, Section> {
        self.shards[user_hash.shard(self.shards.len())].lock()
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
    pub(super) fn for_each_shard(&self, mut visit: impl FnMut(&mut Section)) {
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
                reserved: sum.reserved + shard.users.iter().map(|user| user.reserved as usize).sum::<usize>(),
                live: sum.live + shard.users.iter().map(|user| user.members.len()).sum::<usize>(),
                isolation_keys: sum.isolation_keys + shard.isolation.len(),
            }
        })
    }
}

impl Deref for Section {
    type Target = Shard;

    #[inline]
    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl DerefMut for Section {
    #[inline]
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl Shard {
    pub(super) fn user(&self, hash: Hash32, user: &UserId) -> Option<&UserEntry> {
        self.users.find(hash.spread(), |entry| entry.hash == hash && entry.user == *user).map(Box::as_ref)
    }

    /// Where the user's entry is, until the table changes.
    pub(super) fn find(&self, hash: Hash32, user: &UserId) -> Option<usize> {
        self.users.find_bucket_index(hash.spread(), |entry| entry.hash == hash && entry.user == *user)
    }

    pub(super) fn at(&self, place: usize) -> Option<&UserEntry> {
        self.users.get_bucket(place).map(Box::as_ref)
    }

    /// Counts a reservation for a user, whose entry is at `found` or is made.
    pub(super) fn reserve(&mut self, found: Option<usize>, hash: Hash32, user: &UserId) -> UserRef {
        self.reserved += 1;
        match found.and_then(|place| self.users.get_bucket_mut(place)) {
            Some(entry) => {
                entry.reserved += 1;
                entry.user_ref()
            }
            None => self.enter(hash, user),
        }
    }

    /// Makes the entry of a user who holds one reservation.
    fn enter(&mut self, hash: Hash32, user: &UserId) -> UserRef {
        let Self { users, spare, departed, next_serial, .. } = self;
        *next_serial = next_serial.wrapping_add(1);
        // Back before anybody was told that it went: it takes its level up again.
        let known = departed.iter().position(|gone| gone.user == *user);
        let (level, sampled_max) = known.map_or_else(Default::default, |place| {
            let gone = departed.swap_remove(place);
            (gone.level, gone.max_managers as u32)
        });
        let entry = UserEntry {
            hash,
            serial: *next_serial,
            user: user.clone(),
            reserved: 1,
            members: Members::new(),
            level,
            sampled_max,
            next_look: alarm_at(Timestamp::ZERO),
            may_be_due: false,
            is_cleaning: false,
            emergency_at: Timestamp::ZERO,
        };
        let user = entry.user_ref();
        let entry = match spare.pop() {
            Some(mut kept) => {
                let members = std::mem::take(&mut kept.members);
                *kept = UserEntry { members, ..entry };
                kept
            }
            None => Box::new(entry),
        };
        users.insert_unique(hash.spread(), entry, |entry| entry.hash.spread());
        user
    }

    /// The entry of a place that is held, and so exists.
    pub(super) fn holder(&mut self, user: UserRef) -> Option<&mut UserEntry> {
        self.users
            .find_mut(user.hash.spread(), |entry| entry.hash == user.hash && entry.serial == user.serial)
            .map(Box::as_mut)
    }

    pub(super) fn user_mut(&mut self, hash: Hash32, user: &UserId) -> Option<&mut UserEntry> {
        self.users.find_mut(hash.spread(), |entry| entry.hash == hash && entry.user == *user).map(Box::as_mut)
    }

    /// Every user, with what is set for it alone.
    pub(super) fn for_each_user(&mut self, mut visit: impl FnMut(&mut UserEntry, UserRules)) {
        let Self { users, rules, .. } = self;
        for entry in users.iter_mut().map(Box::as_mut) {
            let own =
                rules.find(entry.hash.spread(), |rule| rule.hash == entry.hash && rule.user == entry.user);
            visit(entry, own.map_or(UserRules::default(), |rule| rule.rules));
        }
    }

    /// Those who went since the last call, with a raised level.
    pub(super) fn take_departed(&mut self) -> Vec<Departed> {
        std::mem::take(&mut self.departed)
    }

    /// Takes a reservation out of the count.
    pub(super) fn unreserve(&mut self, user: UserRef) {
        self.change(user, |entry| entry.reserved -= 1);
    }

    /// Changes the entry of a place that is held, and forgets a user that has no place left.
    fn change(&mut self, user: UserRef, change: impl FnOnce(&mut UserEntry)) {
        let UserRef { hash, serial } = user;
        let found =
            self.users.find_entry(hash.spread(), |entry| entry.hash == hash && entry.serial == serial);
        let Ok(mut occupied) = found else { return };
        let entry = occupied.get_mut();
        let (live, reserved) = (entry.members.len(), entry.reserved);
        change(entry);
        self.live = self.live - live + entry.members.len();
        self.reserved = self.reserved - reserved as usize + entry.reserved as usize;
        if entry.count() > 0 {
            return;
        }
        let (mut entry, _) = occupied.remove();
        let Watch { level, max: max_managers } = entry.watch();
        if level > AlertLevel::Normal && self.departed.len() < MAX_DEPARTED {
            self.departed.push(Departed { user: entry.user.clone(), level, max_managers });
        }
        if self.spare.len() < SPARE_ENTRIES {
            entry.members.clear();
            if entry.members.capacity() > SPARE_MEMBERS {
                entry.members = Members::new();
            }
            self.spare.push(entry);
        }
    }

    /// Turns a user's reservation into a lease, in both tables. Returns its place in the user's list.
    pub(super) fn link(&mut self, user: UserRef, isolation_hash: Hash32, key: Key) -> Option<usize> {
        let link = IsolationEntry { hash: isolation_hash, key };
        self.isolation.insert_unique(isolation_hash.spread(), link, |entry| entry.hash.spread());
        let entry = self.holder(user)?;
        entry.reserved -= 1;
        entry.members.push(key);
        let place = entry.members.len() - 1;
        self.reserved -= 1;
        self.live += 1;
        Some(place)
    }

    /// Takes a lease out of both tables; if it has an heir, its place counts as reserved from now on. Returns
    /// the member whose place in the user's list has become the lease's, if it is to be told.
    pub(super) fn unlink(
        &mut self,
        user: UserRef,
        isolation_hash: Option<Hash32>,
        key: Key,
        place: usize,
        has_heir: bool,
    ) -> Option<Key> {
        // By the key: another connection of the same thread has an entry under the same hash.
        let is_ours = |entry: &IsolationEntry| fault!("unlink_by_isolation_key") || entry.key == key;
        if let Some(hash) = isolation_hash
            && let Ok(entry) = self.isolation.find_entry(hash.spread(), is_ours)
        {
            entry.remove();
        }
        let mut moved = None;
        self.change(user, |entry| {
            entry.reserved += u32::from(has_heir);
            let members = &mut entry.members;
            // A short list is searched instead of telling each member where it is.
            let is_there = members.get(place) == Some(&key);
            let place = if is_there { Some(place) } else { members.iter().position(|&member| member == key) };
            let Some(place) = place.filter(|_| !fault!("dead_references_counted")) else { return };
            members.swap_remove(place);
            if members.len() > SEARCHED_MEMBERS {
                moved = members.get(place).copied();
            }
        });
        moved
    }

    /// The keys under an isolation hash. Different pairs may share a hash: compare the ids as well.
    pub(super) fn same_isolation_hash(&self, hash: Hash32) -> impl Iterator<Item = Key> {
        self.isolation.iter_hash(hash.spread()).filter(move |entry| entry.hash == hash).map(|entry| entry.key)
    }

    fn shrink(&mut self) {
        shrink_table(&mut self.users, |entry| entry.hash.spread());
        shrink_table(&mut self.isolation, |entry| entry.hash.spread());
        shrink_table(&mut self.rules, |entry| entry.hash.spread());
        self.spare.truncate(self.users.len().max(SPARE_ENTRIES_OF_A_QUIET_SHARD));
    }

    /// What is set for a single user.
    pub(super) fn rules(&self, hash: Hash32, user: &UserId) -> UserRules {
        if self.rules.is_empty() {
            return UserRules::default();
        }
        let entry = self.rules.find(hash.spread(), |entry| entry.hash == hash && entry.user == *user);
        entry.map_or(UserRules::default(), |entry| entry.rules)
    }

    pub(super) fn change_rules(&mut self, hash: Hash32, user: &UserId, change: impl FnOnce(&mut UserRules)) {
        let mut rules = self.rules(hash, user);
        change(&mut rules);
        if let Ok(entry) =
            self.rules.find_entry(hash.spread(), |entry| entry.hash == hash && entry.user == *user)
        {
            entry.remove();
        }
        if rules != UserRules::default() {
            let entry = RuleEntry { hash, user: user.clone(), rules };
            self.rules.insert_unique(hash.spread(), entry, |entry| entry.hash.spread());
        }
    }
}

impl UserEntry {
    /// Whether the user's dead are to be looked for before another reservation, or its level has changed.
    pub(super) fn needs_clean(&self, load: Load, now: Timestamp, config: &Config) -> bool {
        let is_proactive = load.is_proactive(config) && !fault!("never_proactive");
        is_proactive && (self.may_have_dead(now) || self.watch().sample(load, config).0.is_some())
    }

    /// Whether any of the user's managers can be dead by now.
    pub(super) fn may_have_dead(&self, now: Timestamp) -> bool {
        let is_flagged = self.may_be_due && !fault!("flag_not_looked_at");
        (is_flagged || self.next_look.has_come(alarm_at(now))) && !fault!("never_proactive")
    }

    /// None of the managers is dead before this moment, if not by its own state.
    pub(super) fn look_at(&mut self, moment: Timestamp) {
        self.next_look = alarm_at(moment);
    }

    /// The monitor's memory of the user.
    pub(super) fn watch(&self) -> Watch {
        Watch { level: self.level, max: self.sampled_max as usize }
    }

    /// The monitor takes a sample of the user.
    pub(super) fn sample(&mut self, load: Load, config: &Config) -> (Option<Change>, Action) {
        let mut watch = self.watch();
        let sampled = watch.sample(load, config);
        // A user has no more managers than a pool has slots.
        (self.level, self.sampled_max) = (watch.level, watch.max.min(u32::MAX as usize) as u32);
        sampled
    }

    /// Places that the user holds.
    pub(super) fn count(&self) -> usize {
        self.reserved as usize + self.members.len()
    }

    pub(super) fn user_ref(&self) -> UserRef {
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

#[cfg(all(test, not(pool_loom)))]
mod tests {
    use super::*;
    use crate::id::UserId;
    use std::collections::HashMap;

    /// Whoever chooses names chooses neither one shard nor one place in its table.
    #[test]
    fn names_that_look_alike_go_to_places_that_do_not() {
        const NAMES: usize = 65_536;
        const SHARDS: usize = 256;
        let names = |number: usize| {
            let prefix = ["", "a", "aaaaaaaaaaaaaaaa"][number % 3];
            let fill = "x".repeat(number % 7 * 16);
            UserId::new(format!("{prefix}{number:08}{fill}")).expect("a valid name")
        };
        let [one, other] = [Hasher::default(), Hasher::default()];
        let hash = |hasher: &Hasher, name: &UserId| Hash32(hasher.hash_one(name) as u32);
        let (mut shards, mut hashes, mut same) = ([0_usize; SHARDS], HashMap::<_, usize>::new(), 0);
        for name in (0..NAMES).map(names) {
            let place = hash(&one, &name);
            shards[place.shard(SHARDS)] += 1;
            *hashes.entry(place.to_bits()).or_default() += 1;
            same += usize::from(place == hash(&other, &name));
        }
        // 256 each on the average, so a deviation of 16; nine of them are out of the question.
        let fullest = shards.iter().max().copied().unwrap_or_default();
        assert!(fullest < NAMES / SHARDS + 9 * 16, "{fullest} names in one shard");
        let alike = hashes.values().max().copied().unwrap_or_default();
        assert!(alike <= 3, "{alike} names of one hash");
        assert!(same < 10, "two pools have one key: {same} names lie alike");
    }
}
