//! `serve` over a `tokio_websockets::WebSocketStream`.

use super::transport::{CloseFrame, Fault, Frame, WireMessage};
use crate::config::Config;
use ::tokio_websockets::proto::ProtocolError;
use ::tokio_websockets::{CloseCode, Error, Limits, Message};
use bytes::{Buf, Bytes};

impl WireMessage for Message {
    type Error = Error;

    fn into_frame(self) -> Option<Frame> {
        let (is_text, is_binary) = (self.is_text(), self.is_binary());
        let (is_ping, is_pong) = (self.is_ping(), self.is_pong());
        let mut payload = Bytes::from(self.into_payload());
        Some(if is_text {
            Frame::Text(payload)
        } else if is_binary {
            Frame::Binary(payload)
        } else if is_ping {
            Frame::Ping(payload)
        } else if is_pong {
            Frame::Pong(payload)
        } else {
            // The library has checked code and text.
            Frame::Close(payload.try_get_u16().ok().map(|code| CloseFrame::new(code, payload)))
        })
    }

    fn from_frame(frame: Frame) -> Result<Self, Fault> {
        Ok(match frame {
            Frame::Text(payload) => {
                // The library takes it as it is.
                std::str::from_utf8(&payload).map_err(|_| Fault::InvalidUtf8)?;
                Self::text(payload)
            }
            Frame::Binary(payload) => Self::binary(payload),
            Frame::Ping(payload) => Self::ping(control(payload)?),
            Frame::Pong(payload) => Self::pong(control(payload)?),
            Frame::Close(None) => Self::close(None, ""),
            Frame::Close(Some(CloseFrame { code, reason })) => {
                let code = CloseCode::try_from(code).ok().filter(|code| !code.is_reserved());
                let reason = std::str::from_utf8(&reason).map_err(|_| Fault::InvalidUtf8)?;
                if reason.len() > LONGEST_CONTROL - size_of::<u16>() {
                    return Err(Fault::TooLarge);
                }
                Self::close(Some(code.ok_or(Fault::Protocol)?), reason)
            }
        })
    }

    fn fault(error: Error) -> Fault {
        match error {
            Error::Protocol(ProtocolError::InvalidUtf8) => Fault::InvalidUtf8,
            Error::Protocol(_) => Fault::Protocol,
            Error::PayloadTooLong { .. } => Fault::TooLarge,
            _ => Fault::Socket,
        }
    }
}

/// The largest message that is read. The library knows no other limit for a frame.
impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self::default().max_payload_len(Some(config.inbound_message_bytes))
    }
}

/// Of a control frame's payload, in bytes. The library panics at more.
const LONGEST_CONTROL: usize = 125;

fn control(payload: Bytes) -> Result<Bytes, Fault> {
    if payload.len() <= LONGEST_CONTROL { Ok(payload) } else { Err(Fault::TooLarge) }
}
