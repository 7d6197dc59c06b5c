//! A pool so small that loom can follow it, and what each role of a race holds in it.

use loom::sync::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use ws_manager_pool::{
    AtLimit, Clock, DuplicatePolicy, Environment, IdGenerator, Lease, ManualClock, OpenError, Pool,
    Reservation, ReserveError, ReserveWait, UserExecutionContext,
};

/// A pool, and what each role holds in it.
pub(crate) struct World {
    pub(crate) pool: Pool,
    pub(crate) hand: ManualClock,
    pub(crate) places: [Mutex<Option<Reservation>>; 2],
    pub(crate) leases: [Mutex<Option<Lease>>; 2],
    pub(crate) refusals: [Mutex<Option<ReserveError>>; 2],
    pub(crate) open_errors: [Mutex<Option<OpenError>>; 2],
    pub(crate) waiting: Mutex<Option<ReserveWait>>,
    pub(crate) is_woken: Arc<Flag>,
}

/// Models run side by side, and pools have names of their own. No part of any model.
static MODELS: AtomicUsize = AtomicUsize::new(0);

#[derive(Default)]
pub(crate) struct Flag(pub(crate) AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl World {
    /// Its slots have been grown before the race begins.
    pub(crate) fn new(capacity: usize, max_managers_per_user: usize) -> Self {
        Self::with_policy(capacity, max_managers_per_user, AtLimit::Reject)
    }

    pub(crate) fn with_policy(capacity: usize, max_managers_per_user: usize, at_limit: AtLimit) -> Self {
        let (clock, hand) = Clock::manual();
        let pool: Pool = Pool::builder()
            .name(format!("model-{}", MODELS.fetch_add(1, Ordering::Relaxed)))
            .environment(Environment::Ci)
            .capacity(capacity)
            .max_managers_per_user(max_managers_per_user)
            .duplicates(DuplicatePolicy::Replace)
            .at_limit(at_limit)
            .clock(clock)
            .build()
            .expect("a valid configuration");
        drop(pool.reserve(&context("first", "thread_0")).expect("it is empty"));
        Self {
            pool,
            hand,
            places: Default::default(),
            leases: Default::default(),
            refusals: Default::default(),
            open_errors: Default::default(),
            waiting: Mutex::new(None),
            is_woken: Arc::default(),
        }
    }

    pub(crate) fn reserve(&self, role: usize, user: &str, thread: &str) {
        match self.pool.reserve(&context(user, thread)) {
            Ok(place) => *self.places[role].lock().unwrap() = Some(place),
            Err(refusal) => *self.refusals[role].lock().unwrap() = Some(refusal),
        }
    }

    pub(crate) fn open(&self, role: usize) {
        let Some(place) = self.places[role].lock().unwrap().take() else { return };
        match place.open() {
            Ok(lease) => *self.leases[role].lock().unwrap() = Some(lease),
            Err(error) => *self.open_errors[role].lock().unwrap() = Some(error),
        }
    }

    pub(crate) fn give_back(&self, role: usize) {
        drop(self.places[role].lock().unwrap().take());
        drop(self.leases[role].lock().unwrap().take());
    }

    pub(crate) fn poll(&self) -> bool {
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

    pub(crate) fn refusals(&self) -> [Option<ReserveError>; 2] {
        [0, 1].map(|role| *self.refusals[role].lock().unwrap())
    }

    pub(crate) fn assert_counts(&self, live: usize, reserved: usize) {
        let ledger = self.pool.ledger();
        assert!(ledger.balanced, "{ledger:?}");
        assert_eq!((ledger.leases, ledger.reserved, ledger.closing), (live, reserved, 0), "{ledger:?}");
    }

    pub(crate) fn assert_whole(&self) {
        self.give_back(0);
        self.give_back(1);
        self.assert_counts(0, 0);
    }
}

pub(crate) fn context(user: &str, thread: &str) -> UserExecutionContext {
    let ids = IdGenerator::user_context_ids(user, "model").with_client_thread(thread).expect("valid");
    UserExecutionContext::from_websocket_request(user, ids).expect("valid")
}
