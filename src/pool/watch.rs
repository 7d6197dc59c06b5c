//! The monitor at work: takes the samples, tells those who observe, and cleans as `control` decides.

use super::Pool;
use super::core::Core;
use super::limits::forcing_rank;
use super::observer::Alert;
use super::registry::{Hash32, UserEntry, UserRef, UserRules};
use super::sweep::{Job, Operation, Scope, SweepReport};
use crate::clock::Timestamp;
use crate::config::{AtLimit, Config};
use crate::control::{Action, AlertLevel, Change, Load, Rules, Strategy, Watch};
use crate::id::{UserExecutionContext, UserId};
use crate::manager::{PooledWebSocketManager, Session};
use crate::reason::EndReason;
use crate::slab::{Cursor, Key};
use std::time::Duration;

/// How full a user is.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct UserCheck {
    /// The user.
    pub user_id: UserId,
    /// Managers, reserved and live.
    pub manager_count: usize,
    /// The share of the maximum.
    pub usage_ratio: f64,
    /// The level: what the monitor saw last, moved on by this look.
    pub alert_level: AlertLevel,
    /// Managers that the user may have.
    pub max_managers: usize,
}

impl<S: Session> Pool<S> {
    /// How full a user is. Changes nothing: the monitor's own samples do.
    pub fn check_user(&self, user: &UserId) -> UserCheck {
        let core = &*self.handle;
        let config = core.settings.load();
        let hash = core.registry.hash(user);
        let shard = core.registry.section(hash);
        let max = shard.rules(hash, user).max_managers.unwrap_or(config.max_managers_per_user);
        let entry = shard.user(hash, user);
        let load = Load { count: entry.map_or(0, UserEntry::count), max };
        let mut watch = entry.map_or(Watch::default(), UserEntry::watch);
        drop(shard);
        watch.sample(load, &config);
        UserCheck {
            user_id: user.clone(),
            manager_count: load.count,
            usage_ratio: load.ratio(),
            alert_level: watch.level,
            max_managers: max,
        }
    }

    /// Ends the `n` oldest managers of a scope, by an operator's hand: those in an agent's run last.
    pub fn evict_oldest(&self, scope: Scope<'_>, n: usize) -> SweepReport {
        self.handle.force_out(scope, AtLimit::EvictOldest, EndReason::Operator, |live| n.min(live))
    }

    /// Ends the oldest managers of a scope, by an operator's hand, until `n` are left: those in an
    /// agent's run last.
    pub fn shrink_to(&self, scope: Scope<'_>, n: usize) -> SweepReport {
        let wanted = |live: usize| live.saturating_sub(n);
        self.handle.force_out(scope, AtLimit::EvictOldest, EndReason::Operator, wanted)
    }
}

/// Slots that a listing looks at under one epoch guard.
const BATCH: usize = 4_096;

/// A sample of a user, and what it calls for.
struct Sampled {
    load: Load,
    change: Option<Change>,
    action: Action,
    at: At,
}

/// When a sample is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before a reservation.
    Reserve,
    /// At its regular time.
    Sample,
}

/// One clean for a user at a time: ends with the guard.
struct CleaningUser<'a, S: Session> {
    core: &'a Core<S>,
    user: UserRef,
    /// When the next one is worth its while.
    next_look: Timestamp,
}

impl<S: Session> Drop for CleaningUser<'_, S> {
    fn drop(&mut self) {
        if let Some(entry) = self.core.registry.section(self.user.hash).holder(self.user) {
            entry.is_cleaning = false;
            entry.look_at(self.next_look);
        }
    }
}

impl<S: Session> Core<S> {
    /// A reservation is coming, with nothing locked: from the proactive threshold on, the user's dead go
    /// first.
    pub(super) fn clean_if_due(&self, context: &UserExecutionContext) {
        let user = context.user_id();
        let hash = self.registry.hash(user);
        let config = self.settings.load_full();
        let shard = self.registry.section(hash);
        let needs_clean = shard.user(hash, user).is_some_and(|entry| {
            let load = load_of(entry, shard.rules(hash, user), &config);
            let now = self.clock.now();
            // Of a domain another pool, or another user, may hold the rest.
            let is_in_domain = self.attached.quotas.is_some();
            entry.needs_clean(load, now, &config) || (is_in_domain && entry.may_have_dead(now))
        });
        drop(shard);
        if needs_clean {
            self.clean_before_reserve(hash, user);
        }
    }

