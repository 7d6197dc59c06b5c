//! Two claims at once.

use crate::probe::{Probe, grown, open, publish, slab};
use crate::race::Race;
use loom::sync::atomic::{AtomicU64, Ordering};
use ws_manager_pool::slab::{Key, Slab};

struct World {
    slab: Slab<Probe>,
    /// What each role got, 0 for a refusal.
    got: [AtomicU64; 2],
}

fn world(slab: Slab<Probe>) -> World {
    World { slab, got: [AtomicU64::new(0), AtomicU64::new(0)] }
}

fn claim(world: &World, role: usize) {
    if let Ok(key) = world.slab.claim() {
        // A second claimant of the same slot would fail here, or race with us for the value.
        open(&world.slab, key, 1 + role as u64);
        world.got[role].store(key.to_bits(), Ordering::Relaxed);
    }
}

/// The same in one step.
fn start(world: &World, role: usize) {
    if let Ok(starting) = world.slab.start() {
        world.got[role].store(starting.key().to_bits(), Ordering::Relaxed);
        publish(starting, 1 + role as u64);
    }
}

fn got(world: &World) -> [Option<Key>; 2] {
    let key = |bits: &AtomicU64| Some(bits.load(Ordering::Relaxed)).filter(|&bits| bits != 0);
    [key(&world.got[0]).map(Key::from_bits), key(&world.got[1]).map(Key::from_bits)]
}

#[test]
fn one_free_slot_has_one_claimant() {
    Race {
        name: "one free slot, two claims",
        world: || world(grown(1)),
        roles: [|world| claim(world, 0), |world| claim(world, 1)],
        afterwards: |world| {
            assert_eq!(got(world).iter().flatten().count(), 1, "one is served, the other refused");
            assert_eq!(world.slab.occupied(), 1);
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 250,
    }
    .run();
}

#[test]
fn one_free_slot_has_one_claimant_who_may_start_at_once() {
    Race {
        name: "one free slot, a start and a claim",
        world: || world(grown(1)),
        roles: [|world| start(world, 0), |world| claim(world, 1)],
        afterwards: |world| {
            assert_eq!(got(world).iter().flatten().count(), 1, "one is served, the other refused");
            assert_eq!(world.slab.occupied(), 1);
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 200,
    }
    .run();
}

/// What is given up is cleaned, and free for whoever comes after that.
#[test]
fn a_start_that_is_given_up_frees_its_slot() {
    Race {
        name: "a start that is given up, a claim",
        world: || world(grown(1)),
        roles: [
            |world| {
                if let Ok(mut starting) = world.slab.start() {
                    starting.value(|_, shared, _| *shared = 7);
                }
            },
            |world| claim(world, 1),
        ],
        afterwards: |world| {
            let taken = got(world).iter().flatten().count();
            assert_eq!(world.slab.occupied(), taken);
            assert_eq!(world.slab.claim().is_ok(), taken == 0);
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 100,
    }
    .run();
}

#[test]
fn two_free_slots_serve_two_claims() {
    Race {
        name: "two free slots, two claims",
        world: || world(grown(2)),
        roles: [|world| claim(world, 0), |world| claim(world, 1)],
        afterwards: both_were_served,
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 450,
    }
    .run();
}

/// A hint that the other one's claim makes stale is skipped, and the lost one is not missed.
#[test]
fn a_stale_hint_is_skipped() {
    Race {
        name: "stale hints",
        world: || world(grown(2)),
        roles: [
            |world| claim(world, 0),
            |world| {
                world.slab.refresh_hints();
                claim(world, 1);
            },
        ],
        afterwards: both_were_served,
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 500,
    }
    .run();
}

/// Two pages are full; the frame of the third exists (loom does not see how frames are made).
#[test]
fn a_full_slab_grows_for_both() {
    Race {
        name: "growing, two claims",
        world: || {
            let slab = slab(6);
            (0..4).for_each(|_| assert!(slab.claim().is_ok()));
            world(slab)
        },
        roles: [|world| claim(world, 0), |world| claim(world, 1)],
        afterwards: both_were_served,
        bounds: &[Some(1), Some(2)],
        floor: 250,
    }
    .run();
}

fn both_were_served(world: &World) {
    let [Some(left), Some(right)] = got(world) else { panic!("refused with a slot free") };
    assert_ne!(left.index(), right.index());
    assert!(world.slab.is_live(left) && world.slab.is_live(right));
}
