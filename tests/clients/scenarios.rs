//! What every client does with the chat. Each ends with a server that holds nothing.

use crate::driver::{Client, Kind};
use crate::server::Server;
use serde_json::json;

/// The largest message that the pool takes, in production.
const MESSAGE_LIMIT: usize = 1024 * 1024;

pub(crate) async fn any_text_comes_back_as_it_was(client: &mut Client) {
    let server = Server::start(&[]);
    client.open("ada", &server.socket("user=ada&thread=thread_texts")).await;
    let texts = [
        "hello",
        "",
        "Grüße, 爱丽丝, \u{202e}مرحبا",
        "🌍👩‍👩‍👧‍👦🏳️‍🌈 e\u{301}",
        "line\nline\ttab \u{0} \u{7f} \" \\ / \u{2028}",
        "<img src=x onerror=alert(1)>",
        "\u{fffd}\u{10ffff}\u{feff}",
    ];
    for text in texts {
        client.say("ada", text).await;
        assert_eq!(client.hear("ada").await, json!({"from": "ada", "text": text}));
    }
    client.close("ada", 1000, "").await;
    server.is_empty_again().await;
}

pub(crate) async fn two_users_of_any_script_write_to_each_other(client: &mut Client) {
    let server = Server::start(&[]);
    let names = [("爱丽丝 🌍", "%E7%88%B1%E4%B8%BD%E4%B8%9D%20%F0%9F%8C%8D"), ("a&b=c:d", "a%26b%3Dc%3Ad")];
    for (name, encoded) in names {
        client.open(name, &server.socket(&format!("user={encoded}"))).await;
    }
    server.live_becomes(2).await;
    for (from, to) in [(names[0].0, names[1].0), (names[1].0, names[0].0)] {
        client.say(from, &json!({"to": to, "text": "hi ✓"}).to_string()).await;
        assert_eq!(client.hear(to).await, json!({"from": from, "text": "hi ✓"}));
    }
    for (name, _) in names {
        client.close(name, 1000, "").await;
    }
    server.is_empty_again().await;
}

pub(crate) async fn tabs_of_a_thread_hear_each_other_in_order(client: &mut Client) {
    let server = Server::start(&[]);
    for tab in ["first", "second"] {
        client.open(tab, &server.socket("user=ada&thread=thread_tabs")).await;
    }
    server.live_becomes(2).await;
    for number in 0..50 {
        client.say("first", &number.to_string()).await;
    }
    for tab in ["first", "second"] {
        for number in 0..50 {
            assert_eq!(client.hear(tab).await["text"], number.to_string(), "{tab}");
        }
        client.close(tab, 1000, "").await;
    }
    server.is_empty_again().await;
}

pub(crate) async fn a_binary_message_is_refused_and_the_chat_goes_on(client: &mut Client) {
    let server = Server::start(&[]);
    client.open("ada", &server.socket("user=ada")).await;
    client.ask(json!({"do": "binary", "name": "ada", "payload": [0, 255, 128]})).await;
    let error = client.hear("ada").await;
    assert!(error["error"].as_str().expect("an error").contains("text"), "{error}");
    client.say("ada", "still here").await;
    assert_eq!(client.hear("ada").await["text"], "still here");
    client.close("ada", 1000, "").await;
    server.is_empty_again().await;
}

pub(crate) async fn a_ping_is_answered(client: &mut Client) {
    let server = Server::start(&[]);
    client.open("ada", &server.socket("user=ada")).await;
    for payload in ["tick", ""] {
        let answer = client.ask(json!({"do": "ping", "name": "ada", "payload": payload})).await;
        assert_eq!(answer["pong"], true);
    }
    client.say("ada", "still here").await;
    assert_eq!(client.hear("ada").await["text"], "still here");
    client.close("ada", 1000, "").await;
    server.is_empty_again().await;
}

