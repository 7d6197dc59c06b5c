//! A client that sends whatever bytes it is told to, and sees every frame that comes back.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A masked frame; `first` is the first byte: `FIN`, reserved bits, opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = head(first, payload.len());
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// What comes before the mask of a frame that has one.
pub(crate) fn head(first: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match len {
        0..126 => bytes.push(0x80 | len as u8),
        126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes
}

pub(crate) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut client = Self(BufReader::new(stream));
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(in_time(client.0.read_u8()).await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        client
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        in_time(self.0.get_mut().write_all(bytes)).await.unwrap();
    }

    /// The next frame: its first byte, and what it carries.
    pub(crate) async fn receive(&mut self) -> (u8, Vec<u8>) {
        in_time(async {
            let (first, len) = (self.0.read_u8().await.unwrap(), self.0.read_u8().await.unwrap());
            assert!(len < 0x80, "a server masks nothing");
            let len = match len {
                126 => u64::from(self.0.read_u16().await.unwrap()),
                127 => self.0.read_u64().await.unwrap(),
                short => u64::from(short),
            };
            let mut payload = vec![0; len as usize];
            self.0.read_exact(&mut payload).await.unwrap();
            (first, payload)
        })
        .await
    }

    /// The next thing is a close frame with this code, we answer it, and after it there is nothing but
    /// the end.
    pub(crate) async fn ends_with(mut self, code: u16) {
        let (first, payload) = self.receive().await;
        assert_eq!((first, payload.get(..2)), (FIN | CLOSE, Some(&code.to_be_bytes()[..])));
        // Refused: the server does not wait for an answer to a mistake.
        let _ = self.0.get_mut().write_all(&frame(FIN | CLOSE, &payload)).await;
        self.ends().await;
    }

    /// Not a byte more.
    pub(crate) async fn ends(mut self) {
        match in_time(self.0.read_u8()).await {
            Ok(byte) => panic!("{byte:#x} after the last frame"),
            Err(error) => {
                let is_end = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind());
                assert!(is_end, "{error}");
            }
        }
    }

    /// Ends our side without a word.
    pub(crate) async fn shut_down(mut self) {
        self.0.get_mut().shutdown().await.unwrap();
        self.ends().await;
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        self.0.get_ref().set_zero_linger().unwrap();
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}
