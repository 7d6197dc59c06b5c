//! What came in and has not been handled: read into the thread's buffer, decoded where it lies, and kept
//! only for as long as something of it is incomplete.
//!
//! ```text
//!            message: complete, or so far     unread: as it came in
//!  place  ……[══════════════════════════]……[▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒]┄┄┄┄┄ free ┄┄┄┄┄
//! ```
//!
//! Payload of a message that lies in several frames is moved down to the end of what there is of it; of a
//! long frame it is read to there in the first place.

use super::place::Place;
use crate::engine::{Decoder, Found, Kind, Limits, Violation};
use crate::manager::Room;
use crate::serve::application::Received;
use crate::serve::transport::CloseFrame;
use crate::serve::wire::{Inbox, Lack};
use bytes::Bytes;
use std::cell::Cell;
use std::ops::Range;

/// A connection's inbox. Nothing, while nothing is incomplete.
#[derive(Default)]
pub(in crate::serve) struct Inbound(Option<Box<Unread>>);

#[derive(Default)]
pub(super) struct Unread {
    place: Place,
    message: Range<usize>,
    unread: Range<usize>,
    decoder: Decoder,
    /// Bytes that must be there, from the first unread one, before anything more can be found.
    at_least: usize,
    /// There is no buffer for what may come.
    is_starved: bool,
}

/// What was found.
pub(super) enum Step {
    Message(Kind),
    /// To be answered with these bytes, of [`Unread::bytes`].
    Ping(Range<usize>),
    Pong,
    Close(Option<CloseFrame>),
    /// Nothing more before more is read.
    NeedsMore,
}

thread_local! {
    /// One that is not in use: a thread looks into one inbox at a time.
    static SPARE: Cell<Option<Box<Unread>>> = const { Cell::new(None) };
}

impl Inbound {
    /// Bytes that came in before the connection was ours.
    pub(super) fn with(already_read: &[u8], room: &Room) -> Self {
        let mut inbound = Self::default();
        let unread = inbound.open();
        unread.place.make_room(0, already_read.len(), room);
        unread.place.bytes_mut()[..already_read.len()].copy_from_slice(already_read);
        unread.unread = 0..already_read.len();
        inbound.rest(room);
        inbound
    }

    pub(super) fn open(&mut self) -> &mut Unread {
        self.0.get_or_insert_with(|| SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default())
    }

    fn close(&mut self, room: &Room) {
        if let Some(mut unread) = self.0.take() {
            if !fault!("inbound_never_given_back") {
                unread.place.vacate(room);
            }
            *unread = Unread::default();
            let _torn_down = SPARE.try_with(|spare| spare.set(Some(unread)));
        }
    }
}

impl Inbox for Inbound {
    fn message(&self, is_text: bool) -> Received<'_> {
        let message = self.0.as_ref().map_or(&[][..], |unread| &unread.place.bytes()[unread.message.clone()]);
        Received::borrowed(message, is_text)
    }

    fn settle(&mut self, room: &Room) {
        if let Some(unread) = &mut self.0
            && matches!(unread.place, Place::Scratch(_))
        {
            unread.put_aside(room);
        }
    }

    fn handled(&mut self, room: &Room) {
        let Some(unread) = &mut self.0 else { return };
        unread.message = unread.unread.start..unread.unread.start;
        if unread.unread.is_empty() {
            self.close(room);
        }
    }

    fn rest(&mut self, room: &Room) {
        let Some(unread) = &mut self.0 else { return };
        if !unread.has_begun() && !unread.is_starved {
            self.close(room);
        } else {
            unread.put_aside(room);
        }
    }

    fn lack(&self) -> Lack {
        let lack = |unread: &Unread| Lack {
            rest: unread.has_begun() || (unread.is_starved && fault!("starved_is_unfinished")),
            buffer: unread.is_starved,
        };
        self.0.as_deref().map_or(Lack::default(), lack)
    }

    fn let_go(&mut self, room: &Room) {
        self.close(room);
    }
}

impl Unread {
    /// What is next in what was read.
    pub(super) fn step(&mut self, limits: &Limits) -> Result<Step, Violation> {
        loop {
            let base = self.unread.start;
            let bytes = self.place.bytes_mut();
            let step = self.decoder.step(&mut bytes[self.unread.clone()], limits)?;
            self.unread.start += step.consumed;
            let moved = |range: Range<usize>| base + range.start..base + range.end;
            match step.found {
                Found::NeedsMore { at_least } => {
                    self.at_least = at_least;
                    return Ok(Step::NeedsMore);
                }
                Found::Data(chunk) => {
                    let payload = moved(chunk.payload);
                    if chunk.is_first {
                        self.message = payload;
                    } else {
                        let end = self.message.end + payload.len();
                        bytes.copy_within(payload, self.message.end);
                        self.message.end = end;
                    }
                    if chunk.is_last {
                        return Ok(Step::Message(chunk.kind));
                    }
                }
                Found::Ping(payload) => return Ok(Step::Ping(moved(payload))),
                Found::Pong(_) => return Ok(Step::Pong),
                Found::Close { code, reason } => {
                    let reason = Bytes::copy_from_slice(&bytes[moved(reason)]);
                    return Ok(Step::Close(code.map(|code| CloseFrame::new(code, reason))));
                }
            }
        }
    }

    /// Is something incomplete?
    fn has_begun(&self) -> bool {
        !self.decoder.is_idle() || !self.unread.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.place.bytes()
    }

    /// Free space behind what is there, for as much as is needed at least. `None`: there is no buffer for it.
    pub(super) fn space(&mut self, room: &Room) -> Option<&mut [u8]> {
        let needed = self.at_least.saturating_sub(self.unread.len()).max(1);
        if matches!(self.place, Place::Nowhere | Place::Inline(_)) {
            self.is_starved = room.bytes.refuses();
            if self.is_starved {
                return None;
            }
            let used = self.compact();
            self.place.make_room(used, needed, room);
        }
        if self.unread.is_empty() {
            self.unread = self.message.end..self.message.end;
        }
        if self.place.bytes().len() - self.unread.end < needed {
            let used = self.compact();
            let is_tight = self.place.bytes().len() - used < needed.max(self.place.bytes().len() / 4);
            self.is_starved = is_tight && !self.place.grow(used, room);
            if self.is_starved && self.place.bytes().len() - used < needed {
                return None;
            }
            self.is_starved = false;
        }
        Some(&mut self.place.bytes_mut()[self.unread.end..])
    }

    pub(super) fn filled(&mut self, bytes: usize) {
        self.unread.end += bytes;
    }

    fn put_aside(&mut self, room: &Room) {
        let used = self.compact();
        self.place.put_aside(used, room);
    }

    /// Moves everything to the front. How much it is. What lies there already is not touched: of a long
    /// message in many frames this is asked for at each of them.
    fn compact(&mut self) -> usize {
        let (message, unread) = (self.message.len(), self.unread.len());
        let bytes = self.place.bytes_mut();
        if self.message.start > 0 {
            bytes.copy_within(self.message.clone(), 0);
        }
        if self.unread.start > message {
            bytes.copy_within(self.unread.clone(), message);
        }
        self.message = 0..message;
        self.unread = message..message + unread;
        message + unread
    }
}
