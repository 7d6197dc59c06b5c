use super::*;
use bytes::Bytes;
use std::thread;

/// A queue with its buffers, which the tests need not mention.
#[derive(Default)]
struct Outbound {
    queue: super::Outbound,
    buffers: Buffers,
}

impl Outbound {
    fn push(&self, message: Message, limits: &OutboundLimits) -> Push {
        self.queue.push(message, limits, &self.buffers).push
    }

    fn pop(&self) -> Option<Message> {
        match self.queue.pop(&self.buffers, OutboundLimits::default).0? {
            Popped::Message(message) => Some(message),
            other => panic!("{other:?} instead of a message"),
        }
    }

    fn len(&self) -> usize {
        self.queue.len()
    }

    fn bytes(&self) -> usize {
        self.queue.bytes()
    }

    fn clear(&mut self) -> Cleared {
        self.queue.clear(&self.buffers)
    }

    fn reopen(&mut self) {
        self.queue.reopen();
    }
}

fn open() -> Outbound {
    let mut outbound = Outbound::default();
    outbound.reopen();
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
    outbound.queue.close();
    assert_eq!(outbound.push("late".into(), &limits), Push::Closed("late".into()));
    assert_eq!(outbound.pop(), Some("last".into()));
    assert_eq!(Outbound::default().push("early".into(), &limits), Push::Closed("early".into()));
}

#[test]
fn the_next_occupant_never_sees_what_waited_for_the_last() {
    let (mut outbound, limits) = (open(), OutboundLimits::default());
    assert_eq!(outbound.push(of(7), &limits), Push::Queued);
    assert_eq!(outbound.push(of(8), &limits), Push::Queued);
    let cleared = outbound.clear();
    assert_eq!((cleared.messages, cleared.bytes), (2, 15));
    assert_eq!(outbound.push(of(1), &limits), Push::Closed(of(1)));
    outbound.reopen();
    assert_eq!((outbound.len(), outbound.bytes(), outbound.pop()), (0, 0, None));
    assert_eq!(outbound.push(of(1), &limits), Push::Queued);
}

#[test]
fn an_empty_queue_has_no_buffer_and_a_single_message_needs_none() {
    let (outbound, limits) = (open(), OutboundLimits::default());
    let capacity =
        |outbound: &Outbound| outbound.queue.queue.lock().rest.as_ref().map_or(0, |rest| rest.0.capacity());
    for messages in [1, 2, 9, 60] {
        for _ in 0..messages {
            assert_eq!(outbound.push(Message::text_static("x"), &limits), Push::Queued);
        }
        assert_eq!(capacity(&outbound), [0, 8, 64][[2, 10].partition_point(|&n| n <= messages)]);
        while outbound.pop().is_some() {}
        assert_eq!(capacity(&outbound), 0, "after {messages} messages");
    }
    assert_eq!(outbound.buffers.spare_bytes(), (8 + 64) * size_of::<Message>(), "each leased again");
}

#[test]
fn the_oldest_make_room_where_that_is_the_policy() {
    let outbound = open();
    let limits = limits(3, 10, 8).with_overflow(OverflowPolicy::DropOldest);
    for size in [1, 2, 3] {
        assert_eq!(outbound.push(of(size), &limits), Push::Queued);
    }
    let Push::Displaced(displaced) = outbound.push(of(4), &limits) else { panic!("it is full") };
    assert_eq!((displaced.len(), displaced.bytes()), (1, 1), "messages");
    let Push::Displaced(displaced) = outbound.push(of(8), &limits) else { panic!("it is full") };
    assert_eq!((displaced.len(), displaced.bytes()), (3, 9), "bytes");
    assert_eq!(outbound.push(of(9), &limits), Push::Full(of(9)), "one that never fits moves nobody");
    assert_eq!((outbound.len(), outbound.bytes()), (1, 8));
    assert_eq!((outbound.pop(), outbound.pop()), (Some(of(8)), None));
    assert_eq!(outbound.push(of(0), &limits.with_messages(0)), Push::Full(of(0)));
}

#[test]
fn a_full_queue_asks_for_the_end_where_that_is_the_policy() {
    let outbound = open();
    let limits = limits(1, 10, 8).with_overflow(OverflowPolicy::Disconnect);
    assert_eq!(outbound.push(of(9), &limits), Push::Full(of(9)), "the sender's mistake, not the reader's");
    assert_eq!(outbound.push(of(8), &limits), Push::Queued);
    assert_eq!(outbound.push(of(1), &limits), Push::Overflow(of(1)));
    assert_eq!(outbound.pop(), Some(of(8)));
}

