//! Decodes what a client sends.

use super::frame::{Kind, LONGEST_CONTROL, Opcode, Violation, is_close_code};
use super::mask;
use super::utf8::{NotUtf8, Tail};
use std::ops::Range;
use std::str::from_utf8;

/// How large a client's messages may be, in bytes. Control frames have a limit of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The payload of one frame.
    pub frame: usize,
    /// The payload of one message, all its frames together.
    pub message: usize,
}

/// What must be remembered of a connection between two reads. While it [is idle](Self::is_idle) that is
/// nothing: it may be dropped, and the next byte given to a new one.
///
/// Payload is handed out as it comes, never kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder {
    /// Of the data frame whose head was read last: the payload that is still to come.
    frame_left: usize,
    /// Of the message under way: what the heads so far announced.
    message: usize,
    /// Its first byte is that of the next byte of payload.
    mask: [u8; 4],
    /// Of the text under way.
    tail: Tail,
    /// Of the message under way.
    kind: Option<Kind>,
    /// Whether the frame whose head was read last ends the message.
    is_final: bool,
}

const _: () = assert!(size_of::<Decoder>() <= 40);

/// What a [step](Decoder::step) found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// How many bytes are done with, from the front of the input. All ranges count from there, too.
    pub consumed: usize,
    /// What they were.
    pub found: Found,
}

/// See [`Decoded`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Not enough to say anything; nothing was consumed. Step again when there are more.
    NeedsMore {
        /// How many bytes the input must have, all in all, before anything can be found; at most 131.
        at_least: usize,
    },
    /// A piece of a message.
    Data(Chunk),
    /// A ping, to be answered with the same payload.
    Ping(Range<usize>),
    /// A pong.
    Pong(Range<usize>),
    /// The client closes. What comes after it is not to be read.
    Close {
        /// A code that may be sent back; `None` if the frame was empty.
        code: Option<u16>,
        /// UTF-8, at most 123 bytes.
        reason: Range<usize>,
    },
}

