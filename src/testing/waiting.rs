//! Those who wait for the double, in the order in which they came.

use super::life::After;
use super::state::{Number, Places, Seat, State};
use crate::config::DuplicatePolicy;
use crate::error::ReserveError;
use crate::id::UserExecutionContext;
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
    pub(super) fn join_queue(
        &mut self,
        context: &UserExecutionContext,
        waker: Waker,
        after: &mut After,
    ) -> Turn {
        let ticket = self.number();
        self.waiters.insert(ticket, Waiter { context: context.clone(), outcome: None, waker: waker.clone() });
        self.serve(after);
        self.check_turn(ticket, waker, after)
    }

    /// Has the ticket's turn come? If not, `waker` will be woken when it does.
    pub(super) fn check_turn(&mut self, ticket: Ticket, waker: Waker, after: &mut After) -> Turn {
        let Some(waiter) = self.waiters.get_mut(&ticket) else { return Turn::Waiting(ticket) };
        after.dropped.push(std::mem::replace(&mut waiter.waker, waker));
        let Some(outcome) = waiter.outcome else { return Turn::Waiting(ticket) };
        after.dropped.extend(self.waiters.remove(&ticket).map(|waiter| waiter.waker));
        Turn::Served(outcome)
    }

    /// Leaves the queue, and passes on what was handed over and never taken.
    pub(super) fn leave_queue(&mut self, ticket: Ticket, after: &mut After) {
        let Some(waiter) = self.waiters.remove(&ticket) else { return };
        after.dropped.push(waiter.waker);
        if let Some(Ok(seat)) = waiter.outcome {
            self.give_back(seat, after);
        }
    }

    /// Hands free places to those who can have them, in order. `true`: the pool is full, and the
    /// first who could not be served waits for it. A waiter whose own user is full is passed over.
    pub(super) fn serve(&mut self, after: &mut After) -> bool {
        let unserved = self.waiters.iter().filter(|(_, waiter)| waiter.outcome.is_none());
        let tickets: Vec<_> = unserved.map(|(&ticket, waiter)| (ticket, waiter.context.clone())).collect();
        let mut places = Places::Any;
        for (ticket, context) in tickets {
            let outcome = match self.reserve(&context, places) {
                Err(ReserveError::UserFull { .. }) => continue,
                Err(ReserveError::PoolFull { .. }) if self.config.duplicates != DuplicatePolicy::Replace => {
                    return true;
                }
                Err(ReserveError::PoolFull { .. }) => {
                    places = Places::Inherited;
                    continue;
                }
                outcome => outcome,
            };
            if let Some(waiter) = self.waiters.get_mut(&ticket) {
                waiter.outcome = Some(outcome);
                after.woken.push(waiter.waker.clone());
            }
        }
        places == Places::Inherited
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiters.values().filter(|waiter| waiter.outcome.is_none()).count()
    }
}
