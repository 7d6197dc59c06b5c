//! The monitor: levels, what they call for, and those who are told.

mod common;

use common::{assert_counts, builder, context};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use ws_manager_pool::{
    Alert, AlertLevel, AtLimit, Clock, End, EndReason, Environment, Lease, ManualClock, Observer, Operation,
    Pool, PoolBuilder, UserId,
};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// Whose level, and which it is now.
type Heard = (Option<UserId>, AlertLevel);

/// Writes down what it hears.
#[derive(Clone, Default)]
struct Ear {
    alerts: Arc<Mutex<Vec<Heard>>>,
    ends: Arc<Mutex<Vec<(UserId, EndReason)>>>,
}

impl Observer for Ear {
    fn alert(&self, alert: &Alert) {
        self.alerts.lock().push((alert.user_id.clone(), alert.to));
    }

    fn ended(&self, end: &End) {
        self.ends.lock().push((end.user_id.clone(), end.reason));
    }
}

impl Ear {
    fn alerts_of(&self, name: &str) -> Vec<AlertLevel> {
        let alerts = self.alerts.lock();
        alerts.iter().filter(|(of, _)| *of == Some(user(name))).map(|&(_, to)| to).collect()
    }
}

struct Watched {
    pool: Pool,
    hand: ManualClock,
    ear: Ear,
}

/// Production's numbers: 20 for each user, a sample every 5 s.
fn watched(name: &str, set: impl FnOnce(PoolBuilder<()>) -> PoolBuilder<()>) -> Watched {
    let (clock, hand) = Clock::manual();
    let ear = Ear::default();
    let builder =
        builder(name, 1_000).environment(Environment::Production).clock(clock).observer(ear.clone());
    Watched { pool: set(builder.capacity(1_000)).build().unwrap(), hand, ear }
}

impl Watched {
    fn open(&self, user: &str, count: usize) -> Vec<Lease> {
        let open = |_| {
            let lease = self.pool.reserve(&context(user, None)).unwrap().open().unwrap();
            lease.connected().unwrap();
            lease
        };
        (0..count).map(open).collect()
    }

    /// Lets the time pass to the monitor's next sample.
    fn sample(&self) {
        self.hand.advance(seconds(5));
        assert!(self.pool.maintain(self.pool.clock().now()).is_sampled);
    }

    fn runs(&self, operation: Operation) -> u64 {
        let cleanups = self.pool.snapshot().cleanups;
        cleanups.iter().find(|metrics| metrics.operation == operation).unwrap().runs
    }
}

#[test]
fn each_level_is_told_once_on_the_way_up_and_down() {
    use AlertLevel::{Critical, Emergency, Info, Normal, Warning};
    let watched = watched("monitor-levels", |builder| builder);
    let mut leases = Vec::new();
    for count in 1..=20 {
        leases.extend(watched.open("ada", 1));
        watched.sample();
        let check = watched.pool.check_user(&user("ada"));
        assert_eq!((check.manager_count, check.max_managers), (count, 20));
        assert!((check.usage_ratio - count as f64 / 20.0).abs() < 1e-9);
    }
    assert_eq!(watched.ear.alerts_of("ada"), [Info, Warning, Critical, Emergency]);
    assert_eq!(watched.pool.check_user(&user("ada")).alert_level, Emergency);
    while leases.len() > 1 {
        leases.pop();
        watched.sample();
    }
    assert_eq!(
        watched.ear.alerts_of("ada")[4..],
        [Critical, Warning, Info, Normal],
        "each level ends below its beginning"
    );
}

#[test]
fn a_load_that_swings_around_a_threshold_raises_one_alert() {
    let watched = watched("monitor-swing", |builder| builder);
    let mut leases = watched.open("ada", 12);
    for _ in 0..10 {
        watched.sample();
        leases.pop();
        watched.sample();
        leases.extend(watched.open("ada", 1));
    }
    assert_eq!(watched.ear.alerts_of("ada"), [AlertLevel::Warning]);
}

