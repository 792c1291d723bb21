//! What the fuzzer once found stays found: its kept inputs, judged as the fuzz target judges them.
#![allow(clippy::expect_used, clippy::panic)] // All of it is a test; clippy only knows functions that are marked as one.

#[path = "../../fuzz/src/link.rs"]
mod link;
#[path = "../../fuzz/src/saved.rs"]
mod saved;

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn kept_links_do_no_harm() {
    saved::judge("link", link::run);
}
