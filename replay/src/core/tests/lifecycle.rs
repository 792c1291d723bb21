//! How sessions end: FIN, RST, silence, port re-use, and the engine's own end.

use super::*;

#[test]
fn the_client_closes_first_and_reads_on() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 30);
    b.fin(&mut c);
    assert_eq!(b.receive(&mut t), (30, true));
    // The target answers after the half close; all of it is acknowledged.
    for _ in 0..5 {
        b.reply(&mut t, 1000);
        b.pass(RTT + MS);
    }
    let acks = b.take();
    assert_eq!(acks.last().unwrap().ack, t.snd);
    b.close(&mut t);
    assert_eq!(b.take().last().unwrap().ack, t.snd);
    b.assert_over();
    assert_eq!(b.counters().replayed_sessions, 1);
    assert_eq!(b.counters().response_bytes, 5000);
}

#[test]
fn the_client_s_reset_is_passed_on_after_what_it_said() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 30);
    assert_eq!(b.mirror(&c.head(Flags::RST, 0)), Ok(()));
    let early = b.take();
    assert!(
        early.iter().all(|h| !h.flags.has(Flags::RST)),
        "not acknowledged yet"
    );
    t.rcv += 30;
    b.respond(&t.head(Flags::default(), 0));
    let rst = b.take();
    assert_eq!(rst.len(), 1);
    assert!(rst[0].flags.has(Flags::RST) && rst[0].seq == t.rcv);
    b.assert_over();
    assert_eq!(b.counters().replayed_turns, 1);
}

#[test]
fn production_s_reset_closes_the_target_s_side_in_good_order() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 30);
    let rst = Head {
        flow: c.flow.reversed(),
        seq: c.s,
        flags: Flags::RST,
        ..c.head(Flags::RST, 0)
    };
    assert_eq!(b.mirror(&rst), Ok(()));
    assert_eq!(b.mirror(&rst), Err(Unused::Duplicate));
    assert_eq!(b.receive(&mut t), (30, true));
    b.close(&mut t);
    b.assert_over();
    assert_eq!(b.counters().replayed_turns, 1);
}

#[test]
fn production_refuses_the_client() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    b.syn(&mut c).unwrap();
    let rst = Head {
        flow: c.flow.reversed(),
        seq: Seq(0),
        ack: c.c,
        ..c.head(Flags::RST, 0)
    };
    assert_eq!(b.mirror(&rst), Ok(()));
    b.assert_over();
    let counters = b.counters();
    assert_eq!((counters.handshakes_refused, counters.sessions), (1, 0));
    assert!(b.out.sent.is_empty(), "the target hears nothing of it");
}

#[test]
fn the_same_port_again_is_a_new_session_beside_the_old_one() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 30);
    let mut d = Conv {
        c: c.c + 100_000,
        ..Conv::new(4000)
    };
    let old = b.take();
    assert_eq!(old.iter().map(|h| h.payload_len).sum::<u32>(), 30);
    b.syn(&mut d).unwrap();
    b.syn_ack(&mut d);
    b.ack(&d);
    b.say(&mut d, 50);
    let syn = b.take()[0];
    assert_eq!(syn.flags, Flags::SYN);
    assert_ne!(syn.flow.src.port, 4000, "its own port is still busy");
    assert_eq!(syn.flow.src.addr, d.flow.src.addr);
    t.rcv += 30;
    b.respond(&t.head(Flags::default(), 0));
    assert!(
        b.take()
            .iter()
            .any(|h| h.flags.has(Flags::RST) && h.flow.src.port == 4000)
    );
    let mut u = b.accept_syn(&syn);
    assert_eq!(b.receive(&mut u), (50, false));
    b.fin(&mut d);
    b.receive(&mut u);
    b.close(&mut u);
    b.assert_over();
    assert_eq!((b.counters().sessions, b.counters().replayed_turns), (2, 2));
    assert_eq!(b.out.claimed.len(), 2);
    assert_eq!(b.out.released.len(), 2);
}

