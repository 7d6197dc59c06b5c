//! What a review of the cleaning, the limits and the monitor found, each with the test that showed it.

mod common;

use common::{assert_counts, builder, context};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use ws_manager_pool::{
    Alert, AlertLevel, AtLimit, Clock, Config, DuplicatePolicy, End, Environment, Lease, Maintained,
    ManualClock, Observer, OpenError, Operation, Pool, PoolBuilder, QuotaDomain, ReserveError, RunGuard,
    Scope, SweepPolicy, UserId,
};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}
fn named(name: &str) -> (PoolBuilder<()>, ManualClock) {
    let (clock, hand) = Clock::manual();
    hand.advance(secs(1));
    let b = builder(name, 1_000).environment(Environment::Production).clock(clock).capacity(1_000);
    (b, hand)
}
fn open(pool: &Pool, user: &str) -> Lease {
    let lease = pool.reserve(&context(user, None)).unwrap().open().unwrap();
    lease.connected().unwrap();
    lease
}
fn open_on(pool: &Pool, user: &str, thread: &str) -> Lease {
    pool.reserve(&context(user, thread)).unwrap().open().unwrap()
}
fn kill(lease: &Lease) {
    lease.closing().unwrap();
    lease.disconnected().unwrap();
}
fn maintain(pool: &Pool) -> Maintained {
    pool.maintain(pool.clock().now())
}

#[derive(Default)]
struct Count(AtomicUsize);
impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Told<F>(F);
impl<F: Fn(&Alert) + Send + Sync + 'static> Observer for Told<F> {
    fn alert(&self, alert: &Alert) {
        (self.0)(alert)
    }
}
struct Ended<F>(F);
impl<F: Fn(&End) + Send + Sync + 'static> Observer for Ended<F> {
    fn ended(&self, end: &End) {
        (self.0)(end)
    }
}

#[test]
fn any_valid_interval_can_be_seen_in_a_snapshot() {
    let (b, _) = named("r4-max");
    let pool = b.background_interval(Duration::MAX).build().unwrap();
    assert!(!pool.snapshot().maintenance.is_forgotten);
}

#[test]
fn a_shortened_interval_is_kept_from_now_on() {
    let (b, hand) = named("r4-interval");
    let pool = b.background_interval(secs(24 * 3600)).sample_interval(secs(24 * 3600)).build().unwrap();
    let lease = open(&pool, "ada");
    let _ = maintain(&pool);
    let mut config = Config::clone(&pool.config());
    config.background_interval = secs(60);
    config.sample_interval = secs(5);
    pool.reconfigure(config).unwrap();
    kill(&lease);
    hand.advance(secs(120));
    let done = maintain(&pool);
    assert!(done.is_sampled, "5 s are over");
    assert_eq!(pool.snapshot().live, 0, "60 s are over");
}

#[test]
fn a_reservation_dropped_in_one_pool_serves_who_waits_in_another() {
    let quotas = QuotaDomain::new();
    let (b1, hand) = named("r4-domain-a");
    let (b2, _) = named("r4-domain-b");
    let clock = Clock::manual();
    let _ = clock;
    let a = b1.quotas(&quotas).max_managers_per_user(1).build().unwrap();
    let b = b2.quotas(&quotas).max_managers_per_user(1).build().unwrap();
    for how in ["dropped", "expired"] {
        let held = a.reserve(&context("ada", None)).unwrap();
        let woken = Arc::new(Count::default());
        let waker = Waker::from(woken.clone());
        let context = context("ada", None);
        let mut wait = pin!(b.reserve_wait(&context));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        if how == "dropped" {
            drop(held);
        } else {
            std::mem::forget(held);
            hand.advance(secs(60));
            // Somebody else's refusal or the sweep of `a` takes it back; only `a`'s own maintenance runs.
            assert_eq!(maintain(&a).expired, 1);
        }
        assert_eq!(quotas.count_of(&user("ada")), 1, "{how}: handed over");
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "{how}: the waiter sleeps on");
        let Poll::Ready(Ok(r)) = wait.as_mut().poll(&mut Context::from_waker(&waker)) else { panic!() };
        drop(r);
    }
}

