//! The chat page: three files to read, one to send.

use axum::http::header;
use axum::response::{Html, IntoResponse};
use std::sync::LazyLock;

static PAGE: LazyLock<String> = LazyLock::new(|| {
    let style = format!("<style>\n{}</style>", include_str!("chat.css"));
    let script = format!("<script>\n{}</script>", include_str!("chat.js"));
    include_str!("chat.html").replace("<!-- style -->", &style).replace("<!-- script -->", &script)
});

pub(crate) async fn page() -> impl IntoResponse {
    // Names and texts are shown as text only; this is the second lock on the same door.
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                  img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE.as_str()))
}
