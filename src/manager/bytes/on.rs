//! Buffers of a few sizes, on shelves without a lock.
//!
//! Each stripe of threads has its shelves, and looks at those of the others before it allocates: what one
//! thread leases and another gives back is found again. In front of the shelves each thread has two
//! buffers of [`SCRATCH`] bytes to itself, one to read into and one to write from: what is ordinary needs no
//! other.
//!
//! What is leased is paid for from a striped budget, so the limit is exact and no line is shared. What lies
//! on a shelf is bounded by its room, and [`ByteBuffers::trim`] takes half of what nobody needed of late.
//!
//! **A buffer is not wiped.** It may hold what another connection has read: whoever leases one shows
//! nothing of it but what he wrote himself.
//!
//! The queues on the shelves are `crossbeam`'s, so what is safe about handing a buffer from thread to
//! thread is that library's. Under `pool_loom` they are the same: a model sees each of their operations as
//! one step.

use super::InboundFigures;
use crate::manager::ByteBudget;
use crate::slab::thread_number;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

const KIB: usize = 1024;

/// A larger one is made to measure and not kept.
const SIZES: [usize; 6] = [KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB];

/// Bytes of a read from a socket. The size of one of the shelves.
const SCRATCH: usize = 16 * KIB;

const STRIPES: usize = if cfg!(pool_loom) { 1 } else { 16 };

/// Bytes of each size that a shelf keeps at most, but one buffer in any case.
const MOST_BYTES: usize = 512 * KIB;

/// A pool's buffers for what comes in.
pub(crate) struct ByteBuffers {
    limit: usize,
    budget: ByteBudget,
    stripes: Box<[CachePadded<[Shelf; SIZES.len()]>]>,
    exhausted: AtomicU64,
    /// The limit was used up, and is not far from it since. A hint, so Relaxed; written seldom.
    is_short: AtomicBool,
}

impl ByteBuffers {
    /// `limit` is of the bytes that are leased at a time.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            budget: ByteBudget::new(limit),
            stripes: std::iter::repeat_with(CachePadded::default).take(STRIPES).collect(),
            exhausted: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
        }
    }

    /// A buffer of at least so many bytes, with whatever is in it. `None`: the limit is used up.
    ///
    /// Lock-free while the thread's stripe has credit, else it may block briefly; allocates where none is
    /// at hand.
    pub(crate) fn lease(&self, at_least: usize) -> Option<Leased> {
        let class = SIZES.iter().position(|&size| size >= at_least);
        let bytes = class.map_or(at_least, |class| SIZES[class]);
        if !self.pay(bytes) {
            return None;
        }
        let ready = class.and_then(|class| take_own(bytes).or_else(|| self.find(class)));
        Some(Leased(ready.unwrap_or_else(|| new_buffer(bytes))))
    }

    /// The thread's own buffer, for the length of one poll. Not counted, so never refused.
    #[cfg(feature = "engine")]
    pub(crate) fn lease_scratch(&self) -> Scratch {
        Scratch(take_own(SCRATCH).unwrap_or_else(|| new_buffer(SCRATCH)))
    }

    /// Counts a scratch whose bytes have to stay for longer than a poll.
    ///
    /// # Errors
    ///
    /// The scratch, if the limit is used up.
    #[cfg(feature = "engine")]
    pub(crate) fn keep(&self, mut scratch: Scratch) -> Result<Leased, Scratch> {
        if self.pay(SCRATCH) { Ok(Leased(std::mem::take(&mut scratch.0))) } else { Err(scratch) }
    }

    /// Takes a buffer back, on any thread. Lock-free as [`ByteBuffers::lease`].
    pub(crate) fn give(&self, Leased(buffer): Leased) {
        let bytes = buffer.len();
        if fault!("credit_before_buffer") || fault!("buffer_given_back_twice") {
            self.budget.give(thread_number(), bytes);
            let _model_can_go_on_elsewhere = self.is_short();
        }
        if let Some(buffer) = put_own(buffer)
            && let Some(class) = SIZES.iter().position(|&size| size == bytes)
        {
            self.stripe(thread_number())[class].put(buffer);
        }
        // After the shelf: whoever gets the credit finds the buffer.
        if !fault!("credit_before_buffer") {
            self.budget.give(thread_number(), bytes);
        }
        if self.is_short() && self.budget.taken() <= self.limit / 8 * 7 {
            self.is_short.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the limit was used up of late: who can, leaves in the kernel what comes in.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    /// The same for somebody who would lease otherwise: that is a refusal, too.
    #[cfg(feature = "engine")]
    pub(crate) fn refuses(&self) -> bool {
        let refuses = self.is_short();
        if refuses {
            self.exhausted.fetch_add(1, Ordering::Relaxed);
        }
        refuses
    }

    /// Gives back memory that nobody needed since the last call: half of it, so that a peak that comes
    /// again finds some. Roughly, if others lease meanwhile.
    pub(crate) fn trim(&self) {
        self.stripes.iter().flat_map(|stripe| stripe.iter()).for_each(Shelf::trim);
    }

    /// Approximate while others lease and give. May block briefly.
    pub(crate) fn figures(&self) -> InboundFigures {
        let of_stripe = |shelves: &[Shelf; SIZES.len()]| -> usize {
            shelves.iter().zip(SIZES).map(|(shelf, size)| shelf.len() * size).sum()
        };
        InboundFigures {
            leased_bytes: self.budget.taken(),
            spare_bytes: self.stripes.iter().map(|stripe| of_stripe(stripe)).sum(),
            limit: self.limit,
            // Relaxed: a count.
            exhausted: self.exhausted.load(Ordering::Relaxed),
        }
    }

    fn pay(&self, bytes: usize) -> bool {
        let is_paid = self.budget.try_take(thread_number(), bytes);
        if !is_paid {
            self.exhausted.fetch_add(1, Ordering::Relaxed);
            self.is_short.store(true, Ordering::Relaxed);
        }
        is_paid
    }

    /// One that lies ready: on this thread's shelf, or on the next ones.
    fn find(&self, class: usize) -> Option<Box<[u8]>> {
        let first = thread_number();
        (0..STRIPES).find_map(|offset| self.stripe(first.wrapping_add(offset))[class].take())
    }

    fn stripe(&self, stripe: usize) -> &[Shelf; SIZES.len()] {
        &self.stripes[stripe % STRIPES]
    }
}

impl fmt::Debug for ByteBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ByteBuffers").field(&self.figures()).finish()
    }
}

