//! The golden path, what a client that comes back is handed, and what happens where a queue is full.

use crate::support::{Ear, Kind, assert_empty, builder, connect, context, texts, with_clock};
use serde_json::Value;
use std::time::Duration;
use ws_manager_pool::{
    AgentEvent, DuplicatePolicy, EndReason, EventData, EventId, ManagerLease, ManagerPool,
    ManagerReservation, ManagerRun, Message, OutboundLimits, OverflowPolicy, PoolBuilder, Scope, SendOutcome,
    SweepPolicy,
};

on_both! {
    every_connection_of_the_thread_hears_the_five_in_order_and_nobody_else,
    a_takeover_in_a_run_loses_nothing_that_was_asked_for,
    a_client_goes_on_after_what_it_saw_or_is_told_that_it_can_not,
    what_is_kept_is_bounded_and_forgotten_with_its_thread,
    what_never_fits_is_announced_and_holds_up_nobody,
    a_run_protects_also_who_joins_later,
    whom_a_run_protected_goes_at_the_next_reservation_after_it,
    a_full_queue_does_what_its_policy_says,
    a_queue_that_turns_high_or_low_is_told_of,
}

const SECOND: Duration = Duration::from_secs(1);

fn keeping(events: usize) -> PoolBuilder {
    builder(9, 9).replay_events(events).replay_age(9 * SECOND)
}

/// `started 1`, `gap 2-3`, `gap ?-7`.
fn told(lease: &mut impl ManagerLease) -> Vec<String> {
    let brief = |text: String| {
        let Ok(event) = serde_json::from_str::<Value>(&text) else { return text };
        let (kind, to) = (event["type"].as_str().unwrap(), &event["to"]);
        match (kind, event["from"].as_u64()) {
            ("gap", Some(from)) => format!("gap {from}-{to}"),
            ("gap", None) => format!("gap ?-{to}"),
            _ => format!("{} {}", kind.split_once('_').unwrap().1, event["seq"]),
        }
    };
    texts(lease).into_iter().map(brief).collect()
}

fn last_id(lease: &mut impl ManagerLease) -> EventId {
    let event: Value = serde_json::from_str(texts(lease).last().unwrap()).unwrap();
    event["id"].as_str().unwrap().parse().unwrap()
}

#[track_caller]
fn come_back<P: ManagerPool>(pool: &P, after: EventId) -> P::Lease {
    let mut reservation = pool.reserve(&context("ada", "thread_1")).unwrap();
    reservation.resume_after(after);
    reservation.open().unwrap()
}

fn number(number: u64) -> EventId {
    number.to_string().parse().unwrap()
}

