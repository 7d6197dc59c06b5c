//! Delivery in the double: queues are the pool's own, everything around them is done under the one lock.

use super::core::Core;
use super::life::Life;
use super::state::State;
use crate::id::UserExecutionContext;
use crate::manager::{Message, Offer, Offered, Popped, SendOutcome, Session, Shared, Turned};
use crate::pool::{ManyReport, Past, Pressure, SendReport, gap_message};
use crate::reason::EndReason;
use crate::slab::Key;
use std::sync::Arc;

/// What an owner is to say next, and whether taking it has turned its queue.
type Said = (Option<Message>, Option<Turned>);

impl<S: Session> Core<S> {
    pub(super) fn send(&self, key: Key, message: Message) -> SendOutcome {
        // In an `Option`, so that one that nobody takes is not dropped under the lock.
        let mut message = Some(message);
        let offered = self.section(|state| {
            let life = state.life(key).cloned()?;
            Some(state.offer(&life, message.take()?))
        });
        offered.map_or(SendOutcome::Stale, |offer| self.settle(key, offer))
    }

    pub(super) fn send_many(&self, keys: &[Key], message: &Message) -> ManyReport {
        let mut stale_keys = Vec::new();
        let mut sum = SendReport::of_nobody();
        for &key in keys {
            let outcome = self.send(key, message.clone());
            sum.count(&outcome);
            if outcome == SendOutcome::Stale {
                stale_keys.push(key);
            }
        }
        ManyReport { sum, stale_keys }
    }

    /// What is left to do for an offer when the lock is free again.
    pub(super) fn settle(&self, key: Key, offer: Offer) -> SendOutcome {
        let turned = offer.turned;
        let outcome = offer.settle();
        self.tell_turned(key, turned);
        if let SendOutcome::Ended(_) = outcome {
            // Late: it is over anyway.
            let _ = self.end(key, EndReason::SlowConsumer);
        }
        outcome
    }

    /// What the owner is to say next. If there is nothing, `before_sleep` runs, and then it is looked for
    /// again: a message that came between the two has woken nobody. `None`: the lease is over.
    pub(super) fn next_said(&self, key: Key, before_sleep: impl FnOnce(&Shared)) -> Option<Option<Message>> {
        let life = self.life(key)?;
        life.glance.polled(self.clock.now());
        let (mut said, mut turned) = self.section(|state| state.say(key));
        if said.is_none() {
            before_sleep(&life.shared);
            let (again, change) = self.section(|state| state.say(key));
            (said, turned) = (again, change.or(turned));
        }
        self.tell_turned(key, turned);
        Some(said)
    }

    fn tell_turned(&self, key: Key, turned: Option<Turned>) {
        let mut is_telling = false;
        // Ends: when the level is the one that was told last.
        while turned.is_some() {
            let pressure = self.section(|state| {
                let turned = state.life(key)?.shared.outbound.untold(is_telling)?;
                state.read(key, |manager| Pressure {
                    key,
                    to: manager.context().isolation_key(),
                    is_high: turned == Turned::High,
                    queued: manager.queued(),
                    queued_bytes: manager.queued_bytes(),
                })
            });
            let Some(pressure) = pressure else { return };
            is_telling = true;
            self.attached.pressure(&pressure);
        }
    }
}

impl State {
    /// Offers a message to a connection, and counts what became of it.
    pub(super) fn offer(&mut self, life: &Life, message: Message) -> Offer {
        let limits = self.settings.load_full().outbound;
        let offer = life.shared.offer(message, &limits, &self.room, 0);
        match &offer.offered {
            Offered::Queued => self.delivery.accepted += 1,
            Offered::Displaced(displaced) => {
                self.delivery.accepted += 1;
                self.delivery.displaced += displaced.len() as u64;
            }
            Offered::Closed(_) | Offered::Full(_) | Offered::Overflow(_) => self.delivery.refused += 1,
        }
        offer
    }

    /// The next thing that a connection's owner says: a message, or what of its thread's events will not
    /// come.
    fn say(&mut self, key: Key) -> Said {
        let Some((life, context)) = self.speaker(key) else { return (None, None) };
        let mut turned = None;
        // Ends: each turn but the last says what there is to say of the past, or puts it into the queue.
        loop {
            let (popped, change) = life.shared.pop(&self.room, || self.settings.outbound());
            turned = change.or(turned);
            let gap = match popped {
                None => return (None, turned),
                Some(Popped::Message(message)) => {
                    self.room.budget.give(0, message.len());
                    life.glance.sent(1, message.len(), self.clock.now());
                    self.delivery.delivered += 1;
                    return (Some(message.unnumbered()), turned);
                }
                Some(Popped::Gap(gap)) => {
                    Some(gap_message(gap, self.stream_of(&context), context.thread_id()))
                }
                Some(Popped::CatchUp(missed)) => {
                    let (past, change) = self.catch_up(&life, &context, missed);
                    turned = change.or(turned);
                    match past {
                        Some(Past::Event(message)) => {
                            life.glance.sent(1, message.len(), self.clock.now());
                            self.delivery.accepted += 1;
                            self.delivery.delivered += 1;
                            return (Some(message.unnumbered()), turned);
                        }
                        Some(Past::Gap(gap)) => Some(gap),
                        None => None,
                    }
                }
            };
            if gap.is_some() {
                self.delivery.gaps += 1;
                return (gap, turned);
            }
        }
    }

    /// What waits in the queue of a connection that is over will not be sent.
    pub(super) fn clear(&mut self, life: &Life) {
        life.shared.outbound.close();
        loop {
            match life.shared.pop(&self.room, || self.settings.outbound()).0 {
                Some(Popped::Message(message)) => {
                    self.room.budget.give(0, message.len());
                    self.delivery.unsent += 1;
                    self.after.unsent.push(message);
                }
                Some(Popped::Gap(_)) => {}
                Some(Popped::CatchUp(_)) | None => return,
            }
        }
    }

    fn speaker(&self, key: Key) -> Option<(Arc<Life>, UserExecutionContext)> {
        let life = self.life(key)?.clone();
        let context = life.read(|manager| manager.context().clone())?;
        Some((life, context))
    }
}
