//! How a free slot is found and taken: the thread's magazine, the bitmap, growth, a scan; and when there
//! is none, by the refusal rule of the parent module.

use super::frame::Frame;
use super::header::{Claim, Key};
use super::hints::magazine;
use super::{BEGUN, ENDED, Resident, Slab, Starting};
use crate::sync::Ordering;
use std::fmt;

/// Every slot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("every slot is taken: release one, or raise the capacity")
    }
}

impl std::error::Error for Full {}

/// Why nothing could be claimed under the caller's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// [`Slab::grow`] makes room: call it outside the lock, and try again.
    Grow,
    /// Every slot is taken.
    Full,
}

/// A slot that a claim took.
type Claimed<'a, R> = (&'a Frame<R>, usize, Key);

impl<R: Resident> Slab<R> {
    /// Takes a free slot: `Free → Reserved`. Lock-free unless the slab grows.
    ///
    /// # Errors
    ///
    /// [`Full`] if every slot is taken; never while one is free.
    #[inline]
    pub fn claim(&self) -> Result<Key, Full> {
        self.take(Claim::Reserve).map(|(_, _, key)| key)
    }

    /// Takes a free slot and begins at once: `Free → Starting`, in one step where [`Slab::claim`] and
    /// [`Slab::begin`] are two. Lock-free unless the slab grows.
    ///
    /// # Errors
    ///
    /// [`Full`] if every slot is taken; never while one is free.
    #[inline]
    pub fn start(&self) -> Result<Starting<'_, R>, Full> {
        self.take(Claim::Start).map(|claimed| self.starting(claimed))
    }

    /// As [`Slab::claim`], for use under a caller's lock: never allocates.
    pub(crate) fn claim_in_place(&self) -> Result<Key, Shortage> {
        self.take_in_place(Claim::Reserve).map(|(_, _, key)| key)
    }

    /// As [`Slab::start`], for use under a caller's lock: never allocates.
    #[inline]
    pub(crate) fn start_in_place(&self) -> Result<Starting<'_, R>, Shortage> {
        self.take_in_place(Claim::Start).map(|claimed| self.starting(claimed))
    }

    fn starting<'a>(&'a self, (frame, offset, key): Claimed<'a, R>) -> Starting<'a, R> {
        Starting { slab: self, frame, offset, key, by: Claim::Start }
    }

    #[inline]
    fn take(&self, by: Claim) -> Result<Claimed<'_, R>, Full> {
        self.take_hinted(by).map_or_else(|| self.take_slowly(by), Ok)
    }

    #[inline]
    fn take_in_place(&self, by: Claim) -> Result<Claimed<'_, R>, Shortage> {
        let hinted = self.take_hinted(by).or_else(|| self.take_from_bitmap(by));
        hinted.map_or_else(|| self.take_without_growth(by), Ok)
    }

    #[inline(always)] // what it returns stays in registers
    fn take_hinted(&self, by: Claim) -> Option<Claimed<'_, R>> {
        // Ends: each turn takes a hint away from this thread's magazine.
        loop {
            let hint = magazine::last(self.id)?;
            if self.is_sparse(hint) {
                self.hint(hint);
                continue;
            }
            let claimed = self.take_expected(hint, by);
            if claimed.is_some() {
                return claimed;
            }
        }
    }

    #[inline(always)]
    fn take_expected(&self, key: Key, by: Claim) -> Option<Claimed<'_, R>> {
        let (frame, offset) = self.directory.locate(key.index())?;
        if !frame.headers[offset].claim(key.generation(), by) {
            return None;
        }
        self.cells.add(BEGUN, 1);
        Some((frame, offset, key))
    }

    /// Takes a frame's hints, claims one slot and keeps the rest of the hints.
    fn take_from_bitmap(&self, by: Claim) -> Option<Claimed<'_, R>> {
        // Ends: each turn takes hints away, and new ones come only from releases, which are progress.
        while let Some((number, bits)) = self.directory.take_lowest() {
            let mut claimed = None;
            for key in self.directory.expected(number, bits) {
                if claimed.is_none() {
                    claimed = self.take_expected(key, by);
                } else {
                    self.hint(key);
                }
            }
            if claimed.is_some() {
                return claimed;
            }
        }
        None
    }

    /// The magazine is empty: the bitmap, and then the last resort: refuse, grow, or look at every header.
    #[cold]
    fn take_slowly(&self, by: Claim) -> Result<Claimed<'_, R>, Full> {
        // Ends: each turn but the last grew the slab, or saw that another thread did.
        loop {
            if let Some(claimed) = self.take_from_bitmap(by) {
                return Ok(claimed);
            }
            match self.take_without_growth(by) {
                Ok(claimed) => return Ok(claimed),
                Err(Shortage::Full) => return Err(Full),
                Err(Shortage::Grow) => {
                    self.grow();
                }
            }
        }
    }

    /// Refuses, asks for growth, or looks at every header.
    #[cold]
    fn take_without_growth(&self, by: Claim) -> Result<Claimed<'_, R>, Shortage> {
        // Ends: a turn that neither claims nor refuses saw a release or a shrink by another thread,
        // that is, progress.
        loop {
            if self.occupied() >= self.capacity {
                return Err(Shortage::Full);
            }
            // Before `can_grow`: a shrink that is over by now has left its pages for it to find, and
            // one that comes later changes the number.
            let mut shrinks = self.shrinks.load(Ordering::Acquire);
            if self.can_grow() {
                return Err(Shortage::Grow);
            }
            if fault!("shrink_unseen") {
                shrinks = self.shrinks.load(Ordering::Acquire);
            }
            let ended = self.cells.sum(ENDED);
            if let Some(claimed) = self.scan(by) {
                return Ok(claimed);
            }
            let is_settled = shrinks.is_multiple_of(2)
                && self.shrinks.load(Ordering::Acquire) == shrinks
                && self.cells.sum(ENDED) == ended;
            if is_settled || fault!("refuse_after_one_scan") {
                return Err(Shortage::Full);
            }
        }
    }

    fn scan(&self, by: Claim) -> Option<Claimed<'_, R>> {
        self.frames_in_use()
            .flat_map(|(number, _)| self.directory.expected(number, u64::MAX))
            .find_map(|key| self.take_expected(key, by))
    }
}
