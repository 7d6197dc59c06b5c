//! The one sweep engine. Proactive, emergency, background and operator's cleaning are jobs of it.
//!
//! It looks without a lock, decides (`control` does), and then ends each manager by key, if it is still
//! what it was: one that has just become active is spared. It stops at its budget and can go on later.

use super::Pool;
use super::core::Core;
use super::marks::Marks;
use super::occupant::figures_of;
use super::registry::Hash32;
use super::send::with_scratch;
use crate::clock::{Stopwatch, Timestamp};
use crate::control::{Figures, Rules, Strategy};
use crate::error::Late;
use crate::id::{IsolationKey, UserExecutionContext, UserId};
use crate::manager::{PooledWebSocketManager, Session, contain};
use crate::reason::EndReason;
use crate::slab::{Cursor, Key, State};
use std::collections::BTreeMap;
use std::time::Duration;

/// Which managers a sweep looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// All of the pool's.
    Pool,
    /// All of the pool's that a sweep, cut short by its budget, has not seen: its
    /// [`SweepReport::resume_at`].
    Rest(Cursor),
    /// A user's.
    User(&'a UserId),
    /// A user's that are on one thread.
    Thread(&'a IsolationKey),
}

/// Which of them it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepPolicy {
    /// The dead: disconnected, idle for [`crate::Config::idle_proactive`], errored for
    /// [`crate::Config::errored_after`]. None in an agent's run.
    Proactive,
    /// The dead, by [`crate::Config::idle_emergency`]. None in an agent's run while another can go. Of a
    /// single user at the critical level also some that are active, where [`crate::AtLimit`] allows it.
    Emergency,
    /// The dead, by [`crate::Config::idle_background`]. None in an agent's run.
    Background,
    /// All of them, for this reason.
    Operator(EndReason),
}

/// Who sweeps: what the metrics are kept by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Operation {
    /// Before an acquire, or at a warning.
    Proactive,
    /// From the critical level on.
    Emergency,
    /// The round over all users.
    Background,
    /// By hand.
    Operator,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 4] = [Self::Proactive, Self::Emergency, Self::Background, Self::Operator];
}

/// What a sweep found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[must_use = "it says whether the sweep came to its end"]
#[non_exhaustive]
pub struct SweepReport {
    /// Who swept.
    pub operation: Operation,
    /// Live managers that it looked at.
    pub visited: usize,
    /// Managers that were due.
    pub found: usize,
    /// Managers that it ended.
    pub cleaned: usize,
    /// Managers that were due and were left: in an agent's run, or active again when their turn came.
    pub spared: usize,
    /// Managers that somebody else had ended when their turn came.
    pub late: usize,
    /// Managers that could not be ended, because code of the application panicked. The next round finds
    /// them again.
    pub failed: usize,
    /// Found and cleaned by strategy.
    #[cfg_attr(feature = "serde", serde(serialize_with = "by_name"))]
    strategies: [StrategyCount; Strategy::ALL.len()],
    /// Managers that it ended, by user.
    pub by_user: BTreeMap<UserId, usize>,
    /// Attempts that it took, where it repeats itself.
    pub attempts: u32,
    /// Where to go on, if the budget ran out: see [`Scope::Rest`]. `None`: it came to its end.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub resume_at: Option<Cursor>,
    /// Whether it came to its end within its budget.
    pub is_complete: bool,
    /// How long it took.
    pub took: Duration,
}

/// A strategy's share of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct StrategyCount {
    /// Managers that were due.
    pub found: usize,
    /// Managers that were ended.
    pub cleaned: usize,
}

#[cfg(feature = "serde")]
fn by_name<Z: serde::Serializer>(counts: &[StrategyCount], serializer: Z) -> Result<Z::Ok, Z::Error> {
    serializer.collect_map(Strategy::ALL.iter().zip(counts))
}

impl SweepReport {
    pub(crate) fn new(operation: Operation) -> Self {
        Self {
            operation,
            visited: 0,
            found: 0,
            cleaned: 0,
            spared: 0,
            late: 0,
            failed: 0,
            strategies: Default::default(),
            by_user: BTreeMap::new(),
            attempts: 1,
            resume_at: None,
            is_complete: true,
            took: Duration::ZERO,
        }
    }

    /// What one strategy found and cleaned.
    pub fn of(&self, strategy: Strategy) -> StrategyCount {
        self.strategies[strategy as usize]
    }

