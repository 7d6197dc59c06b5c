//! The way in for axum: an extractor that checks where a request comes from and who sends it,
//! reserves its place, and only then lets the handshake happen.

#[cfg(feature = "engine")]
mod adopt;
mod origin;
mod refusal;
mod throttling;
mod wire;

pub use refusal::Refusal;
#[cfg(feature = "governor")]
pub use throttling::ClientAddress;

use super::application::Application;
use super::leased::lean::{READ_BUFFER, WRITE_BUFFER};
use super::origin::OriginPolicy;
#[cfg(feature = "governor")]
use super::throttle::Throttle;
use super::wire::Foreign;
use super::{open, serve, turn_away};
use crate::id::UserExecutionContext;
use crate::manager::Session;
use crate::pool::{EventId, Pool, Reservation};
use ::axum::extract::ws::WebSocketUpgrade;
use ::axum::extract::{FromRef, FromRequestParts};
#[cfg(feature = "engine")]
use ::axum::http::header::SEC_WEBSOCKET_KEY;
use ::axum::http::request::Parts;
use ::axum::http::{HeaderValue, StatusCode};
use ::axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;
use throttling::Throttling;
use tokio::time::timeout;

/// Who sends a request: the place for authentication.
pub trait Identify: Send + Sync + 'static {
    /// The application's own state of a connection, as in [`Application`].
    type Session: Session;

    /// Finds out who is asking, from cookies, a token, a session; written as `async fn`.
    ///
    /// # Errors
    ///
    /// [`Refusal`] is the response that is sent instead of the handshake: 401 for who does not say who it
    /// is, 403 for who may not come in. An [`IdError`](crate::IdError) becomes one by `?`: 400, with the
    /// rule that was broken.
    fn identify(&self, request: &Parts)
    -> impl Future<Output = Result<UserExecutionContext, Refusal>> + Send;
}

/// The door to a pool: which requests may come in. Part of the router's state, or the whole of it.
pub struct Entrance<I: Identify>(Arc<Door<I>>);

struct Door<I: Identify> {
    pool: Pool<I::Session>,
    identify: Arc<I>,
    origins: OriginPolicy,
    throttling: Throttling,
}

impl<I: Identify> Entrance<I> {
    /// A door for requests of the same origin.
    pub fn new(pool: Pool<I::Session>, identify: I) -> Self {
        Self::with_origins(pool, identify, OriginPolicy::SameOrigin)
    }

    /// A door for requests of these origins.
    pub fn with_origins(pool: Pool<I::Session>, identify: I, origins: OriginPolicy) -> Self {
        let throttling = Default::default(); // none
        Self(Arc::new(Door { pool, identify: Arc::new(identify), origins, throttling }))
    }

    /// The same door, which lets in nobody who comes too often. An `Arc` of a throttle can be that of
    /// several doors; a door that was cloned before stays as it is.
    #[cfg(feature = "governor")]
    #[cfg_attr(docsrs, doc(cfg(feature = "governor")))]
    #[must_use]
    pub fn with_throttle(self, throttle: impl Into<Arc<Throttle>>, address: ClientAddress) -> Self {
        let Door { pool, identify, origins, .. } = &*self.0;
        Self(Arc::new(Door {
            pool: pool.clone(),
            identify: identify.clone(),
            origins: origins.clone(),
            throttling: Throttling::new(throttle.into(), address),
        }))
    }

    /// The pool behind the door.
    pub fn pool(&self) -> &Pool<I::Session> {
        &self.0.pool
    }
}

