//! Drives a socket on Tokio: one task for a connection, no writer task, no channel, no timer.
//!
//! ```
//! use tokio::net::TcpStream;
//! use ws_manager_pool::serve::{CloseReport, application, serve};
//! use ws_manager_pool::{Pool, UserExecutionContext};
//!
//! async fn connection(stream: TcpStream, pool: Pool, context: UserExecutionContext) -> Option<CloseReport> {
//!     let reservation = pool.reserve(&context).ok()?; // refuse with HTTP 429 or 503
//!     # #[cfg(feature = "tungstenite")]
//!     let socket = tokio_tungstenite::accept_async(stream).await.ok()?;
//!     let lease = reservation.open().ok()?;
//!     let echo = application(|conn, message| {
//!         let _ = conn.send(message.to_message());
//!         Ok(())
//!     });
//!     # #[cfg(feature = "tungstenite")]
//!     return Some(serve(socket, lease, echo).await);
//!     # #[cfg(not(feature = "tungstenite"))]
//!     # None
//! }
//! ```
//!
//! # How a connection ends
//!
//! | what happened | [`EndReason`] | the peer is told |
//! | --- | --- | --- |
//! | the peer closed | `Closed` | its own code |
//! | [`Connection::close`] | `Closed` | 1000 |
//! | the handler returned an error, or panicked | `HandlerError`, `HandlerPanic` | 1011 |
//! | the peer broke the protocol, sent no UTF-8, sent too much | `ProtocolError`, `InvalidUtf8`, `TooLarge` | 1002, 1007, 1009 |
//! | silence, and no answer to a ping | `Heartbeat` | 4005 |
//! | no message either way for `idle_background` | `Idle` | 4003 |
//! | open for `max_lifetime` | `MaxLifetime` | 4004 |
//! | the peer asks for more than it reads, for interval and timeout together | `SlowConsumer` | 1013 |
//! | the socket failed, or ended without a close frame | `SocketError` | nothing |
//! | eviction, takeover, drain, limits | the evictor's | its code |
//! | the task was cancelled | `Dropped` | nothing |
//!
//! In every one of them the manager is freed first, and only then a close frame goes out and its
//! answer is awaited, for at most the configured `close_timeout`.
//!
//! Idle and old connections end between two messages, never while a method of the application is pending,
//! nor during an agent's run within its time; each a little earlier than configured, by up to
//! `deadline_jitter` at random. Other numbers hold for connections that are open, too.
//!
//! # Refusing before the handshake, with tokio-tungstenite
//!
//! Reserve in the callback that sees the request, and open once the handshake is done:
//!
//! ```
//! # #[cfg(feature = "tungstenite")]
//! # mod example {
//! use tokio::net::TcpStream;
//! use tokio_tungstenite::accept_hdr_async;
//! use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
//! use ws_manager_pool::serve::{application, serve};
//! use ws_manager_pool::{IdGenerator, Pool, UserExecutionContext};
//!
//! async fn connection(stream: TcpStream, pool: Pool) -> Result<(), Box<dyn std::error::Error>> {
//!     let mut reservation = None;
//!     let admit = |request: &Request, response: Response| {
//!         // Here the request would be authenticated, and its Origin checked.
//!         let user = request.uri().query().unwrap_or_default();
//!         let ids = IdGenerator::user_context_ids(user, "chat");
//!         let context = UserExecutionContext::from_websocket_request(user, ids)
//!             .map_err(|error| refusal(400, error.to_string()))?;
//!         let place = pool.reserve(&context).map_err(|e| refusal(e.http_status(), e.to_string()))?;
//!         reservation = Some(place);
//!         Ok(response)
//!     };
//!     let socket = accept_hdr_async(stream, admit).await?;
//!     let lease = reservation.ok_or("the handshake ended without a request")?.open()?;
//!     serve(socket, lease, application(|_, _| Ok(()))).await;
//!     Ok(())
//! }
//!
//! fn refusal(status: u16, why: String) -> ErrorResponse {
//!     let mut response = ErrorResponse::new(Some(why));
//!     *response.status_mut() = status.try_into().unwrap_or_default();
//!     response
//! }
//! # }
//! ```

