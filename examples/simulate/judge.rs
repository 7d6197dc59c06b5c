//! The judge: books of its own about what is open, and when each client last said or was told
//! something. It never asks the pool for what it can know itself.

use super::queue::{Millis, SECOND};
use std::collections::BTreeMap;
use std::time::Duration;
use ws_manager_pool::{Config, EndReason, Lease, ManagerKey, RunGuard};

/// A connection, as its task and the judge know it.
pub(crate) struct Connection {
    pub(crate) lease: Lease,
    pub(crate) user: u32,
    thread: u32,
    pub(crate) is_client_there: bool,
    /// The task never looks at its lease again.
    pub(crate) is_hung: bool,
    pub(crate) last_activity: Millis,
    /// The client's last frame, but for its answers to pings.
    pub(crate) last_frame: Millis,
    pub(crate) disconnected_at: Option<Millis>,
    pub(crate) errored_at: Option<Millis>,
    pub(crate) run: Option<Run>,
    /// When the last agent's run ended; 0 before.
    run_ended: Millis,
}

/// An agent at work; dropped, it has done.
pub(crate) struct Run {
    pub(crate) began: Millis,
    pub(crate) _guard: RunGuard,
}

/// What the server was doing when leases ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Doing {
    Opening {
        user: u32,
        thread: u32,
    },
    /// Looking after the pool, or cleaning up before a reservation.
    Cleaning,
}

/// What is open, and what was counted.
pub(crate) struct Books {
    pub(crate) now: Millis,
    /// By slot: the pool gives each slot to one connection at a time.
    connections: Vec<Option<Connection>>,
    /// Open connections and reservations of each user.
    places: Vec<u32>,
    /// Open connections of each user.
    live: Vec<u32>,
    pub(crate) open: usize,
    pub(crate) peak_live: usize,
    pub(crate) connections_made: u64,
    pub(crate) ends: BTreeMap<&'static str, u64>,
    pub(crate) limit_hits: u64,
    /// By user: was it refused, for its own limit, at least once?
    was_refused: Vec<bool>,
    pub(crate) other_refusals: u64,
    pub(crate) failed_opens: u64,
    pub(crate) forgotten_reservations: u64,
    pub(crate) late_closes: u64,
    pub(crate) messages: u64,
    pub(crate) undelivered: u64,
    pub(crate) wrong_cleanups: u64,
    /// The first of them, in words.
    pub(crate) first_wrong: Option<String>,
    law: Law,
}

/// How many connections there may be, and from when on one is dead.
struct Law {
    most_live: u32,
    /// `None`: never.
    idle_background: Option<Millis>,
    idle_proactive: Millis,
    errored_after: Millis,
    run_limit: Millis,
    /// Places of a user from which on it may be cleaned proactively: where warning begins, less the
    /// hysteresis, since a level that falls to warning cleans too.
    proactive_from: f64,
    /// From which on runs protect from nothing, if there is nobody else.
    critical_from: f64,
    round: Millis,
}

impl Connection {
    pub(crate) fn new(lease: Lease, user: u32, thread: u32, now: Millis) -> Self {
        Self {
            lease,
            user,
            thread,
            is_client_there: true,
            is_hung: false,
            last_activity: now,
            last_frame: now,
            disconnected_at: None,
            errored_at: None,
            run: None,
            run_ended: 0,
        }
    }

    pub(crate) fn end_run(&mut self, now: Millis) {
        self.run = None;
        self.run_ended = now;
    }

    /// A message from the client.
    pub(crate) fn heard(&mut self, now: Millis) {
        self.last_activity = now;
        self.last_frame = now;
    }
}

impl Books {
    pub(crate) fn new(config: &Config, users: u32) -> Self {
        let millis = |span: Duration| span.as_millis() as Millis;
        Self {
            now: 0,
            connections: Vec::new(),
            places: vec![0; users as usize],
            live: vec![0; users as usize],
            open: 0,
            peak_live: 0,
            connections_made: 0,
            ends: BTreeMap::new(),
            limit_hits: 0,
            was_refused: vec![false; users as usize],
            other_refusals: 0,
            failed_opens: 0,
            forgotten_reservations: 0,
            late_closes: 0,
            messages: 0,
            undelivered: 0,
            wrong_cleanups: 0,
            first_wrong: None,
            law: Law {
                most_live: config.max_managers_per_user as u32,
                idle_background: config.idle_background.map(millis),
                idle_proactive: millis(config.idle_proactive),
                errored_after: millis(config.errored_after),
                run_limit: millis(config.run_limit),
                proactive_from: config
                    .proactive_threshold
                    .min(config.level_warning - config.level_hysteresis)
                    * config.max_managers_per_user as f64,
                critical_from: (config.level_critical - config.level_hysteresis)
                    * config.max_managers_per_user as f64,
                round: millis(config.background_interval),
            },
        }
    }

