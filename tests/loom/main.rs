//! Models of the slab's races, one file for each, run on the code that ships:
//!
//! ```text
//! RUSTFLAGS="--cfg pool_loom" cargo test --release --test loom
//! ```
//!
//! What they cannot show:
//!
//! - loom misses interleavings of a load followed by a CAS of the same word. So each model runs with
//!   its roles in every order and at several preemption bounds, has a floor for its iterations, and
//!   should run a second time with `--cfg pool_loom_rmw` added, under which all accesses of a header
//!   are read-modify-writes. (Loads alone are not enough: loom may put a read-modify-write after a
//!   store that it has not seen, and so lose the store.)
//! - A page is never freed inside a model: `crossbeam-epoch` has a stand-in (`src/sync.rs`). That
//!   pages outlive walks is for the sanitizers and for `tests/slab.rs`.
//! - Hints go through the bitmap only. Magazines are thread-local, so they have no races of their own.
//! - The chunks of frames come from `std::sync::OnceLock`, which loom does not see.
//!
//! `.ci/faults` shows that each model can fail.
#![cfg(pool_loom)]

mod abort;
mod claim;
mod close;
mod generation;
mod pool_places;
mod probe;
mod publish;
mod race;
mod refusal;
mod shrink;
mod walk;
mod winner;
