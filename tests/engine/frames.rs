//! What RFC 6455 asks of a server, rule by rule, and at which byte the answer is clear.

use crate::scenario::{End, Event, engine, push_head};
use ws_manager_pool::engine::{Decoder, Found, Kind, Limits, Violation};

const LIMITS: Limits = Limits { frame: 70_000, message: 100_000 };
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

/// A right frame; `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let width = match payload.len() {
        0..=125 => 0,
        126..=65_535 => 2,
        _ => 8,
    };
    frame_of_width(first, payload, width)
}

fn frame_of_width(first: u8, payload: &[u8], width: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    push_head(&mut frame, first, payload.len(), width, true);
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// How many bytes it takes until the stream is refused, and for what.
fn refused(stream: &[u8]) -> Option<(usize, Violation)> {
    let violation = |len: usize| match engine(&stream[..len], &LIMITS, &[1]).end {
        End::Violation(violation) => Some(violation),
        _ => None,
    };
    let lengths: Vec<usize> = (0..=stream.len()).collect();
    let len = lengths.partition_point(|&len| violation(len).is_none());
    (len <= stream.len()).then(|| (len, violation(len).expect("it was refused")))
}

#[track_caller]
fn is_refused_at(stream: &[u8], byte: usize, rule: &str) {
    let (at, violation) = refused(stream).expect("it is refused");
    assert_eq!(violation, Violation::Protocol(violation.to_string().leak()));
    assert!(violation.to_string().contains(rule), "{violation}");
    assert_eq!(at, byte, "{violation}");
}

fn events(stream: &[u8]) -> Vec<Event> {
    let heard = engine(stream, &LIMITS, &[]);
    assert!(matches!(heard.end, End::Silence | End::Closed), "{heard:?}");
    heard.events
}

#[test]
fn every_length_around_the_three_forms_is_read() {
    for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
        let payload = vec![b'x'; length];
        assert_eq!(events(&frame(TEXT, &payload)), [Event::Text(payload.clone())]);
        assert_eq!(events(&frame(BINARY, &payload)), [Event::Binary(payload)]);
    }
}

#[test]
fn control_frames_stand_between_the_frames_of_a_message() {
    let stream = [
        frame(0x01, b"one "),
        frame(PING, b"are you there"),
        frame(0x00, b""),
        frame(0x8a, b"unasked"),
        frame(0x80, b"message"),
    ]
    .concat();
    let (ping, pong) = (Event::Ping(b"are you there".to_vec()), Event::Pong(b"unasked".to_vec()));
    assert_eq!(events(&stream), [ping, pong, Event::Text(b"one message".to_vec())]);
}

#[test]
fn a_client_masks_every_frame() {
    for first in [TEXT, BINARY, CLOSE, PING] {
        is_refused_at(&[first, 5, b'h', b'e', b'l', b'l', b'o'], 2, "not masked");
        is_refused_at(&[first, 0], 2, "not masked");
    }
}

#[test]
fn reserved_bits_are_refused_on_every_frame() {
    for bit in [0x40, 0x20, 0x10] {
        for first in [TEXT, BINARY, CLOSE, PING, 0x8a] {
            is_refused_at(&frame(first | bit, b""), 1, "reserved bit");
        }
    }
}

#[test]
fn reserved_opcodes_are_refused() {
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        is_refused_at(&frame(0x80 | opcode, b""), 1, "reserved opcode");
        is_refused_at(&frame(opcode, b""), 1, "reserved opcode");
    }
}

#[test]
fn a_control_frame_is_short_and_whole() {
    for opcode in [8, 9, 10] {
        is_refused_at(&frame(opcode, b""), 1, "fragmented");
        is_refused_at(&frame(0x80 | opcode, &[b'x'; 126]), 2, "length above 125");
        is_refused_at(&frame_of_width(0x80 | opcode, b"xx", 2), 2, "length above 125");
        is_refused_at(&frame_of_width(0x80 | opcode, b"xx", 8), 2, "length above 125");
    }
    assert_eq!(events(&frame(PING, &[b'x'; 125])), [Event::Ping(vec![b'x'; 125])]);
}

#[test]
fn the_frames_of_a_message_come_in_order() {
    is_refused_at(&frame(0x80, b"x"), 1, "not begun");
    is_refused_at(&frame(0x00, b"x"), 1, "not begun");
    let begun = frame(0x01, b"x");
    for first in [0x01, 0x02, TEXT, BINARY] {
        is_refused_at(&[begun.clone(), frame(first, b"x")].concat(), begun.len() + 1, "within another");
    }
    let over = [begun, frame(0x80, b"x")].concat();
    is_refused_at(&[over.clone(), frame(0x80, b"x")].concat(), over.len() + 1, "not begun");
}