pub(crate) async fn a_fragmented_text_arrives_whole(client: &mut Client) {
    let server = Server::start(&[]);
    client.open("ada", &server.socket("user=ada")).await;
    // Also where a frame ends in the middle of a character, and where one is empty.
    let text = "爱🌍!";
    let bytes = text.as_bytes();
    client.say_in_frames("ada", &[b"", &bytes[..1], &bytes[1..5], b"", &bytes[5..]]).await;
    assert_eq!(client.hear("ada").await["text"], text);
    client.close("ada", 1000, "").await;
    server.is_empty_again().await;
}

pub(crate) async fn a_megabyte_arrives_and_more_than_the_limit_is_1009(client: &mut Client) {
    let server = Server::start(&[]);
    client.open("ada", &server.socket("user=ada")).await;
    client.say_much("ada", 1_000_000).await;
    let heard = client.hear("ada").await;
    assert_eq!(heard["text"].as_str().expect("a text").len(), 1_000_000);
    client.say_much("ada", MESSAGE_LIMIT + 1).await;
    let (code, reason) = client.hear_close("ada").await;
    assert_eq!(code, 1009, "{reason}");
    assert!(!reason.is_empty());
    server.is_empty_again().await;
}

pub(crate) async fn a_client_that_closes_hears_its_own_code(client: &mut Client) {
    let server = Server::start(&[]);
    client.open("ada", &server.socket("user=ada")).await;
    assert_eq!(client.close("ada", 3001, "bye, 爱丽丝").await.0, 3001);
    server.is_empty_again().await;
}

pub(crate) async fn a_takeover_is_4001_and_says_so(client: &mut Client) {
    let server = Server::start(&["--duplicate", "replace"]);
    client.open("old", &server.socket("user=ada&thread=thread_one")).await;
    server.live_becomes(1).await; // its manager opens after the handshake
    client.open("new", &server.socket("user=ada&thread=thread_one")).await;
    let (code, reason) = client.hear_close("old").await;
    assert_eq!((code, reason.as_str()), (4001, "taken over by a newer connection"));
    client.say("new", "mine now").await;
    assert_eq!(client.hear("new").await["text"], "mine now");
    client.close("new", 1000, "").await;
    server.is_empty_again().await;
}

pub(crate) async fn a_full_user_is_refused_with_a_reason_and_comes_in_later(client: &mut Client) {
    let server = Server::start(&["--max-per-user", "1"]);
    client.open("first", &server.socket("user=ada")).await;
    let refused = client.try_open("second", &server.socket("user=ada")).await.expect_err("there is no place");
    if client.kind == Kind::Chromium {
        assert_eq!(refused.status, None);
    } else {
        assert_eq!(refused.status, Some(429));
        assert!(refused.retry_after.expect("Retry-After").parse::<u32>().expect("seconds") > 0);
        assert!(refused.body.expect("a body").contains("1 open connection"));
    }
    client.close("first", 1000, "").await;
    server.live_becomes(0).await;
    client.open("third", &server.socket("user=ada")).await;
    client.close("third", 1000, "").await;
    server.is_empty_again().await;
}

pub(crate) async fn a_lost_client_comes_back_on_the_same_thread(client: &mut Client) {
    let server = Server::start(&["--max-per-user", "2"]);
    client.open("tab", &server.socket("user=ada&thread=thread_stays")).await;
    for round in 0..10 {
        client.open("again", &server.socket("user=ada&thread=thread_back")).await;
        let text = format!("round {round}");
        client.say("again", &text).await;
        assert_eq!(client.hear("again").await["text"], text.as_str());
        client.lose("again").await;
        // Freed at the end of the socket, or the third would be one too many.
        server.live_becomes(1).await;
    }
    client.close("tab", 1000, "").await;
    server.is_empty_again().await;
}

pub(crate) async fn a_drain_is_1001(client: &mut Client) {
    let server = Server::start(&[]);
    client.open("ada", &server.socket("user=ada")).await;
    server.live_becomes(1).await;
    server.interrupt();
    assert_eq!(client.hear_close("ada").await.0, 1001);
    server.ends_with_nothing_left().await;
}
