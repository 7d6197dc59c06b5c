//! The running account that proves that nothing leaked: what began, what ended, and four sources
//! that have to agree on the difference.

use super::core::{Core, SeatEnd};
use super::registry::Totals;
use crate::error::ReserveError;
use crate::manager::Session;
use crate::reason::EndReason;
use crate::slab::{Cells, Cursor, Key, State};
use std::collections::BTreeMap;

const RESERVED: usize = 0;
const GIVEN_BACK: usize = 1;
const EXPIRED: usize = 2;
const MISMATCHES: usize = 3;
const INHERITED: usize = 4;
const OPENED: usize = 5;
const REFUSED: usize = OPENED + Beginning::ALL.len();
const REFUSALS: usize = 6;
const ENDED: usize = REFUSED + REFUSALS;
const COUNTERS: usize = ENDED + EndReason::ALL.len();

/// Slots that a check reads under one epoch guard.
const BATCH: usize = 4_096;

/// Turns that a check takes to find a moment in which nothing moves.
const TURNS: usize = 16;

/// What has begun and ended so far. Only grows, so that two equal readings mean that nothing moved.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Flow {
    reserved: u64,
    opened: u64,
    /// Given back or expired.
    unopened: u64,
    ended: u64,
}

/// How a lease began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    Fresh,
    Takeover,
    Limit,
}

impl Beginning {
    pub(crate) const ALL: [Self; 3] = [Self::Fresh, Self::Takeover, Self::Limit];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Takeover => "takeover",
            Self::Limit => "limit",
        }
    }
}

/// The counters, on lines that threads do not share. They only grow.
pub(super) struct Books(Cells<COUNTERS>);

impl Books {
    pub(super) fn new() -> Self {
        Self(Cells::new())
    }

    /// In the user's section, like every entry down to `ended`.
    pub(super) fn reserved(&self) {
        self.0.add(RESERVED, 1);
    }

    /// A claim's lease has ended, and the claim holds its place from now on.
    pub(super) fn inherited(&self) {
        self.0.add(RESERVED, 1);
        self.0.add(INHERITED, 1);
    }

    pub(super) fn opened(&self, how: Beginning) {
        self.0.add(OPENED + how as usize, 1);
    }

    pub(super) fn unreserved(&self, how: SeatEnd) {
        self.0.add(if how == SeatEnd::Expired { EXPIRED } else { GIVEN_BACK }, 1);
    }

    pub(super) fn ended(&self, reason: EndReason) {
        self.0.add(ENDED + reason as usize, 1);
    }

    pub(super) fn refused(&self, error: ReserveError) {
        self.0.add(REFUSED + refusal_number(error), 1);
    }

    pub(super) fn mismatched(&self) {
        self.0.add(MISMATCHES, 1);
    }

    pub(super) fn mismatches(&self) -> u64 {
        self.0.sum(MISMATCHES)
    }

    pub(super) fn refusals(&self) -> Refusals {
        let of = |error| self.0.sum(REFUSED + refusal_number(error));
        Refusals {
            user_full: of(ReserveError::UserFull { max_managers: 0 }),
            tenant_full: of(ReserveError::TenantFull { max_managers: 0 }),
            pool_full: of(ReserveError::PoolFull { capacity: 0 }),
            thread_in_use: of(ReserveError::ThreadInUse),
            draining: of(ReserveError::Draining),
            session_panicked: of(ReserveError::SessionPanicked),
        }
    }

    /// The sums that a check needs.
    fn flow(&self) -> Flow {
        let sum = |first: usize, count: usize| (first..first + count).map(|cell| self.0.sum(cell)).sum();
        Flow {
            reserved: sum(RESERVED, 1),
            opened: sum(OPENED, Beginning::ALL.len()),
            unopened: sum(GIVEN_BACK, 2),
            ended: sum(ENDED, EndReason::ALL.len()),
        }
    }

