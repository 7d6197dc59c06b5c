//! The outbound queue of one connection: first in, first out, bounded in messages and in bytes.
//!
//! Many senders, one reader (the connection's owner). The messages are behind a short lock; their
//! number and size can be read without it. No message is dropped under the lock, since its drop may
//! run foreign code.

use super::message::{Message, OverflowPolicy};
use super::session::discard;
use crate::sync::{AtomicUsize, Mutex, Ordering};
use std::collections::VecDeque;

/// How much may wait for one connection.
///
/// ```
/// use ws_manager_pool::manager::OutboundLimits;
///
/// let limits = OutboundLimits::default().with_messages(16);
/// assert_eq!((limits.messages(), limits.bytes()), (16, 256 * 1024));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct OutboundLimits {
    messages: usize,
    bytes: usize,
    message_bytes: usize,
    overflow: OverflowPolicy,
}

impl Default for OutboundLimits {
    /// 64 messages, 256 KiB in all, 1 MiB for one message, [`OverflowPolicy::DropNewest`].
    fn default() -> Self {
        Self {
            messages: 64,
            bytes: 256 * 1024,
            message_bytes: 1024 * 1024,
            overflow: OverflowPolicy::DropNewest,
        }
    }
}

impl OutboundLimits {
    /// Messages that may wait; 0 refuses every message.
    pub const fn messages(&self) -> usize {
        self.messages
    }

    /// Payload bytes that may wait. An empty queue takes one message of up to
    /// [`message_bytes`](Self::message_bytes) even if that is more, so that a large message can be
    /// sent at all; nothing joins it until it has left.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Payload bytes of the largest message that is taken.
    pub const fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// What happens to a message that finds the queue full.
    pub const fn overflow(&self) -> OverflowPolicy {
        self.overflow
    }

    /// Sets [`messages`](Self::messages).
    #[must_use]
    pub const fn with_messages(mut self, messages: usize) -> Self {
        self.messages = messages;
        self
    }

    /// Sets [`bytes`](Self::bytes).
    #[must_use]
    pub const fn with_bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets [`message_bytes`](Self::message_bytes).
    #[must_use]
    pub const fn with_message_bytes(mut self, message_bytes: usize) -> Self {
        self.message_bytes = message_bytes;
        self
    }

    /// Sets [`overflow`](Self::overflow).
    #[must_use]
    pub const fn with_overflow(mut self, overflow: OverflowPolicy) -> Self {
        self.overflow = overflow;
        self
    }

    /// Is there room for `size` bytes behind `messages` messages of `bytes` bytes?
    const fn admit(&self, messages: usize, bytes: usize, size: usize) -> bool {
        size <= self.message_bytes
            && messages < self.messages
            && (messages == 0 || bytes.saturating_add(size) <= self.bytes)
    }
}

/// Messages for which an idle queue keeps room: the five events of a run and a text or two, 320
/// bytes on a 64-bit machine. A buffer that grew beyond is cut back to this between two connections.
pub(super) const RETAINED_MESSAGES: usize = 8;

/// The queue. A new one is closed; [`reopen`](Self::reopen) begins a connection.
pub(crate) struct Outbound {
    queue: Mutex<Queue>,
    // Both are written under the lock only. Relaxed: they are figures, the messages themselves are
    // published by the lock; that an owner does not sleep on a stale zero is the waker's doing (see
    // `pop`).
    len: AtomicUsize,
    bytes: AtomicUsize,
}

struct Queue {
    messages: VecDeque<Message>,
    closed: bool,
}

/// What became of a pushed message.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Push {
    Queued,
    /// Nobody will read the queue again.
    Closed(Message),
    /// Over the limits on messages, bytes or the message's own size.
    Full(Message),
}

