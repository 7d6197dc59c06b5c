//! What a layer says, value by value: read and checked before anything is merged, so that a mistake is
//! found even where a stronger layer covers it.

use super::Config;
use super::error::{ConfigError, ConfigOrigin, on_one_line};
use super::fields::{ANY, FIELDS, Field, Kind, is_span};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

/// A file that is longer is none of ours.
const LONGEST_FILE: u64 = 1 << 20;
/// Characters of foreign text that an error repeats.
const SHOWN: usize = 48;

/// One value of one layer.
pub(super) struct Setting {
    pub(super) field: &'static Field,
    pub(super) origin: ConfigOrigin,
    value: Value,
}

/// A value as the layer wrote it.
struct Value {
    form: Form,
    text: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// A variable's: all that it has is text.
    Any,
    Text,
    Integer,
    Float,
    /// What no field holds; the text says what it is.
    Other,
}

impl Setting {
    /// Puts the value in its place.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), ConfigError> {
        self.value.read(self.field, config).ok_or_else(|| {
            ConfigError::refused(self.field.name, self.value.shown(), self.field.allowed())
                .with_origins(|_| Some(self.origin.clone()))
        })
    }
}

impl Value {
    /// `None` if the field can't hold it.
    fn read(&self, field: &Field, config: &mut Config) -> Option<()> {
        match &field.kind {
            Kind::Count(place, range) => {
                let count = self.count().filter(|count| range.contains(count))?;
                (place.set)(config, count);
            }
            Kind::Share(place, shares) => {
                let share = self.share().filter(|share| (shares.contains)(*share))?;
                (place.set)(config, share);
            }
            Kind::Span(place, longest) => {
                let span = self.span().filter(|span| is_span(*span, *longest))?;
                (place.set)(config, span);
            }
            Kind::SpanOrOff(place) if self.word() == Some("off") => (place.set)(config, None),
            Kind::SpanOrOff(place) => {
                let span = self.span().filter(|span| is_span(*span, ANY))?;
                (place.set)(config, Some(span));
            }
            Kind::Word(place, words) => {
                let word = self.word()?;
                (place.set)(config, words.iter().copied().find(|known| *known == word)?);
            }
        }
        Some(())
    }

    fn count(&self) -> Option<u64> {
        match self.form {
            Form::Integer => self.text.parse().ok(),
            // As TOML writes it: 100_000.
            Form::Any => self.text.replace('_', "").parse().ok(),
            Form::Text | Form::Float | Form::Other => None,
        }
    }

    fn share(&self) -> Option<f64> {
        let is_number = matches!(self.form, Form::Any | Form::Integer | Form::Float);
        if is_number { self.text.parse().ok() } else { None }
    }

    fn span(&self) -> Option<Duration> {
        self.word().filter(|text| is_short(text)).and_then(|text| humantime::parse_duration(text).ok())
    }

    fn word(&self) -> Option<&str> {
        matches!(self.form, Form::Any | Form::Text).then_some(&self.text)
    }

    fn shown(&self) -> String {
        match self.form {
            Form::Any | Form::Text => format!("\"{}\"", clip(&self.text)),
            Form::Integer | Form::Float | Form::Other => clip(&self.text),
        }
    }
}

/// `humantime` 2.4 panics where a second that is carried over from a fraction passes `u64::MAX` seconds.
/// Within these bounds no sum comes near: five numbers of 11 digits, in years, are 1.6 × 10¹⁹ seconds.
fn is_short(text: &str) -> bool {
    let is_in_number = |char: char| char.is_ascii_digit() || char.is_whitespace();
    let mut numbers = text.split(|char| !is_in_number(char));
    text.len() <= 64 && numbers.all(|number| number.chars().filter(char::is_ascii_digit).count() <= 11)
}

/// The beginning of foreign text, on one line.
fn clip(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Reads a file; `None` if there is none. May block.
pub(super) fn file(path: &Path) -> Result<Option<String>, ConfigError> {
    let mut text = Vec::new();
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| unreadable(path, error))?,
    };
    file.take(LONGEST_FILE + 1).read_to_end(&mut text).map_err(|error| unreadable(path, error))?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(unreadable(path, "it is longer than 1 MiB"));
    }
    String::from_utf8(text).map(Some).map_err(|error| unreadable(path, error.utf8_error()))
}

