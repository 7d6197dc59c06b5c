//! A generational, lock-free slab. It knows nothing of WebSockets: it keeps values of a
//! [`Resident`] kind in reusable slots and says who may touch which value when.
//!
//! *Generations guard identity, pins guard reuse, epochs guard walks. The header is the only truth;
//! everything else is a hint.* All unsafe code of the crate is in this folder.
//!
//! # Access protocol
//!
//! Each slot has a **header** (generation · state · pins in one word, see `header.rs`) that stays
//! where it is for the slab's whole life, and a **value** in a page that comes and goes. The value
//! has three parts:
//!
//! | part | who may touch it | when |
//! | --- | --- | --- |
//! | `Glance` | anyone, shared | while a pin or an epoch guard is held; it is made of atomics |
//! | `Shared` | anyone with the key, shared | `Live`, pinned; the winner also in `Closing` |
//! | | one thread, `&mut` | `Starting` (the claimant), `Closing` without pins (the finaliser) |
//! | `Owned` | the one [`Owner`], `&mut` | `Live`, pinned |
//! | | one thread, `&mut` | `Starting`, `Closing` without pins |
//!
//! ```text
//!                           ┌────────────── start ───────────────┐
//!             grow          │     claim               begin      ▼      publish
//!      Void ────────► Free ─┴──────────────► Reserved ────────► Starting ────────► Live ⟲ pin, unpin
//!        ▲              │ ▲                     │  ▲              │  │               │
//!        └── shrink ────┘ │                     │  └── reserve ───┘  │ give up        │ close
//!                         │              abort  ▼                    ▼               ▼
//!                         └──── vacate ────── Closing ◄──────────────┴───────────────┘
//!                 generation + 1  │  └─ vacate to an heir: Reserved, generation + 1
//!                                 ▼
//!                               Dead     (generations used up, or the clean-up panicked)
//! ```
//!
//! - **claim** is one CAS from an exactly expected header. **begin** is a CAS too, so that a
//!   reservation's deadline ([`Slab::abort`]) and its owner exclude each other.
//! - **start** is both in one CAS, for those who need no reservation, or write into the slot before they
//!   leave it reserved. A slot in `Starting` has one holder, whom nobody can take it from; so the ways on
//!   from there are plain stores.
//! - **pin** is a CAS that adds a pin if generation and state match. A pin is held during a
//!   synchronous closure only; no guard is handed out, because a guard can be forgotten.
//! - **close** has exactly one *winner* for each life. With pins running its CAS adds a pin of the
//!   winner's own. Whoever brings a closing header to zero pins is the *finaliser*: it cleans the
//!   value, and vacates the slot under the next generation. The winner's own pin means that a slot
//!   is never reused before its winner has unlinked it from the tables of the layer above.
//! - A **generation** never comes round: a slot whose next generation would be its first is `Dead`,
//!   and an index that was never used takes its place, so capacity does not fall.
//!
//! Beside its header each slot has an **alarm**, the moment at which somebody has to look at it: see `alarm.rs`.
//!
//! # Free slots
//!
//! A claim looks into the thread's magazine, then the bitmap (`hints.rs`), then grows, then scans all
//! headers. It **refuses** only if one of two things is shown:
//!
//! - *begun − ended ≥ capacity*, where `begun` is counted after a claim and `ended` after a slot was
//!   vacated. The sum of `begun` is read first: a claim that is in the sum happened after the
//!   releases it needed, or those are still running, so at the moment between the two sums the
//!   difference was at least the capacity. A slot whose release has not returned counts as taken.
//! - a whole scan found nothing while `ended` did not change and no shrink ran.
//!
//! # Invariants that the unsafe code rests on
//!
//! 1. A frame, once reached, is neither moved nor freed before the slab is dropped.
//! 2. A header is in `Reserved`, `Starting`, `Live` or `Closing` only while its frame has a page:
//!    `claim` starts from `Free`, and a page is taken out only when none of its headers is `Free`
//!    (`growth.rs` makes them `Void` by the same CAS) or occupied.
//! 3. In `Starting` only the thread that won `begin` or `start` touches the value; `pin` refuses.
//! 4. In `Live`, `Shared` is only ever shared and `Owned` is reached only through the [`Owner`] that
//!    `publish` made, which cannot be copied and knows its slab.
//! 5. In `Closing` the pins only fall. The thread that sees them at zero is alone with the value
//!    until it vacates the slot.

mod alarm;
mod cells;
mod claims;
mod frame;
mod growth;
mod header;
mod hints;
mod resident;
mod rights;
mod walk;

