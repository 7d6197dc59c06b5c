//! What goes over a chat's socket, both ways.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use ws_manager_pool::Message;

/// What a client sends: `{"to": "user", "text": …}`, and nothing else, is for that user. Any other
/// text is for the sender's own thread, as it stands.
pub(crate) enum Inbound<'a> {
    ToThread(&'a str),
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

        // serde would read the array ["user", "text"] as a `Direct` as well.
        let is_object = text.trim_start().starts_with('{');
        match serde_json::from_str(text) {
            Ok(Direct { to, text }) if is_object => Self::ToUser { to, text },
            _ => Self::ToThread(text),
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
