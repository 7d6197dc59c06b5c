//! One connection in the double, and what is left to do when the lock is free again.

use crate::clock::Timestamp;
use crate::id::UserExecutionContext;
use crate::manager::{ByteBudget, Glance, PooledWebSocketManager, Shared};
use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;

/// The manager's own parts, without a slot to be reused.
#[derive(Default)]
pub(super) struct Life {
    pub(super) glance: Glance,
    pub(super) shared: Shared,
}

impl Life {
    pub(super) fn new(
        context: UserExecutionContext,
        now: Timestamp,
        made_at: &'static Location<'static>,
    ) -> Self {
        let mut life = Self::default();
        life.shared.reset_for_new_connection(&life.glance, context, now, made_at);
        life
    }

    pub(super) fn read<T>(&self, f: impl FnOnce(&PooledWebSocketManager<'_>) -> T) -> Option<T> {
        PooledWebSocketManager::of(&self.glance, &self.shared).map(|manager| f(&manager))
    }
}

/// Foreign code that must not run under the lock: payloads and wakers.
#[derive(Default)]
pub(super) struct After {
    pub(super) ended: Vec<Arc<Life>>,
    pub(super) woken: Vec<Waker>,
    pub(super) dropped: Vec<Waker>,
}

impl After {
    pub(super) fn run(self, budget: &ByteBudget) {
        let Self { ended, woken, dropped } = self;
        for life in ended {
            life.shared.outbound.close();
            while let Some(message) = life.shared.outbound.pop() {
                budget.give(0, message.len());
            }
            life.shared.waker.wake();
        }
        woken.into_iter().for_each(Waker::wake);
        drop(dropped);
    }
}
