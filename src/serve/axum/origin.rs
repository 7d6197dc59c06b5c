//! Where a request of axum comes from.

use super::super::origin::OriginPolicy;
use ::axum::http::HeaderValue;
use ::axum::http::header::{HOST, ORIGIN};
use ::axum::http::request::Parts;

pub(super) fn is_allowed(policy: &OriginPolicy, request: &Parts) -> bool {
    let host = request.headers.get(HOST).map_or_else(
        || request.uri.authority().map(|authority| authority.as_str().as_bytes()), // HTTP/2
        |host| Some(host.as_bytes()),
    );
    policy.allows(request.headers.get(ORIGIN).map(HeaderValue::as_bytes), host)
}