#[cfg(feature = "actix")]
mod actix;
mod adapt;
mod application;
#[cfg(feature = "axum")]
mod axum;
mod drain;
mod drive;
mod ending;
#[cfg(feature = "fastwebsockets")]
mod fastwebsockets;
#[cfg(any(feature = "actix", feature = "fastwebsockets"))]
mod fragments;
mod goodbye;
mod keeper;
mod leased;
#[cfg(feature = "axum")]
mod leased_listener;
mod lifespan;
#[cfg(any(feature = "axum", feature = "engine"))]
mod origin;
#[cfg(feature = "engine")]
mod own;
mod porch;
#[cfg(feature = "axum")]
mod porch_listener;
mod pulse;
mod room;
#[cfg(feature = "governor")]
mod throttle;
#[cfg(feature = "tokio-websockets")]
mod tokio_websockets;
mod transport;
#[cfg(feature = "tungstenite")]
mod tungstenite;
mod wire;

#[cfg(feature = "actix")]
#[cfg_attr(docsrs, doc(cfg(feature = "actix")))]
pub use self::actix::actix;
#[cfg(all(feature = "axum", feature = "governor"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "axum", feature = "governor"))))]
pub use self::axum::ClientAddress;
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use self::axum::{Entrance, Identify, PooledUpgrade, Refusal};
#[cfg(feature = "fastwebsockets")]
#[cfg_attr(docsrs, doc(cfg(feature = "fastwebsockets")))]
pub use self::fastwebsockets::fastwebsockets;
#[cfg(feature = "engine")]
#[cfg_attr(docsrs, doc(cfg(feature = "engine")))]
pub use self::own::{AcceptError, Admission, Door, Gate, Rejection, Vacancy, adopt, door};
#[cfg(feature = "governor")]
#[cfg_attr(docsrs, doc(cfg(feature = "governor")))]
pub use self::throttle::{Throttle, Throttled};
#[cfg(feature = "tungstenite")]
#[cfg_attr(docsrs, doc(cfg(feature = "tungstenite")))]
pub use self::tungstenite::lean;
pub use crate::pool::DrainReport;
pub use adapt::adapt;
pub use application::{Application, CloseReport, Connection, HandlerError, Received, application};
pub use drain::{Drain, drain};
pub use leased::LeasedIo;
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use leased_listener::LeasedListener;
#[cfg(any(feature = "axum", feature = "engine"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "axum", feature = "engine"))))]
pub use origin::OriginPolicy;
pub use porch::{HandshakeError, OnPorch, Porch, PorchFull};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use porch_listener::{PorchIo, PorchListener};
pub use transport::{CloseFrame, Fault, Frame, Transport, WireMessage};

use crate::config::Config;
#[cfg(feature = "axum")]
use crate::error::OpenError;
use crate::error::ReserveError;
use crate::id::UserExecutionContext;
use crate::manager::{Message, Session, contain};
use crate::pool::{Held, Lease, Pool, Reservation};
use crate::reason::EndReason;
use drive::{Drive, Vitals};
use ending::Ending;
use goodbye::Goodbye;
use room::RoomWaiters;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use wire::{Foreign, Inbox, Reading, Wire};

/// Drives a connection from its handshake to its end: reads and calls the application, sends what is
/// queued, pings, notices silence and eviction, closes. Returns when the socket may be dropped; it has
/// been, then. Asks for no `Send` of the socket, and spawns nothing for the connection.
///
/// Cancel it at any time by dropping the future: the manager is freed, the socket closed.
///
/// # Panics
///
/// If polled outside of a Tokio runtime with its timer enabled.
pub fn serve<T, A>(socket: T, lease: Lease<A::Session>, app: A) -> impl Future<Output = CloseReport>
where
    T: Transport,
    A: Application,
{
    serve_on(Foreign::new(socket), Default::default(), lease, app)
}

/// [`serve`] on any wire. A connection's task keeps what is in [`Served`] and nothing twice.
fn serve_on<W, A>(
    wire: W,
    inbox: W::Inbox,
    lease: Lease<A::Session>,
    app: A,
) -> impl Future<Output = CloseReport>
where
    W: Wire,
    A: Application,
{
    Served::new(wire, inbox, lease, app).run()
}

/// A connection that is being served: what its task keeps.
struct Served<W: Wire, A: Application> {
    /// Until the connection is parted from.
    wire: Option<W>,
    inbox: W::Inbox,
    lease: Lease<A::Session>,
    vitals: Vitals,
    app: A,
}

