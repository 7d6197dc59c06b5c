//! A double of the pool for an application's own tests: one lock, plain tables, no lock-free part.
//!
//! It keeps the pool's promises by the simplest means, so that a test of an application which fails
//! on it has found a fault in the application. State machine, outbound queue, byte budget, session
//! handling and the registry of names are the pool's own; slab, shards and hand-over are replaced. One
//! body of tests runs on both (`tests/conformance.rs`).
//!
//! Write the application against the traits and choose in the test:
//!
//! ```
//! use ws_manager_pool::testing::FakePool;
//! use ws_manager_pool::{Clock, IdGenerator, ManagerPool, ManagerReservation, Pool, UserExecutionContext};
//!
//! fn connections<P: ManagerPool>(pool: &P) -> usize {
//!     pool.snapshot().live
//! }
//!
//! let (clock, hand) = Clock::manual(); // time stands still until the test moves it
//! let pool: FakePool = Pool::builder().name("under-test").clock(clock).build_fake()?;
//! let ids = IdGenerator::user_context_ids("ada", "test");
//! let context = UserExecutionContext::from_websocket_request("ada", ids)?;
//! let lease = pool.reserve(&context)?.open()?;
//! assert_eq!(connections(&pool), 1);
//! drop(lease);
//! assert_eq!(connections(&pool), 0);
//! # drop(hand);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where it differs
//!
//! | | pool | double |
//! | --- | --- | --- |
//! | an eviction while another thread reads the manager | the slot waits for the reader (`closing`) | the slot is free at once |
//! | a takeover in a full pool while another thread reads the manager | may end in `OpenError::Busy` | never |
//! | the session of an evicted lease is reset | by the evictor | when the owner drops the lease |
//! | a refusal looks for forgotten reservations | at most every 100 ms | always |
//! | every verb | mostly lock-free | blocks while another thread is in the double |

mod account;
mod lease;
mod life;
mod state;
mod waiting;

pub use lease::{FakeLease, FakeReservation, FakeReserveWait};

use crate::clock::Clock;
use crate::config::Config;
use crate::error::{BuildError, Late, ReserveError};
use crate::id::{IsolationKey, UserExecutionContext, UserId};
use crate::manager::{ByteBudget, Message, Owned, PooledWebSocketManager, SendOutcome, Session};
use crate::pool::{Ledger, ManagerPool, ManagerSnapshot, PoolBuilder, PoolName, PoolSnapshot, SendReport};
use crate::reason::{EndReason, Revoked};
use crate::slab::Key;
use crate::sync::Mutex;
use life::{After, Life};
use state::State;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

/// A plain double of [`crate::Pool`]. Made by [`PoolBuilder::build_fake`]; its verbs are those of
/// [`ManagerPool`].
pub struct FakePool<S: Session = ()> {
    core: Arc<Core<S>>,
}

/// What all handles of a double share.
struct Core<S: Session> {
    name: PoolName,
    clock: Clock,
    config: Arc<Config>,
    budget: ByteBudget,
    state: Mutex<State>,
    /// Session states that no lease has.
    sessions: Mutex<Vec<Owned<S>>>,
}

impl<S: Session> PoolBuilder<S> {
    /// Makes a double instead of a pool. The name is taken all the same.
    ///
    /// # Errors
    ///
    /// As [`PoolBuilder::build`].
    #[track_caller]
    pub fn build_fake(self) -> Result<FakePool<S>, BuildError> {
        let (name, clock, config) = self.into_parts()?;
        let config = Arc::new(config);
        let core = Core {
            name,
            budget: ByteBudget::new(config.outbound_pool_bytes),
            state: Mutex::new(State::new(config.clone(), clock.clone())),
            sessions: Mutex::new(Vec::new()),
            clock,
            config,
        };
        Ok(FakePool { core: Arc::new(core) })
    }
}

impl<S: Session> ManagerPool for FakePool<S> {
    type Session = S;
    type Reservation = FakeReservation<S>;
    type Lease = FakeLease<S>;
    type ReserveWait = FakeReserveWait<S>;

    fn name(&self) -> &str {
        self.core.name.as_str()
    }

    fn config(&self) -> &Config {
        &self.core.config
    }

    fn clock(&self) -> &Clock {
        &self.core.clock
    }

    fn reserve(&self, context: &UserExecutionContext) -> Result<FakeReservation<S>, ReserveError> {
        let made_at = Location::caller();
        let admitted = self.core.section(|state, after| state.reserve_in_turn(context, after));
        FakeReservation::admit(&self.core, admitted, context, made_at)
    }

    fn reserve_wait(&self, context: &UserExecutionContext) -> FakeReserveWait<S> {
        FakeReserveWait::new(self.core.clone(), context.clone(), Location::caller())
    }

    fn evict(&self, key: Key, reason: EndReason) -> Result<(), Late> {
        self.core.end(key, reason)
    }

