//! A task on each runtime keeps the time for a pool's connections: it walks the slots, wakes the owners
//! whose ping or deadline is due, and looks after the pool about once a second.
//!
//! The first `serve` on a runtime starts it. It holds the pool weakly and ends with it. The tasks of
//! several runtimes take turns, see `pool/keeper.rs`: none depends on another runtime being driven.

use crate::config::Config;
use crate::manager::Session;
use crate::pool::{Keeper, Pool, Tie};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::sleep;

const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Starts a keeper on this runtime if it has none.
pub(super) fn ensure<S: Session>(tie: &Tie<S>) {
    if let Some(keeper) = tie.keeper_for(Handle::current().id()) {
        tokio::spawn(keep(keeper));
    }
}

impl<S: Session> Pool<S> {
    /// Starts a task that calls [`Pool::maintain`] about once a second, until the pool is gone. `false`:
    /// this runtime has such a task already; [`serve`](super::serve()) starts it too, so this is for those
    /// who drive their connections themselves.
    ///
    /// If the runtime ends, so does the task; call it again on the next one. Several runtimes may have one
    /// each: they take turns.
    ///
    /// # Panics
    ///
    /// If called outside of a Tokio runtime with its timer enabled.
    #[cfg_attr(docsrs, doc(cfg(feature = "serve")))]
    pub fn spawn_maintenance(&self) -> bool {
        let keeper = self.keeper_for(Handle::current().id());
        let is_first = keeper.is_some();
        if let Some(keeper) = keeper {
            tokio::spawn(keep(keeper));
        }
        is_first
    }
}

async fn keep<S: Session>(mut keeper: Keeper<S>) {
    // Asked for each turn, since it may have been replaced.
    while let Some(config) = keeper.config() {
        let tick = tick(&config);
        drop(config);
        sleep(tick).await;
        let housekeeping = HOUSEKEEPING.as_millis().div_ceil(tick.as_millis()) as u64;
        if !keeper.tick(housekeeping) {
            return;
        }
    }
}

/// A quarter of the shortest time that is being kept, so that no deadline is missed by more.
fn tick(config: &Config) -> Duration {
    let shortest = [
        Some(config.heartbeat_interval),
        Some(config.heartbeat_timeout),
        Some(config.reservation_deadline),
        config.idle_background,
        config.max_lifetime,
    ];
    let shortest = shortest.into_iter().flatten().min().unwrap_or(HOUSEKEEPING);
    (shortest / 4).clamp(Duration::from_millis(10), HOUSEKEEPING)
}
