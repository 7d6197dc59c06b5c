//! Room for messages that wait: leased by a queue while it holds more than one message, and given back
//! when it is empty, so that an idle connection has none.
//!
//! A queue always goes to the same shelf, so what its senders lease is what its owner gave back. A shelf
//! keeps no more than it needed of late: [`Buffers::trim`] drops half of what nobody asked for since it
//! was last called.

use super::message::Message;
use crate::sync::Mutex;
use crossbeam_utils::CachePadded;
use std::array;
use std::collections::VecDeque;
use std::fmt;

/// Room for this many messages each; a queue that needs more grows by itself.
const SIZES: [usize; 2] = [8, 64];

const SHELVES: usize = if cfg!(pool_loom) { 1 } else { 16 };

/// Bytes of each size that a shelf keeps at most, however many it needed.
const MOST_BYTES: usize = 512 * 1024;

/// Empty buffers for queues.
pub(crate) struct Buffers {
    shelves: Box<[CachePadded<Mutex<Shelf>>]>,
}

/// A queue's leased room. It travels in a box, so that a queue without one holds 8 bytes for it.
pub(super) struct Buffer(pub(super) VecDeque<Message>);

impl Buffer {
    fn of(messages: usize) -> Box<Self> {
        Box::new(Self(VecDeque::with_capacity(messages)))
    }
}

#[derive(Default)]
struct Shelf {
    spare: [Spare; SIZES.len()],
    /// The fewest that lay here since the last trim: nobody needed these.
    unused: [usize; SIZES.len()],
}

type Spare = Vec<Box<Buffer>>;

impl Default for Buffers {
    fn default() -> Self {
        Self { shelves: std::iter::repeat_with(CachePadded::default).take(SHELVES).collect() }
    }
}

impl Buffers {
    /// Room for more than `messages`. May block briefly, and allocates where none is at hand.
    pub(super) fn lease(&self, shelf: usize, messages: usize) -> Box<Buffer> {
        let Some(size) = SIZES.iter().position(|&room| room > messages) else {
            return Buffer::of(2 * messages);
        };
        let mut shelf = self.shelf(shelf).lock();
        let leased = shelf.spare[size].pop();
        shelf.unused[size] = shelf.unused[size].min(shelf.spare[size].len());
        drop(shelf);
        leased.unwrap_or_else(|| Buffer::of(SIZES[size]))
    }

    /// Takes an empty buffer back. One that has grown beyond the sizes is dropped. May block briefly.
    pub(super) fn give(&self, shelf: usize, buffer: Box<Buffer>) {
        debug_assert!(buffer.0.is_empty(), "a buffer is given back with a message in it");
        let Some(size) = SIZES.iter().position(|&room| room == buffer.0.capacity()) else { return };
        let mut shelf = self.shelf(shelf).lock();
        if shelf.spare[size].len() * SIZES[size] * size_of::<Message>() < MOST_BYTES {
            shelf.spare[size].push(buffer);
        }
    }

    /// Gives back memory that nobody needed since the last call: half of it, so that a peak that comes
    /// again finds some.
    pub(crate) fn trim(&self) {
        for shelf in &self.shelves {
            let unneeded = shelf.lock().take_unneeded();
            drop(unneeded); // after the lock
        }
    }

    /// Bytes of the buffers that lie ready. May block briefly.
    pub(crate) fn spare_bytes(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.lock().bytes()).sum()
    }

    fn shelf(&self, shelf: usize) -> &Mutex<Shelf> {
        &self.shelves[shelf % SHELVES]
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("spare_bytes", &self.spare_bytes()).finish()
    }
}

impl Shelf {
    fn take_unneeded(&mut self) -> [Spare; SIZES.len()] {
        array::from_fn(|size| {
            let spare = &mut self.spare[size];
            let unneeded = spare.split_off(spare.len() - self.unused[size].div_ceil(2));
            spare.shrink_to(spare.len() * 2);
            self.unused[size] = spare.len();
            unneeded
        })
    }

    fn bytes(&self) -> usize {
        let of_size = |size: usize| self.spare[size].len() * SIZES[size] * size_of::<Message>();
        (0..SIZES.len()).map(of_size).sum()
    }
}

#[cfg(all(test, not(pool_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_leased_again() {
        let buffers = Buffers::default();
        let buffer = buffers.lease(3, 1);
        assert_eq!(buffer.0.capacity(), 8);
        buffers.give(3, buffer);
        assert_eq!(buffers.spare_bytes(), 8 * size_of::<Message>());
        assert_eq!((buffers.lease(3, 7).0.capacity(), buffers.spare_bytes()), (8, 0));
        assert_eq!(buffers.lease(3, 8).0.capacity(), 64);
        assert!(buffers.lease(3, 64).0.capacity() > 64);
    }

    #[test]
    fn a_buffer_that_has_grown_is_not_kept() {
        let buffers = Buffers::default();
        let mut buffer = buffers.lease(0, 8);
        buffer.0.reserve_exact(65);
        buffers.give(0, buffer);
        assert_eq!(buffers.spare_bytes(), 0);
    }

    #[test]
    fn a_peak_comes_back_and_what_is_in_use_stays() {
        let buffers = Buffers::default();
        let peak: Vec<_> = (0..100).map(|_| buffers.lease(0, 1)).collect();
        peak.into_iter().for_each(|buffer| buffers.give(0, buffer));
        buffers.trim(); // all of them were in use since the last
        let kept = |buffers: &Buffers| buffers.spare_bytes() / (8 * size_of::<Message>());
        assert_eq!(kept(&buffers), 100);
        for left in [50, 25, 12, 6, 3, 1, 0, 0] {
            buffers.trim();
            assert_eq!(kept(&buffers), left);
        }

        let (one, other) = (buffers.lease(0, 1), buffers.lease(0, 1));
        buffers.give(0, one);
        buffers.give(0, other);
        for _ in 0..10 {
            let in_use = buffers.lease(0, 1);
            buffers.trim();
            buffers.give(0, in_use);
        }
        assert_eq!(kept(&buffers), 1, "the one that is needed between any two trims");
    }

    #[test]
    fn a_shelf_is_bounded() {
        let buffers = Buffers::default();
        for _ in 0..10_000 {
            buffers.give(0, Buffer::of(64));
        }
        assert!(buffers.spare_bytes() < MOST_BYTES + 64 * size_of::<Message>());
    }
}
