//! The lab: a production network with a mirror port, a replay network with a target, and everything
//! that runs in them.
//!
//! Topology (each box a network namespace, each line a veth pair, `sw` and `lan` hold a bridge):
//!
//! ```text
//! client 10.10.0.1 ── sw ── production 10.10.0.2
//!        fd10::1       │               fd10::2
//!                      └─ SPAN ─▶ span0 appliance ctl0 10.30.0.9 ── 10.30.0.3 ctl0 assistant
//! appliance replay0 (10.20.0.9) ── lan ── target 10.20.0.2
//!                   (fd20::9)       │            fd20::2
//!                                   └── assistant abs0 (10.20.0.3, fd20::3)
//! ```
//!
//! Addresses in brackets belong to no kernel: the appliance answers for them itself. Nothing
//! outside of the namespaces is touched. A lab ends with its [`Lab`]: its processes are ended by
//! their ids and its namespaces removed. What a killed owner leaves behind is removed by the next
//! [`Lab::start`] ([`sweep`]), which knows the owner from the namespace's name.

pub mod appliance;
pub mod capture;
pub mod conversation;
pub mod demo;
pub mod guise;
pub mod hugepages;
pub mod offline;
pub mod pcap;
pub mod process;
pub mod report;
pub mod servers;
pub mod stage;
mod topology;
pub mod traces;
pub mod trial;
pub mod turn;
pub mod vm;
pub mod weather;

use crate::load::{Summary, Talk, Workload};
use anyhow::{Context, Result, bail};
use process::Process;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
pub use topology::sweep;

/// A namespace of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// Where clients are.
    Client,
    /// The production server.
    Production,
    /// The production switch with its SPAN port `sp0`.
    Switch,
    /// The appliance: `span0`, `replay0`, `ctl0`.
    Appliance,
    /// The switch of the replay network.
    Lan,
    /// The server under test.
    Target,
    /// The host of a remote intercept: `abs0`, `ctl0`.
    Assistant,
}

impl Node {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Client,
        Self::Production,
        Self::Switch,
        Self::Appliance,
        Self::Lan,
        Self::Target,
        Self::Assistant,
    ];

    /// The end of the namespace's name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Client => "cl",
            Self::Production => "pr",
            Self::Switch => "sw",
            Self::Appliance => "ap",
            Self::Lan => "lan",
            Self::Target => "ta",
            Self::Assistant => "as",
        }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    const fn pick(self, v4: [u8; 4], v6: [u16; 2]) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3])),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(v6[0], 0, 0, 0, 0, 0, 0, v6[1])),
        }
    }

    /// The first client's address.
    pub const fn client(self) -> IpAddr {
        self.pick([10, 10, 0, 1], [0xfd10, 1])
    }

    /// The production server's address.
    pub const fn production(self) -> IpAddr {
        self.pick([10, 10, 0, 2], [0xfd10, 2])
    }

    /// The target's address.
    pub const fn target(self) -> IpAddr {
        self.pick([10, 20, 0, 2], [0xfd20, 2])
    }

    /// The appliance's address on the replay network.
    pub const fn appliance(self) -> IpAddr {
        self.pick([10, 20, 0, 9], [0xfd20, 9])
    }

    /// The remote intercept's address on the replay network.
    pub const fn assistant(self) -> IpAddr {
        self.pick([10, 20, 0, 3], [0xfd20, 3])
    }

    /// The pool of client addresses, which the target routes back.
    pub const fn pool(self) -> &'static str {
        match self {
            Self::V4 => "62.135.200.0/24",
            Self::V6 => "fd62::/120",
        }
    }
}

/// Where the target sends its responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Responses {
    /// To the engine, which absorbs them itself.
    #[default]
    Embedded,
    /// To the assistant with its intercept.
    Remote,
}

/// What the mirror port shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Span {
    /// Both directions of the production server's port.
    #[default]
    Both,
    /// What clients send to it alone.
    ClientToServer,
    /// What it sends to clients alone.
    ServerToClient,
}

