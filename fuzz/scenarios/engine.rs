//! What a client sends, frame by frame or as any bytes, in any cuts: the engine and tungstenite say the
//! same about it, but for the differences that [`agree`] names.

use std::io::{self, Read, Write};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};
use ws_manager_pool::engine::{Decoder, Found, Kind, Limits, Violation};

/// A byte for each limit, four for the cuts, one for the shape of the rest.
pub(crate) fn run(data: &[u8]) {
    let [frame, message, a, b, c, d, shape, rest @ ..] = data else { return };
    let limits = Limits { frame: limit(*frame), message: limit(*message) };
    let stream = if shape % 2 == 0 { rest.to_vec() } else { frames(rest) };
    agree(&stream, &limits, &[*a, *b, *c, *d]);
}

/// At least a control frame: tungstenite's limit is for those, too.
fn limit(byte: u8) -> usize {
    125 + usize::from(byte) * 300
}

/// Frames that are near to right: each of a head, a byte of faults, a length and its payload.
fn frames(mut script: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    while let [first, faults, length, rest @ ..] = script
        && stream.len() < 200_000
    {
        let length = match length {
            250 => 126,
            251 => 1_000,
            252 => 65_535,
            253 => 65_536,
            short => usize::from(*short).min(rest.len()),
        };
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        let first = if faults & 1 == 0 { first & 0x8f } else { *first };
        let width = match length {
            _ if faults & 6 == 6 => 8,
            _ if faults & 6 == 4 && length <= 65_535 => 2,
            0..=125 => 0,
            126..=65_535 => 2,
            _ => 8,
        };
        let masked = faults & 0xf8 != 0xf8;
        push_head(&mut stream, first, length, width, masked);
        let mask = masked.then_some([first, *faults, 0x5a, 0]);
        if let Some(mask) = mask {
            stream.extend(mask);
        }
        let mask = mask.unwrap_or_default();
        let plain = payload.iter().copied().chain(std::iter::repeat(b'x')).take(length);
        stream.extend(plain.zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        script = rest;
    }
    stream.extend(script);
    stream
}

/// A head with its length in so many extra bytes, up to the mask.
pub(crate) fn push_head(stream: &mut Vec<u8>, first: u8, length: usize, width: usize, masked: bool) {
    let high = if masked { 0x80 } else { 0 };
    stream.push(first);
    stream.push(high | if width == 0 { length as u8 } else { 126 + u8::from(width == 8) });
    stream.extend(&(length as u64).to_be_bytes()[8 - width..]);
}

/// What a stream means.
#[derive(Debug, PartialEq)]
pub(crate) struct Heard {
    pub(crate) events: Vec<Event>,
    pub(crate) end: End,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, Vec<u8>)>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// No more bytes.
    Silence,
    /// A close frame.
    Closed,
    Violation(Violation),
}

/// Both say the same about the stream, however it is cut.
///
/// | tungstenite | the engine | why |
/// | --- | --- | --- |
/// | takes a length that could be written shorter, also of a control frame, and calls one of 64 bits too large | refuses it: protocol | RFC 6455, 5.2 |
/// | hands a close frame with a code that must not be sent on, as if the peer had said 1002 | refuses it: protocol | a close that was not agreed on is no close |
/// | does not know 1014 | knows it | registered since |
/// | looks at the reason of a close frame before the code | at the code first | the order in which they come |
/// | looks at a frame's size before most rules | after them | whoever breaks the protocol is told so |
/// | judges a frame when all of it has come | a head by the byte, text by the character | an answer to nonsense costs nobody a buffer |
pub(crate) fn agree(stream: &[u8], limits: &Limits, cuts: &[u8]) {
    let ours = engine(stream, limits, cuts);
    assert_eq!(ours, engine(stream, limits, &[]), "cut and whole");
    let theirs = tungstenite(stream, limits, cuts);
    if is_same(&ours, &theirs) || is_a_known_difference(&ours, &theirs) {
        return;
    }
    // What is wrong already would be wrong for tungstenite, too, once all of the frame is there.
    let is_early = matches!(ours.end, End::Violation(_)) && theirs.end == End::Silence;
    assert!(is_early && ours.events == theirs.events, "{ours:?}\n{theirs:?}");
    let mut longer = stream.to_vec();
    longer.resize(stream.len() + limits.frame + 14, 0);
    let theirs = tungstenite(&longer, limits, cuts);
    let agrees = is_same(&ours, &theirs) || is_a_known_difference(&ours, &theirs);
    assert!(agrees, "{ours:?}\nonce complete {theirs:?}");
}

fn is_same(ours: &Heard, theirs: &Heard) -> bool {
    let is_same_end = match (ours.end, theirs.end) {
        (End::Violation(Violation::Protocol(_)), End::Violation(Violation::Protocol(_))) => true,
        (ours, theirs) => ours == theirs,
    };
    is_same_end && ours.events == theirs.events
}

