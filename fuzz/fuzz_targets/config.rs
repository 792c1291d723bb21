//! The fuzz target `config`: what it does stands in `src/config.rs`.
#![no_main]

#[path = "../src/config.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|data: &[u8]| config::run(data));
