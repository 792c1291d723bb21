//! Hugepages that a test reserves, with the project's own script, and gives back.

use std::path::Path;
use std::process::Command;

/// Where the kernel counts pages of 2 MiB.
const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

fn count(file: &str) -> u64 {
    std::fs::read_to_string(Path::new(PAGES).join(file))
        .ok()
        .and_then(|n| n.trim().parse().ok())
        .unwrap_or(0)
}

fn script(args: &[&str]) -> bool {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/hugepages.sh");
    Command::new(script)
        .args(args)
        .status()
        .is_ok_and(|status| status.success())
}

/// Pages of 2 MiB that nobody uses.
pub fn free() -> u64 {
    count("free_hugepages")
}

/// Pages that are given back when this is dropped.
#[derive(Debug)]
pub struct Reserved {
    before: u64,
}

impl Reserved {
    /// This many pages of 2 MiB more than there are. `None` if they cannot be had.
    pub fn more(pages: u64) -> Option<Self> {
        let reserved = Self {
            before: count("nr_hugepages"),
        };
        let total = (reserved.before + pages).to_string();
        script(&["reserve", "--size", "2M", "--count", &total]).then_some(reserved)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // Pages that were there before are another's.
        let _ = if self.before == 0 {
            script(&["release", "--size", "2M"])
        } else {
            let file = Path::new(PAGES).join("nr_hugepages");
            std::fs::write(file, self.before.to_string()).is_ok()
        };
    }
}
