//! The report: what the engine has counted, as `report.json` and as a line in the log.
//!
//! Every figure comes from the workers' snapshots; each of them is consistent in itself, so the
//! books balance in every report.

use crate::links::Stats as LinkStats;
use crate::offline::CaptureStats;
use crate::progress;
use crate::tunnels::{RefusedLog, RefusedTunnels};
use crate::unseen::{Sight, Unseen};
use crate::worker::Snapshot;
use anyhow::{Context, Result};
use dpdk::{FrameClock, LinkState, PortStats};
use replay::histogram::Histogram;
use replay::{Counters, Loss, TargetCounters, Unused};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wire::defragment::FragmentDrop;
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
    /// The links of the mirror ports, and that of the replay port behind them.
    pub links_up: &'a [LinkState],
    /// Who tells when frames came, in the same order.
    pub clocks: Vec<FrameClock>,
    /// The replay port.
    pub replay: (String, PortStats),
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
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "final": s.is_final,
        "failed_writes": s.failed_writes,
        "elapsed_s": s.elapsed.as_secs_f64(),
        "copies": s.copies,
        "mirror": {
            "frames": sum(w, frames),
            "bytes": sum(w, |w| w.worker.mirror_bytes),
            "used": c.used,
            "dropped": dropped(w, &c),
            "handed_over": sum(w, |w| w.worker.handed_over),
            "spread": s.spread,
            "out_of_order": c.out_of_order,
            "conflicting_bytes": c.conflicting_bytes,
            "fragments": {
                "received": sum(w, |w| w.fragments.received),
                "datagrams": sum(w, |w| w.fragments.datagrams),
                "held": sum(w, |w| w.fragments.held()),
            },
            "refused_tunnels": refused(w).iter().map(|(to, frames)| json!({
                "to": to.to_string(),
                "frames": frames,
            })).collect::<Vec<_>>(),
            "answered": sum(w, |w| w.worker.answered),
            "unanswered": sum(w, |w| w.worker.unanswered),
            "missed": s.missed.iter().copied().sum::<Option<u64>>(),
            "ports": (0..s.mirrors.len()).map(|i| port(s, i)).collect::<Vec<_>>(),
            "capture": s.capture.map(|c| capture(s, &c)),
        },
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
        "targets": (0..s.targets.len()).map(|i| target(s, i)).collect::<Vec<_>>(),
        "latency": { "production": latency(&c.production_latency), "target": latency(&c.target_latency) },
        "schedule": { "late": latency(&c.schedule_late), "held": latency(&c.schedule_held) },
        "intercept": {
            "mode": if s.links.is_some() { "remote" } else { "embedded" },
            "responses": sum(w, |w| w.worker.replay_responses + w.worker.link_responses),
            "unknown": c.responses_unknown,
            "dropped": sum(w, |w| w.worker.response_full),
            "claims_dropped": sum(w, |w| w.egress.claims_dropped),
            "links": s.links,
        },
        "replay_port": replay_port(s),
        "buffers": {
            "in_use": s.mbufs[0].0,
            "size": s.mbufs[0].1,
            "small": { "in_use": s.mbufs[1].0, "size": s.mbufs[1].1 },
        },
        "cores": w.iter().zip(s.cpus).map(|(w, cpu)| core(w, *cpu)).collect::<Vec<_>>(),
    })
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

/// A mirror port, or a capture file, which has no link.
fn port(s: &Sources<'_>, i: usize) -> Value {
    let ((name, p), missed) = (&s.mirrors[i], s.missed.get(i));
    let link = s.links_up.get(i).filter(|_| s.capture.is_none());
    json!({
        "name": name,
        "frames": p.rx_frames,
        "bytes": p.rx_bytes,
        "missed": missed,
        "errors": p.rx_errors,
        "too_long": p.rx_too_long,
        "no_mbuf": p.rx_no_mbuf,
        "clock": match s.capture {
            Some(_) => Some("file"),
            None => s.clocks.get(i).map(|c| c.name()),
        },
        "link": link.map(LinkState::name),
        "link_changes": link.map(LinkState::changes),
    })
}

