//! A walk against a slot that changes hands: what the walk reports was read in that life and state.
//! Fails with the faults `clean_without_fence`, `begin_without_fence` and `start_without_fence`.

use crate::probe::{Probe, grown, open, publish};
use crate::race::Race;
use loom::sync::atomic::Ordering;
use ws_manager_pool::slab::{Cursor, Key, Slab, State};

struct World {
    slab: Slab<Probe>,
    old: Key,
}

fn walk(world: &World) {
    let mut sightings = 0;
    let is_more = world.slab.walk(
        &mut Cursor::default(),
        1,
        |glance| glance.occupant.load(Ordering::Relaxed),
        |key, state, occupant| {
            sightings += 1;
            let expected = match state {
                State::Live if key == world.old => &[1][..],
                State::Live => &[2],
                State::Reserved => &[0],
                State::Closing if key == world.old => &[1, 0], // being cleaned
                _ => return,
            };
            assert!(expected.contains(&occupant), "the glance is of the life and state that were reported");
        },
    );
    assert!(!is_more && sightings <= 1);
}

#[test]
fn a_walk_reports_only_what_it_read_in_one_life() {
    Race {
        name: "turn over, walk",
        world: || {
            let slab = grown(1);
            let old = slab.claim().expect("there is room");
            open(&slab, old, 1);
            World { slab, old }
        },
        roles: [
            |world| {
                drop(world.slab.close(world.old).expect("nobody else closes"));
                open(&world.slab, world.slab.claim().expect("it is free"), 2);
            },
            walk,
        ],
        afterwards: |_| (),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 43,
    }
    .run();
}

/// As above, with the new life begun in one step.
#[test]
fn a_walk_reports_only_what_it_read_in_one_life_that_was_started_at_once() {
    Race {
        name: "turn over at once, walk",
        world: || {
            let slab = grown(1);
            let old = slab.claim().expect("there is room");
            open(&slab, old, 1);
            World { slab, old }
        },
        roles: [
            |world| {
                drop(world.slab.close(world.old).expect("nobody else closes"));
                publish(world.slab.start().expect("it is free"), 2);
            },
            walk,
        ],
        afterwards: |_| (),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 30,
    }
    .run();
}
