//! One body of tests, run on the pool and on its double.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use ws_manager_pool::testing::FakePool;
use ws_manager_pool::{
    BuildError, Clock, DuplicatePolicy, EndReason, Environment, IdGenerator, IsolationKey, Late, ManagerKey,
    ManagerLease, ManagerPool, ManagerReservation, ManagerState, ManualClock, Message, OpenError,
    OutboundLimits, Pool, PoolBuilder, ReserveError, SendOutcome, Session, ThreadId, TransitionError,
    UserExecutionContext, UserId,
};

/// Makes one of the two.
trait Kind {
    type Of<S: Session>: ManagerPool<Session = S>;

    fn build<S: Session>(builder: PoolBuilder<S>) -> Result<Self::Of<S>, BuildError>;
}

struct Real;

impl Kind for Real {
    type Of<S: Session> = Pool<S>;

    #[track_caller]
    fn build<S: Session>(builder: PoolBuilder<S>) -> Result<Pool<S>, BuildError> {
        builder.build()
    }
}

struct Double;

impl Kind for Double {
    type Of<S: Session> = FakePool<S>;

    #[track_caller]
    fn build<S: Session>(builder: PoolBuilder<S>) -> Result<FakePool<S>, BuildError> {
        builder.build_fake()
    }
}

macro_rules! on_both {
    ($($promise:ident,)*) => {
        mod on_the_pool {
            $(#[test]
            fn $promise() {
                super::$promise::<super::Real>();
            })*
        }

        mod on_the_double {
            $(#[test]
            fn $promise() {
                super::$promise::<super::Double>();
            })*
        }
    };
}

on_both! {
    a_connection_comes_and_goes,
    the_limits_hold_and_a_refusal_leaves_nothing,
    a_user_at_the_limit_takes_over_a_live_thread,
    a_claim_outlives_the_connection_that_it_claimed,
    an_expired_claim_never_touches_the_next_reservation,
    a_duplicate_is_replaced_rejected_or_allowed,
    what_is_forgotten_expires_and_a_late_open_says_so,
    a_lease_ends_once_and_its_owner_learns_why,
    the_state_moves_by_the_protocol_only,
    a_message_is_queued_refused_dropped_or_stale,
    messages_reach_whom_they_are_addressed_to_and_nobody_else,
    those_who_wait_are_served_in_order,
    a_raised_limit_serves_who_waited_for_it,
    no_wake_is_lost,
    the_next_connection_gets_the_session_reset,
    a_session_that_can_not_be_made_is_refused,
    a_stale_key_does_nothing,
    a_drain_refuses_and_harms_nobody,
    a_name_is_one_pools,
}

fn context(user: &str, thread: &str) -> UserExecutionContext {
    let ids = IdGenerator::user_context_ids(user, "test").with_client_thread(thread).unwrap();
    UserExecutionContext::from_websocket_request(user, ids).unwrap()
}

fn user(user: &str) -> UserId {
    UserId::new(user).unwrap()
}

fn builder<S: Session>(capacity: usize, per_user: usize) -> PoolBuilder<S> {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    Pool::<S>::builder()
        .name(format!("conformance-{}", NAMES.fetch_add(1, Ordering::Relaxed)))
        .environment(Environment::Ci)
        .capacity(capacity)
        .max_managers_per_user(per_user)
}

fn with_clock<K: Kind>(builder: PoolBuilder) -> (K::Of<()>, ManualClock) {
    let (clock, hand) = Clock::manual();
    (K::build(builder.clock(clock)).unwrap(), hand)
}

fn make<K: Kind>(capacity: usize, per_user: usize) -> K::Of<()> {
    K::build(builder(capacity, per_user)).unwrap()
}

#[track_caller]
fn connect<P: ManagerPool>(pool: &P, user: &str, thread: &str) -> P::Lease {
    pool.reserve(&context(user, thread)).unwrap().open().unwrap()
}

#[track_caller]
fn assert_empty(pool: &impl ManagerPool) {
    let snapshot = pool.snapshot();
    let ledger = &snapshot.ledger;
    assert!(ledger.balanced, "{ledger:?}");
    assert_eq!((snapshot.live, snapshot.reserved, snapshot.users, snapshot.outbound_bytes), (0, 0, 0, 0));
    assert_eq!((ledger.leases, ledger.users_sum, ledger.occupied_slots, ledger.isolation_keys), (0, 0, 0, 0));
    assert_eq!(snapshot.free, snapshot.capacity);
}

