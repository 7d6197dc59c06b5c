//! A double of the pool for an application's own tests: one lock, plain tables, no lock-free part.
//!
//! It keeps the pool's promises by the simplest means, so that a test of an application which fails
//! on it has found a fault in the application. State machine, outbound queue, byte budget, session
//! handling, settings, quota domains, the text of an event, the registry of names and every decision of
//! `control` are the pool's own; slab, shards, hand-over, journals and sweep engine are replaced. One body
//! of tests runs on both (`tests/conformance`).
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
//! | a sweep | stops at its budget, and can go on later | is always complete: budgets are ignored |
//! | an observer | is told of each end as it happens | is told when the verb's work is done |
//! | a thread's events | those that are kept take memory | all of them, until the thread is forgotten |
//! | the log (`tracing` feature) | everything | alerts and ends |
//! | every verb | mostly lock-free | blocks while another thread is in the double |

mod account;
mod core;
mod delivery;
mod ending;
mod events;
mod lease;
mod life;
mod lookup;
mod state;
mod sweep;
mod upkeep;
mod waiting;

pub use events::FakeRun;
pub use lease::{FakeLease, FakeReservation, FakeReserveWait, FakeRunGuard};

use crate::clock::{Clock, Timestamp};
use crate::config::{AtLimit, Config, ConfigError};
use crate::error::{BuildError, Late, ReserveError};
use crate::id::{IsolationKey, UserExecutionContext, UserId};
use crate::manager::{Message, PooledWebSocketManager, SendOutcome, Session};
use crate::pool::{
    ConfigVersion, End, EventData, Ledger, Maintained, ManagerPool, ManagerSnapshot, ManyReport,
    NoEarlierConfig, PoolBuilder, PoolSnapshot, Scope, SendReport, SweepPolicy, SweepReport, UserCheck,
    Verdict,
};
use crate::reason::EndReason;
use crate::slab::Key;
use core::Core;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

/// A plain double of [`crate::Pool`]. Made by [`PoolBuilder::build_fake`]; its verbs are those of
/// [`ManagerPool`].
pub struct FakePool<S: Session = ()> {
    core: Arc<Core<S>>,
}

impl<S: Session> PoolBuilder<S> {
    /// Makes a double instead of a pool. The name is taken all the same; observer, health check and
    /// quota domain serve the double as they would serve the pool.
    ///
    /// # Errors
    ///
    /// As [`PoolBuilder::build`].
    #[track_caller]
    pub fn build_fake(self) -> Result<FakePool<S>, BuildError> {
        let (name, clock, config, attached) = self.into_parts()?;
        Ok(FakePool { core: Core::new(name, clock, config, attached) })
    }
}

impl<S: Session> ManagerPool for FakePool<S> {
    type Session = S;
    type Reservation = FakeReservation<S>;
    type Lease = FakeLease<S>;
    type Run = FakeRun<S>;
    type ReserveWait = FakeReserveWait<S>;

    fn name(&self) -> &str {
        self.core.name.as_str()
    }

    fn config(&self) -> Arc<Config> {
        self.core.config()
    }

    fn reconfigure(&self, config: Config) -> Result<ConfigVersion, ConfigError> {
        self.core.section(|state| {
            let version = state.settings.replace(config, state.clock.now())?;
            state.settings_changed();
            Ok(version)
        })
    }

    fn rollback_config(&self) -> Result<ConfigVersion, NoEarlierConfig> {
        self.core.section(|state| {
            let version = state.settings.roll_back()?;
            state.settings_changed();
            Ok(version)
        })
    }

    fn config_versions(&self) -> Vec<ConfigVersion> {
        self.core.section(|state| state.settings.versions())
    }

    fn clock(&self) -> &Clock {
        &self.core.clock
    }

    fn reserve(&self, context: &UserExecutionContext) -> Result<FakeReservation<S>, ReserveError> {
        let made_at = Location::caller();
        let admitted = self.core.section(|state| state.reserve_in_time(context));
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
        self.core.section(|state| {
            let is_due = state.read(key, predicate).ok_or(Late)?;
            if is_due {
                state.end(key, reason)?;
            }
            Ok(is_due)
        })
    }

    fn sweep(&self, scope: Scope<'_>, policy: SweepPolicy, now: Timestamp, _: Duration) -> SweepReport {
        self.core.section(|state| state.sweep(scope, policy, now))
    }

