//! The owner's right to a manager. It is a key, not a reference: the manager can be taken back from
//! an owner that hangs or leaks it.

use super::core::Opened;
use super::handle::Handle;
use super::occupant::Public;
use super::registry::UserRef;
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
    pub(super) fn new(handle: Handle<S>, opened: Opened, context: UserExecutionContext) -> Self {
        let Opened { owner, user } = opened;
        Self { tie: Tie { handle, user, key: owner.key(), context }, owner }
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
        self.tie.handle.may_be_due(self.tie.user);
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
        self.tie.received(bytes)
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

impl<S: Session> Drop for Lease<S> {
    fn drop(&mut self) {
        let is_served = || self.with(|manager| manager.last_poll().is_some()) == Ok(true);
        if cfg!(fault = "dropped_lease_stays") || (cfg!(fault = "cancelled_task_stays") && is_served()) {
            return;
        }
        // Late: it was closed, evicted or taken over before.
        let _ = self.tie.end(EndReason::Dropped);
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
    handle: Handle<S>,
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
    pub(super) handle: Handle<S>,
    user: UserRef,
    pub(super) key: Key,
    pub(super) context: UserExecutionContext,
}

impl<S: Session> Tie<S> {
    pub(crate) fn is_live(&self) -> bool {
        self.handle.slab.is_live(self.key)
    }

    pub(crate) fn why(&self) -> Revoked {
        self.handle.why(self.user, self.key)
    }

    pub(crate) fn end(&self, reason: EndReason) -> Result<(), Late> {
        self.handle.end(self.user, self.key, reason)
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
        let begun = self.handle.slab.pin(self.key, |glance, _| glance.manager.run_began(until));
        begun.map_err(|Stale| self.why())?;
        Ok(RunGuard { handle: self.handle.clone(), user: self.user, key: self.key })
    }

    pub(crate) fn received(&self, bytes: usize) -> Result<(), Revoked> {
        let now = self.handle.clock.now();
        let noted = self.handle.slab.pin(self.key, |glance, _| glance.manager.received(bytes, now));
        noted.map_err(|Stale| self.why())
    }

    pub(crate) fn pop(&self) -> Result<Option<Message>, Revoked> {
        let popped = self.handle.slab.pin(self.key, |glance, shared| {
            glance.manager.polled(self.handle.clock.now());
            self.take(glance, shared)
        });
        popped.map_err(|Stale| self.why())
    }

    pub(crate) fn poll_message(&self, cx: &mut Context<'_>) -> Poll<Result<Message, Revoked>> {
        let polled = self.handle.slab.pin(self.key, |glance, shared| {
            glance.manager.polled(self.handle.clock.now());
            self.take(glance, shared).or_else(|| {
                // Register, then look again: a message that came between the two has woken nobody.
                shared.waker.register(cx.waker());
                self.take(glance, shared)
            })
        });
        match polled {
            Ok(Some(message)) => Poll::Ready(Ok(message)),
            // The same for the end of the lease: one that came before we registered woke nobody.
            Ok(None) if self.is_live() => Poll::Pending,
            Ok(None) | Err(Stale) => Poll::Ready(Err(self.why())),
        }
    }

    /// Pops a message and accounts for it.
    fn take(&self, glance: &Public, shared: &Shared) -> Option<Message> {
        let message = shared.outbound.pop()?;
        self.handle.slab.resident().budget.give(thread_number(), message.len());
        glance.manager.sent(message.len(), self.handle.clock.now());
        Some(message)
    }
}
