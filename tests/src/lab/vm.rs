//! A virtual machine in the lab: a guest with PCI NICs in the appliance's place, so that the engine
//! and the intercept run on real drivers, VFIO and an IOMMU. The rest of the lab stays as it is.
//!
//! QEMU emulates all of it in software, in the appliance's namespace; no KVM is needed. The guest
//! has this machine's files as its root, read-only, with what it writes in memory, and shares the
//! lab's folder under the same path: configurations, keys, logs and reports are where they are
//! without a guest. A guest ends with its [`Vm`].
//!
//! A guest in software emulation may stop for ever. Whoever waits for one asks [`Vm::alive`], and
//! [`once_more`] tells such an end from a failure.

pub mod by_hand;
mod machine;
mod nics;
pub mod trial;

use super::process::{Process, wait_until};
use super::{Lab, Node};
use anyhow::{Context, Result, bail};
pub use machine::Machine;
pub use nics::{Cable, Model, Nic};
use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A boot takes 15 s on two quiet cores.
const BOOT: Duration = Duration::from_secs(100);
/// A guest whose agent was silent for this long hangs: it writes five times a second, and both of
/// its busy CPUs together hold it up for less than one.
const SILENCE: Duration = Duration::from_secs(40);
/// Small commands.
const COMMAND: Duration = Duration::from_secs(60);

const AGENT: &str = include_str!("vm/agent.sh");

/// How to set up a guest.
#[derive(Clone, Debug)]
pub struct VmOptions {
    /// Its NICs, in the order of their PCI addresses.
    pub nics: Vec<Nic>,
    /// Its memory.
    pub memory: Memory,
}

impl VmOptions {
    /// The PCI address of the first NIC with that cable.
    pub fn address(&self, cable: Cable) -> Option<String> {
        let index = self.nics.iter().position(|nic| nic.cable == cable)?;
        Some(nics::address(index, self.memory))
    }
}

/// What memory a guest has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// 2 GiB, of which 200 pages of 2 MiB are reserved.
    #[default]
    Mib2,
    /// 4 GiB, of which one page of 1 GiB is reserved.
    Gib1,
    /// Two NUMA nodes of 1 GiB, each with half of 400 pages of 2 MiB. CPUs 0 and 1 are near the
    /// first, CPU 2 is near the second; so are NICs, in turn.
    TwoNodes,
}

impl Memory {
    const fn size(self) -> &'static str {
        match self {
            Self::Mib2 | Self::TwoNodes => "2G",
            Self::Gib1 => "4G",
        }
    }

    const fn kernel(self) -> &'static str {
        match self {
            Self::Mib2 => "hugepages=200",
            Self::TwoNodes => "hugepages=400",
            Self::Gib1 => "default_hugepagesz=1G hugepagesz=1G hugepages=1",
        }
    }
}

/// The guest stood still: nothing was proved, for or against what ran in it.
#[derive(Debug)]
pub struct Hangs(String);

impl std::fmt::Display for Hangs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the VM hangs: {}", self.0)
    }
}

impl std::error::Error for Hangs {}

/// Runs a trial, and once more if the guest hung.
///
/// # Errors
/// What the trial says.
pub fn once_more<T>(test: &str, trial: impl Fn() -> Result<T>) -> Result<T> {
    match trial() {
        Err(e) if e.is::<Hangs>() => {
            eprintln!("{test}: {}; it is tried once more\n{e:#}", e.root_cause());
            trial()
        }
        other => other,
    }
}

/// The guest's sign of life: what its agent counts up.
#[derive(Debug)]
struct Beat {
    last: String,
    at: Instant,
}

impl Beat {
    const fn new(now: Instant) -> Self {
        Self {
            last: String::new(),
            at: now,
        }
    }

    /// Takes what the agent has written. Nothing is what is read while it writes.
    fn look(&mut self, said: &str, now: Instant) -> std::result::Result<(), Hangs> {
        if !said.is_empty() && said != self.last {
            said.clone_into(&mut self.last);
            self.at = now;
        } else if now.duration_since(self.at) > SILENCE {
            return Err(Hangs(format!("no sign of life for {SILENCE:?}")));
        }
        Ok(())
    }
}

/// A running guest.
#[derive(Debug)]
pub struct Vm {
    process: Process,
    /// The lab's folder, which it shares.
    dir: PathBuf,
    beat: Beat,
    commands: u32,
}