/// What a queue held when it was cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the bytes belong to the pool's budget"]
pub(crate) struct Cleared {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            queue: Mutex::new(Queue { messages: VecDeque::new(), closed: true }),
            len: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl Outbound {
    /// Puts `message` at the end. May block for as long as another holder of the lock takes.
    pub(crate) fn push(&self, message: Message, limits: &OutboundLimits) -> Push {
        let size = message.len();
        let mut queue = self.queue.lock();
        if queue.closed {
            return Push::Closed(message);
        }
        let bytes = self.bytes();
        if !limits.admit(queue.messages.len(), bytes, size) {
            return match limits.overflow {
                OverflowPolicy::DropNewest => Push::Full(message),
            };
        }
        queue.messages.push_back(message);
        self.account(&queue, bytes + size);
        Push::Queued
    }

    /// Takes the first message. May block briefly; wait-free on an empty queue.
    ///
    /// An owner that is about to sleep registers its waker first and pops afterwards; a sender pushes
    /// first and wakes afterwards. The read-modify-writes of the waker order the two, so either the
    /// owner sees the message here or the sender sees the waker.
    pub(crate) fn pop(&self) -> Option<Message> {
        if self.len() == 0 {
            return None;
        }
        let mut queue = self.queue.lock();
        let message = queue.messages.pop_front()?;
        self.account(&queue, self.bytes() - message.len());
        Some(message)
    }

    /// Waiting messages. Wait-free.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Payload bytes of the waiting messages. Wait-free.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes nothing more. What waits can still be popped.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
    }

    /// Begins a connection: empty, open. Gives back what is left, which is nothing after a
    /// [`clear`](Self::clear).
    pub(super) fn reopen(&mut self) -> Cleared {
        let cleared = self.clear();
        self.queue.get_mut().closed = false;
        cleared
    }

    /// Ends a connection: closed and empty, its buffer within [`RETAINED_MESSAGES`]. Exclusive, so
    /// the messages are dropped under no lock; one that panics on drop stops nothing.
    pub(super) fn clear(&mut self) -> Cleared {
        let queue = self.queue.get_mut();
        queue.closed = true;
        let cleared = Cleared { messages: queue.messages.len(), bytes: self.bytes.load(Ordering::Relaxed) };
        while let Some(message) = queue.messages.pop_front() {
            discard(message);
        }
        if queue.messages.capacity() > RETAINED_MESSAGES {
            queue.messages.shrink_to(RETAINED_MESSAGES);
        }
        self.len.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        cleared
    }

