//! Who is dead, who is cleaned when, and who is spared.

use crate::support::{Ear, Kind, assert_empty, builder, connect, context, user, with_clock};
use std::time::Duration;
use ws_manager_pool::{
    AlertLevel, AtLimit, Config, EndReason, ManagerLease, ManagerPool, ManagerReservation, ManualClock,
    Operation, PoolBuilder, ReserveError, Scope, Strategy, SweepPolicy,
};

on_both! {
    each_policy_ends_its_own_dead_and_nobody_else,
    a_scope_bounds_a_sweep,
    a_run_protects_while_another_can_go,
    an_operator_ends_whom_he_names,
    the_dead_go_before_the_next_reservation,
    the_policy_at_the_limit_chooses_the_victim_and_open_ends_it,
    a_users_own_policy_comes_first,
    a_place_is_claimed_also_behind_somebody_who_waits_for_a_slot,
    a_new_connection_is_claimed_by_who_waits_for_it,
    an_emergency_forces_out_only_where_the_policy_allows_it,
}

const SECOND: Duration = Duration::from_secs(1);
const BUDGET: Duration = Duration::from_secs(10);

/// Idle is 2 s before a reservation, 3 s in an emergency, 4 s in the background; errored is 20 s.
fn hasty(capacity: usize, per_user: usize) -> PoolBuilder {
    builder(capacity, per_user)
        .idle_background(Some(4 * SECOND))
        .idle_proactive(2 * SECOND)
        .idle_emergency(3 * SECOND)
        .errored_after(20 * SECOND)
        .proactive_threshold(1.0)
}

/// Connects a millisecond later than anybody before, so that there is an oldest.
fn connect_later<P: ManagerPool>(pool: &P, hand: &ManualClock, user: &str, thread: &str) -> P::Lease {
    hand.advance(Duration::from_millis(1));
    let lease = connect(pool, user, thread);
    lease.connected().unwrap();
    lease
}

fn each_policy_ends_its_own_dead_and_nobody_else<K: Kind>() {
    let (pool, hand) = with_clock::<K>(hasty(10, 10));
    let sweep = |policy| pool.sweep(Scope::Pool, policy, pool.clock().now(), BUDGET);
    let cleaned = |policy| {
        let report = sweep(policy);
        assert!(report.is_complete);
        Strategy::ALL.map(|strategy| report.of(strategy).cleaned)
    };
    let active = connect_later(&pool, &hand, "ada", "thread_1");
    let errored = connect_later(&pool, &hand, "ada", "thread_2");
    errored.errored().unwrap();
    let gone = connect_later(&pool, &hand, "bob", "thread_1");
    gone.closing().unwrap();
    gone.disconnected().unwrap();
    let _idle = connect_later(&pool, &hand, "bob", "thread_2");

    assert_eq!(sweep(SweepPolicy::Proactive).by_user, [(user("bob"), 1)].into());
    assert_eq!(gone.revoked().unwrap().reason(), EndReason::Disconnected);
    for (policy, seconds) in
        [(SweepPolicy::Proactive, 2), (SweepPolicy::Emergency, 3), (SweepPolicy::Background, 4)]
    {
        let idle = connect_later(&pool, &hand, "cyd", "thread_1");
        hand.advance(seconds * SECOND - Duration::from_millis(1));
        for kept in [&active, &errored] {
            kept.received(1).unwrap();
        }
        let _ = cleaned(policy); // those of the turn before
        assert!(idle.is_live(), "not yet: {policy:?}");
        hand.advance(Duration::from_millis(1));
        assert_eq!(cleaned(policy), [0, 1, 0, 0]);
        assert_eq!(idle.revoked().unwrap().reason(), EndReason::Idle);
    }
    hand.advance(20 * SECOND);
    for kept in [&active, &errored] {
        kept.received(1).unwrap();
    }
    assert_eq!(cleaned(SweepPolicy::Background), [0, 0, 1, 0], "active, but errored for long");
    assert_eq!(errored.revoked().unwrap().reason(), EndReason::Errored);
    assert!(active.is_live());
    let report = sweep(SweepPolicy::Operator(EndReason::Drain));
    assert_eq!(
        (report.operation, report.found, report.cleaned, report.visited),
        (Operation::Operator, 1, 1, 1)
    );
    assert_eq!(active.revoked().unwrap().reason(), EndReason::Drain);
    assert_empty(&pool);
    let metrics = pool.snapshot().cleanups;
    assert_eq!(metrics.iter().map(|of| of.operation).collect::<Vec<_>>(), Operation::ALL);
    assert!(
        metrics.iter().all(|of| of.failures == 0 && of.successes == of.attempts && of.success_ratio == 1.0)
    );
}

