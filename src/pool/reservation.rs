//! A place held during the handshake, and the wait for one.

use super::core::{Seat, SeatEnd};
use super::handle::Handle;
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
    handle: Handle<S>,
    /// `None` once opened.
    seat: Option<Seat>,
    context: UserExecutionContext,
    made_at: &'static Location<'static>,
}

impl<S: Session> Reservation<S> {
    pub(super) fn new(
        handle: Handle<S>,
        seat: Seat,
        context: UserExecutionContext,
        made_at: &'static Location<'static>,
    ) -> Self {
        Self { handle, seat: Some(seat), context, made_at }
    }

    /// Who the place is for.
    pub fn context(&self) -> &UserExecutionContext {
        &self.context
    }

    /// Whose work this is, if not that of whoever reserved.
    #[cfg(feature = "axum")]
    pub(crate) fn set_made_at(&mut self, made_at: &'static Location<'static>) {
        self.made_at = made_at;
    }

    /// Opens the manager: the handshake succeeded. A takeover ends the old connection here, and not
    /// before, so that a failed handshake harms nobody.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the place has been given back then.
    pub fn open(mut self) -> Result<Lease<S>, OpenError> {
        let seat = self.seat.take().ok_or(OpenError::Expired)?;
        let opened = self.handle.open(seat, &self.context, self.made_at)?;
        Ok(Lease::new(self.handle.clone(), opened, self.context.clone()))
    }
}

impl<S: Session> Drop for Reservation<S> {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            // `false`: its deadline came first.
            self.handle.give_back(seat, SeatEnd::GivenBack);
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
    handle: Handle<S>,
    context: UserExecutionContext,
    made_at: &'static Location<'static>,
    ticket: Option<Ticket>,
}

impl<S: Session> ReserveWait<S> {
    pub(super) fn new(
        handle: Handle<S>,
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
                let admitted = outcome.and_then(|seat| this.handle.prepare(seat).map(|()| seat));
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
        if let Some(seat) = self.ticket.and_then(|ticket| self.handle.leave_queue(ticket)) {
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
