//! Sessions that go to several targets: each has what it should, and none is held up by another.

use super::*;
use crate::params::{Origin, Target};
use crate::slots::Slice;

const OTHER: Endpoint = Endpoint::new(Addr::v4([10, 20, 0, 3]), 9090);

/// Every session goes to the usual target and to [`OTHER`].
fn bed(change: impl FnOnce(&mut Params)) -> Bed {
    Bed::with(|p| {
        p.transfers[0].to.push(Target::new(OTHER));
        change(p);
    })
}

/// The targets' connections, as far as they have come.
#[derive(Default)]
struct Conns(Vec<Conn>);

impl Conns {
    /// Those targets that are `up` take whatever was sent to them: they accept connections,
    /// acknowledge what comes, and close when the client does.
    #[track_caller]
    fn serve(&mut self, b: &mut Bed, up: &[Endpoint]) {
        loop {
            let heads = b.take();
            if heads.is_empty() {
                return;
            }
            for h in heads.iter().filter(|h| up.contains(&h.flow.dst)) {
                if h.flags == Flags::SYN {
                    let conn = b.accept_syn(h);
                    self.0.push(conn);
                    continue;
                }
                let flow = h.flow.reversed();
                let Some(conn) = self.0.iter_mut().rfind(|c| c.flow == flow) else {
                    continue;
                };
                if h.seq.le(conn.rcv) && h.end().gt(conn.rcv) {
                    conn.rcv = h.end();
                    let flags = if h.flags.has(Flags::FIN) {
                        Flags::FIN
                    } else {
                        Flags::default()
                    };
                    let ack = conn.head(flags, 0);
                    conn.snd += u32::from(flags == Flags::FIN);
                    b.respond(&ack);
                }
            }
        }
    }

    /// A target answers on its newest connection.
    #[track_caller]
    fn reply(&mut self, b: &mut Bed, target: Endpoint, n: u32) {
        let conn = self.0.iter_mut().rfind(|c| c.flow.src == target);
        b.reply(conn.expect("a connection"), n);
    }
}

/// One request of 100 bytes and its answer of 50, in production.
#[track_caller]
fn talk(b: &mut Bed, c: &mut Conv) {
    b.say(c, 100);
    b.answer(c, 50);
}

fn lost(b: &Bed, target: usize) -> Vec<(&'static str, u64)> {
    let turns = b.core.targets()[target].lost_turns;
    let named = Loss::ALL.map(Loss::name).into_iter().zip(turns);
    named.filter(|(_, n)| *n > 0).collect()
}

#[test]
fn every_target_has_each_session_at_its_own_pace() {
    let mut b = bed(|_| {});
    let mut c = b.open(4000);
    let mut conns = Conns::default();
    for _ in 0..3 {
        talk(&mut b, &mut c);
    }
    conns.serve(&mut b, &[TARGET, OTHER]);
    assert_eq!(conns.0.len(), 2);
    for _ in 0..2 {
        conns.reply(&mut b, TARGET, 50);
        conns.serve(&mut b, &[TARGET, OTHER]);
    }
    let replayed = |b: &Bed| [0, 1].map(|t| b.core.targets()[t].replayed_turns);
    assert_eq!(replayed(&b), [2, 1], "the newest turn may still grow");
    b.fin(&mut c);
    conns.reply(&mut b, TARGET, 50);
    for _ in 0..3 {
        conns.serve(&mut b, &[TARGET, OTHER]);
        assert_eq!(replayed(&b)[0], 3);
        conns.reply(&mut b, OTHER, 50);
    }
    conns.serve(&mut b, &[TARGET, OTHER]);
    b.assert_over();
    let count = b.counters();
    assert_eq!((count.sessions, count.turns, count.bytes), (1, 3, 300));
    assert_eq!((count.owed_turns, count.replayed_turns), (6, 6));
    assert_eq!(count.production_latency.count(), 3);
    for t in b.core.targets() {
        assert_eq!((t.sessions, t.turns, t.bytes), (1, 3, 300));
        assert_eq!((t.replayed_turns, t.replayed_sessions), (3, 1));
        assert_eq!((t.responses, t.production_latency.count()), (3, 3));
    }
    // The two connections differ by the target alone.
    assert_eq!(b.out.claimed.len(), 2);
    assert_eq!(b.out.claimed[0], b.out.claimed[1]);
    assert_eq!(b.out.released.len(), 2);
}

/// Sessions of five turns each, of which the usual target answers all.
#[track_caller]
fn through(b: &mut Bed, conns: &mut Conns, ports: Range<u16>) {
    for port in ports {
        let mut c = b.open(port);
        for _ in 0..5 {
            talk(b, &mut c);
            conns.serve(b, &[TARGET]);
            conns.reply(b, TARGET, 50);
            conns.serve(b, &[TARGET]);
        }
        b.fin(&mut c);
        conns.serve(b, &[TARGET]);
        b.pass(2 * SECOND);
    }
}

/// What holds for a target when the other one is dead.
#[track_caller]
fn assert_unharmed(b: &Bed, target: usize, sessions: u64) {
    assert_eq!(lost(b, target), []);
    let t = &b.core.targets()[target];
    assert_eq!((t.sessions, t.turns), (sessions, 5 * sessions));
    let done = (t.replayed_sessions, t.replayed_turns, t.in_flight_turns);
    assert_eq!(done, (sessions, 5 * sessions, 0));
    let count = b.counters();
    let kept = (count.sessions_shed, count.dropped.iter().sum::<u64>());
    assert_eq!(kept, (0, 0), "what was shown was of use");
}

