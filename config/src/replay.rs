//! `replay.toml`, the engine's configuration: its model and how the file is read.
//!
//! Holds always, in a [`Replay`] that [`parse`] or [`load`] returned: no target is a production
//! address, every target can be reached over the replay port, no client pool contains an address
//! that somebody else uses, and the mirror is not the replay port. An address is never an
//! IPv4-mapped IPv6 one and never has a scope, so comparing two compares what goes on the wire.

mod check;
mod files;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::key::KeyReader;
use crate::shared::{self, Eal, Report};
use crate::{Error, read_key_file};

pub use files::Files;

/// All of `replay.toml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// `[mirror]`
    pub mirror: Mirror,
    /// `[replay]`
    pub replay: ReplayPort,
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

/// `[replay]`: the port towards the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayPort {
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

/// One `[[transfer]]`: which production services are replayed to which targets.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    /// The production services, at least one; at most [`Transfer::MAX_ORIGINS`] over all transfers.
    pub from: Vec<Origin>,
    /// The targets, each of which gets every session, or its share of them: at least one, at most
    /// [`Transfer::MAX_TARGETS`], none twice.
    pub to: Vec<Target>,
}

impl Transfer {
    /// Most targets of a transfer.
    pub const MAX_TARGETS: usize = 16;
    /// Most targets of all transfers together.
    pub const MAX_TARGETS_IN_ALL: usize = 4_096;
    /// Most origins of all transfers together.
    pub const MAX_ORIGINS: usize = 16_384;

    /// The origins as a reader may see them: the first few, if they are many.
    pub fn sources(&self) -> String {
        const SHOWN: usize = 4;
        let shown = if self.from.len() > SHOWN {
            SHOWN - 1
        } else {
            SHOWN
        };
        let first: Vec<String> = self
            .from
            .iter()
            .take(shown)
            .map(Origin::to_string)
            .collect();
        match self.from.len().saturating_sub(shown) {
            0 => first.join(", "),
            more => format!("{} and {more} more", first.join(", ")),
        }
    }
}

/// One of `transfer.to`: a server under test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Its address.
    pub addr: IpAddr,
    /// Its port, never 0; `None` (written `"10.20.0.2:*"`): the port that the client used in
    /// production.
    pub port: Option<u16>,
    /// Replicas a session, 1 to 1023: from the transfer or `[traffic]` where the target does not
    /// say it.
    pub copies: u16,
    /// Share of the sessions that is replayed there, in percent, above 0 and at most 100; from the
    /// same places.
    pub percent: f64,
    /// `wait_for_responses`, `rtt` and `gate_timeout`, each from the same places.
    pub pace: Pace,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.addr) {
            (Some(port), addr) => SocketAddr::new(addr, port).fmt(f),
            (None, IpAddr::V4(addr)) => write!(f, "{addr}:*"),
            (None, IpAddr::V6(addr)) => write!(f, "[{addr}]:*"),
        }
    }
}

/// One of `transfer.from`: production services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The servers' network, without bits beyond its prefix length; `None` (written `":80"`) is any
    /// address that is no target.
    pub net: Option<IpNet>,
    /// The first of the servers' TCP ports, never 0.
    pub low: u16,
    /// The last of them, not below the first.
    pub high: u16,
}

impl Origin {
    /// The address, if it is a single one.
    pub fn addr(&self) -> Option<IpAddr> {
        let net = self.net?;
        (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
    }

    fn has(&self, server: SocketAddr) -> bool {
        let here = self.net.is_none_or(|net| net.contains(&server.ip()));
        here && (self.low..=self.high).contains(&server.port())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.net, self.addr()) {
            (None, _) => {}
            (_, Some(IpAddr::V4(addr))) => write!(f, "{addr}")?,
            (_, Some(IpAddr::V6(addr))) => write!(f, "[{addr}]")?,
            (Some(IpNet::V4(net)), None) => write!(f, "{net}")?,
            (Some(IpNet::V6(net)), None) => write!(f, "[{net}]")?,
        }
        write!(f, ":{}", self.low)?;
        if self.high > self.low {
            write!(f, "-{}", self.high)?;
        }
        Ok(())
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
    /// Replicas a session, 1 to 1023, at targets that do not say it. What holds for a target is in
    /// [`Target`].
    pub copies: u16,
    /// Share of the sessions that is replayed, in percent, above 0 and at most 100, at targets that
    /// do not say it.
    pub percent: f64,
    /// Time over which the share grows from 0 to `percent`; zero: at once.
    pub ramp: Duration,
    /// Which part of the sessions is this engine's.
    pub shard: Shard,
    /// Sessions first seen in the middle are refused instead of joined at the next turn.
    pub full_sessions_only: bool,
    /// `wait_for_responses`, `rtt` and `gate_timeout` of targets that do not say them.
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

impl Replay {
    /// The production networks, if all are named: `None` if a `":port"` transfer takes any.
    pub fn production(&self) -> Option<Vec<IpNet>> {
        let origins = self.transfers.iter().flat_map(|t| &t.from);
        origins.map(|origin| origin.net).collect()
    }

    /// All targets, transfer by transfer, each with its transfer.
    pub fn targets(&self) -> impl Iterator<Item = (&Transfer, &Target)> {
        let transfers = self.transfers.iter();
        transfers.flat_map(|transfer| transfer.to.iter().map(move |to| (transfer, to)))
    }

    /// The transfer that a mirrored packet to (or from) this server belongs to, as an index into
    /// `transfers`.
    ///
    /// The `from` with the longest prefix wins, a `":port"` has the shortest; the order of the file
    /// does not matter. A target is never production: with `from = ":80"` and `to =
    /// "10.20.0.2:80"` a mirror that also sees the replay would otherwise replay it again, forever.
    /// Without a pool a `":port"` transfer takes sessions of its targets' families alone, since the
    /// client keeps its address.
    pub fn transfer_for(&self, server: SocketAddr) -> Option<usize> {
        let is_target = |(transfer, to): (&Transfer, &Target)| {
            let same = || {
                transfer
                    .from
                    .iter()
                    .any(|o| o.low <= server.port() && server.port() <= o.high)
            };
            to.addr == server.ip() && to.port.map_or_else(same, |port| port == server.port())
        };
        if self.targets().any(is_target) {
            return None;
        }
        let family = |t: &Transfer| {
            let same = |to: &Target| to.addr.is_ipv4() == server.is_ipv4();
            !self.clients.pool.is_empty() || t.to.iter().any(same)
        };
        let mut best: Option<(Option<u8>, usize)> = None;
        for (i, transfer) in self.transfers.iter().enumerate() {
            for origin in transfer.from.iter().filter(|o| o.has(server)) {
                let length = origin.net.map(|net| net.prefix_len());
                let fits = length.is_some() || family(transfer);
                if fits && best.is_none_or(|(longest, _)| length > longest) {
                    best = Some((length, i));
                }
            }
        }
        best.map(|(_, i)| i)
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
