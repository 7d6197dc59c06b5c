//! Time is a value that is passed in. [`Clock`] is where it comes from: the system's coarse
//! monotonic clock, or one that a test moves by hand.

use crate::sync::{Arc, AtomicU64, Ordering};
use std::time::Duration;

/// A moment in milliseconds since the origin of the [`Clock`] that made it.
///
/// Timestamps of different clocks are not comparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Timestamp(u64);

impl Timestamp {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);
    /// A moment that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `millis` milliseconds after the clock's origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the clock's origin.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time that has passed since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment `span` after this one; [`Timestamp::NEVER`] if there is none.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

/// A moment in 32 bits, counted from an earlier one that is kept beside it: exact to the millisecond for 24
/// days, then to the second, rounded up. 0 stands for "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offset(u32);

impl Offset {
    pub(crate) const NONE: Self = Self(0);

    /// Below this an offset is the number of milliseconds, and one more.
    const COARSE: u32 = 1 << 31;
    /// Milliseconds of a step from there on.
    const STEP: u64 = 1_024;

    /// A moment before `base` counts as `base`.
    pub(crate) fn new(base: Timestamp, moment: Timestamp) -> Self {
        let exact = moment.0.saturating_sub(base.0).saturating_add(1);
        if moment == Timestamp::NEVER {
            return Self(u32::MAX);
        }
        Self(match u32::try_from(exact) {
            Ok(exact) if exact < Self::COARSE => exact,
            _ => {
                let steps = (exact - u64::from(Self::COARSE)).div_ceil(Self::STEP);
                u32::try_from(steps).map_or(u32::MAX, |steps| steps.saturating_add(Self::COARSE))
            }
        })
    }

    pub(crate) fn moment(self, base: Timestamp) -> Option<Timestamp> {
        let millis = match self.0 {
            0 => return None,
            u32::MAX => return Some(Timestamp::NEVER),
            exact if exact < Self::COARSE => u64::from(exact) - 1,
            coarse => u64::from(Self::COARSE) - 1 + u64::from(coarse - Self::COARSE) * Self::STEP,
        };
        Some(Timestamp(base.0.saturating_add(millis)))
    }

    pub(crate) const fn to_bits(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// Where the pool's time comes from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { origin_millis: u64 },
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The system's coarse monotonic clock: a few nanoseconds to read, exact to a kernel tick
    /// (1 to 10 ms on Linux; elsewhere the ordinary monotonic clock).
    pub fn system() -> Self {
        // An origin one millisecond back keeps `Timestamp::ZERO` free to mean "before the start".
        Self(Source::System { origin_millis: monotonic_millis().saturating_sub(1) })
    }

    /// A clock that stands still until its [`ManualClock`] moves it.
    pub fn manual() -> (Self, ManualClock) {
        let millis = Arc::new(AtomicU64::new(1));
        (Self(Source::Manual(millis.clone())), ManualClock(millis))
    }

    /// The present moment. Wait-free.
    #[inline]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { origin_millis } => Timestamp(monotonic_millis().saturating_sub(*origin_millis)),
            // Relaxed: the value is the whole message; nothing else is published with it.
            Source::Manual(millis) => Timestamp(millis.load(Ordering::Relaxed)),
        }
    }
}

impl Clock {
    /// Starts to measure a span, finer than [`Clock::now`] does. On a manual clock no time passes but
    /// by hand.
    pub(crate) fn stopwatch(&self) -> Stopwatch<'_> {
        #![allow(clippy::disallowed_methods)] // this is the door
        match &self.0 {
            Source::System { .. } => Stopwatch::System(std::time::Instant::now()),
            Source::Manual(_) => Stopwatch::Manual(self, self.now()),
        }
    }
}

/// A span that is being measured.
pub(crate) enum Stopwatch<'a> {
    System(std::time::Instant),
    Manual(&'a Clock, Timestamp),
}

impl Stopwatch<'_> {
    pub(crate) fn elapsed(&self) -> Duration {
        match self {
            Self::System(start) => start.elapsed(),
            Self::Manual(clock, start) => clock.now().since(*start),
        }
    }
}

/// The hand of a [`Clock::manual`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 2);
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn monotonic_millis() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    (now.tv_sec as u64) * 1_000 + (now.tv_nsec as u64) / 1_000_000
}

#[cfg(not(target_os = "linux"))]
fn monotonic_millis() -> u64 {
    #![allow(clippy::disallowed_methods)] // this is the door
    use std::sync::OnceLock;
    use std::time::Instant;
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let (clock, hand) = Clock::manual();
        let start = clock.now();
        assert!(start > Timestamp::ZERO);
        assert_eq!(clock.now(), start);
        hand.advance(Duration::from_secs(3));
        assert_eq!(clock.now().since(start), Duration::from_secs(3));
    }

    #[test]
    fn an_offset_is_exact_for_24_days_and_then_never_too_early() {
        const DAY: u64 = 24 * 3_600 * 1_000;
        let base = Timestamp::from_millis(77 * DAY + 5);
        let of =
            |millis: u64| Offset::new(base, Timestamp(base.0 + millis)).moment(base).unwrap().since(base);
        for millis in [0, 1, 999, 24 * DAY, (1 << 31) - 2] {
            assert_eq!(of(millis), Duration::from_millis(millis));
        }
        for millis in [(1 << 31) - 1, 1 << 31, (1 << 31) + 1, 25 * DAY, 20_000 * DAY] {
            let late = of(millis).saturating_sub(Duration::from_millis(millis));
            assert!(of(millis) >= Duration::from_millis(millis) && late < Duration::from_millis(1_024));
        }
        assert_eq!(Offset::new(base, Timestamp::NEVER).moment(base), Some(Timestamp::NEVER));
        assert_eq!(Offset::new(base, Timestamp(u64::MAX - 1)).moment(base), Some(Timestamp::NEVER));
        assert_eq!(Offset::new(base, Timestamp::ZERO).moment(base), Some(base), "before its base");
        assert_eq!(Offset::NONE.moment(base), None);
    }

    #[test]
    fn time_arithmetic_saturates() {
        assert_eq!(Timestamp::ZERO.since(Timestamp::NEVER), Duration::ZERO);
        assert_eq!(Timestamp::from_millis(5).after(Duration::MAX), Timestamp::NEVER);
    }
}
