//! What a slab is generic over: the value of a slot, and its cleaning.

/// What lives in a slab's slots, and how a slot is cleaned for the next occupant.
pub trait Resident: Send + Sync + Sized + 'static {
    /// Atomics only: read by walks at any time, also while the slot changes hands.
    type Glance: Default + Send + Sync;
    /// What a pin gives a shared reference to.
    type Shared: Default + Send + Sync;
    /// What only the lease's owner reaches.
    type Owned: Default + Send;
    /// What a clean-up leaves to be done once the slot is free again, such as a waker to wake.
    type Residue;

    /// Cleans a slot that its last user has left. Runs on the finaliser's thread, which may be a
    /// stranger's who only held the last pin. A panic retires the slot.
    fn clean(&self, vacated: Vacated<'_, Self>) -> (Fate, Self::Residue);

    /// Called after the slot was vacated, outside any lock of the slab. Must not panic: it may run while
    /// another panic unwinds.
    fn freed(&self, residue: Self::Residue);
}

/// A slot that nobody else can touch until [`Resident::clean`] returns.
#[derive(Debug)]
pub struct Vacated<'a, R: Resident> {
    /// The slot's atomics; walks may still be reading them.
    pub glance: &'a R::Glance,
    /// The shared part, exclusively.
    pub shared: &'a mut R::Shared,
    /// The owner's part, exclusively.
    pub owned: &'a mut R::Owned,
    /// Whether this runs on the thread that won the close, rather than on one that held a pin.
    pub is_winner: bool,
    /// Whether the slot has another life. Without one it is retired, whatever the fate.
    pub has_next_life: bool,
}

/// What becomes of a cleaned slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Free for anyone.
    Free,
    /// Reserved at once, under the next generation, for one who waits for this very slot.
    Heir,
    /// Out of use for good; another index takes its place.
    Retire,
}