    /// A manager of the user may have become dead by its own state, or by the end of a run.
    pub(super) fn may_be_due(&self, user: UserRef) {
        if let Some(entry) = self.registry.section(user.hash).holder(user) {
            entry.may_be_due = true;
        }
    }

    /// The same for a user who may be gone.
    pub(super) fn user_may_be_due(&self, hash: Hash32, user: &UserId) {
        if let Some(entry) = self.registry.section(hash).user_mut(hash, user) {
            entry.may_be_due = true;
        }
    }

    /// Cleans a user who is over the proactive threshold, and takes a sample of it. A look that finds
    /// nothing is no clean: it is in no book.
    pub(super) fn clean_before_reserve(&self, hash: Hash32, user: &UserId) {
        let now = self.clock.now();
        self.clean_proactively(hash, user, now);
        let config = self.settings.load_full();
        let mut shard = self.registry.section(hash);
        let rules = shard.rules(hash, user);
        let Some(entry) = shard.user_mut(hash, user) else { return };
        let load = load_of(entry, rules, &config);
        let (change, action) = entry.sample(load, &config);
        drop(shard);
        self.act(hash, user, Sampled { load, change, action, at: At::Reserve }, now, &config);
    }

    /// Takes a sample of every user, and of the pool.
    pub(super) fn sample(&self, pool: &mut Watch, now: Timestamp) -> Vec<SweepReport> {
        let config = self.settings.load_full();
        let mut sampled = Vec::new();
        let mut departed = Vec::new();
        self.registry.for_each_shard(|shard| {
            departed.append(&mut shard.take_departed());
            shard.for_each_user(|entry, rules| {
                let load = load_of(entry, rules, &config);
                let (change, action) = entry.sample(load, &config);
                if change.is_some() || action != Action::Nothing {
                    let sample = Sampled { load, change, action, at: At::Sample };
                    sampled.push((entry.user_ref().hash, entry.user.clone(), sample));
                }
            });
        });
        // In an order that does not depend on the tables' hasher, so that a run can be repeated.
        departed.sort_by(|one, other| one.user.cmp(&other.user));
        sampled.sort_by(|(_, one, _), (_, other, _)| one.cmp(other));
        for gone in departed {
            let change = Change { from: gone.level, to: AlertLevel::Normal };
            self.alert(Some(gone.user), change, Load { count: 0, max: gone.max_managers });
        }
        for (hash, user, sample) in sampled {
            self.act(hash, &user, sample, now, &config);
        }
        self.sample_pool(pool, now, &config)
    }

    /// The pool as a whole has the same levels. They clean the dead and never end what is active.
    fn sample_pool(&self, watch: &mut Watch, now: Timestamp, config: &Config) -> Vec<SweepReport> {
        let load = Load { count: self.slab.occupied(), max: config.capacity };
        let (change, action) = watch.sample(load, config);
        if let Some(change) = change {
            self.alert(None, change, load);
        }
        let (operation, rules) = match action {
            Action::Nothing => return Vec::new(),
            Action::Proactive => (Operation::Proactive, Rules::proactive(config)),
            Action::Emergency | Action::EmergencyThenShrink { .. } => {
                self.log.emergency_begins(None);
                (Operation::Emergency, Rules::emergency(config))
            }
        };
        let stopwatch = self.clock.stopwatch();
        let job = Job::dead(operation, rules, now, &stopwatch, config.emergency_budget);
        let report = self.sweep_pool(Cursor::default(), &job, None);
        if operation == Operation::Emergency {
            self.log.emergency_attempted(None, 1, &report, report.took);
        }
        self.note_sweep(&report, now);
        vec![report]
    }

    /// Tells of a change, and does what is to be done.
    fn act(&self, hash: Hash32, user: &UserId, sample: Sampled, now: Timestamp, config: &Config) {
        if let Some(change) = sample.change {
            self.alert(Some(user.clone()), change, sample.load);
        }
        let shrink_to = match sample.action {
            Action::Nothing => return,
            Action::Proactive => return self.clean_proactively(hash, user, now),
            Action::Emergency => None,
            Action::EmergencyThenShrink { to } => Some(to),
        };
        self.clean_in_emergency(hash, user, sample.at, shrink_to, now, config);
    }

