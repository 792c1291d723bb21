//! Bytes that cannot be had: holes, and limits of memory.

use super::*;

#[test]
fn a_hole_that_production_acknowledged_resets_and_joins_again() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 100, 100);
    b.say(&mut c, 30);
    assert_eq!(b.receive(&mut t), (30, false));
    b.say_unseen(&mut c, 40);
    b.say(&mut c, 20);
    b.answer(&mut c, 100);
    b.pass(100 * MS);
    let reset = b.take();
    assert!(
        reset
            .iter()
            .any(|h| h.flags.has(Flags::RST) && h.seq == t.rcv)
    );
    assert_eq!(
        b.lost(Loss::Hole),
        (1, 60),
        "what was replayed of the turn stays replayed"
    );
    b.say(&mut c, 50);
    let mut again = b.accept();
    assert_eq!(b.receive(&mut again), (50, false));
    b.answer(&mut c, 10);
    b.fin(&mut c);
    b.reply(&mut again, 10);
    assert_eq!(b.receive(&mut again), (0, true));
    b.close(&mut again);
    b.assert_over();
    assert_eq!(b.counters().replayed_turns, 2);
    assert_eq!(b.counters().turns, 3);
}

#[test]
fn a_hole_that_nobody_acknowledged_waits_for_the_client_s_retransmission() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    let missing = c.head(Flags::default(), 40);
    b.say_unseen(&mut c, 40);
    b.say(&mut c, 20);
    b.pass(2 * SECOND + 900 * MS);
    assert_eq!(b.mirror(&missing), Ok(()));
    assert_eq!(b.receive(&mut t), (60, false));
    assert_eq!(b.counters().lost_bytes_sum(), 0);

    b.say_unseen(&mut c, 40);
    b.say(&mut c, 20);
    b.pass(3 * SECOND + 100 * MS);
    assert_eq!(b.lost(Loss::Hole), (1, 60));
}

#[test]
fn the_target_never_sees_part_of_a_turn_that_was_still_waiting() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 10);
    assert_eq!(b.receive(&mut t), (10, false));
    b.answer(&mut c, 100);
    // This turn waits for the target's answer, and then turns out to have a hole.
    b.say(&mut c, 20);
    b.say_unseen(&mut c, 20);
    b.say(&mut c, 20);
    b.answer(&mut c, 100);
    b.pass(100 * MS);
    assert_eq!(b.lost(Loss::Hole), (1, 60));
    b.reply(&mut t, 100);
    assert_eq!(b.receive(&mut t), (0, false));
    b.say(&mut c, 30);
    assert!(b.take().iter().any(|h| h.flags.has(Flags::RST)));
    let syn = b.out.sent.last().unwrap().head;
    let mut again = b.accept_syn(&syn);
    assert_eq!(b.receive(&mut again), (30, false));
    assert_eq!(b.counters().replayed_turns, 1);
}

#[test]
fn a_turn_that_is_lost_does_not_take_the_one_on_the_way_with_it() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 10);
    b.answer(&mut c, 100);
    b.ack(&c);
    b.say_unseen(&mut c, 20);
    b.say(&mut c, 20);
    b.answer(&mut c, 100);
    b.say(&mut c, 30);
    // The first turn is out and not acknowledged when the hole is found and the third turn could
    // go.
    b.pass(100 * MS);
    let heads = b.take();
    assert!(!heads.iter().any(|h| h.flags.has(Flags::RST)), "{heads:?}");
    t.rcv += 10;
    b.reply(&mut t, 100);
    b.pass(5 * SECOND);
    let syn = b.last_syn();
    assert_eq!(
        syn.seq,
        c.c - 31,
        "the third turn goes over a new connection"
    );
    let mut again = b.accept_syn(&syn);
    assert_eq!(b.receive(&mut again), (30, false));
    assert_eq!(b.counters().lost_turns[Loss::Hole as usize], 1);
    b.answer(&mut c, 1);
    b.ack(&c);
    assert_eq!(b.counters().replayed_turns, 2);
}

#[test]
fn bytes_lost_before_the_fin_are_a_hole_too() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 100, 100);
    b.say_unseen(&mut c, 40);
    b.fin(&mut c);
    b.pass(4 * SECOND);
    assert_eq!(
        b.lost(Loss::Hole),
        (0, 0),
        "the server waits for them as well"
    );
    b.pass(58 * SECOND);
    assert_eq!(b.lost(Loss::Hole), (1, 40));
    assert_eq!(b.receive(&mut t), (0, true), "the end comes all the same");
    b.close(&mut t);
    b.assert_over();
}

