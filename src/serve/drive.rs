//! One connection's socket and lease, polled together.
//!
//! Each turn goes in this order: has the lease ended; what is queued goes to the socket; the
//! handler; and, if no handler is pending, what came in. Written is what was queued when there is
//! nothing else to do, so that many messages leave by one write.

use super::application::{CloseReport, HandlerError};
use super::keeper;
use super::transport::{CloseFrame, Fault, Frame, Transport};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::manager::{Message, Session, contain};
use crate::pool::{Held, Tie};
use crate::reason::EndReason;
use bytes::Bytes;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// Frames that a turn reads, and messages that it takes from the queue, before others on the same
/// thread have theirs.
const TURN: usize = 64;

/// Frames that wait in the library's buffer before nothing more is read: a peer that sends pings and
/// reads no answers fills its own side, not our memory.
pub(super) const UNFLUSHED: usize = 16;

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
            Self::Error(_) => EndReason::HandlerError,
            Self::Panic => EndReason::HandlerPanic,
        }
    }
}

/// The driver of one connection.
pub(super) struct Drive<'a, T, S: Session> {
    socket: Pin<&'a mut T>,
    tie: &'a Tie<S>,
    report: &'a mut CloseReport,
    pulse: Pulse,
    /// The moment at which the keeper was asked to wake us.
    alarm: Timestamp,
    wants_ping: bool,
    /// Frames given to the library since the last complete flush.
    unflushed: usize,
    /// Since when that many wait that nothing is read.
    blocked_since: Option<Timestamp>,
    frames_left: usize,
}

impl<'a, T: Transport, S: Session> Drive<'a, T, S> {
    pub(super) fn new(socket: Pin<&'a mut T>, tie: &'a Tie<S>, report: &'a mut CloseReport) -> Self {
        Self {
            socket,
            tie,
            report,
            pulse: Pulse::new(&tie.config(), tie.now()),
            alarm: Timestamp::ZERO,
            wants_ping: false,
            unflushed: 0,
            blocked_since: None,
            frames_left: TURN,
        }
    }

    /// The next message. Cancel-safe between two messages.
    pub(super) async fn receive(&mut self) -> Result<Frame, Ending> {
        poll_fn(|cx| {
            let now = self.tie.now();
            if let Err(ending) = self.attend(cx, now) {
                return Poll::Ready(Err(ending));
            }
            while self.frames_left > 0 {
                if self.unflushed >= UNFLUSHED && self.flush(cx)?.is_pending() {
                    return self.rest_blocked(now);
                }
                let Poll::Ready(received) = self.socket.as_mut().poll_recv(cx) else {
                    self.frames_left = TURN;
                    return self.rest(cx, now);
                };
                self.frames_left -= 1;
                let frame = match received {
                    Some(Ok(frame)) => frame,
                    Some(Err(fault)) => return Poll::Ready(Err(Ending::Fault(fault))),
                    None => return Poll::Ready(Err(Ending::Fault(Fault::Socket))),
                };
                self.pulse.heard(now);
                match frame {
                    Frame::Text(ref payload) | Frame::Binary(ref payload) => {
                        self.note_received(payload);
                        return Poll::Ready(Ok(frame));
                    }
                    Frame::Ping(_) => self.unflushed += 1, // the library has an answer for it
                    Frame::Pong(_) => {}
                    Frame::Close(close) => return Poll::Ready(Err(Ending::Peer(close))),
                }
            }
            // There may be more: the others' turn first.
            self.frames_left = TURN;
            cx.waker().wake_by_ref();
            self.flush_and_wait(cx)
        })
        .await
    }

    /// Runs a handler to its end, while what is queued goes out. If the lease ends meanwhile the
    /// handler is dropped.
    pub(super) async fn handle(
        &mut self,
        handler: impl Future<Output = Result<(), HandlerError>>,
    ) -> Result<(), Ending> {
        let mut handler = pin!(Some(handler));
        let handled = poll_fn(|cx| {
            let now = self.tie.now();
            if let Err(ending) = self.attend(cx, now) {
                return Poll::Ready(Err(ending));
            }
            let Some(running) = handler.as_mut().as_pin_mut() else { return Poll::Ready(Ok(())) };
            match contain(|| running.poll(cx)) {
                None => Poll::Ready(Err(Ending::Panic)),
                Some(Poll::Ready(result)) => Poll::Ready(result.map_err(Ending::Error)),
                Some(Poll::Pending) => self.rest_from_reading(cx, now),
            }
        })
        .await;
        // Foreign code too: what it holds may panic when it is dropped.
        let dropped = contain(|| handler.set(None));
        // Nothing was read meanwhile, so the silence was not the peer's.
        self.pulse.heard(self.tie.now());
        handled.and(dropped.ok_or(Ending::Panic))
    }

    /// Takes what is still queued, for the time after the lease. Nothing more is queued from now on.
    pub(super) fn last_words(&mut self, held: &mut Held<S>) -> Vec<Message> {
        // Refused: the lease is over, and the queue with it.
        let _ = self.tie.advance(|manager| manager.mark_closing());
        let mut messages = Vec::new();
        while let Some(message) = self.tie.pop_held(held) {
            messages.push(message);
        }
        self.report.messages_out += messages.len() as u64;
        messages
    }

    fn note_received(&mut self, payload: &Bytes) {
        self.report.messages_in += 1;
        // Revoked: the next turn finds out.
        let _ = self.tie.received(payload.len());
    }

    /// What comes first in every turn.
    fn attend(&mut self, cx: &mut Context<'_>, now: Timestamp) -> Result<(), Ending> {
        self.tie.watch(cx.waker(), now).map_err(|_| Ending::Revoked)?;
        keeper::ensure(self.tie);
        self.feed(cx)
    }

