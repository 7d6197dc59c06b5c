//! When a slot has to be looked at: 4 dense bytes for each slot, in its frame. A scan reads one line of them
//! for 16 slots, and of the slots only those whose alarm has come.
//!
//! *When* something is due is said by the slot's glance. The **alarm** is a bound below that: one that is
//! early costs a look; one that is late, or lost, would be a deadline that nobody keeps. So whoever moves a
//! deadline to later, as each activity does, writes no alarm. There are two rules:
//!
//! 1. **Arming only makes it earlier**, and comes after the deadline was written. Done too late, by an owner
//!    whose slot has another occupant by now, or by a slow scan, it costs that occupant a look.
//! 2. **Only a scan makes it later**, of a slot in which it has found nothing due, and that is not being
//!    started or closed. It *disarms first*, then confirms the header, reads the glance and the header again,
//!    and arms with what the glance said; or, if the header has changed, with what it took out.
//!
//! Why nothing is lost:
//!
//! - [`Slab::arm`] is a read-modify-write (Release) even where it changes nothing, and so is disarming
//!   (Acquire). One of them comes first. If it is the arming, the scan sees the deadline that was written
//!   before it; if the disarming, what was armed stays.
//! - [`Starting::arm`] is content with an alarm that is early enough and writes nothing then, so that the
//!   lives of a busy slot share one. For that, the confirmation is a read-modify-write of the header. Either
//!   the claim (or `begin`) comes after it: it acquires, and so it finds the slot disarmed, and arms. Or it
//!   came before: then what is confirmed is a state after `Starting`, and the scan sees what was written in
//!   that; or the header is not what it was, and the alarm is put back.
//! - A claim acquires from a confirmation also over other changes of the header in between: each of them is a
//!   read-modify-write, or is by one who came to hold the slot by one that acquires. Plain stores start from
//!   `Starting` and `Closing` only, which nobody confirms.
//! - The glance may be newer than the header, and mean something else by then: a claim that was handed over
//!   this instant is in the glance no more. Hence the second look at the header, by the fences of a walk.
//! - The alarm of a void slot is in the frame, which stays. A scan disarms it and needs no page; the growth
//!   that fills the slot again is a read-modify-write, so that the next claim sees that.
//!
//! While one scan moves an alarm, another does not see it, as if it had come a moment earlier. An alarm whose
//! deadline has come is not moved: every scan finds it until somebody has seen to it.

use super::frame::Frame;
use super::header::{Header, Key, State};
use super::{Cursor, PAGE, Resident, Slab, Starting};
use crate::sync::{AtomicU32, Ordering, epoch};

/// A moment at which a slot is to be looked at, in the caller's units, or none.
///
/// The bits are the complement of the moment, so that 0 is "none" and the larger is the earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alarm(u32);

impl Alarm {
    /// Nobody needs to look.
    pub const NONE: Self = Self(0);

    /// At this moment. The last two are one.
    pub const fn at(moment: u32) -> Self {
        Self(if moment == u32::MAX { 1 } else { u32::MAX - moment })
    }

    /// The earlier of the two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }

    /// Whether it has, at the moment `now`.
    pub(crate) const fn has_come(self, now: Self) -> bool {
        self.0 >= now.0
    }
}

/// The alarms of a frame, on lines of their own. All zeros is: none.
#[repr(align(64))]
pub(super) struct Alarms([AlarmCell; PAGE]);

#[repr(transparent)]
struct AlarmCell(AtomicU32);

impl Alarms {
    #[cfg(pool_loom)]
    pub(super) fn none() -> Self {
        Self(std::array::from_fn(|_| AlarmCell(AtomicU32::new(0))))
    }
}

impl AlarmCell {
    /// Relaxed: what follows from it is decided after [`AlarmCell::disarm`], or by a claim that comes after
    /// that of a scan.
    #[inline]
    fn load(&self) -> Alarm {
        Alarm(self.0.load(Ordering::Relaxed))
    }

    /// Release: pairs with the Acquire of `disarm`, which thereby sees the deadline.
    fn arm(&self, alarm: Alarm) {
        self.0.fetch_max(alarm.0, Ordering::Release);
    }

    /// Acquire: pairs with the Release of every `arm` before; in between are read-modify-writes only.
    fn disarm(&self) -> Alarm {
        Alarm(self.0.swap(0, Ordering::Acquire))
    }
}

impl<R: Resident> Starting<'_, R> {
    /// The slot is to be looked at then. A deadline of that moment has been, or will be, written to its glance
    /// while it is held. Wait-free, and no write if the slot has an alarm that is early enough.
    #[inline]
    pub fn arm(&self, alarm: Alarm) {
        let cell = &self.frame.alarms.0[self.offset];
        if !cell.load().has_come(alarm) {
            cell.arm(alarm);
        }
    }
}

/// What a look at a slot said.
struct Sight<T> {
    header: Header,
    alarm: Alarm,
    /// `None`: nobody is in the slot.
    seen: Option<T>,
}

impl<R: Resident> Slab<R> {
    /// The slot is to be looked at then. A deadline of that moment was written to its glance before. Should
    /// the slot have another occupant by now, that costs a look. Lock-free.
    pub fn arm(&self, key: Key, alarm: Alarm) {
        if let Some((frame, offset)) = self.directory.locate(key.index()) {
            frame.alarms.0[offset].arm(alarm);
        }
    }