    fn alert(&self, user_id: Option<UserId>, change: Change, load: Load) {
        let alert = Alert {
            user_id,
            from: change.from,
            to: change.to,
            manager_count: load.count,
            max_managers: load.max,
            usage_ratio: load.ratio(),
        };
        self.log.alert(&alert);
        self.attached.alert(&alert);
    }

    fn clean_proactively(&self, hash: Hash32, user: &UserId, now: Timestamp) {
        let Some(mut cleaning) = self.begin_cleaning(hash, user, |_| true) else { return };
        // After the flag was taken: other numbers are in force before it is raised for them.
        let config = self.settings.load_full();
        let stopwatch = self.clock.stopwatch();
        let rules = Rules::proactive(&config);
        let job = Job::dead(Operation::Proactive, rules, now, &stopwatch, config.emergency_budget);
        let (report, next_due) = self.sweep_user(hash, user, &job);
        // Whoever joins meanwhile has its grace from now on, or later.
        cleaning.next_look = next_due.min(now.after(rules.grace()));
        if report.found > 0 {
            self.note_sweep(&report, now);
        }
    }

    /// An emergency clean. Before a reservation not twice between two samples, and without force: whoever
    /// comes has a place or claims one, and a handshake that fails harms nobody.
    fn clean_in_emergency(
        &self,
        hash: Hash32,
        user: &UserId,
        at: At,
        shrink_to: Option<usize>,
        now: Timestamp,
        config: &Config,
    ) {
        let is_time = |entry: &mut UserEntry| {
            let is_first = entry.emergency_at == Timestamp::ZERO;
            let is_due = is_first || now.since(entry.emergency_at) >= config.sample_interval;
            let is_time = at == At::Sample || is_due;
            if is_time {
                entry.emergency_at = now;
            }
            is_time
        };
        // Its rules are laxer: a proactive look is still due after it.
        let Some(_cleaning) = self.begin_cleaning(hash, user, is_time) else { return };
        drop(self.emergency_clean(hash, user, at == At::Sample, now, config.emergency_budget));
        let load = self.load_of(hash, user, config);
        let policy = self.policy_at_limit(hash, user, config);
        if let Some(target) = shrink_to
            && at == At::Sample
            && policy != AtLimit::Reject
            && load.may_be_forced()
            && Watch::is_still_critical(load, config)
        {
            let wanted = |_| load.count.saturating_sub(target);
            let report = self.force_out(Scope::User(user), policy, EndReason::Limit, wanted);
            self.note_sweep(&report, now);
        }
    }

    /// The dead of a user, in up to so many attempts; then, where the policy allows it and the level is
    /// still critical, a few by force; and if nobody else could go, as few of the dead in an agent's run as
    /// are needed.
    pub(super) fn emergency_clean(
        &self,
        hash: Hash32,
        user: &UserId,
        may_force: bool,
        now: Timestamp,
        budget: Duration,
    ) -> SweepReport {
        let config = self.settings.load_full();
        let stopwatch = self.clock.stopwatch();
        let policy = self.policy_at_limit(hash, user, &config);
        let may_force = may_force && (policy != AtLimit::Reject || fault!("forced_under_reject"));
        let load = || self.load_of(hash, user, &config);
        let is_critical = |load| Watch::is_still_critical(load, &config);
        let is_forcible = |load: Load| may_force && load.may_be_forced() && is_critical(load);
        let rules = Rules::emergency(&config);
        let mut report = SweepReport::new(Operation::Emergency);
        let (visited, has_dead) = self.has_dead(hash, user, &rules, now);
        if !has_dead && !is_forcible(load()) {
            // A look that finds nothing is no clean: the user is told of by its level.
            report.visited = visited;
            return report;
        }
        self.log.emergency_begins(Some(user));
        let attempts = config.emergency_attempts;
        let job =
            |share: u32| Job::dead(Operation::Emergency, rules, now, &stopwatch, budget / attempts * share);
        for attempt in 1..=attempts {
            let (part, _) = self.sweep_user(hash, user, &job(attempt));
            let is_done = part.is_done();
            self.log.emergency_attempted(Some(user), attempt, &part, stopwatch.elapsed());
            report.is_complete = part.is_complete;
            report.add(part, attempt);
            if is_done {
                break;
            }
            if attempt == attempts {
                self.log.emergency_failed(Some(user), attempts, stopwatch.elapsed());
            }
        }
        let left = load();
        if is_forcible(left) {
            let wanted = |_| left.above(config.level_critical).min(config.emergency_forced as usize);
            let mut forced = self.force_out(Scope::User(user), policy, EndReason::Limit, wanted);
            forced.visited = 0; // it has looked at them before
            report.add(forced, report.attempts);
        }
        // The last resort: nothing else could go.
        let left = load();
        if report.cleaned == 0 && report.spared > 0 && is_critical(left) {
            let most = left.above(config.level_critical);
            let (last_resort, _) =
                self.sweep_user(hash, user, &Job { with_running: true, most, ..job(attempts) });
            report.add_second_look(last_resort);
        }
        report.took = stopwatch.elapsed();
        if report.found > 0 {
            self.note_sweep(&report, now);
        }
        report
    }

