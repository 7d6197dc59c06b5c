//! The way in for axum: an extractor that checks where a request comes from and who sends it,
//! reserves its place, and only then lets the handshake happen.

use super::application::Application;
use super::goodbye::Goodbye;
use super::serve;
use super::transport::{CloseFrame, Fault, Frame, WireMessage};
use crate::error::ReserveError;
use crate::id::{IdError, UserExecutionContext};
use crate::manager::Session;
use crate::pool::{Pool, Reservation};
use crate::reason::EndReason;
use ::axum::Error;
use ::axum::extract::ws::{CloseFrame as WireClose, Message, Utf8Bytes, WebSocketUpgrade};
use ::axum::extract::{FromRef, FromRequestParts};
use ::axum::http::header::{CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER};
use ::axum::http::request::Parts;
use ::axum::http::{HeaderMap, StatusCode, Uri};
use ::axum::response::{IntoResponse, Response};
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tungstenite_of_axum::Error as Cause;
use tungstenite_of_axum::error::ProtocolError;

/// Who sends a request: the place for authentication.
pub trait Identify: Send + Sync + 'static {
    /// The application's own state of a connection, as in [`Application`].
    type Session: Session;

    /// Finds out who is asking, from cookies, a token, a session; written as `async fn`.
    ///
    /// # Errors
    ///
    /// [`Refusal`] is the response that is sent instead of the handshake. An [`IdError`] becomes one
    /// by `?`: 400, with the rule that was broken.
    fn identify(&self, request: &Parts)
    -> impl Future<Output = Result<UserExecutionContext, Refusal>> + Send;
}

/// The door to a pool: which requests may come in. Part of the router's state, or the whole of it.
pub struct Entrance<I: Identify>(Arc<Door<I>>);

struct Door<I: Identify> {
    pool: Pool<I::Session>,
    identify: I,
    origins: OriginPolicy,
}

impl<I: Identify> Entrance<I> {
    /// A door for requests of the same origin.
    pub fn new(pool: Pool<I::Session>, identify: I) -> Self {
        Self::with_origins(pool, identify, OriginPolicy::SameOrigin)
    }

    /// A door for requests of these origins.
    pub fn with_origins(pool: Pool<I::Session>, identify: I, origins: OriginPolicy) -> Self {
        Self(Arc::new(Door { pool, identify, origins }))
    }

    /// The pool behind the door.
    pub fn pool(&self) -> &Pool<I::Session> {
        &self.0.pool
    }
}

impl<I: Identify> Clone for Entrance<I> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I: Identify> fmt::Debug for Entrance<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Door { pool, origins, .. } = &*self.0;
        f.debug_struct("Entrance").field("pool", pool).field("origins", origins).finish_non_exhaustive()
    }
}

/// From which pages a browser may connect. A request without an `Origin` header does not come from a
/// page, and is let through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OriginPolicy {
    /// Pages of the host that the request is for. The default.
    #[default]
    SameOrigin,
    /// All pages: for a server that authenticates by something else than cookies.
    Any,
    /// Pages of these origins, each as the browser sends it: `https://chat.example.org`.
    List(Vec<String>),
}

impl OriginPolicy {
    fn allows(&self, request: &Parts) -> bool {
        let Some(origin) = request.headers.get(ORIGIN) else { return true };
        let Ok(origin) = origin.to_str() else { return false };
        match self {
            Self::Any => true,
            Self::List(origins) => origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
            Self::SameOrigin => is_same_origin(origin, &request.headers, &request.uri),
        }
    }
}

/// Compares host and port. The scheme is not known here: TLS may have ended at a proxy.
fn is_same_origin(origin: &str, headers: &HeaderMap, uri: &Uri) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare =
        |authority: &str| authority.strip_suffix(default_port).unwrap_or(authority).to_ascii_lowercase();
    let host = headers.get(HOST).map_or_else(
        || uri.authority().map(|authority| authority.as_str()), // HTTP/2
        |host| host.to_str().ok(),
    );
    !authority.is_empty() && host.is_some_and(|host| bare(host) == bare(authority))
}

/// A handshake that may happen: its place is reserved. In a handler:
///
/// ```
/// use axum::Router;
/// use axum::http::request::Parts;
/// use axum::response::Response;
/// use axum::routing::any;
/// use ws_manager_pool::serve::{Entrance, Identify, PooledUpgrade, Refusal, application};
/// use ws_manager_pool::{IdGenerator, Pool, UserExecutionContext};
///
/// struct ByQuery;
///
/// impl Identify for ByQuery {
///     type Session = ();
///
///     async fn identify(&self, request: &Parts) -> Result<UserExecutionContext, Refusal> {
///         let user = request.uri.query().unwrap_or_default(); // a real server authenticates here
///         let ids = IdGenerator::user_context_ids(user, "chat");
///         Ok(UserExecutionContext::from_websocket_request(user, ids)?)
///     }
/// }
///
/// async fn connect(upgrade: PooledUpgrade<ByQuery>) -> Response {
///     upgrade.serve(application(|_conn, _message| Ok(())))
/// }
///
/// # fn router(pool: Pool) -> Router {
/// Router::new().route("/ws", any(connect)).with_state(Entrance::new(pool, ByQuery))
/// # }
/// ```
///
/// Whoever is refused gets a plain HTTP response instead of the handshake: 403 for a foreign origin,
/// what [`Identify`] says, then 429 for a full user, 503 for a full or draining pool, 409 for a
/// thread that is in use, each with a text to read, and `Retry-After` where trying again may help.
///
/// Messages of more than the pool's `outbound.message_bytes()` are not read: code 1009.
#[must_use = "dropped, it gives its place back and the handshake does not happen"]
pub struct PooledUpgrade<I: Identify> {
    upgrade: WebSocketUpgrade,
    reservation: Reservation<I::Session>,
    close_timeout: Duration,
}

