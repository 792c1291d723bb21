//! The session core's parameters, as plain values.

use crate::owner::Ownership;
use crate::slots::Slice;
use wire::{Addr, Endpoint, Flow, Nanos, Prefix};

const SECOND: Nanos = 1_000_000_000;

/// A network and a range of its hosts' ports, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The network.
    pub net: Prefix,
    /// The first port.
    pub low: u16,
    /// The last port.
    pub high: u16,
}

/// Where production listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Its addresses; `None` is any address.
    pub net: Option<Prefix>,
    /// Its first port.
    pub low: u16,
    /// Its last port.
    pub high: u16,
}

impl Origin {
    /// This port of any address.
    pub fn any(port: u16) -> Self {
        Self {
            net: None,
            low: port,
            high: port,
        }
    }

    /// The one address that it is, if it is one.
    pub fn addr(&self) -> Option<Addr> {
        self.net.filter(Prefix::is_host).map(|net| net.addr())
    }
}

impl From<Endpoint> for Origin {
    fn from(e: Endpoint) -> Self {
        Self {
            net: Some(Prefix::host(e.addr)),
            ..Self::any(e.port)
        }
    }
}

/// Most targets that one transfer may have.
pub const MAX_TARGETS: usize = 16;

/// One target of a transfer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Target {
    /// Its address and port; port 0: the port that the client used in production.
    pub to: Endpoint,
    /// Replicas of each session there; `None`: [`Params::copies`].
    pub copies: Option<u16>,
    /// Percent of the sessions that are replayed there, above 0 to 100; `None`:
    /// [`Params::percent`].
    pub percent: Option<f64>,
    /// Hold a turn until the target has answered the one before.
    pub wait_for_responses: bool,
    /// How long a turn waits for the target's answer at most.
    pub gate_timeout: Nanos,
    /// The clients' round-trip time; `None`: as measured on the mirror.
    pub rtt: Option<Nanos>,
}

impl Target {
    /// A target that is paced as the configuration has it where it says nothing.
    pub fn new(to: Endpoint) -> Self {
        Self {
            to,
            copies: None,
            percent: None,
            wait_for_responses: true,
            gate_timeout: 5 * SECOND,
            rtt: None,
        }
    }
}

/// One `[[transfer]]`: what is sent to `from` in production is replayed to each of `to`.
#[derive(Clone, PartialEq, Debug)]
pub struct Transfer {
    /// Production, at least one place.
    pub from: Vec<Origin>,
    /// The targets, at least one.
    pub to: Vec<Target>,
}

impl Transfer {
    /// A transfer to one target.
    pub fn new(from: impl Into<Origin>, to: Endpoint) -> Self {
        Self::with(from, Target::new(to))
    }

    /// A transfer to this target.
    pub fn with(from: impl Into<Origin>, to: Target) -> Self {
        Self {
            from: vec![from.into()],
            to: vec![to],
        }
    }
}

/// At what pace frames of the mirror come.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// As production makes them.
    Live,
    /// From a recording, at this multiple of the pace it was captured at.
    Recorded(f64),
    /// From a recording, as fast as the targets answer.
    Unpaced,
}

impl Pace {
    /// How long our own clock runs while production's runs `time`.
    pub fn ours(self, time: Nanos) -> Nanos {
        match self {
            Self::Live => time,
            Self::Recorded(speed) => (time as f64 / speed) as Nanos,
            Self::Unpaced => 0,
        }
    }
}

/// One of several parts of all sessions, which are dealt out by a hash that never changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    /// Which part, from 0.
    pub index: u32,
    /// How many there are, at least 1.
    pub of: u32,
}

impl Shard {
    /// All sessions.
    pub const ALL: Self = Self { index: 0, of: 1 };

    /// Whether the session of `flow`, client to server, is in it.
    #[inline]
    pub fn has(&self, flow: &Flow) -> bool {
        self.of <= 1 || wire::rss::session_hash(flow) % self.of == self.index
    }
}

/// Everything one core needs to know. Times in nanoseconds.
#[derive(Clone, Debug)]
pub struct Params {
    /// At least one.
    pub transfers: Vec<Transfer>,
    /// Replicas per session at a target that does not say it.
    pub copies: u16,
    /// Percent of the sessions that are replayed to a target that does not say it, above 0 to 100.
    pub percent: f64,
    /// Time from the start in which the share grows from 0 to `percent`.
    pub ramp: Nanos,
    /// The sessions that are this engine's.
    pub shard: Shard,
    /// Leave out sessions that were running before the start.
    pub full_sessions_only: bool,
    /// A session with data outstanding is given up when nothing happens for this long.
    pub session_timeout: Nanos,
    /// An idle session is forgotten after this long.
    pub keepalive_timeout: Nanos,
    /// Sessions this core holds at most.
    pub max_sessions: usize,
    /// Captured segments this core holds at most.
    pub max_segments: usize,
    /// Those of them at most that hold the buffer of a received frame.
    pub max_frames: usize,
    /// Memory that a session's captured segments take at most, in bytes.
    pub session_bytes: u64,
    /// The largest IP packet the replay port sends, in bytes.
    pub mtu: u16,
    /// Connections that this core has under way at most to a target that has not answered yet.
    pub canaries: usize,
    /// This core's client addresses; empty: clients keep their own.
    pub pool: Vec<Slice>,
    /// Which client endpoints belong to this core.
    pub ownership: Ownership,
    /// Entries of the replay port's redirection table, if that brings responses to the cores by the
    /// hash of their flow: then pool addresses are preferred whose responses arrive at this core.
    pub answers: Option<u16>,
    /// Makes hashes and starting points unpredictable.
    pub seed: u64,
    /// At what pace frames of the mirror come.
    pub pace: Pace,
    /// When the engine started.
    pub start: Nanos,
}

impl Params {
    /// See `canaries`: enough that one lost SYN does not hold a target up, and few enough to be
    /// harmless where they lead to a host that they are not meant for.
    pub const CANARIES: usize = 8;

    /// For one core alone that replays every session once, with its client's own address, as the
    /// configuration has it where it says nothing. The core starts at time 0, and its hashes
    /// are the same each time.
    pub fn new(transfers: Vec<Transfer>, max_sessions: usize, max_segments: usize) -> Self {
        Self {
            transfers,
            copies: 1,
            percent: 100.0,
            ramp: 0,
            shard: Shard::ALL,
            full_sessions_only: false,
            session_timeout: 600 * SECOND,
            keepalive_timeout: 7_200 * SECOND,
            max_sessions,
            max_segments,
            max_frames: max_segments,
            session_bytes: 4 << 20,
            mtu: 1500,
            canaries: Self::CANARIES,
            pool: Vec::new(),
            ownership: Ownership::ALONE,
            answers: None,
            seed: 0,
            pace: Pace::Live,
            start: 0,
        }
    }
}
