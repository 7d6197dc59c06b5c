//! The double's account: the same figures from the same sources, read under the lock.

use super::life::Life;
use super::state::{Holder, State};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::control::AlertLevel;
use crate::id::UserId;
use crate::pool::{End, Ledger, MAX_SUSPECTS, ManagerSnapshot, PoolSnapshot, Suspect, Suspicion, Verdict};
use crate::slab::Key;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

impl State {
    pub(super) fn ledger(&self) -> Ledger {
        let tally = self.tally.clone();
        let leases = tally.opened.saturating_sub(tally.ended) as usize;
        let over = tally.opened + tally.given_back + tally.expired;
        let reserved = tally.reserved.saturating_sub(over) as usize;
        let members: usize = self.users.values().map(|user| user.members.len()).sum();
        let users_reserved: usize = self.users.values().map(|user| user.reserved).sum();
        let is_live = |holder: &Holder| matches!(holder, Holder::Live { .. });
        let live_slots = self.slots.iter().filter(|slot| is_live(&slot.holder)).count();
        let occupied_slots = self.occupied();
        let is_balanced = leases == members
            && leases == live_slots
            && reserved == users_reserved
            && reserved + live_slots == occupied_slots;
        Ledger {
            leases,
            users_sum: users_reserved + members,
            reserved,
            occupied_slots,
            live_slots,
            closing: 0,
            isolation_keys: members,
            quarantined: 0,
            tally,
            verdict: if is_balanced { Verdict::Balanced } else { Verdict::Unbalanced },
            balanced: is_balanced,
        }
    }

    /// The figures, as far as the state knows them: without name and observer.
    pub(super) fn snapshot(&self) -> PoolSnapshot {
        let ledger = self.ledger();
        let version = self.settings.current();
        let config = &version.config;
        let now = self.clock.now();
        PoolSnapshot {
            name: String::new(),
            live: ledger.leases,
            capacity: config.capacity,
            users: self.users.len(),
            reserved: ledger.reserved,
            closing: ledger.closing,
            free: config.capacity - self.occupied(),
            waiting: self.waiting(),
            refused: self.refused,
            mismatches: self.mismatches,
            outbound_bytes: self.room.budget.taken(),
            inbound: self.room.bytes.figures(),
            delivery: self.delivery,
            agents: self.thread_figures(),
            draining: self.is_draining,
            level: self.schedule.pool.level,
            users_by_level: self.users_by_level(),
            maintenance: self.schedule.status(now, config),
            cleanups: self.cleanups.read(),
            observer_panics: 0,
            suspects: self.suspects(now, config),
            config: version,
            ledger,
        }
    }

    fn users_by_level(&self) -> BTreeMap<AlertLevel, usize> {
        let mut users: BTreeMap<_, _> = AlertLevel::ALL.map(|level| (level, 0)).into();
        for user in self.users.values() {
            *users.entry(user.watch.level).or_default() += 1;
        }
        users
    }

    fn suspects(&self, now: Timestamp, config: &Config) -> Vec<Suspect> {
        let suspect = |(key, life): (Key, &Arc<Life>)| {
            let opened = life.glance.opened_at();
            let silence = now.since(life.glance.last_poll().unwrap_or(opened));
            let suspicion = if silence >= config.suspect_silence {
                Suspicion::Silent
            } else if now.since(opened) >= config.suspect_age {
                Suspicion::Old
            } else {
                return None;
            };
            let manager = life.read(|manager| ManagerSnapshot::of(key, manager, now))?;
            Some(Suspect { suspicion, silent_ms: silence.as_millis() as u64, manager })
        };
        let mut suspects: Vec<_> = self.lives().filter_map(suspect).collect();
        suspects.sort_by_key(|suspect| Reverse(suspect.silent_ms));
        suspects.truncate(MAX_SUSPECTS);
        suspects
    }

    /// How a user's last leases ended, the latest first.
    pub(super) fn last_ends_of(&self, user: &UserId) -> Vec<End> {
        self.ends.iter().rev().filter(|end| end.user_id == *user).cloned().collect()
    }

    /// How the last leases ended, the latest first.
    pub(super) fn last_ends(&self, limit: usize) -> Vec<End> {
        self.ends.iter().rev().take(limit).cloned().collect()
    }
}
