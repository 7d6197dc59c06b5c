//! What a drain needs of the pool: to end leases some at a time, and a place for its figures.

use super::Pool;
use crate::manager::Session;
use crate::reason::EndReason;
use crate::slab::{Cursor, Key};

/// Slots that a walk looks at under one epoch guard.
const BATCH: usize = 4_096;

/// How a drain goes, or went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DrainReport {
    /// Connections that were ended. Each is told code 1001.
    pub evicted: usize,
    /// Connections that have said goodbye since the beginning.
    pub finished: usize,
    /// Connections that are still being served. At the end: their tasks have not come back.
    pub remaining: usize,
    /// Milliseconds since the beginning.
    pub elapsed_ms: u64,
    /// The drain is over: everybody has gone, or its time has.
    pub is_over: bool,
}

/// How far a walk that ends leases has come.
#[derive(Debug, Default)]
pub(crate) struct EvictionWalk {
    cursor: Cursor,
    /// Found, and not ended yet.
    found: Vec<Key>,
}

impl<S: Session> Pool<S> {
    /// Ends up to `most` leases, beginning where the last call stopped, and again from the first slot after
    /// the last. Returns how many.
    pub(crate) fn evict_some(&self, walk: &mut EvictionWalk, most: usize, reason: EndReason) -> usize {
        let mut evicted = 0;
        while evicted < most {
            let Some(key) = walk.found.pop() else {
                if !self.handle.slab.live_keys(&mut walk.cursor, BATCH, &mut walk.found) {
                    walk.cursor = Cursor::default();
                    if walk.found.is_empty() {
                        break;
                    }
                }
                continue;
            };
            evicted += usize::from(self.evict(key, reason).is_ok());
        }
        evicted
    }

    /// Leases and reservations.
    pub(crate) fn occupied(&self) -> usize {
        self.handle.slab.occupied()
    }

    /// How the drain goes that is under way, or how the last one went. `None`: there was none.
    #[cfg_attr(docsrs, doc(cfg(feature = "serve")))]
    pub fn drain_progress(&self) -> Option<DrainReport> {
        *self.handle.keeping.drain.lock()
    }

    pub(crate) fn note_drain(&self, report: DrainReport) {
        *self.handle.keeping.drain.lock() = Some(report);
    }
}
