//! A user at the limit reconnects with a live thread: the claim on the old connection's place, in
//! every order in which claim, old connection, deadline and readers can come to their ends.

mod common;
#[path = "common/held.rs"]
mod held;

use common::{assert_counts, builder, context};
use held::HeldPin;
use std::mem;
use ws_manager_pool::{
    Clock, EndReason, Late, Lease, ManualClock, OpenError, Pool, Reservation, ReserveError,
};

/// `ada` is at her limit of one in a pool of one.
struct AtTheLimit {
    pool: Pool,
    hand: ManualClock,
    old: Lease,
}

impl AtTheLimit {
    fn new(name: &str) -> Self {
        Self::in_pool_of(name, 1)
    }

    fn in_pool_of(name: &str, capacity: usize) -> Self {
        let (clock, hand) = Clock::manual();
        let pool = builder(name, capacity).max_managers_per_user(1).clock(clock).build().unwrap();
        let old = connect(&pool);
        Self { pool, hand, old }
    }

    fn let_the_deadline_pass(&self) {
        self.hand.advance(self.pool.config().reservation_deadline);
    }
}

fn claim(pool: &Pool) -> Result<Reservation, ReserveError> {
    pool.reserve(&context("ada", "thread_a"))
}

fn connect(pool: &Pool) -> Lease {
    claim(pool).unwrap().open().unwrap()
}

/// Nothing is left, and all of the pool's places can be had.
fn assert_whole(pool: &Pool) {
    assert_counts(pool, 0, 0, 0);
    let capacity = pool.config().capacity;
    let places: Vec<_> =
        (0..capacity).map(|n| pool.reserve(&context(&format!("user-{n}"), None)).unwrap()).collect();
    assert_eq!(
        pool.reserve(&context("one-too-many", None)).unwrap_err(),
        ReserveError::PoolFull { capacity }
    );
    drop(places);
    assert_counts(pool, 0, 0, 0);
}

#[test]
fn claim_then_open() {
    let AtTheLimit { pool, old, .. } = AtTheLimit::new("claim-open");
    let claim = claim(&pool).unwrap();
    assert!(old.is_live(), "a handshake that may fail harms nobody");
    assert_counts(&pool, 1, 0, 0);
    let new = claim.open().unwrap();
    assert!(new.is_live());
    assert_ne!(new.key(), old.key());
    assert_counts(&pool, 1, 0, 0);
    let revoked = old.revoked().unwrap();
    assert_eq!((revoked.reason(), revoked.close_code()), (EndReason::Takeover, 4001));
    assert_eq!(old.close(EndReason::Closed), Err(Late), "the old close arrives late");
    assert!(new.is_live(), "and harms nobody");
    assert_counts(&pool, 1, 0, 0);
    drop(new);
    let tally = pool.ledger().tally;
    assert_eq!((tally.opened, tally.ended), (2, 2));
    assert_eq!((tally.ends_by_reason["takeover"], tally.ends_by_reason["dropped"]), (1, 1));
    assert_whole(&pool);
}

#[test]
fn claim_then_the_old_one_closes_then_open() {
    let AtTheLimit { pool, old, .. } = AtTheLimit::new("claim-close-open");
    let claim = claim(&pool).unwrap();
    old.close(EndReason::Closed).unwrap();
    assert_counts(&pool, 0, 1, 0);
    assert!(pool.reserve(&context("bob", None)).is_err(), "the place is the claimant's");
    let new = claim.open().unwrap();
    assert_counts(&pool, 1, 0, 0);
    drop(new);
    assert_whole(&pool);
}

#[test]
fn a_claim_dropped_while_the_old_one_lives_leaves_it_alone() {
    let AtTheLimit { pool, old, .. } = AtTheLimit::new("claim-dropped");
    for _ in 0..3 {
        drop(claim(&pool).unwrap());
        assert_counts(&pool, 1, 0, 0);
    }
    assert!(old.is_live());
    drop(old);
    assert_whole(&pool);
}

#[test]
fn a_claim_dropped_after_the_old_one_ended_gives_the_place_back() {
    let AtTheLimit { pool, old, .. } = AtTheLimit::new("claim-dropped-after");
    let claim = claim(&pool).unwrap();
    drop(old);
    assert_counts(&pool, 0, 1, 0);
    drop(claim);
    assert_whole(&pool);
}

#[test]
fn a_claim_that_expires_while_the_old_one_lives_leaves_it_alone() {
    let limit = AtTheLimit::new("claim-expires");
    let late = claim(&limit.pool).unwrap();
    let forgotten_too = {
        limit.let_the_deadline_pass();
        assert_eq!(limit.pool.maintain(limit.pool.clock().now()).expired, 1);
        assert_eq!(limit.pool.maintain(limit.pool.clock().now()).expired, 0, "once");
        claim(&limit.pool).unwrap()
    };
    assert_eq!(late.open().unwrap_err(), OpenError::Expired);
    assert!(limit.old.is_live());
    assert_counts(&limit.pool, 1, 0, 0);
    mem::forget(forgotten_too);
    limit.let_the_deadline_pass();
    assert_eq!(limit.pool.maintain(limit.pool.clock().now()).expired, 1);
    let AtTheLimit { pool, old, .. } = limit;
    drop(old);
    assert_whole(&pool);
}

