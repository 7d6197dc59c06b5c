//! One task for each pool keeps the time for all its connections: it walks the slots, wakes the
//! owners whose ping or deadline is due, and does the pool's housekeeping about once a second.
//!
//! The first `serve` starts it, on its own runtime; when that runtime ends, a connection on another
//! one takes over. It holds the pool weakly and ends with it.
//!
//! A runtime that has the keeper and is neither driven nor dropped (a `block_on` that has returned)
//! stops the clock for the pool's connections on other runtimes.

use crate::config::Config;
use crate::manager::Session;
use crate::pool::{Keeper, Tie};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Starts the pool's keeper if it has none.
#[inline]
pub(super) fn ensure<S: Session>(tie: &Tie<S>) {
    if let Some(keeper) = tie.become_keeper() {
        tokio::spawn(keep(keeper));
    }
}

async fn keep<S: Session>(mut keeper: Keeper<S>) {
    let Some(config) = keeper.config() else { return };
    let tick = tick(&config);
    let turns_to_housekeeping = HOUSEKEEPING.as_millis().div_ceil(tick.as_millis());
    let mut ticks = interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = 0;
    loop {
        ticks.tick().await;
        turn += 1;
        if !keeper.turn(turn % turns_to_housekeeping == 0) {
            return;
        }
    }
}

/// A quarter of the shortest time that is being kept, so that no deadline is missed by more.
fn tick(config: &Config) -> Duration {
    let shortest = config.heartbeat_interval.min(config.heartbeat_timeout).min(config.reservation_deadline);
    (shortest / 4).clamp(Duration::from_millis(10), HOUSEKEEPING)
}