#[test]
fn the_same_port_after_a_proper_end_keeps_its_port() {
    let mut b = Bed::new();
    for round in 0..3 {
        let mut c = Conv {
            c: Seq(1000 * round),
            ..Conv::new(4000)
        };
        b.syn(&mut c).unwrap();
        b.syn_ack(&mut c);
        b.ack(&c);
        let mut t = b.accept();
        assert_eq!(t.flow.dst.port, 4000);
        b.exchange(&mut c, &mut t, 30, 30);
        b.fin(&mut c);
        b.receive(&mut t);
        b.close(&mut t);
    }
    assert_eq!(b.counters().replayed_turns, 3);
    b.assert_over();
}

#[test]
fn a_session_with_data_outstanding_is_given_up_after_its_timeout() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 10);
    b.receive(&mut t);
    b.answer(&mut c, 10);
    t.window = 0;
    b.reply(&mut t, 10);
    b.say(&mut c, 30);
    // The target answers each probe, and never opens its window.
    for _ in 0..70 {
        b.pass(SECOND);
        if !b.take().is_empty() && b.counters().lost_turns_sum() == 0 {
            b.respond(&t.head(Flags::default(), 0));
        }
    }
    assert_eq!(b.lost(Loss::SessionTimeout), (1, 30));
    b.fin(&mut c);
    b.assert_over();
}

#[test]
fn an_idle_session_is_forgotten_and_the_target_told() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 10, 10);
    b.take();
    b.pass(119 * SECOND);
    assert_eq!(b.core.session_count(), 1);
    b.pass(2 * SECOND);
    assert!(
        b.take()
            .iter()
            .any(|h| h.flags.has(Flags::RST) && h.seq == t.rcv)
    );
    b.assert_over();
    assert_eq!(b.counters().lost_turns_sum(), 0);
}

#[test]
fn a_recording_that_begins_again_brings_every_session_again() {
    let mut b = Bed::new();
    // One session that has ended when the recording is over, and one that has not.
    let mut targets = Vec::new();
    for round in 1..=3 {
        for port in [4000, 4001] {
            let (mut c, mut t) = b.open_both(port);
            b.say(&mut c, 30);
            assert_eq!(b.receive(&mut t), (30, false));
            if port == 4000 {
                b.fin(&mut c);
                assert_eq!(b.receive(&mut t), (0, true));
            }
            targets.push(t);
        }
        b.core.end_all(b.now, &mut b.out);
        b.audit();
        assert_eq!(b.receive(targets.last_mut().unwrap()), (0, true));
        assert_eq!(
            (b.counters().sessions, b.counters().turns),
            (round * 2, round * 2)
        );
    }
    for mut t in targets {
        b.close(&mut t);
    }
    b.assert_over();
    assert_eq!(b.counters().replayed_turns, 6);
    assert_eq!(b.counters().lost_turns_sum(), 0);
}

#[test]
fn draining_replays_what_there_is_and_takes_nothing_new() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 10, 10);
    b.say(&mut c, 30);
    b.core.drain(b.now, &mut b.out);
    b.audit();
    assert!(!b.core.is_drained());
    let mut d = Conv::new(4001);
    assert_eq!(b.syn(&mut d), Err(Unused::Shed));
    assert_eq!(b.receive(&mut t), (30, true));
    b.close(&mut t);
    assert!(b.core.is_drained());
    b.assert_over();
    assert_eq!(b.counters().replayed_turns, 2);
}

#[test]
fn draining_with_a_gap_open_loses_the_turn_with_the_gap() {
    let mut b = Bed::new();
    let (mut c, _) = b.open_both(4000);
    b.say_unseen(&mut c, 30);
    b.say(&mut c, 30);
    b.core.drain(b.now, &mut b.out);
    b.audit();
    assert_eq!(b.counters().lost_turns_sum(), 1);
    assert_eq!(b.counters().turns, 1);
}

#[test]
fn abandoning_counts_what_was_left_as_stopped() {
    let mut b = Bed::with(|p| p.copies = 2);
    let mut c = b.open(4000);
    b.say(&mut c, 30);
    b.say_unseen(&mut c, 10);
    b.say(&mut c, 30);
    b.core.abandon(b.now, &mut b.out);
    b.audit();
    assert!(b.core.is_drained());
    assert_eq!(b.counters().in_flight_turns, 0);
    assert_eq!(b.lost(Loss::Stopped).0, 2);
    b.assert_over();
}
