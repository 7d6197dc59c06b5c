//! `cargo +nightly fuzz run pool`
#![no_main]

#[path = "../scenarios/pool.rs"]
mod scenario;

libfuzzer_sys::fuzz_target!(|data: &[u8]| scenario::run(data));
