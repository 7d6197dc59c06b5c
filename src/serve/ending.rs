//! Why a conversation is over, and what that means to both sides.

use super::application::HandlerError;
use super::transport::{CloseFrame, Fault};
use super::{NO_CLOSE_FRAME, NO_CODE};
use crate::reason::EndReason;

/// Why a conversation is over.
pub(super) enum Ending {
    /// The lease was ended by somebody else.
    Revoked,
    /// The peer closed.
    Peer(Option<CloseFrame>),
    Fault(Fault),
    Heartbeat,
    /// The peer does not read what it asks for.
    Slow,
    /// Nothing was said for too long, or the connection has lasted for as long as it may.
    Expired(EndReason),
    /// The application is done.
    Done,
    Error(HandlerError),
    Panic,
}

impl Ending {
    pub(super) fn reason(&self) -> EndReason {
        match self {
            Self::Revoked => EndReason::Unknown, // whoever ended it knows
            Self::Peer(_) | Self::Done => EndReason::Closed,
            Self::Fault(Fault::Protocol) => EndReason::ProtocolError,
            Self::Fault(Fault::InvalidUtf8) => EndReason::InvalidUtf8,
            Self::Fault(Fault::TooLarge) => EndReason::TooLarge,
            Self::Fault(Fault::Socket) => EndReason::SocketError,
            Self::Heartbeat => EndReason::Heartbeat,
            Self::Slow => EndReason::SlowConsumer,
            Self::Expired(reason) => *reason,
            Self::Error(_) => EndReason::HandlerError,
            Self::Panic => EndReason::HandlerPanic,
        }
    }

    /// The socket and the lease were good until now: what is queued can still be said.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Done | Self::Expired(_) | Self::Error(_) | Self::Panic)
    }

    pub(super) fn close_code(&self, reason: EndReason) -> u16 {
        match self {
            Self::Peer(close) => close.as_ref().map_or(NO_CODE, |close| close.code),
            Self::Fault(Fault::Socket) => NO_CLOSE_FRAME,
            _ => reason.close_code(),
        }
    }
}
