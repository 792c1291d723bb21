//! Targets that refuse, fall silent, reset or close early, and the sender's answers to loss and
//! closed windows.

use super::*;

#[test]
fn a_target_that_refuses_costs_the_turn_and_is_asked_again_at_the_next() {
    let mut b = Bed::new();
    let mut c = b.open(4000);
    b.say(&mut c, 30);
    let syn = b.take()[0];
    let refusal = Head {
        flow: syn.flow.reversed(),
        seq: Seq(0),
        ack: syn.seq + 1,
        flags: Flags::RST.with(Flags::ACK),
        ..syn
    };
    b.respond(&refusal);
    assert_eq!(b.lost(Loss::ConnectRefused), (1, 30));
    assert_eq!(b.counters().connect_failures, 1);
    b.answer(&mut c, 10);
    b.say(&mut c, 20);
    let mut t = b.accept();
    assert_eq!(b.receive(&mut t), (20, false));
    b.fin(&mut c);
    assert_eq!(b.receive(&mut t), (0, true));
    assert_eq!(b.counters().connects, 2);
    assert_eq!(b.counters().replayed_turns, 1);
}

#[test]
fn a_refusal_before_the_client_spoke_loses_nothing() {
    let mut b = Bed::new();
    let mut c = b.open(4000);
    let syn = b.take()[0];
    b.respond(&Head {
        flow: syn.flow.reversed(),
        ack: syn.seq + 1,
        flags: Flags::RST.with(Flags::ACK),
        ..syn
    });
    assert_eq!(b.counters().lost_turns_sum(), 0);
    b.fin(&mut c);
    b.assert_over();
    assert_eq!(b.counters().replayed_sessions, 0);
}

#[test]
fn a_target_that_does_not_answer_is_asked_six_times() {
    let mut b = Bed::with(|p| p.session_timeout = 600 * SECOND);
    let mut c = b.open(4000);
    b.say(&mut c, 30);
    b.pass(64 * SECOND);
    let syns = b.take();
    assert_eq!(syns.len(), 6);
    assert!(
        syns.iter()
            .all(|h| h.flags == Flags::SYN && h.seq == syns[0].seq)
    );
    assert_eq!(b.lost(Loss::ConnectTimeout), (1, 30));
    b.fin(&mut c);
    b.assert_over();
}

#[test]
fn a_reset_loses_the_turn_on_the_way_and_the_session_goes_on() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 100, 100);
    b.say(&mut c, 30);
    b.take();
    b.reset(&t);
    assert_eq!(b.lost(Loss::TargetReset), (1, 30));
    // What the client still says of that turn is lost with it.
    b.say(&mut c, 5);
    assert_eq!(b.lost(Loss::TargetReset), (1, 35));
    assert!(b.take().is_empty());
    b.answer(&mut c, 10);
    b.say(&mut c, 20);
    let mut again = b.accept();
    assert_eq!(b.receive(&mut again), (20, false));
    assert_eq!(b.counters().target_resets, 1);
}

#[test]
fn a_reset_between_turns_loses_nothing() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 100, 100);
    b.reset(&t);
    assert!(b.take().iter().all(|h| !h.flags.has(Flags::SYN)));
    b.say(&mut c, 20);
    let mut again = b.accept();
    assert_eq!(b.receive(&mut again), (20, false));
    assert_eq!(b.counters().lost_turns_sum(), 0);
}

#[test]
fn a_target_that_resets_each_connection_before_a_turn_could_go_does_not_loop() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    // The server speaks first, so the first turn waits.
    b.answer(&mut c, 30);
    b.say(&mut c, 20);
    let mut resets = 0;
    for _ in 0..20 {
        b.reset(&t);
        resets += 1;
        if !b.take().iter().any(|h| h.flags == Flags::SYN) {
            break;
        }
        let syn = b.last_syn();
        t = b.accept_syn(&syn);
    }
    assert!(resets < 4, "{resets} connections");
    assert_eq!(b.lost(Loss::TargetReset), (1, 20));
}

#[test]
fn a_target_that_closes_early_gets_the_next_turn_on_a_new_connection() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 10);
    assert_eq!(b.receive(&mut t), (10, false));
    b.answer(&mut c, 100);
    b.reply(&mut t, 100);
    b.close(&mut t);
    b.take();
    b.say(&mut c, 20);
    assert!(
        b.out.sent[..b.seen + 1]
            .last()
            .unwrap()
            .head
            .flags
            .has(Flags::RST),
        "the old connection is over"
    );
    let mut again = b.accept();
    assert_eq!(b.receive(&mut again), (20, false));
    assert_eq!(b.counters().target_closed_early, 1);
    b.fin(&mut c);
    b.receive(&mut again);
    b.close(&mut again);
    b.assert_over();
    assert_eq!(b.counters().lost_turns_sum(), 0);
    assert_eq!(b.counters().replayed_turns, 2);
}