fn texts(lease: &mut impl ManagerLease) -> Vec<String> {
    std::iter::from_fn(|| lease.next_message().unwrap())
        .map(|message| message.as_text().unwrap().to_owned())
        .collect()
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bell {
    fn rings(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll<F: Future + Unpin>(future: &mut F, bell: &Arc<Bell>) -> Poll<F::Output> {
    let waker = Waker::from(bell.clone());
    Pin::new(future).poll(&mut Context::from_waker(&waker))
}

#[track_caller]
fn served<P: ManagerPool>(wait: &mut P::ReserveWait) -> Result<P::Reservation, ReserveError> {
    match poll(wait, &Arc::default()) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("it was not served"),
    }
}

fn a_connection_comes_and_goes<K: Kind>() {
    let (pool, hand) = with_clock::<K>(builder(10, 5));
    let context = context("ada", "thread_7");
    let reservation = pool.reserve(&context).unwrap();
    assert_eq!(reservation.context(), &context);
    assert_eq!((pool.snapshot().reserved, pool.snapshot().live), (1, 0));
    let line = line!() - 3;
    let mut lease = reservation.open().unwrap();
    assert!(lease.is_live() && lease.revoked().is_none());
    assert_eq!(pool.keys_of(context.user_id()), [lease.key()]);
    assert_eq!(pool.inspect(lease.key(), |manager| manager.context().clone()), Some(context));

    lease.connected().unwrap();
    hand.advance(Duration::from_secs(3));
    lease.received(40).unwrap();
    assert!(pool.send(lease.key(), Message::from("hello")).is_queued());
    assert_eq!(pool.snapshot().outbound_bytes, 5);
    assert_eq!(texts(&mut lease), ["hello"]);
    assert_eq!(pool.snapshot().outbound_bytes, 0);
    hand.advance(Duration::from_secs(2));

    let figures = pool.managers(10);
    assert_eq!(figures.len(), 1);
    assert_eq!((figures[0].user_id.as_str(), figures[0].thread_id.as_str()), ("ada", "thread_7"));
    assert_eq!((figures[0].age_ms, figures[0].idle_ms), (5_000, 2_000));
    assert_eq!((figures[0].messages_in, figures[0].bytes_in), (1, 40));
    assert_eq!((figures[0].messages_out, figures[0].bytes_out), (1, 5));
    assert_eq!((figures[0].state, figures[0].queued), (ManagerState::Connected, 0));
    assert!(figures[0].made_at.contains(&format!("conformance.rs:{line}:")), "{}", figures[0].made_at);
    assert_eq!(pool.managers(0), []);
    assert_eq!(lease.with(|manager| manager.idle(pool.clock().now())), Ok(Duration::from_secs(2)));

    lease.close(EndReason::Closed).unwrap();
    assert_empty(&pool);
    let tally = pool.ledger().tally;
    assert_eq!((tally.reserved, tally.opened, tally.ended), (1, 1, 1));
    assert_eq!(tally.ends_by_reason, [("closed", 1)].into());
}

fn the_limits_hold_and_a_refusal_leaves_nothing<K: Kind>() {
    let pool = make::<K>(3, 2);
    assert_eq!((pool.config().capacity, pool.config().max_managers_per_user), (3, 2));
    let held = [connect(&pool, "ada", "thread_1"), connect(&pool, "ada", "thread_2")];
    let full = ReserveError::UserFull { max_managers: 2 };
    assert_eq!(pool.reserve(&context("ada", "thread_3")).unwrap_err(), full);
    pool.set_user_limit(&user("ada"), Some(3));
    let third = pool.reserve(&context("ada", "thread_3")).unwrap();
    assert_eq!(
        pool.reserve(&context("bob", "thread_1")).unwrap_err(),
        ReserveError::PoolFull { capacity: 3 }
    );
    pool.set_user_limit(&user("ada"), Some(1));
    assert!(held.iter().all(ManagerLease::is_live), "a lowered limit closes nobody");
    drop(third);
    let full = ReserveError::UserFull { max_managers: 1 };
    assert_eq!(pool.reserve(&context("ada", "thread_3")).unwrap_err(), full);
    pool.set_user_limit(&user("ada"), None);
    let refused = pool.snapshot().refused;
    assert_eq!((refused.user_full, refused.pool_full), (2, 1));
    assert_eq!(pool.ledger().tally.given_back, 1);
    drop(held);
    assert_empty(&pool);
}

fn a_user_at_the_limit_takes_over_a_live_thread<K: Kind>() {
    let pool = make::<K>(2, 2);
    let old = [connect(&pool, "ada", "thread_1"), connect(&pool, "ada", "thread_2")];
    let claim = pool.reserve(&context("ada", "thread_2")).unwrap();
    assert!(old[1].is_live(), "a handshake that may fail harms nobody");
    assert_eq!(pool.snapshot().reserved, 0, "the claim holds no count of its own yet");
    let second = pool.reserve(&context("ada", "thread_2")).unwrap_err();
    assert_eq!(second, ReserveError::UserFull { max_managers: 2 }, "one claim for each");
    let new = claim.open().unwrap();
    assert_eq!(old[1].revoked().unwrap().reason(), EndReason::Takeover);
    assert!(new.is_live() && old[0].is_live());
    assert_eq!(pool.snapshot().live, 2);
    drop(pool.reserve(&context("ada", "thread_1")).unwrap());
    assert!(old[0].is_live(), "a claim given back ends nothing");
    drop((old, new));
    assert_empty(&pool);
}

fn a_claim_outlives_the_connection_that_it_claimed<K: Kind>() {
    let pool = make::<K>(1, 1);
    let old = connect(&pool, "ada", "thread_1");
    let claim = pool.reserve(&context("ada", "thread_1")).unwrap();
    drop(old);
    assert_eq!((pool.snapshot().live, pool.snapshot().reserved), (0, 1));
    assert!(pool.ledger().balanced);
    assert!(pool.reserve(&context("bob", "thread_1")).is_err(), "the place is the claimant's");
    let lease = claim.open().unwrap();
    assert!(lease.is_live());
    drop(lease);
    assert_empty(&pool);
}

fn an_expired_claim_never_touches_the_next_reservation<K: Kind>() {
    let (pool, hand) = with_clock::<K>(builder(1, 1));
    for opens_late in [true, false] {
        let old = connect(&pool, "ada", "thread_1");
        let claim = pool.reserve(&context("ada", "thread_1")).unwrap();
        hand.advance(pool.config().reservation_deadline);
        assert_eq!(pool.maintain(), 1);
        drop(old);
        let next = pool.reserve(&context("bob", "thread_1")).unwrap();
        if opens_late {
            assert_eq!(claim.open().unwrap_err(), OpenError::Expired);
        } else {
            drop(claim);
        }
        assert_eq!(pool.snapshot().reserved, 1, "the place is bob's");
        let lease = next.open().unwrap();
        assert_eq!(lease.with(|manager| manager.user_id().clone()).unwrap(), user("bob"));
        drop(lease);
        assert_empty(&pool);
    }
}

fn a_duplicate_is_replaced_rejected_or_allowed<K: Kind>() {
    let of = |policy| K::build(builder::<()>(5, 5).duplicates(policy)).unwrap();

    let pool = of(DuplicatePolicy::Replace);
    let old = connect(&pool, "ada", "thread_1");
    let new = connect(&pool, "ada", "thread_1");
    assert_eq!(old.revoked().unwrap().close_code(), 4001);
    assert_eq!((old.is_live(), new.is_live(), pool.snapshot().live), (false, true, 1));

    let pool = of(DuplicatePolicy::Reject);
    let early = pool.reserve(&context("ada", "thread_1")).unwrap();
    let first = connect(&pool, "ada", "thread_1");
    assert_eq!(pool.reserve(&context("ada", "thread_1")).unwrap_err(), ReserveError::ThreadInUse);
    assert_eq!(early.open().unwrap_err(), OpenError::ThreadInUse);
    assert_eq!(pool.snapshot().refused.thread_in_use, 1);
    let _bobs = connect(&pool, "bob", "thread_1");
    drop(first);
    assert!(pool.reserve(&context("ada", "thread_1")).is_ok());
    assert!(pool.ledger().balanced);

    let pool = of(DuplicatePolicy::Allow);
    let mut tabs = [connect(&pool, "ada", "thread_1"), connect(&pool, "ada", "thread_1")];
    let to = context("ada", "thread_1").isolation_key();
    assert_eq!(pool.send_to_thread(&to, Message::from("hi")).queued, 2);
    assert_eq!(tabs.each_mut().map(texts), [["hi"], ["hi"]]);
    drop(tabs);
    assert_empty(&pool);
}

fn what_is_forgotten_expires_and_a_late_open_says_so<K: Kind>() {
    let (pool, hand) = with_clock::<K>(builder(1, 1));
    let late = pool.reserve(&context("ada", "thread_1")).unwrap();
    hand.advance(pool.config().reservation_deadline);
    let next = pool.reserve(&context("bob", "thread_1")).unwrap();
    assert_eq!(late.open().unwrap_err(), OpenError::Expired);
    std::mem::forget(next);
    assert_eq!(pool.maintain(), 0);
    hand.advance(pool.config().reservation_deadline);
    assert_eq!(pool.maintain(), 1);
    assert_eq!(pool.ledger().tally.expired, 2);
    assert_empty(&pool);
}

fn a_lease_ends_once_and_its_owner_learns_why<K: Kind>() {
    let pool = make::<K>(5, 5);
    let mut lease = connect(&pool, "ada", "thread_1");
    let key = lease.key();
    assert_eq!(pool.evict_if(key, EndReason::Idle, |manager| manager.messages_in() > 0), Ok(false));
    assert!(lease.is_live());
    assert_eq!(pool.evict_if(key, EndReason::Idle, |manager| manager.messages_in() == 0), Ok(true));
    assert_eq!(pool.evict(key, EndReason::Operator), Err(Late));
    assert_eq!(pool.evict_if(key, EndReason::Operator, |_| true), Err(Late));

    let why = lease.revoked().unwrap();
    assert_eq!((why.reason(), why.close_code()), (EndReason::Idle, 4003));
    assert_eq!(lease.with(|_| ()), Err(why));
    assert_eq!(lease.with_session(|_| ()), Err(why));
    assert_eq!(lease.received(1), Err(why));
    assert_eq!(lease.next_message(), Err(why));
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(lease.poll_message(&mut cx), Poll::Ready(Err(why)));
    for step in [P::<K>::connected, P::<K>::closing, P::<K>::disconnected, P::<K>::errored] {
        assert_eq!(step(&lease), Err(TransitionError::Revoked(why)));
    }
    assert_eq!(lease.close(EndReason::Closed), Err(Late));

    let _leases = ["thread_1", "thread_2"].map(|thread| connect(&pool, "ada", thread));
    let bobs = connect(&pool, "bob", "thread_1");
    assert_eq!(pool.evict_user(&user("ada"), EndReason::Operator), 2);
    assert_eq!(pool.evict_user(&user("ada"), EndReason::Operator), 0);
    assert!(bobs.is_live());
    drop(bobs);
    assert_empty(&pool);
    assert_eq!(pool.ledger().tally.ends_by_reason, [("idle", 1), ("operator", 2), ("dropped", 1)].into());
}

type P<K> = <<K as Kind>::Of<()> as ManagerPool>::Lease;

fn the_state_moves_by_the_protocol_only<K: Kind>() {
    let pool = make::<K>(5, 5);
    let lease = connect(&pool, "ada", "thread_1");
    let state = || lease.with(|manager| manager.state()).unwrap();
    assert_eq!(state(), ManagerState::Connecting);
    assert!(matches!(lease.closing(), Err(TransitionError::Invalid(_))));
    lease.connected().unwrap();
    lease.errored().unwrap();
    assert_eq!(state(), ManagerState::Errored);
    lease.connected().unwrap();
    lease.closing().unwrap();
    assert_eq!(state(), ManagerState::Closing);
    lease.disconnected().unwrap();
    assert_eq!(lease.with(|manager| manager.is_reusable()), Ok(true));
    assert!(matches!(lease.connected(), Err(TransitionError::Invalid(_))));
}

fn a_message_is_queued_refused_dropped_or_stale<K: Kind>() {
    let limits = OutboundLimits::default().with_messages(2).with_message_bytes(8);
    let pool = K::build(builder::<()>(5, 5).outbound(limits).outbound_pool_bytes(10)).unwrap();
    let mut lease = connect(&pool, "ada", "thread_1");
    let other = connect(&pool, "ada", "thread_2");
    let send = |text| pool.send(lease.key(), Message::from(text));
    assert_eq!(send("123456789"), SendOutcome::Full("123456789".into()), "message size");
    assert_eq!(send("123"), SendOutcome::Queued);
    assert_eq!(send("456"), SendOutcome::Queued);
    assert_eq!(send("7"), SendOutcome::Full("7".into()), "messages");
    assert_eq!(pool.send(other.key(), "12345".into()), SendOutcome::Full("12345".into()), "the pool's bytes");
    assert_eq!(pool.snapshot().outbound_bytes, 6);
    lease.connected().unwrap();
    lease.closing().unwrap();
    assert_eq!(pool.send(lease.key(), "9".into()), SendOutcome::Dropped);
    assert_eq!(texts(&mut lease), ["123", "456"], "what waits can still be read");
    assert_eq!(pool.send(other.key(), "1234567".into()), SendOutcome::Queued);
    let key = other.key();
    drop(other);
    assert_eq!(pool.send(key, "9".into()), SendOutcome::Stale);
    assert_eq!(pool.snapshot().outbound_bytes, 0, "what was never read is given back");
    drop(lease);
    assert_empty(&pool);
}

fn messages_reach_whom_they_are_addressed_to_and_nobody_else<K: Kind>() {
    let pool = make::<K>(9, 5);
    let mut ada = [connect(&pool, "ada", "thread_1"), connect(&pool, "ada", "thread_2")];
    let mut bob = [connect(&pool, "bob", "thread_1")];
    let thread = |user: &str, thread: &str| context(user, thread).isolation_key();

    assert_eq!(pool.send_to_user(&user("ada"), "to ada".into()).queued, 2);
    assert!(pool.send_to_thread(&thread("bob", "thread_1"), "to bob".into()).is_complete());
    let report = pool.broadcast("to all".into());
    assert!(report.is_complete() && report.queued == 3 && !report.is_nobody);
    let gone = connect(&pool, "cyd", "thread_1").key();
    let report = pool.send_many(&[ada[0].key(), gone], "to one".into());
    assert_eq!((report.queued, report.stale, report.addressed(), report.is_complete()), (1, 1, 2, false));
    assert_eq!(texts(&mut ada[0]), ["to ada", "to all", "to one"]);
    assert_eq!(texts(&mut ada[1]), ["to ada", "to all"]);
    assert_eq!(texts(&mut bob[0]), ["to bob", "to all"]);

    assert!(pool.send_to_user(&user("eve"), "".into()).is_nobody);
    assert!(pool.send_to_thread(&thread("eve", "thread_1"), "".into()).is_nobody);
    assert_eq!(pool.snapshot().mismatches, 0);
    assert!(pool.send_to_thread(&thread("bob", "thread_2"), "".into()).is_nobody);
    assert_eq!(pool.snapshot().mismatches, 1, "the ids were probably made twice");
    assert!(pool.send_many(&[], "".into()).is_nobody);
    drop((ada, bob));
    assert!(pool.broadcast("".into()).is_nobody);
    assert_empty(&pool);
}

fn those_who_wait_are_served_in_order<K: Kind>() {
    let pool = make::<K>(2, 1);
    let ada = connect(&pool, "ada", "thread_1");
    let bob = connect(&pool, "bob", "thread_1");
    let bell = Arc::<Bell>::default();
    let mut waits = ["ada", "cyd", "dan", "eve"].map(|user| pool.reserve_wait(&context(user, "thread_2")));
    for wait in &mut waits {
        assert!(poll(wait, &bell).is_pending());
    }
    assert_eq!(pool.snapshot().waiting, 4);
    let [mut adas, mut cyds, dans, mut eves] = waits;
    drop(bob);
    assert_eq!(bell.rings(), 1);
    assert!(poll(&mut adas, &bell).is_pending(), "her own user is full, which holds up nobody");
    assert!(pool.reserve(&context("fay", "thread_1")).is_err(), "nobody overtakes");
    let cyd = served::<K::Of<()>>(&mut cyds).unwrap();
    drop(cyd);
    assert_eq!(bell.rings(), 2);
    drop(dans); // had been handed the place, and passes it on
    let eve = served::<K::Of<()>>(&mut eves).unwrap().open().unwrap();
    assert_eq!(pool.snapshot().waiting, 1);
    drop(ada);
    drop(served::<K::Of<()>>(&mut adas).unwrap());
    drop(eve);
    assert_empty(&pool);
}

fn a_raised_limit_serves_who_waited_for_it<K: Kind>() {
    let pool = make::<K>(2, 1);
    let first = connect(&pool, "ada", "thread_1");
    let bell = Arc::<Bell>::default();
    let mut wait = pool.reserve_wait(&context("ada", "thread_2"));
    assert!(poll(&mut wait, &bell).is_pending());
    pool.set_user_limit(&user("ada"), Some(2));
    assert_eq!(bell.rings(), 1);
    drop(served::<K::Of<()>>(&mut wait).unwrap());
    let mut inherits = pool.reserve_wait(&context("ada", "thread_1"));
    pool.set_user_limit(&user("ada"), None);
    let heir = served::<K::Of<()>>(&mut inherits).unwrap().open().unwrap();
    assert!(!first.is_live() && heir.is_live());
}

fn no_wake_is_lost<K: Kind>() {
    let pool = make::<K>(2, 2);
    let mut lease = connect(&pool, "ada", "thread_1");
    let bell = Arc::<Bell>::default();
    let waker = Waker::from(bell.clone());
    let mut cx = Context::from_waker(&waker);
    assert_eq!(lease.poll_message(&mut cx), Poll::Pending);
    assert!(pool.send(lease.key(), "a".into()).is_queued());
    assert_eq!(bell.rings(), 1);
    assert_eq!(lease.poll_message(&mut cx), Poll::Ready(Ok("a".into())));
    assert_eq!(lease.poll_message(&mut cx), Poll::Pending);
    pool.evict(lease.key(), EndReason::Operator).unwrap();
    assert_eq!(bell.rings(), 2);
    let Poll::Ready(Err(why)) = lease.poll_message(&mut cx) else { panic!("the lease is over") };
    assert_eq!(why.reason(), EndReason::Operator);
}

#[derive(Default)]
struct Notes {
    lines: Vec<&'static str>,
    resets: usize,
}

impl Session for Notes {
    fn reset(&mut self) {
        self.lines.clear();
        self.resets += 1;
    }
}

fn the_next_connection_gets_the_session_reset<K: Kind>() {
    let pool = K::build(builder::<Notes>(1, 1)).unwrap();
    let mut lease = connect(&pool, "ada", "thread_1");
    lease.with_session(|notes| notes.lines.push("ada's")).unwrap();
    assert_eq!(lease.with_session(|notes| notes.lines.len()), Ok(1));
    drop(lease);
    let mut lease = connect(&pool, "bob", "thread_1");
    assert_eq!(lease.with_session(|notes| (notes.lines.len(), notes.resets)), Ok((0, 1)), "reused");
}

struct Broken;

impl Default for Broken {
    fn default() -> Self {
        panic!("a session that can not be made");
    }
}

impl Session for Broken {
    fn reset(&mut self) {}
}

fn a_session_that_can_not_be_made_is_refused<K: Kind>() {
    let pool = K::build(builder::<Broken>(2, 2)).unwrap();
    for _ in 0..5 {
        let error = pool.reserve(&context("ada", "thread_1")).unwrap_err();
        assert_eq!(error, ReserveError::SessionPanicked);
    }
    assert_eq!(pool.snapshot().refused.session_panicked, 5);
    assert_empty(&pool);
}

fn a_stale_key_does_nothing<K: Kind>() {
    let (pool, other) = (make::<K>(1, 1), make::<K>(1, 1));
    let foreign = connect(&other, "ada", "thread_1");
    let old = connect(&pool, "ada", "thread_1");
    let stale = [old.key(), foreign.key(), ManagerKey::from_bits(0), ManagerKey::from_bits(u64::MAX)];
    drop(old);
    let mut next = connect(&pool, "bob", "thread_1");
    assert_eq!(next.key().index(), stale[0].index(), "the slot is used again");
    for key in stale {
        assert_eq!(pool.evict(key, EndReason::Operator), Err(Late));
        assert_eq!(pool.evict_if(key, EndReason::Operator, |_| true), Err(Late));
        assert_eq!(pool.inspect(key, |_| ()), None);
        assert_eq!(pool.send(key, "x".into()), SendOutcome::Stale);
        assert_eq!(pool.send_many(&[key], "x".into()).stale, 1);
    }
    assert_eq!(texts(&mut next), [""; 0]);
    assert!(next.is_live() && foreign.is_live());
}

fn a_drain_refuses_and_harms_nobody<K: Kind>() {
    let pool = make::<K>(1, 1);
    let lease = connect(&pool, "ada", "thread_1");
    let mut wait = pool.reserve_wait(&context("bob", "thread_1"));
    assert!(poll(&mut wait, &Arc::default()).is_pending());
    assert!(!pool.is_draining());
    pool.start_drain();
    assert!(pool.is_draining() && pool.snapshot().draining);
    assert_eq!(served::<K::Of<()>>(&mut wait).unwrap_err(), ReserveError::Draining);
    assert_eq!(pool.reserve(&context("ada", "thread_1")).unwrap_err(), ReserveError::Draining);
    assert_eq!(pool.snapshot().refused.draining, 2);
    assert!(lease.is_live());
    drop(lease);
    assert_empty(&pool);
}

fn a_name_is_one_pools<K: Kind>() {
    let named = || Pool::builder().environment(Environment::Ci).name(std::any::type_name::<K>());
    let (line, pool) = (line!(), K::build::<()>(named()).unwrap());
    let Err(BuildError::NameTaken { name, first }) = K::build::<()>(named()) else { panic!("a second one") };
    assert_eq!((name.as_str(), first.file(), first.line()), (pool.name(), file!(), line));
    let clone = pool.clone();
    assert_eq!(clone, pool);
    drop(pool);
    assert!(K::build::<()>(named()).is_err(), "a clone lives");
    let lease = connect(&clone, "ada", "thread_1");
    drop(clone);
    assert!(lease.is_live() && K::build::<()>(named()).is_err(), "a lease keeps its pool");
    drop(lease);
    let kept = K::build::<()>(named()).unwrap().leak();
    drop(kept);
    assert!(K::build::<()>(named()).is_err(), "leaked");
}

/// One step of a random run. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Reserve(u8, u8),
    Wait(u8, u8),
    PollWait(usize),
    DropWait(usize),
    Open(usize),
    GiveBack(usize),
    Forget(usize),
    Close(usize),
    Evict(usize),
    EvictUser(u8),
    Send(u8, u8),
    Next(usize),
    SetLimit(u8, Option<usize>),
    Rest,
    Drain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (who, which, nth) = (|| 0..3_u8, || 0..2_u8, || 0..4_usize);
    let step = prop_oneof![
        8 => (who(), which()).prop_map(|(user, thread)| Step::Reserve(user, thread)),
        3 => (who(), which()).prop_map(|(user, thread)| Step::Wait(user, thread)),
        3 => nth().prop_map(Step::PollWait),
        1 => nth().prop_map(Step::DropWait),
        8 => nth().prop_map(Step::Open),
        2 => nth().prop_map(Step::GiveBack),
        1 => nth().prop_map(Step::Forget),
        3 => nth().prop_map(Step::Close),
        2 => nth().prop_map(Step::Evict),
        1 => who().prop_map(Step::EvictUser),
        3 => (who(), which()).prop_map(|(user, thread)| Step::Send(user, thread)),
        2 => nth().prop_map(Step::Next),
        1 => (who(), proptest::option::of(1..4_usize)).prop_map(|(user, limit)| Step::SetLimit(user, limit)),
        2 => Just(Step::Rest),
    ];
    (prop::collection::vec(step, 1..60), prop::bool::weighted(0.1)).prop_map(|(mut steps, drains)| {
        if drains {
            steps.insert(steps.len() / 2, Step::Drain);
        }
        steps
    })
}

const TICK: Duration = Duration::from_millis(100);
/// A reservation lasts so long.
const TICKS: usize = 15;

/// A pool or a double in the course of a run, and what was seen.
struct Run<P: ManagerPool> {
    pool: P,
    hand: ManualClock,
    waits: Vec<P::ReserveWait>,
    reservations: Vec<P::Reservation>,
    leases: Vec<P::Lease>,
    bell: Arc<Bell>,
    seen: Vec<String>,
}

impl<P: ManagerPool> Run<P> {
    fn new((pool, hand): (P, ManualClock)) -> Self {
        let (waits, reservations, leases, seen) = (vec![], vec![], vec![], vec![]);
        Self { pool, hand, waits, reservations, leases, bell: Arc::default(), seen }
    }

    fn step(&mut self, step: &Step) {
        let expired = self.tick();
        let of = |user: &u8, thread: &u8| context(&format!("user{user}"), &format!("thread_{thread}"));
        let one = |user: &u8| UserId::new(format!("user{user}")).unwrap();
        let seen = match step {
            Step::Reserve(user, thread) => match self.pool.reserve(&of(user, thread)) {
                Ok(reservation) => {
                    self.reservations.push(reservation);
                    "reserved".into()
                }
                Err(error) => format!("{error:?}"),
            },
            Step::Wait(user, thread) => {
                self.waits.push(self.pool.reserve_wait(&of(user, thread)));
                self.poll_wait(self.waits.len() - 1)
            }
            Step::PollWait(nth) if *nth < self.waits.len() => self.poll_wait(*nth),
            Step::DropWait(nth) if *nth < self.waits.len() => {
                drop(self.waits.remove(*nth));
                "gone".into()
            }
            Step::Open(nth) if *nth < self.reservations.len() => {
                let opened = self.reservations.remove(*nth).open();
                let seen = format!("{:?}", opened.as_ref().map(|_| ()));
                self.leases.extend(opened);
                seen
            }
            Step::GiveBack(nth) if *nth < self.reservations.len() => {
                drop(self.reservations.remove(*nth));
                "given back".into()
            }
            Step::Forget(nth) if *nth < self.reservations.len() => {
                std::mem::forget(self.reservations.remove(*nth));
                "forgotten".into()
            }
            Step::Close(nth) if *nth < self.leases.len() => {
                format!("{:?}", self.leases.remove(*nth).close(EndReason::Closed))
            }
            Step::Evict(nth) if *nth < self.leases.len() => {
                format!("{:?}", self.pool.evict(self.leases[*nth].key(), EndReason::Idle))
            }
            Step::EvictUser(user) => self.pool.evict_user(&one(user), EndReason::Operator).to_string(),
            Step::Send(user, thread) => {
                let to =
                    IsolationKey::new(one(user), ThreadId::from_client(&format!("thread_{thread}")).unwrap());
                format!("{:?}", self.pool.send_to_thread(&to, Message::from("four")))
            }
            Step::Next(nth) if *nth < self.leases.len() => {
                format!(
                    "{:?}",
                    self.leases[*nth].next_message().map_err(|why| why.reason() == EndReason::Unknown)
                )
            }
            Step::SetLimit(user, limit) => {
                self.pool.set_user_limit(&one(user), *limit);
                "set".into()
            }
            Step::Rest => {
                format!("{:?}", [(); TICKS].map(|()| self.tick()))
            }
            Step::Drain => {
                self.pool.start_drain();
                "draining".into()
            }
            _ => "none there".into(),
        };
        let live: Vec<_> = self.leases.iter().map(ManagerLease::is_live).collect();
        let mut figures = self.pool.snapshot();
        figures.name.clear();
        self.seen.push(format!(
            "expired {expired}; {seen}; live {live:?}; rang {}; {figures:?}",
            self.bell.rings()
        ));
    }

    /// Between two steps. Reservations that were made in different steps expire one by one: which of
    /// two comes first when both are due at once is nobody's promise.
    fn tick(&mut self) -> usize {
        self.hand.advance(TICK);
        self.pool.maintain()
    }

    fn poll_wait(&mut self, nth: usize) -> String {
        match poll(&mut self.waits[nth], &self.bell) {
            Poll::Pending => "waits".into(),
            Poll::Ready(outcome) => {
                drop(self.waits.remove(nth));
                let seen = format!("{:?}", outcome.as_ref().map(|_| ()));
                self.reservations.extend(outcome);
                seen
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is done, both answer the same, step by step, down to each figure of the account.
    #[test]
    fn the_double_does_what_the_pool_does(steps in steps(), policy in 0..3_usize) {
        use DuplicatePolicy::{Allow, Reject, Replace};
        let made = || {
            let deadline = TICK * TICKS as u32;
            builder(3, 2).duplicates([Replace, Reject, Allow][policy]).reservation_deadline(deadline)
        };
        let mut pool = Run::new(with_clock::<Real>(made()));
        let mut double = Run::new(with_clock::<Double>(made()));
        for step in &steps {
            pool.step(step);
            double.step(step);
            prop_assert_eq!(pool.seen.last(), double.seen.last(), "at {:?}", step);
            prop_assert!(pool.pool.ledger().balanced);
        }
    }
}
