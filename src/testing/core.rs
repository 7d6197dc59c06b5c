//! What all handles of a double share: the state behind its one lock, and what needs none.

use super::life::Life;
use super::state::State;
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::error::Late;
use crate::manager::{Owned, Room, Session, contain};
use crate::pool::{Attachments, Bell, Maintained, PoolName};
use crate::reason::{EndReason, Revoked};
use crate::slab::Key;
use crate::sync::{Mutex, Ordering};
use std::sync::{Arc, Weak};

pub(super) struct Core<S: Session> {
    pub(super) name: PoolName,
    pub(super) clock: Clock,
    pub(super) room: Arc<Room>,
    pub(super) attached: Attachments,
    state: Mutex<State>,
    /// Session states that no lease has.
    sessions: Mutex<Vec<Owned<S>>>,
}

impl<S: Session> Core<S> {
    pub(super) fn new(name: PoolName, clock: Clock, config: Config, attached: Attachments) -> Arc<Self> {
        let quotas = attached.quotas.clone();
        let room = Arc::new(Room::new(config.outbound_pool_bytes, config.inbound_pool_bytes));
        let core = Arc::new(Self {
            name,
            state: Mutex::new(State::new(config, clock.clone(), quotas.clone(), room.clone())),
            room,
            sessions: Mutex::new(Vec::new()),
            clock,
            attached,
        });
        if let Some(quotas) = quotas {
            let bell: Weak<Self> = Arc::downgrade(&core);
            quotas.join(bell as Weak<dyn Bell>);
        }
        core
    }

    /// The one lock. What must not run under it, foreign code, runs after it.
    pub(super) fn section<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = f(&mut state);
        let after = std::mem::take(&mut state.after);
        drop(state);
        after.run(&self.attached);
        result
    }

    pub(super) fn config(&self) -> Arc<Config> {
        self.section(|state| state.settings.load_full())
    }

    pub(super) fn life(&self, key: Key) -> Option<Arc<Life>> {
        self.section(|state| state.life(key).cloned())
    }

    pub(super) fn end(&self, key: Key, reason: EndReason) -> Result<(), Late> {
        self.section(|state| state.end(key, reason))
    }

    pub(super) fn why(&self, key: Key) -> Revoked {
        Revoked::new(self.section(|state| state.last_end(key)).unwrap_or(EndReason::Unknown))
    }

    pub(super) fn maintain(&self, now: Timestamp) -> Maintained {
        let Some(turn) = self.section(|state| state.begin_turn(now)) else {
            return Maintained { is_busy: true, ..Maintained::default() };
        };
        if turn.is_background_due {
            self.check_all(now);
        }
        let done = self.section(|state| state.finish_turn(turn));
        self.room.trim();
        done
    }

    /// Asks the application about each manager, if it wants to be asked. One that is not well, or whose
    /// check panics, counts as errored from now on.
    fn check_all(&self, now: Timestamp) {
        let Some(check) = &self.attached.check else { return };
        let lives: Vec<_> = self.section(|state| state.lives().map(|(_, life)| life.clone()).collect());
        for life in lives {
            life.read(|manager| {
                if contain(|| check(manager)) != Some(true) {
                    // Refused: it is errored already, or closing.
                    let _ = manager.mark_errored(now);
                }
            });
        }
    }

    pub(super) fn observer_panics(&self) -> u64 {
        // Relaxed: a count.
        self.attached.observer_panics.load(Ordering::Relaxed)
    }

    /// A session state, not yet prepared.
    pub(super) fn take_session(&self) -> Owned<S> {
        let spare = self.sessions.lock().pop();
        spare.unwrap_or_default()
    }

    /// Resets a session state and keeps it for the next connection.
    pub(super) fn keep_session(&self, mut session: Owned<S>) {
        if session.reset_now().is_ok() {
            self.sessions.lock().push(session);
        }
    }
}

impl<S: Session> Bell for Core<S> {
    fn ring(&self) {
        self.section(|state| {
            state.serve();
        });
    }
}