#[test]
fn the_memory_of_a_user_goes_with_the_user_and_the_alert_is_called_off() {
    let watched = watched("monitor-gone", |builder| builder);
    let leases = watched.open("ada", 18);
    watched.sample();
    // The first two at reservations: a sample is taken at each from the proactive threshold on.
    let mut levels = vec![AlertLevel::Warning, AlertLevel::Critical, AlertLevel::Emergency];
    assert_eq!(watched.ear.alerts_of("ada"), levels);
    drop(leases);
    watched.sample();
    levels.push(AlertLevel::Normal);
    assert_eq!(watched.ear.alerts_of("ada"), levels);
    assert_eq!(watched.pool.check_user(&user("ada")).alert_level, AlertLevel::Normal);
    watched.sample();
    assert_eq!(watched.ear.alerts_of("ada"), levels, "and only once");
    let levels = watched.pool.snapshot().users_by_level;
    assert_eq!(levels.values().sum::<usize>(), 0);
}

#[test]
fn at_twelve_of_twenty_the_dead_go_before_the_next_one_comes() {
    let watched = watched("monitor-proactive", |builder| builder);
    let dead = watched.open("ada", 11);
    watched.hand.advance(seconds(180));
    let twelfth = watched.open("ada", 1);
    assert!(dead.iter().all(Lease::is_live), "eleven of twenty is below the threshold");
    let thirteenth = watched.open("ada", 1);
    assert!(dead.iter().all(|lease| !lease.is_live()));
    assert_eq!(dead[0].revoked().unwrap().reason(), EndReason::Idle);
    assert!(twelfth[0].is_live() && thirteenth[0].is_live());
    assert_counts(&watched.pool, 2, 0, 0);
    assert_eq!(watched.runs(Operation::Proactive), 1);
}

#[test]
fn a_user_full_of_dead_managers_is_never_locked_out() {
    let watched = watched("monitor-lock-out", |builder| builder);
    let mut left = Vec::new();
    for _ in 0..50 {
        // Clients that vanish without closing, one after the other.
        left.extend(watched.open("ada", 1));
        watched.hand.advance(seconds(30));
    }
    let live = left.iter().filter(|lease| lease.is_live()).count();
    assert!(live <= 12, "{live} are left");
    assert_eq!(watched.pool.snapshot().refused.user_full, 0);
}

#[test]
fn a_disconnected_manager_frees_its_place_at_the_very_next_reservation() {
    let watched = watched("monitor-disconnected", |builder| builder);
    let leases = watched.open("ada", 20);
    assert!(watched.pool.reserve(&context("ada", None)).is_err());
    leases[7].closing().unwrap();
    leases[7].disconnected().unwrap();
    let _new = watched.open("ada", 1);
    assert!(!leases[7].is_live());
    // The same when the end of a run is what makes it due.
    let run = leases[3].begin_run().unwrap();
    leases[3].closing().unwrap();
    leases[3].disconnected().unwrap();
    drop(leases[4].begin_run().unwrap());
    drop(run);
    let _next = watched.open("ada", 1);
    assert!(!leases[3].is_live());
    // And when the numbers change.
    watched.hand.advance(seconds(60));
    assert!(watched.pool.reserve(&context("ada", None)).is_err());
    let mut config = ws_manager_pool::Config::clone(&watched.pool.config());
    (config.idle_proactive, config.idle_emergency) = (seconds(60), seconds(60));
    watched.pool.reconfigure(config).unwrap();
    assert!(watched.pool.reserve(&context("ada", None)).is_ok());
}

#[test]
fn under_reject_an_emergency_cleans_the_dead_and_then_only_alerts() {
    let watched = watched("monitor-reject", |builder| builder);
    let leases = watched.open("ada", 20);
    for _ in 0..50 {
        watched.sample();
        leases.iter().for_each(|lease| lease.received(1).unwrap());
    }
    assert!(leases.iter().all(Lease::is_live));
    assert_eq!(watched.runs(Operation::Emergency), 0, "a look that finds nothing is in no book");
    leases[3].closing().unwrap();
    leases[3].disconnected().unwrap();
    watched.sample();
    assert!(!leases[3].is_live(), "it looks at each sample");
    assert_eq!(watched.runs(Operation::Emergency), 1);
    let leases: Vec<_> = leases.into_iter().filter(Lease::is_live).collect();
    watched.ear.ends.lock().clear();
    watched.sample();
    assert_eq!(leases.len(), 19);
    assert!(watched.ear.ends.lock().is_empty());
}

