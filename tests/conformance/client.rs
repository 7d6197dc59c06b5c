//! A client that listens: what it is told of its thread's events has no hole and nothing twice.

use crate::comparison::shown;
use crate::steps::After;
use serde_json::Value;
use ws_manager_pool::{EventId, IsolationKey, ManagerLease, Message};

/// One connection's client.
pub(crate) struct Client {
    thread: IsolationKey,
    /// The number that has to come next, and the numbering, once they are known.
    next: Option<u64>,
    stream: Option<String>,
}

/// The ids that all clients have seen, in the order in which they saw them.
#[derive(Default)]
pub(crate) struct Seen(Vec<(IsolationKey, EventId)>);

impl Client {
    pub(crate) fn new(thread: IsolationKey, after: Option<EventId>) -> Self {
        let stream = after.and_then(|id| stream_of(&id.to_string()));
        Self { thread, next: after.map(|id| id.seq() + 1), stream }
    }

    /// Reads until nothing is there.
    pub(crate) fn read_all(&mut self, lease: &mut impl ManagerLease, seen: &mut Seen) -> String {
        let mut all = String::new();
        loop {
            let next = lease.next_message();
            let Ok(Some(message)) = &next else { return all + &shown(&next) };
            all += &(self.heard(Some(message), seen) + "; ");
        }
    }

    /// What it heard, without the numbering's random name.
    ///
    /// # Panics
    ///
    /// If something is missing in silence, comes twice or is out of order.
    pub(crate) fn heard(&mut self, message: Option<&Message>, seen: &mut Seen) -> String {
        let Some(text) = message.and_then(Message::as_text) else { return String::new() };
        let Ok(Value::Object(event)) = serde_json::from_str(text) else { return text.to_owned() };
        let id = event["id"].as_str().expect("every event has an id");
        let (stream, number) = (stream_of(id), id.parse::<EventId>().expect("an id can be read").seq());
        assert_eq!(event["thread_id"], self.thread.thread_id().to_string(), "of its own thread");
        let from = match event["type"].as_str() {
            Some("gap") => event["from"].as_u64(),
            _ => Some(number),
        };
        match (from, self.next) {
            (Some(from), Some(next)) => {
                assert!(from == next && number >= from, "{next} is to come, and not {text}");
                let is_same = self.stream.is_none() || self.stream == stream;
                assert!(is_same, "of the numbering {:?}, and not {text}", self.stream);
            }
            (None, None) => panic!("it has never had a number, and is told {text}"),
            _ => {}
        }
        (self.next, self.stream) = (Some(number + 1), stream.clone());
        seen.0.push((self.thread.clone(), id.parse().expect("it was read before")));
        stream.map_or_else(|| text.to_owned(), |stream| text.replacen(&stream, "", 1))
    }
}

impl Seen {
    /// `None`: nothing of the kind has been seen.
    pub(crate) fn choose(&self, thread: &IsolationKey, after: After) -> Option<EventId> {
        let own = |nth| self.0.iter().rev().filter(|(of, _)| of == thread).nth(nth).map(|(_, id)| *id);
        match after {
            After::Nothing => None,
            After::Own(nth) => own(nth),
            After::OwnNumber(nth) => own(nth).map(|id| bare(id.seq())),
            After::Any(nth) => self.0.iter().rev().nth(nth).map(|(_, id)| *id),
            After::Number(number) => Some(bare(number)),
            After::Foreign(number) => Some(format!("00000001-{number}").parse().expect("an id")),
        }
    }
}

fn bare(number: u64) -> EventId {
    number.to_string().parse().expect("a number is an id")
}

/// `None`: it is a bare number.
fn stream_of(id: &str) -> Option<String> {
    id.split_once('-').map(|(stream, _)| stream.to_owned())
}
