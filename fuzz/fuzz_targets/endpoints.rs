//! `cargo +nightly fuzz run endpoints`
#![no_main]

#[path = "../scenarios/endpoints.rs"]
mod scenario;

libfuzzer_sys::fuzz_target!(|data: &[u8]| scenario::run(data));
