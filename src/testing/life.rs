//! One connection in the double, and what is left to do when the lock is free again.

use crate::clock::Timestamp;
use crate::id::UserExecutionContext;
use crate::manager::{Glance, Message, Offer, PooledWebSocketManager, Shared, contain, wake};
use crate::pool::{Alert, Attachments, End};
use crate::sync::{Ordering, fence};
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

/// Foreign code that must not run under the lock: payloads, wakers, the observer, other pools.
#[derive(Default)]
pub(super) struct After {
    news: Vec<News>,
    pub(super) woken: Vec<Waker>,
    pub(super) dropped: Vec<Waker>,
    pub(super) unsent: Vec<Message>,
    /// Of an owner to itself: nobody is to be woken.
    pub(super) offers: Vec<Offer>,
    /// A place that another pool of the domain may be waited for.
    pub(super) is_place_freed: bool,
}

/// In the order in which it happened.
enum News {
    Ended(Arc<Life>, End),
    Alert(Alert),
}

impl After {
    pub(super) fn ended(&mut self, life: Arc<Life>, end: End) {
        self.news.push(News::Ended(life, end));
    }

    pub(super) fn alert(&mut self, alert: Alert) {
        self.news.push(News::Alert(alert));
    }

    pub(super) fn run(self, attached: &Attachments) {
        let Self { news, woken, dropped, unsent, offers, is_place_freed } = self;
        for message in unsent {
            let _ = contain(|| drop(message)); // one that panics on drop stops nothing
        }
        for news in news {
            match news {
                News::Ended(life, end) => {
                    if let Some(waker) = life.shared.outbound.take_waker() {
                        wake(waker);
                    }
                    attached.ended(&end);
                }
                News::Alert(alert) => attached.alert(&alert),
            }
        }
        woken.into_iter().for_each(wake);
        drop((dropped, offers));
        if let (true, Some(quotas)) = (is_place_freed, &attached.quotas) {
            // SeqCst fence: pairs with the one of whoever waits, in this pool's `join_queue` or another's.
            fence(Ordering::SeqCst);
            quotas.place_freed();
        }
    }
}
