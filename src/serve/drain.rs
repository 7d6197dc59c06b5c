//! Ending all connections of a pool before the server ends.

use crate::manager::Session;
use crate::pool::Pool;
use crate::reason::EndReason;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DrainReport {
    /// Connections that were ended. Each is told code 1001.
    pub evicted: usize,
    /// Connections that were being served at the beginning, and have said goodbye.
    pub finished: usize,
    /// Connections that are still being served: their tasks have not come back.
    pub remaining: usize,
}

/// Looks again after so long.
const PAUSE: Duration = Duration::from_millis(5);

/// Ends a pool's service: takes no new connections, ends all with code 1001, those included whose
/// handshake is under way, and waits until every serving task has said goodbye; for at most the
/// configured `drain_timeout`. What is still queued for a connection is not sent. The pool takes no
/// connections afterwards.
///
/// # Panics
///
/// If polled outside of a Tokio runtime with its timer enabled.
pub async fn drain<S: Session>(pool: &Pool<S>) -> DrainReport {
    pool.start_drain();
    let serving = pool.serving();
    let mut evicted = 0;
    let everyone_leaves = async {
        loop {
            if pool.occupied() > 0 {
                evicted += pool.evict_all(EndReason::Drain);
            } else if pool.serving() == 0 {
                return;
            }
            sleep(PAUSE).await;
        }
    };
    // Elapsed: the report says who is left.
    let _ = timeout(pool.config().drain_timeout, everyone_leaves).await;
    let remaining = pool.serving();
    DrainReport { evicted, finished: serving.saturating_sub(remaining), remaining }
}
