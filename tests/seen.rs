//! What happened can be seen: why a connection was closed, who may have leaked one, whether the account
//! is right; and the numbers can change and change back.

mod common;

use common::{assert_counts, builder, context};
use std::time::Duration;
use ws_manager_pool::{
    Clock, Config, DuplicatePolicy, EndReason, Environment, Lease, ManualClock, NoEarlierConfig, Pool,
    Suspicion, UserId, Verdict,
};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn build(name: &str) -> (Pool, ManualClock) {
    let (clock, hand) = Clock::manual();
    let builder = builder(name, 100).environment(Environment::Production).clock(clock);
    (builder.capacity(1_000).build().unwrap(), hand)
}

fn open(pool: &Pool, user: &str) -> Lease {
    pool.reserve(&context(user, None)).unwrap().open().unwrap()
}

#[test]
fn a_user_can_be_told_why_a_connection_was_closed() {
    let (pool, hand) = build("seen-why");
    let line = line!() + 1;
    let first = pool.reserve(&context("ada", "thread_1")).unwrap().open().unwrap();
    hand.advance(seconds(7));
    let second = pool.reserve(&context("ada", "thread_1")).unwrap().open().unwrap();
    let key = first.key();
    hand.advance(seconds(1));
    drop(second);
    drop(first);
    let ends = pool.last_ends_of(&user("ada"));
    assert_eq!(
        ends.iter().map(|end| end.reason).collect::<Vec<_>>(),
        [EndReason::Dropped, EndReason::Takeover]
    );
    let takeover = &ends[1];
    assert_eq!((takeover.key, takeover.user_id.as_str()), (key, "ada"));
    assert_eq!(takeover.thread_id.to_string(), "thread_1");
    assert_eq!(takeover.ended_at.since(takeover.opened_at), seconds(7));
    assert_eq!((takeover.made_at.file(), takeover.made_at.line()), (file!(), line));
    assert_eq!(pool.last_ends_of(&user("bob")), []);
}

#[test]
fn a_busy_user_does_not_push_the_others_out() {
    let (pool, hand) = build("seen-bounded");
    for name in 0..5 {
        drop(open(&pool, &format!("quiet-{name}")));
    }
    for _ in 0..10_000 {
        hand.advance(Duration::from_millis(1));
        drop(open(&pool, "busy"));
    }
    for name in 0..5 {
        assert_eq!(pool.last_ends_of(&user(&format!("quiet-{name}"))).len(), 1, "quiet-{name}");
    }
    let busy = pool.last_ends_of(&user("busy"));
    assert_eq!(busy.len(), 4);
    assert!(busy.windows(2).all(|pair| pair[0].ended_at > pair[1].ended_at), "the latest first");
    assert_eq!(busy[0].ended_at, pool.clock().now());
    let all = pool.last_ends(1_000);
    assert_eq!(all.len(), 9);
    assert_eq!(pool.last_ends(2), all[..2]);
}

#[test]
fn many_users_ends_are_remembered_in_bounded_memory() {
    let (pool, hand) = build("seen-many");
    for number in 0..5_000 {
        hand.advance(Duration::from_millis(1));
        drop(open(&pool, &format!("user-{number}")));
    }
    let all = pool.last_ends(usize::MAX);
    assert!(all.len() <= 16 * 16, "{}", all.len());
    assert_eq!(all[0].user_id, user("user-4999"));
}

#[test]
fn a_lease_that_nobody_looks_after_is_listed_with_the_place_that_made_it() {
    let (pool, hand) = build("seen-suspects");
    let line = line!() + 1;
    let leaked = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
    std::mem::forget(leaked);
    let mut cared_for = open(&pool, "bob");
    for _ in 0..119 {
        hand.advance(seconds(1));
        assert_eq!(cared_for.next_message(), Ok(None));
        assert_eq!(pool.snapshot().suspects(), []);
    }
    hand.advance(seconds(1));
    let snapshot = pool.snapshot();
    let [suspect] = snapshot.suspects() else { panic!("{:?}", snapshot.suspects()) };
    assert_eq!((suspect.suspicion, suspect.silent_ms), (Suspicion::Silent, 120_000));
    assert_eq!(suspect.manager.user_id, "ada");
    assert_eq!((suspect.manager.age_ms, suspect.manager.idle_ms), (120_000, 120_000));
    assert!(suspect.manager.made_at.contains(&format!("seen.rs:{line}")), "{}", suspect.manager.made_at);

    for _ in 0..24 * 60 {
        hand.advance(seconds(60));
        assert_eq!(cared_for.next_message(), Ok(None));
    }
    let suspicions: Vec<_> = pool.snapshot().suspects().iter().map(|suspect| suspect.suspicion).collect();
    assert_eq!(suspicions, [Suspicion::Silent, Suspicion::Old], "the longest silent first");
}

