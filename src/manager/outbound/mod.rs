//! The outbound queue of one connection: first in, first out, bounded in messages and in bytes.
//!
//! Many senders, one reader (the connection's owner). The messages are behind a short lock; their
//! number and size can be read without it. No message is dropped under the lock, since its drop may
//! run foreign code.

mod limits;

pub use limits::OutboundLimits;

use super::buffers::{Buffer, Buffers};
use super::message::{Message, OverflowPolicy};
use super::session::discard;
use crate::sync::{AtomicU8, AtomicU32, AtomicUsize, Mutex, Ordering};
use arrayvec::ArrayVec;
use std::task::Waker;

/// The queue. A new one is closed; [`reopen`](Self::reopen) begins a connection.
///
/// It is in every slot, so it is kept small: what is more than a message lies in a leased buffer.
#[derive(Default)]
pub(crate) struct Outbound {
    queue: Mutex<Queue>,
    // All three are written under the lock only. Relaxed: they are figures, the messages themselves are
    // published by the lock; that an owner does not sleep on a stale zero is `register`'s doing.
    bytes: AtomicUsize,
    len: AtomicU32,
    flags: Flags,
}

#[derive(Default)]
struct Queue {
    /// The oldest message, if the queue was empty when it came: a single one needs no buffer.
    first: Option<Message>,
    rest: Option<Box<Buffer>>,
    events: Events,
    /// The owner, while it has nothing to do. Here, since whoever queues a message has the lock anyway.
    waker: Option<Waker>,
}

/// Which events of its thread the connection has had. Numbers begin at 1; 0 stands for "none yet".
#[derive(Clone, Copy, Default)]
struct Events {
    /// The number that its client expects next.
    next: u64,
    /// The highest number that was meant for it and will not come.
    lost: u64,
    /// While it is catching up: what it has yet to be handed is numbered in this stream.
    stream: Stream,
}

/// Yes or no, by bit. Written under the queue's lock only.
#[derive(Default)]
struct Flags(AtomicU8);

/// Messages are taken.
const OPEN: u8 = 1;
/// There is something to do although no message waits.
const MORE: u8 = 1 << 1;
/// The connection has yet to be handed what it missed. Until then its thread's events pass it by.
const CATCHING_UP: u8 = 1 << 2;
/// The queue was high, and has not been low since.
const HIGH: u8 = 1 << 3;
/// That is what those who observe have been told last.
const TOLD_HIGH: u8 = 1 << 4;
/// Somebody is telling them.
const BEING_TOLD: u8 = 1 << 5;

impl Flags {
    fn has(&self, flag: u8) -> bool {
        self.0.load(Ordering::Relaxed) & flag != 0
    }

    fn set(&self, flag: u8, is_set: bool) {
        let others = self.0.load(Ordering::Relaxed) & !flag;
        self.0.store(others | if is_set { flag } else { 0 }, Ordering::Relaxed);
    }

    /// All at once, in the slab's exclusive phases.
    fn reset(&self, flags: u8) {
        self.0.store(flags, Ordering::Relaxed);
    }
}

/// What became of a pushed message. What is inside is to be dropped by a caller who holds no lock: its
/// drop may be foreign code.
#[derive(Debug, PartialEq)]
#[must_use]
pub(crate) enum Push {
    Queued,
    /// Queued, and these oldest messages are gone.
    Displaced(Displaced),
    /// Nobody will read the queue again.
    Closed(Message),
    /// Over the limits on messages, bytes or the message's own size.
    Full(Message),
    /// The same, and by its policy the connection is to end.
    Overflow(Message),
}

/// A push, and what is to be done for it once no lock is held.
#[derive(Debug)]
#[must_use]
pub(crate) struct Pushed {
    pub(crate) push: Push,
    pub(crate) turned: Option<Turned>,
    pub(crate) waker: Option<Waker>,
}

impl Pushed {
    fn not(push: Push) -> Self {
        Self { push, turned: None, waker: None }
    }
}

