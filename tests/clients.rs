//! The WebSocket clients that people have, against the chat server as a process: Rust's
//! tokio-tungstenite, Python's `websockets`, Node's `ws`, Chromium's own, and the chat page in Chromium.
//!
//! `.ci/clients` installs what is not Rust. Without it those tests are skipped, and say so; with
//! `CI_CLIENTS=1` they fail.

#![cfg(unix)]

#[path = "clients/driver.rs"]
mod driver;
#[path = "clients/operator.rs"]
mod operator;
#[path = "clients/page.rs"]
mod page;
#[path = "clients/rust.rs"]
mod rust;
#[path = "clients/scenarios.rs"]
mod scenarios;
#[path = "clients/server.rs"]
mod server;
#[path = "clients/tools.rs"]
mod tools;

use driver::{Client, Kind};

/// A test for each client of each scenario.
macro_rules! clients {
    ($($client:ident $kind:ident: [$($room:ident::$scenario:ident),* $(,)?])*) => {
        $(mod $client {
            use super::*;

            $(#[tokio::test]
            async fn $scenario() {
                if let Some(mut client) = Client::start(Kind::$kind) {
                    $room::$scenario(&mut client).await;
                    client.end().await;
                }
            })*
        })*
    };
}

/// With what every client can do, and what only some can.
macro_rules! all_clients {
    ($($client:ident $kind:ident: [$($more:ident),*])*) => {
        clients! {
            $($client $kind: [
                scenarios::any_text_comes_back_as_it_was,
                scenarios::two_users_of_any_script_write_to_each_other,
                scenarios::tabs_of_a_thread_hear_each_other_in_order,
                scenarios::a_binary_message_is_refused_and_the_chat_goes_on,
                scenarios::a_megabyte_arrives_and_more_than_the_limit_is_1009,
                scenarios::a_client_that_closes_hears_its_own_code,
                scenarios::a_takeover_is_4001_and_says_so,
                scenarios::a_full_user_is_refused_with_a_reason_and_comes_in_later,
                scenarios::a_lost_client_comes_back_on_the_same_thread,
                scenarios::a_drain_is_1001,
                operator::an_operators_eviction_is_4002_and_says_so,
                $(scenarios::$more),*
            ])*
        }
    };
}

all_clients! {
    tungstenite Rust: [a_ping_is_answered, a_fragmented_text_arrives_whole]
    python Python: [a_ping_is_answered, a_fragmented_text_arrives_whole]
    node Node: [a_ping_is_answered, a_fragmented_text_arrives_whole]
    // A page's WebSocket has neither.
    chromium Chromium: []
}
