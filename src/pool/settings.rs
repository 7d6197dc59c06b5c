//! The numbers in force, and those that were: replaced while the pool runs, without touching what is
//! open.

use super::Pool;
use super::core::Core;
use crate::clock::Timestamp;
use crate::config::{Config, ConfigError};
use crate::manager::{OutboundLimits, Session};
use crate::sync::{ArcSwap, AtomicCell, Mutex};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Versions that can be gone back to.
const KEPT_VERSIONS: usize = 16;

/// The configuration in force, behind one swap.
pub(crate) struct Settings {
    current: ArcSwap<Config>,
    /// Of the same, what each message asks for: a copy that is read without telling anybody.
    outbound: AtomicCell<OutboundLimits>,
    versions: Mutex<Versions>,
}

/// Never empty: the last one is in force.
struct Versions {
    kept: VecDeque<ConfigVersion>,
    next: u64,
}

/// One version of a pool's configuration.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConfigVersion {
    /// Counts from 1, the one that the pool was built with. Never used twice.
    pub number: u64,
    /// When it was put in force first.
    pub since: Timestamp,
    /// The numbers.
    #[cfg_attr(feature = "serde", serde(serialize_with = "plain"))]
    pub config: Arc<Config>,
}

#[cfg(feature = "serde")]
fn plain<Z: serde::Serializer>(config: &Arc<Config>, serializer: Z) -> Result<Z::Ok, Z::Error> {
    serde::Serialize::serialize(&**config, serializer)
}

/// There is no earlier configuration to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEarlierConfig;

impl fmt::Display for NoEarlierConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration in force is the oldest that is kept: use `reconfigure` to change it")
    }
}

impl std::error::Error for NoEarlierConfig {}

impl Settings {
    /// The first version.
    pub(crate) fn new(config: Config, since: Timestamp) -> Self {
        let outbound = AtomicCell::new(config.outbound);
        let current = ArcSwap::from_pointee(config);
        let first = ConfigVersion { number: 1, since, config: current.load_full() };
        Self { current, outbound, versions: Mutex::new(Versions { kept: VecDeque::from([first]), next: 2 }) }
    }

    /// The numbers in force. Wait-free but for the first call of a thread.
    #[inline]
    pub(crate) fn load(&self) -> impl Deref<Target = Arc<Config>> {
        self.current.load()
    }

    /// Of the numbers in force, those of the queues. No more than a few loads.
    #[inline]
    pub(crate) fn outbound(&self) -> OutboundLimits {
        self.outbound.load()
    }

    pub(crate) fn load_full(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// Puts another version in force.
    pub(crate) fn replace(&self, config: Config, since: Timestamp) -> Result<ConfigVersion, ConfigError> {
        config.validate()?;
        let mut versions = self.versions.lock();
        let current = self.current.load_full();
        if config.capacity != current.capacity {
            return Err(ConfigError::fixed("capacity", current.capacity));
        }
        if config.outbound_pool_bytes != current.outbound_pool_bytes {
            return Err(ConfigError::fixed("outbound_pool_bytes", current.outbound_pool_bytes));
        }
        if config.inbound_pool_bytes != current.inbound_pool_bytes {
            return Err(ConfigError::fixed("inbound_pool_bytes", current.inbound_pool_bytes));
        }
        if config.replay_pool_bytes != current.replay_pool_bytes {
            return Err(ConfigError::fixed("replay_pool_bytes", current.replay_pool_bytes));
        }
        let version = ConfigVersion { number: versions.next, since, config: Arc::new(config) };
        versions.next += 1;
        versions.kept.push_back(version.clone());
        if versions.kept.len() > KEPT_VERSIONS {
            versions.kept.pop_front();
        }
        self.put_in_force(&version);
        Ok(version)
    }

    /// Puts the version before the present one in force again.
    pub(crate) fn roll_back(&self) -> Result<ConfigVersion, NoEarlierConfig> {
        let mut versions = self.versions.lock();
        let earlier = versions.kept.len().checked_sub(2).ok_or(NoEarlierConfig)?;
        versions.kept.truncate(earlier + 1);
        let version = versions.kept[earlier].clone();
        self.put_in_force(&version);
        Ok(version)
    }

    /// Under the lock of the versions.
    fn put_in_force(&self, version: &ConfigVersion) {
        self.outbound.store(version.config.outbound);
        self.current.store(version.config.clone());
    }

    /// The version in force.
    pub(crate) fn current(&self) -> ConfigVersion {
        let versions = self.versions.lock();
        versions.kept[versions.kept.len() - 1].clone()
    }

    pub(crate) fn versions(&self) -> Vec<ConfigVersion> {
        self.versions.lock().kept.iter().cloned().collect()
    }
}

impl<S: Session> Core<S> {
    fn settings_changed(&self) {
        // By a shorter time somebody may be dead who was not to be before long.
        self.maintenance.news.of_all();
        if fault!("config_swap_torn") {
            self.registry.for_each_shard(|section| {
                let mut torn = Config::clone(&section.config);
                torn.at_limit = self.settings.load().at_limit;
                section.config = Arc::new(torn);
            });
        }
        let early = fault!("config_loaded_early").then(|| self.settings.load_full());
        self.registry.for_each_shard(|section| {
            // Loaded in the section: of two changes at once the last one stays, in each of them.
            section.config = early.clone().unwrap_or_else(|| self.settings.load_full());
            section.for_each_user(|entry, _| entry.may_be_due = true);
        });
        self.place_freed(); // a raised limit is a place for whoever waits for it
    }
}

impl<S: Session> Pool<S> {
    /// The numbers in force.
    pub fn config(&self) -> Arc<Config> {
        self.handle.settings.load_full()
    }

    /// Puts other numbers in force, for everything that begins from now on. What is open stays open: a
    /// lowered limit closes nobody, and a connection keeps the heartbeat it was opened with.
    ///
    /// ```
    /// use ws_manager_pool::{Config, Pool};
    ///
    /// let pool: Pool = Pool::builder().name("doc-settings").build()?;
    /// let mut config = Config::clone(&pool.config());
    /// config.max_managers_per_user = 3;
    /// pool.reconfigure(config)?;
    /// assert_eq!(pool.config().max_managers_per_user, 3);
    /// assert_eq!(pool.rollback_config()?.number, 1);
    /// assert_eq!(pool.config().max_managers_per_user, 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the field that is out of its range, or that a running pool cannot change.
    /// Nothing has changed then.
    pub fn reconfigure(&self, config: Config) -> Result<ConfigVersion, ConfigError> {
        let version = self.handle.settings.replace(config, self.handle.clock.now())?;
        self.handle.settings_changed();
        self.handle.log.reconfigured(version.number);
        Ok(version)
    }

    /// Goes back to the configuration before the present one, which is forgotten. May be repeated: 16
    /// versions are kept.
    ///
    /// # Errors
    ///
    /// [`NoEarlierConfig`]: the present one is the oldest that is kept.
    pub fn rollback_config(&self) -> Result<ConfigVersion, NoEarlierConfig> {
        let version = self.handle.settings.roll_back()?;
        self.handle.settings_changed();
        self.handle.log.rolled_back(version.number);
        Ok(version)
    }

    /// The configurations that are kept, oldest first; the last is in force.
    pub fn config_versions(&self) -> Vec<ConfigVersion> {
        self.handle.settings.versions()
    }
}
