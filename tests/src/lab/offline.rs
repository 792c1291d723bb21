//! Offline replay in the lab: the engine plays capture files, one run for each, against a sink that
//! keeps what every connection said.
//!
//! The sink speaks no protocol. It never answers, so that what it keeps depends on the capture
//! alone, or answers each request as it was told to ([`Offline::answering`]). It listens on
//! [`SINKS`] ports; each production port of a capture is given one of its own, so that what came
//! for one is not taken for what came for another.

use super::appliance::{Engine, EngineOptions, lcores};
use super::process::{Process, binary, wait_until};
use super::report::Report;
use super::{Family, Lab, LabOptions, Node};
use crate::answer::Answer;
use crate::record::{self, Record};
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ports of the sink.
pub const SINKS: u16 = 16;
const FIRST_PORT: u16 = 20_000;

const START: Duration = Duration::from_secs(10);
/// A capture without a pace of its own takes a second or two; a busy machine takes longer.
const RUN: Duration = Duration::from_secs(60);
/// The sink's records follow the last FIN within its flush interval.
const RECORDS: Duration = Duration::from_secs(10);

/// How a capture is to be replayed.
#[derive(Clone, Debug)]
pub struct Play {
    /// The file.
    pub file: PathBuf,
    /// Further files.
    pub more: Vec<PathBuf>,
    /// This is what the engine has on standard input, by way of a pipe.
    pub stdin: Option<PathBuf>,
    /// Workers: 1 or 2.
    pub workers: usize,
    /// Text after `max_idle = `.
    pub max_idle: String,
    /// `traffic.shard`.
    pub shard: String,
    /// Production's ports, at any address.
    pub ports: Vec<u16>,
    /// Text after `speed = `.
    pub speed: String,
    /// Times it is played.
    pub loops: u32,
    /// `traffic.wait_for_responses`.
    pub wait_for_responses: bool,
    /// `traffic.gate_timeout`.
    pub gate_timeout: String,
    /// `mirror.verify_checksums`.
    pub verify_checksums: bool,
    /// `limits.sessions`.
    pub sessions: u32,
}

impl Play {
    /// As fast as the target takes it, once, without waiting for answers that the sink does not
    /// give.
    pub fn new(file: &Path, ports: &[u16]) -> Self {
        Self {
            file: file.to_owned(),
            more: Vec::new(),
            stdin: None,
            workers: 1,
            max_idle: "\"10s\"".to_owned(),
            shard: "1/1".to_owned(),
            ports: ports.to_vec(),
            speed: "\"max\"".to_owned(),
            loops: 1,
            wait_for_responses: false,
            gate_timeout: "50ms".to_owned(),
            verify_checksums: true,
            sessions: 1_000,
        }
    }

    /// At the pace it was recorded at, once, each turn when the target has answered the one before.
    pub fn paced(file: &Path, ports: &[u16]) -> Self {
        Self {
            speed: "1.0".to_owned(),
            wait_for_responses: true,
            gate_timeout: "5s".to_owned(),
            ..Self::new(file, ports)
        }
    }

    /// The sink's port for a production port.
    pub fn sink_port(&self, port: u16) -> Option<u16> {
        let i = self.ports.iter().position(|p| *p == port)?;
        Some(FIRST_PORT + i as u16)
    }

    fn toml(&self, report: &Path) -> Result<String> {
        if self.ports.is_empty() || self.ports.len() > usize::from(SINKS) {
            bail!(
                "{}: {} production ports, but the sink takes 1 to {SINKS}",
                self.file.display(),
                self.ports.len()
            );
        }
        let files: Vec<&PathBuf> = [&self.file].into_iter().chain(&self.more).collect();
        let mut text = format!(
            "[mirror]\nfile = {:?}\nspeed = {}\nloops = {}\nmax_idle = {}\nverify_checksums = {}\n\
             tunnels = [\"0.0.0.0/0\", \"::/0\"]\n\n\
             [replay]\nport = \"net_af_packet0,iface=replay0,framecnt=4096\"\naddress = [\"{}/24\"]\n",
            files,
            self.speed,
            self.loops,
            self.max_idle,
            self.verify_checksums,
            Family::V4.appliance(),
        );
        for port in &self.ports {
            let to = SocketAddr::new(
                Family::V4.target(),
                self.sink_port(*port).unwrap_or_default(),
            );
            let _ = write!(text, "\n[[transfer]]\nfrom = \":{port}\"\nto = \"{to}\"\n");
        }
        let _ = write!(
            text,
            "\n[clients]\npool = [{:?}]\n\n[traffic]\nshard = {:?}\nwait_for_responses = {}\ngate_timeout = {:?}\n\n\
             [intercept]\nmode = \"embedded\"\n\n[limits]\nsessions = {}\nmbufs = \"32MiB\"\n\n\
             [report]\ninterval = \"1s\"\njson = {report:?}\n\n[eal]\nlcores = {}\nmemory = \"no-huge\"\n",
            Family::V4.pool(),
            self.shard,
            self.wait_for_responses,
            self.gate_timeout,
            self.sessions,
            lcores(self.workers)?,
        );
        Ok(text)
    }
}

