//! Everybody who may end a lease does so at once, while its slot is wanted again.

use crate::stage::{assert_nothing_is_left, maintain};
use crate::support::context;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;
use ws_manager_pool::{
    Clock, EndReason, Environment, Lease, ManualClock, Pool, PooledWebSocketManager, Scope, SweepPolicy,
    Verdict,
};

const ROUNDS: usize = 400;
const THREADS: [&str; 4] = ["thread_0", "thread_1", "thread_2", "thread_3"];

/// So often the operator names the same keys: late, but for the first time at most.
const REPEATS: usize = 8;

/// What each of them ended in all rounds.
#[derive(Default)]
struct Ended {
    closed: usize,
    swept: usize,
    operator: usize,
    dropped: usize,
}

#[test]
fn clean_up_race() {
    // Barely room, so that a slot has its next occupant at once: a place for the one who takes over, one
    // for the one who acquires, and two that readers may keep for a moment.
    let (clock, hand) = Clock::manual();
    let pool: Pool = Pool::builder()
        .clock(clock)
        .name("race")
        .environment(Environment::Ci)
        .capacity(THREADS.len() + 4)
        .max_managers_per_user(THREADS.len() + 1)
        .build()
        .unwrap();
    let mut ended = Ended::default();
    for round in 0..ROUNDS {
        race(&pool, &hand, round, &mut ended);
        assert_nothing_is_left(&pool);
    }
    let tally = pool.ledger().tally;
    let by =
        |reason: EndReason| tally.ends_by_reason.get(reason.name()).copied().unwrap_or_default() as usize;
    // Of each lease, exactly one did the clean-up.
    assert_eq!(by(EndReason::Closed), ended.closed);
    assert_eq!(by(EndReason::Operator), ended.operator);
    assert_eq!(by(EndReason::Dropped), ended.dropped);
    // The others too: whoever acquires sweeps first, at the threshold.
    let others = tally.ended as usize - ended.closed - ended.operator - ended.dropped;
    assert_eq!(by(EndReason::Takeover) + by(EndReason::Idle), others);
    assert!((1..=by(EndReason::Idle)).contains(&ended.swept), "{} of {tally:?}", ended.swept);
}

fn is_idle(manager: &PooledWebSocketManager<'_>) -> bool {
    manager.messages_in() == 0
}

fn race(pool: &Pool, hand: &ManualClock, round: usize, ended: &mut Ended) {
    let connect = |thread: &str| pool.reserve(&context("ada", Some(thread))).unwrap().open().unwrap();
    let old = THREADS.map(connect);
    let keys = old.each_ref().map(Lease::key);
    // All are idle for too long by now, but for one of them, which has just had a message.
    hand.advance(pool.config().idle_background.unwrap());
    let now = pool.clock().now();
    let active = round % THREADS.len();
    old[active].received(1).unwrap();
    let start = &Barrier::new(5);
    thread::scope(|scope| {
        let closer = scope.spawn(move || {
            start.wait();
            old.into_iter().map(|lease| lease.close(EndReason::Closed)).filter(Result::is_ok).count()
        });
        let sweeper = scope.spawn(move || {
            start.wait();
            let evict = |key| pool.evict_if(key, EndReason::Idle, is_idle) == Ok(true);
            assert!(!evict(keys[active]), "it is active, or it is over");
            let by_key = || keys.into_iter().filter(|&key| evict(key)).count();
            let before = if round.is_multiple_of(2) { by_key() } else { 0 };
            let swept = pool.sweep(Scope::Pool, SweepPolicy::Background, now, Duration::MAX).cleaned;
            let after = by_key();
            maintain(pool, now);
            before + swept + after
        });
        let operator = scope.spawn(move || {
            start.wait();
            let again_and_again = (0..REPEATS).flat_map(|_| keys);
            let spared = keys[active];
            again_and_again
                .filter(|&key| key != spared && pool.evict(key, EndReason::Operator).is_ok())
                .count()
        });
        let taker = scope.spawn(move || {
            start.wait();
            THREADS.map(connect)
        });
        let acquirer = scope.spawn(move || {
            start.wait();
            let mut dropped = 0;
            for _ in 0..REPEATS {
                if let Ok(lease) = pool.reserve(&context("bob", None)).map(|place| place.open().unwrap()) {
                    assert!(lease.is_live(), "what names the last occupant ends nobody else");
                    dropped += 1;
                }
                assert_ne!(pool.ledger().verdict, Verdict::Unbalanced);
            }
            dropped
        });
        let new = taker.join().unwrap();
        ended.closed += closer.join().unwrap();
        ended.swept += sweeper.join().unwrap();
        ended.operator += operator.join().unwrap();
        ended.dropped += acquirer.join().unwrap();
        assert!(new.iter().all(Lease::is_live), "whoever was late for the old ones left the new ones alone");
        ended.dropped += new.len();
    });
}