#[test]
fn the_target_closes_and_the_client_too() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 10, 10);
    b.close(&mut t);
    b.fin(&mut c);
    assert_eq!(b.receive(&mut t), (0, true));
    b.assert_over();
    assert_eq!(b.counters().replayed_sessions, 1);
    assert_eq!(b.counters().target_closed_early, 0);
}

#[test]
fn both_close_at_once() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 10, 10);
    b.fin(&mut c);
    // The target's FIN crosses ours.
    b.close(&mut t);
    assert_eq!(b.receive(&mut t), (0, true));
    b.assert_over();
    assert_eq!(b.counters().replayed_sessions, 1);
}

#[test]
fn a_target_that_never_closes_its_side_is_reset_after_a_minute() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 10, 10);
    b.fin(&mut c);
    assert_eq!(b.receive(&mut t), (0, true));
    b.pass(59 * SECOND);
    assert!(!b.core.is_drained());
    b.pass(2 * SECOND);
    assert!(b.take().iter().any(|h| h.flags.has(Flags::RST)));
    b.assert_over();
}

#[test]
fn a_lost_segment_is_sent_again_after_the_timeout_and_again() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 10, 10);
    let start = c.c;
    b.say(&mut c, 30);
    assert_eq!(b.sent_since(start), [(0, 30)]);
    b.pass(SECOND);
    let again = b.sent_since(start);
    assert!((1..=3).contains(&again.len()), "{again:?}");
    assert!(again.iter().all(|s| *s == (0, 30)));
    t.rcv = c.c;
    b.respond(&t.head(Flags::default(), 0));
    b.pass(20 * SECOND);
    assert!(b.sent_since(start).is_empty());
    assert_eq!(b.counters().retransmitted_bytes, 30 * again.len() as u64);
}

#[test]
fn three_duplicate_acknowledgments_send_the_lost_segment_at_once() {
    let mut b = Bed::new();
    let (mut c, t) = b.open_both(4000);
    let start = c.c;
    for _ in 0..5 {
        b.say(&mut c, 100);
    }
    assert_eq!(b.sent_since(start).len(), 5);
    let dup = t.head(Flags::default(), 0);
    b.respond(&dup);
    b.respond(&dup);
    assert!(b.sent_since(start).is_empty());
    b.respond(&dup);
    assert_eq!(b.sent_since(start), [(0, 100)]);
    // A partial acknowledgment shows the next hole.
    b.respond(&Head {
        ack: start + 300,
        ..dup
    });
    assert_eq!(b.sent_since(start), [(300, 100)]);
    b.respond(&Head { ack: c.c, ..dup });
    b.pass(10 * SECOND);
    assert!(b.sent_since(start).is_empty());
}

#[test]
fn a_closed_window_is_probed_with_one_byte_until_it_opens() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    t.window = 0;
    b.respond(&t.head(Flags::default(), 0));
    let start = c.c;
    b.say(&mut c, 100);
    b.pass(2 * SECOND);
    let probes = b.sent_since(start);
    assert!(
        !probes.is_empty() && probes.iter().all(|p| *p == (0, 1)),
        "{probes:?}"
    );
    // The target takes the byte and stays closed; then it opens.
    t.rcv += 1;
    b.respond(&t.head(Flags::default(), 0));
    b.pass(5 * SECOND);
    let probes = b.sent_since(start);
    assert!(
        !probes.is_empty() && probes.iter().all(|p| *p == (1, 1)),
        "{probes:?}"
    );
    t.window = 60_000;
    b.respond(&t.head(Flags::default(), 0));
    assert_eq!(b.sent_since(start), [(1, 99)]);
}

#[test]
fn a_silly_window_waits_for_a_better_one_or_the_override_timer() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    t.window = 0;
    b.respond(&t.head(Flags::default(), 0));
    let start = c.c;
    b.say(&mut c, 1000);
    // It opens by a few bytes of what it once was: nothing goes at once.
    t.window = 10;
    b.respond(&t.head(Flags::default(), 0));
    assert!(b.sent_since(start).is_empty());
    // It stays so: what fits goes.
    let mut overridden = Vec::new();
    for _ in 0..40 {
        if overridden.is_empty() {
            b.pass(50 * MS);
            overridden = b.sent_since(start);
        }
    }
    assert_eq!(overridden, [(0, 10)]);
    t.rcv += 10;
    b.respond(&t.head(Flags::default(), 0));
    assert!(b.sent_since(start).is_empty());
    // A window for all of the rest is not silly.
    t.window = 990;
    b.respond(&t.head(Flags::default(), 0));
    assert_eq!(b.sent_since(start), [(10, 990)]);
}

#[test]
#[cfg_attr(miri, ignore = "it takes Miri minutes")]
fn a_target_that_stops_acknowledging_costs_the_turn() {
    let mut b = Bed::with(|p| {
        p.session_timeout = 2000 * SECOND;
        p.keepalive_timeout = 2000 * SECOND;
    });
    let (mut c, _) = b.open_both(4000);
    b.say(&mut c, 30);
    b.pass(1000 * SECOND);
    assert_eq!(b.lost(Loss::RetransmitTimeout), (1, 30));
    b.answer(&mut c, 10);
    b.say(&mut c, 20);
    let mut t = b.accept();
    assert_eq!(b.receive(&mut t), (20, false));
}