pub(super) fn unreadable(path: &Path, why: impl fmt::Display) -> ConfigError {
    ConfigError::new("", format!("the file {}", on_one_line(path)), format!(" cannot be read: {why}"))
}

/// The settings of a file, in its order.
pub(super) fn toml(path: &Path, text: &str) -> Result<Vec<Setting>, ConfigError> {
    let origin = |at: usize| {
        let before = text.as_bytes().iter().take(at);
        ConfigOrigin::File { path: path.to_owned(), line: before.filter(|byte| **byte == b'\n').count() + 1 }
    };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        ConfigError::new(
            "",
            "the configuration".to_owned(),
            format!(" is no valid TOML: {}", error.message()),
        )
        .with_origins(|_| Some(origin(at)))
    })?;
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let setting = |(key, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
        let origin = origin(key.span().start);
        let name: &str = key.get_ref();
        let field = FIELDS.iter().find(|field| field.name == name);
        match field {
            Some(field) => Ok(Setting { field, origin, value: value.get_ref().into() }),
            None => Err(unknown(name, nearest(name)).with_origins(|_| Some(origin.clone()))),
        }
    };
    entries.into_iter().map(setting).collect()
}

impl From<&DeValue<'_>> for Value {
    fn from(value: &DeValue<'_>) -> Self {
        let (form, text) = match value {
            DeValue::String(text) => (Form::Text, text.to_string()),
            DeValue::Integer(integer) => (Form::Integer, decimal(integer)),
            DeValue::Float(float) => (Form::Float, float.to_string()),
            DeValue::Boolean(is_true) => (Form::Other, is_true.to_string()),
            DeValue::Datetime(_) => (Form::Other, "a date or a time of day".to_owned()),
            DeValue::Array(_) => (Form::Other, "an array".to_owned()),
            DeValue::Table(_) => (Form::Other, "a table".to_owned()),
        };
        Self { form, text }
    }
}

/// An integer of any size, for its field to refuse by name.
fn decimal(integer: &DeInteger<'_>) -> String {
    match u64::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(value) => value.to_string(),
        Err(_) => integer.to_string(),
    }
}

/// The settings of the variables that begin with the prefix, by name. Names are the same in any case,
/// as they are on some systems anyway, so two spellings of one are a mistake.
pub(super) fn variables(
    prefix: &str,
    all: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<Setting>, ConfigError> {
    let ours = all.into_iter().filter_map(|(name, value)| {
        let name = name.to_string_lossy().into_owned();
        let field = after_prefix(prefix, &name)?.to_ascii_lowercase();
        Some((field, name, value))
    });
    let mut ours: Vec<_> = ours.collect();
    ours.sort();
    let mut settings: Vec<Setting> = Vec::with_capacity(ours.len());
    for (key, name, value) in ours {
        let Some(field) = FIELDS.iter().find(|field| field.name == key) else {
            let known = format!("{prefix}_{}", nearest(&key).to_ascii_uppercase());
            return Err(unknown(&name, &known));
        };
        if let Some(Setting { origin: ConfigOrigin::Variable(first), .. }) =
            settings.last().filter(|last| last.field.name == field.name)
        {
            let problem = format!(" is set twice, by {first} and by {name}: keep one");
            return Err(ConfigError::new(field.name, field.name.to_owned(), problem));
        }
        let value = Value { form: Form::Any, text: value.to_string_lossy().into_owned() };
        settings.push(Setting { field, origin: ConfigOrigin::Variable(name), value });
    }
    Ok(settings)
}

/// What follows `PREFIX_`.
fn after_prefix<'a>(prefix: &str, name: &'a str) -> Option<&'a str> {
    let (head, rest) = name.split_at_checked(prefix.len())?;
    rest.strip_prefix('_').filter(|_| head.eq_ignore_ascii_case(prefix))
}

fn unknown(key: &str, nearest: &str) -> ConfigError {
    let key = clip(key);
    let problem = format!(" is no field of the configuration: the nearest is {nearest}");
    ConfigError::new(&key, format!("\"{key}\""), problem)
}

/// The known name that is most like this one.
fn nearest(key: &str) -> &'static str {
    let key: String = key.chars().take(SHOWN).collect();
    let likeness = |name: &str| strsim::jaro_winkler(&key, name);
    let names = FIELDS.iter().map(|field| field.name);
    names.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or_default()
}
