//! A stage for targets in trouble: production, the target with what stands before it, and an engine
//! that is expected to lose something, to stay within its memory, and to live on.
//!
//! What stands before the target is a [`Front`]: a recorder that can be frozen, ended and started
//! again, and perhaps a throttle. The stage looks at every report it reads: books balance, buffers
//! and memory are within their limits. Memory is the kernel's word (proc(5)), and its highest mark,
//! so that no moment is missed.

use super::appliance::{Engine, EngineOptions};
use super::process::{Process, binary, wait_until};
use super::report::Report;
use super::servers::{Server, Service, Side};
use super::{Family, Lab, LabOptions, Node};
use crate::load::Workload;
use crate::record::{self, Match, Record, check_byte_exact};
use anyhow::{Context, Result, anyhow, bail};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the recorder in front of the target listens, and the throttle in front of that.
const RECORDER_PORT: u16 = 8081;
const THROTTLE_PORT: u16 = 8082;
const START: Duration = Duration::from_secs(10);
const STOP: Duration = Duration::from_secs(10);

/// The most resident memory that a process ever had, in bytes (proc(5), VmHWM).
///
/// # Errors
/// It's gone.
pub fn peak_memory(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let kib = text
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .and_then(|l| l.split_whitespace().next())
        .and_then(|n| n.parse::<u64>().ok())
        .ok_or_else(|| anyhow!("{path}: has no VmHWM"))?;
    Ok(kib * 1024)
}

/// What stands in front of the target: a recorder that can be stopped, restarted and made to stand
/// still, and perhaps a throttle before it.
#[derive(Debug)]
pub struct Front {
    recorder: Option<Process>,
    throttle: Option<Process>,
    files: Vec<PathBuf>,
}

impl Front {
    /// Where the appliance is to connect to.
    pub const fn port(throttled: bool) -> u16 {
        if throttled {
            THROTTLE_PORT
        } else {
            RECORDER_PORT
        }
    }

    /// Nothing yet: the port is closed.
    pub const fn closed() -> Self {
        Self {
            recorder: None,
            throttle: None,
            files: Vec::new(),
        }
    }

    /// Starts the recorder, for the first time or again.
    ///
    /// # Errors
    /// It runs already, or can't be started.
    pub fn open(&mut self, lab: &Lab) -> Result<()> {
        if self.recorder.is_some() {
            bail!("the recorder in front of the target runs already");
        }
        let name = format!("front-{}", self.files.len());
        let path = lab.file(&format!("{name}.records"));
        let target = Family::V4.target();
        let mut command = lab.command(Node::Target, binary("recorder")?);
        command
            .arg(format!(
                "--listen={}",
                SocketAddr::new(target, RECORDER_PORT)
            ))
            .arg(format!("--to={}", Service::Http.on_target(Family::V4)))
            .arg("--out")
            .arg(&path);
        let mut process = lab.spawn(&name, command)?;
        process.wait_for("ready", START)?;
        self.recorder = Some(process);
        self.files.push(path);
        Ok(())
    }

    /// Puts a throttle before it that reads `rate` bytes a second of each connection, out of a
    /// receive buffer of `buffer` bytes.
    ///
    /// # Errors
    /// It can't be started.
    pub fn throttle(&mut self, lab: &Lab, rate: u32, buffer: u32) -> Result<()> {
        let target = Family::V4.target();
        let mut command = lab.command(Node::Target, binary("throttle")?);
        command
            .arg(format!(
                "--listen={}",
                SocketAddr::new(target, THROTTLE_PORT)
            ))
            .arg(format!("--to={}", SocketAddr::new(target, RECORDER_PORT)))
            .arg(format!("--rate={rate}"))
            .arg(format!("--buffer={buffer}"));
        let mut process = lab.spawn("throttle", command)?;
        process.wait_for("ready", START)?;
        self.throttle = Some(process);
        Ok(())
    }

