//! What `/pool` shows: the pool's figures, and beside them what the kernel says to that.

use crate::ends::{Ending, last_ends};
use crate::kernel::UpgradedSockets;
use serde::Serialize;
use std::io;
use std::time::Duration;
use tokio::time::sleep;
use ws_manager_pool::{ManagerSnapshot, Pool, PoolSnapshot};

/// Managers that are shown one by one.
const MANAGERS: usize = 100;

/// Ends that are shown.
const ENDS: usize = 20;

/// Looks for a moment in which nothing moves.
const TURNS: usize = 5;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Serialize)]
pub(crate) struct Figures {
    #[serde(flatten)]
    pool: PoolSnapshot,
    #[serde(flatten)]
    cross_check: CrossCheck,
    managers: Vec<ManagerSnapshot>,
    last_ends: Vec<Ending>,
}

impl Figures {
    pub(crate) async fn read(pool: &Pool, sockets: &UpgradedSockets) -> Self {
        let (figures, cross_check) = cross_check(pool, sockets).await;
        let (managers, last_ends) = (pool.managers(MANAGERS), last_ends(pool, ENDS));
        Self { pool: figures, cross_check, managers, last_ends }
    }
}

/// The pool's live leases against the kernel's upgraded sockets.
///
/// A lease that outlives its socket is a leak: a manager is free before its socket is closed. The
/// other way round there is a moment of grace. The lease ends first, then the server says goodbye on
/// the socket, and its peer has the pool's `close_timeout` to answer. The pool counts such a connection
/// as *served*, but not as *live*, and it is the live ones that are compared here. So a peer that does
/// not answer makes a difference for that long; one that stays for longer is a socket that leaked.
///
/// No lease and no note: a connection whose lease was ended before its first turn. It is told why,
/// and closed.
#[derive(Serialize)]
struct CrossCheck {
    /// `None`: the kernel does not tell.
    kernel_sockets: Option<usize>,
    /// `None`: not known.
    kernel_agrees: Option<bool>,
    /// Why it is not known, or what the difference may be.
    kernel_sockets_note: Option<String>,
}

/// Reads the pool, the kernel's count and the pool again, until nothing has moved in between and both
/// agree, but only a few times.
async fn cross_check(pool: &Pool, sockets: &UpgradedSockets) -> (PoolSnapshot, CrossCheck) {
    let mut before = pool.snapshot();
    for _ in 1..TURNS {
        let (after, check) = look(pool, &before, sockets.count().await);
        if check.is_final() {
            return (after, check);
        }
        before = after;
        sleep(PAUSE).await;
    }
    look(pool, &before, sockets.count().await)
}

fn look(pool: &Pool, before: &PoolSnapshot, counted: io::Result<usize>) -> (PoolSnapshot, CrossCheck) {
    let after = pool.snapshot();
    // Equal numbers of live leases would not do: one may have ended and another begun.
    let moves = |snapshot: &PoolSnapshot| (snapshot.ledger.tally.opened, snapshot.ledger.tally.ended);
    let check = match counted {
        Err(error) => CrossCheck::unknown(None, error.to_string()),
        Ok(sockets) if moves(before) != moves(&after) => {
            CrossCheck::unknown(Some(sockets), "connections came and went all the while".to_owned())
        }
        Ok(sockets) => CrossCheck::of(after.live, sockets, pool.config().close_timeout),
    };
    (after, check)
}

impl CrossCheck {
    fn unknown(kernel_sockets: Option<usize>, why: String) -> Self {
        Self { kernel_sockets, kernel_agrees: None, kernel_sockets_note: Some(why) }
    }

    fn of(live: usize, sockets: usize, close_timeout: Duration) -> Self {
        let note = if sockets > live {
            let seconds = close_timeout.as_secs_f32();
            Some(format!("{} more than leases, as during a goodbye (up to {seconds} s)", sockets - live))
        } else if sockets < live {
            Some(format!("{} fewer than leases, which have outlived them", live - sockets))
        } else {
            None
        };
        Self {
            kernel_sockets: Some(sockets),
            kernel_agrees: Some(sockets == live),
            kernel_sockets_note: note,
        }
    }

    /// Another look would not say more.
    fn is_final(&self) -> bool {
        self.kernel_agrees == Some(true) || self.kernel_sockets.is_none()
    }
}
