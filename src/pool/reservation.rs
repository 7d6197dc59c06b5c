//! A place held during the handshake, and the wait for one.

use super::core::{Seat, SeatEnd};
use super::events::EventId;
use super::handle::LeaseHandle;
#[cfg(feature = "axum")]
use super::keeping::Held;
use super::lease::Lease;
use super::waiting::{Ticket, Turn};
use crate::error::{OpenError, ReserveError};
use crate::id::UserExecutionContext;
use crate::manager::Session;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A place in the user's quota and a slot, held for the time of the handshake. Dropped, it is given
/// back; forgotten, it is taken back at its deadline.
#[must_use = "dropping a reservation gives its place back"]
pub struct Reservation<S: Session = ()> {
    place: Place<S>,
    context: UserExecutionContext,
    made_at: &'static Location<'static>,
    after: Option<EventId>,
}

/// What is given back if it is not used. By itself, so that the rest can be moved into the lease.
struct Place<S: Session> {
    /// `None` once opened.
    held: Option<(LeaseHandle<S>, Seat)>,
}

impl<S: Session> Reservation<S> {
    pub(super) fn new(
        handle: LeaseHandle<S>,
        seat: Seat,
        context: UserExecutionContext,
        made_at: &'static Location<'static>,
    ) -> Self {
        Self { place: Place { held: Some((handle, seat)) }, context, made_at, after: None }
    }

    /// Who the place is for.
    pub fn context(&self) -> &UserExecutionContext {
        &self.context
    }

    /// Whose work this is, if not that of whoever reserved.
    #[cfg(any(feature = "axum", feature = "engine"))]
    pub(crate) fn set_made_at(&mut self, made_at: &'static Location<'static>) {
        self.made_at = made_at;
    }

    /// The client has been here before, and this is the event of its thread that it saw last: once open, the
    /// connection is handed those that came after it, as far as they are kept
    /// ([`crate::Config::replay_events`]), and is told of those that are not; before any new one.
    pub fn resume_after(&mut self, after: EventId) {
        self.after = Some(after);
    }

    /// Opens the manager: the handshake succeeded. A takeover ends the old connection here, and not
    /// before, so that a failed handshake harms nobody.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the place has been given back then.
    pub fn open(self) -> Result<Lease<S>, OpenError> {
        let Self { mut place, context, made_at, after } = self;
        let (handle, seat) = place.held.take().ok_or(OpenError::Expired)?;
        let owner = handle.open(seat, &context, made_at, after)?;
        Ok(Lease::new(handle, owner, context))
    }

    /// What it takes to part from a peer whose place is gone when it is to be opened.
    #[cfg(feature = "axum")]
    pub(crate) fn hold(&self) -> Option<Held<S>> {
        self.place.held.as_ref().map(|(handle, _)| Held::nothing(handle.clone()))
    }
}

impl<S: Session> Drop for Place<S> {
    fn drop(&mut self) {
        if let Some((handle, seat)) = self.held.take() {
            // `false`: its deadline came first.
            handle.give_back(seat, SeatEnd::GivenBack);
        }
    }
}

impl<S: Session> fmt::Debug for Reservation<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("isolation_key", &self.context.isolation_key())
            .field("made_at", &format_args!("{}", self.made_at))
            .finish_non_exhaustive()
    }
}

/// Waits for a place: see [`crate::Pool::reserve_wait`]. Needs no runtime; may be dropped any time,
/// and passes on what it had been handed.
#[must_use = "futures do nothing unless polled"]
pub struct ReserveWait<S: Session = ()> {
    handle: LeaseHandle<S>,
    context: UserExecutionContext,
    made_at: &'static Location<'static>,
    ticket: Option<Ticket>,
}

impl<S: Session> ReserveWait<S> {
    pub(super) fn new(
        handle: LeaseHandle<S>,
        context: UserExecutionContext,
        made_at: &'static Location<'static>,
    ) -> Self {
        Self { handle, context, made_at, ticket: None }
    }
}

impl<S: Session> Future for ReserveWait<S> {
    type Output = Result<Reservation<S>, ReserveError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let turn = match this.ticket {
            Some(ticket) => this.handle.check_turn(ticket, cx.waker()),
            None => this.handle.join_queue(&this.context, cx.waker()),
        };
        match turn {
            Turn::Waiting(ticket) => {
                this.ticket = Some(ticket);
                Poll::Pending
            }
            Turn::Served(outcome) => {
                this.ticket = None;
                let admitted = outcome.and_then(|seat| this.handle.prepare_seat(seat));
                Poll::Ready(match admitted {
                    Ok(seat) => {
                        Ok(Reservation::new(this.handle.clone(), seat, this.context.clone(), this.made_at))
                    }
                    Err(error) => {
                        this.handle.refused(&this.context, error);
                        Err(error)
                    }
                })
            }
        }
    }
}

impl<S: Session> Drop for ReserveWait<S> {
    fn drop(&mut self) {
        if let Some(seat) = self.ticket.and_then(|ticket| self.handle.leave_queue(ticket))
            && !fault!("cancelled_waiter_keeps_its_seat")
        {
            self.handle.give_back(seat, SeatEnd::GivenBack);
        }
    }
}

impl<S: Session> fmt::Debug for ReserveWait<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReserveWait")
            .field("isolation_key", &self.context.isolation_key())
            .field("is_queued", &self.ticket.is_some())
            .finish_non_exhaustive()
    }
}
