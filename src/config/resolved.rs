//! What the layers came to, and which of them said what.

use super::error::{ConfigError, ConfigOrigin};
use super::fields::{FIELDS, Field, Kind};
use super::read::Setting;
use super::{Config, Environment};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A [`Config`] with the layer that each value came from.
///
/// Shown, it is TOML that gives the same configuration again, with each value's origin as a comment.
///
/// ```
/// use ws_manager_pool::ConfigLayers;
///
/// let resolved = ConfigLayers::new().toml("pool.toml", "capacity = 5_000").resolve()?;
/// assert_eq!(resolved.config().capacity, 5_000);
/// assert!(resolved.to_string().contains("capacity = 5000 # pool.toml, line 1\n"));
/// assert!(resolved.to_string().contains("close_timeout = \"5s\" # preset of production\n"));
/// # Ok::<(), ws_manager_pool::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedConfig {
    config: Config,
    /// Of what a layer has set; the rest is the preset's.
    origins: BTreeMap<&'static str, ConfigOrigin>,
}

impl ResolvedConfig {
    /// Puts the settings over the environment's preset, the later over the earlier.
    pub(super) fn merge(environment: Environment, settings: &[Setting]) -> Result<Self, ConfigError> {
        let mut resolved = Self { config: Config::preset(environment), origins: BTreeMap::new() };
        for setting in settings {
            setting.apply(&mut resolved.config)?;
            resolved.origins.insert(setting.field.name, setting.origin.clone());
        }
        resolved.shorten_idle_times();
        let validity = resolved.config.validate();
        validity.map_err(|error| error.with_origins(|field| resolved.origin(field)))?;
        Ok(resolved)
    }

    /// Those that no layer has set follow the background's.
    fn shorten_idle_times(&mut self) {
        let (Some(longest), Some(origin)) =
            (self.config.idle_background, self.origins.get("idle_background").cloned())
        else {
            return;
        };
        let mut follow = |field: &'static str, span: &mut Duration| {
            if *span > longest && !self.origins.contains_key(field) {
                *span = longest;
                self.origins.insert(field, origin.clone());
            }
        };
        follow("idle_proactive", &mut self.config.idle_proactive);
        follow("idle_emergency", &mut self.config.idle_emergency);
    }

    /// The numbers. Valid.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The numbers alone.
    pub fn into_config(self) -> Config {
        self.config
    }

    /// Where a field's value came from; `None` if there is no such field. An idle time that was
    /// shortened with `idle_background` came from where that did.
    pub fn origin(&self, field: &str) -> Option<ConfigOrigin> {
        let field = FIELDS.iter().find(|known| known.name == field)?;
        Some(self.origin_of(field))
    }

    fn origin_of(&self, field: &Field) -> ConfigOrigin {
        let preset = || ConfigOrigin::Preset(self.config.environment);
        self.origins.get(field.name).cloned().unwrap_or_else(preset)
    }

    /// Every field in the order of [`Config`]: its name, its value as TOML, and where that came from.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, String, ConfigOrigin)> {
        FIELDS.iter().map(|field| (field.name, as_toml(field, &self.config), self.origin_of(field)))
    }
}

impl fmt::Display for ResolvedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fields().try_for_each(|(name, value, origin)| writeln!(f, "{name} = {value} # {origin}"))
    }
}

fn as_toml(field: &Field, config: &Config) -> String {
    let quoted = |span: Duration| format!("\"{}\"", humantime::format_duration(span));
    match &field.kind {
        Kind::Count(place, _) => (place.get)(config).to_string(),
        // Never a bare integer, and an exponent for what is very small.
        Kind::Share(place, _) => format!("{:?}", (place.get)(config)),
        Kind::Span(place, _) => quoted((place.get)(config)),
        Kind::SpanOrOff(place) => (place.get)(config).map_or("\"off\"".to_owned(), quoted),
        Kind::Word(place, _) => format!("\"{}\"", (place.get)(config)),
    }
}
