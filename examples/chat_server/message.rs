//! What goes over a chat's socket, both ways.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use ws_manager_pool::Message;

/// What a client sends: `{"to": "user", "text": …}`, and nothing else, is for that user,
/// `{"ask": "question"}` for the thread's agent. Any other text is for the sender's own thread, as it
/// stands.
pub(crate) enum Inbound<'a> {
    ToThread(&'a str),
    Ask { question: Cow<'a, str> },
    ToUser { to: Cow<'a, str>, text: Cow<'a, str> },
}

impl<'a> Inbound<'a> {
    pub(crate) fn read(text: &'a str) -> Self {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Direct<'a> {
            #[serde(borrow)]
            to: Cow<'a, str>,
            #[serde(borrow)]
            text: Cow<'a, str>,
        }

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Question<'a> {
            #[serde(borrow)]
            ask: Cow<'a, str>,
        }

        // serde would read the array ["user", "text"] as a `Direct` as well.
        let is_object = text.trim_start().starts_with('{');
        if !is_object {
            return Self::ToThread(text);
        }
        match serde_json::from_str(text) {
            Ok(Direct { to, text }) => Self::ToUser { to, text },
            Err(_) => match serde_json::from_str(text) {
                Ok(Question { ask }) => Self::Ask { question: ask },
                Err(_) => Self::ToThread(text),
            },
        }
    }
}

/// What a client receives. Encoded once for all who receive it: they share the payload.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Outbound<'a> {
    Text { from: &'a str, text: &'a str },
    Error { error: String },
}

impl Outbound<'_> {
    pub(crate) fn encode(&self) -> Message {
        Message::text(serde_json::to_string(self).expect("strings always have a JSON form"))
    }
}
