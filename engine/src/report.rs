//! The report: what the engine has counted, as `report.json` and as a line in the log.
//!
//! Every figure comes from the workers' snapshots; each of them is consistent in itself, so the
//! books balance in every report.

mod complete;
mod file;
mod latency;
mod mirror;
mod replay_port;

pub use complete::sentences;
pub(crate) use complete::set_share;
pub use file::ReportFile;
pub use latency::clock_doubt;
pub(crate) use latency::set_difference;

use crate::links::Stats as LinkStats;
use crate::offline::CaptureStats;
use crate::progress;
use crate::tunnels::{RefusedLog, RefusedTunnels};
use crate::unseen::{Sight, Unseen};
use crate::worker::Snapshot;
use complete::Answers;
use dpdk::{FrameClock, LinkState, PortStats};
use latency::{NOT_RESOLVABLE, Resolution, latency};
use replay::{Counters, Loss, TargetCounters};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};
use wire::{Addr, Skip};

/// What a report is made from.
pub struct Sources<'a> {
    /// One snapshot a worker.
    pub workers: &'a [Snapshot],
    /// The CPUs they run on.
    pub cpus: &'a [usize],
    /// The mirror ports, or the capture files, by name.
    pub mirrors: Vec<(String, PortStats)>,
    /// The capture files, offline; they are the ports then.
    pub capture: Option<CaptureStats>,
    /// Frames that each of them missed, as far as anybody can say.
    pub missed: Vec<Option<u64>>,
    /// What can be told of the turns in these.
    pub unseen: Unseen,
    /// How mirrored frames come to their owner.
    pub spread: &'static str,
    /// The links of the mirror ports, and those of the replay ports behind them.
    pub links_up: &'a [LinkState],
    /// Who tells when frames came, in the same order.
    pub clocks: Vec<FrameClock>,
    /// The replay ports by name, in their order.
    pub replay: Vec<(String, PortStats)>,
    /// Frames that they missed, as far as anybody can say.
    pub answers_missed: Option<u64>,
    /// All targets, in the order of their numbers.
    pub targets: &'a [TargetName],
    /// The control links; `None` if the intercept is embedded.
    pub links: Option<Vec<LinkStats>>,
    /// Replicas a session.
    pub copies: u64,
    /// Mbufs in use and in all: those that frames are received into, and the small ones.
    pub mbufs: [(u32, u32); 2],
    /// Time since the start.
    pub elapsed: Duration,
    /// The engine has stopped and nothing more will come.
    pub is_final: bool,
    /// Reports before this one that could not be written.
    pub failed_writes: u64,
}

/// A target of a transfer, as the configuration has it.
pub struct TargetName {
    /// The transfer's production.
    pub from: String,
    /// The target.
    pub to: String,
    /// Replicas of a session there.
    pub copies: u16,
    /// Its share of the sessions.
    pub percent: f64,
}

/// All workers' counters in one.
pub fn total(workers: &[Snapshot]) -> Counters {
    let mut sum = Counters::default();
    for w in workers {
        sum.add(&w.core);
    }
    sum
}

fn sum(workers: &[Snapshot], field: impl Fn(&Snapshot) -> u64) -> u64 {
    workers.iter().map(field).sum()
}

/// Mirrored frames that the worker has received or taken over, and not handed on. Snapshots of two
/// workers are not of the same moment, so a frame between them would count twice or not at all; in
/// this way it counts at the core that has it.
const fn frames(w: &Snapshot) -> u64 {
    (w.worker.mirror_frames + w.worker.taken_over).saturating_sub(w.worker.handed_over)
}

/// Mirrored frames that ports have delivered, and those of them that were handed over.
pub fn received(workers: &[Snapshot]) -> (u64, u64) {
    let of = |field: fn(&Snapshot) -> u64| sum(workers, field);
    (of(|w| w.worker.mirror_frames), of(|w| w.worker.handed_over))
}

/// What was seen and what was missed so far, for [`Unseen`].
pub fn sight(workers: &[Snapshot], missed: &[Option<u64>]) -> Sight {
    let lost = sum(workers, |w| w.worker.handover_full);
    let missed = missed.iter().copied().sum::<Option<u64>>();
    let received = sum(workers, frames).saturating_sub(lost);
    Sight::new(&total(workers), received, missed.map(|n| n + lost))
}

