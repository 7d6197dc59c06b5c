//! Reservations and leases: how they begin, what refuses them, how they end.

use crate::support::poll;
use crate::support::{Kind, assert_empty, builder, connect, context, make, served, texts, user, with_clock};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use ws_manager_pool::{
    BuildError, DuplicatePolicy, EndReason, Environment, Late, ManagerKey, ManagerLease, ManagerPool,
    ManagerReservation, ManagerState, Message, OpenError, Pool, ReserveError, SendOutcome, TransitionError,
};

on_both! {
    a_connection_comes_and_goes,
    the_limits_hold_and_a_refusal_leaves_nothing,
    a_user_at_the_limit_takes_over_a_live_thread,
    a_claim_outlives_the_connection_that_it_claimed,
    an_expired_claim_never_touches_the_next_reservation,
    a_duplicate_is_replaced_rejected_or_allowed,
    what_is_forgotten_expires_and_a_late_open_says_so,
    a_lease_ends_once_and_its_owner_learns_why,
    the_state_moves_by_the_protocol_only,
    a_stale_key_does_nothing,
    a_drain_refuses_and_harms_nobody,
    a_name_is_one_pools,
}

fn a_connection_comes_and_goes<K: Kind>() {
    let (pool, hand) = with_clock::<K>(builder(10, 5));
    let context = context("ada", "thread_7");
    let reservation = pool.reserve(&context).unwrap();
    assert_eq!(reservation.context(), &context);
    assert_eq!((pool.snapshot().reserved, pool.snapshot().live), (1, 0));
    let line = line!() - 3;
    let mut lease = reservation.open().unwrap();
    assert!(lease.is_live() && lease.revoked().is_none());
    assert_eq!(pool.keys_of(context.user_id()), [lease.key()]);
    assert_eq!(pool.inspect(lease.key(), |manager| manager.context().clone()), Some(context));

    lease.connected().unwrap();
    hand.advance(Duration::from_secs(3));
    lease.received(40).unwrap();
    assert!(pool.send(lease.key(), Message::from("hello")).is_queued());
    assert_eq!(pool.snapshot().outbound_bytes, 5);
    assert_eq!(texts(&mut lease), ["hello"]);
    assert_eq!(pool.snapshot().outbound_bytes, 0);
    hand.advance(Duration::from_secs(2));

    let figures = pool.managers(10);
    assert_eq!(figures.len(), 1);
    assert_eq!((figures[0].user_id.as_str(), figures[0].thread_id.as_str()), ("ada", "thread_7"));
    assert_eq!((figures[0].age_ms, figures[0].idle_ms), (5_000, 2_000));
    assert_eq!((figures[0].messages_in, figures[0].bytes_in), (1, 40));
    assert_eq!((figures[0].messages_out, figures[0].bytes_out), (1, 5));
    assert_eq!((figures[0].state, figures[0].queued), (ManagerState::Connected, 0));
    assert!(figures[0].made_at.contains(&format!("{}:{line}:", file!())), "{}", figures[0].made_at);
    assert_eq!(pool.managers(0), []);
    assert_eq!(lease.with(|manager| manager.idle(pool.clock().now())), Ok(Duration::from_secs(2)));

    lease.close(EndReason::Closed).unwrap();
    assert_empty(&pool);
    let tally = pool.ledger().tally;
    assert_eq!((tally.reserved, tally.opened, tally.ended), (1, 1, 1));
    assert_eq!(tally.ends_by_reason, [("closed", 1)].into());
}

