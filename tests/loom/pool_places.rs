//! The pool's last place, a user's last place, and a place that is handed over.

use crate::race::Race;
use loom::sync::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use ws_manager_pool::{
    Clock, DuplicatePolicy, Environment, IdGenerator, Lease, OpenError, Pool, Reservation, ReserveError,
    ReserveWait, UserExecutionContext,
};

/// A pool, and what each role holds in it.
struct World {
    pool: Pool,
    places: [Mutex<Option<Reservation>>; 2],
    leases: [Mutex<Option<Lease>>; 2],
    refusals: [Mutex<Option<ReserveError>>; 2],
    open_errors: [Mutex<Option<OpenError>>; 2],
    waiting: Mutex<Option<ReserveWait>>,
    is_woken: Arc<Flag>,
}

/// Models run side by side, and pools have names of their own. No part of any model.
static MODELS: AtomicUsize = AtomicUsize::new(0);

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl World {
    /// Its slots have been grown before the race begins.
    fn new(capacity: usize, max_managers_per_user: usize) -> Self {
        let (clock, _) = Clock::manual();
        let pool: Pool = Pool::builder()
            .name(format!("model-{}", MODELS.fetch_add(1, Ordering::Relaxed)))
            .environment(Environment::Ci)
            .capacity(capacity)
            .max_managers_per_user(max_managers_per_user)
            .duplicates(DuplicatePolicy::Replace)
            .clock(clock)
            .build()
            .expect("a valid configuration");
        drop(pool.reserve(&context("first", "thread_0")).expect("it is empty"));
        Self {
            pool,
            places: Default::default(),
            leases: Default::default(),
            refusals: Default::default(),
            open_errors: Default::default(),
            waiting: Mutex::new(None),
            is_woken: Arc::default(),
        }
    }

    fn reserve(&self, role: usize, user: &str, thread: &str) {
        match self.pool.reserve(&context(user, thread)) {
            Ok(place) => *self.places[role].lock().unwrap() = Some(place),
            Err(refusal) => *self.refusals[role].lock().unwrap() = Some(refusal),
        }
    }

    fn open(&self, role: usize) {
        let Some(place) = self.places[role].lock().unwrap().take() else { return };
        match place.open() {
            Ok(lease) => *self.leases[role].lock().unwrap() = Some(lease),
            Err(error) => *self.open_errors[role].lock().unwrap() = Some(error),
        }
    }

    fn give_back(&self, role: usize) {
        drop(self.places[role].lock().unwrap().take());
        drop(self.leases[role].lock().unwrap().take());
    }

    fn poll(&self) -> bool {
        let waker = Waker::from(self.is_woken.clone());
        let mut waiting = self.waiting.lock().unwrap();
        let waiting = waiting.get_or_insert_with(|| self.pool.reserve_wait(&context("waiter", "thread_w")));
        match Pin::new(waiting).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(place) => {
                *self.places[1].lock().unwrap() = Some(place.expect("a place"));
                true
            }
            Poll::Pending => false,
        }
    }

    fn refusals(&self) -> [Option<ReserveError>; 2] {
        [0, 1].map(|role| *self.refusals[role].lock().unwrap())
    }

    fn assert_counts(&self, live: usize, reserved: usize) {
        let ledger = self.pool.ledger();
        assert!(ledger.balanced, "{ledger:?}");
        assert_eq!((ledger.leases, ledger.reserved, ledger.closing), (live, reserved, 0), "{ledger:?}");
    }

    fn assert_whole(&self) {
        self.give_back(0);
        self.give_back(1);
        self.assert_counts(0, 0);
    }
}

fn context(user: &str, thread: &str) -> UserExecutionContext {
    let ids = IdGenerator::user_context_ids(user, "model").with_client_thread(thread).expect("valid");
    UserExecutionContext::from_websocket_request(user, ids).expect("valid")
}

