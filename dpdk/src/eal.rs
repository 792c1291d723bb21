//! The environment abstraction layer: options, start, and the end of it.
//!
//! There is one EAL per process. [`Eal`] is a handle that may be cloned; whatever uses DPDK's
//! memory holds one, so the memory is unmapped only when nothing can point into it any more. Lcore
//! 0 is the main one, the thread that called [`Eal::init`]; worker `i` is lcore `i + 1`. Lcore
//! numbers are not CPU numbers, so several workers may share a CPU.

use crate::clock::{Calibration, Clock};
use crate::error::{Error, errno, reason};
use crate::logging;
use crate::numa::{self, Hugepages, in_cpu_list};
use crate::pci::{self, Bus, pci_address};
use std::ffi::{CString, c_char, c_int};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

/// Where packet memory comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// Hugepages, taken as needed, with nothing left behind in a file system (`--in-memory`).
    Hugepages,
    /// Ordinary pages, all taken at start; for machines without hugepages and for tests.
    NoHuge {
        /// How much, in MiB.
        mib: usize,
    },
}

/// From which severity on DPDK's own log lines are passed to the `log` crate (rte_log.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogLevel {
    /// Errors.
    Error,
    /// Warnings and errors.
    #[default]
    Warning,
    /// What is worth knowing, as well.
    Notice,
    /// Everything but debugging.
    Info,
    /// Everything.
    Debug,
}

impl LogLevel {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// How to start the EAL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EalOptions {
    /// CPU of each worker; the same CPU may stand here more than once.
    pub workers: Vec<usize>,
    /// CPU of the main lcore. The thread that starts the EAL is pinned to it.
    pub main_cpu: usize,
    /// Where memory comes from.
    pub memory: Memory,
    /// Keeps this process apart from other DPDK processes; empty: one is made of the process id.
    pub file_prefix: String,
    /// The NICs on the PCI bus to be had, each an address ([`pci_address`]) with the driver's
    /// arguments behind a comma, if any. All others are left to other processes; without any here
    /// the bus is not looked at.
    pub nics: Vec<String>,
    /// Which of DPDK's log lines are passed on.
    pub log_level: LogLevel,
    /// Arguments passed on as they are, such as `--iova-mode va`.
    pub extra: Vec<String>,
}

impl Default for EalOptions {
    fn default() -> Self {
        Self {
            workers: vec![],
            main_cpu: 0,
            memory: Memory::Hugepages,
            file_prefix: String::new(),
            nics: vec![],
            log_level: LogLevel::default(),
            extra: vec![],
        }
    }
}

impl EalOptions {
    /// The arguments for [`Eal::init`], program name first.
    pub fn args(&self) -> Vec<String> {
        let mut args = vec![env!("CARGO_PKG_NAME").to_owned()];
        let mut lcores = format!("0@{}", self.main_cpu);
        for (i, cpu) in self.workers.iter().enumerate() {
            lcores.push_str(&format!(",{}@{cpu}", i + 1));
        }
        args.extend([
            "--lcores".to_owned(),
            lcores,
            "--main-lcore".to_owned(),
            "0".to_owned(),
        ]);
        match self.memory {
            Memory::Hugepages => args.push("--in-memory".to_owned()),
            Memory::NoHuge { mib } => {
                args.extend([
                    "--no-huge".to_owned(),
                    "-m".to_owned(),
                    mib.to_string(),
                    "--no-shconf".to_owned(),
                ]);
            }
        }
        let prefix = match self.file_prefix.as_str() {
            "" => format!("{}-{}", env!("CARGO_PKG_NAME"), std::process::id()),
            given => given.to_owned(),
        };
        args.extend([
            "--file-prefix".to_owned(),
            prefix,
            "--no-telemetry".to_owned(),
        ]);
        if self.nics.is_empty() {
            args.push("--no-pci".to_owned());
        }
        for nic in &self.nics {
            let address = pci_address(nic).unwrap_or_else(|| nic.clone());
            let arguments = nic.split_once(',').map(|(_, arguments)| arguments);
            let allowed = [address.as_str()].into_iter().chain(arguments);
            args.extend(["--allow".to_owned(), allowed.collect::<Vec<_>>().join(",")]);
        }
        args.push(format!("--log-level={}", self.log_level.name()));
        args.extend(self.extra.iter().cloned());
        args
    }