fn a_scope_bounds_a_sweep<K: Kind>() {
    let (pool, hand) = with_clock::<K>(hasty(10, 10));
    let all = [("ada", "thread_1"), ("ada", "thread_2"), ("bob", "thread_1"), ("cyd", "thread_1")];
    let leases = all.map(|(user, thread)| connect_later(&pool, &hand, user, thread));
    hand.advance(10 * SECOND);
    let live = || leases.each_ref().map(ManagerLease::is_live);
    let thread = context("ada", "thread_2").isolation_key();
    let sweep = |scope: Scope<'_>, policy| pool.sweep(scope, policy, pool.clock().now(), BUDGET).cleaned;
    assert_eq!(sweep(Scope::Thread(&thread), SweepPolicy::Background), 1);
    assert_eq!(live(), [true, false, true, true]);
    assert_eq!(pool.snapshot().mismatches, 0);
    assert_eq!(sweep(Scope::Thread(&thread), SweepPolicy::Background), 0);
    assert_eq!(pool.snapshot().mismatches, 1, "she has connections, but none of this thread");
    assert_eq!(sweep(Scope::User(&user("bob")), SweepPolicy::Emergency), 1);
    assert_eq!(live(), [true, false, false, true]);
    assert_eq!(sweep(Scope::User(&user("eve")), SweepPolicy::Emergency), 0);
    assert_eq!(sweep(Scope::Rest(Default::default()), SweepPolicy::Proactive), 2, "from the start");
}

fn a_run_protects_while_another_can_go<K: Kind>() {
    let (pool, hand) = with_clock::<K>(hasty(10, 2));
    let first = connect_later(&pool, &hand, "ada", "thread_1");
    let second = connect_later(&pool, &hand, "ada", "thread_2");
    let runs = [first.begin_run().unwrap(), first.begin_run().unwrap()];
    hand.advance(5 * SECOND);
    for policy in [SweepPolicy::Proactive, SweepPolicy::Background] {
        let report = pool.sweep(Scope::User(&user("ada")), policy, pool.clock().now(), BUDGET);
        assert_eq!((report.found - report.cleaned, report.spared), (1, 1), "{policy:?}");
    }
    assert_eq!((first.is_live(), second.is_live()), (true, false));
    drop(runs);
    let sweep = |policy| pool.sweep(Scope::User(&user("ada")), policy, pool.clock().now(), BUDGET).cleaned;
    assert_eq!(sweep(SweepPolicy::Background), 1, "the runs are over");

    let leases = ["thread_1", "thread_2"].map(|thread| connect_later(&pool, &hand, "ada", thread));
    let runs = leases.each_ref().map(|lease| lease.begin_run().unwrap());
    hand.advance(5 * SECOND);
    assert_eq!(sweep(SweepPolicy::Background), 0);
    assert_eq!(sweep(SweepPolicy::Emergency), 1, "nobody else can go, and one is enough");
    assert!(leases[0].begin_run().is_err());
    drop(runs);

    pool.set_user_limit(&user("ada"), Some(5));
    let leases = [1, 2, 3, 4, 5].map(|n| connect_later(&pool, &hand, "ada", &format!("thread_{n}")));
    let runs = [1, 2, 3, 4].map(|n| leases[n].begin_run().unwrap());
    hand.advance(5 * SECOND);
    assert_eq!(sweep(SweepPolicy::Emergency), 1, "four of five is critical still, but another could go");
    assert!(!leases[0].is_live());
    drop((runs, leases));

    let lease = connect_later(&pool, &hand, "ada", "thread_1");
    let forgotten = lease.begin_run().unwrap();
    hand.advance(pool.config().run_limit);
    assert_eq!(sweep(SweepPolicy::Background), 1, "it ran for longer than a run may");
    drop(forgotten);
    assert_empty(&pool);
}

