//! The one table of fields: what each is called in a file or a variable, what it may hold, and where
//! [`Config`] keeps it. Validation goes by it, and so do the layers.

use super::{AtLimit, Config, ConfigError, DuplicatePolicy, Environment};
use crate::manager::OverflowPolicy;
use crate::slab;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// One field of [`Config`], or of its `outbound`.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What a field holds, and what it may hold.
pub(super) enum Kind {
    Count(Place<u64>, RangeInclusive<u64>),
    Share(Place<f64>, &'static Shares),
    /// From a millisecond up to this.
    Span(Place<Duration>, Duration),
    /// From a millisecond, or off.
    SpanOrOff(Place<Option<Duration>>),
    Word(Place<&'static str>, &'static [&'static str]),
}

/// Where a field is kept.
pub(super) struct Place<T> {
    pub(super) get: fn(&Config) -> T,
    /// Expects what the field may hold.
    #[cfg(feature = "config")]
    pub(super) set: fn(&mut Config, T),
}

/// Which shares a field may hold.
pub(super) struct Shares {
    pub(super) contains: fn(f64) -> bool,
    text: &'static str,
}

macro_rules! place {
    ($get:expr, $set:expr) => {
        Place {
            get: $get,
            #[cfg(feature = "config")]
            set: $set,
        }
    };
}

macro_rules! field {
    ($name:ident: Count, $range:expr) => {
        field!(stringify!($name), Kind::Count, $range, |it| it.$name as u64, |it, to| it.$name = to as _)
    };
    ($name:ident: Span, $longest:expr) => {
        field!(stringify!($name), Kind::Span, $longest, |it| it.$name, |it, to| it.$name = to)
    };
    ($name:ident: Share, $range:expr) => {
        field!(stringify!($name), Kind::Share, $range, |it| it.$name, |it, to| it.$name = to)
    };
    ($name:ident: $words:ident) => {
        field!(stringify!($name), Kind::Word, $words::NAMES, |it| it.$name.name(), |it, to| {
            it.$name = $words::named(to).unwrap_or(it.$name);
        })
    };
    ($name:expr, $kind:path, $allowed:expr, $get:expr, $set:expr) => {
        Field { name: $name, kind: $kind(place!($get, $set), $allowed) }
    };
}

const SLOTS: RangeInclusive<u64> = 1..=slab::MAX_SLOTS as u64;
const BYTES: u64 = isize::MAX as u64;
const SHORTEST: Duration = Duration::from_millis(1);
pub(super) const ANY: Duration = Duration::MAX;
const LONGEST_RUN: Duration = Duration::from_secs(30 * 60);
const PART: &Shares =
    &Shares { contains: |share| share > 0.0 && share <= 1.0, text: "a number above 0, up to 1" };
const MARGIN: &Shares =
    &Shares { contains: |share| (0.0..1.0).contains(&share), text: "a number from 0, below 1" };

/// In the order of [`Config`].
pub(super) const FIELDS: &[Field] = &[
    field!(environment: Environment),
    field!(capacity: Count, SLOTS),
    field!(max_managers_per_user: Count, SLOTS),
    field!(duplicates: DuplicatePolicy),
    field!(at_limit: AtLimit),
    field!(
        "outbound_messages",
        Kind::Count,
        0..=slab::MAX_SLOTS as u64,
        |it| it.outbound.messages() as u64,
        |it, to| it.outbound = it.outbound.with_messages(to as usize)
    ),
    field!("outbound_bytes", Kind::Count, 0..=BYTES, |it| it.outbound.bytes() as u64, |it, to| it.outbound =
        it.outbound.with_bytes(to as usize)),
    field!(
        "outbound_message_bytes",
        Kind::Count,
        1..=BYTES,
        |it| it.outbound.message_bytes() as u64,
        |it, to| it.outbound = it.outbound.with_message_bytes(to as usize)
    ),
    field!(
        "outbound_overflow",
        Kind::Word,
        OverflowPolicy::NAMES,
        |it| it.outbound.overflow().name(),
        |it, to| {
            let overflow = OverflowPolicy::named(to).unwrap_or(it.outbound.overflow());
            it.outbound = it.outbound.with_overflow(overflow);
        }
    ),
    field!("outbound_high_water", Kind::Share, PART, |it| it.outbound.high_water(), |it, to| it.outbound =
        it.outbound.with_high_water(to)),
    field!("outbound_low_water", Kind::Share, MARGIN, |it| it.outbound.low_water(), |it, to| it.outbound =
        it.outbound.with_low_water(to)),
    field!(outbound_pool_bytes: Count, 1..=BYTES),
    field!(inbound_message_bytes: Count, 1..=BYTES),
    field!(inbound_frame_bytes: Count, 1..=BYTES),
    field!(inbound_pool_bytes: Count, 1..=BYTES),
    field!(replay_events: Count, 0..=slab::MAX_SLOTS as u64),
    field!(replay_bytes: Count, 1..=BYTES),
    field!(replay_age: Span, ANY),
    field!(replay_pool_bytes: Count, 1..=BYTES),
    field!(max_unauthenticated: Count, SLOTS),
    field!(reservation_deadline: Span, ANY),
    field!(heartbeat_interval: Span, ANY),
    field!(heartbeat_timeout: Span, ANY),
    field!(message_timeout: Span, ANY),
    field!(close_timeout: Span, ANY),
    field!(drain_timeout: Span, ANY),
    field!(drain_rate: Count, SLOTS),
    Field {
        name: "max_lifetime",
        kind: Kind::SpanOrOff(place!(|it| it.max_lifetime, |it, to| it.max_lifetime = to)),
    },
    field!(deadline_jitter: Share, MARGIN),
    field!(proactive_threshold: Share, PART),
    Field {
        name: "idle_background",
        kind: Kind::SpanOrOff(place!(|it| it.idle_background, |it, to| it.idle_background = to)),
    },
    field!(idle_proactive: Span, ANY),
    field!(idle_emergency: Span, ANY),
    field!(errored_after: Span, ANY),
    field!(run_limit: Span, LONGEST_RUN),
    field!(background_interval: Span, ANY),
    field!(background_budget: Span, ANY),
    field!(emergency_budget: Span, ANY),
    field!(emergency_attempts: Count, 1..=3),
    field!(emergency_forced: Count, 0..=5),
    field!(sample_interval: Span, ANY),
    field!(level_info: Share, PART),
    field!(level_warning: Share, PART),
    field!(level_critical: Share, PART),
    field!(level_emergency: Share, PART),
    field!(level_hysteresis: Share, MARGIN),
    field!(shrink_target: Share, PART),
    field!(suspect_age: Span, ANY),
    field!(suspect_silence: Span, ANY),
];

impl Field {
    /// Is the field's value in its range?
    pub(super) fn check(&self, config: &Config) -> Result<(), ConfigError> {
        match &self.kind {
            Kind::Count(place, range) => {
                let count = (place.get)(config);
                self.allow(range.contains(&count), count)
            }
            Kind::Share(place, shares) => {
                let share = (place.get)(config);
                self.allow((shares.contains)(share), share)
            }
            Kind::Span(place, longest) => {
                let span = (place.get)(config);
                self.allow(is_span(span, *longest), format_args!("{span:?}"))
            }
            Kind::SpanOrOff(place) => {
                let Some(span) = (place.get)(config) else { return Ok(()) };
                self.allow(is_span(span, ANY), format_args!("{span:?}"))
            }
            Kind::Word(place, words) => {
                let word = (place.get)(config);
                self.allow(words.contains(&word), word)
            }
        }
    }

    fn allow(&self, is_allowed: bool, value: impl fmt::Display) -> Result<(), ConfigError> {
        if is_allowed { Ok(()) } else { Err(ConfigError::refused(self.name, value, self.allowed())) }
    }

    /// What the field may hold, after "set it to".
    pub(super) fn allowed(&self) -> String {
        match &self.kind {
            Kind::Count(_, range) => format!("a whole number from {} to {}", range.start(), range.end()),
            Kind::Share(_, shares) => shares.text.to_owned(),
            Kind::Span(_, longest) if *longest == ANY => format!("{A_TIME}, at least 1 ms"),
            Kind::Span(_, longest) => format!("{A_TIME}, from 1 ms to {longest:?}"),
            Kind::SpanOrOff(_) => format!("{A_TIME}, at least 1 ms, or \"off\""),
            Kind::Word(_, words) => format!("one of {}", words.join(", ")),
        }
    }
}

const A_TIME: &str = "a time such as \"20s\"";

pub(super) fn is_span(span: Duration, longest: Duration) -> bool {
    (SHORTEST..=longest).contains(&span)
}

/// A choice between names.
pub(super) trait Named: Sized {
    const NAMES: &'static [&'static str];

    fn name(self) -> &'static str;

    #[cfg(feature = "config")]
    fn named(name: &str) -> Option<Self>;
}

macro_rules! names {
    ($kind:ident { $($variant:ident = $name:literal,)* }) => {
        impl Named for $kind {
            const NAMES: &'static [&'static str] = &[$($name),*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            #[cfg(feature = "config")]
            fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

names!(Environment {
    Production = "production",
    Staging = "staging",
    Development = "development",
    Ci = "ci",
});
names!(DuplicatePolicy {
    Replace = "replace",
    Reject = "reject",
    Allow = "allow",
});
names!(AtLimit {
    Reject = "reject",
    EvictOldest = "evict_oldest",
    EvictIdlest = "evict_idlest",
});
names!(OverflowPolicy {
    DropNewest = "drop_newest",
    DropOldest = "drop_oldest",
    Disconnect = "disconnect",
});
