//! A client's handshake. The benchmark of the delivery uses it too.

use crate::loopback::Result;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Opens a WebSocket at `/?query`, and leaves everything behind the handshake to the caller.
pub(crate) fn connect(address: SocketAddr, query: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /?{query} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    // One byte at a time: nothing behind the answer may be taken.
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        return Err(format!("refused: {}", String::from_utf8_lossy(&answer)).into());
    }
    Ok(stream)
}
