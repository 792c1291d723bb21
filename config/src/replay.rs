//! `replay.toml`, the engine's configuration: its model and how the file is read.
//!
//! Holds always, in a [`Replay`] that [`parse`] or [`load`] returned: no target is a production
//! address, every target can be reached over its wire, no client pool contains an address that
//! somebody else uses, and no two ports are the same. An address is never an IPv4-mapped IPv6 one
//! and never has a scope, so comparing two compares what goes on the wire.

mod check;
mod files;
mod read;
#[cfg(test)]
mod tests;
mod wires;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::doc::Found;
use crate::key::KeyReader;
use crate::shared::{self, Eal, Report};
use crate::{Error, read_key_file};

pub use files::Files;

/// All of `replay.toml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// `[mirror]`
    pub mirror: Mirror,
    /// `[replay]`, or `[[wire]]` in the order of the file: the replay ports; at least one.
    pub wires: Vec<Wire>,
    /// `[[transfer]]`, in the order of the file; at least one.
    pub transfers: Vec<Transfer>,
    /// `[clients]`
    pub clients: Clients,
    /// `[traffic]`
    pub traffic: Traffic,
    /// `[intercept]`
    pub intercept: Intercept,
    /// `[limits]`
    pub limits: Limits,
    /// `[report]`
    pub report: Report,
    /// `[eal]`
    pub eal: Eal,
    /// What is allowed but unwise, a sentence each, for the log at start.
    pub warnings: Vec<String>,
}

/// `[mirror]`: where production traffic comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Ports or a file.
    pub source: Source,
    /// UDP destination ports behind which an IP packet follows at once, none 0, none twice; at
    /// most [`Mirror::MAX_UDP_PORTS`].
    pub ip_in_udp: Vec<u16>,
    /// Longest IP packet that the ports are to receive, at least [`Mirror::LEAST_MTU`]; `None`: as
    /// long as they can. None for a file.
    pub mtu: Option<u16>,
    /// Frames with a wrong checksum are dropped as damaged.
    pub verify_checksums: bool,
    /// Our addresses on the mirror's wire, each with the length of its on-link prefix: remote
    /// mirrors may be sent there. Nobody else's, and none for a file.
    pub addresses: Vec<IpNet>,
    /// Where tunnels may end, besides `addresses`; at most [`Mirror::MAX_TUNNELS`]. `None`: not
    /// said.
    pub tunnels: Option<Vec<TunnelEnd>>,
}

impl Mirror {
    /// Least `mtu`: every IPv6 link's (RFC 8200 section 5).
    pub const LEAST_MTU: u16 = 1_280;
    /// Most ports in `ip_in_udp`.
    pub const MAX_UDP_PORTS: usize = 8;
    /// Most places in `tunnels`.
    pub const MAX_TUNNELS: usize = 64;
}

/// One of `mirror.tunnels`: a place where tunnels may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelEnd {
    /// Outer destinations; unicast or multicast.
    pub to: IpNet,
    /// The network whose tunnels are meant; `None`: those of all.
    pub network: Option<TunnelNetwork>,
}

/// What names a tunnel's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelNetwork {
    /// VXLAN's or GENEVE's, 24 bits.
    Vni(u32),
    /// A GRE key (RFC 2890).
    Key(u32),
}

/// A mirror's source: `mirror.ports` or `mirror.file`.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Live: DPDK devices (PCI addresses or vdev strings with their arguments), at least one, no
    /// two on the same interface.
    Ports(Vec<String>),
    /// Offline, from capture files.
    Files(Files),
}

/// `mirror.speed`: the pace of an offline replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// This many times the recorded pace; finite and above zero.
    Factor(f64),
    /// As fast as the target answers.
    Max,
}

/// A replay port and the wire that leads from it towards targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Its table, as errors call it: `replay` or, for example, `wire[1]`.
    pub table: String,
    /// What transfers call it; `None` with `[replay]`.
    pub name: Option<String>,
    /// DPDK device: PCI address or vdev string with its arguments.
    pub port: String,
    /// Our addresses on that wire, each with the length of its on-link prefix. Empty only with
    /// `next_hop_mac`.
    pub addresses: Vec<IpNet>,
    /// Routers for targets that are not on the wire, at most one a family.
    pub gateways: Vec<IpAddr>,
    /// The next hop's Ethernet address, if it is not to be resolved by ARP or ND; unicast.
    pub next_hop_mac: Option<[u8; 6]>,
}

/// When the turns of a session go to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// A turn waits until the target has answered the one before.
    pub wait_for_responses: bool,
    /// The emulated client's RTT; `None`: as measured on the mirror.
    pub rtt: Option<Duration>,
    /// Longest time a turn waits for the answer before it.
    pub gate_timeout: Duration,
}

/// One `[[transfer]]`: which production service is replayed to which target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The production service.
    pub from: Origin,
    /// The target.
    pub to: SocketAddr,
    /// `wait_for_responses`, `rtt` and `gate_timeout`, each from `[traffic]` where the transfer
    /// does not say it.
    pub pace: Pace,
    /// The wire over which the target is reached, as an index into `wires`.
    pub wire: usize,
}

