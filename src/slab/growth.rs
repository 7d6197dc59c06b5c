//! Memory comes and goes by pages: growing gives a frame its page, shrinking takes a page whose
//! slots are all free. Both hold the growth lock, which no claim, pin or close touches.

use super::frame::{Frame, Retired};
use super::header::{Header, State};
use super::{PAGE, Resident, Slab};
use crate::sync::{Ordering, epoch};
use std::collections::{BTreeMap, BTreeSet};

/// What the growth lock guards.
#[derive(Debug, Default)]
pub(super) struct Growth {
    /// Indices below this have been in use.
    next_index: usize,
    /// Frames whose page was taken out, lowest first.
    paged_out: BTreeSet<usize>,
    /// Frames without an occupant at the last `shrink_settled`, and their [`Frame::rest`] then.
    at_rest: BTreeMap<usize, u64>,
}

impl<R: Resident> Slab<R> {
    /// Makes free slots: in the lowest frame that lost its page, else behind the last index. `true`:
    /// there may be free slots now, look again. May block on the growth lock.
    #[cold]
    pub(crate) fn grow(&self) -> bool {
        // A chunk doubles, so it is allocated before the lock is taken.
        let next_frame = self.frames_end.load(Ordering::Relaxed);
        if next_frame * PAGE < self.index_limit() {
            self.directory.reach(next_frame);
        }
        let mut growth = self.growth.lock();
        if let Some(number) = growth.paged_out.pop_first() {
            self.populate(number, 0, growth.next_index.min((number + 1) * PAGE) - number * PAGE);
            return true;
        }
        let first = growth.next_index;
        let (number, end) = (first / PAGE, self.index_limit().min((first / PAGE + 1) * PAGE));
        if first >= end {
            return false;
        }
        if self.directory.frame(number).is_none() {
            return true; // another thread grew into the next chunk's room; look again
        }
        growth.next_index = end;
        self.populate(number, first % PAGE, end - number * PAGE);
        // Release: pairs with the Acquire in `frames_in_use`.
        self.frames_end.store(number + 1, Ordering::Release);
        true
    }

    /// Whether [`Slab::grow`] would find room. Waits for a running shrink, which may be hiding slots.
    pub(super) fn can_grow(&self) -> bool {
        let growth = self.growth.lock();
        !growth.paged_out.is_empty() || growth.next_index < self.index_limit()
    }

    /// Takes out pages all of whose slots are free, from the highest, as long as `spare` free slots
    /// remain. Returns the number of slots whose memory went back. May block on the growth lock.
    pub fn shrink(&self, spare: usize) -> usize {
        self.shrink_where(spare, |_, _| true)
    }

    /// As [`Slab::shrink`], but takes only pages in which nothing has begun or ended since the last
    /// call: former owners have had the time to read in a glance how their lives ended.
    pub(crate) fn shrink_settled(&self, spare: usize) -> usize {
        let before = std::mem::take(&mut self.growth.lock().at_rest);
        let at_rest: BTreeMap<_, _> =
            self.frames_in_use().filter_map(|(number, frame)| Some((number, frame.rest()?))).collect();
        let taken = self.shrink_where(spare, |number, frame| {
            frame.rest().is_some_and(|rest| before.get(&number) == Some(&rest))
        });
        self.growth.lock().at_rest = at_rest;
        taken
    }

    fn shrink_where(&self, spare: usize, may_go: impl Fn(usize, &Frame<R>) -> bool) -> usize {
        let mut retired = Vec::new();
        let mut growth = self.growth.lock();
        // Odd while slots may be hidden from a claimant's scan; see `take_without_growth`.
        self.shrinks.fetch_add(1, Ordering::AcqRel);
        let census = self.census();
        let mut free = census.free;
        let mut taken = 0;
        // After a peak, those that are left lie far apart: what begins from now on goes to the low pages.
        let needed = census.occupied().div_ceil(PAGE);
        let is_sparse = free > 2 * census.occupied() + 2 * PAGE;
        let sparse_from = if is_sparse { needed + needed / 2 + 1 } else { usize::MAX };
        self.sparse_from.store(sparse_from, Ordering::Relaxed);
        for number in (0..growth.next_index.div_ceil(PAGE)).rev() {
            if !self.directory.frame(number).is_some_and(|frame| may_go(number, frame)) {
                continue;
            }
            let slots = self.page_out(number, free.saturating_sub(spare), &mut retired);
            if slots > 0 {
                growth.paged_out.insert(number);
                (free, taken) = (free.saturating_sub(slots), taken + slots);
            }
        }
        self.shrinks.fetch_add(1, Ordering::AcqRel);
        drop(growth);
        let guard = epoch::pin();
        for mut page in retired {
            // SAFETY: `page_out` made every slot void, so no claim can succeed before `populate` installs
            // another page; its claims were exclusive, so no pin, reservation or clean-up is running.
            // What may still read the page is a walk: it reads glances only, and holds an epoch guard
            // from before.
            unsafe {
                // Foreign code, so here, and not wherever some thread comes to collect garbage: that may
                // be under any lock.
                page.strip();
                if fault!("page_freed_at_once") {
                    page.free();
                    continue;
                }
                guard.defer_unchecked(move || page.free());
            }
        }
        // Without this the last pages would wait for more garbage of this thread.
        guard.flush();
        taken
    }

