//! A page that a shrink took out against a walk, on the real epochs: `crossbeam-epoch` has a build for
//! loom. Fails with the faults `page_freed_at_once` and `walk_without_guard`.
//!
//! ```text
//! RUSTFLAGS="--cfg pool_loom --cfg crossbeam_loom" \
//!     cargo test --release --manifest-path models/Cargo.toml --test epoch
//! ```
//!
//! A build of its own, and small: a pin of an epoch is many steps, so the other models have a stand-in
//! that frees nothing. Pages are not given back to the allocator here, so that what is read of one that
//! was freed is what its drop left there.
//!
//! What loom leaves out: its `SeqCst` is `AcqRel`, so `crossbeam-epoch`'s own argument, which rests on a
//! `SeqCst` fence, is not proven anew here. AddressSanitizer on `tests/stress.rs` covers the rest.

#![cfg(crossbeam_loom)]

#[path = "../../tests/loom/race.rs"]
mod race;

use race::Race;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use ws_manager_pool::slab::{Cursor, Fate, Key, Options, Resident, Slab, Vacated};

/// Large enough to be told from every other allocation.
const SIZE: usize = 40_000;

/// Keeps what is as large as a page of [`Tombs`].
struct Keeper;

#[global_allocator]
static KEEPER: Keeper = Keeper;

// SAFETY: the system's allocator, but that some memory is never given back.
unsafe impl GlobalAlloc for Keeper {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        if !(SIZE..3 * SIZE).contains(&layout.size()) {
            // SAFETY: as the caller says.
            unsafe { System.dealloc(place, layout) }
        }
    }
}

/// Slots that know that they were freed.
struct Tombs;

struct Glance {
    is_freed: AtomicBool,
    _room: [u8; SIZE / 2],
}

impl Default for Glance {
    fn default() -> Self {
        Self { is_freed: AtomicBool::new(false), _room: [0; SIZE / 2] }
    }
}

static FREED: AtomicUsize = AtomicUsize::new(0);

impl Drop for Glance {
    fn drop(&mut self) {
        self.is_freed.store(true, Ordering::Relaxed);
        FREED.fetch_add(1, Ordering::Relaxed);
    }
}

impl Resident for Tombs {
    type Glance = Glance;
    type Shared = ();
    type Owned = ();
    type Residue = ();

    fn clean(&self, _: Vacated<'_, Self>) -> (Fate, ()) {
        (Fate::Free, ())
    }

    fn freed(&self, (): ()) {}
}

struct World {
    slab: Slab<Tombs>,
    key: Key,
    freed_before: usize,
    /// A place in the model at which the other role may go on.
    step: loom::sync::atomic::AtomicUsize,
}

/// One page, one of its slots live.
fn world() -> World {
    let slab = Slab::new(Tombs, Options::with_capacity(2));
    let starting = slab.start().expect("there is room");
    let key = starting.publish().key();
    World { slab, key, freed_before: FREED.load(Ordering::Relaxed), step: Default::default() }
}

/// Takes the page out, and helps the epochs on until it can be freed.
fn shrink(world: &World) {
    drop(world.slab.close(world.key).expect("nobody else closes"));
    assert_eq!(world.slab.shrink(0), 2);
    collect(world);
}

fn collect(world: &World) {
    (0..2).for_each(|_| assert_eq!(world.slab.shrink(0), 0));
}

#[test]
fn a_page_outlives_the_walks_that_read_it() {
    Race {
        name: "shrink, walk on real epochs",
        world,
        roles: [shrink, |world| {
            world.slab.walk(
                &mut Cursor::default(),
                2,
                |glance| {
                    world.step.load(loom::sync::atomic::Ordering::Relaxed);
                    assert!(!glance.is_freed.load(Ordering::Relaxed), "freed under a walk");
                },
                |key, _, ()| assert_eq!(key, world.key),
            );
        }],
        afterwards: |world| {
            collect(world);
            assert_eq!(
                FREED.load(Ordering::Relaxed) - world.freed_before,
                2,
                "nothing holds the page any more"
            );
        },
        bounds: &[Some(1)],
        floor: 1_000,
    }
    .run();
}
