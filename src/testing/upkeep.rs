//! What the double does on its own: cleaning before a reservation, the monitor's samples, the
//! background round.

use super::state::State;
use super::sweep::Job;
use crate::clock::Timestamp;
use crate::config::{AtLimit, Config};
use crate::control::{Action, Change, Figures, Load, Rules, Watch};
use crate::id::UserId;
use crate::pool::{
    Alert, FORGOTTEN_AFTER, Maintained, MaintenanceStatus, Operation, Scope, SweepReport, UserCheck,
    figures_of, is_due,
};
use crate::reason::EndReason;
use crate::slab::Key;

/// What is done when.
pub(super) struct Schedule {
    is_running: bool,
    last: Timestamp,
    sampled_at: Option<Timestamp>,
    round_began_at: Option<Timestamp>,
    /// The monitor's memory of the pool as a whole.
    pub(super) pool: Watch,
}

impl Schedule {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { is_running: false, last: now, sampled_at: None, round_began_at: None, pool: Watch::default() }
    }

    pub(super) fn status(&self, now: Timestamp, config: &Config) -> MaintenanceStatus {
        let idle = now.since(self.last);
        MaintenanceStatus {
            last_ms_ago: idle.as_millis() as u64,
            is_forgotten: idle >= config.background_interval.saturating_mul(FORGOTTEN_AFTER),
        }
    }
}

/// What a sample of a user shows, and when it was taken.
struct Sample {
    at: At,
    load: Load,
    change: Option<Change>,
    action: Action,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before a reservation.
    Reserve,
    /// At its regular time.
    Regular,
}

/// A turn of maintenance that has begun.
pub(super) struct Turn {
    now: Timestamp,
    pub(super) is_background_due: bool,
    done: Maintained,
}

impl State {
    /// The first half of a turn, up to the background round, before which foreign code may be asked.
    /// `None`: a turn is under way.
    pub(super) fn begin_turn(&mut self, now: Timestamp) -> Option<Turn> {
        if std::mem::replace(&mut self.schedule.is_running, true) {
            return None;
        }
        let config = self.settings.load_full();
        let mut done = Maintained { expired: self.expire(now), ..Maintained::default() };
        if is_due(self.schedule.sampled_at, config.sample_interval, now) {
            self.schedule.sampled_at = Some(now);
            done.is_sampled = true;
            self.sample(now, &config);
            done.sweeps.extend(self.sample_pool(now, &config));
        }
        let is_background_due = is_due(self.schedule.round_began_at, config.background_interval, now);
        if is_background_due {
            self.schedule.round_began_at = Some(now);
        }
        Some(Turn { now, is_background_due, done })
    }

    pub(super) fn finish_turn(&mut self, turn: Turn) -> Maintained {
        let Turn { now, is_background_due, mut done } = turn;
        if is_background_due {
            let config = self.settings.load_full();
            done.sweeps.push(self.sweep_all(Operation::Background, Rules::background(&config), now));
        }
        self.place_freed();
        self.sweep_threads(now);
        self.schedule.last = now;
        self.schedule.is_running = false;
        done
    }

    pub(super) fn check_user(&self, user: &UserId) -> UserCheck {
        let config = self.settings.load_full();
        let load = self.load_of(user, &config);
        let mut watch = self.users.get(user).map_or(Watch::default(), |user| user.watch);
        watch.sample(load, &config);
        UserCheck {
            user_id: user.clone(),
            manager_count: load.count,
            usage_ratio: load.ratio(),
            alert_level: watch.level,
            max_managers: load.max,
        }
    }

    /// A reservation is coming: from the proactive threshold on, the user's dead go first, and a sample
    /// is taken.
    pub(super) fn clean_if_due(&mut self, user: &UserId) {
        let config = self.settings.load_full();
        let now = self.clock.now();
        // Of a domain another pool, or another user, may hold the rest.
        let is_in_domain = self.quotas.is_some() && self.is_awaited();
        if self.needs_clean(user, now, &config) || (is_in_domain && self.may_have_dead(user, now, &config)) {
            self.clean(user, now, &config);
        }
    }

