//! Segments with a conversation's addresses and ports that nobody of it has sent: of an older
//! connection, forged, or damaged in a way that no checksum shows.

use crate::plan::{Plan, Strays, Talk};
use crate::rng::Rng;
use crate::script::{Part, Script, Shot};
use wire::{Flags, Head, Seq};

/// What no window reaches to, and a little: two of them are further from each other than that too,
/// but for the steps between them.
const FAR: u32 = 1 << 27;
const STEP: u32 = 1 << 22;
/// What every window that production advertises reaches to.
const NEAR: u64 = 900;

/// Puts the conversation's strays among its segments: behind its handshake, before its end.
pub fn add(script: &mut Script, plan: &Plan, talk: &Talk, rng: &mut Rng) {
    let conversation = |s: &Shot| s.part == Part::Talk;
    let Some(begin) = script.shots.iter().position(conversation) else {
        return;
    };
    let payload = |s: &Shot| conversation(s) && s.head.payload_len > 0;
    let Some(end) = script.shots.iter().rposition(payload) else {
        return;
    };
    let mut places: Vec<_> = (0..talk.strays)
        .map(|_| rng.range(begin as u64, end as u64) as usize)
        .collect();
    places.sort_unstable();
    for (n, place) in places.into_iter().enumerate() {
        // Those before have moved it.
        let at = place + n;
        let (client, server) = script.state(at);
        let shown = script.shots[at];
        let flow = if shown.head.flow.src == script.client {
            shown.head.flow
        } else {
            shown.head.flow.reversed()
        };
        let right = Head {
            flow,
            seq: client,
            ack: server,
            flags: Flags::ACK,
            window: 1_000,
            urgent: 0,
            options: wire::Options::default(),
            payload_len: 0,
        };
        let head = match plan.strays {
            Strays::Within => within(&right, plan, rng),
            _ => beyond(&right, n as u32, rng),
        };
        script.shots.insert(
            at + 1,
            Shot {
                at: shown.at,
                head,
                part: Part::Stray,
            },
        );
    }
}

/// A segment with numbers that are not the connection's. None confirms another.
fn beyond(right: &Head, n: u32, rng: &mut Rng) -> Head {
    let mut far = |seq: Seq| {
        let away = FAR * rng.range(2, 12) as u32 - n * STEP - rng.range(0, 1 << 20) as u32;
        if rng.percent(50) {
            seq + away
        } else {
            // Further with every one.
            seq - (away + 2 * n * STEP)
        }
    };
    let (seq, ack) = (far(right.seq), far(right.ack));
    let (server_seq, server_ack) = (far(right.ack), far(right.seq));
    let mut head = *right;
    if rng.percent(50) {
        // A client's number has to be right, whatever it acknowledges.
        head.seq = seq;
        if rng.percent(50) {
            head.ack = ack;
        }
        match rng.range(0, 4) {
            0 => {}
            1 => head.payload_len = rng.range(1, 2_000) as u32,
            2 => head.flags = rng.pick(&[Flags::RST, Flags::RST.with(Flags::ACK)]),
            3 => head.flags = Flags::FIN.with(Flags::ACK),
            _ => head.flags = Flags::SYN,
        }
        return head;
    }
    head.flow = right.flow.reversed();
    let kind = rng.range(0, 4);
    (head.seq, head.ack) = match kind {
        0 | 3 if rng.percent(50) => (right.ack, server_ack),
        0..=2 if rng.percent(50) => (server_seq, right.seq),
        _ => (server_seq, server_ack),
    };
    match kind {
        0 => {}
        1 => head.payload_len = rng.range(1, 2_000) as u32,
        2 => head.flags = rng.pick(&[Flags::RST, Flags::RST.with(Flags::ACK)]),
        3 => head.flags = Flags::FIN.with(Flags::ACK),
        _ => head.flags = Flags::SYN.with(Flags::ACK),
    }
    head
}

/// A segment with numbers that the connection might use next.
fn within(right: &Head, plan: &Plan, rng: &mut Rng) -> Head {
    let on = rng.range(1, NEAR) as u32;
    let mut head = *right;
    if rng.percent(60) {
        head.seq += on;
        match rng.range(0, 4) {
            0 => {}
            1 => head.flags = Flags::RST,
            2 => head.flags = Flags::RST.with(Flags::ACK),
            3 => head.flags = Flags::FIN.with(Flags::ACK),
            // Other bytes than the client's where those were captured before.
            _ if plan.mirror_is_whole() && plan.mirror.reorder == 0 => {
                head.seq = right.seq - on;
                head.payload_len = on;
            }
            _ => {}
        }
        return head;
    }
    head.flow = right.flow.reversed();
    (head.seq, head.ack) = (right.ack, right.seq);
    match rng.range(0, 4) {
        0 => head.ack += on,
        1 => head.flags = Flags::RST,
        2 => {
            head.seq += on;
            head.flags = Flags::RST.with(Flags::ACK);
        }
        3 => head.flags = Flags::FIN.with(Flags::ACK),
        _ => {
            head.seq += on;
            head.payload_len = on;
        }
    }
    head
}