#[test]
fn of_two_users_one_gets_the_last_place() {
    Race {
        name: "the last place",
        world: || World::new(1, 1),
        roles: [|world| world.reserve(0, "ada", "thread_a"), |world| world.reserve(1, "bob", "thread_b")],
        afterwards: |world| {
            let refusals = world.refusals();
            assert_eq!(refusals.iter().flatten().count(), 1, "one is served: {refusals:?}");
            assert!(refusals.contains(&Some(ReserveError::PoolFull { capacity: 1 })));
            world.assert_counts(0, 1);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 10,
    }
    .run();
}

#[test]
fn one_user_gets_one_place_at_the_edge_of_the_quota() {
    Race {
        name: "the edge of the quota",
        world: || World::new(2, 1),
        roles: [|world| world.reserve(0, "ada", "thread_a"), |world| world.reserve(1, "ada", "thread_b")],
        afterwards: |world| {
            let refusals = world.refusals();
            assert_eq!(refusals.iter().flatten().count(), 1, "one is served: {refusals:?}");
            assert!(refusals.contains(&Some(ReserveError::UserFull { max_managers: 1 })));
            world.assert_counts(0, 1);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 4,
    }
    .run();
}

#[test]
fn a_place_that_is_given_back_can_be_had() {
    Race {
        name: "reserve against drop",
        world: || {
            let world = World::new(1, 1);
            world.reserve(0, "ada", "thread_a");
            world
        },
        roles: [|world| world.give_back(0), |world| world.reserve(1, "bob", "thread_b")],
        afterwards: |world| {
            if world.refusals()[1].is_some() {
                world.assert_counts(0, 0);
                world.reserve(1, "bob", "thread_b");
            }
            world.assert_counts(0, 1);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 10,
    }
    .run();
}

/// No wake is lost between looking and falling asleep.
#[test]
fn a_waiter_gets_the_place_that_is_given_back() {
    Race {
        name: "wait against drop",
        world: || {
            let world = World::new(1, 1);
            world.reserve(0, "ada", "thread_a");
            world
        },
        roles: [
            |world| world.give_back(0),
            |world| {
                world.poll();
            },
        ],
        afterwards: |world| {
            let is_served = world.places[1].lock().unwrap().is_some();
            assert!(is_served || world.is_woken.0.load(Ordering::SeqCst), "it sleeps, and a place is free");
            assert!(is_served || world.poll(), "it was woken for nothing");
            world.assert_counts(0, 1);
            drop(world.waiting.lock().unwrap().take());
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 10,
    }
    .run();
}

#[test]
fn a_try_does_not_overtake_a_waiter() {
    Race {
        name: "wait against drop and try",
        world: || {
            let world = World::new(1, 1);
            world.reserve(0, "ada", "thread_a");
            assert!(!world.poll());
            world
        },
        roles: [
            |world| world.give_back(0),
            |world| match world.pool.reserve(&context("bob", "thread_b")) {
                Ok(_) => panic!("the place is for the one who waits"),
                Err(refusal) => assert_eq!(refusal, ReserveError::PoolFull { capacity: 1 }),
            },
        ],
        afterwards: |world| {
            assert!(world.is_woken.0.load(Ordering::SeqCst) && world.poll());
            world.assert_counts(0, 1);
            drop(world.waiting.lock().unwrap().take());
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 10,
    }
    .run();
}

#[test]
fn a_claim_takes_the_place_whether_the_old_connection_closes_or_is_taken_over() {
    Race {
        name: "takeover against close",
        world: || {
            let world = World::new(1, 1);
            world.reserve(0, "ada", "thread_a");
            world.open(0);
            world.reserve(1, "ada", "thread_a");
            world
        },
        roles: [|world| world.give_back(0), |world| world.open(1)],
        afterwards: |world| {
            assert_eq!(*world.open_errors[1].lock().unwrap(), None);
            world.assert_counts(1, 0);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 4,
    }
    .run();
}
