//! What every server and the client agree on: the request's target names the user, a text message is
//! answered by its length, and two commands go to others as they are and are not answered.

use std::time::Duration;

/// Goes to everybody.
pub(crate) const BROADCAST: &str = "broadcast ";

/// Goes to each connection of the user whose name follows, up to the next space.
pub(crate) const TO: &str = "to ";

/// Messages that may wait for one connection, in every server.
pub(crate) const QUEUE: usize = 64;

/// A quiet connection is pinged so often, in every server: not while one is measured.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(120);

/// Read and write buffer of the tuned servers.
pub(crate) const TUNED_BUFFER: usize = 4 * 1_024;

/// Who comes. The names that the client makes need no decoding.
pub(crate) fn user(query: Option<&str>) -> Option<&str> {
    query?.split('&').find_map(|pair| pair.strip_prefix("user=")).filter(|user| !user.is_empty())
}

/// What a text asks for.
#[derive(Clone, Copy)]
pub(crate) enum Command<'a> {
    Broadcast,
    To(&'a str),
    /// The answer, which is the text's length.
    Answer(usize),
}

impl<'a> Command<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        if text.starts_with(BROADCAST) {
            Self::Broadcast
        } else if let Some((user, _)) = text.strip_prefix(TO).and_then(|rest| rest.split_once(' ')) {
            Self::To(user)
        } else {
            Self::Answer(text.len())
        }
    }
}
