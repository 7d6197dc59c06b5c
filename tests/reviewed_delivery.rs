//! What a review of delivery found once, each with the test that showed it.

mod common;

use bytes::Bytes;
use common::{assert_counts, builder, context};
use parking_lot::Mutex;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;
use ws_manager_pool::{
    Clock, DuplicatePolicy, EndReason, EventData, EventId, Lease, ManagerKey, Message, Observer,
    OutboundLimits, OverflowPolicy, Pool, Pressure, SendOutcome, UserExecutionContext, UserId,
};

/// Long enough for everything that does not hang.
const PATIENCE: Duration = Duration::from_secs(30);

fn open(pool: &Pool, context: &UserExecutionContext) -> Lease {
    pool.reserve(context).unwrap().open().unwrap()
}

fn resume(pool: &Pool, context: &UserExecutionContext, after: &str) -> Lease {
    let mut reservation = pool.reserve(context).unwrap();
    reservation.resume_after(after.parse::<EventId>().unwrap());
    reservation.open().unwrap()
}

/// What waits, by type; other messages as they are.
fn read(lease: &mut Lease) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(message) = lease.next_message().expect("the lease is good") {
        let text = message.as_text().expect("a text");
        let kind = text.strip_prefix(r#"{"type":""#).and_then(|rest| rest.split('"').next());
        told.push(kind.unwrap_or(text).to_owned());
    }
    told
}

/// The application's own kind of data, which looks at the pool to say what it is.
struct Status<'a>(&'a Pool);

impl From<Status<'_>> for EventData {
    fn from(Status(pool): Status<'_>) -> Self {
        format!("{} threads", pool.snapshot().agents.threads).as_str().into()
    }
}

#[test]
fn an_events_data_may_ask_the_pool() {
    let pool: Pool = builder("reviewed-data-asks", 10).build().unwrap();
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let mut run = pool.start_run(&context("ada", None), Status(&pool));
        let _ = run.thinking(Status(&pool));
        let _ = run.complete(Status(&pool));
        done.send(()).unwrap();
    });
    is_done.recv_timeout(PATIENCE).expect("no lock is held while the application's code runs");
}

struct Unspeakable;

impl From<Unspeakable> for EventData {
    fn from(_: Unspeakable) -> Self {
        panic!("it can't be said");
    }
}

#[test]
fn a_run_whose_data_panics_has_not_begun() {
    let (clock, time) = Clock::manual();
    let pool: Pool = builder("reviewed-data-panics", 10).clock(clock).build().unwrap();
    let ada = context("ada", None);
    let lease = open(&pool, &ada);
    let begun = catch_unwind(AssertUnwindSafe(|| pool.start_run(&ada, Unspeakable)));
    assert!(begun.is_err());
    let now = pool.clock().now();
    assert_eq!(lease.with(|manager| manager.is_running(now)), Ok(false));
    assert_eq!(pool.snapshot().agents.runs, 0, "nobody can ever end it");
    drop(lease);
    time.advance(pool.config().replay_age * 2);
    let _ = pool.maintain(pool.clock().now());
    assert_eq!(pool.snapshot().agents.threads, 0, "its thread is forgotten like any other");
}

#[test]
fn an_event_that_is_passed_on_is_an_ordinary_message() {
    let pool: Pool = builder("reviewed-passed-on", 10).build().unwrap();
    let (ada, bob) = (context("ada", None), context("bob", None));
    let (mut from, mut to) = (open(&pool, &ada), open(&pool, &bob));
    let mut run = pool.start_run(&ada, EventData::NONE);
    for _ in 0..8 {
        let _ = run.thinking(EventData::NONE);
    }
    let mut last = None;
    while let Some(message) = from.next_message().unwrap() {
        last = Some(message);
    }
    let last = last.expect("nine events");

    let mut own = pool.start_run(&bob, EventData::NONE);
    assert!(pool.send(to.key(), last).is_queued());
    let _ = own.thinking(EventData::NONE);
    let told = read(&mut to);
    assert_eq!(told, ["agent_started", "agent_thinking", "agent_thinking"], "ada's number is none of bob's");
}

