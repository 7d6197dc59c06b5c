//! The winner and the finaliser of a close against a pin. Fails with the faults
//! `unpin_without_fence` (the clean-up races with a reader) and `winner_without_pin` (the slot is
//! cleaned while its winner still reads it).

use crate::probe::{Probe, grown, is_whole, open};
use crate::race::Race;
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU64, Ordering};
use ws_manager_pool::slab::{Key, Owner, Slab};

struct World {
    slab: Slab<Probe>,
    key: Key,
    owner: Mutex<Owner>,
    unlinked: AtomicU64,
}

fn world() -> World {
    let slab = grown(1);
    let key = slab.claim().expect("there is room");
    let owner = Mutex::new(open(&slab, key, 1));
    World { slab, key, owner, unlinked: AtomicU64::new(0) }
}

fn pin(world: &World) {
    if let Ok(seen) = world.slab.pin(world.key, |_, shared| *shared) {
        assert_eq!(seen, 1);
    }
}

fn pin_owned(world: &World) {
    let mut owner = world.owner.lock().expect("a role does not panic");
    let seen = world.slab.pin_owned(&mut owner, |_, shared, owned| {
        *owned += 1;
        (*shared, *owned)
    });
    assert!(seen.is_err() || seen == Ok((1, 2)));
}

fn close(world: &World) {
    let closing = world.slab.close(world.key).expect("nobody else closes");
    assert_eq!(closing.value(|_, shared| *shared), 1, "not cleaned while the winner is at work");
    world.unlinked.store(1, Ordering::Relaxed);
}

/// Takes the slot once it is free: by then its last winner has unlinked it.
fn reuse(world: &World) {
    if let Ok(next) = world.slab.claim() {
        assert_eq!(world.unlinked.load(Ordering::Relaxed), 1);
        open(&world.slab, next, 2);
    }
}

#[test]
fn a_pin_keeps_the_value_until_it_ends() {
    Race {
        name: "pin, close",
        world,
        roles: [pin, close],
        afterwards: |world| assert!(is_whole(&world.slab)),
        bounds: &[Some(1), Some(2), Some(3), None],
        floor: 21,
    }
    .run();
}

#[test]
fn the_owner_keeps_its_part_until_the_pin_ends() {
    Race {
        name: "pin by the owner, close",
        world,
        roles: [pin_owned, close],
        afterwards: |world| assert!(is_whole(&world.slab)),
        bounds: &[Some(1), Some(2), Some(3), None],
        floor: 21,
    }
    .run();
}

#[test]
fn the_last_of_two_pins_cleans() {
    Race {
        name: "two pins, close",
        world,
        roles: [pin, pin, close],
        afterwards: |world| assert!(is_whole(&world.slab)),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 250,
    }
    .run();
}

#[test]
fn a_slot_is_not_reused_before_its_winner_has_unlinked_it() {
    Race {
        name: "pin, close, reuse",
        world,
        roles: [pin, close, reuse],
        afterwards: |_| (),
        bounds: &[Some(1), Some(2)],
        floor: 83,
    }
    .run();
}
