//! A scan that moves alarms against those who set them: afterwards no deadline is without an alarm. Fails with
//! the faults `alarm_read_before_disarm`, `alarm_moved_unconfirmed`, `alarm_moved_unseen` and
//! `brought_in_by_store`.

use crate::race::Race;
use loom::sync::atomic::{AtomicU32, Ordering};
use ws_manager_pool::slab::{
    Alarm, Cursor, Fate, Key, Options, Owner, Resident, Slab, Starting, State, Vacated,
};

/// Slots with a deadline.
struct Timed;

/// 0 stands for "none".
#[derive(Default)]
struct Deadlines {
    /// Of whoever is in the slot.
    own: AtomicU32,
    /// Of one who inherits it: the slot's own from then on.
    heirs: AtomicU32,
}

impl Resident for Timed {
    type Glance = Deadlines;
    type Shared = ();
    type Owned = ();
    type Residue = ();

    fn clean(&self, vacated: Vacated<'_, Self>) -> (Fate, ()) {
        let heirs = vacated.glance.heirs.swap(0, Ordering::AcqRel);
        vacated.glance.own.store(heirs, Ordering::Relaxed);
        (if heirs == 0 { Fate::Free } else { Fate::Heir }, ())
    }

    fn freed(&self, (): ()) {}
}

/// Too early for anything that a model sets.
const EARLY: u32 = 2;

struct World {
    slab: Slab<Timed>,
    old: Key,
}

/// One slot, or a page of them, of which the first is live and without a deadline, but has an alarm that is
/// early.
fn world(capacity: usize) -> World {
    let slab = Slab::new(Timed, Options::with_capacity(capacity));
    let starting = slab.start().expect("there is room");
    starting.arm(Alarm::at(1));
    let old = starting.publish().key();
    World { slab, old }
}

/// The keys whose deadline has come.
fn due(slab: &Slab<Timed>, now: u32) -> Vec<Key> {
    let alarm = |deadline: &AtomicU32| match deadline.load(Ordering::Relaxed) {
        0 => Alarm::NONE,
        deadline => Alarm::at(deadline),
    };
    let mut due = Vec::new();
    slab.walk_due(
        &mut Cursor::default(),
        usize::MAX / 2,
        now,
        |state, glance| {
            let heirs = if state == State::Live { alarm(&glance.heirs) } else { Alarm::NONE };
            (heirs.or(alarm(&glance.own)), ())
        },
        |key, _, ()| due.push(key),
    );
    due
}

fn scan(world: &World) {
    assert_eq!(due(&world.slab, EARLY), [], "nothing is due so early");
}

/// A deadline is kept: it is found when it has come, and stays to be found.
fn assert_found(world: &World, key: Key, deadline: u32) {
    assert_eq!(due(&world.slab, deadline - 1), []);
    assert_eq!(due(&world.slab, deadline), [key]);
    assert_eq!(due(&world.slab, deadline), [key]);
}

fn start(world: &World) -> Starting<'_, Timed> {
    let mut starting = world.slab.start().expect("it is free");
    starting.value(|deadlines, (), ()| deadlines.own.store(5, Ordering::Relaxed));
    starting.arm(Alarm::at(5));
    starting
}

fn end(world: &World) {
    drop(world.slab.close(world.old).expect("nobody else closes"));
}

fn arm(world: &World) {
    let written = world.slab.pin(world.old, |deadlines, ()| deadlines.own.store(5, Ordering::Relaxed));
    written.expect("it is live");
    world.slab.arm(world.old, Alarm::at(5));
}

fn live(world: &World) -> Key {
    let mut live = Vec::new();
    world.slab.live_keys(&mut Cursor::default(), usize::MAX / 2, &mut live);
    live[0]
}

#[test]
fn an_owner_that_arms_is_found() {
    Race {
        name: "arm, scan",
        world: || world(1),
        roles: [arm, scan],
        afterwards: |world| assert_found(world, world.old, 5),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 150,
    }
    .run();
}

/// Such as the one of expiry, and the keeper's.
#[test]
fn an_owner_that_arms_is_found_whoever_else_scans() {
    Race {
        name: "arm, two scans",
        world: || world(1),
        roles: [arm, scan, scan],
        afterwards: |world| assert_found(world, world.old, 5),
        bounds: &[Some(1), Some(2)],
        floor: 1500,
    }
    .run();
}

/// It writes no alarm where it finds one that is early enough.
#[test]
fn a_new_occupant_is_found_that_relied_on_an_old_alarm() {
    Race {
        name: "turn over, scan",
        world: || world(1),
        roles: [
            |world| {
                end(world);
                start(world).publish();
            },
            scan,
        ],
        afterwards: |world| assert_found(world, live(world), 5),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 500,
    }
    .run();
}

/// As above, but the slot is left reserved, and opened by its key: `Starting` twice.
#[test]
fn a_reservation_is_found_that_relied_on_an_old_alarm() {
    Race {
        name: "reservation, scan",
        world: || {
            let world = world(1);
            end(&world);
            world
        },
        roles: [
            |world| {
                let key = start(world).reserve();
                let _: Owner = world.slab.begin(key).expect("nobody took it back").publish();
            },
            scan,
        ],
        afterwards: |world| assert_found(world, live(world), 5),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 60,
    }
    .run();
}

/// What the old occupant arms too late costs the new one a look.
#[test]
fn a_stale_owner_takes_no_alarm_from_the_next_occupant() {
    Race {
        name: "turn over, stale arm, scan",
        world: || world(1),
        roles: [
            |world| {
                end(world);
                start(world).publish();
            },
            |world| world.slab.arm(world.old, Alarm::at(9)),
            scan,
        ],
        afterwards: |world| assert_found(world, live(world), 5),
        bounds: &[Some(1), Some(2)],
        floor: 1000,
    }
    .run();
}

/// Its deadline is not written anew when the slot is handed over.
#[test]
fn an_heir_is_found_after_the_slot_was_handed_over() {
    Race {
        name: "hand over, scan",
        world: || {
            let world = world(1);
            let named =
                world.slab.pin(world.old, |deadlines, ()| deadlines.heirs.store(5, Ordering::Relaxed));
            named.expect("it is live");
            world.slab.arm(world.old, Alarm::at(5));
            world
        },
        roles: [end, scan],
        afterwards: |world| {
            let next = world.slab.census();
            assert_eq!((next.reserved, next.live), (1, 0));
            let due = due(&world.slab, 5);
            assert!(due.len() == 1 && due[0] != world.old, "{due:?}");
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 100,
    }
    .run();
}

#[test]
fn a_new_occupant_is_found_in_a_page_that_went_and_came_back() {
    Race {
        name: "shrink and grow, scan",
        world: || {
            let world = world(2);
            end(&world);
            world
        },
        roles: [
            |world| {
                world.slab.shrink(0);
                start(world).publish();
            },
            scan,
        ],
        afterwards: |world| assert_found(world, live(world), 5),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 170,
    }
    .run();
}
