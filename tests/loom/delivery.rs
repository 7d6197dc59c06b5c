//! Messages against the end of their connection, and an agent's events against its comings and goings.

use crate::race::Race;
use loom::sync::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use ws_manager_pool::{
    Clock, DuplicatePolicy, EndReason, Environment, EventData, IdGenerator, Lease, ManagerKey, Message, Pool,
    Reservation, Run, SendOutcome, UserExecutionContext,
};

struct World {
    pool: Pool,
    context: UserExecutionContext,
    key: Option<ManagerKey>,
    lease: Mutex<Option<Lease>>,
    place: Mutex<Option<Reservation>>,
    run: Mutex<Option<Run>>,
    outcome: Mutex<Option<SendOutcome>>,
    read: Mutex<Vec<String>>,
    wakes: Arc<Wakes>,
    slept: Mutex<bool>,
}

/// Models run side by side, and pools have names of their own. No part of any model.
static MODELS: AtomicUsize = AtomicUsize::new(0);

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl World {
    fn new() -> Self {
        let (clock, _) = Clock::manual();
        let pool: Pool = Pool::builder()
            .name(format!("delivery-{}", MODELS.fetch_add(1, Ordering::Relaxed)))
            .environment(Environment::Ci)
            .capacity(1)
            .max_managers_per_user(1)
            .duplicates(DuplicatePolicy::Allow)
            .replay_events(10)
            .clock(clock)
            .build()
            .expect("a valid configuration");
        Self {
            pool,
            context: context("ada"),
            key: None,
            lease: Mutex::new(None),
            place: Mutex::new(None),
            run: Mutex::new(None),
            outcome: Mutex::new(None),
            read: Mutex::new(Vec::new()),
            wakes: Arc::default(),
            slept: Mutex::new(false),
        }
    }

    fn connected() -> Self {
        let mut world = Self::reserved();
        world.open();
        world.key = world.lease.lock().unwrap().as_ref().map(Lease::key);
        world
    }

    fn reserved() -> Self {
        let world = Self::new();
        let mut place = world.pool.reserve(&world.context).expect("it is empty");
        place.resume_after("0".parse().expect("a number"));
        *world.place.lock().unwrap() = Some(place);
        world
    }

    /// On its way to a connection, with a run in progress.
    fn running() -> Self {
        let world = Self::reserved();
        *world.run.lock().unwrap() = Some(world.pool.start_run(&world.context, EventData::NONE));
        world
    }

    fn open(&self) {
        let place = self.place.lock().unwrap().take().expect("it was reserved");
        *self.lease.lock().unwrap() = Some(place.open().expect("nobody ends it"));
    }

    fn send(&self) {
        let key = self.key.expect("it is connected");
        *self.outcome.lock().unwrap() = Some(self.pool.send(key, Message::from("for ada")));
    }

    fn close(&self) {
        let lease = self.lease.lock().unwrap().take().expect("it is connected");
        lease.close(EndReason::Closed).expect("nobody else ends it");
    }

    /// Looks for a message, and goes to sleep if there is none.
    fn poll(&self) {
        let waker = Waker::from(self.wakes.clone());
        let mut lease = self.lease.lock().unwrap();
        match lease.as_mut().expect("it is connected").poll_message(&mut Context::from_waker(&waker)) {
            Poll::Ready(_) => {}
            Poll::Pending => *self.slept.lock().unwrap() = true,
        }
    }

    fn think(&self) {
        let _ = self.run.lock().unwrap().as_mut().expect("it was started").thinking(EventData::NONE);
    }

    fn complete(&self) {
        let run = self.run.lock().unwrap().take().expect("it was started");
        let _ = run.complete(EventData::NONE);
    }

    /// Reads what is there.
    fn read(&self) {
        let mut lease = self.lease.lock().unwrap();
        while let Ok(Some(message)) = lease.as_mut().expect("it is connected").next_message() {
            let text = message.as_text().expect("a text").to_owned();
            let seq = text.split_once("\"seq\":").map(|(_, rest)| rest.split(',').next().unwrap_or_default());
            self.read.lock().unwrap().push(seq.map_or(text.clone(), str::to_owned));
        }
    }

    fn assert_read(&self, expected: &[&str]) {
        self.read();
        assert_eq!(*self.read.lock().unwrap(), expected);
    }

    fn assert_whole(&self) {
        drop(self.lease.lock().unwrap().take());
        drop(self.run.lock().unwrap().take());
        let snapshot = self.pool.snapshot();
        assert!(snapshot.ledger.balanced, "{:?}", snapshot.ledger);
        assert_eq!((snapshot.live, snapshot.outbound_bytes), (0, 0));
        let figures = snapshot.delivery;
        assert_eq!(figures.accepted, figures.delivered + figures.unsent, "{figures:?}");
    }
}