/// Production's server acknowledges, perhaps with a FIN of its own.
fn server(b: &mut Bed, c: &mut Conv, flags: Flags, ack: Seq) {
    let head = Head {
        flow: c.flow.reversed(),
        seq: c.s,
        ack,
        ..c.head(flags, 0)
    };
    c.s += u32::from(flags.has(Flags::FIN));
    assert_eq!(b.mirror(&head), Ok(()));
}

#[test]
fn a_fin_that_was_not_seen_is_told_by_the_server() {
    for server_first in [true, false] {
        let mut b = Bed::new();
        let (mut c, mut t) = b.open_both(4000);
        b.say(&mut c, 100);
        assert_eq!(b.receive(&mut t), (100, false));
        b.answer(&mut c, 50);
        // The client's acknowledgment of the answer is lost with its FIN.
        if server_first {
            let upto = c.c;
            server(&mut b, &mut c, Flags::FIN, upto);
            let upto = c.c + 1;
            server(&mut b, &mut c, Flags::default(), upto);
        } else {
            let upto = c.c + 1;
            server(&mut b, &mut c, Flags::FIN, upto);
        }
        assert_eq!(b.counters().in_flight_turns, 1, "it may come yet");
        b.pass(100 * MS);
        assert_eq!(b.counters().replayed_turns, 1);
        if server_first {
            assert_eq!(
                b.receive(&mut t),
                (0, false),
                "it waits for the answer that the client had read"
            );
            b.reply(&mut t, 50);
            b.close(&mut t);
        }
        assert_eq!(b.receive(&mut t), (0, true));
        if !server_first {
            b.reply(&mut t, 50);
            b.close(&mut t);
        }
        b.assert_over();
        assert_eq!(b.counters().lost_turns_sum(), 0);
    }
}

#[test]
fn a_last_byte_that_comes_late_is_no_fin() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 100, 50);
    let upto = c.c;
    server(&mut b, &mut c, Flags::FIN, upto);
    let upto = c.c + 1;
    server(&mut b, &mut c, Flags::default(), upto);
    b.pass(10 * MS);
    b.say(&mut c, 1);
    b.pass(SECOND);
    assert_eq!(b.receive(&mut t), (1, false));
    b.fin(&mut c);
    assert_eq!(b.receive(&mut t), (0, true));
    b.close(&mut t);
    b.assert_over();
    assert_eq!(
        (b.counters().replayed_bytes, b.counters().lost_bytes_sum()),
        (101, 0)
    );
}

#[test]
fn the_end_after_a_hole_waits_for_no_answer() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say_unseen(&mut c, 40);
    b.answer(&mut c, 50);
    b.fin(&mut c);
    b.pass(100 * MS);
    assert_eq!(b.lost(Loss::Hole), (1, 40));
    assert_eq!(b.receive(&mut t), (0, true), "nobody asked, nobody answers");
    assert_eq!(b.counters().gate_timeouts, 0);
    b.close(&mut t);
    b.assert_over();
}

#[test]
fn a_gap_before_the_fin_is_watched_after_another_was_filled() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    let first = c.head(Flags::PSH, 10);
    b.say_unseen(&mut c, 10);
    b.say(&mut c, 10);
    b.say_unseen(&mut c, 10);
    b.fin(&mut c);
    assert_eq!(b.mirror(&first), Ok(()));
    assert_eq!(b.receive(&mut t), (20, false));
    b.pass(4 * SECOND);
    assert_eq!(b.lost(Loss::Hole).1, 10);
    b.assert_over();
}

#[test]
fn a_reset_while_a_gap_is_open_does_not_pass_half_a_turn_off_as_whole() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 30);
    b.say_unseen(&mut c, 40);
    b.say(&mut c, 20);
    assert_eq!(b.mirror(&c.head(Flags::RST, 0)), Ok(()));
    b.pass(SECOND);
    let _ = b.take();
    t.rcv += 30;
    b.respond(&t.head(Flags::default(), 0));
    b.assert_over();
    assert_eq!(b.counters().replayed_turns, 0);
    assert_eq!(b.counters().lost_turns[Loss::Hole as usize], 1);
}

#[test]
fn the_cap_of_a_session_loses_the_turn_and_joins_at_the_next() {
    let mut b = Bed::with(|p| p.session_bytes = 1000);
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 10);
    assert_eq!(b.receive(&mut t), (10, false));
    b.answer(&mut c, 100);
    // Waits for the answer and grows over the cap.
    b.say(&mut c, 600);
    assert_eq!(b.mirror(&c.head(Flags::PSH, 600)), Ok(()));
    c.c += 600;
    assert_eq!(b.mirror(&c.head(Flags::PSH, 600)), Err(Unused::BeforeJoin));
    c.c += 600;
    b.reply(&mut t, 100);
    assert_eq!(b.lost(Loss::SessionBytes), (1, 1800));
    b.answer(&mut c, 100);
    b.say(&mut c, 30);
    let mut again = b.accept();
    assert_eq!(b.receive(&mut again), (30, false));
    b.answer(&mut c, 1);
    b.ack(&c);
    assert_eq!(b.counters().replayed_turns, 2);
}