#[test]
fn the_cheap_check_agrees_with_the_account_whatever_goes_on() {
    let (pool, _) = build("seen-check");
    assert_eq!(pool.check(), Verdict::Balanced);
    let reservation = pool.reserve(&context("ada", None)).unwrap();
    assert_eq!(pool.check(), Verdict::Balanced);
    let lease = reservation.open().unwrap();
    assert_eq!(pool.check(), Verdict::Balanced);
    std::thread::scope(|threads| {
        for number in 0..3 {
            let pool = &pool;
            threads.spawn(move || {
                for _ in 0..2_000 {
                    drop(open(pool, &format!("user-{number}")));
                    assert_ne!(pool.check(), Verdict::Unbalanced);
                }
            });
        }
    });
    drop(lease);
    assert_eq!(pool.check(), Verdict::Balanced);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn the_ledger_tells_how_leases_began_and_ended() {
    let (pool, _) = build("seen-causes");
    let first = pool.reserve(&context("ada", "thread_1")).unwrap().open().unwrap();
    let second = pool.reserve(&context("ada", "thread_1")).unwrap().open().unwrap();
    drop((first, second));
    let tally = pool.ledger().tally;
    assert_eq!(tally.begins_by_cause, [("fresh", 1), ("takeover", 1)].into());
    assert_eq!(tally.ends_by_reason, [("dropped", 1), ("takeover", 1)].into());
    assert_eq!((tally.opened, tally.ended), (2, 2));
}

#[test]
fn numbers_change_for_what_begins_and_nothing_that_is_open_is_touched() {
    let (pool, _) = build("seen-reconfigure");
    let leases: Vec<_> = (0..10).map(|_| open(&pool, "ada")).collect();
    let mut config = Config::clone(&pool.config());
    config.max_managers_per_user = 5;
    config.duplicates = DuplicatePolicy::Reject;
    let version = pool.reconfigure(config).unwrap();
    assert_eq!((version.number, version.config.max_managers_per_user), (2, 5));
    assert!(leases.iter().all(Lease::is_live), "a lowered limit closes nobody");
    assert!(pool.reserve(&context("ada", None)).is_err());
    let _bob = pool.reserve(&context("bob", "thread_1")).unwrap().open().unwrap();
    assert_eq!(pool.reserve(&context("bob", "thread_1")).unwrap_err().http_status(), 409);

    assert_eq!(pool.rollback_config().unwrap().number, 1);
    assert!(pool.reserve(&context("ada", None)).is_ok());
    assert_eq!(pool.rollback_config(), Err(NoEarlierConfig));
    assert_eq!(pool.snapshot().config.number, 1);
}

#[test]
fn what_cannot_change_is_refused_by_name_and_leaves_everything_as_it_was() {
    let (pool, _) = build("seen-fixed");
    let change = |set: fn(&mut Config)| {
        let mut config = Config::clone(&pool.config());
        set(&mut config);
        pool.reconfigure(config).unwrap_err()
    };
    let fixed = change(|config| config.capacity += 1);
    assert_eq!(fixed.field(), "capacity");
    assert!(fixed.to_string().contains("build a new pool"), "{fixed}");
    assert_eq!(change(|config| config.outbound_pool_bytes += 1).field(), "outbound_pool_bytes");
    assert_eq!(change(|config| config.inbound_pool_bytes += 1).field(), "inbound_pool_bytes");
    assert_eq!(change(|config| config.level_info = 0.7).field(), "level_warning");
    assert_eq!(change(|config| config.idle_proactive = seconds(601)).field(), "idle_proactive");
    assert_eq!(pool.config_versions().len(), 1);
}

#[test]
fn sixteen_versions_are_kept_and_no_number_is_used_twice() {
    let (pool, _) = build("seen-versions");
    for max in 1..=20 {
        let mut config = Config::clone(&pool.config());
        config.max_managers_per_user = max;
        pool.reconfigure(config).unwrap();
    }
    let numbers: Vec<_> = pool.config_versions().iter().map(|version| version.number).collect();
    assert_eq!(numbers, (6..=21).collect::<Vec<_>>());
    let mut steps = 0;
    while let Ok(version) = pool.rollback_config() {
        steps += 1;
        assert_eq!(version.number, 21 - steps);
        assert_eq!(pool.config(), version.config);
    }
    assert_eq!(steps, 15);
    assert_eq!(pool.reconfigure(Config::clone(&pool.config())).unwrap().number, 22);
}
