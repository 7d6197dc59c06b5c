//! `serve` over real sockets, and over sockets that do what a test wants.

#[cfg(feature = "axum")]
mod axum_door;
mod blocked;
mod cancelled;
mod drain;
mod ends;
mod failing;
mod flow;
mod keeping;
mod lifetimes;
mod porch;
mod room;
mod runtimes;
mod scripted;
mod support;
