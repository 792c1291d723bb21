//! What the report says of the replay ports.

use super::{Sources, sum};
use dpdk::{LinkState, PortStats};
use serde_json::{Value, json};

/// All ports together, and each.
pub(super) fn section(s: &Sources<'_>) -> Value {
    let w = s.workers;
    let sent = |of: fn(&PortStats) -> u64| s.replay.iter().map(|(_, p)| of(p)).sum::<u64>();
    let ports: Vec<Value> = (0..s.replay.len()).map(|i| wire(s, i)).collect();
    // What is the same of all ports.
    let common = |key| match ports.split_first() {
        Some((first, rest)) if rest.iter().all(|p| p[key] == first[key]) => first[key].clone(),
        _ => Value::Null,
    };
    json!({
        "name": s.replay.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "),
        "clock": common("clock"),
        "link": common("link"),
        "link_changes": ports.iter().filter_map(|p| p["link_changes"].as_u64()).sum::<u64>(),
        "sent_frames": sent(|p| p.tx_frames),
        "sent_bytes": sent(|p| p.tx_bytes),
        "send_errors": sent(|p| p.tx_errors),
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
        "ports": ports,
    })
}

/// One of the replay ports. Their links and clocks are behind those of the mirror ports.
fn wire(s: &Sources<'_>, i: usize) -> Value {
    let (name, p) = &s.replay[i];
    let behind = |all: usize| (all + i).checked_sub(s.replay.len());
    let link = behind(s.links_up.len()).and_then(|i| s.links_up.get(i));
    let clock = behind(s.clocks.len()).and_then(|i| s.clocks.get(i));
    json!({
        "name": name,
        "clock": clock.map(|c| c.name()),
        "link": link.map(LinkState::name),
        "link_changes": link.map(LinkState::changes),
        "sent_frames": p.tx_frames,
        "sent_bytes": p.tx_bytes,
        "send_errors": p.tx_errors,
    })
}
