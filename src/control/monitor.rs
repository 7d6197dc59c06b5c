//! What to do about how full a user, or the pool, is.

use super::level::AlertLevel;
use crate::config::Config;

/// How many managers there are, and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) count: usize,
    pub(crate) max: usize,
}

impl Load {
    /// The share of the maximum. Above 1 after a limit was lowered.
    pub(crate) fn ratio(self) -> f64 {
        self.count as f64 / self.max.max(1) as f64
    }

    /// How many are to go until the share is below `threshold`.
    pub(crate) fn above(self, threshold: f64) -> usize {
        let below = (threshold * self.max as f64).ceil() as usize;
        (self.count + 1).saturating_sub(below)
    }

    /// Whether anybody active may be forced out where a policy allows it. Beyond the maximum is nobody but
    /// after a limit was lowered, and that closes nobody.
    pub(crate) fn may_be_forced(self) -> bool {
        self.count <= self.max
    }

    /// Whether the dead are to be cleaned before the next manager: at exactly 12 of 20 they are.
    pub(crate) fn is_proactive(self, config: &Config) -> bool {
        // A share of a count is not exact in binary: 0.6 of 20 is to be 12.
        self.count as f64 + 1e-9 >= config.proactive_threshold * self.max as f64
    }
}

/// What a sample calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    /// Clean the dead, by the proactive rules.
    Proactive,
    /// Clean the dead, by the emergency rules.
    Emergency,
    /// Clean the dead, by the emergency rules; if the load is still critical, and the policy allows
    /// it, shrink to this many.
    EmergencyThenShrink {
        to: usize,
    },
}

/// The monitor's memory of one user, or of the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) level: AlertLevel,
    /// The maximum at the last sample.
    pub(crate) max: usize,
}

/// A change of level, for those who observe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: AlertLevel,
    pub(crate) to: AlertLevel,
}

impl Watch {
    /// Takes a sample: the level moves, and with it what is to be done. Below critical only a change
    /// calls for action, from critical on each sample does.
    pub(crate) fn sample(&mut self, load: Load, config: &Config) -> (Option<Change>, Action) {
        self.max = load.max;
        let from = self.level;
        self.level = from.next(load.ratio(), config);
        let change = (from != self.level).then_some(Change { from, to: self.level });
        let action = match self.level {
            AlertLevel::Warning if change.is_some() => Action::Proactive,
            AlertLevel::Critical => Action::Emergency,
            AlertLevel::Emergency => {
                Action::EmergencyThenShrink { to: (config.shrink_target * load.max as f64) as usize }
            }
            _ => Action::Nothing,
        };
        (change, action)
    }

    /// Whether an emergency clean has left so many that the user is to be shrunk.
    pub(crate) fn is_still_critical(load: Load, config: &Config) -> bool {
        load.ratio() >= config.level_critical
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn load(count: usize) -> Load {
        Load { count, max: 20 }
    }

    #[test]
    fn twelve_of_twenty_is_proactive_and_eleven_is_not() {
        let config = Config::preset(Environment::Production);
        assert!(!load(11).is_proactive(&config));
        assert!(load(12).is_proactive(&config));
        let ci = Config::preset(Environment::Ci);
        assert!(Load { count: 2, max: 5 }.is_proactive(&ci), "0.4 of 5 is 2");
    }

    #[test]
    fn a_warning_acts_once_and_a_critical_level_at_each_sample() {
        let config = Config::preset(Environment::Production);
        let mut watch = Watch::default();
        let mut actions = |counts: &[usize]| {
            counts.iter().map(|&count| watch.sample(load(count), &config).1).collect::<Vec<_>>()
        };
        let quiet = Action::Nothing;
        assert_eq!(actions(&[8, 12, 12, 13]), [quiet, Action::Proactive, quiet, quiet]);
        assert_eq!(actions(&[16, 16]), [Action::Emergency, Action::Emergency]);
        let shrink = Action::EmergencyThenShrink { to: 10 };
        assert_eq!(actions(&[18, 20]), [shrink, shrink]);
        assert_eq!(actions(&[5]), [quiet]);
    }

    #[test]
    fn only_a_change_of_level_is_a_change() {
        let config = Config::preset(Environment::Production);
        let mut watch = Watch::default();
        let mut change = |count| watch.sample(load(count), &config).0.map(|change| (change.from, change.to));
        assert_eq!(change(7), None);
        assert_eq!(change(18), Some((AlertLevel::Normal, AlertLevel::Emergency)));
        assert_eq!(change(19), None);
        assert_eq!(change(17), None, "within the hysteresis");
        assert_eq!(change(1), Some((AlertLevel::Emergency, AlertLevel::Normal)));
    }
}
