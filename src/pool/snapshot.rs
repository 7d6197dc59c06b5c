//! The pool, seen from outside.

use super::Pool;
use super::ledger::{Ledger, Refusals};
use crate::clock::Timestamp;
use crate::manager::{ManagerState, PooledWebSocketManager, Session};
use crate::slab::{Cursor, Key, State};

/// The pool's figures at a moment. They are read one after the other while connections come and go;
/// the ledger's verdict says whether they fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// New connections are refused because the server is about to end.
    pub draining: bool,
    /// The running account.
    pub ledger: Ledger,
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
            outbound_bytes: core.slab.resident().budget.taken(),
            draining: self.is_draining(),
            ledger,
        }
    }

    /// The figures of up to `limit` live managers, in the order of their slots.
    pub fn managers(&self, limit: usize) -> Vec<ManagerSnapshot> {
        let core = &*self.handle;
        let now = core.clock.now();
        let mut cursor = Cursor::default();
        let mut listed = Vec::new();
        loop {
            let mut keys: Vec<Key> = Vec::new();
            let live = |key, state, ()| {
                if state == State::Live {
                    keys.push(key);
                }
            };
            let has_more = core.slab.walk(&mut cursor, BATCH, |_| (), live);
            let figures = keys
                .into_iter()
                .filter_map(|key| core.look(key, |manager| ManagerSnapshot::of(key, manager, now)));
            listed.extend(figures.take(limit - listed.len()));
            if !has_more || listed.len() == limit {
                return listed;
            }
        }
    }
}
