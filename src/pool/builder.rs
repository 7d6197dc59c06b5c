//! Making a pool.

use super::Pool;
use super::core::Core;
use super::handle::Handle;
use super::observer::{Attachments, Observer};
use super::quota::{Bell, QuotaDomain};
use crate::clock::Clock;
use crate::config::{AtLimit, Config, DuplicatePolicy, Environment};
use crate::error::BuildError;
use crate::manager::{OutboundLimits, PooledWebSocketManager, Session};
use crate::sync::StaticMutex;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Builds a [`Pool`]: a preset for the environment, single numbers over it. Every number is
/// described, with its range, at [`Config`].
///
/// ```
/// use std::time::Duration;
/// use ws_manager_pool::{DuplicatePolicy, Environment, Pool};
///
/// let pool: Pool = Pool::builder()
///     .name("chat")
///     .environment(Environment::Staging)
///     .capacity(5_000)
///     .duplicates(DuplicatePolicy::Allow)
///     .reservation_deadline(Duration::from_secs(5))
///     .build()?;
/// assert_eq!(pool.config().max_managers_per_user, 10);
///
/// let second = Pool::<()>::builder().name("chat").build();
/// assert!(second.unwrap_err().to_string().contains("alive already"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a builder makes nothing before `build`"]
pub struct PoolBuilder<S: Session = ()> {
    name: String,
    clock: Clock,
    config: Config,
    attached: Attachments,
    session: PhantomData<fn() -> S>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $kind:ty,)*) => {
        $($(#[$doc])*
        pub fn $name(mut self, $name: $kind) -> Self {
            self.config.$name = $name;
            self
        })*
    };
}

impl<S: Session> PoolBuilder<S> {
    pub(super) fn new() -> Self {
        Self {
            name: "default".to_owned(),
            clock: Clock::system(),
            config: Config::preset(Environment::default()),
            attached: Attachments::default(),
            session: PhantomData,
        }
    }

    /// The pool's name, unique among the live pools of the process. `"default"` if not set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Takes all numbers from an environment's preset: call it first.
    pub fn environment(self, environment: Environment) -> Self {
        self.config(Config::preset(environment))
    }

    /// Takes all numbers from a configuration, such as one that was read from a file and from
    /// environment variables: call it first.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Tells an observer of alerts and of ends.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.attached.observer = Some(Arc::new(observer));
        self
    }

    /// Asks the application about each manager in every background round. One that is not well
    /// (`false`), or whose check panics, counts as errored from then on, and is cleaned when it has been
    /// so for [`Config::errored_after`].
    ///
    /// The check runs under a pin: it should be short.
    pub fn health_check(
        mut self,
        is_well: impl Fn(&PooledWebSocketManager<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.attached.check = Some(Arc::new(is_well));
        self
    }

    /// Counts the pool's users in a domain of several pools, or of tenants.
    pub fn quotas(mut self, quotas: &QuotaDomain) -> Self {
        self.attached.quotas = Some(quotas.clone());
        self
    }

    /// Where the pool's time comes from; the system's coarse clock if not set.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    setters! {
        /// Managers in all.
        capacity: usize,
        /// Managers for one user, unless set for a single user by [`Pool::set_user_limit`].
        max_managers_per_user: usize,
        /// What happens when a user opens a thread that is open already.
        duplicates: DuplicatePolicy,
        /// What happens when a user is at its limit, unless set for a single user by
        /// [`Pool::set_user_policy`].
        at_limit: AtLimit,
        /// A manager's outbound queue.
        outbound: OutboundLimits,
        /// All managers' outbound queues together, in bytes.
        outbound_pool_bytes: usize,
        /// Bytes of the largest message that is read.
        inbound_message_bytes: usize,
        /// Bytes of the largest frame that is read.
        inbound_frame_bytes: usize,
        /// Buffers that sockets are read into, together, in bytes.
        inbound_pool_bytes: usize,
        /// Events of a thread that are kept for a client that comes back; 0 keeps none.
        replay_events: usize,
        /// Bytes of a thread's events that are kept.
        replay_bytes: usize,
        /// How long an event is kept.
        replay_age: Duration,
        /// Bytes of events that are kept for all threads together.
        replay_pool_bytes: usize,
        /// Sockets that may be open at a time without having said whose they are.
        max_unauthenticated: usize,
        /// How long a connection may be open; `None`: for ever.
        max_lifetime: Option<Duration>,
        /// How long a reservation may last.
        reservation_deadline: Duration,
        /// A ping is sent after this much silence.
        heartbeat_interval: Duration,
        /// A connection is dead this long after a ping that nothing answered.
        heartbeat_timeout: Duration,
        /// How long a peer may take to send a message, from its first byte to its last.
        message_timeout: Duration,
        /// How long a peer may take to answer a close frame.
        close_timeout: Duration,
        /// How long a drain waits for connections to close.
        drain_timeout: Duration,
        /// Connections that a drain ends in a second.
        drain_rate: usize,
        /// Share of the user's maximum from which on its dead managers are cleaned before each new one.
        proactive_threshold: f64,
        /// Idle for this long is dead to the background round; `None` switches idleness off.
        idle_background: Option<Duration>,
        /// Idle for this long is dead when a user is cleaned proactively.
        idle_proactive: Duration,
        /// Idle for this long is dead in an emergency.
        idle_emergency: Duration,
        /// Errored for this long is dead.
        errored_after: Duration,
        /// Time between two background rounds.
        background_interval: Duration,
        /// Time for all attempts of one emergency clean together.
        emergency_budget: Duration,
        /// Time between two samples of the monitor.
        sample_interval: Duration,
    }

    /// Makes the pool. Slots are allocated as they are needed.
    ///
    /// # Errors
    ///
    /// [`BuildError::Config`] names a number that is out of range; [`BuildError::NameTaken`] says
    /// where the live pool of this name was built.
    #[track_caller]
    pub fn build(self) -> Result<Pool<S>, BuildError> {
        let (name, clock, config, attached) = self.into_parts()?;
        let quotas = attached.quotas.clone();
        let core = Arc::new(Core::new(name, clock, config, attached));
        core.slab.resident().connect_bell(Arc::downgrade(&core));
        if let Some(quotas) = quotas {
            let bell: Weak<Core<S>> = Arc::downgrade(&core);
            quotas.join(bell as Weak<dyn Bell>);
        }
        Ok(Pool { handle: Handle::new(core) })
    }

    /// What a pool, or its double, is made of.
    #[track_caller]
    pub(crate) fn into_parts(self) -> Result<(PoolName, Clock, Config, Attachments), BuildError> {
        self.config.validate()?;
        let name = PoolName::take(self.name, Location::caller())?;
        Ok((name, self.clock, self.config, self.attached))
    }
}

impl<S: Session> fmt::Debug for PoolBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("name", &self.name)
            .field("clock", &self.clock)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The names of the live pools, and where they were built.
static NAMES: StaticMutex<BTreeMap<String, &'static Location<'static>>> = StaticMutex::new(BTreeMap::new());

/// A name that no other live pool has.
pub(crate) struct PoolName(String);

impl PoolName {
    fn take(name: String, place: &'static Location<'static>) -> Result<Self, BuildError> {
        let mut names = NAMES.lock();
        if let Some(&first) = names.get(&name) {
            return Err(BuildError::NameTaken { name, first });
        }
        names.insert(name.clone(), place);
        Ok(Self(name))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Drop for PoolName {
    fn drop(&mut self) {
        NAMES.lock().remove(&self.0);
    }
}