    /// Leaves a hint to every free slot. Hints in the magazine of a thread that went away, or that
    /// serves too many slabs, are found again by this.
    pub fn refresh_hints(&self) {
        for (number, frame) in self.frames_in_use() {
            let bits = (0..PAGE)
                .filter(|&offset| frame.headers[offset].load().state() == State::Free)
                .fold(0, |bits, offset| bits | 1 << offset);
            if bits != 0 {
                self.directory.leave(number, bits);
            }
        }
    }

    /// Turns the void slots `from..to` of a frame into free ones. The caller holds the growth lock.
    fn populate(&self, number: usize, from: usize, to: usize) {
        let Some(frame) = self.directory.frame(number) else { return };
        if !frame.has_page() {
            frame.install();
        }
        let mut hints = 0;
        for offset in from..to {
            let header = frame.headers[offset].load();
            if header.state() == State::Void {
                let generation = match header.generation() {
                    0 => self.first_generation((number * PAGE + offset) as u32),
                    _ if fault!("regrown_starts_over") => {
                        self.first_generation((number * PAGE + offset) as u32)
                    }
                    used => used,
                };
                frame.headers[offset].bring_in(generation);
                hints |= 1 << offset;
            }
        }
        self.directory.leave(number, hints);
    }

    /// All or nothing: every slot of the frame becomes void and the page goes, or none does, as also
    /// when more than `most` slots are free. Returns the slots taken out. The caller holds the growth
    /// lock.
    fn page_out(&self, number: usize, most: usize, retired: &mut Vec<Retired<R>>) -> usize {
        let Some(frame) = self.directory.frame(number) else { return 0 };
        let headers = || frame.headers.iter().map(|cell| (cell, cell.load()));
        let free = headers().filter(|(_, header)| header.state() == State::Free).count();
        let is_in_use = headers().any(|(_, header)| header.state().is_occupied());
        if !frame.has_page() || is_in_use || free > most {
            return 0;
        }
        let mut voided = [None; PAGE];
        let mut is_whole = true;
        for ((cell, header), voided) in headers().zip(&mut voided) {
            match header.state() {
                State::Free if fault!("shrink_without_claim") => {
                    cell.vacate(Header::new(header.generation(), State::Void));
                    *voided = Some(header.generation());
                }
                State::Free if cell.take_out(header.generation()) => *voided = Some(header.generation()),
                State::Void | State::Dead => {}
                _ => {
                    is_whole = false; // claimed a moment ago
                    break;
                }
            }
        }
        if is_whole {
            retired.push(frame.uninstall());
            return voided.iter().flatten().count();
        }
        let mut hints = 0;
        for (offset, generation) in voided.iter().enumerate() {
            if let Some(generation) = *generation {
                frame.headers[offset].bring_in(generation);
                hints |= 1 << offset;
            }
        }
        self.directory.leave(number, hints);
        0
    }

    /// Indices that may be in use: the capacity, and one more for each slot that died.
    fn index_limit(&self) -> usize {
        (self.capacity + self.dead.load(Ordering::Acquire)).min(super::MAX_SLOTS)
    }
}

#[cfg(all(test, not(pool_loom)))]
mod tests {
    use super::*;
    use crate::slab::{Fate, Options, Vacated};

    struct Nothing;

    impl Resident for Nothing {
        type Glance = ();
        type Shared = ();
        type Owned = ();
        type Residue = ();

        fn clean(&self, _: Vacated<'_, Self>) -> (Fate, ()) {
            (Fate::Free, ())
        }

        fn freed(&self, (): ()) {}
    }

    #[test]
    fn a_page_goes_once_nothing_has_happened_in_it_between_two_looks() {
        let slab = Slab::new(Nothing, Options::with_capacity(2 * PAGE));
        let life = |number: usize| {
            let keys: Vec<_> =
                (0..number).map(|_| slab.start().expect("it is empty").publish().key()).collect();
            keys.into_iter().for_each(|key| drop(slab.close(key).expect("it is live")));
        };
        life(2 * PAGE);
        assert_eq!(slab.shrink_settled(0), 0, "nobody has looked before");
        assert_eq!(slab.shrink_settled(0), 2 * PAGE);
        life(1);
        assert_eq!(slab.shrink_settled(0), 0);
        life(1);
        assert_eq!(slab.shrink_settled(0), 0, "it was in use meanwhile");
        assert!(slab.shrink_settled(0) > 0);
    }
}