/// What one connection said to the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The sink's account of it.
    pub record: Record,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What came of a replay.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The engine's last report.
    pub report: Report,
    /// Its log.
    pub log: String,
    /// Connections in the order in which they were opened.
    pub connections: Vec<Delivered>,
}

/// A lab with a sink at the target's place.
#[derive(Debug)]
pub struct Offline {
    sink: Process,
    records: PathBuf,
    kept: PathBuf,
    seen: usize,
    /// The lab it runs in; last, so that it goes last.
    pub lab: Lab,
}

impl Offline {
    /// Builds the lab and starts a sink that never answers.
    ///
    /// # Errors
    /// One of them does not come up.
    pub fn start() -> Result<Self> {
        Self::answering(&Answer::default())
    }

    /// The same with a sink that answers so.
    ///
    /// # Errors
    /// One of them does not come up.
    pub fn answering(answer: &Answer) -> Result<Self> {
        let lab = Lab::start(LabOptions::default())?;
        let (records, kept) = (lab.file("sink.records"), lab.file("sink.bytes"));
        std::fs::create_dir_all(&kept)?;
        let mut command = lab.command(Node::Target, binary("recorder")?);
        for port in FIRST_PORT..FIRST_PORT + SINKS {
            let address = SocketAddr::new(Family::V4.target(), port);
            command.arg(format!("--listen={address}"));
        }
        command.arg("--out").arg(&records).arg("--keep").arg(&kept);
        command.args(answer.args());
        let mut sink = lab.spawn("sink", command)?;
        sink.wait_for("ready", START)?;
        Ok(Self {
            sink,
            records,
            kept,
            seen: 0,
            lab,
        })
    }

    /// Runs the engine on a file until it ends by itself. Returns its exit code and its log.
    ///
    /// # Errors
    /// It can't be started, or does not end.
    pub fn run(&mut self, play: &Play) -> Result<(Option<i32>, String)> {
        self.run_with(play, Vec::new())
    }

    /// The same, for this long at most.
    ///
    /// # Errors
    /// As [`Offline::run`].
    pub fn run_for(&mut self, play: &Play, time: &str) -> Result<(Option<i32>, String)> {
        self.run_with(play, vec!["--duration".to_owned(), time.to_owned()])
    }

    fn run_with(&mut self, play: &Play, args: Vec<String>) -> Result<(Option<i32>, String)> {
        let report = self.lab.file("report.json");
        if report.exists() {
            std::fs::remove_file(&report)?;
        }
        let options = EngineOptions {
            verbatim: Some(play.toml(&report)?),
            args,
            ..EngineOptions::default()
        };
        let command = Engine::command(&self.lab, &options)?;
        let mut engine = match &play.stdin {
            None => self.lab.spawn("engine", command)?,
            Some(path) => self.lab.spawn_with("engine", command, path)?,
        };
        let status = engine.wait(RUN)?;
        Ok((status.code(), engine.log()))
    }

    /// Replays a file and collects what came of it.
    ///
    /// # Errors
    /// The engine does not end with exit code 0 and a report whose books balance, it panicked on
    /// the way, or the sink has ended or does not tell of every connection.
    pub fn replay(&mut self, play: &Play) -> Result<Replayed> {
        self.replay_to(play, 0)
    }

    /// The same for a file that is damaged: the engine ends with exit code 1.
    ///
    /// # Errors
    /// As [`Offline::replay`].
    pub fn replay_damaged(&mut self, play: &Play) -> Result<Replayed> {
        self.replay_to(play, 1)
    }

    fn replay_to(&mut self, play: &Play, expected: i32) -> Result<Replayed> {
        let (code, log) = self.run(play)?;
        if code != Some(expected) || log.contains("panicked") || log.contains("do not balance") {
            bail!("engine: exit code {code:?}; its log:\n{log}");
        }
        let report = Report::read(&self.lab.file("report.json"))?;
        report.check_books(1)?;
        if let Some(status) = self.sink.status()? {
            bail!("sink: ended ({status}); its log:\n{}", self.sink.log());
        }
        let opened = report.number("target.connects")? as usize;
        let (path, seen) = (self.records.clone(), self.seen);
        let records = wait_until("records of all connections", RECORDS, || {
            let records = record::read(&path)?;
            Ok((records.len() >= seen + opened).then_some(records))
        })
        .with_context(|| format!("{opened} connections were opened\n{report}"))?;
        self.seen = records.len();
        let mut connections = records
            .into_iter()
            .skip(seen)
            .map(|record| {
                let path = self.kept.join(record.kept_name());
                let bytes = std::fs::read(&path)
                    .with_context(|| format!("{}: cannot be read", path.display()))?;
                Ok(Delivered { record, bytes })
            })
            .collect::<Result<Vec<_>>>()?;
        connections.sort_by_key(|c| c.record.opened_us);
        Ok(Replayed {
            report,
            log,
            connections,
        })
    }
}
