//! The appliance in the lab: the engine in its namespace and, if responses are absorbed remotely,
//! the intercept in the assistant's.
//!
//! Both are the real binaries with real configuration files. They are started, waited for (their
//! log says `ready`), asked to end with SIGTERM and their reports read, just as a user would.

use super::process::{Process, binary, wait_until};
use super::report::Report;
use super::servers::Service;
use super::{Family, Lab, Node, Responses};
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// EAL start and ARP take well under a second; a busy machine takes longer.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);

/// How the target sees the clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clients {
    /// With addresses of the pool.
    #[default]
    Pool,
    /// With their own addresses.
    Own,
}

/// How to start the engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Client addresses at the target.
    pub clients: Clients,
    /// Families whose services are replayed.
    pub families: Vec<Family>,
    /// Services that are replayed.
    pub services: Vec<Service>,
    /// Workers: 1 or 2.
    pub workers: usize,
    /// Share of the sessions in percent.
    pub percent: u8,
    /// Replicas of each session.
    pub copies: u16,
    /// The mirror's vdev, with its arguments. Deeper than the driver's default, as the load of a
    /// shared machine comes in bursts.
    pub mirror: String,
    /// The replay port's vdev, with its arguments.
    pub port: String,
    /// Keys to add to a section, such as `("traffic", "rtt = \"20ms\"")`.
    pub extra: Vec<(&'static str, String)>,
    /// Replacements in the text of the file that all of the above makes. What is replaced has to
    /// be there.
    pub edits: Vec<(&'static str, String)>,
    /// Text of a configuration file that is used instead of all of the above.
    pub verbatim: Option<String>,
    /// What its process and its files are called, for a second engine: NAME.log, NAME.toml,
    /// NAME-report.json. Those of the first, `engine`, are replay.toml and report.json.
    pub name: &'static str,
    /// Further arguments of the program.
    pub args: Vec<String>,
    /// Runs as [`ORDINARY_USER`], with these capabilities and no other, instead of as root. The
    /// lab's folder becomes that user's.
    pub capabilities: Option<&'static [&'static str]>,
}

/// A user and group that this machine has no name for.
pub const ORDINARY_USER: u32 = 61_234;

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            clients: Clients::default(),
            families: vec![Family::V4],
            services: vec![Service::Http],
            workers: 1,
            percent: 100,
            copies: 1,
            mirror: "net_af_packet0,iface=span0,framecnt=8192".to_owned(),
            port: "net_af_packet1,iface=replay0,framecnt=4096".to_owned(),
            extra: Vec::new(),
            edits: Vec::new(),
            verbatim: None,
            name: FIRST,
            args: Vec::new(),
            capabilities: None,
        }
    }
}

/// The first engine's name.
const FIRST: &str = "engine";

fn edited(mut text: String, edits: &[(&'static str, String)]) -> Result<String> {
    for (from, to) in edits {
        if !text.contains(from) {
            bail!("{from:?}: is not in the configuration, so it cannot be replaced:\n{text}");
        }
        text = text.replace(from, to);
    }
    Ok(text)
}

fn quoted(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().map(|i| format!("{i:?}")).collect();
    format!("[{}]", items.join(", "))
}

/// Prefix of the replay network.
const fn on_link(family: Family) -> &'static str {
    match family {
        Family::V4 => "24",
        Family::V6 => "64",
    }
}

pub(super) fn lcores(workers: usize) -> Result<&'static str> {
    match workers {
        1 => Ok("[1]"),
        2 => Ok("[0, 1]"),
        n => bail!("workers = {n}: the lab starts 1 or 2"),
    }
}