impl<W: Wire, A: Application> Served<W, A> {
    fn new(wire: W, inbox: W::Inbox, lease: Lease<A::Session>, app: A) -> Self {
        let tie = lease.tie();
        // From here on, not from the first poll: a drain waits for a task that has not run yet, too.
        tie.begin_serving();
        let now = tie.now();
        let opened_at = tie.with(|manager| manager.opened_at()).unwrap_or(now);
        let vitals = Vitals::new(opened_at, now);
        Self { wire: Some(wire), inbox, lease, vitals, app }
    }

    #[expect(clippy::manual_async_fn, reason = "the future of such a function keeps its arguments twice")]
    fn run(mut self) -> impl Future<Output = CloseReport> {
        async move {
            self.vitals.is_begun = true;
            keeper::ensure(self.lease.tie());
            // Refused: the lease is over, as the first turn will find.
            let _ = self.lease.tie().advance(|manager| manager.mark_connected());
            let ending = match self.converse().await {
                Ok(()) => Ending::Done,
                Err(ending) => ending,
            };
            let (report, goodbye) = self.part(ending);
            if let Some(goodbye) = goodbye {
                goodbye.await;
            }
            *report
        }
    }

    /// From the opening to the first reason to end. Between two waits nothing is remembered but `self`: what
    /// is kept across one makes every connection's task larger.
    #[expect(clippy::manual_async_fn, reason = "as above")]
    fn converse(&mut self) -> impl Future<Output = Result<(), Ending>> {
        async move {
            let mut wants_close = self.connect().await?;
            while !wants_close {
                let Self { wire: Some(wire), inbox, lease, vitals, .. } = self else { break };
                let is_text = Drive { wire, tie: lease.tie(), vitals }.receive(inbox).await?;
                wants_close = self.hear(is_text).await?;
            }
            Ok(())
        }
    }

    /// Whether the application has had enough.
    async fn connect(&mut self) -> Result<bool, Ending> {
        let Self { wire: Some(wire), lease, vitals, app, .. } = self else { return Ok(true) };
        let (tie, owner) = lease.parts();
        let waiters = RoomWaiters::default();
        let mut conn = Connection::new(tie, owner, &waiters);
        Drive { wire, tie, vitals }.handle(&waiters, || app.connected(&mut conn)).await?;
        Ok(conn.wants_close())
    }

    /// Hands over the message in the inbox. Whether the application has had enough.
    #[expect(clippy::manual_async_fn, reason = "as above")]
    fn hear(&mut self, is_text: bool) -> impl Future<Output = Result<bool, Ending>> {
        async move {
            let Self { wire: Some(wire), inbox, lease, vitals, app } = self else { return Ok(true) };
            let (tie, owner) = lease.parts();
            if !A::IS_IMMEDIATE {
                inbox.settle(tie.room());
            }
            let waiters = RoomWaiters::default();
            let mut conn = Connection::new(tie, owner, &waiters);
            Drive { wire, tie, vitals }
                .handle(&waiters, || app.received(&mut conn, inbox.message(is_text)))
                .await?;
            let wants_close = conn.wants_close();
            self.inbox.handled(self.lease.tie().room());
            Ok(wants_close)
        }
    }

    /// Frees the manager and tells the application. What is left is to be said to the peer. Both are boxed: the
    /// time after the manager is not to make the task larger before it.
    fn part(
        &mut self,
        ending: Ending,
    ) -> (Box<CloseReport>, Option<Pin<Box<impl Future<Output = ()> + use<W, A>>>>) {
        let (tie, wire) = (self.lease.tie(), self.wire.take());
        // The bytes stay in the pool's budget for as long as they are in memory.
        let mut held = tie.hold();
        let mut last_words = Vec::new();
        let wire = wire.map(|mut wire| {
            if ending.is_ours() {
                last_words = Drive { wire: &mut wire, tie, vitals: &mut self.vitals }.last_words(&mut held);
            }
            wire
        });
        // The manager is free before anybody is waited for.
        let reason = match tie.end(ending.reason()) {
            Ok(()) => ending.reason(),
            Err(_late) => tie.why_for_the_peer(),
        };
        let goodbye = Goodbye::to(&ending, reason);
        let mut report = Box::new(self.report(reason, ending.close_code(reason)));
        if let Ending::Error(error) = ending {
            report.handler_error = Some(error);
        }
        self.tell_closed(&report);
        let inbox = std::mem::take(&mut self.inbox);
        let config = held.config();
        let parting = wire.map(|wire| Parting { wire, inbox, goodbye, last_words, held, config });
        (report, parting.map(|parting| Box::pin(parting.say_goodbye())))
    }

