//! What can go wrong while the machine, memory and ports are set up. Each error is one sentence:
//! what, where, and what would be right.

use crate::pci::Unusable;
use std::ffi::CStr;

/// Why the EAL, a pool, a port or an lcore could not be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The EAL lives once per process and cannot be started again (rte_eal.h, `rte_eal_init`).
    #[error("the EAL was already started in this process and can be started only once")]
    AlreadyStarted,
    /// `rte_eal_init` failed.
    #[error("the EAL could not be started with \"{arguments}\": {reason}")]
    Eal {
        /// The arguments it was given.
        arguments: String,
        /// DPDK's words.
        reason: String,
    },
    /// An EAL argument has a NUL byte inside.
    #[error("the EAL argument {0:?} contains a NUL byte; remove it")]
    Argument(String),
    /// A CPU is named that this process cannot run on.
    #[error("{role} is set to CPU {cpu}, but this process may run on CPUs {allowed} only")]
    Cpu {
        /// Which lcore asked for it: "the main lcore" or "worker 0".
        role: String,
        /// The CPU.
        cpu: usize,
        /// The CPUs that may be used, as the kernel lists them.
        allowed: String,
    },
    /// More workers than the EAL has lcores.
    #[error("{asked} workers are configured, but DPDK was built for at most {most}")]
    TooManyWorkers {
        /// Workers asked for.
        asked: usize,
        /// Workers possible.
        most: usize,
    },
    /// Memory should come from hugepages and there are none free.
    #[error(
        "no free hugepages ({total} reserved, all in use or none at all): run scripts/hugepages.sh to reserve some, or set eal.memory = \"no-huge\""
    )]
    NoHugepages {
        /// Hugepages reserved on the machine, of all sizes.
        total: u64,
    },
    /// A NUMA node that memory is taken from has no free hugepages.
    #[error(
        "{who} is on NUMA node {node}, where no hugepages are free: run scripts/hugepages.sh --node {node} --mib 768 to reserve some"
    )]
    NodeWithoutHugepages {
        /// Who takes memory there: a NIC's address or the control core.
        who: String,
        /// The node.
        node: u32,
    },
    /// DPDK cannot have a NIC.
    #[error("NIC {address}: {why}")]
    Nic {
        /// Its PCI address.
        address: String,
        /// What keeps DPDK from it.
        why: Unusable,
    },
    /// A mempool could not be made.
    #[error(
        "the mempool {name} of {count} mbufs with {data_room} bytes each could not be made: {reason}"
    )]
    Pool {
        /// Its name.
        name: String,
        /// Mbufs asked for.
        count: u32,
        /// Bytes of each buffer, headroom included.
        data_room: u16,
        /// Why.
        reason: String,
    },
    /// A table for reassembly could not be made.
    #[error(
        "the table that reassembles fragments of up to {datagrams} datagrams could not be made: {reason}"
    )]
    Reassembly {
        /// Datagrams asked for.
        datagrams: u32,
        /// Why.
        reason: String,
    },
    /// The kernel has no interface of this name in this network namespace.
    #[error(
        "{port}: no interface {interface:?} in this network namespace; `ip link` lists those there are"
    )]
    NoInterface {
        /// The port, with its role, such as "mirror port net_af_packet0".
        port: String,
        /// The missing interface.
        interface: String,
    },
    /// The process lacks capabilities that a kernel interface takes.
    #[error(
        "{port}: a kernel interface takes {missing}, which this process lacks: run it as root, or give it to an ordinary user (AmbientCapabilities= of a unit, setpriv --ambient-caps)"
    )]
    Rights {
        /// The port, with its role.
        port: String,
        /// The capabilities.
        missing: String,
    },
    /// The process may not lock the memory that a port's rings take.
    #[error(
        "{port}: its rings are locked into memory, and this process may not lock so much: raise that limit (LimitMEMLOCK=infinity of a unit, ulimit -l), give it CAP_IPC_LOCK, or give the device a smaller framecnt"
    )]
    LockedMemory {
        /// The port, with its role.
        port: String,
    },
    /// A file that a port should read, or the folder of one that it should write, is not there.
    #[error("{port}: {path:?} cannot be opened: {reason}")]
    File {
        /// The port, with its role.
        port: String,
        /// The path.
        path: String,
        /// The operating system's words.
        reason: String,
    },
    /// The device string cannot be read.
    #[error("{port}: {what}")]
    Device {
        /// The port, with its role.
        port: String,
        /// What is wrong and what would be right.
        what: String,
    },
    /// No driver makes virtual devices of this name.
    #[error(
        "{port}: no driver has this name, or its plug-in is not installed; usual ones are net_af_packet, net_pcap, net_ring and net_null, each with a number behind"
    )]
    UnknownDriver {
        /// The port, with its role.
        port: String,
    },
    /// A port of this name exists already.
    #[error(
        "{port}: a port of this name is open already; give each device its own number, for example net_af_packet0 and net_af_packet1"
    )]
    Duplicate {
        /// The port, with its role.
        port: String,
    },
    /// No port has this name and no driver makes one.
    #[error(
        "{port}: DPDK has not made a port of it: {reason}; see that a driver of DPDK knows this NIC (RUST_LOG=debug shows what DPDK says), or name a virtual device such as net_af_packet0,iface=eth1"
    )]
    NoPort {
        /// The port, with its role.
        port: String,
        /// DPDK's words.
        reason: String,
    },
    /// DPDK refused a step of a port's set-up.
    #[error("{port}: {step} failed: {reason}")]
    Port {
        /// The port, with its role.
        port: String,
        /// The step.
        step: &'static str,
        /// DPDK's words.
        reason: String,
    },
    /// A device has fewer transmit queues than there are workers.
    #[error(
        "{port}: each of the {asked} workers needs a transmit queue, and the device has {most}: give at most {most} CPUs in eal.lcores"
    )]
    Queues {
        /// The port, with its role.
        port: String,
        /// Queues asked for.
        asked: u16,
        /// Queues there are.
        most: u16,
    },
    /// An option is outside of what the port can do.
    #[error("{port}: {option} is {value}, but this device takes {accepted}")]
    Option {
        /// The port, with its role.
        port: String,
        /// The option.
        option: &'static str,
        /// Its value.
        value: u64,
        /// What would be accepted.
        accepted: String,
    },
    /// There is no worker with this index.
    #[error("there is no worker {index}: the EAL was started with {workers}")]
    NoWorker {
        /// The index asked for.
        index: usize,
        /// How many there are.
        workers: usize,
    },
    /// The worker runs something already.
    #[error("worker {0} is busy: join what it runs before launching more")]
    Busy(usize),
    /// What ran on the worker panicked.
    #[error("worker {index} stopped with a panic: {message}")]
    Panicked {
        /// The worker.
        index: usize,
        /// The panic's message.
        message: String,
    },
}

/// DPDK's text for an errno value, positive or negative, together with what its log said.
pub(crate) fn reason(errno: i32) -> String {
    let said = crate::logging::said();
    // Drivers return -1 for any failure; it does not mean EPERM.
    if errno == -1 {
        return said.unwrap_or_else(|| "the driver gives no reason".to_owned());
    }
    // SAFETY: rte_strerror returns a NUL-terminated string that stays valid for this thread until
    // its next call.
    let text =
        unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(errno.saturating_abs())) }.to_string_lossy();
    match said {
        Some(said) => format!("{text} ({said})"),
        None => text.into_owned(),
    }
}

/// The `rte_errno` of the calling thread.
pub(crate) fn errno() -> i32 {
    // SAFETY: reads a thread-local of DPDK, no precondition.
    unsafe { dpdk_sys::shim_errno() }
}
