//! The state of one connection: a single atomic word that moves by named transitions only.
//!
//! | bits | meaning |
//! | --- | --- |
//! | 0–2 | phase: 0 Disconnected, 1 Connecting, 2 Connected, 3 Closing, 4 Errored |
//! | 3 | Errored only: the error struck while Closing, so the connection does not come back |
//! | 4–63 | Errored only: the time of the error in milliseconds |
//!
//! State and time of the error share the word, so a reader that races with a transition sees a
//! time that belongs to the state it sees.
//!
//! Every access is `Relaxed`: the word is the whole message and publishes no other memory. That a
//! state belongs to the connection somebody means is shown by the slot's header, whose orderings
//! are the slab's.

use crate::clock::Timestamp;
use crate::sync::{AtomicU64, Ordering};
use std::error::Error;
use std::fmt;

/// Where a connection is in its life.
///
/// `Connecting → Connected → Closing → Disconnected`, and `Errored` from any of the first three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum ManagerState {
    /// The lease is open, the socket is not driven yet.
    Connecting,
    /// Messages flow.
    Connected,
    /// The close handshake has begun; the outbound queue takes nothing more.
    Closing,
    /// The socket is gone. The only state in which a manager may be reused.
    Disconnected,
    /// Something failed; a later success clears it, a long wait makes the manager due.
    Errored,
}

impl fmt::Display for ManagerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Closing => "closing",
            Self::Disconnected => "disconnected",
            Self::Errored => "errored",
        })
    }
}

/// A transition that the protocol does not have. Nothing was changed: go on from `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidTransition {
    /// The state the manager was in, and still is.
    pub from: ManagerState,
    /// The state that was asked for.
    pub to: ManagerState,
}

impl fmt::Display for InvalidTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a manager that is {} cannot become {}", self.from, self.to)
    }
}

impl Error for InvalidTransition {}

/// The word. A new cell is `Disconnected`.
#[derive(Default)]
pub(super) struct StateCell(AtomicU64);

impl StateCell {
    /// Wait-free.
    pub(super) fn state(&self) -> ManagerState {
        self.phase().state()
    }

    /// The time of the error while the state is `Errored`. Wait-free.
    pub(super) fn errored_at(&self) -> Option<Timestamp> {
        match self.phase() {
            Phase::Errored { at, .. } => Some(at),
            _ => None,
        }
    }

    /// A new life begins, whatever the last one left. For the slab's exclusive phases.
    pub(super) fn restart(&self) {
        self.0.store(Phase::Connecting.pack(), Ordering::Relaxed);
    }

    /// The life is over, in whatever state. For the slab's exclusive phases.
    pub(super) fn end(&self) {
        self.0.store(Phase::Disconnected.pack(), Ordering::Relaxed);
    }

    /// The socket works: `Connecting` or `Errored` to `Connected`. An error that struck while
    /// `Closing` is not cleared by it: a closing connection does not come back.
    pub(super) fn connected(&self) -> Result<(), InvalidTransition> {
        self.transition(ManagerState::Connected, |phase| match phase {
            Phase::Connecting | Phase::Errored { closing: false, .. } => Some(Phase::Connected),
            _ => None,
        })
    }

    /// The close handshake begins: `Connected` or `Errored` to `Closing`.
    pub(super) fn closing(&self) -> Result<(), InvalidTransition> {
        self.transition(ManagerState::Closing, |phase| match phase {
            Phase::Connected | Phase::Errored { .. } => Some(Phase::Closing),
            _ => None,
        })
    }

    /// The socket is gone: `Closing` or `Errored` to `Disconnected`.
    pub(super) fn disconnected(&self) -> Result<(), InvalidTransition> {
        self.transition(ManagerState::Disconnected, |phase| match phase {
            Phase::Closing | Phase::Errored { .. } => Some(Phase::Disconnected),
            _ => None,
        })
    }

    /// Something failed at `now`. A second error is refused, so the time stays that of the first.
    pub(super) fn errored(&self, now: Timestamp) -> Result<(), InvalidTransition> {
        self.transition(ManagerState::Errored, |phase| match phase {
            Phase::Connecting | Phase::Connected => Some(Phase::Errored { at: now, closing: false }),
            Phase::Closing => Some(Phase::Errored { at: now, closing: true }),
            _ => None,
        })
    }

    fn phase(&self) -> Phase {
        Phase::unpack(self.0.load(Ordering::Relaxed))
    }

    /// Lock-free: a round is repeated only because another transition went through.
    fn transition(
        &self,
        to: ManagerState,
        step: impl Fn(Phase) -> Option<Phase>,
    ) -> Result<(), InvalidTransition> {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let phase = Phase::unpack(seen);
            let next = step(phase).ok_or(InvalidTransition { from: phase.state(), to })?;
            match self.0.compare_exchange(seen, next.pack(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(newer) => seen = newer,
            }
        }
    }
}

/// The word, taken apart.
#[derive(Clone, Copy)]
enum Phase {
    Disconnected,
    Connecting,
    Connected,
    Closing,
    Errored { at: Timestamp, closing: bool },
}