fn is_a_known_difference(ours: &Heard, theirs: &Heard) -> bool {
    let not_agreed = Event::Close(Some((1002, b"Protocol violation".to_vec())));
    match (ours.end, theirs.end) {
        (End::Violation(Violation::Protocol(rule)), _) if rule.contains("length") => {
            theirs.events.starts_with(&ours.events)
        }
        (End::Violation(Violation::Protocol(rule)), End::Closed) if rule.starts_with("a close frame") => {
            theirs.events.strip_prefix(&*ours.events) == Some(&[not_agreed])
        }
        (End::Violation(Violation::Protocol(rule)), End::Violation(Violation::InvalidUtf8)) => {
            rule.starts_with("a close frame") && ours.events == theirs.events
        }
        (End::Violation(Violation::Protocol(_)), End::Violation(Violation::TooLarge)) => {
            ours.events == theirs.events
        }
        (End::Closed, End::Closed) => {
            let mut translated = ours.events.clone();
            if let Some(close @ Event::Close(Some((1014, _)))) = translated.last_mut() {
                *close = not_agreed;
            }
            translated == theirs.events
        }
        _ => false,
    }
}

/// The lengths of the pieces, over and over; a zero, or none, is all the rest.
fn pieces<'a>(mut stream: &'a [u8], cuts: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut cuts = cuts.iter().cycle();
    std::iter::from_fn(move || {
        let wanted = cuts.next().map_or(0, |&cut| usize::from(cut));
        let (piece, rest) =
            stream.split_at(if wanted == 0 { stream.len() } else { wanted.min(stream.len()) });
        stream = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

pub(crate) fn engine(stream: &[u8], limits: &Limits, cuts: &[u8]) -> Heard {
    let mut heard = Heard { events: Vec::new(), end: End::Silence };
    let mut decoder = Decoder::new();
    let mut bytes = stream.to_vec();
    let mut message = Vec::new();
    // What has come, what was consumed of it, and how much must have come before a step finds anything.
    let (mut come, mut consumed, mut needed) = (0, 0, 0);
    for piece in pieces(stream, cuts) {
        come += piece.len();
        while consumed < come {
            let unread = &mut bytes[consumed..come];
            let step = match decoder.step(unread, limits) {
                Ok(step) => step,
                Err(violation) => {
                    // Of no use any more, and harmless.
                    let _ = decoder.step(unread, limits);
                    heard.end = End::Violation(violation);
                    return heard;
                }
            };
            let copy = |range: std::ops::Range<usize>| unread[range].to_vec();
            match step.found {
                Found::NeedsMore { at_least } => {
                    assert!(step.consumed == 0 && at_least > unread.len() && at_least <= 131);
                    needed = consumed + at_least;
                    break;
                }
                Found::Data(chunk) => {
                    assert_eq!(chunk.payload.end, step.consumed);
                    assert_eq!(chunk.is_last, decoder.is_idle());
                    assert_eq!(chunk.frame_left, decoder.frame_left());
                    assert!(!chunk.is_first || message.is_empty());
                    message.extend(copy(chunk.payload));
                    if chunk.is_last {
                        let message = std::mem::take(&mut message);
                        heard.events.push(match chunk.kind {
                            Kind::Text => Event::Text(message),
                            Kind::Binary => Event::Binary(message),
                        });
                    }
                }
                Found::Ping(payload) => heard.events.push(Event::Ping(copy(payload))),
                Found::Pong(payload) => heard.events.push(Event::Pong(copy(payload))),
                Found::Close { code, reason } => {
                    heard.events.push(Event::Close(code.map(|code| (code, copy(reason)))));
                    heard.end = End::Closed;
                    return heard;
                }
            }
            assert!(step.consumed > 0 && come >= needed, "it found something in less than it asked for");
            consumed += step.consumed;
            if decoder.is_idle() {
                assert_eq!(decoder, Decoder::new(), "it may be dropped");
            }
        }
        assert_eq!(bytes[consumed..come], stream[consumed..come], "what was not consumed was not touched");
    }
    heard
}

fn tungstenite(stream: &[u8], limits: &Limits, cuts: &[u8]) -> Heard {
    let wire = Wire(pieces(stream, cuts).map(<[u8]>::to_vec).collect::<Vec<_>>().into());
    let config = WebSocketConfig::default()
        .max_frame_size(Some(limits.frame))
        .max_message_size(Some(limits.message))
        .read_buffer_size(1 << 10);
    let mut socket = WebSocket::from_raw_socket(wire, Role::Server, Some(config));
    let mut heard = Heard { events: Vec::new(), end: End::Silence };
    loop {
        let event = match socket.read() {
            Ok(Message::Text(text)) => Event::Text(text.as_bytes().to_vec()),
            Ok(Message::Binary(bytes)) => Event::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Event::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Event::Pong(bytes.to_vec()),
            Ok(Message::Close(close)) => {
                let close = close.map(|close| (close.code.into(), close.reason.as_bytes().to_vec()));
                heard.events.push(Event::Close(close));
                heard.end = End::Closed;
                return heard;
            }
            Ok(Message::Frame(frame)) => panic!("{frame:?} was read"),
            Err(error) => {
                heard.end = match error {
                    Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Silence,
                    Error::Protocol(_) => End::Violation(Violation::Protocol("some rule")),
                    Error::Utf8(_) => End::Violation(Violation::InvalidUtf8),
                    Error::Capacity(_) => End::Violation(Violation::TooLarge),
                    error => panic!("{error}"),
                };
                return heard;
            }
        };
        heard.events.push(event);
    }
}

/// Bytes to read in their pieces; what is written is forgotten.
struct Wire(std::collections::VecDeque<Vec<u8>>);

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.0.front_mut() else { return Ok(0) };
        let len = piece.len().min(buffer.len());
        buffer[..len].copy_from_slice(&piece[..len]);
        piece.drain(..len);
        if piece.is_empty() {
            self.0.pop_front();
        }
        Ok(len)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
