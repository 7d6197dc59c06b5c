//! One sweep engine: who is due, who is spared, and what a report says.

mod common;

use common::{assert_counts, builder, context};
use std::time::Duration;
use ws_manager_pool::{
    AtLimit, EndReason, Environment, Lease, ManualClock, Operation, Pool, PoolBuilder, Scope, Strategy,
    SweepPolicy, UserId,
};

const SECOND: Duration = Duration::from_secs(1);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// Production's numbers, a small pool, and a clock that stands still.
fn build(name: &str, set: impl FnOnce(PoolBuilder<()>) -> PoolBuilder<()>) -> (Pool, ManualClock) {
    let (clock, hand) = ws_manager_pool::Clock::manual();
    let builder = builder(name, 1_000).environment(Environment::Production).clock(clock);
    (set(builder.capacity(1_000)).build().unwrap(), hand)
}

fn open(pool: &Pool, user: &str) -> Lease {
    let lease = pool.reserve(&context(user, None)).unwrap().open().unwrap();
    lease.connected().unwrap();
    lease
}

fn sweep(pool: &Pool, scope: Scope<'_>, policy: SweepPolicy) -> ws_manager_pool::SweepReport {
    pool.sweep(scope, policy, pool.clock().now(), Duration::MAX)
}

#[test]
fn a_background_sweep_takes_the_dead_and_nothing_else() {
    let (pool, hand) = build("sweep-background", |builder| builder);
    let idle = open(&pool, "ada");
    let errored = open(&pool, "ada");
    errored.errored().unwrap();
    hand.advance(seconds(300));
    let gone = open(&pool, "bob");
    gone.closing().unwrap();
    gone.disconnected().unwrap();
    hand.advance(seconds(299));
    errored.received(1).unwrap(); // active, but errored for too long
    let active = open(&pool, "bob");
    hand.advance(SECOND);

    let report = sweep(&pool, Scope::Pool, SweepPolicy::Background);
    assert_eq!((report.visited, report.found, report.cleaned, report.spared), (4, 3, 3, 0), "{report:?}");
    for strategy in [Strategy::Disconnected, Strategy::Idle, Strategy::Errored] {
        assert_eq!((report.of(strategy).found, report.of(strategy).cleaned), (1, 1), "{strategy:?}");
    }
    assert_eq!(report.of(Strategy::Forced).found, 0);
    assert_eq!(report.by_user, [(user("ada"), 2), (user("bob"), 1)].into());
    assert!(report.is_complete);
    assert_eq!(idle.revoked().unwrap().reason(), EndReason::Idle);
    assert_eq!(errored.revoked().unwrap().reason(), EndReason::Errored);
    assert_eq!(gone.revoked().unwrap().reason(), EndReason::Disconnected);
    assert!(active.is_live());
    assert_counts(&pool, 1, 0, 0);
}

#[test]
fn a_manager_that_is_old_but_active_is_never_due() {
    let (pool, hand) = build("sweep-old", |builder| builder);
    let lease = open(&pool, "ada");
    for _ in 0..24 * 60 {
        hand.advance(seconds(60));
        lease.received(1).unwrap();
        for policy in [SweepPolicy::Background, SweepPolicy::Proactive, SweepPolicy::Emergency] {
            assert_eq!(sweep(&pool, Scope::Pool, policy).found, 0);
        }
    }
    assert!(lease.is_live());
}

#[test]
fn each_policy_has_its_own_idle_time() {
    for (policy, idle) in
        [(SweepPolicy::Proactive, 180), (SweepPolicy::Emergency, 300), (SweepPolicy::Background, 600)]
    {
        let (pool, hand) = build("sweep-idle", |builder| builder);
        let _lease = open(&pool, "ada");
        hand.advance(seconds(idle - 1));
        assert_eq!(sweep(&pool, Scope::Pool, policy).found, 0, "{policy:?}");
        hand.advance(SECOND);
        assert_eq!(sweep(&pool, Scope::Pool, policy).cleaned, 1, "{policy:?}");
    }
}

#[test]
fn a_run_protects_its_manager_until_it_ends_or_thirty_minutes_have_passed() {
    let (pool, hand) = build("sweep-run", |builder| builder);
    let lease = open(&pool, "ada");
    let first = lease.begin_run().unwrap();
    let second = lease.begin_run().unwrap();
    hand.advance(seconds(1_000));
    let report = sweep(&pool, Scope::Pool, SweepPolicy::Background);
    assert_eq!((report.found, report.spared, report.cleaned), (1, 1, 0));
    assert_eq!(sweep(&pool, Scope::User(&user("ada")), SweepPolicy::Proactive).cleaned, 0);
    drop(first);
    assert_eq!(sweep(&pool, Scope::Pool, SweepPolicy::Background).spared, 1, "one run goes on");
    drop(second);
    assert_eq!(sweep(&pool, Scope::Pool, SweepPolicy::Background).cleaned, 1);

    let lease = open(&pool, "ada");
    let forgotten = lease.begin_run().unwrap();
    hand.advance(seconds(30 * 60 - 1));
    assert_eq!(sweep(&pool, Scope::Pool, SweepPolicy::Background).spared, 1);
    hand.advance(SECOND);
    assert_eq!(sweep(&pool, Scope::Pool, SweepPolicy::Background).cleaned, 1);
    drop(forgotten); // and disturbs nobody
    let next = open(&pool, "bob");
    assert!(!next.with(|manager| manager.is_running(pool.clock().now())).unwrap());
}

