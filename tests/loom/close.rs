//! Two closes of one life: one wins.

use crate::probe::{Probe, grown, is_whole, open};
use crate::race::Race;
use loom::sync::atomic::{AtomicUsize, Ordering};
use ws_manager_pool::slab::{Key, Slab};

struct World {
    slab: Slab<Probe>,
    key: Key,
    winners: AtomicUsize,
}

fn world() -> World {
    let slab = grown(1);
    let key = slab.claim().expect("there is room");
    open(&slab, key, 1);
    World { slab, key, winners: AtomicUsize::new(0) }
}

fn close(world: &World) {
    if let Ok(closing) = world.slab.close(world.key) {
        assert_eq!(closing.value(|_, shared| *shared), 1);
        world.winners.fetch_add(1, Ordering::Relaxed);
    }
}

fn pin(world: &World) {
    if let Ok(seen) = world.slab.pin(world.key, |_, shared| *shared) {
        assert_eq!(seen, 1);
    }
}

fn one_won(world: &World) {
    assert_eq!(world.winners.load(Ordering::Relaxed), 1);
    assert!(is_whole(&world.slab));
}

#[test]
fn one_of_two_closers_wins() {
    Race {
        name: "close, close",
        world,
        roles: [close, close],
        afterwards: one_won,
        bounds: &[Some(1), Some(2), Some(3), None],
        floor: 18,
    }
    .run();
}

#[test]
fn one_of_two_closers_wins_over_a_pin() {
    Race {
        name: "close, close, pin",
        world,
        roles: [close, close, pin],
        afterwards: one_won,
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 250,
    }
    .run();
}
