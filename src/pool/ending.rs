//! The other half of the heart: how leases end, and how what was forgotten is taken back.

use super::core::{Core, Ended, Seat, SeatEnd, SeatSlot};
use super::ends::End;
use super::registry::{Shard, UserRef};
use crate::clock::Timestamp;
use crate::error::Late;
use crate::manager::{PooledWebSocketManager, Session, wake};
use crate::reason::{EndReason, Revoked};
use crate::slab::{Cursor, Key, Stale, State};
use crate::sync::Ordering;
use std::time::Duration;

/// Slots that an expiry visits under one epoch guard.
const EXPIRY_BATCH: usize = 4_096;

/// A refusal looks for forgotten reservations first, but not more often than this.
pub(crate) const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);

impl<S: Session> Core<S> {
    /// Ends a lease whose user is known. Exactly one caller per life gets `Ok`.
    pub(super) fn end(&self, user: UserRef, key: Key, reason: EndReason) -> Result<(), Late> {
        let mut shard = self.registry.section(user.hash);
        let ended = self.end_in(&mut shard, key, reason).map_err(|Stale| Late)?;
        drop(shard);
        self.finish(ended);
        Ok(())
    }

    /// Ends a lease from outside, if it is what the predicate wants at that very moment. `None`: it
    /// is not. The predicate runs in the section: it must be short and must not call the pool.
    pub(super) fn evict_if(
        &self,
        key: Key,
        reason: EndReason,
        predicate: impl FnOnce(&PooledWebSocketManager<'_>) -> bool,
    ) -> Result<Option<()>, Late> {
        let user = self.slab.pin(key, |glance, _| glance.notes.user()).map_err(|Stale| Late)?;
        let mut shard = self.registry.section(user.hash);
        if !self.look(key, predicate).ok_or(Late)? && !cfg!(fault = "sweep_ignores_activity") {
            return Ok(None);
        }
        let ended = self.end_in(&mut shard, key, reason).map_err(|Stale| Late)?;
        drop(shard);
        self.finish(ended);
        Ok(Some(()))
    }

    /// The section of an end: reason, header, links and counts. [`Core::finish`] follows outside it.
    pub(super) fn end_in(
        &self,
        shard: &mut Shard,
        key: Key,
        reason: EndReason,
    ) -> Result<Ended<'_, S>, Stale> {
        let closing = self.slab.close(key)?;
        let now = self.clock.now();
        let (user, isolation_hash, place, has_heir, end) = closing.value(|glance, shared| {
            let notes = &glance.notes;
            notes.ended(key, reason);
            let end = PooledWebSocketManager::of(&glance.manager, shared)
                .map(|manager| End::new(key, &manager, reason, now));
            (notes.user(), notes.isolation_hash(), notes.place(), notes.heir().is_some(), end)
        });
        if cfg!(fault = "missed_unlink") {
            return Ok(closing);
        }
        let (user, isolation_hash) = if cfg!(fault = "clean_up_key_made_twice") {
            (UserRef { hash: !user.hash, ..user }, !isolation_hash)
        } else {
            (user, isolation_hash)
        };
        if let Some(moved) = shard.unlink(user, isolation_hash, key, place) {
            self.notes(moved, |notes| notes.set_place(place));
        }
        self.books.ended(reason);
        if has_heir {
            // The place is the heir's from now on, and counts as its reservation.
            shard.add_reserved(user);
            self.books.inherited();
        } else {
            self.uncount(shard, user);
        }
        if let Some(end) = end {
            shard.ends.push(user.hash, end);
        }
        shard.leave(user);
        Ok(closing)
    }

    /// The winner's work outside the section: wakes the owner, and lets the slot go.
    pub(super) fn finish(&self, ended: Ended<'_, S>) {
        if let Some(waker) = ended.value(|_, shared| shared.waker.take()) {
            wake(waker);
        }
        let key = ended.key();
        self.tell_ended(&ended);
        drop(ended);
        // A vacated slot has rung for itself. While a pin holds it, the user's count is free already; and
        // other pools of the domain hear of it from here only.
        if self.attached.quotas.is_some() || self.slab.state(key) == Some(State::Closing) {
            self.place_freed();
        }
    }

    /// Tells the log and those who observe. Foreign code; its panics stay here.
    fn tell_ended(&self, ended: &Ended<'_, S>) {
        if !self.attached.is_observed() && !self.log.hears_ends() {
            return;
        }
        let key = ended.key();
        let end = ended.value(|glance, shared| {
            let reason = glance.notes.last_end(key)?;
            let manager = PooledWebSocketManager::of(&glance.manager, shared)?;
            Some(End::new(key, &manager, reason, self.clock.now()))
        });
        if let Some(end) = end {
            self.log.ended(&end);
            self.attached.ended(&end);
        }
    }

    /// Why a lease is over, as far as that is still known.
    pub(super) fn why(&self, user: UserRef, key: Key) -> Revoked {
        let read = || self.notes(key, |notes| notes.last_end(key)).flatten();
        let reason = read().or_else(|| {
            // The winner may be between the header and the word: its section ends before this one. Or the
            // slot has had another life since, and the word speaks of that.
            let remembered = self.registry.section(user.hash).ends.reason_of(key);
            remembered.or_else(read)
        });
        Revoked::new(reason.unwrap_or(EndReason::Unknown))
    }

    /// Takes back every reservation and claim that is past its deadline. Returns how many.
    pub(super) fn expire(&self, now: Timestamp) -> usize {
        self.last_expiry.store(now.as_millis(), Ordering::Relaxed);
        let mut cursor = Cursor::default();
        let mut expired = 0;
        let mut overdue = Vec::new();
        loop {
            let has_more = self.slab.walk(
                &mut cursor,
                EXPIRY_BATCH,
                |glance| {
                    let notes = &glance.notes;
                    let heir = notes.heir(); // before its deadline: see `name_heir`
                    notes.is_overdue(now).then(|| (notes.user(), notes.isolation_hash(), heir))
                },
                |key, state, found| {
                    let Some((user, isolation_hash, heir)) = found else { return };
                    let slot = match (state, heir) {
                        (State::Reserved, _) => SeatSlot::Reserved(key),
                        (State::Live | State::Closing, Some(heir)) => {
                            SeatSlot::Heir { of: key, heir, reason: EndReason::Unknown }
                        }
                        _ => return,
                    };
                    overdue.push(Seat { user, isolation_hash, slot });
                },
            );
            expired += overdue.drain(..).filter(|&seat| self.give_back(seat, SeatEnd::Expired)).count();
            if !has_more {
                return expired;
            }
        }
    }

    /// [`Core::expire`], unless that has just been done.
    pub(super) fn expire_if_due(&self) -> usize {
        let now = self.clock.now();
        let last = self.last_expiry.load(Ordering::Relaxed);
        if now.since(Timestamp::from_millis(last)) < EXPIRY_INTERVAL && last != 0 {
            return 0;
        }
        self.expire(now)
    }
}
