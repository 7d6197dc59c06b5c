//! The other half of the heart: how leases end, and how what was forgotten is taken back.

use super::core::{Core, Ended, Seat, SeatEnd, SeatSlot};
use super::ends::End;
use super::occupant::alarm_unit;
use super::registry::{Hash32, Shard, UserRef};
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
    pub(super) fn end(&self, user_hash: Hash32, key: Key, reason: EndReason) -> Result<(), Late> {
        let mut shard = self.registry.section(user_hash);
        let ended = if fault!("unlink_outside_section") {
            drop(shard);
            let closing = self.slab.close(key).map_err(|Stale| Late)?;
            shard = self.registry.section(user_hash);
            self.unlink(&mut shard, closing, reason)
        } else {
            self.end_in(&mut shard, key, reason).map_err(|Stale| Late)?
        };
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
        if !self.look(key, predicate).ok_or(Late)? && !fault!("sweep_ignores_activity") {
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
        Ok(self.unlink(shard, self.slab.close(key)?, reason))
    }

    /// Takes a lease that has just ended out of the tables, in the section in which it ended.
    fn unlink<'a>(&self, shard: &mut Shard, closing: Ended<'a, S>, reason: EndReason) -> Ended<'a, S> {
        let key = closing.key();
        let now = self.clock.now();
        let (user, isolation_hash, place, has_heir) = closing.value(|glance, shared| {
            let notes = &glance.notes;
            notes.ended(key, reason);
            let user = notes.user();
            let isolation_hash = PooledWebSocketManager::of(&glance.manager, shared).map(|manager| {
                shard.ends.push(user.hash, End::new(key, &manager, reason, now));
                self.isolation_hash(user.hash, manager.thread_id())
            });
            (user, isolation_hash, notes.place(), notes.heir().is_some())
        });
        if fault!("missed_unlink") {
            return closing;
        }
        let user = if fault!("clean_up_key_made_twice") {
            UserRef { hash: Hash32::from_bits(!user.hash.to_bits()), ..user }
        } else {
            user
        };
        self.books.ended(reason);
        if has_heir {
            // The place is the heir's from now on, and counts as its reservation.
            self.books.inherited();
        } else {
            self.uncount(shard, user);
        }
        if let Some(moved) = shard.unlink(user, isolation_hash, key, place, has_heir) {
            self.notes(moved, |notes| notes.set_place(place));
        }
        closing
    }

    /// The winner's work outside the section: wakes the owner, and lets the slot go.
    pub(super) fn finish(&self, ended: Ended<'_, S>) {
        // Whoever is alone with the slot cleans it, and wakes the owner once it is free.
        if !ended.is_alone()
            && let Some(waker) = ended.value(|_, shared| shared.outbound.take_waker())
        {
            wake(waker);
        }
        self.tell_ended(&ended);
        let is_vacated = ended.release();
        // A vacated slot has rung for itself. While a pin holds it, the user's count is free already; and
        // other pools of the domain hear of it from here only.
        if !is_vacated || self.attached.quotas.is_some() {
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
    pub(super) fn why(&self, user_hash: Hash32, key: Key) -> Revoked {
        let read = || self.notes(key, |notes| notes.last_end(key)).flatten();
        let reason = read().or_else(|| {
            // The winner may be between the header and the word: its section ends before this one. Or the
            // slot has had another life since, and the word speaks of that.
            let remembered = self.registry.section(user_hash).ends.reason_of(key);
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
            let has_more = self.slab.walk_due(
                &mut cursor,
                EXPIRY_BATCH,
                alarm_unit(now),
                |state, glance| {
                    let notes = &glance.notes;
                    let heir = notes.heir(); // before its deadline: see `name_heir`
                    (glance.alarm(state), notes.is_overdue(now).then(|| (notes.user(), heir)))
                },
                |key, state, found| {
                    let Some((user, heir)) = found else { return };
                    let slot = match (state, heir) {
                        (State::Reserved, _) => SeatSlot::Reserved(key),
                        (State::Live | State::Closing, Some(heir)) => {
                            SeatSlot::Heir { of: key, heir, reason: EndReason::Unknown }
                        }
                        _ => return,
                    };
                    overdue.push(Seat { user, slot });
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
