//! The owner's right to a manager. It is a key, not a reference: the manager can be taken back from
//! an owner that hangs or leaks it.

use super::handle::LeaseHandle;
use super::occupant::Public;
use super::outgoing::Said;
use super::registry::{Hash32, UserRef};
use crate::error::{Late, TransitionError};
use crate::id::UserExecutionContext;
use crate::manager::{InvalidTransition, Message, PooledWebSocketManager, Session, Shared};
use crate::reason::{EndReason, Revoked};
use crate::slab::{Key, Owner, Stale, thread_number};
use std::fmt;
use std::task::{Context, Poll};

/// The owner's right to a manager. Dropping it frees the manager, whatever way the connection ends.
///
/// Every use pins the manager for the length of a synchronous call; in between it can be evicted, and
/// the next use says [`Revoked`] with the reason.
#[must_use = "dropping a lease frees its manager"]
pub struct Lease<S: Session = ()> {
    tie: Tie<S>,
    owner: Owner,
}

impl<S: Session> Lease<S> {
    pub(super) fn new(handle: LeaseHandle<S>, owner: Owner, context: UserExecutionContext) -> Self {
        Self { tie: Tie { handle, key: owner.key(), context }, owner }
    }

    /// The manager's key: what others need to send to it, or to evict it.
    pub fn key(&self) -> Key {
        self.tie.key
    }

    /// Whether the lease is still good at this moment. One load.
    pub fn is_live(&self) -> bool {
        self.tie.is_live()
    }

    /// Reads the manager. Lock-free.
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    pub fn with<T>(&self, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Result<T, Revoked> {
        self.tie.with(f)
    }

    /// Uses the application's own state. Synchronous, under a pin: keep it short; an eviction does
    /// not wait for it, but the slot does.
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    pub fn with_session<T>(&mut self, f: impl FnOnce(&mut S) -> T) -> Result<T, Revoked> {
        let (tie, owner) = self.parts();
        tie.with_session(owner, f)
    }

    /// The socket works: `Connecting → Connected`. Also ends an errored state.
    ///
    /// # Errors
    ///
    /// [`TransitionError`], as for the other three.
    pub fn connected(&self) -> Result<(), TransitionError> {
        self.tie.advance(|manager| manager.mark_connected())
    }

    /// The close handshake begins: `Connected → Closing`. Nothing more is queued.
    ///
    /// # Errors
    ///
    /// [`TransitionError`].
    pub fn closing(&self) -> Result<(), TransitionError> {
        self.tie.advance(|manager| manager.mark_closing())
    }

    /// The socket is gone: `Closing → Disconnected`. Normally the lease is dropped at once instead.
    ///
    /// # Errors
    ///
    /// [`TransitionError`].
    pub fn disconnected(&self) -> Result<(), TransitionError> {
        self.tie.advance(|manager| manager.mark_disconnected())?;
        self.tie.handle.user_may_be_due(self.tie.user_hash(), self.tie.context.user_id());
        self.tie.handle.maintenance.news.of(self.tie.key);
        Ok(())
    }

    /// Something failed: the manager counts as errored from now on.
    ///
    /// # Errors
    ///
    /// [`TransitionError`].
    pub fn errored(&self) -> Result<(), TransitionError> {
        let now = self.tie.handle.clock.now();
        self.tie.advance(|manager| manager.mark_errored(now))?;
        self.tie.handle.maintenance.news.of(self.tie.key);
        Ok(())
    }

    /// Notes an application message that came in: its size in bytes, and that the connection is
    /// active. Pings and pongs are no activity.
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    pub fn received(&self, bytes: usize) -> Result<(), Revoked> {
        let now = self.tie.handle.clock.now();
        self.tie.look(|glance| glance.manager.received(bytes, now))
    }

    /// The next message to send, if one is queued. It counts as sent.
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    pub fn next_message(&mut self) -> Result<Option<Message>, Revoked> {
        self.tie.pop()
    }

    /// Waits for the next message to send, or for the end of the lease. No wake is lost: a message or
    /// an end that comes after this returned `Pending` wakes the task.
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Revoked>> {
        self.tie.poll_message(cx)
    }

    /// An agent's run begins. Until the guard is dropped, at most for [`crate::Config::run_limit`], no
    /// automatism takes the manager while another can go, and most never do; an operator may. Runs may
    /// overlap.
    ///
    /// # Errors
    ///
    /// [`Revoked`] if the lease is over.
    pub fn begin_run(&self) -> Result<RunGuard<S>, Revoked> {
        self.tie.begin_run()
    }

    /// Ends the lease and says why: frees the manager now.
    ///
    /// # Errors
    ///
    /// [`Late`] if somebody else ended it before.
    pub fn close(self, reason: EndReason) -> Result<(), Late> {
        self.tie.end(reason)
        // The drop that follows comes late and does nothing.
    }

    /// Why the lease is over; `None` while it is good.
    pub fn revoked(&self) -> Option<Revoked> {
        (!self.is_live()).then(|| self.tie.why())
    }

    #[cfg(feature = "serve")]
    pub(crate) fn tie(&self) -> &Tie<S> {
        &self.tie
    }

    /// What a driver needs, and what the application needs, to use the lease side by side.
    pub(crate) fn parts(&mut self) -> (&Tie<S>, &mut Owner) {
        (&self.tie, &mut self.owner)
    }
}

impl<S: Session> Lease<S> {
    /// Frees the manager, if nobody has done so before.
    pub(crate) fn give_up(&self) {
        let is_served = || self.with(|manager| manager.last_poll().is_some()) == Ok(true);
        if fault!("dropped_lease_stays") || (fault!("cancelled_task_stays") && is_served()) {
            return;
        }
        if self.is_live() {
            // Late: it was closed, evicted or taken over this instant.
            let _ = self.tie.end(EndReason::Dropped);
        }
    }
}

impl<S: Session> Drop for Lease<S> {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl<S: Session> fmt::Debug for Lease<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("key", &self.key())
            .field("isolation_key", &self.tie.context.isolation_key())
            .field("is_live", &self.is_live())
            .finish_non_exhaustive()
    }
}