impl<I: Identify> Door<I> {
    /// Everything that comes before the handshake itself is looked at.
    async fn identify(&self, request: &Parts) -> Result<UserExecutionContext, Refusal> {
        if !origin::is_allowed(&self.origins, request) && !fault!("origin_not_asked") {
            let why = "connections are not accepted from pages of this origin";
            return Err(Refusal::new(StatusCode::FORBIDDEN, why));
        }
        self.throttling.check_address(request)?;
        let patience = self.pool.config().reservation_deadline;
        let context = match timeout(patience, self.identify.identify(request)).await {
            Ok(identified) => identified?,
            Err(_elapsed) => {
                let why = "nobody could say in time who you are: try again";
                let busy = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why);
                return Err(busy.with_retry_after(Duration::from_secs(1)));
            }
        };
        self.throttling.check_user(context.user_id())?;
        Ok(context)
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
/// Whoever is refused gets a plain HTTP response instead of the handshake, with a text to read, and
/// `Retry-After` where trying again may help. In this order:
///
/// 1. 403 for a foreign origin;
/// 2. 429 for an address that comes too often (`Entrance::with_throttle`);
/// 3. what [`Identify`] says: 401, 403, or 400 for a bad id; 503 if it takes longer than the configured
///    `reservation_deadline`;
/// 4. 429 for a user that comes too often;
/// 5. axum's answer to what is no WebSocket handshake;
/// 6. 429 for a full user, 503 for a full or draining pool, 409 for a thread that is in use.
///
/// Larger messages and frames than the configured `inbound_message_bytes` and `inbound_frame_bytes` are
/// not read: code 1009.
#[must_use = "dropped, it gives its place back and the handshake does not happen"]
pub struct PooledUpgrade<I: Identify> {
    upgrade: WebSocketUpgrade,
    reservation: Reservation<I::Session>,
    /// Axum's is not handed out.
    #[cfg(feature = "engine")]
    on_upgrade: hyper::upgrade::OnUpgrade,
    #[cfg(feature = "engine")]
    key: Option<HeaderValue>,
}

impl<I: Identify> PooledUpgrade<I> {
    /// The client has been here before: see [`Reservation::resume_after`].
    pub fn resume_after(mut self, after: EventId) -> Self {
        self.reservation.resume_after(after);
        self
    }

    /// The place, and whom it is for.
    pub fn reservation(&self) -> &Reservation<I::Session> {
        &self.reservation
    }

    /// The subprotocols that the server speaks, the best first. The first of them that the client asked
    /// for is agreed on; if there is none, the handshake happens without one.
    pub fn protocols<P>(self, protocols: impl IntoIterator<Item = P>) -> Self
    where
        P: Into<Cow<'static, str>>,
    {
        self.configure(|upgrade| upgrade.protocols(protocols))
    }

    /// The subprotocol that was agreed on.
    pub fn selected_protocol(&self) -> Option<&HeaderValue> {
        self.upgrade.selected_protocol()
    }

    /// Changes axum's side of the upgrade, such as its buffers.
    pub fn configure(mut self, change: impl FnOnce(WebSocketUpgrade) -> WebSocketUpgrade) -> Self {
        self.upgrade = change(self.upgrade);
        self
    }

    /// Buffers of next to nothing for the connection, as those of the pool are under it: for servers behind
    /// a [`LeasedListener`](super::LeasedListener). Without that, each read is of a few bytes.
    pub fn lean(self) -> Self {
        self.configure(|upgrade| upgrade.read_buffer_size(READ_BUFFER).write_buffer_size(WRITE_BUFFER))
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
        let Self { upgrade, mut reservation, .. } = self;
        // Reserved by the extractor, which is the same line for everybody.
        reservation.set_made_at(Location::caller());
        upgrade.on_upgrade(move |socket| async move {
            match open(reservation) {
                Ok(lease) => drop(serve(socket, lease, app).await),
                Err((error, Some(held))) => turn_away(Foreign::new(socket), Bytes::new(), &error, held).await,
                Err((_, None)) => {}
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
        let context = door.identify(parts).await.map_err(Refusal::into_response)?;
        #[cfg(feature = "engine")]
        let on_upgrade = parts.extensions.get::<hyper::upgrade::OnUpgrade>().cloned();
        let upgrade = WebSocketUpgrade::from_request_parts(parts, state);
        let upgrade = upgrade.await.map_err(IntoResponse::into_response)?;
        #[cfg(feature = "engine")]
        let on_upgrade = on_upgrade.ok_or_else(|| StatusCode::UPGRADE_REQUIRED.into_response())?;
        let config = door.pool.config();
        // The place last: whatever fails before it needs no place.
        let reservation =
            door.pool.reserve(&context).map_err(|error| Refusal::from(error).into_response())?;
        Ok(Self {
            upgrade: upgrade
                .max_message_size(config.inbound_message_bytes)
                .max_frame_size(config.inbound_frame_bytes),
            reservation,
            #[cfg(feature = "engine")]
            on_upgrade,
            #[cfg(feature = "engine")]
            key: parts.headers.get(SEC_WEBSOCKET_KEY).cloned(),
        })
    }
}
