//! How fast capture files are read: by the reader of `engine`, alone and into buffers, by DPDK's
//! net_pcap, and by tcpdump, one after the other on the same file, which is in the page cache.

use crate::device;
use anyhow::{Context, Result, bail};
use arrayvec::ArrayVec;
use capture_file::{Found, Merge, Opener, Schedule, Stamped};
use dpdk::{DATA_ROOM, Eal, EalOptions, FrameMaker, Memory, Mempool, MirrorPort, PortOptions};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use wire::io::BURST;

/// Length of the header of a pcap file.
const HEADER: usize = 24;
/// Empty polls that end net_pcap's file.
const EMPTY: u32 = 8;
const MIB: usize = 64;
const MBUFS: u32 = 8_192;

/// Frames a second of each, in one round.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Round {
    /// Read and put in order.
    pub alone: f64,
    /// The same, and a buffer filled for each.
    pub buffers: f64,
    /// net_pcap.
    pub net_pcap: f64,
    /// `tcpdump -r FILE -w /dev/null`, if it is installed.
    pub tcpdump: Option<f64>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Frames in the file.
    pub frames: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// One after the other.
    pub rounds: Vec<Round>,
}

/// Makes a file of at least so many frames, and reads it in so many rounds.
pub fn run(frames: u64, rounds: usize) -> Result<Outcome> {
    let folder = tempfile::tempdir().context("no folder for a capture file could be made")?;
    let path = folder.path().join("many.pcap");
    let (frames, bytes) = write(&path, frames)?;
    let options = EalOptions {
        workers: vec![device::placement()?.1],
        memory: Memory::NoHuge { mib: MIB },
        ..EalOptions::default()
    };
    let eal = options.start()?;
    let pool = Mempool::new(&eal, "reader", MBUFS, DATA_ROOM, 256, None)?;
    let mut all = Vec::new();
    for number in 0..rounds {
        all.push(Round {
            alone: rate(frames, || alone(&path))?,
            buffers: rate(frames, || buffers(&eal, &pool, &path))?,
            net_pcap: rate(frames, || net_pcap(&eal, &pool, &path, number))?,
            tcpdump: tcpdump(&path, frames)?,
        });
    }
    Ok(Outcome {
        frames,
        bytes,
        rounds: all,
    })
}

/// The bench's sessions again and again. Returns how many frames there are, and the file's length.
fn write(path: &Path, frames: u64) -> Result<(u64, u64)> {
    device::write_pcap(path)?;
    let once = std::fs::read(path)?;
    let (head, records) = once.split_at(HEADER.min(once.len()));
    let mut count = 0;
    let mut at = 0;
    while let Some(len) = records.get(at + 8..at + 12) {
        let len: [u8; 4] = len.try_into().unwrap_or_default();
        at += 16 + u32::from_le_bytes(len) as usize;
        count += 1;
    }
    if count == 0 {
        bail!("the capture file has no frames");
    }
    let times = frames.div_ceil(count);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    file.write_all(head)?;
    for _ in 0..times {
        file.write_all(records)?;
    }
    file.flush()?;
    Ok((count * times, path.metadata()?.len()))
}

/// Frames a second, if all of them were read.
fn rate(frames: u64, read: impl FnOnce() -> Result<u64>) -> Result<f64> {
    let begin = Instant::now();
    let seen = read()?;
    let seconds = begin.elapsed().as_secs_f64();
    if seen != frames {
        bail!("{seen} of {frames} frames were read");
    }
    Ok(frames as f64 / seconds)
}

fn merge(path: &Path) -> Result<Merge> {
    let file = Found::File(PathBuf::from(path));
    let stamped = Stamped::look(file, |_| true)?;
    let pipes: Opener = Arc::new(capture_file::open);
    Ok(Merge::new(&[stamped], pipes))
}

fn alone(path: &Path) -> Result<u64> {
    let (mut merge, mut schedule) = (merge(path)?, Schedule::new(None));
    let (mut frames, mut sum) = (0, 0);
    while merge.advance() {
        if let Some((at, _, frame)) = merge.frame() {
            frames += 1;
            sum += schedule.play(at).0 + frame.bytes.len() as u64;
        }
    }
    std::hint::black_box(sum);
    Ok(frames)
}

fn buffers(eal: &Eal, pool: &Mempool, path: &Path) -> Result<u64> {
    let (mut merge, mut schedule) = (merge(path)?, Schedule::new(None));
    let mut maker = FrameMaker::new(eal, pool)?;
    let mut frames = 0;
    // As many are held as a burst has, as with net_pcap.
    let mut held = ArrayVec::<_, BURST>::new();
    while merge.advance() {
        if let Some((at, _, frame)) = merge.frame() {
            let (_, captured) = schedule.play(at);
            let made = maker.make(frame.bytes, captured).context("no buffer")?;
            frames += 1;
            if held.is_full() {
                held.clear();
            }
            held.push(made);
        }
    }
    Ok(frames)
}

fn net_pcap(eal: &Eal, pool: &Mempool, path: &Path, number: usize) -> Result<u64> {
    let device = format!("net_pcap{number},rx_pcap={}", path.display());
    let (_port, mut queues) = MirrorPort::open(eal, &device, &PortOptions::default(), pool)?;
    let mut queue = queues.pop().context("net_pcap gave no queue")?;
    let (mut frames, mut empty) = (0, 0);
    while empty < EMPTY {
        let mut burst = ArrayVec::<_, BURST>::new();
        match queue.rx_burst(&mut burst) {
            0 => empty += 1,
            n => (frames, empty) = (frames + n as u64, 0),
        }
    }
    Ok(frames)
}

fn tcpdump(path: &Path, frames: u64) -> Result<Option<f64>> {
    let begin = Instant::now();
    let status = Command::new("tcpdump")
        .args(["-Z", "root", "-w", "/dev/null", "-r"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let seconds = begin.elapsed().as_secs_f64();
    match status {
        Ok(status) if status.success() => Ok(Some(frames as f64 / seconds)),
        Ok(status) => bail!("tcpdump ended with {status}"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).context("tcpdump could not be started"),
    }
}
