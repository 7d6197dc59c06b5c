//! Messages, sessions, and those who wait.

use crate::support::{Bell, Kind, assert_empty, builder, connect, context, make, poll, served, texts, user};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use ws_manager_pool::{
    EndReason, ManagerLease, ManagerPool, ManagerReservation, Message, OutboundLimits, ReserveError,
    SendOutcome, Session,
};

on_both! {
    a_message_is_queued_refused_dropped_or_stale,
    messages_reach_whom_they_are_addressed_to_and_nobody_else,
    those_who_wait_are_served_in_order,
    a_raised_limit_serves_who_waited_for_it,
    no_wake_is_lost,
    the_next_connection_gets_the_session_reset,
    a_session_that_can_not_be_made_is_refused,
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
    let many = pool.send_many(&[ada[0].key(), gone], "to one".into());
    assert_eq!(many.stale_keys, [gone]);
    let report = many.sum;
    assert_eq!((report.queued, report.stale, report.addressed(), report.is_complete()), (1, 1, 2, false));
    assert_eq!(texts(&mut ada[0]), ["to ada", "to all", "to one"]);
    assert_eq!(texts(&mut ada[1]), ["to ada", "to all"]);
    assert_eq!(texts(&mut bob[0]), ["to bob", "to all"]);

    assert!(pool.send_to_user(&user("eve"), "".into()).is_nobody);
    assert!(pool.send_to_thread(&thread("eve", "thread_1"), "".into()).is_nobody);
    assert_eq!(pool.snapshot().mismatches, 0);
    assert!(pool.send_to_thread(&thread("bob", "thread_2"), "".into()).is_nobody);
    assert_eq!(pool.snapshot().mismatches, 1, "the ids were probably made twice");
    assert!(pool.send_many(&[], "".into()).sum.is_nobody);
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
