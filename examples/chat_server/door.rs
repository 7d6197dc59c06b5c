//! Who comes in: from a request to the context of its connection.

use axum::http::StatusCode;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use ws_manager_pool::serve::{Identify, Refusal};
use ws_manager_pool::{EventId, EventIdError, IdGenerator, UserExecutionContext};

/// Takes people at their word.
pub(crate) struct Door;

impl Identify for Door {
    type Session = ();

    async fn identify(&self, request: &Parts) -> Result<UserExecutionContext, Refusal> {
        // FOR THE DEMO ONLY: anybody can be anybody by writing a name into the address. This line is
        // where authentication belongs: take the user from a verified session cookie or token in
        // `request.headers`, and answer `Refusal::new(StatusCode::UNAUTHORIZED, …)` without one.
        let user = parameter(request, "user")?.unwrap_or_default();

        // A reconnecting client brings its thread, another one gets a fresh one. Made here, once:
        // everything else about this connection goes by this context.
        let mut ids = IdGenerator::user_context_ids(&user, "chat");
        if let Some(thread) = parameter(request, "thread")? {
            ids = ids.with_client_thread(&thread)?;
        }
        Ok(UserExecutionContext::from_websocket_request(user, ids)?)
    }
}

/// The last event of its thread that a client saw before it came back.
pub(crate) fn after(request: &Parts) -> Result<Option<EventId>, Refusal> {
    let Some(text) = parameter(request, "after")? else { return Ok(None) };
    let after = text
        .parse()
        .map_err(|error: EventIdError| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(Some(after))
}

/// The parameter's text; `None` if the address does not name it.
pub(crate) fn parameter<'a>(request: &'a Parts, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
    let mut pairs = request.uri.query().unwrap_or_default().split('&');
    let Some(value) = pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')) else {
        return Ok(None);
    };
    let refused = |why| Refusal::new(StatusCode::BAD_REQUEST, format!("{name} {why}"));
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !value.split('%').skip(1).all(is_escape) {
        return Err(refused("has a % without two hex digits: percent-encode it as %25"));
    }
    let text = percent_decode_str(value).decode_utf8();
    text.map(Some).map_err(|_| refused("is not UTF-8: percent-encode its UTF-8 bytes"))
}
