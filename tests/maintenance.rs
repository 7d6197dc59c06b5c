//! Maintenance: never twice at once, survives what the application does, catches up, is not forgotten
//! silently.

mod common;

use common::{assert_counts, builder, context};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::spawn;
use std::time::Duration;
use ws_manager_pool::{Clock, End, EndReason, Environment, Lease, ManualClock, Observer, Pool, PoolBuilder};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn build(name: &str, set: impl FnOnce(PoolBuilder<()>) -> PoolBuilder<()>) -> (Pool, ManualClock) {
    let (clock, hand) = Clock::manual();
    let builder = builder(name, 100).environment(Environment::Production).clock(clock);
    (set(builder.capacity(100)).build().unwrap(), hand)
}

fn open(pool: &Pool) -> Lease {
    let lease = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
    lease.connected().unwrap();
    lease
}

fn maintain(pool: &Pool) -> ws_manager_pool::Maintained {
    pool.maintain(pool.clock().now())
}

#[test]
fn each_step_is_done_when_it_is_due_and_not_before() {
    let (pool, hand) = build("maintain-due", |builder| builder);
    let first = maintain(&pool);
    assert!(first.is_sampled && first.sweeps.len() == 1, "at first everything is due");
    let again = maintain(&pool);
    assert!(!again.is_sampled && again.sweeps.is_empty());
    hand.advance(seconds(5));
    let sampled = maintain(&pool);
    assert!(sampled.is_sampled && sampled.sweeps.is_empty());
    hand.advance(seconds(55));
    assert_eq!(maintain(&pool).sweeps.len(), 1);
}

#[test]
fn after_a_stall_one_turn_makes_up_for_all_that_were_missed() {
    let (pool, hand) = build("maintain-stall", |builder| builder);
    maintain(&pool);
    let lease = open(&pool);
    hand.advance(seconds(24 * 60 * 60));
    let late = maintain(&pool);
    assert_eq!((late.is_sampled, late.sweeps.len(), late.sweeps[0].cleaned), (true, 1, 1));
    assert!(!lease.is_live());
    let next = maintain(&pool);
    assert!(!next.is_sampled && next.sweeps.is_empty(), "and not once for each minute");
}

#[test]
fn a_pool_that_nobody_maintains_says_so() {
    let (pool, hand) = build("maintain-forgotten", |builder| builder);
    assert!(!pool.snapshot().maintenance.is_forgotten, "it is young");
    hand.advance(seconds(179));
    assert!(!pool.snapshot().maintenance.is_forgotten);
    hand.advance(seconds(1));
    let status = pool.snapshot().maintenance;
    assert_eq!((status.is_forgotten, status.last_ms_ago), (true, 180_000));
    maintain(&pool);
    assert_eq!(pool.snapshot().maintenance.last_ms_ago, 0);
    assert!(!pool.snapshot().maintenance.is_forgotten);
}

#[test]
fn two_turns_never_run_at_once() {
    let (enter, entered) = mpsc::channel();
    let (leave, left) = mpsc::channel::<()>();
    let left = parking_lot::Mutex::new(left);
    let (pool, hand) = build("maintain-twice", move |builder| {
        builder.health_check(move |_| {
            // A second turn at the same time does not get the lock, and goes on.
            if let Some(left) = left.try_lock() {
                enter.send(()).unwrap();
                left.recv().unwrap();
            }
            true
        })
    });
    let _lease = open(&pool);
    hand.advance(seconds(60));
    let other = pool.clone();
    let first = spawn(move || maintain(&other));
    entered.recv().unwrap(); // the first turn asks the application
    let second = maintain(&pool);
    assert!(second.is_busy && !second.is_sampled);
    leave.send(()).unwrap();
    assert!(!first.join().unwrap().is_busy);
    assert!(!maintain(&pool).is_busy);
}

#[test]
fn a_manager_that_fails_its_check_counts_as_errored_and_one_whose_check_panics_too() {
    for panics in [false, true] {
        let is_bad = Arc::new(AtomicBool::new(false));
        let bad = is_bad.clone();
        let (pool, hand) = build("maintain-check", move |builder| {
            builder.health_check(move |manager| {
                let is_bad = bad.load(Ordering::Relaxed) && manager.messages_in() == 0;
                assert!(!(is_bad && panics), "as commanded");
                !is_bad
            })
        });
        let (bad, good) = (open(&pool), open(&pool));
        good.received(1).unwrap();
        is_bad.store(true, Ordering::Relaxed);
        assert_eq!(maintain(&pool).panics, 0, "it is the manager's, not the round's");
        let state = |lease: &Lease| lease.with(|manager| manager.errored_at().is_some()).unwrap();
        assert!(state(&bad) && !state(&good));
        for _ in 0..10 {
            hand.advance(seconds(60));
            maintain(&pool);
            good.received(1).unwrap();
        }
        assert_eq!(bad.revoked().unwrap().reason(), EndReason::Errored);
        assert!(good.is_live());
    }
}

/// Moves the clock as if each end took long.
struct Slow {
    hand: ManualClock,
    ends: Arc<AtomicUsize>,
}

impl Observer for Slow {
    fn ended(&self, _: &End) {
        self.hand.advance(Duration::from_millis(1));
        self.ends.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_background_round_keeps_to_its_budget_and_goes_on_at_the_next_turn() {
    const CONNECTIONS: usize = 1_000;
    let ends = Arc::new(AtomicUsize::new(0));
    let (clock, hand) = Clock::manual();
    let pool: Pool = builder("maintain-budget", CONNECTIONS)
        .environment(Environment::Production)
        .capacity(2 * CONNECTIONS)
        .max_managers_per_user(2 * CONNECTIONS)
        .clock(clock)
        .observer(Slow { hand: hand.clone(), ends: ends.clone() })
        .build()
        .unwrap();
    let _leases: Vec<_> = (0..CONNECTIONS).map(|_| open(&pool)).collect();
    hand.advance(seconds(600));
    let mut turns = 0;
    while ends.load(Ordering::Relaxed) < CONNECTIONS {
        let before = ends.load(Ordering::Relaxed);
        maintain(&pool);
        let piece = ends.load(Ordering::Relaxed) - before;
        assert!(piece > 0, "each turn gets on");
        assert!(piece < 300, "{piece} ms in one turn");
        turns += 1;
    }
    assert!(turns > 3, "{turns} turns");
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn what_an_application_leaves_undone_is_found_in_the_next_round() {
    // A predicate that panics in the section leaves its manager as it was, and the next round ends it.
    let (pool, hand) = build("maintain-retry", |builder| builder);
    let lease = open(&pool);
    hand.advance(seconds(600));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        pool.evict_if(lease.key(), EndReason::Idle, |_| panic!("as commanded"))
    }));
    assert!(panicked.is_err());
    assert!(lease.is_live() && pool.ledger().balanced);
    let done = maintain(&pool);
    assert_eq!(done.sweeps.last().unwrap().cleaned, 1);
    assert_counts(&pool, 0, 0, 0);
}
