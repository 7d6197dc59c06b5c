//! What is said on a socket after its manager has been freed.

use super::drive::UNFLUSHED;
use super::ending::Ending;
use super::transport::{CloseFrame, Fault, Frame};
use super::wire::{Inbox, Incoming, Reading, Wire};
use crate::manager::{Message, Room};
use crate::reason::EndReason;
use bytes::Bytes;
use std::future::poll_fn;
use std::task::Context;

/// How to part from a peer.
pub(super) enum Goodbye {
    /// Close, and wait for its answer.
    Close(CloseFrame),
    /// Close, and wait for nothing: in the middle of a message, whose buffer others need, no answer can be
    /// told from the rest of it.
    Leave(CloseFrame),
    /// Answer its close.
    Answer(Option<CloseFrame>),
    /// There is nobody left.
    Silent,
}

impl Goodbye {
    pub(super) fn to(ending: &Ending, reason: EndReason) -> Self {
        match ending {
            // The answer carries the code alone.
            Ending::Peer(close) => {
                Self::Answer(close.as_ref().map(|close| CloseFrame::new(close.code, Bytes::new())))
            }
            Ending::Fault(Fault::Socket) => Self::Silent,
            _ => {
                let words = Bytes::from_static(reason.as_str().as_bytes());
                let close = CloseFrame::new(reason.close_code(), words);
                if reason == EndReason::Unfinished { Self::Leave(close) } else { Self::Close(close) }
            }
        }
    }

    /// Says it. Takes as long as the peer likes.
    pub(super) async fn say<W: Wire>(
        &self,
        wire: &mut W,
        inbox: &mut W::Inbox,
        last_words: &mut Vec<Message>,
        reading: Reading<'_>,
    ) -> Option<()> {
        let room = reading.room;
        let (frame, is_answered) = match self {
            Self::Close(close) => (Some(close.clone()), true),
            Self::Leave(close) => {
                inbox.let_go(room);
                (Some(close.clone()), false)
            }
            Self::Answer(close) => (close.clone(), false),
            Self::Silent => return None,
        };
        for message in last_words.drain(..) {
            send(wire, message.into(), room).await.ok()?;
        }
        let sent = send(wire, Frame::Close(frame), room).await;
        // A library that answers a close by itself refuses a second answer.
        if is_answered {
            sent.ok()?;
            poll_fn(|cx| wire.poll_flush(cx, room)).await.ok()?;
            // Ends: with the peer's close frame, with the socket, or with the caller's patience, which
            // needs a turn of its own now and then.
            let mut frames: usize = 0;
            let receive = |cx: &mut Context<'_>, wire: &mut W, inbox: &mut W::Inbox| {
                let received = wire.poll_recv(cx, inbox, reading);
                if received.is_pending() {
                    inbox.rest(room);
                }
                received
            };
            while let Some(Ok(frame)) = poll_fn(|cx| receive(cx, wire, inbox)).await {
                if matches!(frame, Incoming::Close(_)) {
                    break;
                }
                inbox.handled(room);
                frames += 1;
                if frames.is_multiple_of(usize::from(UNFLUSHED)) {
                    // The library answers pings. Whoever does not read the answers is not read from.
                    poll_fn(|cx| wire.poll_flush(cx, room)).await.ok()?;
                    tokio::task::yield_now().await;
                }
            }
        }
        poll_fn(|cx| wire.poll_close(cx, room)).await.ok()
    }
}

async fn send<W: Wire>(wire: &mut W, frame: Frame, room: &Room) -> Result<(), Fault> {
    poll_fn(|cx| wire.poll_ready(cx, room)).await?;
    wire.start_send(frame, room)
}
