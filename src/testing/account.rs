//! The double's account: the same figures from the same sources, read under the lock.

use super::state::{Holder, State};
use crate::pool::{Ledger, PoolSnapshot, Verdict};

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

    /// The figures, as far as the state knows them: without name and queued bytes.
    pub(super) fn snapshot(&self) -> PoolSnapshot {
        let ledger = self.ledger();
        PoolSnapshot {
            name: String::new(),
            live: ledger.leases,
            capacity: self.config.capacity,
            users: self.users.len(),
            reserved: ledger.reserved,
            closing: ledger.closing,
            free: self.config.capacity - self.occupied(),
            waiting: self.waiting(),
            refused: self.refused,
            mismatches: self.mismatches,
            outbound_bytes: 0,
            draining: self.is_draining(),
            ledger,
        }
    }
}
