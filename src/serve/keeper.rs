//! One task for each pool keeps the time for all its connections: it walks the slots, wakes the
//! owners whose ping or deadline is due, and does the pool's housekeeping about once a second.
//!
//! The first `serve` starts it, on its own runtime; when that runtime ends, a connection on another
//! one takes over. It holds the pool weakly and ends with it.
//!
//! A runtime that has the keeper and is neither driven nor dropped (a `block_on` that has returned)
//! stops the clock for the pool's connections on other runtimes.

use crate::config::Config;
use crate::manager::Session;
use crate::pool::{Keeper, Pool, Tie};
use std::time::Duration;
use tokio::time::sleep;

const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Starts the pool's keeper if it has none.
#[inline]
pub(super) fn ensure<S: Session>(tie: &Tie<S>) {
    if let Some(keeper) = tie.become_keeper() {
        tokio::spawn(keep(keeper));
    }
}

impl<S: Session> Pool<S> {
    /// Starts a task that calls [`Pool::maintain`] about once a second, until the pool is gone. `false`:
    /// the pool has such a task already; [`serve`](super::serve()) starts it too, so this is for those
    /// who drive their connections themselves.
    ///
    /// If the runtime ends, so does the task; call it again on the next one.
    ///
    /// # Panics
    ///
    /// If called outside of a Tokio runtime.
    #[cfg_attr(docsrs, doc(cfg(feature = "serve")))]
    pub fn spawn_maintenance(&self) -> bool {
        let keeper = self.become_keeper();
        let is_first = keeper.is_some();
        if let Some(keeper) = keeper {
            tokio::spawn(keep(keeper));
        }
        is_first
    }
}

async fn keep<S: Session>(mut keeper: Keeper<S>) {
    let mut since_housekeeping = Duration::ZERO;
    // Asked for each turn, since it may have been replaced.
    while let Some(config) = keeper.config() {
        let tick = tick(&config);
        drop(config);
        sleep(tick).await;
        since_housekeeping += tick;
        let is_housekeeping = since_housekeeping >= HOUSEKEEPING;
        if is_housekeeping {
            since_housekeeping = Duration::ZERO;
        }
        if !keeper.turn(is_housekeeping) {
            return;
        }
    }
}

/// A quarter of the shortest time that is being kept, so that no deadline is missed by more.
fn tick(config: &Config) -> Duration {
    let shortest = config.heartbeat_interval.min(config.heartbeat_timeout).min(config.reservation_deadline);
    (shortest / 4).clamp(Duration::from_millis(10), HOUSEKEEPING)
}