/// `transfer.from`: a production service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The server's address; `None` (written `":80"`) is any address that is no target.
    pub addr: Option<IpAddr>,
    /// The server's TCP port, never 0.
    pub port: u16,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            Some(addr) => SocketAddr::new(addr, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}

/// `[clients]`: which addresses the target sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// Prefixes that client addresses are taken from, none overlapping another; empty: the
    /// client's own address.
    pub pool: Vec<IpNet>,
}

/// `[traffic]`: how much is replayed, and how sessions behave.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// Replicas a session, 1 to 1023.
    pub copies: u16,
    /// Share of the sessions that is replayed, in percent, above 0 and at most 100.
    pub percent: f64,
    /// Time over which the share grows from 0 to `percent`; zero: at once.
    pub ramp: Duration,
    /// Which part of the sessions is this engine's.
    pub shard: Shard,
    /// Sessions first seen in the middle are refused instead of joined at the next turn.
    pub full_sessions_only: bool,
    /// `wait_for_responses`, `rtt` and `gate_timeout` of transfers that do not say them. What
    /// holds for a transfer is in [`Transfer::pace`].
    pub pace: Pace,
    /// What waits for a target is given up when it does nothing for this long.
    pub session_timeout: Duration,
    /// A session of which the mirror shows nothing for this long is forgotten: as long as
    /// production's server may keep an idle one.
    pub keepalive_timeout: Duration,
}

/// `traffic.shard`: one of several equal parts of all sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 1 to `of`.
    pub number: u32,
    /// How many there are, 1 to [`Shard::MOST`].
    pub of: u32,
}

impl Shard {
    /// All sessions.
    pub const ALL: Self = Self { number: 1, of: 1 };
    /// Most parts.
    pub const MOST: u32 = 65_536;
}

/// `[intercept]`: who absorbs the target's responses.
#[derive(Clone, PartialEq, Eq)]
pub enum Intercept {
    /// The engine's own replay port.
    Embedded,
    /// Intercept processes, over the control link.
    Remote {
        /// Their listening addresses; at least one, no two the same.
        servers: Vec<SocketAddr>,
        /// The shared key of the link. Without one every server is on loopback, or `insecure` is
        /// set.
        key: Option<[u8; 32]>,
        /// A link without a key beyond loopback is wanted; to be logged at every start.
        insecure: bool,
    },
}

/// The key is left out, so that a log of the configuration does not give it away.
impl fmt::Debug for Intercept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("Embedded"),
            Self::Remote {
                servers,
                key,
                insecure,
            } => f
                .debug_struct("Remote")
                .field("servers", servers)
                .field("key", &key.map(|_| "(hidden)"))
                .field("insecure", insecure)
                .finish(),
        }
    }
}

/// `[limits]`: what the engine may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at a time, over all cores.
    pub sessions: usize,
    /// Memory of the packet buffers in bytes, over all cores.
    pub mbufs_bytes: u64,
    /// Captured payload a session may hold, in bytes.
    pub session_bytes: u64,
}

fn values<T>(found: Vec<Found<'_, T>>) -> Vec<T> {
    found.into_iter().map(|f| f.value).collect()
}

impl Replay {
    /// The production addresses, if all are named: `None` if a `":port"` transfer takes any.
    pub fn production(&self) -> Option<Vec<IpAddr>> {
        self.transfers.iter().map(|t| t.from.addr).collect()
    }

    /// The transfer that a mirrored packet to (or from) this server belongs to, as an index into
    /// `transfers`.
    ///
    /// An exact `from` wins over a `":port"` one, the order of the file does not matter. A target
    /// is never production: with `from = ":80"` and `to = "10.20.0.2:80"` a mirror that also
    /// sees the replay would otherwise replay it again, forever. Without a pool a `":port"`
    /// transfer takes sessions of its target's family alone, since the client keeps its address.
    pub fn transfer_for(&self, server: SocketAddr) -> Option<usize> {
        let (addr, port) = (server.ip(), server.port());
        if self
            .transfers
            .iter()
            .any(|t| t.to.ip() == addr && t.to.port() == port)
        {
            return None;
        }
        let family =
            |t: &Transfer| !self.clients.pool.is_empty() || t.to.is_ipv4() == server.is_ipv4();
        let exact = self.transfers.iter().position(|t| {
            t.from
                == Origin {
                    addr: Some(addr),
                    port,
                }
        });
        exact.or_else(|| {
            self.transfers
                .iter()
                .position(|t| t.from == Origin { addr: None, port } && family(t))
        })
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// The first thing that is wrong, as [`Error`] has it.
pub fn load(path: &Path) -> Result<Replay, Error> {
    parse(&shared::read_config(path)?, &path.display().to_string())
}

/// Reads and checks `text`. `path` is what errors call it; relative `mirror.file` and
/// `intercept.key_file` start at its folder, and the key file is read from disk.
///
/// # Errors
/// The first thing that is wrong, as [`Error`] has it.
pub fn parse(text: &str, path: &str) -> Result<Replay, Error> {
    parse_with(text, path, &read_key_file)
}

/// [`parse`] with another way to read the key file.
///
/// # Errors
/// The first thing that is wrong, as [`Error`] has it.
pub fn parse_with(text: &str, path: &str, keys: KeyReader<'_>) -> Result<Replay, Error> {
    read::read(text, path, keys)
}
