//! A waiter that goes away while it is being served: what it was handed goes to the next. Fails with
//! the fault `cancelled_waiter_keeps_its_seat`.

use crate::places::{Flag, World, context};
use crate::race::Race;
use loom::sync::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use ws_manager_pool::{ReserveError, ReserveWait};

/// One place, taken; and two who wait for it.
struct Line {
    world: World,
    first: Mutex<Option<ReserveWait>>,
}

impl Line {
    fn new() -> Self {
        let world = World::new(1, 1);
        world.reserve(0, "ada", "thread_a");
        let mut first = world.pool.reserve_wait(&context("eve", "thread_e"));
        let waker = Waker::from(Arc::new(Flag::default()));
        assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(!world.poll());
        Self { world, first: Mutex::new(Some(first)) }
    }

    fn free(&self) {
        self.world.give_back(0);
    }

    fn cancel(&self) {
        drop(self.first.lock().unwrap().take());
    }

    /// Has its place and drops it, or goes away without.
    fn poll_and_cancel(&self) {
        let mut first = self.first.lock().unwrap().take().expect("it waits");
        if let Poll::Ready(place) = Pin::new(&mut first).poll(&mut Context::from_waker(Waker::noop())) {
            drop(place.expect("a place"));
        }
    }

    fn assert_second_is_served(&self) {
        assert!(self.world.is_woken.0.load(Ordering::SeqCst), "it sleeps, and a place is free");
        assert!(self.world.poll(), "it was woken for nothing");
        self.world.assert_counts(0, 1);
        drop(self.world.waiting.lock().unwrap().take());
        self.world.assert_whole();
    }
}

#[test]
fn what_a_cancelled_waiter_was_handed_goes_to_the_next() {
    Race {
        name: "serving against cancelling",
        world: Line::new,
        roles: [Line::free, Line::cancel],
        afterwards: Line::assert_second_is_served,
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 9,
    }
    .run();
}

#[test]
fn what_a_waiter_drops_at_once_goes_to_the_next() {
    Race {
        name: "serving against a look and cancelling",
        world: Line::new,
        roles: [Line::free, Line::poll_and_cancel],
        afterwards: Line::assert_second_is_served,
        bounds: &[Some(1), Some(2)],
        floor: 10,
    }
    .run();
}

/// Between the two nobody else gets in.
#[test]
fn a_try_does_not_take_what_a_cancelled_waiter_passes_on() {
    Race {
        name: "serving against cancelling and a try",
        world: Line::new,
        roles: [Line::free, |line| {
            line.cancel();
            let refused = line.world.pool.reserve(&context("bob", "thread_b")).map(drop);
            assert_eq!(refused, Err(ReserveError::PoolFull { capacity: 1 }));
        }],
        afterwards: Line::assert_second_is_served,
        bounds: &[Some(1), Some(2)],
        floor: 100,
    }
    .run();
}