    /// Whether nothing that was due is left but what was spared.
    pub(super) fn is_done(&self) -> bool {
        self.is_complete && self.failed == 0
    }

    /// Adds what another attempt, or another piece, did. Its end and its time are the caller's to say.
    pub(crate) fn add(&mut self, part: Self, attempts: u32) {
        self.visited += part.visited;
        self.found += part.found;
        self.cleaned += part.cleaned;
        self.spared += part.spared;
        self.late += part.late;
        self.failed += part.failed;
        for (sum, count) in self.strategies.iter_mut().zip(part.strategies) {
            sum.found += count.found;
            sum.cleaned += count.cleaned;
        }
        for (user, cleaned) in part.by_user {
            *self.by_user.entry(user).or_default() += cleaned;
        }
        self.attempts = attempts;
    }

    /// Adds what became of those at another look that the first one had found and spared.
    pub(crate) fn add_second_look(&mut self, mut part: Self) {
        self.spared = self.spared.saturating_sub(part.found);
        (part.visited, part.found) = (0, 0);
        part.strategies.iter_mut().for_each(|count| count.found = 0);
        self.add(part, self.attempts);
    }

    pub(crate) fn count_found(&mut self, strategy: Strategy) {
        self.found += 1;
        self.strategies[strategy as usize].found += 1;
    }

    pub(crate) fn count_cleaned(&mut self, strategy: Strategy, user: UserId) {
        self.cleaned += 1;
        self.strategies[strategy as usize].cleaned += 1;
        *self.by_user.entry(user).or_default() += 1;
    }
}

/// What a sweep is to do.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) operation: Operation,
    pub(super) what: What,
    /// Also those in an agent's run.
    pub(super) with_running: bool,
    pub(super) now: Timestamp,
    pub(super) stopwatch: &'a Stopwatch<'a>,
    /// Measured from the stopwatch's start.
    pub(super) budget: Duration,
    /// Managers that it may end.
    pub(super) most: usize,
}

#[derive(Clone, Copy)]
pub(super) enum What {
    Dead(Rules),
    All(EndReason),
}

/// What is known of a manager after a look.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    NotDue,
    Due(Strategy),
    /// Due, but in an agent's run.
    Running(Strategy),
}

impl<'a> Job<'a> {
    /// Ends the dead, all of them, but none in an agent's run.
    pub(super) fn dead(
        operation: Operation,
        rules: Rules,
        now: Timestamp,
        stopwatch: &'a Stopwatch<'a>,
        budget: Duration,
    ) -> Self {
        let what = What::Dead(rules);
        Self { operation, what, with_running: false, now, stopwatch, budget, most: usize::MAX }
    }

    #[inline]
    fn look(&self, figures: &Figures) -> Look {
        let strategy = match self.what {
            What::Dead(rules) => rules.due(figures, self.now),
            What::All(_) => Some(Strategy::Forced),
        };
        match strategy {
            None => Look::NotDue,
            Some(strategy)
                if self.with_running || !figures.is_running(self.now) || fault!("runs_are_not_looked_at") =>
            {
                Look::Due(strategy)
            }
            Some(strategy) => Look::Running(strategy),
        }
    }

    /// When a manager that is well can be dead at the earliest.
    fn due_at(&self, figures: &Figures) -> Timestamp {
        match self.what {
            What::Dead(rules) => rules.due_at(figures),
            What::All(_) => Timestamp::ZERO,
        }
    }

