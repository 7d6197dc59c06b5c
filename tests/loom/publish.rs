//! Publishing against a pin. The key goes through a Relaxed mailbox, so that only the header itself
//! can order the value. Fails with the fault `relaxed_publish`.

use crate::probe::{Probe, grown, open};
use crate::race::Race;
use loom::sync::atomic::{AtomicU64, Ordering};
use ws_manager_pool::slab::{Key, Slab};

struct World {
    slab: Slab<Probe>,
    /// The key before it is published, as a send by user would find it in a table.
    early: Key,
    mailbox: AtomicU64,
}

fn world() -> World {
    let slab = grown(1);
    let early = slab.claim().expect("there is room");
    World { slab, early, mailbox: AtomicU64::new(0) }
}

fn publish(world: &World) {
    open(&world.slab, world.early, 7);
    world.mailbox.store(world.early.to_bits(), Ordering::Relaxed);
}

#[test]
fn a_pin_by_mailed_key_sees_the_whole_value() {
    Race {
        name: "publish, pin by mailbox",
        world,
        roles: [publish, |world| {
            let key = Key::from_bits(world.mailbox.load(Ordering::Relaxed));
            if let Ok(seen) = world.slab.pin(key, |_, shared| *shared) {
                assert_eq!(seen, 7);
            }
        }],
        afterwards: |world| assert!(world.slab.is_live(world.early)),
        bounds: &[Some(1), Some(2), Some(3), None],
        floor: 12,
    }
    .run();
}

#[test]
fn a_pin_is_refused_or_sees_the_whole_value() {
    Race {
        name: "publish, pin",
        world,
        roles: [publish, |world| {
            if let Ok(seen) = world.slab.pin(world.early, |_, shared| *shared) {
                assert_eq!(seen, 7);
            }
        }],
        afterwards: |world| assert!(world.slab.is_live(world.early)),
        bounds: &[Some(1), Some(2), Some(3), None],
        floor: 3,
    }
    .run();
}
