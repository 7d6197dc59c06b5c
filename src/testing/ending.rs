//! How leases and reservations of the double end, and how what was forgotten is taken back.

use super::state::{Holder, Seat, State, next};
use crate::clock::Timestamp;
use crate::control::{AlertLevel, Load};
use crate::error::Late;
use crate::id::UserId;
use crate::pool::{Alert, End, Tally};
use crate::reason::EndReason;
use crate::slab::Key;

impl State {
    /// Ends a lease. Exactly one caller per life gets `Ok`.
    pub(super) fn end(&mut self, key: Key, reason: EndReason) -> Result<(), Late> {
        self.close(key, reason)?;
        self.place_freed();
        Ok(())
    }

    pub(super) fn close(&mut self, key: Key, reason: EndReason) -> Result<(), Late> {
        let (life, heir) = match self.holder_mut(key) {
            Some(Holder::Live { life, heir }) => (life.clone(), heir.take()),
            _ => return Err(Late),
        };
        let now = self.clock.now();
        let end = life.read(|manager| End::new(key, manager, reason, now)).ok_or(Late)?;
        self.clear(&life);
        let user_id = end.user_id.clone();
        self.tally.ended += 1;
        *self.tally.ends_by_reason.entry(reason.name()).or_default() += 1;
        self.slots[key.index() as usize].last_end = Some((key, reason));
        self.vacate(key.index());
        let user = self.users.entry(user_id.clone()).or_default();
        if let Some(place) = user.members.iter().position(|&member| member == key) {
            user.members.swap_remove(place);
        }
        if let Some((claim, deadline)) = heir {
            // The place is the heir's from now on, and counts as its reservation.
            user.reserved += 1;
            self.tally.reserved += 1;
            self.tally.inherited += 1;
            self.free.pop();
            let holder = Holder::Reserved { user: user_id, deadline, claim: Some(claim) };
            self.slots[key.index() as usize].holder = holder;
        } else {
            self.uncount(&user_id);
            self.leave(&user_id);
        }
        self.remember(end.clone());
        self.after.ended(life, end);
        Ok(())
    }

    /// Gives a seat back. `false`: it had been opened or taken back before.
    pub(super) fn give_back(&mut self, seat: Seat) -> bool {
        let is_back = self.release(seat, |tally| &mut tally.given_back);
        self.place_freed();
        is_back
    }

    /// Takes back every reservation and claim that is past its deadline. Returns how many.
    pub(super) fn expire(&mut self, now: Timestamp) -> usize {
        self.last_expiry = now;
        let overdue = self.keys().filter_map(|(key, slot)| match slot.holder {
            Holder::Reserved { deadline, .. } if deadline <= now => Some(Seat::Own(key)),
            Holder::Live { heir: Some((claim, deadline)), .. } if deadline <= now => {
                Some(Seat::Heir { of: key, claim, reason: EndReason::Unknown })
            }
            _ => None,
        });
        // One after the other, like the pool: each may be what the first waiter waits for.
        let mut expired = 0;
        for seat in overdue.collect::<Vec<_>>() {
            expired += usize::from(self.release(seat, |tally| &mut tally.expired));
            self.place_freed();
        }
        expired
    }

    pub(super) fn release(&mut self, seat: Seat, count: impl FnOnce(&mut Tally) -> &mut u64) -> bool {
        if let Seat::Heir { of, claim, .. } = seat
            && self.is_heir(of, claim)
            && let Some(Holder::Live { heir, .. }) = self.holder_mut(of)
        {
            *heir = None; // while the occupant lives, the claim holds no count of its own
            return true;
        }
        let Some(key) = self.reserved_key(seat) else { return false };
        if let Holder::Reserved { user, .. } = self.vacate(key.index()) {
            self.users.entry(user.clone()).or_default().reserved -= 1;
            self.uncount(&user);
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

    /// Takes one out of the domain's count of a user.
    pub(super) fn uncount(&self, user: &UserId) {
        if let Some(quotas) = &self.quotas {
            quotas.give(user);
        }
    }

    /// Forgets a user that has no place left.
    fn leave(&mut self, user: &UserId) {
        if self.users.get(user).is_none_or(|user| user.count() > 0) {
            return;
        }
        let Some(gone) = self.users.remove(user) else { return };
        if gone.watch.level > AlertLevel::Normal {
            let load = Load { count: 0, max: gone.watch.max };
            self.departed.push(Alert {
                user_id: Some(user.clone()),
                from: gone.watch.level,
                to: AlertLevel::Normal,
                manager_count: load.count,
                max_managers: load.max,
                usage_ratio: load.ratio(),
            });
        }
    }
}
