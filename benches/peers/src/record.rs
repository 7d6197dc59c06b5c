//! The *manager* of all rows, and the one operation that all rows do with it.
//!
//! 200 bytes inline, 3 strings, two buffers of 4 KiB, a queue of 64 and a list: 10.5 KB in 8 allocations
//! (boxed). The operation: make a 36-byte id, take a manager, set its 3 strings, and at the end clear all of it.

use bytes::Bytes;
use std::collections::VecDeque;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// Bytes that one boxed manager takes from the allocator.
pub const RECORD_BYTES: usize = size_of::<Record>() + HEAP_BYTES;
pub const HEAP_BYTES: usize = 3 * NAME + 2 * BUFFER + QUEUE * size_of::<Bytes>() + TOPICS * size_of::<u64>();

pub const NAME: usize = 40;
pub const BUFFER: usize = 4_096;
pub const QUEUE: usize = 64;
pub const TOPICS: usize = 8;

/// What a server keeps for a connection.
pub struct Record {
    pub user: String,
    pub thread: String,
    pub run: String,
    pub read: Vec<u8>,
    pub write: Vec<u8>,
    pub queue: VecDeque<Bytes>,
    pub topics: Vec<u64>,
    pub received: u64,
    pub sent: u64,
    pub errors: u64,
}

const _: () = assert!(size_of::<Record>() == 200);

impl Default for Record {
    fn default() -> Self {
        Self {
            user: String::with_capacity(NAME),
            thread: String::with_capacity(NAME),
            run: String::with_capacity(NAME),
            read: Vec::with_capacity(BUFFER),
            write: Vec::with_capacity(BUFFER),
            queue: VecDeque::with_capacity(QUEUE),
            topics: Vec::with_capacity(TOPICS),
            received: 0,
            sent: 0,
            errors: 0,
        }
    }
}

impl Record {
    pub fn fresh(id: &str) -> Self {
        let mut record = Self::default();
        record.begin(id);
        record
    }

    #[inline]
    pub fn begin(&mut self, id: &str) {
        self.user.push_str(USER);
        self.thread.push_str(id);
        self.run.push_str(id);
        self.received = 1;
    }

    #[inline]
    pub fn clear(&mut self) {
        self.user.clear();
        self.thread.clear();
        self.run.clear();
        self.read.clear();
        self.write.clear();
        self.queue.clear();
        self.topics.clear();
        (self.received, self.sent, self.errors) = (0, 0, 0);
    }
}

impl ws_manager_pool::Session for Record {
    fn reset(&mut self) {
        self.clear();
    }
}

impl sharded_slab::Clear for Record {
    fn clear(&mut self) {
        Record::clear(self);
    }
}

/// The user of all rows that have but one.
pub const USER: &str = "user-4711";

/// Where a thread's ids come from: cheap and the same for all rows, so that ids hide nothing.
pub struct Ids {
    lane: usize,
    state: u64,
    text: [u8; Hyphenated::LENGTH],
}

impl Ids {
    /// For the thread of this number: no two have the same ids.
    pub fn new(lane: usize) -> Self {
        let state = (lane as u64).wrapping_mul(0xd134_2543_de82_ef95);
        Self { lane, state, text: [0; Hyphenated::LENGTH] }
    }

    pub fn lane(&self) -> usize {
        self.lane
    }

    /// A fresh one of 36 bytes, in place.
    #[inline]
    pub fn fresh(&mut self) -> &str {
        let number = u128::from(self.number()) << 64 | u128::from(self.number());
        Uuid::from_u128(number).hyphenated().encode_lower(&mut self.text)
    }

    /// Splitmix64.
    #[inline]
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `end`, which is small: the bias is of no interest.
    #[inline]
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() >> 32) as usize % end
    }
}
