//! Reservations, leases, limits, delivery and the account of it all.
//!
//! ```text
//! reserve(&context) ─► Reservation ─ open() ─► Lease ─ close, drop, evict, takeover ─► over
//!       │ 429, 503          │ drop, deadline
//!       ▼                   ▼
//!   nothing left        nothing left
//! ```

mod builder;
mod core;
mod deliveries;
#[cfg(feature = "serve")]
mod doorway;
#[cfg(feature = "serve")]
mod draining;
mod ending;
mod ends;
mod events;
mod handle;
#[cfg(feature = "serve")]
mod inbound;
#[cfg(feature = "serve")]
mod keeper;
#[cfg(feature = "serve")]
mod keeping;
mod lease;
mod ledger;
mod limits;
mod log;
mod maintenance;
mod marks;
mod metrics;
mod observer;
mod occupant;
mod outgoing;
mod quota;
mod registry;
mod reservation;
mod send;
mod settings;
mod snapshot;
mod sweep;
mod verbs;
mod waiting;
mod watch;

pub use builder::PoolBuilder;
pub use deliveries::DeliveryFigures;
#[cfg(feature = "serve")]
pub use draining::DrainReport;
pub use ends::End;
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
pub use events::EventDataError;
pub use events::{AgentEvent, EventData, EventId, EventIdError, Run, ThreadFigures};
pub use lease::{Lease, RunGuard};
pub use ledger::{Ledger, Refusals, Tally, Verdict};
pub use maintenance::{Maintained, MaintenanceStatus};
pub use metrics::{CleanupMetrics, DurationBucket};
pub use observer::{Alert, Observer, Pressure};
pub use quota::{QuotaDomain, TenantFigures, UnknownTenant};
pub use reservation::{Reservation, ReserveWait};
pub use send::{ManyReport, SendReport};
pub use settings::{ConfigVersion, NoEarlierConfig};
pub use snapshot::{ManagerSnapshot, PoolSnapshot, Suspect, Suspicion};
pub use sweep::{Operation, Scope, StrategyCount, SweepPolicy, SweepReport};
pub use verbs::{ManagerLease, ManagerPool, ManagerReservation, ManagerRun};
pub use watch::UserCheck;
/// What the double shares with the pool: its books, what is hung on it, and small decisions.
#[cfg(feature = "testing")]
pub(crate) use {
    builder::PoolName,
    ending::EXPIRY_INTERVAL,
    ends::PER_USER as ENDS_PER_USER,
    events::{EventOf, Past, event_message, gap_message},
    ledger::Beginning,
    limits::forcing_rank,
    maintenance::{FORGOTTEN_AFTER, is_due},
    metrics::CleanupBooks,
    observer::Attachments,
    occupant::figures_of,
    quota::{Bell, Full},
    settings::Settings,
    snapshot::MAX_SUSPECTS,
};
#[cfg(feature = "serve")]
pub(crate) use {
    doorway::Entered,
    draining::EvictionWalk,
    inbound::Inbound,
    keeper::Keeper,
    keeping::Held,
    lease::Tie,
    outgoing::{BATCH, Outgoing},
};

use crate::clock::Clock;
use crate::config::AtLimit;
use crate::error::{Late, ReserveError};
use crate::id::{UserExecutionContext, UserId};
use crate::manager::{PooledWebSocketManager, Session};
use crate::reason::EndReason;
use crate::slab::Key;
use crate::sync::Ordering;
use handle::Handle;
pub(crate) use registry::UserRules;
use std::fmt;
use std::panic::Location;

/// The pool: the one source of truth about who is connected. A cloneable handle; `S` is the
/// application's own state of a connection, kept in the slot and reused.
///
/// ```
/// use ws_manager_pool::{EndReason, IdGenerator, Message, Pool, UserExecutionContext};
///
/// let pool: Pool = Pool::builder().name("doc-pool").build()?;
/// let ids = IdGenerator::user_context_ids("ada", "chat");
/// let context = UserExecutionContext::from_websocket_request("ada", ids)?; // HTTP 400 if it fails
/// let reservation = pool.reserve(&context)?; // HTTP 429 or 503; nothing is left behind
/// let lease = reservation.open()?; // after the handshake
///
/// assert!(pool.send(lease.key(), Message::from("hello")).is_queued());
/// assert_eq!(pool.snapshot().live, 1);
/// lease.close(EndReason::Closed)?; // or just drop it
/// assert_eq!(pool.snapshot().live, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pool<S: Session = ()> {
    handle: Handle<S>,
}

impl<S: Session> Pool<S> {
    /// Starts to make a pool. See [`PoolBuilder`].
    pub fn builder() -> PoolBuilder<S> {
        PoolBuilder::new()
    }

    /// The name it was built with: no other live pool of the process has it.
    pub fn name(&self) -> &str {
        self.handle.name.as_str()
    }

    /// Where its time comes from.
    pub fn clock(&self) -> &Clock {
        &self.handle.clock
    }

