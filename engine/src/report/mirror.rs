//! What came from the mirror, and what became of it before the session core saw it.

use super::complete::NotSeen;
use super::latency::latency;
use super::{Sources, frames, refused, sum};
use crate::offline::CaptureStats;
use crate::worker::Snapshot;
use dpdk::LinkState;
use replay::histogram::Histogram;
use replay::{Counters, Unused};
use serde_json::{Map, Value, json};
use wire::Skip;
use wire::defragment::FragmentDrop;

/// `mirror`. `c` are all workers' counters in one.
pub(super) fn section(s: &Sources<'_>, c: &Counters) -> Value {
    let w = s.workers;
    let not_seen = NotSeen::of(s, c);
    json!({
        "complete": not_seen.complete,
        "not_seen": not_seen.json(),
        "frames": sum(w, frames),
        "bytes": sum(w, |w| w.worker.mirror_bytes),
        "used": c.used,
        "dropped": dropped(w, c),
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
    })
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
