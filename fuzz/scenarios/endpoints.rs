//! Any bytes as the address and the texts that the chat server gets: refused with 400 and a bounded text, or
//! understood as the one thing that they can mean.

#[path = "../../examples/chat_server/door.rs"]
mod door;
#[path = "../../examples/chat_server/message.rs"]
mod message;

use axum::http::Request;
use axum::response::IntoResponse;
use message::{Inbound, Outbound};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use ws_manager_pool::serve::Identify;

/// The first line is the query, the rest a text on the socket.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (query, text) = text.split_once('\n').unwrap_or((text, ""));
    address(query);
    on_the_socket(text);
}

fn address(query: &str) {
    // What is no address is refused by hyper.
    let Ok(request) = Request::builder().uri(format!("/ws?{query}")).body(()) else { return };
    let (parts, ()) = request.into_parts();
    let identified = {
        let mut identifying = pin!(door::Door.identify(&parts));
        let Poll::Ready(identified) = identifying.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("the door waits for nothing");
        };
        identified
    };
    match identified {
        Ok(context) => {
            let user = door::parameter(&parts, "user").expect("it was read before").expect("a user is named");
            assert_eq!(context.user_id().as_str(), user);
            let thread = door::parameter(&parts, "thread").expect("it was read before");
            if let Some(thread) = thread {
                assert_eq!(context.thread_id().to_string(), thread);
            }
        }
        Err(refusal) => assert_eq!(refusal.into_response().status(), 400),
    }
    match door::after(&parts) {
        Ok(after) => {
            assert_eq!(after.is_some(), door::parameter(&parts, "after").is_ok_and(|it| it.is_some()))
        }
        Err(refusal) => assert_eq!(refusal.into_response().status(), 400),
    }
}

fn on_the_socket(text: &str) {
    match Inbound::read(text) {
        Inbound::ToThread(same) => assert_eq!(same, text),
        Inbound::Ask { question } => assert!(text.contains("\"ask\"") || text.contains("\\u"), "{question}"),
        Inbound::ToUser { to, text: said } => {
            let shown = Outbound::Text { from: &to, text: &said }.encode();
            assert!(shown.as_text().is_some_and(|shown| !shown.contains('\n')), "one line of JSON");
        }
    }
    let shown = Outbound::Error { error: text.to_owned() }.encode();
    assert!(shown.as_text().is_some_and(|shown| shown.starts_with("{\"error\":")));
}