    /// Reserves a place in the user's quota, and a slot, for the time of the handshake. Does not
    /// wait, and does not overtake those who do. Blocks only while another thread is in the same
    /// shard's section, or while the slab grows by a page.
    ///
    /// At the limit, or in a full pool, a context whose thread is live is accepted nevertheless under
    /// [`crate::DuplicatePolicy::Replace`]: it takes that connection's place when it opens.
    ///
    /// # Errors
    ///
    /// [`ReserveError`] says what is full and what to do. A refusal leaves nothing behind.
    #[track_caller]
    pub fn reserve(&self, context: &UserExecutionContext) -> Result<Reservation<S>, ReserveError> {
        let made_at = Location::caller();
        let core = &*self.handle;
        let mut admitted = core.reserve_in_turn(context);
        let is_full = matches!(
            admitted,
            Err(ReserveError::UserFull { .. }
                | ReserveError::TenantFull { .. }
                | ReserveError::PoolFull { .. })
        );
        // Full of reservations that somebody forgot?
        if is_full && core.expire_if_due() > 0 {
            admitted = core.reserve_in_turn(context);
        }
        admitted
            .inspect_err(|&error| core.refused(context, error))
            .map(|seat| Reservation::new(self.handle.for_lease(), seat, context.clone(), made_at))
    }

    /// As [`Pool::reserve`], but waits for a place, in the order in which waiters came. The future
    /// needs no runtime and may be dropped at any time. A waiter whose own user is full holds up
    /// nobody.
    ///
    /// # Errors
    ///
    /// The future's output is an error only for what waiting does not mend:
    /// [`ReserveError::ThreadInUse`], [`ReserveError::Draining`], [`ReserveError::SessionPanicked`].
    #[track_caller]
    pub fn reserve_wait(&self, context: &UserExecutionContext) -> ReserveWait<S> {
        ReserveWait::new(self.handle.for_lease(), context.clone(), Location::caller())
    }

    /// Ends a lease from outside. Its owner learns the reason at its next use of the lease.
    ///
    /// # Errors
    ///
    /// [`Late`] if the lease was over.
    pub fn evict(&self, key: Key, reason: EndReason) -> Result<(), Late> {
        self.handle.evict_if(key, reason, |_| true).map(drop)
    }

    /// Ends a lease if it is what `predicate` wants at that very moment: a connection that has just
    /// become active is spared. Returns whether it was ended.
    ///
    /// The predicate runs under the lock of the user's shard: it must be short, and must not call
    /// the pool.
    ///
    /// # Errors
    ///
    /// [`Late`] if the lease was over.
    pub fn evict_if(
        &self,
        key: Key,
        reason: EndReason,
        predicate: impl FnOnce(&PooledWebSocketManager<'_>) -> bool,
    ) -> Result<bool, Late> {
        self.handle.evict_if(key, reason, predicate).map(|ended| ended.is_some())
    }

    /// Reads a live manager. The closure is synchronous and runs under a pin: the slot is not reused
    /// before it returns. `None`: the key is stale. Lock-free.
    pub fn inspect<T>(&self, key: Key, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Option<T> {
        self.handle.look(key, f)
    }

    /// The keys of a user's live managers.
    pub fn keys_of(&self, user: &UserId) -> Vec<Key> {
        let hash = self.handle.registry.hash(user);
        let shard = self.handle.registry.section(hash);
        shard.user(hash, user).map_or_else(Vec::new, |entry| entry.members.to_vec())
    }

    /// Sets how many managers a single user may have, or with `None` goes back to the configured
    /// number. A lowered limit closes nobody.
    pub fn set_user_limit(&self, user: &UserId, max_managers: Option<usize>) {
        if fault!("lowered_limit_closes") {
            let _ = self.cleanup_all_user_managers(user, EndReason::Limit);
        }
        let hash = self.handle.registry.hash(user);
        let set = |rules: &mut UserRules| rules.max_managers = max_managers;
        self.handle.registry.section(hash).change_rules(hash, user, set);
        self.handle.place_freed(); // a raised limit is a place for whoever waits for it
    }

    /// Sets what happens when a single user is at its limit, or with `None` goes back to the tenant's
    /// policy, or the configured one.
    pub fn set_user_policy(&self, user: &UserId, at_limit: Option<AtLimit>) {
        let hash = self.handle.registry.hash(user);
        let set = |rules: &mut UserRules| rules.at_limit = at_limit;
        self.handle.registry.section(hash).change_rules(hash, user, set);
        self.handle.place_freed();
    }

    /// Takes no new connections from now on. Those who wait for a place are refused.
    pub fn start_drain(&self) {
        // Release: pairs with the Acquire in `is_draining`. For reservations the sections order it.
        let was_draining = self.handle.is_draining.swap(true, Ordering::Release);
        self.handle.registry.pass_through();
        self.handle.serve_waiting();
        if !was_draining {
            self.handle.log.drain_begun();
        }
    }

    /// Whether [`Pool::start_drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.handle.is_draining.load(Ordering::Acquire)
    }

    /// Whether the books, the users' counts, the tables and the slab agree. Visits no slot and no user:
    /// cheap enough for every second. A slot that waits for its last reader looks to it like one that was
    /// lost: [`Pool::ledger`] reads the headers too, and shows the figures.
    pub fn check(&self) -> Verdict {
        self.handle.check()
    }

    /// The running account, and whether it is balanced. Visits every slot and every user.
    pub fn ledger(&self) -> Ledger {
        self.handle.ledger()
    }

    /// Keeps the pool for the rest of the process. Leases of the returned handle, and of its clones,
    /// share no reference count at all.
    pub fn leak(self) -> Self {
        Self { handle: self.handle.leak() }
    }
}

impl<S: Session> Clone for Pool<S> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone() }
    }
}

impl<S: Session> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name())
            .field("capacity", &self.handle.slab.capacity())
            .field("occupied", &self.handle.slab.occupied())
            .finish_non_exhaustive()
    }
}

impl<S: Session> PartialEq for Pool<S> {
    /// Two handles are equal if they are of the same pool.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(&raw const *self.handle, &raw const *other.handle)
    }
}

impl<S: Session> Eq for Pool<S> {}
