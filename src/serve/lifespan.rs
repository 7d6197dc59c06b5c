//! How long a connection may say nothing, and how long it may last: decided from times alone.

use crate::clock::Timestamp;
use crate::config::Config;
use crate::reason::EndReason;
use std::time::Duration;

/// A connection's idle time and its age against the numbers in force, which may change while it is open.
pub(super) struct Lifespan {
    opened_at: Timestamp,
    /// The last application message either way.
    active_at: Timestamp,
    /// This connection's part of the jitter, 0 to 1: drawn once, so that its deadlines stand still.
    luck: f32,
}

impl Lifespan {
    pub(super) fn new(opened_at: Timestamp, luck: f32) -> Self {
        Self { opened_at, active_at: opened_at, luck }
    }

    /// An application message came in, or went out.
    pub(super) fn active(&mut self, now: Timestamp) {
        self.active_at = now;
    }

    /// When to ask again, if nothing happens until then; an error if the connection is to end for that
    /// reason. `run_until` is asked for only by one that would end: a run under way is waited for.
    pub(super) fn check(
        &self,
        config: &Config,
        now: Timestamp,
        run_until: impl FnOnce() -> Timestamp,
    ) -> Result<Timestamp, EndReason> {
        let (idle_at, old_at) = (self.idle_at(config), self.old_at(config));
        if now < idle_at.min(old_at) {
            return Ok(idle_at.min(old_at));
        }
        let run_until = run_until();
        if now < old_at {
            return if now < run_until { Ok(run_until.min(old_at)) } else { Err(EndReason::Idle) };
        }
        // One run after the other does not make it last for ever.
        let waits_until = run_until.min(old_at.after(config.run_limit));
        if now < waits_until { Ok(waits_until) } else { Err(EndReason::MaxLifetime) }
    }

    /// Has it lasted for as long as it may, whatever it is doing?
    pub(super) fn is_old(&self, config: &Config, now: Timestamp) -> bool {
        now >= self.old_at(config)
    }

    fn idle_at(&self, config: &Config) -> Timestamp {
        self.deadline(self.active_at, config.idle_background, config)
    }

    fn old_at(&self, config: &Config) -> Timestamp {
        self.deadline(self.opened_at, config.max_lifetime, config)
    }

    /// Never later than the full span, and never at its beginning.
    fn deadline(&self, from: Timestamp, span: Option<Duration>, config: &Config) -> Timestamp {
        if fault!("driver_keeps_no_deadline") {
            return Timestamp::NEVER;
        }
        span.map_or(Timestamp::NEVER, |span| {
            let millis = span.as_millis().min(u128::from(u64::MAX)) as u64;
            let shorter = millis as f64 * f64::from(self.luck) * config.deadline_jitter;
            from.after(Duration::from_millis(millis.saturating_sub(shorter as u64).max(1)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    const OPENED: Timestamp = Timestamp::from_millis(1_000_000);

    fn config(idle: u64, lifetime: u64, jitter: f64) -> Config {
        let mut config = Config::preset(Environment::Production);
        config.idle_background = Some(Duration::from_secs(idle));
        config.max_lifetime = Some(Duration::from_secs(lifetime));
        config.deadline_jitter = jitter;
        config
    }

    fn at(seconds: u64) -> Timestamp {
        OPENED.after(Duration::from_secs(seconds))
    }

    fn no_run() -> Timestamp {
        Timestamp::ZERO
    }

    #[test]
    fn silence_ends_a_connection_and_a_message_puts_it_off() {
        let config = config(100, 1_000, 0.0);
        let mut span = Lifespan::new(OPENED, 0.5);
        assert_eq!(span.check(&config, at(99), no_run), Ok(at(100)));
        assert_eq!(span.check(&config, at(100), no_run), Err(EndReason::Idle));
        span.active(at(99));
        assert_eq!(span.check(&config, at(198), no_run), Ok(at(199)));
        assert_eq!(span.check(&config, at(199), no_run), Err(EndReason::Idle));
    }

    #[test]
    fn activity_does_not_make_a_connection_younger() {
        let config = config(100, 1_000, 0.0);
        let mut span = Lifespan::new(OPENED, 0.5);
        span.active(at(950));
        assert_eq!(span.check(&config, at(999), no_run), Ok(at(1_000)));
        assert!(!span.is_old(&config, at(999)));
        assert_eq!(span.check(&config, at(1_000), no_run), Err(EndReason::MaxLifetime));
        assert!(span.is_old(&config, at(1_000)));
    }

    #[test]
    fn a_run_is_waited_for_and_not_for_ever() {
        let config = config(100, 1_000, 0.0);
        let span = Lifespan::new(OPENED, 0.5);
        assert_eq!(span.check(&config, at(100), || at(160)), Ok(at(160)));
        assert_eq!(span.check(&config, at(160), || at(160)), Err(EndReason::Idle));
        assert_eq!(span.check(&config, at(1_000), || at(1_500)), Ok(at(1_500)));
        let limit = 1_000 + config.run_limit.as_secs();
        assert_eq!(span.check(&config, at(limit - 1), || Timestamp::NEVER), Ok(at(limit)));
        assert_eq!(span.check(&config, at(limit), || Timestamp::NEVER), Err(EndReason::MaxLifetime));
    }

    #[test]
    fn jitter_shortens_by_its_share_at_most_and_other_numbers_count_at_once() {
        let ends = |config: &Config, luck| Lifespan::new(OPENED, luck).check(config, OPENED, no_run);
        assert_eq!(ends(&config(100, 1_000, 0.2), 0.0), Ok(at(100)));
        assert_eq!(ends(&config(100, 1_000, 0.2), 0.5), Ok(at(90)));
        assert_eq!(ends(&config(100, 1_000, 0.2), 1.0), Ok(at(80)));
        assert_eq!(ends(&config(5_000, 1_000, 0.2), 0.5), Ok(at(900)));
        let mut off = config(100, 1_000, 0.2);
        (off.idle_background, off.max_lifetime) = (None, None);
        assert_eq!(ends(&off, 0.5), Ok(Timestamp::NEVER));
    }
}
