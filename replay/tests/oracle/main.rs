//! The session core against an independent TCP: smoltcp is the target, over a wire with loss, delay, duplicates and reordering, in virtual time.
//!
//! Everything follows from a seed: the conversation, its faults on the mirror, the wire's faults, the target's window, MTU and manners.
//! `ORACLE_SEEDS=n` runs the first `n` seeds, `ORACLE_SEED=n` replays one of them and tells what happens.
#![allow(clippy::expect_used, clippy::panic)] // All of it is a test; clippy only knows functions that are marked as one.

mod packet;
mod plan;
mod rng;
mod script;
mod target;
mod verdict;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

const SEEDS: u64 = 2_000;

fn run(seed: u64, trace: bool) {
    let mut world = World::new(seed, trace);
    world.run();
    verdict::check(&world);
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn the_target_receives_what_the_client_said() {
    if let Some(seed) = from_env("ORACLE_SEED") {
        run(seed, true);
        return;
    }
    let seeds = from_env("ORACLE_SEEDS").unwrap_or(SEEDS);
    let mut failed = Vec::new();
    for seed in 0..seeds {
        if catch_unwind(AssertUnwindSafe(|| run(seed, false))).is_err() {
            eprintln!("that was seed {seed}: ORACLE_SEED={seed} replays it");
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds failed: {failed:?}",
        failed.len()
    );
}
