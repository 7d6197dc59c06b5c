//! How full a user, or the pool, is, in five levels.

use crate::config::Config;
use std::fmt;

/// How full something is, by the share of its maximum. A level begins at its threshold and ends only
/// [`Config::level_hysteresis`] below it, so that a load that swings around a threshold raises one alert
/// and not many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum AlertLevel {
    /// Nothing to do.
    #[default]
    Normal,
    /// From [`Config::level_info`] on (0.4): worth knowing.
    Info,
    /// From [`Config::level_warning`] on (0.6): the dead are cleaned proactively.
    Warning,
    /// From [`Config::level_critical`] on (0.8): an emergency clean.
    Critical,
    /// From [`Config::level_emergency`] on (0.9): an emergency clean, and where the policy allows it the
    /// user is shrunk.
    Emergency,
}

impl AlertLevel {
    /// All levels, from the lowest.
    pub const ALL: [Self; 5] = [Self::Normal, Self::Info, Self::Warning, Self::Critical, Self::Emergency];

    /// The level after `self` at this share of the maximum.
    pub(super) fn next(self, ratio: f64, config: &Config) -> Self {
        let risen = Self::reached(ratio, config);
        // A level holds until the share is below its threshold by more than the hysteresis.
        let held = if fault!("no_hysteresis") { risen } else { self }
            .min(Self::reached(ratio + config.level_hysteresis, config));
        risen.max(held)
    }

    /// The highest level whose threshold is reached.
    fn reached(ratio: f64, config: &Config) -> Self {
        // The sum of two shares is a rounding error off: `0.55 + 0.05` is to reach `0.6`.
        let reaches = |threshold: f64| ratio + f64::EPSILON >= threshold;
        if reaches(config.level_emergency) {
            Self::Emergency
        } else if reaches(config.level_critical) {
            Self::Critical
        } else if reaches(config.level_warning) {
            Self::Warning
        } else if reaches(config.level_info) {
            Self::Info
        } else {
            Self::Normal
        }
    }
}

impl fmt::Display for AlertLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Normal => "normal",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Emergency => "emergency",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn levels(start: AlertLevel, counts: impl IntoIterator<Item = u32>) -> Vec<AlertLevel> {
        let config = Config::preset(Environment::Production);
        let step = |level: &mut AlertLevel, count| {
            *level = level.next(f64::from(count) / 20.0, &config);
            Some(*level)
        };
        counts.into_iter().scan(start, step).collect()
    }

    #[test]
    fn a_level_begins_at_exactly_its_threshold() {
        use AlertLevel::{Critical, Emergency, Info, Normal, Warning};
        let rising = levels(Normal, [7, 8, 11, 12, 15, 16, 17, 18, 20]);
        assert_eq!(rising, [Normal, Info, Info, Warning, Warning, Critical, Critical, Emergency, Emergency]);
    }

    #[test]
    fn a_level_ends_only_below_its_hysteresis() {
        use AlertLevel::{Critical, Emergency, Info, Normal, Warning};
        // 17 of 20 is 0.85, which is exactly the hysteresis below 0.9 and so holds.
        assert_eq!(levels(Emergency, [17, 16, 15, 14]), [Emergency, Critical, Critical, Warning]);
        assert_eq!(levels(Warning, [11, 10, 7, 6]), [Warning, Info, Info, Normal]);
        assert_eq!(levels(Emergency, [0]), [Normal]);
    }
}
