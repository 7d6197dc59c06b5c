//! Where slots live. Frames hold the headers of [`PAGE`] slots and stay for the slab's whole life;
//! the values lie in a page beside them that comes and goes.
//!
//! ```text
//! directory ─► chunk k: 2^k frames ─► frame: 64 alarms · 64 headers · 64 hint bits · page ─► 64 slots
//!                                  └► one summary bit per frame
//! ```

use super::Resident;
use super::alarm::Alarms;
use super::header::HeaderCell;
use crate::sync::{AtomicPtr, AtomicU64, Ordering, UnsafeCell};
use std::ptr;
use std::sync::OnceLock;

/// Slots in a page: allocated, and given back, as one. Small under loom, which counts every atomic.
pub(super) const PAGE: usize = if cfg!(pool_loom) { 2 } else { 64 };

/// Chunk `k` has `2^k` frames, so this many chunks hold every 32-bit index.
const CHUNKS: usize = (u32::MAX as usize / PAGE + 1).ilog2() as usize + 1;

/// One slot's value, in three parts that differ in who may touch them.
pub(super) struct Slot<R: Resident> {
    pub(super) glance: R::Glance,
    pub(super) shared: UnsafeCell<R::Shared>,
    pub(super) owned: UnsafeCell<R::Owned>,
}

impl<R: Resident> Slot<R> {
    fn new() -> Self {
        Self {
            glance: R::Glance::default(),
            shared: UnsafeCell::new(R::Shared::default()),
            owned: UnsafeCell::new(R::Owned::default()),
        }
    }
}

/// The headers and alarms of one page of slots, the hints to the free ones among them, and the page itself.
#[repr(align(64))]
pub(super) struct Frame<R: Resident> {
    pub(super) alarms: Alarms,
    pub(super) headers: [HeaderCell; PAGE],
    /// A set bit means: this slot may be free. See `hints`.
    pub(super) free: AtomicU64,
    /// Null, or a `Box<[Slot<R>]>` of [`PAGE`] slots by its first slot.
    page: AtomicPtr<Slot<R>>,
}

impl<R: Resident> Frame<R> {
    /// The slot at `offset`, or null while the frame has no page.
    ///
    /// Acquire: pairs with `install`, so the slots are seen initialised.
    #[inline]
    pub(super) fn slot(&self, offset: usize) -> *const Slot<R> {
        let page = self.page.load(Ordering::Acquire);
        if page.is_null() { page } else { page.wrapping_add(offset) }
    }

    /// Gives the frame a page. The caller holds the growth lock and found no page.
    pub(super) fn install(&self) {
        let page: Box<[Slot<R>]> = (0..PAGE).map(|_| Slot::new()).collect();
        self.page.store(Box::into_raw(page).cast(), Ordering::Release);
    }

    /// A number for a frame without occupants, and another one once a slot of it has had another life.
    pub(super) fn rest(&self) -> Option<u64> {
        self.headers.iter().map(HeaderCell::load).try_fold(0_u64, |rest, header| {
            // Generations only go forward, so the sum does not come back soon.
            (!header.state().is_occupied()).then(|| rest.wrapping_add(u64::from(header.generation())))
        })
    }

    pub(super) fn has_page(&self) -> bool {
        !self.page.load(Ordering::Acquire).is_null()
    }

    /// Takes the page away. The caller holds the growth lock and has made every header void.
    pub(super) fn uninstall(&self) -> Retired<R> {
        Retired(self.page.swap(ptr::null_mut(), Ordering::AcqRel))
    }
}

/// A page on its way back to the allocator.
pub(super) struct Retired<R: Resident>(*mut Slot<R>);

// SAFETY: it is the only way to the page but for walks, which hold an epoch guard and read only the
// `Sync` glance; the values themselves are `Send` by the bounds of `Resident`.
unsafe impl<R: Resident> Send for Retired<R> {}

impl<R: Resident> Retired<R> {
    /// Drops the owners' parts, which walks do not read.
    ///
    /// # Safety
    ///
    /// Nobody but walks has a reference into the page.
    pub(super) unsafe fn strip(&mut self) {
        let slots = (0..PAGE).map(|offset| self.0.wrapping_add(offset)).take_while(|slot| !slot.is_null());
        for slot in slots {
            // SAFETY: `install` made the pointer from a box of `PAGE` slots; nobody else reaches the
            // owner's part.
            drop(unsafe { (*slot).owned.with_mut(|owned| std::mem::take(&mut *owned)) });
        }
    }

