//! Those who wait for a place, in the order in which they came.
//!
//! A freed place is not announced but handed over: whoever freed it reserves on behalf of the first
//! waiter that can have it, so nobody overtakes. A waiter whose own user is full is passed over; a
//! waiter that went away passes on what it was handed.

use super::core::{Cleaning, Core, Places, Seat, Taken};
use crate::error::ReserveError;
use crate::id::UserExecutionContext;
use crate::manager::{Session, wake};
use crate::sync::{AtomicUsize, Mutex, Ordering, fence};
use std::collections::BTreeMap;
use std::task::Waker;

/// The queue. Its lock is taken before a shard's, never after. It lives with the slab's resident,
/// which rings it for each freed slot.
pub(super) struct Waiting {
    /// Waiters that have not been served.
    unserved: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
pub(super) struct Queue {
    next: Ticket,
    waiters: BTreeMap<Ticket, Waiter>,
}

/// A place in the queue.
pub(super) type Ticket = u64;

struct Waiter {
    context: UserExecutionContext,
    outcome: Option<Result<Seat, ReserveError>>,
    waker: Waker,
}

/// What a look at one's place in the queue shows.
pub(super) enum Turn {
    Waiting(Ticket),
    Served(Result<Seat, ReserveError>),
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self { unserved: AtomicUsize::new(0), queue: Mutex::new(Queue::default()) }
    }

    /// Nobody waits. One load of a word that is written only when somebody comes or goes.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.unserved.load(Ordering::Relaxed) == 0
    }

    /// A place has just become free: is there somebody to serve?
    #[inline]
    pub(super) fn is_awaited(&self) -> bool {
        // SeqCst fence: pairs with the one in `join_queue`. Either the waiter, looking after its own
        // fence, finds the place; or we, looking after ours, find the waiter.
        if !fault!("free_without_fence") {
            fence(Ordering::SeqCst);
        }
        !self.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.unserved.load(Ordering::Relaxed)
    }
}

impl<S: Session> Core<S> {
    pub(super) fn waiting(&self) -> &Waiting {
        &self.slab.resident().waiting
    }

    /// Reserves, and prepares the slot, without overtaking anyone who waits for the same place.
    pub(super) fn reserve_in_turn(&self, context: &UserExecutionContext) -> Result<Seat, ReserveError> {
        if self.waiting().is_empty() || fault!("overtake_waiters") {
            let taken = self.reserve(context, Places::Any, Cleaning::Allowed)?;
            return self.prepare(taken);
        }
        self.clean_if_due(context); // before the lock, since it runs foreign code
        let mut woken = Vec::new();
        let mut queue = self.waiting().queue.lock();
        let is_full = self.serve(&mut queue, &mut woken);
        let places = if is_full { Places::Inherited } else { Places::Any };
        let outcome = self.reserve(context, places, Cleaning::Done);
        drop(queue);
        woken.into_iter().for_each(wake);
        self.prepare(outcome?)
    }

    /// Gets in line. Served at once if there is a place.
    pub(super) fn join_queue(&self, context: &UserExecutionContext, waker: &Waker) -> Turn {
        let mut woken = Vec::new();
        // Foreign code: before the lock.
        self.clean_if_due(context);
        let waiter = Waiter { context: context.clone(), outcome: None, waker: waker.clone() };
        let mut queue = self.waiting().queue.lock();
        let ticket = queue.next;
        queue.next += 1;
        queue.waiters.insert(ticket, waiter);
        self.waiting().unserved.fetch_add(1, Ordering::Relaxed);
        if let Some(quotas) = &self.attached.quotas {
            quotas.one_waits();
        }
        // SeqCst fence: pairs with the one in `is_awaited`, see there.
        fence(Ordering::SeqCst);
        self.serve(&mut queue, &mut woken);
        let served = queue.take_served(ticket);
        drop(queue);
        woken.into_iter().for_each(wake);
        Turn::of(ticket, served)
    }

    /// Has the ticket's turn come? If not, `waker` will be woken when it does.
    pub(super) fn check_turn(&self, ticket: Ticket, waker: &Waker) -> Turn {
        // Foreign code, the clone before the lock and the drop after it.
        let fresh = waker.clone();
        let mut queue = self.waiting().queue.lock();
        let served = queue.take_served(ticket);
        let replaced =
            queue.waiters.get_mut(&ticket).map(|waiter| std::mem::replace(&mut waiter.waker, fresh));
        drop(queue);
        drop(replaced);
        Turn::of(ticket, served)
    }

    /// Leaves the queue. Returns the seat that the waiter had been handed and never took.
    pub(super) fn leave_queue(&self, ticket: Ticket) -> Option<Seat> {
        let mut queue = self.waiting().queue.lock();
        let waiter = queue.waiters.remove(&ticket)?;
        if waiter.outcome.is_none() {
            self.one_waits_no_more();
        }
        drop(queue);
        waiter.outcome?.ok()
    }

    /// A slot or a user's place has become free: whoever waits for it gets it.
    pub(super) fn place_freed(&self) {
        self.serve_if_awaited();
        if let Some(quotas) = &self.attached.quotas {
            quotas.place_freed();
        }
    }

    /// The slot has rung for itself, but in its own pool only.
    pub(super) fn place_freed_in_domain(&self) {
        if self.attached.quotas.is_some() {
            self.place_freed();
        }
    }

    pub(super) fn serve_if_awaited(&self) {
        if self.waiting().is_awaited() {
            self.serve_waiting();
        }
    }

    fn one_waits_no_more(&self) {
        self.waiting().unserved.fetch_sub(1, Ordering::Relaxed);
        if let Some(quotas) = &self.attached.quotas {
            quotas.one_waits_no_more();
        }
    }

    pub(super) fn serve_waiting(&self) {
        let mut woken = Vec::new();
        self.serve(&mut self.waiting().queue.lock(), &mut woken);
        woken.into_iter().for_each(wake);
    }

    /// Hands free places to those who can have them, in order. `true`: the pool is full, and the
    /// first who could not be served waits for it.
    fn serve(&self, queue: &mut Queue, woken: &mut Vec<Waker>) -> bool {
        let mut places = Places::Any;
        for waiter in queue.waiters.values_mut().filter(|waiter| waiter.outcome.is_none()) {
            match self.reserve(&waiter.context, places, Cleaning::Done) {
                Err(ReserveError::UserFull { .. } | ReserveError::TenantFull { .. }) => continue,
                Err(ReserveError::PoolFull { .. }) => {
                    // Behind the first who waits for a slot, others may have a connection to take over.
                    places = Places::Inherited;
                    continue;
                }
                outcome => waiter.outcome = Some(outcome.map(Taken::leave_reserved)),
            }
            self.one_waits_no_more();
            woken.push(std::mem::replace(&mut waiter.waker, Waker::noop().clone()));
        }
        places == Places::Inherited
    }
}

impl Queue {
    /// Takes a waiter out that has its outcome. To be dropped after the lock: its waker is foreign.
    fn take_served(&mut self, ticket: Ticket) -> Option<Waiter> {
        let is_served = self.waiters.get(&ticket)?.outcome.is_some();
        if is_served { self.waiters.remove(&ticket) } else { None }
    }
}

impl Turn {
    fn of(ticket: Ticket, served: Option<Waiter>) -> Self {
        served.and_then(|waiter| waiter.outcome).map_or(Self::Waiting(ticket), Self::Served)
    }
}
