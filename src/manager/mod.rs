//! One connection's state in one slot: its context, state, times, counters, outbound queue and the
//! application's own state.
//!
//! # The three parts of a slot
//!
//! | part | who may touch it | what is in it |
//! | --- | --- | --- |
//! | `Glance` | anybody, at any time | state, times, counters: atomics only |
//! | `Shared` | whoever pins the key, by `&`; the slab's exclusive phases, by `&mut` | context, outbound queue, waker |
//! | `Owned` | the one lease, by `&mut` | the application's [`Session`] |
//!
//! [`PooledWebSocketManager`] is what a user's closure gets of the first two. It has no public
//! constructor: the pool is the one place where managers come from.
//!
//! ```compile_fail,E0451
//! use ws_manager_pool::manager::PooledWebSocketManager;
//!
//! let forged = PooledWebSocketManager { ..panic!() };
//! ```
//!
//! # The reset contract
//!
//! A manager is cleaned when its lease has ended and the last pin is gone, and reset for the next
//! connection when that one opens. Between the two nobody can reach it.
//!
//! - **Goes at the clean**: the context; every queued message, unread; the waker, which is handed
//!   to the caller to be woken outside any lock; the wish to be woken. The state becomes
//!   `Disconnected`, the queue takes nothing more. The bytes that were queued are reported, so that
//!   the pool's budget gets them back. No code of the application runs, except that payloads are
//!   dropped; one that panics on drop stops nothing.
//! - **Set at the reset**: the context, which nothing changes until the next clean; the place where
//!   the lease was opened; `Connecting`; an empty, open queue; counters at zero; times at now.
//! - **Stays**: the application's state, to be reset by [`Session::reset`] before its next use.
//! - **Bounded**: an idle queue has no buffer. One that holds more than a message leases it, and gives
//!   it back when it is empty.

mod budget;
mod buffers;
mod bytes;
mod glance;
mod message;
mod outbound;
mod session;
mod state;

pub use bytes::InboundFigures;
pub use message::{InvalidUtf8, Message, OverflowPolicy, SendOutcome};
pub use outbound::OutboundLimits;
pub use session::Session;
pub use state::{InvalidTransition, ManagerState};

pub(crate) use budget::ByteBudget;
pub(crate) use buffers::Buffers;
pub(crate) use bytes::ByteBuffers;
#[cfg(feature = "serve")]
pub(crate) use bytes::Leased;
#[cfg(feature = "engine")]
pub(crate) use bytes::Scratch;
pub(crate) use glance::Glance;
pub(crate) use outbound::{Displaced, Gap, Missed, Popped, Turned};
pub(crate) use session::{Owned, StateBroken, contain};

use crate::clock::Timestamp;
use crate::id::{IsolationKey, ThreadId, UserExecutionContext, UserId};
use outbound::{Outbound, Push, Pushed};
use std::fmt;
use std::panic::Location;
use std::task::Waker;
use std::time::Duration;

/// One connection's manager, borrowed for the length of a closure.
///
/// Every method is wait-free. Figures are read one by one while the connection goes on, so two of
/// them may be from different moments.
pub struct PooledWebSocketManager<'a> {
    glance: &'a Glance,
    shared: &'a Shared,
    occupant: &'a Occupant,
}

impl<'a> PooledWebSocketManager<'a> {
    /// `None` if the slot has no occupant, which a pinned one always has.
    pub(crate) fn of(glance: &'a Glance, shared: &'a Shared) -> Option<Self> {
        let occupant = shared.occupant.as_ref()?;
        Some(Self { glance, shared, occupant })
    }

