//! Decisions only: figures and the present moment in, a decision out. No I/O, no lock, no clock, so
//! that each can be tested in virtual time. The pool asks, and acts.

mod due;
mod level;
mod monitor;

pub use due::Strategy;
pub(crate) use due::{Figures, Rules};
pub use level::AlertLevel;
pub(crate) use monitor::{Action, Change, Load, Watch};