/// The report as JSON.
pub fn json(s: &Sources<'_>) -> Value {
    let c = total(s.workers);
    let w = s.workers;
    let resolution = Resolution::of(s);
    let mut latencies = resolution.json(&c.production_latency, &c.target_latency);
    latencies["passage"] = latency(&c.passage);
    let mut report = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "final": s.is_final,
        "failed_writes": s.failed_writes,
        "elapsed_s": s.elapsed.as_secs_f64(),
        "copies": s.copies,
        "mirror": mirror::section(s, &c),
        "production": {
            "sessions": c.sessions,
            "sessions_shed": c.sessions_shed,
            "sessions_evicted": c.sessions_evicted,
            "handshakes": {
                "refused": c.handshakes_refused,
                "unfinished": c.handshakes_unfinished,
                "evicted": c.handshakes_evicted,
            },
            "turns": c.turns,
            "bytes": c.bytes,
            "doubtful_bytes": c.doubtful_bytes,
            "unseen": { "turns": s.unseen.turns() },
        },
        "replayed": {
            "sessions": c.replayed_sessions,
            "turns": c.replayed_turns,
            "bytes": c.replayed_bytes,
            "retransmitted": c.retransmitted_bytes,
            "retransmitted_segments": c.retransmitted_segments,
            "gate_timeouts": c.gate_timeouts,
            "paced_turns": c.paced_turns,
        },
        "lost": { "turns": c.lost_turns_sum(), "bytes": c.lost_bytes_sum(), "reason": by_reason(&c.lost_turns, &c.lost_bytes) },
        "in_flight": { "turns": c.in_flight_turns, "bytes": c.in_flight_bytes },
        "target": {
            "connects": c.connects,
            "connect_failures": c.connect_failures,
            "resets": c.target_resets,
            "resets_at_end": c.resets_at_end,
            "closed_early": c.target_closed_early,
            "responses": c.responses,
            "response_segments": c.response_segments,
            "response_bytes": c.response_bytes,
            "unresolved_next_hops": w.iter().flat_map(|w| &w.unresolved).map(ToString::to_string).collect::<Vec<_>>(),
            "path_mtu_lowered": c.path_mtu_lowered,
            "keep_alives": c.keep_alives,
            "icmp_errors": sum(w, |w| w.worker.icmp_errors),
        },
        "targets": (0..s.targets.len()).map(|i| target(s, resolution, i)).collect::<Vec<_>>(),
        "latency": latencies,
        "schedule": { "late": latency(&c.schedule_late), "held": latency(&c.schedule_held) },
        "intercept": {
            "mode": if s.links.is_some() { "remote" } else { "embedded" },
            "responses": sum(w, |w| w.worker.replay_responses + w.worker.link_responses),
            "handed_over": sum(w, |w| w.worker.responses_handed_over),
            "unknown": c.responses_unknown,
            "dropped": sum(w, |w| w.worker.response_full),
            "claims_dropped": sum(w, |w| w.egress.claims_dropped),
            "links": s.links,
        },
        "replay_port": replay_port::section(s),
        "buffers": {
            "in_use": s.mbufs[0].0,
            "size": s.mbufs[0].1,
            "small": { "in_use": s.mbufs[1].0, "size": s.mbufs[1].1 },
        },
        "cores": w.iter().zip(s.cpus).map(|(w, cpu)| core(w, *cpu)).collect::<Vec<_>>(),
    });
    Answers::of(s, &c).put(&mut report["target"]);
    report
}

/// The outer destinations of tunnels that were not opened, the busiest first.
pub fn refused(workers: &[Snapshot]) -> Vec<(Addr, u64)> {
    RefusedTunnels::busiest(workers.iter().map(|w| &w.refused))
}

/// What to log of them, if it is time for that.
pub fn refused_line(workers: &[Snapshot], log: &mut RefusedLog, now: Instant) -> Option<String> {
    let frames = sum(workers, |w| w.worker.skipped[Skip::TunnelRefused as usize]);
    log.due(frames, &refused(workers), now)
}

