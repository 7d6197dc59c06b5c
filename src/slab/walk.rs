//! Walks visit slots without disturbing them: under an epoch guard, reading only headers and
//! glances, with no read-modify-write. Whoever walks acts afterwards, by key.

use super::header::{Key, State};
use super::{PAGE, Resident, Slab};
use crate::sync::epoch;

/// How far a walk has come. A walk may stop at any time and go on later from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub(super) next_frame: usize,
}

/// How many slots are in which state, counted one after the other: exact when nothing moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Without a value page.
    pub void: usize,
    /// Waiting to be claimed.
    pub free: usize,
    /// Claimed, not yet open.
    pub reserved: usize,
    /// Claimed, the value being written.
    pub starting: usize,
    /// Open.
    pub live: usize,
    /// Ended, not yet vacated.
    pub closing: usize,
    /// Retired and replaced.
    pub dead: usize,
}

impl<R: Resident> Slab<R> {
    /// Visits the occupied slots of the next frames, at least `slots` slots or to the end, under one
    /// epoch guard. `read` sees a glance that may be changing; what it returned is handed to `found`
    /// only if the slot was in the same life and state before and after. Returns `false` at the end.
    ///
    /// A key that is live from the first call to the last is found exactly once.
    pub fn walk<T>(
        &self,
        cursor: &mut Cursor,
        slots: usize,
        read: impl FnMut(&R::Glance) -> T,
        found: impl FnMut(Key, State, T),
    ) -> bool {
        self.walk_some(cursor, slots, |_, _| true, read, found)
    }

    /// As [`Slab::walk`], but reads the glance of those slots only that `wants` asks for by their header:
    /// the headers lie side by side, the glances far apart.
    pub fn walk_some<T>(
        &self,
        cursor: &mut Cursor,
        slots: usize,
        mut wants: impl FnMut(Key, State) -> bool,
        mut read: impl FnMut(&R::Glance) -> T,
        mut found: impl FnMut(Key, State, T),
    ) -> bool {
        let _guard = (!fault!("walk_without_guard")).then(epoch::pin);
        let stop = cursor.next_frame + slots.div_ceil(PAGE).max(1);
        for (number, frame) in self.frames_from(cursor.next_frame) {
            if number >= stop {
                return true;
            }
            cursor.next_frame = number + 1;
            if !frame.has_page() {
                continue;
            }
            for (offset, cell) in frame.headers.iter().enumerate() {
                let before = cell.load();
                let key = Key::new((number * PAGE + offset) as u32, before.generation());
                if !before.state().is_occupied() || !wants(key, before.state()) {
                    continue;
                }
                let slot = frame.slot(offset);
                if slot.is_null() {
                    continue;
                }
                // SAFETY: the page was in place after the guard was taken, and `page_out` frees a
                // page only when every guard from before has gone. The glance is only ever shared.
                let seen = read(unsafe { &(*slot).glance });
                if cell.load_again().is_same_moment(before) {
                    found(key, before.state(), seen);
                }
            }
        }
        false
    }

    /// Appends the keys of the live slots of the next frames, as [`Slab::walk`] visits them. Returns `false`
    /// at the end.
    pub fn live_keys(&self, cursor: &mut Cursor, slots: usize, keys: &mut Vec<Key>) -> bool {
        self.walk_some(cursor, slots, |_, state| state == State::Live, |_| (), |key, _, ()| keys.push(key))
    }

    /// Reads the glance of a slot, whoever is in it. `None`: the slot has no page now.
    pub fn glance<T>(&self, index: u32, read: impl FnOnce(&R::Glance) -> T) -> Option<T> {
        let _guard = epoch::pin();
        let (frame, offset) = self.directory.locate(index)?;
        let slot = frame.slot(offset);
        // SAFETY: as in `walk`.
        (!slot.is_null()).then(|| read(unsafe { &(*slot).glance }))
    }

    /// Counts the slots by state. Reads every header: about 8 bytes for each slot of the peak.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for cell in self.frames_in_use().flat_map(|(_, frame)| &frame.headers) {
            *match cell.load().state() {
                State::Void => &mut census.void,
                State::Free => &mut census.free,
                State::Reserved => &mut census.reserved,
                State::Starting => &mut census.starting,
                State::Live => &mut census.live,
                State::Closing => &mut census.closing,
                State::Dead => &mut census.dead,
            } += 1;
        }
        census
    }
}

impl Census {
    /// Reserved, starting, live and closing slots.
    pub fn occupied(&self) -> usize {
        self.reserved + self.starting + self.live + self.closing
    }
}