#[test]
fn a_full_pool_does_not_make_the_tenant_look_full_to_another() {
    let quotas = QuotaDomain::new();
    quotas.set_tenant("acme", 1, None);
    quotas.assign(&user("ada"), Some("acme")).unwrap();
    quotas.assign(&user("bob"), Some("acme")).unwrap();
    let full = builder::<()>("r4-full", 1).quotas(&quotas).build().unwrap();
    let roomy = builder::<()>("r4-roomy", 100).quotas(&quotas).build().unwrap();
    let _occupant = full.reserve(&context("eve", None)).unwrap().open().unwrap();
    let stop = AtomicBool::new(false);
    let mut wrongly = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let refused = full.reserve(&context("bob", None)).unwrap_err();
                assert!(matches!(refused, ReserveError::PoolFull { .. } | ReserveError::TenantFull { .. }));
            }
        });
        for _ in 0..200_000 {
            // Nobody of the tenant holds anything but, for a moment, ada here.
            wrongly += usize::from(roomy.reserve(&context("ada", None)).is_err());
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(wrongly, 0);
}

#[test]
fn numbers_that_change_while_maintenance_runs_are_not_forgotten_by_its_marks() {
    let at: Arc<OnceLock<Pool>> = Arc::default();
    let pool_of = at.clone();
    let (b, hand) = named("r4-marks");
    let pool = b
        .max_managers_per_user(2)
        .observer(Told(move |_: &Alert| {
            let Some(pool) = pool_of.get() else { return };
            if pool.config_versions().len() > 1 {
                return;
            }
            let mut config = Config::clone(&pool.config());
            config.idle_background = Some(secs(30));
            config.idle_proactive = secs(30);
            config.idle_emergency = secs(30);
            pool.reconfigure(config).unwrap();
        }))
        .build()
        .unwrap();
    let _ = at.set(pool.clone());
    let lease = open(&pool, "ada"); // 1 of 2 is `Info`
    let _ = maintain(&pool); // samples: an alert, which shortens the idle time; then the background round
    hand.advance(secs(61));
    let _ = maintain(&pool);
    hand.advance(secs(61));
    let _ = maintain(&pool);
    assert!(!lease.is_live(), "idle for 122 s, dead after 30 s, and two rounds have passed");
}

#[test]
fn an_alert_that_is_over_is_not_told_after_the_next_one() {
    let heard: Arc<Mutex<Vec<AlertLevel>>> = Arc::default();
    let ear = heard.clone();
    let (b, hand) = named("r4-departed");
    let pool = b
        .max_managers_per_user(5)
        .observer(Told(move |alert: &Alert| ear.lock().push(alert.to)))
        .build()
        .unwrap();
    let leases: Vec<_> = (0..5).map(|_| open(&pool, "ada")).collect();
    let _ = maintain(&pool);
    drop(leases);
    let _leases: Vec<_> = (0..3).map(|_| open(&pool, "ada")).collect();
    drop(pool.reserve(&context("ada", None)).unwrap()); // takes a sample: 3 of 5 is a warning
    hand.advance(secs(5));
    let _ = maintain(&pool);
    let level = pool.check_user(&user("ada")).alert_level;
    let heard = heard.lock().clone();
    assert_eq!(heard.last(), Some(&level), "{heard:?}");
}

#[test]
fn a_victim_that_has_begun_a_run_by_the_time_of_the_opening_is_spared() {
    let (b, hand) = named("r4-run-victim");
    let pool = b.max_managers_per_user(2).at_limit(AtLimit::EvictOldest).build().unwrap();
    let first = open(&pool, "ada");
    hand.advance(secs(1));
    let second = open(&pool, "ada");
    let third = pool.reserve(&context("ada", None)).unwrap();
    let _run = first.begin_run().unwrap();
    let _third = third.open().unwrap();
    assert_eq!((first.is_live(), second.is_live()), (true, false), "another candidate existed");
    assert_counts(&pool, 2, 0, 0);
}

#[test]
fn an_opening_that_is_refused_ends_nobody() {
    let (b, hand) = named("r4-reject-victim");
    let b = b.duplicates(DuplicatePolicy::Reject);
    let pool = b.max_managers_per_user(2).at_limit(AtLimit::EvictOldest).build().unwrap();
    let _first = open(&pool, "ada");
    hand.advance(secs(1));
    let second = open(&pool, "ada");
    let a = pool.reserve(&context("ada", "thread_new")).unwrap();
    let b = pool.reserve(&context("ada", "thread_new")).unwrap();
    let _a = a.open().unwrap();
    assert_eq!(b.open().unwrap_err(), OpenError::ThreadInUse);
    assert!(second.is_live(), "ended for a connection that never came");
    assert_counts(&pool, 2, 0, 0);
}