    /// Who the connection belongs to: set when it was opened, immutable since.
    pub fn context(&self) -> &'a UserExecutionContext {
        &self.occupant.context
    }

    /// The connection's user.
    pub fn user_id(&self) -> &'a UserId {
        self.context().user_id()
    }

    /// The user's thread.
    pub fn thread_id(&self) -> &'a ThreadId {
        self.context().thread_id()
    }

    /// The place in the program that opened the lease.
    pub fn made_at(&self) -> &'static Location<'static> {
        self.occupant.made_at
    }

    /// Where the connection is in its life.
    pub fn state(&self) -> ManagerState {
        self.glance.state()
    }

    /// The time of the error, while the state is [`ManagerState::Errored`].
    pub fn errored_at(&self) -> Option<Timestamp> {
        self.glance.errored_at()
    }

    /// When the lease was opened.
    pub fn opened_at(&self) -> Timestamp {
        self.glance.opened_at()
    }

    /// When an application message last came in or went out; the opening, if none did.
    pub fn last_activity(&self) -> Timestamp {
        self.glance.last_activity()
    }

    /// The time without activity.
    pub fn idle(&self, now: Timestamp) -> Duration {
        now.since(self.last_activity())
    }

    /// When the connection's task last ran. Long ago, with messages queued: it hangs.
    pub fn last_poll(&self) -> Option<Timestamp> {
        self.glance.last_poll()
    }

    #[cfg(feature = "serve")]
    pub(crate) fn unfinished_since(&self) -> Option<Timestamp> {
        self.glance.unfinished_since()
    }

    /// Whether an agent's run is under way, and still within its time.
    pub fn is_running(&self, now: Timestamp) -> bool {
        now < self.run_until()
    }

    pub(crate) fn run_until(&self) -> Timestamp {
        self.glance.run_until()
    }

    /// Application messages received.
    pub fn messages_in(&self) -> u64 {
        self.glance.messages_in()
    }

    /// Application messages sent.
    pub fn messages_out(&self) -> u64 {
        self.glance.messages_out()
    }

    /// Payload bytes of the messages received.
    pub fn bytes_in(&self) -> u64 {
        self.glance.bytes_in()
    }

    /// Payload bytes of the messages sent.
    pub fn bytes_out(&self) -> u64 {
        self.glance.bytes_out()
    }

    /// Messages that wait to be sent.
    pub fn queued(&self) -> usize {
        self.shared.outbound.len()
    }

    /// Payload bytes that wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.shared.outbound.bytes()
    }

    /// May the slot go to another connection? Only when [`ManagerState::Disconnected`] with nothing
    /// queued.
    pub fn is_reusable(&self) -> bool {
        self.state() == ManagerState::Disconnected && self.queued() == 0
    }

    /// The socket works; an earlier error is cleared.
    pub(crate) fn mark_connected(&self) -> Result<(), InvalidTransition> {
        self.glance.state.connected()
    }

    /// The close handshake begins; senders are told `Dropped` from now on. What waits can still be
    /// taken.
    pub(crate) fn mark_closing(&self) -> Result<(), InvalidTransition> {
        self.glance.state.closing()?;
        self.shared.outbound.close();
        Ok(())
    }

    /// The socket is gone; senders are told `Dropped` from now on.
    pub(crate) fn mark_disconnected(&self) -> Result<(), InvalidTransition> {
        self.glance.state.disconnected()?;
        self.shared.outbound.close();
        Ok(())
    }

    /// Something failed. A second error is refused, so the time stays that of the first.
    pub(crate) fn mark_errored(&self, now: Timestamp) -> Result<(), InvalidTransition> {
        self.glance.state.errored(now)
    }
}

impl fmt::Debug for PooledWebSocketManager<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledWebSocketManager")
            .field("context", self.context())
            .field("state", &self.state())
            .field("opened_at", &self.opened_at())
            .field("last_activity", &self.last_activity())
            .field("messages_in", &self.messages_in())
            .field("messages_out", &self.messages_out())
            .field("bytes_in", &self.bytes_in())
            .field("bytes_out", &self.bytes_out())
            .field("queued", &self.queued())
            .field("queued_bytes", &self.queued_bytes())
            .field("made_at", &format_args!("{}", self.made_at()))
            .finish()
    }
}

/// The slot's part that a pin gives by reference.
#[derive(Default)]
pub(crate) struct Shared {
    occupant: Option<Occupant>,
    pub(crate) outbound: Outbound,
}

/// Whose the slot is, and since where.
struct Occupant {
    context: UserExecutionContext,
    made_at: &'static Location<'static>,
}

/// What a clean leaves to be done by its caller, outside any lock.
#[must_use = "the budget waits for the bytes, the owner for the wake"]
pub(crate) struct Cleaned {
    /// Messages that were not sent.
    pub(crate) unsent: usize,
    pub(crate) queued_bytes: usize,
    pub(crate) waker: Option<Waker>,
}

impl Shared {
    /// Makes the manager a new connection's. See the reset contract.
    pub(crate) fn reset_for_new_connection(
        &mut self,
        glance: &Glance,
        context: UserExecutionContext,
        now: Timestamp,
        made_at: &'static Location<'static>,
    ) {
        self.outbound.reopen();
        glance.begin(now);
        self.occupant = Some(Occupant { context, made_at });
    }

    /// Whose connection it is, as a pair.
    pub(crate) fn is_of(&self, key: &IsolationKey) -> bool {
        self.occupant.as_ref().is_some_and(|occupant| {
            let context = &occupant.context;
            context.user_id() == key.user_id() && context.thread_id() == key.thread_id()
        })
    }

    /// The new connection's client has had its thread's events up to these, and wants the others.
    pub(crate) fn catch_up_from(&mut self, missed: Missed) {
        self.outbound.catch_up_from(missed);
    }

