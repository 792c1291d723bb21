//! What must be true at the end of a run.

use crate::plan::{End, Mood};
use crate::script::byte_at;
use crate::world::World;
use replay::Loss;
use std::collections::HashMap;

/// Reasons for losses that a plan gives cause for.
fn excusable(world: &World) -> Vec<Loss> {
    let plan = &world.plan;
    let mut reasons = Vec::new();
    if !plan.mirror_is_whole() {
        reasons.extend([Loss::Hole, Loss::Midstream]);
    }
    if plan.wire.loss > 5 {
        reasons.extend([
            Loss::ConnectTimeout,
            Loss::RetransmitTimeout,
            Loss::SessionTimeout,
        ]);
    }
    match plan.mood {
        Mood::Good => {}
        // What was on the way when it closed finds nobody.
        // A late reset may look like the refusal of the next connection.
        Mood::ClosesAfter(_) | Mood::ResetsAfter(_) => {
            reasons.extend([Loss::TargetReset, Loss::ConnectRefused])
        }
        Mood::Refuses(_) => reasons.push(Loss::ConnectRefused),
        Mood::DiesAfter(_) => reasons.extend([
            Loss::ConnectTimeout,
            Loss::RetransmitTimeout,
            Loss::SessionTimeout,
        ]),
    }
    reasons
}

/// Panics if a run did not end as it should have.
pub fn check(world: &World) {
    let (core, script, plan) = (&world.core, &world.script, &world.plan);
    let c = core.counters();
    assert!(core.is_drained());
    assert_eq!((core.session_count(), core.segment_count()), (0, 0));
    assert_eq!((c.in_flight_turns, c.in_flight_bytes), (0, 0));

    let excuses = excusable(world);
    for &reason in Loss::ALL {
        let (turns, bytes) = (c.lost_turns[reason as usize], c.lost_bytes[reason as usize]);
        assert!(
            (turns == 0 && bytes == 0) || excuses.contains(&reason),
            "{turns} turns and {bytes} bytes lost for {}, without a cause",
            reason.name()
        );
    }

    // Each connection carries the client's bytes, from one boundary to another, and no byte twice.
    let mut ends: HashMap<u16, u32> = HashMap::new();
    let mut received = 0;
    for conn in &world.target.conns {
        let first = conn.isn + 1;
        for (i, &b) in conn.read.iter().enumerate() {
            assert_eq!(
                b,
                byte_at(first + i as u32),
                "byte {i} of the connection from {first:?}"
            );
        }
        let start = first.since(script.first);
        let end = start + conn.read.len() as u32;
        if conn.read.is_empty() {
            continue;
        }
        assert!(
            script.boundaries.contains(&start),
            "a connection begins in the middle of a turn, at {start}"
        );
        // Unless nothing told that the client said more: a number that is higher by one may as well count its FIN.
        let whole =
            script.boundaries.contains(&end) || (!plan.mirror_is_whole() && world.told <= end + 1);
        assert!(
            !conn.finished || whole,
            "a connection ends in good order in the middle of a turn, at {end}"
        );
        let before = ends.insert(conn.port, end).unwrap_or(0);
        assert!(before <= start, "bytes {start} to {before} were sent twice");
        received += conn.read.len() as u64;
    }
    assert!(
        c.replayed_bytes <= received,
        "{} bytes replayed, {received} received",
        c.replayed_bytes
    );

    if c.lost_turns_sum() == 0 && plan.mirror_is_whole() {
        let copies = u64::from(plan.copies);
        assert_eq!(c.bytes, u64::from(script.len), "bytes captured");
        assert_eq!(c.turns, script.boundaries.len() as u64 - 1, "turns cut");
        assert_eq!(received, c.bytes * copies, "bytes received");
        assert_eq!(c.replayed_bytes, received, "bytes replayed");
        assert_eq!(c.replayed_turns, c.turns * copies, "turns replayed");
        if plan.mood == Mood::Good {
            assert_eq!(c.connects, copies, "one connection each");
            let orderly = plan.end != End::Reset && plan.wire.loss == 0;
            let finished = world.target.conns.iter().filter(|c| c.finished).count();
            assert!(
                !orderly || finished as u64 == copies,
                "{finished} connections ended in good order"
            );
        }
    }
}
