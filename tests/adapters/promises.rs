//! The promises themselves.

use crate::client::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, close_payload, frame, head};
use crate::server::{Library, MESSAGE, Server};
use ws_manager_pool::{EndReason, Message, UserId};

pub(crate) async fn what_is_said_is_echoed_in_its_kind_however_it_is_cut(library: Library) {
    let server = Server::start(library).await;
    let mut client = server.client().await;
    let text = "κόσμε 🦀".as_bytes();
    client.send(&frame(FIN | TEXT, text)).await;
    client.send(&frame(FIN | BINARY, b"\0\xff")).await;
    client.send(&frame(FIN | TEXT, b"")).await;
    for cut in 1..text.len() {
        client.send(&frame(TEXT, &text[..cut])).await;
        client.send(&frame(FIN | PING, b"between")).await;
        client.send(&frame(FIN | CONTINUATION, &text[cut..])).await;
    }
    // Byte by byte, and as large as allowed: in one frame, and in two.
    for byte in frame(FIN | TEXT, text) {
        client.send(&[byte]).await;
    }
    let large = vec![7; MESSAGE];
    client.send(&frame(FIN | BINARY, &large)).await;
    client.send(&frame(BINARY, &large[..MESSAGE / 2])).await;
    client.send(&frame(FIN | CONTINUATION, &large[MESSAGE / 2..])).await;

    let mut echoes = Vec::new();
    while echoes.len() < 3 + text.len() - 1 + 3 {
        let (first, payload) = client.receive().await;
        if first != FIN | PONG {
            echoes.push((first, payload));
        }
    }
    let said = |first: u8, payload: &[u8]| (FIN | first, payload.to_vec());
    assert_eq!(echoes[..3], [said(TEXT, text), said(BINARY, b"\0\xff"), said(TEXT, b"")]);
    assert!(echoes[3..3 + text.len()].iter().all(|echo| *echo == said(TEXT, text)));
    assert!(echoes[3 + text.len()..].iter().all(|echo| *echo == said(BINARY, &large)));
    client.send(&frame(FIN | CLOSE, &close_payload(1000, ""))).await;
    client.ends_with(1000).await;
    server.is_empty_after(&[(EndReason::Closed, 1)]).await;
}

pub(crate) async fn a_ping_is_answered_once_with_what_it_carried(library: Library) {
    let server = Server::start(library).await;
    let mut client = server.client().await;
    for payload in [&b""[..], b"are you there", &[0xff; 125]] {
        client.send(&frame(FIN | PING, payload)).await;
        assert_eq!(client.receive().await, (FIN | PONG, payload.to_vec()));
    }
    // One that nobody asked for is no reason to say anything.
    client.send(&frame(FIN | PONG, b"unasked")).await;
    client.send(&frame(FIN | TEXT, b"next")).await;
    assert_eq!(client.receive().await, (FIN | TEXT, b"next".to_vec()));
    client.reset();
    server.is_empty_after(&[(EndReason::SocketError, 1)]).await;
}

/// More than any socket holds is sent before the first byte is read, small and large in turn; and the
/// client's ping is answered somewhere among it.
pub(crate) async fn a_reader_that_was_slow_misses_nothing_and_nothing_is_mixed_up(library: Library) {
    const MESSAGES: u32 = 3_000;
    let server = Server::start(library).await;
    let mut client = server.client().await;
    let sizes = [4, 125, 126, 4_092, 5_000, 66_000];
    let payload = |number: u32| {
        let mut payload = vec![number as u8; sizes[number as usize % sizes.len()]];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        payload
    };
    for number in 0..MESSAGES {
        assert!(server.pool.broadcast(Message::binary(payload(number))).is_complete(), "{number}");
        if number % 500 == 0 {
            client.send(&frame(FIN | PING, &number.to_be_bytes())).await;
            tokio::task::yield_now().await;
        }
    }
    let (mut next, mut pongs) = (0, Vec::new());
    while next < MESSAGES || pongs.is_empty() {
        let (first, received) = client.receive().await;
        if first == FIN | PONG {
            pongs.push(received);
        } else {
            assert!(first == FIN | BINARY && received == payload(next), "message {next}");
            next += 1;
        }
    }
    client.send(&frame(FIN | CLOSE, b"")).await;
    server.is_empty_after(&[(EndReason::Closed, 1)]).await;
}

