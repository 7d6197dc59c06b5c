//! "Why was I closed?": the last ends, as `/pool` lists them and `/why` tells them of one user.

use serde::Serialize;
use ws_manager_pool::{End, Pool, Timestamp, UserCheck, UserId};

/// How a connection ended, for somebody who does not have the pool's clock.
#[derive(Serialize)]
pub(crate) struct Ending {
    #[serde(flatten)]
    end: End,
    close_code: u16,
    /// The reason in words.
    text: &'static str,
    ended_ms_ago: u64,
    /// How long it had been open.
    age_ms: u64,
}

impl Ending {
    fn of(end: End, now: Timestamp) -> Self {
        Self {
            close_code: end.reason.close_code(),
            text: end.reason.as_str(),
            ended_ms_ago: now.since(end.ended_at).as_millis() as u64,
            age_ms: end.ended_at.since(end.opened_at).as_millis() as u64,
            end,
        }
    }
}

/// The pool's last ends, the latest first.
pub(crate) fn last_ends(pool: &Pool, limit: usize) -> Vec<Ending> {
    told(pool, pool.last_ends(limit))
}

/// How full a user is, and how that user's last connections ended, the latest first.
#[derive(Serialize)]
pub(crate) struct Why {
    #[serde(flatten)]
    check: UserCheck,
    last_ends: Vec<Ending>,
}

impl Why {
    pub(crate) fn of(pool: &Pool, user: &UserId) -> Self {
        Self { check: pool.check_user(user), last_ends: told(pool, pool.last_ends_of(user)) }
    }
}

fn told(pool: &Pool, ends: Vec<End>) -> Vec<Ending> {
    let now = pool.clock().now();
    ends.into_iter().map(|end| Ending::of(end, now)).collect()
}
