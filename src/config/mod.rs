//! Every number of the pool: a preset for each environment, single fields over it, and a check that
//! names the field and the allowed range.

mod error;
mod fields;
#[cfg(feature = "config")]
mod layers;
#[cfg(feature = "config")]
mod read;
#[cfg(feature = "config")]
mod resolved;

pub use error::{ConfigError, ConfigOrigin};
#[cfg(feature = "config")]
#[cfg_attr(docsrs, doc(cfg(feature = "config")))]
pub use layers::ConfigLayers;
#[cfg(feature = "config")]
#[cfg_attr(docsrs, doc(cfg(feature = "config")))]
pub use resolved::ResolvedConfig;

use crate::manager::OutboundLimits;
use fields::FIELDS;
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

/// What happens when a user, or a tenant, is at its limit. The pool as a whole is never made room in by
/// ending what is active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum AtLimit {
    /// The new connection is refused, once the dead ones are gone. The default: no automatism ends
    /// an active connection.
    #[default]
    Reject,
    /// The user's oldest connection makes room, and ends with code 4008 when the new one opens.
    ///
    /// This and [`AtLimit::EvictIdlest`] also allow the monitor to act before the limit: at its samples it
    /// forces out up to [`Config::emergency_forced`] connections of a user at the critical level, until
    /// that is below it, and shrinks one that is then still critical from the emergency level to
    /// [`Config::shrink_target`]. With a small maximum that is soon: 4 of 5 is critical. Levels close to 1
    /// ([`Config::level_critical`], [`Config::level_emergency`]) leave it to the limit alone.
    EvictOldest,
    /// The user's connection that has been idle for longest makes room in the same way.
    EvictIdlest,
}

