//! Delivery: messages reach exactly the connections that they are meant for, in order, within bounds.
//!
//! `DELIVERY_TIMES=5` makes the soaks so many times as long; `--nocapture` shows what they counted.

// Open sockets are counted in /proc.
#![cfg(target_os = "linux")]

mod addresses;
#[path = "../common/mod.rs"]
mod common;
mod golden_path;
mod letter;
mod log;
mod net;
mod overflow;
mod queues;
mod quiet;
mod slow;
mod soak;
#[path = "../source/mod.rs"]
mod source;

use common::{assert_counts, builder, context};
use ws_manager_pool::{IsolationKey, UserExecutionContext, UserId};

fn user_id(user: usize) -> UserId {
    UserId::new(format!("user{user}")).expect("a valid user id")
}

fn isolation_key(user: usize, thread: usize) -> IsolationKey {
    context(&format!("user{user}"), &*format!("thread_{thread}")).isolation_key()
}

/// The numbers of user and thread that [`isolation_key`] was made of.
fn numbers_of(context: &UserExecutionContext) -> (usize, usize) {
    let number = |text: String, prefix: &str| {
        text.strip_prefix(prefix).and_then(|number| number.parse().ok()).expect("a number")
    };
    (number(context.user_id().to_string(), "user"), number(context.thread_id().to_string(), "thread_"))
}
