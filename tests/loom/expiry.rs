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

/// The connection goes, or the claim on it, or both; never a count. Both: the claim was opened in time and
/// overdue a moment later, before it had its slot.
#[test]
fn an_overdue_claim_is_opened_or_taken_back() {
    Race {
        name: "deadline of a claim against open",
        world: || {
            let world = World::new(1, 1);
            world.reserve(0, "ada", "thread_a");
            world.open(0);
            world.reserve(0, "ada", "thread_a");
            world
        },
        roles: [
            |world| {
                let claim = world.places[0].lock().unwrap().take().expect("it was reserved");
                // The old lease stays where it is, to be found ended or live.
                match claim.open() {
                    Ok(lease) => *world.leases[1].lock().unwrap() = Some(lease),
                    Err(error) => assert_eq!(error, OpenError::Expired),
                }
            },
            come_late,
        ],
        afterwards: |world| {
            let is_live =
                |role: usize| world.leases[role].lock().unwrap().as_ref().is_some_and(Lease::is_live);
            let live = usize::from(is_live(0)) + usize::from(is_live(1));
            let taken = usize::from(world.places[1].lock().unwrap().is_some());
            assert!(live + taken <= 1, "one slot, two holders");
            world.assert_counts(live, taken);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2)],
        floor: 150,
    }
    .run();
}
