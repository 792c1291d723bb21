//! What is looked at while the engine runs: whether the ports' links are up, and whether the ports
//! miss frames. Changes are logged; that frames are missed is logged once a minute, with what
//! helps.

use crate::setup::Machine;
use dpdk::{LinkState, MirrorPort, Missed, MissedLog, Port, PortInfo, PortStats};
use std::time::Instant;

/// What helps if a port misses frames.
const MORE: &str = "the engine does not keep up: give it CPUs of its own and more workers (eal.lcores), or less to do (traffic.percent)";

/// See the module's documentation.
pub struct Watch {
    /// What the mirror ports missed.
    pub missed: Missed,
    answers: Missed,
    /// Of each mirror port, and of the replay ports behind them.
    links: Vec<LinkState>,
    logs: Vec<MissedLog>,
}

impl Watch {
    /// The ports were opened just now.
    pub fn new(machine: &Machine) -> Self {
        let links: Vec<_> = links_up(machine).into_iter().map(LinkState::new).collect();
        Self {
            missed: Missed::watch(machine.mirrors.iter().map(MirrorPort::info)),
            answers: Missed::watch(machine.replay.iter().map(Port::info)),
            logs: links.iter().map(|_| MissedLog::default()).collect(),
            links,
        }
    }

    /// The links of the mirror ports, and those of the replay ports behind them.
    pub fn links(&self) -> &[LinkState] {
        &self.links
    }

    /// Frames that the replay ports missed so far, if their counters are these; `None` if nobody
    /// can say of one of them.
    pub fn answers_missed(&mut self, stats: &[PortStats]) -> Option<u64> {
        self.answers.frames(stats).into_iter().sum()
    }

    /// Looks at the ports, and logs what has changed and what they miss.
    pub fn look(&mut self, machine: &Machine) {
        let mirrors = machine.mirrors.iter().map(MirrorPort::info);
        let ports = mirrors.map(|i| ("mirror port", i));
        let replay = machine.replay.iter().map(|p| ("replay port", p.info()));
        let ports = ports.chain(replay);
        let up = links_up(machine);
        for ((link, up), (role, info)) in self.links.iter_mut().zip(up).zip(ports.clone()) {
            match link.look(up) {
                true if up => log::info!("{role} {}: its link is up", info.name),
                true => log::warn!("{role} {}: its link is down", info.name),
                false => {}
            }
        }
        let stats: Vec<_> = machine.mirrors.iter().map(MirrorPort::stats).collect();
        // Capture files have no port.
        let mut missed = self.missed.frames(&stats);
        missed.truncate(stats.len());
        let stats: Vec<_> = machine.replay.iter().map(Port::stats).collect();
        missed.extend(self.answers.frames(&stats));
        let now = Instant::now();
        for ((log, missed), (role, info)) in self.logs.iter_mut().zip(missed).zip(ports) {
            if let Some(n) = log.due(missed, now) {
                log::warn!("{}", line(role, info, n, missed.unwrap_or(n)));
            }
        }
    }
}

/// Whether the links of the mirror ports and of the replay ports are up.
fn links_up(machine: &Machine) -> Vec<bool> {
    let mirrors = machine.mirrors.iter().map(MirrorPort::is_link_up);
    mirrors
        .chain(machine.replay.iter().map(Port::is_link_up))
        .collect()
}

/// `n` frames were missed since the last line, `all` since the start.
fn line(role: &str, info: &PortInfo, n: u64, all: u64) -> String {
    let what = match role {
        "replay port" => "answers of targets, so requests may count as lost that have arrived",
        _ => "requests in them are not replayed",
    };
    let ring = match info.driver.as_str() {
        "net_af_packet" => "; framecnt makes its ring longer",
        _ => "",
    };
    format!(
        "{role} {}: {n} frames were missed, {all} since the start ({what}): {MORE}{ring}",
        info.name
    )
}
