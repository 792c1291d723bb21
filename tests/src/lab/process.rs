//! Processes of the lab: started in a namespace, logged to a file, ended by their id and never by a
//! name.
//!
//! No process outlives the thread that started it (the kernel kills it then), nor its [`Process`],
//! nor its lab.

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);
/// Lines of a log that are shown when something fails.
const TAIL: usize = 25;

/// A command in a namespace, to be killed by the kernel when the calling thread ends.
pub(super) fn command_in(namespace: &str, program: &OsStr) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "ip", "netns", "exec", namespace])
        .arg(program);
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end and returns its stdout.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{shown}: cannot be run"))?;
    if !out.status.success() {
        bail!(
            "{shown}: {}: {}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The path of one of the project's binaries: in `REPLAY_BIN_DIR`, or beside the running test.
///
/// # Errors
/// It isn't there: it has to be built first.
pub fn binary(name: &str) -> Result<PathBuf> {
    let dirs = match std::env::var_os("REPLAY_BIN_DIR") {
        Some(dir) => vec![PathBuf::from(dir)],
        None => {
            let exe = std::env::current_exe().context("the running program's own path")?;
            exe.ancestors()
                .skip(1)
                .take(2)
                .map(Path::to_owned)
                .collect()
        }
    };
    dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        let places: Vec<_> = dirs.iter().map(|d| d.display().to_string()).collect();
        anyhow!("{name}: is not in {}; build it with `cargo build -p {name}`, or name its folder in REPLAY_BIN_DIR", places.join(" or "))
    })
}

/// Waits until `done` gives a value.
///
/// # Errors
/// It gave none in time (the error names `what`), or it failed.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut done: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = done()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(POLL);
    }
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    pub(super) fn start(name: &str, command: Command, log: PathBuf) -> Result<Self> {
        Self::begin(name, command, log, Stdio::null())
    }

    pub(super) fn start_with(
        name: &str,
        command: Command,
        log: PathBuf,
        input: &Path,
    ) -> Result<Self> {
        let bytes =
            std::fs::read(input).with_context(|| format!("{}: cannot be read", input.display()))?;
        let mut process = Self::begin(name, command, log, Stdio::piped())?;
        let mut pipe = process.child.stdin.take().context("there is no pipe")?;
        // What reads it may end before it has read all.
        std::thread::spawn(move || pipe.write_all(&bytes));
        Ok(process)
    }

    fn begin(name: &str, mut command: Command, log: PathBuf, stdin: Stdio) -> Result<Self> {
        let file =
            File::create(&log).with_context(|| format!("{}: cannot be made", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file).stdin(stdin);
        let child = command
            .spawn()
            .with_context(|| format!("{name}: cannot be started"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
            ended: None,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far, stdout and stderr.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map_or_else(
            |e| e.to_string(),
            |b| String::from_utf8_lossy(&b).into_owned(),
        )
    }

    /// The last lines of [`Process::log`].
    pub fn tail(&self) -> String {
        tail(&self.log())
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// The system can't say.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Waits until its log has a line with `text`.
    ///
    /// # Errors
    /// It ended before, or the time is over; the error has the log's last lines.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<()> {
        self.wait_ready(&format!("{text:?} in its log"), limit, |log| {
            log.contains(text)
        })
    }

    /// Waits until `ready` is true of its log.
    ///
    /// # Errors
    /// As [`Process::wait_for`].
    pub fn wait_ready(
        &mut self,
        what: &str,
        limit: Duration,
        ready: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let name = self.name.clone();
        wait_until(&format!("{name}: {what}"), limit, || {
            let ended = self.status()?;
            if ready(&self.log()) {
                return Ok(Some(()));
            }
            match ended {
                Some(status) => bail!("{name}: ended ({status}) before it was ready"),
                None => Ok(None),
            }
        })
        .map_err(|e| anyhow!("{e:#}; its log:\n{}", self.tail()))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It has not in time.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = format!("{}: end", self.name);
        wait_until(&name, limit, || self.status())
            .map_err(|e| anyhow!("{e:#}; its log:\n{}", self.tail()))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It's gone.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.status()?.is_some() {
            bail!(
                "{}: has already ended; its log:\n{}",
                self.name,
                self.tail()
            );
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("{}: {signal:?}", self.name))
    }

    /// Asks it to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// It had ended before, or does not within the limit.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.status(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The last lines of a text.
pub(super) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(TAIL)..)
        .unwrap_or(&[])
        .join("\n")
}

/// Shows the last lines of every log in a folder.
pub(super) fn print_tails(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    let mut logs: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "log"))
        .collect();
    logs.sort();
    for log in logs {
        let text = std::fs::read(&log)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default();
        if !text.trim().is_empty() {
            eprintln!("--- {}\n{}", log.display(), tail(&text));
        }
    }
}
