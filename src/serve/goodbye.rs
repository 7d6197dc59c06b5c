//! What is said on a socket after its manager has been freed.

use super::drive::{Ending, UNFLUSHED};
use super::transport::{CloseFrame, Fault, Frame, Transport};
use super::{NO_CLOSE_FRAME, NO_CODE};
use crate::manager::Message;
use crate::reason::EndReason;
use bytes::Bytes;
use std::future::poll_fn;
use std::pin::Pin;

/// How to part from a peer.
pub(super) enum Goodbye {
    /// Close, and wait for its answer.
    Close(CloseFrame),
    /// Answer its close.
    Answer(Option<CloseFrame>),
    /// There is nobody left.
    Silent,
}

impl Ending {
    /// The socket and the lease were good until now: what is queued can still be said.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Done | Self::Error(_) | Self::Panic)
    }

    pub(super) fn close_code(&self, reason: EndReason) -> u16 {
        match self {
            Self::Peer(close) => close.as_ref().map_or(NO_CODE, |close| close.code),
            Self::Fault(Fault::Socket) => NO_CLOSE_FRAME,
            _ => reason.close_code(),
        }
    }
}

impl Goodbye {
    pub(super) fn to(ending: &Ending, reason: EndReason) -> Self {
        match ending {
            // The answer carries the code alone.
            Ending::Peer(close) => {
                Self::Answer(close.as_ref().map(|close| CloseFrame::new(close.code, Bytes::new())))
            }
            Ending::Fault(Fault::Socket) => Self::Silent,
            _ => Self::Close(CloseFrame::new(
                reason.close_code(),
                Bytes::from_static(reason.as_str().as_bytes()),
            )),
        }
    }

    /// Says it. Takes as long as the peer likes.
    pub(super) async fn say<T: Transport>(
        self,
        mut socket: Pin<&mut T>,
        last_words: Vec<Message>,
    ) -> Option<()> {
        let (frame, is_answer) = match self {
            Self::Close(close) => (Some(close), false),
            Self::Answer(close) => (close, true),
            Self::Silent => return None,
        };
        for message in last_words {
            send(socket.as_mut(), message.into()).await.ok()?;
        }
        let sent = send(socket.as_mut(), Frame::Close(frame)).await;
        // A library that answers a close by itself refuses a second answer.
        if !is_answer {
            sent.ok()?;
            poll_fn(|cx| socket.as_mut().poll_flush(cx)).await.ok()?;
            // Ends: with the peer's close frame, with the socket, or with the caller's patience, which
            // needs a turn of its own now and then.
            let mut frames = 0;
            while let Some(Ok(frame)) = poll_fn(|cx| socket.as_mut().poll_recv(cx)).await {
                if matches!(frame, Frame::Close(_)) {
                    break;
                }
                frames += 1;
                if frames % UNFLUSHED == 0 {
                    // The library answers pings. Whoever does not read the answers is not read from.
                    poll_fn(|cx| socket.as_mut().poll_flush(cx)).await.ok()?;
                    tokio::task::yield_now().await;
                }
            }
        }
        poll_fn(|cx| socket.as_mut().poll_close(cx)).await.ok()
    }
}

async fn send<T: Transport>(mut socket: Pin<&mut T>, frame: Frame) -> Result<(), Fault> {
    poll_fn(|cx| socket.as_mut().poll_ready(cx)).await?;
    socket.start_send(frame)
}