    /// The throttle lets everything through from now on.
    ///
    /// # Errors
    /// There is none.
    pub fn release(&mut self) -> Result<()> {
        let throttle = self.throttle.as_mut();
        throttle
            .ok_or_else(|| anyhow!("there is no throttle to release"))?
            .signal(rustix::process::Signal::USR1)
    }

    /// The recorder stands still: it neither reads nor accepts, while the kernel goes on for it as
    /// long as its buffers last.
    ///
    /// # Errors
    /// It doesn't run.
    pub fn freeze(&mut self) -> Result<()> {
        self.running()?.signal(rustix::process::Signal::STOP)
    }

    /// The recorder goes on.
    ///
    /// # Errors
    /// It doesn't run.
    pub fn thaw(&mut self) -> Result<()> {
        self.running()?.signal(rustix::process::Signal::CONT)
    }

    /// Ends the recorder: its connections break, and its port is closed.
    ///
    /// # Errors
    /// It doesn't run.
    pub fn close(&mut self) -> Result<()> {
        self.running()?.terminate(STOP)?;
        self.recorder = None;
        Ok(())
    }

    /// Kills the recorder while it stands still: what it had not read is thrown away, so that the
    /// kernel resets its connections (RFC 1122 section 4.2.2.13), and its port is closed.
    ///
    /// # Errors
    /// It doesn't run.
    pub fn crash(&mut self) -> Result<()> {
        let recorder = self.running()?;
        recorder.signal(rustix::process::Signal::KILL)?;
        recorder.wait(STOP)?;
        self.recorder = None;
        Ok(())
    }

    fn running(&mut self) -> Result<&mut Process> {
        let recorder = self.recorder.as_mut();
        recorder.ok_or_else(|| anyhow!("no recorder runs in front of the target"))
    }

    /// Connections that ended, of all its runs.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn records(&self) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        for file in &self.files {
            all.extend(record::read(file)?);
        }
        Ok(all)
    }
}

/// How to set a [`Stage`].
#[derive(Clone, Debug)]
pub struct StageOptions {
    /// The engine's. Its transfer goes to what stands before the target, and its limits are those
    /// below.
    pub engine: EngineOptions,
    /// There is a throttle before the recorder.
    pub throttled: bool,
    /// `limits.mbufs` in MiB.
    pub mbufs: u64,
    /// `limits.session_bytes` in KiB.
    pub session_bytes: u64,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self {
            engine: EngineOptions::default(),
            throttled: false,
            mbufs: 128,
            session_bytes: 4096,
        }
    }
}

impl StageOptions {
    fn toml(&self, lab: &Lab) -> Result<String> {
        let to = SocketAddr::new(Family::V4.target(), Front::port(self.throttled));
        let edits = [
            (
                Service::Http.on_target(Family::V4).to_string(),
                to.to_string(),
            ),
            ("\"128MiB\"".to_owned(), format!("\"{}MiB\"", self.mbufs)),
            (
                "\"4MiB\"".to_owned(),
                format!("\"{}KiB\"", self.session_bytes),
            ),
        ];
        let mut text = self.engine.toml(lab)?;
        for (old, new) in &edits {
            if !text.contains(old) {
                bail!("{old}: is not in the configuration, so it cannot be replaced:\n{text}");
            }
            text = text.replace(old, new);
        }
        Ok(text)
    }
}

/// Production, the target with its [`Front`], and an engine between them that is expected to lose
/// something and to live on.
#[derive(Debug)]
pub struct Stage {
    /// What stands before the target.
    pub front: Front,
    engine: Engine,
    production: Server,
    _target: Server,
    copies: u16,
    memory: Memory,
    /// The lab; last, so that it goes last.
    pub lab: Lab,
}

