//! Waiting for a place: in the order of arrival, cancellable at every stage, past those whose own
//! user is full, and without a runtime.

mod common;
#[path = "common/held.rs"]
mod held;

use common::{assert_counts, builder, context};
use held::HeldPin;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;
use std::{iter, mem};
use ws_manager_pool::{
    Clock, DuplicatePolicy, EndReason, Lease, OpenError, Pool, Reservation, ReserveError, ReserveWait, UserId,
};

/// Longer than any of these tests takes on any machine.
const FOREVER: Duration = Duration::from_secs(120);

/// A future that a test polls by hand, and that counts how often it is woken.
struct Waiting {
    future: ReserveWait,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Waiting {
    /// In line, and not served.
    fn new(pool: &Pool, user: &str) -> Self {
        let mut waiting = Self::not_polled(pool, user);
        assert!(waiting.poll().is_pending());
        assert!(!waiting.is_woken());
        waiting
    }

    fn not_polled(pool: &Pool, user: &str) -> Self {
        Self { future: pool.reserve_wait(&context(user, None)), wakes: Arc::default() }
    }

    fn poll(&mut self) -> Poll<Result<Reservation, ReserveError>> {
        let waker = Waker::from(self.wakes.clone());
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
    }

    fn is_woken(&self) -> bool {
        self.wakes.0.load(Ordering::SeqCst) > 0
    }

    /// It was woken, and has a place.
    #[track_caller]
    fn place(mut self) -> Reservation {
        assert!(self.is_woken(), "a waiter that is served is woken");
        match self.poll() {
            Poll::Ready(Ok(place)) => place,
            other => panic!("served, but {other:?}"),
        }
    }
}

fn pool(name: &str, capacity: usize) -> Pool {
    builder(name, capacity).build().unwrap()
}

fn connect(pool: &Pool, user: &str) -> Lease {
    pool.reserve(&context(user, None)).unwrap().open().unwrap()
}

/// Parks the thread until the future is ready.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn a_place_that_is_free_is_had_at_the_first_poll() {
    let pool = pool("wait-free", 1);
    let mut waiting = Waiting::not_polled(&pool, "ada");
    let Poll::Ready(Ok(place)) = waiting.poll() else { panic!("the pool is empty") };
    drop(place.open().unwrap());
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn waiters_are_served_in_the_order_in_which_they_came() {
    let pool = pool("wait-fifo", 2);
    let mut leases = vec![connect(&pool, "x"), connect(&pool, "y")];
    let waiters: Vec<_> = ["a", "b", "c", "d"].iter().map(|user| Waiting::new(&pool, user)).collect();
    assert_eq!(pool.snapshot().waiting, 4);
    for (served, waiting) in waiters.into_iter().enumerate() {
        assert!(!waiting.is_woken(), "nobody is free for it yet");
        drop(leases.remove(0));
        assert_eq!(pool.snapshot().waiting, 3 - served);
        leases.push(waiting.place().open().unwrap());
    }
    drop(leases);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn every_way_in_which_a_place_becomes_free_serves_a_waiter() {
    let (clock, hand) = Clock::manual();
    let pool: Pool = builder("wait-ways", 1).clock(clock).build().unwrap();
    let freed_by = |free: &dyn Fn(Lease)| {
        let lease = connect(&pool, "x");
        let waiting = Waiting::new(&pool, "ada");
        free(lease);
        drop(waiting.place());
        assert_counts(&pool, 0, 0, 0);
    };
    freed_by(&drop);
    freed_by(&|lease| lease.close(EndReason::Closed).unwrap());
    freed_by(&|lease| pool.evict(lease.key(), EndReason::Operator).unwrap());
    freed_by(&|lease| {
        pool.evict(lease.key(), EndReason::Operator).unwrap();
        mem::forget(lease);
    });
    freed_by(&|lease| drop(thread::spawn(move || drop(lease)).join()));

    let place = pool.reserve(&context("x", None)).unwrap();
    let waiting = Waiting::new(&pool, "ada");
    drop(place);
    drop(waiting.place());

    mem::forget(pool.reserve(&context("x", None)).unwrap());
    let waiting = Waiting::new(&pool, "ada");
    hand.advance(pool.config().reservation_deadline);
    assert_eq!(pool.maintain(pool.clock().now()).expired, 1);
    drop(waiting.place());
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_slot_that_waits_for_a_reader_serves_a_waiter_when_the_reader_leaves() {
    let pool = pool("wait-reader", 1);
    let lease = connect(&pool, "x");
    let reader = HeldPin::on(&pool, lease.key());
    let waiting = Waiting::new(&pool, "ada");
    drop(lease);
    assert_counts(&pool, 0, 0, 1);
    assert!(!waiting.is_woken(), "the slot is still being read");
    drop(reader);
    drop(waiting.place());
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_users_place_is_free_for_its_waiter_while_the_slot_still_waits_for_a_reader() {
    let pool: Pool = builder("wait-count", 2).max_managers_per_user(1).build().unwrap();
    let lease = connect(&pool, "ada");
    let reader = HeldPin::on(&pool, lease.key());
    let waiting = Waiting::new(&pool, "ada");
    drop(lease);
    let new = waiting.place().open().unwrap();
    assert_counts(&pool, 1, 0, 1);
    drop(reader);
    drop(new);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_takeover_that_finds_its_place_busy_leaves_the_users_place_to_a_waiter() {
    let pool: Pool = builder("wait-busy", 2).max_managers_per_user(1).build().unwrap();
    let old = pool.reserve(&context("ada", "thread_a")).unwrap().open().unwrap();
    let bob = connect(&pool, "bob");
    let claim = pool.reserve(&context("ada", "thread_a")).unwrap();
    let waiting = Waiting::new(&pool, "ada");
    let reader = HeldPin::on(&pool, old.key());
    assert_eq!(claim.open().unwrap_err(), OpenError::Busy);
    drop(bob);
    drop(waiting.place());
    drop(reader);
    drop(old);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_waiter_whose_own_user_is_full_holds_up_nobody() {
    let pool: Pool = builder("wait-user-full", 3).max_managers_per_user(1).build().unwrap();
    let ada = connect(&pool, "ada");
    let full = Waiting::new(&pool, "ada");
    drop(connect(&pool, "bob"));
    let mut other = Waiting::not_polled(&pool, "eve");
    assert!(matches!(other.poll(), Poll::Ready(Ok(_))), "a place is free");
    let (bob, eve) = (connect(&pool, "bob"), connect(&pool, "eve"));
    let behind = Waiting::new(&pool, "dan");
    drop(bob);
    drop(behind.place());
    assert!(!full.is_woken());
    drop(ada);
    drop(full.place());
    drop(eve);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_raised_limit_serves_the_users_waiters() {
    let pool: Pool = builder("wait-raised", 5).max_managers_per_user(1).build().unwrap();
    let ada = connect(&pool, "ada");
    let waiting = Waiting::new(&pool, "ada");
    pool.set_user_limit(&UserId::new("ada").unwrap(), Some(2));
    drop(waiting.place());
    drop(ada);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn reserve_does_not_overtake_a_waiter_that_could_have_the_place() {
    let pool = pool("wait-overtake", 1);
    for _ in 0..50 {
        let lease = connect(&pool, "x");
        let waiting = Waiting::new(&pool, "ada");
        drop(lease);
        // The waiter has not even been polled.
        let refusal = pool.reserve(&context("bob", None)).unwrap_err();
        assert_eq!(refusal, ReserveError::PoolFull { capacity: 1 });
        drop(waiting.place());
    }
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_reconnect_with_a_live_thread_waits_for_nobody() {
    let pool = pool("wait-reconnect", 1);
    let old = pool.reserve(&context("ada", "thread_a")).unwrap().open().unwrap();
    let waiting = Waiting::new(&pool, "bob");
    let again = pool.reserve(&context("ada", "thread_a")).expect("it needs no place").open().unwrap();
    assert!(!old.is_live() && !waiting.is_woken());
    drop(again);
    drop(waiting.place());
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_waiter_that_leaves_the_line_is_forgotten() {
    let pool = pool("wait-cancel-queued", 1);
    let lease = connect(&pool, "x");
    let (first, second) = (Waiting::new(&pool, "ada"), Waiting::new(&pool, "bob"));
    drop(Waiting::not_polled(&pool, "never"));
    drop(first);
    assert_eq!(pool.snapshot().waiting, 1);
    drop(lease);
    drop(second.place());
    assert_eq!(pool.snapshot().waiting, 0);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_waiter_that_leaves_after_it_was_served_passes_its_place_on() {
    let pool = pool("wait-cancel-served", 1);
    let lease = connect(&pool, "x");
    let waiters: Vec<_> = ["a", "b", "c"].iter().map(|user| Waiting::new(&pool, user)).collect();
    let last = Waiting::new(&pool, "d");
    drop(lease);
    for served in waiters {
        assert!(served.is_woken());
        assert_counts(&pool, 0, 1, 0);
        drop(served);
    }
    drop(last.place());
    assert_counts(&pool, 0, 0, 0);
    assert_eq!(pool.snapshot().waiting, 0);
}

#[test]
fn a_place_handed_to_a_waiter_that_was_forgotten_comes_back_at_its_deadline() {
    let (clock, hand) = Clock::manual();
    let pool: Pool = builder("wait-forgotten", 1).clock(clock).build().unwrap();
    let lease = connect(&pool, "x");
    let (first, second) = (Waiting::new(&pool, "ada"), Waiting::new(&pool, "bob"));
    drop(lease);
    assert!(first.is_woken());
    hand.advance(pool.config().reservation_deadline);
    assert_eq!(pool.maintain(pool.clock().now()).expired, 1);
    let place = second.place();
    drop(first);
    drop(place.open().unwrap());
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_drain_refuses_everyone_who_waits() {
    let pool: Pool = builder("wait-drain", 2).max_managers_per_user(1).build().unwrap();
    let leases = [connect(&pool, "x"), connect(&pool, "y")];
    let mut waiters: Vec<_> =
        ["x", "a", "b", "y", "c"].iter().map(|user| Waiting::new(&pool, user)).collect();
    pool.start_drain();
    for waiting in &mut waiters {
        assert!(waiting.is_woken());
        assert!(matches!(waiting.poll(), Poll::Ready(Err(ReserveError::Draining))));
    }
    let mut late = Waiting::not_polled(&pool, "late");
    assert!(matches!(late.poll(), Poll::Ready(Err(ReserveError::Draining))));
    assert_eq!(pool.snapshot().waiting, 0);
    assert_eq!(pool.snapshot().refused.draining, 6);
    drop(leases);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_waiter_learns_what_waiting_does_not_mend() {
    let pool: Pool = builder("wait-reject", 1).duplicates(DuplicatePolicy::Reject).build().unwrap();
    let lease = pool.reserve(&context("ada", "thread_a")).unwrap().open().unwrap();
    let twin = pool.reserve_wait(&context("ada", "thread_a"));
    assert_eq!(block_on(twin).unwrap_err(), ReserveError::ThreadInUse);
    drop(lease);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_waiter_that_moves_to_another_task_is_woken_there() {
    let pool = pool("wait-moves", 1);
    let lease = connect(&pool, "x");
    let mut waiting = Waiting::new(&pool, "ada");
    let first_task = mem::take(&mut waiting.wakes);
    assert!(waiting.poll().is_pending());
    drop(lease);
    assert_eq!(first_task.0.load(Ordering::SeqCst), 0);
    drop(waiting.place());
}

/// Some wait, some give up while they wait, some only try. Each round of each thread comes to its end.
#[test]
fn nobody_is_lost_in_a_crowd() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 2_000;
    let pool: Pool = builder("wait-crowd", 3).max_managers_per_user(2).build().unwrap();
    let (done, all_done) = mpsc::channel();
    for number in 0..THREADS {
        let (pool, done) = (pool.clone(), done.clone());
        // Not scoped: a lost waiter would hang the test instead of failing it.
        thread::spawn(move || {
            for round in 0..ROUNDS {
                let user = format!("user-{}", (number + round) % 3);
                match (number + round) % 5 {
                    0 => drop(pool.reserve(&context(&user, None))),
                    1 => {
                        let mut waiting = Waiting::not_polled(&pool, &user);
                        if let Poll::Ready(place) = waiting.poll() {
                            drop(place.unwrap().open().unwrap());
                        }
                    }
                    2 => drop(block_on(pool.reserve_wait(&context(&user, None))).unwrap()),
                    _ => {
                        let place = block_on(pool.reserve_wait(&context(&user, None))).unwrap();
                        drop(place.open().unwrap());
                    }
                }
            }
            done.send(number).unwrap();
        });
    }
    drop(done);
    let ended: Vec<_> = iter::from_fn(|| all_done.recv_timeout(FOREVER).ok()).collect();
    assert_eq!(ended.len(), THREADS, "a waiter was lost; {:#?}", pool.snapshot());
    assert_counts(&pool, 0, 0, 0);
    assert_eq!(pool.snapshot().waiting, 0);
}