/// What concerns capture files as a whole.
fn capture(s: &Sources<'_>, c: &CaptureStats) -> Value {
    let mut late = Histogram::default();
    for w in s.workers {
        late.add(&w.worker.late);
    }
    let seconds = |ns: u64| ns as f64 / 1e9;
    json!({
        "files": c.files,
        "passes": c.passes,
        "size": c.size,
        "read": c.read,
        "position_s": seconds(c.position),
        "idle_skipped_s": seconds(c.skipped),
        "out_of_order": c.disorder.out_of_order,
        "restamped": c.disorder.restamped,
        "clock_set": c.disorder.clock_set,
        "late": latency(&late),
    })
}

fn replay_port(s: &Sources<'_>) -> Value {
    let (w, (name, p), link) = (s.workers, &s.replay, s.links_up.last());
    json!({
        "name": name,
        "clock": s.clocks.last().map(|c| c.name()),
        "link": link.map(LinkState::name),
        "link_changes": link.map(LinkState::changes),
        "sent_frames": p.tx_frames,
        "sent_bytes": p.tx_bytes,
        "send_errors": p.tx_errors,
        "received_frames": sum(w, |w| w.worker.replay_frames),
        "control": sum(w, |w| w.worker.replay_control),
        "strays": sum(w, |w| w.worker.replay_strays),
        "skipped": sum(w, |w| w.worker.replay_skipped),
        "held_back": {
            "queue_full": sum(w, |w| w.egress.full),
            "no_buffer": sum(w, |w| w.egress.no_buffer),
            "next_hop": sum(w, |w| w.egress.unreachable),
            "too_long": sum(w, |w| w.egress.too_long),
        },
    })
}

/// Frames that told nothing of a session, by reason. With `used`, and with those held as parts of
/// incomplete datagrams, they add up to `frames`.
///
/// A datagram that was reassembled from n frames counts once among `used` or the reasons, as what
/// it turned out to be; the n - 1 frames that were merged with the first count as `reassembled`.
/// Parts that never became a datagram count under the `fragment_…` reasons.
fn dropped(workers: &[Snapshot], c: &Counters) -> Value {
    let mut map = Map::new();
    for skip in Skip::ALL {
        map.insert(
            skip.name().into(),
            sum(workers, |w| w.worker.skipped[skip as usize]).into(),
        );
    }
    for (reason, n) in Unused::ALL.iter().zip(c.dropped) {
        map.insert(reason.name().into(), n.into());
    }
    for reason in FragmentDrop::ALL {
        map.insert(
            reason.name().into(),
            sum(workers, |w| w.fragments.dropped[reason as usize]).into(),
        );
    }
    map.insert(
        "reassembled".into(),
        sum(workers, |w| w.fragments.merged).into(),
    );
    map.insert(
        "handover_full".into(),
        sum(workers, |w| w.worker.handover_full).into(),
    );
    Value::Object(map)
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
fn target(s: &Sources<'_>, i: usize) -> Value {
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
        "latency": {
            "production": latency(&t.production_latency),
            "target": latency(&t.target_latency),
        },
        "schedule": { "late": latency(&t.schedule_late), "held": latency(&t.schedule_held) },
    })
}

