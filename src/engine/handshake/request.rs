//! A request that may become a WebSocket.

use super::check::{RequestError, check};
use memchr::memchr;
use std::fmt;
use std::mem::MaybeUninit;
use std::str::from_utf8;

/// A request that asks for a WebSocket, and may have one; nothing has been answered yet. Borrows the head's
/// bytes and holds nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    target: &'a str,
    key: &'a [u8],
    /// The lines of the headers, the empty one included.
    headers: &'a [u8],
}

/// More are refused.
const MOST_HEADERS: usize = 64;

impl<'a> Request<'a> {
    /// Reads a whole head, up to where [`HeadScanner`](super::HeadScanner) found its end.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if it is not HTTP/1.1, or does not ask for a WebSocket as RFC 6455 says. Its status,
    /// header and text are the answer.
    pub fn parse(head: &'a [u8]) -> Result<Self, RequestError> {
        let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(head, &mut headers)?;
        if parsed != httparse::Status::Complete(head.len()) {
            return Err(RequestError::Malformed);
        }
        let key = check(&request)?;
        let target = request.path.ok_or(RequestError::Malformed)?;
        // Empty lines may stand before the first one that is not.
        let begin = head.iter().position(|&byte| !matches!(byte, b'\r' | b'\n')).unwrap_or_default();
        let line_end = memchr(b'\n', &head[begin..]).ok_or(RequestError::Malformed)?;
        Ok(Self { target, key, headers: &head[begin + line_end + 1..] })
    }

    /// What was asked for, as it was written.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The path, as it was written: percent signs are not decoded. Begins with a slash.
    pub fn path(&self) -> &'a str {
        let (path, _query) = self.path_and_query();
        if path.is_empty() { "/" } else { path }
    }

    /// What stands behind the question mark, as it was written.
    pub fn query(&self) -> Option<&'a str> {
        let (_path, query) = self.path_and_query();
        query
    }

    fn path_and_query(&self) -> (&'a str, Option<&'a str>) {
        let path = without_authority(self.target).unwrap_or_default();
        path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)))
    }

    /// All headers in their order, as they were written, without the space around a value.
    pub fn headers(&self) -> Headers<'a> {
        Headers { lines: self.headers }
    }

    /// The bytes of the first header of this name, in any case.
    pub fn header_bytes(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The first header of this name, in any case; also `None` if it is not UTF-8. What is compared rather
    /// than read is better asked for by [`header_bytes`](Self::header_bytes).
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.header_bytes(name).and_then(|value| from_utf8(value).ok())
    }

    /// The `Host` header: which host, and at which port, the client believes to have reached.
    pub fn host(&self) -> &'a str {
        self.header("host").unwrap_or_default() // there is one
    }

    /// The `Origin` header: of which page a browser's request is.
    pub fn origin(&self) -> Option<&'a [u8]> {
        self.header_bytes("origin")
    }

    /// The subprotocols that the client speaks, in the order of its preference, over all headers that name
    /// some. One of them may be given to [`accept`](super::accept()).
    pub fn protocols(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let named = |&(name, _): &(&str, &[u8])| name.eq_ignore_ascii_case("sec-websocket-protocol");
        let lists = self.headers().filter(named).filter_map(|(_, list)| from_utf8(list).ok());
        lists.flat_map(|list| list.split(',')).map(str::trim_ascii).filter(|protocol| !protocol.is_empty())
    }

    pub(super) fn key(&self) -> &'a [u8] {
        self.key
    }
}

/// Shows neither values nor the query: they hold secrets.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Names<'a>(Headers<'a>);
        impl fmt::Debug for Names<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.0.clone().map(|(name, _)| name)).finish()
            }
        }
        let names = Names(self.headers());
        f.debug_struct("Request").field("path", &self.path()).field("headers", &names).finish_non_exhaustive()
    }
}

/// The path and what follows it, of a target that is a path, or an address as proxies are sent it. `None` if
/// it is neither.
pub(super) fn without_authority(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return Some(target);
    }
    let (scheme, rest) = target.split_once("://")?;
    let is_known = ["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let path = rest.find(['/', '?']).unwrap_or(rest.len());
    (is_known && path > 0).then(|| &rest[path..])
}

/// Names and values of a request's headers.
#[derive(Clone)]
pub struct Headers<'a> {
    lines: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr(b'\n', self.lines)?;
        let (line, rest) = self.lines.split_at(end);
        // None at the empty line. The rest was found to be right before this was made.
        let colon = memchr(b':', line)?;
        self.lines = &rest[1..];
        let name = from_utf8(&line[..colon]).ok()?;
        Some((name, line[colon + 1..].trim_ascii()))
    }
}

/// Shows no values: they hold secrets.
impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Headers").field("bytes_left", &self.lines.len()).finish()
    }
}
