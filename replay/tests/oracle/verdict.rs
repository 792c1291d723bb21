//! What must be true at the end of a run.

use crate::plan::{End, MANY, Mood, PLENTY, Plan, Pool, Strays};
use crate::script::{Part, byte_at};
use crate::world::World;
use replay::{Loss, Pace, Unused};
use std::collections::HashMap;
use wire::Nanos;

/// Retransmissions of a SYN, and of anything else, that the core makes before it gives up.
const SYN_RETRIES: u64 = 5;
const DATA_RETRIES: u64 = 12;
/// `session_timeout` of every run.
const SESSION_TIMEOUT: Nanos = 600_000_000_000;

/// Reasons for losses that a run gave cause for.
fn excusable(world: &World) -> Vec<Loss> {
    let (plan, target) = (&world.plan, &world.target);
    let mut reasons = Vec::new();
    if (0..plan.talks.len()).any(|k| world.captured(k).contains(&false)) {
        reasons.push(Loss::Hole);
    }
    if plan.late > 0 || plan.loses_handshakes() {
        reasons.push(Loss::Midstream);
    }
    if unsettled(plan) {
        reasons.push(Loss::Hole);
    }
    if plan.strays == Strays::Within {
        // What comes after a reset that nobody sent begins another session.
        reasons.extend([Loss::Hole, Loss::Midstream]);
    }
    if plan.session_bytes != PLENTY {
        // What finds no room beyond a gap is as if it had not been captured.
        reasons.extend([Loss::SessionBytes, Loss::Hole]);
    }
    if plan.max_segments != MANY {
        // A session that found no room is turned away, and may be taken up in the middle.
        reasons.extend([Loss::Buffers, Loss::Hole, Loss::Midstream, Loss::Shed]);
    }
    if plan.pool == Pool::One {
        reasons.push(Loss::NoAddress);
    }
    // Whatever the wire swallows, the core must have tried often enough.
    if target.dead || world.wire_losses > SYN_RETRIES {
        reasons.extend([Loss::ConnectTimeout, Loss::TargetUnconfirmed]);
    }
    if target.dead || (plan.wire_loss() > 5 && world.wire_losses > DATA_RETRIES) {
        reasons.push(Loss::RetransmitTimeout);
    }
    if (target.dead || plan.wire_loss() > 5) && world.now >= SESSION_TIMEOUT {
        reasons.push(Loss::SessionTimeout);
    }
    if target.refused > 0 && world.resets > 0 {
        reasons.push(Loss::ConnectRefused);
    }
    // What was on the way when it closed finds nobody. A late reset may look like the refusal of
    // the next connection.
    if target.acted.contains(&true) && world.resets > 0 {
        reasons.extend([Loss::TargetReset, Loss::ConnectRefused]);
    }
    reasons
}

/// Frames may change places before a session is in step: then nothing waits for what comes late.
fn unsettled(plan: &Plan) -> bool {
    let joins = plan.late > 0 || plan.loses_handshakes();
    joins && (plan.mirror.reorder > 0 || plan.mirror.damage > 0)
}

/// Panics if a run did not end as it should have.
pub fn check(world: &World) {
    let (core, plan) = (&world.core, &world.plan);
    let c = world.counters();
    assert!(core.is_drained());
    assert_eq!(core.segment_count(), 0);
    assert!(core.session_count() == 0 || plan.pace == Pace::Unpaced);
    assert_eq!((c.in_flight_turns, c.in_flight_bytes), (0, 0));
    assert_eq!(core.slots().0, 0, "pool addresses in use");

    let excuses = excusable(world);
    for reason in Loss::ALL {
        let (turns, bytes) = (c.lost_turns[reason as usize], c.lost_bytes[reason as usize]);
        assert!(
            (turns == 0 && bytes == 0) || excuses.contains(&reason),
            "{turns} turns and {bytes} bytes lost for {}, without a cause",
            reason.name()
        );
    }
    let received = streams(world);
    let sum = received.iter().sum::<u64>();
    assert!(
        c.replayed_bytes <= sum,
        "{} bytes replayed, {sum} received",
        c.replayed_bytes
    );
    // A number that tells of more than was captured may count in a FIN that was not.
    let unsure = world.fins.iter().filter(|seen| !**seen).count() as u64;
    let said = world.said();
    // And a number from elsewhere is believed within the windows.
    let claimed = claims(world);
    assert!(
        c.bytes <= said + unsure + claimed,
        "{} bytes of {said}, {claimed} claimed",
        c.bytes
    );
    figures(world);
    if plan.strays == Strays::Within {
        return;
    }
    told(world);
    holes(world, unsure);
    let shed = c.dropped[Unused::Shed as usize] > 0;
    assert!(!shed || plan.max_segments != MANY, "shed without need");
    if c.lost_turns_sum() == 0 && plan.mirror_is_whole() && !shed {
        all_of_it(world, &received);
    }
}

