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
//! | the peer asks for more than it reads, for interval and timeout together | `SlowConsumer` | 1013 |
//! | the socket failed, or ended without a close frame | `SocketError` | nothing |
//! | eviction, takeover, drain, limits | the evictor's | its code |
//! | the task was cancelled | `Dropped` | nothing |
//!
//! In every one of them the manager is freed first, and only then a close frame goes out and its
//! answer is awaited, for at most the configured `close_timeout`.
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

mod application;
#[cfg(feature = "axum")]
mod axum;
mod drain;
mod drive;
mod goodbye;
mod keeper;
mod transport;
#[cfg(feature = "tungstenite")]
mod tungstenite;

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use self::axum::{Entrance, Identify, OriginPolicy, PooledUpgrade, Refusal};
pub use application::{Application, CloseReport, Connection, HandlerError, Received, application};
pub use drain::{DrainReport, drain};
pub use transport::{CloseFrame, Fault, Frame, Transport, WireMessage};

use crate::error::ReserveError;
use crate::id::UserExecutionContext;
use crate::manager::{Session, contain};
use crate::pool::{Lease, Pool, Reservation, Serving};
use crate::reason::EndReason;
use drive::{Drive, Ending};
use goodbye::Goodbye;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::time::timeout;

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
    // From the call on, not from the first poll: a drain waits for a task that has not run yet, too.
    let serving = lease.tie().begin_serving();
    drive_to_the_end(socket, lease, app, serving)
}

async fn drive_to_the_end<T, A>(
    socket: T,
    lease: Lease<A::Session>,
    app: A,
    serving: Serving<A::Session>,
) -> CloseReport
where
    T: Transport,
    A: Application,
{
    // Dropped last to first, also when this future is: conversation, lease, socket, farewell, count.
    let (key, context) = (lease.key(), lease.tie().context().clone());
    let mut report = CloseReport {
        key,
        context: context.clone(),
        reason: EndReason::Dropped,
        close_code: NO_CLOSE_FRAME,
        messages_in: 0,
        messages_out: 0,
        handler_error: None,
    };
    let _serving = serving;
    let mut farewell = Farewell { app: &app, report: &mut report, is_due: true };
    let mut socket = pin!(socket);
    let mut lease = lease;
    let (tie, owner) = lease.parts();

    // Refused: the lease is over, as the first turn will find.
    let _ = tie.advance(|manager| manager.mark_connected());
    let mut drive = Drive::new(socket.as_mut(), tie, farewell.report);
    let mut conn = Connection::new(tie, owner, &context);
    let ending = match converse(&mut drive, &mut conn, &app).await {
        Ok(()) => Ending::Done,
        Err(ending) => ending,
    };
    // The bytes stay in the pool's budget for as long as they are in memory.
    let mut held = tie.hold();
    let last_words = if ending.is_ours() { drive.last_words(&mut held) } else { Vec::new() };
    // The manager is free before anybody is waited for.
    let reason = match tie.end(ending.reason()) {
        Ok(()) => ending.reason(),
        Err(_late) => tie.why().reason(),
    };
    let close_timeout = tie.config().close_timeout;
    drop(lease);

    let goodbye = Goodbye::to(&ending, reason);
    farewell.report.reason = reason;
    farewell.report.close_code = ending.close_code(reason);
    if let Ending::Error(error) = ending {
        farewell.report.handler_error = Some(error);
    }
    farewell.say();
    // Elapsed: the peer was given its time.
    let _ = timeout(close_timeout, goodbye.say(socket, last_words)).await;
    drop(held);
    drop(farewell);
    report
}

/// The code for a connection that ended without a close frame.
const NO_CLOSE_FRAME: u16 = 1006;

/// The code for a close frame without a code.
const NO_CODE: u16 = 1005;

/// From the opening to the first reason to end.
async fn converse<T: Transport, A: Application>(
    drive: &mut Drive<'_, T, A::Session>,
    conn: &mut Connection<'_, A::Session>,
    app: &A,
) -> Result<(), Ending> {
    // In a block of its own, so that a method that panics before its future does so in `handle`.
    drive.handle(async { app.connected(conn).await }).await?;
    while !conn.wants_close() {
        let frame = drive.receive().await?;
        let message = match &frame {
            Frame::Text(payload) => Received::text(payload),
            Frame::Binary(payload) => Received::binary(payload),
            Frame::Ping(_) | Frame::Pong(_) | Frame::Close(_) => continue,
        };
        drive.handle(async { app.received(conn, message).await }).await?;
    }
    Ok(())
}

/// Tells the application that the connection is over, once, also when the task is cancelled.
struct Farewell<'a, A: Application> {
    app: &'a A,
    report: &'a mut CloseReport,
    is_due: bool,
}

impl<A: Application> Farewell<'_, A> {
    fn say(&mut self) {
        if std::mem::replace(&mut self.is_due, false) {
            // A panic is reported by the panic hook. There is nothing left that it could end.
            let _ = contain(|| self.app.closed(self.report));
        }
    }
}

impl<A: Application> Drop for Farewell<'_, A> {
    fn drop(&mut self) {
        self.say();
    }
}

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
