//! A reservation's deadline against its opening, at the pool: whoever is refused takes back what is
//! overdue, while the owner opens it. Fails with the fault `expiry_takes_what_opens`.
//!
//! That the slot has one claimant is `abort.rs`; here the counts go with it.

use crate::places::World;
use crate::race::Race;
use std::time::Duration;
use ws_manager_pool::{Lease, OpenError};

/// Longer than a reservation is kept.
const LATE: Duration = Duration::from_secs(2);

/// The full pool looks for what was forgotten before it refuses.
fn come_late(world: &World) {
    world.hand.advance(LATE);
    world.reserve(1, "bob", "thread_b");
}

#[test]
fn an_overdue_reservation_is_opened_or_taken_back() {
    Race {
        name: "deadline against open",
        world: || {
            let world = World::new(1, 1);
            world.reserve(0, "ada", "thread_a");
            world
        },
        roles: [|world| world.open(0), come_late],
        afterwards: |world| {
            let is_open = world.leases[0].lock().unwrap().is_some();
            let is_taken = world.places[1].lock().unwrap().is_some();
            assert!(!(is_open && is_taken), "one slot, two holders");
            let error = *world.open_errors[0].lock().unwrap();
            assert_eq!(error, (!is_open).then_some(OpenError::Expired));
            world.assert_counts(usize::from(is_open), usize::from(is_taken));
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2)],
        floor: 100,
    }
    .run();
}

/// Claims a connection that nobody has ended yet, and is nearly late with opening it: else the time that the
/// opening gets would pass within the race too.
fn claim() -> World {
    let world = World::new(1, 1);
    world.reserve(0, "ada", "thread_a");
    world.open(0);
    world.reserve(0, "ada", "thread_a");
    world.hand.advance(LATE * 3 / 8);
    world
}

fn open_the_claim(world: &World) {
    let claim = world.places[0].lock().unwrap().take().expect("it was reserved");
    // The old lease stays where it is, to be found ended or live.
    match claim.open() {
        Ok(lease) => *world.leases[1].lock().unwrap() = Some(lease),
        Err(error) => assert_eq!(error, OpenError::Expired),
    }
}

fn assert_one_is_live(world: &World) {
    let is_live = |role: usize| world.leases[role].lock().unwrap().as_ref().is_some_and(Lease::is_live);
    assert!(is_live(0) != is_live(1), "one slot, one holder");
    assert!(world.places[1].lock().unwrap().is_none(), "the slot was taken");
    world.assert_counts(1, 0);
    world.assert_whole();
}

/// A claim that is opened in time becomes the connection, however late it is once it has its slot; one that is
/// not leaves the old. Never are both gone. Fails with the fault `claim_expires_on_the_way`.
#[test]
fn an_overdue_claim_is_opened_or_taken_back() {
    Race {
        name: "deadline of a claim against open",
        world: claim,
        roles: [open_the_claim, |world| {
            world.hand.advance(LATE * 3 / 8);
            world.reserve(1, "bob", "thread_b");
        }],
        afterwards: assert_one_is_live,
        bounds: &[Some(1), Some(2)],
        floor: 100,
    }
    .run();
}

/// The same while the keeper has found the claim overdue and is about to take it back. Fails with the fault
/// `expiry_looks_once`.
#[test]
fn a_claim_found_overdue_may_have_been_opened() {
    Race {
        name: "keeper against open of a claim",
        world: claim,
        roles: [open_the_claim, |world| {
            world.hand.advance(LATE * 3 / 8);
            world.pool.maintain(world.pool.clock().now());
        }],
        afterwards: assert_one_is_live,
        bounds: &[Some(1)],
        floor: 50,
    }
    .run();
}
