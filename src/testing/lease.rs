//! The double's reservation, wait and lease.

use super::core::Core;
use super::life::Life;
use super::state::Seat;
use super::waiting::{Ticket, Turn};
use crate::error::{Late, OpenError, ReserveError, TransitionError};
use crate::id::UserExecutionContext;
use crate::manager::{InvalidTransition, Message, Missed, Owned, PooledWebSocketManager, Session};
use crate::pool::{EventId, ManagerLease, ManagerReservation};
use crate::reason::{EndReason, Revoked};
use crate::slab::Key;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The double of [`crate::Reservation`].
#[must_use = "dropping a reservation gives its place back"]
pub struct FakeReservation<S: Session = ()> {
    core: Arc<Core<S>>,
    /// `None` once opened.
    seat: Option<Seat>,
    session: Option<Owned<S>>,
    context: UserExecutionContext,
    made_at: &'static Location<'static>,
    after: Option<EventId>,
}

impl<S: Session> FakeReservation<S> {
    /// Makes the session state ready for whoever was admitted, and counts who was not.
    pub(super) fn admit(
        core: &Arc<Core<S>>,
        admitted: Result<Seat, ReserveError>,
        context: &UserExecutionContext,
        made_at: &'static Location<'static>,
    ) -> Result<Self, ReserveError> {
        let made = admitted.and_then(|seat| {
            let (core, context) = (core.clone(), context.clone());
            let mut made = Self { core, seat: Some(seat), session: None, context, made_at, after: None };
            if !seat.is_inherited() {
                let mut session = made.core.take_session();
                session.prepare().map_err(|_| ReserveError::SessionPanicked)?;
                made.session = Some(session);
            }
            Ok(made)
        });
        made.inspect_err(|&error| core.section(|state| state.refused(error)))
    }

    fn prepared_session(&mut self) -> Result<Owned<S>, OpenError> {
        let mut session = self.session.take().unwrap_or_else(|| self.core.take_session());
        session.prepare().map_err(|_| OpenError::SessionPanicked)?;
        Ok(session)
    }
}

impl<S: Session> ManagerReservation for FakeReservation<S> {
    type Lease = FakeLease<S>;

    fn resume_after(&mut self, after: EventId) {
        self.after = Some(after);
    }

    fn context(&self) -> &UserExecutionContext {
        &self.context
    }

    fn open(mut self) -> Result<FakeLease<S>, OpenError> {
        let mut seat = self.seat.take().ok_or(OpenError::Expired)?;
        let key = self.core.section(|state| state.take_over(&mut seat, &self.context))?;
        self.seat = Some(Seat::Own(key)); // an error from here on gives it back
        let session = self.prepared_session()?;
        let core = &self.core;
        let mut life = Life::new(self.context.clone(), core.clock.now(), self.made_at);
        if let Some(EventId { stream, seq }) = self.after {
            life.shared.catch_up_from(Missed { stream, next: seq + 1 });
        }
        match self.core.section(|state| state.open(seat, key, life)) {
            Ok(()) => {
                self.seat = None;
                Ok(FakeLease { core: self.core.clone(), key, session: Some(session) })
            }
            Err(error) => {
                self.core.keep_session(session);
                Err(error)
            }
        }
    }
}

impl<S: Session> Drop for FakeReservation<S> {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            // `false`: its deadline came first.
            self.core.section(|state| state.give_back(seat));
        }
        if let Some(session) = self.session.take() {
            self.core.keep_session(session);
        }
    }
}

impl<S: Session> fmt::Debug for FakeReservation<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeReservation")
            .field("isolation_key", &self.context.isolation_key())
            .field("made_at", &format_args!("{}", self.made_at))
            .finish_non_exhaustive()
    }
}

/// The double of [`crate::ReserveWait`].
#[must_use = "futures do nothing unless polled"]
pub struct FakeReserveWait<S: Session = ()> {
    core: Arc<Core<S>>,
    context: UserExecutionContext,
    made_at: &'static Location<'static>,
    ticket: Option<Ticket>,
}

impl<S: Session> FakeReserveWait<S> {
    pub(super) fn new(
        core: Arc<Core<S>>,
        context: UserExecutionContext,
        made_at: &'static Location<'static>,
    ) -> Self {
        Self { core, context, made_at, ticket: None }
    }
}

impl<S: Session> Future for FakeReserveWait<S> {
    type Output = Result<FakeReservation<S>, ReserveError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (ticket, waker) = (this.ticket, cx.waker().clone());
        let turn = this.core.section(|state| match ticket {
            Some(ticket) => state.check_turn(ticket, waker),
            None => state.join_queue(&this.context, waker),
        });
        match turn {
            Turn::Waiting(ticket) => {
                this.ticket = Some(ticket);
                Poll::Pending
            }
            Turn::Served(admitted) => {
                this.ticket = None;
                Poll::Ready(FakeReservation::admit(&this.core, admitted, &this.context, this.made_at))
            }
        }
    }
}

