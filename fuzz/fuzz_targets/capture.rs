//! The fuzz target `capture`: what it does stands in `src/capture.rs`.
#![no_main]

#[path = "../src/capture.rs"]
mod capture;

libfuzzer_sys::fuzz_target!(|data: &[u8]| capture::run(data));
