//! The pool, seen from outside.

use super::Pool;
use super::core::Core;
use super::deliveries::DeliveryFigures;
use super::events::ThreadFigures;
use super::ledger::{Ledger, Refusals};
use super::maintenance::MaintenanceStatus;
use super::metrics::CleanupMetrics;
use super::settings::ConfigVersion;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::control::AlertLevel;
use crate::manager::{InboundFigures, ManagerState, PooledWebSocketManager, Session};
use crate::slab::{Cursor, Key, State};
use crate::sync::Ordering;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The pool's figures at a moment. They are read one after the other while connections come and go;
/// the ledger's verdict says whether they fit together.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolSnapshot {
    /// The pool's name.
    pub name: String,
    /// Open leases.
    pub live: usize,
    /// Managers that there can be.
    pub capacity: usize,
    /// Users with at least one reservation or lease.
    pub users: usize,
    /// Places held by handshakes.
    pub reserved: usize,
    /// Slots that wait for their last reader.
    pub closing: usize,
    /// Managers that could still be reserved.
    pub free: usize,
    /// Those who wait for a place.
    pub waiting: usize,
    /// Reservations refused since the pool was built.
    pub refused: Refusals,
    /// Operations that named a user with connections, but a thread without one.
    pub mismatches: u64,
    /// Bytes queued for sending, to a few kilobytes.
    pub outbound_bytes: usize,
    /// Buffers that sockets are read into.
    pub inbound: InboundFigures,
    /// What became of the messages.
    pub delivery: DeliveryFigures,
    /// Threads with numbered events, and the runs in progress.
    pub agents: ThreadFigures,
    /// New connections are refused because the server is about to end.
    pub draining: bool,
    /// How full the pool was at the monitor's last sample.
    pub level: AlertLevel,
    /// Users at each level at the monitor's last look at them.
    pub users_by_level: BTreeMap<AlertLevel, usize>,
    /// Whether anybody looks after the pool.
    pub maintenance: MaintenanceStatus,
    /// How the cleaning goes, by operation.
    pub cleanups: Vec<CleanupMetrics>,
    /// Calls of the observer that ended in a panic.
    pub observer_panics: u64,
    /// The configuration in force.
    pub config: ConfigVersion,
    /// See [`PoolSnapshot::suspects`].
    pub(crate) suspects: Vec<Suspect>,
    /// The running account.
    pub ledger: Ledger,
}

impl PoolSnapshot {
    /// Leases that may have been leaked: older than [`crate::Config::suspect_age`], or not asked about
    /// by their owner for [`crate::Config::suspect_silence`]; each with the place in the program that
    /// made it. The longest silent first, up to a hundred.
    pub fn suspects(&self) -> &[Suspect] {
        &self.suspects
    }
}

/// A lease that may have been leaked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Suspect {
    /// What is suspicious.
    pub suspicion: Suspicion,
    /// Milliseconds since its owner asked for messages, or ran.
    pub silent_ms: u64,
    /// The manager, with its age, its last activity and the place that made it.
    pub manager: ManagerSnapshot,
}

/// Why a lease is a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Suspicion {
    /// Its owner has not run for long: it hangs, or the lease was forgotten.
    Silent,
    /// It is open for very long.
    Old,
}

/// One manager's figures at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ManagerSnapshot {
    /// The manager's key, as shown.
    pub key: String,
    /// Whose it is.
    pub user_id: String,
    /// The user's thread.
    pub thread_id: String,
    /// The run that opened it.
    pub run_id: String,
    /// Where it is in its life.
    pub state: ManagerState,
    /// Milliseconds since it was opened.
    pub age_ms: u64,
    /// Milliseconds since its last message.
    pub idle_ms: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Payload bytes sent.
    pub bytes_out: u64,
    /// Messages that wait to be sent.
    pub queued: usize,
    /// The place in the program that reserved it.
    pub made_at: String,
}

impl ManagerSnapshot {
    pub(crate) fn of(key: Key, manager: &PooledWebSocketManager<'_>, now: Timestamp) -> Self {
        Self {
            key: key.to_string(),
            user_id: manager.user_id().to_string(),
            thread_id: manager.thread_id().to_string(),
            run_id: manager.context().run_id().to_string(),
            state: manager.state(),
            age_ms: now.since(manager.opened_at()).as_millis() as u64,
            idle_ms: manager.idle(now).as_millis() as u64,
            messages_in: manager.messages_in(),
            messages_out: manager.messages_out(),
            bytes_in: manager.bytes_in(),
            bytes_out: manager.bytes_out(),
            queued: manager.queued(),
            made_at: manager.made_at().to_string(),
        }
    }
}