impl Stage {
    /// Builds a lab and starts all of it but what stands before the target; `front` does that.
    ///
    /// # Errors
    /// Something of it does not come up.
    pub fn start(
        lab: LabOptions,
        options: StageOptions,
        front: impl FnOnce(&mut Front, &Lab) -> Result<()>,
    ) -> Result<Self> {
        let lab = Lab::start(lab)?;
        match Parts::start(&lab, options, front) {
            Ok(p) => Ok(Self {
                front: p.front,
                engine: p.engine,
                production: p.production,
                _target: p.target,
                copies: p.copies,
                memory: p.memory,
                lab,
            }),
            Err(e) => {
                lab.failed();
                Err(e)
            }
        }
    }

    /// Runs a workload to its end. Production has to answer all of it.
    ///
    /// # Errors
    /// Production did not.
    pub fn load(&self, workload: &Workload) -> Result<()> {
        let summary = self.lab.load(workload)?;
        match summary.first_error {
            None => Ok(()),
            Some(error) => bail!(
                "production failed its clients in {} of {} connections: {error}",
                summary.errors,
                workload.connections
            ),
        }
    }

    /// Starts a workload beside others.
    ///
    /// # Errors
    /// The load client can't be started.
    pub fn begin(&self, name: &str, workload: &Workload) -> Result<Process> {
        self.lab.spawn(name, self.lab.load_command(workload)?)
    }

    /// Waits for a workload that was begun. Production has to answer all of it.
    ///
    /// # Errors
    /// It did not, or not in time.
    pub fn end(&self, mut load: Process, limit: Duration) -> Result<()> {
        let status = load.wait(limit)?;
        if status.success() {
            return Ok(());
        }
        bail!("production failed its clients: {}", load.tail())
    }

    /// The last report, whose books balance and whose buffers are within their limit; and so is the
    /// engine's memory.
    ///
    /// # Errors
    /// One of it is not so, or the engine has ended.
    pub fn report(&mut self) -> Result<Report> {
        let process = self.engine.process();
        if let Some(status) = process.status()? {
            bail!("engine: ended ({status}); its log:\n{}", process.tail());
        }
        let (peak, allowed) = (peak_memory(process.id())?, self.memory.at_start + GROWTH);
        if peak > allowed {
            bail!(
                "the engine's memory grew to {peak} bytes; {allowed} are what it began with and {GROWTH}"
            );
        }
        self.memory.peak = peak;
        let report = wait_until("a report", Duration::from_secs(10), || self.engine.report())?;
        report.check_books(self.copies)?;
        let (used, size) = (
            report.number("buffers.in_use")?,
            report.number("buffers.size")?,
        );
        if used > size || size * BUFFER > self.memory.configured {
            bail!(
                "{used} buffers are in use of {size}, and limits.mbufs has {} bytes:\n{report}",
                self.memory.configured
            );
        }
        self.memory.most_used = self.memory.most_used.max(used);
        Ok(report)
    }

    /// Waits until the report says that nothing is in flight and production had `turns` turns,
    /// looking at all reports on the way.
    ///
    /// # Errors
    /// Not in time, or a report is not as [`Stage::report`] wants it.
    pub fn settle(&mut self, turns: u64, limit: Duration) -> Result<Report> {
        let mut last = String::new();
        wait_until("nothing in flight", limit, || {
            let report = self.report()?;
            last = report.to_string();
            let done = report.number("production.turns")? >= turns
                && report.number("in_flight.turns")? == 0;
            Ok(done.then_some(report))
        })
        .with_context(|| format!("{turns} turns of production; the last report:\n{last}"))
    }

