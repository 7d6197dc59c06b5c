//! One connection's socket and lease, polled together.
//!
//! Each turn goes in this order: has the lease ended; what is queued goes to the socket; the
//! handler; and, if no handler is pending, what came in. Written is what was queued when there is
//! nothing else to do, so that many messages leave by one write.
//!
//! What is decided from times alone is in `pulse.rs` and `lifespan.rs`; nothing there knows of sockets.

use super::application::HandlerError;
use super::ending::Ending;
use super::lifespan::Lifespan;
use super::pulse::{Beat, Pulse};
use super::room::RoomWaiters;
use super::transport::{Fault, Frame};
use super::wire::{Inbox, Incoming, Lack, Reading, Wire};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::manager::{Message, Session, contain};
use crate::pool::{BATCH, Held, Outgoing, Tie};
use crate::reason::EndReason;
use bytes::Bytes;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Frames that a turn reads before others on the same thread have theirs.
const TURN: u8 = 64;

/// Times that a turn goes to the queue, and takes a batch from it.
const ROUNDS: usize = 64 / BATCH;

/// Frames that wait in the library's buffer before nothing more is read: a peer that sends pings and
/// reads no answers fills its own side, not our memory.
pub(super) const UNFLUSHED: u8 = 16;

/// How often to look whether there is a buffer to read into, where they are short.
const ASK_FOR_A_BUFFER: Duration = Duration::from_millis(20);

/// What the driver remembers of a connection from turn to turn.
pub(super) struct Vitals {
    pulse: Pulse,
    lifespan: Lifespan,
    /// The moment at which the keeper was asked to wake us.
    alarm: Timestamp,
    /// Since when so many frames wait that nothing is read; [`Timestamp::ZERO`] while they do not.
    blocked_since: Timestamp,
    /// Since when a message is incomplete; [`Timestamp::ZERO`] while none is.
    unfinished_since: Timestamp,
    /// The application hears of the end only of what has been polled.
    pub(super) is_begun: bool,
    wants_ping: bool,
    /// Frames given to the wire since the last complete flush, as far as it matters.
    unflushed: u8,
    frames_left: u8,
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
}

impl Vitals {
    pub(super) fn new(opened_at: Timestamp, now: Timestamp) -> Self {
        Self {
            pulse: Pulse::new(now),
            lifespan: Lifespan::new(opened_at, rand::random()),
            alarm: Timestamp::ZERO,
            blocked_since: Timestamp::ZERO,
            unfinished_since: Timestamp::ZERO,
            is_begun: false,
            wants_ping: false,
            unflushed: 1, // the answer to a handshake, perhaps
            frames_left: TURN,
            messages_in: 0,
            messages_out: 0,
        }
    }
}

/// The driver of one connection, for the length of one of its waits.
pub(super) struct Drive<'a, W, S: Session> {
    pub(super) wire: &'a mut W,
    pub(super) tie: &'a Tie<S>,
    pub(super) vitals: &'a mut Vitals,
}

