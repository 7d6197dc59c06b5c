//! The double's sweeps: one look at each manager, `control` decides, and those that are due are ended,
//! all under the one lock. So a sweep always comes to its end, and nobody is faster or active again.

use super::state::State;
use crate::clock::Timestamp;
use crate::config::AtLimit;
use crate::control::{Figures, Rules, Strategy, Watch};
use crate::error::Late;
use crate::id::UserId;
use crate::pool::{Operation, Scope, SweepPolicy, SweepReport, figures_of, forcing_rank};
use crate::reason::EndReason;
use crate::slab::Key;

/// What a sweep is to do.
#[derive(Clone, Copy)]
pub(super) struct Job {
    pub(super) operation: Operation,
    pub(super) what: What,
    /// Also those in an agent's run.
    pub(super) with_running: bool,
    /// Managers that it may end.
    pub(super) most: usize,
    pub(super) now: Timestamp,
}

#[derive(Clone, Copy)]
pub(super) enum What {
    Dead(Rules),
    All(EndReason),
}

impl Job {
    pub(super) fn dead(operation: Operation, rules: Rules, now: Timestamp) -> Self {
        Self { operation, what: What::Dead(rules), with_running: false, most: usize::MAX, now }
    }

    fn due(&self, figures: &Figures) -> Option<Strategy> {
        match self.what {
            What::Dead(rules) => rules.due(figures, self.now),
            What::All(_) => Some(Strategy::Forced),
        }
    }

    fn reason(&self, strategy: Strategy) -> EndReason {
        match (self.what, strategy) {
            (What::All(reason), _) => reason,
            (_, Strategy::Disconnected) => EndReason::Disconnected,
            (_, Strategy::Idle) => EndReason::Idle,
            (_, Strategy::Errored) => EndReason::Errored,
            (_, Strategy::Forced) => EndReason::Limit,
        }
    }
}

impl State {
    pub(super) fn sweep(&mut self, scope: Scope<'_>, policy: SweepPolicy, now: Timestamp) -> SweepReport {
        let config = self.settings.load_full();
        let job = match policy {
            SweepPolicy::Proactive => Job::dead(Operation::Proactive, Rules::proactive(&config), now),
            SweepPolicy::Emergency => Job::dead(Operation::Emergency, Rules::emergency(&config), now),
            SweepPolicy::Background => Job::dead(Operation::Background, Rules::background(&config), now),
            SweepPolicy::Operator(reason) => Job {
                operation: Operation::Operator,
                what: What::All(reason),
                with_running: true,
                most: usize::MAX,
                now,
            },
        };
        if let (Scope::User(user), SweepPolicy::Emergency) = (scope, policy) {
            return self.emergency_clean(user, true, now);
        }
        let keys = self.keys_in(scope);
        let report = self.sweep_keys(&keys, &job);
        self.cleanups.note(&report, now);
        report
    }

    pub(super) fn sweep_keys(&mut self, keys: &[Key], job: &Job) -> SweepReport {
        let clock = self.clock.clone();
        let stopwatch = clock.stopwatch();
        let mut report = SweepReport::new(job.operation);
        let mut due = Vec::new();
        for &key in keys {
            let Some(figures) = self.read(key, figures_of) else { continue };
            report.visited += 1;
            let Some(strategy) = job.due(&figures) else { continue };
            report.count_found(strategy);
            if figures.is_running(job.now) && !job.with_running {
                report.spared += 1;
            } else {
                due.push((strategy, key));
            }
        }
        due.sort_by_key(|&(strategy, _)| strategy);
        for (strategy, key) in due {
            if report.cleaned >= job.most {
                report.spared += 1;
                continue;
            }
            self.end_one(key, strategy, job.reason(strategy), &mut report);
        }
        report.took = stopwatch.elapsed();
        report
    }

    /// The user's dead; those in an agent's run only if there is nothing else; then, where the policy
    /// allows it and the level is still critical, a few by force.
    pub(super) fn emergency_clean(&mut self, user: &UserId, may_force: bool, now: Timestamp) -> SweepReport {
        let config = self.settings.load_full();
        let mut job = Job::dead(Operation::Emergency, Rules::emergency(&config), now);
        let keys = self.keys_in(Scope::User(user));
        let mut report = self.sweep_keys(&keys, &job);
        let load = self.load_of(user, &config);
        let policy = self.policy_of(user, &config);
        let may_force = may_force && policy != AtLimit::Reject && load.may_be_forced();
        if may_force && Watch::is_still_critical(load, &config) {
            let forced = load.above(config.level_critical).min(config.emergency_forced as usize);
            let mut part = self.force_out(Scope::User(user), policy, EndReason::Limit, |_| forced);
            part.visited = 0; // it has looked at them before
            report.took += part.took;
            report.add(part, 1);
        }
        // The last resort: nothing else could go.
        let load = self.load_of(user, &config);
        if report.cleaned == 0 && report.spared > 0 && Watch::is_still_critical(load, &config) {
            (job.with_running, job.most) = (true, load.above(config.level_critical));
            let keys = self.keys_in(Scope::User(user));
            let part = self.sweep_keys(&keys, &job);
            report.took += part.took;
            report.add_second_look(part);
        }
        // A look that finds nothing is no clean.
        if report.found > 0 {
            self.cleanups.note(&report, now);
        }
        report
    }

    /// Ends so many of a scope's managers as `wanted` says of the live ones, in the order of a policy:
    /// those in an agent's run last.
    pub(super) fn force_out(
        &mut self,
        scope: Scope<'_>,
        policy: AtLimit,
        reason: EndReason,
        wanted: impl FnOnce(usize) -> usize,
    ) -> SweepReport {
        let clock = self.clock.clone();
        let stopwatch = clock.stopwatch();
        let now = clock.now();
        let is_operator = reason == EndReason::Operator;
        let operation = if is_operator { Operation::Operator } else { Operation::Emergency };
        let mut report = SweepReport::new(operation);
        let keys = self.keys_in(scope);
        let rank = |&key: &Key| Some((self.read(key, |manager| forcing_rank(manager, policy, now))?, key));
        let mut ranked: Vec<_> = keys.iter().filter_map(rank).collect();
        ranked.sort_by_key(|&(rank, _)| rank);
        report.visited = ranked.len();
        ranked.truncate(wanted(ranked.len()));
        for (_, key) in ranked {
            report.count_found(Strategy::Forced);
            self.end_one(key, Strategy::Forced, reason, &mut report);
        }
        report.took = stopwatch.elapsed();
        if is_operator {
            self.cleanups.note(&report, now);
        }
        report
    }

    /// The live managers of a scope.
    pub(super) fn keys_in(&mut self, scope: Scope<'_>) -> Vec<Key> {
        match scope {
            // No sweep of the double leaves a rest.
            Scope::Pool | Scope::Rest(_) => self.lives().map(|(key, _)| key).collect(),
            Scope::User(user) => self.keys_of(user).to_vec(),
            Scope::Thread(thread) => self.address(thread),
        }
    }

    fn end_one(&mut self, key: Key, strategy: Strategy, reason: EndReason, report: &mut SweepReport) {
        let user = self.read(key, |manager| manager.user_id().clone());
        match (self.end(key, reason), user) {
            (Ok(()), Some(user)) => report.count_cleaned(strategy, user),
            (Err(Late), _) | (_, None) => report.late += 1,
        }
    }
}