#[test]
fn an_event_that_is_passed_on_hides_no_gap() {
    let limits = OutboundLimits::default().with_messages(1);
    let pool: Pool = builder("reviewed-hidden-gap", 10).outbound(limits).build().unwrap();
    let (ada, bob) = (context("ada", None), context("bob", None));
    let (mut from, mut to) = (open(&pool, &ada), open(&pool, &bob));
    let mut run = pool.start_run(&ada, EventData::NONE);
    let mut last = None;
    for _ in 0..8 {
        last = from.next_message().unwrap().or(last);
        let _ = run.thinking(EventData::NONE);
    }

    assert!(pool.send(to.key(), last.expect("an event")).is_queued());
    let own = pool.start_run(&bob, EventData::NONE); // finds the queue full
    assert_eq!(read(&mut to), ["agent_thinking", "gap"]);
    drop(own);
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_gap_wakes_its_connection_also_where_no_message_is_taken() {
    let limits = OutboundLimits::default().with_messages(0);
    let pool: Pool = builder("reviewed-no-messages", 10).outbound(limits).build().unwrap();
    let ada = context("ada", None);
    let mut lease = open(&pool, &ada);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    assert_eq!(lease.poll_message(&mut Context::from_waker(&waker)), Poll::Pending);
    let run = pool.start_run(&ada, EventData::NONE);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1, "there is something to say");
    assert_eq!(read(&mut lease), ["gap"]);
    drop(run);
}

#[test]
fn who_comes_back_while_the_budget_is_used_up_gets_what_was_kept() {
    let pool: Pool =
        builder("reviewed-no-budget", 10).outbound_pool_bytes(10_000).replay_events(100).build().unwrap();
    let ada = context("ada", None);
    let mut run = pool.start_run(&ada, EventData::NONE);
    for _ in 0..8 {
        let _ = run.thinking(EventData::NONE);
    }
    let slow = open(&pool, &context("bob", None));
    assert!(pool.send(slow.key(), Message::binary(vec![0; 10_000])).is_queued());

    let mut back = resume(&pool, &ada, "1");
    assert_eq!(read(&mut back), ["agent_thinking"; 8]);
    let _ = run.complete(EventData::NONE); // a new one has no room, which is announced
    assert_eq!(read(&mut back), ["gap"]);
    drop((slow, back));
    let it = pool.snapshot().delivery;
    assert_eq!((it.accepted, it.delivered + it.unsent), (9, 9), "{it:?}");
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_run_that_is_forgotten_leaks_no_thread() {
    let (clock, time) = Clock::manual();
    let pool: Pool = builder("reviewed-forgotten-run", 10).clock(clock).build().unwrap();
    std::mem::forget(pool.start_run(&context("ada", None), EventData::NONE));
    let bob = context("bob", None);
    let mut hung = pool.start_run(&bob, EventData::NONE);
    let config = pool.config();
    time.advance(config.run_limit + config.replay_age + Duration::from_secs(1));
    let _ = pool.maintain(pool.clock().now());
    let agents = pool.snapshot().agents;
    assert_eq!((agents.threads, agents.runs), (0, 0));

    let mut lease = open(&pool, &bob);
    assert!(hung.thinking("after all").is_complete());
    let _ = hung.complete(EventData::NONE);
    assert_eq!(read(&mut lease), ["agent_thinking", "agent_completed"]);
}

/// Remembers what became of what it sent to somebody else when it was woken.
struct Pusher {
    pool: Pool,
    to: ManagerKey,
    outcome: Mutex<Option<SendOutcome>>,
}

impl Wake for Pusher {
    fn wake(self: Arc<Self>) {
        *self.outcome.lock() = Some(self.pool.send(self.to, "one more".into()));
    }
}

#[test]
fn one_sender_is_told_that_it_ended_a_connection() {
    let limits = OutboundLimits::default().with_messages(2).with_overflow(OverflowPolicy::Disconnect);
    let pool: Pool =
        builder("reviewed-one-end", 10).duplicates(DuplicatePolicy::Allow).outbound(limits).build().unwrap();
    let ada = context("ada", None);
    let (mut quick, slow) = (open(&pool, &ada), open(&pool, &ada));
    let mut run = pool.start_run(&ada, EventData::NONE);
    assert!(pool.send(slow.key(), "full now".into()).is_queued());
    assert_eq!(read(&mut quick), ["agent_started"]);
    let pusher = Arc::new(Pusher { pool: pool.clone(), to: slow.key(), outcome: Mutex::default() });
    let waker = Waker::from(pusher.clone());
    assert_eq!(quick.poll_message(&mut Context::from_waker(&waker)), Poll::Pending);

    assert_eq!(run.thinking(EventData::NONE).ended, 1);
    assert_eq!(pusher.outcome.lock().take(), Some(SendOutcome::Dropped), "it was ended by another");
    assert_eq!(slow.revoked().map(|why| why.reason()), Some(EndReason::SlowConsumer));
}

/// Sends to somebody else when it is woken.
struct Relay {
    pool: Pool,
    to: ManagerKey,
    went_well: AtomicBool,
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        let outcome = self.pool.send(self.to, Message::binary(vec![0; 100 * 1024]));
        self.went_well.store(outcome.is_queued(), Ordering::SeqCst);
    }
}