    /// Takes everything of the connection that is over out of the slot. See the reset contract.
    pub(crate) fn clean(&mut self, glance: &Glance, room: &Room) -> Cleaned {
        glance.end();
        self.occupant = None;
        let cleared = self.outbound.clear(&room.buffers);
        Cleaned { unsent: cleared.messages, queued_bytes: cleared.bytes, waker: cleared.waker }
    }

    /// Offers a message for sending: budget and queue. A refusal costs nothing. Runs no foreign code: what
    /// has to be dropped or woken is the caller's, who does it without a lock or a pin.
    ///
    /// Queued bytes stay taken from the budget until whoever pops the message gives them back. May
    /// block briefly.
    pub(crate) fn offer(
        &self,
        message: Message,
        limits: &OutboundLimits,
        room: &Room,
        stripe: usize,
    ) -> Offer {
        let bytes = message.len();
        // Before the budget, so that a message that is never taken does not push others out of it.
        if bytes > limits.message_bytes() || !room.budget.try_take(stripe, bytes) {
            let waker = self.outbound.refuse(&message);
            return Offer { offered: Offered::Full(message), turned: None, waker };
        }
        self.offer_paid(message, limits, room, stripe)
    }

    /// The same of a message whose bytes have been taken from the budget.
    pub(crate) fn offer_paid(
        &self,
        message: Message,
        limits: &OutboundLimits,
        room: &Room,
        stripe: usize,
    ) -> Offer {
        let bytes = message.len();
        let Pushed { push, turned, waker } = self.outbound.push(message, limits, &room.buffers);
        let (offered, freed) = match push {
            Push::Queued => (Offered::Queued, 0),
            Push::Displaced(displaced) => {
                let freed = if fault!("displaced_stay_paid") { 0 } else { displaced.bytes() };
                (Offered::Displaced(displaced), freed)
            }
            Push::Closed(message) => (Offered::Closed(message), bytes),
            Push::Full(message) => (Offered::Full(message), bytes),
            Push::Overflow(message) => (Offered::Overflow(message), bytes),
        };
        if freed > 0 {
            room.budget.give(stripe, freed);
        }
        Offer { offered, turned, waker }
    }

    /// Takes what is to be said next. Its bytes stay taken from the budget.
    pub(crate) fn pop(
        &self,
        room: &Room,
        limits: impl FnOnce() -> OutboundLimits,
    ) -> (Option<Popped>, Option<Turned>) {
        self.outbound.pop(&room.buffers, limits)
    }
}

/// The memory that all connections of a pool share.
#[derive(Debug)]
pub(crate) struct Room {
    /// Of what waits in the queues.
    pub(crate) budget: ByteBudget,
    /// For the queues.
    pub(crate) buffers: Buffers,
    /// For what comes in.
    pub(crate) bytes: ByteBuffers,
}

impl Room {
    pub(crate) fn new(outbound_bytes: usize, inbound_bytes: usize) -> Self {
        Self {
            budget: ByteBudget::new(outbound_bytes),
            buffers: Buffers::default(),
            bytes: ByteBuffers::new(inbound_bytes),
        }
    }

    /// Gives back memory that nobody needed since the last call.
    pub(crate) fn trim(&self) {
        self.buffers.trim();
        self.bytes.trim();
    }
}

/// What became of an offer, and what is left to do for it without a lock or a pin.
#[must_use = "a waker waits, messages are to be dropped"]
pub(crate) struct Offer {
    pub(crate) offered: Offered,
    pub(crate) turned: Option<Turned>,
    pub(crate) waker: Option<Waker>,
}

pub(crate) enum Offered {
    Queued,
    Displaced(Displaced),
    Closed(Message),
    Full(Message),
    Overflow(Message),
}

impl Offer {
    /// Wakes, drops, and says what to tell the sender. Runs foreign code.
    pub(crate) fn settle(self) -> SendOutcome {
        if let Some(waker) = self.waker {
            wake(waker);
        }
        match self.offered {
            Offered::Queued => SendOutcome::Queued,
            Offered::Displaced(displaced) => {
                let messages = displaced.len();
                displaced.discard();
                SendOutcome::Displaced(messages)
            }
            Offered::Closed(message) => {
                session::discard(message);
                SendOutcome::Dropped
            }
            Offered::Full(message) => SendOutcome::Full(message),
            Offered::Overflow(message) => SendOutcome::Ended(message),
        }
    }
}

/// Wakes a task: foreign code, possibly while another panic unwinds or others wait for their message.
/// A panic stays here.
pub(crate) fn wake(waker: Waker) {
    let _ = session::contain(|| waker.wake());
}

#[cfg(test)]
mod tests;