/// Messages that made room. As a rule it is one.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Displaced {
    first: Option<Message>,
    more: Vec<Message>,
}

/// What the owner is to say next.
#[derive(Debug, PartialEq)]
pub(crate) enum Popped {
    Message(Message),
    /// Events of the thread, from the first number to the second, will not come. An unknown number of
    /// them, if there is no first.
    Gap(Gap),
    /// Nothing waits, but its thread's journal may have what it missed.
    CatchUp(Missed),
}

/// Events that a connection will not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) from: Option<u64>,
    pub(crate) to: u64,
}

/// Which numbering a number belongs to; 0 if its client did not say.
pub(crate) type Stream = u64;

/// From where on a connection misses its thread's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missed {
    pub(crate) stream: Stream,
    pub(crate) next: u64,
}

/// A change of the queue's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    High,
    Low,
}

/// What a queue held when it was cleared.
#[derive(Debug, Default)]
#[must_use = "the bytes belong to the pool's budget, and somebody may wait to be woken"]
pub(crate) struct Cleared {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) waker: Option<Waker>,
}

impl Outbound {
    /// Puts `message` at the end, and says whether that made the queue high. May block for as long as
    /// another holder of the lock takes.
    pub(crate) fn push(&self, message: Message, limits: &OutboundLimits, buffers: &Buffers) -> Pushed {
        let size = message.len();
        let too_early = if fault!("wake_before_enqueue") { self.take_waker() } else { None };
        let mut queue = self.queue.lock();
        if !self.flags.has(OPEN) {
            return Pushed::not(Push::Closed(message));
        }
        if message.event() != 0 {
            queue.events.expect(message.event());
        }
        let (mut len, mut bytes) = (self.len(), self.bytes());
        let mut displaced = Displaced::default();
        if !limits.admit(len, bytes, size) {
            let is_hopeless = limits.is_hopeless(size);
            match limits.overflow() {
                OverflowPolicy::DropOldest if !is_hopeless => {
                    while !limits.admit(len, bytes, size) {
                        let Some(oldest) = queue.take() else { break };
                        self.lose(&mut queue, &oldest);
                        len -= 1;
                        bytes -= oldest.len();
                        displaced.add(oldest);
                    }
                }
                OverflowPolicy::Disconnect if !is_hopeless => {
                    self.lose(&mut queue, &message);
                    self.flags.set(OPEN, false); // one sender ends it, and the others are not told that they did
                    return Pushed::not(Push::Overflow(message));
                }
                _ => {
                    self.lose(&mut queue, &message);
                    // To announce it: where nothing is taken, the owner of an empty queue sleeps.
                    let waker = if message.event() == 0 { None } else { queue.waker.take() };
                    return Pushed { waker, ..Pushed::not(Push::Full(message)) };
                }
            }
        }
        queue.put(message, buffers, self.shelf());
        (len, bytes) = (len + 1, bytes + size);
        self.account(len, bytes);
        let turned = self.rise(limits, len, bytes);
        let push = if displaced.is_empty() { Push::Queued } else { Push::Displaced(displaced) };
        let waker = if fault!("wake_before_enqueue") { too_early } else { queue.waker.take() };
        Pushed { push, turned, waker }
    }

    /// Notes an event that is not even offered to the queue, as there is no room for it elsewhere.
    pub(crate) fn refuse(&self, message: &Message) -> Option<Waker> {
        if message.event() == 0 {
            return None;
        }
        let mut queue = self.queue.lock();
        queue.events.expect(message.event());
        self.lose(&mut queue, message);
        queue.waker.take() // to announce it
    }