fn context(user: &str) -> UserExecutionContext {
    let ids = IdGenerator::user_context_ids(user, "model").with_client_thread("thread_m").expect("valid");
    UserExecutionContext::from_websocket_request(user, ids).expect("valid")
}

#[test]
fn a_message_to_a_connection_that_ends_never_reaches_the_next() {
    Race {
        name: "send against close",
        world: World::connected,
        roles: [World::send, World::close],
        afterwards: |world| {
            let outcome = world.outcome.lock().unwrap().take();
            assert!(matches!(outcome, Some(SendOutcome::Queued | SendOutcome::Stale)), "{outcome:?}");
            let mut next =
                world.pool.reserve(&context("bob")).expect("the slot is free").open().expect("open");
            assert_eq!(next.next_message(), Ok(None), "queued for ada and dropped with her connection");
            drop(next);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 10,
    }
    .run();
}

#[test]
fn no_wake_is_lost_between_the_last_look_and_sleep() {
    Race {
        name: "send against sleep",
        world: World::connected,
        roles: [World::send, World::poll],
        afterwards: |world| {
            let slept = *world.slept.lock().unwrap();
            let wakes = world.wakes.0.load(Ordering::SeqCst);
            assert!(!slept || wakes == 1, "it sleeps, and a message is there");
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 4,
    }
    .run();
}

#[test]
fn the_end_of_a_lease_wakes_its_owner() {
    Race {
        name: "evict against sleep",
        world: World::connected,
        roles: [
            |world| {
                let key = world.key.expect("it is connected");
                world.pool.evict(key, EndReason::Operator).expect("nobody else ends it");
            },
            World::poll,
        ],
        afterwards: |world| {
            let slept = *world.slept.lock().unwrap();
            assert!(!slept || world.wakes.0.load(Ordering::SeqCst) == 1, "it sleeps, and its lease is over");
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2)],
        floor: 4,
    }
    .run();
}

#[test]
fn who_connects_while_an_event_is_told_gets_each_once_and_in_order() {
    Race {
        name: "event against open",
        world: World::running,
        roles: [World::think, World::open],
        afterwards: |world| {
            world.assert_read(&["1", "2"]);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2)],
        floor: 4,
    }
    .run();
}

#[test]
fn who_catches_up_while_an_event_is_told_gets_each_once_and_in_order() {
    Race {
        name: "event against catching up",
        world: || {
            let world = World::running();
            world.open();
            world
        },
        roles: [World::think, World::read],
        afterwards: |world| {
            world.assert_read(&["1", "2"]);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2)],
        floor: 4,
    }
    .run();
}

#[test]
fn a_run_that_ends_while_a_connection_opens_leaves_it_unprotected() {
    Race {
        name: "end of a run against open",
        world: World::running,
        roles: [World::complete, World::open],
        afterwards: |world| {
            let now = world.pool.clock().now();
            let lease = world.lease.lock().unwrap();
            let is_running = lease.as_ref().expect("it is open").with(|manager| manager.is_running(now));
            assert_eq!(is_running, Ok(false));
            drop(lease);
            world.assert_read(&["1", "2"]);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2)],
        floor: 4,
    }
    .run();
}

#[test]
fn a_run_that_starts_while_a_connection_opens_protects_it() {
    Race {
        name: "start of a run against open",
        world: World::reserved,
        roles: [
            |world| *world.run.lock().unwrap() = Some(world.pool.start_run(&world.context, EventData::NONE)),
            World::open,
        ],
        afterwards: |world| {
            let now = world.pool.clock().now();
            let lease = world.lease.lock().unwrap();
            let is_running = lease.as_ref().expect("it is open").with(|manager| manager.is_running(now));
            assert_eq!(is_running, Ok(true));
            drop(lease);
            world.assert_read(&["1"]);
            world.assert_whole();
        },
        bounds: &[Some(1), Some(2)],
        floor: 4,
    }
    .run();
}