#[test]
fn a_message_to_many_takes_no_room_for_connections_that_are_over() {
    let pool: Pool = builder("reviewed-many", 10).outbound_pool_bytes(1024 * 1024).build().unwrap();
    let mut ada = open(&pool, &context("ada", None));
    let bob = open(&pool, &context("bob", None));
    let gone = |_| open(&pool, &context("eve", None)).key();
    let keys: Vec<_> = std::iter::once(ada.key()).chain((0..99).map(gone)).collect();
    let relay = Arc::new(Relay { pool: pool.clone(), to: bob.key(), went_well: AtomicBool::new(false) });
    let waker = Waker::from(relay.clone());
    assert_eq!(ada.poll_message(&mut Context::from_waker(&waker)), Poll::Pending);

    let report = pool.send_many(&keys, Message::binary(vec![0; 10 * 1024]));
    assert_eq!((report.sum.queued, report.stale_keys.len()), (1, 99));
    assert!(relay.went_well.load(Ordering::SeqCst), "nearly all of the budget is free");
    assert_eq!(pool.snapshot().outbound_bytes, 110 * 1024);
}

#[test]
fn a_run_that_hangs_protects_for_its_own_time_only() {
    let (clock, time) = Clock::manual();
    let pool: Pool = builder("reviewed-hung-run", 10).clock(clock).build().unwrap();
    let ada = context("ada", None);
    let lease = open(&pool, &ada);
    let is_running = || lease.with(|manager| manager.is_running(pool.clock().now()));
    let hung = pool.start_run(&ada, EventData::NONE);
    time.advance(pool.config().run_limit / 2);
    let _ = pool.start_run(&ada, EventData::NONE).complete(EventData::NONE);
    assert_eq!(is_running(), Ok(true));
    time.advance(pool.config().run_limit / 2 + Duration::from_secs(1));
    assert_eq!(is_running(), Ok(false), "the run that was completed protects nobody");
    drop(hung);
}

#[test]
fn an_event_takes_no_more_memory_than_is_accounted() {
    let limits = OutboundLimits::default().with_messages(1);
    let pool: Pool = builder("reviewed-event-memory", 10).outbound(limits).build().unwrap();
    let ada = context("ada", format!("thread_{}", "x".repeat(120)).as_str());
    let mut lease = open(&pool, &ada);
    let run = pool.start_run(&ada, "x".repeat(100_000).as_str());
    let bytes = lease.next_message().unwrap().expect("an event").into_bytes();
    let length = bytes.len();
    let room = bytes.try_into_mut().expect("nobody else has it").capacity();
    assert!(room < length + 1_000, "{room} bytes for {length}");
    drop(run);
}

/// Remembers what it was told of queues.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<(bool, usize)>>>);