#[test]
fn a_segment_for_no_connection_is_answered_with_reset() {
    let mut b = Bed::new();
    let stray = Head {
        flow: Flow {
            src: TARGET,
            dst: Endpoint::new(Addr::v4([192, 0, 2, 9]), 9),
        },
        ack: Seq(1234),
        ..Conv::new(1).head(Flags::PSH, 10)
    };
    b.respond(&stray);
    let rst = b.take();
    assert_eq!(rst.len(), 1);
    assert_eq!((rst[0].flags, rst[0].seq), (Flags::RST, Seq(1234)));
    assert_eq!(rst[0].flow, stray.flow.reversed());
    b.respond(&Head {
        flags: Flags::RST,
        ..stray
    });
    let from_elsewhere = Flow {
        src: PRODUCTION,
        dst: stray.flow.dst,
    };
    b.respond(&Head {
        flow: from_elsewhere,
        ..stray
    });
    assert!(
        b.take().is_empty(),
        "no answer to a reset, none to who is no target"
    );
    assert_eq!(b.counters().responses_unknown, 3);
}

#[test]
fn an_old_connection_of_the_target_s_is_cleared_by_reset() {
    let mut b = Bed::new();
    let mut c = b.open(4000);
    b.say(&mut c, 30);
    let syn = b.take()[0];
    // The target holds an old connection on the same ports and challenges the SYN.
    let challenge = Head {
        flow: syn.flow.reversed(),
        seq: Seq(5),
        ack: Seq(99),
        flags: Flags::ACK,
        ..syn
    };
    b.respond(&challenge);
    let rst = b.take();
    assert_eq!(
        (rst.len(), rst[0].flags, rst[0].seq),
        (1, Flags::RST, Seq(99))
    );
    b.pass(1100 * MS);
    let mut t = b.accept();
    assert_eq!(b.receive(&mut t), (30, false));
}

#[test]
fn what_a_full_queue_refuses_is_sent_later() {
    for reason in [Refused::Busy, Refused::Unreachable] {
        let mut b = Bed::new();
        b.out.refuse = Some(reason);
        let mut c = b.open(4000);
        assert!(b.take().is_empty());
        b.out.refuse = None;
        b.pass(20 * MS);
        let mut t = b.accept();
        b.out.refuse = Some(reason);
        b.say(&mut c, 30);
        b.pass(5 * MS);
        b.out.refuse = None;
        b.pass(5 * MS);
        assert_eq!(b.receive(&mut t), (30, false));
        b.out.refuse = Some(reason);
        b.reply(&mut t, 10);
        b.fin(&mut c);
        b.pass(50 * MS);
        assert!(b.take().is_empty());
        b.out.refuse = None;
        b.pass(50 * MS);
        assert_eq!(b.receive(&mut t), (0, true));
        assert!(b.counters().tx_full > 0);
        b.close(&mut t);
        b.assert_over();
    }
}

#[test]
fn a_target_that_nobody_knows_the_way_to_is_asked_for_less_and_less_often() {
    let mut b = Bed::with(|p| p.session_timeout = 600 * SECOND);
    b.out.refuse = Some(Refused::Unreachable);
    let mut c = b.open(4000);
    b.say(&mut c, 30);
    b.pass(SECOND);
    assert!(b.counters().tx_full <= 11, "{}", b.counters().tx_full);
    assert_eq!(b.counters().lost_turns_sum(), 0);
    b.pass(89 * SECOND);
    assert_eq!(b.lost(Loss::ConnectTimeout), (1, 30));
    assert_eq!(b.counters().connect_failures, 1);
    // The next turn asks anew.
    b.out.refuse = None;
    b.answer(&mut c, 10);
    b.say(&mut c, 40);
    let mut t = b.accept();
    assert_eq!(b.receive(&mut t), (40, false));
}

#[test]
fn a_connection_lost_while_the_queue_was_full_sends_no_acknowledgment_on_the_next() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 10, 10);
    b.out.refuse = Some(Refused::Busy);
    // An acknowledgment that must go at once is refused, then the target resets.
    b.respond(&Head {
        seq: t.snd + 50,
        ..t.head(Flags::PSH, 10)
    });
    b.reset(&t);
    b.out.refuse = None;
    b.take();
    b.say(&mut c, 20);
    b.pass(10 * MS);
    let heads = b.take();
    assert!(heads.iter().all(|h| h.flags == Flags::SYN), "{heads:?}");
}

#[test]
fn the_target_s_latency_counts_from_the_turn_s_last_byte() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 30);
    b.pass(20 * MS);
    b.say(&mut c, 30);
    b.pass(40 * MS);
    t.rcv += 60;
    b.reply(&mut t, 5);
    b.pass(40 * MS);
    b.reply(&mut t, 5);
    let h = &b.counters().target_latency;
    assert_eq!(h.count(), 1);
    let us = h.quantile_us(0.5);
    assert!((39_000..=41_000).contains(&us), "{us} us");
}
