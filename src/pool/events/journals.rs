//! The journals of all threads on which something happened lately.

use super::journal::Journal;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::id::{IsolationKey, UserExecutionContext};
use crate::manager::ByteBudget;
use crate::pool::registry::{Hash32, shrink_table};
use crate::slab::thread_number;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use crossbeam_utils::CachePadded;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::sync::Arc;

const SHARDS: usize = if cfg!(pool_loom) { 1 } else { 64 };

type Shard = HashTable<Arc<Thread>>;

/// A table of journals, sharded by isolation key.
pub(crate) struct Journals {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// So that whoever opens a connection on a pool without any need not look.
    count: CachePadded<AtomicUsize>,
    /// Bytes of events that are kept.
    pub(super) budget: ByteBudget,
}

/// A thread of a user, and its journal.
pub(super) struct Thread {
    pub(super) hash: Hash32,
    pub(super) key: IsolationKey,
    journal: Mutex<Journal>,
}

/// Figures of the journals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ThreadFigures {
    /// Threads whose events are numbered.
    pub threads: usize,
    /// Runs in progress.
    pub runs: usize,
    /// Bytes of events that are kept for clients that come back.
    pub replay_bytes: usize,
}

impl Thread {
    /// `None`: it was taken out of the table meanwhile.
    pub(super) fn journal(&self) -> Option<MutexGuard<'_, Journal>> {
        let journal = self.journal.lock();
        (!journal.is_gone).then_some(journal)
    }
}

impl Journals {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            shards: std::iter::repeat_with(CachePadded::default).take(SHARDS).collect(),
            count: CachePadded::default(),
            budget: ByteBudget::new(bytes),
        }
    }

    /// Whether there is none at all. Acquire: pairs with the Release in `enter`; whoever opens a
    /// connection has left its user's section, in which a run that began before looked for it.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// The thread of a context, made if there is none.
    pub(super) fn enter(&self, hash: Hash32, context: &UserExecutionContext, now: Timestamp) -> Arc<Thread> {
        let mut shard = self.shard(hash).lock();
        let is_it = |thread: &Arc<Thread>| thread.is_of(hash, context);
        match shard.entry(hash.spread(), is_it, |thread| thread.hash.spread()) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => {
                let key = context.isolation_key();
                let thread = Arc::new(Thread { hash, key, journal: Mutex::new(Journal::new(now)) });
                entry.insert(thread.clone());
                self.count.fetch_add(1, Ordering::Release);
                thread
            }
        }
    }

    /// The thread of a context. If there is none, `otherwise` runs before one can be made.
    pub(super) fn find(
        &self,
        hash: Hash32,
        context: &UserExecutionContext,
        otherwise: impl FnOnce(),
    ) -> Option<Arc<Thread>> {
        let shard = self.shard(hash).lock();
        let thread = shard.find(hash.spread(), |thread| thread.is_of(hash, context)).cloned();
        if thread.is_none() {
            otherwise();
        }
        thread
    }

    /// Forgets events that are too old, and threads on which nothing happens and nobody is connected.
    pub(crate) fn sweep(
        &self,
        now: Timestamp,
        config: &Config,
        is_connected: impl Fn(&IsolationKey, Hash32) -> bool,
    ) {
        if self.is_empty() {
            return;
        }
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|thread| {
                let mut journal = thread.journal.lock();
                if journal.is_stale(now, config) && !is_connected(&thread.key, thread.hash) {
                    journal.close(&self.budget, thread_number());
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    return false;
                }
                journal.trim(now, config, &self.budget, thread_number());
                true
            });
            shrink_table(&mut shard, |thread| thread.hash.spread());
        }
    }

    /// Visits every thread.
    pub(crate) fn figures(&self) -> ThreadFigures {
        let mut figures = ThreadFigures::default();
        for shard in &self.shards {
            for thread in shard.lock().iter() {
                let journal = thread.journal.lock();
                figures.threads += 1;
                figures.runs += journal.runs();
                figures.replay_bytes += journal.kept_bytes();
            }
        }
        figures
    }

    fn shard(&self, hash: Hash32) -> &Mutex<Shard> {
        &self.shards[hash.shard(SHARDS)]
    }
}

impl Thread {
    fn is_of(&self, hash: Hash32, context: &UserExecutionContext) -> bool {
        self.hash == hash
            && (self.key.user_id() == context.user_id() || fault!("thread_without_user"))
            && self.key.thread_id() == context.thread_id()
    }
}

#[cfg(all(test, not(pool_loom)))]
mod tests {
    use super::*;
    use crate::config::Environment;
    use crate::id::IdGenerator;
    use std::time::Duration;

    #[test]
    fn after_a_peak_the_tables_are_small_again() {
        let config = Config::preset(Environment::Production);
        let (journals, begun) = (Journals::new(1_000), Timestamp::from_millis(1));
        for hash in (0..10_000).map(Hash32::from_bits) {
            let ids = IdGenerator::user_context_ids("ada", "test");
            let context = UserExecutionContext::from_websocket_request("ada", ids).unwrap();
            let _ = journals.enter(hash, &context, begun);
        }
        let room = || journals.shards.iter().map(|shard| shard.lock().capacity()).sum::<usize>();
        assert!(room() >= 10_000);
        let late = begun.after(config.replay_age + Duration::from_secs(1));
        journals.sweep(late, &config, |_, _| false);
        assert!(journals.is_empty());
        assert!(room() <= SHARDS * 28, "room for {}", room());
    }
}
