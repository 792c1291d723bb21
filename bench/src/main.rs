//! What the engine costs: CPU a packet, memory a session, allocations a packet, and how that
//! compares with what is possible on the same machine in the same minutes.
//!
//! `bench all` runs everything, each measurement in a process of its own, and writes a table and a
//! JSON file. It fails if a measurement does, if traffic was not replayed to the last turn, or if
//! anything was allocated on the packet path.

#![forbid(unsafe_code)]

mod child;
mod device;
mod flood;
mod frames;
mod measure;
mod memory;
mod reader;
mod report;
mod target;
mod testpmd;
mod traffic;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What one measurement may take.
const LIMIT: Duration = Duration::from_secs(180);
/// Bytes to be had for each session that is measured: what it costs, and what the traffic keeps of
/// it.
const ROOM: u64 = 1024;
/// Before what has no sessions is measured.
const WARM_UP: Duration = Duration::from_millis(200);
/// Sessions that have ended stay for two seconds: from then on as many go as come.
const SESSIONS_WARM_UP: Duration = Duration::from_millis(2_300);

/// Measures what the engine costs.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Everything, compared.
    All {
        /// Less of everything.
        #[arg(long)]
        quick: bool,
        /// Where the results go.
        #[arg(long, value_name = "FILE", default_value = "bench.json")]
        json: PathBuf,
    },
    /// The worker over ports in memory; prints JSON.
    Memory {
        /// Which traffic.
        kind: memory::Kind,
        /// Sessions in the table.
        #[arg(long)]
        sessions: u64,
        /// Mirrored frames of one window.
        #[arg(long, default_value_t = 300_000)]
        frames: u64,
        /// Windows; the middle one counts.
        #[arg(long, default_value_t = 9)]
        windows: usize,
        /// Transfers, of which the last is that of the sessions.
        #[arg(long, default_value_t = 1)]
        transfers: u16,
    },
    /// Established sessions beside a flood of SYNs, over ports in memory; prints JSON.
    Flood {
        /// Established sessions.
        #[arg(long)]
        sessions: u64,
        /// Their mirrored frames in one window.
        #[arg(long, default_value_t = 300_000)]
        frames: u64,
        /// Windows; the middle one counts.
        #[arg(long, default_value_t = 9)]
        windows: usize,
    },
    /// The reader of capture files; prints JSON.
    Reader {
        /// Frames in the file, at least.
        #[arg(long, default_value_t = 1_000_000)]
        frames: u64,
        /// Rounds.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// One loop over DPDK's software drivers; prints JSON.
    Device {
        /// What runs.
        case: device::Case,
        /// Where frames come from.
        source: device::Source,
        /// The capture file that net_pcap plays.
        #[arg(long, value_name = "FILE")]
        pcap: PathBuf,
        /// Seconds that are measured.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<bool> {
    match command {
        Command::All { quick, json } => all(quick, &json),
        Command::Memory {
            kind,
            sessions,
            frames,
            windows,
            transfers,
        } => {
            let size = memory::Size {
                sessions,
                frames,
                windows,
                transfers,
            };
            print_json(&memory::run(kind, size)?)
        }
        Command::Flood {
            sessions,
            frames,
            windows,
        } => print_json(&flood::run(sessions, frames, windows)?),
        Command::Reader { frames, rounds } => print_json(&reader::run(frames, rounds)?),
        Command::Device {
            case,
            source,
            pcap,
            seconds,
        } => {
            let seconds = Duration::try_from_secs_f64(seconds.clamp(0.1, 60.0))?;
            let warm_up = match (case, source) {
                (device::Case::Engine, device::Source::Pcap) => SESSIONS_WARM_UP,
                _ => WARM_UP,
            };
            print_json(&device::run(case, source, &pcap, warm_up, seconds)?)
        }
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<bool> {
    println!("{}", serde_json::to_string(value)?);
    Ok(true)
}

fn all(quick: bool, json: &Path) -> Result<bool> {
    let mut report = Report::new(quick);
    measure_memory(&mut report);
    measure_reader(&mut report);
    measure_devices(&mut report)?;
    report.conclude();
    print!("\n{}", report.table());
    let text = serde_json::to_string_pretty(&report)?;
    std::fs::write(json, text + "\n")
        .with_context(|| format!("results cannot be written to {}", json.display()))?;
    println!("results: {}", json.display());
    Ok(report.failures.is_empty())
}

fn measure_memory(report: &mut Report) {
    let (frames, windows) = if report.quick {
        (150_000, 5)
    } else {
        (300_000, 9)
    };
    // Short sessions fill a table by coming and going, which takes long.
    let sizes: [(&str, &[u64]); 2] = [
        ("long", &[10_000, 100_000, 1_000_000, 10_000_000]),
        ("short", &[10_000, 100_000, 1_000_000]),
    ];
    for (kind, sizes) in sizes {
        for (i, &sessions) in sizes.iter().enumerate() {
            let room = sessions * ROOM;
            let reason = if i + 1 < sizes.len() {
                None
            } else if report.quick {
                Some("filling the table takes long; not in --quick".to_owned())
            } else if measure::available().is_ok_and(|bytes| bytes < room) {
                Some(format!(
                    "needs {} MiB of memory to be available",
                    room >> 20
                ))
            } else {
                None
            };
            if let Some(reason) = reason {
                let what = format!("{kind} sessions, {sessions} open: {reason}");
                report.left_out.push(what);
                continue;
            }
            eprintln!("measuring {kind} sessions over ports in memory, {sessions} open");
            let args = [
                "memory".to_owned(),
                kind.to_owned(),
                format!("--sessions={sessions}"),
                format!("--frames={frames}"),
                format!("--windows={windows}"),
            ];
            match child::measure(&args, LIMIT) {
                Ok(outcome) => report.memory.push(outcome),
                Err(e) => report.failures.push(format!("{e:#}")),
            }
        }
    }
    measure_transfers(report, frames, windows);
    eprintln!("measuring long sessions beside a flood of SYNs");
    let args = [
        "flood".to_owned(),
        "--sessions=100000".to_owned(),
        format!("--frames={frames}"),
        format!("--windows={windows}"),
    ];
    match child::measure(&args, LIMIT) {
        Ok(outcome) => report.flood = Some(outcome),
        Err(e) => report.failures.push(format!("{e:#}")),
    }
}

/// One transfer and a thousand, in turns.
fn measure_transfers(report: &mut Report, frames: u64, windows: usize) {
    eprintln!("measuring long sessions of one transfer, and of one of a thousand");
    let rounds = if report.quick { 2 } else { 5 };
    for _ in 0..rounds {
        let of = |transfers: u16| {
            let args = [
                "memory".to_owned(),
                "long".to_owned(),
                "--sessions=10000".to_owned(),
                format!("--frames={frames}"),
                format!("--windows={windows}"),
                format!("--transfers={transfers}"),
            ];
            child::measure(&args, LIMIT)
        };
        match (of(1), of(1_000)) {
            (Ok(one), Ok(many)) => report.transfers.push((one, many)),
            (Err(e), _) | (_, Err(e)) => report.failures.push(format!("{e:#}")),
        }
    }
}

fn measure_reader(report: &mut Report) {
    let (frames, rounds) = if report.quick {
        (300_000, 3)
    } else {
        (1_000_000, 5)
    };
    eprintln!("measuring the reader of capture files, net_pcap and tcpdump on the same file");
    let args = [
        "reader".to_owned(),
        format!("--frames={frames}"),
        format!("--rounds={rounds}"),
    ];
    match child::measure(&args, LIMIT) {
        Ok(outcome) => report.reader = Some(outcome),
        Err(e) => report.failures.push(format!("{e:#}")),
    }
}

fn measure_devices(report: &mut Report) -> Result<()> {
    let (rounds, seconds) = if report.quick { (1, 1.0) } else { (5, 1.0) };
    let folder = tempfile::tempdir().context("no folder for a capture file could be made")?;
    let pcap = folder.path().join("sessions.pcap");
    device::write_pcap(&pcap)?;
    let testpmd = testpmd::find();
    if testpmd.is_none() {
        let what = "comparison with testpmd: dpdk-testpmd is not installed (Debian: dpdk-dev)";
        report.left_out.push(what.to_owned());
    }
    for number in 1..=rounds {
        for source in [device::Source::Null, device::Source::Pcap] {
            eprintln!(
                "measuring testpmd, our receive and send, and the engine over {}, round {number} of {rounds}",
                source.driver()
            );
            let time = Duration::from_secs_f64(seconds);
            let mut kept = |result: Result<device::Outcome>| match result {
                Ok(outcome) => Some(outcome),
                Err(e) => {
                    report.failures.push(format!("{e:#}"));
                    None
                }
            };
            let swap = kept(measure_device("swap", source, &pcap, seconds));
            let engine = kept(measure_device("engine", source, &pcap, seconds));
            let testpmd = testpmd
                .as_deref()
                .map(|program| testpmd::run(program, source, &pcap, time));
            let testpmd = match testpmd {
                Some(Err(e)) => {
                    report.failures.push(format!("{e:#}"));
                    None
                }
                Some(Ok(outcome)) => Some(outcome),
                None => None,
            };
            report.device.push(report::Round {
                source,
                testpmd,
                swap,
                engine,
            });
        }
    }
    Ok(())
}

fn measure_device(
    case: &str,
    source: device::Source,
    pcap: &Path,
    seconds: f64,
) -> Result<device::Outcome> {
    let name = match source {
        device::Source::Null => "null",
        device::Source::Pcap => "pcap",
    };
    let args = [
        "device".to_owned(),
        case.to_owned(),
        name.to_owned(),
        format!("--pcap={}", pcap.display()),
        format!("--seconds={seconds}"),
    ];
    child::measure(&args, LIMIT)
}
