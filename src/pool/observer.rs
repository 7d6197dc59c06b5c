//! Those who watch the pool, and what they are told.

use super::ends::End;
use super::quota::QuotaDomain;
use crate::control::AlertLevel;
use crate::id::{IsolationKey, UserId};
use crate::manager::{PooledWebSocketManager, contain};
use crate::slab::Key;
use crate::sync::{AtomicU64, Ordering};
use std::sync::Arc;

/// Is told of alerts and of ends. Given to [`crate::PoolBuilder::observer`].
///
/// Called on the thread on which it happens, outside any lock: on a connection's own task as a rule, so a
/// slow observer slows that, and the slot is free only afterwards. It may call the pool; but one that owns
/// a [`crate::Pool`] keeps that alive for ever, and its name with it. A panic is caught, counted in
/// [`crate::PoolSnapshot::observer_panics`], and stops nothing.
pub trait Observer: Send + Sync + 'static {
    /// A user's level, or the pool's, has changed.
    fn alert(&self, alert: &Alert) {
        let _ = alert;
    }

    /// A connection's queue has become high, or a high one low: what is sent to it should slow down, or
    /// may go on. On the thread of whoever sent, or of the connection's own task; never two at a time for a
    /// connection, and what is told last is how it is. A change that is over before it could be told is not.
    fn pressure(&self, pressure: &Pressure) {
        let _ = pressure;
    }

    /// A lease has ended, whichever way.
    fn ended(&self, end: &End) {
        let _ = end;
    }
}

/// A queue's change between high and low: see [`crate::manager::OutboundLimits::high_water`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pressure {
    /// The connection.
    pub key: Key,
    /// Whose it is.
    pub to: IsolationKey,
    /// It is high now; otherwise low.
    pub is_high: bool,
    /// Messages that wait.
    pub queued: usize,
    /// Bytes that wait.
    pub queued_bytes: usize,
}

/// A change of level.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Alert {
    /// Whose level it is; `None`: the pool's.
    pub user_id: Option<UserId>,
    /// The level before.
    pub from: AlertLevel,
    /// The level now. Lower than `from` when it is over.
    pub to: AlertLevel,
    /// Managers, reserved and live.
    pub manager_count: usize,
    /// Managers that there may be.
    pub max_managers: usize,
    /// The share of the maximum.
    pub usage_ratio: f64,
}

/// An application's own check of a manager: `true` if it is well.
pub(super) type Check = dyn Fn(&PooledWebSocketManager<'_>) -> bool + Send + Sync;

/// What a builder hangs on a pool.
#[derive(Default)]
pub(crate) struct Attachments {
    pub(super) observer: Option<Arc<dyn Observer>>,
    pub(crate) check: Option<Arc<Check>>,
    pub(crate) quotas: Option<QuotaDomain>,
    pub(crate) observer_panics: AtomicU64,
}

impl Attachments {
    /// Does anybody want to hear anything?
    pub(crate) fn is_observed(&self) -> bool {
        self.observer.is_some()
    }

    pub(crate) fn ended(&self, end: &End) {
        self.tell(|observer| observer.ended(end));
    }

    pub(crate) fn alert(&self, alert: &Alert) {
        self.tell(|observer| observer.alert(alert));
    }

    pub(crate) fn pressure(&self, pressure: &Pressure) {
        self.tell(|observer| observer.pressure(pressure));
    }

    fn tell(&self, what: impl FnOnce(&dyn Observer)) {
        if let Some(observer) = &self.observer
            && contain(|| what(&**observer)).is_none()
        {
            // Relaxed: a count.
            self.observer_panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}
