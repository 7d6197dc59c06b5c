//! How much may wait for one connection.

use crate::manager::message::OverflowPolicy;

/// How much may wait for one connection.
///
/// ```
/// use ws_manager_pool::manager::OutboundLimits;
///
/// let limits = OutboundLimits::default().with_messages(16);
/// assert_eq!((limits.messages(), limits.bytes()), (16, 256 * 1024));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct OutboundLimits {
    messages: usize,
    bytes: usize,
    message_bytes: usize,
    overflow: OverflowPolicy,
    high_water: f64,
    low_water: f64,
}

impl Default for OutboundLimits {
    /// 64 messages, 256 KiB in all, 1 MiB for one message, [`OverflowPolicy::DropNewest`], high from 0.75
    /// and low again at 0.25.
    fn default() -> Self {
        Self {
            messages: 64,
            bytes: 256 * 1024,
            message_bytes: 1024 * 1024,
            overflow: OverflowPolicy::DropNewest,
            high_water: 0.75,
            low_water: 0.25,
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

    /// Share of [`messages`](Self::messages) or [`bytes`](Self::bytes) from which on the queue is high.
    pub const fn high_water(&self) -> f64 {
        self.high_water
    }

    /// Share of [`messages`](Self::messages) and [`bytes`](Self::bytes) at which a high queue is low again.
    pub const fn low_water(&self) -> f64 {
        self.low_water
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

    /// Sets [`high_water`](Self::high_water).
    #[must_use]
    pub const fn with_high_water(mut self, share: f64) -> Self {
        self.high_water = share;
        self
    }

    /// Sets [`low_water`](Self::low_water).
    #[must_use]
    pub const fn with_low_water(mut self, share: f64) -> Self {
        self.low_water = share;
        self
    }

    /// Is a queue of so much high?
    pub(super) fn is_high(&self, messages: usize, bytes: usize) -> bool {
        messages as f64 >= self.high_water * self.messages as f64
            || bytes as f64 >= self.high_water * self.bytes as f64
    }

    /// How many messages, and bytes, are low.
    pub(super) fn low(&self) -> (usize, usize) {
        let share = |of: usize| (self.low_water * of as f64) as usize;
        (share(self.messages), share(self.bytes))
    }

    /// Is a message of this size never taken, however empty the queue is?
    pub(crate) const fn is_hopeless(&self, size: usize) -> bool {
        size > self.message_bytes || self.messages == 0
    }

    /// Is there room for `size` bytes behind `messages` messages of `bytes` bytes?
    pub(super) const fn admit(&self, messages: usize, bytes: usize, size: usize) -> bool {
        size <= self.message_bytes
            && messages < self.messages
            && (messages == 0 || bytes.saturating_add(size) <= self.bytes)
    }
}
