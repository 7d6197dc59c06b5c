//! Where a request's address stands, and whether it comes too often. Nothing of it without `governor`.

use super::refusal::Refusal;
use crate::id::UserId;
use ::axum::http::request::Parts;

#[cfg(feature = "governor")]
pub use with_governor::ClientAddress;
#[cfg(feature = "governor")]
pub(super) use with_governor::Throttling;

#[cfg(feature = "governor")]
mod with_governor {
    use super::*;
    use crate::serve::throttle::{Throttle, Throttled};
    use ::axum::extract::ConnectInfo;
    use ::axum::http::{HeaderName, StatusCode};
    use std::net::{IpAddr, SocketAddr};
    use std::sync::Arc;

    /// Where the address of a client stands.
    #[derive(Clone, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum ClientAddress {
        /// In the request's `ConnectInfo<SocketAddr>`, which is there if the router was served by
        /// `into_make_service_with_connect_info::<SocketAddr>()`. Without it each request is refused
        /// with 500. Behind a proxy this is the proxy.
        Peer,
        /// In a header that the server's own proxy writes, such as `x-real-ip`, or `x-forwarded-for`,
        /// of which the last address counts: those before it are what the client says. Without it, a
        /// request is refused with 400. A client that gets past the proxy can write what it likes.
        Header(HeaderName),
    }

    impl ClientAddress {
        fn of(&self, request: &Parts) -> Result<IpAddr, Refusal> {
            match self {
                Self::Peer => match request.extensions.get::<ConnectInfo<SocketAddr>>() {
                    Some(ConnectInfo(peer)) => Ok(peer.ip()),
                    None => Err(Refusal::new(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "the server does not know the client's address: it has to be served with connect info",
                    )),
                },
                Self::Header(name) => {
                    let last = request.headers.get_all(name).iter().next_back();
                    let last = last.and_then(|value| value.to_str().ok()?.rsplit(',').next());
                    last.and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
                        Refusal::new(StatusCode::BAD_REQUEST, format!("the header {name} has no address"))
                    })
                }
            }
        }
    }

    #[derive(Default)]
    pub(in super::super) struct Throttling(Option<(Arc<Throttle>, ClientAddress)>);

    impl Throttling {
        pub(in super::super) fn new(throttle: Arc<Throttle>, address: ClientAddress) -> Self {
            Self(Some((throttle, address)))
        }

        pub(in super::super) fn check_address(&self, request: &Parts) -> Result<(), Refusal> {
            let Some((throttle, address)) = &self.0 else { return Ok(()) };
            Ok(throttle.check_address(address.of(request)?)?)
        }

        pub(in super::super) fn check_user(&self, user: &UserId) -> Result<(), Refusal> {
            let Some((throttle, _)) = &self.0 else { return Ok(()) };
            Ok(throttle.check_user(user)?)
        }
    }

    impl From<Throttled> for Refusal {
        fn from(throttled: Throttled) -> Self {
            let why = Self::new(StatusCode::TOO_MANY_REQUESTS, throttled.to_string());
            why.with_retry_after(throttled.retry_after())
        }
    }
}

/// Lets everybody pass.
#[cfg(not(feature = "governor"))]
#[derive(Default)]
pub(super) struct Throttling;

#[cfg(not(feature = "governor"))]
impl Throttling {
    pub(super) fn check_address(&self, _: &Parts) -> Result<(), Refusal> {
        Ok(())
    }

    pub(super) fn check_user(&self, _: &UserId) -> Result<(), Refusal> {
        Ok(())
    }
}