#[test]
fn an_emergency_shrinks_a_user_to_half_where_the_policy_allows_it() {
    let watched = watched("monitor-shrink", |builder| {
        builder.max_managers_per_user(100).at_limit(AtLimit::EvictOldest)
    });
    let leases: Vec<_> = (0..100)
        .map(|_| {
            watched.hand.advance(Duration::from_millis(1));
            watched.open("ada", 1).remove(0)
        })
        .collect();
    watched.sample();
    // Five by force leave 95, which is still critical.
    let live: Vec<_> = (0..100).filter(|&at| leases[at].is_live()).collect();
    assert_eq!(live, (50..100).collect::<Vec<_>>());
    assert_eq!(leases[0].revoked().unwrap().reason(), EndReason::Limit);
    watched.sample();
    assert_counts(&watched.pool, 50, 0, 0);
}

#[test]
fn the_pool_as_a_whole_cleans_the_dead_and_never_the_active() {
    let watched = watched("monitor-pool", |builder| builder.capacity(100).at_limit(AtLimit::EvictOldest));
    let mut leases: Vec<_> = (0..10).flat_map(|number| watched.open(&format!("user-{number}"), 9)).collect();
    leases.extend(watched.open("late", 5));
    watched.hand.advance(seconds(295));
    let active: Vec<_> = (0..95).filter(|at| at % 2 == 0).collect();
    active.iter().for_each(|&at| leases[at].received(1).unwrap());
    watched.sample();
    let live: Vec<_> = (0..95).filter(|&at| leases[at].is_live()).collect();
    assert_eq!(live, active);
    assert_eq!(watched.pool.snapshot().level, AlertLevel::Emergency);
    watched.sample();
    assert_eq!(watched.pool.snapshot().level, AlertLevel::Info);
    let alerts = watched.ear.alerts.lock();
    let of_pool: Vec<_> = alerts.iter().filter(|(of, _)| of.is_none()).map(|&(_, to)| to).collect();
    assert_eq!(of_pool, [AlertLevel::Emergency, AlertLevel::Info]);
}

#[test]
fn an_observer_hears_of_every_end_once_with_its_reason() {
    let watched = watched("monitor-ends", |builder| builder);
    let mut leases = watched.open("ada", 4);
    leases.pop().unwrap().close(EndReason::Closed).unwrap();
    drop(leases.pop());
    watched.pool.evict(leases[0].key(), EndReason::Operator).unwrap();
    watched.hand.advance(seconds(600));
    watched.sample();
    let ends = watched.ear.ends.lock().clone();
    let reasons: Vec<_> = ends.iter().map(|&(_, reason)| reason).collect();
    let expected = [EndReason::Closed, EndReason::Dropped, EndReason::Operator, EndReason::Idle];
    assert_eq!(reasons, expected);
    assert!(ends.iter().all(|(of, _)| *of == user("ada")));
    drop(leases);
    assert_eq!(watched.ear.ends.lock().len(), 4, "what comes late is no end");
}

/// Panics at everything, and calls the pool before.
#[derive(Clone, Default)]
struct Bad(Arc<Mutex<Option<Pool>>>);

impl Observer for Bad {
    fn alert(&self, _: &Alert) {
        panic!("as commanded");
    }

    fn ended(&self, end: &End) {
        if let Some(pool) = self.0.lock().as_ref() {
            let _ = pool.keys_of(&end.user_id);
            let _ = pool.snapshot();
        }
        panic!("as commanded");
    }
}

#[test]
fn an_observer_that_panics_stops_nothing() {
    let (clock, hand) = Clock::manual();
    let bad = Bad::default();
    let pool: Pool = builder("monitor-bad", 100)
        .environment(Environment::Production)
        .clock(clock)
        .observer(bad.clone())
        .build()
        .unwrap();
    *bad.0.lock() = Some(pool.clone());
    let leases: Vec<_> =
        (0..20).map(|_| pool.reserve(&context("ada", None)).unwrap().open().unwrap()).collect();
    hand.advance(seconds(600));
    let done = pool.maintain(pool.clock().now());
    assert!(done.is_sampled && !done.is_busy);
    assert!(leases.iter().all(|lease| !lease.is_live()));
    drop(leases);
    assert_counts(&pool, 0, 0, 0);
    assert!(pool.snapshot().observer_panics > 20);
    *bad.0.lock() = None;
}