fn the_limits_hold_and_a_refusal_leaves_nothing<K: Kind>() {
    let pool = make::<K>(3, 2);
    assert_eq!((pool.config().capacity, pool.config().max_managers_per_user), (3, 2));
    let held = [connect(&pool, "ada", "thread_1"), connect(&pool, "ada", "thread_2")];
    let full = ReserveError::UserFull { max_managers: 2 };
    assert_eq!(pool.reserve(&context("ada", "thread_3")).unwrap_err(), full);
    pool.set_user_limit(&user("ada"), Some(3));
    let third = pool.reserve(&context("ada", "thread_3")).unwrap();
    assert_eq!(
        pool.reserve(&context("bob", "thread_1")).unwrap_err(),
        ReserveError::PoolFull { capacity: 3 }
    );
    pool.set_user_limit(&user("ada"), Some(1));
    assert!(held.iter().all(ManagerLease::is_live), "a lowered limit closes nobody");
    drop(third);
    let full = ReserveError::UserFull { max_managers: 1 };
    assert_eq!(pool.reserve(&context("ada", "thread_3")).unwrap_err(), full);
    pool.set_user_limit(&user("ada"), None);
    let refused = pool.snapshot().refused;
    assert_eq!((refused.user_full, refused.pool_full), (2, 1));
    assert_eq!(pool.ledger().tally.given_back, 1);
    drop(held);
    assert_empty(&pool);
}

fn a_user_at_the_limit_takes_over_a_live_thread<K: Kind>() {
    let pool = make::<K>(2, 2);
    let old = [connect(&pool, "ada", "thread_1"), connect(&pool, "ada", "thread_2")];
    let claim = pool.reserve(&context("ada", "thread_2")).unwrap();
    assert!(old[1].is_live(), "a handshake that may fail harms nobody");
    assert_eq!(pool.snapshot().reserved, 0, "the claim holds no count of its own yet");
    let second = pool.reserve(&context("ada", "thread_2")).unwrap_err();
    assert_eq!(second, ReserveError::UserFull { max_managers: 2 }, "one claim for each");
    let new = claim.open().unwrap();
    assert_eq!(old[1].revoked().unwrap().reason(), EndReason::Takeover);
    assert!(new.is_live() && old[0].is_live());
    assert_eq!(pool.snapshot().live, 2);
    drop(pool.reserve(&context("ada", "thread_1")).unwrap());
    assert!(old[0].is_live(), "a claim given back ends nothing");
    drop((old, new));
    assert_empty(&pool);
}

fn a_claim_outlives_the_connection_that_it_claimed<K: Kind>() {
    let pool = make::<K>(1, 1);
    let old = connect(&pool, "ada", "thread_1");
    let claim = pool.reserve(&context("ada", "thread_1")).unwrap();
    drop(old);
    assert_eq!((pool.snapshot().live, pool.snapshot().reserved), (0, 1));
    assert!(pool.ledger().balanced);
    assert!(pool.reserve(&context("bob", "thread_1")).is_err(), "the place is the claimant's");
    let lease = claim.open().unwrap();
    assert!(lease.is_live());
    drop(lease);
    assert_empty(&pool);
}

fn an_expired_claim_never_touches_the_next_reservation<K: Kind>() {
    let (pool, hand) = with_clock::<K>(builder(1, 1));
    for opens_late in [true, false] {
        let old = connect(&pool, "ada", "thread_1");
        let claim = pool.reserve(&context("ada", "thread_1")).unwrap();
        hand.advance(pool.config().reservation_deadline);
        assert_eq!(pool.maintain(pool.clock().now()).expired, 1);
        drop(old);
        let next = pool.reserve(&context("bob", "thread_1")).unwrap();
        if opens_late {
            assert_eq!(claim.open().unwrap_err(), OpenError::Expired);
        } else {
            drop(claim);
        }
        assert_eq!(pool.snapshot().reserved, 1, "the place is bob's");
        let lease = next.open().unwrap();
        assert_eq!(lease.with(|manager| manager.user_id().clone()).unwrap(), user("bob"));
        drop(lease);
        assert_empty(&pool);
    }
}

