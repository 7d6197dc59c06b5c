//! The owner's side of delivery: what its connection is to say next.

use super::core::Core;
use super::events::Past;
use super::lease::Tie;
use super::occupant::Public;
use crate::manager::{Message, Offer, Offered, Popped, Session, Shared, Turned};
use crate::slab::Stale;
#[cfg(feature = "serve")]
use {
    crate::clock::Timestamp, crate::manager::contain, crate::reason::Revoked, crate::slab::thread_number,
    arrayvec::ArrayVec, std::task::Waker,
};

/// What an owner is to say, and how many bytes of it are in the pool's budget.
pub(super) struct Said {
    pub(super) message: Message,
    pub(super) budgeted: usize,
}

/// What is left to do after a look into the queue, without a lock or a pin.
#[derive(Default)]
pub(super) struct Aftermath {
    pub(super) turned: Option<Turned>,
    pub(super) offers: Vec<Offer>,
}

impl<S: Session> Core<S> {
    /// What the owner is to say next. If there is nothing, `before_sleep` runs, and then it is looked for
    /// again: a message that came between the two has woken nobody.
    pub(super) fn next_said(
        &self,
        tie: &Tie<S>,
        before_sleep: impl FnOnce(&Shared),
    ) -> Result<Option<Said>, Stale> {
        let mut after = Aftermath::default();
        let said = self.slab.pin(tie.key, |glance, shared| {
            glance.manager.polled(self.clock.now());
            self.take_said(tie, glance, shared, &mut after).or_else(|| {
                if fault!("registered_after_the_look") {
                    let said = self.take_said(tie, glance, shared, &mut after);
                    before_sleep(shared);
                    return said;
                }
                before_sleep(shared);
                self.take_said(tie, glance, shared, &mut after)
            })
        });
        self.settle_after(tie, after);
        said
    }

    fn take_said(
        &self,
        tie: &Tie<S>,
        glance: &Public,
        shared: &Shared,
        after: &mut Aftermath,
    ) -> Option<Said> {
        let occupants = self.slab.resident();
        // Ends: each turn but the last says what there is to say of the past, or puts it into the queue.
        loop {
            let (popped, turned) = shared.pop(&occupants.room, || self.settings.outbound());
            after.turned = turned.or(after.turned);
            match popped? {
                Popped::Message(message) => {
                    glance.manager.sent(1, message.len(), self.clock.now());
                    occupants.deliveries.delivered(1);
                    return Some(Said { budgeted: message.len(), message: message.unnumbered() });
                }
                past => {
                    if let Some(message) = self.notice_of(tie, glance, shared, past, after) {
                        return Some(Said { message, budgeted: 0 });
                    }
                }
            }
        }
    }

    /// What is to be said of the past before anything else. `None`: it was put into the queue.
    fn notice_of(
        &self,
        tie: &Tie<S>,
        glance: &Public,
        shared: &Shared,
        past: Popped,
        after: &mut Aftermath,
    ) -> Option<Message> {
        let deliveries = &self.slab.resident().deliveries;
        let past = match past {
            Popped::Message(message) => return Some(message), // not of the past
            Popped::Gap(gap) => Past::Gap(self.gap_message(&tie.context, gap)),
            Popped::CatchUp(missed) => self.catch_up(shared, &tie.context, missed, after)?,
        };
        Some(match past {
            Past::Gap(gap) => {
                deliveries.gap();
                gap
            }
            Past::Event(message) => {
                glance.manager.sent(1, message.len(), self.clock.now());
                deliveries.offered(&Offered::Queued);
                deliveries.delivered(1);
                message.unnumbered()
            }
        })
    }

    fn settle_after(&self, tie: &Tie<S>, after: Aftermath) {
        for offer in after.offers {
            let _ = self.settle(tie.key, offer); // what could not be queued is announced
        }
        if after.turned.is_some() {
            self.tell_turned(tie.key);
        }
    }
}

/// Messages that an owner takes at once.
#[cfg(feature = "serve")]
pub(crate) const BATCH: usize = 16;

