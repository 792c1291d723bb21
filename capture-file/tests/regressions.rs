//! What the fuzz target `capture` has found, and inputs that reach far, judged again.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "an input that fails is to fail the test"
)]

#[path = "../../fuzz/src/capture.rs"]
mod capture;
#[path = "../../fuzz/src/saved.rs"]
mod saved;

#[test]
fn kept_inputs_of_the_fuzzer_hold() {
    saved::judge("capture", capture::run);
}