#[test]
fn the_next_occupant_of_a_slot_is_in_no_run() {
    let (pool, _) = build("sweep-run-reuse", |builder| builder.capacity(1));
    let lease = open(&pool, "ada");
    let run = lease.begin_run().unwrap();
    drop(lease);
    let next = open(&pool, "bob");
    let own = next.begin_run().unwrap();
    drop(run); // ends the last occupant's run, not this one's
    assert!(next.with(|manager| manager.is_running(pool.clock().now())).unwrap());
    drop(own);
    assert!(next.begin_run().is_ok());
}

#[test]
fn an_emergency_takes_a_dead_manager_in_a_run_only_if_nothing_else_can_go() {
    let (pool, hand) = build("sweep-last-resort", |builder| builder.max_managers_per_user(5));
    let leases: Vec<_> = (0..5).map(|_| open(&pool, "ada")).collect();
    let _run = leases[0].begin_run().unwrap();
    hand.advance(seconds(299));
    leases[3].received(1).unwrap();
    leases[4].received(1).unwrap();
    hand.advance(SECOND);
    let report = sweep(&pool, Scope::User(&user("ada")), SweepPolicy::Emergency);
    assert_eq!((report.cleaned, report.spared), (2, 1), "two others could go: {report:?}");
    assert!(leases[0].is_live());

    let more: Vec<_> = (0..2).map(|_| open(&pool, "ada")).collect();
    // At four of five the reservation itself was an emergency.
    assert!(!leases[0].is_live(), "nothing else could go");
    assert!(more.iter().all(Lease::is_live));
}

#[test]
fn an_emergency_forces_out_the_oldest_where_the_policy_allows_it_and_five_at_most() {
    let forced = |policy, max: usize| {
        let (pool, hand) =
            build("sweep-forced", |builder| builder.max_managers_per_user(max).at_limit(policy));
        let leases: Vec<_> = (0..max)
            .map(|_| {
                hand.advance(SECOND);
                open(&pool, "ada")
            })
            .collect();
        let report = sweep(&pool, Scope::User(&user("ada")), SweepPolicy::Emergency);
        let ended: Vec<_> = (0..max).filter(|&at| !leases[at].is_live()).collect();
        for &at in &ended {
            assert_eq!(leases[at].revoked().unwrap().reason(), EndReason::Limit);
        }
        assert_eq!(report.of(Strategy::Forced).cleaned, ended.len());
        ended
    };
    assert_eq!(forced(AtLimit::Reject, 20), [0; 0], "an active one is never forced out under `Reject`");
    // Until the level is below critical: 15 of 20.
    assert_eq!(forced(AtLimit::EvictOldest, 20), [0, 1, 2, 3, 4]);
    assert_eq!(forced(AtLimit::EvictOldest, 10), [0, 1, 2]);
    assert_eq!(forced(AtLimit::EvictOldest, 100), [0, 1, 2, 3, 4], "five at most");
}

#[test]
fn who_became_active_between_the_look_and_its_turn_is_spared() {
    // `evict_if` looks again, in the section: here the look is made to be out of date.
    let (pool, hand) = build("sweep-spared", |builder| builder);
    let lease = open(&pool, "ada");
    hand.advance(seconds(600));
    let now = pool.clock().now();
    let ended = pool.evict_if(lease.key(), EndReason::Idle, |manager| {
        lease.received(1).unwrap();
        manager.idle(now) >= seconds(600)
    });
    assert_eq!(ended, Ok(false));
    assert!(lease.is_live());
}

