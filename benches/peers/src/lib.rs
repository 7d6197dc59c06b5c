//! The pool beside its peers: what is measured, on what, and how it is printed.
//!
//! All in one table, with the goals: `cargo bench --manifest-path benches/peers/Cargo.toml --bench table`.
//! One part at a time, in place of `table`:
//!
//! | bench | what |
//! | --- | --- |
//! | `life`, `live`, `usual`, `send` | one thread, by Criterion: lives and their halves; churn, get and walk with 10,000 live; whole pools; a message |
//! | `contention` | two threads at once, only while both really run; hand-off from one to the other |
//! | `latency` | a single acquire with 4 threads at it, as a distribution |
//! | `instructions` | of the hot paths, under Valgrind |
//!
//! The program `memory` counts bytes and allocations: `cargo run --release --bin memory`.
//!
//! A peer is a [`place::Place`] in `peers/`, and a line in [`roster`]; the loops are the same for all
//! ([`row`]). This crate's own rows are in [`ours`].

#![allow(clippy::disallowed_methods)] // a benchmark reads the precise clock

pub mod floor;
pub mod goals;
pub mod machine;
pub mod measure;
pub mod ours;
pub mod peers;
pub mod place;
pub mod record;
pub mod render;
pub mod report;
pub mod roster;
pub mod row;
pub mod usual;
