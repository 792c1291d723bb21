//! What the server counts, for the report.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

wire::reasons! {
    /// Why a record went to no engine.
    pub enum Undelivered {
        /// Its engine does not read fast enough.
        SlowEngine = "slow_engine",
        /// Its engine has gone, before or after the record was put into its buffer.
        EngineGone = "engine_gone",
    }
}

wire::reasons! {
    /// Why a connection came to no link.
    pub enum TurnedAway {
        /// A newer one came, and its source, or all together, had as many as may wait.
        Displaced = "displaced",
        /// Hello and handshake were not over in time.
        TooSlow = "too_slow",
        /// It ended before that: it closed, or spoke another protocol, version or key.
        Rejected = "rejected",
        /// As many engines as may be are connected.
        EnginesFull = "engines_full",
    }
}

wire::reasons! {
    /// Why a claim was not granted.
    pub enum ClaimRefused {
        /// Another engine has claimed some of the same responses.
        Overlap = "overlap",
        /// There are as many claims of its size as may be.
        TableFull = "table_full",
        /// Its link has as many claims of its size as one may have.
        LinkFull = "link_full",
    }
}

/// What the server counts. Records that cores batched = sent + dropped + those still in rings.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records that were written to an engine's socket, or wait in an established link's buffer
    /// for it.
    pub records_sent: AtomicU64,
    /// Records that went to no engine, by [`Undelivered`].
    pub records_dropped: [AtomicU64; Undelivered::COUNT],
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections that ended with an error.
    pub failed: AtomicU64,
    /// Of these, those that came to no link, by [`TurnedAway`].
    pub turned_away: [AtomicU64; TurnedAway::COUNT],
    /// Connections that are not known to be engines yet, now.
    pub waiting: AtomicU64,
    /// Engines connected now.
    pub engines: AtomicU64,
    /// Bytes that wait to be written to engines now.
    pub output_bytes: AtomicU64,
    /// Claims there are now.
    pub claims: AtomicU64,
    /// Claims that were not granted, by [`ClaimRefused`].
    pub claims_refused: [AtomicU64; ClaimRefused::COUNT],
    /// Changes of claims that wait for a receive core now.
    pub changes_waiting: AtomicU64,
    /// Log lines that were left out, as there were too many of their kind.
    pub log_lines_left_out: AtomicU64,
    /// What engines are told of the port: frames that were missed or dropped, and the resolution of
    /// its times in ns; see [`link::PortReport`].
    pub port_missed: AtomicU64,
    /// See `port_missed`.
    pub port_resolution: AtomicU64,
}

impl Counters {
    /// What engines are told of the port.
    pub(super) fn port(&self) -> link::PortReport {
        link::PortReport {
            missed: self.port_missed.load(Relaxed),
            resolution: self.port_resolution.load(Relaxed),
        }
    }

    pub(super) const fn dropped(&self, reason: Undelivered) -> &AtomicU64 {
        &self.records_dropped[reason as usize]
    }

    pub(super) const fn turned_away(&self, reason: TurnedAway) -> &AtomicU64 {
        &self.turned_away[reason as usize]
    }

    pub(super) const fn claims_refused(&self, reason: ClaimRefused) -> &AtomicU64 {
        &self.claims_refused[reason as usize]
    }
}