    /// Drops the slots and frees their memory.
    ///
    /// # Safety
    ///
    /// No other reference into the page exists or will be made.
    pub(super) unsafe fn free(self) {
        if !self.0.is_null() {
            // SAFETY: `install` made the pointer from a box of `PAGE` slots, and `uninstall` handed
            // it out once.
            drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(self.0, PAGE)) });
        }
    }
}

/// A doubling run of frames, and one summary bit for each.
struct Chunk<R: Resident> {
    frames: Box<[Frame<R>]>,
    summary: Box<[AtomicU64]>,
}

impl<R: Resident> Chunk<R> {
    fn new(order: usize) -> Self {
        let count = 1_usize << order;
        let words = count.div_ceil(64);
        Self {
            frames: zeroed_frames(count),
            summary: std::iter::repeat_with(|| AtomicU64::new(0)).take(words).collect(),
        }
    }
}

/// Fresh frames: all headers void, no alarms, no hints, no page. Untouched memory stays unmapped.
#[cfg(not(pool_loom))]
fn zeroed_frames<R: Resident>(count: usize) -> Box<[Frame<R>]> {
    let frames = Box::<[Frame<R>]>::new_zeroed_slice(count);
    // SAFETY: a frame is integers and a pointer in atomics, for which all zeros is a value: header 0
    // is generation 0 in state `Void`, and the page is null.
    unsafe { frames.assume_init() }
}

#[cfg(pool_loom)]
fn zeroed_frames<R: Resident>(count: usize) -> Box<[Frame<R>]> {
    let frame = || Frame {
        alarms: Alarms::none(),
        headers: std::array::from_fn(|_| HeaderCell::void()),
        free: AtomicU64::new(0),
        page: AtomicPtr::new(ptr::null_mut()),
    };
    std::iter::repeat_with(frame).take(count).collect()
}

/// All frames there are, by number.
pub(super) struct Directory<R: Resident> {
    chunks: [OnceLock<Chunk<R>>; CHUNKS],
}

impl<R: Resident> Directory<R> {
    pub(super) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS] }
    }

    /// The frame and offset of a slot; `None` for an index that was never reached.
    #[inline]
    pub(super) fn locate(&self, index: u32) -> Option<(&Frame<R>, usize)> {
        let (number, offset) = (index as usize / PAGE, index as usize % PAGE);
        self.frame(number).map(|frame| (frame, offset))
    }

    #[inline]
    pub(super) fn frame(&self, number: usize) -> Option<&Frame<R>> {
        let order = (number + 1).ilog2() as usize;
        let chunk = self.chunks[order].get()?;
        Some(&chunk.frames[number + 1 - (1 << order)])
    }

    /// Makes sure that frame `number` exists. Allocates outside any lock: of two threads that come
    /// at once, one throws its chunk away.
    pub(super) fn reach(&self, number: usize) {
        let order = (number + 1).ilog2() as usize;
        let home = &self.chunks[order];
        if home.get().is_none() {
            drop(home.set(Chunk::new(order)));
        }
    }

    /// The summary word and bit of a frame that exists.
    pub(super) fn summary_of(&self, number: usize) -> Option<(&AtomicU64, u64)> {
        let order = (number + 1).ilog2() as usize;
        let place = number + 1 - (1 << order);
        let chunk = self.chunks[order].get()?;
        Some((&chunk.summary[place / 64], 1 << (place % 64)))
    }

    /// All summary words from the lowest, each with the number of its first frame.
    pub(super) fn summaries(&self) -> impl Iterator<Item = (usize, &AtomicU64)> {
        self.chunks.iter().map_while(OnceLock::get).enumerate().flat_map(|(order, chunk)| {
            let first = (1 << order) - 1;
            chunk.summary.iter().enumerate().map(move |(word, summary)| (first + 64 * word, summary))
        })
    }

    /// All frames from the lowest, with their numbers.
    pub(super) fn frames(&self) -> impl Iterator<Item = (usize, &Frame<R>)> {
        self.chunks.iter().map_while(OnceLock::get).flat_map(|chunk| chunk.frames.iter()).enumerate()
    }
}

impl<R: Resident> Drop for Directory<R> {
    fn drop(&mut self) {
        for (_, frame) in self.frames() {
            // SAFETY: `&mut self` proves that no operation is running; walks borrow the slab.
            unsafe { frame.uninstall().free() };
        }
    }
}
