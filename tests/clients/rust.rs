//! tokio-tungstenite, by the commands of the other clients.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::HashMap;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

#[derive(Debug, Default)]
pub(crate) struct RustClient {
    sockets: HashMap<String, Socket>,
}

impl RustClient {
    pub(crate) async fn answer(&mut self, command: &Value) -> Value {
        let name = command["name"].as_str().expect("a name");
        match command["do"].as_str().expect("a command") {
            "open" => return self.open(name, command["url"].as_str().expect("an address")).await,
            "lose" => {
                let socket = self.sockets.remove(name).expect("it is open");
                if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
                    stream.set_zero_linger().expect("a TCP socket"); // its end is a reset
                }
                return json!({"lost": true});
            }
            _ => {}
        }
        let socket = self.sockets.get_mut(name).expect("it is open");
        match command["do"].as_str().expect("a command") {
            "text" => {
                for frame in frames(command) {
                    // Refused: `next` tells why.
                    let _ = socket.send(Message::Frame(frame)).await;
                }
                json!({"sent": true})
            }
            "binary" => {
                socket.send(Message::binary(bytes(&command["payload"]))).await.expect("send");
                json!({"sent": true})
            }
            "ping" => {
                let payload = command["payload"].as_str().expect("a payload");
                socket.send(Message::Ping(payload.to_owned().into())).await.expect("send");
                let pong = socket.next().await.expect("open").expect("no error");
                json!({"pong": pong == Message::Pong(payload.to_owned().into())})
            }
            "next" => next(socket).await,
            "close" => {
                let code = command["code"].as_u64().expect("a code") as u16;
                let reason = command["reason"].as_str().expect("a reason").to_owned().into();
                socket.close(Some(CloseFrame { code: code.into(), reason })).await.expect("send");
                loop {
                    let message = next(socket).await;
                    if message.get("closed").is_some() {
                        return message;
                    }
                }
            }
            other => panic!("{other} is no command"),
        }
    }

    async fn open(&mut self, name: &str, url: &str) -> Value {
        match connect_async(url).await {
            Ok((socket, _)) => {
                self.sockets.insert(name.to_owned(), socket);
                json!({"opened": true})
            }
            Err(Error::Http(answer)) => {
                let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap());
                let body = answer.body().as_deref().map(String::from_utf8_lossy);
                json!({"refused": answer.status().as_u16(), "retry_after": retry_after, "body": body})
            }
            Err(error) => panic!("{url}: {error}"),
        }
    }
}

/// The next message. A close is answered first.
async fn next(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return json!({"text": text.as_str()}),
            Some(Ok(Message::Binary(payload))) => return json!({"binary": payload.to_vec()}),
            Some(Ok(Message::Close(close))) => {
                while let Some(Ok(_)) = socket.next().await {}
                let close = close.expect("a code");
                return json!({"closed": {"code": u16::from(close.code), "reason": close.reason.as_str()}});
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return json!({"closed": {"code": 1006, "reason": ""}}),
        }
    }
}

fn frames(command: &Value) -> Vec<Frame> {
    let pieces = command["pieces"].as_array().expect("pieces");
    let times = command["repeat"].as_u64().expect("a number") as usize;
    let frame = |(at, piece)| {
        let opcode = if at == 0 { Data::Text } else { Data::Continue };
        Frame::message(bytes(piece).repeat(times), OpCode::Data(opcode), at + 1 == pieces.len())
    };
    pieces.iter().enumerate().map(frame).collect()
}

fn bytes(list: &Value) -> Vec<u8> {
    let numbers = list.as_array().expect("a list").iter();
    numbers.map(|number| number.as_u64().expect("a byte") as u8).collect()
}
