//! `cargo +nightly fuzz run config`
#![no_main]

#[path = "../scenarios/config.rs"]
mod scenario;

libfuzzer_sys::fuzz_target!(|data: &[u8]| scenario::run(data));