    /// Ends so many of a scope's managers as `wanted` says of the live ones, in the order of a policy:
    /// those in an agent's run last.
    fn force_out(
        &self,
        scope: Scope<'_>,
        policy: AtLimit,
        reason: EndReason,
        wanted: impl FnOnce(usize) -> usize,
    ) -> SweepReport {
        let stopwatch = self.clock.stopwatch();
        let is_operator = reason == EndReason::Operator;
        let operation = if is_operator { Operation::Operator } else { Operation::Emergency };
        let mut report = SweepReport::new(operation);
        let now = self.clock.now();
        let rank = |key: Key| Some((self.look(key, |manager| forcing_rank(manager, policy, now))?, key));
        let mut ranked: Vec<_> = self.live_keys(scope).into_iter().filter_map(rank).collect();
        ranked.sort_unstable_by_key(|&(rank, _)| rank);
        report.visited = ranked.len();
        let wanted = wanted(ranked.len());
        for (rank, key) in ranked {
            if report.cleaned + report.late >= wanted {
                break;
            }
            report.count_found(Strategy::Forced);
            // One whose run has begun meanwhile is as one that was in a run from the beginning.
            let is_as_ranked = |manager: &PooledWebSocketManager<'_>| {
                is_operator || forcing_rank(manager, policy, now).0 == rank.0
            };
            self.end_one(key, Strategy::Forced, reason, is_as_ranked, &mut report);
        }
        report.took = stopwatch.elapsed();
        if is_operator {
            self.note_sweep(&report, now);
        }
        report
    }

    fn live_keys(&self, scope: Scope<'_>) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut cursor = match scope {
            Scope::Pool => Cursor::default(),
            Scope::Rest(cursor) => cursor,
            Scope::Thread(thread) => {
                self.copy_keys_of(thread, &mut keys);
                return keys;
            }
            Scope::User(user) => {
                self.copy_keys_of_user(self.registry.hash(user), user, &mut keys);
                return keys;
            }
        };
        while self.slab.live_keys(&mut cursor, BATCH, &mut keys) {}
        keys
    }

    /// `None`: somebody else is cleaning this user, it is not time, or the user is gone.
    fn begin_cleaning(
        &self,
        hash: Hash32,
        user: &UserId,
        is_time: impl FnOnce(&mut UserEntry) -> bool,
    ) -> Option<CleaningUser<'_, S>> {
        let mut shard = self.registry.section(hash);
        let entry = shard.user_mut(hash, user)?;
        if entry.is_cleaning || !is_time(entry) {
            return None;
        }
        entry.is_cleaning = true;
        // Before the look: what becomes due after it raises the flag again.
        entry.may_be_due = false;
        Some(CleaningUser { core: self, user: entry.user_ref(), next_look: Timestamp::ZERO })
    }

    fn load_of(&self, hash: Hash32, user: &UserId, config: &Config) -> Load {
        let shard = self.registry.section(hash);
        let rules = shard.rules(hash, user);
        let count = shard.user(hash, user).map_or(0, UserEntry::count);
        Load { count, max: rules.max_managers.unwrap_or(config.max_managers_per_user) }
    }

    fn policy_at_limit(&self, hash: Hash32, user: &UserId, config: &Config) -> AtLimit {
        let rules = self.registry.section(hash).rules(hash, user);
        self.policy_of(user, rules, config)
    }
}

fn load_of(entry: &UserEntry, rules: UserRules, config: &Config) -> Load {
    Load { count: entry.count(), max: rules.max_managers.unwrap_or(config.max_managers_per_user) }
}
