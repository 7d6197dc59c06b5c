//! The opening handshake: what is let in, what is refused and how, what the answers look like.

use crate::request_scenario::{agree, run};
use proptest::prelude::*;
use std::time::Duration;
use ws_manager_pool::engine::{HeadScanner, Request, RequestError, ResponseError, accept, refuse};

/// RFC 6455, 1.2.
const HEADERS: &[(&str, &str)] = &[
    ("Host", "server.example.com"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Origin", "http://example.com"),
    ("Sec-WebSocket-Protocol", "chat, superchat"),
    ("Sec-WebSocket-Version", "13"),
];

fn head_of(line: &str, headers: &[(&str, &str)]) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{line}\r\n{lines}\r\n")
}

/// The right request, with all headers of these names in place of its own.
fn head_with(changed: &[(&str, &str)]) -> String {
    let is_changed = |name: &str| changed.iter().any(|(other, _)| *other == name);
    let kept = HEADERS.iter().filter(|(name, _)| !is_changed(name));
    let headers: Vec<_> = kept.chain(changed).copied().collect();
    head_of("GET /chat HTTP/1.1", &headers)
}

fn head_without(name: &str) -> String {
    let kept: Vec<_> = HEADERS.iter().filter(|(other, _)| *other != name).copied().collect();
    head_of("GET /chat HTTP/1.1", &kept)
}

fn parse(head: &str) -> Result<Request<'_>, RequestError> {
    assert_eq!(HeadScanner::new().find_end(head.as_bytes()), Ok(Some(head.len())));
    agree(head.as_bytes(), 7);
    Request::parse(head.as_bytes())
}

#[track_caller]
fn is_refused(head: &str, error: RequestError, status: u16) {
    assert_eq!(parse(head).map(|_| ()), Err(error), "{head}");
    assert_eq!(error.status(), status);
}

#[test]
fn the_request_of_the_rfc_is_read() {
    let head = head_of("GET /chat?room=a&b=%20 HTTP/1.1", HEADERS);
    let request = parse(&head).unwrap();
    assert_eq!((request.target(), request.path()), ("/chat?room=a&b=%20", "/chat"));
    assert_eq!(request.query(), Some("room=a&b=%20"));
    assert_eq!(request.host(), "server.example.com");
    assert_eq!(request.origin(), Some(&b"http://example.com"[..]));
    assert_eq!(request.header("ORIGIN"), Some("http://example.com"));
    assert_eq!(request.header("Cookie"), None);
    assert_eq!(request.protocols().collect::<Vec<_>>(), ["chat", "superchat"]);
    let headers: Vec<_> =
        request.headers().map(|(name, value)| (name, std::str::from_utf8(value).unwrap())).collect();
    assert_eq!(headers, HEADERS);
}

#[test]
fn a_request_may_be_written_in_other_ways() {
    for changed in [
        &[("Connection", "keep-alive, UPGRADE")][..],
        &[("Connection", "keep-alive"), ("Connection", " ,\tupgrade ,")],
        &[("Upgrade", "h2c, WebSocket")],
        &[("Content-Length", "0")],
        // Spare bits.
        &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZR==")],
        &[("Sec-WebSocket-Protocol", "a,,b"), ("Sec-WebSocket-Protocol", "c")],
        &[("X-Bytes", "naïve")],
    ] {
        assert!(parse(&head_with(changed)).is_ok(), "{changed:?}");
    }
    let proxied = head_of("GET http://server.example.com?q HTTP/1.1", HEADERS);
    let request = parse(&proxied).unwrap();
    assert_eq!((request.path(), request.query()), ("/", Some("q")));
    let bare = head_of("\r\n\nGET / HTTP/1.1", HEADERS).replace("\r\n", "\n");
    assert_eq!(parse(&bare).unwrap().headers().count(), HEADERS.len());
}

