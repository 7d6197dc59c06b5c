//! Those who keep the time for a pool's connections, so that none needs a timer of its own.
//!
//! Each runtime that serves connections has a keeper, and they take turns: whoever finds at a tick that
//! nobody has had a turn since its last tick takes one. So the slots' alarms are read about once a tick, however
//! many runtimes there are, and a runtime that has ended, or is not driven any more, stops nothing.

use super::Pool;
use super::core::Core;
use super::lease::Tie;
use super::occupant::alarm_unit;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::manager::{PooledWebSocketManager, Session, wake};
use crate::reason::EndReason;
use crate::slab::{Cursor, Key, State};
use crate::sync::{ArcSwap, AtomicU64, Mutex, Ordering};
use std::sync::{Arc, Weak};
use tokio::runtime::Id;

/// Slots that a walk looks at under one epoch guard.
const BATCH: usize = 4_096;

/// The part of the core that the keepers share.
pub(super) struct Keepers {
    /// Turns taken. The number is the whole message, so every access is `Relaxed`.
    turns: AtomicU64,
    /// Runtimes that have a keeper: read once for each connection.
    runtimes: ArcSwap<Vec<Id>>,
    /// Held while the list is replaced.
    changing: Mutex<()>,
}

impl Keepers {
    pub(super) fn new() -> Self {
        Self {
            turns: AtomicU64::new(0),
            runtimes: ArcSwap::from_pointee(Vec::new()),
            changing: Mutex::default(),
        }
    }

    /// `false`: it has one already.
    fn join(&self, runtime: Id) -> bool {
        if self.runtimes.load().contains(&runtime) {
            return false;
        }
        self.change(|runtimes| {
            let is_new = !runtimes.contains(&runtime) && (!fault!("one_keeper") || runtimes.is_empty());
            if is_new {
                runtimes.push(runtime);
            }
            is_new
        })
    }

    fn leave(&self, runtime: Id) {
        self.change(|runtimes| runtimes.retain(|&other| other != runtime));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Id>) -> T) -> T {
        let _changing = self.changing.lock();
        let mut runtimes = Vec::clone(&self.runtimes.load());
        let changed = change(&mut runtimes);
        self.runtimes.store(Arc::new(runtimes));
        changed
    }
}

/// A runtime's keeper. Does not keep the pool itself.
pub(crate) struct Keeper<S: Session> {
    core: Weak<Core<S>>,
    runtime: Id,
    /// The turns that had been taken at the last tick.
    seen: u64,
    /// The numbers at its last turn.
    config: Arc<Config>,
    /// Scratch.
    due: Vec<Key>,
}

impl<S: Session> Keeper<S> {
    /// The pool's numbers, as long as it lives.
    pub(crate) fn config(&self) -> Option<Arc<Config>> {
        self.core.upgrade().map(|core| core.settings.load_full())
    }

    /// To be called at each tick. If it is this keeper's turn: wakes the owners whose time has come, and
    /// with every `housekeeping`th turn looks after the pool. `false`: the pool is gone.
    pub(crate) fn tick(&mut self, housekeeping: u64) -> bool {
        let Some(core) = self.core.upgrade() else { return false };
        let turns = &core.keeping.keepers.turns;
        let taken = turns.load(Ordering::Relaxed);
        let is_mine = std::mem::replace(&mut self.seen, taken) == taken
            && turns.compare_exchange(taken, taken + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !is_mine {
            return true;
        }
        self.seen = taken + 1;
        let now = core.clock.now();
        let config = core.settings.load_full();
        if Arc::ptr_eq(&config, &self.config) {
            core.wake_due(now, &mut self.due);
        } else {
            // All of them: other numbers make other deadlines.
            core.wake_due(Timestamp::NEVER, &mut self.due);
            core.keeping.doorway.let_in(config.max_unauthenticated);
            self.config = config;
        }
        if core.slab.resident().room.bytes.is_short() {
            core.end_the_longest_unfinished();
        }
        if taken % housekeeping == 0 {
            core.maintain(now);
        }
        true
    }
}

impl<S: Session> Drop for Keeper<S> {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            core.keeping.keepers.leave(self.runtime);
        }
    }
}

