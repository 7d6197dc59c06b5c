//! Backpressure: a handler that produces waits until its connection's queue is low again.

use crate::manager::{Session, wake};
use crate::pool::Tie;
use crate::reason::Revoked;
use crate::sync::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Those futures of one connection's handler that wait for room. Each has a waker of its own, as in a
/// `select` or in `FuturesUnordered`.
/// Boxed, as few handlers ever wait and every connection's task has this.
#[derive(Default)]
pub(super) struct RoomWaiters(Mutex<Option<Box<Waiters>>>);

#[derive(Default)]
struct Waiters {
    waiting: Vec<(u64, Waker)>,
    next_number: u64,
}

impl RoomWaiters {
    /// What the driver does in each turn in which a handler is pending, after it has fed the socket.
    /// Revoked: whoever waits is dropped with the handler.
    pub(super) fn look<S: Session>(&self, tie: &Tie<S>) {
        if self.0.lock().is_none() || tie.has_room() != Ok(true) || fault!("room_never_told") {
            return;
        }
        // Outside the lock: wakers are foreign code.
        let waiting = self.0.lock().as_mut().map(|waiters| std::mem::take(&mut waiters.waiting));
        for (_, waker) in waiting.into_iter().flatten() {
            wake(waker);
        }
    }

    /// Registers a waker under the number in `waits`, which it gets at the first time.
    fn register(&self, waits: &mut Option<u64>, waker: &Waker) {
        let waker = waker.clone();
        let mut guard = self.0.lock();
        let waiters = guard.get_or_insert_default();
        let number = *waits.get_or_insert(waiters.next_number);
        if number == waiters.next_number {
            waiters.next_number += 1;
        }
        let old = match waiters.waiting.iter_mut().find(|(other, _)| *other == number) {
            Some((_, place)) => Some(std::mem::replace(place, waker)),
            None => {
                waiters.waiting.push((number, waker));
                None
            }
        };
        drop(guard);
        drop(old);
    }

    fn leave(&self, number: u64) {
        let mut guard = self.0.lock();
        let left = guard.as_mut().and_then(|waiters| {
            let at = waiters.waiting.iter().position(|&(other, _)| other == number)?;
            Some(waiters.waiting.swap_remove(at))
        });
        drop(guard);
        drop(left);
    }
}

/// Resolves when the queue is low.
pub(super) struct WaitForRoom<'a, S: Session> {
    tie: &'a Tie<S>,
    waiters: &'a RoomWaiters,
    waits: Option<u64>,
}

impl<'a, S: Session> WaitForRoom<'a, S> {
    pub(super) fn new(tie: &'a Tie<S>, waiters: &'a RoomWaiters) -> Self {
        Self { tie, waiters, waits: None }
    }
}

impl<S: Session> Future for WaitForRoom<'_, S> {
    type Output = Result<(), Revoked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { tie, waiters, waits } = &mut *self;
        if tie.has_room()? {
            return Poll::Ready(Ok(()));
        }
        waiters.register(waits, cx.waker());
        // Again: somebody else than the driver may have emptied the queue meanwhile.
        if tie.has_room()? { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl<S: Session> Drop for WaitForRoom<'_, S> {
    fn drop(&mut self) {
        if let Some(number) = self.waits {
            self.waiters.leave(number);
        }
    }
}
