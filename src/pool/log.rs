//! The pool's log: lines for those who keep the server running, with the `tracing` feature, and nothing
//! without it. No line ever holds content of a message.
//!
//! A line runs a subscriber's code: it is told outside every lock, and a subscriber's panic stays here.

#[cfg(feature = "tracing")]
mod limit;
#[cfg(not(feature = "tracing"))]
mod off;
#[cfg(feature = "tracing")]
mod on;

#[cfg(not(feature = "tracing"))]
pub(super) use off::Log;
#[cfg(feature = "tracing")]
pub(super) use on::Log;