pub use alarm::Alarm;
pub(crate) use cells::{Cells, thread_number};
pub use claims::Full;
pub(crate) use claims::Shortage;
pub use header::{Key, State};
pub use resident::{Fate, Resident, Vacated};
pub use rights::{Closing, Owner, Starting};
pub use walk::{Census, Cursor};

use crate::sync::{AtomicUsize, Mutex, Ordering, StaticAtomicU32, fence};
use frame::{Directory, Frame, PAGE};
use growth::Growth;
use header::{Claim, Header, HeaderCell, Won};
use hints::magazine;
use rights::Pinned;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The most slots that a slab can have: an index is 32 bits, and half of them are kept for
/// replacing slots that ran out of generations.
pub const MAX_SLOTS: usize = 1 << 31;

const BEGUN: usize = 0;
const ENDED: usize = 1;

/// The key's life is over, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key is stale: its slot was closed, or given to another occupant")
    }
}

impl std::error::Error for Stale {}

/// How a slab is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    capacity: usize,
    generation_bits: u32,
}

impl Options {
    /// For `capacity` slots, at least 1 and at most [`MAX_SLOTS`]; other values are brought into
    /// that range.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { capacity: capacity.clamp(1, MAX_SLOTS), generation_bits: 32 }
    }

    /// How many bits a generation uses, 1 to 32 (default 32). Fewer make slots retire sooner, which
    /// is what a test of retirement wants.
    #[must_use]
    pub fn generation_bits(mut self, bits: u32) -> Self {
        self.generation_bits = bits.clamp(1, 32);
        self
    }
}

/// The slab. See the [module's documentation](self) for the protocol.
///
/// ```
/// use ws_manager_pool::slab::{Fate, Options, Resident, Slab, Vacated};
///
/// struct Names;
///
/// impl Resident for Names {
///     type Glance = ();
///     type Shared = String;
///     type Owned = ();
///     type Residue = ();
///
///     fn clean(&self, vacated: Vacated<'_, Self>) -> (Fate, ()) {
///         vacated.shared.clear(); // keeps the buffer for the next name
///         (Fate::Free, ())
///     }
///
///     fn freed(&self, (): ()) {}
/// }
///
/// let slab = Slab::new(Names, Options::with_capacity(100));
/// let key = slab.claim()?;
/// let mut starting = slab.begin(key)?;
/// starting.value(|_, name, _| name.push_str("ada"));
/// let _owner = starting.publish();
///
/// assert_eq!(slab.pin(key, |_, name| name.len())?, 3);
/// drop(slab.close(key)?);
/// assert!(slab.pin(key, |_, name| name.len()).is_err(), "the key is stale");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Slab<R: Resident> {
    resident: R,
    directory: Directory<R>,
    growth: Mutex<Growth>,
    /// Frames that have been in use, from 0.
    frames_end: AtomicUsize,
    /// Slots retired for good.
    dead: AtomicUsize,
    /// Odd while a shrink runs.
    shrinks: AtomicUsize,
    /// Slots of this frame and those above it are not kept in magazines, so that the lowest free ones are
    /// taken and high pages empty. Set by a shrink. A hint about hints, so Relaxed.
    sparse_from: AtomicUsize,
    cells: Cells<2>,
    capacity: usize,
    generation_mask: u32,
    seed: u64,
    id: u32,
}

