//! What a flood of SYNs costs established sessions.
//!
//! Long-lived sessions go on over ports in memory, with a second mirror port beside the first that
//! shows SYNs of ever other clients, so many that in the made-up time there are [`RATE`] a second.
//! Windows with the flood and without take turns. What a SYN costs is the difference, without what
//! making its frame costs. A core that is shown [`RATE`] of them a second has the rest of its time
//! for its sessions.

use crate::frames::{BenchFrame, Maker, Pool};
use crate::measure::{Spread, thread_cpu};
use crate::memory::{LONG_STEP, Rig};
use crate::target::MemorySource;
use crate::traffic::{Kind, SESSIONS, Segment, Templates};
use anyhow::{Result, ensure};
use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::rc::Rc;
use wire::io::{BURST, Rx};

/// SYNs a second.
pub const RATE: u64 = 1_000_000;
/// In one step.
const IN_A_STEP: usize = (RATE * LONG_STEP / 1_000_000_000) as usize;
/// A number that has no factor in common with the number of clients: all of them have their turn.
const STRIDE: u64 = 2_654_435_761;

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Established sessions.
    pub sessions: u64,
    /// Pairs of windows measured.
    pub windows: usize,
    /// SYNs in all.
    pub syns: u64,
    /// CPU a SYN, in ns.
    pub syn_ns: Spread,
    /// The established sessions' throughput beside [`RATE`] SYNs a second, over that without them.
    pub throughput: Spread,
}

/// A mirror port that shows SYNs.
pub struct Flood {
    templates: Templates,
    pool: Pool,
    /// Sessions that are established: their clients send none.
    others: u64,
    next: u64,
    on: Rc<Cell<bool>>,
}

impl Flood {
    fn new(others: u64) -> Self {
        Self {
            templates: Templates::new(),
            pool: Pool::new(4 * BURST),
            others,
            next: 0,
            on: Rc::new(Cell::new(false)),
        }
    }
}

impl Rx for Flood {
    type Frame = BenchFrame;

    fn rx_burst(&mut self, out: &mut ArrayVec<BenchFrame, BURST>) -> usize {
        if !self.on.get() {
            return 0;
        }
        let before = out.len();
        for _ in 0..IN_A_STEP.min(out.remaining_capacity()) {
            self.next += 1;
            let clients = SESSIONS - self.others;
            let segment = Segment {
                kind: Kind::Syn,
                session: self.others + self.next.wrapping_mul(STRIDE) % clients,
                round: 0,
            };
            let templates = &self.templates;
            out.extend(self.pool.make(|b| templates.write(&segment, b)));
        }
        out.len() - before
    }
}

/// Measures it beside so many established sessions.
pub fn run(sessions: u64, frames: u64, windows: usize) -> Result<Outcome> {
    let mut rig = Rig::established(sessions, 1)?;
    let flood = Flood::new(sessions);
    let on = Rc::clone(&flood.on);
    rig.worker
        .mirrors
        .push(MemorySource::Flood(Box::new(flood)));
    let syns = |rig: &Rig| rig.worker.core.counters().syns;
    // Until the table of handshakes is full.
    on.set(true);
    rig.drive(3 * frames)?;
    let made = making(frames);
    let (mut syn_ns, mut throughput) = (Vec::new(), Vec::new());
    for _ in 0..windows.max(1) {
        let mut cpu = [0; 2];
        let mut shown = 0;
        let mut established = 0;
        for (i, cpu) in cpu.iter_mut().enumerate() {
            on.set(i == 1);
            let (before, begin) = (syns(&rig), thread_cpu());
            let seen = rig.worker.counters.mirror_frames;
            // As many frames of the established sessions with the flood as without.
            let steps = frames / BURST as u64;
            rig.steps(steps)?;
            *cpu = thread_cpu() - begin;
            shown = syns(&rig) - before;
            let all = rig.worker.counters.mirror_frames - seen;
            ensure!(
                i == 0 || all - shown == established,
                "{} frames of established sessions came beside the flood, and {established} without",
                all - shown
            );
            established = all - shown;
        }
        ensure!(shown > 0, "no SYN was shown");
        let each = (cpu[1] as f64 - cpu[0] as f64) / shown as f64 - made;
        syn_ns.push(each);
        throughput.push(1.0 - each * RATE as f64 / 1e9);
    }
    on.set(false);
    rig.settle(None)?;
    rig.check()?;
    Ok(Outcome {
        sessions,
        windows: syn_ns.len(),
        syns: syns(&rig),
        syn_ns: Spread::of(&syn_ns),
        throughput: Spread::of(&throughput),
    })
}

/// CPU to make the frame of a SYN, in ns.
fn making(frames: u64) -> f64 {
    let mut flood = Flood::new(0);
    flood.on.set(true);
    let mut out = ArrayVec::new();
    let (mut made, cpu) = (0, thread_cpu());
    while made < frames {
        made += flood.rx_burst(&mut out) as u64;
        out.clear();
    }
    (thread_cpu() - cpu) as f64 / made as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn established_sessions_go_on_beside_a_flood() {
        let o = run(1_000, 20_000, 2).unwrap();
        // Half of the frames of the mirror.
        assert!(o.syns > 20_000, "{o:?}");
    }
}
