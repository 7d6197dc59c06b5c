//! Other numbers are put in force while somebody reserves. Fails with the faults `config_swap_torn` (a
//! section sees half of the new numbers) and `config_loaded_early` (of two changes at once the wrong one
//! stays in a shard).
//!
//! `arc-swap` and `crossbeam`'s cell have no build for loom: locks stand in for them (`src/sync.rs`). So
//! what is checked here is what the pool builds on them, that a section works with one version and that
//! the last version stays; not their own hand-over of a pointer, which ThreadSanitizer sees in
//! `tests/stress.rs`.

use crate::places::{World, context};
use crate::race::Race;
use ws_manager_pool::{AtLimit, Config};

fn change(world: &World, change: impl FnOnce(&mut Config)) {
    let mut config = Config::clone(&world.pool.config());
    change(&mut config);
    world.pool.reconfigure(config).expect("a valid configuration");
}

/// By the old numbers the oldest connection makes room, by the new ones there is a second place. By a
/// mixture there is neither.
#[test]
fn a_reservation_goes_by_one_version() {
    Race {
        name: "reconfigure against reserve",
        world: || {
            let world = World::with_policy(2, 1, AtLimit::EvictOldest);
            world.reserve(0, "ada", "thread_a");
            world.open(0);
            world
        },
        roles: [
            |world| {
                change(world, |config| {
                    config.max_managers_per_user = 2;
                    config.at_limit = AtLimit::Reject;
                });
            },
            |world| world.reserve(1, "ada", "thread_b"),
        ],
        afterwards: |world| {
            assert_eq!(world.refusals()[1], None);
            let ledger = world.pool.ledger();
            assert!(ledger.balanced && ledger.leases == 1 && ledger.reserved <= 1, "{ledger:?}");
            world.open(1);
            assert_eq!(*world.open_errors[1].lock().unwrap(), None);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 100,
    }
    .run();
}

#[test]
fn of_two_changes_at_once_one_is_in_force_everywhere() {
    Race {
        name: "two changes",
        world: || World::new(3, 1),
        roles: [
            |world| change(world, |config| config.max_managers_per_user = 2),
            |world| change(world, |config| config.max_managers_per_user = 3),
        ],
        afterwards: |world| {
            let limit = world.pool.config().max_managers_per_user;
            let threads = ["thread_a", "thread_b", "thread_c"];
            let places: Vec<_> = threads
                .iter()
                .filter_map(|thread| world.pool.reserve(&context("ada", thread)).ok())
                .collect();
            assert_eq!(places.len(), limit, "the shard goes by other numbers than the pool shows");
            assert_eq!(
                world.pool.config_versions().iter().map(|kept| kept.number).collect::<Vec<_>>(),
                [1, 2, 3]
            );
            drop(places);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 100,
    }
    .run();
}
