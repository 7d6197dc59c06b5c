//! `cargo +nightly fuzz run engine`
#![no_main]

#[path = "../scenarios/engine.rs"]
mod scenario;

libfuzzer_sys::fuzz_target!(|data: &[u8]| scenario::run(data));
