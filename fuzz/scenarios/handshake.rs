//! Any bytes as a request: the engine and tungstenite accept the same, but for what is named here, read the
//! same headers, and answer with the same key.

use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request as Theirs, create_response};
use ws_manager_pool::engine::{HeadScanner, Request, RequestError, accept, refuse};

/// The first byte is the length of the pieces in which the rest comes; if it is odd, the rest stands among
/// the headers of a request that is right.
pub(crate) fn run(data: &[u8]) {
    let [first, rest @ ..] = data else { return };
    let stream = if first % 2 == 0 { rest.to_vec() } else { [RIGHT, rest, b"\r\n\r\n"].concat() };
    agree(&stream, usize::from(first / 2).max(1));
}

const RIGHT: &[u8] =
    b"GET /chat?room=1 HTTP/1.1\r\nHost: localhost:80\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Both say the same about the bytes, however they come.
///
/// The engine refuses and tungstenite does not: a head of more than 8 KiB or 64 headers, a request without
/// `Host` or with two, with a body, with a target that is no path or has a fragment, with two keys or two
/// versions. What tungstenite refuses and the engine does not: `Upgrade` or `Connection` in a later line or
/// in a list that it does not take apart, spare bits in a key, a target that the `http` crate does not like.
pub(crate) fn agree(stream: &[u8], step: usize) {
    let end = find_end(stream, step);
    let theirs = Theirs::try_parse(stream);
    let end = match end {
        Ok(Some(end)) => end,
        Ok(None) => return assert!(!matches!(theirs, Ok(Some(_))), "it has come: {theirs:?}"),
        Err(RequestError::HeadTooLong) => return assert!(stream.len() >= HeadScanner::LONGEST),
        Err(error) => return assert!(theirs.is_err(), "{error}: {theirs:?}"),
    };
    let ours = Request::parse(&stream[..end]);
    answer(&ours);
    match (ours, theirs) {
        (Err(error), Err(_)) => assert!((400..=505).contains(&error.status())),
        (Ok(ours), Err(theirs)) => {
            assert!(matches!(theirs, Error::HttpFormat(_)), "{ours:?}: {theirs}");
        }
        (ours, Ok(None)) => panic!("there is more to come: {ours:?}"),
        (Err(error), Ok(Some((size, theirs)))) => {
            assert!(size == end || error == RequestError::TooManyHeaders);
            assert!(create_response(&theirs).is_err() || is_stricter(error, &theirs), "{error}: {theirs:?}");
        }
        (Ok(ours), Ok(Some((size, theirs)))) => {
            assert_eq!(size, end);
            has_the_same_headers(&ours, &theirs);
            match create_response(&theirs) {
                Ok(response) => {
                    let mut out = Vec::new();
                    accept(&ours, None, None, &mut out).expect("it can be written");
                    let key = response.headers()["Sec-WebSocket-Accept"].to_str().expect("it is base64");
                    let ours = String::from_utf8(out).expect("it is text");
                    assert!(ours.contains(&format!("\r\nSec-WebSocket-Accept: {key}\r\n")), "{ours}");
                }
                Err(Error::Protocol(
                    ProtocolError::MissingConnectionUpgradeHeader
                    | ProtocolError::MissingUpgradeWebSocketHeader
                    | ProtocolError::InvalidSecWebSocketKey,
                )) => {}
                Err(error) => panic!("{error}: {ours:?}"),
            }
        }
    }
}

/// As the bytes come, and the same at once.
fn find_end(stream: &[u8], step: usize) -> Result<Option<usize>, RequestError> {
    let at_once = HeadScanner::new().find_end(stream);
    let mut scanner = HeadScanner::new();
    let lengths = (0..stream.len()).step_by(step).chain([stream.len()]);
    let in_pieces = lengths.map(|len| scanner.find_end(&stream[..len])).find(|end| *end != Ok(None));
    assert_eq!(in_pieces.unwrap_or(Ok(None)), at_once);
    at_once
}

fn is_stricter(error: RequestError, theirs: &Theirs) -> bool {
    let count = |name| theirs.headers().get_all(name).iter().count();
    match error {
        RequestError::TooManyHeaders => theirs.headers().len() > 64,
        RequestError::Host => {
            count("host") != 1
                || theirs.headers()["host"].is_empty()
                || theirs.headers()["host"].to_str().is_err()
        }
        RequestError::Body => count("content-length") + count("transfer-encoding") > 0,
        // The `http` crate forgets a fragment.
        RequestError::Target => true,
        RequestError::Key => count("sec-websocket-key") > 1,
        RequestError::WebSocketVersion => count("sec-websocket-version") > 1,
        _ => false,
    }
}

fn has_the_same_headers(ours: &Request<'_>, theirs: &Theirs) {
    assert_eq!(ours.headers().count(), theirs.headers().len());
    for name in theirs.headers().keys() {
        let theirs: Vec<_> = theirs.headers().get_all(name).iter().map(|value| value.as_bytes()).collect();
        let named = ours.headers().filter(|(other, _)| other.eq_ignore_ascii_case(name.as_str()));
        assert_eq!(named.map(|(_, value)| value).collect::<Vec<_>>(), theirs);
        assert_eq!(ours.header_bytes(name.as_str()), theirs.first().copied());
    }
    // An address without a path has that of the root for both.
    assert_eq!((ours.path(), ours.query()), (theirs.uri().path(), theirs.uri().query()));
}

/// Whatever was asked for, there is an answer, and it has no line that the client chose.
fn answer(request: &Result<Request<'_>, RequestError>) {
    let mut out = Vec::new();
    match request {
        Ok(request) => {
            assert!(request.path().starts_with('/') && !request.host().is_empty());
            let protocol = request.protocols().next();
            let written = accept(request, protocol, [("X-Extra", "1")], &mut out);
            assert_eq!(written.is_err(), out.is_empty());
            if written.is_ok() {
                let lines = 6 + usize::from(protocol.is_some());
                assert_eq!(out.split(|&byte| byte == b'\n').count(), lines + 1, "{request:?}");
            }
        }
        Err(error) => {
            refuse(error.status(), error.as_str(), None, error.header(), &mut out)
                .expect("it can be written");
        }
    }
}
