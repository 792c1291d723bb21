//! The table and the JSON file: ratios first, absolute figures beside them.

use crate::measure::Spread;
use crate::{device, flood, memory, reader, testpmd};
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
    /// First over second: median, least and greatest of the pairs that were measured next to one
    /// another. `None`: nothing to compare with.
    pub ratio: Option<Spread>,
    /// How many pairs.
    pub pairs: usize,
    /// The absolute figures, which swing.
    pub figures: String,
}

/// What was measured over one driver, one after the other.
#[derive(Serialize)]
pub struct Round {
    /// Where frames came from.
    pub source: device::Source,
    /// DPDK's own forwarder, if it is installed.
    pub testpmd: Option<testpmd::Outcome>,
    /// The crate `dpdk` alone.
    pub swap: Option<device::Outcome>,
    /// The engine.
    pub engine: Option<device::Outcome>,
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
    /// The same with one transfer and with many, round by round.
    pub transfers: Vec<(memory::Outcome, memory::Outcome)>,
    /// The same beside a flood of SYNs.
    pub flood: Option<flood::Outcome>,
    /// Of capture files.
    pub reader: Option<reader::Outcome>,
    /// Over DPDK's software drivers, round by round.
    pub device: Vec<Round>,
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
            transfers: Vec::new(),
            flood: None,
            reader: None,
            device: Vec::new(),
            ratios: Vec::new(),
            failures: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Compares what was measured, and finds what must not be.
    pub fn conclude(&mut self) {
        let pairs = self.transfers.iter().flat_map(|(one, many)| [one, many]);
        let allocating = self
            .memory
            .iter()
            .chain(pairs)
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
            .chain(self.device_outcomes().filter(|o| o.allocations > 0).map(|o| {
                format!(
                    "{:?} over {:?}: {} allocations in {} frames on the packet path, but there must be none",
                    o.case, o.source, o.allocations, o.frames
                )
            }))
            .collect::<Vec<_>>();
        self.failures.extend(allocating);
        let mut ratios = Vec::new();
        self.compare_memory(&mut ratios);
        self.compare_transfers(&mut ratios);
        self.compare_readers(&mut ratios);
        self.compare_devices(&mut ratios);
        self.ratios = ratios;
    }

    fn device_outcomes(&self) -> impl Iterator<Item = &device::Outcome> {
        self.device
            .iter()
            .flat_map(|r| r.swap.iter().chain(&r.engine))
    }