    /// Called under the lock, after each change.
    fn account(&self, queue: &Queue, bytes: usize) {
        self.len.store(queue.messages.len(), Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(pool_loom)))]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::thread;

    fn open() -> Outbound {
        let mut outbound = Outbound::default();
        let _ = outbound.reopen();
        outbound
    }

    fn of(size: usize) -> Message {
        Message::binary(vec![b'x'; size])
    }

    fn limits(messages: usize, bytes: usize, message_bytes: usize) -> OutboundLimits {
        OutboundLimits::default().with_messages(messages).with_bytes(bytes).with_message_bytes(message_bytes)
    }

    #[test]
    fn messages_leave_in_the_order_in_which_they_came() {
        let (outbound, limits) = (open(), OutboundLimits::default());
        for text in ["a", "bb", "ccc"] {
            assert_eq!(outbound.push(text.into(), &limits), Push::Queued);
        }
        assert_eq!((outbound.len(), outbound.bytes()), (3, 6));
        assert_eq!(outbound.pop().unwrap().as_text(), Some("a"));
        assert_eq!((outbound.len(), outbound.bytes()), (2, 5));
        assert_eq!([outbound.pop(), outbound.pop()], [Some("bb".into()), Some("ccc".into())]);
        assert_eq!((outbound.len(), outbound.bytes(), outbound.pop()), (0, 0, None));
    }

    #[test]
    fn a_message_over_any_limit_comes_back_and_leaves_nothing_behind() {
        let outbound = open();
        let limits = limits(3, 10, 8);
        assert_eq!(outbound.push(of(9), &limits), Push::Full(of(9)), "message size");
        assert_eq!(outbound.push(of(6), &limits), Push::Queued);
        assert_eq!(outbound.push(of(5), &limits), Push::Full(of(5)), "bytes");
        assert_eq!(outbound.push(of(4), &limits), Push::Queued);
        assert_eq!(outbound.push(of(0), &limits), Push::Queued);
        assert_eq!(outbound.push(of(0), &limits), Push::Full(of(0)), "messages");
        assert_eq!((outbound.len(), outbound.bytes()), (3, 10));
        assert_eq!(open().push(of(0), &limits.with_messages(0)), Push::Full(of(0)));
    }

    #[test]
    fn a_large_message_is_taken_alone() {
        let outbound = open();
        let limits = limits(3, 10, 100);
        assert_eq!(outbound.push(of(100), &limits), Push::Queued);
        assert_eq!(outbound.push(of(1), &limits), Push::Full(of(1)));
        assert_eq!(outbound.pop(), Some(of(100)));
        assert_eq!(outbound.push(of(1), &limits), Push::Queued);
        assert_eq!(outbound.push(of(100), &limits), Push::Full(of(100)));
    }

    #[test]
    fn a_closed_queue_says_so_and_can_still_be_read() {
        let (outbound, limits) = (open(), OutboundLimits::default());
        assert_eq!(outbound.push("last".into(), &limits), Push::Queued);
        outbound.close();
        assert_eq!(outbound.push("late".into(), &limits), Push::Closed("late".into()));
        assert_eq!(outbound.pop(), Some("last".into()));
        assert_eq!(Outbound::default().push("early".into(), &limits), Push::Closed("early".into()));
    }

    #[test]
    fn the_next_occupant_never_sees_what_waited_for_the_last() {
        let (mut outbound, limits) = (open(), OutboundLimits::default());
        assert_eq!(outbound.push(of(7), &limits), Push::Queued);
        assert_eq!(outbound.push(of(8), &limits), Push::Queued);
        assert_eq!(outbound.clear(), Cleared { messages: 2, bytes: 15 });
        assert_eq!(outbound.push(of(1), &limits), Push::Closed(of(1)));
        assert_eq!(outbound.reopen(), Cleared::default());
        assert_eq!((outbound.len(), outbound.bytes(), outbound.pop()), (0, 0, None));
        assert_eq!(outbound.push(of(1), &limits), Push::Queued);
    }

    #[test]
    fn a_buffer_that_grew_is_given_back_and_a_small_one_is_kept() {
        let (mut outbound, limits) = (open(), OutboundLimits::default());
        for _ in 0..limits.messages() {
            assert_eq!(outbound.push(Message::text_static("x"), &limits), Push::Queued);
        }
        let _ = outbound.clear();
        assert_eq!(outbound.queue.lock().messages.capacity(), RETAINED_MESSAGES);

        let _ = outbound.reopen();
        for _ in 0..100 {
            for _ in 0..RETAINED_MESSAGES {
                assert_eq!(outbound.push(Message::text_static("x"), &limits), Push::Queued);
            }
            while outbound.pop().is_some() {}
        }
        assert_eq!(outbound.queue.lock().messages.capacity(), RETAINED_MESSAGES, "no growth within it");
    }

    #[test]
    fn a_payload_that_panics_on_drop_does_not_stop_the_clearing() {
        struct Spiteful;
        impl AsRef<[u8]> for Spiteful {
            fn as_ref(&self) -> &[u8] {
                b"spite"
            }
        }
        impl Drop for Spiteful {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let (mut outbound, limits) = (open(), OutboundLimits::default());
        for _ in 0..3 {
            let message = Message::binary(Bytes::from_owner(Spiteful));
            assert_eq!(outbound.push(message, &limits), Push::Queued);
        }
        assert_eq!(outbound.clear(), Cleared { messages: 3, bytes: 15 });
        assert_eq!((outbound.len(), outbound.queue.lock().messages.len()), (0, 0));
    }

    #[test]
    fn senders_on_many_threads_lose_and_invent_nothing() {
        const SENDERS: usize = 3;
        const EACH: usize = 2_000;
        let outbound = open();
        let limits = limits(16, 64, 64);
        thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| {
                    for number in 0..EACH {
                        let mut message = of(1 + number % 7);
                        loop {
                            match outbound.push(message, &limits) {
                                Push::Queued => break,
                                Push::Full(back) => message = back,
                                Push::Closed(_) => panic!("nobody closed it"),
                            }
                            thread::yield_now();
                        }
                    }
                });
            }
            let expected: usize = SENDERS * (0..EACH).map(|number| 1 + number % 7).sum::<usize>();
            let (mut messages, mut bytes) = (0, 0);
            while messages < SENDERS * EACH {
                assert!(outbound.bytes() <= 64 && outbound.len() <= 16);
                match outbound.pop() {
                    Some(message) => {
                        messages += 1;
                        bytes += message.len();
                    }
                    None => thread::yield_now(),
                }
            }
            assert_eq!(bytes, expected);
        });
        assert_eq!((outbound.len(), outbound.bytes()), (0, 0));
    }
}
