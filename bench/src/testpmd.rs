//! DPDK's own forwarder over the same drivers in the same minutes: what a frame costs when nobody
//! looks into it.

use crate::device::{MEMORY_MIB, SINK, Source, hugepages, placement};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Mbufs of testpmd: the capture file is held in them.
const MBUFS: u32 = 40_000;
/// How long its start or its end may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Where frames came from.
    pub source: Source,
    /// Frames received.
    pub frames: u64,
    /// Frames sent.
    pub sent: u64,
    /// Seconds on the wall.
    pub seconds: f64,
    /// CPU of the lcore per frame, in ns.
    pub cpu_ns: f64,
}

/// Where testpmd is, if it is installed.
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|dir| ["dpdk-testpmd", "testpmd"].map(|name| dir.join(name)))
        .find(|p| p.is_file())
}

/// A testpmd that ends with this value.
struct Testpmd {
    child: Child,
    prefix: String,
    output: Receiver<Vec<u8>>,
    text: String,
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // Fails when it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // DPDK never removes its runtime folder; this one bears the number of this process.
        let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        for base in [Some(PathBuf::from("/var/run")), run].into_iter().flatten() {
            let _ = std::fs::remove_dir(base.join("dpdk").join(&self.prefix));
        }
    }
}

impl Testpmd {
    fn start(program: &Path, source: Source, pcap: &Path) -> Result<Self> {
        let (main_cpu, cpu) = placement()?;
        let memory = MEMORY_MIB.to_string();
        let prefix = format!("bench-{}", std::process::id());
        let mut command = Command::new(program);
        command.args(["--lcores", &format!("0@{main_cpu},1@{cpu}")]);
        command.args(["--main-lcore", "0", "--no-pci", "--no-telemetry"]);
        command.args(["--file-prefix", &prefix]);
        if hugepages() {
            command.arg("--in-memory");
        } else {
            command.args(["--no-huge", "-m", &memory, "--no-shconf"]);
        }
        command.args(["--vdev", &source.device(pcap), "--vdev", SINK, "--", "-i"]);
        command.args(["--forward-mode=macswap", "--no-flush-rx", "--nb-cores=1"]);
        command.arg(format!("--total-num-mbufs={MBUFS}"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} could not be started", program.display()))?;
        let mut stdout = child.stdout.take().context("testpmd has no output")?;
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut chunk) {
                if sender.send(chunk[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            prefix,
            output,
            text: String::new(),
        })
    }

    /// Reads until `mark` has been seen `times` times, or to the end without one.
    fn read_until(&mut self, mark: Option<&str>, times: usize) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        loop {
            if mark.is_some_and(|m| self.text.matches(m).count() >= times) {
                return Ok(());
            }
            let left = limit.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(chunk) => self.text.push_str(&String::from_utf8_lossy(&chunk)),
                Err(RecvTimeoutError::Disconnected) if mark.is_none() => return Ok(()),
                Err(e) => {
                    let last = self.text.lines().rev().take(5).collect::<Vec<_>>();
                    bail!(
                        "testpmd did not get as far as {mark:?} ({e}); its last lines were {last:?}"
                    );
                }
            }
        }
    }

    fn command(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("testpmd has no input")?;
        writeln!(stdin, "{line}").context("testpmd takes no commands")?;
        Ok(stdin.flush()?)
    }

    /// CPU that its busiest thread but the main one has had, in ns (`schedstat`, kernel's
    /// sched-stats.rst).
    fn worker_cpu(&self) -> Result<u64> {
        let main = self.child.id().to_string();
        let mut most = 0;
        for task in std::fs::read_dir(format!("/proc/{main}/task"))? {
            let task = task?;
            if task.file_name().to_str() == Some(&main) {
                continue;
            }
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let ran = text.split_whitespace().next().and_then(|n| n.parse().ok());
            most = most.max(ran.unwrap_or(0));
        }
        Ok(most)
    }
}

/// A figure of the forwarding statistics of one port.
fn figure(text: &str, port: u16, name: &str) -> Result<u64> {
    let title = format!("Forward statistics for port {port} ");
    text.split_once(&title)
        .and_then(|(_, rest)| rest.split_once(name))
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .with_context(|| format!("testpmd gave no {name} for port {port}"))
}

/// Forwards with exchanged Ethernet addresses for this long.
pub fn run(program: &Path, source: Source, pcap: &Path, time: Duration) -> Result<Outcome> {
    let mut testpmd = Testpmd::start(program, source, pcap)?;
    testpmd.read_until(Some("testpmd> "), 1)?;
    let before = testpmd.worker_cpu()?;
    testpmd.command("start")?;
    let started = Instant::now();
    std::thread::sleep(time);
    testpmd.command("stop")?;
    testpmd.read_until(Some("testpmd> "), 3)?;
    let (seconds, cpu) = (
        started.elapsed().as_secs_f64(),
        testpmd.worker_cpu()? - before,
    );
    testpmd.command("quit")?;
    testpmd.read_until(None, 0)?;
    let frames = figure(&testpmd.text, 0, "RX-packets:")?;
    Ok(Outcome {
        source,
        frames,
        sent: figure(&testpmd.text, 1, "TX-packets:")?,
        seconds,
        cpu_ns: cpu as f64 / frames.max(1) as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_port_asked_for() {
        let text = "
  ---------------------- Forward statistics for port 0  ----------------------
  RX-packets: 72              RX-dropped: 0             RX-total: 72
  TX-packets: 1               TX-dropped: 0             TX-total: 1
  ---------------------- Forward statistics for port 1  ----------------------
  RX-packets: 1               RX-dropped: 0             RX-total: 1
  TX-packets: 70              TX-dropped: 2             TX-total: 72
";
        assert_eq!(figure(text, 0, "RX-packets:").unwrap(), 72);
        assert_eq!(figure(text, 1, "TX-packets:").unwrap(), 70);
        assert!(figure(text, 2, "RX-packets:").is_err());
    }
}
