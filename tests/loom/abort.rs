//! A reservation's deadline against its owner.

use crate::probe::{Probe, grown, is_whole};
use crate::race::Race;
use loom::sync::atomic::{AtomicUsize, Ordering};
use ws_manager_pool::slab::{Key, Slab};

struct World {
    slab: Slab<Probe>,
    key: Key,
    opened: AtomicUsize,
    aborted: AtomicUsize,
}

fn world() -> World {
    let slab = grown(1);
    let key = slab.claim().expect("there is room");
    World { slab, key, opened: AtomicUsize::new(0), aborted: AtomicUsize::new(0) }
}

fn begin(world: &World) {
    if let Ok(mut starting) = world.slab.begin(world.key) {
        starting.value(|_, shared, owned| {
            assert_eq!((*shared, *owned), (0, 0));
            (*shared, *owned) = (1, 1);
        });
        starting.publish();
        world.opened.fetch_add(1, Ordering::Relaxed);
    }
}

fn abort(world: &World) {
    if world.slab.abort(world.key).is_ok() {
        world.aborted.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_deadline_and_an_owner_exclude_each_other() {
    Race {
        name: "begin, abort",
        world,
        roles: [begin, abort],
        afterwards: |world| {
            let opened = world.opened.load(Ordering::Relaxed);
            assert_eq!(opened + world.aborted.load(Ordering::Relaxed), 1);
            assert_eq!(world.slab.occupied(), opened);
        },
        bounds: &[Some(1), Some(2), Some(3), None],
        floor: 7,
    }
    .run();
}

#[test]
fn one_of_two_deadlines_takes_the_slot_back() {
    Race {
        name: "abort, abort",
        world,
        roles: [abort, abort],
        afterwards: |world| {
            assert_eq!(world.aborted.load(Ordering::Relaxed), 1);
            assert!(is_whole(&world.slab));
        },
        bounds: &[Some(1), Some(2), Some(3), None],
        floor: 7,
    }
    .run();
}

/// A failed start gives the slot back under the same key, with what was written to it.
#[test]
fn a_failed_start_can_be_taken_back() {
    Race {
        name: "begin and give up, abort",
        world,
        roles: [
            |world| {
                if let Ok(mut starting) = world.slab.begin(world.key) {
                    starting.value(|_, shared, _| *shared = 1);
                }
            },
            abort,
        ],
        afterwards: |world| {
            if world.aborted.load(Ordering::Relaxed) == 0 {
                drop(world.slab.abort(world.key).expect("it is reserved again"));
            }
            assert!(is_whole(&world.slab));
        },
        bounds: &[Some(1), Some(2), Some(3), None],
        floor: 7,
    }
    .run();
}