/// The numbers that a pool works with. Made by [`crate::PoolBuilder`]; read by anyone; replaced while
/// the pool runs by [`crate::Pool::reconfigure`].
///
/// Serialised, it has the keys and values of a configuration file: `"heartbeat_interval": "20s"`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Which preset the numbers come from.
    pub environment: Environment,
    /// Managers in all, reserved and live. 1 to 2³¹. Fixed while the pool lives.
    pub capacity: usize,
    /// Managers for one user, reserved and live, unless set for a single user. 1 to 2³¹.
    pub max_managers_per_user: usize,
    /// A second connection on an open thread.
    pub duplicates: DuplicatePolicy,
    /// A connection too many, unless set for a single user or tenant.
    pub at_limit: AtLimit,

    /// A manager's outbound queue: messages, 0 (which refuses every message) to 2³¹; bytes, from 0; bytes
    /// of the largest message, at least 1.
    pub outbound: OutboundLimits,
    /// All managers' outbound queues together, in bytes. At least 1. Fixed while the pool lives.
    pub outbound_pool_bytes: usize,
    /// Bytes of the largest message that is read. At least 1.
    pub inbound_message_bytes: usize,
    /// Bytes of the largest frame that is read. At least 1.
    pub inbound_frame_bytes: usize,
    /// Bytes of the buffers that all connections together may hold for what they have not read to its end;
    /// where the pool reads the socket. At least 1. Fixed while the pool lives.
    pub inbound_pool_bytes: usize,

    /// Events of a thread that are kept for a client that reconnects. 0, the default: none.
    pub replay_events: usize,
    /// Bytes of a thread's events that are kept. At least 1.
    pub replay_bytes: usize,
    /// How long an event is kept, and how long the numbering of a thread goes on without a connection.
    /// At least 1 ms.
    pub replay_age: Duration,
    /// Bytes of events that are kept for all threads together. At least 1. Fixed while the pool lives.
    pub replay_pool_bytes: usize,

    /// Sockets that may be open at a time without having said whose they are. 1 to 2³¹.
    pub max_unauthenticated: usize,

    /// How long a reservation may last before it is taken back. At least 1 ms.
    pub reservation_deadline: Duration,
    /// A ping is sent after this much silence. At least 1 ms.
    pub heartbeat_interval: Duration,
    /// A connection is dead this long after a ping that nothing answered. At least 1 ms.
    pub heartbeat_timeout: Duration,
    /// How long a peer may take to send a message, from its first byte to its last; kept by the crate's own
    /// engine, where a message that is not complete costs memory of the pool. At least 1 ms.
    pub message_timeout: Duration,
    /// How long a peer may take to answer a close frame. At least 1 ms.
    pub close_timeout: Duration,
    /// How long a drain waits for connections to close. At least 1 ms.
    pub drain_timeout: Duration,
    /// Connections that a drain ends in a second; more, where half of `drain_timeout` would not do. At
    /// least 1.
    pub drain_rate: usize,
    /// How long a connection may be open before it is asked to come again (code 4004). At least 1 ms.
    /// `None`, the default: for ever.
    pub max_lifetime: Option<Duration>,
    /// How far `max_lifetime` and idle times are shortened at random for each connection, as a share, so
    /// that those who came together do not all leave together. 0 up to (not including) 1.
    pub deadline_jitter: f64,

    /// Share of the user's maximum from which on its dead managers are cleaned before each new one.
    /// Above 0, up to 1.
    pub proactive_threshold: f64,
    /// A manager without an application message for this long is dead to the background round. At least
    /// 1 ms. `None`: idleness ends nothing, neither there nor in the other two.
    pub idle_background: Option<Duration>,
    /// The same when a user is cleaned proactively. At least 1 ms, and no longer than
    /// `idle_background`.
    pub idle_proactive: Duration,
    /// The same in an emergency. At least 1 ms, and no longer than `idle_background`.
    pub idle_emergency: Duration,
    /// A manager that has been errored for this long is dead. At least 1 ms.
    pub errored_after: Duration,
    /// Longest time for which an agent's run protects its manager. 1 ms to 30 min.
    pub run_limit: Duration,
    /// Time between two background rounds. At least 1 ms.
    pub background_interval: Duration,
    /// Longest piece of a background round within one call of maintenance. At least 1 ms; what is left
    /// is done by the next call.
    pub background_budget: Duration,
    /// Time for all attempts of one emergency clean together. At least 1 ms.
    pub emergency_budget: Duration,
    /// Attempts of one emergency clean. 1 to 3.
    pub emergency_attempts: u32,
    /// Managers that one emergency clean may force out, where [`AtLimit`] allows it. 0 to 5.
    pub emergency_forced: u32,

    /// Time between two samples of the monitor. At least 1 ms.
    pub sample_interval: Duration,
    /// Share of the maximum at which [`crate::AlertLevel::Info`] begins. The four levels rise, from above
    /// 0 to 1.
    pub level_info: f64,
    /// Where [`crate::AlertLevel::Warning`] begins.
    pub level_warning: f64,
    /// Where [`crate::AlertLevel::Critical`] begins.
    pub level_critical: f64,
    /// Where [`crate::AlertLevel::Emergency`] begins.
    pub level_emergency: f64,
    /// How far below its beginning a level ends. 0 up to (not including) `level_info`.
    pub level_hysteresis: f64,
    /// Share of the maximum that a user in an emergency is shrunk to, where [`AtLimit`] allows it. Above
    /// 0, up to 1.
    pub shrink_target: f64,

    /// A lease of this age is listed as a suspect. At least 1 ms.
    pub suspect_age: Duration,
    /// A lease whose owner has not asked for messages for this long is listed as a suspect. At least
    /// 1 ms.
    pub suspect_silence: Duration,
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
    /// | a message takes at most | 60 s | same | same | same |
    /// | outbound | 64 messages, 256 KiB; 256 MiB for the pool | same | same | same |
    /// | high water, low water | 0.75, 0.25 of that | same | same | same |
    /// | inbound message, frame | 1 MiB, 1 MiB; 64 MiB for the pool | same | same | same |
    /// | replay | off; 256 KiB a thread, 5 min, 64 MiB for the pool | same | same | same |
    /// | unauthenticated sockets | 1,000 | same | same | same |
    /// | drained in a second | 1,000 | same | same | same |
    /// | lifetime; jitter | for ever; 0.1 | same | same | same |
    /// | proactive threshold | 0.6 | 0.5 | 0.4 | 0.4 |
    /// | emergency budget | 10 s | 5 s | 2 s | 1 s |
    /// | background interval | 60 s | 30 s | 15 s | 5 s |
    /// | idle, background | 600 s | 300 s | 120 s | 120 s |
    /// | idle, proactive and emergency | 180 s, 300 s | 180 s, 300 s | 120 s, 120 s | 120 s, 120 s |
    /// | errored for | 300 s | same | same | same |
    /// | emergency attempts, forced | 3, 5 | same | same | same |
    /// | run limit | 30 min | same | same | same |
    /// | monitor's sample | 5 s | same | same | same |
    /// | levels; hysteresis; shrink to | 0.4, 0.6, 0.8, 0.9; 0.05; 0.5 | same | same | same |
    /// | background budget | 20 ms | same | same | same |
    /// | suspect: age, silence | 24 h, 2 min | same | same | same |
    pub fn preset(environment: Environment) -> Self {
        use Environment::{Ci, Development, Production, Staging};
        let seconds = Duration::from_secs;
        let by_environment = |of: [u64; 4]| match environment {
            Production => of[0],
            Staging => of[1],
            Development => of[2],
            Ci => of[3],
        };
        let is_ci = environment == Ci;
        let idle = seconds(by_environment([600, 300, 120, 120]));
        Self {
            environment,
            capacity: by_environment([100_000, 10_000, 10_000, 1_000]) as usize,
            max_managers_per_user: by_environment([20, 10, 20, 5]) as usize,
            duplicates: DuplicatePolicy::default(),
            at_limit: AtLimit::default(),
            outbound: OutboundLimits::default(),
            outbound_pool_bytes: 256 << 20,
            inbound_message_bytes: 1 << 20,
            inbound_frame_bytes: 1 << 20,
            inbound_pool_bytes: 64 << 20,
            replay_events: 0,
            replay_bytes: 256 << 10,
            replay_age: seconds(5 * 60),
            replay_pool_bytes: 64 << 20,
            max_unauthenticated: 1_000,
            reservation_deadline: seconds(if is_ci { 1 } else { 10 }),
            heartbeat_interval: seconds(if is_ci { 1 } else { 20 }),
            heartbeat_timeout: seconds(if is_ci { 1 } else { 10 }),
            message_timeout: seconds(60),
            close_timeout: seconds(if is_ci { 1 } else { 5 }),
            drain_timeout: seconds(if is_ci { 5 } else { 30 }),
            drain_rate: 1_000,
            max_lifetime: None,
            deadline_jitter: 0.1,
            proactive_threshold: by_environment([6, 5, 4, 4]) as f64 / 10.0,
            idle_background: Some(idle),
            idle_proactive: idle.min(seconds(180)),
            idle_emergency: idle.min(seconds(300)),
            errored_after: seconds(300),
            run_limit: seconds(30 * 60),
            background_interval: seconds(by_environment([60, 30, 15, 5])),
            background_budget: Duration::from_millis(20),
            emergency_budget: seconds(by_environment([10, 5, 2, 1])),
            emergency_attempts: 3,
            emergency_forced: 5,
            sample_interval: seconds(5),
            level_info: 0.4,
            level_warning: 0.6,
            level_critical: 0.8,
            level_emergency: 0.9,
            level_hysteresis: 0.05,
            shrink_target: 0.5,
            suspect_age: seconds(24 * 60 * 60),
            suspect_silence: seconds(120),
        }
    }

    /// Checks every field, and how they go together.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first field that is out of its range, and the range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        FIELDS.iter().try_for_each(|field| field.check(self))?;
        if let Some(idle) = self.idle_background {
            no_longer("idle_proactive", self.idle_proactive, idle)?;
            no_longer("idle_emergency", self.idle_emergency, idle)?;
        }
        above("level_warning", self.level_warning, "level_info", self.level_info)?;
        above("level_critical", self.level_critical, "level_warning", self.level_warning)?;
        above("level_emergency", self.level_emergency, "level_critical", self.level_critical)?;
        below("level_hysteresis", self.level_hysteresis, "level_info", self.level_info)?;
        let (low, high) = (self.outbound.low_water(), self.outbound.high_water());
        below("outbound_low_water", low, "outbound_high_water", high)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Config {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use fields::Kind;
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(FIELDS.len()))?;
        for field in FIELDS {
            map.serialize_key(field.name)?;
            match &field.kind {
                Kind::Count(place, _) => map.serialize_value(&(place.get)(self)),
                Kind::Share(place, _) => map.serialize_value(&(place.get)(self)),
                Kind::Span(place, _) => map.serialize_value(&format_args!("{:?}", (place.get)(self))),
                Kind::SpanOrOff(place) => match (place.get)(self) {
                    Some(span) => map.serialize_value(&format_args!("{span:?}")),
                    None => map.serialize_value("off"),
                },
                Kind::Word(place, _) => map.serialize_value((place.get)(self)),
            }?;
        }
        map.end()
    }
}

fn no_longer(field: &str, span: Duration, idle: Duration) -> Result<(), ConfigError> {
    if span <= idle {
        return Ok(());
    }
    let other = "idle_background";
    Err(ConfigError::clashes(field, format_args!("{span:?}"), "at most", other, format_args!("{idle:?}")))
}

fn above(field: &str, level: f64, other: &'static str, bound: f64) -> Result<(), ConfigError> {
    if level > bound { Ok(()) } else { Err(ConfigError::clashes(field, level, "more than", other, bound)) }
}

fn below(field: &str, level: f64, other: &'static str, bound: f64) -> Result<(), ConfigError> {
    if level < bound { Ok(()) } else { Err(ConfigError::clashes(field, level, "less than", other, bound)) }
}

#[cfg(test)]
mod tests;
