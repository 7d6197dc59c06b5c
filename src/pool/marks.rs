//! What the background round remembers of those that are well, so that it does not look at them again
//! before they can be dead: for each slot the earliest moment at which this very occupant can be.
//!
//! Only the one who has the turn of maintenance uses them. Activity makes a mark too early, which costs a
//! look. What makes one too late is news: a manager that says of itself that it is disconnected or
//! errored, or other numbers.

use crate::clock::Timestamp;
use crate::slab::Key;
use crate::sync::Mutex;
use std::cell::Cell;

/// Marks by slot.
#[derive(Default)]
pub(super) struct Marks {
    marks: Vec<Mark>,
    /// One past the highest slot that was asked about in this round.
    asked: Cell<usize>,
}

/// Not dead before this second, as long as the generation is this.
#[derive(Clone, Copy, Default)]
struct Mark {
    generation: u32,
    second: u32,
}

impl Marks {
    /// Whether the occupant can be dead by now, as far as the marks say.
    #[inline]
    pub(super) fn is_worth_a_look(&self, key: Key, now: Timestamp) -> bool {
        let place = key.index() as usize;
        self.asked.set(self.asked.get().max(place + 1));
        let Some(mark) = self.marks.get(place) else { return true };
        mark.generation != key.generation() || mark.second <= second(now)
    }

    pub(super) fn set(&mut self, key: Key, due_at: Timestamp) {
        let place = key.index() as usize;
        if place >= self.marks.len() {
            self.marks.resize(place + 1, Mark::default());
        }
        self.marks[place] = Mark { generation: key.generation(), second: second(due_at) };
    }

    fn clear(&mut self, key: Key) {
        if let Some(mark) = self.marks.get_mut(key.index() as usize) {
            mark.second = 0;
        }
    }

    /// A round begins: takes in the news.
    pub(super) fn take_in(&mut self, news: &News) {
        let Told { keys, is_all } = std::mem::take(&mut *news.0.lock());
        if is_all {
            self.marks.clear();
        }
        keys.into_iter().for_each(|key| self.clear(key));
        self.asked.set(0);
    }

    /// A round has come to its end: gives back what it did not use.
    pub(super) fn trim(&mut self) {
        self.marks.truncate(self.asked.get());
        self.marks.shrink_to(2 * self.asked.get());
    }
}

/// Rounded down: a look too early finds nothing, one too late would be a leak.
fn second(moment: Timestamp) -> u32 {
    u32::try_from(moment.as_millis() / 1_000).unwrap_or(u32::MAX)
}

/// What has happened since the last round that marks do not know.
#[derive(Default)]
pub(super) struct News(Mutex<Told>);

#[derive(Default)]
struct Told {
    keys: Vec<Key>,
    /// Every mark is in doubt.
    is_all: bool,
}

/// Beyond so many it is cheaper to look at all.
const MAX_NEWS: usize = 4_096;

impl News {
    /// This manager may be dead earlier than its mark says.
    pub(super) fn of(&self, key: Key) {
        if fault!("news_is_lost") {
            return;
        }
        let mut told = self.0.lock();
        if told.keys.len() < MAX_NEWS {
            told.keys.push(key);
        } else {
            *told = Told { keys: Vec::new(), is_all: true };
        }
    }

    /// Any manager may be.
    pub(super) fn of_all(&self) {
        self.0.lock().is_all = true;
    }
}