/// An agent's run on a manager. Dropped, the run is over. It does not keep the lease.
#[must_use = "dropping it ends the run"]
pub struct RunGuard<S: Session = ()> {
    handle: LeaseHandle<S>,
    user: UserRef,
    key: Key,
}

impl<S: Session> Drop for RunGuard<S> {
    fn drop(&mut self) {
        // Stale: the run went with its lease.
        let ended: Result<(), Stale> = self.handle.slab.pin(self.key, |glance, _| glance.manager.run_ended());
        if ended.is_ok() {
            self.handle.may_be_due(self.user);
        }
    }
}

impl<S: Session> fmt::Debug for RunGuard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunGuard").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A lease's connection to the pool, without the right to the application's state.
pub(crate) struct Tie<S: Session> {
    pub(super) handle: LeaseHandle<S>,
    pub(super) key: Key,
    pub(super) context: UserExecutionContext,
}

impl<S: Session> Tie<S> {
    pub(crate) fn is_live(&self) -> bool {
        self.handle.slab.is_live(self.key)
    }

    pub(crate) fn why(&self) -> Revoked {
        self.handle.why(self.user_hash(), self.key)
    }

    pub(crate) fn end(&self, reason: EndReason) -> Result<(), Late> {
        self.handle.end(self.user_hash(), self.key, reason)
    }

    fn user_hash(&self) -> Hash32 {
        self.handle.registry.hash(self.context.user_id())
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Result<T, Revoked> {
        self.handle.look(self.key, f).ok_or_else(|| self.why())
    }

    pub(crate) fn advance(
        &self,
        step: impl FnOnce(&PooledWebSocketManager<'_>) -> Result<(), InvalidTransition>,
    ) -> Result<(), TransitionError> {
        self.with(step).map_err(TransitionError::Revoked)?.map_err(TransitionError::Invalid)
    }

    pub(crate) fn with_session<T>(
        &self,
        owner: &mut Owner,
        f: impl FnOnce(&mut S) -> T,
    ) -> Result<T, Revoked> {
        let used = self.handle.slab.pin_owned(owner, |_, _, owned| owned.prepare().map(f).ok());
        used.ok().flatten().ok_or_else(|| self.why())
    }

    pub(crate) fn begin_run(&self) -> Result<RunGuard<S>, Revoked> {
        let until = self.handle.clock.now().after(self.handle.settings.load().run_limit);
        let user = self.look(|glance| {
            glance.manager.run_began(until);
            glance.notes.user()
        })?;
        Ok(RunGuard { handle: self.handle.clone(), user, key: self.key })
    }

    /// For a driver, who alone notes what comes in.
    #[cfg(feature = "serve")]
    pub(crate) fn received(&self, bytes: usize) -> Result<(), Revoked> {
        let now = self.handle.clock.now();
        self.look(|glance| glance.manager.received_by_driver(bytes, now))
    }

    fn look<T>(&self, f: impl FnOnce(&Public) -> T) -> Result<T, Revoked> {
        self.handle.slab.pin(self.key, |glance, _| f(glance)).map_err(|Stale| self.why())
    }

    pub(crate) fn pop(&self) -> Result<Option<Message>, Revoked> {
        self.settle(self.handle.next_said(self, |_| ()))
    }

    pub(crate) fn poll_message(&self, cx: &mut Context<'_>) -> Poll<Result<Message, Revoked>> {
        let register = |shared: &Shared| shared.outbound.register(cx.waker());
        match self.settle(self.handle.next_said(self, register)) {
            Ok(Some(message)) => Poll::Ready(Ok(message)),
            // An end that came before we registered woke nobody.
            Ok(None) if self.is_live() => Poll::Pending,
            Ok(None) => Poll::Ready(Err(self.why())),
            Err(revoked) => Poll::Ready(Err(revoked)),
        }
    }

    /// Gives the bytes of what was taken back to the budget.
    fn settle(&self, taken: Result<Option<Said>, Stale>) -> Result<Option<Message>, Revoked> {
        let said = taken.map_err(|Stale| self.why())?;
        Ok(said.map(|said| {
            self.handle.slab.resident().room.budget.give(thread_number(), said.budgeted);
            said.message
        }))
    }
}
