//! What a port is asked for, what it says of itself, and what it counts.

/// How to set up a port. Mirror ports ignore what concerns transmission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortOptions {
    /// Receive queues; a device that has fewer is opened with those it has.
    pub rx_queues: u16,
    /// Transmit queues; a device must have as many.
    pub tx_queues: u16,
    /// Descriptors of each receive queue; rounded to what the device takes.
    pub rx_desc: u16,
    /// Descriptors of each transmit queue; rounded to what the device takes.
    pub tx_desc: u16,
    /// Longest IP packet in bytes; `None`: the interface's own, or 1500, or what the device can if
    /// `longest` says so. The kernel's interface under a software driver is never changed.
    pub mtu: Option<u16>,
    /// Whether a NIC is to receive frames as long as it can.
    pub longest: bool,
    /// Whether to receive frames for any address. Mirror ports always do.
    pub promiscuous: bool,
    /// Whether to receive frames for any multicast address, as those of neighbour discovery are. A
    /// device without such a mode becomes promiscuous. Mirror ports always do.
    pub all_multicast: bool,
    /// Whether the NIC shall spread flows over the receive queues, both directions of a flow to
    /// the same one (Toeplitz with the key 0x6d5a repeated). [`PortInfo::rss`] says whether it
    /// does.
    pub rss: bool,
    /// Cores that flows are dealt out to, by [`PortInfo::table`]; as many as receive queues or
    /// more.
    pub cores: u16,
    /// Whether the receive queues also give the headers of the segments with payload that are sent,
    /// with the time at which they left ([`Mbuf::was_sent`](crate::Mbuf::was_sent)), where the
    /// kernel tells: over net_af_packet. Who asks for it must tell them from what was received.
    pub tells_sent: bool,
    /// Whether a payload that cannot be sent in place may be sent as a chain of mbufs where the
    /// device can do that. Without, it is copied.
    pub chains: bool,
}

impl Default for PortOptions {
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_desc: 1024,
            tx_desc: 1024,
            mtu: None,
            longest: false,
            promiscuous: false,
            all_multicast: false,
            rss: false,
            cores: 1,
            tells_sent: false,
            chains: true,
        }
    }
}

/// What a port is and can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortInfo {
    /// Its name: PCI address or virtual device.
    pub name: String,
    /// Its driver, such as `net_af_packet` or `net_ice`.
    pub driver: String,
    /// The kernel's interface that it receives from, if it does.
    pub interface: Option<String>,
    /// DPDK's number for it.
    pub number: u16,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Longest IP packet that is sent, and that a NIC receives, in bytes.
    pub mtu: u16,
    /// Receive queues in use.
    pub rx_queues: u16,
    /// Receive queues the device has.
    pub max_rx_queues: u16,
    /// Transmit queues the device has.
    pub max_tx_queues: u16,
    /// True if the NIC verifies TCP checksums of what it receives, which spares the decoder that.
    pub rx_checksum: bool,
    /// Transmit offloads the device has (`RTE_ETH_TX_OFFLOAD_*`, rte_ethdev.h).
    pub tx_offloads: u64,
    /// Flow types the device can hash (`RTE_ETH_RSS_*`, rte_ethdev.h).
    pub rss_types: u64,
    /// True if the NIC spreads flows symmetrically over the queues as asked.
    pub rss: bool,
    /// With `rss`: by how many low bits' worth of the hash the queue is chosen. The flow with hash
    /// *h* arrives at the queue of core (*h* mod `table`) mod `cores`, if that core has one.
    pub table: u16,
    /// True if frames are sent as chains, which zero-copy transmission of shared payloads needs.
    pub chains: bool,
    /// True for drivers that poll the kernel, a file or memory instead of a NIC: they may as well
    /// sleep when idle.
    pub software: bool,
    /// Who tells when a frame came.
    pub clock: FrameClock,
    /// NUMA node, if the device has one.
    pub socket: Option<u32>,
}

/// Who tells when a frame came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameClock {
    /// The kernel, when it took the frame. Its times are told by the engine's clock.
    Kernel,
    /// Nobody: the frame counts as having come when it was found.
    Poll,
}

impl FrameClock {
    /// `kernel` or `poll`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Poll => "poll",
        }
    }
}

/// Counters of a port since it was opened (`struct rte_eth_stats`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortStats {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames that the device dropped since no descriptor was free; over a packet socket, those
    /// that found its ring full (packet(7), `PACKET_STATISTICS`), with net_pcap those that libpcap
    /// says were dropped. Other software drivers do not count them.
    pub rx_missed: u64,
    /// Frames that wait in the rings of packet sockets to be received; 0 for other drivers.
    pub rx_waiting: u64,
    /// Frames received with errors.
    pub rx_errors: u64,
    /// Frames that the device dropped as too long, which may be among the errors; `None`: it does
    /// not tell.
    pub rx_too_long: Option<u64>,
    /// Times that no mbuf could be had for a frame.
    pub rx_no_mbuf: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
}
