//! Why a lease ended, and what the peer is told.

use std::fmt;

macro_rules! end_reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $code:literal, $label:literal, $text:literal;)*) => {
        /// Why a lease ended. Each lease ends once, for one reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum EndReason {
            $($(#[$doc])* $name = $number,)*
        }

        impl EndReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The WebSocket close code for it.
            pub const fn close_code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// A label for logs and metrics, in snake case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// A few words, fit for a close frame's reason.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

end_reasons! {
    /// Nobody wrote the reason down in time; the connection is over all the same.
    Unknown = 0, 1011, "unknown", "unknown";
    /// The peer closed, or the application said that it is done.
    Closed = 1, 1000, "closed", "closed";
    /// The lease was dropped without a word: a cancelled task, an early return.
    Dropped = 2, 1011, "dropped", "dropped";
    /// The socket failed or was reset.
    SocketError = 3, 1011, "socket_error", "socket error";
    /// The application's handler returned an error.
    HandlerError = 4, 1011, "handler_error", "internal error";
    /// The application's handler panicked.
    HandlerPanic = 5, 1011, "handler_panic", "internal error";
    /// The server is shutting down.
    Drain = 6, 1001, "drain", "server is shutting down";
    /// The peer broke the protocol.
    ProtocolError = 7, 1002, "protocol_error", "protocol error";
    /// The peer sent text that is not UTF-8.
    InvalidUtf8 = 8, 1007, "invalid_utf8", "text is not UTF-8";
    /// The peer sent more than is allowed in one message.
    TooLarge = 9, 1009, "too_large", "message too large";
    /// The peer read too slowly for what was sent to it.
    SlowConsumer = 10, 1013, "slow_consumer", "reading too slowly";
    /// A new connection of the same user and thread took the place. Do not reconnect.
    Takeover = 11, 4001, "takeover", "taken over by a newer connection";
    /// An operator ended it.
    Operator = 12, 4002, "operator", "ended by an operator";
    /// Nothing was said for too long.
    Idle = 13, 4003, "idle", "idle for too long";
    /// It was open for as long as a connection may be.
    MaxLifetime = 14, 4004, "max_lifetime", "maximum lifetime reached";
    /// A ping was not answered in time.
    Heartbeat = 15, 4005, "heartbeat", "no answer to a ping";
    /// Another connection of the user needed the place.
    Limit = 16, 4008, "limit", "limit of connections reached";
    /// A sweep found that the manager's own state was disconnected.
    Disconnected = 17, 1011, "disconnected", "connection lost";
    /// A sweep found that the manager had been errored for too long.
    Errored = 18, 1011, "errored", "internal error";
    /// The peer began a message and did not finish it in time, or while memory for such was short.
    Unfinished = 19, 1013, "unfinished", "message not finished in time";
}

impl EndReason {
    /// The inverse of `reason as u8`; [`EndReason::Unknown`] for a number that is none.
    pub(crate) const fn from_number(number: u8) -> Self {
        let mut at = 0;
        while at < Self::ALL.len() {
            if Self::ALL[at] as u8 == number {
                return Self::ALL[at];
            }
            at += 1;
        }
        Self::Unknown
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The lease is over: the connection was closed, evicted or taken over, for this reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    reason: EndReason,
}

impl Revoked {
    pub(crate) fn new(reason: EndReason) -> Self {
        Self { reason }
    }

    /// Why. [`EndReason::Unknown`] if the slot has been used again since, or its memory was given back.
    pub fn reason(&self) -> EndReason {
        self.reason
    }

    /// The WebSocket close code for it.
    pub fn close_code(&self) -> u16 {
        self.reason.close_code()
    }
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lease is over ({}): stop using this connection", self.reason)
    }
}

impl std::error::Error for Revoked {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_number_and_a_code_that_may_be_sent() {
        for (number, &reason) in EndReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, number);
            assert_eq!(EndReason::from_number(number as u8), reason);
            assert!(matches!(reason.close_code(), 1000..=1003 | 1007..=1013 | 4000..=4999));
        }
    }
}
