//! A chat server that breaks its promises, to see whether the load tool notices.

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// Somebody else gets it as well.
    WrongUser,
    /// It comes twice.
    Duplicate,
    /// It waits for the next one, which overtakes it.
    OutOfOrder,
    /// It never comes.
    Loss,
}

/// One message in so many is lied about.
const EVERY: usize = 10;

/// Users, and a way to each of their connections.
type Users = Arc<Mutex<BTreeMap<String, Vec<UnboundedSender<String>>>>>;

/// Serves until the runtime ends. Its socket's address.
pub(crate) async fn serve(lie: Lie) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}/ws", listener.local_addr().expect("an address"));
    let users = Users::default();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, users.clone(), lie));
        }
    });
    url
}

async fn converse(stream: TcpStream, users: Users, lie: Lie) -> Option<()> {
    let mut user = String::new();
    #[expect(clippy::result_large_err, reason = "the handshake's callback returns a whole response")]
    let note_user = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let query = request.uri().query().unwrap_or_default();
        user = query.split('&').find_map(|pair| pair.strip_prefix("user=")).unwrap_or_default().to_owned();
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, note_user).await.ok()?;
    let (inlet, mut outlet) = unbounded_channel();
    users.lock().entry(user.clone()).or_default().push(inlet.clone());
    let mut liar = Liar { lie, users, heard: 0, held: None };
    loop {
        tokio::select! {
            text = outlet.recv() => socket.send(Message::text(text?)).await.ok()?,
            message = socket.next() => {
                let message = message?.ok()?;
                match (message.is_text(), serde_json::from_slice(&message.clone().into_data())) {
                    (true, Ok(Value::Object(direct))) => liar.pass_on(&user, &direct["to"], &direct["text"]),
                    (true, _) => {
                        liar.let_go();
                        let _ = inlet.send(said(&user, message.to_text().ok()?));
                    }
                    (false, _) => {}
                }
            }
        }
    }
}

fn said(from: &str, text: impl Into<Value>) -> String {
    json!({"from": from, "text": text.into()}).to_string()
}

struct Liar {
    lie: Lie,
    users: Users,
    heard: usize,
    /// To be overtaken: its addressee, and what it says.
    held: Option<(String, String)>,
}

impl Liar {
    fn pass_on(&mut self, from: &str, to: &Value, text: &Value) {
        let to = to.as_str().unwrap_or_default();
        let text = said(from, text.clone());
        self.heard += 1;
        let is_lied_about = self.heard.is_multiple_of(EVERY);
        match self.lie {
            Lie::Loss if is_lied_about => return,
            Lie::OutOfOrder if is_lied_about && self.held.is_none() => {
                self.held = Some((to.to_owned(), text));
                return;
            }
            Lie::Duplicate if is_lied_about => self.deliver(to, &text),
            Lie::WrongUser if is_lied_about => {
                let other = self.users.lock().keys().find(|user| *user != to).cloned();
                self.deliver(&other.unwrap_or_default(), &text);
            }
            _ => {}
        }
        self.deliver(to, &text);
        // Of one stream, that is: same writer, same addressee.
        if self.held.as_ref().is_some_and(|(held_for, _)| held_for == to) {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        if let Some((to, text)) = self.held.take() {
            self.deliver(&to, &text);
        }
    }

    fn deliver(&self, to: &str, text: &str) {
        for inlet in self.users.lock().get(to).into_iter().flatten() {
            // Refused: that connection is over.
            let _ = inlet.send(text.to_owned());
        }
    }
}
