//! Whether each message reached those whom it was for, once and in order.
//!
//! A *stream* is what one connection writes to one user. The pool promises its order, so a connection
//! that hears number 7 after number 5 has lost 6, or will hear it out of order. What a connection must
//! have heard is known afterwards: everything that was sent to its user while it was open. Two things
//! can't be known, and are not owed: what was under way when the tool ended the hearer, and what was
//! under way from a writer when the tool ended it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A message, as its text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parcel {
    /// Of the tool: two may load a server at once.
    pub(crate) run: u32,
    /// The addressee.
    pub(crate) user: u32,
    /// The writing connection.
    pub(crate) writer: u32,
    /// Within the stream, from 0.
    pub(crate) number: u32,
    /// Nanoseconds since the tool began.
    pub(crate) stamp: u64,
}

impl Parcel {
    pub(crate) fn text(&self) -> String {
        let Self { run, user, writer, number, stamp } = self;
        format!("load {run} {user} {writer} {number} {stamp}")
    }

    /// `None`: somebody else's text.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut words = text.strip_prefix("load ")?.split(' ');
        let parcel = Self {
            run: words.next()?.parse().ok()?,
            user: words.next()?.parse().ok()?,
            writer: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
            stamp: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(parcel)
    }
}

/// What a connection thinks of a message that it hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    WrongUser,
    Duplicate,
    OutOfOrder,
}

/// What one connection wrote.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) writer: u32,
    /// For each addressee: when each message was sent.
    sent: HashMap<u32, Vec<u64>>,
    /// The server is known to have handled all of it. Otherwise, as much as anybody heard.
    pub(crate) is_handled: bool,
}

impl Outbox {
    pub(crate) fn new(writer: u32) -> Self {
        Self { writer, ..Self::default() }
    }

    /// The number of the next message to a user, which is sent now.
    pub(crate) fn number(&mut self, user: u32, now: u64) -> u32 {
        let stream = self.sent.entry(user).or_default();
        stream.push(now);
        (stream.len() - 1) as u32
    }
}

/// What one connection heard.
#[derive(Debug)]
pub(crate) struct Inbox {
    run: u32,
    user: u32,
    /// From when on everything to its user must reach it. `None`: not at all.
    pub(crate) ready_at: Option<u64>,
    heard: HashMap<u32, Heard>,
    /// It was open when all had been handled, and has heard everything that the server had for it.
    pub(crate) is_complete: bool,
}

/// What a connection heard of one stream.
#[derive(Debug)]
struct Heard {
    first: u32,
    next: u32,
    missing: Vec<u32>,
}

impl Inbox {
    pub(crate) fn new(run: u32, user: u32) -> Self {
        Self { run, user, ready_at: None, heard: HashMap::new(), is_complete: false }
    }

    pub(crate) fn hear(&mut self, parcel: &Parcel) -> Verdict {
        if (parcel.run, parcel.user) != (self.run, self.user) {
            return Verdict::WrongUser;
        }
        let number = parcel.number;
        let heard = match self.heard.entry(parcel.writer) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(Heard { first: number, next: number + 1, missing: Vec::new() });
                return Verdict::Good;
            }
        };
        if number >= heard.next {
            heard.missing.extend(heard.next..number);
            heard.next = number + 1;
            return Verdict::Good;
        }
        match heard.missing.iter().position(|&missing| missing == number) {
            Some(at) => {
                heard.missing.swap_remove(at);
                Verdict::OutOfOrder
            }
            // Before the first: it overtook, and its place was never noted.
            None if number < heard.first => {
                heard.missing.extend(number + 1..heard.first);
                heard.first = number;
                Verdict::OutOfOrder
            }
            None => Verdict::Duplicate,
        }
    }
}

/// What was owed in all, and what of it never came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) owed: u64,
    pub(crate) lost: u64,
}

impl Account {
    pub(crate) fn settle(outboxes: &[Outbox], inboxes: &[Inbox]) -> Self {
        let mut of_user: HashMap<u32, Vec<&Inbox>> = HashMap::new();
        for inbox in inboxes {
            of_user.entry(inbox.user).or_default().push(inbox);
        }
        let mut account = Self::default();
        for outbox in outboxes {
            for (user, sent) in &outbox.sent {
                let hearers = of_user.get(user).map_or(&[][..], Vec::as_slice);
                account.settle_stream(outbox, sent, hearers);
            }
        }
        account
    }

    fn settle_stream(&mut self, outbox: &Outbox, sent: &[u64], hearers: &[&Inbox]) {
        let heard_by = |inbox: &Inbox| inbox.heard.get(&outbox.writer).map_or(0, |heard| heard.next);
        let handled = match outbox.is_handled {
            true => sent.len() as u32,
            false => hearers.iter().map(|inbox| heard_by(inbox)).max().unwrap_or(0),
        };
        for inbox in hearers {
            let Some(ready_at) = inbox.ready_at else { continue };
            let from = sent.partition_point(|&at| at < ready_at) as u32;
            let to = if inbox.is_complete { handled } else { heard_by(inbox) };
            let owed = u64::from(to.saturating_sub(from));
            self.owed += owed;
            self.lost += match inbox.heard.get(&outbox.writer) {
                None => owed,
                Some(heard) => {
                    let holes = heard.missing.iter().filter(|&&missing| missing >= from).count() as u64;
                    let before = u64::from(heard.first.saturating_sub(from));
                    before + holes + u64::from(to.saturating_sub(heard.next.max(from)))
                }
            };
        }
    }
}