impl<S: Session> Pool<S> {
    /// The keeper for a runtime, if that has none.
    pub(crate) fn keeper_for(&self, runtime: Id) -> Option<Keeper<S>> {
        self.handle.keeper_for(runtime)
    }
}

impl<S: Session> Tie<S> {
    /// The keeper for a runtime, if that has none.
    pub(crate) fn keeper_for(&self, runtime: Id) -> Option<Keeper<S>> {
        self.handle.keeper_for(runtime)
    }
}

impl<S: Session> Core<S> {
    fn keeper_for(&self, runtime: Id) -> Option<Keeper<S>> {
        let core = self.slab.resident().core()?.clone();
        let keepers = &self.keeping.keepers;
        keepers.join(runtime).then(|| Keeper {
            core,
            runtime,
            seen: keepers.turns.load(Ordering::Relaxed),
            config: self.settings.load_full(),
            due: Vec::new(),
        })
    }

    /// Buffers for what comes in are short: those connections whose message has been incomplete for longest
    /// make room, an eighth of all that have one.
    fn end_the_longest_unfinished(&self) {
        let mut cursor = Cursor::default();
        let mut unfinished = Vec::new();
        let mut has_more = true;
        while has_more {
            has_more = self.slab.walk(
                &mut cursor,
                BATCH,
                |glance| glance.manager.unfinished_since(),
                |key, state, since| {
                    if state == State::Live {
                        unfinished.extend(since.map(|since| (since, key)));
                    }
                },
            );
        }
        unfinished.sort_unstable();
        for &(since, key) in &unfinished[..unfinished.len().div_ceil(8)] {
            // Late, or finished meanwhile: all the better.
            let is_still = |manager: &PooledWebSocketManager<'_>| manager.unfinished_since() == Some(since);
            let _ = self.evict_if(key, EndReason::Unfinished, is_still);
        }
    }

    /// Wakes every owner that wanted to be woken by now. One that has been woken and has not run yet still
    /// wants it.
    fn wake_due(&self, now: Timestamp, due: &mut Vec<Key>) {
        let mut cursor = Cursor::default();
        let mut has_more = true;
        while has_more {
            let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
            has_more = self.slab.walk_due(
                &mut cursor,
                BATCH,
                alarm_unit(now),
                |state, glance| (glance.alarm(state), is_due(glance.manager.wake_at())),
                |key, state, is_due| {
                    if is_due && state == State::Live {
                        due.push(key);
                    }
                },
            );
            for key in due.drain(..) {
                let waker = self.slab.pin(key, |_, shared| shared.outbound.take_waker());
                if let Ok(Some(waker)) = waker {
                    wake(waker);
                }
            }
        }
    }
}

#[cfg(all(test, not(pool_loom)))]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::id::{IdGenerator, UserExecutionContext};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// When the wish comes, nothing but itself makes a scan look: the reservation's alarm has been seen to.
    #[test]
    fn a_wish_that_comes_late_is_kept_all_the_same() {
        let (clock, hand) = Clock::manual();
        let pool: Pool = Pool::builder().name("late-wish").clock(clock).build().unwrap();
        let ids = IdGenerator::user_context_ids("ada", "test");
        let context = UserExecutionContext::from_websocket_request("ada", ids).unwrap();
        let lease = pool.reserve(&context).unwrap().open().unwrap();
        let mut due = Vec::new();
        hand.advance(pool.config().reservation_deadline);
        pool.handle.wake_due(pool.clock().now(), &mut due);

        let woken = Arc::new(Woken::default());
        let tie = lease.tie();
        tie.watch(&Waker::from(woken.clone()), tie.now()).unwrap();
        tie.wake_wanted(tie.now().after(Duration::from_secs(20)));
        let mut woken_after = |seconds| {
            hand.advance(Duration::from_secs(seconds));
            pool.handle.wake_due(pool.clock().now(), &mut due);
            woken.0.load(Ordering::Relaxed)
        };
        assert_eq!(woken_after(19), 0);
        assert_eq!(woken_after(1), 1);
    }
}
