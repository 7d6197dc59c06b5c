//! A clock that jumps: a machine that was asleep.

use crate::place::{config, identify};
use std::time::Duration;
use ws_manager_pool::{Clock, EndReason, OpenError, Pool, Timestamp};

/// As often as a server does in a minute.
fn maintain(pool: &Pool, now: Timestamp) {
    for _ in 0..60 {
        pool.maintain(now);
    }
}

#[test]
fn a_clock_that_jumps_by_days_ends_what_is_due_and_breaks_nothing() {
    let (clock, hand) = Clock::manual();
    let pool: Pool =
        Pool::builder().name("hostile-clock").config(config()).clock(clock.clone()).build().unwrap();
    let mut leases: Vec<_> = (0..50)
        .map(|number| {
            pool.reserve(&identify(Some(&format!("user-{number}"))).unwrap()).unwrap().open().unwrap()
        })
        .collect();
    for lease in &mut leases {
        lease.connected().unwrap();
    }
    let late = pool.reserve(&identify(Some("late")).unwrap()).unwrap();
    hand.advance(Duration::from_secs(3 * 24 * 3_600));
    // Whoever has just said something is as young as the clock.
    leases[0].received(1).unwrap();
    maintain(&pool, clock.now());
    assert!(matches!(late.open(), Err(OpenError::Expired)), "it was taken back at its deadline");
    assert_eq!(pool.ledger().leases, 1, "idle for days, but for one");
    assert!(leases[0].revoked().is_none());
    assert!(
        leases[1..].iter().all(|lease| lease.revoked().is_some_and(|why| why.reason() == EndReason::Idle))
    );
    assert!(pool.ledger().balanced);
    // To the end of what the clock can say.
    hand.advance(Duration::from_secs(40 * 365 * 24 * 3_600));
    maintain(&pool, clock.now());
    let next = pool.reserve(&identify(Some("next")).unwrap()).unwrap().open().unwrap();
    assert_eq!(pool.ledger().leases, 1);
    drop((leases, next));
    assert_eq!(pool.ledger().occupied_slots, 0);
}