    /// Hands what is queued to the socket, as far as that takes it.
    fn feed(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        for _ in 0..TURN {
            match self.socket.as_mut().poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Ending::Fault(Fault::Socket)),
                Poll::Pending => return Ok(()),
            }
            let frame = if self.wants_ping {
                self.wants_ping = false;
                Frame::Ping(Bytes::new())
            } else {
                match self.tie.pop() {
                    Ok(Some(message)) => {
                        self.report.messages_out += 1;
                        message.into()
                    }
                    Ok(None) => return Ok(()),
                    Err(_) => return Err(Ending::Revoked),
                }
            };
            self.socket.as_mut().start_send(frame).map_err(|_| Ending::Fault(Fault::Socket))?;
            self.unflushed += 1;
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Nothing came in. Only now can it be said that the peer is silent.
    fn rest<R>(&mut self, cx: &mut Context<'_>, now: Timestamp) -> Poll<Result<R, Ending>> {
        match self.pulse.check(now) {
            Beat::Alive => {}
            Beat::Ping => self.ping(cx)?,
            Beat::Dead => return Poll::Ready(Err(Ending::Heartbeat)),
        }
        self.set_alarm(now);
        self.flush_and_wait(cx)
    }

    /// The handler is pending, nothing is read: nobody can be found dead. Pings go out all the same,
    /// since they find a socket that was reset.
    fn rest_from_reading<R>(&mut self, cx: &mut Context<'_>, now: Timestamp) -> Poll<Result<R, Ending>> {
        if self.pulse.check(now) != Beat::Alive {
            self.pulse.heard(now);
            self.ping(cx)?;
        }
        self.set_alarm(now);
        self.flush_and_wait(cx)
    }

    fn ping(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        self.wants_ping = true;
        self.feed(cx)
    }

    /// An alarm that is early costs a turn and is set anew, so it need not follow every frame.
    fn set_alarm(&mut self, now: Timestamp) {
        if self.alarm <= now || self.pulse.deadline() < self.alarm {
            self.alarm = self.pulse.deadline();
            self.tie.wake_wanted(self.alarm);
        }
    }

    /// Too much waits to be written: nothing is read before the peer reads. It has as long for that as a
    /// silent one has.
    fn rest_blocked<R>(&mut self, now: Timestamp) -> Poll<Result<R, Ending>> {
        let since = *self.blocked_since.get_or_insert(now);
        let deadline = since.after(self.pulse.patience());
        if now >= deadline {
            return Poll::Ready(Err(Ending::Slow));
        }
        self.frames_left = TURN;
        self.alarm = deadline;
        self.tie.wake_wanted(deadline);
        Poll::Pending
    }

    fn flush_and_wait<R>(&mut self, cx: &mut Context<'_>) -> Poll<Result<R, Ending>> {
        let _: Poll<()> = self.flush(cx)?;
        Poll::Pending
    }

    /// Writes out what the library holds.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Ending> {
        if self.unflushed > 0 {
            match self.socket.as_mut().poll_flush(cx) {
                Poll::Ready(Ok(())) => (self.unflushed, self.blocked_since) = (0, None),
                Poll::Ready(Err(_)) => return Err(Ending::Fault(Fault::Socket)),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(Poll::Ready(()))
    }
}

impl From<Message> for Frame {
    fn from(message: Message) -> Self {
        if message.is_text() { Self::Text(message.into_bytes()) } else { Self::Binary(message.into_bytes()) }
    }
}

/// Whether the peer is alive. Any frame from it says so.
struct Pulse {
    interval: std::time::Duration,
    timeout: std::time::Duration,
    heard_at: Timestamp,
    pinged_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beat {
    Alive,
    /// Time for a ping.
    Ping,
    Dead,
}

impl Pulse {
    fn new(config: &Config, now: Timestamp) -> Self {
        let (interval, timeout) = (config.heartbeat_interval, config.heartbeat_timeout);
        Self { interval, timeout, heard_at: now, pinged_at: None }
    }

    fn heard(&mut self, now: Timestamp) {
        self.heard_at = now;
        self.pinged_at = None;
    }

    /// How long a peer may give no sign of life.
    fn patience(&self) -> std::time::Duration {
        self.interval.saturating_add(self.timeout)
    }

    /// When [`Pulse::check`] has something to say, if nothing is heard.
    fn deadline(&self) -> Timestamp {
        self.pinged_at.map_or_else(|| self.heard_at.after(self.interval), |at| at.after(self.timeout))
    }

    /// The timeout runs from the ping that was really sent, however late it was.
    fn check(&mut self, now: Timestamp) -> Beat {
        if now < self.deadline() {
            Beat::Alive
        } else if self.pinged_at.is_none() || cfg!(fault = "heartbeat_never_fires") {
            self.pinged_at = Some(now);
            Beat::Ping
        } else {
            Beat::Dead
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[test]
    fn a_silent_peer_is_pinged_and_then_dead_and_any_frame_revives_it() {
        let config = Config::preset(Environment::Production);
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1_000);
        let mut pulse = Pulse::new(&config, at(0));
        assert_eq!(pulse.check(at(19)), Beat::Alive);
        assert_eq!(pulse.check(at(20)), Beat::Ping);
        assert_eq!((pulse.check(at(29)), pulse.deadline()), (Beat::Alive, at(30)));
        pulse.heard(at(29));
        assert_eq!(pulse.check(at(48)), Beat::Alive);
        assert_eq!(pulse.check(at(90)), Beat::Ping, "late, but nobody is dead without a ping");
        assert_eq!(pulse.check(at(99)), Beat::Alive);
        assert_eq!(pulse.check(at(100)), Beat::Dead);
    }
}
