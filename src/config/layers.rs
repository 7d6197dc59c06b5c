//! The configuration from layers: a preset, files, environment variables. Code comes last, in
//! [`crate::PoolBuilder`].

use super::error::ConfigError;
use super::read::{self, Setting};
use super::resolved::ResolvedConfig;
use super::{Config, Environment};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fmt};

/// Collects a [`Config`] from layers, each stronger than the one before it:
///
/// 1. the preset of the environment, which the strongest layer that has an `environment` names;
/// 2. files of TOML, in the order in which they were added;
/// 3. environment variables: `WS_POOL_CAPACITY` is the field `capacity`;
/// 4. code: [`crate::PoolBuilder::config`] and then the builder's setters.
///
/// A key is the name of a field of [`Config`]; those of its `outbound` are `outbound_messages`,
/// `outbound_bytes` and so on. Times are text with a unit
/// (`"20s"`, `"5min"`, `"100ms"`), choices their names in snake case; `idle_background = "off"` switches
/// idleness off. `docs/pool.toml` shows every field with its production value, meaning and range.
///
/// Where `idle_background` is shorter than an `idle_proactive` or `idle_emergency` that no layer has
/// set, those are shortened with it.
///
/// Nothing is guessed and nothing is ignored: an unknown key or variable, a wrong type, a value out of
/// its range, also one that a stronger layer covers, is an error that names it, its place and what is
/// allowed.
///
/// ```
/// use std::time::Duration;
/// use ws_manager_pool::{ConfigLayers, Pool};
///
/// let config = ConfigLayers::new()
///     .toml("pool.toml", "environment = \"staging\"\ncapacity = 5_000\nheartbeat_interval = \"15s\"")
///     .variables([("WS_POOL_CAPACITY", "6000")])
///     .load()?;
/// assert_eq!((config.capacity, config.max_managers_per_user), (6_000, 10));
/// let pool: Pool = Pool::builder().name("doc-layers").config(config).max_managers_per_user(12).build()?;
/// assert_eq!(pool.config().heartbeat_interval, Duration::from_secs(15));
///
/// let error = ConfigLayers::new().toml("pool.toml", "capcity = 5").load();
/// assert_eq!(
///     error.unwrap_err().to_string(),
///     "\"capcity\" (pool.toml, line 1) is no field of the configuration: the nearest is capacity"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "layers give nothing before `load`"]
pub struct ConfigLayers {
    environment: Environment,
    files: Vec<Source>,
    prefix: String,
    /// `None`: the process's.
    variables: Option<Vec<(OsString, OsString)>>,
}

#[derive(Clone)]
enum Source {
    File { path: PathBuf, may_be_missing: bool },
    Text { name: PathBuf, text: String },
}

impl ConfigLayers {
    /// The preset of production and the process's environment variables that begin with `WS_POOL_`.
    pub fn new() -> Self {
        Self {
            environment: Environment::default(),
            files: Vec::new(),
            prefix: "WS_POOL".to_owned(),
            variables: None,
        }
    }

    /// The environment, where neither a file nor a variable names one.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Adds a file of TOML, at most 1 MiB, stronger than those before it. It must exist.
    pub fn file(self, path: impl Into<PathBuf>) -> Self {
        self.source(Source::File { path: path.into(), may_be_missing: false })
    }

    /// Adds a file of TOML as [`file`](Self::file) does, which may be missing.
    pub fn optional_file(self, path: impl Into<PathBuf>) -> Self {
        self.source(Source::File { path: path.into(), may_be_missing: true })
    }

    /// Adds TOML that was read already, under the name that errors give it.
    pub fn toml(self, name: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        self.source(Source::Text { name: name.into(), text: text.into() })
    }

    fn source(mut self, source: Source) -> Self {
        self.files.push(source);
        self
    }

    /// What the variables' names begin with, before an underscore. `WS_POOL` if not set. Every variable
    /// that begins so must be a field: take another prefix where other things are called the same
    /// (Kubernetes sets `WS_POOL_PORT` and more in every container beside a service `ws-pool`). An empty
    /// prefix reads no variables.
    pub fn env_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Takes these (name, value) pairs instead of the process's variables.
    pub fn variables<N: Into<OsString>, V: Into<OsString>>(
        mut self,
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.variables = Some(pairs.collect());
        self
    }

    /// Reads all layers and merges them. May block: it reads files. Without a file, and with
    /// [`variables`](Self::variables), it touches nothing of the process.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the field, its value, where that came from, and what is allowed; or the file
    /// that cannot be read.
    pub fn load(&self) -> Result<Config, ConfigError> {
        self.resolve().map(ResolvedConfig::into_config)
    }

    /// As [`load`](Self::load), and remembers where each value came from.
    ///
    /// # Errors
    ///
    /// Those of [`load`](Self::load).
    pub fn resolve(&self) -> Result<ResolvedConfig, ConfigError> {
        let mut settings = Vec::new();
        for source in &self.files {
            settings.extend(source.read()?);
        }
        settings.extend(self.read_variables()?);

        let mut environment = Config::preset(self.environment);
        for setting in settings.iter().filter(|setting| setting.field.name == "environment") {
            setting.apply(&mut environment)?;
        }
        ResolvedConfig::merge(environment.environment, &settings)
    }

    fn read_variables(&self) -> Result<Vec<Setting>, ConfigError> {
        let prefix = self.prefix.trim_end_matches('_');
        match &self.variables {
            _ if prefix.is_empty() => Ok(Vec::new()),
            Some(given) => read::variables(prefix, given.iter().cloned()),
            None => read::variables(prefix, env::vars_os()),
        }
    }
}

impl Default for ConfigLayers {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows no variable: they may hold secrets that are none of ours.
impl fmt::Debug for ConfigLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigLayers")
            .field("environment", &self.environment)
            .field("files", &self.files.iter().map(Source::path).collect::<Vec<_>>())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Source {
    fn read(&self) -> Result<Vec<Setting>, ConfigError> {
        match self {
            Self::Text { name, text } => read::toml(name, text),
            Self::File { path, may_be_missing } => match read::file(path)? {
                Some(text) => read::toml(path, &text),
                None if *may_be_missing => Ok(Vec::new()),
                None => Err(read::unreadable(path, "there is none")),
            },
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::File { path, .. } => path,
            Self::Text { name, .. } => name,
        }
    }
}
