//! The header: one word per slot that is the only truth about it.
//!
//! | bits | field | meaning |
//! | --- | --- | --- |
//! | 63..32 | generation | never 0 for a slot that was ever free; part of the [`Key`] |
//! | 31..28 | state | see [`State`] |
//! | 27..0 | pins | borrows in progress; non-zero only in `Live` and `Closing` |
//!
//! Every transition is a method of [`HeaderCell`], named as the protocol in the parent module names
//! it. No other code shifts bits or writes a header.

use crate::sync::{AtomicU64, Ordering, fence};
use std::fmt;

const STATE_SHIFT: u32 = 28;
const PINS: u64 = (1 << STATE_SHIFT) - 1;
/// One place is kept for the winner's own pin.
const MOST_PINS: u64 = PINS - 1;

/// Names one life of one slot. 8 bytes, `Copy`, never valid for two occupants.
///
/// | field | bits |
/// | --- | --- |
/// | index | 32 |
/// | generation | 32, never 0 |
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    pub(super) const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    /// The slot's place in the slab.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Which of the slot's lives this is.
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// The key as one number, for logs and for wire formats.
    pub const fn to_bits(self) -> u64 {
        (self.index as u64) << 32 | self.generation as u64
    }

    /// The inverse of [`Key::to_bits`]. A made-up key is harmless: it is stale.
    pub const fn from_bits(bits: u64) -> Self {
        Self { index: (bits >> 32) as u32, generation: bits as u32 }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}#{:08x})", self.index, self.generation)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:08x}", self.index, self.generation)
    }
}

/// What a slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// No value page behind it: never used yet, or taken out by a shrink.
    Void = 0,
    /// Waiting to be claimed.
    Free = 1,
    /// Claimed; nobody touches the value.
    Reserved = 2,
    /// Claimed; the claimant alone touches the value.
    Starting = 3,
    /// Open: may be pinned.
    Live = 4,
    /// Ended: running pins leave, new ones are refused.
    Closing = 5,
    /// Out of generations or out of order; another index has taken its place.
    Dead = 6,
}

impl State {
    const fn from_bits(bits: u64) -> Self {
        match bits {
            1 => Self::Free,
            2 => Self::Reserved,
            3 => Self::Starting,
            4 => Self::Live,
            5 => Self::Closing,
            6 => Self::Dead,
            _ => Self::Void,
        }
    }

    /// Reserved, starting, live or closing.
    pub const fn is_occupied(self) -> bool {
        matches!(self, Self::Reserved | Self::Starting | Self::Live | Self::Closing)
    }
}

/// A header as it was read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Header(u64);

impl Header {
    pub(super) const fn new(generation: u32, state: State) -> Self {
        Self((generation as u64) << 32 | (state as u64) << STATE_SHIFT)
    }

    pub(super) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) const fn state(self) -> State {
        State::from_bits(self.0 >> STATE_SHIFT & 0xf)
    }

    pub(super) const fn pins(self) -> u64 {
        self.0 & PINS
    }

    /// The same life in the same state, however many pins.
    pub(super) const fn is_same_moment(self, other: Self) -> bool {
        self.0 & !PINS == other.0 & !PINS
    }

    const fn with_state(self, state: State) -> Self {
        Self(self.0 & !(0xf << STATE_SHIFT) | (state as u64) << STATE_SHIFT)
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{:08x}+{}", self.state(), self.generation(), self.pins())
    }
}

/// What a claim makes of a free slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A reservation: `Reserved`.
    Reserve,
    /// A life that begins at once: `Starting`.
    Start,
}

impl Claim {
    const fn state(self) -> State {
        match self {
            Self::Reserve => State::Reserved,
            Self::Start => State::Starting,
        }
    }
}

/// How [`HeaderCell::close`] was won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Won {
    /// There was no pin, so nobody else touches the slot until it is vacated.
    Alone,
    /// Pins are running; the winner holds one of its own and gives it back by `unpin`.
    WithPin,
}

/// The header's home.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct HeaderCell(AtomicU64);

impl HeaderCell {
    #[cfg(pool_loom)]
    pub(super) fn void() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Acquire: whoever reads a state may go on to read what was written before it.
    #[inline]
    pub(super) fn load(&self) -> Header {
        Header(self.read(Ordering::Acquire))
    }

