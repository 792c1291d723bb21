//! Numbers that tell what a frame belongs to: of handshakes that look alike, and of segments that
//! nobody of the connection has sent.

use super::*;

/// Further than every window.
const FAR: u32 = 1 << 28;

/// The same client's connection whose numbers are `n` higher.
fn later(c: &Conv, n: u32) -> Conv {
    Conv {
        c: c.c + n,
        s: c.s + FAR,
        ack: c.s + FAR,
        ..*c
    }
}

#[test]
fn a_server_s_syn_belongs_to_the_new_connection_though_the_old_one_had_a_higher_number() {
    let mut b = Bed::new();
    let (mut old, mut t) = b.open_both(4000);
    b.exchange(&mut old, &mut t, 10, 10);
    b.fin(&mut old);
    b.receive(&mut t);
    b.close(&mut t);
    let mut c = Conv {
        c: old.c - 1_000_000,
        ..Conv::new(4000)
    };
    assert_eq!(b.syn(&mut c), Ok(()));
    b.syn_ack(&mut c);
    b.take();
    b.answer(&mut c, 20);
    assert_eq!(b.last_syn().seq, c.c - 1, "its answer says that it is open");
    assert_eq!(b.lost(Loss::Midstream), (0, 0));
}

#[test]
fn an_acknowledgment_far_behind_an_older_try_does_not_open_it() {
    let mut b = Bed::new();
    let mut first = Conv::new(4000);
    assert_eq!(b.syn(&mut first), Ok(()));
    // The SYN of the next try is not shown, and the server not at all.
    let c = later(&first, 150_000);
    assert!(b.mirror(&c.head(Flags::default(), 0)).is_err());
    assert_eq!(b.mirror(&c.head(Flags::PSH, 30)), Err(Unused::BeforeJoin));
    assert!(b.take().is_empty());
    assert_eq!((b.counters().bytes, b.lost(Loss::Midstream)), (30, (1, 30)));
}

#[test]
fn an_older_syn_that_comes_late_does_not_end_the_handshake_that_was_answered() {
    let mut b = Bed::new();
    let mut first = Conv::new(4000);
    let mut again = first;
    assert_eq!(b.syn(&mut first), Ok(()));
    let mut c = later(&again, 150_000);
    assert_eq!(b.syn(&mut c), Ok(()));
    b.syn_ack(&mut c);
    let _ = b.syn(&mut again);
    b.ack(&c);
    assert_eq!(b.last_syn().seq, c.c - 1);
}

#[test]
fn an_older_syn_that_comes_late_does_not_end_a_newer_handshake() {
    let mut b = Bed::new();
    let mut first = Conv::new(4000);
    let mut again = first;
    assert_eq!(b.syn(&mut first), Ok(()));
    // The client's direction alone.
    let mut c = later(&again, 150_000);
    assert_eq!(b.syn(&mut c), Ok(()));
    let _ = b.syn(&mut again);
    b.ack(&c);
    assert_eq!(b.last_syn().seq, c.c - 1);
}

#[test]
fn a_syn_behind_what_it_began_begins_no_second_session() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    let (mut client, mut server) = (c, c);
    c.c += 1;
    c.s += 1;
    c.ack = c.s;
    b.say_unseen(&mut c, 10);
    assert_eq!(b.mirror(&c.head(Flags::PSH, 30)), Err(Unused::BeforeJoin));
    c.c += 30;
    b.answer(&mut c, 50);
    b.say(&mut c, 20);
    let mut t = b.accept();
    assert_eq!(b.receive(&mut t), (20, false));
    // Both SYNs are shown now.
    assert_eq!(b.syn(&mut client), Err(Unused::Duplicate));
    server.c += 1;
    let head = Head {
        flow: server.flow.reversed(),
        seq: server.s,
        ack: server.c,
        ..server.head(Flags::SYN, 0)
    };
    assert_eq!(b.mirror(&head), Err(Unused::Duplicate));
    b.answer(&mut c, 5);
    b.say(&mut c, 7);
    b.reply(&mut t, 5);
    assert_eq!(b.receive(&mut t), (7, false));
    assert_eq!((b.counters().sessions, b.counters().bytes), (1, 57));
    assert_eq!(b.core.half_open_count(), 0);
}

#[test]
fn the_first_turn_is_counted_from_its_own_acknowledgment() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    // The client's direction alone, and its first acknowledgment is shown behind a later one.
    assert_eq!(b.syn(&mut c), Ok(()));
    let mut ahead = c;
    (ahead.c, ahead.ack) = (c.c + 30, c.ack + 50);
    b.ack(&ahead);
    b.say(&mut c, 30);
    c.ack = ahead.ack;
    b.say(&mut c, 20);
    assert_eq!((b.counters().turns, b.counters().bytes), (2, 50));
}

#[test]
fn a_client_s_segment_from_elsewhere_tells_nothing() {
    for far in [FAR, 0u32.wrapping_sub(FAR)] {
        let mut b = Bed::new();
        let (mut c, mut t) = b.open_both(4000);
        b.exchange(&mut c, &mut t, 100, 100);
        for (flags, len) in [(Flags::default(), 0), (Flags::FIN, 0), (Flags::PSH, 9)] {
            let stray = Conv {
                c: c.c + far,
                ack: c.ack + 1_000,
                ..c
            };
            let result = b.mirror(&stray.head(flags, len));
            assert_eq!(result, Err(Unused::OutOfWindow));
        }
        // Its acknowledgment would have the end wait for an answer.
        b.fin(&mut c);
        assert_eq!(b.receive(&mut t), (0, true));
        assert_eq!(b.counters().bytes, 100);
    }
}

