//! A stale key against the slot's next occupant. Fails with the faults `pin_ignores_generation` and
//! `same_generation`.

use crate::probe::{Probe, grown, open};
use crate::race::Race;
use ws_manager_pool::slab::{Key, Slab};

struct World {
    slab: Slab<Probe>,
    old: Key,
}

fn world() -> World {
    let slab = grown(1);
    let old = slab.claim().expect("there is room");
    open(&slab, old, 1);
    World { slab, old }
}

/// Ends the old life and begins the next.
fn turn_over(world: &World) {
    drop(world.slab.close(world.old));
    if let Ok(next) = world.slab.claim() {
        assert_eq!(next.index(), world.old.index());
        assert_ne!(next, world.old);
        open(&world.slab, next, 2);
    }
}

#[test]
fn a_stale_pin_never_reads_the_next_occupant() {
    Race {
        name: "turn over, pin",
        world,
        roles: [turn_over, |world| {
            if let Ok(seen) = world.slab.pin(world.old, |_, shared| *shared) {
                assert_eq!(seen, 1);
            }
        }],
        afterwards: |world| assert!(world.slab.pin(world.old, |_, _| ()).is_err()),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 19,
    }
    .run();
}

#[test]
fn a_stale_close_never_ends_the_next_life() {
    Race {
        name: "turn over, late close",
        world,
        roles: [turn_over, |world| drop(world.slab.close(world.old))],
        afterwards: |world| {
            let live = world.slab.census().live;
            assert_eq!(live, world.slab.occupied());
            assert!(world.slab.close(world.old).is_err());
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 40,
    }
    .run();
}

#[test]
fn a_stale_owner_never_reaches_the_next_occupants_part() {
    Race {
        name: "turn over, late reservation",
        world: || {
            let slab = grown(1);
            let old = slab.claim().expect("there is room");
            World { slab, old }
        },
        roles: [
            |world| {
                drop(world.slab.abort(world.old));
                if let Ok(next) = world.slab.claim() {
                    open(&world.slab, next, 2);
                }
            },
            |world| {
                if let Ok(mut starting) = world.slab.begin(world.old) {
                    starting.value(|_, shared, _| assert_eq!(*shared, 0));
                    starting.publish();
                }
            },
        ],
        afterwards: |world| assert_eq!(world.slab.occupied(), 1),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 9,
    }
    .run();
}
