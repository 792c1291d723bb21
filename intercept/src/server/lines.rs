//! Log lines that peers can cause: of each kind one a second, with how many were left out.

use super::Counters;
use link::LogRate;
use log::{Level, log};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use wire::Nanos;

/// What a line is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Line {
    /// A connection that came to no link.
    TurnedAway,
    /// An engine that is connected.
    Connected,
    /// An engine that is gone.
    Gone,
    /// A claim that is not granted.
    Claim,
    /// What an engine refuses.
    Refused,
}

impl Line {
    const ALL: [Self; 5] = [
        Self::TurnedAway,
        Self::Connected,
        Self::Gone,
        Self::Claim,
        Self::Refused,
    ];

    const fn subject(self) -> &'static str {
        match self {
            Self::TurnedAway => "connections that came to no link",
            Self::Connected => "engines that are connected",
            Self::Gone => "engines that are gone",
            Self::Claim => "claims that were refused",
            Self::Refused => "what engines refuse",
        }
    }
}

/// See the module's documentation.
pub(super) struct Lines {
    rates: [LogRate; Line::ALL.len()],
    counters: Arc<Counters>,
}

impl Lines {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self {
            rates: Default::default(),
            counters,
        }
    }

    /// Logs a line, if it is time for one of its kind.
    pub(super) fn say(&mut self, line: Line, level: Level, now: Nanos, text: fmt::Arguments<'_>) {
        match self.rates[line as usize].admit(now) {
            Some(0) => log!(level, "{text}"),
            Some(n) => log!(level, "{text} ({n} lines of this kind were left out)"),
            None => {
                self.counters.log_lines_left_out.fetch_add(1, Relaxed);
            }
        }
    }

    /// Says what was left out and is not said yet; to be called now and then.
    pub(super) fn poll(&mut self, now: Nanos) {
        for line in Line::ALL {
            if let Some(n) = self.rates[line as usize].overdue(now) {
                log::warn!("{n} lines about {} were left out", line.subject());
            }
        }
    }
}