/// How to build a lab.
#[derive(Clone, Debug, Default)]
pub struct LabOptions {
    /// Where responses go.
    pub responses: Responses,
    /// What is mirrored.
    pub span: Span,
    /// A second port of each kind: `span1`, which shows this, and `replay1` at the appliance,
    /// `abs1` at the assistant.
    pub second: Option<Span>,
    /// Further client addresses beside the first, 10.10.0.101 and fd10::101 upwards; at most 100.
    pub more_clients: u8,
    /// Recorders keep what clients said, for [`servers::kept`].
    pub keep_bytes: bool,
    /// A name of the caller's choice instead of one derived from the process: such a lab is left
    /// alone by [`sweep`] and outlives its `Lab`.
    pub name: Option<String>,
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    name: String,
    options: LabOptions,
    dir: PathBuf,
    failed: AtomicBool,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// Removes labs whose owner is gone, then builds one.
    ///
    /// # Errors
    /// Not root, a tool is missing, or the kernel refuses a step: the sentence says which.
    pub fn start(options: LabOptions) -> Result<Self> {
        require_root()?;
        if options.more_clients > 100 {
            bail!(
                "more_clients = {}: at most 100 are possible",
                options.more_clients
            );
        }
        sweep()?;
        let name = match &options.name {
            Some(name) => topology::checked_name(name)?,
            None => topology::own_name(NEXT.fetch_add(1, Ordering::Relaxed))?,
        };
        let dir = topology::folder(&name);
        std::fs::create_dir(&dir).with_context(|| format!("{}: cannot be made", dir.display()))?;
        let lab = Self {
            name,
            options,
            dir,
            failed: AtomicBool::new(false),
        };
        // Servers that give up root must be able to reach their files.
        std::fs::set_permissions(
            &lab.dir,
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        topology::build(&lab.name, &lab.options)
            .with_context(|| format!("lab {}: cannot be built", lab.name))?;
        Ok(lab)
    }

    /// The first part of the namespaces' names.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it was built.
    pub const fn options(&self) -> &LabOptions {
        &self.options
    }

    /// The name of a node's namespace.
    pub fn namespace(&self, node: Node) -> String {
        format!("{}-{}", self.name, node.suffix())
    }

    /// The folder of logs, configurations and records. It goes with the lab, unless the test fails:
    /// then it is kept under another name.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of a file in [`Lab::dir`].
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Notes that what was tried here failed: the logs are shown and kept when the lab ends, as
    /// they are after a panic.
    pub fn failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// A command that will run in a node, not started yet. It ends when the thread that starts it
    /// ends.
    pub fn command(&self, node: Node, program: impl AsRef<std::ffi::OsStr>) -> Command {
        process::command_in(&self.namespace(node), program.as_ref())
    }

    /// Starts a process in a node; its output goes to `NAME.log` in [`Lab::dir`].
    ///
    /// # Errors
    /// It can't be started.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        Process::start(name, command, self.file(&format!("{name}.log")))
    }

    /// The same with a file on its standard input, by way of a pipe.
    ///
    /// # Errors
    /// It can't be started, or the file can't be read.
    pub fn spawn_with(&self, name: &str, command: Command, input: &Path) -> Result<Process> {
        Process::start_with(name, command, self.file(&format!("{name}.log")), input)
    }

    /// Runs a command in a node to its end and returns what it wrote to stdout.
    ///
    /// # Errors
    /// It can't be started, or its exit code is not 0: the error has what it wrote to stderr.
    pub fn run(&self, node: Node, program: &str, args: &[&str]) -> Result<String> {
        let mut command = self.command(node, program);
        command.args(args);
        process::output(&mut command)
    }

    /// Runs a workload from the client node against a production server, with the load client's own
    /// process.
    ///
    /// # Errors
    /// The load client can't be run. Failed requests are in the summary, not here.
    pub fn load(&self, workload: &Workload) -> Result<Summary> {
        let mut command = self.load_command(workload)?;
        let out = command.output().context("load")?;
        let text = String::from_utf8_lossy(&out.stdout);
        serde_json::from_str(&text).with_context(|| {
            format!(
                "load: wrote {text:?} and {:?}",
                String::from_utf8_lossy(&out.stderr)
            )
        })
    }

