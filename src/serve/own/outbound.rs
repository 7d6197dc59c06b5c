//! What is to be written: small frames side by side in a buffer, the payload of a large one from where it
//! is, and what is said behind it in the buffer again.
//!
//! ```text
//!   buffer  ……[▓▓▓▓▓▓▓▓▓▓▓▓▓]          [▒▒▒▒▒▒]┄┄ free ┄┄
//!             start      split          split  end
//!   tail                    └─[▓▓▓▓▓▓]─┘
//! ```

use super::place::Place;
use crate::engine::{Opcode, head};
use crate::manager::Room;
use crate::serve::transport::Fault;
use bytes::{Buf, Bytes};
use std::cell::Cell;
use std::io::IoSlice;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// A payload of more bytes is written from where it is.
const COPIED: usize = 4 << 10;

/// As many bytes may wait before one more message has no room. With a message that is copied, and with the
/// control frames that may come behind it, they fit into a thread's buffer.
const WAITING: usize = 8 << 10;

/// Nothing, while everything is written.
#[derive(Default)]
pub(super) struct Outbound(Option<Box<Unsent>>);

#[derive(Default)]
struct Unsent {
    place: Place,
    start: usize,
    split: usize,
    end: usize,
    tail: Bytes,
}

thread_local! {
    /// One that is not in use.
    static SPARE: Cell<Option<Box<Unsent>>> = const { Cell::new(None) };
}

impl Outbound {
    /// These bytes of a place are to be written, before anything else.
    pub(super) fn with(place: Place, bytes: Range<usize>) -> Self {
        let mut outbound = Self::default();
        let Range { start, end } = bytes;
        *outbound.open() = Unsent { place, start, split: end, end, tail: Bytes::new() };
        outbound
    }

    pub(super) fn has_room(&self) -> bool {
        self.0.as_ref().is_none_or(|unsent| unsent.tail.is_empty() && unsent.end - unsent.start < WAITING)
    }

    /// Takes a message. There must be [room](Self::has_room).
    pub(super) fn put(&mut self, opcode: Opcode, payload: Bytes, room: &Room) {
        if payload.len() <= COPIED {
            return self.put_short(opcode, &payload, room);
        }
        let unsent = self.open();
        unsent.write(&head(opcode, payload.len()), &[], room);
        unsent.tail = payload;
    }

    /// Takes a frame of at most 4 KiB. A control frame needs no room: few of them come unasked.
    pub(super) fn put_short(&mut self, opcode: Opcode, payload: &[u8], room: &Room) {
        self.open().write(&head(opcode, payload.len()), payload, room);
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
        room: &Room,
    ) -> Poll<Result<(), Fault>> {
        while let Some(unsent) = &mut self.0 {
            if unsent.is_over() {
                self.close(room);
                break;
            }
            match ready!(unsent.poll_write_some(cx, io)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(Fault::Socket)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The task sleeps: what is not written lies where it may lie for long.
    pub(super) fn rest(&mut self, room: &Room) {
        if let Some(unsent) = &mut self.0
            && matches!(unsent.place, Place::Scratch(_))
        {
            unsent.compact();
            unsent.place.put_aside(unsent.end, room);
        }
    }

    pub(super) fn close(&mut self, room: &Room) {
        if let Some(mut unsent) = self.0.take() {
            unsent.place.vacate(room);
            *unsent = Unsent::default();
            let _torn_down = SPARE.try_with(|spare| spare.set(Some(unsent)));
        }
    }

    fn open(&mut self) -> &mut Unsent {
        self.0.get_or_insert_with(|| SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default())
    }
}

impl Unsent {
    fn is_over(&self) -> bool {
        self.start == self.end && self.tail.is_empty()
    }

    fn write(&mut self, head: &[u8], payload: &[u8], room: &Room) {
        let len = head.len() + payload.len();
        if self.place.bytes().len() - self.end < len {
            self.compact();
            if self.place.bytes().len() - self.end < len {
                self.place.make_room(self.end, len, room);
            }
        }
        let free = &mut self.place.bytes_mut()[self.end..];
        free[..head.len()].copy_from_slice(head);
        free[head.len()..len].copy_from_slice(payload);
        self.end += len;
        if self.tail.is_empty() {
            self.split = self.end;
        }
    }

    fn poll_write_some(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<std::io::Result<usize>> {
        let bytes = self.place.bytes();
        let io = Pin::new(io);
        let written = if self.tail.is_empty() {
            ready!(io.poll_write(cx, &bytes[self.start..self.end]))?
        } else if io.is_write_vectored() {
            let before = IoSlice::new(&bytes[self.start..self.split]);
            let after = IoSlice::new(&bytes[self.split..self.end]);
            ready!(io.poll_write_vectored(cx, &[before, IoSlice::new(&self.tail), after]))?
        } else if self.start < self.split {
            ready!(io.poll_write(cx, &bytes[self.start..self.split]))?
        } else {
            ready!(io.poll_write(cx, &self.tail))?
        };
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, written: usize) {
        if self.tail.is_empty() {
            self.start += written;
            return;
        }
        let before = written.min(self.split - self.start);
        self.start += before;
        let of_tail = (written - before).min(self.tail.len());
        self.tail.advance(of_tail);
        if self.tail.is_empty() {
            self.tail = Bytes::new(); // lets the payload go
            self.start += written - before - of_tail;
            self.split = self.end;
        }
    }

    fn compact(&mut self) {
        self.place.bytes_mut().copy_within(self.start..self.end, 0);
        (self.split, self.end) = (self.split - self.start, self.end - self.start);
        self.start = 0;
    }
}
