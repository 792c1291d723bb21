//! The parts that both configuration files have: `[eal]` and `[report]`.
//!
//! Holds always, in a value that `parse` or `load` returned: `lcores` is neither empty nor repeats a core, and the report's
//! interval is at least 100 ms.

use std::path::PathBuf;
use std::time::Duration;

/// `[eal]`: how DPDK's environment abstraction layer is brought up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eal {
    /// CPU numbers of the workers, in the order given; not empty, no duplicates, each below 1024 (`CPU_SETSIZE`).
    pub lcores: Vec<usize>,
    /// Where packet memory comes from.
    pub memory: Memory,
    /// What a worker does when its polls come back empty; `None` leaves it to the driver (software drivers sleep).
    pub idle: Option<Idle>,
}

/// `eal.memory`: where packet memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Hugepages, through EAL's `--in-memory`: no hugetlbfs mount is needed and nothing is left behind.
    Hugepages,
    /// Ordinary pages, EAL's `--no-huge`: for trying things out with software drivers.
    NoHuge,
}

/// `eal.idle`: what a worker does when its polls come back empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Polls again at once: lowest latency, a whole core.
    Spin,
    /// Gives the core back for a moment.
    Sleep,
}

/// `[report]`: what is written about the run, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Time between two reports, at least 100 ms.
    pub interval: Duration,
    /// The file the report is written to, as given: a relative path starts at the working directory.
    pub json: PathBuf,
}