    /// Takes what is to be said next, and says whether that made a high queue low. May block briefly;
    /// wait-free on an empty queue.
    ///
    /// An owner that is about to sleep registers its waker first and pops afterwards; a sender takes the
    /// waker in the section in which it pushes. Either section is first: the owner sees the message, as
    /// the lock that it took came after, or the sender sees the waker.
    pub(crate) fn pop(
        &self,
        buffers: &Buffers,
        limits: impl FnOnce() -> OutboundLimits,
    ) -> (Option<Popped>, Option<Turned>) {
        let mut one = ArrayVec::<Message, 1>::new();
        let (past, turned) = self.pop_some(buffers, limits, &mut one);
        (one.pop().map(Popped::Message).or(past), turned)
    }

    /// Takes as many messages as `batch` has room for, in their order; or, if there is something else to
    /// do before the next one, says that and takes none. Otherwise as [`pop`](Self::pop).
    ///
    /// The limits are asked for only of a high queue.
    pub(crate) fn pop_some<const N: usize>(
        &self,
        buffers: &Buffers,
        limits: impl FnOnce() -> OutboundLimits,
        batch: &mut ArrayVec<Message, N>,
    ) -> (Option<Popped>, Option<Turned>) {
        if self.len() == 0 && !self.flags.has(MORE) {
            return (None, None);
        }
        let mut queue = self.queue.lock();
        let is_catching_up = self.flags.has(CATCHING_UP);
        if let Some(gap) = queue.gap(is_catching_up) {
            queue.events.next = gap.to + 1;
            return (Some(Popped::Gap(gap)), None);
        }
        let mut bytes = self.bytes();
        while !batch.is_full()
            && let Some(message) = queue.take()
        {
            queue.events.said(&message);
            bytes -= message.len();
            batch.push(message);
            if queue.gap(is_catching_up).is_some() {
                break;
            }
        }
        if batch.is_empty() {
            let Events { next, stream, .. } = queue.events;
            self.flags.set(MORE, is_catching_up);
            return (is_catching_up.then_some(Popped::CatchUp(Missed { stream, next })), None);
        }
        let len = self.len() - batch.len();
        self.account(len, bytes);
        let turned = self.fall(limits, len, bytes);
        let buffer = queue.spare_buffer();
        drop(queue);
        if let Some(buffer) = buffer {
            buffers.give(self.shelf(), buffer);
        }
        (None, turned)
    }

    /// Puts messages that were taken, the newest first, back to the front.
    #[cfg(feature = "serve")]
    pub(crate) fn put_back(&self, newest_first: impl Iterator<Item = Message>, buffers: &Buffers) {
        let mut queue = self.queue.lock();
        let (mut len, mut bytes) = (self.len(), self.bytes());
        for message in newest_first {
            (len, bytes) = (len + 1, bytes + message.len());
            if message.event() != 0 {
                queue.events.next = message.event();
            }
            queue.put_first(message, buffers, self.shelf());
        }
        self.account(len, bytes);
    }

    /// The client has had its thread's events up to, not including, `missed.next`, and is to be handed
    /// the others before new ones. Before anybody else can reach the queue.
    pub(super) fn catch_up_from(&mut self, missed: Missed) {
        self.queue.get_mut().events = Events { next: missed.next, lost: 0, stream: missed.stream };
        self.flags.set(MORE | CATCHING_UP, true);
    }

    /// Is what is sent to its thread not yet for this connection? In the thread's journal's section.
    pub(crate) fn is_catching_up(&self) -> bool {
        self.flags.has(CATCHING_UP)
    }

    /// From now on the thread's events come as they happen; `last` is the last one that was sent to the
    /// thread. The client expects `next`, if that is not what it said. In the journal's section.
    pub(crate) fn go_live(&self, next: Option<u64>, last: u64) {
        let mut queue = self.queue.lock();
        let events = &mut queue.events;
        events.next = next.unwrap_or(events.next);
        // What of it neither is in the queue nor has been said will not come.
        events.lost = events.lost.max(last);
        self.flags.set(CATCHING_UP, false);
        self.flags.set(MORE, true);
    }

    /// The client's numbers are of another numbering: it is to be handed what there is of `stream`, from
    /// `next` on. In the journal's section.
    pub(crate) fn start_over(&self, stream: Stream, next: u64) {
        let events = &mut self.queue.lock().events;
        (events.stream, events.next) = (stream, next);
    }