#[test]
fn a_queue_turns_high_once_and_low_once() {
    let (queue, buffers) = (open().queue, Buffers::default());
    let limits = limits(8, 100, 100); // high from 6 messages or 75 bytes, low at 2 and 25
    let push = |size| queue.push(of(size), &limits, &buffers).turned;
    let pop = || queue.pop(&buffers, || limits).1;
    assert_eq!([push(1), push(1), push(1), push(1), push(1)], [None; 5]);
    assert_eq!([push(1), push(1)], [Some(Turned::High), None]);
    assert_eq!([pop(), pop(), pop(), pop()], [None; 4]);
    assert_eq!([push(70), pop(), pop(), pop(), pop()], [None, None, None, None, Some(Turned::Low)]);
    assert_eq!([push(75), push(0)], [Some(Turned::High), None], "bytes");
    assert_eq!([pop(), pop()], [Some(Turned::Low), None]);
}

/// What the owner says, in short: `3` for an event, `m` for a message, `3-5` for a gap.
fn said(outbound: &Outbound) -> Vec<String> {
    let pop = || outbound.queue.pop(&outbound.buffers, OutboundLimits::default).0;
    let name = |popped| match popped {
        Popped::Message(message) if message.event() == 0 => "m".into(),
        Popped::Message(message) => message.event().to_string(),
        Popped::Gap(Gap { from: Some(from), to }) => format!("{from}-{to}"),
        other => format!("{other:?}"),
    };
    std::iter::from_fn(pop).map(name).collect()
}

fn event(number: u64) -> Message {
    Message::of_event(String::from("event"), number)
}

#[test]
fn each_event_that_is_lost_is_announced_where_it_is_missing() {
    let (outbound, limits) = (open(), limits(2, 100, 100));
    for number in 1..=4 {
        let _ = outbound.push(event(number), &limits);
    }
    assert_eq!(said(&outbound), ["1", "2", "3-4"], "at the end");
    let _ = outbound.push(event(5), &limits);
    assert!(outbound.queue.refuse(&event(6)).is_none(), "nobody sleeps");
    let _ = outbound.push(event(7), &limits);
    assert_eq!(said(&outbound), ["5", "6-6", "7"], "in the middle");
    let _ = outbound.queue.refuse(&event(8));
    assert_eq!(said(&outbound), ["8-8"], "alone");
    assert_eq!(said(&outbound), [""; 0], "once");

    let outbound = open();
    let limits = limits.with_overflow(OverflowPolicy::DropOldest);
    for number in 1..=2 {
        let _ = outbound.push(event(number), &limits);
        let _ = outbound.push(Message::text_static("x"), &limits);
    }
    assert_eq!(said(&outbound), ["1-1", "2", "m"], "one that was given up");
}

#[test]
fn who_catches_up_is_told_what_there_is_no_more() {
    let mut outbound = open();
    let limits = OutboundLimits::default();
    let missed = Missed { stream: 7, next: 4 };
    outbound.queue.catch_up_from(missed);
    assert!(outbound.queue.is_catching_up());
    let _ = outbound.push(Message::text_static("x"), &limits);
    let pop = || outbound.queue.pop(&outbound.buffers, OutboundLimits::default).0;
    assert_eq!(pop(), Some(Popped::Message("x".into())));
    assert_eq!(pop(), Some(Popped::CatchUp(missed)));
    let _ = outbound.push(event(6), &limits);
    outbound.queue.go_live(None, 8);
    assert!(!outbound.queue.is_catching_up());
    assert_eq!(said(&outbound), ["4-5", "6", "7-8"]);
    let _ = outbound.push(event(9), &limits);
    assert_eq!(said(&outbound), ["9"]);
    let _ = outbound.clear();
    outbound.reopen();
    let _ = outbound.push(event(1), &limits);
    assert_eq!(said(&outbound), ["1"], "nothing of the last occupant's numbers is left");
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
    let cleared = outbound.clear();
    assert_eq!((cleared.messages, cleared.bytes), (3, 15));
    assert_eq!((outbound.len(), outbound.pop()), (0, None));
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
                            other => panic!("{other:?}"),
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