impl Phase {
    const TIME_SHIFT: u32 = 4;
    const LATEST: u64 = u64::MAX >> Self::TIME_SHIFT;

    fn pack(self) -> u64 {
        match self {
            Self::Disconnected => 0,
            Self::Connecting => 1,
            Self::Connected => 2,
            Self::Closing => 3,
            Self::Errored { at, closing } => {
                4 | u64::from(closing) << 3 | at.as_millis().min(Self::LATEST) << Self::TIME_SHIFT
            }
        }
    }

    fn unpack(word: u64) -> Self {
        match word & 0b111 {
            0 => Self::Disconnected,
            1 => Self::Connecting,
            2 => Self::Connected,
            3 => Self::Closing,
            _ => Self::Errored {
                at: Timestamp::from_millis(word >> Self::TIME_SHIFT),
                closing: word & 0b1000 != 0,
            },
        }
    }

    fn state(self) -> ManagerState {
        match self {
            Self::Disconnected => ManagerState::Disconnected,
            Self::Connecting => ManagerState::Connecting,
            Self::Connected => ManagerState::Connected,
            Self::Closing => ManagerState::Closing,
            Self::Errored { .. } => ManagerState::Errored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ManagerState::*;

    const NOON: Timestamp = Timestamp::from_millis(12 * 3_600_000);
    const LATER: Timestamp = Timestamp::from_millis(13 * 3_600_000);

    /// A cell that was led to `state` by legal steps.
    fn cell_in(state: ManagerState) -> StateCell {
        let cell = StateCell::default();
        cell.restart();
        let steps: &[ManagerState] = match state {
            Connecting => &[],
            Connected => &[Connected],
            Closing => &[Connected, Closing],
            Disconnected => &[Connected, Closing, Disconnected],
            Errored => &[Connected, Errored],
        };
        for step in steps {
            ask(&cell, *step).expect("the steps are legal");
        }
        cell
    }

    fn ask(cell: &StateCell, to: ManagerState) -> Result<(), InvalidTransition> {
        match to {
            Connecting => Err(InvalidTransition { from: cell.state(), to }),
            Connected => cell.connected(),
            Closing => cell.closing(),
            Disconnected => cell.disconnected(),
            Errored => cell.errored(NOON),
        }
    }

    #[test]
    fn exactly_the_transitions_of_the_protocol_are_taken() {
        let legal = [
            (Connecting, Connected),
            (Connecting, Errored),
            (Connected, Closing),
            (Connected, Errored),
            (Closing, Disconnected),
            (Closing, Errored),
            (Errored, Connected),
            (Errored, Closing),
            (Errored, Disconnected),
        ];
        let all = [Connecting, Connected, Closing, Disconnected, Errored];
        for from in all {
            for to in all {
                let cell = cell_in(from);
                assert_eq!(cell.state(), from);
                let answer = ask(&cell, to);
                if legal.contains(&(from, to)) {
                    assert_eq!(answer, Ok(()), "{from} to {to}");
                    assert_eq!(cell.state(), to);
                } else {
                    assert_eq!(answer, Err(InvalidTransition { from, to }));
                    assert_eq!(cell.state(), from, "a refused transition changed the state");
                }
            }
        }
    }

    #[test]
    fn a_new_cell_is_reusable_and_not_connecting() {
        assert_eq!(StateCell::default().state(), Disconnected);
    }

    #[test]
    fn the_first_error_keeps_its_time_and_a_success_clears_it() {
        let cell = cell_in(Connected);
        assert_eq!(cell.errored_at(), None);
        cell.errored(NOON).unwrap();
        assert!(cell.errored(LATER).is_err());
        assert_eq!(cell.errored_at(), Some(NOON));
        cell.connected().unwrap();
        assert_eq!((cell.state(), cell.errored_at()), (Connected, None));
    }

    #[test]
    fn an_error_while_closing_does_not_bring_the_connection_back() {
        let cell = cell_in(Closing);
        cell.errored(NOON).unwrap();
        assert_eq!(cell.connected(), Err(InvalidTransition { from: Errored, to: Connected }));
        assert_eq!(cell.errored_at(), Some(NOON));
        cell.disconnected().unwrap();
        assert_eq!(cell.state(), Disconnected);
    }

    #[test]
    fn the_end_and_the_restart_need_no_permission() {
        for state in [Connecting, Connected, Closing, Disconnected, Errored] {
            let cell = cell_in(state);
            cell.end();
            assert_eq!((cell.state(), cell.errored_at()), (Disconnected, None));
            cell.restart();
            assert_eq!(cell.state(), Connecting);
        }
    }

    #[test]
    fn a_time_that_does_not_fit_is_the_latest_that_does() {
        let cell = cell_in(Closing);
        cell.errored(Timestamp::NEVER).unwrap();
        assert_eq!(cell.state(), Errored);
        assert_eq!(cell.errored_at(), Some(Timestamp::from_millis(u64::MAX >> 4)));
    }

    #[test]
    fn the_refusal_names_both_states() {
        let refusal = cell_in(Disconnected).connected().unwrap_err();
        assert_eq!(refusal.to_string(), "a manager that is disconnected cannot become connected");
    }
}