    /// Visits the occupied slots of the next frames whose alarm has come, as [`Slab::walk`] visits all.
    ///
    /// `look` sees a glance that may be changing, and says when the slot is to be looked at: if that is
    /// `now` or earlier, what else it returned is handed to `found`, and the alarm stays; if later, the
    /// alarm moves there after a second look. Returns `false` at the end.
    ///
    /// ```
    /// # use std::sync::atomic::{AtomicU32, Ordering};
    /// # use ws_manager_pool::slab::{Alarm, Cursor, Fate, Options, Resident, Slab, Vacated};
    /// # struct Eggs;
    /// # impl Resident for Eggs {
    /// #     type Glance = AtomicU32;
    /// #     type Shared = ();
    /// #     type Owned = ();
    /// #     type Residue = ();
    /// #     fn clean(&self, _: Vacated<'_, Self>) -> (Fate, ()) { (Fate::Free, ()) }
    /// #     fn freed(&self, (): ()) {}
    /// # }
    /// # let slab = Slab::new(Eggs, Options::with_capacity(100));
    /// let mut starting = slab.start()?;
    /// starting.value(|done_at, (), ()| done_at.store(4, Ordering::Relaxed));
    /// starting.arm(Alarm::at(4));
    /// let egg = starting.publish();
    ///
    /// let done = |now| {
    ///     let mut done = Vec::new();
    ///     let look = |_, done_at: &AtomicU32| (Alarm::at(done_at.load(Ordering::Relaxed)), ());
    ///     slab.walk_due(&mut Cursor::default(), 100, now, look, |key, _, ()| done.push(key));
    ///     done
    /// };
    /// assert_eq!(done(3), []);
    /// assert_eq!(done(4), [egg.key()]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn walk_due<T>(
        &self,
        cursor: &mut Cursor,
        slots: usize,
        now: u32,
        mut look: impl FnMut(State, &R::Glance) -> (Alarm, T),
        mut found: impl FnMut(Key, State, T),
    ) -> bool {
        let _guard = epoch::pin();
        let now = Alarm::at(now);
        let stop = cursor.next_frame + slots.div_ceil(PAGE).max(1);
        for (number, frame) in self.frames_from(cursor.next_frame) {
            if number >= stop {
                return true;
            }
            cursor.next_frame = number + 1;
            for (offset, cell) in frame.alarms.0.iter().enumerate() {
                if !cell.load().has_come(now) {
                    continue;
                }
                let Some(Sight { header, alarm, seen: Some(seen) }) = attend(frame, offset, now, &mut look)
                else {
                    continue;
                };
                if alarm.has_come(now) {
                    let key = Key::new((number * PAGE + offset) as u32, header.generation());
                    found(key, header.state(), seen);
                }
            }
        }
        false
    }
}

/// Looks at a slot whose alarm has come, and moves the alarm to later if nothing is due. `None`: the slot
/// changed meanwhile, and its alarm stays. The caller holds an epoch guard.
fn attend<R: Resident, T>(
    frame: &Frame<R>,
    offset: usize,
    now: Alarm,
    look: &mut impl FnMut(State, &R::Glance) -> (Alarm, T),
) -> Option<Sight<T>> {
    let (cell, home) = (&frame.alarms.0[offset], &frame.headers[offset]);
    let first = sight(frame, offset, home.load(), look)?;
    if first.alarm.has_come(now) || is_in_hand(first.header.state()) {
        return Some(first);
    }
    if fault!("alarm_read_before_disarm") {
        cell.disarm();
        cell.arm(first.alarm);
        return Some(first);
    }
    let taken = cell.disarm();
    let is_still = fault!("alarm_moved_unconfirmed") || home.confirm(first.header);
    let second = if is_still { sight(frame, offset, first.header, look) } else { None };
    cell.arm(second.as_ref().map_or(taken, |second| second.alarm));
    second
}

/// The slot is in the hands of one who changes its header by plain stores, so its alarm is not moved.
fn is_in_hand(state: State) -> bool {
    let is_starting = state == State::Starting && !fault!("alarm_of_a_started_one_moved");
    is_starting || state == State::Closing
}

/// Reads the slot's glance, if somebody is in it. `None`: its header is not `header` any more.
fn sight<R: Resident, T>(
    frame: &Frame<R>,
    offset: usize,
    header: Header,
    look: &mut impl FnMut(State, &R::Glance) -> (Alarm, T),
) -> Option<Sight<T>> {
    if !header.state().is_occupied() {
        return Some(Sight { header, alarm: Alarm::NONE, seen: None });
    }
    let slot = frame.slot(offset);
    if slot.is_null() {
        return None; // it went after the header was read
    }
    // SAFETY: as in `walk`: the page was in place after the caller's guard was taken.
    let (alarm, seen) = look(header.state(), unsafe { &(*slot).glance });
    let is_same = frame.headers[offset].load_again().is_same_moment(header);
    (is_same || fault!("alarm_moved_unseen")).then_some(Sight { header, alarm, seen: Some(seen) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_alarm_wins_and_none_never_comes() {
        let has_come = |alarm: Alarm, now| alarm.has_come(Alarm::at(now));
        assert_eq!(Alarm::at(3).or(Alarm::at(5)), Alarm::at(3));
        assert_eq!(Alarm::NONE.or(Alarm::at(5)), Alarm::at(5));
        assert!(has_come(Alarm::at(5), 5) && has_come(Alarm::at(5), 6) && !has_come(Alarm::at(5), 4));
        assert!(has_come(Alarm::at(0), 0) && has_come(Alarm::at(u32::MAX), u32::MAX));
        assert!(has_come(Alarm::at(u32::MAX), u32::MAX - 1), "early, not lost");
        assert!(!has_come(Alarm::NONE, u32::MAX));
    }
}