#[test]
fn a_length_is_written_in_the_shortest_way() {
    is_refused_at(&frame_of_width(TEXT, b"", 2), 4, "a length");
    is_refused_at(&frame_of_width(TEXT, &[b'x'; 125], 2), 4, "a length");
    is_refused_at(&frame_of_width(TEXT, &[b'x'; 125], 8), 10, "a length");
    is_refused_at(&frame_of_width(TEXT, &[b'x'; 65_535], 8), 10, "a length");
    is_refused_at(&[TEXT, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0], 10, "a length");
    is_refused_at(&[TEXT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 10, "a length");
}

#[test]
fn a_close_frame_has_a_whole_code_that_may_be_sent() {
    assert_eq!(events(&frame(CLOSE, b"")), [Event::Close(None)]);
    is_refused_at(&frame(CLOSE, b"\x03"), 2, "half a code");
    for code in [1000, 1003, 1007, 1014, 3000, 4999] {
        let reason = [b'r'; 123];
        assert_eq!(events(&close(code, &reason)), [Event::Close(Some((code, reason.to_vec())))]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        is_refused_at(&close(code, b""), 8, "code that must not be sent");
    }
    let reason = close(1000, b"\xce\xba\xe1\xbd\xb9\xcf");
    assert_eq!(refused(&reason), Some((reason.len(), Violation::InvalidUtf8)));
}

#[test]
fn what_is_too_large_is_refused_by_its_head() {
    let head = |first, length, width| {
        let mut head = Vec::new();
        push_head(&mut head, first, length, width, true);
        head
    };
    let too_large = |at| Some((at, Violation::TooLarge));
    assert_eq!(refused(&head(TEXT, LIMITS.frame + 1, 8)), too_large(10));
    assert_eq!(refused(&head(BINARY, usize::MAX >> 1, 8)), too_large(10));
    // The second frame is within the frames' limit, and too much for the message.
    let begun = frame(0x02, &[b'x'; 60_000]);
    assert_eq!(refused(&[&*begun, &head(0x80, 40_001, 2)].concat()), too_large(begun.len() + 4));
    let message = [begun, frame(0x80, &[b'x'; 40_000])].concat();
    assert_eq!(events(&message), [Event::Binary(vec![b'x'; 100_000])]);
}

/// Autobahn's 6.4: neither the end of the frame nor that of the message is waited for.
#[test]
fn text_is_refused_at_the_byte_that_cannot_be_utf8() {
    let valid = "κόσμε".as_bytes();
    let text = [valid, b"\xf4\x90\x80\x80", b"edited"].concat();
    let wrong_at = valid.len() + 2;
    assert_eq!(refused(&frame(TEXT, &text)), Some((6 + wrong_at, Violation::InvalidUtf8)));
    // Cut within a character: between frames, and by what is read.
    let stream = [frame(0x01, &text[..wrong_at - 1]), frame(0x80, &text[wrong_at - 1..])].concat();
    assert_eq!(refused(&stream), Some((6 + wrong_at - 1 + 6 + 1, Violation::InvalidUtf8)));
    // The message ends within a character.
    let unfinished = frame(TEXT, &valid[..valid.len() - 1]);
    assert_eq!(refused(&unfinished), Some((unfinished.len(), Violation::InvalidUtf8)));
    assert_eq!(events(&frame(BINARY, &text)), [Event::Binary(text)]);
}

/// The driver learns from the head how much will come, and reads it to where it wants it.
#[test]
fn a_frame_goes_on_in_another_buffer() {
    let payload: Vec<u8> = "ein größerer Text 😀 ".bytes().cycle().take(22 * 1_000).collect();
    let mut stream = frame(TEXT, &payload);
    let head = 8;
    let mut decoder = Decoder::new();
    let mut scratch = stream[..head + 11].to_vec();
    let step = decoder.step(&mut scratch, &LIMITS).unwrap();
    let Found::Data(first) = step.found else { panic!("{step:?}") };
    assert_eq!((first.payload.clone(), first.kind, first.is_first), (head..head + 11, Kind::Text, true));
    assert_eq!((first.is_last, first.frame_left), (false, payload.len() - 11));

    let mut leased = scratch[first.payload].to_vec();
    let none = decoder.step(&mut [], &LIMITS).unwrap();
    assert_eq!(none.found, Found::NeedsMore { at_least: 1 });
    let step = decoder.step(&mut stream[head + 11..], &LIMITS).unwrap();
    let Found::Data(rest) = step.found else { panic!("{step:?}") };
    assert_eq!((rest.payload.clone(), rest.is_first, rest.is_last), (0..payload.len() - 11, false, true));
    leased.extend(&stream[head + 11..][rest.payload]);
    assert_eq!(leased, payload);
    assert!(decoder.is_idle());
}

#[test]
fn a_control_frame_is_left_alone_until_it_is_whole() {
    let ping = frame(PING, b"hello");
    for len in 0..ping.len() {
        let mut come = ping[..len].to_vec();
        let at_least = if len < 2 { 6 } else { ping.len() };
        let step = Decoder::new().step(&mut come, &LIMITS).unwrap();
        assert_eq!((step.consumed, step.found), (0, Found::NeedsMore { at_least }));
        assert_eq!(come, ping[..len]);
    }
}
