//! Which managers are dead: the one place that decides it.

use crate::clock::Timestamp;
use crate::config::Config;
use crate::manager::ManagerState;
use std::time::Duration;

/// Why a sweep takes a manager. The dead in this order, then, only where a policy allows it, the forced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Strategy {
    /// The manager's own state is disconnected.
    Disconnected,
    /// No application message for the configured time.
    Idle,
    /// Errored for the configured time.
    Errored,
    /// Active, and forced out.
    Forced,
}

impl Strategy {
    /// All strategies, in the order in which a clean applies them.
    pub const ALL: [Self; 4] = [Self::Disconnected, Self::Idle, Self::Errored, Self::Forced];
}

/// What a decision needs to know of a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) state: ManagerState,
    pub(crate) errored_at: Option<Timestamp>,
    pub(crate) last_activity: Timestamp,
    /// An agent's run protects the manager until then, if it has not ended.
    pub(crate) run_until: Timestamp,
}

impl Figures {
    /// In an agent's run.
    pub(crate) fn is_running(&self, now: Timestamp) -> bool {
        now < self.run_until
    }
}

/// From when on a manager is dead. Age alone never makes it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// `None`: idleness ends nothing.
    idle_after: Option<Duration>,
    errored_after: Duration,
}

impl Rules {
    pub(crate) fn proactive(config: &Config) -> Self {
        Self::with_idle(config, config.idle_proactive)
    }

    pub(crate) fn emergency(config: &Config) -> Self {
        Self::with_idle(config, config.idle_emergency)
    }

    pub(crate) fn background(config: &Config) -> Self {
        Self { idle_after: config.idle_background, errored_after: config.errored_after }
    }

    /// Where idleness is switched off, it is so everywhere.
    fn with_idle(config: &Config, idle: Duration) -> Self {
        Self { idle_after: config.idle_background.map(|_| idle), errored_after: config.errored_after }
    }

    /// Why the manager is dead, if it is. Does not look at runs: who asks decides what they are worth.
    #[inline]
    pub(crate) fn due(&self, figures: &Figures, now: Timestamp) -> Option<Strategy> {
        if figures.state == ManagerState::Disconnected {
            return Some(Strategy::Disconnected);
        }
        if self
            .idle_after
            .is_some_and(|idle| now.since(figures.last_activity) >= idle || fault!("everything_is_idle"))
        {
            return Some(Strategy::Idle);
        }
        let is_errored = figures.errored_at.is_some_and(|at| now.since(at) >= self.errored_after);
        is_errored.then_some(Strategy::Errored)
    }
}

impl Rules {
    /// The earliest moment at which the manager is dead, if nothing happens to it until then.
    pub(crate) fn due_at(&self, figures: &Figures) -> Timestamp {
        if figures.state == ManagerState::Disconnected {
            return Timestamp::ZERO;
        }
        let idle = self.idle_after.map_or(Timestamp::NEVER, |idle| figures.last_activity.after(idle));
        let errored = figures.errored_at.map_or(Timestamp::NEVER, |at| at.after(self.errored_after));
        idle.min(errored)
    }

    /// The time within which no manager that is well now becomes dead but by its own state.
    pub(crate) fn grace(&self) -> Duration {
        self.idle_after.map_or(self.errored_after, |idle| idle.min(self.errored_after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    const NOW: Timestamp = Timestamp::from_millis(10_000_000);

    fn seconds_ago(seconds: u64) -> Timestamp {
        Timestamp::from_millis(NOW.as_millis() - seconds * 1_000)
    }

    fn active() -> Figures {
        Figures {
            state: ManagerState::Connected,
            errored_at: None,
            last_activity: NOW,
            run_until: Timestamp::ZERO,
        }
    }

    #[test]
    fn idle_is_dead_at_exactly_its_time_and_each_clean_has_its_own() {
        let config = Config::preset(Environment::Production);
        for (rules, idle) in [
            (Rules::proactive(&config), 180),
            (Rules::emergency(&config), 300),
            (Rules::background(&config), 600),
        ] {
            let idle_for = |seconds| Figures { last_activity: seconds_ago(seconds), ..active() };
            assert_eq!(rules.due(&idle_for(idle - 1), NOW), None);
            assert_eq!(rules.due(&idle_for(idle), NOW), Some(Strategy::Idle));
        }
    }

    #[test]
    fn idleness_can_be_switched_off_everywhere() {
        let config = Config { idle_background: None, ..Config::preset(Environment::Production) };
        let idle = Figures { last_activity: Timestamp::ZERO, ..active() };
        for rules in [Rules::proactive(&config), Rules::emergency(&config), Rules::background(&config)] {
            assert_eq!(rules.due(&idle, NOW), None);
        }
    }

    #[test]
    fn an_error_is_dead_after_its_time_and_a_disconnected_manager_at_once() {
        let rules = Rules::background(&Config::preset(Environment::Production));
        let errored_for = |seconds| Figures {
            state: ManagerState::Errored,
            errored_at: Some(seconds_ago(seconds)),
            ..active()
        };
        assert_eq!(rules.due(&errored_for(299), NOW), None);
        assert_eq!(rules.due(&errored_for(300), NOW), Some(Strategy::Errored));
        let gone = Figures { state: ManagerState::Disconnected, ..active() };
        assert_eq!(rules.due(&gone, NOW), Some(Strategy::Disconnected));
        assert_eq!(rules.due(&active(), NOW), None);
    }

    #[test]
    fn a_manager_is_due_at_the_very_moment_that_was_foretold() {
        let rules = Rules::proactive(&Config::preset(Environment::Production));
        let errored = |seconds| Figures {
            state: ManagerState::Errored,
            errored_at: Some(seconds_ago(seconds)),
            ..active()
        };
        for figures in [active(), errored(200), Figures { last_activity: seconds_ago(100), ..active() }] {
            let due_at = rules.due_at(&figures);
            let just_before = Timestamp::from_millis(due_at.as_millis() - 1);
            assert!(rules.due(&figures, due_at).is_some() && rules.due(&figures, just_before).is_none());
            assert!(due_at <= NOW.after(rules.grace()));
        }
    }
}