#[test]
fn protocols_are_gathered_over_all_lines() {
    let head = head_with(&[("Sec-WebSocket-Protocol", "a,, b"), ("Sec-WebSocket-Protocol", "c")]);
    assert_eq!(parse(&head).unwrap().protocols().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(parse(&head_without("Sec-WebSocket-Protocol")).unwrap().protocols().next(), None);
}

#[test]
fn what_does_not_ask_for_a_websocket_is_told_what_to_do() {
    is_refused(&head_of("POST /chat HTTP/1.1", HEADERS), RequestError::Method, 405);
    is_refused(&head_of("GET /chat HTTP/1.0", HEADERS), RequestError::HttpVersion, 505);
    is_refused("PRI * HTTP/2.0\r\n\r\n", RequestError::HttpVersion, 505);
    is_refused(&head_of("GET * HTTP/1.1", HEADERS), RequestError::Target, 400);
    is_refused(&head_of("GET ftp://a/b HTTP/1.1", HEADERS), RequestError::Target, 400);
    is_refused(&head_of("GET http:///b HTTP/1.1", HEADERS), RequestError::Target, 400);
    is_refused(&head_of("GET /a#b HTTP/1.1", HEADERS), RequestError::Target, 400);
    is_refused(&head_of("GET /chat", HEADERS), RequestError::Malformed, 400);
    is_refused(&head_with(&[("X Y", "z")]), RequestError::Malformed, 400);
    is_refused(&head_with(&[("X", "a\0b")]), RequestError::Malformed, 400);

    is_refused(&head_without("Host"), RequestError::Host, 400);
    is_refused(&head_with(&[("Host", "")]), RequestError::Host, 400);
    is_refused(&head_with(&[("Host", "a"), ("host", "b")]), RequestError::Host, 400);
    is_refused(&head_with(&[("Content-Length", "1")]), RequestError::Body, 400);
    is_refused(&head_with(&[("Content-Length", "x")]), RequestError::Body, 400);
    is_refused(&head_with(&[("Content-Length", "")]), RequestError::Body, 400);
    is_refused(&head_with(&[("Transfer-Encoding", "chunked")]), RequestError::Body, 400);

    is_refused(&head_without("Connection"), RequestError::Connection, 400);
    is_refused(&head_with(&[("Connection", "keep-alive, upgraded")]), RequestError::Connection, 400);
    is_refused(&head_without("Upgrade"), RequestError::Upgrade, 400);
    is_refused(&head_with(&[("Upgrade", "web socket")]), RequestError::Upgrade, 400);
    is_refused(&head_without("Sec-WebSocket-Version"), RequestError::WebSocketVersion, 426);
    is_refused(&head_with(&[("Sec-WebSocket-Version", "8")]), RequestError::WebSocketVersion, 426);
    is_refused(&head_with(&[("Sec-WebSocket-Version", "13, 8")]), RequestError::WebSocketVersion, 426);
    for (first, second) in [("13", "8"), ("8", "13")] {
        let both = [("Sec-WebSocket-Version", first), ("sec-websocket-version", second)];
        is_refused(&head_with(&both), RequestError::WebSocketVersion, 426);
    }
}

#[test]
fn a_key_is_one_and_of_16_bytes() {
    let right = "dGhlIHNhbXBsZSBub25jZQ==";
    is_refused(&head_without("Sec-WebSocket-Key"), RequestError::Key, 400);
    is_refused(
        &head_with(&[("Sec-WebSocket-Key", right), ("sec-websocket-key", right)]),
        RequestError::Key,
        400,
    );
    for wrong in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",     // no padding
        "dGhlIHNhbXBsZSBub25jZSE=",   // 17 bytes
        "dGhlIHNhbXBsZSBub25jZSEh",   // 18 bytes
        "SGVsbG8sIHdvcmxkIQ==",       // 13 bytes
        "dGhlIHNhbXBsZSBub25jZ_==",   // another alphabet
        "dGhlIHNhbXBsZSBub25jZQ== x", // more
    ] {
        is_refused(&head_with(&[("Sec-WebSocket-Key", wrong)]), RequestError::Key, 400);
    }
}

#[test]
fn a_head_has_64_headers_at_most() {
    let more: Vec<_> = std::iter::repeat_n(("X", "y"), 64 - HEADERS.len()).collect();
    assert!(parse(&head_with(&more)).is_ok());
    is_refused(&head_with(&[&*more, &[("X", "y")]].concat()), RequestError::TooManyHeaders, 431);
}

#[test]
fn debug_shows_neither_values_nor_the_query() {
    let secrets = [("Cookie", "session=hush"), ("Authorization", "Bearer hush")];
    let head = head_with(&secrets).replace("/chat", "/chat?token=hush");
    let shown = format!("{:?} {:?}", parse(&head).unwrap(), parse(&head).unwrap().headers());
    assert!(shown.contains("Cookie") && shown.contains("/chat"), "{shown}");
    assert!(!shown.contains("hush") && !shown.contains("dGhl"), "{shown}");
}

