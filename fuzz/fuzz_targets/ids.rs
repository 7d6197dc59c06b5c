//! `cargo +nightly fuzz run ids`
#![no_main]

#[path = "../scenarios/ids.rs"]
mod scenario;

libfuzzer_sys::fuzz_target!(|data: &[u8]| scenario::run(data));