pub(crate) async fn a_ping_is_answered_behind_a_message_that_is_half_written(library: Library) {
    const MORE_THAN_A_SOCKET_HOLDS: usize = 32 << 20;
    let server = Server::start(library).await;
    let mut client = server.client().await;
    let large = vec![7; MORE_THAN_A_SOCKET_HOLDS];
    assert!(server.pool.broadcast(Message::binary(large.clone())).is_complete());
    client.send(&frame(FIN | PING, b"meanwhile")).await;
    client.send(&frame(FIN | TEXT, b"next")).await;
    server.has_heard(1).await;
    let (mut first, mut received) = client.receive().await;
    while first & FIN == 0 {
        let (next, more) = client.receive().await; // a library may cut what is large
        assert_eq!(next & !FIN, CONTINUATION);
        (first, received) = (next, [received, more].concat());
    }
    assert!(received == large);
    let mut answers = [client.receive().await, client.receive().await];
    answers.sort();
    assert_eq!(answers, [(FIN | TEXT, b"next".to_vec()), (FIN | PONG, b"meanwhile".to_vec())]);
    client.reset();
    server.is_empty_after(&[(EndReason::SocketError, 1)]).await;
}

pub(crate) async fn too_much_is_closed_with_1009(library: Library) {
    let server = Server::start(library).await;
    let mut client = server.client().await;
    let large = vec![7; MESSAGE + 1];
    if library == Library::Actix {
        client.send(&frame(FIN | BINARY, &large)).await; // it looks at the size once all is there
    } else {
        client.send(&[head(FIN | BINARY, large.len()), vec![0; 4]].concat()).await;
    }
    client.ends_with(1009).await;

    let mut client = server.client().await;
    client.send(&frame(BINARY, &large[..MESSAGE / 2])).await;
    client.send(&frame(CONTINUATION, &large[..MESSAGE / 2])).await;
    client.send(&frame(FIN | CONTINUATION, &large[..1])).await;
    client.ends_with(1009).await;
    server.is_empty_after(&[(EndReason::TooLarge, 2)]).await;
}

pub(crate) async fn text_that_is_not_utf8_is_closed_with_1007(library: Library) {
    let server = Server::start(library).await;
    let cut_short = [frame(TEXT, b"a\xce"), frame(FIN | CONTINUATION, b"")].concat();
    let never = [frame(TEXT, b"a\xed\xa0\x80"), frame(FIN | CONTINUATION, b"b")].concat();
    let mut mistakes = vec![frame(FIN | TEXT, b"\xff"), frame(FIN | TEXT, b"a\xce"), never];
    if library != Library::TokioWebsockets {
        mistakes.push(cut_short); // lets it through: it looks at no empty frame
    }
    for mistake in &mistakes {
        let mut client = server.client().await;
        client.send(mistake).await;
        client.ends_with(1007).await;
    }
    server.is_empty_after(&[(EndReason::InvalidUtf8, mistakes.len() as u64)]).await;
}

