//! Maintenance, settings, those who observe, and what is remembered.

use crate::support::{
    Bell, Double, Ear, Kind, Real, assert_empty, builder, connect, context, poll, user, with_clock,
};
use std::sync::Arc;
use std::time::Duration;
use ws_manager_pool::{
    Alert, AlertLevel, Config, End, EndReason, ManagerLease, ManagerPool, ManagerReservation, ManagerState,
    Observer, QuotaDomain, ReserveError, Suspicion, Verdict,
};

on_both! {
    maintenance_does_what_is_due_and_says_when_it_was_forgotten,
    what_has_just_died_goes_in_the_next_round,
    a_level_is_told_when_it_changes_and_when_its_user_is_gone,
    an_observer_that_panics_is_counted_and_stops_nothing,
    a_manager_that_is_not_well_counts_as_errored,
    settings_are_replaced_and_rolled_back,
    a_shorter_time_takes_effect_at_once,
    the_last_ends_are_remembered,
    who_does_not_ask_for_messages_is_a_suspect,
    a_tenants_limit_holds_across_pools,
}

const SECOND: Duration = Duration::from_secs(1);

fn maintenance_does_what_is_due_and_says_when_it_was_forgotten<K: Kind>() {
    let builder = builder(10, 5)
        .sample_interval(2 * SECOND)
        .background_interval(3 * SECOND)
        .idle_background(Some(7 * SECOND))
        .idle_proactive(7 * SECOND)
        .idle_emergency(7 * SECOND);
    let (pool, hand) = with_clock::<K>(builder);
    let lease = connect(&pool, "ada", "thread_1");
    let mut did = Vec::new();
    for second in 0..8_u32 {
        let turn = pool.maintain(pool.clock().now());
        assert!(!turn.is_busy && turn.panics == 0 && turn.expired == 0);
        let cleaned: usize = turn.sweeps.iter().map(|sweep| sweep.cleaned).sum();
        did.push((second, turn.is_sampled, turn.sweeps.len(), cleaned));
        hand.advance(SECOND);
    }
    assert_eq!(
        did,
        [
            (0, true, 1, 0),
            (1, false, 0, 0),
            (2, true, 0, 0),
            (3, false, 1, 0),
            (4, true, 0, 0),
            (5, false, 0, 0),
            (6, true, 1, 0),
            (7, false, 0, 0),
        ]
    );
    assert!(lease.is_live(), "idle for 7 s, but nobody has looked");
    assert!(!pool.snapshot().maintenance.is_forgotten);
    hand.advance(8 * SECOND);
    let status = pool.snapshot().maintenance;
    assert_eq!((status.last_ms_ago, status.is_forgotten), (9_000, true));
    let _ = pool.maintain(pool.clock().now());
    assert_eq!(lease.revoked().unwrap().reason(), EndReason::Idle);
    assert!(!pool.snapshot().maintenance.is_forgotten);
    assert_eq!(pool.check(), Verdict::Balanced);
    assert_empty(&pool);
}

fn what_has_just_died_goes_in_the_next_round<K: Kind>() {
    let (pool, hand) = with_clock::<K>(builder(100, 50).errored_after(4 * SECOND));
    let leases = ["thread_1", "thread_2", "thread_3"].map(|thread| connect(&pool, "ada", thread));
    let cleaned = || {
        hand.advance(pool.config().background_interval);
        pool.maintain(pool.clock().now()).sweeps.iter().map(|sweep| sweep.cleaned).sum::<usize>()
    };
    assert_eq!(cleaned(), 0, "all are well, and known to be");
    leases[0].connected().unwrap();
    leases[0].closing().unwrap();
    leases[0].disconnected().unwrap();
    leases[1].errored().unwrap();
    assert_eq!(cleaned(), 2);
    assert_eq!(leases.each_ref().map(ManagerLease::is_live), [false, false, true]);
}

fn a_level_is_told_when_it_changes_and_when_its_user_is_gone<K: Kind>() {
    let ear = Ear::default();
    let (pool, hand) = with_clock::<K>(builder(100, 5).observer(ear.clone()));
    let alerts = || -> Vec<_> {
        hand.advance(5 * SECOND);
        let _ = pool.maintain(pool.clock().now());
        let told = ear.take().alerts.into_iter();
        told.map(|alert| (alert.user_id.unwrap().to_string(), alert.from, alert.to, alert.manager_count))
            .collect()
    };
    use AlertLevel::{Critical, Info, Normal, Warning};
    let mut leases: Vec<_> = ["1", "2"].map(|n| connect(&pool, "ada", &format!("thread_{n}"))).into();
    assert_eq!(alerts(), [("ada".to_owned(), Normal, Info, 2)]);
    assert_eq!(alerts(), []);
    assert_eq!(pool.snapshot().users_by_level[&Info], 1);
    let _bob = connect(&pool, "bob", "thread_1");
    leases.push(connect(&pool, "ada", "thread_3"));
    leases.push(connect(&pool, "ada", "thread_4"));
    let check = pool.check_user(&user("ada"));
    assert_eq!((check.manager_count, check.max_managers, check.usage_ratio), (4, 5, 0.8));
    assert_eq!(check.alert_level, Critical);
    assert_eq!(
        alerts(),
        [("ada".to_owned(), Info, Warning, 3), ("ada".to_owned(), Warning, Critical, 4)],
        "before the fourth, and at the sample"
    );
    drop(leases);
    assert_eq!(alerts(), [("ada".to_owned(), Critical, Normal, 0)]);
    assert_eq!(pool.check_user(&user("ada")).alert_level, Normal);
    assert_eq!(pool.snapshot().level, Normal);
}

