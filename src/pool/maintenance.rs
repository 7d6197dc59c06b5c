//! What has to be done now and then, whoever calls: forgotten reservations, samples, the background
//! round, memory. Never twice at once; what was missed is made up for by one turn, not by many.

use super::Pool;
use super::core::Core;
use super::marks::{Marks, News};
use super::sweep::{Job, Operation, SweepReport};
use crate::clock::{Stopwatch, Timestamp};
use crate::config::Config;
use crate::control::{AlertLevel, Rules, Watch};
use crate::manager::{Session, contain};
use crate::slab::{Cursor, Key};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use std::time::Duration;

/// Background intervals without maintenance after which the pool counts as forgotten.
pub(crate) const FORGOTTEN_AFTER: u32 = 3;

/// Free slots that maintenance leaves in memory beyond the share that it leaves.
const SPARE_SLOTS: usize = 256;

/// Slots whose managers are asked about between two looks at the budget.
const CHECKS: usize = 64;

/// The pool's diary of its own maintenance.
pub(super) struct Maintenance {
    is_running: AtomicBool,
    last: AtomicU64,
    schedule: Mutex<Schedule>,
    /// For the one who has the turn.
    marks: Mutex<Marks>,
    pub(super) news: News,
}

/// For the one who has the turn.
#[derive(Clone, Default)]
struct Schedule {
    sampled_at: Option<Timestamp>,
    round_began_at: Option<Timestamp>,
    /// A round that its budget cut short.
    round: Option<Round>,
    pool: Watch,
}

#[derive(Clone)]
struct Round {
    began: Timestamp,
    /// Where the checks go on that come before the sweep; `None` when they are through.
    to_check: Option<Cursor>,
    so_far: SweepReport,
}

/// By the interval in force now, so that a shortened one counts at once.
pub(crate) fn is_due(last: Option<Timestamp>, interval: Duration, now: Timestamp) -> bool {
    last.is_none_or(|last| last > now || now.since(last) >= interval)
}

/// What one turn of maintenance did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Maintained {
    /// Somebody else was at it: nothing was done.
    pub is_busy: bool,
    /// Reservations that were past their deadline, and are taken back.
    pub expired: usize,
    /// Whether the monitor took its samples.
    pub is_sampled: bool,
    /// Sweeps over the whole pool, or the parts of them that were done.
    pub sweeps: Vec<SweepReport>,
    /// Steps that code of the application ended by a panic. They are repeated when they are due again.
    pub panics: usize,
}

/// Whether anybody looks after the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MaintenanceStatus {
    /// Milliseconds since the last turn, or since the pool was built.
    pub last_ms_ago: u64,
    /// None for three background intervals: call [`Pool::maintain`], or let `serve` or
    /// `spawn_maintenance` do it.
    pub is_forgotten: bool,
}

impl Maintenance {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            is_running: AtomicBool::new(false),
            last: AtomicU64::new(now.as_millis()),
            schedule: Mutex::new(Schedule::default()),
            marks: Mutex::default(),
            news: News::default(),
        }
    }

    pub(super) fn status(&self, now: Timestamp, config: &Config) -> MaintenanceStatus {
        let idle = now.since(Timestamp::from_millis(self.last.load(Ordering::Relaxed)));
        MaintenanceStatus {
            last_ms_ago: idle.as_millis() as u64,
            is_forgotten: idle >= config.background_interval.saturating_mul(FORGOTTEN_AFTER),
        }
    }

    /// For the one who has the turn, who puts it back. The level stays readable; the round, whose report
    /// may be long, is moved and not copied.
    fn take_schedule(&self) -> Schedule {
        let mut schedule = self.schedule.lock();
        let round = schedule.round.take();
        Schedule { round, ..schedule.clone() }
    }

    /// The pool's level at the last sample.
    pub(super) fn level(&self) -> AlertLevel {
        self.schedule.lock().pool.level
    }
}

/// The one turn that is running.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn begin(is_running: &'a AtomicBool) -> Option<Self> {
        // Acquire and Release: one turn sees what the last one wrote.
        let is_first = !is_running.swap(true, Ordering::Acquire) || fault!("two_turns_at_once");
        is_first.then_some(Self(is_running))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<S: Session> Pool<S> {
    /// Looks after the pool: takes back what was forgotten, takes the monitor's samples and does the
    /// background round when they are due, gives memory back. To be called about once a second; `serve`
    /// and `spawn_maintenance` do. A second caller at the same time does nothing.
    ///
    /// `now` is a moment of the pool's own [`Pool::clock`].
    pub fn maintain(&self, now: Timestamp) -> Maintained {
        self.handle.maintain(now)
    }
}