#[test]
fn the_answer_of_the_rfc_is_written() {
    let head = head_of("GET /chat HTTP/1.1", HEADERS);
    let request = parse(&head).unwrap();
    let expected = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
        Set-Cookie: a=b\r\n\r\n";
    let mut out = Vec::new();
    accept(&request, Some("chat"), [("Set-Cookie", "a=b")], &mut out).unwrap();
    assert_eq!(String::from_utf8_lossy(&out), expected);

    let mut exact = vec![0; expected.len()];
    accept(&request, Some("chat"), [("Set-Cookie", "a=b")], &mut &mut exact[..]).unwrap();
    assert_eq!(exact, expected.as_bytes());
    let short = &mut vec![0; expected.len() - 1][..];
    let refused = accept(&request, Some("chat"), [("Set-Cookie", "a=b")], &mut &mut *short);
    assert_eq!(refused, Err(ResponseError::NoRoom(expected.len())));
    assert!(short.iter().all(|&byte| byte == 0), "nothing was written");
}

#[test]
fn a_refusal_says_when_to_try_again() {
    let mut out = Vec::new();
    let retry_after = Some(Duration::from_millis(1_001));
    refuse(503, "full: try again", retry_after, [("X-Pool", "chat")], &mut out).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&out),
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: 16\r\nRetry-After: 2\r\nX-Pool: chat\r\n\r\nfull: try again\n"
    );
    let mut out = Vec::new();
    let error = RequestError::WebSocketVersion;
    refuse(error.status(), error.as_str(), Some(Duration::ZERO), error.header(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with(
        "HTTP/1.1 426 Upgrade Required\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n"
    ));
    assert!(text.contains("\r\nRetry-After: 1\r\nSec-WebSocket-Version: 13\r\n\r\nversion 13 "), "{text}");
}

#[test]
fn an_answer_cannot_be_split() {
    let head = head_of("GET /chat HTTP/1.1", HEADERS);
    let request = parse(&head).unwrap();
    let mut out = b"before".to_vec();
    for (header, error) in [
        (("X", "a\r\nSet-Cookie: b"), ResponseError::HeaderValue("X".into())),
        (("X", "a\nb"), ResponseError::HeaderValue("X".into())),
        (("X", "a\0b"), ResponseError::HeaderValue("X".into())),
        (("X: a\r\nY", "b"), ResponseError::HeaderName("X: a\r\nY".into())),
        (("", "b"), ResponseError::HeaderName(String::new())),
        (("ä", "b"), ResponseError::HeaderName("ä".into())),
        (("connection", "close"), ResponseError::Reserved("connection".into())),
        (("Sec-WebSocket-Extensions", "x"), ResponseError::Reserved("Sec-WebSocket-Extensions".into())),
    ] {
        assert_eq!(accept(&request, None, [("A", "ok\tä"), header], &mut out), Err(error.clone()));
        assert_eq!(refuse(403, "no", None, [header], &mut out), Err(error.clone()));
        assert!(error.to_string().contains(header.0.escape_debug().to_string().as_str()), "{error}");
    }
    for protocol in ["other", "", "chat, superchat"] {
        let error = ResponseError::Protocol(protocol.into());
        assert_eq!(accept(&request, Some(protocol), None, &mut out), Err(error));
    }
    for status in [101, 200, 204, 304, 600] {
        assert_eq!(refuse(status, "", None, None, &mut out), Err(ResponseError::Status(status)));
    }
    assert_eq!(out, b"before");
}

/// Headers that matter, in many spellings.
fn headers() -> impl Strategy<Value = Vec<(String, String)>> {
    let names = vec![
        "Host",
        "Connection",
        "Upgrade",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Key",
        "Content-Length",
        "X",
    ];
    let name = prop::sample::select(names).prop_flat_map(|name| {
        prop_oneof![4 => Just(name.to_owned()), 1 => Just(name.to_lowercase()), 1 => Just(name.to_uppercase())]
    });
    let value = prop_oneof![
        8 => prop::sample::select(vec![
            "a", "Upgrade", "keep-alive, upgrade", "websocket", "WebSocket, x", "13", "14", "0",
            "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR==", "",
        ]).prop_map(str::to_owned),
        1 => "[ -~\t]{0,30}",
    ];
    prop::collection::vec((name, value), 0..9)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_request_is_taken_as_by_tungstenite(
        headers in headers(),
        kept in prop::collection::vec(prop::bool::weighted(0.9), HEADERS.len()),
        target in prop_oneof![4 => Just("/".to_owned()), 1 => "[!-~]{1,12}", 1 => "/[ -~]{0,9}"],
        step in 1..40_usize,
    ) {
        let kept = HEADERS.iter().zip(kept).filter(|(_, is_kept)| *is_kept).map(|(header, _)| *header);
        let more = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let head = head_of(&format!("GET {target} HTTP/1.1"), &kept.chain(more).collect::<Vec<_>>());
        agree(head.as_bytes(), step);
    }

    /// Each a case of the fuzz target.
    #[test]
    fn any_bytes_are_taken_as_by_tungstenite(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        run(&bytes);
    }
}