    fn is_over(&self) -> bool {
        self.stopwatch.elapsed() >= self.budget
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

/// Slots that a sweep looks at under one epoch guard.
const BATCH: usize = 4_096;

/// Managers that it ends between two looks at its budget.
const BETWEEN_LOOKS: usize = 64;

impl<S: Session> Pool<S> {
    /// Looks at the managers of a scope and ends those that a policy names, until it has seen all or the
    /// budget is spent. Holds no lock while it decides.
    ///
    /// `now` is a moment of the pool's own [`Pool::clock`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ws_manager_pool::{Pool, Scope, SweepPolicy};
    /// let pool: Pool = Pool::builder().name("doc-sweep").build()?;
    /// let budget = Duration::from_millis(50);
    /// let report = pool.sweep(Scope::Pool, SweepPolicy::Background, pool.clock().now(), budget);
    /// println!("{} of {} were dead, {} are gone", report.found, report.visited, report.cleaned);
    /// assert!(report.is_complete);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sweep(
        &self,
        scope: Scope<'_>,
        policy: SweepPolicy,
        now: Timestamp,
        budget: Duration,
    ) -> SweepReport {
        let core = &*self.handle;
        let config = core.settings.load_full();
        let stopwatch = core.clock.stopwatch();
        let dead = |operation, rules| Job::dead(operation, rules, now, &stopwatch, budget);
        let job = match policy {
            SweepPolicy::Proactive => dead(Operation::Proactive, Rules::proactive(&config)),
            SweepPolicy::Emergency => dead(Operation::Emergency, Rules::emergency(&config)),
            SweepPolicy::Background => dead(Operation::Background, Rules::background(&config)),
            SweepPolicy::Operator(reason) => Job {
                operation: Operation::Operator,
                what: What::All(reason),
                with_running: true,
                now,
                stopwatch: &stopwatch,
                budget,
                most: usize::MAX,
            },
        };
        let report = match (scope, policy) {
            (Scope::User(user), SweepPolicy::Emergency) => {
                let hash = core.registry.hash(user);
                return core.emergency_clean(hash, user, true, now, config.emergency_budget.min(budget));
            }
            (Scope::Pool, _) => core.sweep_pool(Cursor::default(), &job, None),
            (Scope::Rest(cursor), _) => core.sweep_pool(cursor, &job, None),
            (Scope::User(user), _) => core.sweep_user(core.registry.hash(user), user, &job).0,
            (Scope::Thread(thread), _) => core.sweep_thread(thread, &job),
        };
        core.note_sweep(&report, now);
        report
    }

    /// Ends what a user's thread has: the operator's clean-up by identity. A context that names a user
    /// with connections, but a thread without one, is an id mismatch: it cleans nothing, and is counted
    /// and logged.
    pub fn cleanup_manager_by_context(
        &self,
        context: &UserExecutionContext,
        reason: EndReason,
    ) -> SweepReport {
        let now = self.handle.clock.now();
        self.sweep(Scope::Thread(&context.isolation_key()), SweepPolicy::Operator(reason), now, Duration::MAX)
    }

    /// Ends all that a user has.
    pub fn cleanup_all_user_managers(&self, user: &UserId, reason: EndReason) -> SweepReport {
        let now = self.handle.clock.now();
        self.sweep(Scope::User(user), SweepPolicy::Operator(reason), now, Duration::MAX)
    }
}

impl<S: Session> Core<S> {
    /// Enters a sweep into the books and the log.
    pub(super) fn note_sweep(&self, report: &SweepReport, began: Timestamp) {
        self.cleanups.note(report, began);
        self.log.swept(report);
    }

    /// Looks at all, or, with marks, at those only that can be dead by now.
    pub(super) fn sweep_pool(
        &self,
        mut cursor: Cursor,
        job: &Job<'_>,
        mut marks: Option<&mut Marks>,
    ) -> SweepReport {
        let mut report = SweepReport::new(job.operation);
        let mut due = Vec::new();
        let mut well = Vec::new();
        loop {
            let start = cursor;
            let visited_before = report.visited;
            let visited = &mut report.visited;
            let known = marks.as_deref();
            let has_more = self.slab.walk_some(
                &mut cursor,
                BATCH,
                |key, state| {
                    *visited += usize::from(state == State::Live);
                    state == State::Live && known.is_none_or(|marks| marks.is_worth_a_look(key, job.now))
                },
                |glance| {
                    let figures = glance.figures();
                    (job.look(&figures), job.due_at(&figures))
                },
                |key, _, (look, due_at)| match look {
                    Look::NotDue if known.is_some() => well.push((key, due_at)),
                    Look::NotDue => {}
                    look => due.push((look, key)),
                },
            );
            if let Some(marks) = &mut marks {
                well.drain(..).for_each(|(key, due_at)| marks.set(key, due_at));
            }
            let is_through = self.end_each(&mut due, job, &mut report);
            let has_more = has_more && !fault!("first_batch_only");
            if has_more && is_through && !job.is_over() {
                continue;
            }
            if !is_through {
                report.visited = visited_before; // the batch will be looked at again
            }
            if has_more || !is_through {
                report.is_complete = false;
                report.resume_at = Some(if is_through { cursor } else { start });
            }
            report.took = job.stopwatch.elapsed();
            return report;
        }
    }