fn every_connection_of_the_thread_hears_the_five_in_order_and_nobody_else<K: Kind>() {
    let pool = K::build(builder::<()>(9, 9).duplicates(DuplicatePolicy::Allow)).unwrap();
    let mut adas = ["thread_1", "thread_1", "thread_2"].map(|thread| connect(&pool, "ada", thread));
    let mut bobs = connect(&pool, "bob", "thread_1");
    let mut run = pool.start_run(&context("ada", "thread_1"), EventData::NONE);
    assert_eq!(pool.snapshot().agents.runs, 1);
    for report in [run.thinking(""), run.tool_executing("a \"tool\""), run.tool_completed("")] {
        assert!(report.is_complete() && report.queued == 2);
    }
    assert_eq!(run.complete("42").queued, 2);
    for lease in &mut adas[..2] {
        let expected = ["started 1", "thinking 2", "executing 3", "completed 4", "completed 5"];
        assert_eq!(told(lease), expected);
    }
    drop(pool.start_run(&context("ada", "thread_1"), EventData::NONE));
    let last = texts(&mut adas[0]).pop().unwrap();
    assert!(last.contains(AgentEvent::Completed.name()) && last.contains(r#""outcome":"aborted""#), "{last}");
    assert!(told(&mut adas[2]).is_empty() && told(&mut bobs).is_empty());
    assert!(pool.start_run(&context("eve", "thread_1"), EventData::NONE).thinking("").is_nobody);
    let figures = pool.snapshot();
    assert_eq!((figures.agents.threads, figures.agents.runs, figures.agents.replay_bytes), (2, 0, 0));
    assert_eq!((figures.delivery.accepted, figures.delivery.delivered), (14, 12));
    drop((adas, bobs));
    assert_eq!(pool.snapshot().delivery.unsent, 2);
    assert_empty(&pool);
}

fn a_takeover_in_a_run_loses_nothing_that_was_asked_for<K: Kind>() {
    let (pool, _hand) = with_clock::<K>(keeping(9));
    let mut old = connect(&pool, "ada", "thread_1");
    let mut run = pool.start_run(&context("ada", "thread_1"), EventData::NONE);
    let after = last_id(&mut old);
    assert!(run.thinking("").is_complete(), "the old connection never reads it");
    let mut new = come_back(&pool, after);
    assert_eq!(old.revoked().unwrap().reason(), EndReason::Takeover);
    assert!(pool.send(new.key(), Message::from("hello")).is_queued());
    assert!(run.tool_executing("").is_complete(), "it is on its way");
    assert_eq!(told(&mut new), ["hello", "thinking 2", "executing 3"]);
    assert!(run.complete("").is_complete());
    assert_eq!(told(&mut new), ["completed 4"]);
    let mut fresh = connect(&pool, "ada", "thread_1");
    assert_eq!(told(&mut fresh), [""; 0], "who does not ask is not handed anything");
}

fn a_client_goes_on_after_what_it_saw_or_is_told_that_it_can_not<K: Kind>() {
    let (pool, _hand) = with_clock::<K>(keeping(2));
    let mut nowhere = come_back(&pool, number(0));
    assert_eq!(told(&mut nowhere), [""; 0], "there is nothing to miss");
    assert_eq!(told(&mut come_back(&pool, number(3))), ["gap ?-0"], "of a numbering that is gone");
    let mut lease = connect(&pool, "ada", "thread_1");
    let mut run = pool.start_run(&context("ada", "thread_1"), EventData::NONE);
    let first = last_id(&mut lease);
    for _ in 0..3 {
        let _ = run.thinking("");
    }
    let last = last_id(&mut lease);
    let foreign = format!("00000001-{}", last.seq()).parse().unwrap();
    for (after, expected) in [
        (last, vec![]),
        (number(3), vec!["thinking 4"]),
        (first, vec!["gap 2-2", "thinking 3", "thinking 4"]),
        (number(0), vec!["gap 1-2", "thinking 3", "thinking 4"]),
        (foreign, vec!["gap ?-2", "thinking 3", "thinking 4"]),
        (number(9), vec!["gap ?-2", "thinking 3", "thinking 4"]),
    ] {
        assert_eq!(told(&mut come_back(&pool, after)), expected, "after {after}");
    }
}

fn what_is_kept_is_bounded_and_forgotten_with_its_thread<K: Kind>() {
    let (pool, hand) = with_clock::<K>(keeping(64).replay_bytes(400));
    let lease = connect(&pool, "ada", "thread_1");
    let mut run = pool.start_run(&context("ada", "thread_1"), EventData::NONE);
    let bytes = || pool.snapshot().agents.replay_bytes;
    for _ in 0..9 {
        let _ = run.thinking("");
    }
    assert!(bytes() > 200 && bytes() <= 400, "{}", bytes());
    hand.advance(9 * SECOND);
    let _ = pool.maintain(pool.clock().now());
    assert!(bytes() > 0);
    hand.advance(SECOND);
    let _ = pool.maintain(pool.clock().now());
    assert_eq!((bytes(), pool.snapshot().agents.threads), (0, 1), "a run is in progress");
    let _ = run.complete("");
    hand.advance(10 * SECOND);
    let _ = pool.maintain(pool.clock().now());
    assert_eq!(pool.snapshot().agents.threads, 1, "somebody is connected");
    drop(lease);
    let _ = pool.maintain(pool.clock().now());
    assert_eq!(pool.snapshot().agents, Default::default());

    let (pool, _hand) = with_clock::<K>(keeping(64).replay_pool_bytes(400));
    let mut runs = ["ada", "bob"].map(|user| pool.start_run(&context(user, "thread_1"), EventData::NONE));
    let bytes = || pool.snapshot().agents.replay_bytes;
    for run in &mut runs {
        let _ = run.thinking("");
        assert!(bytes() > 200 && bytes() <= 400, "{}: its own old ones make room", bytes());
    }
    let before = bytes();
    let _eve = pool.start_run(&context("eve", "thread_1"), EventData::NONE);
    assert_eq!(bytes(), before, "who has none of its own finds no room");
}

fn what_never_fits_is_announced_and_holds_up_nobody<K: Kind>() {
    let limits = OutboundLimits::default().with_message_bytes(100);
    let (pool, _hand) = with_clock::<K>(keeping(9).outbound(limits));
    let mut run = pool.start_run(&context("ada", "thread_1"), EventData::NONE);
    let _ = run.thinking("");
    let mut lease = come_back(&pool, number(0));
    assert_eq!(told(&mut lease), ["gap 1-2"]);
    assert_eq!(run.thinking("").full, 1);
    assert_eq!(told(&mut lease), ["gap 3-3"]);
    let delivery = pool.snapshot().delivery;
    assert_eq!((delivery.accepted, delivery.refused, delivery.gaps), (0, 3, 2));
}

fn a_run_protects_also_who_joins_later<K: Kind>() {
    let idle = 4 * SECOND;
    let hasty = builder(9, 9).idle_background(Some(idle)).idle_proactive(idle).idle_emergency(idle);
    let (pool, hand) = with_clock::<K>(hasty);
    let sweep = || pool.sweep(Scope::Pool, SweepPolicy::Background, pool.clock().now(), SECOND).cleaned;
    let old = connect(&pool, "ada", "thread_1");
    let run = pool.start_run(&context("ada", "thread_1"), EventData::NONE);
    let other = connect(&pool, "ada", "thread_2");
    let new = connect(&pool, "ada", "thread_1");
    assert!(!old.is_live());
    hand.advance(5 * SECOND);
    assert_eq!((sweep(), other.is_live(), new.is_live()), (1, false, true));
    drop(run);
    assert_eq!((sweep(), new.is_live()), (1, false));
    assert_empty(&pool);
}

fn whom_a_run_protected_goes_at_the_next_reservation_after_it<K: Kind>() {
    let idle = 4 * SECOND;
    let builder = builder(9, 4).idle_proactive(idle).idle_emergency(idle).proactive_threshold(0.5);
    let (pool, hand) = with_clock::<K>(builder);
    let dead = connect(&pool, "ada", "thread_1");
    let active = connect(&pool, "ada", "thread_2");
    let run = pool.start_run(&context("ada", "thread_1"), EventData::NONE);
    hand.advance(5 * SECOND);
    active.received(1).unwrap();
    drop(pool.reserve(&context("ada", "thread_3")).unwrap());
    assert!(dead.is_live());
    drop(run);
    drop(pool.reserve(&context("ada", "thread_3")).unwrap());
    assert_eq!(dead.revoked().unwrap().reason(), EndReason::Idle);
    assert!(active.is_live());
}

fn a_full_queue_does_what_its_policy_says<K: Kind>() {
    use OverflowPolicy::{Disconnect, DropNewest, DropOldest};
    for (policy, outcome, left, figures) in [
        (DropNewest, SendOutcome::Full("c".into()), Some(["a", "b"]), (3, 2, 0, 0, 1)),
        (DropOldest, SendOutcome::Displaced(1), Some(["b", "c"]), (4, 2, 1, 0, 0)),
        (Disconnect, SendOutcome::Ended("c".into()), None, (3, 0, 0, 2, 1)),
    ] {
        let limits = OutboundLimits::default().with_messages(2).with_overflow(policy);
        let (pool, _hand) = with_clock::<K>(builder(9, 9).outbound(limits));
        let mut lease = connect(&pool, "ada", "thread_1");
        let roomy = connect(&pool, "bob", "thread_1");
        let send = |text: &'static str| pool.send(lease.key(), text.into());
        assert_eq!([send("a"), send("b")], [SendOutcome::Queued, SendOutcome::Queued]);
        assert_eq!(send("c"), outcome);
        match left {
            Some(left) => assert_eq!(texts(&mut lease), left),
            None => assert_eq!(lease.revoked().unwrap().reason(), EndReason::SlowConsumer),
        }
        assert!(pool.send(roomy.key(), "d".into()).is_queued());
        let it = pool.snapshot().delivery;
        assert_eq!((it.accepted, it.delivered, it.displaced, it.unsent, it.refused), figures, "{policy:?}");
        let report = pool.send_many(&[roomy.key(), lease.key()], "e".into());
        assert_eq!(report.stale_keys.is_empty(), left.is_some());
        drop((lease, roomy));
        assert_empty(&pool);
    }
}

fn a_queue_that_turns_high_or_low_is_told_of<K: Kind>() {
    let ear = Ear::default();
    let limits = OutboundLimits::default().with_messages(4); // high from 3, low at 1
    let (pool, _hand) = with_clock::<K>(builder(9, 9).outbound(limits).observer(ear.clone()));
    let mut lease = connect(&pool, "ada", "thread_1");
    let heard = || {
        let pressures = ear.take().pressures;
        pressures.iter().map(|it| (it.is_high, it.queued, it.queued_bytes)).collect::<Vec<_>>()
    };
    for _ in 0..4 {
        let _ = pool.send(lease.key(), "four".into());
    }
    assert_eq!(heard(), [(true, 3, 12)], "once");
    for _ in 0..4 {
        assert!(lease.next_message().unwrap().is_some());
    }
    assert_eq!(heard(), [(false, 1, 4)]);
}