    /// Checks the machine against these options without starting anything: CPUs, NICs, and
    /// hugepages where they are needed.
    pub fn check(&self) -> Result<(), Error> {
        let most = dpdk_sys::RTE_MAX_LCORE as usize - 1;
        if self.workers.len() > most {
            return Err(Error::TooManyWorkers {
                asked: self.workers.len(),
                most,
            });
        }
        if let Some(allowed) = allowed_cpus() {
            let main = ("the main lcore".to_owned(), self.main_cpu);
            let workers = self
                .workers
                .iter()
                .enumerate()
                .map(|(i, cpu)| (format!("worker {i}"), *cpu));
            for (role, cpu) in std::iter::once(main).chain(workers) {
                if !in_cpu_list(&allowed, cpu) {
                    return Err(Error::Cpu { role, cpu, allowed });
                }
            }
        }
        let (bus, hugepages) = (Bus::default(), self.memory == Memory::Hugepages);
        let nics: Vec<String> = self.nics.iter().filter_map(|n| pci_address(n)).collect();
        pci::check(&bus, &nics, hugepages)?;
        if hugepages {
            let pages = Hugepages::of_machine();
            if pages.free == 0 {
                return Err(Error::NoHugepages { total: pages.total });
            }
            let nodes = numa::nodes(Path::new("/sys"));
            let main = numa::node_of_cpu(&nodes, self.main_cpu);
            let main_name = format!("the control core, CPU {},", self.main_cpu);
            let takers = nics.iter().map(|nic| (nic.as_str(), bus.node(nic)));
            let takers = takers.chain([(main_name.as_str(), main)]);
            if let Some((who, node)) = numa::without_pages(&nodes, takers) {
                let who = who.to_owned();
                return Err(Error::NodeWithoutHugepages { who, node });
            }
        }
        Ok(())
    }

    /// Checks the machine, then starts the EAL.
    pub fn start(&self) -> Result<Eal, Error> {
        self.check()?;
        Eal::init(&self.args())
    }
}

/// The CPUs this process may run on, as the kernel writes them ("0-3,8"). The EAL aborts the
/// process when it cannot pin a worker, so the list is looked at before.
fn allowed_cpus() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|l| l.strip_prefix("Cpus_allowed_list:"))
        .map(|l| l.trim().to_owned())
}

/// The running EAL.
#[derive(Clone)]
pub struct Eal {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) clock: Clock,
    /// How many workers there are: lcores 1 to `workers`.
    pub(crate) workers: usize,
    /// Serialises launches, which talk to a worker over a pipe, and the making and removing of
    /// ports.
    pub(crate) control: Mutex<()>,
    /// What DPDK said while it started: why a NIC could not be had.
    pub(crate) said: Vec<String>,
    main_thread: ThreadId,
    /// The EAL parses its arguments in place and keeps pointers to them.
    _argv: Argv,
}

struct Argv {
    _strings: Vec<CString>,
    pointers: Vec<*mut c_char>,
}

// SAFETY: the pointers lead into `_strings`, which nothing but the EAL's own start touches.
unsafe impl Send for Argv {}
// SAFETY: as above; no method gives access to them.
unsafe impl Sync for Argv {}

/// Without shared configuration the EAL makes its runtime folder and puts nothing there. It would
/// stay behind, one for each process id.
fn remove_empty_runtime_dir() {
    // SAFETY: the EAL has been started, so this is a static NUL-terminated string or null.
    let dir = unsafe {
        let dir = dpdk_sys::rte_eal_get_runtime_dir();
        (!dir.is_null()).then(|| std::ffi::CStr::from_ptr(dir))
    };
    if let Some(Ok(dir)) = dir.map(std::ffi::CStr::to_str) {
        // Fails, as it should, when there is something in it.
        let _ = std::fs::remove_dir(dir);
    }
}