/// Slots that a listing looks at under one epoch guard.
const BATCH: usize = 1_024;

impl<S: Session> Pool<S> {
    /// The pool's figures. Visits every slot and every user.
    pub fn snapshot(&self) -> PoolSnapshot {
        let core = &*self.handle;
        let ledger = core.ledger();
        let capacity = core.slab.capacity();
        let config = core.settings.current();
        let now = core.clock.now();
        PoolSnapshot {
            name: core.name.as_str().to_owned(),
            live: ledger.leases,
            capacity,
            users: core.registry.totals().users,
            reserved: ledger.reserved,
            closing: ledger.closing,
            free: capacity.saturating_sub(ledger.occupied_slots + ledger.quarantined),
            waiting: core.waiting().len(),
            refused: core.books.refusals(),
            mismatches: core.books.mismatches(),
            outbound_bytes: core.slab.resident().room.budget.taken(),
            inbound: core.slab.resident().room.bytes.figures(),
            delivery: core.slab.resident().deliveries.read(),
            agents: core.journals.figures(),
            draining: self.is_draining(),
            level: core.maintenance.level(),
            users_by_level: core.users_by_level(),
            maintenance: core.maintenance.status(now, &config.config),
            cleanups: core.cleanups.read(),
            // Relaxed: a count.
            observer_panics: core.attached.observer_panics.load(Ordering::Relaxed),
            suspects: core.suspects(now, &config.config),
            config,
            ledger,
        }
    }

    /// The figures of up to `limit` live managers, in the order of their slots.
    pub fn managers(&self, limit: usize) -> Vec<ManagerSnapshot> {
        let core = &*self.handle;
        let now = core.clock.now();
        let mut cursor = Cursor::default();
        let mut listed = Vec::new();
        let mut keys = Vec::new();
        loop {
            let has_more = core.slab.live_keys(&mut cursor, BATCH, &mut keys);
            let figures = keys
                .drain(..)
                .filter_map(|key| core.look(key, |manager| ManagerSnapshot::of(key, manager, now)));
            listed.extend(figures.take(limit - listed.len()));
            if !has_more || listed.len() == limit {
                return listed;
            }
        }
    }
}

/// Suspects that a snapshot lists.
pub(crate) const MAX_SUSPECTS: usize = 100;

impl<S: Session> Core<S> {
    fn users_by_level(&self) -> BTreeMap<AlertLevel, usize> {
        let mut users: BTreeMap<_, _> = AlertLevel::ALL.map(|level| (level, 0)).into();
        self.registry.for_each_shard(|shard| {
            shard.for_each_user(|entry, _| *users.entry(entry.watch().level).or_default() += 1);
        });
        users
    }

    fn suspects(&self, now: Timestamp, config: &Config) -> Vec<Suspect> {
        let mut found: Vec<(Reverse<u64>, Suspicion, Key)> = Vec::new();
        let suspicion = |opened: Timestamp, polled: Timestamp| {
            if now.since(polled) >= config.suspect_silence {
                Some(Suspicion::Silent)
            } else {
                (now.since(opened) >= config.suspect_age).then_some(Suspicion::Old)
            }
        };
        let mut cursor = Cursor::default();
        let mut has_more = true;
        while has_more {
            has_more = self.slab.walk(
                &mut cursor,
                BATCH,
                |glance| {
                    let opened = glance.manager.opened_at();
                    let polled = glance.manager.last_poll().unwrap_or(opened);
                    suspicion(opened, polled)
                        .map(|what| (Reverse(now.since(polled).as_millis() as u64), what))
                },
                |key, state, seen| {
                    if let (State::Live, Some((silent, what))) = (state, seen) {
                        found.push((silent, what, key));
                    }
                },
            );
            // Never more than are listed and one batch.
            if found.len() > MAX_SUSPECTS {
                found.sort_unstable_by_key(|&(silent, ..)| silent);
                found.truncate(MAX_SUSPECTS);
            }
        }
        found.sort_unstable_by_key(|&(silent, ..)| silent);
        let listed = |(Reverse(silent_ms), suspicion, key)| {
            let manager = self.look(key, |manager| ManagerSnapshot::of(key, manager, now))?;
            Some(Suspect { suspicion, silent_ms, manager })
        };
        found.into_iter().filter_map(listed).collect()
    }
}