impl Observer for Ear {
    fn pressure(&self, pressure: &Pressure) {
        self.0.lock().push((pressure.is_high, pressure.queued));
    }
}

/// Takes everything out at once, as a task on another core does.
struct Eager(Mutex<Option<Lease>>);

impl Wake for Eager {
    fn wake(self: Arc<Self>) {
        if let Some(lease) = self.0.lock().as_mut() {
            let _ = read(lease);
        }
    }
}

#[test]
fn the_last_that_is_heard_of_an_empty_queue_is_not_that_it_is_high() {
    let ear = Ear::default();
    let limits = OutboundLimits::default().with_messages(1);
    let pool: Pool = builder("reviewed-pressure", 10).outbound(limits).observer(ear.clone()).build().unwrap();
    let mut lease = open(&pool, &context("ada", None));
    let key = lease.key();
    let owner = Arc::new(Eager(Mutex::default()));
    let waker = Waker::from(owner.clone());
    assert_eq!(lease.poll_message(&mut Context::from_waker(&waker)), Poll::Pending);
    *owner.0.lock() = Some(lease);

    assert!(pool.send(key, "one is many here".into()).is_queued());
    assert_eq!(pool.inspect(key, |manager| manager.queued()), Some(0));
    let heard = ear.0.lock().clone();
    assert_ne!(
        heard.last().map(|&(is_high, _)| is_high),
        Some(true),
        "whoever pauses now waits for ever: {heard:?}"
    );
    drop(owner.0.lock().take());
}

thread_local! {
    static IS_OPENING: Cell<bool> = const { Cell::new(false) };
}

/// Looks at the pool from another thread when it is dropped by one that opens a connection: with a lock held
/// there, that never comes back.
struct Witness {
    pool: Pool,
    is_locked: Arc<AtomicBool>,
}

impl AsRef<[u8]> for Witness {
    fn as_ref(&self) -> &[u8] {
        b"witness"
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if !IS_OPENING.get() || self.is_locked.load(Ordering::SeqCst) {
            return;
        }
        let (done, is_done) = mpsc::channel();
        let pool = self.pool.clone();
        thread::spawn(move || {
            let _ = pool.snapshot();
            let _ = done.send(());
        });
        if is_done.recv_timeout(Duration::from_secs(10)).is_err() {
            self.is_locked.store(true, Ordering::SeqCst);
        }
    }
}

#[test]
fn a_connection_that_joins_a_run_and_ends_at_once_is_not_cleaned_under_the_journals_lock() {
    let pool: Pool = builder("reviewed-join", 10).duplicates(DuplicatePolicy::Allow).build().unwrap();
    let ada = context("ada", None);
    let user = UserId::new("ada").unwrap();
    let run = pool.start_run(&ada, EventData::NONE);
    let is_locked = Arc::new(AtomicBool::new(false));
    let at_work = AtomicUsize::new(3);
    let open_some = || {
        IS_OPENING.set(true);
        let mut opened = 0;
        while opened < 150_000 && !is_locked.load(Ordering::SeqCst) {
            let Ok(place) = pool.reserve(&ada) else {
                thread::yield_now();
                continue;
            };
            opened += 1;
            // Not dropped here: the other thread ends it, and the last pin may be `open`'s.
            std::mem::forget(place.open());
        }
        at_work.fetch_sub(1, Ordering::SeqCst);
    };
    let mut turn = 0;
    let mut evict = |key: ManagerKey| {
        let witness = Witness { pool: pool.clone(), is_locked: is_locked.clone() };
        let _ = pool.send(key, Message::binary(Bytes::from_owner(witness)));
        turn = (turn + 1) % 64;
        (0..turn).for_each(|_| std::hint::spin_loop());
        let _ = pool.evict(key, EndReason::Operator);
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(open_some);
        }
        while at_work.load(Ordering::SeqCst) > 0 {
            pool.keys_of(&user).into_iter().for_each(&mut evict);
        }
    });
    assert!(!is_locked.load(Ordering::SeqCst), "a payload was dropped while a lock was held");
    drop(run);
}
