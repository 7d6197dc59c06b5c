//! Quotas hold in any interleaving, a refusal leaves nothing behind, and nobody is refused while a
//! slot is free.

mod common;

use common::{assert_counts, builder, context};
use crossbeam_queue::ArrayQueue;
use std::sync::{Barrier, mpsc};
use std::thread;
use ws_manager_pool::{
    DuplicatePolicy, EndReason, Lease, Message, OpenError, Pool, Reservation, ReserveError, SendReport,
    Session, UserId,
};

/// Runs `act` on so many threads at once, and returns what each of them got.
fn at_once<T: Send>(threads: usize, act: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|number| {
                let (start, act) = (&start, &act);
                scope.spawn(move || {
                    start.wait();
                    act(number)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    })
}

/// Keeps what was admitted, and counts the refusals that are `expected`.
fn sort<T>(outcomes: Vec<Result<T, ReserveError>>, expected: ReserveError) -> (Vec<T>, usize) {
    let mut refused = 0;
    let admitted = outcomes.into_iter().filter_map(|outcome| {
        outcome
            .map_err(|error| {
                assert_eq!(error, expected);
                refused += 1;
            })
            .ok()
    });
    (admitted.collect(), refused)
}

#[test]
fn a_burst_of_200_at_once_admits_exactly_the_users_maximum() {
    let pool: Pool = builder("burst-user", 1_000).max_managers_per_user(20).build().unwrap();
    for round in 1..=20 {
        let outcomes = at_once(200, |_| pool.reserve(&context("ada", None)));
        let (admitted, refused) = sort(outcomes, ReserveError::UserFull { max_managers: 20 });
        assert_eq!((admitted.len(), refused), (20, 180));
        assert_eq!(pool.snapshot().refused.user_full, 180 * round);
        assert_counts(&pool, 0, 20, 0);
        let leases: Vec<_> = admitted.into_iter().map(|place| place.open().unwrap()).collect();
        assert_counts(&pool, 20, 0, 0);
        drop(leases);
    }
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_burst_of_200_users_at_once_admits_exactly_the_capacity() {
    // 70 slots: more than a page, so that the burst meets a growing pool too.
    let pool: Pool = builder("burst-pool", 70).build().unwrap();
    for _ in 0..20 {
        let outcomes = at_once(200, |user| pool.reserve(&context(&format!("user-{user}"), None)));
        let (admitted, refused) = sort(outcomes, ReserveError::PoolFull { capacity: 70 });
        assert_eq!((admitted.len(), refused), (70, 130));
        assert_counts(&pool, 0, 70, 0);
        drop(admitted);
        assert_counts(&pool, 0, 0, 0);
        pool.maintain(pool.clock().now());
    }
}

#[test]
fn the_maximum_is_never_exceeded_while_places_come_and_go() {
    let pool: Pool = builder("churn-user", 1_000).max_managers_per_user(3).build().unwrap();
    let user = UserId::new("ada").unwrap();
    at_once(8, |number| {
        for round in 0..1_000 {
            let Ok(place) = pool.reserve(&context("ada", None)) else { continue };
            if (number + round) % 3 == 0 {
                drop(place);
            } else {
                let lease = place.open().unwrap();
                assert!(pool.keys_of(&user).len() <= 3);
                drop(lease);
            }
        }
    });
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_single_users_maximum_overrides_the_pools() {
    let pool: Pool = builder("override", 100).max_managers_per_user(2).build().unwrap();
    let admitted = |user: &str| {
        let places: Vec<_> = (0..10).map_while(|_| pool.reserve(&context(user, None)).ok()).collect();
        places.len()
    };
    let ada = UserId::new("ada").unwrap();
    pool.set_user_limit(&ada, Some(7));
    assert_eq!((admitted("ada"), admitted("bob")), (7, 2));
    assert_eq!(admitted("ada:x"), 2, "another user, whatever the id begins with");
    pool.set_user_limit(&ada, Some(0));
    assert_eq!(admitted("ada"), 0);
    pool.set_user_limit(&ada, None);
    assert_eq!(admitted("ada"), 2);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_lowered_maximum_closes_nobody_and_admits_nobody() {
    let pool: Pool = builder("lowered", 100).duplicates(DuplicatePolicy::Allow).build().unwrap();
    let user = UserId::new("ada").unwrap();
    let mut leases: Vec<_> =
        (0..10).map(|_| pool.reserve(&context("ada", None)).unwrap().open().unwrap()).collect();
    let place = pool.reserve(&context("ada", None)).unwrap();
    pool.set_user_limit(&user, Some(4));
    leases.push(place.open().unwrap());
    assert!(leases.iter().all(Lease::is_live));
    assert_counts(&pool, 11, 0, 0);
    let refusal = pool.reserve(&context("ada", None)).unwrap_err();
    assert_eq!(refusal, ReserveError::UserFull { max_managers: 4 });
    leases.truncate(4);
    assert!(pool.reserve(&context("ada", None)).is_err(), "4 of 4");
    leases.truncate(3);
    assert!(pool.reserve(&context("ada", None)).is_ok(), "3 of 4");
}

#[derive(Debug)]
struct Unmakeable;

impl Default for Unmakeable {
    fn default() -> Self {
        panic!("this state cannot be made")
    }
}

impl Session for Unmakeable {
    fn reset(&mut self) {}
}

#[test]
fn a_refusal_leaves_nothing_behind() {
    let pool: Pool =
        builder("refusals", 2).max_managers_per_user(1).duplicates(DuplicatePolicy::Reject).build().unwrap();
    let ada = pool.reserve(&context("ada", "thread_a")).unwrap().open().unwrap();
    let bob = pool.reserve(&context("bob", None)).unwrap().open().unwrap();
    let before = pool.snapshot();
    for n in 0..100 {
        let refused = |user: &str, thread| pool.reserve(&context(user, thread)).unwrap_err();
        assert_eq!(refused("bob", None), ReserveError::UserFull { max_managers: 1 });
        assert_eq!(refused("ada", Some("thread_a")), ReserveError::ThreadInUse);
        let stranger = format!("stranger-{n}");
        assert_eq!(refused(&stranger, None), ReserveError::PoolFull { capacity: 2 });
        assert!(pool.keys_of(&UserId::new(&stranger).unwrap()).is_empty());
    }
    let after = pool.snapshot();
    assert_eq!(after.ledger, before.ledger);
    assert_eq!((after.users, after.free, after.waiting), (2, 0, 0));
    let refused = after.refused;
    assert_eq!((refused.user_full, refused.pool_full, refused.thread_in_use), (100, 100, 100));
    drop((ada, bob));
    pool.start_drain();
    assert_eq!(pool.reserve(&context("ada", None)).unwrap_err(), ReserveError::Draining);
    assert_eq!(pool.snapshot().refused.draining, 1);
    assert_counts(&pool, 0, 0, 0);

    let pool: Pool<Unmakeable> = builder("refusals-panic", 2).build().unwrap();
    for n in 1..=100 {
        assert_eq!(pool.reserve(&context("ada", None)).unwrap_err(), ReserveError::SessionPanicked);
        assert_eq!(pool.snapshot().refused.session_panicked, n);
    }
    assert_counts(&pool, 0, 0, 0);
    assert_eq!(pool.snapshot().free, 2, "a slot that was retired is replaced");
}

/// There are as many tokens as slots, and a token is passed on only after its slot was given back:
/// who holds one has a slot waiting somewhere.
fn a_free_slot_is_found(name: &str, capacity: usize, threads: usize, rounds: usize, is_maintained: bool) {
    let pool: Pool = builder(name, capacity).build().unwrap();
    let tokens = ArrayQueue::new(capacity);
    (0..capacity).for_each(|_| tokens.push(()).unwrap());
    thread::scope(|scope| {
        // Each thread gives back what its neighbour took.
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::channel::<Held>()).unzip();
        for (number, taken) in receivers.into_iter().enumerate() {
            let (pool, tokens) = (&pool, &tokens);
            let neighbour = senders[(number + 1) % threads].clone();
            scope.spawn(move || {
                let user = format!("user-{number}");
                for round in 0..rounds {
                    if tokens.pop().is_some() {
                        let place = pool.reserve(&context(&user, None)).expect("a slot is free");
                        let held = if round % 2 == 0 {
                            Held::Reserved(place)
                        } else {
                            Held::Open(place.open().expect("it has not expired"))
                        };
                        // The neighbour may be done: then it is given back here.
                        drop(neighbour.send(held));
                    }
                    while let Ok(held) = taken.try_recv() {
                        held.give_back();
                        tokens.push(()).expect("there are as many tokens as slots");
                    }
                    if is_maintained && round % 64 == number {
                        pool.maintain(pool.clock().now());
                    }
                }
            });
        }
        drop(senders);
    });
    assert_counts(&pool, 0, 0, 0);
}

enum Held {
    Reserved(Reservation),
    Open(Lease),
}

impl Held {
    fn give_back(self) {
        match self {
            Self::Reserved(place) => drop(place),
            Self::Open(lease) => lease.close(EndReason::Closed).expect("nobody else ended it"),
        }
    }
}

#[test]
fn nobody_is_refused_while_a_slot_is_free() {
    a_free_slot_is_found("free-1", 1, 4, 20_000, false);
    a_free_slot_is_found("free-3", 3, 8, 10_000, false);
    a_free_slot_is_found("free-65", 65, 8, 10_000, false);
}

#[test]
fn nobody_is_refused_while_a_slot_is_free_and_pages_come_and_go() {
    a_free_slot_is_found("free-maintained", 130, 4, 5_000, true);
}

#[test]
fn under_reject_one_of_many_concurrent_opens_of_a_thread_succeeds() {
    let pool: Pool = builder("reject", 64).duplicates(DuplicatePolicy::Reject).build().unwrap();
    for _ in 0..200 {
        let outcomes = at_once(8, |_| {
            let place = pool.reserve(&context("ada", "thread_a")).map_err(|refusal| {
                assert_eq!(refusal, ReserveError::ThreadInUse);
            })?;
            place.open().map_err(|error| assert_eq!(error, OpenError::ThreadInUse))
        });
        assert_eq!(outcomes.iter().flatten().count(), 1);
        assert_counts(&pool, 1, 0, 0);
    }
    assert_counts(&pool, 0, 0, 0);
    assert!(pool.reserve(&context("ada", "thread_a")).is_ok(), "free again");
}

#[test]
fn under_allow_every_concurrent_open_of_a_thread_succeeds_and_counts() {
    let pool: Pool =
        builder("allow", 64).max_managers_per_user(8).duplicates(DuplicatePolicy::Allow).build().unwrap();
    for _ in 0..100 {
        let outcomes = at_once(12, |_| {
            pool.reserve(&context("ada", "thread_a")).map(|place| place.open().expect("nothing stops it"))
        });
        let (leases, refused) = sort(outcomes, ReserveError::UserFull { max_managers: 8 });
        assert_eq!((leases.len(), refused), (8, 4));
        assert!(leases.iter().all(Lease::is_live));
        assert_counts(&pool, 8, 0, 0);
    }
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn closing_one_tab_of_a_thread_leaves_the_others_reachable() {
    let pool: Pool = builder("tabs", 8).duplicates(DuplicatePolicy::Allow).build().unwrap();
    let tab = context("ada", "thread_a");
    for closed in 0..3 {
        let mut tabs: Vec<_> = (0..3).map(|_| pool.reserve(&tab).unwrap().open().unwrap()).collect();
        drop(tabs.remove(closed));
        let report = pool.send_to_thread(&tab.isolation_key(), Message::from("still here"));
        assert_eq!((report.queued, report.addressed()), (2, 2));
        assert!(tabs.iter_mut().all(|tab| received(tab) == ["still here"]));
    }
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn under_replace_the_last_of_many_concurrent_opens_of_a_thread_remains() {
    let pool: Pool = builder("replace", 64).build().unwrap();
    for _ in 0..200 {
        let leases =
            at_once(8, |_| pool.reserve(&context("ada", "thread_a")).unwrap().open().expect("it replaces"));
        assert_eq!(leases.iter().filter(|lease| lease.is_live()).count(), 1);
        for revoked in leases.iter().filter_map(Lease::revoked) {
            // Unknown: its slot has been used again since.
            assert!(matches!(revoked.reason(), EndReason::Takeover | EndReason::Unknown));
        }
        assert_counts(&pool, 1, 0, 0);
    }
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn under_replace_concurrent_takeovers_at_the_limit_keep_to_the_limit() {
    let pool: Pool = builder("replace-full", 2).max_managers_per_user(1).build().unwrap();
    let other = pool.reserve(&context("bob", "thread_a")).unwrap().open().unwrap();
    for _ in 0..200 {
        let first = pool.reserve(&context("ada", "thread_a")).unwrap().open().unwrap();
        let outcomes = at_once(6, |_| {
            // One claim for each live connection: the others are refused, and find nothing of theirs.
            pool.reserve(&context("ada", "thread_a")).map(|place| place.open().expect("the claim holds"))
        });
        let (leases, _refused) = sort(outcomes, ReserveError::UserFull { max_managers: 1 });
        assert_eq!(leases.iter().filter(|lease| lease.is_live()).count(), 1);
        assert!(!first.is_live());
        assert_counts(&pool, 2, 0, 0);
    }
    assert!(other.is_live(), "another user's connection on a thread of the same name");
    drop(other);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn users_a_and_a_b_are_two_users() {
    let pool: Pool = builder("a-ab", 10).max_managers_per_user(1).build().unwrap();
    let mut a = pool.reserve(&context("a", "thread_x")).unwrap().open().unwrap();
    let mut ab = pool.reserve(&context("a:b", "thread_x")).unwrap().open().unwrap();
    assert!(a.is_live() && ab.is_live());
    assert!(pool.send_to_user(&UserId::new("a").unwrap(), Message::from("to a")).is_complete());
    let key = context("a:b", "thread_x").isolation_key();
    assert!(pool.send_to_thread(&key, Message::from("to a:b")).is_complete());
    assert_eq!(received(&mut a), ["to a"]);
    assert_eq!(received(&mut ab), ["to a:b"]);
    assert_eq!(pool.cleanup_all_user_managers(&UserId::new("a").unwrap(), EndReason::Operator).cleaned, 1);
    assert!(!a.is_live() && ab.is_live());
}

#[test]
fn two_users_with_the_same_thread_id_never_see_each_others_messages() {
    let pool: Pool = builder("same-thread", 64).duplicates(DuplicatePolicy::Allow).build().unwrap();
    let users = ["ada", "bob", "ada:bob", "eve"];
    at_once(4, |number| {
        let user = users[number];
        let mine = context(user, "thread_shared");
        for round in 0..500 {
            let mut tabs: Vec<_> = (0..2).map(|_| pool.reserve(&mine).unwrap().open().unwrap()).collect();
            let report = if round % 2 == 0 {
                pool.send_to_thread(&mine.isolation_key(), Message::text(user))
            } else {
                pool.send_to_user(mine.user_id(), Message::text(user))
            };
            assert_eq!(report.queued, 2, "{report:?}");
            for tab in &mut tabs {
                assert_eq!(received(tab), [user]);
            }
        }
        let nobody: SendReport = pool.send_to_thread(&mine.isolation_key(), Message::text(user));
        assert!(nobody.is_nobody);
    });
    assert_counts(&pool, 0, 0, 0);
    assert_eq!(pool.snapshot().mismatches, 0);
}

fn received(lease: &mut Lease) -> Vec<String> {
    std::iter::from_fn(|| lease.next_message().expect("the lease is good"))
        .map(|message| message.as_text().expect("a text").to_owned())
        .collect()
}
