//! The fuzz target `link`: what it does stands in `src/link.rs`.
#![no_main]

#[path = "../src/link.rs"]
mod link;

libfuzzer_sys::fuzz_target!(|data: &[u8]| link::run(data));
