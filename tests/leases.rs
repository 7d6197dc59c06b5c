//! A lease ends once, whoever ends it; afterwards its key reaches nothing, and nothing of its
//! occupant reaches the next.

mod common;
#[path = "common/held.rs"]
mod held;

use common::{assert_counts, builder, context};
use held::HeldPin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, OnceLock};
use std::task::{Context, Poll, Waker};
use std::{mem, thread};
use ws_manager_pool::{
    Clock, DuplicatePolicy, EndReason, Late, Lease, ManagerKey, ManagerState, Message, OpenError, Pool,
    Reservation, ReserveWait, Revoked, SendOutcome, Session, TransitionError,
};

/// What the application keeps for a connection: a buffer that is reused.
#[derive(Debug, Default)]
struct Draft {
    text: Vec<u8>,
}

impl Session for Draft {
    fn reset(&mut self) {
        self.text.clear();
    }
}

fn connect<S: Session>(pool: &Pool<S>, user: &str) -> Lease<S> {
    pool.reserve(&context(user, None)).unwrap().open().unwrap()
}

const _: () = {
    const fn shared<T: Send + Sync>() {}
    const fn sent<T: Send>() {}
    // A session that is `Send` and no more.
    shared::<Pool<NotSync>>();
    sent::<Lease<NotSync>>();
    sent::<Reservation<NotSync>>();
    sent::<ReserveWait<NotSync>>();
    shared::<ManagerKey>();
};

#[derive(Default)]
struct NotSync(std::cell::Cell<u8>);

impl Session for NotSync {
    fn reset(&mut self) {
        self.0.set(0);
    }
}

#[test]
fn exactly_one_of_close_evict_takeover_sweep_and_drop_cleans_up() {
    const ROUNDS: u64 = 500;
    let pool: Pool = builder("once", 8).build().unwrap();
    let wins: [AtomicUsize; 3] = Default::default();
    let won = |cleaner: usize, is_winner: bool| {
        wins[cleaner].fetch_add(usize::from(is_winner), Ordering::SeqCst);
    };
    let connect = || pool.reserve(&context("ada", "thread_a")).unwrap().open().unwrap();
    for round in 0..ROUNDS {
        let lease = connect();
        let key = lease.key();
        let start = Barrier::new(5);
        let start = || {
            start.wait();
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                start();
                if round % 2 == 0 {
                    won(0, lease.close(EndReason::Closed).is_ok());
                }
            });
            scope.spawn(|| {
                start();
                won(1, pool.evict(key, EndReason::Operator).is_ok());
            });
            scope.spawn(|| {
                start();
                won(2, pool.evict_if(key, EndReason::Idle, |_| true) == Ok(true));
            });
            scope.spawn(|| {
                start();
                let sent = pool.send(key, Message::from("while it ends"));
                assert!(matches!(sent, SendOutcome::Queued | SendOutcome::Stale));
            });
            scope.spawn(|| {
                start();
                drop(connect());
            });
        });
        assert_counts(&pool, 0, 0, 0);
    }
    let tally = pool.ledger().tally;
    assert_eq!(tally.opened, 2 * ROUNDS);
    assert_eq!(tally.ended, tally.opened, "each once");
    let by = |reason| tally.ends_by_reason.get(reason).copied().unwrap_or(0);
    let [closed, evicted, swept] = wins.map(|count| count.into_inner() as u64);
    assert_eq!((by("closed"), by("operator"), by("idle")), (closed, evicted, swept));
    assert_eq!(by("dropped") + by("takeover"), 2 * ROUNDS - closed - evicted - swept);
}

#[test]
fn evict_if_spares_a_connection_that_is_not_what_was_wanted_at_that_moment() {
    let pool: Pool = builder("evict-if", 4).build().unwrap();
    let lease = connect(&pool, "ada");
    let is_silent = |key| pool.inspect(key, |manager| manager.messages_in() == 0).unwrap();
    assert!(is_silent(lease.key()), "a sweep decides");
    lease.received(5).unwrap();
    let evicted = pool.evict_if(lease.key(), EndReason::Idle, |manager| manager.messages_in() == 0);
    assert_eq!(evicted, Ok(false));
    assert!(lease.is_live());
    assert_counts(&pool, 1, 0, 0);
    let evicted = pool.evict_if(lease.key(), EndReason::Idle, |manager| manager.messages_in() == 1);
    assert_eq!(evicted, Ok(true));
    assert_eq!(lease.revoked().unwrap().close_code(), 4003);
    let late = pool.evict_if(lease.key(), EndReason::Idle, |_| panic!("nobody is there to be asked"));
    assert_eq!(late, Err(Late));
    assert_counts(&pool, 0, 0, 0);
}

