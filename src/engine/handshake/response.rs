//! The answer to a request.

use super::request::Request;
use arrayvec::ArrayString;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BufMut;
use sha1_smol::Sha1;
use std::fmt::{self, Write};
use std::time::Duration;

/// Writes the answer that makes the connection a WebSocket: `101 Switching Protocols`, with one of the
/// client's [subprotocols](Request::protocols) if one was agreed on, and further headers. Nothing is
/// written in case of an error, and nothing allocated but what `out` may have to.
///
/// # Errors
///
/// [`ResponseError`], and `out` is as it was.
pub fn accept<'h>(
    request: &Request<'_>,
    protocol: Option<&str>,
    headers: impl IntoIterator<Item = (&'h str, &'h str), IntoIter: Clone>,
    out: &mut impl BufMut,
) -> Result<(), ResponseError> {
    let headers = headers.into_iter();
    if let Some(protocol) = protocol
        && !(is_token(protocol) && request.protocols().any(|offered| offered == protocol))
    {
        return Err(ResponseError::Protocol(protocol.to_owned()));
    }
    check_headers(headers.clone())?;
    let accept = accept_key(request.key());
    write(out, |put| {
        put(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n");
        put_header(put, "Sec-WebSocket-Accept", &accept);
        if let Some(protocol) = protocol {
            put_header(put, "Sec-WebSocket-Protocol", protocol.as_bytes());
        }
        put_headers(put, headers.clone());
        put(b"\r\n");
    })
}

/// Writes an answer that ends the connection instead: a status, a text for whoever reads it, when trying
/// again may help (told in seconds, rounded up), and further headers.
///
/// # Errors
///
/// [`ResponseError`], and `out` is as it was.
pub fn refuse<'h>(
    status: u16,
    text: &str,
    retry_after: Option<Duration>,
    headers: impl IntoIterator<Item = (&'h str, &'h str), IntoIter: Clone>,
    out: &mut impl BufMut,
) -> Result<(), ResponseError> {
    let headers = headers.into_iter();
    let Some(reason) = reason_phrase(status) else { return Err(ResponseError::Status(status)) };
    check_headers(headers.clone())?;
    let retry_after = retry_after.map(|span| span.as_millis().div_ceil(1_000).max(1));
    write(out, |put| {
        put(b"HTTP/1.1 ");
        put(decimal(status.into()).as_bytes());
        put(b" ");
        put(reason.as_bytes());
        // 426 says what to upgrade to, and `Connection` must name every header that is for this hop only.
        put(match status {
            426 => b"\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n",
            _ => b"\r\nConnection: close\r\n",
        });
        put(b"Content-Type: text/plain; charset=utf-8\r\n");
        put_header(put, "Content-Length", decimal(text.len() as u128 + 1).as_bytes());
        if let Some(seconds) = retry_after {
            put_header(put, "Retry-After", decimal(seconds).as_bytes());
        }
        put_headers(put, headers.clone());
        put(b"\r\n");
        put(text.as_bytes());
        put(b"\n");
    })
}

/// Why an answer was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseError {
    /// The subprotocol is none that the client offered.
    Protocol(String),
    /// A header's name is no token: letters, digits, and a few signs.
    HeaderName(String),
    /// The value of the header of this name has a line break, or another control character.
    HeaderValue(String),
    /// The header of this name is written by the engine.
    Reserved(String),
    /// A refusal's status is one of 300 to 599 that has a text.
    Status(u16),
    /// It takes so many bytes.
    NoRoom(usize),
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(name) => {
                write!(
                    f,
                    "the client did not offer the subprotocol {name:?}: choose one that it did, or none"
                )
            }
            Self::HeaderName(name) => {
                write!(f, "{name:?} is no name of a header: use letters, digits and hyphens")
            }
            Self::HeaderValue(name) => {
                write!(f, "the value of the header {name} has a line break or another control character")
            }
            Self::Reserved(name) => write!(f, "the header {name} is written by the engine: leave it out"),
            Self::Status(status) => {
                write!(f, "{status} is no status of a refusal with a text: use one of 300 to 599")
            }
            Self::NoRoom(bytes) => write!(f, "the answer takes {bytes} bytes: give it so much room"),
        }
    }
}

impl std::error::Error for ResponseError {}

/// The answer to a `Sec-WebSocket-Key`. SHA-1 is what the RFC asks for: it shows that the server understood,
/// and protects nothing.
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let mut sha1 = Sha1::new();
    sha1.update(key);
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut accept = [0; 28];
    let written = STANDARD.encode_slice(sha1.digest().bytes(), &mut accept);
    debug_assert_eq!(written, Ok(28));
    accept
}

fn check_headers<'h>(headers: impl Iterator<Item = (&'h str, &'h str)>) -> Result<(), ResponseError> {
    for (name, value) in headers {
        if !is_token(name) {
            return Err(ResponseError::HeaderName(name.to_owned()));
        }
        if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            return Err(ResponseError::Reserved(name.to_owned()));
        }
        let is_broken = value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t');
        if is_broken && !fault!("answer_can_be_split") {
            return Err(ResponseError::HeaderValue(name.to_owned()));
        }
    }
    Ok(())
}

/// Headers that mean something for the connection itself, or were written already.
const RESERVED: [&str; 9] = [
    "Connection",
    "Content-Length",
    "Content-Type",
    "Retry-After",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Protocol",
    "Transfer-Encoding",
    "Upgrade",
];

fn is_token(name: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token_byte)
}

/// What a line of the answer is given to.
type Put<'a> = &'a mut dyn FnMut(&[u8]);

/// All or nothing: the lines are measured first.
fn write(out: &mut impl BufMut, lines: impl Fn(Put<'_>)) -> Result<(), ResponseError> {
    let mut len = 0;
    lines(&mut |bytes| len += bytes.len());
    if out.remaining_mut() < len {
        return Err(ResponseError::NoRoom(len));
    }
    lines(&mut |bytes| out.put_slice(bytes));
    Ok(())
}

fn put_headers<'h>(put: Put<'_>, headers: impl Iterator<Item = (&'h str, &'h str)>) {
    for (name, value) in headers {
        put_header(put, name, value.as_bytes());
    }
}

fn put_header(put: Put<'_>, name: &str, value: &[u8]) {
    put(name.as_bytes());
    put(b": ");
    put(value);
    put(b"\r\n");
}

fn decimal(number: u128) -> ArrayString<39> {
    let mut digits = ArrayString::new();
    let _ = write!(digits, "{number}"); // 39 hold any
    digits
}

/// `None` for a status that does not refuse, or has no body. Empty for one without a usual text.
fn reason_phrase(status: u16) -> Option<&'static str> {
    Some(match status {
        304 => return None,
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        300..=599 => "",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_answered_as_in_the_rfc() {
        assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_refusal_has_a_body() {
        assert_eq!(reason_phrase(503), Some("Service Unavailable"));
        assert_eq!(reason_phrase(418), Some(""));
        for status in [0, 100, 101, 200, 204, 299, 304, 600] {
            assert_eq!(reason_phrase(status), None);
        }
    }
}