/// Bytes of the clients that strays may have been believed to tell of.
fn claims(world: &World) -> u64 {
    let mut claims = 0;
    for script in &world.scripts {
        for (i, shot) in script.shots.iter().enumerate() {
            if world.plan.strays == Strays::Within && shot.part == Part::Stray {
                let (client, _) = script.state(i);
                let number = if shot.head.flow.src == script.client {
                    shot.head.seq
                } else {
                    shot.head.ack
                };
                claims += u64::from(number.since(client));
            }
        }
    }
    claims
}

/// What was captured is accounted for, unless the core says that it did not want it.
fn told(world: &World) {
    let c = world.counters();
    let unwanted = [Unused::AfterEnd, Unused::OutOfWindow, Unused::Shed];
    if unsettled(&world.plan) || unwanted.iter().any(|&why| c.dropped[why as usize] > 0) {
        return;
    }
    let captured = |k| world.captured(k).iter().filter(|c| **c).count();
    let captured: usize = (0..world.scripts.len()).map(captured).sum();
    assert!(
        c.bytes >= captured as u64,
        "{captured} bytes were captured, {} accounted for",
        c.bytes
    );
}

/// No figure says what cannot be.
fn figures(world: &World) {
    let (c, plan) = (world.counters(), &world.plan);
    let shots = || world.scripts.iter().flat_map(|s| &s.shots);
    let strays = shots().filter(|s| s.part == Part::Stray).count() as u64;
    let most = |what: &str, n: u64, most: u64| assert!(n <= most, "{n} {what}, at most {most}");
    let ended = c.connect_failures + c.target_resets + c.resets_at_end + c.replayed_sessions;
    most("connections that ended", ended, c.connects);
    most(
        "connections that the target reset",
        c.target_resets + c.resets_at_end,
        world.resets,
    );
    let answered: usize = world.target.conns.iter().map(|c| c.answered).sum();
    most("bytes of answers", c.response_bytes, answered as u64);
    most("answers", c.responses, c.owed_turns);
    let ends = c.sessions * u64::from(plan.copies);
    most(
        "turns that went without an answer",
        c.gate_timeouts + c.paced_turns,
        c.owed_turns + ends,
    );
    most(
        "connections closed early",
        c.target_closed_early,
        c.connects,
    );
    let syns = shots()
        .filter(|s| s.head.flags.has(wire::Flags::SYN))
        .count() as u64;
    most(
        "handshakes",
        c.handshakes_refused + c.handshakes_unfinished,
        2 * syns,
    );
    assert_eq!(c.handshakes_evicted, 0);
    let accepted = world.scripts.iter().filter(|s| s.accepted).count() as u64;
    let joins = plan.late > 0
        || plan.loses_handshakes()
        || plan.max_segments != MANY
        || plan.strays == Strays::Within;
    assert!(joins || c.sessions == accepted, "{} sessions", c.sessions);
    let latency = [&c.production_latency, &c.target_latency];
    most("latencies in production", latency[0].count(), c.turns);
    most("latencies at the target", latency[1].count(), c.responses);
    let begin = world.scripts.iter().map(|s| s.start()).min().unwrap_or(0);
    let end = world.scripts.iter().map(|s| s.end()).max().unwrap_or(0);
    // A bucket of the histogram is up to an eighth wide.
    let span = |t: Nanos| t / 1_000 + t / 8_000 + 5_000;
    most("us in production", latency[0].max_us(), span(end - begin));
    most("us at the target", latency[1].max_us(), span(world.now));
    if plan.strays != Strays::Within {
        assert_eq!(c.conflicting_bytes, 0);
    }
    // An acknowledgment that is shown behind the byte after it looks like a probe.
    if plan.mirror.duplicate == 0 && plan.mirror.reorder == 0 && strays == 0 {
        assert_eq!(c.keep_alives, 0);
    }
    most("frames", c.frames, 3 * (shots().count() as u64 + strays));
}