/// Everything that can be done with a lease that is over, and with its key.
fn assert_stale(pool: &Pool<Draft>, lease: &mut Lease<Draft>, reasons: &[EndReason]) {
    let key = lease.key();
    let is_expected = |revoked: Revoked| {
        assert!(reasons.contains(&revoked.reason()), "{revoked:?}");
        true
    };
    let is_refused = |step: Result<(), TransitionError>| match step {
        Err(TransitionError::Revoked(revoked)) => is_expected(revoked),
        other => panic!("{other:?}"),
    };
    assert!(!lease.is_live());
    assert!(lease.revoked().is_some_and(is_expected));
    assert!(lease.with(|_| ()).is_err_and(is_expected));
    assert!(lease.with_session(|_| panic!("it is another's")).is_err_and(is_expected));
    assert!(is_refused(lease.connected()) && is_refused(lease.closing()));
    assert!(is_refused(lease.disconnected()) && is_refused(lease.errored()));
    assert!(lease.received(1).is_err_and(is_expected));
    assert!(lease.next_message().is_err_and(is_expected));
    match lease.poll_message(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(revoked)) => assert!(is_expected(revoked)),
        other => panic!("{other:?}"),
    }
    assert_key_is_stale(pool, key);
}

fn assert_key_is_stale<S: Session>(pool: &Pool<S>, key: ManagerKey) {
    assert_eq!(pool.send(key, Message::from("lost")), SendOutcome::Stale);
    let report = pool.send_many(&[key, key], Message::from("lost"));
    assert_eq!((report.sum.stale, report.sum.addressed()), (2, 2));
    assert_eq!(report.stale_keys, [key, key]);
    assert_eq!(pool.inspect(key, |_| ()), None);
    assert_eq!(pool.evict(key, EndReason::Operator), Err(Late));
    assert_eq!(pool.evict_if(key, EndReason::Operator, |_| true), Err(Late));
}