/// A buffer that counts against the limit until it is given back. One that is dropped instead stays
/// counted: its owner gives it back in `Drop`.
#[must_use = "it counts against the limit until it is given back"]
pub(crate) struct Leased(Box<[u8]>);

impl Deref for Leased {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Leased {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Says nothing of what is in it.
impl fmt::Debug for Leased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leased").field("len", &self.len()).finish()
    }
}

/// The buffer of this thread, which goes back to whichever thread drops it. Not to be held across polls:
/// what has to stay goes into a [`Leased`].
#[cfg(feature = "engine")]
pub(crate) struct Scratch(Box<[u8]>);

#[cfg(feature = "engine")]
impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(feature = "engine")]
impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(feature = "engine")]
impl Drop for Scratch {
    fn drop(&mut self) {
        drop(put_own(std::mem::take(&mut self.0)));
    }
}

#[cfg(feature = "engine")]
impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("len", &self.len()).finish()
    }
}

/// Buffers of one size, and one stripe. The queue is made when something is first put there.
#[derive(Default)]
struct Shelf {
    spare: OnceLock<Box<ArrayQueue<Box<[u8]>>>>,
    /// The fewest that lay here since the last trim: nobody needed these. A hint, so Relaxed.
    unused: AtomicUsize,
}

impl Shelf {
    fn take(&self) -> Option<Box<[u8]>> {
        let spare = self.spare.get()?;
        let taken = spare.pop();
        let left = spare.len();
        // Most of the time there have been fewer: no write.
        if left < self.unused.load(Ordering::Relaxed) {
            self.unused.store(left, Ordering::Relaxed);
        }
        taken
    }

    fn put(&self, buffer: Box<[u8]>) {
        let room = (MOST_BYTES / buffer.len()).max(1);
        // Full: the buffer goes to the allocator.
        drop(self.spare.get_or_init(|| Box::new(ArrayQueue::new(room))).push(buffer));
    }

    fn trim(&self) {
        let Some(spare) = self.spare.get() else { return };
        for _ in 0..self.unused.load(Ordering::Relaxed).div_ceil(2) {
            drop(spare.pop());
        }
        self.unused.store(spare.len(), Ordering::Relaxed);
    }

    fn len(&self) -> usize {
        self.spare.get().map_or(0, |spare| spare.len())
    }
}

thread_local! {
    /// For all pools: a thread reads from one socket at a time, and may have something to write to it.
    static OWN: [Cell<Option<Box<[u8]>>>; 2] = const { [const { Cell::new(None) }; 2] };
}

fn take_own(bytes: usize) -> Option<Box<[u8]>> {
    if bytes != SCRATCH {
        return None;
    }
    // A thread that is being torn down has none.
    OWN.try_with(|own| own.iter().find_map(Cell::take)).ok().flatten()
}

/// The buffer again, if it has another size or the thread has enough.
fn put_own(buffer: Box<[u8]>) -> Option<Box<[u8]>> {
    if buffer.len() != SCRATCH {
        return Some(buffer);
    }
    let mut buffer = Some(buffer);
    let _torn_down = OWN.try_with(|own| {
        for place in own {
            let present = place.take();
            place.set(if present.is_some() { present } else { buffer.take() });
        }
    });
    buffer
}

fn new_buffer(bytes: usize) -> Box<[u8]> {
    vec![0; bytes].into_boxed_slice()
}

#[cfg(all(test, pool_loom, not(pool_shuttle)))]
mod models;
#[cfg(all(test, feature = "engine", not(pool_loom)))]
mod tests;