fn latency(h: &Histogram) -> Value {
    json!({
        "count": h.count(),
        "p50_us": h.quantile_us(0.5),
        "p90_us": h.quantile_us(0.9),
        "p99_us": h.quantile_us(0.99),
        "p999_us": h.quantile_us(0.999),
        "max_us": h.max_us(),
        "buckets": h.counts().map(|(upper, n)| [upper, n]).collect::<Vec<_>>(),
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

/// How often it is logged that reports cannot be written.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The file that reports are written to. One that cannot be written is counted and logged now and
/// then, and ends nothing: a replay is worth more than a report of how far it is.
pub struct ReportFile {
    path: PathBuf,
    failed: u64,
    warned_at: Option<Instant>,
}

impl ReportFile {
    /// The file at `path`, which may be there already.
    pub const fn new(path: PathBuf) -> Self {
        Self {
            path,
            failed: 0,
            warned_at: None,
        }
    }

    /// Reports that could not be written.
    pub const fn failed(&self) -> u64 {
        self.failed
    }

    /// Writes the report, so that a reader never sees half of one.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn write(&mut self, report: &Value) -> Result<()> {
        config::write_report(&self.path, format!("{report:#}\n").as_bytes())
            .inspect_err(|_| self.failed += 1)
            .with_context(|| format!("report {} cannot be written", self.path.display()))
    }

    /// The same, for a report that others follow: a failure is logged, if none was at `now` for
    /// some time.
    pub fn try_write(&mut self, report: &Value, now: Instant) {
        let Err(e) = self.write(report) else {
            return;
        };
        let due = |at| now.saturating_duration_since(at) >= WARN_EVERY;
        if self.warned_at.is_none_or(due) {
            self.warned_at = Some(now);
            let failed = self.failed;
            log::warn!("{e:#}; the replay goes on ({failed} so far were not)");
        }
    }
}

/// A sentence, if times of responses that came over a control link may be wrong by so much that
/// the target's latencies say little: by more than half of the median.
pub fn clock_doubt(s: &Sources<'_>) -> Option<String> {
    let latency = total(s.workers).target_latency;
    let median = latency.quantile_us(0.5);
    let errors = s
        .links
        .iter()
        .flatten()
        .filter_map(|link| link.clock_error_us);
    let error = errors.max().filter(|_| latency.count() > 0)?;
    (error * 2 > median).then(|| {
        format!(
            "the intercept's clock is known to {error} us only, and the target's median latency is {median} us: take latencies of the target with care"
        )
    })
}

/// One line for the log.
pub fn line(s: &Sources<'_>) -> String {
    let c = total(s.workers);
    let frames = sum(s.workers, frames);
    let sessions = sum(s.workers, |w| w.sessions as u64);
    format!(
        "{frames} frames, {} sessions ({sessions} open), turns: {} captured, {} replayed, {} lost, {} in flight; p99 {} us in production, {} us at the target{}",
        c.sessions,
        c.turns,
        c.replayed_turns,
        c.lost_turns_sum(),
        c.in_flight_turns,
        c.production_latency.quantile_us(0.99),
        c.target_latency.quantile_us(0.99),
        s.capture.as_ref().map(progress::told).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(workers: &[Snapshot], clock_error_us: Option<u64>) -> Sources<'_> {
        let links = clock_error_us.map(|error| {
            vec![LinkStats {
                address: ([127, 0, 0, 1], 1).into(),
                up: true,
                reconnects: 0,
                records: 0,
                records_dropped: 0,
                server_dropped: 0,
                bytes: 0,
                claims: 0,
                refusals: 0,
                round_trip_ns: None,
                clock_error_us: Some(error),
                last_error: None,
            }]
        });
        Sources {
            workers,
            cpus: &[0],
            mirrors: Vec::new(),
            capture: None,
            missed: Vec::new(),
            unseen: Unseen::default(),
            spread: "alone",
            links_up: &[],
            clocks: Vec::new(),
            replay: (String::new(), PortStats::default()),
            targets: &[],
            links,
            copies: 1,
            mbufs: [(0, 0); 2],
            elapsed: Duration::ZERO,
            is_final: true,
            failed_writes: 0,
        }
    }

    #[test]
    fn a_report_that_cannot_be_written_is_counted_and_ends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later").join("report.json");
        let mut file = ReportFile::new(path.clone());
        let report = json!({ "turns": 1 });
        let now = Instant::now();
        for n in 1..=3 {
            file.try_write(&report, now);
            assert_eq!(file.failed(), n);
        }
        assert_eq!(file.warned_at, Some(now), "logged once");
        file.try_write(&report, now + WARN_EVERY);
        assert_eq!(file.warned_at, Some(now + WARN_EVERY), "and again");
        let e = format!("{:#}", file.write(&report).unwrap_err());
        assert!(e.contains("report.json cannot be written: "), "{e}");

        std::fs::create_dir(dir.path().join("later")).unwrap();
        file.write(&report).unwrap();
        assert_eq!(file.failed(), 5);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{report:#}\n")
        );
        // A folder stands in its place: nothing is left beside it.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        file.write(&report).unwrap_err();
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_clock_that_is_not_known_well_enough_is_told() {
        let mut worker = Snapshot::default();
        assert_eq!(clock_doubt(&sources(&[worker.clone()], Some(1_000))), None);
        for _ in 0..9 {
            worker.core.target_latency.record(1_000_000);
        }
        let workers = [worker];
        assert_eq!(clock_doubt(&sources(&workers, None)), None, "embedded");
        assert_eq!(clock_doubt(&sources(&workers, Some(400))), None);
        let doubt = clock_doubt(&sources(&workers, Some(600))).unwrap();
        assert!(doubt.contains("600 us"), "{doubt}");
        let links = &json(&sources(&workers, Some(600)))["intercept"]["links"];
        assert_eq!(links[0]["clock_error_us"], 600);
    }
}