#[test]
fn a_turn_over_the_cap_from_its_first_byte_spares_the_one_before() {
    let mut b = Bed::with(|p| p.session_bytes = 1000);
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 900);
    b.answer(&mut c, 100);
    // The target has not acknowledged anything, so there is no room for this.
    for _ in 0..2 {
        let _ = b.mirror(&c.head(Flags::PSH, 200));
        c.c += 200;
    }
    assert_eq!(b.receive(&mut t), (900, false));
    assert_eq!(b.counters().replayed_turns, 1);
    assert_eq!(b.lost(Loss::SessionBytes), (1, 400));
}

#[test]
#[cfg_attr(miri, ignore = "it takes Miri minutes")]
fn a_chained_frame_over_the_cap_is_lost_to_its_end() {
    let mut b = Bed::with(|p| p.session_bytes = 1000);
    let (mut c, mut t) = b.open_both(4000);
    assert_eq!(b.frame(&c.head(Flags::PSH, 4000), 0, 500), Ok(()));
    c.c += 4000;
    let _ = b.take();
    b.answer(&mut c, 100);
    b.pass(SECOND);
    assert_eq!(b.lost(Loss::SessionBytes).0, 1);
    b.say(&mut c, 20);
    let mut again = b.accept();
    assert_eq!(b.receive(&mut again), (20, false));
    assert_eq!(b.receive(&mut t), (0, false));
    assert_eq!(b.counters().turns, 2);
}

#[test]
fn when_segments_run_out_turns_are_lost_and_the_rest_goes_on() {
    let mut b = Bed::with(|p| p.max_segments = 4);
    let (mut c, mut t) = b.open_both(4000);
    let (mut d, mut u) = {
        let d = b.open(4001);
        let u = b.accept();
        (d, u)
    };
    b.say(&mut c, 10);
    b.receive(&mut t);
    b.answer(&mut c, 10);
    for _ in 0..4 {
        b.say(&mut c, 10);
    }
    assert_eq!(b.core.segment_count(), 4);
    let _ = b.mirror(&d.head(Flags::PSH, 30));
    d.c += 30;
    assert_eq!(b.lost(Loss::Buffers), (1, 30));
    b.reply(&mut t, 10);
    assert_eq!(b.receive(&mut t), (40, false));
    b.answer(&mut d, 10);
    b.say(&mut d, 50);
    let syn = b.last_syn();
    assert_eq!(syn.flow.src, d.flow.src);
    u = Conn {
        rcv: syn.seq + 1,
        ..u
    };
    let mut head = u.head(Flags::SYN, 0);
    head.seq = Seq(77);
    u.snd = Seq(78);
    b.respond(&head);
    assert_eq!(b.receive(&mut u), (50, false));
    b.fin(&mut c);
    b.fin(&mut d);
    b.pass(6 * SECOND);
    b.receive(&mut t);
    b.receive(&mut u);
    b.pass(5 * SECOND);
    assert_eq!(b.counters().in_flight_turns, 0);
}

#[test]
fn the_end_of_a_turn_that_only_an_acknowledgment_tells_of_is_a_hole() {
    // Production's server acknowledges more than was captured, or the client's next number is
    // higher.
    for by_server in [true, false] {
        let mut b = Bed::new();
        let (mut c, mut t) = b.open_both(4000);
        b.say(&mut c, 30);
        assert_eq!(b.receive(&mut t), (30, false));
        b.say_unseen(&mut c, 40);
        if by_server {
            b.answer(&mut c, 10);
        } else {
            b.ack(&c);
        }
        b.pass(4 * SECOND);
        assert!(b.take().iter().any(|h| h.flags.has(Flags::RST)));
        assert_eq!(b.lost(Loss::Hole), (1, 40));
        assert_eq!(b.counters().replayed_turns, 0, "part of a turn is no turn");
    }
}

#[test]
fn a_fin_that_was_not_captured_is_no_missing_byte() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 30, 30);
    // The client's FIN is lost; its acknowledgment and the client's last ACK are one higher.
    c.c += 1;
    b.answer(&mut c, 0);
    b.ack(&c);
    b.pass(4 * SECOND);
    assert_eq!(b.counters().lost_turns_sum(), 0);
    assert_eq!(b.counters().replayed_turns, 1);
}

#[test]
fn a_fin_that_was_not_captured_is_no_missing_byte_when_the_last_bytes_come_late() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 30, 30);
    // The mirror changes the order of the last request and the acknowledgment that counts the FIN
    // in.
    let last = c.head(Flags::PSH, 20);
    c.c += 21;
    b.ack(&c);
    assert_eq!(b.mirror(&last), Ok(()));
    assert_eq!(b.receive(&mut t), (20, false));
    b.reply(&mut t, 10);
    b.pass(4 * SECOND);
    assert_eq!(b.counters().lost_turns_sum(), 0);
    assert_eq!(b.counters().replayed_bytes, 50);
}

