//! What its holder alone may do with one slot, for as long as it is held: each right is a value that
//! cannot be copied, and dropping it takes the slot to its next state.

use super::frame::Frame;
use super::header::{Claim, Won};
use super::{Key, Resident, Slab};
use std::fmt;

/// The right to the owner's part of one life. Made by [`Starting::publish`], once.
#[derive(Debug)]
pub struct Owner {
    pub(super) key: Key,
    pub(super) slab: u32,
}

impl Owner {
    /// The life that is owned.
    pub fn key(&self) -> Key {
        self.key
    }
}

/// A slot in `Starting`: this alone touches its value. Dropped unpublished, the slot goes back to where it
/// came from: `Reserved` again under the same key, or, if it was free, cleaned and free.
#[must_use = "dropping it takes the slot back to where it came from"]
pub struct Starting<'a, R: Resident> {
    pub(super) slab: &'a Slab<R>,
    pub(super) frame: &'a Frame<R>,
    pub(super) offset: usize,
    pub(super) key: Key,
    /// How it came to be in `Starting`: from `Free` at once, or from a reservation.
    pub(super) by: Claim,
}

impl<R: Resident> Starting<'_, R> {
    /// The life that begins, or may.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Calls `f` with all of the value.
    #[inline]
    pub fn value<T>(&mut self, f: impl FnOnce(&R::Glance, &mut R::Shared, &mut R::Owned) -> T) -> T {
        let slot = self.frame.slot(self.offset);
        // SAFETY: an occupied slot has a page (invariant 2), and in `Starting` the value is ours
        // (invariant 3).
        unsafe {
            (*slot).shared.with_mut(|shared| {
                (*slot).owned.with_mut(|owned| f(&(*slot).glance, &mut *shared, &mut *owned))
            })
        }
    }

    /// Leaves it to be begun later, by its key: `Starting → Reserved`. Wait-free.
    #[inline]
    pub fn reserve(self) -> Key {
        let key = self.key;
        self.frame.headers[self.offset].unbegin(key.generation());
        std::mem::forget(self);
        key
    }

    /// Opens the slot: `Starting → Live`. Wait-free.
    #[inline]
    pub fn publish(self) -> Owner {
        let owner = Owner { key: self.key, slab: self.slab.id };
        self.frame.headers[self.offset].publish(self.key.generation());
        std::mem::forget(self);
        owner
    }

    /// Puts the slot out of use: its value is beyond repair.
    pub fn retire(self) {
        self.slab.retire(&self.frame.headers[self.offset], self.key);
        std::mem::forget(self);
    }
}

impl<R: Resident> Drop for Starting<'_, R> {
    fn drop(&mut self) {
        let header = &self.frame.headers[self.offset];
        match self.by {
            Claim::Reserve => header.unbegin(self.key.generation()),
            Claim::Start => {
                header.give_up(self.key.generation());
                self.slab.finalise(self.frame, self.offset, self.key, true);
            }
        }
    }
}

impl<R: Resident> fmt::Debug for Starting<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Starting").field(&self.key).finish()
    }
}

/// A life that the holder has ended. The winner unlinks the key from its tables, then drops this.
#[must_use = "dropping it lets the slot be cleaned and used again"]
pub struct Closing<'a, R: Resident> {
    pub(super) slab: &'a Slab<R>,
    pub(super) frame: &'a Frame<R>,
    pub(super) offset: usize,
    pub(super) key: Key,
    pub(super) won: Won,
}

impl<R: Resident> Closing<'_, R> {
    /// The life that ended.
    pub fn key(&self) -> Key {
        self.key
    }

    /// No pin was running when the life ended: nobody else touches the slot before it is vacated, and this
    /// thread cleans it.
    pub(crate) fn is_alone(&self) -> bool {
        self.won == Won::Alone
    }

    /// Lets the slot go. `false`: a pin still holds it, and whoever leaves last cleans and vacates it.
    pub(crate) fn release(self) -> bool {
        std::mem::ManuallyDrop::new(self).leave()
    }

    /// Calls `f` with the value, which running pins may be reading too.
    #[inline]
    pub fn value<T>(&self, f: impl FnOnce(&R::Glance, &R::Shared) -> T) -> T {
        let slot = self.frame.slot(self.offset);
        // SAFETY: as in `Slab::pin`: the winner has a pin of its own, or is alone.
        unsafe { (*slot).shared.with(|shared| f(&(*slot).glance, &*shared)) }
    }

    /// To be called once. Whether that vacated the slot.
    fn leave(&self) -> bool {
        let is_finaliser = match self.won {
            Won::Alone => true,
            Won::WithPin if fault!("winner_without_pin") => false,
            Won::WithPin => self.frame.headers[self.offset].unpin() || fault!("double_finalise"),
        };
        if is_finaliser {
            self.slab.finalise(self.frame, self.offset, self.key, true);
        }
        is_finaliser
    }
}

impl<R: Resident> Drop for Closing<'_, R> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<R: Resident> fmt::Debug for Closing<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Closing").field(&self.key).finish()
    }
}

/// A running pin. Never handed out: it could be forgotten.
pub(super) struct Pinned<'a, R: Resident> {
    pub(super) slab: &'a Slab<R>,
    pub(super) frame: &'a Frame<R>,
    pub(super) offset: usize,
    pub(super) key: Key,
}

impl<R: Resident> Drop for Pinned<'_, R> {
    #[inline]
    fn drop(&mut self) {
        if self.frame.headers[self.offset].unpin() {
            self.slab.finalise(self.frame, self.offset, self.key, false);
        }
    }
}