    /// Also says when the next of those who were left will be due.
    pub(super) fn sweep_user(&self, hash: Hash32, user: &UserId, job: &Job<'_>) -> (SweepReport, Timestamp) {
        with_scratch(|keys| {
            self.copy_keys_of_user(hash, user, keys);
            self.sweep_keys(keys, job)
        })
    }

    /// How many managers a user has, and whether one of them is dead.
    pub(super) fn has_dead(
        &self,
        hash: Hash32,
        user: &UserId,
        rules: &Rules,
        now: Timestamp,
    ) -> (usize, bool) {
        with_scratch(|keys| {
            self.copy_keys_of_user(hash, user, keys);
            let is_dead =
                |&key: &Key| self.look(key, |manager| rules.due(&figures_of(manager), now).is_some());
            let seen = keys.iter().filter_map(is_dead);
            seen.fold((0, false), |(count, has_dead), is_dead| (count + 1, has_dead || is_dead))
        })
    }

    fn sweep_thread(&self, thread: &IsolationKey, job: &Job<'_>) -> SweepReport {
        with_scratch(|keys| {
            self.copy_keys_of(thread, keys);
            self.sweep_keys(keys, job).0
        })
    }

    fn sweep_keys(&self, keys: &[Key], job: &Job<'_>) -> (SweepReport, Timestamp) {
        let mut report = SweepReport::new(job.operation);
        let mut due = Vec::new();
        let mut next_due = Timestamp::NEVER;
        let mut running = 0;
        for &key in keys {
            let Some(figures) = self.look(key, figures_of) else { continue };
            report.visited += 1;
            match job.look(&figures) {
                Look::NotDue => next_due = next_due.min(job.due_at(&figures)),
                look => {
                    if matches!(look, Look::Running(_)) {
                        next_due = next_due.min(figures.run_until); // one that ends before raises the flag
                        running += 1;
                    }
                    due.push((look, key));
                }
            }
        }
        report.is_complete = self.end_each(&mut due, job, &mut report);
        if report.spared > running || report.failed > 0 || !report.is_complete {
            next_due = Timestamp::ZERO;
        }
        report.took = job.stopwatch.elapsed();
        (report, next_due)
    }

    /// Ends those that are still due, strategy by strategy. `false`: the budget ran out first.
    fn end_each(&self, due: &mut Vec<(Look, Key)>, job: &Job<'_>, report: &mut SweepReport) -> bool {
        due.sort_by_key(|&(look, _)| look);
        for (turn, &(look, key)) in due.iter().enumerate() {
            if turn > 0 && turn % BETWEEN_LOOKS == 0 && job.is_over() {
                due.clear();
                return false;
            }
            let strategy = match look {
                Look::NotDue => continue,
                Look::Due(strategy) => strategy,
                Look::Running(strategy) => {
                    report.count_found(strategy);
                    report.spared += 1;
                    continue;
                }
            };
            report.count_found(strategy);
            if report.cleaned >= job.most {
                report.spared += 1;
                continue;
            }
            let is_still_due =
                |manager: &PooledWebSocketManager<'_>| matches!(job.look(&figures_of(manager)), Look::Due(_));
            self.end_one(key, strategy, job.reason(strategy), is_still_due, report);
        }
        due.clear();
        true
    }

    /// Ends one manager, if it is still what the predicate wants, and counts what became of it.
    pub(super) fn end_one(
        &self,
        key: Key,
        strategy: Strategy,
        reason: EndReason,
        is_wanted: impl FnOnce(&PooledWebSocketManager<'_>) -> bool,
        report: &mut SweepReport,
    ) {
        let mut context = None;
        let ended = contain(|| {
            self.evict_if(key, reason, |manager| {
                context = Some(manager.context().clone());
                is_wanted(manager)
            })
        });
        match (ended, context) {
            (Some(Ok(Some(()))), Some(context)) => report.count_cleaned(strategy, context.user_id().clone()),
            (Some(Ok(None)), _) | (Some(Ok(Some(()))), None) => report.spared += 1,
            (Some(Err(Late)), _) => report.late += 1,
            (None, context) => {
                report.failed += 1;
                self.log.cleanup_failed(context.as_ref(), reason);
            }
        }
    }
}