#[test]
fn a_claim_that_expires_after_the_old_one_ended_gives_the_place_back() {
    let limit = AtTheLimit::new("claim-expires-after");
    let late = claim(&limit.pool).unwrap();
    limit.let_the_deadline_pass();
    let AtTheLimit { pool, old, .. } = limit;
    drop(old);
    assert_counts(&pool, 0, 1, 0);
    assert_eq!(pool.maintain(pool.clock().now()).expired, 1);
    assert_counts(&pool, 0, 0, 0);
    assert_eq!(late.open().unwrap_err(), OpenError::Expired);
    assert_whole(&pool);
}

/// The first claim has expired, the place went to the second: the first has no right to it.
#[test]
fn a_claim_that_was_withdrawn_does_not_touch_the_next_claimants_place() {
    for late_open in [true, false] {
        let limit = AtTheLimit::new("claim-after-claim");
        let first = claim(&limit.pool).unwrap();
        limit.let_the_deadline_pass();
        assert_eq!(limit.pool.maintain(limit.pool.clock().now()).expired, 1);
        let AtTheLimit { pool, old, .. } = limit;
        let second = claim(&pool).unwrap();
        drop(old);
        assert_counts(&pool, 0, 1, 0);
        if late_open {
            assert_eq!(first.open().unwrap_err(), OpenError::Expired);
        } else {
            drop(first);
        }
        assert_counts(&pool, 0, 1, 0);
        drop(second.open().expect("it is the second's"));
        assert_whole(&pool);
    }
}

#[test]
fn a_claim_on_a_place_that_is_still_being_read_expires_and_is_dropped_without_waiting_for_the_reader() {
    let limit = AtTheLimit::new("claim-expires-pinned");
    let late = claim(&limit.pool).unwrap();
    let reader = HeldPin::on(&limit.pool, limit.old.key());
    limit.let_the_deadline_pass();
    let AtTheLimit { pool, old, .. } = limit;
    drop(old);
    assert_counts(&pool, 0, 1, 0);
    assert_eq!(pool.maintain(pool.clock().now()).expired, 1);
    assert_counts(&pool, 0, 0, 1);
    drop(late);
    assert_counts(&pool, 0, 0, 1);
    drop(reader);
    assert_whole(&pool);
}

#[test]
fn a_claim_on_a_place_that_is_still_being_read_expires_and_cannot_be_opened() {
    let limit = AtTheLimit::new("claim-expired-open-pinned");
    let late = claim(&limit.pool).unwrap();
    let reader = HeldPin::on(&limit.pool, limit.old.key());
    limit.let_the_deadline_pass();
    let AtTheLimit { pool, old, .. } = limit;
    drop(old);
    assert_eq!(pool.maintain(pool.clock().now()).expired, 1);
    assert_eq!(late.open().unwrap_err(), OpenError::Expired);
    assert_counts(&pool, 0, 0, 1);
    drop(reader);
    assert_whole(&pool);
}

#[test]
fn a_claim_dropped_while_the_ended_place_is_still_being_read_gives_it_back() {
    let AtTheLimit { pool, old, .. } = AtTheLimit::new("claim-dropped-pinned");
    let claim = claim(&pool).unwrap();
    let reader = HeldPin::on(&pool, old.key());
    drop(old);
    assert_counts(&pool, 0, 1, 0);
    drop(claim);
    assert_counts(&pool, 0, 0, 1);
    drop(reader);
    assert_whole(&pool);
}

#[test]
fn a_reader_that_leaves_hands_the_place_to_the_claimant() {
    let AtTheLimit { pool, old, .. } = AtTheLimit::new("claim-pinned-open");
    let claim = claim(&pool).unwrap();
    let reader = HeldPin::on(&pool, old.key());
    drop(old);
    assert_counts(&pool, 0, 1, 0);
    drop(reader);
    assert_counts(&pool, 0, 1, 0);
    drop(claim.open().unwrap());
    assert_whole(&pool);
}

#[test]
fn a_claim_on_a_place_that_is_still_being_read_takes_a_free_one() {
    let AtTheLimit { pool, old, .. } = AtTheLimit::in_pool_of("pinned-spare", 2);
    let claim = claim(&pool).unwrap();
    let reader = HeldPin::on(&pool, old.key());
    let new = claim.open().unwrap();
    assert_ne!(new.key().index(), old.key().index());
    assert_eq!(old.revoked().unwrap().close_code(), 4001);
    assert_counts(&pool, 1, 0, 1);
    drop(reader);
    assert_counts(&pool, 1, 0, 0);
    drop(new);
    assert_whole(&pool);
}

