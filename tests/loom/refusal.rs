//! Refusals against releases: nobody is refused while a slot is free. Fails with the faults
//! `ended_before_free` and `summary_bit_lost`.
//!
//! `refuse_after_one_scan` fails in `shrink.rs`. That a slot slips past a scan by a release and a claim
//! cannot happen here: without magazines every claim takes the lowest free slot. A test in
//! `tests/slab.rs` shows that.

use crate::probe::{Probe, grown, slab};
use crate::race::Race;
use loom::sync::atomic::{AtomicBool, Ordering};
use ws_manager_pool::slab::{Key, Slab};

struct World {
    slab: Slab<Probe>,
    taken: [Key; 2],
    released: AtomicBool,
}

/// `capacity` slots, of which two are taken.
fn world(slab: Slab<Probe>) -> World {
    let claim = || slab.claim().expect("there is room");
    let taken = [claim(), claim()];
    World { slab, taken, released: AtomicBool::new(false) }
}

fn release(world: &World, which: usize) {
    drop(world.slab.abort(world.taken[which]).expect("it is reserved"));
}

#[test]
fn what_was_released_can_be_claimed() {
    Race {
        name: "release, token, claim",
        world: || world(grown(2)),
        roles: [
            |world| {
                release(world, 1);
                world.released.store(true, Ordering::Release);
            },
            |world| {
                let was_released = world.released.load(Ordering::Acquire);
                assert!(world.slab.claim().is_ok() || !was_released);
            },
        ],
        afterwards: |_| (),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 19,
    }
    .run();
}

#[test]
fn what_is_counted_as_free_can_be_claimed() {
    Race {
        name: "release, count, claim",
        world: || world(grown(2)),
        roles: [
            |world| release(world, 1),
            |world| {
                let is_room = world.slab.occupied() < world.slab.capacity();
                assert!(world.slab.claim().is_ok() || !is_room);
            },
        ],
        afterwards: |_| (),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 16,
    }
    .run();
}

/// One releases both slots and claims one again; whoever else claims after the first release has
/// returned is served.
#[test]
fn a_claim_is_served_while_slots_change_hands() {
    Race {
        name: "release and claim, claim",
        world: || world(grown(2)),
        roles: [
            |world| {
                release(world, 0);
                release(world, 1);
                world.released.store(true, Ordering::Release);
                assert!(world.slab.claim().is_ok(), "at most one is taken");
            },
            |world| {
                let was_released = world.released.load(Ordering::Acquire);
                assert!(world.slab.claim().is_ok() || !was_released);
            },
        ],
        afterwards: |_| (),
        bounds: &[Some(1), Some(2)],
        floor: 150,
    }
    .run();
}

/// A hint that comes while another thread clears the summary is kept: the next claim uses the free
/// slot of the page in use and does not grow.
#[test]
fn a_free_slot_in_use_is_found_before_the_slab_grows() {
    Race {
        name: "hint, clear the summary",
        world: || {
            let world = world(slab(4));
            release(&world, 0);
            world
        },
        roles: [
            |world| release(world, 1),
            |world| {
                assert_eq!(world.slab.claim().expect("one is free").index(), 0);
            },
        ],
        afterwards: |world| assert_eq!(world.slab.claim().expect("one is free").index(), 1),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 8,
    }
    .run();
}
