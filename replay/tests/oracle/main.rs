//! The session core against an independent TCP: smoltcp is the target, over a wire with loss,
//! delay, duplicates, reordering and damage, in virtual time.
//!
//! Everything follows from a seed: one conversation or several on one core, their faults on the
//! mirror, the wire's faults, the target's window, MTU, options and manners. `ORACLE_SEEDS=n` runs
//! the first `n` seeds, `ORACLE_SEED=n` replays one of them and tells what happens.
#![allow(clippy::expect_used, clippy::panic)] // All of it is a test; clippy only knows functions that are marked as one.

mod mirror;
mod packet;
mod plan;
mod script;
mod stray;
mod target;
mod verdict;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use tests::rng;
use world::World;

/// Seeds that are run unless something else is asked for.
const SEEDS: u64 = 10_000;
/// Tests that share them, so that every CPU can have some.
const PARTS: u64 = 4;

fn run(seed: u64, trace: bool) {
    let mut world = World::new(seed, trace);
    world.run();
    verdict::check(&world);
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the seeds of a part. One that is asked for by name is run by the first part.
fn part(k: u64) {
    if let Some(seed) = from_env("ORACLE_SEED") {
        if k == 0 {
            run(seed, true);
        }
        return;
    }
    let seeds = from_env("ORACLE_SEEDS").unwrap_or(SEEDS);
    let mut failed = Vec::new();
    for seed in (k..seeds).step_by(PARTS as usize) {
        if catch_unwind(AssertUnwindSafe(|| run(seed, false))).is_err() {
            eprintln!("that was seed {seed}: ORACLE_SEED={seed} replays it");
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds failed here: {failed:?}",
        failed.len()
    );
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn the_target_receives_what_the_clients_said_1() {
    part(0);
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn the_target_receives_what_the_clients_said_2() {
    part(1);
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn the_target_receives_what_the_clients_said_3() {
    part(2);
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn the_target_receives_what_the_clients_said_4() {
    part(3);
}
