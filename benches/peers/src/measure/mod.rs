//! What is measured, each for all contenders in turn within one run, so that a busy machine is busy for all.

pub mod contention;
pub mod hand_off;
pub mod instructions;
pub mod latency;
pub mod memory;
pub mod one_thread;
pub mod samples;

use serde::Serialize;

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Effort {
    /// Enough to see that it runs.
    Try,
    /// Enough for ratios: a minute or two.
    Quick,
    /// Enough for figures, on a machine that does nothing else.
    Full,
}

impl Effort {
    /// From the command line: `--full`; without `--bench`, which Cargo gives, it is only tried.
    pub fn of_arguments() -> Self {
        let given = |wanted| std::env::args().any(|argument| argument == wanted);
        match (given("--bench"), given("--full")) {
            (_, true) => Self::Full,
            (true, false) => Self::Quick,
            (false, false) => Self::Try,
        }
    }

    pub fn choose<T>(self, [try_it, quick, full]: [T; 3]) -> T {
        match self {
            Self::Try => try_it,
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}