fn a_duplicate_is_replaced_rejected_or_allowed<K: Kind>() {
    let of = |policy| K::build(builder::<()>(5, 5).duplicates(policy)).unwrap();

    let pool = of(DuplicatePolicy::Replace);
    let old = connect(&pool, "ada", "thread_1");
    let new = connect(&pool, "ada", "thread_1");
    assert_eq!(old.revoked().unwrap().close_code(), 4001);
    assert_eq!((old.is_live(), new.is_live(), pool.snapshot().live), (false, true, 1));

    let pool = of(DuplicatePolicy::Reject);
    let early = pool.reserve(&context("ada", "thread_1")).unwrap();
    let first = connect(&pool, "ada", "thread_1");
    assert_eq!(pool.reserve(&context("ada", "thread_1")).unwrap_err(), ReserveError::ThreadInUse);
    assert_eq!(early.open().unwrap_err(), OpenError::ThreadInUse);
    assert_eq!(pool.snapshot().refused.thread_in_use, 1);
    let _bobs = connect(&pool, "bob", "thread_1");
    drop(first);
    assert!(pool.reserve(&context("ada", "thread_1")).is_ok());
    assert!(pool.ledger().balanced);

    let pool = of(DuplicatePolicy::Allow);
    let mut tabs = [connect(&pool, "ada", "thread_1"), connect(&pool, "ada", "thread_1")];
    let to = context("ada", "thread_1").isolation_key();
    assert_eq!(pool.send_to_thread(&to, Message::from("hi")).queued, 2);
    assert_eq!(tabs.each_mut().map(texts), [["hi"], ["hi"]]);
    drop(tabs);
    assert_empty(&pool);
}

fn what_is_forgotten_expires_and_a_late_open_says_so<K: Kind>() {
    let (pool, hand) = with_clock::<K>(builder(1, 1));
    let late = pool.reserve(&context("ada", "thread_1")).unwrap();
    hand.advance(pool.config().reservation_deadline);
    let next = pool.reserve(&context("bob", "thread_1")).unwrap();
    assert_eq!(late.open().unwrap_err(), OpenError::Expired);
    std::mem::forget(next);
    assert_eq!(pool.maintain(pool.clock().now()).expired, 0);
    hand.advance(pool.config().reservation_deadline);
    assert_eq!(pool.maintain(pool.clock().now()).expired, 1);
    assert_eq!(pool.ledger().tally.expired, 2);
    assert_empty(&pool);
}

fn a_lease_ends_once_and_its_owner_learns_why<K: Kind>() {
    let pool = make::<K>(5, 5);
    let mut lease = connect(&pool, "ada", "thread_1");
    let key = lease.key();
    assert_eq!(pool.evict_if(key, EndReason::Idle, |manager| manager.messages_in() > 0), Ok(false));
    assert!(lease.is_live());
    assert_eq!(pool.evict_if(key, EndReason::Idle, |manager| manager.messages_in() == 0), Ok(true));
    assert_eq!(pool.evict(key, EndReason::Operator), Err(Late));
    assert_eq!(pool.evict_if(key, EndReason::Operator, |_| true), Err(Late));

    let why = lease.revoked().unwrap();
    assert_eq!((why.reason(), why.close_code()), (EndReason::Idle, 4003));
    assert_eq!(lease.with(|_| ()), Err(why));
    assert_eq!(lease.with_session(|_| ()), Err(why));
    assert_eq!(lease.received(1), Err(why));
    assert_eq!(lease.next_message(), Err(why));
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(lease.poll_message(&mut cx), Poll::Ready(Err(why)));
    for step in [P::<K>::connected, P::<K>::closing, P::<K>::disconnected, P::<K>::errored] {
        assert_eq!(step(&lease), Err(TransitionError::Revoked(why)));
    }
    assert_eq!(lease.close(EndReason::Closed), Err(Late));

    let _leases = ["thread_1", "thread_2"].map(|thread| connect(&pool, "ada", thread));
    let bobs = connect(&pool, "bob", "thread_1");
    let cleaned = || pool.cleanup_all_user_managers(&user("ada"), EndReason::Operator).cleaned;
    assert_eq!([cleaned(), cleaned()], [2, 0]);
    assert!(bobs.is_live());
    drop(bobs);
    assert_empty(&pool);
    assert_eq!(pool.ledger().tally.ends_by_reason, [("idle", 1), ("operator", 2), ("dropped", 1)].into());
}

