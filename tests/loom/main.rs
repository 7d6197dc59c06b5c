//! Models of the slab's races, one file for each, run on the code that ships:
//!
//! ```text
//! RUSTFLAGS="--cfg pool_loom" cargo test --release --manifest-path models/Cargo.toml --test loom
//! ```
//!
//! What they cannot show:
//!
//! - loom misses interleavings of a load followed by a CAS of the same word. So each model runs with
//!   its roles in every order and at several preemption bounds, has a floor for its iterations, and
//!   should run a second time with `--cfg pool_loom_rmw` added, under which all accesses of a header
//!   are read-modify-writes. (Loads alone are not enough: loom may put a read-modify-write after a
//!   store that it has not seen, and so lose the store.)
//! - A page is never freed inside a model: `crossbeam-epoch` has a stand-in (`src/sync.rs`), which
//!   frees nothing. That pages outlive walks is for `models/tests/epoch.rs`, a model on the real epochs
//!   that needs a build of its own, and for AddressSanitizer on `tests/stress.rs`.
//! - Hints go through the bitmap only. Magazines are thread-local, so they have no races of their own.
//! - The chunks of frames come from `std::sync::OnceLock`, which loom does not see.
//!
//! - Locks stand in for `arc-swap` and `crossbeam`'s cell; what one of `crossbeam`'s queues does is one
//!   step. ThreadSanitizer sees the real ones in `tests/stress.rs`.
//!
//! The leased buffers are not public: their models are beside them, in `src/manager/bytes/on/models.rs`,
//! and run with `cargo test --release --features serve --lib models`.
//!
//! `.ci/faults` shows that each model can fail.
#![cfg(all(pool_loom, not(pool_shuttle)))]

mod abort;
mod alarm;
mod claim;
mod close;
mod delivery;
mod ending;
mod expiry;
mod generation;
mod places;
mod pool_places;
mod probe;
mod publish;
mod race;
mod refusal;
mod settings;
mod shrink;
mod waiting;
mod walk;
mod winner;
