//! What a request must be to become a WebSocket.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, PAD};
use std::fmt;
use std::str::from_utf8;

/// Why a request does not become a WebSocket; the text says what the client has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestError {
    /// The first byte is that of another protocol.
    NotHttp,
    /// A request line or a header is not written as HTTP/1.1 asks.
    Malformed,
    /// More than [`LONGEST`](super::HeadScanner::LONGEST) bytes.
    HeadTooLong,
    /// More than 64 headers.
    TooManyHeaders,
    /// HTTP/1.0, or a version that is no longer HTTP/1.
    HttpVersion,
    /// Another method than GET.
    Method,
    /// The target is neither a path nor an address with one, or has a fragment.
    Target,
    /// No `Host`, or not just one.
    Host,
    /// There is a body.
    Body,
    /// `Connection` does not name `upgrade`.
    Connection,
    /// `Upgrade` does not name `websocket`.
    Upgrade,
    /// Another `Sec-WebSocket-Version` than 13.
    WebSocketVersion,
    /// No `Sec-WebSocket-Key`, not just one, or not of 16 bytes.
    Key,
}

impl RequestError {
    /// The HTTP status for it.
    pub const fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::WebSocketVersion => 426,
            Self::HeadTooLong | Self::TooManyHeaders => 431,
            Self::HttpVersion => 505,
            _ => 400,
        }
    }

    /// The header that belongs to the status, if one does.
    pub const fn header(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Method => Some(("Allow", "GET")),
            Self::WebSocketVersion => Some(("Sec-WebSocket-Version", "13")),
            _ => None,
        }
    }

    /// What was wrong, and what to do about it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotHttp => "this is not HTTP: speak HTTP/1.1 without TLS to this port",
            Self::Malformed => "the request is malformed: write its lines as HTTP/1.1 asks",
            Self::HeadTooLong => "the request's head is longer than 8 KiB: send fewer or shorter headers",
            Self::TooManyHeaders => "the request has more than 64 headers: send fewer",
            Self::HttpVersion => "a WebSocket begins with HTTP/1.1: use that version",
            Self::Method => "a WebSocket begins with GET: use that method",
            Self::Target => {
                "the request's target is no path: begin it with a slash, and leave out the fragment"
            }
            Self::Host => "the request must have one Host header: name the host that it is for",
            Self::Body => "a WebSocket's request has no body: leave it out",
            Self::Connection => "this is a WebSocket: send the header Connection: Upgrade",
            Self::Upgrade => "this is a WebSocket: send the header Upgrade: websocket",
            Self::WebSocketVersion => {
                "version 13 of WebSocket is spoken here: send Sec-WebSocket-Version: 13"
            }
            Self::Key => "the request must have one Sec-WebSocket-Key: send 16 random bytes in base64",
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for RequestError {}

impl From<httparse::Error> for RequestError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyHeaders,
            httparse::Error::Version => Self::HttpVersion,
            _ => Self::Malformed,
        }
    }
}

/// Whether this may become a WebSocket; then its key.
pub(super) fn check<'a>(request: &httparse::Request<'_, 'a>) -> Result<&'a [u8], RequestError> {
    let is = |fine: bool, or: RequestError| if fine { Ok(()) } else { Err(or) };
    is(request.version == Some(1), RequestError::HttpVersion)?;
    is(request.method == Some("GET"), RequestError::Method)?;
    is(request.path.is_some_and(is_target), RequestError::Target)?;
    let found = Found::of(request.headers);
    is(found.hosts == 1 && found.is_host_named, RequestError::Host)?;
    is(!found.has_body, RequestError::Body)?;
    is(found.is_upgrade, RequestError::Connection)?;
    is(found.is_websocket, RequestError::Upgrade)?;
    is(found.versions == 1 && found.is_version_13, RequestError::WebSocketVersion)?;
    is(found.keys == 1 && is_key(found.key), RequestError::Key)?;
    Ok(found.key)
}

fn is_target(target: &str) -> bool {
    let path = super::request::without_authority(target);
    path.is_some() && !target.contains('#')
}

/// What the headers say that matters here, in one pass.
#[derive(Default)]
struct Found<'a> {
    hosts: usize,
    is_host_named: bool,
    has_body: bool,
    is_upgrade: bool,
    is_websocket: bool,
    versions: usize,
    is_version_13: bool,
    keys: usize,
    key: &'a [u8],
}

impl<'a> Found<'a> {
    fn of(headers: &[httparse::Header<'a>]) -> Self {
        let mut found = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            let value = header.value;
            // The length tells almost all of them apart.
            match header.name.len() {
                4 if is("host") => {
                    found.hosts += 1;
                    found.is_host_named = !value.is_empty() && from_utf8(value).is_ok();
                }
                7 if is("upgrade") => found.is_websocket |= has_token(value, "websocket"),
                10 if is("connection") => found.is_upgrade |= has_token(value, "upgrade"),
                14 if is("content-length") => {
                    found.has_body |= value.is_empty() || value.iter().any(|&digit| digit != b'0');
                }
                17 if is("transfer-encoding") => found.has_body = true,
                17 if is("sec-websocket-key") => {
                    found.keys += 1;
                    found.key = value;
                }
                21 if is("sec-websocket-version") => {
                    found.versions += 1;
                    found.is_version_13 = value == b"13";
                }
                _ => {}
            }
        }
        found
    }
}

/// Whether a comma-separated list has the token, in any case.
fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn is_key(value: &[u8]) -> bool {
    let mut bytes = [0; 18]; // what 24 characters could be at most
    value.len() == 24 && KEYS.decode_slice(value, &mut bytes) == Ok(16)
}

/// Four bits of a key's last character mean nothing: it does not matter what they are.
const KEYS: GeneralPurpose = GeneralPurpose::new(&STANDARD, PAD.with_decode_allow_trailing_bits(true));