fn an_operator_ends_whom_he_names<K: Kind>() {
    let (pool, hand) = with_clock::<K>(hasty(10, 10));
    let leases: Vec<_> = ["thread_1", "thread_2", "thread_3", "thread_4"]
        .map(|thread| connect_later(&pool, &hand, "ada", thread))
        .into();
    let bobs = connect_later(&pool, &hand, "bob", "thread_1");
    let live = || leases.iter().map(ManagerLease::is_live).collect::<Vec<_>>();
    let _run = leases[0].begin_run().unwrap();
    assert_eq!(pool.evict_oldest(Scope::User(&user("ada")), 1).cleaned, 1);
    assert_eq!(live(), [true, false, true, true], "who is in a run goes last");
    let report = pool.shrink_to(Scope::User(&user("ada")), 1);
    assert_eq!((report.visited, report.cleaned, report.of(Strategy::Forced).cleaned), (3, 2, 2));
    assert_eq!(live(), [true, false, false, false]);
    assert_eq!(pool.shrink_to(Scope::Pool, 5).cleaned, 0);
    let wrong = context("ada", "thread_9");
    assert_eq!(pool.cleanup_manager_by_context(&wrong, EndReason::Operator).cleaned, 0);
    assert_eq!(pool.snapshot().mismatches, 1);
    let right = context("ada", "thread_1");
    assert_eq!(pool.cleanup_manager_by_context(&right, EndReason::Closed).cleaned, 1);
    assert_eq!(leases[0].revoked().unwrap().reason(), EndReason::Closed);
    assert_eq!(pool.evict_oldest(Scope::Pool, usize::MAX).cleaned, 1);
    assert_eq!(bobs.revoked().unwrap().reason(), EndReason::Operator);
    assert_empty(&pool);
}

fn the_dead_go_before_the_next_reservation<K: Kind>() {
    let (pool, hand) = with_clock::<K>(hasty(10, 4).proactive_threshold(0.5));
    let first = connect_later(&pool, &hand, "ada", "thread_1");
    hand.advance(2 * SECOND);
    drop(pool.reserve(&context("ada", "thread_9")).unwrap());
    assert!(first.is_live(), "one of four: nobody looks");
    let second = connect_later(&pool, &hand, "ada", "thread_2");
    let third = connect_later(&pool, &hand, "ada", "thread_3");
    assert_eq!((first.is_live(), second.is_live()), (false, true));
    assert_eq!(pool.snapshot().cleanups[0].successes, 1);
    third.closing().unwrap();
    third.disconnected().unwrap();
    let wait = &mut pool.reserve_wait(&context("ada", "thread_4"));
    drop(crate::support::served::<K::Of<()>>(wait).unwrap());
    assert!(!third.is_live(), "who waits cleans too");
    drop(second);
    assert_empty(&pool);
}

fn the_policy_at_the_limit_chooses_the_victim_and_open_ends_it<K: Kind>() {
    for (policy, victim) in [(AtLimit::EvictOldest, 1), (AtLimit::EvictIdlest, 2)] {
        let (pool, hand) = with_clock::<K>(hasty(10, 3).at_limit(policy));
        let leases =
            ["thread_1", "thread_2", "thread_3"].map(|thread| connect_later(&pool, &hand, "ada", thread));
        let _run = leases[0].begin_run().unwrap();
        hand.advance(Duration::from_millis(1));
        leases[1].received(1).unwrap();
        let given_up = pool.reserve(&context("ada", "thread_4")).unwrap();
        drop(given_up);
        let claim = pool.reserve(&context("ada", "thread_4")).unwrap();
        assert!(leases.iter().all(ManagerLease::is_live), "a handshake that may fail harms nobody");
        let new = claim.open().unwrap();
        assert_eq!(leases[victim].revoked().unwrap().reason(), EndReason::Limit, "{policy:?}");
        assert_eq!((pool.snapshot().live, new.is_live()), (3, true));
        let tally = pool.ledger().tally;
        assert_eq!(tally.begins_by_cause, [("fresh", 3), ("limit", 1)].into());
        assert_eq!((tally.inherited, tally.ends_by_reason["limit"]), (1, 1));
        let claims: Vec<_> =
            (5..8).map(|n| pool.reserve(&context("ada", &format!("thread_{n}"))).unwrap()).collect();
        let error = pool.reserve(&context("ada", "thread_8")).unwrap_err();
        assert_eq!(error, ReserveError::UserFull { max_managers: 3 }, "one claim for each");
        drop((claims, leases, new));
        assert_empty(&pool);
    }
}