impl<'a, W: Wire, S: Session> Drive<'a, W, S> {
    /// The next message, which is in the inbox then: whether it is text. Cancel-safe between two messages.
    pub(super) fn receive<'i>(self, inbox: &'i mut W::Inbox) -> Receiving<'a, 'i, W, S> {
        Receiving { drive: self, inbox }
    }

    /// Calls a method of the application and runs it to its end, while what is queued goes out. If the
    /// lease ends meanwhile it is dropped.
    pub(super) fn handle<C, F>(self, waiters: &'a RoomWaiters, method: C) -> Handling<'a, W, S, C, F>
    where
        C: FnOnce() -> F,
        F: Future<Output = Result<(), HandlerError>>,
    {
        Handling { drive: self, waiters, handler: Handler::Due { method } }
    }

    /// Takes what is still queued, for the time after the lease. Nothing more is queued from now on.
    pub(super) fn last_words(&mut self, held: &mut Held<S>) -> Vec<Message> {
        // Refused: the lease is over, and the queue with it.
        let _ = self.tie.advance(|manager| manager.mark_closing());
        let mut messages = Vec::new();
        while let Some(message) = self.tie.pop_held(held) {
            messages.push(message);
        }
        self.vitals.messages_out += messages.len() as u64;
        messages
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, inbox: &mut W::Inbox) -> Poll<Result<bool, Ending>> {
        let now = self.tie.now();
        if let Err(ending) = self.attend(cx, now) {
            return Poll::Ready(Err(ending));
        }
        let config = self.tie.config();
        // Also of one that is never silent. Idle it can only be if nothing has come in.
        if self.vitals.lifespan.is_old(&config, now) {
            self.outlive(&config, now)?;
        }
        let reading = Reading::new(self.tie.room(), &config);
        while self.vitals.frames_left > 0 {
            if self.vitals.unflushed >= UNFLUSHED && self.flush(cx)?.is_pending() {
                return self.rest_blocked(&config, now);
            }
            let Poll::Ready(received) = self.wire.poll_recv(cx, inbox, reading) else {
                self.vitals.frames_left = TURN;
                let finish_by = self.finish_by(inbox.lack(), &config, now)?;
                return self.rest(cx, &config, now, finish_by);
            };
            self.vitals.frames_left -= 1;
            let frame = match received {
                Some(Ok(frame)) => frame,
                Some(Err(fault)) => return Poll::Ready(Err(Ending::Fault(fault))),
                None => return Poll::Ready(Err(Ending::Fault(Fault::Socket))),
            };
            self.vitals.pulse.heard(now);
            match frame {
                Incoming::Text | Incoming::Binary => {
                    self.finished();
                    let is_text = matches!(frame, Incoming::Text);
                    self.note_received(inbox.message(is_text).len(), now);
                    return Poll::Ready(Ok(is_text));
                }
                Incoming::Ping => self.took_one(), // the wire has an answer for it
                Incoming::Pong => {}
                Incoming::Close(close) => return Poll::Ready(Err(Ending::Peer(close))),
            }
        }
        // There may be more: the others' turn first.
        self.vitals.frames_left = TURN;
        cx.waker().wake_by_ref();
        self.flush_and_wait(cx)
    }

    fn note_received(&mut self, bytes: usize, now: Timestamp) {
        self.vitals.messages_in += 1;
        self.vitals.lifespan.active(now);
        // Revoked: the next turn finds out.
        let _ = self.tie.received(bytes);
    }

    /// What comes first in every turn.
    fn attend(&mut self, cx: &mut Context<'_>, now: Timestamp) -> Result<(), Ending> {
        if self.vitals.wants_ping || !self.is_ready(cx)? {
            self.tie.watch(cx.waker(), now).map_err(|_| Ending::Revoked)?;
            return self.feed(cx, now);
        }
        let outgoing = self.tie.turn(cx.waker(), now).map_err(|_| Ending::Revoked)?;
        if self.hand_over(cx, now, outgoing)? { self.feed(cx, now) } else { Ok(()) }
    }

    /// Hands what is queued to the socket, as far as that takes it.
    fn feed(&mut self, cx: &mut Context<'_>, now: Timestamp) -> Result<(), Ending> {
        for _ in 0..ROUNDS {
            if !self.is_ready(cx)? {
                return Ok(());
            }
            if std::mem::take(&mut self.vitals.wants_ping) {
                self.start(Frame::Ping(Bytes::new()))?;
                continue;
            }
            let outgoing = self.tie.more(now).map_err(|_| Ending::Revoked)?;
            if !self.hand_over(cx, now, outgoing)? {
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Hands a batch to the socket, which is ready for a frame; what it does not take goes back. Is there
    /// more to be said, and may the socket take it?
    fn hand_over(
        &mut self,
        cx: &mut Context<'_>,
        now: Timestamp,
        mut outgoing: Outgoing<'_, S>,
    ) -> Result<bool, Ending> {
        while let Some(message) = outgoing.next() {
            self.vitals.messages_out += 1;
            self.vitals.lifespan.active(now);
            self.start(message.into())?;
            if !outgoing.is_empty() && !self.is_ready(cx)? {
                outgoing.put_back();
                return Ok(false);
            }
        }
        Ok(!outgoing.is_all)
    }

    fn is_ready(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        match self.wire.poll_ready(cx, self.tie.room()) {
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(_)) => Err(Ending::Fault(Fault::Socket)),
            Poll::Pending => Ok(false),
        }
    }

    fn start(&mut self, frame: Frame) -> Result<(), Ending> {
        self.wire.start_send(frame, self.tie.room()).map_err(|_| Ending::Fault(Fault::Socket))?;
        self.took_one();
        Ok(())
    }

    fn took_one(&mut self) {
        self.vitals.unflushed = self.vitals.unflushed.saturating_add(1);
    }

    /// When to look again at something that is incomplete.
    fn finish_by(&mut self, lack: Lack, config: &Config, now: Timestamp) -> Result<Timestamp, Ending> {
        let mut look_at = Timestamp::NEVER;
        if lack.rest {
            if self.vitals.unfinished_since == Timestamp::ZERO {
                self.vitals.unfinished_since = now;
                self.tie.unfinished(now);
            }
            look_at = self.vitals.unfinished_since.after(config.message_timeout);
            if now >= look_at && !fault!("unfinished_for_ever") {
                return Err(Ending::Expired(EndReason::Unfinished));
            }
        } else {
            self.finished();
        }
        Ok(if lack.buffer { look_at.min(now.after(ASK_FOR_A_BUFFER)) } else { look_at })
    }

    fn finished(&mut self) {
        if self.vitals.unfinished_since != Timestamp::ZERO {
            self.vitals.unfinished_since = Timestamp::ZERO;
            self.tie.unfinished(Timestamp::ZERO);
        }
    }

    /// Nothing came in. Only now can it be said that the peer is silent.
    fn rest<R>(
        &mut self,
        cx: &mut Context<'_>,
        config: &Config,
        now: Timestamp,
        finish_by: Timestamp,
    ) -> Poll<Result<R, Ending>> {
        match self.vitals.pulse.check(config, now) {
            Beat::Alive => {}
            Beat::Ping => self.ping(cx, now)?,
            Beat::Dead => return Poll::Ready(Err(Ending::Heartbeat)),
        }
        let ask_again = self.outlive(config, now)?;
        self.set_alarm(ask_again.min(finish_by).min(self.vitals.pulse.deadline(config)), now);
        self.flush_and_wait(cx)
    }

    /// The handler is pending, nothing is read: nobody can be found dead, and nobody is idle. Pings go out
    /// all the same, since they find a socket that was reset.
    fn rest_from_reading<R>(&mut self, cx: &mut Context<'_>, now: Timestamp) -> Poll<Result<R, Ending>> {
        let config = self.tie.config();
        if self.vitals.pulse.check(&config, now) != Beat::Alive {
            self.vitals.pulse.heard(now);
            self.ping(cx, now)?;
        }
        self.set_alarm(self.vitals.pulse.deadline(&config), now);
        self.flush_and_wait(cx)
    }

    /// When to ask again whether the connection is idle or old.
    fn outlive(&self, config: &Config, now: Timestamp) -> Result<Timestamp, Ending> {
        self.vitals.lifespan.check(config, now, || self.tie.run_until()).map_err(Ending::Expired)
    }

    fn ping(&mut self, cx: &mut Context<'_>, now: Timestamp) -> Result<(), Ending> {
        self.vitals.wants_ping = true;
        self.feed(cx, now)
    }

    /// An alarm that is early costs a turn and is set anew, so it need not follow every frame.
    fn set_alarm(&mut self, at: Timestamp, now: Timestamp) {
        if self.vitals.alarm <= now || at < self.vitals.alarm {
            self.vitals.alarm = at;
            self.tie.wake_wanted(at);
        }
    }

    /// Too much waits to be written: nothing is read before the peer reads. It has as long for that as a
    /// silent one has.
    fn rest_blocked<R>(&mut self, config: &Config, now: Timestamp) -> Poll<Result<R, Ending>> {
        if self.vitals.blocked_since == Timestamp::ZERO {
            self.vitals.blocked_since = now;
        }
        let deadline = self.vitals.blocked_since.after(Pulse::patience(config));
        if now >= deadline {
            return Poll::Ready(Err(Ending::Slow));
        }
        let ask_again = self.outlive(config, now)?;
        self.vitals.frames_left = TURN;
        self.set_alarm(deadline.min(ask_again), now);
        Poll::Pending
    }

    fn flush_and_wait<R>(&mut self, cx: &mut Context<'_>) -> Poll<Result<R, Ending>> {
        let _: Poll<()> = self.flush(cx)?;
        Poll::Pending
    }

    /// Writes out what the wire holds.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Ending> {
        if self.vitals.unflushed > 0 {
            match self.wire.poll_flush(cx, self.tie.room()) {
                Poll::Ready(Ok(())) => {
                    (self.vitals.unflushed, self.vitals.blocked_since) = (0, Timestamp::ZERO);
                }
                Poll::Ready(Err(_)) => return Err(Ending::Fault(Fault::Socket)),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(Poll::Ready(()))
    }
}

/// Waits for a message.
pub(super) struct Receiving<'a, 'i, W: Wire, S: Session> {
    drive: Drive<'a, W, S>,
    inbox: &'i mut W::Inbox,
}

impl<W: Wire, S: Session> Future for Receiving<'_, '_, W, S> {
    type Output = Result<bool, Ending>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { drive, inbox } = &mut *self;
        let received = drive.poll_receive(cx, inbox);
        if received.is_pending() {
            inbox.rest(drive.tie.room());
            drive.wire.rest(drive.tie.room());
        }
        received
    }
}

pin_project! {
    /// A method of the application at work. It lies in the connection's task once, as the method that is to
    /// be called and then as its future.
    pub(super) struct Handling<'a, W, S: Session, C, F> {
        drive: Drive<'a, W, S>,
        waiters: &'a RoomWaiters,
        #[pin]
        handler: Handler<C, F>,
    }
}

pin_project! {
    #[project = HandlerView]
    #[project_replace = HandlerBefore]
    enum Handler<C, F> {
        Due { method: C },
        Running { #[pin] running: F },
        Over,
    }
}

impl<C, F> Handler<C, F>
where
    C: FnOnce() -> F,
    F: Future<Output = Result<(), HandlerError>>,
{
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        if let HandlerView::Due { .. } = self.as_mut().project()
            && let HandlerBefore::Due { method } = self.as_mut().project_replace(Self::Over)
        {
            self.set(Self::Running { running: method() });
        }
        match self.project() {
            HandlerView::Running { running } => running.poll(cx),
            HandlerView::Due { .. } | HandlerView::Over => Poll::Ready(Ok(())),
        }
    }
}

impl<W, S, C, F> Future for Handling<'_, W, S, C, F>
where
    W: Wire,
    S: Session,
    C: FnOnce() -> F,
    F: Future<Output = Result<(), HandlerError>>,
{
    type Output = Result<(), Ending>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let drive = this.drive;
        let now = drive.tie.now();
        let handled = match drive.attend(cx, now) {
            Err(ending) => Err(ending),
            Ok(()) => {
                this.waiters.look(drive.tie);
                match contain(|| this.handler.as_mut().poll(cx)) {
                    None => Err(Ending::Panic),
                    Some(Poll::Ready(result)) => result.map_err(Ending::Error),
                    Some(Poll::Pending) => {
                        let rest = drive.rest_from_reading(cx, now);
                        drive.wire.rest(drive.tie.room());
                        ready!(rest)
                    }
                }
            }
        };
        // Foreign code too: what it holds may panic when it is dropped.
        let dropped = contain(|| this.handler.set(Handler::Over));
        // Nothing was read meanwhile, so the silence was not the peer's.
        drive.vitals.pulse.heard(drive.tie.now());
        Poll::Ready(handled.and(dropped.ok_or(Ending::Panic)))
    }
}

impl From<Message> for Frame {
    fn from(message: Message) -> Self {
        if message.is_text() { Self::Text(message.into_bytes()) } else { Self::Binary(message.into_bytes()) }
    }
}