    fn cleanup_manager_by_context(&self, context: &UserExecutionContext, reason: EndReason) -> SweepReport {
        let now = self.core.clock.now();
        self.sweep(Scope::Thread(&context.isolation_key()), SweepPolicy::Operator(reason), now, Duration::MAX)
    }

    fn cleanup_all_user_managers(&self, user: &UserId, reason: EndReason) -> SweepReport {
        let now = self.core.clock.now();
        self.sweep(Scope::User(user), SweepPolicy::Operator(reason), now, Duration::MAX)
    }

    fn evict_oldest(&self, scope: Scope<'_>, n: usize) -> SweepReport {
        self.core.section(|state| {
            state.force_out(scope, AtLimit::EvictOldest, EndReason::Operator, |live| n.min(live))
        })
    }

    fn shrink_to(&self, scope: Scope<'_>, n: usize) -> SweepReport {
        self.core.section(|state| {
            let wanted = |live: usize| live.saturating_sub(n);
            state.force_out(scope, AtLimit::EvictOldest, EndReason::Operator, wanted)
        })
    }

    fn inspect<T>(&self, key: Key, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Option<T> {
        self.core.life(key)?.read(f)
    }

    fn keys_of(&self, user: &UserId) -> Vec<Key> {
        self.core.section(|state| state.keys_of(user).to_vec())
    }

    fn set_user_limit(&self, user: &UserId, max_managers: Option<usize>) {
        self.core.section(|state| state.change_rules(user, |rules| rules.max_managers = max_managers));
    }

    fn set_user_policy(&self, user: &UserId, at_limit: Option<AtLimit>) {
        self.core.section(|state| state.change_rules(user, |rules| rules.at_limit = at_limit));
    }

    fn check_user(&self, user: &UserId) -> UserCheck {
        self.core.section(|state| state.check_user(user))
    }

    fn maintain(&self, now: Timestamp) -> Maintained {
        self.core.maintain(now)
    }

    fn start_drain(&self) {
        self.core.section(|state| state.start_drain());
    }

    fn is_draining(&self) -> bool {
        self.core.section(|state| state.is_draining)
    }

    fn check(&self) -> Verdict {
        self.ledger().verdict
    }

    fn ledger(&self) -> Ledger {
        self.core.section(|state| state.ledger())
    }

    fn last_ends_of(&self, user: &UserId) -> Vec<End> {
        self.core.section(|state| state.last_ends_of(user))
    }

    fn last_ends(&self, limit: usize) -> Vec<End> {
        self.core.section(|state| state.last_ends(limit))
    }

    fn snapshot(&self) -> PoolSnapshot {
        PoolSnapshot {
            name: self.name().to_owned(),
            observer_panics: self.core.observer_panics(),
            ..self.core.section(|state| state.snapshot())
        }
    }

    fn managers(&self, limit: usize) -> Vec<ManagerSnapshot> {
        let now = self.core.clock.now();
        let snapshot = |state: &mut state::State| {
            let listed = state.lives().take(limit);
            listed
                .filter_map(|(key, life)| life.read(|manager| ManagerSnapshot::of(key, manager, now)))
                .collect()
        };
        self.core.section(snapshot)
    }

    fn send(&self, key: Key, message: Message) -> SendOutcome {
        self.core.send(key, message)
    }

    fn send_to_user(&self, user: &UserId, message: Message) -> SendReport {
        self.core.send_many(&self.keys_of(user), &message).sum
    }

    fn send_to_thread(&self, to: &IsolationKey, message: Message) -> SendReport {
        let keys = self.core.section(|state| state.address(to));
        self.core.send_many(&keys, &message).sum
    }

    fn send_many(&self, keys: &[Key], message: Message) -> ManyReport {
        self.core.send_many(keys, &message)
    }

    fn broadcast(&self, message: Message) -> SendReport {
        let keys: Vec<_> = self.core.section(|state| state.lives().map(|(key, _)| key).collect());
        self.core.send_many(&keys, &message).sum
    }

    fn start_run(&self, context: &UserExecutionContext, data: impl Into<EventData>) -> FakeRun<S> {
        FakeRun::start(self.core.clone(), context, &data.into())
    }

    fn leak(self) -> Self {
        std::mem::forget(self.clone());
        self
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
