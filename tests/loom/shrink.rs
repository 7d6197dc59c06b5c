//! A shrink, and the growth after it, against claims, pins and walks. Fails with the fault
//! `shrink_without_claim` (a claimed slot loses its page), `shrink_unseen` and
//! `take_out_without_release` (a claimant that looked for pages to grow before the shrink is refused,
//! although every slot is free), and `regrown_starts_over` (a stale key is good again).

use crate::probe::{Probe, grown, is_whole, open, slab};
use crate::race::Race;
use loom::sync::atomic::Ordering;
use ws_manager_pool::slab::{Cursor, Key, Slab, State};

/// A slab whose slot 0 is in its first life, so that a generation that starts over is this one.
struct World {
    slab: Slab<Probe>,
    old: Key,
}

fn world() -> World {
    let slab = slab(2);
    let old = slab.claim().expect("there is room");
    open(&slab, old, 1);
    World { slab, old }
}

/// The page goes, unless somebody is in it, and the next life is in one that came back.
fn shrink_and_regrow(world: &World) {
    drop(world.slab.close(world.old).expect("nobody else closes"));
    world.slab.shrink(0);
    let key = world.slab.claim().expect("a slot is free, or its page can come back");
    open(&world.slab, key, 2);
}

fn claim(slab: &Slab<Probe>) {
    let key = slab.claim().expect("a slot is free, or its page can come back");
    open(slab, key, 1);
    assert_eq!(slab.pin(key, |_, shared| *shared), Ok(1));
    drop(slab.close(key).expect("nobody else closes"));
}

fn claim_and_keep(slab: &Slab<Probe>) {
    assert!(slab.claim().is_ok(), "two slots, two claims");
}

fn shrink(slab: &Slab<Probe>) {
    slab.shrink(0);
}

#[test]
fn a_claimed_slot_keeps_its_page() {
    Race {
        name: "shrink, claim",
        world: || grown(2),
        roles: [shrink, claim],
        afterwards: |slab| assert!(is_whole(slab)),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 84,
    }
    .run();
}

#[test]
fn nobody_is_refused_while_a_page_is_out() {
    Race {
        name: "shrink, two claims",
        world: || grown(2),
        roles: [shrink, claim_and_keep, claim_and_keep],
        afterwards: |slab| assert_eq!(slab.occupied(), 2),
        bounds: &[Some(1), Some(2)],
        floor: 2700,
    }
    .run();
}

#[test]
fn a_stale_key_stays_stale_while_its_page_goes_and_comes_back() {
    Race {
        name: "shrink and regrow, late pin",
        world,
        roles: [shrink_and_regrow, |world| {
            if let Ok(seen) = world.slab.pin(world.old, |_, shared| *shared) {
                assert_eq!(seen, 1);
            }
        }],
        afterwards: |world| {
            assert!(world.slab.pin(world.old, |_, _| ()).is_err());
            assert_eq!(world.slab.occupied(), 1);
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 60,
    }
    .run();
}

#[test]
fn a_pinned_slot_keeps_its_page() {
    Race {
        name: "shrink, pin, close",
        world,
        roles: [
            |world| {
                drop(world.slab.close(world.old).expect("nobody else closes"));
                world.slab.shrink(0);
            },
            |world| {
                if let Ok(seen) = world.slab.pin(world.old, |_, shared| *shared) {
                    assert_eq!(seen, 1);
                }
            },
        ],
        afterwards: |world| assert!(is_whole(&world.slab)),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 35,
    }
    .run();
}

#[test]
fn a_walk_reports_only_lives_while_a_page_goes_and_comes_back() {
    Race {
        name: "shrink and regrow, walk",
        world,
        roles: [shrink_and_regrow, |world| {
            world.slab.walk(
                &mut Cursor::default(),
                2,
                |glance| glance.occupant.load(Ordering::Relaxed),
                |key, state, occupant| {
                    let expected = if key == world.old { 1 } else { 2 };
                    assert!(state != State::Live || occupant == expected, "the glance is of that life");
                },
            );
        }],
        afterwards: |world| assert_eq!(world.slab.occupied(), 1),
        bounds: &[Some(1), Some(2)],
        floor: 100,
    }
    .run();
}
