//! Those who have a socket and have not said yet who they are: their number, and those who wait to be
//! one of them.

use super::Pool;
use super::handle::LeaseHandle;
use crate::manager::{Session, wake};
use crate::sync::Mutex;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// The part of the core that counts them.
#[derive(Default)]
pub(super) struct Doorway(Mutex<Crowd>);

#[derive(Default)]
struct Crowd {
    inside: usize,
    /// In the order in which they came. Each has its number.
    waiting: VecDeque<(u64, Waker)>,
    next_number: u64,
}

impl Doorway {
    pub(super) fn inside(&self) -> usize {
        self.0.lock().inside
    }

    /// Does not overtake those who wait.
    fn try_enter(&self, most: usize) -> bool {
        let mut crowd = self.0.lock();
        let is_free = crowd.waiting.is_empty() && crowd.inside < most;
        crowd.inside += usize::from(is_free);
        is_free
    }

    /// Enters, or waits under the number in `waits`, which it gets at the first attempt.
    fn poll_enter(&self, most: usize, waits: &mut Option<u64>, waker: &Waker) -> bool {
        let mut crowd = self.0.lock();
        let before = match *waits {
            Some(number) => crowd.waiting.iter().position(|&(other, _)| other == number),
            None => None,
        };
        if (crowd.inside < most || fault!("vacancy_for_all")) && before.unwrap_or(crowd.waiting.len()) == 0 {
            crowd.inside += 1;
            let left = before.and_then(|at| crowd.waiting.remove(at));
            *waits = None;
            // There may be a place for the next one too.
            let next = crowd.first(most);
            drop(crowd);
            drop(left); // a waker's drop is foreign code
            ring(next);
            return true;
        }
        let waker = waker.clone();
        let old = match before {
            Some(at) => Some(std::mem::replace(&mut crowd.waiting[at].1, waker)),
            None => {
                let number = crowd.next_number;
                crowd.next_number += 1;
                crowd.waiting.push_back((number, waker));
                *waits = Some(number);
                None
            }
        };
        drop(crowd);
        drop(old);
        false
    }

    fn stop_waiting(&self, number: u64, most: usize) {
        let mut crowd = self.0.lock();
        let at = crowd.waiting.iter().position(|&(other, _)| other == number);
        let left = at.and_then(|at| crowd.waiting.remove(at));
        // It may have been woken for a place that it does not take.
        let next = crowd.first(most);
        drop(crowd);
        drop(left);
        ring(next);
    }

    fn leave(&self, most: usize) {
        let mut crowd = self.0.lock();
        crowd.inside -= 1;
        let next = crowd.first(most);
        drop(crowd);
        ring(next);
    }

    /// Wakes the first one who waits, if there is a place now: it wakes the next.
    pub(super) fn let_in(&self, most: usize) {
        let next = self.0.lock().first(most);
        ring(next);
    }
}

/// Outside the lock: wakers are foreign code.
fn ring(next: Option<Waker>) {
    if let Some(waker) = next {
        wake(waker);
    }
}

impl Crowd {
    /// The waker of the first one who waits, if there is a place for it.
    fn first(&self, most: usize) -> Option<Waker> {
        let (_, waker) = self.waiting.front()?;
        (self.inside < most).then(|| waker.clone())
    }
}

/// A place in the doorway, until it is dropped.
pub(crate) struct Entered<S: Session> {
    handle: LeaseHandle<S>,
}

impl<S: Session> Drop for Entered<S> {
    fn drop(&mut self) {
        if fault!("doorway_never_left") {
            return;
        }
        self.handle.keeping.doorway.leave(self.handle.settings.load().max_unauthenticated);
    }
}

/// Waits for a place in the doorway. May be dropped at any time.
pub(crate) struct Entering<S: Session> {
    handle: LeaseHandle<S>,
    waits: Option<u64>,
}

impl<S: Session> Future for Entering<S> {
    type Output = Entered<S>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Entered<S>> {
        let Self { handle, waits } = &mut *self;
        let most = handle.settings.load().max_unauthenticated;
        if !handle.keeping.doorway.poll_enter(most, waits, cx.waker()) {
            return Poll::Pending;
        }
        Poll::Ready(Entered { handle: handle.clone() })
    }
}

impl<S: Session> Drop for Entering<S> {
    fn drop(&mut self) {
        if let Some(number) = self.waits {
            let most = self.handle.settings.load().max_unauthenticated;
            self.handle.keeping.doorway.stop_waiting(number, most);
        }
    }
}

impl<S: Session> Pool<S> {
    /// A place in the doorway. `None`: it is full.
    pub(crate) fn enter(&self) -> Option<Entered<S>> {
        let most = self.handle.settings.load().max_unauthenticated;
        let is_in = self.handle.keeping.doorway.try_enter(most);
        is_in.then(|| Entered { handle: self.handle.for_lease() })
    }

    /// A place in the doorway as soon as there is one, in the order of those who wait.
    pub(crate) fn enter_wait(&self) -> Entering<S> {
        Entering { handle: self.handle.for_lease(), waits: None }
    }

    /// Sockets that are open and have not said yet whose they are, of those that came in by a
    /// [`Porch`](crate::serve::Porch).
    #[cfg_attr(docsrs, doc(cfg(feature = "serve")))]
    pub fn unauthenticated(&self) -> usize {
        self.handle.keeping.doorway.inside()
    }
}