impl<I: Identify> PooledUpgrade<I> {
    /// The place, and whom it is for.
    pub fn reservation(&self) -> &Reservation<I::Session> {
        &self.reservation
    }

    /// Changes axum's side of the upgrade: limits, subprotocols.
    pub fn configure(mut self, change: impl FnOnce(WebSocketUpgrade) -> WebSocketUpgrade) -> Self {
        self.upgrade = change(self.upgrade);
        self
    }

    /// Lets the handshake happen, opens the manager after it, and serves the connection in a task of
    /// its own. A handshake that fails gives the place back.
    ///
    /// The manager's [`made_at`](crate::PooledWebSocketManager::made_at) is the place of this call.
    #[must_use = "the handshake happens when this response is returned"]
    #[track_caller]
    pub fn serve<A>(self, app: A) -> Response
    where
        A: Application<Session = I::Session> + 'static,
    {
        let Self { upgrade, mut reservation, close_timeout } = self;
        // Reserved by the extractor, which is the same line for everybody.
        reservation.set_made_at(Location::caller());
        upgrade.on_upgrade(move |socket| async move {
            match reservation.open() {
                Ok(lease) => drop(serve(socket, lease, app).await),
                Err(error) => {
                    let goodbye =
                        Goodbye::Close(CloseFrame::new(EndReason::Limit.close_code(), error.to_string()));
                    // Elapsed: the peer was given its time.
                    let _ = timeout(close_timeout, goodbye.say(pin!(socket), Vec::new())).await;
                }
            }
        })
    }
}

impl<I: Identify> fmt::Debug for PooledUpgrade<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledUpgrade").field("reservation", &self.reservation).finish_non_exhaustive()
    }
}

impl<I, State> FromRequestParts<State> for PooledUpgrade<I>
where
    I: Identify,
    State: Send + Sync,
    Entrance<I>: FromRef<State>,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Response> {
        let Entrance(door) = Entrance::from_ref(state);
        if !door.origins.allows(parts) {
            let why = "connections are not accepted from pages of this origin";
            return Err(Refusal::new(StatusCode::FORBIDDEN, why).into_response());
        }
        let context = door.identify.identify(parts).await.map_err(Refusal::into_response)?;
        let upgrade = WebSocketUpgrade::from_request_parts(parts, state);
        let upgrade = upgrade.await.map_err(IntoResponse::into_response)?;
        let message_bytes = door.pool.config().outbound.message_bytes();
        // The place last: whatever fails before it needs no place.
        let reservation =
            door.pool.reserve(&context).map_err(|error| Refusal::from(error).into_response())?;
        Ok(Self {
            upgrade: upgrade.max_message_size(message_bytes).max_frame_size(message_bytes),
            reservation,
            close_timeout: door.pool.config().close_timeout,
        })
    }
}

/// A response instead of a handshake: a status, a text to read, and perhaps when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    why: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with a status and a text for whoever reads it.
    pub fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), retry_after: None }
    }

    /// Says when trying again may help, in full seconds.
    #[must_use]
    pub fn with_retry_after(mut self, span: Duration) -> Self {
        self.retry_after = Some(span);
        self
    }
}

impl From<IdError> for Refusal {
    fn from(error: IdError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl From<ReserveError> for Refusal {
    fn from(error: ReserveError) -> Self {
        let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        Self { status, why: error.to_string(), retry_after: error.retry_after() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let text = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
        let retry_after = self.retry_after.map(|span| [(RETRY_AFTER, span.as_secs().max(1).to_string())]);
        (self.status, text, retry_after, self.why + "\n").into_response()
    }
}

impl WireMessage for Message {
    type Error = Error;

    fn into_frame(self) -> Option<Frame> {
        Some(match self {
            Self::Text(text) => Frame::Text(text.into()),
            Self::Binary(payload) => Frame::Binary(payload),
            Self::Ping(payload) => Frame::Ping(payload),
            Self::Pong(payload) => Frame::Pong(payload),
            Self::Close(close) => Frame::Close(close.map(|close| CloseFrame::new(close.code, close.reason))),
        })
    }

    fn from_frame(frame: Frame) -> Result<Self, Fault> {
        let text = |payload| Utf8Bytes::try_from(payload).map_err(|_| Fault::InvalidUtf8);
        Ok(match frame {
            Frame::Text(payload) => Self::Text(text(payload)?),
            Frame::Binary(payload) => Self::Binary(payload),
            Frame::Ping(payload) => Self::Ping(payload),
            Frame::Pong(payload) => Self::Pong(payload),
            Frame::Close(None) => Self::Close(None),
            Frame::Close(Some(CloseFrame { code, reason })) => {
                Self::Close(Some(WireClose { code, reason: text(reason)? }))
            }
        })
    }

    fn fault(error: Error) -> Fault {
        match error.into_inner().downcast_ref::<Cause>() {
            // Not the peer's mistake, but its absence.
            Some(Cause::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => Fault::Socket,
            Some(Cause::Protocol(_)) => Fault::Protocol,
            Some(Cause::Utf8(_)) => Fault::InvalidUtf8,
            Some(Cause::Capacity(_)) => Fault::TooLarge,
            _ => Fault::Socket,
        }
    }
}
