//! More threads than loom can hold, on schedules drawn at random: everything that begins, ends and
//! addresses a lease, on one small pool. Afterwards the account is balanced and nothing is left.
//!
//! ```text
//! RUSTFLAGS="--cfg pool_loom --cfg pool_shuttle" \
//!     cargo test --release --manifest-path models/Cargo.toml --test shuttle
//! ```
//!
//! `shuttle` takes every atomic access for `SeqCst`, so this is no proof of an ordering; that is loom's. It
//! finds what needs several threads in an unlucky turn: a race of three, a count that goes wrong at the
//! fifth step. Fails with the faults `two_winners`, `unlink_outside_section`, `winner_without_pin` and
//! `cancelled_waiter_keeps_its_seat`.
//!
//! `POOL_SCHEDULES` says how many schedules each test runs; `.ci/deep` runs millions.
#![cfg(pool_shuttle)]

use shuttle::sync::Mutex;
use shuttle::thread;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use ws_manager_pool::{
    AtLimit, Clock, Config, DuplicatePolicy, EndReason, Environment, IdGenerator, Lease, ManagerKey,
    ManualClock, Message, Pool, Scope, SweepPolicy, UserExecutionContext,
};

const PCT_DEPTH: usize = 3;

fn schedules() -> usize {
    std::env::var("POOL_SCHEDULES").map_or(10_000, |count| count.parse().expect("a number"))
}

#[test]
fn everything_at_once_leaves_nothing_by_priorities() {
    shuttle::check_pct(everything_at_once, schedules(), PCT_DEPTH);
}

#[test]
fn everything_at_once_leaves_nothing_at_random() {
    shuttle::check_random(everything_at_once, schedules());
}

/// Schedules run one after the other, tests side by side, and pools have names of their own.
static POOLS: AtomicUsize = AtomicUsize::new(0);

struct World {
    pool: Pool,
    hand: ManualClock,
    /// Keys on their way from thread to thread.
    keys: Mutex<Vec<ManagerKey>>,
}

/// Two users on three places, so that each limit is met, and six threads.
fn everything_at_once() {
    let (clock, hand) = Clock::manual();
    let pool: Pool = Pool::builder()
        .name(format!("shuttle-{}", POOLS.fetch_add(1, Ordering::Relaxed)))
        .environment(Environment::Ci)
        .capacity(3)
        .max_managers_per_user(2)
        .duplicates(DuplicatePolicy::Replace)
        .at_limit(AtLimit::EvictOldest)
        .clock(clock)
        .build()
        .expect("a valid configuration");
    let world = Arc::new(World { pool, hand, keys: Mutex::default() });
    let roles: [fn(&World); 6] = [
        |world| world.come_and_go("ada", "thread_1", "thread_2"),
        |world| world.come_and_go("ada", "thread_2", "thread_3"),
        |world| world.come_and_go("bob", "thread_1", "thread_1"),
        World::wait,
        World::send_and_evict,
        World::look_after,
    ];
    let threads = roles.map(|role| {
        let world = world.clone();
        thread::spawn(move || role(&world))
    });
    threads.into_iter().for_each(|thread| thread.join().expect("a role does not panic"));
    let snapshot = world.pool.snapshot();
    let ledger = &snapshot.ledger;
    assert!(ledger.balanced, "{ledger:?}");
    assert_eq!((ledger.users_sum, ledger.occupied_slots, ledger.isolation_keys), (0, 0, 0), "{ledger:?}");
    assert_eq!((snapshot.users, snapshot.waiting, snapshot.outbound_bytes), (0, 0, 0));
    assert_eq!(ledger.tally.opened, ledger.tally.ended);
    let figures = &snapshot.delivery;
    assert_eq!(figures.accepted, figures.delivered + figures.unsent, "{figures:?}");
}

fn context(user: &str, thread: &str) -> UserExecutionContext {
    let ids = IdGenerator::user_context_ids(user, "model").with_client_thread(thread).expect("valid");
    UserExecutionContext::from_websocket_request(user, ids).expect("valid")
}

impl World {
    /// The second one may take the first one's place, or another's.
    fn come_and_go(&self, user: &str, first: &str, second: &str) {
        let first = self.connect(user, first);
        let mut second = self.connect(user, second);
        if let Some(lease) = &mut second {
            // An error: it is over already.
            let _ = lease.next_message();
        }
        if let Some(lease) = first {
            let _ = lease.close(EndReason::Closed);
        }
        drop(second);
    }

    fn connect(&self, user: &str, thread: &str) -> Option<Lease> {
        let lease = self.pool.reserve(&context(user, thread)).ok()?.open().ok()?;
        self.keys.lock().unwrap().push(lease.key());
        Some(lease)
    }

    fn wait(&self) {
        let mut wait = self.pool.reserve_wait(&context("bob", "thread_4"));
        for _ in 0..2 {
            if let Poll::Ready(Ok(place)) = Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop()))
            {
                drop(place.open());
                return;
            }
            thread::yield_now();
        }
        // Cancelled, perhaps while it is being served.
    }

    fn send_and_evict(&self) {
        for _ in 0..2 {
            let keys = self.keys.lock().unwrap().clone();
            for &key in &keys {
                let _ = self.pool.send(key, Message::from("for whoever has this key"));
            }
            if let Some(&key) = keys.last() {
                let _ = self.pool.evict(key, EndReason::Operator);
            }
            let _ = self.pool.broadcast(Message::from("for all"));
        }
    }

    fn look_after(&self) {
        let now = self.pool.clock().now();
        let _ = self.pool.sweep(Scope::Pool, SweepPolicy::Operator(EndReason::Idle), now, Duration::MAX);
        let mut config = Config::clone(&self.pool.config());
        config.max_managers_per_user = 1;
        self.pool.reconfigure(config).expect("a valid configuration");
        self.hand.advance(Duration::from_secs(2));
        let _ = self.pool.maintain(self.pool.clock().now());
    }
}