#[test]
fn a_stale_key_reaches_nothing_before_and_after_its_slots_reuse() {
    let pool: Pool<Draft> = builder("stale", 1).build().unwrap();
    let mut old = connect(&pool, "ada");
    pool.evict(old.key(), EndReason::Operator).unwrap();
    assert_stale(&pool, &mut old, &[EndReason::Operator]);
    let mut next = connect(&pool, "bob");
    assert_eq!(next.key().index(), old.key().index(), "the same slot");
    assert_stale(&pool, &mut old, &[EndReason::Operator]);
    assert_eq!(next.with(|manager| (manager.queued(), manager.messages_in())), Ok((0, 0)));
    pool.evict(next.key(), EndReason::Idle).unwrap();
    assert_stale(&pool, &mut old, &[EndReason::Operator]); // remembered, though the slot has had another life
    assert_stale(&pool, &mut next, &[EndReason::Idle]);
    assert_eq!(old.close(EndReason::Closed), Err(Late));
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_stale_key_reaches_nothing_after_its_page_was_freed_and_regrown() {
    let pool: Pool<Draft> = builder("stale-page", 4_096).build().unwrap();
    let peak = || -> Vec<_> { (0..4_096).map(|_| connect(&pool, "ada")).collect() };
    let mut leases = peak();
    leases.iter().for_each(|lease| pool.evict(lease.key(), EndReason::Operator).unwrap());
    assert_counts(&pool, 0, 0, 0);
    for _ in 0..10 {
        pool.maintain(pool.clock().now());
    }
    leases
        .iter_mut()
        .for_each(|lease| assert_stale(&pool, lease, &[EndReason::Operator, EndReason::Unknown]));
    let mut next = peak();
    assert_counts(&pool, 4_096, 0, 0);
    leases
        .iter_mut()
        .for_each(|lease| assert_stale(&pool, lease, &[EndReason::Operator, EndReason::Unknown]));
    drop(leases);
    assert!(
        next.iter_mut().all(|lease| lease.next_message() == Ok(None)),
        "nobody got what was sent to them"
    );
    assert_counts(&pool, 4_096, 0, 0);
    drop(next);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_key_of_one_pool_is_stale_in_another() {
    let pools: [Pool<Draft>; 2] =
        ["one", "another"].map(|name| builder(&format!("foreign-{name}"), 64).build().unwrap());
    let [leases, mut others] =
        pools.each_ref().map(|pool| (0..64).map(|_| connect(pool, "ada")).collect::<Vec<_>>());
    leases.iter().for_each(|lease| assert_key_is_stale(&pools[1], lease.key()));
    others.iter_mut().for_each(|lease| {
        assert_key_is_stale(&pools[0], lease.key());
        assert_eq!(lease.next_message(), Ok(None));
    });
    assert_key_is_stale(&pools[0], ManagerKey::from_bits(0));
    assert_key_is_stale(&pools[0], ManagerKey::from_bits(u64::MAX));
    pools.iter().for_each(|pool| assert_counts(pool, 64, 0, 0));
}

#[test]
fn a_leaked_lease_is_evicted_and_its_slot_used_again() {
    let pool: Pool<Draft> = builder("leaked", 1).build().unwrap();
    for _ in 0..100 {
        let mut leaked = connect(&pool, "ada");
        leaked.with_session(|draft| draft.text.extend(b"secret")).unwrap();
        let key = leaked.key();
        mem::forget(leaked);
        assert!(pool.reserve(&context("bob", None)).is_err());
        pool.evict(key, EndReason::Heartbeat).unwrap();
        assert_counts(&pool, 0, 0, 0);
        let mut next = connect(&pool, "bob");
        assert_eq!(next.key().index(), key.index());
        assert!(next.with_session(|draft| draft.text.is_empty()).unwrap());
    }
}

#[test]
fn an_owner_in_the_middle_of_its_state_does_not_stop_an_eviction() {
    let pool: Pool<Draft> = builder("hung", 1).build().unwrap();
    let mut lease = connect(&pool, "ada");
    let key = lease.key();
    lease
        .with_session(|draft| {
            draft.text.extend(b"secret");
            pool.evict(key, EndReason::Operator).unwrap();
            assert_counts(&pool, 0, 0, 1);
            draft.text.extend(b" of a revoked owner");
        })
        .unwrap();
    assert_counts(&pool, 0, 0, 0);
    let mut next = connect(&pool, "bob");
    assert_eq!(next.key().index(), key.index());
    assert!(next.with_session(|draft| draft.text.is_empty()).unwrap(), "reset before its next use");
    assert_eq!(lease.revoked().unwrap().reason(), EndReason::Operator);
}

#[test]
fn a_leaked_reservation_expires_and_its_place_is_used_again() {
    let (clock, hand) = Clock::manual();
    let pool: Pool = builder("leaked-reservation", 3).clock(clock).build().unwrap();
    for _ in 0..20 {
        (0..3).for_each(|_| mem::forget(pool.reserve(&context("ada", None)).unwrap()));
        assert_counts(&pool, 0, 3, 0);
        assert!(pool.reserve(&context("ada", None)).is_err());
        hand.advance(pool.config().reservation_deadline);
        // The refusal itself looks for what was forgotten.
        let places: Vec<_> = (0..3).map(|_| pool.reserve(&context("bob", None)).unwrap()).collect();
        assert_counts(&pool, 0, 3, 0);
        hand.advance(pool.config().reservation_deadline);
        assert_eq!(pool.maintain(pool.clock().now()).expired, 3);
        for place in places {
            assert_eq!(place.open().unwrap_err(), OpenError::Expired);
        }
        assert_counts(&pool, 0, 0, 0);
    }
}

#[test]
fn a_reservation_in_time_is_not_taken_back() {
    let (clock, hand) = Clock::manual();
    let pool: Pool = builder("in-time", 1).clock(clock).build().unwrap();
    let place = pool.reserve(&context("ada", None)).unwrap();
    hand.advance(pool.config().reservation_deadline - std::time::Duration::from_millis(1));
    assert_eq!(pool.maintain(pool.clock().now()).expired, 0);
    let lease = place.open().unwrap();
    hand.advance(10 * pool.config().reservation_deadline);
    assert_eq!(pool.maintain(pool.clock().now()).expired, 0, "what is open has no deadline");
    assert!(lease.is_live());
}

static RESET_PANICS: AtomicBool = AtomicBool::new(false);
static DEFAULT_PANICS: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct Brittle {
    text: &'static str,
}

impl Default for Brittle {
    fn default() -> Self {
        assert!(!DEFAULT_PANICS.load(Ordering::SeqCst), "planned: default");
        Self { text: "" }
    }
}

impl Session for Brittle {
    fn reset(&mut self) {
        assert!(!RESET_PANICS.load(Ordering::SeqCst), "planned: reset");
        self.text = "";
    }
}

/// One test for both, since they share the switches.
#[test]
fn a_state_that_panics_is_rebuilt_and_one_that_cannot_be_rebuilt_retires_its_slot() {
    let pool: Pool<Brittle> = builder("brittle", 1).build().unwrap();
    let mut seen = Vec::new();
    let mut live_and_die = |reset: bool, default: bool| {
        let mut lease = connect(&pool, "ada");
        assert_eq!(lease.with_session(|state| mem::replace(&mut state.text, "secret")), Ok(""));
        seen.push(lease.key());
        RESET_PANICS.store(reset, Ordering::SeqCst);
        DEFAULT_PANICS.store(default, Ordering::SeqCst);
        drop(lease);
        RESET_PANICS.store(false, Ordering::SeqCst);
        DEFAULT_PANICS.store(false, Ordering::SeqCst);
        assert_counts(&pool, 0, 0, 0);
        assert_eq!(pool.snapshot().free, 1, "the capacity stays");
    };
    live_and_die(false, false);
    live_and_die(true, false);
    live_and_die(true, true);
    live_and_die(false, false);
    live_and_die(true, true);
    live_and_die(false, false);
    let [first, rebuilt, retired, replaced, again, last] = seen[..] else { panic!("six lives") };
    assert_eq!((rebuilt.index(), retired.index()), (first.index(), first.index()));
    assert_ne!(replaced.index(), retired.index());
    assert_eq!(again.index(), replaced.index());
    assert!(last.index() != again.index() && last.index() != first.index());

    // With a claim on the place of the state that cannot be rebuilt.
    let old = pool.reserve(&context("ada", "thread_a")).unwrap().open().unwrap();
    let claim = pool.reserve(&context("ada", "thread_a")).unwrap();
    RESET_PANICS.store(true, Ordering::SeqCst);
    DEFAULT_PANICS.store(true, Ordering::SeqCst);
    let mut old = old;
    old.with_session(|state| state.text = "secret").unwrap();
    drop(old);
    RESET_PANICS.store(false, Ordering::SeqCst);
    DEFAULT_PANICS.store(false, Ordering::SeqCst);
    assert_counts(&pool, 0, 0, 0);
    assert_eq!(claim.open().unwrap_err(), OpenError::Expired);
    drop(connect(&pool, "ada"));
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_panic_while_a_lease_is_in_use_frees_it() {
    let pool: Pool<Draft> = builder("panics", 1).build().unwrap();
    let handler = pool.clone();
    let panicked = thread::spawn(move || {
        let mut lease = connect(&handler, "ada");
        lease.with_session(|_| panic!("planned: a handler's bug")).unwrap();
    });
    assert!(panicked.join().is_err());
    assert_counts(&pool, 0, 0, 0);
    drop(connect(&pool, "bob"));
}

static USED_BY_DROPS: OnceLock<Pool<Talkative>> = OnceLock::new();
static DROPS: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Default)]
struct Talkative;

impl Session for Talkative {
    fn reset(&mut self) {}
}

impl Drop for Talkative {
    fn drop(&mut self) {
        DROPS.fetch_add(1, Ordering::SeqCst);
        let Some(pool) = USED_BY_DROPS.get() else { return };
        assert!(pool.reserve(&context("drop", None)).is_ok());
    }
}

/// States are dropped when their page goes: under no lock.
#[test]
fn a_state_whose_drop_uses_the_pool_waits_for_nobody() {
    let pool: Pool<Talkative> = builder("talkative", 8_192).build().unwrap();
    let pool = USED_BY_DROPS.get_or_init(|| pool);
    for _ in 0..2 {
        drop((0..8_000).map(|_| connect(pool, "ada")).collect::<Vec<_>>());
        for _ in 0..10 {
            pool.maintain(pool.clock().now());
            // Collects garbage, in sections too.
            (0..200).for_each(|_| drop(connect(pool, "ada")));
        }
    }
    assert!(DROPS.load(Ordering::SeqCst) > 8_000);
    assert_counts(pool, 0, 0, 0);
}

#[test]
fn nothing_of_the_last_occupant_reaches_the_next() {
    let pool: Pool<Draft> = builder("apart", 1).duplicates(DuplicatePolicy::Allow).build().unwrap();
    for round in 0..200 {
        let mut ada = connect(&pool, "ada");
        let reader = (round % 4 == 0).then(|| HeldPin::on(&pool, ada.key()));
        ada.with_session(|draft| {
            assert!(draft.text.is_empty());
            draft.text.extend(b"secret");
        })
        .unwrap();
        ada.connected().unwrap();
        ada.received(6).unwrap();
        for _ in 0..10 {
            assert!(pool.send(ada.key(), Message::text("secret".to_owned())).is_queued());
        }
        ada.next_message().unwrap();
        drop(ada);
        drop(reader);
        assert_eq!(pool.snapshot().outbound_bytes, 0);
        let mut bob = connect(&pool, "bob");
        assert_eq!(bob.next_message(), Ok(None));
        assert!(bob.with_session(|draft| draft.text.is_empty()).unwrap());
        let figures = bob.with(|manager| {
            let counts =
                [manager.messages_in(), manager.messages_out(), manager.bytes_in(), manager.bytes_out()];
            (manager.user_id().as_str().to_owned(), manager.state(), manager.queued(), counts)
        });
        assert_eq!(figures, Ok(("bob".to_owned(), ManagerState::Connecting, 0, [0; 4])));
    }
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_message_under_way_to_the_last_occupant_never_reaches_the_next() {
    /// Ends the sender, also when the test fails.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    // One slot may be waiting for the sender to leave it.
    let pool: Pool = builder("under-way", 2).build().unwrap();
    let keys = crossbeam_queue::ArrayQueue::new(1);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut key = None;
            while !is_over.load(Ordering::SeqCst) {
                key = keys.pop().or(key);
                if let Some((key, text)) = key {
                    let outcome = pool.send(key, Message::text_static(text));
                    assert!(!matches!(outcome, SendOutcome::NoSuchUser));
                }
            }
        });
        let _over = Over(&is_over);
        for round in 0..5_000 {
            let me = if round % 2 == 0 { "even" } else { "odd" };
            let mut lease = connect(&pool, me);
            keys.force_push((lease.key(), me));
            if round % 16 < 2 {
                thread::yield_now();
            }
            // The sender may be faster: not until the queue is empty.
            for _ in 0..8 {
                if let Some(message) = lease.next_message().unwrap() {
                    assert_eq!(message.as_text(), Some(me));
                }
            }
        }
    });
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn debug_never_shows_what_was_said() {
    let pool: Pool<Draft> = builder("debug", 2).build().unwrap();
    let place = pool.reserve(&context("ada", "thread_a")).unwrap();
    let shown_place = format!("{place:?}");
    let mut lease = place.open().unwrap();
    lease.with_session(|draft| draft.text.extend(b"hunter2")).unwrap();
    let outcome = pool.send(lease.key(), Message::from("hunter2"));
    let full = SendOutcome::Full(Message::from("hunter2"));
    let shown = [
        shown_place,
        format!("{pool:?} {:?}", pool.reserve_wait(&context("ada", None))),
        format!("{lease:?} {:?}", lease.key()),
        lease.with(|manager| format!("{manager:?}")).unwrap(),
        format!("{:?} {:?}", pool.snapshot(), pool.managers(10)),
        format!("{outcome:?} {full:?} {:?}", lease.next_message()),
    ];
    for shown in shown {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
