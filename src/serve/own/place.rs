//! Where bytes lie that are on their way in or out.

use crate::manager::{Leased, Room, Scratch};
use std::mem;

/// So few bytes need no buffer: the head of a frame, or a part of one.
const INLINE: usize = 32;

/// The largest buffer that comes from a shelf.
const LARGEST_SIZE: usize = 1 << 20;

/// More bytes than these stay in the buffer that they were read into.
const MOVED: usize = 4 << 10;

/// Nothing, a few bytes, the thread's own buffer for the length of a poll, or one that is leased.
#[derive(Debug, Default)]
pub(super) enum Place {
    #[default]
    Nowhere,
    Inline([u8; INLINE]),
    Scratch(Scratch),
    Leased(Leased),
    /// Not counted: where the pool's limit is used up and something has to lie somewhere all the same.
    Unpaid(Box<[u8]>),
}

impl Place {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Nowhere => &[],
            Self::Inline(bytes) => bytes,
            Self::Scratch(bytes) => bytes,
            Self::Leased(bytes) => bytes,
            Self::Unpaid(bytes) => bytes,
        }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Nowhere => &mut [],
            Self::Inline(bytes) => bytes,
            Self::Scratch(bytes) => bytes,
            Self::Leased(bytes) => bytes,
            Self::Unpaid(bytes) => bytes,
        }
    }

    /// Gives back what is leased.
    pub(super) fn vacate(&mut self, room: &Room) {
        if let Self::Leased(leased) = mem::take(self) {
            room.bytes.give(leased);
        }
    }

    /// Moves the first `used` bytes to where there is room for `more` behind them.
    pub(super) fn make_room(&mut self, used: usize, more: usize, room: &Room) {
        let scratch = room.bytes.lease_scratch();
        let fitting = if used + more <= scratch.len() {
            Self::Scratch(scratch)
        } else {
            let leased = room.bytes.lease(used + more).map(Self::Leased);
            leased.unwrap_or_else(|| Self::Unpaid(vec![0; used + more].into_boxed_slice()))
        };
        let mut old = std::mem::replace(self, fitting);
        self.bytes_mut()[..used].copy_from_slice(&old.bytes()[..used]);
        old.vacate(room);
    }

    /// Moves the first `used` bytes into a larger buffer. `false`: there is none.
    #[must_use]
    pub(super) fn grow(&mut self, used: usize, room: &Room) -> bool {
        let len = self.bytes().len();
        // The next size that there is; beyond those a buffer is made to measure, so it has to be doubled.
        let at_least = if len < LARGEST_SIZE { len + 1 } else { 2 * len };
        let Some(mut larger) = room.bytes.lease(at_least) else { return false };
        larger[..used].copy_from_slice(&self.bytes()[..used]);
        self.vacate(room);
        *self = Self::Leased(larger);
        true
    }

    /// Moves the first `used` bytes to where they may lie for long, and as little as possible besides them.
    /// If the pool's limit is used up, they stay where they are.
    pub(super) fn put_aside(&mut self, used: usize, room: &Room) {
        if used <= INLINE {
            if !matches!(self, Self::Inline(_)) {
                let mut inline = [0; INLINE];
                inline[..used].copy_from_slice(&self.bytes()[..used]);
                self.vacate(room);
                *self = Self::Inline(inline);
            }
            return;
        }
        if used > MOVED && matches!(self, Self::Scratch(_)) {
            if let Self::Scratch(scratch) = mem::take(self) {
                *self = match room.bytes.keep(scratch) {
                    Ok(leased) => Self::Leased(leased),
                    Err(scratch) => Self::Scratch(scratch),
                };
            }
            return;
        }
        let is_fitting = match self {
            Self::Leased(leased) => leased.len() <= 4 * used,
            _ => false,
        };
        if !is_fitting && let Some(mut fitting) = room.bytes.lease(used) {
            if matches!(self, Self::Leased(_)) && fitting.len() >= self.bytes().len() {
                room.bytes.give(fitting);
                return;
            }
            fitting[..used].copy_from_slice(&self.bytes()[..used]);
            self.vacate(room);
            *self = Self::Leased(fitting);
        }
    }
}
