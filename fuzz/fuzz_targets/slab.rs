//! `cargo +nightly fuzz run slab`
#![no_main]

#[path = "../scenarios/slab.rs"]
mod scenario;

libfuzzer_sys::fuzz_target!(|data: &[u8]| scenario::run(data));
