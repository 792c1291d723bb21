//! Hugepages and NUMA nodes as sysfs shows them.
//!
//! DPDK takes memory for a device from the device's node, and some for itself from that of the
//! main lcore's CPU. Where there are no free hugepages it fails in words that do not say so, or
//! ends the process; so the nodes are looked at before.

use std::path::Path;

/// Hugepages of the machine or of a node, all sizes together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hugepages {
    /// Pages reserved.
    pub total: u64,
    /// Pages reserved and not in use.
    pub free: u64,
    /// Bytes in the free pages.
    pub free_bytes: u64,
    /// Bytes in all of them.
    pub total_bytes: u64,
}

impl Hugepages {
    /// What the kernel reports now. A machine without hugepage support has none.
    pub fn of_machine() -> Self {
        Self::read(Path::new("/sys/kernel/mm/hugepages"))
    }

    /// Reads a folder with one `hugepages-<size>kB` folder per size.
    fn read(folder: &Path) -> Self {
        let mut sum = Self::default();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let size = name.to_str().and_then(|n| {
                n.strip_prefix("hugepages-")?
                    .strip_suffix("kB")?
                    .parse::<u64>()
                    .ok()
            });
            let count = |file: &str| -> u64 {
                std::fs::read_to_string(entry.path().join(file))
                    .ok()
                    .and_then(|t| t.trim().parse().ok())
                    .unwrap_or(0)
            };
            if let Some(kib) = size {
                let (total, free) = (count("nr_hugepages"), count("free_hugepages"));
                let bytes = |pages: u64| pages.saturating_mul(kib).saturating_mul(1024);
                sum.total += total;
                sum.free += free;
                sum.free_bytes += bytes(free);
                sum.total_bytes += bytes(total);
            }
        }
        sum
    }
}

/// A NUMA node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub(crate) number: u32,
    /// Its CPUs, as the kernel writes them ("0-3,8").
    cpus: String,
    pub(crate) pages: Hugepages,
}

/// The machine's nodes; none if it has no NUMA.
pub(crate) fn nodes(sys: &Path) -> Vec<Node> {
    let entries = std::fs::read_dir(sys.join("devices/system/node"));
    let mut nodes: Vec<Node> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry
                .file_name()
                .to_str()?
                .strip_prefix("node")?
                .parse()
                .ok()?;
            let cpus = std::fs::read_to_string(entry.path().join("cpulist")).unwrap_or_default();
            Some(Node {
                number,
                cpus: cpus.trim().to_owned(),
                pages: Hugepages::read(&entry.path().join("hugepages")),
            })
        })
        .collect();
    nodes.sort_by_key(|n| n.number);
    nodes
}

/// The node of a CPU.
pub(crate) fn node_of_cpu(nodes: &[Node], cpu: usize) -> Option<u32> {
    let node = nodes.iter().find(|n| in_cpu_list(&n.cpus, cpu))?;
    Some(node.number)
}

/// The first of those who take memory from a node that has no free hugepages, and that node.
pub(crate) fn without_pages<'a>(
    nodes: &[Node],
    takers: impl IntoIterator<Item = (&'a str, Option<u32>)>,
) -> Option<(&'a str, u32)> {
    takers.into_iter().find_map(|(who, on)| {
        let node = nodes.iter().find(|n| Some(n.number) == on)?;
        (node.pages.free == 0).then_some((who, node.number))
    })
}

/// True if a list such as "0-3,8" has this CPU.
pub(crate) fn in_cpu_list(list: &str, cpu: usize) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((first.trim().parse::<usize>(), last.trim().parse::<usize>()), (Ok(a), Ok(b)) if (a..=b).contains(&cpu))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserve(folder: &Path, size: &str, total: &str, free: &str) {
        let folder = folder.join(format!("hugepages-{size}kB"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("nr_hugepages"), format!("{total}\n")).unwrap();
        std::fs::write(folder.join("free_hugepages"), format!("{free}\n")).unwrap();
    }

    #[test]
    fn cpu_lists_are_read_as_the_kernel_writes_them() {
        assert!(in_cpu_list("0-3,8", 0) && in_cpu_list("0-3,8", 3) && in_cpu_list("0-3,8", 8));
        assert!(!in_cpu_list("0-3,8", 4) && !in_cpu_list("", 0));
    }

    #[test]
    fn hugepages_of_all_sizes_are_summed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Hugepages::read(dir.path()), Hugepages::default());
        reserve(dir.path(), "2048", "4", "3");
        reserve(dir.path(), "1048576", "2", "1");
        let sum = Hugepages {
            total: 6,
            free: 4,
            free_bytes: 3 * (2 << 20) + (1 << 30),
            total_bytes: 4 * (2 << 20) + 2 * (1 << 30),
        };
        assert_eq!(Hugepages::read(dir.path()), sum);
    }

    #[test]
    fn a_node_without_pages_is_found_by_who_needs_it() {
        let sys = tempfile::tempdir().unwrap();
        for (node, cpus, free) in [("node0", "0-1\n", "0"), ("node1", "2-3\n", "5")] {
            let folder = sys.path().join("devices/system/node").join(node);
            reserve(&folder.join("hugepages"), "2048", "5", free);
            std::fs::write(folder.join("cpulist"), cpus).unwrap();
        }
        let nodes = nodes(sys.path());
        assert_eq!(nodes.len(), 2);
        let on = |cpu| node_of_cpu(&nodes, cpu);
        assert_eq!((on(1), on(2), on(9)), (Some(0), Some(1), None));
        let takers = [("unknown", None), ("nic", Some(1)), ("main", Some(0))];
        assert_eq!(without_pages(&nodes, takers), Some(("main", 0)));
        assert_eq!(without_pages(&nodes, takers[..2].iter().copied()), None);
        assert_eq!(without_pages(&[], takers), None, "no NUMA");
    }
}
