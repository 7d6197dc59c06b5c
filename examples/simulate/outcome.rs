//! What came of it, in figures.

use super::judge::Books;
use super::traffic::Traffic;
use super::{Cleaning, Clients, Plan};
use serde_json::{Map, Value, json};
use std::time::Duration;
use ws_manager_pool::{AlertLevel, CleanupMetrics, Operation, PoolSnapshot};

/// The picture has about so many points, however long the day is.
const MOMENTS: u32 = 288;

/// The figures of a simulation.
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) counts: Counts,
    /// Live managers without a client, after the last minutes, in which nothing failed any more.
    pub(crate) accumulated_at_end: usize,
    /// Whatever the pool held after every client had closed.
    pub(crate) left_after_closing: usize,
    pub(crate) unbalanced_minutes: u64,
    pub(crate) minutes: u64,
    /// Dead connections that a whole background round had not found, added up over the minutes.
    pub(crate) overdue: usize,
    pub(crate) peak_users: usize,
    pub(crate) peak_at_level: [usize; 5],
    /// Users who rose to each level.
    pub(crate) alerts: [u64; 5],
    pub(crate) sweeps: [Swept; Operation::ALL.len()],
    pub(crate) outages: u64,
    /// Reservations that the pool took back.
    pub(crate) expired: u64,
    pub(crate) users_refused: usize,
    /// Users who were refused for the first time in a row.
    pub(crate) lockouts: u64,
    pub(crate) moments: Vec<Moment>,
    pub(crate) wall: Duration,
}

/// What the server's books have at the end.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    pub(crate) connections: u64,
    pub(crate) peak_live: usize,
    pub(crate) ends: Vec<(&'static str, u64)>,
    pub(crate) limit_hits: u64,
    pub(crate) other_refusals: u64,
    pub(crate) failed_opens: u64,
    pub(crate) forgotten_reservations: u64,
    pub(crate) late_closes: u64,
    pub(crate) messages: u64,
    pub(crate) undelivered: u64,
    pub(crate) wrong_cleanups: u64,
    pub(crate) first_wrong: Option<String>,
}

/// What an operation has done so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Swept {
    pub(crate) runs: u64,
    pub(crate) attempts: u64,
    pub(crate) cleaned: u64,
}

/// A point of the picture. Counts are those since the start.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) minute: u64,
    pub(crate) live: usize,
    pub(crate) users_at_level: [usize; 5],
    pub(crate) sweeps: [Swept; Operation::ALL.len()],
    pub(crate) limit_hits: u64,
    pub(crate) other_refusals: u64,
}