    fn read(&self) -> Tally {
        let ends_by_reason: BTreeMap<_, _> = EndReason::ALL
            .iter()
            .map(|&reason| (reason.name(), self.0.sum(ENDED + reason as usize)))
            .filter(|&(_, count)| count > 0)
            .collect();
        let begins_by_cause: BTreeMap<_, _> = Beginning::ALL
            .iter()
            .map(|&how| (how.name(), self.0.sum(OPENED + how as usize)))
            .filter(|&(_, count)| count > 0)
            .collect();
        Tally {
            reserved: self.0.sum(RESERVED),
            inherited: self.0.sum(INHERITED),
            opened: begins_by_cause.values().sum(),
            begins_by_cause,
            given_back: self.0.sum(GIVEN_BACK),
            expired: self.0.sum(EXPIRED),
            ended: ends_by_reason.values().sum(),
            ends_by_reason,
        }
    }
}

fn refusal_number(error: ReserveError) -> usize {
    match error {
        ReserveError::UserFull { .. } => 0,
        ReserveError::PoolFull { .. } => 1,
        ReserveError::ThreadInUse => 2,
        ReserveError::Draining => 3,
        ReserveError::SessionPanicked => 4,
        ReserveError::TenantFull { .. } => 5,
    }
}

/// Reservations that were refused since the pool was built, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Refusals {
    /// The user had as many managers as allowed.
    pub user_full: u64,
    /// The users of the user's tenant had as many managers as allowed.
    pub tenant_full: u64,
    /// The pool was full.
    pub pool_full: u64,
    /// The thread was open, and duplicates are rejected.
    pub thread_in_use: u64,
    /// The pool was draining.
    pub draining: u64,
    /// The application's state could not be made.
    pub session_panicked: u64,
}

/// What began and what ended since the pool was built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Tally {
    /// Reservations that took a place, takeovers included once the old lease had ended.
    pub reserved: u64,
    /// Those of them that took over the place of a lease that ended: by takeover, at a limit, or on its
    /// own while it was claimed.
    pub inherited: u64,
    /// Reservations that became leases.
    pub opened: u64,
    /// Leases by how they began: on a place of their own (`fresh`), in place of the connection that was
    /// on their thread (`takeover`), or of one that the policy chose (`limit`).
    pub begins_by_cause: BTreeMap<&'static str, u64>,
    /// Reservations that were dropped or refused at opening.
    pub given_back: u64,
    /// Reservations that were taken back at their deadline.
    pub expired: u64,
    /// Leases that ended.
    pub ended: u64,
    /// Ended leases by [`EndReason`].
    pub ends_by_reason: BTreeMap<&'static str, u64>,
}

/// Whether the sources agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Verdict {
    /// They agree.
    Balanced,
    /// They differ while nothing moved: something leaked, or was cleaned twice. A bug: report it.
    Unbalanced,
    /// Connections came and went during every look: ask again.
    Busy,
}

/// One reading of the account. `leases = users_sum − reserved = isolation_keys`, and
/// `occupied_slots = reserved + live_slots + closing`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Ledger {
    /// Live leases by the books: opened less ended.
    pub leases: usize,
    /// Places in use by the users' counts, reserved and live.
    pub users_sum: usize,
    /// Places reserved, by the books.
    pub reserved: usize,
    /// Slots in use, by their headers: reserved, live and closing.
    pub occupied_slots: usize,
    /// Live slots, by their headers.
    pub live_slots: usize,
    /// Slots that wait for their last reader.
    pub closing: usize,
    /// Entries in the tables of isolation keys: one for each lease.
    pub isolation_keys: usize,
    /// Slots out of use that could not be replaced.
    pub quarantined: usize,
    /// What began and ended.
    pub tally: Tally,
    /// Whether all of that fits together.
    pub verdict: Verdict,
    /// `verdict` is [`Verdict::Balanced`].
    pub balanced: bool,
}

/// What the headers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Headers {
    reserved: usize,
    live: usize,
    closing: usize,
}