    /// After the trouble: a fresh load is replayed to the last byte, nothing more is lost, and all
    /// buffers come back. Returns the report after it.
    ///
    /// # Errors
    /// It's not so.
    pub fn recovers(&mut self, workload: &Workload, turns: u64) -> Result<Report> {
        let before = self.settle(0, Duration::from_secs(60))?;
        let since = now_us();
        self.load(workload)?;
        let expected = before.number("production.turns")? + turns;
        let after = self.settle(expected, Duration::from_secs(60))?;
        let production = records_of(workload, since, || self.production.records())?;
        let target = records_of(workload, since, || self.front.records())?;
        check_byte_exact(&production, &target, Match::Bytes, usize::from(self.copies))
            .with_context(|| format!("after the trouble; the report:\n{after}"))?;
        for what in ["lost.turns", "lost.bytes"] {
            let (then, now) = (before.number(what)?, after.number(what)?);
            if then != now {
                bail!("{what} grew from {then} to {now} after the trouble:\n{after}");
            }
        }
        wait_until("all buffers back", STOP, || {
            let report = self.report()?;
            let frames = report.number("buffers.in_use")?;
            let small = report.number("buffers.small.in_use")?;
            Ok((frames == 0 && small == 0).then_some(report))
        })
    }

    /// What the engine's memory came to so far.
    pub const fn memory(&self) -> Memory {
        self.memory
    }

    /// Production's records so far.
    ///
    /// # Errors
    /// They can't be read.
    pub fn production(&self) -> Result<Vec<Record>> {
        self.production.records()
    }

    /// Ends the engine and returns its last report, whose books balance.
    ///
    /// # Errors
    /// It does not end well. The lab's logs are kept then.
    pub fn finish(self) -> Result<Report> {
        let report = self.engine.stop()?;
        report.check_books(self.copies)?;
        Ok(report)
    }
}

/// The engine's memory in bytes, and its buffers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// `limits.mbufs`.
    pub configured: u64,
    /// Resident when it was ready.
    pub at_start: u64,
    /// The most that was ever resident.
    pub peak: u64,
    /// The most buffers that a report said were in use.
    pub most_used: u64,
}

/// Bytes of a frame that each buffer has room for at least.
const BUFFER: u64 = 2_048;
/// Bytes that the engine has at most when it is ready, beside two bytes for each of `limits.mbufs`:
/// those buffers, and for each the entry that says where in a session it stands. The rest is the
/// program, DPDK, and tables for the lab's 20,000 sessions.
const BASE: u64 = 96 << 20;
/// Bytes that its memory may grow by from then on. All tables and buffers are there from the start;
/// stacks and the C library's heap do grow.
const GROWTH: u64 = 16 << 20;

impl Memory {
    fn at_start(at_start: u64, configured: u64) -> Result<Self> {
        if at_start > 2 * configured + BASE {
            bail!(
                "the engine begins with {at_start} bytes, with limits.mbufs = {configured} bytes"
            );
        }
        Ok(Self {
            configured,
            at_start,
            peak: at_start,
            most_used: 0,
        })
    }
}

fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as u64)
}

/// The records of a workload that began at `since`, or as many of them as there are in time.
fn records_of(
    workload: &Workload,
    since: u64,
    read: impl Fn() -> Result<Vec<Record>>,
) -> Result<Vec<Record>> {
    let later = || -> Result<Vec<Record>> {
        let all = read()?;
        Ok(all.into_iter().filter(|r| r.opened_us >= since).collect())
    };
    let enough = || later().map(|r| (r.len() >= workload.connections).then_some(r));
    wait_until("records", STOP, enough).or_else(|_| later())
}

struct Parts {
    front: Front,
    engine: Engine,
    production: Server,
    target: Server,
    copies: u16,
    memory: Memory,
}

impl Parts {
    fn start(
        lab: &Lab,
        mut options: StageOptions,
        front: impl FnOnce(&mut Front, &Lab) -> Result<()>,
    ) -> Result<Self> {
        let production = Server::start(lab, Side::Production, Service::Http, true)?;
        let target = Server::start(lab, Side::Target, Service::Http, false)?;
        let mut before = Front::closed();
        front(&mut before, lab)?;
        options.engine.verbatim = Some(options.toml(lab)?);
        let mut engine = Engine::start(lab, &options.engine)?;
        let memory = Memory::at_start(peak_memory(engine.process().id())?, options.mbufs << 20)?;
        Ok(Self {
            front: before,
            engine,
            production,
            target,
            copies: options.engine.copies,
            memory,
        })
    }
}
