//! Making a pool.

use super::Pool;
use super::core::Core;
use super::handle::Handle;
use crate::clock::Clock;
use crate::config::{Config, DuplicatePolicy, Environment};
use crate::error::BuildError;
use crate::manager::{OutboundLimits, Session};
use crate::sync::StaticMutex;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;
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
#[derive(Debug)]
#[must_use = "a builder makes nothing before `build`"]
pub struct PoolBuilder<S: Session = ()> {
    name: String,
    clock: Clock,
    config: Config,
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
            session: PhantomData,
        }
    }

    /// The pool's name, unique among the live pools of the process. `"default"` if not set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Takes all numbers from an environment's preset: call it first.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.config = Config::preset(environment);
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
        /// A manager's outbound queue.
        outbound: OutboundLimits,
        /// All managers' outbound queues together, in bytes.
        outbound_pool_bytes: usize,
        /// How long a reservation may last.
        reservation_deadline: Duration,
        /// A ping is sent after this much silence.
        heartbeat_interval: Duration,
        /// A connection is dead this long after a ping that nothing answered.
        heartbeat_timeout: Duration,
        /// How long a peer may take to answer a close frame.
        close_timeout: Duration,
        /// How long a drain waits for connections to close.
        drain_timeout: Duration,
    }

    /// Makes the pool. Slots are allocated as they are needed.
    ///
    /// # Errors
    ///
    /// [`BuildError::Config`] names a number that is out of range; [`BuildError::NameTaken`] says
    /// where the live pool of this name was built.
    #[track_caller]
    pub fn build(self) -> Result<Pool<S>, BuildError> {
        let (name, clock, config) = self.into_parts()?;
        let core = Arc::new(Core::new(name, clock, config));
        core.slab.resident().connect_bell(Arc::downgrade(&core));
        Ok(Pool { handle: Handle::new(core) })
    }

    /// What a pool, or its double, is made of.
    #[track_caller]
    pub(crate) fn into_parts(self) -> Result<(PoolName, Clock, Config), BuildError> {
        self.config.validate()?;
        let name = PoolName::take(self.name, Location::caller())?;
        Ok((name, self.clock, self.config))
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
