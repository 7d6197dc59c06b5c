//! What is compared: somewhere managers come from and go back to, as each peer writes it ([`Place`]), and as
//! it is measured ([`Contender`]).

use crate::record::Ids;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Somewhere managers come from and go back to.
pub trait Place: Send + Sync {
    /// What a user holds of a manager.
    type Held<'a>: Send
    where
        Self: 'a;

    /// What a manager is found by; `()` if it can't be.
    type Key: Send + Sync;

    /// Whether [`Place::get`] works.
    const HAS_KEYS: bool = false;

    /// Whether [`Place::walk`] works.
    const CAN_WALK: bool = false;

    /// Whether its memory comes from the global allocator, which can count it.
    const IS_COUNTED: bool = true;

    /// Makes an id, takes a manager, and sets its strings.
    fn acquire(&self, ids: &mut Ids) -> Self::Held<'_>;

    /// Clears the manager and gives it back.
    fn release<'a>(&'a self, held: Self::Held<'a>);

    fn key(&self, held: &Self::Held<'_>) -> Self::Key;

    /// Reads a counter of the manager.
    fn get(&self, _key: &Self::Key) -> Option<u64> {
        None
    }

    /// The sum of a counter of all.
    fn walk(&self) -> u64 {
        0
    }

    /// Gives back what memory it can, as a server would ask of it after a peak.
    fn trim(&self) {}
}

/// What a reader should know of a contender beside its times.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Facts {
    pub name: &'static str,
    pub kind: Kind,
    /// Whether memory comes back after a peak.
    pub frees: &'static str,
    /// Whether a key of a former occupant is noticed.
    pub stale: &'static str,
    /// Whether one can wait for a manager.
    pub waits: bool,
    /// Whether it can hold 100,000 managers in a time that anybody would wait for.
    #[serde(skip)]
    pub can_be_large: bool,
    /// Whether it keeps the manager of [`crate::record`].
    #[serde(skip)]
    pub has_manager: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// This crate.
    Ours,
    /// What can't be gone below.
    Floor,
    /// What a user would pick in place of this crate.
    Peer,
}

impl Facts {
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            frees: "never",
            stale: "no keys",
            waits: false,
            can_be_large: true,
            has_manager: true,
        }
    }

    pub const fn frees(self, frees: &'static str) -> Self {
        Self { frees, ..self }
    }

    pub const fn stale(self, stale: &'static str) -> Self {
        Self { stale, ..self }
    }

    pub const fn waits(self) -> Self {
        Self { waits: true, ..self }
    }

    pub const fn stays_small(self) -> Self {
        Self { can_be_large: false, ..self }
    }

    pub const fn bare(self) -> Self {
        Self { has_manager: false, ..self }
    }
}

/// What one thread did in one block.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    pub begun: Instant,
    pub ended: Instant,
    pub operations: u64,
}

impl Stretch {
    pub fn took(&self) -> Duration {
        self.ended - self.begun
    }
}

/// A place, ready to be measured beside others. `None`: it can't do that.
pub trait Contender: Send + Sync {
    fn facts(&self) -> Facts;

    fn name(&self) -> &'static str {
        self.facts().name
    }

    /// Lives one after the other: at most `most`, and none after `over` was set, which the first of several
    /// threads to be done does.
    fn lives(&self, ids: &mut Ids, most: u64, over: &AtomicBool) -> Stretch;

    /// Records how long each acquire of so many lives takes.
    fn latencies(&self, _ids: &mut Ids, _lives: u64, _into: &mut Histogram<u64>) -> Option<()> {
        None
    }

    /// Acquires so many managers, then releases them: the time of each half.
    fn halves(&self, _ids: &mut Ids, _managers: usize) -> Option<(Duration, Duration)> {
        None
    }

    /// With so many managers live, replaces random ones: the time of so many replacements.
    fn churn(&self, _live: usize) -> Option<Timed<'_>> {
        None
    }

    /// Gets random ones of so many live ones by key: the time of so many gets.
    fn gets(&self, _live: usize) -> Option<Timed<'_>> {
        None
    }

    /// Walks over so many live ones: the time of so many walks.
    fn walks(&self, _live: usize) -> Option<Timed<'_>> {
        None
    }

    /// Acquires on one thread, releases on another.
    fn hand_off(&self) -> Option<HandOff<'_>> {
        None
    }

    /// Managers that are held for as long as one wants.
    fn crowd(&self) -> Option<Box<dyn Crowd + '_>> {
        None
    }
}

/// Managers that are held, for figures of memory.
pub trait Crowd {
    /// Acquires until there are so many.
    fn grow_to(&mut self, managers: usize);

    /// Releases random ones until so many are left.
    fn thin_out_to(&mut self, managers: usize);

    /// Replaces each one once.
    fn turn_over(&mut self);

    /// As [`Place::trim`].
    fn trim(&self);

    /// Bytes that the holder needs, which are not the place's.
    fn bytes_of_the_holder(&self) -> usize;
}

/// How long so many operations take.
pub type Timed<'a> = Box<dyn FnMut(u64) -> Duration + Send + 'a>;

/// The two sides of a hand-off, each for a thread of its own: both are told the same number of batches.
pub type HandOff<'a> = [Box<dyn FnMut(u64) + Send + 'a>; 2];