impl<S: Session> Core<S> {
    pub(super) fn maintain(&self, now: Timestamp) -> Maintained {
        let Some(_turn) = Turn::begin(&self.maintenance.is_running) else {
            return Maintained { is_busy: true, ..Maintained::default() };
        };
        let now = now.min(self.clock.now()); // a moment that is still to come would put everything off
        let mut done = Maintained::default();
        let mut schedule = self.maintenance.take_schedule();
        let config = self.settings.load_full();
        let mut step = |work: &mut dyn FnMut(&mut Maintained)| {
            if contain(|| work(&mut done)).is_none() {
                done.panics += 1;
            }
        };
        step(&mut |done| done.expired = self.expire(now));
        if is_due(schedule.sampled_at, config.sample_interval, now) {
            schedule.sampled_at = Some(now);
            step(&mut |done| {
                done.is_sampled = true;
                done.sweeps = self.sample(&mut schedule.pool, now);
            });
        }
        if schedule.round.is_none() && is_due(schedule.round_began_at, config.background_interval, now) {
            schedule.round_began_at = Some(now);
            let so_far = SweepReport::new(Operation::Background);
            schedule.round = Some(Round { began: now, to_check: Some(Cursor::default()), so_far });
        }
        if let Some(round) = &mut schedule.round {
            let mut is_over = true;
            step(&mut |done| is_over = self.background(round, now, done));
            if is_over {
                schedule.round = None;
            }
        }
        step(&mut |_| self.tidy());
        step(&mut |_| self.sweep_journals(now));
        self.log.catch_up();
        *self.maintenance.schedule.lock() = schedule;
        self.maintenance.last.store(now.as_millis(), Ordering::Relaxed);
        done
    }

    /// A piece of the round over all managers. `true`: it has come to its end.
    fn background(&self, round: &mut Round, now: Timestamp, done: &mut Maintained) -> bool {
        let stopwatch = self.clock.stopwatch();
        if let Some(cursor) = round.to_check {
            let budget = self.settings.load().background_budget;
            round.to_check = self.check_some(cursor, now, &stopwatch, budget);
            if round.to_check.is_some() || stopwatch.elapsed() >= budget {
                return false;
            }
        }
        let is_first_piece = round.so_far.resume_at.is_none();
        // A panic loses the marks, which costs one look at each.
        let mut marks = std::mem::take(&mut *self.maintenance.marks.lock());
        if is_first_piece {
            marks.take_in(&self.maintenance.news);
        }
        // After the news: other numbers are in force before they are told of.
        let config = self.settings.load_full();
        let rules = Rules::background(&config);
        let job = Job::dead(Operation::Background, rules, now, &stopwatch, config.background_budget);
        let piece = self.sweep_pool(round.so_far.resume_at.unwrap_or_default(), &job, Some(&mut marks));
        done.sweeps.push(piece.clone());
        let took = round.so_far.took + piece.took;
        round.so_far.resume_at = piece.resume_at;
        round.so_far.is_complete = piece.is_complete;
        round.so_far.add(piece, 1);
        round.so_far.took = took;
        let is_over = round.so_far.resume_at.is_none();
        if is_over {
            marks.trim();
            self.note_sweep(&round.so_far, round.began);
        }
        *self.maintenance.marks.lock() = marks;
        is_over
    }

    /// Asks the application about each manager, if it wants to be asked. One that is not well, or whose
    /// check panics, counts as errored from now on. Where to go on, if the budget ran out.
    fn check_some(
        &self,
        mut cursor: Cursor,
        now: Timestamp,
        stopwatch: &Stopwatch<'_>,
        budget: Duration,
    ) -> Option<Cursor> {
        let check = self.attached.check.as_ref()?;
        let mut live: Vec<Key> = Vec::new();
        loop {
            let has_more = self.slab.live_keys(&mut cursor, CHECKS, &mut live);
            for key in live.drain(..) {
                self.look(key, |manager| {
                    if contain(|| check(manager)) != Some(true) {
                        // Refused: it is errored already, or closing.
                        if manager.mark_errored(now).is_ok() {
                            self.maintenance.news.of(key);
                        }
                    }
                });
            }
            if !has_more {
                return None;
            }
            if stopwatch.elapsed() >= budget {
                return Some(cursor);
            }
        }
    }

    fn tidy(&self) {
        // Room for a quarter more than is in use stays, so that a breathing load does not thrash.
        self.slab.shrink_settled(self.slab.occupied() / 4 + SPARE_SLOTS);
        self.slab.refresh_hints();
        self.registry.shrink();
        self.slab.resident().room.trim();
        if let Some(quotas) = &self.attached.quotas {
            quotas.shrink();
        }
        self.place_freed();
    }
}
