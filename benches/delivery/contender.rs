//! Who is compared.

use crate::loopback::{Result, Server};

/// A way to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// This crate: `serve`, one task for a connection, the queue in the manager.
    Pool,
    /// As it is usually written: a reader, a writer task that sends message by message, an `mpsc(64)`
    /// between the two, the senders in a `HashMap`.
    Channel,
    /// The same by a careful author: the writer takes all that waits and flushes once.
    BatchingChannel,
}

impl Contender {
    /// The pool first, as the tables want it.
    pub(crate) const ALL: [Self; 3] = [Self::Pool, Self::Channel, Self::BatchingChannel];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Channel => "mpsc + HashMap",
            Self::BatchingChannel => "mpsc + HashMap, writer batches",
        }
    }

    /// Starts it as a server on a core of its own.
    pub(crate) fn start(self, core: usize) -> Result<Server> {
        Server::start(&format!("{core} {}", self.label()))
    }

    /// Which one a started server is to be, and on which core.
    pub(crate) fn of_role(role: &str) -> Result<(Self, usize)> {
        let (core, label) = role.split_once(' ').ok_or("a server is started by the benchmark itself")?;
        let contender = Self::ALL.into_iter().find(|contender| contender.label() == label);
        Ok((contender.ok_or_else(|| format!("there is no server {label:?}"))?, core.parse()?))
    }
}
