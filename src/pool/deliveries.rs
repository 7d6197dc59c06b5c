//! What became of the messages: counts that no two threads share.

use crate::manager::Offered;
use crate::slab::Cells;

/// The running counts.
pub(crate) struct Deliveries(Cells<COUNTS>);

const ACCEPTED: usize = 0;
const DELIVERED: usize = 1;
const DISPLACED: usize = 2;
const UNSENT: usize = 3;
const REFUSED: usize = 4;
const GAPS: usize = 5;
const COUNTS: usize = 6;

/// What became of the messages since the pool was built. At a quiet point, accepted = delivered +
/// displaced + unsent + those that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DeliveryFigures {
    /// Put into a connection's queue.
    pub accepted: u64,
    /// Taken from there by the connection's own task, to be written to its socket.
    pub delivered: u64,
    /// Given up for newer ones, by [`crate::manager::OverflowPolicy::DropOldest`].
    pub displaced: u64,
    /// Still waiting when their connection ended.
    pub unsent: u64,
    /// Not taken: a queue, or the pool's byte budget, was full, or the connection was closing.
    pub refused: u64,
    /// Notices to connections that events of their thread will not come.
    pub gaps: u64,
}

impl Deliveries {
    pub(super) fn new() -> Self {
        Self(Cells::new())
    }

    pub(crate) fn offered(&self, offered: &Offered) {
        match offered {
            Offered::Queued => self.0.add(ACCEPTED, 1),
            Offered::Displaced(displaced) => {
                self.0.add(ACCEPTED, 1);
                self.0.add(DISPLACED, displaced.len() as u64);
            }
            Offered::Closed(_) | Offered::Full(_) | Offered::Overflow(_) => self.0.add(REFUSED, 1),
        }
    }

    pub(crate) fn delivered(&self, messages: usize) {
        self.0.add(DELIVERED, messages as u64);
    }

    pub(crate) fn unsent(&self, messages: usize) {
        if messages > 0 {
            self.0.add(UNSENT, messages as u64);
        }
    }

    pub(crate) fn gap(&self) {
        self.0.add(GAPS, 1);
    }

    pub(crate) fn read(&self) -> DeliveryFigures {
        DeliveryFigures {
            accepted: self.0.sum(ACCEPTED),
            delivered: self.0.sum(DELIVERED),
            displaced: self.0.sum(DISPLACED),
            unsent: self.0.sum(UNSENT),
            refused: self.0.sum(REFUSED),
            gaps: self.0.sum(GAPS),
        }
    }
}