#[test]
fn one_connection_ends_one_other() {
    let (b, hand) = named("r4-two-for-one");
    let pool = b.max_managers_per_user(3).at_limit(AtLimit::EvictOldest).build().unwrap();
    let old: Vec<_> = (0..3)
        .map(|_| {
            hand.advance(secs(1));
            open(&pool, "ada")
        })
        .collect();
    let a = pool.reserve(&context("ada", "thread_new")).unwrap();
    let b = pool.reserve(&context("ada", "thread_new")).unwrap();
    let a = a.open().unwrap();
    let b = b.open().unwrap();
    assert!(!a.is_live() && b.is_live());
    assert_eq!(old.iter().filter(|l| l.is_live()).count(), 2, "the taken-over twin was the place");
    assert_counts(&pool, 3, 0, 0);
}

#[test]
fn who_waits_at_a_limit_that_evicts_is_served_by_an_opening() {
    for duplicates in [DuplicatePolicy::Replace, DuplicatePolicy::Allow] {
        let (b, _) = named("r4-waiter-allow");
        let b = b.duplicates(duplicates).at_limit(AtLimit::EvictOldest);
        let pool = b.max_managers_per_user(1).build().unwrap();
        let first = pool.reserve(&context("ada", None)).unwrap();
        let woken = Arc::new(Count::default());
        let waker = Waker::from(woken.clone());
        let context = context("ada", None);
        let mut wait = pin!(pool.reserve_wait(&context));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let _first = first.open().unwrap(); // can be claimed from now on
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "{duplicates:?}");
    }
}

#[test]
fn an_emergency_that_its_budget_cut_short_says_so() {
    let (b, _) = named("r4-cut");
    let pool = b.max_managers_per_user(400).build().unwrap();
    let leases: Vec<_> = (0..300).map(|_| open(&pool, "ada")).collect();
    leases.iter().for_each(kill);
    let now = pool.clock().now();
    let report = pool.sweep(Scope::User(&user("ada")), SweepPolicy::Emergency, now, Duration::ZERO);
    assert!(report.cleaned < 300);
    assert!(!report.is_complete, "{} of 300 are gone", report.cleaned);
}

#[test]
fn an_emergency_ends_no_more_runs_than_it_needs() {
    let (b, hand) = named("r4-last-resort");
    let pool = b.build().unwrap(); // 1000 each
    pool.set_user_limit(&user("ada"), Some(20));
    let leases: Vec<_> = (0..16).map(|_| open(&pool, "ada")).collect();
    let _runs: Vec<_> = leases.iter().map(|l| l.begin_run().unwrap()).collect();
    hand.advance(secs(301));
    let _ = maintain(&pool);
    let left = leases.iter().filter(|l| l.is_live()).count();
    assert_eq!(left, 15, "15 of 20 are not critical");
}

#[test]
fn an_emergency_forces_others_out_before_it_ends_a_run() {
    let (b, hand) = named("r4-last-resort-force");
    let pool = b.at_limit(AtLimit::EvictOldest).build().unwrap();
    pool.set_user_limit(&user("ada"), Some(20));
    let running: Vec<_> = (0..14).map(|_| open(&pool, "ada")).collect();
    let _runs: Vec<_> = running.iter().map(|l| l.begin_run().unwrap()).collect();
    hand.advance(secs(301));
    let _others = [open(&pool, "ada"), open(&pool, "ada")];
    let _ = maintain(&pool);
    let left = running.iter().filter(|l| l.is_live()).count();
    assert_eq!(left, 14, "others could go");
}

#[test]
fn a_user_whose_tenant_is_full_of_its_own_dead_is_let_in() {
    let quotas = QuotaDomain::new();
    quotas.set_tenant("acme", 2, None);
    quotas.assign(&user("ada"), Some("acme")).unwrap();
    let (b, _) = named("r4-tenant-dead");
    let pool = b.quotas(&quotas).max_managers_per_user(20).build().unwrap();
    let dead = [open(&pool, "ada"), open(&pool, "ada")];
    dead.iter().for_each(kill);
    assert!(pool.reserve(&context("ada", None)).is_ok(), "both of ada's managers are dead");
}

#[test]
fn a_user_at_the_domains_limit_is_let_in_when_its_managers_here_are_dead() {
    let quotas = QuotaDomain::new();
    let (b, _) = named("r4-domain-dead-a");
    let (c, _) = named("r4-domain-dead-b");
    let a = b.quotas(&quotas).max_managers_per_user(20).build().unwrap();
    let b = c.quotas(&quotas).max_managers_per_user(20).build().unwrap();
    let dead: Vec<_> = (0..10).map(|_| open(&a, "ada")).collect();
    let _well: Vec<_> = (0..10).map(|_| open(&b, "ada")).collect();
    dead.iter().for_each(kill);
    assert!(a.reserve(&context("ada", None)).is_ok(), "ten of ada's managers in this very pool are dead");
}