    /// The second look of a walk: ordered after the reads of the slot that came before it.
    #[inline]
    pub(super) fn load_again(&self) -> Header {
        // Acquire fence: pairs with the release fences in `claim`, `begin` and before a clean-up. If one of the
        // walk's relaxed reads saw a write of either, the load below sees the header from before it.
        fence(Ordering::Acquire);
        Header(self.read(Ordering::Relaxed))
    }

    /// Whether this is still the header: a scan's look after it has disarmed. Not of a slot in `Starting` or
    /// `Closing`.
    ///
    /// A read-modify-write, so that a claim comes either before it or after it (see `alarm.rs`). Release: one
    /// that comes after sees what was before this look. Acquire: as `load`.
    pub(super) fn confirm(&self, header: Header) -> bool {
        self.swap(header, header, Ordering::AcqRel)
    }

    /// `Free → Reserved`, or at once `Free → Starting`, from exactly the header that is expected.
    ///
    /// Acquire: pairs with the Release of `vacate`, so that the claimant sees the cleaned value.
    /// Release: a scan that finds the slot taken sees what the claimant had released before
    /// (`take_without_growth` relies on it: it then sees that `ended` has changed).
    #[inline]
    pub(super) fn claim(&self, generation: u32, by: Claim) -> bool {
        let free = Header::new(generation, State::Free);
        let is_ours = self.swap(free, free.with_state(by.state()), Ordering::AcqRel);
        if by == Claim::Start && !fault!("start_without_fence") {
            // Release fence: pairs with the acquire fence in `load_again`, see there.
            fence(Ordering::Release);
        }
        is_ours
    }

    /// `Free → Void`, a shrink's claim.
    ///
    /// Acquire for the same reason as `claim`. Release: a scan that finds the slot void sees that a
    /// shrink has begun.
    pub(super) fn take_out(&self, generation: u32) -> bool {
        let free = Header::new(generation, State::Free);
        let order = if fault!("take_out_without_release") { Ordering::Acquire } else { Ordering::AcqRel };
        self.swap(free, free.with_state(State::Void), order)
    }

    /// `Void → Free`, the growth's. The slot is nobody's, so this always succeeds.
    ///
    /// Release: pairs with the Acquire of `claim`. Acquire, by a read-modify-write: what was before the look
    /// of a scan that saw the slot void is before the next claim too (see `alarm.rs`).
    pub(super) fn bring_in(&self, generation: u32) {
        let free = Header::new(generation, State::Free);
        if fault!("brought_in_by_store") {
            return self.write(free, Ordering::Release);
        }
        self.0.swap(free.0, Ordering::AcqRel);
    }

    /// `Reserved → Starting`: from here on the deadline cannot take the slot away.
    ///
    /// Acquire: pairs with the Release of an earlier `unbegin` by another thread.
    #[inline]
    pub(super) fn begin(&self, generation: u32) -> bool {
        let reserved = Header::new(generation, State::Reserved);
        let begun = self.swap(reserved, reserved.with_state(State::Starting), Ordering::Acquire);
        if !fault!("begin_without_fence") {
            // Release fence: pairs with the acquire fence in `load_again`, see there.
            fence(Ordering::Release);
        }
        begun
    }

    /// `Starting → Reserved`. Release: pairs with the Acquire of the next `begin` or `abort`.
    #[inline]
    pub(super) fn unbegin(&self, generation: u32) {
        self.write(Header::new(generation, State::Reserved), Ordering::Release);
    }

    /// `Starting → Closing`: a life that was started at once is given up. The caller stays alone.
    /// Release: none needed, it goes on to `vacate`.
    pub(super) fn give_up(&self, generation: u32) {
        self.write(Header::new(generation, State::Closing), Ordering::Relaxed);
    }

    /// `Starting → Live`. Release: pairs with the Acquire of `pin`, which thereby sees the value.
    #[inline]
    pub(super) fn publish(&self, generation: u32) {
        let order = if fault!("relaxed_publish") { Ordering::Relaxed } else { Ordering::Release };
        self.write(Header::new(generation, State::Live), order);
    }

