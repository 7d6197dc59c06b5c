//! Where free slots may be. A hint may be stale, doubled or missing: the claim's CAS on the header
//! decides, and the scan of the last resort needs none.
//!
//! Two homes, tried in this order:
//!
//! - the thread's **magazine**: up to [`MAGAZINE`] keys of free slots, last in first out, so the
//!   slot whose lines are warm is used again. It is thread-local: nobody waits for it, nobody steals
//!   from it, and nothing is lost with it but hints.
//! - the **bitmap**: one bit per slot in the frame's word, one bit per frame in the summary. Lowest
//!   frame first, so that live slots gather in low pages and high pages empty.

use super::frame::Directory;
use super::header::{Key, State};
use super::{PAGE, Resident};
use crate::sync::Ordering;

/// Hints in a thread's magazine for one slab.
#[cfg(not(pool_loom))]
pub(super) const MAGAZINE: usize = 64;

impl<R: Resident> Directory<R> {
    /// Leaves hints to slots of one frame. Lock-free.
    pub(super) fn leave(&self, frame_number: usize, bits: u64) {
        let Some(frame) = self.frame(frame_number) else { return };
        // Release: pairs with the Acquire in `take_lowest`. Not needed for truth, only so that a
        // hint is seldom seen before the header that it speaks of.
        let before = frame.free.fetch_or(bits, Ordering::Release);
        if before == 0 {
            self.mark(frame_number);
        }
    }

    /// Takes all hints of the lowest frame that has any: `(frame number, bits)`. Lock-free.
    pub(super) fn take_lowest(&self) -> Option<(usize, u64)> {
        for (first, summary) in self.summaries() {
            let mut bits = summary.load(Ordering::Relaxed);
            while bits != 0 {
                let number = first + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if let Some(taken) = self.take_from(number) {
                    return Some((number, taken));
                }
            }
        }
        None
    }

    fn take_from(&self, number: usize) -> Option<u64> {
        let frame = self.frame(number)?;
        let taken = frame.free.swap(0, Ordering::Acquire);
        let (summary, bit) = self.summary_of(number)?;
        // Acquire and Release keep the second look after the clearing: a hint that came between the
        // swap and the clearing found a non-zero summary, so it is for us to mark it again.
        summary.fetch_and(!bit, Ordering::AcqRel);
        if !fault!("summary_bit_lost") && frame.free.load(Ordering::Acquire) != 0 {
            self.mark(number);
        }
        (taken != 0).then_some(taken)
    }

    fn mark(&self, number: usize) {
        if let Some((summary, bit)) = self.summary_of(number) {
            summary.fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// The keys that a frame's hint bits stand for, as far as they are free now.
    pub(super) fn expected(&self, number: usize, bits: u64) -> impl Iterator<Item = Key> {
        let frame = self.frame(number);
        (0..PAGE).filter(move |offset| bits >> offset & 1 == 1).filter_map(move |offset| {
            let header = frame?.headers[offset].load();
            (header.state() == State::Free)
                .then(|| Key::new((number * PAGE + offset) as u32, header.generation()))
        })
    }
}

#[cfg(not(pool_loom))]
pub(super) mod magazine {
    use super::{Key, MAGAZINE};
    use std::cell::Cell;

    /// Slabs whose hints a thread keeps at a time. One more, and the least recent is forgotten.
    const SLABS: usize = 4;

    struct Magazine {
        /// Its slab's number; 0 for none.
        slab: Cell<u32>,
        len: Cell<usize>,
        keys: [Cell<Key>; MAGAZINE],
    }

    /// No part has a destructor, so that they are reached without asking whether the thread is still alive.
    struct Magazines {
        all: [Magazine; SLABS],
        /// Places in `all`, the most recent first.
        order: Cell<[u8; SLABS]>,
    }

    thread_local! {
        static MAGAZINES: Magazines = const { Magazines::new() };
    }

    /// Keeps a hint; `false` if there is no room for it.
    #[inline]
    pub(in crate::slab) fn keep(slab: u32, key: Key) -> bool {
        MAGAZINES.with(|magazines| {
            let magazine = magazines.of(slab);
            let len = magazine.len.get();
            let Some(place) = magazine.keys.get(len) else { return false };
            place.set(key);
            magazine.len.set(len + 1);
            true
        })
    }

    /// The hint that was kept last.
    #[inline]
    pub(in crate::slab) fn last(slab: u32) -> Option<Key> {
        MAGAZINES.with(|magazines| {
            let magazine = magazines.of(slab);
            let len = magazine.len.get().checked_sub(1)?;
            magazine.len.set(len);
            magazine.keys.get(len).map(Cell::get)
        })
    }

    impl Magazine {
        const fn new() -> Self {
            let keys = [const { Cell::new(Key::new(0, 0)) }; MAGAZINE];
            Self { slab: Cell::new(0), len: Cell::new(0), keys }
        }
    }

    impl Magazines {
        const fn new() -> Self {
            Self { all: [const { Magazine::new() }; SLABS], order: Cell::new([0, 1, 2, 3]) }
        }

        #[inline]
        fn of(&self, slab: u32) -> &Magazine {
            let first = &self.all[usize::from(self.order.get()[0]) % SLABS];
            if first.slab.get() == slab { first } else { self.bring_to_front(slab) }
        }

        #[cold]
        fn bring_to_front(&self, slab: u32) -> &Magazine {
            let mut order = self.order.get();
            let at = |place: u8| &self.all[usize::from(place) % SLABS];
            let known = order.iter().position(|&place| at(place).slab.get() == slab);
            order[..=known.unwrap_or(SLABS - 1)].rotate_right(1);
            self.order.set(order);
            let magazine = at(order[0]);
            if known.is_none() {
                magazine.slab.set(slab);
                magazine.len.set(0);
            }
            magazine
        }
    }
}

/// Under loom every hint goes through the bitmap, where its races can be seen.
#[cfg(pool_loom)]
pub(super) mod magazine {
    use super::Key;

    pub(in crate::slab) fn keep(_slab: u32, _key: Key) -> bool {
        false
    }

    pub(in crate::slab) fn last(_slab: u32) -> Option<Key> {
        None
    }
}
