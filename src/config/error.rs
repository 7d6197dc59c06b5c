//! What is wrong with a configuration, and where it came from.

use super::Environment;
use super::fields::Named;
use std::fmt;
use std::path::{Path, PathBuf};

/// A field of [`Config`](super::Config) cannot be what it was set to, or a layer of the configuration
/// cannot be read. The text names the field, its value, where that came from and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Box<Details>);

/// Shown as: what, (where it came from), what is wrong with it, (where the other came from).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Details {
    field: String,
    what: String,
    origin: Option<ConfigOrigin>,
    problem: String,
    other: Option<Other>,
}

/// The field that the value was compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Other {
    field: &'static str,
    origin: Option<ConfigOrigin>,
}

/// Where a value of the configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigOrigin {
    /// The preset of the environment.
    Preset(Environment),
    /// A file.
    File {
        /// As it was given.
        path: PathBuf,
        /// Counts from 1.
        line: usize,
    },
    /// An environment variable, by its name.
    Variable(String),
}

impl ConfigError {
    /// A value that is out of its range, or of another type.
    pub(super) fn refused(field: &str, value: impl fmt::Display, allowed: impl fmt::Display) -> Self {
        Self::new(field, format!("{field} is {value}"), format!(": set it to {allowed}"))
    }

    /// A value that does not go with another field's.
    pub(super) fn clashes(
        field: &str,
        value: impl fmt::Display,
        must_be: &str,
        other: &'static str,
        bound: impl fmt::Display,
    ) -> Self {
        let mut error = Self::refused(field, value, format_args!("{must_be} {other}, which is {bound}"));
        error.0.other = Some(Other { field: other, origin: None });
        error
    }

    /// A field that a running pool cannot change.
    pub(crate) fn fixed(field: &str, value: impl fmt::Display) -> Self {
        let problem = " and fixed while the pool lives: build a new pool to change it";
        Self::new(field, format!("{field} is {value}"), problem.to_owned())
    }

    pub(super) fn new(field: &str, what: String, problem: String) -> Self {
        let field = field.to_owned();
        Self(Box::new(Details { field, what, origin: None, problem, other: None }))
    }

    /// Says where the field's value came from, and that of the field it was compared with.
    #[cfg(feature = "config")]
    pub(super) fn with_origins(mut self, of: impl Fn(&str) -> Option<ConfigOrigin>) -> Self {
        self.0.origin = of(&self.0.field);
        if let Some(other) = &mut self.0.other {
            other.origin = of(other.field);
        }
        self
    }

    /// The field's name, as in [`Config`](super::Config), with `outbound_messages` and the like for the
    /// limits of one manager's queue. For a key that no field has, the key (its beginning if it is
    /// long); empty where a whole file cannot be read.
    pub fn field(&self) -> &str {
        &self.0.field
    }

    /// Where the refused value came from. `None` if code has set it, or if it is no single value.
    pub fn origin(&self) -> Option<&ConfigOrigin> {
        self.0.origin.as_ref()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { what, origin, problem, other, .. } = &*self.0;
        let other = other.as_ref().and_then(|other| other.origin.as_ref());
        write!(f, "{what}{}{problem}{}", InBrackets(origin.as_ref()), InBrackets(other))
    }
}

impl std::error::Error for ConfigError {}

struct InBrackets<'a>(Option<&'a ConfigOrigin>);

impl fmt::Display for InBrackets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |origin| write!(f, " ({origin})"))
    }
}

impl fmt::Display for ConfigOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset(environment) => write!(f, "preset of {}", environment.name()),
            Self::File { path, line } => write!(f, "{}, line {line}", on_one_line(path)),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// Whatever the file is called.
pub(super) fn on_one_line(path: &Path) -> String {
    path.to_string_lossy().replace(char::is_control, "\u{FFFD}")
}
