//! Those who wait for the double, in the order in which they came.

use super::state::{Number, Places, Seat, State};
use crate::error::ReserveError;
use crate::id::UserExecutionContext;
use crate::sync::{Ordering, fence};
use std::task::Waker;

/// A place in the queue.
pub(super) type Ticket = Number;

pub(super) struct Waiter {
    context: UserExecutionContext,
    outcome: Option<Result<Seat, ReserveError>>,
    waker: Waker,
}

/// What a look at one's place in the queue shows.
pub(super) enum Turn {
    Waiting(Ticket),
    Served(Result<Seat, ReserveError>),
}

impl State {
    /// Gets in line. Served at once if there is a place, or a live connection to take over.
    pub(super) fn join_queue(&mut self, context: &UserExecutionContext, waker: Waker) -> Turn {
        self.clean_if_due(context.user_id());
        let ticket = self.number();
        self.waiters.insert(ticket, Waiter { context: context.clone(), outcome: None, waker: waker.clone() });
        if let Some(quotas) = &self.quotas {
            quotas.one_waits();
            // SeqCst fence: pairs with the one of whoever frees a place in another pool of the domain.
            // Either we find the place now, or they find that somebody waits.
            fence(Ordering::SeqCst);
        }
        self.serve();
        self.check_turn(ticket, waker)
    }

    /// Has the ticket's turn come? If not, `waker` will be woken when it does.
    pub(super) fn check_turn(&mut self, ticket: Ticket, waker: Waker) -> Turn {
        let Some(waiter) = self.waiters.get_mut(&ticket) else { return Turn::Waiting(ticket) };
        self.after.dropped.push(std::mem::replace(&mut waiter.waker, waker));
        let Some(outcome) = waiter.outcome else { return Turn::Waiting(ticket) };
        self.after.dropped.extend(self.waiters.remove(&ticket).map(|waiter| waiter.waker));
        Turn::Served(outcome)
    }

    /// Leaves the queue, and passes on what was handed over and never taken.
    pub(super) fn leave_queue(&mut self, ticket: Ticket) {
        let Some(waiter) = self.waiters.remove(&ticket) else { return };
        self.after.dropped.push(waiter.waker);
        match waiter.outcome {
            Some(Ok(seat)) => drop(self.give_back(seat)),
            Some(Err(_)) => {}
            None => self.one_waits_no_more(),
        }
    }

    /// A slot or a user's place has become free: whoever waits for it gets it.
    pub(super) fn place_freed(&mut self) {
        self.after.is_place_freed = true;
        self.serve();
    }

    /// Hands free places to those who can have them, in order. `true`: the pool is full, and the
    /// first who could not be served waits for it. A waiter whose own user is full is passed over.
    pub(super) fn serve(&mut self) -> bool {
        let unserved = self.waiters.iter().filter(|(_, waiter)| waiter.outcome.is_none());
        let tickets: Vec<_> = unserved.map(|(&ticket, waiter)| (ticket, waiter.context.clone())).collect();
        let mut places = Places::Any;
        for (ticket, context) in tickets {
            let outcome = match self.reserve(&context, places) {
                Err(ReserveError::UserFull { .. } | ReserveError::TenantFull { .. }) => continue,
                Err(ReserveError::PoolFull { .. }) => {
                    // Behind the first who waits for a slot, others may have a connection to take over.
                    places = Places::Inherited;
                    continue;
                }
                outcome => outcome,
            };
            if let Some(waiter) = self.waiters.get_mut(&ticket) {
                waiter.outcome = Some(outcome);
                self.after.woken.push(waiter.waker.clone());
                self.one_waits_no_more();
            }
        }
        places == Places::Inherited
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiters.values().filter(|waiter| waiter.outcome.is_none()).count()
    }

    fn one_waits_no_more(&self) {
        if let Some(quotas) = &self.quotas {
            quotas.one_waits_no_more();
        }
    }
}
