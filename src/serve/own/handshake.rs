//! A handshake as a state machine, written by hand: the future of a connection keeps the room of its largest
//! state for life, so this one is to be no larger than the connection is.

use super::gate::{AcceptError, Admission, Door, Gate, Rejection};
use super::head::Head;
use super::{Inbound, Own};
use crate::engine::{HeadScanner, Request, accept};
use crate::pool::{Entered, Lease, Reservation};
use crate::serve::porch::PorchFull;
use pin_project_lite::pin_project;
use std::future::Future;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep};

pin_project! {
    /// From an accepted socket to an open lease, or to the word that there is none.
    pub(super) struct Handshake<D: Door, IO> {
        steps: Steps<D, IO>,
        // From the first time that the peer is waited for.
        #[pin]
        deadline: Option<Sleep>,
    }
}

/// What a handshake leaves to be served.
pub(super) type Arrived<D, IO> = (Own<IO>, Inbound, Lease<<D as Door>::Session>);

struct Steps<D: Door, IO> {
    gate: Gate<D>,
    /// Until it is handed on.
    io: Option<IO>,
    made_at: &'static Location<'static>,
    /// A place for a socket without an owner, from the first turn on.
    place: Option<Entered<D::Session>>,
    head: Head,
    step: Step,
}

enum Step {
    Reading(HeadScanner),
    /// A door that has to wait, and where the head ends. Few such doors do without allocating.
    Asking(Asking, usize),
    /// An answer is written that ends the connection.
    Parting(Box<AcceptError>, Farewell),
}

type Asking = Pin<Box<dyn Future<Output = Result<Admission, Rejection>> + Send>>;

#[derive(Clone, Copy)]
enum Farewell {
    Writing,
    ShuttingDown,
    /// Unread bytes would make the kernel throw the answer away with the connection: so many reads are made.
    Draining(u8),
}

impl<D: Door, IO: AsyncRead + AsyncWrite + Unpin> Handshake<D, IO> {
    /// Without a place it takes one when it is first polled, or fails.
    pub(super) fn new(
        gate: Gate<D>,
        place: Option<Entered<D::Session>>,
        io: IO,
        made_at: &'static Location<'static>,
    ) -> Self {
        let step = Step::Reading(HeadScanner::new());
        let steps = Steps { gate, io: Some(io), made_at, place, head: Head::default(), step };
        Self { steps, deadline: None }
    }
}

impl<D: Door, IO: AsyncRead + AsyncWrite + Unpin> Future for Handshake<D, IO> {
    type Output = Result<Arrived<D, IO>, AcceptError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let steps = this.steps;
        if let Poll::Ready(arrived) = steps.poll(cx) {
            return Poll::Ready(arrived);
        }
        steps.head.settle(steps.gate.pool().room());
        let deadline = steps.gate.pool().config().reservation_deadline;
        if this.deadline.is_none() {
            this.deadline.set(Some(sleep(deadline)));
        }
        if let Some(elapsed) = this.deadline.as_pin_mut() {
            ready!(elapsed.poll(cx));
        }
        if fault!("handshake_for_ever") {
            return Poll::Pending;
        }
        Poll::Ready(Err(AcceptError::TooSlow { deadline }))
    }
}

