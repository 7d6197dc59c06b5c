//! A WebSocket engine for servers, as pure state machines over borrowed bytes: no I/O, no memory of its
//! own, no async. Whoever drives it owns the bytes; the engine says what they mean.
//!
//! | the client's side | the server's side |
//! | --- | --- |
//! | [`HeadScanner`], [`Request`]: the request that asks for a WebSocket | [`accept`], [`refuse`]: the answer |
//! | [`Decoder`]: frames, chunk by chunk | [`head`], [`ClosePayload`]: frames |
//!
//! ```
//! use ws_manager_pool::engine::{Decoder, Found, Kind, Limits};
//!
//! // A client says "Hi" in one masked frame.
//! let mut unread = [0x81, 0x82, 1, 2, 3, 4, b'H' ^ 1, b'i' ^ 2];
//! let limits = Limits { frame: 16 << 10, message: 64 << 10 };
//!
//! let mut decoder = Decoder::new();
//! let step = decoder.step(&mut unread, &limits)?;
//! let Found::Data(chunk) = step.found else { unreachable!() };
//! assert_eq!((chunk.kind, chunk.is_first, chunk.is_last), (Kind::Text, true, true));
//! assert_eq!(&unread[chunk.payload], b"Hi");
//! assert_eq!(step.consumed, unread.len());
//! assert!(decoder.is_idle());
//! # Ok::<(), ws_manager_pool::engine::Violation>(())
//! ```
//!
//! Nothing here blocks, allocates (but for the text of an error that names a header) or panics, whatever
//! the bytes are, and however they are cut.
//!
//! The handshake before it:
//!
//! ```
//! use ws_manager_pool::engine::{HeadScanner, Request, accept, refuse};
//!
//! /// The answer to the bytes that came so far, and how many of them it is for.
//! fn answer(scanner: &mut HeadScanner, come: &[u8], out: &mut Vec<u8>) -> Option<usize> {
//!     let request = match scanner.find_end(come) {
//!         Ok(None) => return None,
//!         Ok(Some(end)) => Request::parse(&come[..end]).map(|request| (end, request)),
//!         Err(error) => Err(error),
//!     };
//!     match request {
//!         Ok((end, request)) => {
//!             let chat = request.protocols().find(|&protocol| protocol == "chat");
//!             accept(&request, chat, [("X-Served-By", "engine")], out).expect("it can be written");
//!             Some(end)
//!         }
//!         Err(error) => {
//!             refuse(error.status(), error.as_str(), None, error.header(), out).expect("it can be written");
//!             Some(come.len())
//!         }
//!     }
//! }
//!
//! let mut out = Vec::new();
//! let mut scanner = HeadScanner::new();
//! let head = b"GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
//!     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
//! assert_eq!(answer(&mut scanner, &head[..100], &mut out), None);
//! assert_eq!(answer(&mut scanner, head, &mut out), Some(head.len()));
//! assert!(out.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
//! ```
//!
//! # What it does not do
//!
//! Extensions, compression among them, are never agreed on, so a reserved bit is always a violation. It
//! has no client's side.

mod decode;
mod encode;
mod frame;
mod handshake;
mod mask;
mod utf8;

pub use decode::{Chunk, Decoded, Decoder, Found, Limits};
pub use encode::{ClosePayload, FrameHead, head};
pub use frame::{Kind, Opcode, Violation, is_close_code};
pub use handshake::{HeadScanner, Headers, Request, RequestError, ResponseError, accept, accept_key, refuse};
