//! The scenarios in which servers leaked managers, over the real pool. Each ends with nothing left.

// Open sockets are counted in /proc.
#![cfg(target_os = "linux")]

mod crowd;
mod limits;
mod mismatch;
mod processes;
mod race;
mod stage;
#[path = "../serve/support.rs"]
mod support;
mod tabs;
