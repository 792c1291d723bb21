//! A safe layer over DPDK: the EAL and its lcores, mempools, mbufs, ports and their queues.
//!
//! What always holds:
//! - Every mbuf has one owner, an [`Mbuf`], a queue or a driver; what is shared are counted
//!   [`Payload`]s of it, whose bytes nobody changes.
//! - Every queue has one handle, which moves between threads and cannot be copied or shared.
//! - Nothing outlives what it points into: queues keep their port open, ports keep their pools, and
//!   pools with mbufs still out are never freed.
//! - A [`MirrorPort`] cannot send; the [`AnswerQueue`] of one that was opened to answer takes ARP,
//!   neighbour discovery and ping's answers, and nothing else.
//!
//! [`RxQueue`] and [`TxQueue`] implement the traits of [`wire::io`]; receiving and sending allocate
//! nothing but mbufs, take no lock, log nothing and cannot panic.

mod answers;
mod chain;
mod clock;
mod eal;
mod error;
mod frames;
mod lcore;
mod link_state;
mod logging;
mod mbuf;
mod mempool;
mod missed;
mod numa;
mod packet_ring;
mod payload;
mod pci;
mod port;
mod raw;
mod reassembly;
mod rights;
mod rx;
mod tx;

pub use answers::AnswerQueue;
pub use clock::Clock;
pub use eal::{Eal, EalOptions, LogLevel, Memory};
pub use error::Error;
pub use frames::FrameMaker;
pub use lcore::LcoreHandle;
pub use link_state::{LinkState, wait_for_link};
pub use mbuf::Mbuf;
pub use mempool::{DATA_ROOM, HEADER_ROOM, HEADROOM, MBUF_OVERHEAD, Mempool, SMALL_ROOM};
pub use missed::{Missed, MissedLog};
pub use numa::Hugepages;
pub use payload::Payload;
pub use pci::{Unusable, nic_node, pci_address};
pub use port::{FrameClock, MirrorPort, Port, PortInfo, PortOptions, PortStats, data_room};
pub use reassembly::Reassembly;
pub use rx::{RxQueue, prefetch};
pub use tx::{TxCounters, TxQueue};

/// Version of the DPDK that this was built against, for example `22.11.11`.
pub const VERSION: &str = dpdk_sys::VERSION;