impl<D: Door, IO: AsyncRead + AsyncWrite + Unpin> Steps<D, IO> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arrived<D, IO>, AcceptError>> {
        if self.place.is_none() {
            let max_unauthenticated = self.gate.pool().config().max_unauthenticated;
            self.place = Some(self.gate.pool().enter().ok_or(PorchFull { max_unauthenticated })?);
        }
        // Ends: each turn goes a step on, or reads or writes something.
        loop {
            let Self { gate, io: Some(io), head, step, .. } = self else {
                return Poll::Ready(Err(AcceptError::NoRequest)); // polled after its end
            };
            let room = gate.pool().room();
            let arrived = match step {
                Step::Reading(scanner) => match scanner.find_end(head.bytes()) {
                    Ok(Some(end)) => self.ask(cx, end),
                    Ok(None) if ready!(head.poll_read(cx, io, room))? == 0 => {
                        return Poll::Ready(Err(AcceptError::NoRequest));
                    }
                    Ok(None) => None,
                    Err(error) => self.refuse(error.into()),
                },
                Step::Asking(asking, end) => {
                    let (admitted, end) = (ready!(asking.as_mut().poll(cx)), *end);
                    self.answer(admitted, end)
                }
                Step::Parting(error, farewell) => {
                    // Whatever fails from here on, that is the error.
                    if ready!(farewell.poll(cx, head, io)) {
                        let error = std::mem::replace(&mut **error, AcceptError::NoRequest);
                        return Poll::Ready(Err(error));
                    }
                    None
                }
            };
            if let Some(arrived) = arrived {
                return Poll::Ready(Ok(arrived));
            }
        }
    }

    /// The head is whole. `None`, here and below: there is something to wait for, or to refuse.
    fn ask(&mut self, cx: &mut Context<'_>, end: usize) -> Option<Arrived<D, IO>> {
        if D::IS_IMMEDIATE {
            return self.ask_at_once(cx, end);
        }
        let request = Request::parse(&self.head.bytes()[..end]).map_err(Rejection::from);
        if let Err(rejection) = request.and_then(|request| self.gate.check_origin(&request)) {
            return self.refuse(rejection);
        }
        let (gate, head) = (self.gate.clone(), Box::<[u8]>::from(&self.head.bytes()[..end]));
        let asking = async move { gate.door().admit(&Request::parse(&head)?).await };
        self.step = Step::Asking(Box::pin(asking), end);
        None
    }

    /// The same where nothing has to be waited for: the request is parsed once, and the answer written
    /// beside it.
    fn ask_at_once(&mut self, cx: &mut Context<'_>, end: usize) -> Option<Arrived<D, IO>> {
        let Self { gate, made_at, head, .. } = self;
        let (read, mut free) = head.split();
        let space = free.len();
        let mut put = || {
            let request = Request::parse(&read[..end])?;
            gate.check_origin(&request)?;
            let admission = match pin!(gate.door().admit(&request)).poll(cx) {
                Poll::Ready(admitted) => admitted?,
                Poll::Pending => return Err(Rejection::new(500, "the server's door does not do as it says")),
            };
            let reservation = reserve(gate, &admission, made_at)?;
            let put = accept(&request, admission.protocol_name(), gate.headers(&admission), &mut free);
            Ok((admission, reservation, put))
        };
        match put() {
            Ok((_, reservation, Ok(()))) => {
                let written = space - free.len();
                self.head.answered(written);
                self.open(reservation, end)
            }
            Ok((admission, reservation, Err(_))) => self.let_in(&admission, reservation, end), // no room, perhaps
            Err(rejection) => self.refuse(rejection),
        }
    }

    fn answer(&mut self, admitted: Result<Admission, Rejection>, end: usize) -> Option<Arrived<D, IO>> {
        let reserved = admitted.and_then(|admission| {
            let reservation = reserve(&self.gate, &admission, self.made_at)?;
            Ok((admission, reservation))
        });
        match reserved {
            Ok((admission, reservation)) => self.let_in(&admission, reservation, end),
            Err(rejection) => self.refuse(rejection),
        }
    }

    /// Puts the answer behind the head.
    fn let_in(
        &mut self,
        admission: &Admission,
        reservation: Reservation<D::Session>,
        end: usize,
    ) -> Option<Arrived<D, IO>> {
        let Self { gate, head, .. } = self;
        let room = gate.pool().room();
        match head.accept(end, admission.protocol_name(), gate.headers(admission), room) {
            Ok(()) => self.open(reservation, end),
            Err(mistake) => self.refuse(Rejection::for_mistake(mistake)),
        }
    }

    /// The answer lies ready. The lease begins before it is written: nothing but a socket that fails can come
    /// between, which the connection finds as it would a moment later; what is sent from here on goes out in
    /// one piece with the answer; and who finds the place gone still hears it by a status.
    fn open(&mut self, reservation: Reservation<D::Session>, end: usize) -> Option<Arrived<D, IO>> {
        match reservation.open() {
            Ok(lease) => {
                self.place = None;
                let (inbox, answer) = self.head.hand_over(end, self.gate.pool().room());
                Some((Own::with_answer(self.io.take()?, answer), inbox, lease))
            }
            Err(error) => self.refuse(error.into()),
        }
    }

    fn refuse(&mut self, mut rejection: Rejection) -> Option<Arrived<D, IO>> {
        let put = self.head.refuse(&rejection, self.gate.pool().room());
        let mistake = put.err().map(Box::new).or_else(|| rejection.mistake.take());
        let error = mistake.map_or_else(|| AcceptError::Rejected(rejection), |it| AcceptError::Response(*it));
        self.step = Step::Parting(Box::new(error), Farewell::Writing);
        None
    }
}

fn reserve<D: Door>(
    gate: &Gate<D>,
    admission: &Admission,
    made_at: &'static Location<'static>,
) -> Result<Reservation<D::Session>, Rejection> {
    let mut reservation = gate.pool().reserve(&admission.context)?;
    reservation.set_made_at(made_at);
    if let Some(after) = admission.after {
        reservation.resume_after(after);
    }
    Ok(reservation)
}

impl<D: Door, IO> Drop for Steps<D, IO> {
    fn drop(&mut self) {
        self.head.let_go(self.gate.pool().room());
    }
}

/// Reads of what a client that was refused has still to say.
const MOST_READS: u8 = 64;

impl Farewell {
    /// Whether it has been said.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Head,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Poll<bool> {
        match *self {
            Self::Writing => {
                *self = match ready!(head.poll_write(cx, io)) {
                    Ok(()) => Self::ShuttingDown,
                    Err(_) => return Poll::Ready(true),
                }
            }
            Self::ShuttingDown => {
                let _failed = ready!(Pin::new(io).poll_shutdown(cx));
                *self = Self::Draining(MOST_READS);
            }
            Self::Draining(0) => return Poll::Ready(true),
            Self::Draining(reads) => {
                *self = Self::Draining(reads - 1);
                return Poll::Ready(!matches!(ready!(head.poll_discard(cx, io)), Ok(1..)));
            }
        }
        Poll::Ready(false)
    }
}
