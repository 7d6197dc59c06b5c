//! A day of traffic in seconds: users by the thousand who come and go in virtual time, over the real
//! pool.
//!
//! `habits` has the numbers that make a day, `traffic` the users, `server` the pool and the tasks that
//! own its leases, `judge` what is right, `outcome` what is told. One thread, one stream of chance for
//! each user: a seed gives the same day each time.

mod chance;
mod habits;
mod judge;
mod outcome;
mod queue;
mod server;
mod traffic;
mod witness;

pub(crate) use habits::FIRST_HOUR;
pub(crate) use outcome::{Moment, Outcome, Swept, name};

use queue::{HOUR, MINUTE, Millis, SECOND};
use server::Server;
use std::time::Duration;
use traffic::Traffic;
use ws_manager_pool::{Clock, Config, Environment};

/// What to simulate.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) hours: u32,
    pub(crate) users: u32,
    pub(crate) seed: u64,
    pub(crate) clients: Clients,
    pub(crate) cleaning: Cleaning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    /// They close, or the server's heartbeats find out that they are gone.
    Ordinary,
    /// A tenth of them vanishes all the time without closing, each time under a new thread; and the
    /// server has no heartbeats.
    Leaky,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cleaning {
    /// The pool's defaults.
    All,
    /// Nothing acts ahead of the background round.
    BackgroundOnly,
}

impl Plan {
    fn config(&self) -> Config {
        let mut config = Config::preset(Environment::Production);
        // As production has for 10,000. Users come to their limits here, the pool does not.
        config.capacity = (10 * self.users as usize).max(1_000);
        if self.cleaning == Cleaning::BackgroundOnly {
            // What still runs at the limit itself finds no more than the round would.
            let idle = config.idle_background.unwrap_or(Duration::MAX);
            (config.idle_proactive, config.idle_emergency) = (idle, idle);
            config.proactive_threshold = 1.0;
            config.level_hysteresis = 0.0;
            (config.level_info, config.level_warning) = (0.997, 0.998);
            (config.level_critical, config.level_emergency) = (0.999, 1.0);
        }
        config
    }
}

/// Simulates, and tells `progress` of each simulated hour.
pub(crate) fn run(plan: &Plan, mut progress: impl FnMut(u32, &Outcome)) -> Outcome {
    let wall = Clock::system();
    let started = wall.now();
    let config = plan.config();
    let end = Millis::from(plan.hours) * HOUR;
    // Whatever has been left behind is due by then, and a round has passed.
    let longest = config.idle_background.unwrap_or_default().max(config.errored_after);
    let calm = (longest + 2 * config.background_interval).as_secs() * SECOND;

    let is_leaky = plan.clients == Clients::Leaky;
    let server = Server::new(config, plan.users);
    let mut traffic = Traffic::new(server, plan.users, plan.seed, end, is_leaky);
    let mut outcome = Outcome::new(plan);
    for now in (SECOND..=end + calm).step_by(SECOND as usize) {
        traffic.is_calm = now > end;
        traffic.run_until(now);
        if now.is_multiple_of(MINUTE) {
            let users = traffic.users_here();
            let (snapshot, is_balanced) = traffic.server.audit();
            outcome.note_minute(&snapshot, is_balanced, users, &traffic.server.books);
        }
        if now.is_multiple_of(HOUR) {
            progress((now / HOUR) as u32, &outcome);
        }
    }
    let (snapshot, _) = traffic.server.audit();
    let connected = traffic.server.books.with_client().len();
    traffic.close_all();
    let (left, is_balanced) = traffic.server.audit();
    outcome.finish(&traffic, snapshot.live.abs_diff(connected), &left, is_balanced);
    outcome.wall = wall.now().since(started);
    outcome
}
