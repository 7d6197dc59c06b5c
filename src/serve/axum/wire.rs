//! `serve` over axum's `WebSocket`.

use crate::serve::transport::{CloseFrame, Fault, Frame, WireMessage};
use ::axum::Error;
use ::axum::extract::ws::{CloseFrame as WireClose, Message, Utf8Bytes};
use tungstenite_of_axum::Error as Cause;
use tungstenite_of_axum::error::ProtocolError;

impl WireMessage for Message {
    type Error = Error;

    fn into_frame(self) -> Option<Frame> {
        Some(match self {
            Self::Text(text) => Frame::Text(text.into()),
            Self::Binary(payload) => Frame::Binary(payload),
            Self::Ping(payload) => Frame::Ping(payload),
            Self::Pong(payload) => Frame::Pong(payload),
            Self::Close(close) => Frame::Close(close.map(|close| CloseFrame::new(close.code, close.reason))),
        })
    }

    fn from_frame(frame: Frame) -> Result<Self, Fault> {
        let text = |payload| Utf8Bytes::try_from(payload).map_err(|_| Fault::InvalidUtf8);
        Ok(match frame {
            Frame::Text(payload) => Self::Text(text(payload)?),
            Frame::Binary(payload) => Self::Binary(payload),
            Frame::Ping(payload) => Self::Ping(payload),
            Frame::Pong(payload) => Self::Pong(payload),
            Frame::Close(None) => Self::Close(None),
            Frame::Close(Some(CloseFrame { code, reason })) => {
                Self::Close(Some(WireClose { code, reason: text(reason)? }))
            }
        })
    }

    fn fault(error: Error) -> Fault {
        match error.into_inner().downcast_ref::<Cause>() {
            // Not the peer's mistake, but its absence.
            Some(Cause::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => Fault::Socket,
            Some(Cause::Protocol(_)) => Fault::Protocol,
            Some(Cause::Utf8(_)) => Fault::InvalidUtf8,
            Some(Cause::Capacity(_)) => Fault::TooLarge,
            _ => Fault::Socket,
        }
    }
}