type P<K> = <<K as Kind>::Of<()> as ManagerPool>::Lease;

fn the_state_moves_by_the_protocol_only<K: Kind>() {
    let pool = make::<K>(5, 5);
    let lease = connect(&pool, "ada", "thread_1");
    let state = || lease.with(|manager| manager.state()).unwrap();
    assert_eq!(state(), ManagerState::Connecting);
    assert!(matches!(lease.closing(), Err(TransitionError::Invalid(_))));
    lease.connected().unwrap();
    lease.errored().unwrap();
    assert_eq!(state(), ManagerState::Errored);
    lease.connected().unwrap();
    lease.closing().unwrap();
    assert_eq!(state(), ManagerState::Closing);
    lease.disconnected().unwrap();
    assert_eq!(lease.with(|manager| manager.is_reusable()), Ok(true));
    assert!(matches!(lease.connected(), Err(TransitionError::Invalid(_))));
}

fn a_stale_key_does_nothing<K: Kind>() {
    let (pool, other) = (make::<K>(1, 1), make::<K>(1, 1));
    let foreign = connect(&other, "ada", "thread_1");
    let old = connect(&pool, "ada", "thread_1");
    let stale = [old.key(), foreign.key(), ManagerKey::from_bits(0), ManagerKey::from_bits(u64::MAX)];
    drop(old);
    let mut next = connect(&pool, "bob", "thread_1");
    assert_eq!(next.key().index(), stale[0].index(), "the slot is used again");
    for key in stale {
        assert_eq!(pool.evict(key, EndReason::Operator), Err(Late));
        assert_eq!(pool.evict_if(key, EndReason::Operator, |_| true), Err(Late));
        assert_eq!(pool.inspect(key, |_| ()), None);
        assert_eq!(pool.send(key, "x".into()), SendOutcome::Stale);
        assert_eq!(pool.send_many(&[key], "x".into()).sum.stale, 1);
    }
    assert_eq!(texts(&mut next), [""; 0]);
    assert!(next.is_live() && foreign.is_live());
}

fn a_drain_refuses_and_harms_nobody<K: Kind>() {
    let pool = make::<K>(1, 1);
    let lease = connect(&pool, "ada", "thread_1");
    let mut wait = pool.reserve_wait(&context("bob", "thread_1"));
    assert!(poll(&mut wait, &Arc::default()).is_pending());
    assert!(!pool.is_draining());
    pool.start_drain();
    assert!(pool.is_draining() && pool.snapshot().draining);
    assert_eq!(served::<K::Of<()>>(&mut wait).unwrap_err(), ReserveError::Draining);
    assert_eq!(pool.reserve(&context("ada", "thread_1")).unwrap_err(), ReserveError::Draining);
    assert_eq!(pool.snapshot().refused.draining, 2);
    assert!(lease.is_live());
    drop(lease);
    assert_empty(&pool);
}

fn a_name_is_one_pools<K: Kind>() {
    let named = || Pool::builder().environment(Environment::Ci).name(std::any::type_name::<K>());
    let (line, pool) = (line!(), K::build::<()>(named()).unwrap());
    let Err(BuildError::NameTaken { name, first }) = K::build::<()>(named()) else { panic!("a second one") };
    assert_eq!((name.as_str(), first.file(), first.line()), (pool.name(), file!(), line));
    let clone = pool.clone();
    assert_eq!(clone, pool);
    drop(pool);
    assert!(K::build::<()>(named()).is_err(), "a clone lives");
    let lease = connect(&clone, "ada", "thread_1");
    drop(clone);
    assert!(lease.is_live() && K::build::<()>(named()).is_err(), "a lease keeps its pool");
    drop(lease);
    let kept = K::build::<()>(named()).unwrap().leak();
    drop(kept);
    assert!(K::build::<()>(named()).is_err(), "leaked");
}