    fn report(&self, reason: EndReason, close_code: u16) -> CloseReport {
        let Self { lease, vitals, .. } = self;
        CloseReport {
            key: lease.key(),
            context: lease.tie().context().clone(),
            reason,
            close_code,
            messages_in: vitals.messages_in,
            messages_out: vitals.messages_out,
            handler_error: None,
        }
    }

    /// A panic is reported by the panic hook. There is nothing left that it could end.
    fn tell_closed(&self, report: &CloseReport) {
        let _ = contain(|| self.app.closed(report));
    }
}

impl<W: Wire, A: Application> Drop for Served<W, A> {
    fn drop(&mut self) {
        if let Some(mut wire) = self.wire.take() {
            // Cancelled: the manager is freed, then the socket closed, then the application told.
            self.lease.give_up();
            let room = self.lease.tie().room();
            wire.let_go(room);
            self.inbox.let_go(room);
            drop(wire);
            if self.vitals.is_begun {
                self.tell_closed(&self.report(EndReason::Dropped, NO_CLOSE_FRAME));
            }
        }
        self.lease.tie().end_serving();
    }
}

/// What is left of a connection whose manager is free.
struct Parting<W: Wire, S: Session> {
    wire: W,
    inbox: W::Inbox,
    goodbye: Goodbye,
    last_words: Vec<Message>,
    held: Held<S>,
    config: Arc<Config>,
}

/// Opens a place, and leaves in an error what it takes to part from the peer.
#[cfg(feature = "axum")]
fn open<S: Session>(reservation: Reservation<S>) -> Result<Lease<S>, (OpenError, Option<Held<S>>)> {
    let held = reservation.hold();
    reservation.open().map_err(|error| (error, held))
}

/// Tells a peer whose handshake is done that there is no place for it after all.
#[cfg(feature = "axum")]
async fn turn_away<W: Wire, S: Session>(wire: W, inbox: W::Inbox, error: &OpenError, held: Held<S>) {
    let goodbye = Goodbye::Close(CloseFrame::new(EndReason::Limit.close_code(), error.to_string()));
    let config = held.config();
    Parting { wire, inbox, goodbye, last_words: Vec::new(), held, config }.say_goodbye().await;
}

impl<W: Wire, S: Session> Parting<W, S> {
    async fn say_goodbye(mut self) {
        let Self { wire, inbox, goodbye, last_words, held, config } = &mut self;
        let reading = Reading::new(held.room(), config);
        let saying = goodbye.say(wire, inbox, last_words, reading);
        // Elapsed: the peer was given its time.
        let _ = timeout(config.close_timeout, saying).await;
    }
}

impl<W: Wire, S: Session> Drop for Parting<W, S> {
    fn drop(&mut self) {
        self.wire.let_go(self.held.room());
        self.inbox.let_go(self.held.room());
    }
}

/// The code for a connection that ended without a close frame.
const NO_CLOSE_FRAME: u16 = 1006;

/// The code for a close frame without a code.
const NO_CODE: u16 = 1005;

impl<S: Session> Pool<S> {
    /// As [`Pool::reserve_wait`], but for `patience` at most.
    ///
    /// # Errors
    ///
    /// [`ReserveError`]. When the time is over, what [`Pool::reserve`] says at that moment.
    ///
    /// # Panics
    ///
    /// If polled outside of a Tokio runtime with its timer enabled.
    #[track_caller]
    #[cfg_attr(docsrs, doc(cfg(feature = "serve")))]
    pub fn reserve_within(
        &self,
        context: &UserExecutionContext,
        patience: Duration,
    ) -> impl Future<Output = Result<Reservation<S>, ReserveError>> + Send {
        let place = self.reserve_wait(context);
        async move {
            match timeout(patience, place).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => self.reserve(context),
            }
        }
    }
}