/// What an owner took to say, all at once. What has not been handed on when this is dropped is lost with
/// the connection; [`put_back`](Self::put_back) before that keeps it.
#[cfg(feature = "serve")]
#[must_use = "what is in it is lost when it is dropped"]
pub(crate) struct Outgoing<'a, S: Session> {
    tie: &'a Tie<S>,
    /// Of what will not come: before all others, and in nobody's budget.
    notice: Option<Message>,
    /// The oldest last.
    messages: ArrayVec<Message, BATCH>,
    /// Nothing was left in the queue, and whatever comes wakes the owner.
    pub(crate) is_all: bool,
    handed: usize,
    bytes: usize,
}

#[cfg(feature = "serve")]
impl<S: Session> Outgoing<'_, S> {
    /// The next message, to be handed to the socket.
    pub(crate) fn next(&mut self) -> Option<Message> {
        if let Some(notice) = self.notice.take() {
            return Some(notice);
        }
        let message = self.messages.pop()?.unnumbered();
        self.handed += 1;
        self.bytes += message.len();
        Some(message)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.notice.is_none() && self.messages.is_empty()
    }

    /// The socket takes no more for now.
    pub(crate) fn put_back(mut self) {
        let Self { tie, messages, .. } = &mut self;
        let room = &tie.handle.slab.resident().room;
        let (count, bytes) = (messages.len(), sum(messages));
        // Stale: they are lost with the connection, as dropping this will tell.
        let _: Result<(), Stale> = tie.handle.slab.pin(tie.key, |glance, shared| {
            shared.outbound.put_back(messages.drain(..), &room.buffers);
            glance.manager.unsent(count, bytes);
        });
    }
}

#[cfg(feature = "serve")]
impl<S: Session> Drop for Outgoing<'_, S> {
    fn drop(&mut self) {
        let occupants = self.tie.handle.slab.resident();
        occupants.deliveries.delivered(self.handed);
        occupants.deliveries.unsent(self.messages.len());
        let bytes = self.bytes + sum(&self.messages);
        if bytes > 0 {
            occupants.room.budget.give(thread_number(), bytes);
        }
        for message in self.messages.drain(..) {
            let _ = contain(|| drop(message)); // foreign code, perhaps while a panic unwinds
        }
    }
}

#[cfg(feature = "serve")]
fn sum(messages: &[Message]) -> usize {
    messages.iter().map(Message::len).sum()
}

#[cfg(feature = "serve")]
impl<S: Session> Tie<S> {
    /// The owner is at work: as [`Tie::watch`], and takes what there is to say. In one go, since it is what
    /// most turns are for.
    pub(crate) fn turn(&self, waker: &Waker, now: Timestamp) -> Result<Outgoing<'_, S>, Revoked> {
        let outgoing = self.take_some(Some(waker), now)?;
        // Registered first, so that an end after this look finds the waker.
        if self.is_live() { Ok(outgoing) } else { Err(self.why()) }
    }

    /// Takes what else there is to say.
    pub(crate) fn more(&self, now: Timestamp) -> Result<Outgoing<'_, S>, Revoked> {
        self.take_some(None, now)
    }

    fn take_some(&self, waker: Option<&Waker>, now: Timestamp) -> Result<Outgoing<'_, S>, Revoked> {
        let core = &*self.handle;
        let room = &core.slab.resident().room;
        let mut outgoing = Outgoing {
            tie: self,
            notice: None,
            messages: ArrayVec::new(),
            is_all: true,
            handed: 0,
            bytes: 0,
        };
        let mut after = Aftermath::default();
        let taken = core.slab.pin(self.key, |glance, shared| {
            if let Some(waker) = waker {
                shared.outbound.register(waker);
            }
            glance.manager.polled(now);
            // Ends: as in `take_said`.
            loop {
                let limits = || core.settings.outbound();
                let (past, turned) = shared.outbound.pop_some(&room.buffers, limits, &mut outgoing.messages);
                after.turned = turned.or(after.turned);
                let Some(past) = past else { break };
                outgoing.notice = core.notice_of(self, glance, shared, past, &mut after);
                if outgoing.notice.is_some() {
                    outgoing.is_all = false;
                    break;
                }
            }
            if !outgoing.messages.is_empty() {
                outgoing.is_all = !outgoing.messages.is_full() && !shared.outbound.has_more();
                glance.manager.sent(outgoing.messages.len(), sum(&outgoing.messages), now);
            }
        });
        core.settle_after(self, after);
        outgoing.messages.reverse();
        taken.map(|()| outgoing).map_err(|Stale| self.why())
    }
}