#[test]
fn a_sweep_stops_at_its_budget_and_goes_on_where_it_stopped() {
    let (pool, hand) =
        build("sweep-budget", |builder| builder.capacity(20_000).max_managers_per_user(20_000));
    let leases: Vec<_> = (0..20_000).map(|_| open(&pool, "ada")).collect();
    hand.advance(seconds(600));
    let now = pool.clock().now();
    let (mut cleaned, mut pieces) = (0, 0);
    let mut scope = Scope::Pool;
    loop {
        let report = pool.sweep(scope, SweepPolicy::Background, now, Duration::ZERO);
        cleaned += report.cleaned;
        pieces += 1;
        assert!(report.cleaned > 0, "each piece gets on");
        assert_eq!(report.is_complete, report.resume_at.is_none());
        match report.resume_at {
            Some(cursor) => scope = Scope::Rest(cursor),
            None => break,
        }
    }
    assert_eq!(cleaned, leases.len());
    assert!(pieces > 4, "{pieces} pieces");
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_round_that_remembers_misses_nothing() {
    let (pool, hand) = build("sweep-marks", |builder| builder);
    let round = || {
        hand.advance(seconds(60));
        let done = pool.maintain(pool.clock().now());
        done.sweeps.last().unwrap().cleaned
    };
    let (idle, errored, gone) = (open(&pool, "ada"), open(&pool, "ada"), open(&pool, "ada"));
    assert_eq!((0..4).map(|_| round()).sum::<usize>(), 0, "all are marked as well for ten minutes");
    errored.errored().unwrap();
    gone.closing().unwrap();
    gone.disconnected().unwrap();
    assert_eq!(round(), 1);
    assert!(!gone.is_live(), "its own state made it due before its mark");
    let next = open(&pool, "bob");
    assert_eq!(next.key().index(), gone.key().index(), "a mark is one occupant's");
    next.closing().unwrap();
    next.disconnected().unwrap();
    assert_eq!(round(), 1);
    idle.received(1).unwrap();
    assert_eq!((0..3).map(|_| round()).sum::<usize>(), 1);
    assert!(!errored.is_live() && idle.is_live());
    let mut config = ws_manager_pool::Config::clone(&pool.config());
    config.idle_background = Some(seconds(240));
    (config.idle_proactive, config.idle_emergency) = (seconds(180), seconds(240));
    pool.reconfigure(config).unwrap();
    assert_eq!(round(), 1, "other numbers");
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn an_operator_cleans_by_context_and_by_user() {
    let (pool, _) =
        build("sweep-operator", |builder| builder.duplicates(ws_manager_pool::DuplicatePolicy::Allow));
    let first = pool.reserve(&context("ada", "thread_1")).unwrap().open().unwrap();
    let _run = first.begin_run().unwrap();
    let second = pool.reserve(&context("ada", "thread_1")).unwrap().open().unwrap();
    let other = pool.reserve(&context("ada", "thread_2")).unwrap().open().unwrap();
    let bob = pool.reserve(&context("bob", "thread_1")).unwrap().open().unwrap();

    let report = pool.cleanup_manager_by_context(&context("ada", "thread_1"), EndReason::Operator);
    assert_eq!(report.cleaned, 2);
    assert!(!first.is_live() && !second.is_live() && other.is_live() && bob.is_live());

    // Ids that were made twice: nothing is cleaned, and it is counted.
    let report = pool.cleanup_manager_by_context(&context("ada", None), EndReason::Operator);
    assert_eq!((report.visited, report.cleaned), (0, 0));
    assert_eq!(pool.snapshot().mismatches, 1);
    assert!(other.is_live());

    assert_eq!(pool.cleanup_all_user_managers(&user("ada"), EndReason::Operator).cleaned, 1);
    assert_eq!(pool.cleanup_all_user_managers(&user("ada"), EndReason::Operator).cleaned, 0);
    assert_counts(&pool, 1, 0, 0);
}

#[test]
fn evicting_some_and_shrinking_to_some_are_two_things() {
    let (pool, hand) = build("sweep-some", |builder| builder);
    let leases: Vec<_> = (0..10)
        .map(|number| {
            hand.advance(SECOND);
            open(&pool, if number % 2 == 0 { "ada" } else { "bob" })
        })
        .collect();
    let _run = leases[0].begin_run().unwrap();
    let live = || (0..10).filter(|&at| leases[at].is_live()).collect::<Vec<_>>();
    assert_eq!(pool.evict_oldest(Scope::User(&user("ada")), 2).cleaned, 2);
    assert_eq!(live(), [0, 1, 3, 5, 6, 7, 8, 9], "the one in a run goes last");
    assert_eq!(pool.shrink_to(Scope::Pool, 3).cleaned, 5);
    assert_eq!(live(), [0, 8, 9]);
    assert_eq!(pool.shrink_to(Scope::Pool, 3).cleaned, 0);
    assert_eq!(pool.evict_oldest(Scope::Pool, 100).cleaned, 3);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn the_books_know_each_operation() {
    let (pool, hand) = build("sweep-books", |builder| builder);
    let _idle: Vec<_> = (0..3).map(|_| open(&pool, "ada")).collect();
    hand.advance(seconds(600));
    let _ = sweep(&pool, Scope::Pool, SweepPolicy::Background);
    let _late = open(&pool, "ada");
    let _ = pool.evict_oldest(Scope::Pool, 1);
    let snapshot = pool.snapshot();
    let of = |operation| snapshot.cleanups.iter().find(|metrics| metrics.operation == operation).unwrap();
    let background = of(Operation::Background);
    assert_eq!((background.runs, background.attempts, background.successes), (1, 3, 3));
    assert_eq!(background.last_at, Some(pool.clock().now()));
    assert_eq!(background.durations.iter().map(|bucket| bucket.sweeps).sum::<u64>(), 1);
    assert_eq!((of(Operation::Operator).runs, of(Operation::Operator).successes), (1, 1));
    assert_eq!(of(Operation::Proactive).runs, 0);
    assert!((of(Operation::Proactive).success_ratio - 1.0).abs() < f64::EPSILON);
}
