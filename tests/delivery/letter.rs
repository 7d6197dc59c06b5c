//! A message that says whom it is for, who sent it, and its number in the order of its sender.

use std::fmt;
use std::str::FromStr;
use ws_manager_pool::{ManagerKey, Message};

/// A sender's number. No two senders of a test have the same, and none is used again.
pub(crate) type Sender = u64;

/// Everything that a message can be addressed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// By `send` for one key, by `send_many` for several, all of one user.
    Keys {
        user: usize,
        keys: Vec<ManagerKey>,
    },
    Thread {
        user: usize,
        thread: usize,
    },
    User {
        user: usize,
    },
    All,
}

/// Whose a connection is, and which life of which slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whose {
    pub(crate) user: usize,
    pub(crate) thread: usize,
    pub(crate) key: ManagerKey,
}

impl Address {
    /// Whose connections it names; `None`: everybody's.
    pub(crate) fn user(&self) -> Option<usize> {
        match *self {
            Self::Keys { user, .. } | Self::Thread { user, .. } | Self::User { user } => Some(user),
            Self::All => None,
        }
    }

    /// Is it addressed to this connection, and not to a former or later one of its slot?
    pub(crate) fn names(&self, whose: &Whose) -> bool {
        match self {
            Self::Keys { user, keys } => *user == whose.user && keys.contains(&whose.key),
            Self::Thread { user, thread } => (*user, *thread) == (whose.user, whose.thread),
            Self::User { user } => *user == whose.user,
            Self::All => true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) to: Address,
    pub(crate) from: Sender,
    /// Counts from 0 over all that this sender sends, so it rises in each connection that hears it.
    pub(crate) order: u64,
}

impl Letter {
    /// The letter as a message, filled up to `size` bytes.
    pub(crate) fn seal(&self, size: usize) -> Message {
        let mut text = self.to_string();
        while text.len() < size {
            text.push('.');
        }
        Message::text(text)
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Address::Keys { user, keys } => {
                let keys: Vec<_> = keys.iter().map(|key| key.to_bits().to_string()).collect();
                write!(f, "keys {user} {}", keys.join(","))?;
            }
            Address::Thread { user, thread } => write!(f, "thread {user} {thread}")?,
            Address::User { user } => write!(f, "user {user} -")?,
            Address::All => f.write_str("all - -")?,
        }
        write!(f, " {} {} ", self.from, self.order)
    }
}

/// It is no letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoLetter;

impl FromStr for Letter {
    type Err = NoLetter;

    fn from_str(text: &str) -> Result<Self, NoLetter> {
        fn number<T: FromStr>(word: &str) -> Result<T, NoLetter> {
            word.parse().map_err(|_| NoLetter)
        }
        let words: Vec<_> = text.split(' ').collect();
        let [kind, first, second, from, order, _filling] = words[..] else { return Err(NoLetter) };
        let to = match kind {
            "keys" => {
                let keys: Result<_, _> =
                    second.split(',').map(|bits| number(bits).map(ManagerKey::from_bits)).collect();
                Address::Keys { user: number(first)?, keys: keys? }
            }
            "thread" => Address::Thread { user: number(first)?, thread: number(second)? },
            "user" => Address::User { user: number(first)? },
            "all" => Address::All,
            _ => return Err(NoLetter),
        };
        Ok(Self { to, from: number(from)?, order: number(order)? })
    }
}

#[test]
fn a_letter_can_be_read() {
    let keys = vec![ManagerKey::from_bits(7 << 32 | 9), ManagerKey::from_bits(u64::MAX)];
    let addresses = [
        Address::Keys { user: 3, keys },
        Address::Thread { user: 3, thread: 4 },
        Address::User { user: 3 },
        Address::All,
    ];
    for to in addresses {
        let letter = Letter { to, from: 5, order: 6 };
        for size in [0, 200] {
            assert_eq!(letter.seal(size).as_text().unwrap().parse(), Ok(letter.clone()));
        }
    }
    assert_eq!("welcome 7".parse::<Letter>(), Err(NoLetter));
}
