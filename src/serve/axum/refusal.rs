//! What those hear who are not let in.

use crate::error::ReserveError;
use crate::id::IdError;
use ::axum::http::StatusCode;
use ::axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use ::axum::response::{IntoResponse, Response};
use std::time::Duration;

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

    /// Says when trying again may help. Told in seconds, rounded up.
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
        let retry_after =
            self.retry_after.map(|span| [(RETRY_AFTER, span.as_millis().div_ceil(1_000).max(1).to_string())]);
        (self.status, text, retry_after, self.why + "\n").into_response()
    }
}
