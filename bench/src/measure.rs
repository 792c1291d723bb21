//! Clocks, memory and allocations of this process.

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// CPU time of the calling thread in nanoseconds. Unlike the clock on the wall it does not count
/// what other processes take.
pub fn thread_cpu() -> u64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Memory of this process that is resident, in bytes.
pub fn resident() -> Result<u64> {
    bytes_in("/proc/self/smaps_rollup", "Rss:")
}

/// Memory of the machine that can be had without swapping, in bytes.
pub fn available() -> Result<u64> {
    bytes_in("/proc/meminfo", "MemAvailable:")
}

/// What the kernel says in the line `name` of a file in which amounts are in KiB (proc_meminfo(5)).
fn bytes_in(path: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{path} cannot be read"))?;
    let kib = text
        .lines()
        .find_map(|l| l.strip_prefix(name)?.split_whitespace().next())
        .and_then(|n| n.parse::<u64>().ok())
        .with_context(|| format!("{path} has no line \"{name} <n> kB\""))?;
    Ok(kib * 1024)
}

/// Counts what is taken from the heap while it lives: every call of the Rust allocator, by any
/// thread.
pub struct Allocations(Region<'static, System>);

impl Allocations {
    /// Begins to count.
    pub fn begin() -> Self {
        Self(Region::new(GLOBAL))
    }

    /// Blocks allocated or grown since then.
    pub fn count(&self) -> u64 {
        let change = self.0.change();
        (change.allocations + change.reallocations) as u64
    }
}

/// Middle, least and greatest of several measurements.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of these; all zero if there are none.
    pub fn of(values: &[f64]) -> Self {
        let mut v = values.to_vec();
        v.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (v.first(), v.last()) else {
            return Self::default();
        };
        let half = v.len() / 2;
        let median = if v.len().is_multiple_of(2) {
            (v[half - 1] + v[half]) / 2.0
        } else {
            v[half]
        };
        Self {
            median,
            min: *min,
            max: *max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        let s = Spread::of(&[5.0, 1.0, 3.0]);
        assert_eq!((s.median, s.min, s.max), (3.0, 1.0, 5.0));
        assert_eq!(Spread::of(&[4.0, 2.0]).median, 3.0);
        assert_eq!(Spread::of(&[]).max, 0.0);
    }

    #[test]
    fn resident_memory_grows_by_what_is_touched() {
        // Other tests of this process take and free some tens of MiB meanwhile.
        let before = resident().unwrap();
        let block = vec![1u8; 256 << 20];
        let grown = resident().unwrap().saturating_sub(before);
        assert!(grown > 100 << 20, "{grown}");
        drop(block);
    }

    #[test]
    fn allocations_are_counted() {
        let a = Allocations::begin();
        let v = vec![0u8; 10];
        assert!(a.count() >= 1);
        drop(v);
    }
}