impl<R: Resident> Slab<R> {
    /// An empty slab. Pages are allocated as they are needed.
    ///
    /// # Panics
    ///
    /// At the process's slab number 4,294,967,295.
    pub fn new(resident: R, options: Options) -> Self {
        static IDS: StaticAtomicU32 = StaticAtomicU32::new(1);
        // Relaxed: only uniqueness counts. An owner is told by it whose it is, so it does not come round.
        let number = IDS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |number| number.checked_add(1));
        let number = number.expect("four billion slabs were made in this process");
        Self {
            resident,
            directory: Directory::new(),
            growth: Mutex::new(Growth::default()),
            frames_end: AtomicUsize::new(0),
            dead: AtomicUsize::new(0),
            shrinks: AtomicUsize::new(0),
            sparse_from: AtomicUsize::new(usize::MAX),
            cells: Cells::new(),
            capacity: options.capacity,
            generation_mask: u32::MAX >> (32 - options.generation_bits),
            seed: if cfg!(pool_loom) || fault!("same_first_generation") { 0 } else { rand::random() },
            id: number,
        }
    }

    /// What was given to [`Slab::new`].
    pub fn resident(&self) -> &R {
        &self.resident
    }

    /// How many slots can be occupied at once.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Slots that are occupied, as counted: those whose claim has returned and whose release has not.
    pub fn occupied(&self) -> usize {
        let begun = self.cells.sum(BEGUN);
        usize::try_from(begun.wrapping_sub(self.cells.sum(ENDED)) as i64).unwrap_or(0)
    }

    /// Slots that are out of use and could not be replaced, because every index has been used.
    pub fn quarantined(&self) -> usize {
        (self.capacity + self.dead.load(Ordering::Acquire)).saturating_sub(MAX_SLOTS)
    }

    /// Makes the claimant the only one who can take the slot further: `Reserved → Starting`.
    ///
    /// # Errors
    ///
    /// [`Stale`] if the reservation was given back, or taken back by [`Slab::abort`].
    pub fn begin(&self, key: Key) -> Result<Starting<'_, R>, Stale> {
        let (frame, offset) = self.directory.locate(key.index()).ok_or(Stale)?;
        if !frame.headers[offset].begin(key.generation()) {
            return Err(Stale);
        }
        Ok(Starting { slab: self, frame, offset, key, by: Claim::Reserve })
    }

    /// Takes a reservation back: `Reserved → Closing`. The caller is winner and finaliser.
    ///
    /// # Errors
    ///
    /// [`Stale`] if the slot was opened or is being opened, or another caller took it back.
    pub fn abort(&self, key: Key) -> Result<Closing<'_, R>, Stale> {
        let (frame, offset) = self.directory.locate(key.index()).ok_or(Stale)?;
        if !frame.headers[offset].abort(key.generation()) {
            return Err(Stale);
        }
        Ok(Closing { slab: self, frame, offset, key, won: Won::Alone })
    }

    /// Calls `f` with the value of a live slot. The slot can be closed meanwhile but is not cleaned
    /// or reused before `f` returns. Lock-free.
    ///
    /// # Errors
    ///
    /// [`Stale`] if this life is not, or no longer, open.
    #[inline]
    pub fn pin<T>(&self, key: Key, f: impl FnOnce(&R::Glance, &R::Shared) -> T) -> Result<T, Stale> {
        let pinned = self.pinned(key)?;
        let slot = pinned.frame.slot(pinned.offset);
        // SAFETY: a pinned header has a page (invariant 2), and while it is pinned nobody has the
        // shared part exclusively (invariants 3 and 5).
        Ok(unsafe { (*slot).shared.with(|shared| f(&(*slot).glance, &*shared)) })
    }

    /// As [`Slab::pin`], and with the owner's part too.
    ///
    /// # Errors
    ///
    /// [`Stale`] if the slot was closed: the owner has been revoked.
    ///
    /// # Panics
    ///
    /// If `owner` is of another slab.
    #[inline]
    pub fn pin_owned<T>(
        &self,
        owner: &mut Owner,
        f: impl FnOnce(&R::Glance, &R::Shared, &mut R::Owned) -> T,
    ) -> Result<T, Stale> {
        assert_eq!(owner.slab, self.id, "an owner was used with a slab that did not make it");
        let pinned = self.pinned(owner.key)?;
        let slot = pinned.frame.slot(pinned.offset);
        // SAFETY: as in `pin`; and `publish` made one owner for this life, it is of this slab, it is
        // borrowed exclusively, and the slot's exclusive phases are kept off by the pin.
        Ok(unsafe {
            (*slot)
                .shared
                .with(|shared| (*slot).owned.with_mut(|owned| f(&(*slot).glance, &*shared, &mut *owned)))
        })
    }

    /// Whether this life is open at the moment. One load.
    #[inline]
    pub fn is_live(&self, key: Key) -> bool {
        self.state(key) == Some(State::Live)
    }

    /// Ends a life: `Live → Closing`. Exactly one caller wins; the slot is cleaned and vacated when
    /// the winner drops what it got here, or when the last running pin leaves after that.
    ///
    /// # Errors
    ///
    /// [`Stale`] if the life is over already or another caller won it.
    pub fn close(&self, key: Key) -> Result<Closing<'_, R>, Stale> {
        let (frame, offset) = self.directory.locate(key.index()).ok_or(Stale)?;
        let won = frame.headers[offset].close(key.generation()).ok_or(Stale)?;
        Ok(Closing { slab: self, frame, offset, key, won })
    }

    /// The key of the slot's next life, should it be handed to an heir.
    pub(crate) fn next_life(&self, key: Key) -> Option<Key> {
        self.next_generation(key).map(|generation| Key::new(key.index(), generation))
    }

    /// What the slot is doing in this life; `None` if it is in another.
    pub(crate) fn state(&self, key: Key) -> Option<State> {
        let (frame, offset) = self.directory.locate(key.index())?;
        let header = frame.headers[offset].load();
        (header.generation() == key.generation()).then(|| header.state())
    }

    #[inline]
    fn pinned(&self, key: Key) -> Result<Pinned<'_, R>, Stale> {
        let (frame, offset) = self.directory.locate(key.index()).ok_or(Stale)?;
        if !frame.headers[offset].pin(key.generation()) {
            return Err(Stale);
        }
        Ok(Pinned { slab: self, frame, offset, key })
    }

    /// Cleans and vacates a closing slot without pins. The caller is the finaliser.
    #[inline(never)] // once, and not in each place where a pin may be the last
    fn finalise(&self, frame: &Frame<R>, offset: usize, key: Key, is_winner: bool) {
        let slot = frame.slot(offset);
        let next = self.next_generation(key);
        let has_next_life = next.is_some();
        if !fault!("clean_without_fence") {
            // Release: pairs with the acquire fence in `load_again`. A walk that saw a write of the
            // clean-up sees also that the slot is closing.
            fence(Ordering::Release);
        }
        let clean = AssertUnwindSafe(|| {
            // SAFETY: an occupied slot has a page (invariant 2); the state is `Closing`, the pins are
            // zero, and only the finaliser goes on from there (invariant 5).
            unsafe {
                (*slot).shared.with_mut(|shared| {
                    (*slot).owned.with_mut(|owned| {
                        let (shared, owned) = (&mut *shared, &mut *owned);
                        let glance = &(*slot).glance;
                        self.resident.clean(Vacated { glance, shared, owned, is_winner, has_next_life })
                    })
                })
            }
        });
        let (fate, residue) = match catch_unwind(clean) {
            Ok((fate, residue)) => (fate, Some(residue)),
            // In a model it is loom's alarm.
            Err(panic) if cfg!(pool_loom) => resume_unwind(panic),
            Err(_panic) => (Fate::Retire, None),
        };
        let header = &frame.headers[offset];
        match (fate, next) {
            (Fate::Retire, _) | (_, None) => self.retire(header, key),
            (Fate::Heir, Some(next)) => header.vacate(Header::new(next, State::Reserved)),
            (Fate::Free, Some(next)) => {
                if fault!("ended_before_free") {
                    self.cells.add(ENDED, 1);
                }
                header.vacate(Header::new(next, State::Free));
                if !fault!("ended_before_free") {
                    self.cells.add(ENDED, 1);
                }
                self.hint(Key::new(key.index(), next));
            }
        }
        if let Some(residue) = residue {
            self.resident.freed(residue);
        }
    }

    /// `Starting` or `Closing` `→ Dead`, by the one thread that is alone with the slot.
    fn retire(&self, header: &HeaderCell, key: Key) {
        header.vacate(Header::new(key.generation(), State::Dead));
        // Release: pairs with the Acquire in `index_limit`. Before `ended`, so that whoever sees the
        // place free sees also that another index may take it.
        self.dead.fetch_add(1, Ordering::Release);
        self.cells.add(ENDED, 1);
    }

    #[inline]
    fn hint(&self, free: Key) {
        if self.is_sparse(free) || !magazine::keep(self.id, free) {
            self.directory.leave(free.index() as usize / PAGE, 1 << (free.index() as usize % PAGE));
        }
    }

    /// Does the slot lie in a page that should empty?
    #[inline]
    fn is_sparse(&self, key: Key) -> bool {
        // In a model there are no magazines.
        !(cfg!(pool_loom) || fault!("sparse_pages_fill_again"))
            && key.index() as usize / PAGE >= self.sparse_from.load(Ordering::Relaxed)
    }

    fn next_generation(&self, key: Key) -> Option<u32> {
        if fault!("same_generation") {
            return Some(key.generation());
        }
        let next = match key.generation().wrapping_add(1) & self.generation_mask {
            0 => 1,
            next => next,
        };
        (next != self.first_generation(key.index())).then_some(next)
    }

    /// Differs from slab to slab, so that a key of one is stale in another.
    fn first_generation(&self, index: u32) -> u32 {
        // The finaliser of splitmix64 spreads seed and index over all bits.
        let mut mixed = self.seed.wrapping_add(u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) as u32 & self.generation_mask).max(1)
    }

    fn frames_in_use(&self) -> impl Iterator<Item = (usize, &Frame<R>)> {
        self.frames_from(0)
    }

    fn frames_from(&self, first: usize) -> impl Iterator<Item = (usize, &Frame<R>)> {
        // Acquire: pairs with the Release in `grow`, so the frames are there.
        let end = self.frames_end.load(Ordering::Acquire);
        (first..end).filter_map(|number| Some((number, self.directory.frame(number)?)))
    }
}

impl<R: Resident> fmt::Debug for Slab<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab")
            .field("capacity", &self.capacity)
            .field("occupied", &self.occupied())
            .finish_non_exhaustive()
    }
}
