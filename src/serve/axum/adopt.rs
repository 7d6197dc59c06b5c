//! An upgraded connection of axum, taken from under it: the crate's own engine speaks on the socket.

use super::{Identify, PooledUpgrade};
use crate::engine::accept_key;
use crate::manager::Session;
use crate::serve::application::Application;
use crate::serve::own::adopt_or_part;
use crate::serve::porch_listener::PorchIo;
use ::axum::body::Body;
use ::axum::http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use ::axum::http::{HeaderValue, StatusCode};
use ::axum::response::Response;
use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use std::panic::Location;
use tokio::net::TcpStream;

impl<I: Identify> PooledUpgrade<I> {
    /// As [`PooledUpgrade::serve`], but with the crate's own engine on the bare socket: an idle connection
    /// keeps no buffer, neither axum's nor the WebSocket library's.
    ///
    /// The socket is found under `axum::serve` on a `TcpListener`, and on a
    /// [`PorchListener`](crate::serve::PorchListener) of one. Any other, such as a TLS stream or a stream of
    /// HTTP/2, is spoken to through hyper's layers. What is set by [`PooledUpgrade::configure`] is the
    /// library's and has no effect here, but for subprotocols.
    #[must_use = "the handshake happens when this response is returned"]
    #[track_caller]
    #[cfg_attr(docsrs, doc(cfg(feature = "engine")))]
    pub fn adopt<A>(self, app: A) -> Response
    where
        A: Application<Session = I::Session> + 'static,
    {
        let Self { upgrade, mut reservation, on_upgrade, key } = self;
        reservation.set_made_at(Location::caller());
        let protocol = upgrade.selected_protocol().cloned();
        tokio::spawn(async move {
            // Failed: the place is given back.
            let Ok(upgraded) = on_upgrade.await else { return };
            match socket::<I::Session>(upgraded) {
                Ok((io, already_read)) => adopt_or_part(io, already_read, reservation, app).await,
                Err(upgraded) => {
                    adopt_or_part(TokioIo::new(upgraded), Bytes::new(), reservation, app).await;
                }
            }
        });
        response(key, protocol)
    }
}

/// The bare socket, and what had been read from it.
fn socket<S: Session>(upgraded: Upgraded) -> Result<(TcpStream, Bytes), Upgraded> {
    let upgraded = match downcast::<TokioIo<TcpStream>>(upgraded) {
        Ok(parts) => return Ok((parts.io.into_inner(), parts.read_buf)),
        Err(upgraded) => upgraded,
    };
    let parts = downcast::<TokioIo<PorchIo<TcpStream, S>>>(upgraded)?;
    Ok((parts.io.into_inner().into_inner(), parts.read_buf))
}

fn response(key: Option<HeaderValue>, protocol: Option<HeaderValue>) -> Response {
    let mut response = Response::new(Body::empty());
    // HTTP/2 has no key, and says with a plain 200 that the stream is a WebSocket.
    if let Some(key) = key {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::from_bytes(&accept_key(key.as_bytes())) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
    }
    if let Some(protocol) = protocol {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}