impl<S: Session> Core<S> {
    /// The account without its last proof: books, running sums and the slab's own count. Visits no slot
    /// and no user.
    pub(super) fn check(&self) -> Verdict {
        let mut last = None;
        for _ in 0..TURNS {
            let books = self.books.flow();
            let tables = self.registry.running_totals();
            let occupied = self.slab.occupied();
            let is_quiet = self.registry.running_totals() == tables && self.books.flow() == books;
            let agrees = books.opened.wrapping_sub(books.ended) == tables.live as u64
                && books.reserved.wrapping_sub(books.opened + books.unopened) == tables.reserved as u64
                && tables.live == tables.isolation_keys
                && tables.live + tables.reserved <= occupied;
            if is_quiet && agrees {
                return Verdict::Balanced;
            }
            // A difference counts only if it stands still.
            let seen = is_quiet.then_some((books, tables, occupied));
            if seen.is_some() && seen == last {
                return Verdict::Unbalanced;
            }
            last = seen;
            std::thread::yield_now();
        }
        Verdict::Busy
    }

    /// Reads the account until two looks in a row are equal. Visits every slot and every user.
    pub(super) fn ledger(&self) -> Ledger {
        let mut ledger = self.read_ledger();
        let mut is_standing = false;
        for _ in 0..TURNS {
            if ledger.balanced || (is_standing && ledger.verdict == Verdict::Unbalanced) {
                return ledger;
            }
            std::thread::yield_now();
            let again = self.read_ledger();
            is_standing = again == ledger;
            ledger = again;
        }
        if !is_standing && ledger.verdict == Verdict::Unbalanced {
            ledger.verdict = Verdict::Busy; // a difference counts only if it stands still
        }
        ledger
    }

    /// Books, tables, headers, tables, books: if both pairs are equal, no section ran between.
    fn read_ledger(&self) -> Ledger {
        let tally = self.books.read();
        let tables = self.registry.totals();
        let headers = self.read_headers();
        let is_quiet = self.registry.totals() == tables && self.books.read() == tally;
        let difference =
            |begun: u64, ended: u64| usize::try_from(begun.wrapping_sub(ended)).unwrap_or(usize::MAX);
        let leases = difference(tally.opened, tally.ended);
        let reserved = difference(tally.reserved, tally.opened + tally.given_back + tally.expired);
        let verdict = match is_quiet {
            true if agree(leases, reserved, tables, headers) => Verdict::Balanced,
            // A closing slot may be on its way to an heir who is counted already.
            true if is_handover(reserved, headers) => Verdict::Busy,
            true => Verdict::Unbalanced,
            false => Verdict::Busy,
        };
        Ledger {
            leases,
            reserved,
            users_sum: tables.reserved + tables.live,
            occupied_slots: headers.reserved + headers.live + headers.closing,
            live_slots: headers.live,
            closing: headers.closing,
            isolation_keys: tables.isolation_keys,
            quarantined: self.slab.quarantined(),
            tally,
            verdict,
            balanced: verdict == Verdict::Balanced,
        }
    }

    fn read_headers(&self) -> Headers {
        let mut headers = Headers::default();
        let mut cursor = Cursor::default();
        let mut count = |_: Key, state, has_heir: bool| match state {
            State::Live => headers.live += 1,
            // Its heir is in the user's count already.
            State::Closing if !has_heir => headers.closing += 1,
            _ => headers.reserved += 1,
        };
        while self.slab.walk(&mut cursor, BATCH, |glance| glance.notes.heir().is_some(), &mut count) {}
        headers
    }
}

fn agree(leases: usize, reserved: usize, tables: Totals, headers: Headers) -> bool {
    leases == tables.live
        && leases == headers.live
        && leases == tables.isolation_keys
        && reserved == tables.reserved
        && reserved == headers.reserved
}

fn is_handover(reserved: usize, headers: Headers) -> bool {
    headers.reserved < reserved && reserved <= headers.reserved + headers.closing
}