/// A piece of a message, its mask taken off in place. May be empty: the head of a frame alone, which says
/// how much will come; a frame without payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it stands in the input.
    pub payload: Range<usize>,
    /// Text is checked as far as it goes: what follows cannot make it invalid, except that the message
    /// must not end within a character.
    pub kind: Kind,
    /// Whether the message begins with it.
    pub is_first: bool,
    /// Whether the message is complete with it.
    pub is_last: bool,
    /// How much of the same frame is still to come. It may be read to anywhere, and stepped over there.
    pub frame_left: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// The state before the first frame, and after each message.
    pub const fn new() -> Self {
        let tail = Tail::new();
        Self { frame_left: 0, message: 0, mask: [0; 4], tail, kind: None, is_final: false }
    }

    /// Whether no message is under way. A frame of which only the head has come, or a part of it, was not
    /// consumed.
    pub const fn is_idle(&self) -> bool {
        self.kind.is_none()
    }

    /// How much payload of the present frame is still to come.
    pub const fn frame_left(&self) -> usize {
        self.frame_left
    }

    /// One step over the bytes that were read and not consumed yet. Masks are taken off in place, of what
    /// is consumed only.
    ///
    /// # Errors
    ///
    /// [`Violation`], as soon as the bytes leave no doubt. The connection is over then; the decoder says
    /// nothing of use any more.
    pub fn step(&mut self, input: &mut [u8], limits: &Limits) -> Result<Decoded, Violation> {
        if self.frame_left > 0 {
            if input.is_empty() {
                return Ok(needs_more(1));
            }
            return self.chunk(input, 0, false);
        }
        let head = match self.head(input, limits)? {
            Ok(head) => head,
            Err(at_least) => return Ok(needs_more(at_least)),
        };
        if head.opcode.is_control() {
            return control(head, input);
        }
        let is_first = self.begin_frame(&head);
        self.chunk(input, head.len, is_first)
    }

    /// The head of a frame, or how many bytes it takes to go on. Each byte is judged as soon as it is there.
    #[inline]
    fn head(&self, input: &[u8], limits: &Limits) -> Result<Result<Head, usize>, Violation> {
        let Some(&first) = input.first() else { return Ok(Err(SHORTEST_HEAD)) };
        if first & RESERVED_BITS != 0 && !fault!("reserved_bits_ignored") {
            return Err(Violation::Protocol("a reserved bit is set, and no extension was agreed on"));
        }
        let Some(opcode) = Opcode::from_bits(first & OPCODE) else {
            return Err(Violation::Protocol("a frame has a reserved opcode"));
        };
        let is_final = first & FINAL != 0;
        if opcode.is_control() {
            if !is_final {
                return Err(Violation::Protocol("a control frame is fragmented"));
            }
        } else if (opcode == Opcode::Continuation) != self.kind.is_some() {
            return Err(Violation::Protocol(match opcode {
                Opcode::Continuation => "a frame continues a message that has not begun",
                _ => "a message begins within another",
            }));
        }

        let Some(&second) = input.get(1) else { return Ok(Err(SHORTEST_HEAD)) };
        if second & MASKED == 0 && !fault!("unmasked_is_taken") {
            return Err(Violation::Protocol("a client's frame is not masked"));
        }
        let short = usize::from(second & SHORT_LENGTH);
        if opcode.is_control() {
            if short > LONGEST_CONTROL {
                return Err(Violation::Protocol("a control frame has a length above 125"));
            }
            if opcode == Opcode::Close && short == 1 && !fault!("half_a_code_is_taken") {
                return Err(Violation::Protocol("a close frame has half a code"));
            }
        }
        let (payload, at) = match short {
            0..=125 => (short as u64, 2),
            126 => match input[2..].first_chunk() {
                Some(&bytes) => (u64::from(u16::from_be_bytes(bytes)), 4),
                None => return Ok(Err(4 + MASK)),
            },
            _ => match input[2..].first_chunk() {
                Some(&bytes) => (u64::from_be_bytes(bytes), 10),
                None => return Ok(Err(10 + MASK)),
            },
        };
        let could_be_shorter = (at == 4 && payload <= 125) || (at == 10 && payload <= 0xffff);
        if could_be_shorter || payload >> 63 != 0 {
            return Err(Violation::Protocol("a length is not written in the one way that is allowed"));
        }
        let len = at + MASK;
        if opcode.is_control() {
            let whole = len + short;
            if input.len() < whole {
                return Ok(Err(whole));
            }
        } else if payload > limits.frame as u64
            || (payload > limits.message.saturating_sub(self.message) as u64
                && !fault!("message_without_limit"))
        {
            return Err(Violation::TooLarge);
        }
        let Some(&mask) = input[at..].first_chunk() else { return Ok(Err(len)) };
        // It is within the limits, which are of this type.
        Ok(Ok(Head { is_final, opcode, mask, payload: payload as usize, len }))
    }

    /// Whether a message begins with the frame.
    fn begin_frame(&mut self, head: &Head) -> bool {
        self.frame_left = head.payload;
        self.message += head.payload;
        self.mask = head.mask;
        self.is_final = head.is_final;
        let kind = match head.opcode {
            Opcode::Text => Kind::Text,
            Opcode::Binary => Kind::Binary,
            _ => return false,
        };
        self.kind = Some(kind);
        true
    }

    /// What there is, from `from` on, of the frame that has begun.
    fn chunk(&mut self, input: &mut [u8], from: usize, is_first: bool) -> Result<Decoded, Violation> {
        let len = self.frame_left.min(input.len() - from);
        let payload = from..from + len;
        let bytes = &mut input[payload.clone()];
        let is_ascii = mask::unmask(bytes, self.mask);
        if !fault!("mask_starts_again") {
            self.mask = mask::advance(self.mask, len);
        }
        self.frame_left -= len;
        let is_last = self.is_final && self.frame_left == 0;
        let kind = self.kind.unwrap_or(Kind::Binary);
        if kind == Kind::Text {
            let is_plain = is_ascii && self.tail.is_empty();
            if !is_plain {
                self.tail.check(bytes).map_err(|NotUtf8| Violation::InvalidUtf8)?;
                if is_last && !self.tail.is_empty() && !fault!("text_ends_in_a_character") {
                    return Err(Violation::InvalidUtf8);
                }
            }
        }
        let frame_left = self.frame_left;
        if is_last {
            *self = Self::new();
        }
        let consumed = payload.end;
        Ok(Decoded { consumed, found: Found::Data(Chunk { payload, kind, is_first, is_last, frame_left }) })
    }
}

struct Head {
    is_final: bool,
    opcode: Opcode,
    mask: [u8; 4],
    payload: usize,
    len: usize,
}

const FINAL: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const SHORT_LENGTH: u8 = 0x7f;
/// Bytes of a mask.
const MASK: usize = 4;
/// There is always a mask.
const SHORTEST_HEAD: usize = 2 + MASK;

fn needs_more(at_least: usize) -> Decoded {
    Decoded { consumed: 0, found: Found::NeedsMore { at_least } }
}

/// A control frame, all of which is there.
fn control(head: Head, input: &mut [u8]) -> Result<Decoded, Violation> {
    let consumed = head.len + head.payload;
    let mut payload = head.len..consumed;
    let bytes = &mut input[payload.clone()];
    mask::unmask(bytes, head.mask);
    let found = match head.opcode {
        Opcode::Ping => Found::Ping(payload),
        Opcode::Pong => Found::Pong(payload),
        _ => {
            let code = match bytes.split_first_chunk() {
                None => None,
                Some((&code, reason)) => {
                    let code = u16::from_be_bytes(code);
                    if !is_close_code(code) {
                        return Err(Violation::Protocol("a close frame has a code that must not be sent"));
                    }
                    from_utf8(reason).map_err(|_| Violation::InvalidUtf8)?;
                    payload.start += 2;
                    Some(code)
                }
            };
            Found::Close { code, reason: payload }
        }
    };
    Ok(Decoded { consumed, found })
}