impl Vm {
    /// Makes the NICs' cables, boots a guest and gives its NICs to VFIO.
    ///
    /// # Errors
    /// QEMU can't be started, or the guest does not boot ([`Hangs`]) or refuses a NIC.
    pub fn start(lab: &Lab, machine: &Machine, options: &VmOptions) -> Result<Self> {
        let dir = lab.dir().to_owned();
        let share = lab.file("vm");
        std::fs::create_dir_all(&share)
            .with_context(|| format!("{}: cannot be made", share.display()))?;
        std::fs::write(share.join("agent.sh"), AGENT)?;
        for (index, nic) in options.nics.iter().enumerate() {
            nic.lay(lab, index)?;
        }
        let mut command = lab.command(Node::Appliance, machine.qemu());
        machine.arguments(&mut command, &dir, options);
        let process = lab.spawn("vm", command)?;
        let mut vm = Self {
            process,
            dir,
            beat: Beat::new(Instant::now()),
            commands: 0,
        };
        vm.boots()?;
        let addresses: Vec<String> = (0..options.nics.len())
            .map(|index| nics::address(index, options.memory))
            .collect();
        vm.run(&nics::bind(&addresses))?;
        if options.memory == Memory::TwoNodes {
            vm.run(&nics::is_near(&addresses))?;
        }
        Ok(vm)
    }

    fn boots(&mut self) -> Result<()> {
        let first = self.share("beat");
        let booted = wait_until("boot", BOOT, || {
            self.runs()?;
            Ok(first.exists().then_some(()))
        });
        if booted.is_err() {
            self.runs()?;
            let console = std::fs::read(self.dir.join("console.log")).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            let last = console.lines().last().unwrap_or("nothing").to_owned();
            return Err(Hangs(format!("no boot within {BOOT:?}; it said: {last}")).into());
        }
        self.beat = Beat::new(Instant::now());
        Ok(())
    }

    /// A file of the guest's agent.
    fn share(&self, name: &str) -> PathBuf {
        self.dir.join("vm").join(name)
    }

    fn runs(&mut self) -> Result<()> {
        match self.process.status()? {
            None => Ok(()),
            Some(status) => bail!("QEMU ended ({status}); it said:\n{}", self.process.tail()),
        }
    }

    /// Pulls the cable of the NIC with this index, or plugs it in again.
    ///
    /// # Errors
    /// QEMU's monitor does not take it.
    pub fn set_link(&self, index: usize, up: bool) -> Result<()> {
        let state = if up { "on" } else { "off" };
        let path = self.dir.join(machine::MONITOR);
        UnixStream::connect(&path)
            .and_then(|mut monitor| {
                monitor.write_all(format!("set_link net{index} {state}\n").as_bytes())?;
                // It carries out what it was told and then sees that nobody is there any more.
                monitor.shutdown(Shutdown::Write)?;
                monitor.set_read_timeout(Some(COMMAND))?;
                std::io::copy(&mut monitor, &mut std::io::sink())
            })
            .map(drop)
            .with_context(|| format!("{}: set_link", path.display()))
    }

    /// QEMU's process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Asks whether the guest goes on. To be called again and again by whoever waits for it.
    ///
    /// # Errors
    /// QEMU has ended, or the guest was silent for a long time ([`Hangs`]).
    pub fn alive(&mut self) -> Result<()> {
        self.runs()?;
        let said = std::fs::read_to_string(self.share("beat")).unwrap_or_default();
        self.beat.look(&said, Instant::now())?;
        Ok(())
    }

    /// After something went wrong: waits for a sign of life, so that a guest that hangs is not
    /// taken for a failure of what ran in it.
    ///
    /// # Errors
    /// As [`Vm::alive`].
    pub fn prove_alive(&mut self) -> Result<()> {
        self.alive()?;
        let last = self.beat.last.clone();
        while self.beat.last == last {
            std::thread::sleep(Duration::from_millis(100));
            self.alive()?;
        }
        Ok(())
    }