fn a_users_own_policy_comes_first<K: Kind>() {
    let (pool, hand) = with_clock::<K>(hasty(2, 1));
    let adas = connect_later(&pool, &hand, "ada", "thread_1");
    assert!(pool.reserve(&context("ada", "thread_2")).is_err());
    pool.set_user_policy(&user("ada"), Some(AtLimit::EvictOldest));
    drop(pool.reserve(&context("ada", "thread_2")).unwrap());
    let _bobs = connect_later(&pool, &hand, "bob", "thread_1");
    pool.set_user_limit(&user("ada"), Some(2));
    let full = pool.reserve(&context("ada", "thread_2")).unwrap_err();
    assert_eq!(full, ReserveError::PoolFull { capacity: 2 }, "a full pool ends nobody's connection");
    pool.set_user_limit(&user("ada"), None);
    pool.set_user_policy(&user("ada"), None);
    assert!(pool.reserve(&context("ada", "thread_2")).is_err());
    assert!(adas.is_live());
}

fn a_place_is_claimed_also_behind_somebody_who_waits_for_a_slot<K: Kind>() {
    use ws_manager_pool::DuplicatePolicy::{Allow, Reject, Replace};
    for duplicates in [Replace, Reject, Allow] {
        let (pool, hand) = with_clock::<K>(hasty(1, 1).at_limit(AtLimit::EvictOldest).duplicates(duplicates));
        let old = connect_later(&pool, &hand, "ada", "thread_1");
        let mut bobs = pool.reserve_wait(&context("bob", "thread_1"));
        assert!(crate::support::poll(&mut bobs, &Default::default()).is_pending());
        let mut adas = pool.reserve_wait(&context("ada", "thread_2"));
        let new = crate::support::served::<K::Of<()>>(&mut adas).unwrap().open().unwrap();
        assert_eq!((old.is_live(), new.is_live()), (false, true));
    }
}

fn a_new_connection_is_claimed_by_who_waits_for_it<K: Kind>() {
    use ws_manager_pool::DuplicatePolicy::{Allow, Reject, Replace};
    for duplicates in [Replace, Reject, Allow] {
        let (pool, _hand) =
            with_clock::<K>(hasty(2, 1).at_limit(AtLimit::EvictOldest).duplicates(duplicates));
        let reserved = pool.reserve(&context("ada", "thread_1")).unwrap();
        let mut wait = pool.reserve_wait(&context("ada", "thread_2"));
        assert!(crate::support::poll(&mut wait, &Default::default()).is_pending());
        let first = reserved.open().unwrap();
        let second = crate::support::served::<K::Of<()>>(&mut wait).unwrap().open().unwrap();
        assert_eq!((first.is_live(), second.is_live()), (false, true));
    }
}

fn an_emergency_forces_out_only_where_the_policy_allows_it<K: Kind>() {
    // To just below critical, by force; or, where that is not enough, to half.
    for (policy, forced, left) in
        [(AtLimit::Reject, 5, 10), (AtLimit::EvictOldest, 5, 7), (AtLimit::EvictOldest, 1, 5)]
    {
        let ear = Ear::default();
        let (pool, hand) = with_clock::<K>(hasty(20, 10).at_limit(policy).observer(ear.clone()));
        let mut config = Config::clone(&pool.config());
        config.emergency_forced = forced;
        pool.reconfigure(config).unwrap();
        let leases: Vec<_> =
            (0..10).map(|n| connect_later(&pool, &hand, "ada", &format!("thread_{n}"))).collect();
        assert_eq!(pool.check_user(&user("ada")).alert_level, AlertLevel::Emergency);
        assert!(pool.maintain(pool.clock().now()).is_sampled);
        assert_eq!(pool.keys_of(&user("ada")).len(), left, "{policy:?}");
        assert!(leases[10 - left..].iter().all(ManagerLease::is_live), "the oldest go");
        let heard = ear.take();
        let ended: Vec<_> = heard.ends.iter().map(|end| (end.thread_id.to_string(), end.reason)).collect();
        let oldest: Vec<_> = (0..10 - left).map(|n| (format!("thread_{n}"), EndReason::Limit)).collect();
        assert_eq!(ended, oldest);
        let levels: Vec<_> = heard.alerts.iter().map(|alert| (alert.user_id.is_some(), alert.to)).collect();
        assert_eq!(levels[0], (true, AlertLevel::Emergency));
    }
}
