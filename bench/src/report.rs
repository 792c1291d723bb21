//! The table and the JSON file: ratios first, absolute figures beside them.

use crate::{device, memory, testpmd};
use serde::Serialize;
use std::fmt::Write;

/// Where it was measured.
#[derive(Serialize)]
pub struct Machine {
    cpu: String,
    cpus: usize,
    kernel: String,
    dpdk: &'static str,
    transparent_hugepages: String,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo")
            .lines()
            .find_map(|l| l.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown", |(_, name)| name.trim())
            .to_owned();
        let thp = read("/sys/kernel/mm/transparent_hugepage/enabled");
        Self {
            cpu,
            cpus: device::cpus().map_or(0, |c| c.len()),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            dpdk: dpdk::VERSION,
            transparent_hugepages: thp
                .split_once('[')
                .and_then(|(_, rest)| rest.split_once(']'))
                .map_or("unknown", |(mode, _)| mode)
                .to_owned(),
        }
    }
}

/// One line of the table.
#[derive(Serialize)]
pub struct Ratio {
    /// What is compared with what.
    pub what: String,
    /// First over second.
    pub ratio: f64,
    /// The absolute figures, which swing.
    pub figures: String,
}

/// Everything.
#[derive(Serialize)]
pub struct Report {
    /// True for the short run.
    pub quick: bool,
    /// Where.
    pub machine: Machine,
    /// Over ports in memory.
    pub memory: Vec<memory::Outcome>,
    /// Over DPDK's software drivers.
    pub device: Vec<device::Outcome>,
    /// DPDK's own forwarder over the same; empty if it is not installed.
    pub testpmd: Vec<testpmd::Outcome>,
    /// Comparisons.
    pub ratios: Vec<Ratio>,
    /// What could not be measured, or is not as it must be.
    pub failures: Vec<String>,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

impl Report {
    /// Nothing yet.
    pub fn new(quick: bool) -> Self {
        Self {
            quick,
            machine: Machine::here(),
            memory: Vec::new(),
            device: Vec::new(),
            testpmd: Vec::new(),
            ratios: Vec::new(),
            failures: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Compares what was measured, and finds what must not be.
    pub fn conclude(&mut self) {
        let allocating = self
            .memory
            .iter()
            .filter(|o| o.allocations > 0)
            .map(|o| {
                format!(
                    "{} sessions at {}: {} allocations in {} packets on the packet path, but there must be none",
                    name(o.kind),
                    o.sessions,
                    o.allocations,
                    o.packets
                )
            })
            .chain(self.device.iter().filter(|o| o.allocations > 0).map(|o| {
                format!(
                    "{:?} over {:?}: {} allocations in {} frames on the packet path, but there must be none",
                    o.case, o.source, o.allocations, o.frames
                )
            }))
            .collect::<Vec<_>>();
        self.failures.extend(allocating);
        let mut ratios = Vec::new();
        self.compare_memory(&mut ratios);
        self.compare_devices(&mut ratios);
        self.ratios = ratios;
    }

    fn compare_memory(&self, ratios: &mut Vec<Ratio>) {
        for o in &self.memory {
            ratios.push(Ratio {
                what: format!(
                    "CPU a packet, {} sessions, {} open: engine / decode and build alone",
                    name(o.kind),
                    round(o.sessions)
                ),
                ratio: o.net() / o.net_floor(),
                figures: format!(
                    "{:.0} ns / {:.0} ns ({:.2} M packets/s, {:.2} M mirrored/s, {:.0} k {}/s a core)",
                    o.net(),
                    o.net_floor(),
                    o.packets_per_second() / 1e6,
                    o.mirrored_per_second() / 1e6,
                    o.units_per_second() / 1e3,
                    match o.kind {
                        memory::Kind::Long => "requests",
                        memory::Kind::Short => "sessions",
                    }
                ),
            });
        }
        for kind in [memory::Kind::Long, memory::Kind::Short] {
            let mut of_kind = self.memory.iter().filter(|o| o.kind == kind);
            if let (Some(few), Some(many)) = (of_kind.next(), of_kind.next_back()) {
                ratios.push(Ratio {
                    what: format!(
                        "CPU a packet, {} sessions: {} open / {} open",
                        name(kind),
                        round(many.sessions),
                        round(few.sessions)
                    ),
                    ratio: many.net() / few.net(),
                    figures: format!("{:.0} ns / {:.0} ns", many.net(), few.net()),
                });
            }
        }
        for o in &self.memory {
            if let Some(bytes) = o.resident_per_session {
                ratios.push(Ratio {
                    what: format!(
                        "memory of an idle session, {} open: resident / as the core counts",
                        round(o.sessions)
                    ),
                    ratio: bytes as f64 / o.counted_per_session as f64,
                    figures: format!("{bytes} bytes / {} bytes", o.counted_per_session),
                });
            }
        }
    }

    fn compare_devices(&self, ratios: &mut Vec<Ratio>) {
        for o in &self.device {
            let (driver, what) = match (o.source, o.case) {
                (device::Source::Null, device::Case::Swap) => {
                    ("net_null", "our receive and send, addresses exchanged")
                }
                (device::Source::Pcap, device::Case::Swap) => {
                    ("net_pcap", "our receive and send, addresses exchanged")
                }
                (device::Source::Null, device::Case::Engine) => (
                    "net_null",
                    "engine, frames of zeros: receive and refuse alone",
                ),
                (device::Source::Pcap, device::Case::Engine) => {
                    ("net_pcap", "engine, short sessions: receive, replay, send")
                }
            };
            let own = o.cpu_ns - o.target_ns;
            let figures = format!(
                "{own:.0} ns a frame ({:.2} M frames/s in this run)",
                o.frames as f64 / o.seconds / 1e6
            );
            let Some(t) = self.testpmd.iter().find(|t| t.source == o.source) else {
                ratios.push(Ratio {
                    what: format!(
                        "CPU a mirrored frame, {driver}: {what} (no testpmd to compare with)"
                    ),
                    ratio: f64::NAN,
                    figures,
                });
                continue;
            };
            ratios.push(Ratio {
                what: format!("CPU a mirrored frame, {driver}: {what} / testpmd macswap"),
                ratio: own / t.cpu_ns,
                figures: format!(
                    "{figures} / {:.0} ns ({:.2} M frames/s)",
                    t.cpu_ns,
                    t.frames as f64 / t.seconds / 1e6
                ),
            });
        }
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let m = &self.machine;
        let _ = writeln!(
            text,
            "{} x {}, Linux {}, DPDK {}, transparent hugepages: {}\n\
             Ratios hold; absolute figures swing with what else the machine does. Time is CPU time of the one core measured.\n\
             A packet is a frame received from the mirror, received from the target, or sent. The bench's own traffic and target are taken off.\n",
            m.cpus, m.cpu, m.kernel, m.dpdk, m.transparent_hugepages
        );
        for r in &self.ratios {
            let ratio = if r.ratio.is_finite() {
                format!("{:.2}", r.ratio)
            } else {
                "-".to_owned()
            };
            let _ = writeln!(text, "{ratio:>7}  {}\n         {}", r.what, r.figures);
        }
        let packets: u64 = self.memory.iter().map(|o| o.packets).sum();
        let frames: u64 = self.device.iter().map(|o| o.frames).sum();
        let allocations: u64 = self
            .memory
            .iter()
            .map(|o| o.allocations)
            .chain(self.device.iter().map(|o| o.allocations))
            .sum();
        let _ = writeln!(
            text,
            "{allocations:>7}  allocations in {packets} packets over ports in memory and {frames} frames over drivers"
        );
        for l in &self.left_out {
            let _ = writeln!(text, "left out: {l}");
        }
        for f in &self.failures {
            let _ = writeln!(text, "FAILED: {f}");
        }
        text
    }
}

fn name(kind: memory::Kind) -> &'static str {
    match kind {
        memory::Kind::Long => "long-lived",
        memory::Kind::Short => "short",
    }
}

/// A number of sessions, as people say it.
fn round(n: u64) -> String {
    match n {
        950_000.. => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.0} k", n as f64 / 1e3),
    }
}