    /// Adds a pin if this life is live. `false`: the key is stale.
    ///
    /// Acquire: pairs with `publish`. The loop repeats only when another thread changed the word,
    /// that is, made progress; it is lock-free.
    #[inline]
    pub(super) fn pin(&self, generation: u32) -> bool {
        let mut seen = self.read(Ordering::Relaxed);
        loop {
            let header = Header(seen);
            let is_other_life = !fault!("pin_ignores_generation") && header.generation() != generation;
            if is_other_life || header.state() != State::Live || header.pins() == MOST_PINS {
                return false;
            }
            match self.0.compare_exchange_weak(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }

    /// Gives a pin back. `true`: it was the last of a closing slot, the caller is the finaliser.
    #[inline]
    #[must_use]
    pub(super) fn unpin(&self) -> bool {
        // Release: what was read through the pin was read before the finaliser changes it.
        let before = Header(self.0.fetch_sub(1, Ordering::Release));
        let is_last = before.state() == State::Closing && before.pins() == 1;
        if is_last && !fault!("unpin_without_fence") {
            // Acquire: pairs with the Release of every other unpin (one release sequence of
            // read-modify-writes), so all of their accesses come before the clean-up.
            if cfg!(pool_tsan) {
                self.0.load(Ordering::Acquire); // ThreadSanitizer does not follow fences
            } else {
                fence(Ordering::Acquire);
            }
        }
        is_last
    }

    /// `Live → Closing`. Exactly one caller wins a life; `None`: the key is stale or another won.
    ///
    /// With pins running, the winner's CAS adds a pin of its own: the slot cannot be finalised, and
    /// so not be reused, before the winner has unlinked it.
    #[inline]
    pub(super) fn close(&self, generation: u32) -> Option<Won> {
        let mut seen = self.read(Ordering::Relaxed);
        // Repeats only when a pin came or went: lock-free, as `pin`.
        loop {
            let header = Header(seen);
            let is_other_life = !fault!("close_ignores_generation") && header.generation() != generation;
            let is_open =
                header.state() == State::Live || (fault!("two_winners") && header.state() == State::Closing);
            if is_other_life || !is_open {
                return None;
            }
            let own_pin = u64::from(header.pins() > 0 && !fault!("winner_without_pin"));
            let closing = header.with_state(State::Closing).0 + own_pin;
            // Acquire: an exclusive winner sees what the last pin did. Release: none needed for the
            // value, which the winner has not touched.
            match self.0.compare_exchange_weak(seen, closing, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) if header.pins() == 0 => return Some(Won::Alone),
                Ok(_) => return Some(Won::WithPin),
                Err(now) => seen = now,
            }
        }
    }

    /// `Reserved → Closing`: the reservation is given back or has expired. The winner is alone.
    pub(super) fn abort(&self, generation: u32) -> bool {
        let reserved = Header::new(generation, State::Reserved);
        let closing = reserved.with_state(State::Closing);
        self.swap(reserved, closing, Ordering::Acquire)
            || fault!("expiry_takes_what_opens")
                && self.swap(reserved.with_state(State::Starting), closing, Ordering::Acquire)
    }

    /// The finaliser's last word. Release: pairs with the Acquire of `claim`.
    #[inline]
    pub(super) fn vacate(&self, next: Header) {
        self.write(next, Ordering::Release);
    }

    #[inline]
    fn read(&self, order: Ordering) -> u64 {
        // loom follows loads less closely than read-modify-writes, so the models run a second time with
        // nothing but these.
        if cfg!(pool_loom_rmw) { self.0.fetch_add(0, order) } else { self.0.load(order) }
    }

    #[inline]
    fn write(&self, header: Header, order: Ordering) {
        if cfg!(pool_loom_rmw) {
            self.0.swap(header.0, order);
        } else {
            self.0.store(header.0, order);
        }
    }

    #[inline]
    fn swap(&self, from: Header, to: Header, success: Ordering) -> bool {
        self.0.compare_exchange(from.0, to.0, success, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        let header = Header::new(u32::MAX, State::Closing);
        assert_eq!((header.generation(), header.state(), header.pins()), (u32::MAX, State::Closing, 0));
        let pinned = Header(header.0 + 3);
        assert_eq!((pinned.generation(), pinned.state(), pinned.pins()), (u32::MAX, State::Closing, 3));
        assert!(pinned.is_same_moment(header));
        assert!(!pinned.is_same_moment(Header::new(u32::MAX, State::Live)));
    }

    #[test]
    fn a_key_survives_the_round_trip_through_a_number() {
        let key = Key::new(7, 0xdead_beef);
        assert_eq!(Key::from_bits(key.to_bits()), key);
    }
}