    fn clean(&mut self, user: &UserId, now: Timestamp, config: &Config) {
        self.clean_proactively(user, now, config);
        if let Some(sample) = self.sample_user(user, At::Reserve, config) {
            self.act(user, &sample, now, config);
        }
    }

    /// Whether the level has changed, or somebody is dead or may be.
    fn needs_clean(&self, user: &UserId, now: Timestamp, config: &Config) -> bool {
        let Some(entry) = self.users.get(user) else { return false };
        let load = self.load_of(user, config);
        let has_changed = || { entry.watch }.sample(load, config).0.is_some();
        load.is_proactive(config) && (self.may_have_dead(user, now, config) || has_changed())
    }

    /// Somebody is dead or may be.
    fn may_have_dead(&self, user: &UserId, now: Timestamp, config: &Config) -> bool {
        let Some(entry) = self.users.get(user) else { return false };
        let rules = Rules::proactive(config);
        let is_dead = |&key: &Key| {
            let figures = self.read(key, figures_of);
            figures.is_some_and(|figures| rules.due(&figures, now).is_some() && !figures.is_running(now))
        };
        // The pool knows without a look. The double looks all the same, so that it does not miss whom the
        // pool would miss.
        entry.may_be_due || now >= entry.next_look || entry.members.iter().any(is_dead)
    }

    /// A refusal that a dead one may be the cause of: cleans, if so. Whether it is worth another try.
    pub(super) fn clean_if_refused(&mut self, user: &UserId) -> bool {
        let config = self.settings.load_full();
        let now = self.clock.now();
        let may_help = self.may_have_dead(user, now, &config);
        if may_help {
            self.clean(user, now, &config);
        }
        may_help
    }

    /// The manager may have become dead by its own state, or by the end of a run.
    pub(super) fn may_be_due(&mut self, key: Key) {
        let user = self.read(key, |manager| manager.user_id().clone());
        if let Some(entry) = user.and_then(|user| self.users.get_mut(&user)) {
            entry.may_be_due = true;
        }
    }

    /// By a shorter time somebody may be dead who was not to be before long, and a raised limit is a place
    /// for whoever waits for it.
    pub(super) fn settings_changed(&mut self) {
        self.users.values_mut().for_each(|user| user.may_be_due = true);
        self.place_freed();
    }

    /// Takes a sample of every user. All are taken before anything is done.
    fn sample(&mut self, now: Timestamp, config: &Config) {
        let mut departed = std::mem::take(&mut self.departed);
        departed.sort_by(|one, other| one.user_id.cmp(&other.user_id));
        let users: Vec<_> = self.users.keys().cloned().collect();
        let sampled: Vec<_> = users
            .into_iter()
            .filter_map(|user| Some((self.sample_user(&user, At::Regular, config)?, user)))
            .collect();
        departed.into_iter().for_each(|alert| self.after.alert(alert));
        for (sample, user) in sampled {
            self.act(&user, &sample, now, config);
        }
    }

    /// `None`: the user is gone.
    fn sample_user(&mut self, user: &UserId, at: At, config: &Config) -> Option<Sample> {
        let load = self.load_of(user, config);
        let (change, action) = self.users.get_mut(user)?.watch.sample(load, config);
        Some(Sample { at, load, change, action })
    }

    fn sample_pool(&mut self, now: Timestamp, config: &Config) -> Option<SweepReport> {
        let load = Load { count: self.occupied(), max: config.capacity };
        let (change, action) = self.schedule.pool.sample(load, config);
        self.alert(None, change, load);
        match action {
            Action::Nothing => None,
            Action::Proactive => Some(self.sweep_all(Operation::Proactive, Rules::proactive(config), now)),
            Action::Emergency | Action::EmergencyThenShrink { .. } => {
                Some(self.sweep_all(Operation::Emergency, Rules::emergency(config), now))
            }
        }
    }