#[test]
fn a_fin_that_comes_late_is_no_missing_byte() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 30, 30);
    b.say_unseen(&mut c, 5);
    let fin = c.head(Flags::FIN, 0);
    c.c += 1;
    b.ack(&c);
    assert_eq!(b.mirror(&fin), Ok(()));
    b.pass(62 * SECOND);
    assert_eq!(b.lost(Loss::Hole), (1, 5));
}

#[test]
fn what_waits_beyond_a_gap_when_segments_run_out_is_lost_once() {
    let mut b = Bed::with(|p| p.max_segments = 4);
    let (mut c, _) = b.open_both(4000);
    let first = c.head(Flags::PSH, 10);
    b.say_unseen(&mut c, 10);
    for _ in 0..4 {
        b.say(&mut c, 10);
    }
    let _ = b.mirror(&first);
    assert_eq!(b.lost(Loss::Buffers), (1, 50));
    assert_eq!(b.core.segment_count(), 0);
    b.answer(&mut c, 10);
    b.say(&mut c, 5);
    assert_eq!(b.counters().bytes, 55);
}

#[test]
fn a_turn_that_found_no_room_in_the_windows_does_not_take_the_one_on_the_way_with_it() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    // The target has room for the first turn only; the gate does not hold the second for longer
    // than its limit.
    t.window = 10;
    b.respond(&t.head(Flags::default(), 0));
    b.say(&mut c, 10);
    b.answer(&mut c, 100);
    b.ack(&c);
    b.say(&mut c, 20);
    b.pass(6 * SECOND);
    assert_eq!(b.counters().gate_timeouts, 1);
    // The rest of the second turn was not captured.
    b.say_unseen(&mut c, 20);
    b.answer(&mut c, 100);
    b.ack(&c);
    b.pass(SECOND);
    let heads = b.take();
    assert!(!heads.iter().any(|h| h.flags.has(Flags::RST)), "{heads:?}");
    t.rcv += 10;
    t.window = 60_000;
    b.reply(&mut t, 100);
    b.pass(SECOND);
    assert_eq!(b.lost(Loss::Hole), (1, 40));
    assert_eq!(b.counters().replayed_turns, 1);
}

#[test]
fn a_recovery_takes_time_in_proportion_to_what_it_sends() {
    let mut b = Bed::with(|p| {
        p.max_segments = 1_024;
        p.max_frames = 1_024;
    });
    let mut c = b.open(4000);
    let syn = b.last_syn();
    let mut t = Conn {
        flow: syn.flow.reversed(),
        rcv: syn.seq + 1,
        snd: Seq(100),
        window: 60_000,
    };
    let mut accepts = t.head(Flags::SYN, 0);
    accepts.options.mss = Some(1460);
    accepts.options.sack_permitted = true;
    t.snd += 1;
    b.respond(&accepts);
    // All of it is on the way.
    let (first, segments) = (c.c, 1_000);
    for _ in 0..segments {
        b.say(&mut c, 10);
    }
    let sent = b.take().into_iter().map(|h| h.end().since(first));
    assert_eq!(sent.max(), Some(10_000));
    b.core.replicas.steps = 0;
    // The target has what comes last: 600 segments are lost.
    let mut tells = t.head(Flags::default(), 0);
    tells.options = beyond(first);
    b.respond(&tells);
    // What comes is acknowledged one by one, with the same block.
    let mut acknowledged = 0;
    while acknowledged < 6_000 {
        let sent = b.take().into_iter().map(|h| h.end().since(first));
        let upto = sent.max().unwrap_or(0);
        assert!(upto > acknowledged, "it goes on after {acknowledged} bytes");
        while acknowledged < upto.min(6_000) {
            acknowledged += 10;
            t.rcv = first + acknowledged;
            let mut tells = t.head(Flags::default(), 0);
            if acknowledged < 6_000 {
                tells.options = beyond(first);
            } else {
                t.rcv = first + 10_000;
                tells = t.head(Flags::default(), 0);
            }
            b.respond(&tells);
        }
    }
    let sent = b.counters().retransmitted_segments;
    assert!(sent >= 600, "{sent}");
    let steps = b.core.replicas.steps;
    assert!(steps <= 2 * sent, "{steps} steps for {sent} segments");
}

/// The target has 4,000 bytes beyond a hole of 6,000.
fn beyond(first: Seq) -> wire::Options {
    let mut options = wire::Options::default();
    options.sack[0] = (first + 6_000, first + 10_000);
    options.sack_count = 1;
    options
}
