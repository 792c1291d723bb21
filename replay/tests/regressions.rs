//! What the fuzzer once found stays found: its kept inputs, judged as the fuzz target judges them.
#![allow(clippy::expect_used, clippy::panic)] // All of it is a test; clippy only knows functions that are marked as one.

#[path = "../../fuzz/src/saved.rs"]
mod saved;
#[path = "../../fuzz/src/session.rs"]
mod session;

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn kept_sessions_do_no_harm() {
    saved::judge("session", session::run);
}
