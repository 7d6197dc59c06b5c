//! `cargo +nightly fuzz run handshake`
#![no_main]

#[path = "../scenarios/handshake.rs"]
mod scenario;

libfuzzer_sys::fuzz_target!(|data: &[u8]| scenario::run(data));