struct Rude;

impl Observer for Rude {
    fn alert(&self, _: &Alert) {
        panic!("an observer's alert");
    }

    fn ended(&self, _: &End) {
        panic!("an observer's end");
    }
}

fn an_observer_that_panics_is_counted_and_stops_nothing<K: Kind>() {
    let (pool, _hand) = with_clock::<K>(builder(2, 2).observer(Rude));
    drop([connect(&pool, "ada", "thread_1"), connect(&pool, "ada", "thread_2")]);
    assert_eq!(pool.maintain(pool.clock().now()).panics, 0);
    let panics = pool.snapshot().observer_panics;
    assert!(panics >= 2, "{panics}");
    assert_empty(&pool);
}

fn a_manager_that_is_not_well_counts_as_errored<K: Kind>() {
    let well = |manager: &ws_manager_pool::PooledWebSocketManager<'_>| match manager.user_id().as_str() {
        "bob" => panic!("a check that panics"),
        user => user != "ada",
    };
    let builder =
        builder(10, 10).health_check(well).errored_after(9 * SECOND).background_interval(5 * SECOND);
    let (pool, hand) = with_clock::<K>(builder);
    let leases = ["ada", "bob", "cyd"].map(|user| connect(&pool, user, "thread_1"));
    assert_eq!(pool.maintain(pool.clock().now()).panics, 0);
    use ManagerState::{Connecting, Errored};
    let states = leases.each_ref().map(|lease| lease.with(|manager| manager.state()).unwrap());
    assert_eq!(states, [Errored, Errored, Connecting]);
    hand.advance(9 * SECOND);
    let _ = pool.maintain(pool.clock().now());
    assert_eq!(leases.each_ref().map(ManagerLease::is_live), [false, false, true]);
    assert_eq!(leases[1].revoked().unwrap().reason(), EndReason::Errored);
}

fn settings_are_replaced_and_rolled_back<K: Kind>() {
    let (pool, hand) = with_clock::<K>(builder(10, 1));
    let bell = Arc::<Bell>::default();
    let lease = connect(&pool, "ada", "thread_1");
    let mut wait = pool.reserve_wait(&context("ada", "thread_2"));
    assert!(poll(&mut wait, &bell).is_pending());
    let with = |change: fn(&mut Config)| {
        let mut config = Config::clone(&pool.config());
        change(&mut config);
        config
    };
    hand.advance(SECOND);
    let version = pool.reconfigure(with(|config| config.max_managers_per_user = 2)).unwrap();
    assert_eq!((version.number, version.since, bell.rings()), (2, pool.clock().now(), 1));
    assert_eq!(pool.snapshot().config, version);
    let error = pool.reconfigure(with(|config| config.capacity = 11)).unwrap_err();
    assert_eq!(error.field(), "capacity");
    let error = pool.reconfigure(with(|config| config.level_info = 0.0)).unwrap_err();
    assert_eq!(error.field(), "level_info");
    assert_eq!(pool.config_versions().iter().map(|kept| kept.number).collect::<Vec<_>>(), [1, 2]);
    drop(wait);
    let second = connect(&pool, "ada", "thread_2");
    assert_eq!(pool.rollback_config().unwrap().number, 1);
    assert_eq!(pool.config().max_managers_per_user, 1);
    assert!(pool.rollback_config().is_err());
    assert!(lease.is_live() && second.is_live(), "a lowered limit closes nobody");
    assert_eq!(pool.reconfigure(with(|_| ())).unwrap().number, 3, "a number is never used twice");
}

fn a_shorter_time_takes_effect_at_once<K: Kind>() {
    let (pool, hand) = with_clock::<K>(builder(10, 2));
    let lease = connect(&pool, "ada", "thread_1");
    drop(pool.reserve(&context("ada", "thread_2")).unwrap());
    hand.advance(SECOND);
    let mut config = Config::clone(&pool.config());
    config.idle_proactive = SECOND;
    pool.reconfigure(config).unwrap();
    drop(pool.reserve(&context("ada", "thread_2")).unwrap());
    assert_eq!(lease.revoked().unwrap().reason(), EndReason::Idle);
}

