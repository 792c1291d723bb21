//! The fuzz target `options`: what it does stands in `src/options.rs`.
#![no_main]

#[path = "../src/options.rs"]
mod options;

libfuzzer_sys::fuzz_target!(|data: &[u8]| options::run(data));