#[test]
fn a_lowered_limit_closes_nobody_under_any_policy() {
    let (b, hand) = named("r4-lowered");
    let pool = b.max_managers_per_user(40).at_limit(AtLimit::EvictOldest).build().unwrap();
    let leases: Vec<_> = (0..20).map(|_| open(&pool, "ada")).collect();
    let _ = maintain(&pool);
    pool.set_user_limit(&user("ada"), Some(10));
    hand.advance(secs(5));
    let _ = maintain(&pool);
    assert_eq!(leases.iter().filter(|l| l.is_live()).count(), 20);
}

#[test]
fn the_checks_of_a_round_keep_to_its_budget_too() {
    let (clock, hand) = Clock::manual();
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, slow) = (asked.clone(), hand.clone());
    let pool: Pool = builder("r4-checks", 1_000)
        .environment(Environment::Production)
        .capacity(1_000)
        .max_managers_per_user(1_000)
        .clock(clock)
        .health_check(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            slow.advance(Duration::from_millis(10));
            true
        })
        .build()
        .unwrap();
    let _leases: Vec<_> = (0..500).map(|_| open(&pool, "ada")).collect();
    let _ = maintain(&pool);
    assert!(asked.load(Ordering::Relaxed) < 500, "5 s of checks in one call; the budget is 20 ms");
}

#[test]
fn a_dead_manager_in_a_run_is_not_looked_at_by_each_reservation() {
    let (b, hand) = named("r4-pays");
    let pool = b.max_managers_per_user(20).build().unwrap();
    let leases: Vec<_> = (0..13).map(|_| open(&pool, "ada")).collect();
    let _run = leases[0].begin_run().unwrap();
    hand.advance(secs(200));
    leases[1..].iter().for_each(|l| l.received(1).unwrap());
    for _ in 0..100 {
        drop(pool.reserve(&context("ada", None)).unwrap());
    }
    let proactive =
        pool.snapshot().cleanups.into_iter().find(|m| m.operation == Operation::Proactive).unwrap();
    assert!(proactive.runs <= 2, "{} sweeps for nothing", proactive.runs);
    // And it is not forgotten when the run is over.
    drop(_run);
    drop(pool.reserve(&context("ada", None)).unwrap());
    assert!(!leases[0].is_live());
}

#[test]
fn a_run_that_begins_while_others_are_forced_out_is_spared_while_another_can_go() {
    let runs: Arc<Mutex<(Vec<Lease>, Vec<RunGuard>)>> = Arc::default();
    let at = runs.clone();
    let (b, hand) = named("r4-run-begins");
    let pool = b
        .at_limit(AtLimit::EvictOldest)
        .observer(Ended(move |_: &End| {
            if let Some(mut at) = at.try_lock()
                && at.1.is_empty()
                && let Ok(run) = at.0[1].begin_run()
            {
                at.1.push(run);
            }
        }))
        .build()
        .unwrap();
    pool.set_user_limit(&user("ada"), Some(20));
    let leases: Vec<_> = (0..17)
        .map(|_| {
            hand.advance(secs(1));
            open(&pool, "ada")
        })
        .collect();
    runs.lock().0 = leases;
    let _ = maintain(&pool);
    let at = runs.lock();
    assert!(!at.0[0].is_live());
    assert!(at.0[1].is_live(), "it is in a run by now; others are not");
}

#[test]
fn the_latest_end_is_first_also_within_a_millisecond() {
    let (b, _) = named("r4-ends");
    let pool = b.build().unwrap();
    let (one, two) = (open(&pool, "ada"), open(&pool, "ada"));
    let second = two.key();
    drop(one);
    drop(two);
    assert_eq!(pool.last_ends_of(&user("ada"))[0].key, second);
    assert_eq!(pool.last_ends(1)[0].key, second);
}

#[test]
fn a_thread_whose_connection_is_dead_can_be_opened_again_under_reject() {
    let (b, _) = named("r4-dead-twin");
    let pool = b.duplicates(DuplicatePolicy::Reject).build().unwrap();
    let old = open_on(&pool, "ada", "thread_a");
    old.connected().unwrap();
    kill(&old);
    assert!(pool.reserve(&context("ada", "thread_a")).is_ok());
}