#[test]
fn a_server_s_payload_from_elsewhere_hides_no_answer() {
    let mut b = Bed::new();
    let (mut c, _) = b.open_both(4000);
    b.say(&mut c, 100);
    let mut stray = Conv { s: c.s + FAR, ..c };
    let head = Head {
        flow: stray.flow.reversed(),
        seq: stray.s,
        ack: stray.c,
        ..stray.head(Flags::PSH, 9)
    };
    stray.s += 9;
    assert_eq!(b.mirror(&head), Err(Unused::OutOfWindow));
    assert_eq!(b.counters().production_latency.count(), 0);
    b.answer(&mut c, 50);
    assert_eq!(b.counters().production_latency.count(), 1);
}

#[test]
fn a_port_used_again_without_a_syn_claims_nothing_between_the_two() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    // The client's direction alone: no window is known.
    assert_eq!(b.syn(&mut c), Ok(()));
    b.ack(&c);
    b.say(&mut c, 10);
    let mut next = later(&c, 1 << 20);
    let result = b.mirror(&next.head(Flags::default(), 40));
    assert_eq!(result, Err(Unused::OutOfWindow));
    next.c += 40;
    let result = b.mirror(&next.head(Flags::PSH, 20));
    assert_eq!(result, Err(Unused::BeforeJoin), "the second confirms it");
    assert_eq!(b.lost(Loss::Midstream), (1, 20));
    assert_eq!((b.counters().sessions, b.counters().bytes), (2, 30));
    assert_eq!(b.lost(Loss::Hole), (0, 0));
}

#[test]
fn what_is_missing_before_payload_that_is_not_joined_at_is_lost_with_it() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    assert_eq!(b.mirror(&c.head(Flags::PSH, 30)), Err(Unused::BeforeJoin));
    c.c += 30;
    let late = c.head(Flags::PSH, 100);
    b.say_unseen(&mut c, 100);
    assert_eq!(b.mirror(&c.head(Flags::PSH, 20)), Err(Unused::BeforeJoin));
    assert_eq!(b.lost(Loss::Midstream), (1, 150));
    assert_eq!(b.mirror(&late), Err(Unused::Duplicate), "it is counted");
    assert_eq!((b.counters().turns, b.counters().bytes), (1, 150));
}

#[test]
fn a_server_s_fin_that_acknowledges_nothing_of_the_connection_closes_nothing() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 100, 100);
    let stray = Head {
        flow: c.flow.reversed(),
        seq: c.s,
        ack: c.c - FAR,
        ..c.head(Flags::FIN, 0)
    };
    assert_eq!(b.mirror(&stray), Err(Unused::OutOfWindow));
    // A byte that was not shown is no FIN.
    b.say_unseen(&mut c, 1);
    b.answer(&mut c, 5);
    b.pass(SECOND);
    assert_eq!(b.receive(&mut t), (0, false));
}

#[test]
fn a_fin_that_was_shown_ends_a_session_that_has_no_room_for_what_comes_before_it() {
    let mut b = Bed::with(|p| p.session_bytes = 150);
    let (mut c, _) = b.open_both(4000);
    b.say(&mut c, 50);
    let gap = c.head(Flags::PSH, 60);
    b.say_unseen(&mut c, 60);
    b.say(&mut c, 50);
    b.fin(&mut c);
    // It would have to wait for the target with the rest.
    assert_eq!(b.mirror(&gap), Ok(()));
    assert_eq!(b.counters().bytes, 160);
    b.assert_over();
}

#[test]
fn a_handshake_in_another_vlan_is_not_taken_for_a_session_with_numbers_like_its_own() {
    let mut b = Bed::new();
    let syns = [1_000, 2_000].map(|isn| Conv {
        c: Seq(isn),
        s: Seq(5 * isn),
        ack: Seq(5 * isn),
        ..Conv::new(4000)
    });
    for (scope, mut c) in (1..).zip(syns) {
        let mut syn = c.head(Flags::SYN, 0);
        syn.flags = Flags::SYN;
        c.c += 1;
        let answer = Head {
            flow: c.flow.reversed(),
            seq: c.s,
            ack: c.c,
            ..c.head(Flags::SYN, 0)
        };
        c.ack = c.s + 1;
        for head in [syn, answer, c.head(Flags::default(), 0)] {
            assert_eq!(b.show_in(scope, &head), Ok(()));
        }
        assert_eq!(b.last_syn().seq, syn.seq);
    }
    assert_eq!((b.counters().sessions, b.counters().bytes), (2, 0));
}

impl Bed {
    /// Shows a frame without payload in a VLAN or virtual network.
    fn show_in(&mut self, scope: u32, head: &Head) -> Result<(), Unused> {
        let packet = decode::Packet {
            head: *head,
            payload_offset: 0,
            captured: 0,
            depth: 0,
            scope,
        };
        let frame = MemoryFrame::new(&[]);
        let result = self.core.mirror(self.now, &packet, frame, &mut self.out);
        self.audit();
        result
    }
}