    pub(crate) fn connection(&mut self, key: ManagerKey) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(key.index() as usize)?.as_mut()?;
        (connection.lease.key() == key).then_some(connection)
    }

    pub(crate) fn place_taken(&mut self, user: u32) {
        self.places[user as usize] += 1;
    }

    pub(crate) fn hit_limit(&mut self, user: u32) {
        self.limit_hits += 1;
        self.was_refused[user as usize] = true;
    }

    /// Users who were refused, for their own limit, at least once.
    pub(crate) fn users_refused(&self) -> usize {
        self.was_refused.iter().filter(|&&was_refused| was_refused).count()
    }

    pub(crate) fn place_left(&mut self, user: u32) {
        self.places[user as usize] -= 1;
    }

    pub(crate) fn opened(&mut self, connection: Connection) {
        self.connections_made += 1;
        self.open += 1;
        self.peak_live = self.peak_live.max(self.open);
        self.place_taken(connection.user);
        let live = &mut self.live[connection.user as usize];
        *live += 1;
        if *live > self.law.most_live {
            let what = format!("user {} has {live} connections", connection.user);
            self.wrong(what);
        }
        let slot = connection.lease.key().index() as usize;
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        if let Some(before) = self.connections[slot].replace(connection) {
            self.wrong(format!("a connection of user {} has lost its slot to another", before.user));
        }
    }

    /// The connection is over.
    pub(crate) fn take(&mut self, key: ManagerKey) -> Option<Connection> {
        self.connection(key)?;
        let connection = self.connections[key.index() as usize].take()?;
        self.open -= 1;
        self.place_left(connection.user);
        self.live[connection.user as usize] -= 1;
        Some(connection)
    }

    pub(crate) fn count_end(&mut self, reason: EndReason) {
        *self.ends.entry(reason.name()).or_default() += 1;
    }

    pub(crate) fn delivered(&mut self, messages: u64, is_delivered: bool) {
        *if is_delivered { &mut self.messages } else { &mut self.undelivered } += messages;
    }

    /// Connections whose client is really there.
    pub(crate) fn with_client(&self) -> Vec<ManagerKey> {
        let open = self.connections.iter().flatten();
        open.filter(|connection| connection.is_client_there)
            .map(|connection| connection.lease.key())
            .collect()
    }

    /// Dead connections that a whole background round, and a turn of maintenance, have not found.
    pub(crate) fn overdue(&self) -> usize {
        let found_by = |connection: &Connection| self.law.due_at(connection) + self.law.round + 2 * SECOND;
        self.connections.iter().flatten().filter(|connection| found_by(connection) < self.now).count()
    }

    /// Was it right to end this one? Only what was dead, or was taken over by its own thread.
    pub(crate) fn judge(&mut self, key: ManagerKey, reason: EndReason, doing: Doing) {
        let Some(connection) = self.connection(key) else {
            return self.wrong(format!("something ended that was not open, as {:?}", reason.name()));
        };
        let (user, is_good) = (connection.user, connection.lease.is_live());
        let (now, law) = (self.now, &self.law);
        let places = f64::from(self.places[user as usize]);
        let Some(Some(connection)) = self.connections.get(key.index() as usize) else { return };
        let silent = now - connection.last_activity;
        let is_proactive = places + 1e-9 >= law.proactive_from;
        let idle = if is_proactive { Some(law.idle_proactive) } else { law.idle_background };
        let is_protected = now < law.protected_until(connection) && places < law.critical_from;
        let is_right = match (reason, doing) {
            (EndReason::Takeover, Doing::Opening { user, thread }) => {
                (connection.user, connection.thread) == (user, thread)
            }
            (EndReason::Disconnected, _) => connection.disconnected_at.is_some() && !is_protected,
            (EndReason::Errored, _) => {
                connection.errored_at.is_some_and(|at| now - at >= law.errored_after) && !is_protected
            }
            (EndReason::Idle, _) => idle.is_some_and(|idle| silent >= idle) && !is_protected,
            _ => false,
        };
        if !is_right || is_good {
            let run = if is_protected { ", in an agent's run" } else { "" };
            self.wrong(format!(
                "user {user} with {places} places lost a connection as {:?}, silent for {} s{run}",
                reason.name(),
                silent / SECOND
            ));
        }
    }

    pub(crate) fn wrong(&mut self, what: String) {
        self.wrong_cleanups += 1;
        let now = self.now;
        self.first_wrong.get_or_insert_with(|| format!("after {} s: {what}", now / SECOND));
    }
}

impl Law {
    /// When a background round may take it, if nothing more happens to it.
    fn due_at(&self, connection: &Connection) -> Millis {
        let idle = self.idle_background.map(|idle| connection.last_activity + idle);
        let errored = connection.errored_at.map(|at| at + self.errored_after);
        let first = [connection.disconnected_at, errored, idle].into_iter().flatten().min();
        first.map_or(Millis::MAX / 2, |due| due.max(self.protected_until(connection)))
    }

    /// Until when an agent's run protects it, or did.
    fn protected_until(&self, connection: &Connection) -> Millis {
        connection.run.as_ref().map_or(connection.run_ended, |run| run.began + self.run_limit)
    }
}
