//! Counters by their names in reports: a plain one by its own (`replayed_turns`), one of several by
//! group and reason (`dropped.duplicate`, `lost_bytes.hole`), and what the core holds at the moment
//! (`held.sessions`).

use replay::histogram::Histogram;
use replay::{Core, Counters, Loss, Unused};
use tests::memory::MemoryPayload;

macro_rules! plain {
    ($($field:ident)*) => {
        const PLAIN: &[&str] = &[$(stringify!($field),)*];

        fn plain(c: &Counters, name: &str) -> Option<u64> {
            match name {
                $(stringify!($field) => Some(c.$field),)*
                _ => None,
            }
        }
    };
}

plain! {
    frames used sessions sessions_shed sessions_ended turns bytes out_of_order conflicting_bytes doubtful_bytes replayed_turns replayed_bytes
    replayed_sessions retransmitted_bytes retransmitted_segments in_flight_turns in_flight_bytes gate_timeouts connects
    connect_failures target_resets target_closed_early responses response_segments response_bytes responses_unknown
    path_mtu_lowered keep_alives segments_sent tx_full resets_at_end paced_turns sessions_evicted handshakes_refused
    handshakes_unfinished handshakes_evicted unconfirmed_cores awaiting_replicas held_segments held_frames
}

/// Plain counters that stay 0 when all is well.
const TROUBLE: &[&str] = &[
    "sessions_shed",
    "conflicting_bytes",
    "doubtful_bytes",
    "gate_timeouts",
    "connect_failures",
    "target_resets",
    "resets_at_end",
    "paced_turns",
    "sessions_evicted",
    "handshakes_refused",
    "handshakes_unfinished",
    "handshakes_evicted",
    "target_closed_early",
    "responses_unknown",
    "retransmitted_segments",
    "path_mtu_lowered",
    "tx_full",
];

/// The value of a counter; `None` if there is none of that name.
pub fn value(core: &Core<MemoryPayload>, name: &str) -> Option<u64> {
    let c = core.counters();
    let Some((group, reason)) = name.split_once('.') else {
        return plain(&c, name);
    };
    let loss = |values: &[u64]| {
        let i = Loss::ALL.iter().position(|l| l.name() == reason)?;
        values.get(i).copied()
    };
    match group {
        "lost_turns" => loss(&c.lost_turns),
        "lost_bytes" => loss(&c.lost_bytes),
        "dropped" => {
            let i = Unused::ALL.iter().position(|d| d.name() == reason)?;
            c.dropped.get(i).copied()
        }
        "held" => match reason {
            "sessions" => Some(core.session_count() as u64),
            "segments" => Some(core.segment_count() as u64),
            "slots" => Some(core.slots().0 as u64),
            "handshakes" => Some(core.half_open_count() as u64),
            _ => None,
        },
        "production_latency" => latency(&c.production_latency, reason),
        "target_latency" => latency(&c.target_latency, reason),
        "schedule_late" => latency(&c.schedule_late, reason),
        "schedule_held" => latency(&c.schedule_held, reason),
        "passage" => latency(&c.passage, reason),
        _ => None,
    }
}

fn latency(of: &Histogram, what: &str) -> Option<u64> {
    match what {
        "count" => Some(of.count()),
        "max_us" => Some(of.max_us()),
        _ => None,
    }
}

/// All names, for a message.
pub fn names() -> String {
    let mut all: Vec<String> = PLAIN.iter().map(|n| (*n).to_owned()).collect();
    for loss in Loss::ALL {
        all.push(format!("lost_turns.{0}, lost_bytes.{0}", loss.name()));
    }
    all.extend(Unused::ALL.iter().map(|d| format!("dropped.{}", d.name())));
    all.push("held.sessions, held.segments, held.slots, held.handshakes".to_owned());
    for of in [
        "production_latency",
        "target_latency",
        "schedule_late",
        "schedule_held",
        "passage",
    ] {
        all.push(format!("{of}.count, {of}.max_us"));
    }
    all.join(", ")
}

/// Counters that must be 0 at the end of a script that does not name them, with their values, where
/// they are not.
pub fn trouble(core: &Core<MemoryPayload>, named: &[(String, u64)]) -> Vec<(String, u64)> {
    let mut all: Vec<String> = TROUBLE.iter().map(|n| (*n).to_owned()).collect();
    for loss in Loss::ALL {
        all.push(format!("lost_turns.{}", loss.name()));
        all.push(format!("lost_bytes.{}", loss.name()));
    }
    all.extend(Unused::ALL.iter().map(|d| format!("dropped.{}", d.name())));
    all.retain(|name| !named.iter().any(|(n, _)| n == name));
    all.into_iter()
        .filter_map(|name| {
            let v = value(core, &name)?;
            (v > 0).then_some((name, v))
        })
        .collect()
}