#[test]
fn a_claim_on_a_place_that_is_still_being_read_takes_a_free_one_that_must_be_grown() {
    // A page has 64 slots: the others' connections fill it.
    let AtTheLimit { pool, old, .. } = AtTheLimit::in_pool_of("pinned-grown", 100);
    let others: Vec<_> = (0..63)
        .map(|n| pool.reserve(&context(&format!("user-{n}"), None)).unwrap().open().unwrap())
        .collect();
    let claim = claim(&pool).unwrap();
    let reader = HeldPin::on(&pool, old.key());
    let new = claim.open().unwrap();
    assert_counts(&pool, 64, 0, 1);
    drop(reader);
    drop((new, others));
    assert_whole(&pool);
}

#[test]
fn a_claim_on_a_place_that_is_still_being_read_is_busy_where_no_other_is_free() {
    let AtTheLimit { pool, old, .. } = AtTheLimit::new("pinned-busy");
    let first = claim(&pool).unwrap();
    let reader = HeldPin::on(&pool, old.key());
    assert_eq!(first.open().unwrap_err(), OpenError::Busy);
    assert_eq!(old.revoked().unwrap().reason(), EndReason::Takeover);
    assert_counts(&pool, 0, 0, 1);
    assert_eq!(claim(&pool).unwrap_err(), ReserveError::PoolFull { capacity: 1 }, "it waits for the reader");
    drop(reader);
    drop(old);
    assert_whole(&pool);
}

#[test]
fn a_second_claim_on_the_same_connection_is_refused() {
    let AtTheLimit { pool, old, .. } = AtTheLimit::new("two-claims");
    let first = claim(&pool).unwrap();
    assert_eq!(claim(&pool).unwrap_err(), ReserveError::UserFull { max_managers: 1 });
    drop(first);
    let second = claim(&pool).unwrap();
    assert_eq!(claim(&pool).unwrap_err(), ReserveError::UserFull { max_managers: 1 });
    drop(old);
    assert_eq!(claim(&pool).unwrap_err(), ReserveError::UserFull { max_managers: 1 }, "the claim counts now");
    drop(second.open().unwrap());
    assert_whole(&pool);
}

#[test]
fn below_the_limit_a_takeover_swaps_in_one_step() {
    let pool: Pool = builder("below", 10).build().unwrap();
    let old = connect(&pool);
    let place = claim(&pool).unwrap();
    assert_counts(&pool, 1, 1, 0);
    assert!(old.is_live());
    let new = place.open().unwrap();
    assert_counts(&pool, 1, 0, 0);
    assert_eq!(old.revoked().unwrap().close_code(), 4001);
    drop(old);
    assert!(new.is_live());
    drop(new);
    assert_whole(&pool);
}

#[test]
fn a_claim_whose_connection_was_taken_over_by_another_way_takes_over_that_one() {
    let pool: Pool = builder("overtaken", 10).max_managers_per_user(2).build().unwrap();
    let (old, tab) = (connect(&pool), pool.reserve(&context("ada", "thread_b")).unwrap().open().unwrap());
    let claim_on_old = claim(&pool).unwrap();
    drop(tab);
    let middle = connect(&pool); // there was room, so it took a place of its own
    assert_eq!(old.revoked().unwrap().reason(), EndReason::Takeover);
    assert_counts(&pool, 1, 1, 0);
    let new = claim_on_old.open().unwrap();
    assert_eq!(middle.revoked().unwrap().reason(), EndReason::Takeover);
    assert_counts(&pool, 1, 0, 0);
    drop((old, middle));
    assert!(new.is_live());
    drop(new);
    assert_whole(&pool);
}

#[test]
fn a_chain_of_takeovers_leaves_the_last_and_late_closes_harm_nobody() {
    for (name, capacity) in [("chain-1", 1), ("chain-2", 2), ("chain-64", 64)] {
        let AtTheLimit { pool, old, .. } = AtTheLimit::in_pool_of(name, capacity);
        let mut chain = vec![old];
        for _ in 0..50 {
            chain.push(connect(&pool));
            assert_counts(&pool, 1, 0, 0);
        }
        let last = chain.pop().unwrap();
        let (owned, dropped) = (chain.split_off(25), chain);
        drop(dropped);
        assert!(owned.into_iter().all(|lease| lease.close(EndReason::Closed) == Err(Late)));
        assert!(last.is_live());
        assert_counts(&pool, 1, 0, 0);
        drop(last);
        let tally = pool.ledger().tally;
        assert_eq!((tally.ended, tally.ends_by_reason["takeover"]), (51, 50));
        assert_whole(&pool);
    }
}

#[test]
fn a_takeover_of_a_leaked_connection_needs_nothing_from_its_owner() {
    let AtTheLimit { pool, old, .. } = AtTheLimit::new("takeover-leaked");
    mem::forget(old);
    let new = connect(&pool);
    assert_counts(&pool, 1, 0, 0);
    drop(new);
    assert_whole(&pool);
}