    /// Tells of a change, and does what is to be done.
    fn act(&mut self, user: &UserId, sample: &Sample, now: Timestamp, config: &Config) {
        self.alert(Some(user), sample.change, sample.load);
        match sample.action {
            Action::Nothing => {}
            Action::Proactive => self.clean_proactively(user, now, config),
            Action::Emergency => self.clean_in_emergency(user, sample.at, None, now, config),
            Action::EmergencyThenShrink { to } => {
                self.clean_in_emergency(user, sample.at, Some(to), now, config);
            }
        }
    }

    fn alert(&mut self, user: Option<&UserId>, change: Option<Change>, load: Load) {
        let Some(change) = change else { return };
        self.after.alert(Alert {
            user_id: user.cloned(),
            from: change.from,
            to: change.to,
            manager_count: load.count,
            max_managers: load.max,
            usage_ratio: load.ratio(),
        });
    }

    /// A look that finds nothing is no clean: it is in no book.
    fn clean_proactively(&mut self, user: &UserId, now: Timestamp, config: &Config) {
        let Some(entry) = self.users.get_mut(user) else { return };
        entry.may_be_due = false;
        entry.next_look = Timestamp::NEVER;
        let rules = Rules::proactive(config);
        let job = Job::dead(Operation::Proactive, rules, now);
        let keys = self.keys_in(Scope::User(user));
        let report = self.sweep_keys(&keys, &job);
        if report.found > 0 {
            self.cleanups.note(&report, now);
        }
        let left = self.keys_of(user).iter().filter_map(|&key| self.read(key, figures_of));
        // One that is dead and in a run is due when that ends; if early, its end raises the flag.
        let due_at = |figures: Figures| match rules.due(&figures, now) {
            Some(_) => figures.run_until,
            None => rules.due_at(&figures),
        };
        let next_due = left.map(due_at).min().unwrap_or(Timestamp::NEVER);
        let next_look = next_due.min(now.after(rules.grace()));
        // Unless the user went, and came again.
        if let Some(entry) = self.users.get_mut(user).filter(|entry| entry.next_look == Timestamp::NEVER) {
            entry.next_look = next_look;
        }
    }

    /// An emergency clean, then a shrink if it was not enough. Before a reservation not twice between two
    /// samples, and without force.
    fn clean_in_emergency(
        &mut self,
        user: &UserId,
        at: At,
        shrink_to: Option<usize>,
        now: Timestamp,
        config: &Config,
    ) {
        let Some(entry) = self.users.get_mut(user) else { return };
        let is_early = entry.emergency_at.is_some_and(|last| now.since(last) < config.sample_interval);
        if at == At::Reserve && is_early {
            return;
        }
        entry.emergency_at = Some(now);
        entry.may_be_due = false;
        entry.next_look = Timestamp::ZERO; // its rules are laxer: a proactive look is still due
        let _ = self.emergency_clean(user, at == At::Regular, now);
        let load = self.load_of(user, config);
        let policy = self.policy_of(user, config);
        if let Some(target) = shrink_to
            && at == At::Regular
            && policy != AtLimit::Reject
            && load.may_be_forced()
            && Watch::is_still_critical(load, config)
        {
            let excess = load.count.saturating_sub(target);
            let report = self.force_out(Scope::User(user), policy, EndReason::Limit, |_| excess);
            self.cleanups.note(&report, now);
        }
    }

    /// The dead of the whole pool.
    fn sweep_all(&mut self, operation: Operation, rules: Rules, now: Timestamp) -> SweepReport {
        let all = self.keys_in(Scope::Pool);
        let report = self.sweep_keys(&all, &Job::dead(operation, rules, now));
        self.cleanups.note(&report, now);
        report
    }
}
