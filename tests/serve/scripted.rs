//! A socket that does what a test wants, without a network and without time.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use ws_manager_pool::serve::{Fault, Frame, Transport};

/// A transport in memory. What it is and does can be changed from outside by its [`Remote`].
pub(crate) struct Scripted {
    remote: Remote,
    /// Each poll is `Pending` first, and wakes at once: so that each is an await of its own.
    hesitates: bool,
    /// By the kind of the poll.
    has_hesitated: [bool; 3],
}

/// The other end, and the state of the line.
#[derive(Clone, Default)]
pub(crate) struct Remote(Arc<Mutex<Line>>);

#[derive(Default)]
struct Line {
    incoming: VecDeque<Result<Frame, Fault>>,
    sent: Vec<Frame>,
    /// Frames that have been handed over and not been written.
    unwritten: Vec<Frame>,
    is_blocked: bool,
    /// After what is incoming: `None` instead of silence.
    is_over: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Scripted {
    pub(crate) fn new() -> (Self, Remote) {
        let remote = Remote::default();
        (Self { remote: remote.clone(), hesitates: false, has_hesitated: [false; 3] }, remote)
    }

    pub(crate) fn hesitating(mut self) -> Self {
        self.hesitates = true;
        self
    }

    fn hesitate(&mut self, kind: usize, cx: &Context<'_>) -> bool {
        let has_hesitated = &mut self.has_hesitated[kind];
        *has_hesitated = self.hesitates && !*has_hesitated;
        if *has_hesitated {
            cx.waker().wake_by_ref();
        }
        *has_hesitated
    }
}

impl Remote {
    pub(crate) fn says(&self, frame: Frame) {
        let mut line = self.0.lock();
        line.incoming.push_back(Ok(frame));
        line.wake();
    }

    pub(crate) fn hangs_up(&self) {
        let mut line = self.0.lock();
        line.is_over = true;
        line.wake();
    }

    /// From now on nothing that is sent leaves.
    pub(crate) fn stops_reading(&self) {
        self.0.lock().is_blocked = true;
    }

    /// Reads one frame that could not be written before.
    pub(crate) fn reads_one(&self) -> bool {
        let mut line = self.0.lock();
        let has_one = !line.unwritten.is_empty();
        if has_one {
            let frame = line.unwritten.remove(0);
            line.sent.push(frame);
            line.wake();
        }
        has_one
    }

    pub(crate) fn heard(&self) -> Vec<Frame> {
        self.0.lock().sent.clone()
    }

    /// The code of the close frame that was heard.
    pub(crate) fn close_code(&self) -> Option<u16> {
        self.heard().into_iter().find_map(|frame| match frame {
            Frame::Close(close) => close.map(|close| close.code),
            _ => None,
        })
    }
}

impl Line {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

const RECV: usize = 0;
const READY: usize = 1;
const FLUSH: usize = 2;

/// Frames that a blocked line takes before it takes no more.
const BUFFER: usize = 4;

impl Transport for Scripted {
    fn poll_recv(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Fault>>> {
        if self.hesitate(RECV, cx) {
            return Poll::Pending;
        }
        let mut line = self.remote.0.lock();
        match line.incoming.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None if line.is_over => Poll::Ready(None),
            None => {
                line.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.hesitate(READY, cx) {
            return Poll::Pending;
        }
        let mut line = self.remote.0.lock();
        if line.is_blocked && line.unwritten.len() >= BUFFER {
            line.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, frame: Frame) -> Result<(), Fault> {
        self.remote.0.lock().unwritten.push(frame);
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.hesitate(FLUSH, cx) {
            return Poll::Pending;
        }
        let mut line = self.remote.0.lock();
        if line.is_blocked && !line.unwritten.is_empty() {
            line.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let written = std::mem::take(&mut line.unwritten);
        line.sent.extend(written);
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.poll_flush(cx)
    }
}
