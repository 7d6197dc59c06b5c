//! Those who are active stay, whatever maintenance, sweeps and limits do.

use crate::stage::{assert_nothing_is_left, maintain, play, pool, user};
use crate::support::{connect, context, eventually, hear, knock, say};
use std::time::Duration;
use ws_manager_pool::{
    Clock, EndReason, Environment, Lease, ManagerKey, ManualClock, Message, Pool, PoolBuilder, ReserveError,
    Scope, SweepPolicy,
};

const STEP: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3_600);

/// The longest that an active connection here is silent. A sweep takes no one before twice that.
const SILENCE: Duration = Duration::from_secs(60);

/// A pool whose time is moved by hand, with everything on that maintains it.
struct Hours {
    pool: Pool,
    hand: ManualClock,
    step: usize,
}

impl Hours {
    fn new(builder: PoolBuilder) -> Self {
        let (clock, hand) = Clock::manual();
        Self { pool: builder.clock(clock).build().unwrap(), hand, step: 0 }
    }

    fn connect(&self, name: &str) -> Lease {
        let lease = self.pool.reserve(&context(name, None)).unwrap().open().unwrap();
        lease.connected().unwrap();
        lease
    }

    /// A step in time, in which some of the active ones speak or are spoken to, before maintenance.
    fn pass(&mut self, active: &mut [Lease]) {
        self.hand.advance(STEP);
        self.step += 1;
        let turns = (SILENCE.as_secs() / STEP.as_secs()) as usize;
        for lease in active.iter_mut().skip(self.step % turns).step_by(turns) {
            if self.step.is_multiple_of(2) {
                lease.received(10).unwrap();
            } else {
                assert!(self.pool.send(lease.key(), Message::from("tick")).is_queued());
                assert_eq!(lease.next_message().unwrap().unwrap().as_text(), Some("tick"));
            }
        }
        let now = self.pool.clock().now();
        maintain(&self.pool, now);
        for policy in [SweepPolicy::Proactive, SweepPolicy::Emergency, SweepPolicy::Background] {
            let report = self.pool.sweep(Scope::Pool, policy, now, Duration::MAX);
            assert!(report.is_complete && report.cleaned == 0, "{report:?}");
        }
        for lease in active {
            let evict = |key: ManagerKey| {
                self.pool.evict_if(key, EndReason::Idle, |manager| manager.idle(now) > 2 * SILENCE)
            };
            assert_eq!(evict(lease.key()), Ok(false), "it is there, and it is not idle");
        }
    }

    fn steps() -> u64 {
        HOUR.as_secs() / STEP.as_secs()
    }
}

#[test]
fn twenty_healthy_connections_stay_for_an_hour() {
    const LIMIT: usize = 20;
    let mut hours = Hours::new(Pool::builder().name("hour").environment(Environment::Production));
    let mut healthy: Vec<_> = (0..LIMIT).map(|_| hours.connect("ada")).collect();
    for _ in 0..Hours::steps() {
        hours.pass(&mut healthy);
        let refused = hours.pool.reserve(&context("ada", None)).unwrap_err();
        assert_eq!((refused, refused.http_status()), (ReserveError::UserFull { max_managers: LIMIT }, 429));
    }
    assert_eq!(hours.pool.snapshot().live, LIMIT);
    let tally = hours.pool.ledger().tally;
    assert_eq!((tally.opened, tally.ended), (LIMIT as u64, 0));
    drop(healthy);
    assert_nothing_is_left(&hours.pool);
}

#[test]
fn a_pool_at_95_percent_loses_no_active_connection() {
    const CAPACITY: usize = 100;
    const ACTIVE: usize = 95;
    let builder = Pool::builder().name("95-percent").environment(Environment::Ci);
    let mut hours = Hours::new(builder.capacity(CAPACITY));
    let mut active: Vec<_> =
        (0..ACTIVE).map(|number| hours.connect(&format!("user{}", number / 5))).collect();
    for step in 0..Hours::steps() {
        hours.pass(&mut active);
        // The last places are taken and left all the time, and more are asked for.
        let guests: Vec<_> = (ACTIVE..CAPACITY).map(|_| hours.connect("guest")).collect();
        let refused = hours.pool.reserve(&context("one-too-many", None)).unwrap_err();
        assert_eq!((refused, refused.http_status()), (ReserveError::PoolFull { capacity: CAPACITY }, 503));
        maintain(&hours.pool, hours.pool.clock().now());
        assert!(guests.iter().all(Lease::is_live), "step {step}");
    }
    assert!(active.iter().all(Lease::is_live));
    assert_eq!(hours.pool.snapshot().live, ACTIVE);
    drop(active);
    assert_nothing_is_left(&hours.pool);
}

#[test]
fn a_lowered_limit_closes_nobody() {
    play(pool("lowered").max_managers_per_user(5), async |server| {
        let (address, pool) = (server.address, server.pool.clone());
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(connect(address, "ada").await);
        }
        pool.set_user_limit(&user("ada"), Some(2));
        for number in 1..=10 {
            maintain(&pool, pool.clock().now());
            for client in &mut clients {
                say(client, "here").await;
                assert_eq!(hear(client).await, format!("{number} here"));
            }
            assert_eq!(knock(address, "ada").await.err(), Some(429), "but nobody comes in");
        }
        // It holds again once enough have gone by themselves.
        for left in (0..5).rev() {
            clients.pop().unwrap().close(None).await.unwrap();
            eventually("one less", || pool.snapshot().live == left).await;
            if left >= 2 {
                assert_eq!(knock(address, "ada").await.err(), Some(429), "{left} left");
            }
        }
        let two = [connect(address, "ada").await, connect(address, "ada").await];
        assert_eq!(knock(address, "ada").await.err(), Some(429));
        drop(two);
    });
}
