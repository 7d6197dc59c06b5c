//! The summary, for people.

use super::engine::{Outcome, name};
use std::fmt::{self, Display, Formatter};
use ws_manager_pool::{AlertLevel, Operation};

/// One column for each outcome.
pub(crate) struct Table<'a>(pub(crate) &'a [(&'a str, &'a Outcome)]);

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.len() > 1 {
            write!(f, "{:34}", "")?;
            self.0.iter().try_for_each(|(title, _)| write!(f, "{title:>24}"))?;
            writeln!(f)?;
        }
        self.row(f, "connections", |of| of.counts.connections)?;
        self.row(f, "messages", |of| of.counts.messages)?;
        self.row(f, "live managers, at most", |of| of.counts.peak_live as u64)?;
        self.row(f, "users there, at most", |of| of.peak_users as u64)?;
        self.row(f, "network outages", |of| of.outages)?;
        writeln!(f)?;
        self.row(f, "accumulated", |of| of.accumulated() as u64)?;
        self.row(f, "minutes", |of| of.minutes)?;
        self.row(f, "  of them unbalanced", |of| of.unbalanced_minutes)?;
        self.row(f, "dead, and not found by a round", |of| of.overdue as u64)?;
        self.row(f, "wrong clean-ups", |of| of.counts.wrong_cleanups)?;
        self.row(f, "limit hits", |of| of.counts.limit_hits)?;
        self.row(f, "  series of them (lockouts)", |of| of.lockouts)?;
        self.row(f, "  users who had one", |of| of.users_refused as u64)?;
        self.row(f, "other refusals", |of| of.counts.other_refusals)?;
        self.row(f, "messages undelivered", |of| of.counts.undelivered)?;
        self.row(f, "late closes that did no harm", |of| of.counts.late_closes)?;
        self.row(f, "forgotten reservations", |of| of.counts.forgotten_reservations)?;
        self.row(f, "  taken back", |of| of.expired)?;
        writeln!(f, "\nends by reason")?;
        let mut reasons: Vec<&str> =
            self.0.iter().flat_map(|(_, of)| of.counts.ends.iter().map(|&(reason, _)| reason)).collect();
        reasons.sort_unstable();
        reasons.dedup();
        for reason in reasons {
            self.row(f, &format!("  {reason}"), |of| of.ended_as(reason))?;
        }
        writeln!(f, "\nsweeps, and what they cleaned")?;
        for operation in Operation::ALL {
            self.row(f, &format!("  {}, sweeps", name(operation)), |of| of.sweeps[operation as usize].runs)?;
            self.row(f, &format!("  {}, cleaned", name(operation)), |of| {
                of.sweeps[operation as usize].cleaned
            })?;
        }
        writeln!(f, "\nusers at a level at once, at most")?;
        for level in AlertLevel::ALL {
            self.row(f, &format!("  {level}"), |of| of.peak_at_level[level as usize] as u64)?;
        }
        writeln!(f)?;
        write!(f, "{:34}", "seconds")?;
        self.0.iter().try_for_each(|(_, of)| write!(f, "{:>24.1}", of.wall.as_secs_f64()))?;
        writeln!(f)
    }
}

impl Table<'_> {
    fn row(&self, f: &mut Formatter<'_>, what: &str, figure: impl Fn(&Outcome) -> u64) -> fmt::Result {
        write!(f, "{what:34}")?;
        self.0.iter().try_for_each(|(_, outcome)| write!(f, "{:>24}", grouped(figure(outcome))))?;
        writeln!(f)
    }
}

/// 1234567 as 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