/// Each connection carries the client's bytes, from one boundary to another, and no byte twice.
/// Returns what was received of each conversation.
fn streams(world: &World) -> Vec<u64> {
    let plan = &world.plan;
    let mut ends: HashMap<_, u32> = HashMap::new();
    let mut received = vec![0; world.scripts.len()];
    for conn in &world.target.conns {
        let script = &world.scripts[conn.talk];
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
        assert!(end <= script.len, "{end} bytes received of {}", script.len);
        let before = ends.insert((conn.talk, conn.peer), end).unwrap_or(0);
        assert!(before <= start, "bytes {start} to {before} were sent twice");
        received[conn.talk] += conn.read.len() as u64;
        if plan.strays == Strays::Within {
            // They may cut turns, and end the conversation.
            continue;
        }
        assert!(
            script.boundaries.contains(&start),
            "a connection begins in the middle of a turn, at {start}"
        );
        // Unless nothing told that the client said more: a number that is higher by one may as well
        // count its FIN.
        let whole = script.boundaries.contains(&end)
            || (!plan.mirror_is_whole() && world.told[conn.talk] <= end + 1);
        assert!(
            !conn.finished || whole,
            "a connection ends in good order in the middle of a turn, at {end}"
        );
    }
    received
}

/// A hole loses the turn it lies in, and the turns beside it if its beginning may be theirs: not
/// more.
fn holes(world: &World, unsure: u64) {
    let plan = &world.plan;
    let mut most = unsure;
    for (k, script) in world.scripts.iter().enumerate() {
        let captured = world.captured(k);
        let turns: Vec<_> = script.boundaries.windows(2).collect();
        let broken: Vec<bool> = turns
            .iter()
            .map(|t| captured[t[0] as usize..t[1] as usize].contains(&false))
            .collect();
        let mut reaches = false;
        for (i, turn) in turns.iter().enumerate() {
            let beside = i.saturating_sub(1)..(i + 2).min(turns.len());
            reaches |= broken[beside].contains(&true);
            if reaches {
                most += u64::from(turn[1] - turn[0]);
            }
            // Frames that change places make the beginning of the next turn as uncertain.
            reaches &= plan.mirror.reorder > 0 || plan.mirror.damage > 0;
        }
    }
    let c = world.counters();
    let lost = c.lost_bytes[Loss::Hole as usize];
    // A turn that went before the one before it was answered takes that one with it, if its
    // connection has to be given up.
    let ahead = c.gate_timeouts > 0 || !plan.wait_for_responses;
    let limited =
        ahead || plan.session_bytes != PLENTY || plan.max_segments != MANY || unsettled(plan);
    assert!(
        limited || lost <= most * u64::from(plan.copies),
        "{lost} bytes lost to holes, but only {most} are near one"
    );
}

/// Nothing was lost and everything was seen: then everything arrived, once for each copy.
fn all_of_it(world: &World, received: &[u64]) {
    let plan = &world.plan;
    let (c, copies) = (world.counters(), u64::from(plan.copies));
    for (k, script) in world.scripts.iter().enumerate() {
        let said = u64::from(script.len) * copies;
        assert_eq!(received[k], said, "bytes received of conversation {k}");
    }
    let said = world.said();
    let turns: usize = world.scripts.iter().map(|s| s.boundaries.len() - 1).sum();
    assert_eq!(c.bytes, said, "bytes captured");
    assert_eq!(c.turns, turns as u64, "turns cut");
    assert_eq!(c.replayed_bytes, said * copies, "bytes replayed");
    assert_eq!(c.replayed_turns, c.turns * copies, "turns replayed");
    for (k, talk) in plan.talks.iter().enumerate() {
        if talk.mood != Mood::Good || !talk.is_accepted() {
            continue;
        }
        let conns = world.target.conns.iter().filter(|c| c.talk == k);
        let finished = conns.filter(|c| c.finished).count();
        // Whose port is used again although it did not end, is over as if it had been reset.
        let replaced =
            talk.end == End::Never && plan.talks.get(k + 1).is_some_and(|t| t.port.is_none());
        let orderly = talk.end != End::Reset && !replaced && plan.wire_loss() == 0;
        assert!(
            !orderly || finished as u64 == copies,
            "{finished} connections of conversation {k} ended in good order"
        );
    }
    if plan.talks.iter().all(|t| t.mood == Mood::Good) {
        let accepted = plan.talks.iter().filter(|t| t.is_accepted()).count();
        let connects = copies * accepted as u64;
        assert_eq!(c.connects, connects, "one connection each");
    }
}
