//! The log's stand-in: of no size, and every line of it is nothing.

use crate::clock::Clock;
use crate::error::ReserveError;
use crate::id::{IsolationKey, UserExecutionContext, UserId};
use crate::pool::ends::End;
use crate::pool::ledger::Beginning;
use crate::pool::observer::Alert;
use crate::pool::sweep::SweepReport;
use crate::reason::EndReason;
use std::time::Duration;

pub(in crate::pool) struct Log;

macro_rules! silent {
    ($($name:ident($($what:ident: $kind:ty),*);)*) => {
        $(pub(in crate::pool) fn $name(&self, $($what: $kind),*) {
            $(let _ = $what;)*
        })*
    };
}

impl Log {
    pub(in crate::pool) fn new(pool: &str, clock: &Clock) -> Self {
        let _ = (pool, clock);
        Self
    }

    pub(in crate::pool) fn hears_ends(&self) -> bool {
        false
    }

    silent! {
        opened(context: &UserExecutionContext, beginning: Beginning);
        ended(end: &End);
        refused(context: &UserExecutionContext, error: ReserveError);
        mismatched(named: &IsolationKey, live: Option<&IsolationKey>);
        cleanup_failed(context: Option<&UserExecutionContext>, reason: EndReason);
        alert(alert: &Alert);
        swept(report: &SweepReport);
        emergency_begins(user: Option<&UserId>);
        emergency_attempted(user: Option<&UserId>, attempt: u32, report: &SweepReport, elapsed: Duration);
        emergency_failed(user: Option<&UserId>, attempts: u32, elapsed: Duration);
        drain_begun();
        reconfigured(version: u64);
        rolled_back(version: u64);
        catch_up();
    }
}