    fn compare_memory(&self, ratios: &mut Vec<Ratio>) {
        for o in &self.memory {
            ratios.push(Ratio {
                what: format!(
                    "CPU a packet, {} sessions, {} open: engine / decode and build alone",
                    name(o.kind),
                    round(o.sessions)
                ),
                ratio: Some(o.ratio),
                pairs: o.windows,
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
                        "CPU a packet, {} sessions: {} open / {} open, each over its own floor",
                        name(kind),
                        round(many.sessions),
                        round(few.sessions)
                    ),
                    ratio: Some(Spread::of(&[many.ratio.median / few.ratio.median])),
                    pairs: 1,
                    figures: format!("{:.0} ns / {:.0} ns", many.net(), few.net()),
                });
            }
        }
        if let Some(o) = &self.flood {
            ratios.push(Ratio {
                what: format!(
                    "throughput, long-lived sessions, {} open: beside {} SYNs a second / without them",
                    round(o.sessions),
                    round(flood::RATE)
                ),
                ratio: Some(o.throughput),
                pairs: o.windows,
                figures: format!("{:.0} ns a SYN, of {} SYNs", o.syn_ns.median, round(o.syns)),
            });
        }
        for o in &self.memory {
            if let Some(bytes) = o.resident_per_session {
                let ratio = bytes as f64 / o.counted_per_session as f64;
                ratios.push(Ratio {
                    what: format!(
                        "memory of an idle session, {} open: resident / as the core counts",
                        round(o.sessions)
                    ),
                    ratio: Some(Spread::of(&[ratio])),
                    pairs: 1,
                    figures: format!("{bytes} bytes / {} bytes", o.counted_per_session),
                });
            }
        }
    }

    fn compare_transfers(&self, ratios: &mut Vec<Ratio>) {
        let each: Vec<f64> = self
            .transfers
            .iter()
            .map(|(one, many)| many.ratio.median / one.ratio.median)
            .collect();
        let Some((one, many)) = self.transfers.last() else {
            return;
        };
        ratios.push(Ratio {
            what: format!(
                "CPU a packet, long-lived sessions: {} transfers / one, each over its own floor",
                many.transfers
            ),
            ratio: Some(Spread::of(&each)),
            pairs: each.len(),
            figures: format!("{:.0} ns / {:.0} ns", many.net(), one.net()),
        });
    }

    fn compare_readers(&self, ratios: &mut Vec<Ratio>) {
        type Pick = fn(&reader::Round) -> Option<f64>;
        let buffers: Pick = |r| Some(r.buffers);
        let alone: Pick = |r| Some(r.alone);
        let net_pcap: Pick = |r| Some(r.net_pcap);
        let tcpdump: Pick = |r| r.tcpdump;
        for (ours, theirs, what) in [
            (buffers, net_pcap, "into buffers / net_pcap"),
            (
                alone,
                tcpdump,
                "read and put in order / tcpdump -r -w /dev/null",
            ),
        ] {
            let Some(o) = &self.reader else { return };
            let pairs = o.rounds.iter().filter_map(|r| Some((ours(r)?, theirs(r)?)));
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.unzip();
            let each: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a / b).collect();
            let range = |values: &[f64]| {
                let s = Spread::of(values);
                let (median, min, max) = (s.median / 1e6, s.min / 1e6, s.max / 1e6);
                format!("{median:.2} M ({min:.2} to {max:.2})")
            };
            if !each.is_empty() {
                ratios.push(Ratio {
                    what: format!("frames a second of a capture file, {what}"),
                    ratio: Some(Spread::of(&each)),
                    pairs: each.len(),
                    figures: format!("{} / {}", range(&a), range(&b)),
                });
            }
        }
    }

    fn compare_devices(&self, ratios: &mut Vec<Ratio>) {
        type Pick = fn(&Round) -> Option<&device::Outcome>;
        let swap: Pick = |r| r.swap.as_ref();
        let engine: Pick = |r| r.engine.as_ref();
        let lines = [
            (
                device::Source::Null,
                swap,
                "our receive and send, addresses exchanged",
            ),
            (
                device::Source::Null,
                engine,
                "engine, frames of zeros: receive and refuse alone, nothing sent",
            ),
            (
                device::Source::Pcap,
                swap,
                "our receive and send, addresses exchanged",
            ),
            (
                device::Source::Pcap,
                engine,
                "engine, short sessions: receive, replay, send",
            ),
        ];
        for (source, pick, what) in lines {
            let own = |o: &device::Outcome| o.cpu_ns - o.target_ns;
            let rounds = || self.device.iter().filter(|r| r.source == source);
            let ours: Vec<f64> = rounds().filter_map(pick).map(own).collect();
            let theirs: Vec<f64> = rounds()
                .filter_map(|r| Some(r.testpmd.as_ref()?.cpu_ns))
                .collect();
            let pairs: Vec<f64> = rounds()
                .filter_map(|r| Some(own(pick(r)?) / r.testpmd.as_ref()?.cpu_ns))
                .collect();
            let range = |values: &[f64]| {
                let s = Spread::of(values);
                format!("{:.0} ns ({:.0} to {:.0})", s.median, s.min, s.max)
            };
            if ours.is_empty() {
                continue;
            }
            ratios.push(Ratio {
                what: format!(
                    "CPU a mirrored frame, {}: {what} / testpmd macswap",
                    source.driver()
                ),
                ratio: (!pairs.is_empty()).then(|| Spread::of(&pairs)),
                pairs: pairs.len(),
                figures: if theirs.is_empty() {
                    format!("{} / not measured", range(&ours))
                } else {
                    format!("{} / {}", range(&ours), range(&theirs))
                },
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
             Each ratio is the median of pairs measured next to one another, with the least and the greatest of them: trust it as far as these are\n\
             close. Absolute figures swing with what else the machine does. Time is CPU time of the one core measured.\n\
             A packet is a frame received from the mirror, received from the target, or sent. The bench's own traffic and target are taken off.\n",
            m.cpus, m.cpu, m.kernel, m.dpdk, m.transparent_hugepages
        );
        for r in &self.ratios {
            let (ratio, spread) = match r.ratio {
                Some(s) if r.pairs > 1 => (
                    format!("{:.2}", s.median),
                    format!(" [{:.2} to {:.2}, {} pairs]", s.min, s.max, r.pairs),
                ),
                Some(s) => (format!("{:.2}", s.median), " [one sample]".to_owned()),
                None => ("-".to_owned(), String::new()),
            };
            let _ = writeln!(
                text,
                "{ratio:>7}{spread}  {}\n         {}",
                r.what, r.figures
            );
        }
        let packets: u64 = self.memory.iter().map(|o| o.packets).sum();
        let frames: u64 = self.device_outcomes().map(|o| o.frames).sum();
        let allocations: u64 = self
            .memory
            .iter()
            .map(|o| o.allocations)
            .chain(self.device_outcomes().map(|o| o.allocations))
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