fn by_reason(turns: &[u64; Loss::COUNT], bytes: &[u64; Loss::COUNT]) -> Value {
    let reasons = Loss::ALL.iter().zip(turns.iter().zip(bytes));
    reasons
        .map(|(r, (turns, bytes))| {
            (
                r.name().to_owned(),
                json!({ "turns": turns, "bytes": bytes }),
            )
        })
        .collect::<Map<_, _>>()
        .into()
}

fn target_total(workers: &[Snapshot], i: usize) -> TargetCounters {
    let mut t = TargetCounters::default();
    for of_worker in workers.iter().filter_map(|w| w.targets.get(i)) {
        t.add(of_worker);
    }
    t
}

/// A sentence for each target that connections are opened to and that has not answered yet.
pub fn unconfirmed(s: &Sources<'_>) -> Vec<String> {
    let each = s.targets.iter().enumerate().filter_map(|(i, TargetName { to, .. })| {
        let t = target_total(s.workers, i);
        (t.unconfirmed_cores > 0).then(|| {
            format!(
                "waiting for the first answer of {to}: {} connections opened, {} more wait for it; if they stay unanswered, the route of {to} for its clients does not lead to us",
                t.connects, t.awaiting_replicas
            )
        })
    });
    each.collect()
}

/// What concerns one target of a transfer.
fn target(s: &Sources<'_>, resolution: Resolution, i: usize) -> Value {
    let t = target_total(s.workers, i);
    let name = &s.targets[i];
    json!({
        "from": name.from,
        "to": name.to,
        "copies": name.copies,
        "percent": name.percent,
        "sessions": t.sessions,
        "turns": t.turns,
        "bytes": t.bytes,
        "replayed": t.replayed_turns,
        "replayed_sessions": t.replayed_sessions,
        "replayed_bytes": t.replayed_bytes,
        "retransmitted": t.retransmitted_bytes,
        "gate_timeouts": t.gate_timeouts,
        "paced_turns": t.paced_turns,
        "lost": by_reason(&t.lost_turns, &t.lost_bytes),
        "in_flight": { "turns": t.in_flight_turns, "bytes": t.in_flight_bytes },
        "connects": t.connects,
        "connect_failures": t.connect_failures,
        "resets": t.target_resets,
        "closed_early": t.target_closed_early,
        "responses": t.responses,
        "response_bytes": t.response_bytes,
        "unconfirmed_cores": t.unconfirmed_cores,
        "awaiting_connections": t.awaiting_replicas,
        "segments_held": t.held_segments,
        "latency": resolution.json(&t.production_latency, &t.target_latency),
        "schedule": { "late": latency(&t.schedule_late), "held": latency(&t.schedule_held) },
    })
}

fn core(w: &Snapshot, cpu: usize) -> Value {
    json!({
        "cpu": cpu,
        "frames": w.worker.mirror_frames,
        "handed_over": w.worker.handed_over,
        "sessions": w.sessions,
        "half_open": w.half_open,
        "longest_walk": w.longest_walk,
        "segments_held": w.segments,
        "addresses": { "in_use": w.slots.0, "size": w.slots.1 },
        "turns": w.core.turns,
        "replayed_turns": w.core.replayed_turns,
        "segments_sent": w.core.segments_sent,
        "loops": w.worker.loops,
        "idle_loops": w.worker.idle_loops,
    })
}

/// One line for the log.
pub fn line(s: &Sources<'_>) -> String {
    let c = total(s.workers);
    let frames = sum(s.workers, frames);
    let latencies = Resolution::of(s).json(&c.production_latency, &c.target_latency);
    let sessions = sum(s.workers, |w| w.sessions as u64);
    format!(
        "{frames} frames, {} sessions ({sessions} open), turns: {} captured, {} replayed, {} lost, {} in flight; p99 {} us in production, {} us at the target{}{}{}",
        c.sessions,
        c.turns,
        c.replayed_turns,
        c.lost_turns_sum(),
        c.in_flight_turns,
        c.production_latency.quantile_us(0.99),
        c.target_latency.quantile_us(0.99),
        match latencies["difference"]["p99_us"] == NOT_RESOLVABLE {
            true => " (a difference that is not resolvable)",
            false => "",
        },
        s.capture.as_ref().map(progress::told).unwrap_or_default(),
        complete::note(s, &c),
    )
}

#[cfg(test)]
mod tests;