impl Outcome {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            counts: Counts::default(),
            accumulated_at_end: 0,
            left_after_closing: 0,
            unbalanced_minutes: 0,
            minutes: 0,
            overdue: 0,
            peak_users: 0,
            peak_at_level: [0; 5],
            alerts: [0; 5],
            sweeps: Default::default(),
            outages: 0,
            expired: 0,
            users_refused: 0,
            lockouts: 0,
            moments: Vec::new(),
            wall: Duration::ZERO,
        }
    }

    pub(crate) fn accumulated(&self) -> usize {
        self.accumulated_at_end + self.left_after_closing
    }

    pub(crate) fn ended_as(&self, reason: &str) -> u64 {
        self.counts.ends.iter().find(|(name, _)| *name == reason).map_or(0, |(_, ended)| *ended)
    }

    /// What must never happen, and did.
    pub(crate) fn failures(&self) -> Vec<String> {
        let counts = &self.counts;
        let mut failures = Vec::new();
        if self.accumulated() > 0 {
            failures.push(format!(
                "{} managers accumulated: {} without a client at the end, {} left after closing",
                self.accumulated(),
                self.accumulated_at_end,
                self.left_after_closing
            ));
        }
        if self.overdue > 0 {
            failures.push(format!("{} times a dead connection outlived a background round", self.overdue));
        }
        if self.unbalanced_minutes > 0 {
            failures.push(format!("{} of {} minutes unbalanced", self.unbalanced_minutes, self.minutes));
        }
        if counts.wrong_cleanups > 0 {
            let first = counts.first_wrong.as_deref().unwrap_or_default();
            failures.push(format!("{} wrong clean-ups; the first: {first}", counts.wrong_cleanups));
        }
        if self.plan.clients == Clients::Ordinary && counts.limit_hits > 0 {
            failures.push(format!("{} limit hits on a normal day", counts.limit_hits));
        }
        if counts.undelivered > 0 {
            failures.push(format!("{} messages undelivered", counts.undelivered));
        }
        failures
    }

    /// One object. Only what ends in `_seconds` may differ between two runs of a plan.
    pub(crate) fn to_json(&self) -> Value {
        let counts = &self.counts;
        let ends: Map<String, Value> =
            counts.ends.iter().map(|&(reason, ended)| (reason.to_owned(), ended.into())).collect();
        let by_level = |figures: &[usize]| -> Map<String, Value> {
            AlertLevel::ALL
                .iter()
                .zip(figures)
                .map(|(level, &users)| (level.to_string(), users.into()))
                .collect()
        };
        let alerts = self.alerts.map(|users| users as usize);
        let sweeps: Map<String, Value> = Operation::ALL
            .iter()
            .zip(self.sweeps)
            .map(|(operation, swept)| {
                let Swept { runs, attempts, cleaned } = swept;
                (name(*operation).to_owned(), json!({"runs": runs, "attempts": attempts, "cleaned": cleaned}))
            })
            .collect();
        json!({
            "hours": self.plan.hours,
            "users": self.plan.users,
            "seed": self.plan.seed,
            "leaky_clients": self.plan.clients == Clients::Leaky,
            "proactive_cleaning": self.plan.cleaning == Cleaning::All,
            "connections": counts.connections,
            "messages": counts.messages,
            "undelivered": counts.undelivered,
            "accumulated": self.accumulated(),
            "accumulated_at_end": self.accumulated_at_end,
            "left_after_closing": self.left_after_closing,
            "overdue": self.overdue,
            "minutes": self.minutes,
            "unbalanced_minutes": self.unbalanced_minutes,
            "wrong_cleanups": counts.wrong_cleanups,
            "limit_hits": counts.limit_hits,
            "lockouts": self.lockouts,
            "users_refused": self.users_refused,
            "other_refusals": counts.other_refusals,
            "failed_opens": counts.failed_opens,
            "takeovers": self.ended_as("takeover"),
            "ends": ends,
            "late_closes": counts.late_closes,
            "forgotten_reservations": counts.forgotten_reservations,
            "expired_reservations": self.expired,
            "sweeps": sweeps,
            "peak_live": counts.peak_live,
            "peak_users": self.peak_users,
            "peak_users_by_level": by_level(&self.peak_at_level),
            "alerts_by_level": by_level(&alerts),
            "outages": self.outages,
            "wall_seconds": self.wall.as_secs_f64(),
        })
    }

    pub(super) fn note_minute(
        &mut self,
        snapshot: &PoolSnapshot,
        is_balanced: bool,
        users_here: usize,
        books: &Books,
    ) {
        self.minutes += 1;
        self.unbalanced_minutes += u64::from(!is_balanced);
        self.overdue += books.overdue();
        self.peak_users = self.peak_users.max(users_here);
        let users_at_level =
            AlertLevel::ALL.map(|level| snapshot.users_by_level.get(&level).copied().unwrap_or_default());
        for (peak, users) in self.peak_at_level.iter_mut().zip(users_at_level) {
            *peak = (*peak).max(users);
        }
        let between = u64::from((self.plan.hours * 60).div_ceil(MOMENTS));
        if self.minutes.is_multiple_of(between) {
            self.moments.push(Moment {
                minute: self.minutes,
                live: snapshot.live,
                users_at_level,
                sweeps: swept(&snapshot.cleanups),
                limit_hits: books.limit_hits,
                other_refusals: books.other_refusals,
            });
        }
        self.counts = Counts::of(books);
    }

    pub(super) fn finish(
        &mut self,
        traffic: &Traffic,
        accumulated: usize,
        left: &PoolSnapshot,
        is_balanced: bool,
    ) {
        let ledger = &left.ledger;
        self.accumulated_at_end = accumulated;
        self.left_after_closing =
            ledger.occupied_slots.max(ledger.users_sum).max(ledger.isolation_keys).max(left.users);
        self.unbalanced_minutes += u64::from(!is_balanced);
        self.counts = Counts::of(&traffic.server.books);
        self.sweeps = swept(&left.cleanups);
        self.alerts = traffic.server.alerts();
        self.expired = ledger.tally.expired;
        self.users_refused = traffic.server.books.users_refused();
        self.outages = traffic.outages_seen;
        self.lockouts = traffic.lockouts;
    }
}

/// As in the JSON.
pub(crate) fn name(operation: Operation) -> &'static str {
    match operation {
        Operation::Proactive => "proactive",
        Operation::Emergency => "emergency",
        Operation::Background => "background",
        Operation::Operator => "operator",
    }
}

fn swept(cleanups: &[CleanupMetrics]) -> [Swept; Operation::ALL.len()] {
    Operation::ALL.map(|operation| {
        let its = cleanups.iter().find(|metrics| metrics.operation == operation);
        its.map_or(Swept::default(), |metrics| Swept {
            runs: metrics.runs,
            attempts: metrics.attempts,
            cleaned: metrics.successes,
        })
    })
}

impl Counts {
    fn of(books: &Books) -> Self {
        Self {
            connections: books.connections_made,
            peak_live: books.peak_live,
            ends: books.ends.iter().map(|(&reason, &ended)| (reason, ended)).collect(),
            limit_hits: books.limit_hits,
            other_refusals: books.other_refusals,
            failed_opens: books.failed_opens,
            forgotten_reservations: books.forgotten_reservations,
            late_closes: books.late_closes,
            messages: books.messages,
            undelivered: books.undelivered,
            wrong_cleanups: books.wrong_cleanups,
            first_wrong: books.first_wrong.clone(),
        }
    }
}