    /// The owner says an event of the past without queueing it; if some before it are missing, it says that
    /// first. In the journal's section, of an empty queue.
    pub(crate) fn say_past(&self, message: &Message) -> Option<Gap> {
        let events = &mut self.queue.lock().events;
        let (from, number) = (events.next, message.event());
        if from < number {
            events.next = number;
            return Some(Gap { from: Some(from), to: number - 1 });
        }
        events.said(message);
        None
    }

    /// Whether a message of this size would be taken now, and move nobody.
    pub(crate) fn has_room(&self, size: usize, limits: &OutboundLimits) -> bool {
        limits.admit(self.len(), self.bytes(), size)
    }

    /// Is there something to do although no message waits? Wait-free.
    #[cfg(feature = "serve")]
    pub(crate) fn has_more(&self) -> bool {
        self.flags.has(MORE)
    }

    /// Waiting messages. Wait-free.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed) as usize
    }

    /// Payload bytes of the waiting messages. Wait-free.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The level to tell of, if it is not the one that was told last. One caller at a time gets any, and asks
    /// again with `is_telling` when it has told, so that what is told last is how it is. May block briefly.
    pub(crate) fn untold(&self, is_telling: bool) -> Option<Turned> {
        let _queue = self.queue.lock();
        if self.flags.has(BEING_TOLD) && !is_telling {
            return None;
        }
        let is_high = self.flags.has(HIGH);
        let is_news = is_high != self.flags.has(TOLD_HIGH);
        self.flags.set(BEING_TOLD, is_news);
        self.flags.set(TOLD_HIGH, is_high);
        is_news.then_some(if is_high { Turned::High } else { Turned::Low })
    }

    /// Whom to wake when there is something to do. May block briefly.
    pub(crate) fn register(&self, waker: &Waker) {
        let is_known = |queue: &Queue| queue.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        if is_known(&self.queue.lock()) {
            return;
        }
        // Foreign code, both: not under the lock.
        let waker = waker.clone();
        let replaced = self.queue.lock().waker.replace(waker);
        if let Some(replaced) = replaced {
            discard(replaced);
        }
    }

    /// Who is to be woken, if somebody waits. May block briefly.
    pub(crate) fn take_waker(&self) -> Option<Waker> {
        self.queue.lock().waker.take()
    }

    /// Takes nothing more. What waits can still be popped.
    pub(crate) fn close(&self) {
        let _queue = self.queue.lock();
        self.flags.set(OPEN, false);
    }

    /// Begins a connection on a queue that is new or was [`clear`](Self::clear)ed.
    pub(super) fn reopen(&mut self) {
        debug_assert_eq!(self.len(), 0, "the last occupant was not cleaned");
        self.flags.reset(OPEN);
    }

    /// Ends a connection: closed, empty, without a buffer. Exclusive, so the messages are dropped under
    /// no lock; one that panics on drop stops nothing.
    pub(super) fn clear(&mut self, buffers: &Buffers) -> Cleared {
        let (len, bytes) = (self.len(), self.bytes());
        let shelf = self.shelf();
        let queue = self.queue.get_mut();
        self.flags.reset(0);
        let waker = queue.waker.take();
        while let Some(message) = queue.take() {
            if fault!("queue_outlives_its_occupant") {
                queue.first = Some(message);
                return Cleared { messages: len, bytes, waker };
            }
            discard(message);
        }
        if let Some(buffer) = queue.spare_buffer() {
            buffers.give(shelf, buffer);
        }
        queue.events = Events::default();
        self.account(0, 0);
        Cleared { messages: len, bytes, waker }
    }

    /// An event will not come. If nothing else is said, that is.
    fn lose(&self, queue: &mut Queue, message: &Message) {
        if message.event() != 0 {
            queue.events.lost = queue.events.lost.max(message.event());
            self.flags.set(MORE, true);
        }
    }

    fn rise(&self, limits: &OutboundLimits, len: usize, bytes: usize) -> Option<Turned> {
        if self.flags.has(HIGH) || !limits.is_high(len, bytes) {
            return None;
        }
        self.flags.set(HIGH, true);
        Some(Turned::High)
    }

    fn fall(&self, limits: impl FnOnce() -> OutboundLimits, len: usize, bytes: usize) -> Option<Turned> {
        if !self.flags.has(HIGH) {
            return None;
        }
        let (low_len, low_bytes) = limits().low();
        if len > low_len || bytes > low_bytes {
            return None;
        }
        self.flags.set(HIGH, false);
        Some(Turned::Low)
    }

    /// Called under the lock, after each change.
    fn account(&self, len: usize, bytes: usize) {
        // A limit on messages is 31 bits.
        self.len.store(u32::try_from(len).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Where its buffers come from: the same place always, and not everybody's, whatever the distance from
    /// slot to slot is.
    fn shelf(&self) -> usize {
        let address = std::ptr::from_ref(self).addr() as u64;
        (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize
    }
}

impl Queue {
    fn put(&mut self, message: Message, buffers: &Buffers, shelf: usize) {
        if self.first.is_none() && self.rest.is_none() {
            self.first = Some(message);
            return;
        }
        self.room(buffers, shelf).0.push_back(message);
    }

    #[cfg(feature = "serve")]
    fn put_first(&mut self, message: Message, buffers: &Buffers, shelf: usize) {
        if let Some(second) = self.first.replace(message) {
            self.room(buffers, shelf).0.push_front(second);
        }
    }

    /// A buffer with room for one more.
    fn room(&mut self, buffers: &Buffers, shelf: usize) -> &mut Buffer {
        let full = self.rest.take_if(|rest| rest.0.len() == rest.0.capacity());
        let messages = full.as_ref().map_or(0, |full| full.0.len());
        let rest = self.rest.get_or_insert_with(|| buffers.lease(shelf, messages));
        if let Some(mut full) = full {
            rest.0.append(&mut full.0);
            buffers.give(shelf, full);
        }
        rest
    }

    /// The oldest message.
    fn take(&mut self) -> Option<Message> {
        self.first.take().or_else(|| self.rest.as_mut()?.0.pop_front())
    }

    fn spare_buffer(&mut self) -> Option<Box<Buffer>> {
        self.rest.take_if(|rest| rest.0.is_empty())
    }

    /// Events that were to be said before the oldest message, or at all, and are not there.
    fn gap(&self, is_catching_up: bool) -> Option<Gap> {
        let Events { next, lost, .. } = self.events;
        let oldest = self.first.as_ref().or_else(|| self.rest.as_ref()?.0.front());
        let to = match oldest {
            Some(oldest) => oldest.event().checked_sub(1)?,
            None if is_catching_up => return None,
            None => lost,
        };
        if next == 0 || to < next || fault!("gap_in_silence") {
            return None;
        }
        Some(Gap { from: Some(next), to })
    }
}

impl Events {
    /// The first event that is meant for a connection is where its numbers begin.
    fn expect(&mut self, number: u64) {
        if self.next == 0 {
            self.next = number;
        }
    }

    fn said(&mut self, message: &Message) {
        if message.event() != 0 {
            debug_assert_eq!(message.event(), self.next, "in order, at most once");
            self.next = message.event() + 1;
        }
    }
}

impl Displaced {
    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.first.iter().chain(&self.more).map(Message::len).sum()
    }

    /// Drops them, one by one: a payload that panics stops nothing.
    pub(crate) fn discard(self) {
        self.first.into_iter().chain(self.more).for_each(discard);
    }

    fn add(&mut self, message: Message) {
        match &self.first {
            None => self.first = Some(message),
            Some(_) => self.more.push(message),
        }
    }
}

#[cfg(all(test, not(pool_loom)))]
mod tests;
