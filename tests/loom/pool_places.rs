//! The pool's last place, a user's last place, and a place that is handed over. Fails with the faults
//! `free_without_fence`, `overtake_waiters`, `check_then_register` and `unlink_outside_section`.

use crate::places::{World, context};
use crate::race::Race;
use std::sync::atomic::Ordering;
use ws_manager_pool::{AtLimit, ReserveError};

#[test]
fn of_two_users_one_gets_the_last_place() {
    Race {
        name: "the last place",
        world: || World::new(1, 1),
        roles: [|world| world.reserve(0, "ada", "thread_a"), |world| world.reserve(1, "bob", "thread_b")],
        afterwards: |world| {
            let refusals = world.refusals();
            assert_eq!(refusals.iter().flatten().count(), 1, "one is served: {refusals:?}");
            assert!(refusals.contains(&Some(ReserveError::PoolFull { capacity: 1 })));
            world.assert_counts(0, 1);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 6,
    }
    .run();
}

#[test]
fn one_user_gets_one_place_at_the_edge_of_the_quota() {
    Race {
        name: "the edge of the quota",
        world: || World::new(2, 1),
        roles: [|world| world.reserve(0, "ada", "thread_a"), |world| world.reserve(1, "ada", "thread_b")],
        afterwards: |world| {
            let refusals = world.refusals();
            assert_eq!(refusals.iter().flatten().count(), 1, "one is served: {refusals:?}");
            assert!(refusals.contains(&Some(ReserveError::UserFull { max_managers: 1 })));
            world.assert_counts(0, 1);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 4,
    }
    .run();
}

#[test]
fn a_place_that_is_given_back_can_be_had() {
    Race {
        name: "reserve against drop",
        world: || {
            let world = World::new(1, 1);
            world.reserve(0, "ada", "thread_a");
            world
        },
        roles: [|world| world.give_back(0), |world| world.reserve(1, "bob", "thread_b")],
        afterwards: |world| {
            if world.refusals()[1].is_some() {
                world.assert_counts(0, 0);
                world.reserve(1, "bob", "thread_b");
            }
            world.assert_counts(0, 1);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 10,
    }
    .run();
}

/// No wake is lost between looking and falling asleep.
#[test]
fn a_waiter_gets_the_place_that_is_given_back() {
    Race {
        name: "wait against drop",
        world: || {
            let world = World::new(1, 1);
            world.reserve(0, "ada", "thread_a");
            world
        },
        roles: [
            |world| world.give_back(0),
            |world| {
                world.poll();
            },
        ],
        afterwards: |world| {
            let is_served = world.places[1].lock().unwrap().is_some();
            assert!(is_served || world.is_woken.0.load(Ordering::SeqCst), "it sleeps, and a place is free");
            assert!(is_served || world.poll(), "it was woken for nothing");
            world.assert_counts(0, 1);
            drop(world.waiting.lock().unwrap().take());
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 10,
    }
    .run();
}

#[test]
fn a_try_does_not_overtake_a_waiter() {
    Race {
        name: "wait against drop and try",
        world: || {
            let world = World::new(1, 1);
            world.reserve(0, "ada", "thread_a");
            assert!(!world.poll());
            world
        },
        roles: [
            |world| world.give_back(0),
            |world| match world.pool.reserve(&context("bob", "thread_b")) {
                Ok(_) => panic!("the place is for the one who waits"),
                Err(refusal) => assert_eq!(refusal, ReserveError::PoolFull { capacity: 1 }),
            },
        ],
        afterwards: |world| {
            assert!(world.is_woken.0.load(Ordering::SeqCst) && world.poll());
            world.assert_counts(0, 1);
            drop(world.waiting.lock().unwrap().take());
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 10,
    }
    .run();
}

#[test]
fn a_claim_takes_the_place_whether_the_old_connection_closes_or_is_taken_over() {
    Race {
        name: "takeover against close",
        world: || {
            let world = World::new(1, 1);
            world.reserve(0, "ada", "thread_a");
            world.open(0);
            world.reserve(1, "ada", "thread_a");
            world
        },
        roles: [|world| world.give_back(0), |world| world.open(1)],
        afterwards: |world| {
            assert_eq!(*world.open_errors[1].lock().unwrap(), None);
            world.assert_counts(1, 0);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 4,
    }
    .run();
}

/// The count of a claimed place passes to the claim exactly once, or to nobody.
#[test]
fn a_claim_that_is_withdrawn_while_the_old_connection_ends_leaves_no_count() {
    Race {
        name: "withdrawal against close",
        world: || {
            let world = World::new(1, 1);
            world.reserve(0, "ada", "thread_a");
            world.open(0);
            world.reserve(1, "ada", "thread_a");
            world
        },
        roles: [|world| world.give_back(0), |world| world.give_back(1)],
        afterwards: |world| {
            world.assert_counts(0, 0);
            world.reserve(1, "bob", "thread_b");
            world.assert_counts(0, 1);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 15,
    }
    .run();
}

/// The slot may still be on its way back when the user's count is free already, so a refusal by the full
/// pool is right; but then there is a place afterwards.
#[test]
fn a_claim_at_the_limit_finds_the_connection_or_the_place_it_left() {
    Race {
        name: "claim at the limit against close",
        world: || {
            let world = World::new(1, 1);
            world.reserve(0, "ada", "thread_a");
            world.open(0);
            world
        },
        roles: [|world| world.give_back(0), |world| world.reserve(1, "ada", "thread_a")],
        afterwards: |world| {
            if let Some(refusal) = world.refusals()[1] {
                assert_eq!(refusal, ReserveError::PoolFull { capacity: 1 });
                world.reserve(1, "ada", "thread_a");
            }
            world.open(1);
            assert_eq!(*world.open_errors[1].lock().unwrap(), None);
            world.assert_counts(1, 0);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2)],
        floor: 60,
    }
    .run();
}

/// With a slot to spare, whoever the policy makes room for is never refused: the oldest is there to be
/// claimed, or it has ended and its count is free.
#[test]
fn a_place_that_the_policy_makes_is_had_while_the_oldest_ends() {
    Race {
        name: "claim by policy against close",
        world: || {
            let world = World::with_policy(2, 1, AtLimit::EvictOldest);
            world.reserve(0, "ada", "thread_a");
            world.open(0);
            world
        },
        roles: [
            |world| world.give_back(0),
            |world| {
                world.reserve(1, "ada", "thread_b");
                world.open(1);
            },
        ],
        afterwards: |world| {
            assert_eq!((world.refusals()[1], *world.open_errors[1].lock().unwrap()), (None, None));
            world.assert_counts(1, 0);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 110,
    }
    .run();
}

#[test]
fn a_users_place_that_is_given_back_can_be_had() {
    Race {
        name: "the edge of the quota against close",
        world: || {
            let world = World::new(2, 1);
            world.reserve(0, "ada", "thread_a");
            world.open(0);
            world
        },
        roles: [|world| world.give_back(0), |world| world.reserve(1, "ada", "thread_b")],
        afterwards: |world| {
            if let Some(refusal) = world.refusals()[1] {
                assert_eq!(refusal, ReserveError::UserFull { max_managers: 1 });
                world.assert_counts(0, 0);
                world.reserve(1, "ada", "thread_b");
            }
            world.assert_counts(0, 1);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 40,
    }
    .run();
}

#[test]
fn one_of_two_claims_on_a_connection_has_it() {
    Race {
        name: "two claims on one connection",
        world: || {
            let world = World::new(1, 1);
            world.reserve(0, "ada", "thread_a");
            world.open(0);
            world
        },
        roles: [|world| world.reserve(0, "ada", "thread_a"), |world| world.reserve(1, "ada", "thread_a")],
        afterwards: |world| {
            assert_eq!(world.refusals().iter().flatten().count(), 1);
            let winner = usize::from(world.refusals()[0].is_some());
            world.open(winner);
            assert_eq!(*world.open_errors[winner].lock().unwrap(), None);
            world.assert_counts(1, 0);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 1000,
    }
    .run();
}
