//! Every number of the pool: a preset for each environment, single fields over it, and a check that
//! names the field and the allowed range.

use crate::manager::OutboundLimits;
use crate::slab;
use std::fmt;
use std::time::Duration;

/// Where the pool runs: picks the defaults of [`Config`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Environment {
    /// Live traffic. The default, and the strictest about what counts as dead.
    #[default]
    Production,
    /// A rehearsal of production at a tenth of its size.
    Staging,
    /// A developer's machine.
    Development,
    /// Automated tests: small, and quick to notice silence.
    Ci,
}

/// What happens when a user opens a thread that is open already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum DuplicatePolicy {
    /// The new connection takes the old one's place, which ends with code 4001. Also where the user
    /// or the pool is full. The default.
    #[default]
    Replace,
    /// The new connection is refused.
    Reject,
    /// Both stay: several tabs on one thread. Each counts.
    Allow,
}

/// The numbers that a pool works with. Made by [`crate::PoolBuilder`]; read by anyone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Config {
    /// Which preset the numbers come from.
    pub environment: Environment,
    /// Managers in all, reserved and live. 1 to 2³¹.
    pub capacity: usize,
    /// Managers for one user, reserved and live, unless set for a single user. 1 to 2³¹.
    pub max_managers_per_user: usize,
    /// A second connection on an open thread.
    pub duplicates: DuplicatePolicy,
    /// A manager's outbound queue, in messages and bytes.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub outbound: OutboundLimits,
    /// All managers' outbound queues together, in bytes. At least 1.
    pub outbound_pool_bytes: usize,
    /// How long a reservation may last before it is taken back. At least 1 ms.
    pub reservation_deadline: Duration,
    /// A ping is sent after this much silence. At least 1 ms.
    pub heartbeat_interval: Duration,
    /// A connection is dead this long after a ping that nothing answered. At least 1 ms.
    pub heartbeat_timeout: Duration,
    /// How long a peer may take to answer a close frame. At least 1 ms.
    pub close_timeout: Duration,
    /// How long a drain waits for connections to close. At least 1 ms.
    pub drain_timeout: Duration,
}

impl Config {
    /// The preset of an environment.
    ///
    /// | | production | staging | development | CI |
    /// | --- | --- | --- | --- | --- |
    /// | capacity | 100,000 | 10,000 | 10,000 | 1,000 |
    /// | managers per user | 20 | 10 | 20 | 5 |
    /// | ping after, dead after | 20 s, 10 s | same | same | 1 s, 1 s |
    /// | reservation, close, drain | 10 s, 5 s, 30 s | same | same | 1 s, 1 s, 5 s |
    /// | outbound | 64 messages, 256 KiB; 256 MiB for the pool | same | same | same |
    pub fn preset(environment: Environment) -> Self {
        let (capacity, max_managers_per_user) = match environment {
            Environment::Production => (100_000, 20),
            Environment::Staging => (10_000, 10),
            Environment::Development => (10_000, 20),
            Environment::Ci => (1_000, 5),
        };
        let is_ci = environment == Environment::Ci;
        let seconds = |usual, ci| Duration::from_secs(if is_ci { ci } else { usual });
        Self {
            environment,
            capacity,
            max_managers_per_user,
            duplicates: DuplicatePolicy::default(),
            outbound: OutboundLimits::default(),
            outbound_pool_bytes: 256 << 20,
            reservation_deadline: seconds(10, 1),
            heartbeat_interval: seconds(20, 1),
            heartbeat_timeout: seconds(10, 1),
            close_timeout: seconds(5, 1),
            drain_timeout: seconds(30, 5),
        }
    }

    /// Checks every field.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let count = |field, value: usize, max: usize| {
            let allowed = Allowed { min: 1, max: Some(max as u64), unit: "" };
            if (1..=max).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError { field, value: value as u64, allowed })
            }
        };
        let span = |field, value: Duration| {
            let allowed = Allowed { min: 1, max: None, unit: " ms" };
            let millis = value.as_millis() as u64;
            if millis >= 1 { Ok(()) } else { Err(ConfigError { field, value: millis, allowed }) }
        };
        count("capacity", self.capacity, slab::MAX_SLOTS)?;
        count("max_managers_per_user", self.max_managers_per_user, slab::MAX_SLOTS)?;
        count("outbound_pool_bytes", self.outbound_pool_bytes, isize::MAX as usize)?;
        span("reservation_deadline", self.reservation_deadline)?;
        span("heartbeat_interval", self.heartbeat_interval)?;
        span("heartbeat_timeout", self.heartbeat_timeout)?;
        span("close_timeout", self.close_timeout)?;
        span("drain_timeout", self.drain_timeout)
    }
}

/// A field of [`Config`] is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    field: &'static str,
    value: u64,
    allowed: Allowed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allowed {
    min: u64,
    max: Option<u64>,
    unit: &'static str,
}

impl ConfigError {
    /// The field's name, as in [`Config`].
    pub fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Allowed { min, max, unit } = self.allowed;
        write!(f, "{} is {}{unit}: set it to ", self.field, self.value)?;
        match max {
            Some(max) => write!(f, "a value from {min} to {max}{unit}"),
            None => write!(f, "at least {min}{unit}"),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid() {
        use Environment::{Ci, Development, Production, Staging};
        for environment in [Production, Staging, Development, Ci] {
            assert_eq!(Config::preset(environment).validate(), Ok(()));
        }
    }

    #[test]
    fn an_error_names_the_field_and_the_range() {
        let config = Config { capacity: 0, ..Config::preset(Environment::Ci) };
        let error = config.validate().unwrap_err();
        assert_eq!(error.to_string(), "capacity is 0: set it to a value from 1 to 2147483648");

        let config = Config { close_timeout: Duration::ZERO, ..Config::preset(Environment::Ci) };
        let error = config.validate().unwrap_err();
        assert_eq!(error.to_string(), "close_timeout is 0 ms: set it to at least 1 ms");
    }
}
