//! The other half of the heart: how leases end, and how what was forgotten is taken back.

use super::core::{Core, Ended, Seat, SeatEnd, SeatSlot};
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
const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);

/// Free slots that maintenance leaves in memory beyond the share that it leaves.
const SPARE_SLOTS: usize = 256;

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
        if !self.look(key, predicate).ok_or(Late)? {
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
        let (user, isolation_hash, place, has_heir) = closing.value(|glance, _| {
            let notes = &glance.notes;
            notes.ended(key, reason);
            (notes.user(), notes.isolation_hash(), notes.place(), notes.heir().is_some())
        });
        if cfg!(fault = "missed_unlink") {
            return Ok(closing);
        }
        if let Some(moved) = shard.unlink(user, isolation_hash, key, place) {
            self.notes(moved, |notes| notes.set_place(place));
        }
        self.books.ended(reason);
        if has_heir {
            // The place is the heir's from now on, and counts as its reservation.
            if let Some(entry) = shard.holder(user) {
                entry.reserved += 1;
            }
            self.books.reserved();
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
        drop(ended);
        // A vacated slot has rung for itself. While a pin holds it, the user's count is free already.
        if self.slab.state(key) == Some(State::Closing) {
            self.place_freed();
        }
    }

    /// Why a lease is over, as far as that is still known.
    pub(super) fn why(&self, user: UserRef, key: Key) -> Revoked {
        let read = || self.notes(key, |notes| notes.last_end(key)).flatten();
        let reason = read().or_else(|| {
            // The winner may be between the header and the word: its section ends before this one.
            drop(self.registry.section(user.hash));
            read()
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
                    notes.is_overdue(now).then(|| (notes.user(), notes.isolation_hash(), notes.heir()))
                },
                |key, state, found| {
                    let Some((user, isolation_hash, heir)) = found else { return };
                    let slot = match (state, heir) {
                        (State::Reserved, _) => SeatSlot::Reserved(key),
                        (State::Live | State::Closing, Some(heir)) => SeatSlot::Heir { of: key, heir },
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

    /// See [`super::Pool::maintain`].
    pub(super) fn maintain(&self) -> usize {
        let expired = self.expire(self.clock.now());
        // Room for a quarter more than is in use stays, so that a breathing load does not thrash.
        self.slab.shrink_settled(self.slab.occupied() / 4 + SPARE_SLOTS);
        self.slab.refresh_hints();
        self.registry.shrink();
        self.place_freed();
        expired
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

    /// A slot or a user's place has become free: whoever waits for it gets it.
    pub(super) fn place_freed(&self) {
        if self.waiting().is_awaited() {
            self.serve_waiting();
        }
    }
}
