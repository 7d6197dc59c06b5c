//! "Why was I closed?": the last ends of each user, and overall, in bounded memory.
//!
//! Each shard of users keeps a short list of its own, written in the section in which the lease ends. A
//! user who reconnects all the time overwrites its own ends, not those of the others.

use super::Pool;
use super::registry::Hash32;
use crate::clock::Timestamp;
use crate::id::{RunId, ThreadId, UserId};
use crate::manager::{PooledWebSocketManager, Session};
use crate::reason::EndReason;
use crate::slab::Key;
use std::panic::Location;

/// Ends that one shard remembers, of all its users.
const PER_SHARD: usize = 16;

/// Reasons that one shard remembers, 12 bytes each: for owners that come late, as on a busy machine, when
/// their slot and the records above are others' already.
const REASONS: usize = 128;

/// Ends that are remembered of one user.
pub(crate) const PER_USER: usize = 4;

/// How a lease ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct End {
    /// The manager's key, which is stale now.
    #[cfg_attr(feature = "serde", serde(serialize_with = "shown"))]
    pub key: Key,
    /// Whose it was.
    pub user_id: UserId,
    /// The user's thread.
    pub thread_id: ThreadId,
    /// The run that had opened it.
    pub run_id: RunId,
    /// Why it ended.
    pub reason: EndReason,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// The place in the program that had reserved it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "shown"))]
    pub made_at: &'static Location<'static>,
}

#[cfg(feature = "serde")]
fn shown<T: std::fmt::Display, Z: serde::Serializer>(value: &T, serializer: Z) -> Result<Z::Ok, Z::Error> {
    serializer.collect_str(value)
}

impl End {
    pub(crate) fn new(
        key: Key,
        manager: &PooledWebSocketManager<'_>,
        reason: EndReason,
        ended_at: Timestamp,
    ) -> Self {
        Self {
            key,
            user_id: manager.user_id().clone(),
            thread_id: manager.thread_id().clone(),
            run_id: manager.context().run_id(),
            reason,
            opened_at: manager.opened_at(),
            ended_at,
            made_at: manager.made_at(),
        }
    }
}

/// The last ends of a shard. Allocated once, at the first end.
#[derive(Default)]
pub(super) struct Ends {
    /// The user's hash and the number of the end, beside the record and dense, since they are
    /// searched at each end.
    tags: Vec<Tag>,
    records: Vec<End>,
    /// In a circle; the next one goes to `next % REASONS`.
    reasons: Vec<(Key, EndReason)>,
    /// Compared by distance, so that it may wrap.
    next: u32,
}

#[derive(Clone, Copy)]
struct Tag {
    user: Hash32,
    number: u32,
}

impl Ends {
    pub(super) fn push(&mut self, user_hash: Hash32, end: End) {
        let tag = Tag { user: user_hash, number: self.next };
        let reason = (end.key, end.reason);
        match self.reasons.get_mut(self.next as usize % REASONS) {
            Some(place) => *place = reason,
            None => {
                self.reasons.reserve_exact(REASONS - self.reasons.len());
                self.reasons.push(reason);
            }
        }
        self.next = self.next.wrapping_add(1);
        match self.place_for(tag.user) {
            Some(place) => {
                self.tags[place] = tag;
                self.records[place] = end;
            }
            None => {
                self.tags.reserve_exact(PER_SHARD - self.tags.len());
                self.records.reserve_exact(PER_SHARD - self.records.len());
                self.tags.push(tag);
                self.records.push(end);
            }
        }
    }

    /// Why a lease ended that was one of the last.
    pub(super) fn reason_of(&self, key: Key) -> Option<EndReason> {
        self.reasons.iter().find(|(of, _)| *of == key).map(|&(_, reason)| reason)
    }

    /// A user's ends, the latest first.
    fn of(&self, user: &UserId) -> Vec<End> {
        self.latest_first().filter(|end| end.user_id == *user).cloned().collect()
    }

    /// By their numbers: many end within one tick of the clock.
    fn latest_first(&self) -> impl Iterator<Item = &End> {
        let age = |number| self.next.wrapping_sub(number);
        let mut numbered: Vec<_> = self.tags.iter().map(|tag| age(tag.number)).zip(&self.records).collect();
        numbered.sort_by_key(|&(age, _)| age);
        numbered.into_iter().map(|(_, end)| end)
    }

    /// The place of the end to be forgotten, if there is no room for one more.
    fn place_for(&self, user: Hash32) -> Option<usize> {
        let (mut own, mut oldest_own, mut oldest) = (0, (0, 0), (0, 0));
        for (place, tag) in self.tags.iter().enumerate() {
            let aged = (self.next.wrapping_sub(tag.number), place);
            oldest = oldest.max(aged);
            if tag.user == user {
                own += 1;
                oldest_own = oldest_own.max(aged);
            }
        }
        if own >= PER_USER && !fault!("one_ring_for_all") {
            return Some(oldest_own.1);
        }
        (self.tags.len() >= PER_SHARD).then_some(oldest.1)
    }
}

impl<S: Session> Pool<S> {
    /// How a user's last leases ended, the latest first: up to four.
    pub fn last_ends_of(&self, user: &UserId) -> Vec<End> {
        let hash = self.handle.registry.hash(user);
        self.handle.registry.section(hash).ends.of(user)
    }

    /// How the last leases ended, the latest first: up to `limit`. Each part of the users remembers its
    /// own last ends, so that after a while the list reaches further back for quiet users than for busy
    /// ones.
    pub fn last_ends(&self, limit: usize) -> Vec<End> {
        let mut ends: Vec<End> = Vec::new();
        self.handle.registry.for_each_shard(|shard| {
            ends.extend(shard.ends.latest_first().cloned());
            // Never more than is asked for and one shard.
            if ends.len() > limit {
                latest_first(&mut ends);
                ends.truncate(limit);
            }
        });
        latest_first(&mut ends);
        ends
    }
}

fn latest_first(ends: &mut [End]) {
    ends.sort_by_key(|end| std::cmp::Reverse(end.ended_at));
}
