//! A request's head and the answer to it, side by side in one buffer.
//!
//! ```text
//!  place  [head ══════════╎ first frames ▒▒▒][answer ▓▓▓▓▓▓▓▓▓▓▓]┄┄ free ┄┄
//!          0             end                read               answer
//! ```

use super::Inbound;
use super::gate::Rejection;
use super::outbound::Outbound;
use super::place::Place;
use crate::engine::{HeadScanner, Request, ResponseError, accept, refuse};
use crate::manager::Room;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An answer that is longer is a mistake.
const LONGEST_ANSWER: usize = 64 << 10;

/// What was read, and what is to be written.
#[derive(Default)]
pub(super) struct Head {
    place: Place,
    read: usize,
    written: usize,
    answer: usize,
}

impl Head {
    /// What has come in.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.place.bytes()[..self.read]
    }

    /// What has come in, and free space behind it.
    pub(super) fn split(&mut self) -> (&[u8], &mut [u8]) {
        let (read, free) = self.place.bytes_mut().split_at_mut(self.read);
        (read, free)
    }

    /// So many bytes of an answer were put there.
    pub(super) fn answered(&mut self, bytes: usize) {
        (self.written, self.answer) = (self.read, self.read + bytes);
    }

    /// Reads more. 0: there is no more.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin),
        room: &Room,
    ) -> Poll<io::Result<usize>> {
        if self.place.bytes().len() - self.read < HeadScanner::LONGEST {
            self.place.make_room(self.read, HeadScanner::LONGEST, room);
        }
        let mut space = ReadBuf::new(&mut self.place.bytes_mut()[self.read..]);
        ready!(Pin::new(io).poll_read(cx, &mut space))?;
        let bytes = space.filled().len();
        self.read += bytes;
        Poll::Ready(Ok(bytes))
    }

    /// Reads what is for nobody. 0: there is no more.
    pub(super) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        let mut bytes = [0; 1024];
        let mut space = ReadBuf::new(&mut bytes);
        ready!(Pin::new(io).poll_read(cx, &mut space))?;
        Poll::Ready(Ok(space.filled().len()))
    }

    /// It may take a while before what is here is needed again.
    pub(super) fn settle(&mut self, room: &Room) {
        self.place.put_aside(self.read.max(self.answer), room);
    }

    /// Puts the answer to a request, which ends at `end`, behind what was read.
    ///
    /// # Errors
    ///
    /// Why it cannot be sent.
    pub(super) fn accept<'h>(
        &mut self,
        end: usize,
        protocol: Option<&str>,
        headers: impl Iterator<Item = (&'h str, &'h str)> + Clone,
        room: &Room,
    ) -> Result<(), ResponseError> {
        self.put(room, |head, out| {
            // It was one a moment ago.
            let request = Request::parse(&head[..end]).map_err(|_| ResponseError::Status(400))?;
            accept(&request, protocol, headers.clone(), out)
        })
    }

    /// Puts the answer that there will be no connection.
    ///
    /// # Errors
    ///
    /// Why it cannot be sent.
    pub(super) fn refuse(&mut self, rejection: &Rejection, room: &Room) -> Result<(), ResponseError> {
        let Rejection { status, why, retry_after, headers, .. } = rejection;
        let headers = headers.iter().map(|(name, value)| (&**name, &**value));
        self.put(room, |_, out| refuse(*status, why, *retry_after, headers.clone(), out))
    }

    /// Writes the answer.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while self.written < self.answer {
            let bytes = &self.place.bytes()[self.written..self.answer];
            match ready!(Pin::new(&mut *io).poll_write(cx, bytes))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        Pin::new(io).poll_flush(cx)
    }

    /// The first frames, if the client did not wait for the answer; and the answer, to be written.
    pub(super) fn hand_over(&mut self, end: usize, room: &Room) -> (Inbound, Outbound) {
        let Self { place, read, written, answer } = std::mem::take(self);
        let inbound =
            if read == end { Inbound::default() } else { Inbound::with(&place.bytes()[end..read], room) };
        (inbound, Outbound::with(place, written..answer))
    }

    pub(super) fn let_go(&mut self, room: &Room) {
        self.place.vacate(room);
        *self = Self::default();
    }

    fn put(
        &mut self,
        room: &Room,
        write: impl Fn(&[u8], &mut &mut [u8]) -> Result<(), ResponseError>,
    ) -> Result<(), ResponseError> {
        (self.written, self.answer) = (self.read, self.read);
        loop {
            let (head, mut free) = self.place.bytes_mut().split_at_mut(self.read);
            let space = free.len();
            match write(head, &mut free) {
                Ok(()) => {
                    self.answer += space - free.len();
                    return Ok(());
                }
                Err(ResponseError::NoRoom(bytes)) if bytes <= LONGEST_ANSWER && space < bytes => {
                    self.place.make_room(self.read, bytes, room);
                }
                Err(mistake) => return Err(mistake),
            }
        }
    }
}