/// Ends that are remembered of one user.
const KEPT: usize = 4;

fn the_last_ends_are_remembered<K: Kind>() {
    let (pool, hand) = with_clock::<K>(builder(10, 5));
    let (line, mut runs) = (line!() + 4, Vec::new());
    for round in 0..10 {
        hand.advance(SECOND);
        let context = context("ada", &format!("thread_{round}"));
        let lease = pool.reserve(&context).unwrap().open().unwrap();
        runs.push(context.run_id());
        hand.advance(SECOND);
        lease.close(EndReason::Closed).unwrap();
    }
    hand.advance(SECOND);
    drop(connect(&pool, "bob", "thread_1"));
    let ends = pool.last_ends_of(&user("ada"));
    assert_eq!(ends.len(), KEPT);
    runs.reverse();
    assert_eq!(ends.iter().map(|end| end.run_id).collect::<Vec<_>>(), runs[..KEPT]);
    assert_eq!((ends[0].reason, ends[0].thread_id.to_string()), (EndReason::Closed, "thread_9".to_owned()));
    assert_eq!(ends[0].ended_at.since(ends[0].opened_at), SECOND);
    assert_eq!((ends[0].made_at.file(), ends[0].made_at.line()), (file!(), line));
    assert_eq!(pool.inspect(ends[0].key, |_| ()), None);
    let last = pool.last_ends(2);
    assert_eq!(last.iter().map(|end| end.user_id.as_str()).collect::<Vec<_>>(), ["bob", "ada"]);
    assert_eq!(last[0].reason, EndReason::Dropped);
    assert!(pool.last_ends(0).is_empty() && pool.last_ends_of(&user("eve")).is_empty());
    assert_eq!(pool.last_ends(100).len(), KEPT + 1);
}

fn who_does_not_ask_for_messages_is_a_suspect<K: Kind>() {
    let (pool, hand) = with_clock::<K>(builder(10, 5));
    let config = pool.config();
    let (silence, age) = (config.suspect_silence, config.suspect_age);
    let silent = connect(&pool, "ada", "thread_1");
    let mut busy = connect(&pool, "ada", "thread_2");
    hand.advance(silence);
    assert_eq!(busy.next_message(), Ok(None));
    let snapshot = pool.snapshot();
    let seen: Vec<_> =
        snapshot.suspects().iter().map(|one| (one.suspicion, one.manager.thread_id.as_str())).collect();
    assert_eq!(seen, [(Suspicion::Silent, "thread_1")]);
    assert_eq!(u128::from(snapshot.suspects()[0].silent_ms), silence.as_millis());
    drop(silent);
    hand.advance(age);
    assert_eq!(busy.next_message(), Ok(None));
    assert_eq!(pool.snapshot().suspects()[0].suspicion, Suspicion::Old);
}

fn a_tenants_limit_holds_across_pools<K: Kind>() {
    let quotas = QuotaDomain::new();
    quotas.set_tenant("acme", 2, None);
    for name in ["ada", "bob"] {
        quotas.assign(&user(name), Some("acme")).unwrap();
    }
    let (pool, _hand) = with_clock::<K>(builder(1, 5).quotas(&quotas));
    let (real, _hand) = with_clock::<Real>(builder(9, 5).quotas(&quotas));
    let (double, _hand) = with_clock::<Double>(builder(9, 5).quotas(&quotas));
    let held = connect(&pool, "ada", "thread_1");
    let other = connect(&real, "bob", "thread_1");
    let full = ReserveError::TenantFull { max_managers: 2 };
    assert_eq!(double.reserve(&context("bob", "thread_2")).unwrap_err(), full);
    assert_eq!(double.snapshot().refused.tenant_full, 1);
    assert_eq!(
        pool.reserve(&context("eve", "thread_2")).unwrap_err(),
        ReserveError::PoolFull { capacity: 1 }
    );
    assert_eq!(quotas.count_of(&user("eve")), 0, "a refusal leaves nothing");

    let bell = Arc::<Bell>::default();
    let mut waits =
        (real.reserve_wait(&context("ada", "thread_3")), double.reserve_wait(&context("ada", "thread_3")));
    assert!(poll(&mut waits.0, &bell).is_pending() && poll(&mut waits.1, &bell).is_pending());
    drop(held);
    assert_eq!(bell.rings(), 1, "a place in another pool");
    drop(other);
    assert_eq!(bell.rings(), 2);
    assert_eq!(quotas.tenant_figures("acme").unwrap().manager_count, 2);
    drop(waits);
    assert_eq!(quotas.tenant_figures("acme").unwrap().manager_count, 0);
    assert_empty(&pool);
}
