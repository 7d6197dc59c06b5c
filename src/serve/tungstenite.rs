//! `serve` over a `tokio_tungstenite::WebSocketStream`, or any other stream of tungstenite's messages.

use super::leased::lean::{READ_BUFFER, WRITE_BUFFER};
use super::transport::{CloseFrame, Fault, Frame, WireMessage};
use crate::config::Config;
use ::tungstenite::error::ProtocolError;
use ::tungstenite::protocol::{CloseFrame as WireClose, WebSocketConfig};
use ::tungstenite::{Error, Message, Utf8Bytes};

impl WireMessage for Message {
    type Error = Error;

    fn into_frame(self) -> Option<Frame> {
        Some(match self {
            Self::Text(text) => Frame::Text(text.into()),
            Self::Binary(payload) => Frame::Binary(payload),
            Self::Ping(payload) => Frame::Ping(payload),
            Self::Pong(payload) => Frame::Pong(payload),
            Self::Close(close) => {
                Frame::Close(close.map(|close| CloseFrame::new(close.code.into(), close.reason)))
            }
            Self::Frame(_) => return None, // never comes out of a reading connection
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
                Self::Close(Some(WireClose { code: code.into(), reason: text(reason)? }))
            }
        })
    }

    fn fault(error: Error) -> Fault {
        match error {
            // Not the peer's mistake, but its absence.
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Fault::Socket,
            Error::Protocol(_) => Fault::Protocol,
            Error::Utf8(_) => Fault::InvalidUtf8,
            Error::Capacity(_) => Fault::TooLarge,
            _ => Fault::Socket,
        }
    }
}

/// The largest message and the largest frame that are read.
impl From<&Config> for WebSocketConfig {
    fn from(config: &Config) -> Self {
        Self::default()
            .max_message_size(Some(config.inbound_message_bytes))
            .max_frame_size(Some(config.inbound_frame_bytes))
    }
}

/// For a connection over [`LeasedIo`](super::LeasedIo): the largest message and frame that are read, and
/// buffers of next to nothing, as the pool has them.
///
/// tungstenite keeps room for the largest frame that was sent, and for the largest that came in, whatever
/// its sizes are.
pub fn lean(config: &Config) -> WebSocketConfig {
    WebSocketConfig::from(config).read_buffer_size(READ_BUFFER).write_buffer_size(WRITE_BUFFER)
}