static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts the EAL with these arguments, program name first (rte_eal.h, `rte_eal_init`). The
    /// calling thread becomes the main lcore and is pinned to its CPU. [`EalOptions::start`]
    /// makes the arguments and checks the machine before.
    ///
    /// Once per process: a second call is refused, even after the first one failed, since DPDK
    /// leaves a failed start half done.
    pub fn init(args: &[String]) -> Result<Self, Error> {
        let strings = args
            .iter()
            .map(|a| CString::new(a.as_str()).map_err(|_| Error::Argument(a.clone())))
            .collect::<Result<Vec<_>, _>>()?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(Error::AlreadyStarted);
        }
        logging::open();
        logging::clear();
        let mut pointers: Vec<*mut c_char> =
            strings.iter().map(|s| s.as_ptr().cast_mut()).collect();
        pointers.push(std::ptr::null_mut());
        let mut argv = Argv {
            _strings: strings,
            pointers,
        };
        let calibration = Calibration::begin();
        // SAFETY: `pointers` has `args.len()` NUL-terminated strings and a null behind them; both
        // it and the strings are kept as long as the EAL lives. The EAL permutes the
        // pointers and writes to no string.
        let parsed =
            unsafe { dpdk_sys::rte_eal_init(args.len() as c_int, argv.pointers.as_mut_ptr()) };
        if parsed < 0 {
            let error = Error::Eal {
                arguments: args.get(1..).unwrap_or(&[]).join(" "),
                reason: reason(errno()),
            };
            // What was started half may still point at the arguments.
            std::mem::forget(argv);
            return Err(error);
        }
        let clock = calibration.finish();
        let said = logging::take();
        remove_empty_runtime_dir();
        let workers = crate::lcore::count_workers();
        Ok(Self {
            inner: Arc::new(Inner {
                clock,
                workers,
                control: Mutex::new(()),
                said,
                main_thread: std::thread::current().id(),
                _argv: argv,
            }),
        })
    }

    /// The clock that all cores share.
    pub fn clock(&self) -> Clock {
        self.inner.clock
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.inner.workers
    }

    /// Version of the DPDK that runs.
    pub fn version(&self) -> String {
        // SAFETY: returns a static NUL-terminated string.
        unsafe { std::ffi::CStr::from_ptr(dpdk_sys::rte_version()) }
            .to_string_lossy()
            .into_owned()
    }
}

impl std::fmt::Debug for Eal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eal")
            .field("workers", &self.inner.workers)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// True if no thread but the caller can be in the middle of handing an mbuf back through the
    /// cache of `lcore`.
    pub(crate) fn is_quiet(&self, lcore: u32) -> bool {
        // SAFETY: reads a thread-local of DPDK.
        if lcore == unsafe { dpdk_sys::shim_lcore_id() } {
            return true;
        }
        // Lcore 0 is whatever the main thread does, which is not ours to know.
        lcore != 0 && !crate::lcore::is_running(lcore)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nothing of DPDK's memory is in use any more: pools, ports, queues and running closures
        // each hold an `Eal`, and a pool that could not be freed keeps one for good. The
        // EAL must be ended by the thread that started it, with all workers waiting.
        let idle = (1..=self.workers as u32).all(|l| !crate::lcore::is_running(l));
        if idle && std::thread::current().id() == self.main_thread {
            // SAFETY: called once, on the main lcore, with no worker running and no object of DPDK
            // alive.
            unsafe { dpdk_sys::rte_eal_cleanup() };
        } else {
            log::debug!(
                "the EAL is left to the end of the process: its last user was not its main thread"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_give_each_worker_its_own_lcore() {
        let options = EalOptions {
            workers: vec![1, 1],
            memory: Memory::NoHuge { mib: 64 },
            file_prefix: "x".into(),
            ..EalOptions::default()
        };
        let args = options.args().join(" ");
        assert!(
            args.contains("--lcores 0@0,1@1,2@1 --main-lcore 0"),
            "{args}"
        );
        assert!(
            args.contains("--no-huge -m 64")
                && args.contains("--no-pci")
                && !args.contains("--in-memory"),
            "{args}"
        );
        let nics = EalOptions {
            nics: vec!["01:00.0".into(), "0000:02:00.1,x=1".into()],
            ..EalOptions::default()
        };
        let args = nics.args().join(" ");
        assert!(
            args.contains("--allow 0000:01:00.0 --allow 0000:02:00.1,x=1")
                && !args.contains("--no-pci"),
            "{args}"
        );
        let huge = EalOptions::default().args();
        assert!(
            huge.contains(&"--in-memory".to_owned()) && !huge.contains(&"--no-huge".to_owned())
        );
        assert!(
            huge.iter()
                .any(|a| a.contains(&std::process::id().to_string()))
        );
    }

    #[test]
    fn a_cpu_that_this_process_may_not_use_is_refused() {
        let options = EalOptions {
            workers: vec![0, 99_999],
            ..EalOptions::default()
        };
        let text = options.check().unwrap_err().to_string();
        assert!(text.starts_with("worker 1 is set to CPU 99999"), "{text}");
    }
}
