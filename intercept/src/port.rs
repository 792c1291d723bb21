//! The port that responses are received on, as it is looked at while the process runs: its link,
//! its counters, what it missed, and what engines are told of that.

use crate::counters::Counters;
use crate::report::Answers;
use crate::server;
use dpdk::{FrameClock, LinkState, Missed, MissedLog, Port};
use log::warn;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use wire::Nanos;

/// How far apart the kernel's times can be told as they are used, in ns.
const CLOCK: Nanos = 1_000;

/// See the module's documentation.
pub struct Watched<'a> {
    port: &'a Port,
    link: LinkState,
    missed: Missed,
    log: MissedLog,
}

impl<'a> Watched<'a> {
    /// The port was opened just now.
    pub fn new(port: &'a Port) -> Self {
        Self {
            port,
            link: LinkState::new(port.is_link_up()),
            missed: Missed::watch([port.info()]),
            log: MissedLog::default(),
        }
    }

    /// Looks at the port, which `cores` receive from: logs what has changed and what was missed,
    /// and has the server tell engines of that.
    pub fn look(&mut self, cores: &[Counters], server: &server::Counters) {
        if self.link.look(self.port.is_link_up()) {
            warn!(
                "port {}: its link is {}",
                self.port.info().name,
                self.link.name()
            );
        }
        let answers = Answers::new(cores, self.missed());
        if let Some(n) = self.log.due(answers.missed, Instant::now()) {
            warn!(
                "port {}: {n} frames of answers were missed or dropped, {} since the start, so requests may count as lost that have arrived: give the intercept CPUs of its own and more receive cores (eal.lcores)",
                self.port.info().name,
                answers.missed.unwrap_or(n)
            );
        }
        let missed = answers.missed.unwrap_or(u64::MAX);
        server.port_missed.store(missed, Relaxed);
        let resolution = match self.port.info().clock {
            FrameClock::Kernel => CLOCK,
            FrameClock::Poll => u64::MAX,
        };
        server.port_resolution.store(resolution, Relaxed);
    }

    /// Frames that the port missed so far; `None` if nobody can say.
    pub fn missed(&mut self) -> Option<u64> {
        let stats = self.port.stats();
        let missed = self.missed.frames(std::slice::from_ref(&stats));
        missed.first().copied().flatten()
    }

    /// The port's own counters, under the names of the report.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        let stats = self.port.stats();
        [
            ("rx_frames", stats.rx_frames),
            ("rx_missed", stats.rx_missed),
            ("rx_errors", stats.rx_errors),
            ("rx_no_mbuf", stats.rx_no_mbuf),
            ("tx_frames", stats.tx_frames),
            ("tx_errors", stats.tx_errors),
            ("link_up", self.link.is_up().into()),
            ("link_changes", self.link.changes()),
        ]
        .into()
    }
}