impl<S: Session> Drop for FakeReserveWait<S> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.core.section(|state| state.leave_queue(ticket));
        }
    }
}

impl<S: Session> fmt::Debug for FakeReserveWait<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeReserveWait")
            .field("isolation_key", &self.context.isolation_key())
            .field("is_queued", &self.ticket.is_some())
            .finish_non_exhaustive()
    }
}

/// The double of [`crate::Lease`].
#[must_use = "dropping a lease frees its manager"]
pub struct FakeLease<S: Session = ()> {
    core: Arc<Core<S>>,
    key: Key,
    /// `None` only while the lease is being dropped, or after its session could not be made again.
    session: Option<Owned<S>>,
}

impl<S: Session> FakeLease<S> {
    fn life(&self) -> Result<Arc<Life>, Revoked> {
        self.core.life(self.key).ok_or_else(|| self.core.why(self.key))
    }

    fn advance(
        &self,
        step: impl FnOnce(&PooledWebSocketManager<'_>) -> Result<(), InvalidTransition>,
    ) -> Result<(), TransitionError> {
        self.with(step).map_err(TransitionError::Revoked)?.map_err(TransitionError::Invalid)
    }
}

impl<S: Session> ManagerLease for FakeLease<S> {
    type Session = S;
    type RunGuard = FakeRunGuard<S>;

    fn key(&self) -> Key {
        self.key
    }

    fn is_live(&self) -> bool {
        self.core.life(self.key).is_some()
    }

    fn with<T>(&self, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Result<T, Revoked> {
        self.life()?.read(f).ok_or_else(|| self.core.why(self.key))
    }

    fn with_session<T>(&mut self, f: impl FnOnce(&mut S) -> T) -> Result<T, Revoked> {
        self.life()?;
        let session = self.session.as_mut().and_then(|session| session.prepare().ok());
        session.map(f).ok_or_else(|| self.core.why(self.key))
    }

    fn connected(&self) -> Result<(), TransitionError> {
        self.advance(|manager| manager.mark_connected())
    }

    fn closing(&self) -> Result<(), TransitionError> {
        self.advance(|manager| manager.mark_closing())
    }

    fn disconnected(&self) -> Result<(), TransitionError> {
        self.advance(|manager| manager.mark_disconnected())?;
        self.core.section(|state| state.may_be_due(self.key));
        Ok(())
    }

    fn errored(&self) -> Result<(), TransitionError> {
        let now = self.core.clock.now();
        self.advance(|manager| manager.mark_errored(now))
    }

    fn received(&self, bytes: usize) -> Result<(), Revoked> {
        self.life()?.glance.received(bytes, self.core.clock.now());
        Ok(())
    }

    fn next_message(&mut self) -> Result<Option<Message>, Revoked> {
        self.core.next_said(self.key, |_| ()).ok_or_else(|| self.core.why(self.key))
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Revoked>> {
        match self.core.next_said(self.key, |shared| shared.outbound.register(cx.waker())) {
            Some(Some(message)) => Poll::Ready(Ok(message)),
            Some(None) if self.is_live() => Poll::Pending,
            _ => Poll::Ready(Err(self.core.why(self.key))),
        }
    }

    fn begin_run(&self) -> Result<FakeRunGuard<S>, Revoked> {
        let until = self.core.clock.now().after(self.core.config().run_limit);
        self.life()?.glance.run_began(until);
        Ok(FakeRunGuard { core: self.core.clone(), key: self.key })
    }

    fn close(self, reason: EndReason) -> Result<(), Late> {
        self.core.end(self.key, reason)
        // The drop that follows comes late and ends nothing.
    }

    fn revoked(&self) -> Option<Revoked> {
        self.life().err()
    }
}

impl<S: Session> Drop for FakeLease<S> {
    fn drop(&mut self) {
        // Late: it was closed, evicted or taken over before.
        let _ = self.core.end(self.key, EndReason::Dropped);
        if let Some(session) = self.session.take() {
            self.core.keep_session(session);
        }
    }
}

impl<S: Session> fmt::Debug for FakeLease<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeLease")
            .field("key", &self.key)
            .field("is_live", &self.is_live())
            .finish_non_exhaustive()
    }
}

/// The double of [`crate::RunGuard`].
#[must_use = "dropping it ends the run"]
pub struct FakeRunGuard<S: Session = ()> {
    core: Arc<Core<S>>,
    key: Key,
}

impl<S: Session> Drop for FakeRunGuard<S> {
    fn drop(&mut self) {
        // `None`: the run went with its lease.
        if let Some(life) = self.core.life(self.key) {
            life.glance.run_ended();
            self.core.section(|state| state.may_be_due(self.key));
        }
    }
}

impl<S: Session> fmt::Debug for FakeRunGuard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeRunGuard").field("key", &self.key).finish_non_exhaustive()
    }
}