    fn evict_if(
        &self,
        key: Key,
        reason: EndReason,
        predicate: impl FnOnce(&PooledWebSocketManager<'_>) -> bool,
    ) -> Result<bool, Late> {
        self.core.section(|state, after| {
            let is_due = state.life(key).and_then(|life| life.read(predicate)).ok_or(Late)?;
            if is_due {
                state.end(key, reason, after)?;
            }
            Ok(is_due)
        })
    }

    fn evict_user(&self, user: &UserId, reason: EndReason) -> usize {
        self.keys_of(user).into_iter().filter(|&key| self.evict(key, reason).is_ok()).count()
    }

    fn inspect<T>(&self, key: Key, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Option<T> {
        self.core.life(key)?.read(f)
    }

    fn keys_of(&self, user: &UserId) -> Vec<Key> {
        self.core.section(|state, _| state.keys_of(user).to_vec())
    }

    fn set_user_limit(&self, user: &UserId, max_managers: Option<usize>) {
        self.core.section(|state, after| state.set_limit(user, max_managers, after));
    }

    fn maintain(&self) -> usize {
        self.core.section(|state, after| {
            let expired = state.expire(after);
            state.serve(after);
            expired
        })
    }

    fn start_drain(&self) {
        self.core.section(|state, after| state.start_drain(after));
    }

    fn is_draining(&self) -> bool {
        self.core.section(|state, _| state.is_draining())
    }

    fn ledger(&self) -> Ledger {
        self.core.section(|state, _| state.ledger())
    }

    fn snapshot(&self) -> PoolSnapshot {
        let outbound_bytes = self.core.budget.taken();
        self.core.section(|state, _| PoolSnapshot {
            name: self.name().to_owned(),
            outbound_bytes,
            ..state.snapshot()
        })
    }

    fn managers(&self, limit: usize) -> Vec<ManagerSnapshot> {
        let now = self.core.clock.now();
        let lives: Vec<_> = self.core.section(|state, _| state.lives().take(limit).collect());
        let listed = lives
            .iter()
            .filter_map(|(key, life)| life.read(|manager| ManagerSnapshot::of(*key, manager, now)));
        listed.collect()
    }

    fn send(&self, key: Key, message: Message) -> SendOutcome {
        self.core.send(key, message)
    }

    fn send_to_user(&self, user: &UserId, message: Message) -> SendReport {
        self.send_many(&self.keys_of(user), message)
    }

    fn send_to_thread(&self, to: &IsolationKey, message: Message) -> SendReport {
        let keys = self.core.section(|state, _| state.address(to));
        self.send_many(&keys, message)
    }

    fn send_many(&self, keys: &[Key], message: Message) -> SendReport {
        let mut report = SendReport { is_nobody: keys.is_empty(), ..SendReport::default() };
        for &key in keys {
            report.count(&self.send(key, message.clone()));
        }
        report
    }

    fn broadcast(&self, message: Message) -> SendReport {
        let keys: Vec<_> = self.core.section(|state, _| state.lives().map(|(key, _)| key).collect());
        self.send_many(&keys, message)
    }

    fn leak(self) -> Self {
        std::mem::forget(self.clone());
        self
    }
}

impl<S: Session> Core<S> {
    /// The one lock. What must not run under it, foreign code, runs after it.
    fn section<T>(&self, f: impl FnOnce(&mut State, &mut After) -> T) -> T {
        let mut after = After::default();
        let result = f(&mut self.state.lock(), &mut after);
        after.run(&self.budget);
        result
    }

    fn life(&self, key: Key) -> Option<Arc<Life>> {
        self.section(|state, _| state.life(key).cloned())
    }

    fn end(&self, key: Key, reason: EndReason) -> Result<(), Late> {
        self.section(|state, after| state.end(key, reason, after))
    }

    fn why(&self, key: Key) -> Revoked {
        Revoked::new(self.section(|state, _| state.last_end(key)).unwrap_or(EndReason::Unknown))
    }

    fn send(&self, key: Key, message: Message) -> SendOutcome {
        let Some(life) = self.life(key) else { return SendOutcome::Stale };
        life.shared.offer(message, &self.config.outbound, &self.budget, 0)
    }

    /// A session state, not yet prepared.
    fn take_session(&self) -> Owned<S> {
        let spare = self.sessions.lock().pop();
        spare.unwrap_or_default()
    }

    /// Resets a session state and keeps it for the next connection.
    fn keep_session(&self, mut session: Owned<S>) {
        if session.reset_now().is_ok() {
            self.sessions.lock().push(session);
        }
    }
}

impl<S: Session> Clone for FakePool<S> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone() }
    }
}

impl<S: Session> fmt::Debug for FakePool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakePool")
            .field("name", &self.name())
            .field("capacity", &self.config().capacity)
            .finish_non_exhaustive()
    }
}

impl<S: Session> PartialEq for FakePool<S> {
    /// Two handles are equal if they are of the same double.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }
}

impl<S: Session> Eq for FakePool<S> {}
