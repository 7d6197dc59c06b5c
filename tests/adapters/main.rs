//! What every adapter must get right, whichever library is behind it: over real sockets, with raw bytes
//! on the client's side. The connections are let in as `examples/echo_server.rs` does it, and for Actix
//! as `examples/actix.rs` does.

#[path = "actix.rs"]
mod actix_door;
#[path = "client.rs"]
mod client;
#[path = "../../examples/echo_server/doors.rs"]
mod doors;
#[path = "promises.rs"]
mod promises;
#[path = "server.rs"]
mod server;
#[path = "../../examples/echo_server/talk.rs"]
mod talk;

use server::Library;

/// The promises, for one library after the other.
macro_rules! promises {
    ($($library:ident: $value:expr,)*) => {
        $(mod $library {
            use super::*;

            promises!(@each $value =>
                what_is_said_is_echoed_in_its_kind_however_it_is_cut,
                a_ping_is_answered_once_with_what_it_carried,
                a_reader_that_was_slow_misses_nothing_and_nothing_is_mixed_up,
                a_ping_is_answered_behind_a_message_that_is_half_written,
                too_much_is_closed_with_1009,
                text_that_is_not_utf8_is_closed_with_1007,
                a_broken_protocol_is_closed_with_1002,
                what_the_public_suite_does_not_send_is_refused_as_well,
                a_close_is_answered_once_with_its_code,
                an_evicted_peer_is_told_why_and_the_socket_ends,
                a_peer_that_vanishes_is_freed,
            );
        })*
    };
    (@each $value:expr => $($promise:ident,)*) => {
        $(#[tokio::test]
        async fn $promise() {
            promises::$promise($value).await;
        })*
    };
}

promises! {
    axum: Library::Axum,
    tungstenite: Library::Tungstenite,
    tokio_websockets: Library::TokioWebsockets,
    fastwebsockets: Library::Fastwebsockets,
    generic: Library::Generic,
    actix: Library::Actix,
    lean_tungstenite: Library::LeanTungstenite,
    lean_axum: Library::LeanAxum,
    own: Library::Own,
    own_under_axum: Library::OwnUnderAxum,
}
