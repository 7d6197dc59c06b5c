//! The public verbs as traits, so that an application can be written once and run on the pool or, in
//! its tests, on `testing::FakePool`.
//!
//! The traits add nothing and leave nothing out: a test compares them with the inherent methods of
//! [`Pool`], [`Reservation`] and [`Lease`], where everything is described. No method has a default
//! body, so a double cannot miss one silently.

use super::{ConfigVersion, End, Maintained, NoEarlierConfig, Scope, SweepPolicy, SweepReport, UserCheck};
use super::{EventData, EventId, Lease, Reservation, ReserveWait, Run, RunGuard};
use super::{Ledger, ManagerSnapshot, ManyReport, Pool, PoolSnapshot, SendReport, Verdict};
use crate::clock::{Clock, Timestamp};
use crate::config::{AtLimit, Config, ConfigError};
use crate::error::{Late, OpenError, ReserveError, TransitionError};
use crate::id::{IsolationKey, UserExecutionContext, UserId};
use crate::manager::{Message, PooledWebSocketManager, SendOutcome, Session};
use crate::reason::{EndReason, Revoked};
use crate::slab::Key;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Every public verb of [`Pool`].
///
/// ```
/// use ws_manager_pool::{ManagerPool, ManagerReservation, Message, ReserveError, UserExecutionContext};
///
/// /// Greets a user who has just connected. Knows no more of the pool than it needs.
/// fn greet<P: ManagerPool>(pool: &P, context: &UserExecutionContext) -> Result<P::Lease, ReserveError> {
///     let lease = pool.reserve(context)?.open().expect("nobody else ends it");
///     let _ = pool.send_to_thread(&context.isolation_key(), Message::from("welcome"));
///     Ok(lease)
/// }
/// ```
pub trait ManagerPool: Clone + Eq + fmt::Debug + Send + Sync + 'static {
    /// The application's own state of a connection.
    type Session: Session;
    /// A place held during the handshake.
    type Reservation: ManagerReservation<Lease = Self::Lease>;
    /// The owner's right to a manager.
    type Lease: ManagerLease<Session = Self::Session>;
    /// An agent's run on a thread.
    type Run: ManagerRun;
    /// The wait for a place.
    type ReserveWait: Future<Output = Result<Self::Reservation, ReserveError>> + fmt::Debug + Send + Unpin;

    /// As [`Pool::name`].
    fn name(&self) -> &str;

    /// As [`Pool::config`].
    fn config(&self) -> Arc<Config>;

    /// As [`Pool::reconfigure`].
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the field.
    fn reconfigure(&self, config: Config) -> Result<ConfigVersion, ConfigError>;

    /// As [`Pool::rollback_config`].
    ///
    /// # Errors
    ///
    /// [`NoEarlierConfig`].
    fn rollback_config(&self) -> Result<ConfigVersion, NoEarlierConfig>;

    /// As [`Pool::config_versions`].
    fn config_versions(&self) -> Vec<ConfigVersion>;

    /// As [`Pool::clock`].
    fn clock(&self) -> &Clock;

    /// As [`Pool::reserve`].
    ///
    /// # Errors
    ///
    /// [`ReserveError`] says what is full and what to do.
    #[track_caller]
    fn reserve(&self, context: &UserExecutionContext) -> Result<Self::Reservation, ReserveError>;

    /// As [`Pool::reserve_wait`].
    #[track_caller]
    fn reserve_wait(&self, context: &UserExecutionContext) -> Self::ReserveWait;

    /// As [`Pool::evict`].
    ///
    /// # Errors
    ///
    /// [`Late`] if the lease was over.
    fn evict(&self, key: Key, reason: EndReason) -> Result<(), Late>;

    /// As [`Pool::evict_if`].
    ///
    /// # Errors
    ///
    /// [`Late`] if the lease was over.
    fn evict_if(
        &self,
        key: Key,
        reason: EndReason,
        predicate: impl FnOnce(&PooledWebSocketManager<'_>) -> bool,
    ) -> Result<bool, Late>;

    /// As [`Pool::sweep`].
    fn sweep(&self, scope: Scope<'_>, policy: SweepPolicy, now: Timestamp, budget: Duration) -> SweepReport;

    /// As [`Pool::cleanup_manager_by_context`].
    fn cleanup_manager_by_context(&self, context: &UserExecutionContext, reason: EndReason) -> SweepReport;

    /// As [`Pool::cleanup_all_user_managers`].
    fn cleanup_all_user_managers(&self, user: &UserId, reason: EndReason) -> SweepReport;

    /// As [`Pool::evict_oldest`].
    fn evict_oldest(&self, scope: Scope<'_>, n: usize) -> SweepReport;

    /// As [`Pool::shrink_to`].
    fn shrink_to(&self, scope: Scope<'_>, n: usize) -> SweepReport;

    /// As [`Pool::inspect`].
    fn inspect<T>(&self, key: Key, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Option<T>;

    /// As [`Pool::keys_of`].
    fn keys_of(&self, user: &UserId) -> Vec<Key>;

    /// As [`Pool::set_user_limit`].
    fn set_user_limit(&self, user: &UserId, max_managers: Option<usize>);

    /// As [`Pool::set_user_policy`].
    fn set_user_policy(&self, user: &UserId, at_limit: Option<AtLimit>);

    /// As [`Pool::check_user`].
    fn check_user(&self, user: &UserId) -> UserCheck;

    /// As [`Pool::maintain`].
    fn maintain(&self, now: Timestamp) -> Maintained;

    /// As [`Pool::start_drain`].
    fn start_drain(&self);

    /// As [`Pool::is_draining`].
    fn is_draining(&self) -> bool;

    /// As [`Pool::check`].
    fn check(&self) -> Verdict;

    /// As [`Pool::ledger`].
    fn ledger(&self) -> Ledger;

    /// As [`Pool::last_ends_of`].
    fn last_ends_of(&self, user: &UserId) -> Vec<End>;

    /// As [`Pool::last_ends`].
    fn last_ends(&self, limit: usize) -> Vec<End>;

    /// As [`Pool::snapshot`].
    fn snapshot(&self) -> PoolSnapshot;

    /// As [`Pool::managers`].
    fn managers(&self, limit: usize) -> Vec<ManagerSnapshot>;

    /// As [`Pool::send`].
    fn send(&self, key: Key, message: Message) -> SendOutcome;

    /// As [`Pool::send_to_user`].
    fn send_to_user(&self, user: &UserId, message: Message) -> SendReport;

    /// As [`Pool::send_to_thread`].
    fn send_to_thread(&self, to: &IsolationKey, message: Message) -> SendReport;

    /// As [`Pool::send_many`].
    fn send_many(&self, keys: &[Key], message: Message) -> ManyReport;

    /// As [`Pool::broadcast`].
    fn broadcast(&self, message: Message) -> SendReport;

    /// As [`Pool::start_run`].
    fn start_run(&self, context: &UserExecutionContext, data: impl Into<EventData>) -> Self::Run;

    /// As [`Pool::leak`].
    #[must_use]
    fn leak(self) -> Self;
}

/// Every public verb of [`Run`].
pub trait ManagerRun: fmt::Debug + Send + Sized {
    /// As [`Run::context`].
    fn context(&self) -> &UserExecutionContext;

    /// As [`Run::thinking`].
    fn thinking(&mut self, data: impl Into<EventData>) -> SendReport;

    /// As [`Run::tool_executing`].
    fn tool_executing(&mut self, data: impl Into<EventData>) -> SendReport;

    /// As [`Run::tool_completed`].
    fn tool_completed(&mut self, data: impl Into<EventData>) -> SendReport;

    /// As [`Run::complete`].
    fn complete(self, data: impl Into<EventData>) -> SendReport;
}

/// Every public verb of [`Reservation`].
pub trait ManagerReservation: fmt::Debug + Send + Sized {
    /// What it becomes.
    type Lease;

    /// As [`Reservation::resume_after`].
    fn resume_after(&mut self, after: EventId);

    /// As [`Reservation::context`].
    fn context(&self) -> &UserExecutionContext;

    /// As [`Reservation::open`].
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the place has been given back then.
    fn open(self) -> Result<Self::Lease, OpenError>;
}

/// Every public verb of [`Lease`].
pub trait ManagerLease: fmt::Debug + Send + Sized {
    /// The application's own state of the connection.
    type Session: Session;
    /// An agent's run on the manager.
    type RunGuard: fmt::Debug + Send;

    /// As [`Lease::key`].
    fn key(&self) -> Key;

    /// As [`Lease::is_live`].
    fn is_live(&self) -> bool;

    /// As [`Lease::with`].
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    fn with<T>(&self, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Result<T, Revoked>;

    /// As [`Lease::with_session`].
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    fn with_session<T>(&mut self, f: impl FnOnce(&mut Self::Session) -> T) -> Result<T, Revoked>;

    /// As [`Lease::connected`].
    ///
    /// # Errors
    ///
    /// [`TransitionError`], as for the other three.
    fn connected(&self) -> Result<(), TransitionError>;

    /// As [`Lease::closing`].
    ///
    /// # Errors
    ///
    /// [`TransitionError`].
    fn closing(&self) -> Result<(), TransitionError>;

    /// As [`Lease::disconnected`].
    ///
    /// # Errors
    ///
    /// [`TransitionError`].
    fn disconnected(&self) -> Result<(), TransitionError>;

    /// As [`Lease::errored`].
    ///
    /// # Errors
    ///
    /// [`TransitionError`].
    fn errored(&self) -> Result<(), TransitionError>;

    /// As [`Lease::received`].
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    fn received(&self, bytes: usize) -> Result<(), Revoked>;

    /// As [`Lease::next_message`].
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    fn next_message(&mut self) -> Result<Option<Message>, Revoked>;

    /// As [`Lease::poll_message`].
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Revoked>>;

    /// As [`Lease::begin_run`].
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    fn begin_run(&self) -> Result<Self::RunGuard, Revoked>;

    /// As [`Lease::close`].
    ///
    /// # Errors
    ///
    /// [`Late`] if somebody else ended it before.
    fn close(self, reason: EndReason) -> Result<(), Late>;

    /// As [`Lease::revoked`].
    fn revoked(&self) -> Option<Revoked>;
}

/// Passes each verb on to the inherent method of the same name.
macro_rules! passed_on {
    ($($(#[$attr:meta])* fn $verb:ident $([$t:ident])? (&self $(, $arg:ident: $kind:ty)*) $(-> $out:ty)?;)*) => {
        $($(#[$attr])* fn $verb$(<$t>)?(&self $(, $arg: $kind)*) $(-> $out)? {
            Self::$verb(self $(, $arg)*)
        })*
    };
}

impl<S: Session> ManagerPool for Pool<S> {
    type Session = S;
    type Reservation = Reservation<S>;
    type Lease = Lease<S>;
    type Run = Run<S>;
    type ReserveWait = ReserveWait<S>;

    passed_on! {
        fn name(&self) -> &str;
        fn config(&self) -> Arc<Config>;
        fn reconfigure(&self, config: Config) -> Result<ConfigVersion, ConfigError>;
        fn rollback_config(&self) -> Result<ConfigVersion, NoEarlierConfig>;
        fn config_versions(&self) -> Vec<ConfigVersion>;
        fn clock(&self) -> &Clock;
        #[track_caller]
        fn reserve(&self, context: &UserExecutionContext) -> Result<Reservation<S>, ReserveError>;
        #[track_caller]
        fn reserve_wait(&self, context: &UserExecutionContext) -> ReserveWait<S>;
        fn evict(&self, key: Key, reason: EndReason) -> Result<(), Late>;
        fn evict_if(
            &self,
            key: Key,
            reason: EndReason,
            predicate: impl FnOnce(&PooledWebSocketManager<'_>) -> bool
        ) -> Result<bool, Late>;
        fn sweep(
            &self,
            scope: Scope<'_>,
            policy: SweepPolicy,
            now: Timestamp,
            budget: Duration
        ) -> SweepReport;
        fn cleanup_manager_by_context(
            &self,
            context: &UserExecutionContext,
            reason: EndReason
        ) -> SweepReport;
        fn cleanup_all_user_managers(&self, user: &UserId, reason: EndReason) -> SweepReport;
        fn evict_oldest(&self, scope: Scope<'_>, n: usize) -> SweepReport;
        fn shrink_to(&self, scope: Scope<'_>, n: usize) -> SweepReport;
        fn inspect[T](&self, key: Key, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Option<T>;
        fn keys_of(&self, user: &UserId) -> Vec<Key>;
        fn set_user_limit(&self, user: &UserId, max_managers: Option<usize>);
        fn set_user_policy(&self, user: &UserId, at_limit: Option<AtLimit>);
        fn check_user(&self, user: &UserId) -> UserCheck;
        fn maintain(&self, now: Timestamp) -> Maintained;
        fn start_drain(&self);
        fn is_draining(&self) -> bool;
        fn check(&self) -> Verdict;
        fn ledger(&self) -> Ledger;
        fn last_ends_of(&self, user: &UserId) -> Vec<End>;
        fn last_ends(&self, limit: usize) -> Vec<End>;
        fn snapshot(&self) -> PoolSnapshot;
        fn managers(&self, limit: usize) -> Vec<ManagerSnapshot>;
        fn send(&self, key: Key, message: Message) -> SendOutcome;
        fn send_to_user(&self, user: &UserId, message: Message) -> SendReport;
        fn send_to_thread(&self, to: &IsolationKey, message: Message) -> SendReport;
        fn send_many(&self, keys: &[Key], message: Message) -> ManyReport;
        fn broadcast(&self, message: Message) -> SendReport;
    }

    fn start_run(&self, context: &UserExecutionContext, data: impl Into<EventData>) -> Run<S> {
        Self::start_run(self, context, data)
    }

    fn leak(self) -> Self {
        Self::leak(self)
    }
}

impl<S: Session> ManagerReservation for Reservation<S> {
    type Lease = Lease<S>;

    passed_on! {
        fn context(&self) -> &UserExecutionContext;
    }

    fn resume_after(&mut self, after: EventId) {
        Self::resume_after(self, after);
    }

    fn open(self) -> Result<Lease<S>, OpenError> {
        Self::open(self)
    }
}

impl<S: Session> ManagerRun for Run<S> {
    passed_on! {
        fn context(&self) -> &UserExecutionContext;
    }

    fn thinking(&mut self, data: impl Into<EventData>) -> SendReport {
        Self::thinking(self, data)
    }

    fn tool_executing(&mut self, data: impl Into<EventData>) -> SendReport {
        Self::tool_executing(self, data)
    }

    fn tool_completed(&mut self, data: impl Into<EventData>) -> SendReport {
        Self::tool_completed(self, data)
    }

    fn complete(self, data: impl Into<EventData>) -> SendReport {
        Self::complete(self, data)
    }
}

impl<S: Session> ManagerLease for Lease<S> {
    type Session = S;
    type RunGuard = RunGuard<S>;

    passed_on! {
        fn key(&self) -> Key;
        fn is_live(&self) -> bool;
        fn with[T](&self, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Result<T, Revoked>;
        fn connected(&self) -> Result<(), TransitionError>;
        fn closing(&self) -> Result<(), TransitionError>;
        fn disconnected(&self) -> Result<(), TransitionError>;
        fn errored(&self) -> Result<(), TransitionError>;
        fn received(&self, bytes: usize) -> Result<(), Revoked>;
        fn begin_run(&self) -> Result<RunGuard<S>, Revoked>;
        fn revoked(&self) -> Option<Revoked>;
    }

    fn with_session<T>(&mut self, f: impl FnOnce(&mut S) -> T) -> Result<T, Revoked> {
        Self::with_session(self, f)
    }

    fn next_message(&mut self) -> Result<Option<Message>, Revoked> {
        Self::next_message(self)
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Revoked>> {
        Self::poll_message(self, cx)
    }

    fn close(self, reason: EndReason) -> Result<(), Late> {
        Self::close(self, reason)
    }
}
