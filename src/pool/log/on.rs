//! The log, told to `tracing`. A line's fields are the pool's own and those of its clients' ids, which
//! hold no control characters; no id is ever part of a format string.

use super::limit::{LINES_PER_SECOND, Limit};
use crate::clock::Clock;
use crate::control::AlertLevel;
use crate::error::ReserveError;
use crate::id::{IsolationKey, UserExecutionContext, UserId};
use crate::manager::contain;
use crate::pool::ends::End;
use crate::pool::ledger::Beginning;
use crate::pool::observer::Alert;
use crate::pool::sweep::{Operation, SweepReport};
use crate::reason::EndReason;
use std::time::Duration;
use tracing::{Level, event, event_enabled, field};

/// What the lines are filtered by.
const TARGET: &str = "ws_manager_pool";

pub(in crate::pool) struct Log {
    pool: Box<str>,
    clock: Clock,
    limits: [Limit; Kind::ALL.len()],
}

macro_rules! kinds {
    ($($name:ident = $level:ident, $label:literal;)*) => {
        /// A kind of line, with a limit of its own. Errors are of no kind: they are never left out.
        #[derive(Clone, Copy)]
        enum Kind {
            $($name,)*
        }

        impl Kind {
            const ALL: &[Self] = &[$(Self::$name,)*];

            const fn level(self) -> Level {
                match self { $(Self::$name => Level::$level,)* }
            }

            /// The kind's lines all say this.
            const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

kinds! {
    Opened = INFO, "connection opened";
    Closed = INFO, "connection closed";
    Cleaned = INFO, "connection cleaned up";
    CleanupFailed = WARN, "clean-up failed";
    Refused = DEBUG, "reservation refused";
    Mismatched = WARN, "id mismatch";
    Alert = WARN, "alert";
    Notice = INFO, "level changed";
    Swept = INFO, "sweep done";
    SweptNothing = DEBUG, "nothing to sweep";
    EmergencyBegins = WARN, "emergency clean begins";
    EmergencyAttempted = INFO, "emergency clean attempted";
    EmergencyTimedOut = WARN, "emergency clean timed out";
    DrainBegun = INFO, "drain begun";
    Reconfigured = INFO, "configuration replaced";
    RolledBack = INFO, "configuration rolled back";
}

/// Tells a line of a kind, if somebody listens and the second still takes one.
macro_rules! line {
    ($log:ident, $kind:ident $(, $($fields:tt)+)?) => {{
        const KIND: Kind = Kind::$kind;
        $log.tell(
            KIND,
            || event_enabled!(target: TARGET, KIND.level()),
            || {
                event!(
                    target: TARGET,
                    KIND.level(),
                    pool = %$log.pool,
                    $($($fields)+,)?
                    "{}",
                    KIND.label()
                );
            },
        );
    }};
}

impl Log {
    pub(in crate::pool) fn new(pool: &str, clock: &Clock) -> Self {
        Self { pool: pool.into(), clock: clock.clone(), limits: Default::default() }
    }

    /// Whether it is worth the while to find out how a lease ended.
    pub(in crate::pool) fn hears_ends(&self) -> bool {
        contain(|| event_enabled!(target: TARGET, Kind::Closed.level())).unwrap_or(false)
    }

    pub(in crate::pool) fn opened(&self, context: &UserExecutionContext, beginning: Beginning) {
        line!(
            self, Opened,
            isolation_key = %context.isolation_key(),
            run = %context.run_id(),
            cause = beginning.name()
        );
    }

    pub(in crate::pool) fn ended(&self, end: &End) {
        let isolation_key = IsolationKey::new(end.user_id.clone(), end.thread_id.clone());
        let seconds = end.ended_at.since(end.opened_at).as_secs_f64();
        let cause = end.reason.name();
        if is_cleanup(end.reason) {
            line!(self, Cleaned, %isolation_key, run = %end.run_id, cause, seconds);
        } else {
            line!(self, Closed, %isolation_key, run = %end.run_id, cause, seconds);
        }
    }

    pub(in crate::pool) fn refused(&self, context: &UserExecutionContext, error: ReserveError) {
        line!(self, Refused, user = %context.user_id(), cause = refusal(error));
    }

    /// Ids of a user who has connections, but none of this thread. `live` is one that there is, if it
    /// has not just gone.
    pub(in crate::pool) fn mismatched(&self, named: &IsolationKey, live: Option<&IsolationKey>) {
        line!(self, Mismatched, named = %named, live = live.map(field::display));
    }

    /// Code of the application has panicked. `None`: before it was known whose manager it was.
    pub(in crate::pool) fn cleanup_failed(&self, context: Option<&UserExecutionContext>, reason: EndReason) {
        line!(
            self,
            CleanupFailed,
            isolation_key = context.map(|context| field::display(context.isolation_key())),
            run = context.map(|context| field::display(context.run_id())),
            cause = reason.name()
        );
    }

    /// Without a user it is the pool's level.
    pub(in crate::pool) fn alert(&self, alert: &Alert) {
        let Alert { from, to, manager_count: count, max_managers: max, usage_ratio: ratio, .. } = *alert;
        let user = alert.user_id.as_ref().map(field::display);
        if to > from && to >= AlertLevel::Warning {
            line!(self, Alert, level = %to, %from, user, count, max, ratio);
        } else {
            line!(self, Notice, level = %to, %from, user, count, max, ratio);
        }
    }

    pub(in crate::pool) fn swept(&self, report: &SweepReport) {
        let operation = operation(report.operation);
        let &SweepReport { visited, found, cleaned, spared, failed, .. } = report;
        let users = report.by_user.len();
        let seconds = report.took.as_secs_f64();
        if cleaned > 0 {
            line!(self, Swept, operation, cleaned, users, seconds, visited, found, spared, failed);
        } else {
            line!(self, SweptNothing, operation, cleaned, users, seconds, visited, found, spared, failed);
        }
    }

    /// `None`, here and below: the whole pool.
    pub(in crate::pool) fn emergency_begins(&self, user: Option<&UserId>) {
        line!(self, EmergencyBegins, user = user.map(field::display));
    }

    /// `elapsed` since the clean began, all attempts together.
    pub(in crate::pool) fn emergency_attempted(
        &self,
        user: Option<&UserId>,
        attempt: u32,
        report: &SweepReport,
        elapsed: Duration,
    ) {
        let &SweepReport { found, cleaned, spared, failed, .. } = report;
        let seconds = elapsed.as_secs_f64();
        let user = user.map(field::display);
        line!(self, EmergencyAttempted, user, attempt, cleaned, found, spared, failed, seconds);
        if !report.is_complete {
            line!(self, EmergencyTimedOut, user, attempt, seconds);
        }
    }

    /// The last attempt has left some that were due.
    pub(in crate::pool) fn emergency_failed(&self, user: Option<&UserId>, attempts: u32, elapsed: Duration) {
        let _ = contain(|| {
            event!(
                target: TARGET,
                Level::ERROR,
                pool = %self.pool,
                user = user.map(field::display),
                attempts,
                seconds = elapsed.as_secs_f64(),
                "emergency clean failed"
            );
        });
    }

    pub(in crate::pool) fn drain_begun(&self) {
        line!(self, DrainBegun);
    }

    pub(in crate::pool) fn reconfigured(&self, version: u64) {
        line!(self, Reconfigured, version);
    }

    pub(in crate::pool) fn rolled_back(&self, version: u64) {
        line!(self, RolledBack, version);
    }

    /// Says what was left out of kinds that have fallen silent since. For maintenance.
    pub(in crate::pool) fn catch_up(&self) {
        let now = self.clock.now();
        for &kind in Kind::ALL {
            self.left_out(kind, self.limits[kind as usize].settle(now));
        }
    }

    fn tell(&self, kind: Kind, is_heard: impl FnOnce() -> bool, line: impl FnOnce()) {
        // In this order: what nobody hears costs no write to a word that all threads share.
        if contain(is_heard) != Some(true) {
            return;
        }
        let verdict = self.limits[kind as usize].admit(self.clock.now());
        self.left_out(kind, verdict.left_out);
        if verdict.is_told {
            let _ = contain(line);
        }
    }

    /// So many lines of a kind were not told.
    fn left_out(&self, kind: Kind, lines: u32) {
        if lines == 0 {
            return;
        }
        let _ = contain(|| {
            let (pool, kind_of) = (&self.pool, kind.label());
            if kind.level() == Level::WARN {
                event!(target: TARGET, Level::WARN, %pool, kind = kind_of, lines, LINES_PER_SECOND, "lines left out");
            } else {
                event!(target: TARGET, Level::INFO, %pool, kind = kind_of, lines, LINES_PER_SECOND, "lines left out");
            }
        });
    }
}

/// Whether the pool ended the connection, not one of its two sides.
const fn is_cleanup(reason: EndReason) -> bool {
    use EndReason::{Disconnected, Errored, Idle, Limit, Operator, Takeover};
    matches!(reason, Takeover | Operator | Idle | Limit | Disconnected | Errored)
}

const fn refusal(error: ReserveError) -> &'static str {
    match error {
        ReserveError::UserFull { .. } => "user_full",
        ReserveError::TenantFull { .. } => "tenant_full",
        ReserveError::PoolFull { .. } => "pool_full",
        ReserveError::ThreadInUse => "thread_in_use",
        ReserveError::Draining => "draining",
        ReserveError::SessionPanicked => "session_panicked",
    }
}

const fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Proactive => "proactive",
        Operation::Emergency => "emergency",
        Operation::Background => "background",
        Operation::Operator => "operator",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::IdGenerator;
    use crate::sync::StaticMutex;
    use std::fmt;
    use std::sync::Arc;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    /// Each line's level and fields, as text.
    #[derive(Clone, Default)]
    struct Ear(Arc<StaticMutex<Vec<String>>>);

    struct Text(String);

    impl field::Visit for Text {
        fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
            self.0 += &format!(" {field}={value:?}");
        }
    }

    impl Subscriber for Ear {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut line = Text(event.metadata().level().to_string());
            event.record(&mut line);
            self.0.lock().push(line.0);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    /// From outside it cannot be brought about: every piece of foreign code in a clean-up is contained
    /// by itself.
    #[test]
    fn a_failed_clean_up_warns_with_isolation_key_run_and_cause() {
        let ids = IdGenerator::user_context_ids("ada", "test").with_client_thread("thread_7").expect("valid");
        let context = UserExecutionContext::from_websocket_request("ada", ids).expect("valid");
        let log = Log::new("main", &Clock::manual().0);
        let ear = Ear::default();
        tracing::subscriber::with_default(ear.clone(), || {
            log.cleanup_failed(Some(&context), EndReason::Idle);
            log.cleanup_failed(None, EndReason::Limit);
        });
        let lines = ear.0.lock();
        let run = context.run_id();
        let known = format!(
            "WARN message=clean-up failed pool=main isolation_key=ada:thread_7 run={run} cause=\"idle\""
        );
        assert_eq!(*lines, [known.as_str(), "WARN message=clean-up failed pool=main cause=\"limit\""]);
    }
}
