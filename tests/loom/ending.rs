//! One lease and everybody who may end it: its owner, an operator, a sweep, and a takeover. Exactly one
//! wins, and it is cleaned once. Fails with the faults `two_winners` and `double_finalise`.
//!
//! The slab's part of it is in `close.rs` and `winner.rs`.

use crate::places::context;
use crate::race::Race;
use loom::sync::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use ws_manager_pool::{
    Clock, DuplicatePolicy, EndReason, Environment, Lease, ManagerKey, Pool, Reservation, Scope, Session,
    SweepPolicy,
};

/// An application's state that says when it is reset.
#[derive(Default)]
struct Marked(Option<Arc<AtomicUsize>>);

impl Session for Marked {
    fn reset(&mut self) {
        if let Some(resets) = self.0.take() {
            resets.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct World {
    pool: Pool<Marked>,
    key: ManagerKey,
    owner: Mutex<Option<Lease<Marked>>>,
    /// Of the same thread, on a place of its own: opening it takes the old connection over.
    successor: Mutex<Option<Reservation<Marked>>>,
    next: Mutex<Option<Lease<Marked>>>,
    /// No part of the model, so that they order nothing.
    wins: AtomicUsize,
    resets: Arc<AtomicUsize>,
}

/// Models run side by side, and pools have names of their own. No part of any model.
static MODELS: AtomicUsize = AtomicUsize::new(0);

impl World {
    fn new() -> Self {
        let (clock, _) = Clock::manual();
        let pool: Pool<Marked> = Pool::builder()
            .name(format!("ending-{}", MODELS.fetch_add(1, Ordering::Relaxed)))
            .environment(Environment::Ci)
            .capacity(2)
            .max_managers_per_user(2)
            .duplicates(DuplicatePolicy::Replace)
            .clock(clock)
            .build()
            .expect("a valid configuration");
        let context = context("ada", "thread_a");
        let mut owner = pool.reserve(&context).expect("it is empty").open().expect("nobody ends it");
        let resets = Arc::new(AtomicUsize::new(0));
        owner.with_session(|marked| marked.0 = Some(resets.clone())).expect("it is live");
        Self {
            key: owner.key(),
            owner: Mutex::new(Some(owner)),
            successor: Mutex::new(None),
            next: Mutex::new(None),
            wins: AtomicUsize::new(0),
            resets,
            pool,
        }
    }

    fn with_successor() -> Self {
        let world = Self::new();
        let successor = world.pool.reserve(&context("ada", "thread_a")).expect("there is a place");
        *world.successor.lock().unwrap() = Some(successor);
        world
    }

    fn close(&self) {
        let owner = self.owner.lock().unwrap().take().expect("it was opened");
        self.count(owner.close(EndReason::Closed).is_ok());
    }

    fn evict(&self) {
        self.count(self.pool.evict_if(self.key, EndReason::Operator, |_| true) == Ok(true));
    }

    fn sweep(&self) {
        let policy = SweepPolicy::Operator(EndReason::Idle);
        let report = self.pool.sweep(Scope::Pool, policy, self.pool.clock().now(), Duration::MAX);
        assert_eq!(report.found, report.cleaned + report.late);
        self.count(report.cleaned > 0);
    }

    /// The sweep may end the new one as well: it is told apart by its key.
    fn sweep_the_old(&self) {
        let scope = context("ada", "thread_a").isolation_key();
        let policy = SweepPolicy::Operator(EndReason::Idle);
        let _ = self.pool.sweep(Scope::Thread(&scope), policy, self.pool.clock().now(), Duration::MAX);
    }

    fn take_over(&self) {
        let successor = self.successor.lock().unwrap().take().expect("it was reserved");
        *self.next.lock().unwrap() = Some(successor.open().expect("nobody takes it back"));
    }

    fn read(&self) {
        let _ = self.pool.inspect(self.key, |manager| assert_eq!(manager.user_id().as_str(), "ada"));
    }

    fn count(&self, is_winner: bool) {
        self.wins.fetch_add(usize::from(is_winner), Ordering::Relaxed);
    }

    fn ends(&self, reason: &str) -> u64 {
        self.pool.ledger().tally.ends_by_reason.get(reason).copied().unwrap_or(0)
    }

    /// The old lease ended once, by a winner who was told so, and is cleaned once.
    fn assert_one_won(&self) {
        let by_takeover = self.ends("takeover");
        assert_eq!(self.wins.load(Ordering::Relaxed) as u64 + by_takeover, 1);
        let next = usize::from(self.next.lock().unwrap().is_some());
        self.assert_ended_once(next, 1);
    }

    fn assert_ended_once(&self, next: usize, ended: u64) {
        let ledger = self.pool.ledger();
        assert!(ledger.balanced, "{ledger:?}");
        assert_eq!((ledger.leases, ledger.reserved, ledger.closing), (next, 0, 0), "{ledger:?}");
        assert_eq!(ledger.tally.ended, ended, "{ledger:?}");
        drop(self.owner.lock().unwrap().take());
        drop(self.next.lock().unwrap().take());
        // Whoever is not the winner leaves the application's reset to the next reservation.
        let both = ["thread_b", "thread_c"]
            .map(|thread| self.pool.reserve(&context("ada", thread)).expect("a place"));
        assert_eq!(self.resets.load(Ordering::Relaxed), 1);
        drop(both);
        let ledger = self.pool.ledger();
        assert!(ledger.balanced && ledger.users_sum == 0 && ledger.occupied_slots == 0, "{ledger:?}");
    }
}

fn one_wins<const ROLES: usize>(
    name: &'static str,
    world: fn() -> World,
    roles: [fn(&World); ROLES],
    bounds: &'static [Option<usize>],
    floor: usize,
) {
    Race { name, world, roles, afterwards: World::assert_one_won, bounds, floor }.run();
}

const PAIR: &[Option<usize>] = &[Some(1), Some(2), Some(3)];
const THREE: &[Option<usize>] = &[Some(1), Some(2)];
/// Each looks, and then ends: the more to interleave.
const EVICT_AND_SWEEP: &[Option<usize>] = &[Some(1), Some(2)];
/// A sweep is long.
const SWEEP_AND_TWO: &[Option<usize>] = &[Some(1)];

#[test]
fn an_owner_or_an_operator_ends_it() {
    one_wins("close, evict", World::new, [World::close, World::evict], PAIR, 60);
}

#[test]
fn an_owner_or_a_sweep_ends_it() {
    one_wins("close, sweep", World::new, [World::close, World::sweep], PAIR, 100);
}

#[test]
fn an_operator_or_a_sweep_ends_it() {
    one_wins("evict, sweep", World::new, [World::evict, World::sweep], EVICT_AND_SWEEP, 120);
}

#[test]
fn an_owner_or_a_takeover_ends_it() {
    one_wins("close, takeover", World::with_successor, [World::close, World::take_over], PAIR, 7);
}

#[test]
fn an_operator_or_a_takeover_ends_it() {
    one_wins("evict, takeover", World::with_successor, [World::evict, World::take_over], PAIR, 70);
}

/// The sweep may come late enough to end the new one too; the old one ends once all the same.
#[test]
fn a_sweep_or_a_takeover_ends_it() {
    Race {
        name: "sweep, takeover",
        world: World::with_successor,
        roles: [World::sweep_the_old, World::take_over],
        afterwards: |world| {
            let is_next_live = world.next.lock().unwrap().as_ref().is_some_and(Lease::is_live);
            world.assert_ended_once(usize::from(is_next_live), 2 - u64::from(is_next_live));
        },
        bounds: PAIR,
        floor: 50,
    }
    .run();
}

#[test]
fn one_of_three_ends_it() {
    one_wins(
        "close, evict, sweep",
        World::new,
        [World::close, World::evict, World::sweep],
        SWEEP_AND_TWO,
        18,
    );
}

#[test]
fn one_of_two_ends_it_under_a_reader() {
    one_wins("close, evict, read", World::new, [World::close, World::evict, World::read], THREE, 120);
}

/// The owner's part is never reset under the owner's hands; loom's cells say so.
#[test]
fn a_session_is_reset_after_its_last_use() {
    one_wins(
        "use of a session, evict",
        World::new,
        [
            |world| {
                let mut owner = world.owner.lock().unwrap();
                let used = owner.as_mut().expect("it was opened").with_session(|marked| marked.0.is_some());
                assert_ne!(used, Ok(false), "reset while it was in use");
            },
            World::evict,
        ],
        PAIR,
        40,
    );
}
