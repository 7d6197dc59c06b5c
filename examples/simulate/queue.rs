//! What is going to happen, in the order of virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use ws_manager_pool::ManagerKey;

/// Virtual milliseconds since the simulation's start, or a span of them.
pub(crate) type Millis = u64;

pub(crate) const SECOND: Millis = 1_000;
pub(crate) const MINUTE: Millis = 60 * SECOND;
pub(crate) const HOUR: Millis = 60 * MINUTE;

/// Who is due. `turn` tells a date that was kept from one that was called off: whoever makes a new one
/// takes a new number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A user comes or leaves.
    User {
        user: u32,
        turn: u32,
    },
    /// A tab dials, comes through the door, or does something.
    Tab {
        user: u32,
        turn: u32,
    },
    /// The server has waited long enough for a sign of life.
    Silence(ManagerKey),
    RunEnds(ManagerKey),
    /// Whoever is not there yet comes now.
    Morning,
    OutageBegins {
        outage: usize,
    },
    OutageEnds {
        outage: usize,
    },
}

#[derive(Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<(Millis, u64, Event)>>,
    /// What is due in the same millisecond happens in the order in which it was planned.
    planned: u64,
}

impl Queue {
    pub(crate) fn plan(&mut self, at: Millis, event: Event) {
        self.planned += 1;
        self.heap.push(Reverse((at, self.planned, event)));
    }

    /// The next event that is due before `until`.
    pub(crate) fn next_before(&mut self, until: Millis) -> Option<(Millis, Event)> {
        if self.heap.peek()?.0.0 >= until {
            return None;
        }
        let Reverse((at, _, event)) = self.heap.pop()?;
        Some((at, event))
    }
}