    /// Waits until `done` gives a value, as long as the guest lives.
    ///
    /// # Errors
    /// Not in time, or it failed; or as [`Vm::alive`].
    pub fn wait_until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let waited = wait_until(what, limit, || match done()? {
            Some(value) => Ok(Some(value)),
            None => self.alive().map(|()| None),
        });
        match waited {
            Err(e) if !e.is::<Hangs>() => {
                self.prove_alive()?;
                Err(e)
            }
            other => other,
        }
    }

    /// Starts a script in the guest. Its output goes to `NAME.log` in the lab's folder.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn spawn(&self, name: &str, script: &str) -> Result<Job> {
        let code = self.share(&format!("{name}.code"));
        let _ = std::fs::remove_file(&code);
        let text = format!("cd {}\n{script}\n", self.dir.display());
        // The agent is not to read half of it.
        let new = self.share(&format!("{name}.new"));
        std::fs::write(&new, text)?;
        std::fs::rename(&new, self.share(&format!("{name}.job")))?;
        Ok(Job {
            name: name.to_owned(),
            code,
            log: self.dir.join(format!("{name}.log")),
        })
    }

    /// Starts a program in the guest that [`Vm::terminate`] can end.
    ///
    /// # Errors
    /// As [`Vm::spawn`].
    pub fn program(&self, name: &str, program: &Path, args: &[&str]) -> Result<Job> {
        let script = format!(
            "echo $$ >vm/{name}.pid\nexport RUST_LOG=\"${{RUST_LOG:-info}}\"\nexec '{}' {}",
            program.display(),
            args.join(" ")
        );
        self.spawn(name, &script)
    }

    /// Runs a script in the guest to its end. Returns what it wrote.
    ///
    /// # Errors
    /// Its exit code is not 0, or as [`Vm::wait_until`].
    pub fn run(&mut self, script: &str) -> Result<String> {
        self.commands += 1;
        let job = self.spawn(&format!("command-{}", self.commands), script)?;
        let code = self.wait(&job, COMMAND)?;
        if code != 0 {
            bail!("the guest: exit code {code} of\n{script}\n{}", job.log());
        }
        Ok(job.log())
    }

    /// Waits until a job has ended. Returns its exit code.
    ///
    /// # Errors
    /// As [`Vm::wait_until`].
    pub fn wait(&mut self, job: &Job, limit: Duration) -> Result<i32> {
        let what = format!("{}: end", job.name);
        self.wait_until(&what, limit, || job.code())
            .with_context(|| format!("its log:\n{}", job.tail()))
    }

    /// Waits until a program's log says that it is ready.
    ///
    /// # Errors
    /// It ended before, or as [`Vm::wait_until`].
    pub fn wait_ready(&mut self, job: &Job, limit: Duration) -> Result<()> {
        self.wait_until(&format!("{}: ready", job.name), limit, || {
            if let Some(code) = job.code()? {
                bail!("{}: exit code {code} before it was ready", job.name);
            }
            Ok(super::appliance::is_ready(&job.log()).then_some(()))
        })
        .with_context(|| format!("its log:\n{}", job.tail()))
    }

    /// Asks a program to end (SIGTERM) and waits for it. Returns its exit code.
    ///
    /// # Errors
    /// As [`Vm::wait_until`].
    pub fn terminate(&mut self, job: &Job, limit: Duration) -> Result<i32> {
        self.run(&format!("kill -TERM $(cat vm/{}.pid)", job.name))?;
        self.wait(job, limit)
    }
}

/// A script in the guest.
#[derive(Debug)]
pub struct Job {
    name: String,
    code: PathBuf,
    log: PathBuf,
}

impl Job {
    /// Its exit code, if it has ended.
    ///
    /// # Errors
    /// What the agent wrote is no number.
    pub fn code(&self) -> Result<Option<i32>> {
        match std::fs::read_to_string(&self.code) {
            Ok(text) => {
                let code = text.trim().parse();
                Ok(Some(
                    code.with_context(|| format!("{text:?} as exit code"))?,
                ))
            }
            Err(_) => Ok(None),
        }
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of it.
    pub fn tail(&self) -> String {
        super::process::tail(&self.log())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use std::cell::Cell;

    #[test]
    fn a_guest_that_is_silent_for_long_hangs() {
        let start = Instant::now();
        let mut beat = Beat::new(start);
        beat.look("1", start + SILENCE).unwrap();
        // Half-written and old counts are no sign of life, and no end yet.
        beat.look("", start + 2 * SILENCE).unwrap();
        beat.look("1", start + 2 * SILENCE).unwrap();
        beat.look("2", start + 4 * SILENCE).unwrap();
        for silent in ["", "2"] {
            let error = beat.look(silent, start + 6 * SILENCE).unwrap_err();
            assert_eq!(error.to_string(), "the VM hangs: no sign of life for 40s");
        }
    }

    #[test]
    fn what_hangs_is_tried_once_more_and_what_fails_is_not() {
        let tried = Cell::new(0);
        let trial = |outcomes: &[fn() -> Result<()>]| {
            tried.set(0);
            once_more("a trial", || {
                let outcome = outcomes.get(tried.get()).unwrap()();
                tried.set(tried.get() + 1);
                outcome
            })
        };
        let (passes, fails): (fn() -> _, fn() -> _) =
            (|| Ok(()), || Err(anyhow!("lost in fair weather")));
        // What says where it hung does not hide that it did.
        let hangs: fn() -> _ = || Err(Hangs("silent".to_owned())).context("its log");

        trial(&[hangs, passes]).unwrap();
        assert_eq!(tried.get(), 2);
        assert!(trial(&[hangs, hangs]).unwrap_err().is::<Hangs>());
        assert_eq!(tried.get(), 2);
        trial(&[fails]).unwrap_err();
        assert_eq!(tried.get(), 1);
    }
}