impl EngineOptions {
    /// The text of `replay.toml`.
    ///
    /// # Errors
    /// The options contradict themselves.
    pub fn toml(&self, lab: &Lab) -> Result<String> {
        if let Some(text) = &self.verbatim {
            return Ok(text.clone());
        }
        let extra = |section: &str| -> String {
            self.extra
                .iter()
                .filter(|(s, _)| *s == section)
                .map(|(_, line)| format!("{line}\n"))
                .collect()
        };
        let mut text = format!("[mirror]\nports = [{:?}]\n{}", self.mirror, extra("mirror"));
        let addresses = quoted(
            self.families
                .iter()
                .map(|f| format!("{}/{}", f.appliance(), on_link(*f))),
        );
        let _ = write!(
            text,
            "\n[replay]\nport = {:?}\naddress = {addresses}\n{}",
            self.port,
            extra("replay")
        );
        for family in &self.families {
            for service in &self.services {
                let (from, to) = (service.on_production(*family), service.on_target(*family));
                let _ = write!(text, "\n[[transfer]]\nfrom = \"{from}\"\nto = \"{to}\"\n");
            }
        }
        if self.clients == Clients::Pool {
            let pool = quoted(self.families.iter().map(|f| f.pool().to_owned()));
            let _ = write!(text, "\n[clients]\npool = {pool}\n{}", extra("clients"));
        }
        let _ = write!(
            text,
            "\n[traffic]\ncopies = {}\npercent = {}\n{}",
            self.copies,
            self.percent,
            extra("traffic")
        );
        match lab.options().responses {
            Responses::Embedded => text.push_str("\n[intercept]\nmode = \"embedded\"\n"),
            Responses::Remote => {
                text.push_str("\n[intercept]\nmode = \"remote\"\nservers = [\"10.30.0.3:36524\"]\nkey_file = \"link.key\"\n");
            }
        }
        text.push_str(&extra("intercept"));
        let _ = write!(
            text,
            "\n[limits]\nsessions = 20_000\nmbufs = \"128MiB\"\nsession_bytes = \"4MiB\"\n{}",
            extra("limits")
        );
        let report = self.report(lab);
        let _ = write!(
            text,
            "\n[report]\ninterval = \"500ms\"\njson = {report:?}\n{}",
            extra("report")
        );
        let _ = write!(
            text,
            "\n[eal]\nlcores = {}\nmemory = \"no-huge\"\n{}",
            lcores(self.workers)?,
            extra("eal")
        );
        edited(text, &self.edits)
    }

    /// Writes the file and the link's key. Returns its path.
    pub(super) fn write(&self, lab: &Lab) -> Result<PathBuf> {
        let path = self.config(lab);
        std::fs::write(&path, self.toml(lab)?)
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        write_key(lab)?;
        Ok(path)
    }

    fn report(&self, lab: &Lab) -> PathBuf {
        match self.name {
            FIRST => lab.file("report.json"),
            name => lab.file(&format!("{name}-report.json")),
        }
    }

    fn config(&self, lab: &Lab) -> PathBuf {
        match self.name {
            FIRST => lab.file("replay.toml"),
            name => lab.file(&format!("{name}.toml")),
        }
    }
}

/// The command of the engine as an ordinary user. It is a copy, as that user may not get at the
/// build folder.
fn ordinary(lab: &Lab, capabilities: &[&str]) -> Result<Command> {
    let copy = lab.file("engine");
    std::fs::copy(binary("engine")?, &copy)?;
    std::os::unix::fs::chown(lab.dir(), Some(ORDINARY_USER), Some(ORDINARY_USER))?;
    let set = capabilities
        .iter()
        .fold("-all".to_owned(), |set, c| format!("{set},+{c}"));
    let mut command = lab.command(Node::Appliance, "setpriv");
    command
        .arg(format!("--reuid={ORDINARY_USER}"))
        .arg(format!("--regid={ORDINARY_USER}"))
        .args(["--clear-groups", "--no-new-privs", "--pdeathsig=KILL"])
        .arg(format!("--bounding-set={set}"))
        .arg(format!("--inh-caps={set}"))
        .arg(format!("--ambient-caps={set}"))
        .arg(copy)
        .env("XDG_RUNTIME_DIR", lab.dir());
    Ok(command)
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    process: Process,
    report: PathBuf,
}

impl Engine {
    /// Writes `replay.toml` in the lab's folder, starts the engine and waits until it is ready.
    ///
    /// # Errors
    /// The binary is not built, or the engine ends before it is ready: its log's last lines are in
    /// the error.
    pub fn start(lab: &Lab, options: &EngineOptions) -> Result<Self> {
        let process = spawn_ready(lab, options.name, || Self::command(lab, options))?;
        Ok(Self {
            process,
            report: options.report(lab),
        })
    }