    /// The command of [`Lab::load`], for those who want to run several at the same time.
    ///
    /// # Errors
    /// The load client's binary is not there.
    pub fn load_command(&self, w: &Workload) -> Result<Command> {
        let mut command = self.command(Node::Client, process::binary("load")?);
        let from: Vec<String> = w.from.iter().map(ToString::to_string).collect();
        command.arg(format!("--to={}", w.to));
        if !from.is_empty() {
            command.arg(format!("--from={}", from.join(",")));
        }
        for (key, value) in [
            ("connections", w.connections as u64),
            ("requests", w.requests as u64),
            ("concurrency", w.concurrency as u64),
            ("rate", u64::from(w.rate)),
            ("seed", w.seed),
        ] {
            command.arg(format!("--{key}={value}"));
        }
        match &w.talk {
            Talk::Get => command.arg("get"),
            Talk::Post(sizes) => {
                let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
                command.args(["post".to_owned(), format!("--sizes={}", sizes.join(","))])
            }
            Talk::Redis { pipeline, value } => command.args([
                "redis".to_owned(),
                format!("--pipeline={pipeline}"),
                format!("--value={value}"),
            ]),
            Talk::Smtp => command.arg("smtp"),
        };
        Ok(command)
    }

    /// Loses this share of the TCP packets on the replay network, in percent, in both directions; 0
    /// ends it.
    ///
    /// # Errors
    /// More than 100, or nft refuses.
    pub fn lose_on_replay_network(&self, percent: u8) -> Result<()> {
        topology::lose(&self.namespace(Node::Lan), percent)
    }

    /// TCP packets that were lost there since the loss was set.
    ///
    /// # Errors
    /// None was set, or nft refuses.
    pub fn lost_on_replay_network(&self) -> Result<u64> {
        topology::lost(&self.namespace(Node::Lan))
    }

    /// The MAC addresses of a node.
    ///
    /// # Errors
    /// `ip` can't be run.
    pub fn macs(&self, node: Node) -> Result<Vec<[u8; 6]>> {
        topology::macs(&self.namespace(node))
    }

    /// The client addresses of a family, the first one and further ones.
    pub fn client_addresses(&self, family: Family) -> Vec<IpAddr> {
        let more = (0..u16::from(self.options.more_clients))
            .map(|i| family.pick([10, 10, 0, 101 + i as u8], [0xfd10, topology::MORE_V6 + i]));
        std::iter::once(family.client()).chain(more).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.options.name.is_none()
            && let Err(e) = topology::remove(&self.name)
        {
            eprintln!("lab {}: cannot be removed: {e:#}", self.name);
        }
        if std::thread::panicking() || self.failed.load(Ordering::Relaxed) {
            process::print_tails(&self.dir);
            // Under this name nobody sweeps it away.
            let kept = self
                .dir
                .with_file_name(format!("replay-failed-{}", self.name));
            match std::fs::rename(&self.dir, &kept) {
                Ok(()) => eprintln!("lab {}: logs are kept in {}", self.name, kept.display()),
                Err(e) => eprintln!("lab {}: logs cannot be kept: {e}", self.name),
            }
        } else if let Err(e) = std::fs::remove_dir_all(&self.dir) {
            eprintln!(
                "lab {}: {}: cannot be removed: {e}",
                self.name,
                self.dir.display()
            );
        }
    }
}

/// Removes a lab by its name, with all processes in it.
///
/// # Errors
/// A namespace can't be removed.
pub fn remove(name: &str) -> Result<()> {
    require_root()?;
    topology::remove(&topology::checked_name(name)?)
}

/// Refuses to go on without root.
///
/// # Errors
/// Not root.
pub fn require_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "the lab makes network namespaces and needs root: run it with sudo, or set REPLAY_SKIP_ROOT=1 to skip its tests"
    )
}

/// True if tests that need the lab are to be skipped: not root, and `REPLAY_SKIP_ROOT=1` says so.
/// It says it aloud.
pub fn skipped(test: &str) -> bool {
    let skip = std::env::var("REPLAY_SKIP_ROOT").is_ok_and(|v| v == "1")
        && !rustix::process::geteuid().is_root();
    if skip {
        eprintln!("SKIPPED {test}: not root and REPLAY_SKIP_ROOT=1; nothing was proved");
    }
    skip
}

/// A server's address as clients write it.
pub const fn endpoint(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