#[test]
fn a_dead_target_costs_the_other_neither_segments_nor_sessions_nor_addresses() {
    for pooled in [false, true] {
        let mut b = bed(|p| {
            // Less than the dead one would keep.
            (p.max_sessions, p.max_segments, p.max_frames) = (8, 32, 32);
            p.keepalive_timeout = 7_200 * SECOND;
            if pooled {
                // The dead one is the first to get an address.
                p.transfers[0].to.reverse();
                p.pool = vec![Slice {
                    first: Addr::v4([62, 135, 200, 1]),
                    addresses: 1,
                    low: 2_000,
                    high: 2_003,
                }];
            }
        });
        let mut conns = Conns::default();
        through(&mut b, &mut conns, 4_000..4_040);
        let (well, dead) = if pooled { (1, 0) } else { (0, 1) };
        assert_unharmed(&b, well, 40);
        // Nor is it waited for: all that is held is held for the dead one.
        assert!(b.core.segment_count() > 0);
        assert_eq!(b.core.segments_for_answering(), 0);
        assert_eq!(b.core.bytes_in_flight(), 0);
        let t = &b.core.targets()[dead];
        assert_eq!((t.turns, t.replayed_turns), (200, 0));
        let reasons: Vec<_> = lost(&b, dead).iter().map(|(reason, _)| *reason).collect();
        let reason = if pooled {
            "no_address"
        } else {
            "target_budget"
        };
        assert!(reasons.contains(&reason), "{reasons:?}");
    }
}

#[test]
fn a_target_that_hangs_loses_its_own_turns_and_goes_on_with_the_next() {
    let mut b = bed(|p| p.session_bytes = 2_000);
    let mut c = b.open(4000);
    let mut conns = Conns::default();
    conns.serve(&mut b, &[TARGET, OTHER]);
    // The other one acknowledges nothing until it holds as much as a session may.
    let mut turns = 1;
    b.say(&mut c, 100);
    while lost(&b, 1).is_empty() {
        b.answer(&mut c, 50);
        conns.serve(&mut b, &[TARGET]);
        conns.reply(&mut b, TARGET, 50);
        b.say(&mut c, 100);
        conns.serve(&mut b, &[TARGET]);
        turns += 1;
        assert!(turns < 100);
    }
    assert_eq!(lost(&b, 1), [("session_bytes", 1)]);
    // More of the turn that it lost is lost there as well; the first one gets it.
    b.say(&mut c, 10);
    conns.serve(&mut b, &[TARGET]);
    assert_eq!(lost(&b, 1), [("session_bytes", 1)]);
    let bytes = b.core.targets()[1].lost_bytes[Loss::SessionBytes as usize];
    assert_eq!(bytes, 110);
    // It is well again, and has the next turn over the same connection.
    for _ in 0..200 {
        b.pass(100 * MS);
        conns.serve(&mut b, &[TARGET, OTHER]);
        if b.core.targets()[1].in_flight_turns > 1 {
            conns.reply(&mut b, OTHER, 50);
        }
        conns.serve(&mut b, &[TARGET, OTHER]);
    }
    b.answer(&mut c, 50);
    talk(&mut b, &mut c);
    b.fin(&mut c);
    b.pass(20 * SECOND);
    conns.serve(&mut b, &[TARGET, OTHER]);
    b.pass(20 * SECOND);
    conns.serve(&mut b, &[TARGET, OTHER]);
    b.pass(SECOND);
    let [first, other] = b.core.targets() else {
        panic!()
    };
    assert_eq!((first.turns, other.turns), (turns + 1, turns + 1));
    assert_eq!(first.replayed_turns, turns + 1);
    assert_eq!(other.replayed_turns, turns);
    assert_eq!(lost(&b, 0), []);
}

#[test]
fn copies_and_shares_are_each_targets_own() {
    let mut b = bed(|p| {
        (p.max_sessions, p.max_segments, p.max_frames) = (512, 4_096, 4_096);
        p.transfers[0].to[0].copies = Some(2);
        p.transfers[0].to[1].percent = Some(40.0);
    });
    for port in 4_000..4_400 {
        let mut c = b.open(port);
        b.say(&mut c, 10);
    }
    let count = b.counters();
    assert_eq!((count.sessions, count.turns), (400, 400));
    let [first, other] = b.core.targets() else {
        panic!()
    };
    assert_eq!((first.sessions, first.owed_turns), (400, 800));
    assert!((120..200).contains(&other.sessions), "{}", other.sessions);
    assert_eq!(other.owed_turns, other.sessions);
    assert_eq!(count.owed_turns, 800 + other.sessions);
    assert_eq!(b.core.replicas.active as u64, count.owed_turns);
}

#[test]
fn a_target_may_have_productions_port() {
    let mut b = bed(|p| {
        p.transfers[0].from[0].high = 90;
        p.transfers[0].to[1].to.port = 0;
        p.transfers[0].from.push(Origin::any(8_000));
    });
    for (client, port) in [(4_000, 80), (4_001, 85), (4_002, 8_000)] {
        let mut c = Conv::new(client);
        c.flow.dst.port = port;
        let syn = Head {
            flags: Flags::SYN,
            ack: Seq(0),
            ..c.head(Flags::SYN, 0)
        };
        assert_eq!(b.mirror(&syn), Ok(()));
        c.c += 1;
        b.ack(&c);
        let to: Vec<Endpoint> = b.take().iter().map(|h| h.flow.dst).collect();
        assert_eq!(to, [TARGET, Endpoint { port, ..OTHER }]);
        // Its answers come back to the session.
        let syn = b.out.sent.last().unwrap().head;
        b.accept_syn(&syn);
        b.take();
    }
    let [first, other] = b.core.targets() else {
        panic!()
    };
    assert_eq!((first.connects, other.connects), (3, 3));
    assert_eq!((first.unconfirmed_cores, other.unconfirmed_cores), (1, 0));
    assert_eq!(b.counters().responses_unknown, 0);
}