    /// The command that starts the engine, with its configuration already written: for tests of
    /// what it says and how it ends.
    ///
    /// # Errors
    /// The binary is not built, or a file can't be written.
    pub fn command(lab: &Lab, options: &EngineOptions) -> Result<Command> {
        let path = options.write(lab)?;
        let mut command = match options.capabilities {
            None => lab.command(Node::Appliance, binary("engine")?),
            Some(capabilities) => ordinary(lab, capabilities)?,
        };
        command
            .arg("--config")
            .arg(&path)
            .args(&options.args)
            .current_dir(lab.dir());
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        Ok(command)
    }

    /// Its process.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The report it wrote last, `None` if it has written none yet.
    ///
    /// # Errors
    /// There is one and it's no report.
    pub fn report(&self) -> Result<Option<Report>> {
        if self.report.exists() {
            Report::read(&self.report).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Waits until a report says that `turns` turns of production were seen and none is in flight.
    /// It looks at every report on the way and checks its books.
    ///
    /// # Errors
    /// Not in time, the engine ended, or a report's books don't balance.
    pub fn settle(&mut self, turns: u64, copies: u16, limit: Duration) -> Result<Report> {
        let mut last = None;
        let settled = wait_until("every turn replayed", limit, || {
            if let Some(status) = self.process.status()? {
                bail!(
                    "engine: ended ({status}); its log:\n{}",
                    self.process.tail()
                );
            }
            let Some(report) = self.report()? else {
                return Ok(None);
            };
            report.check_books(copies)?;
            let done = report.number("production.turns")? >= turns
                && report.number("in_flight.turns")? == 0;
            last = Some(report.clone());
            Ok(done.then_some(report))
        });
        settled.map_err(|e| match last {
            Some(report) => anyhow::anyhow!(
                "{e:#} (expected {turns} turns of production); the last report:\n{report}"
            ),
            None => anyhow::anyhow!("{e:#}; there was no report"),
        })
    }

    /// Asks it to end and returns its final report.
    ///
    /// # Errors
    /// Its exit code is not 0, it doesn't end, or leaves no report.
    pub fn stop(mut self) -> Result<Report> {
        let status = self.process.terminate(STOP)?;
        if !status.success() {
            bail!(
                "engine: {status} after SIGTERM instead of exit code 0; its log:\n{}",
                self.process.tail()
            );
        }
        Report::read(&self.report)
    }
}

/// How to start an intercept.
#[derive(Clone, Debug)]
pub struct InterceptOptions {
    /// Keys to add to a section, such as `("link", "payload_prefix = 16")`.
    pub extra: Vec<(&'static str, String)>,
    /// Replacements in the text of the file. What is replaced has to be there.
    pub edits: Vec<(&'static str, String)>,
    /// What its files are called, for a second intercept: NAME.toml, NAME-report.json.
    pub name: &'static str,
    /// Further arguments of the program.
    pub args: Vec<String>,
}

impl Default for InterceptOptions {
    fn default() -> Self {
        Self {
            extra: Vec::new(),
            edits: Vec::new(),
            name: "intercept",
            args: Vec::new(),
        }
    }
}

impl InterceptOptions {
    /// The lab's second intercept: at the assistant's second port, with the addresses that end with
    /// 4.
    pub fn second() -> Self {
        Self {
            edits: vec![
                ("iface=abs0", "iface=abs1".to_owned()),
                ("10.20.0.3/", "10.20.0.4/".to_owned()),
                ("fd20::3/", "fd20::4/".to_owned()),
                ("10.30.0.3:36524", "10.30.0.3:36525".to_owned()),
            ],
            name: "intercept-b",
            ..Self::default()
        }
    }

    /// The text of `intercept.toml`.
    ///
    /// # Errors
    /// Something to be replaced is not there.
    pub fn toml(&self, lab: &Lab) -> Result<String> {
        let line = |section: &str| -> String {
            self.extra
                .iter()
                .filter(|(s, _)| *s == section)
                .map(|(_, l)| format!("{l}\n"))
                .collect()
        };
        let addresses =
            quoted([Family::V4, Family::V6].map(|f| format!("{}/{}", f.assistant(), on_link(f))));
        let text = format!(
            "[port]\ndevice = \"net_af_packet0,iface=abs0,framecnt=4096\"\naddress = {addresses}\n{}\n\
             [link]\nlisten = \"10.30.0.3:36524\"\nkey_file = \"link.key\"\n{}\n\
             [report]\ninterval = \"500ms\"\njson = {:?}\n{}\n\
             [eal]\nlcores = [1]\nmemory = \"no-huge\"\n{}",
            line("port"),
            line("link"),
            lab.file(&format!("{}-report.json", self.name)),
            line("report"),
            line("eal"),
        );
        edited(text, &self.edits)
    }

    /// Writes the file and the link's key. Returns its path.
    pub(super) fn write(&self, lab: &Lab) -> Result<PathBuf> {
        let path = lab.file(&format!("{}.toml", self.name));
        std::fs::write(&path, self.toml(lab)?)
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        write_key(lab)?;
        Ok(path)
    }
}

/// A running intercept.
#[derive(Debug)]
pub struct Intercept {
    process: Process,
    report: PathBuf,
}

impl Intercept {
    /// Writes `intercept.toml`, starts the intercept in the assistant's namespace and waits until
    /// it is ready.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start(lab: &Lab, options: &InterceptOptions) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "{}-{}",
            options.name,
            STARTED.fetch_add(1, Ordering::Relaxed)
        );
        let process = spawn_ready(lab, &name, || Self::command(lab, options))?;
        Ok(Self {
            process,
            report: lab.file(&format!("{}-report.json", options.name)),
        })
    }

    /// The command that starts the intercept, with its configuration already written.
    ///
    /// # Errors
    /// As [`Engine::command`].
    pub fn command(lab: &Lab, options: &InterceptOptions) -> Result<Command> {
        let path = options.write(lab)?;
        let mut command = lab.command(Node::Assistant, binary("intercept")?);
        command
            .arg("--config")
            .arg(&path)
            .args(&options.args)
            .current_dir(lab.dir());
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        Ok(command)
    }

    /// Its process.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks it to end and returns its final report.
    ///
    /// # Errors
    /// Its exit code is not 0, it doesn't end, or leaves no report.
    pub fn stop(mut self) -> Result<Report> {
        let status = self.process.terminate(STOP)?;
        if !status.success() {
            bail!(
                "intercept: {status} after SIGTERM instead of exit code 0; its log:\n{}",
                self.process.tail()
            );
        }
        Report::read(&self.report)
    }
}

/// Starts a process and waits until it is ready.
fn spawn_ready(lab: &Lab, name: &str, command: impl Fn() -> Result<Command>) -> Result<Process> {
    keep_fanouts_apart()?;
    let mut process = lab.spawn(name, command()?)?;
    process.wait_ready("ready", START, is_ready)?;
    Ok(process)
}

/// Uses up process ids, so that the next process has one that is far from all before it.
///
/// DPDK's af_packet driver makes the number of a socket's fanout group of the process id and the
/// interface's number, by exclusive or, and the kernel refuses a number that a socket on another
/// interface of the same namespace has. Ids that are further apart than interfaces are numbered
/// never meet.
pub(super) fn keep_fanouts_apart() -> Result<()> {
    for _ in 0..64 {
        Command::new("true").status().context("true")?;
    }
    Ok(())
}

/// A log line whose message begins with `ready`.
pub(super) fn is_ready(log: &str) -> bool {
    log.lines()
        .any(|line| line.starts_with("ready") || line.contains("] ready"))
}

/// A key for the link between the two, made once for each lab. It protects nothing but a private
/// cable.
fn write_key(lab: &Lab) -> Result<()> {
    let path = lab.file("link.key");
    if path.exists() {
        return Ok(());
    }
    let mut key = [0u8; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut key)?;
    std::fs::write(&path, key)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(())
}
