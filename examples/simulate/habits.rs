//! What people do, and how often: all the numbers that make a day.

use super::chance::Chance;
use super::queue::{HOUR, MINUTE, Millis, SECOND};
use std::ops::Range;

/// The hour of the day at which a simulation starts.
pub(crate) const FIRST_HOUR: u64 = 8;

/// Everybody who works comes at once.
pub(crate) const MORNING: Millis = (9 - FIRST_HOUR) * HOUR;
pub(crate) const MORNING_TAKES: Range<Millis> = 0..20 * SECOND;

/// Of a thousand who think of coming, so many come, by the hour of the day.
const DAY: [u64; 24] = [
    30, 20, 15, 15, 20, 50, 120, 250, 500, 850, 950, 900, 750, 800, 900, 900, 850, 750, 600, 550, 550, 450,
    250, 90,
];

/// One thing that a tab does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A message, and an answer.
    Chat,
    /// An agent works for seconds, with messages.
    Run,
    /// An agent works for longer than a connection may be idle, without a word.
    LongRun,
    /// The tab stays open, and nobody says a word for longer than that.
    Away,
    OpenTab,
    CloseTab,
    Reload,
    /// The network is lost without a word, and soon found again: the thread goes on.
    Blip,
    /// The device is gone, and says nothing.
    Crash,
    /// The socket is reset: the server sees it.
    Reset,
    /// The server's handler panics: the lease is dropped.
    Panic,
    /// The client closed; the server's close handler hangs, and holds its lease.
    HangClosing,
    /// The server's handler hangs after an error, and holds its lease.
    HangErrored,
}

const ACTS: &[(u64, Act)] = &[
    (5_710, Act::Chat),
    (400, Act::Run),
    (10, Act::LongRun),
    (200, Act::Away),
    (350, Act::OpenTab),
    (400, Act::CloseTab),
    (2_200, Act::Reload),
    (600, Act::Blip),
    (20, Act::Crash),
    (60, Act::Reset),
    (20, Act::Panic),
    (15, Act::HangClosing),
    (15, Act::HangErrored),
];

impl Act {
    pub(crate) fn next(chance: &mut Chance) -> Self {
        *chance.pick(ACTS)
    }

    /// Leaves something behind that has to be found.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Blip | Self::Crash | Self::HangClosing | Self::HangErrored)
    }
}

/// What a user's client is like. Drawn once.
pub(crate) struct Habits {
    /// Tabs that the user ever has open.
    pub(crate) most_tabs: usize,
    pub(crate) is_early: bool,
    /// Loses its network all the time, and forgets its thread each time.
    pub(crate) flaps: bool,
    /// Users of one region lose their network together.
    pub(crate) region: usize,
}

pub(crate) const REGIONS: usize = 8;

impl Habits {
    pub(crate) fn draw(chance: &mut Chance, flapping_per_mille: u64) -> Self {
        Self {
            most_tabs: chance.spread(&[(880, 1..5), (100, 5..9), (20, 9..15)]) as usize,
            is_early: chance.hits(700),
            flaps: chance.hits(flapping_per_mille),
            region: chance.within(0..REGIONS as u64) as usize,
        }
    }
}

pub(crate) fn tabs_at_first(chance: &mut Chance, most: usize) -> usize {
    let wanted = chance.spread(&[(500, 1..2), (300, 2..4), (200, 4..15)]) as usize;
    wanted.min(most)
}

/// Time between two acts of a tab.
pub(crate) fn pause(chance: &mut Chance) -> Millis {
    chance.spread(&[(60, 2 * SECOND..10 * SECOND), (30, 10 * SECOND..MINUTE), (10, MINUTE..170 * SECOND)])
}

pub(crate) const AWAY: Range<Millis> = 11 * MINUTE..40 * MINUTE;
pub(crate) const SHORT_RUN: Range<Millis> = 2 * SECOND..40 * SECOND;
/// Longer than idleness is allowed to be, and shorter than a run is.
pub(crate) const LONG_RUN: Range<Millis> = 12 * MINUTE..25 * MINUTE;
pub(crate) const HANDSHAKE: Range<Millis> = 30..400;
pub(crate) const RELOAD: Range<Millis> = 50..800;
pub(crate) const BLIP: Range<Millis> = SECOND..20 * SECOND;
pub(crate) const VISIT: Range<Millis> = 10 * MINUTE..90 * MINUTE;
/// Time until a user who is away thinks of coming back.
pub(crate) const ABSENCE: Range<Millis> = 5 * MINUTE..HOUR;
/// What `Retry-After` says.
pub(crate) const RETRY: Millis = 5 * SECOND;
pub(crate) const MOST_TRIES: u32 = 12;

/// Of a thousand handshakes, so many fail before they are done, and so many hang on the server's side
/// until the reservation's deadline.
pub(crate) const FAILED_HANDSHAKES: u64 = 10;
pub(crate) const HUNG_HANDSHAKES: u64 = 2;
/// Of a thousand users who leave, so many close the lid instead of the tabs.
pub(crate) const LIDS: u64 = 100;

/// A network that flaps gives a connection between these, the same for the length of a visit. The
/// shorter it is, the more dead connections a user has: at 31 s a limit of 20 is full after the 600 s
/// and the round in which the background finds them; at 9 s it is full after the 180 s that proactive
/// cleaning waits, which nothing then can help.
pub(crate) const FLAP: Range<Millis> = 5 * SECOND..MINUTE;

pub(crate) fn comes(chance: &mut Chance, now: Millis) -> bool {
    chance.hits(DAY[((FIRST_HOUR + now / HOUR) % 24) as usize])
}

/// A time in which a region, or everybody, is without a network.
pub(crate) struct Outage {
    pub(crate) begins: Millis,
    pub(crate) ends: Millis,
    /// `None`: everybody.
    pub(crate) region: Option<usize>,
}

/// Some regions' networks fail once in a while, and half-way through the day everybody's does. The
/// shorter outages end before the server has noticed.
pub(crate) fn outages(chance: &mut Chance, end: Millis) -> Vec<Outage> {
    let outage = |chance: &mut Chance, begins, region| {
        let takes = chance.spread(&[(1, 2 * SECOND..15 * SECOND), (1, 15 * SECOND..4 * MINUTE)]);
        Outage { begins, ends: (begins + takes).min(end), region }
    };
    let mut outages = vec![outage(chance, end / 2, None)];
    let mut at = chance.within(10 * MINUTE..2 * HOUR);
    while at < end {
        let region = chance.within(0..REGIONS as u64) as usize;
        outages.push(outage(chance, at, Some(region)));
        at += chance.within(HOUR..4 * HOUR);
    }
    outages
}

impl Outage {
    pub(crate) fn regions(&self) -> Range<usize> {
        self.region.map_or(0..REGIONS, |region| region..region + 1)
    }
}

/// Of a thousand users, so many flap where clients leak.
pub(crate) const FLAPPING: u64 = 100;