pub(crate) async fn a_broken_protocol_is_closed_with_1002(library: Library) {
    let mistakes = [
        ("a reserved bit", frame(FIN | 0x40 | TEXT, b"a")),
        ("a reserved opcode", frame(FIN | 3, b"a")),
        ("a reserved control opcode", frame(FIN | 0xb, b"a")),
        ("more of nothing", frame(FIN | CONTINUATION, b"a")),
        ("a message within a message", [frame(TEXT, b"a"), frame(FIN | TEXT, b"b")].concat()),
        ("a ping in parts", frame(PING, b"a")),
        ("a long ping", frame(FIN | PING, &[0; 126])),
    ];
    let server = all_are_closed_with_1002(library, &mistakes).await;

    let mut client = server.client().await;
    client.send(&frame(FIN | CLOSE, &close_payload(1005, ""))).await; // a code that nobody sends
    client.ends_with(1002).await;
    let count = mistakes.len() as u64;
    server
        .is_empty_after(&match library {
            // Tungstenite answers with 1002, and reports a close like any other.
            Library::Axum
            | Library::Tungstenite
            | Library::Generic
            | Library::LeanTungstenite
            | Library::LeanAxum => {
                vec![(EndReason::Closed, 1), (EndReason::ProtocolError, count)]
            }
            _ => vec![(EndReason::ProtocolError, count + 1)],
        })
        .await;
}

pub(crate) async fn what_the_public_suite_does_not_send_is_refused_as_well(library: Library) {
    let mistakes = [
        ("a frame without a mask", vec![FIN | TEXT, 1, b'a']),
        ("a close without a mask", vec![FIN | CLOSE, 0]),
        ("a close with half a code", frame(FIN | CLOSE, b"\x03")),
        ("a reserved bit on a close", frame(FIN | 0x40 | CLOSE, &close_payload(1000, ""))),
        ("a reserved bit on a ping", frame(FIN | 0x20 | PING, b"")),
        ("a long close", frame(FIN | CLOSE, &close_payload(1000, &"a".repeat(124)))),
        ("a long pong", frame(FIN | PONG, &[0; 126])),
    ];
    all_are_closed_with_1002(library, &mistakes).await;
}

async fn all_are_closed_with_1002(library: Library, mistakes: &[(&str, Vec<u8>)]) -> Server {
    let server = Server::start(library).await;
    for (name, mistake) in mistakes {
        println!("{name}"); // shown with what fails
        let mut client = server.client().await;
        client.send(mistake).await;
        client.ends_with(1002).await;
    }
    server.is_empty_after(&[(EndReason::ProtocolError, mistakes.len() as u64)]).await;
    server
}

pub(crate) async fn a_close_is_answered_once_with_its_code(library: Library) {
    let server = Server::start(library).await;
    for code in [1000, 1001, 3000, 4999] {
        let mut client = server.client().await;
        client.send(&frame(FIN | CLOSE, &close_payload(code, "bye"))).await;
        // What comes after a close is not looked at.
        client.send(&frame(FIN | TEXT, b"late")).await;
        let (first, payload) = client.receive().await;
        assert_eq!((first, &payload[..2]), (FIN | CLOSE, &code.to_be_bytes()[..]));
        client.ends().await;
    }
    let mut client = server.client().await;
    client.send(&frame(FIN | CLOSE, b"")).await;
    assert_eq!(client.receive().await.0, FIN | CLOSE);
    client.ends().await;
    server.is_empty_after(&[(EndReason::Closed, 5)]).await;
}

pub(crate) async fn an_evicted_peer_is_told_why_and_the_socket_ends(library: Library) {
    let server = Server::start(library).await;
    let client = server.client().await;
    let user = server.pool.managers(1).remove(0).user_id;
    let swept = server.pool.cleanup_all_user_managers(&UserId::new(user).unwrap(), EndReason::Operator);
    assert_eq!(swept.cleaned, 1);
    client.ends_with(4002).await;
    server.is_empty_after(&[(EndReason::Operator, 1)]).await;
}

pub(crate) async fn a_peer_that_vanishes_is_freed(library: Library) {
    let server = Server::start(library).await;
    server.client().await.reset();
    server.client().await.shut_down().await;
    let mut client = server.client().await;
    client.send(&frame(FIN | TEXT, b"half a frame")[..5]).await;
    client.shut_down().await;
    server.is_empty_after(&[(EndReason::SocketError, 3)]).await;
}
