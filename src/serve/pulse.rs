//! Whether a peer is alive: decided from times alone.

use crate::clock::Timestamp;
use crate::config::Config;
use std::time::Duration;

/// Whether the peer is alive. Any frame from it says so.
pub(super) struct Pulse {
    heard_at: Timestamp,
    /// [`Timestamp::ZERO`] while there is no ping to be answered.
    pinged_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Alive,
    /// Time for a ping.
    Ping,
    Dead,
}

impl Pulse {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { heard_at: now, pinged_at: Timestamp::ZERO }
    }

    pub(super) fn heard(&mut self, now: Timestamp) {
        self.heard_at = now;
        self.pinged_at = Timestamp::ZERO;
    }

    /// How long a peer may give no sign of life.
    pub(super) fn patience(config: &Config) -> Duration {
        config.heartbeat_interval.saturating_add(config.heartbeat_timeout)
    }

    /// When [`Pulse::check`] has something to say, if nothing is heard.
    pub(super) fn deadline(&self, config: &Config) -> Timestamp {
        if self.pinged_at == Timestamp::ZERO {
            self.heard_at.after(config.heartbeat_interval)
        } else {
            self.pinged_at.after(config.heartbeat_timeout)
        }
    }

    /// The timeout runs from the ping that was really sent, however late it was.
    pub(super) fn check(&mut self, config: &Config, now: Timestamp) -> Beat {
        if now < self.deadline(config) {
            Beat::Alive
        } else if self.pinged_at == Timestamp::ZERO || fault!("heartbeat_never_fires") {
            self.pinged_at = now;
            Beat::Ping
        } else {
            Beat::Dead
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[test]
    fn a_silent_peer_is_pinged_and_then_dead_and_any_frame_revives_it() {
        let config = Config::preset(Environment::Production);
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1_000);
        let mut pulse = Pulse::new(at(0));
        let check = |pulse: &mut Pulse, seconds| pulse.check(&config, at(seconds));
        assert_eq!(check(&mut pulse, 19), Beat::Alive);
        assert_eq!(check(&mut pulse, 20), Beat::Ping);
        assert_eq!((check(&mut pulse, 29), pulse.deadline(&config)), (Beat::Alive, at(30)));
        pulse.heard(at(29));
        assert_eq!(check(&mut pulse, 48), Beat::Alive);
        assert_eq!(check(&mut pulse, 90), Beat::Ping, "late, but nobody is dead without a ping");
        assert_eq!(check(&mut pulse, 99), Beat::Alive);
        assert_eq!(check(&mut pulse, 100), Beat::Dead);
    }
}
