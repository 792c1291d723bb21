//! Turn cutting, and what a mirror does to frames: order, duplicates, overlaps, cuts, chains.

use super::*;

#[test]
fn a_request_and_its_answer_are_one_turn() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 100, 300);
    b.exchange(&mut c, &mut t, 50, 10);
    assert_eq!((b.counters().turns, b.counters().replayed_turns), (2, 2));
    assert_eq!(
        (b.counters().bytes, b.counters().replayed_bytes),
        (150, 150)
    );
    assert_eq!(
        (b.counters().responses, b.counters().response_bytes),
        (2, 310)
    );
    b.fin(&mut c);
    assert_eq!(b.receive(&mut t), (0, true));
    b.close(&mut t);
    b.assert_over();
    assert_eq!(b.counters().replayed_sessions, 1);
    assert_eq!(b.counters().connects, 1);
}

#[test]
fn several_segments_without_an_answer_between_them_are_one_turn() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    for _ in 0..3 {
        b.say(&mut c, 40);
    }
    assert_eq!(b.receive(&mut t), (120, false));
    assert_eq!(b.counters().turns, 1);
    assert_eq!(b.counters().replayed_turns, 0, "more of it may come");
    b.answer(&mut c, 5);
    b.ack(&c);
    assert_eq!(b.counters().replayed_turns, 1);
}

#[test]
fn a_request_while_the_answer_is_on_its_way_belongs_to_the_turn_before() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 40);
    let ack = c.ack;
    b.answer(&mut c, 500);
    // Pipelined: the client has not read the answer yet.
    c.ack = ack;
    b.say(&mut c, 60);
    assert_eq!(b.counters().turns, 1);
    assert_eq!(b.receive(&mut t), (100, false), "nothing to wait for");
}

#[test]
fn a_server_that_speaks_first_makes_the_first_turn_wait() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.answer(&mut c, 30);
    b.say(&mut c, 20);
    assert_eq!(b.receive(&mut t), (0, false));
    b.reply(&mut t, 29);
    assert_eq!(b.receive(&mut t), (0, false), "one byte is missing");
    b.reply(&mut t, 1);
    assert_eq!(b.receive(&mut t), (20, false));
}

#[test]
fn the_client_s_direction_alone_cuts_the_same_turns() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    b.syn(&mut c).unwrap();
    c.s += 1;
    c.ack = c.s;
    b.pass(RTT);
    b.ack(&c);
    let mut t = b.accept();
    for k in 1..=3 {
        b.say(&mut c, 100);
        assert_eq!(b.receive(&mut t), (100, false));
        b.reply(&mut t, 70);
        c.s += 70;
        c.ack = c.s;
        assert_eq!(b.counters().turns, k);
    }
    b.fin(&mut c);
    assert_eq!(b.receive(&mut t), (0, true));
    assert_eq!(b.counters().replayed_turns, 3);
}

#[test]
fn the_client_alone_with_a_server_that_speaks_first() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    b.syn(&mut c).unwrap();
    c.s += 1;
    c.ack = c.s;
    b.pass(RTT);
    b.ack(&c);
    let mut t = b.accept();
    c.ack += 30;
    b.say(&mut c, 20);
    assert_eq!(b.receive(&mut t), (0, false), "it had read 30 bytes");
    b.reply(&mut t, 30);
    assert_eq!(b.receive(&mut t), (20, false));
}

#[test]
fn data_in_the_syn_and_with_the_fin_counts_once() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    let mut head = c.head(Flags::SYN, 10);
    head.flags = Flags::SYN;
    assert_eq!(b.mirror(&head), Ok(()));
    c.c += 11;
    b.syn_ack(&mut c);
    b.ack(&c);
    let mut t = b.accept();
    assert_eq!(b.receive(&mut t), (10, false));
    assert_eq!(b.mirror(&c.head(Flags::FIN, 5)), Ok(()));
    assert_eq!(b.receive(&mut t), (5, true));
    assert_eq!(b.counters().bytes, 15);
}

#[test]
fn out_of_order_segments_go_in_order() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    let first = c.head(Flags::default(), 30);
    c.c += 30;
    let second = c.head(Flags::default(), 30);
    c.c += 30;
    let third = c.head(Flags::PSH, 30);
    for head in [&third, &second] {
        assert_eq!(b.mirror(head), Ok(()));
        assert_eq!(b.receive(&mut t), (0, false));
    }
    assert_eq!(b.mirror(&third), Err(Unused::Duplicate));
    assert_eq!(b.mirror(&first), Ok(()));
    assert_eq!(b.receive(&mut t), (90, false));
    assert_eq!(b.counters().turns, 1);
    assert_eq!(b.counters().out_of_order, 2);
    b.pass(10 * SECOND);
    assert_eq!(b.counters().lost_bytes_sum(), 0);
}

#[test]
fn duplicates_are_dropped_and_counted() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    let head = c.head(Flags::PSH, 30);
    b.say(&mut c, 30);
    assert_eq!(b.mirror(&head), Err(Unused::Duplicate));
    assert_eq!(b.receive(&mut t), (30, false));
    assert_eq!(b.mirror(&head), Err(Unused::Duplicate));
    assert_eq!(b.receive(&mut t), (0, false));
    assert_eq!(b.counters().dropped[Unused::Duplicate as usize], 2);
    assert_eq!(b.counters().bytes, 30);
}

#[test]
fn overlaps_keep_the_first_capture_of_each_byte() {
    let mut b = Bed::new();
    let (c, mut t) = b.open_both(4000);
    let start = c.c;
    let piece = |from: u32, n: u32| Head {
        seq: start + from,
        ..c.head(Flags::PSH, n)
    };
    // Two islands beyond a gap, a piece over both of them, then one over the gap and more.
    for (from, n) in [(20, 10), (50, 10), (15, 60), (0, 90)] {
        assert_eq!(b.mirror(&piece(from, n)), Ok(()), "{from} + {n}");
    }
    assert_eq!(b.mirror(&piece(30, 60)), Err(Unused::Duplicate));
    assert_eq!(b.receive(&mut t), (90, false));
    assert_eq!(b.counters().bytes, 90);
}

#[test]
fn overlaps_with_other_bytes_are_counted_and_the_first_stay() {
    let mut b = Bed::new();
    let (c, mut t) = b.open_both(4000);
    let piece = |from: u32, n: u32| Head {
        seq: c.c + from,
        ..c.head(Flags::PSH, n)
    };
    let lies = |seq: Seq| !byte_at(seq);
    // In order and held, since the target has not acknowledged it.
    assert_eq!(b.mirror(&piece(0, 20)), Ok(()));
    assert_eq!(b.mirror(&piece(20, 20)), Ok(()));
    let again = b.frame_saying(&piece(10, 25), 0, usize::MAX, lies);
    assert_eq!(again, Err(Unused::Duplicate));
    assert_eq!(b.counters().conflicting_bytes, 25);
    // Beyond a gap.
    assert_eq!(b.mirror(&piece(60, 20)), Ok(()));
    let again = b.frame_saying(&piece(70, 10), 0, usize::MAX, lies);
    assert_eq!(again, Err(Unused::Duplicate));
    assert_eq!(b.counters().conflicting_bytes, 35);
    // The same bytes again are no conflict.
    assert_eq!(b.mirror(&piece(0, 80)), Ok(()));
    assert_eq!(b.counters().conflicting_bytes, 35);
    assert_eq!(b.receive(&mut t), (80, false));
    // What the target has acknowledged is no longer there to be compared with.
    let again = b.frame_saying(&piece(0, 80), 0, usize::MAX, lies);
    assert_eq!(again, Err(Unused::Duplicate));
    assert_eq!(b.counters().conflicting_bytes, 35);
}

#[test]
fn urgent_data_is_urgent_at_the_target_too() {
    let mut b = Bed::with(|p| p.mtu = 140);
    let (c, _) = b.open_both(4000);
    b.take();
    let head = Head {
        urgent: 130,
        ..c.head(Flags::PSH.with(Flags::URG), 200)
    };
    assert_eq!(b.mirror(&head), Ok(()));
    let sent: Vec<_> = b
        .take()
        .iter()
        .filter(|h| h.payload_len > 0)
        .map(|h| (h.payload_len, h.flags.has(Flags::URG), h.urgent))
        .collect();
    assert_eq!(sent, [(100, true, 130), (100, true, 30)]);
    // Numbers before the end of it only.
    let (c, _) = b.open_both(4001);
    b.take();
    let head = Head {
        urgent: 1,
        ..c.head(Flags::PSH.with(Flags::URG), 200)
    };
    assert_eq!(b.mirror(&head), Ok(()));
    let sent: Vec<_> = b
        .take()
        .iter()
        .filter(|h| h.payload_len > 0)
        .map(|h| (h.flags.has(Flags::URG), h.urgent))
        .collect();
    assert_eq!(sent, [(true, 1), (false, 0)]);
}

#[test]
fn a_frame_that_was_cut_is_a_hole_until_its_bytes_are_seen() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    let whole = c.head(Flags::PSH, 100);
    assert_eq!(b.frame(&whole, 60, usize::MAX), Ok(()));
    c.c += 100;
    b.say(&mut c, 50);
    assert_eq!(b.receive(&mut t), (40, false));
    assert_eq!(b.mirror(&whole), Ok(()), "the client sends it again");
    assert_eq!(b.receive(&mut t), (110, false));
    assert_eq!(b.counters().lost_bytes_sum(), 0);
}

#[test]
fn a_frame_of_which_nothing_was_captured_is_a_hole() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    let _ = b.frame(&c.head(Flags::PSH, 100), 100, usize::MAX);
    c.c += 100;
    b.answer(&mut c, 5);
    b.say(&mut c, 50);
    b.pass(4 * SECOND);
    assert_eq!(
        b.lost(Loss::Hole).1,
        150,
        "what follows the hole cannot be told from it"
    );
    b.answer(&mut c, 5);
    b.say(&mut c, 20);
    let mut again = b.accept();
    assert_ne!(again.rcv, t.rcv);
    assert_eq!(b.receive(&mut again), (20, false));
    assert_eq!(b.receive(&mut t), (0, false));
}

#[test]
#[cfg_attr(miri, ignore = "it takes Miri minutes")]
fn chained_buffers_are_one_segment_of_the_stream() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    for (buffer, n) in [(100, 1000), (54, 300), (1500, 4000)] {
        assert_eq!(b.frame(&c.head(Flags::PSH, n), 0, buffer), Ok(()));
        c.c += n;
        assert_eq!(b.receive(&mut t), (n, false), "buffers of {buffer}");
    }
    assert_eq!(b.counters().turns, 1);
    assert_eq!(b.counters().bytes, 5300);
}

#[test]
fn a_large_capture_is_cut_to_the_target_s_mss() {
    let mut b = Bed::new();
    let mut c = b.open(4000);
    let syn = b.take();
    let mut t = Conn {
        flow: syn[0].flow.reversed(),
        rcv: syn[0].seq + 1,
        snd: Seq(9),
        window: 60_000,
    };
    let mut head = t.head(Flags::SYN, 0);
    head.options.mss = Some(536);
    t.snd += 1;
    b.respond(&head);
    let start = c.c;
    b.say(&mut c, 1400);
    assert_eq!(b.sent_since(start), [(0, 536), (536, 536), (1072, 328)]);
}

#[test]
fn a_syn_again_is_a_duplicate_and_the_round_trip_counts_from_it() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    let mut again = c;
    b.syn(&mut c).unwrap();
    b.pass(SECOND);
    assert_eq!(b.syn(&mut again), Err(Unused::Duplicate));
    b.syn_ack(&mut c);
    b.pass(RTT);
    b.ack(&c);
    b.pass(MS);
    assert_eq!(b.counters().sessions, 1);
    assert_eq!(b.counters().connects, 1);
    // The target's answer is acknowledged after the round trip of the second SYN.
    let mut t = b.accept();
    b.say(&mut c, 10);
    b.receive(&mut t);
    b.reply(&mut t, 10);
    b.pass(RTT - 2 * MS);
    assert!(b.take().is_empty());
    b.pass(3 * MS);
    let acks = b.take();
    assert_eq!(acks.len(), 1);
    assert_eq!(acks[0].ack, t.snd);
}

#[test]
#[cfg_attr(miri, ignore = "it takes Miri minutes")]
fn keep_alive_probes_are_no_payload_and_keep_the_session() {
    for probe in [0, 1] {
        let mut b = Bed::new();
        let (mut c, mut t) = b.open_both(4000);
        b.exchange(&mut c, &mut t, 100, 300);
        for _ in 0..4 {
            b.pass(50 * SECOND);
            let head = Head {
                seq: c.c - 1,
                ..c.head(Flags::default(), probe)
            };
            let _ = b.mirror(&head);
            assert_eq!(b.receive(&mut t), (0, false));
        }
        assert_eq!(b.core.session_count(), 1);
        assert_eq!(b.counters().bytes, 100);
        b.pass(130 * SECOND);
        assert_eq!(b.core.session_count(), 0);
    }
}

#[test]
fn numbers_far_away_are_not_of_this_connection() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 10);
    for distance in [(1 << 30) + 1, 1 << 31, (3 << 30) - 20] {
        let head = Head {
            seq: c.c + distance,
            ..c.head(Flags::FIN, 10)
        };
        assert!(b.mirror(&head).is_err(), "{distance}");
    }
    let reset = Head {
        seq: c.c + 0x5000_0000,
        flags: Flags::RST,
        ..c.head(Flags::RST, 0)
    };
    assert_eq!(b.mirror(&reset), Err(Unused::OutOfWindow));
    b.say(&mut c, 10);
    assert_eq!(b.receive(&mut t), (20, false));
}

#[test]
fn frames_of_no_use_say_why() {
    let mut b = Bed::new();
    let c = Conv::new(4000);
    let stranger = Head {
        flow: Flow {
            src: c.flow.src,
            dst: Endpoint::new(PRODUCTION.addr, 81),
        },
        ..c.head(Flags::PSH, 10)
    };
    assert_eq!(b.mirror(&stranger), Err(Unused::NoTransfer));
    let replayed = Head {
        flow: Flow {
            src: c.flow.src,
            dst: TARGET,
        },
        ..c.head(Flags::PSH, 10)
    };
    assert_eq!(
        b.mirror(&replayed),
        Err(Unused::NoTransfer),
        "a target is no production"
    );
    for flags in [Flags::default(), Flags::FIN, Flags::RST] {
        assert_eq!(b.mirror(&c.head(flags, 0)), Err(Unused::NoSession));
    }
    let server = Head {
        flow: c.flow.reversed(),
        ..c.head(Flags::default(), 0)
    };
    assert_eq!(b.mirror(&server), Err(Unused::NoSession));
    assert_eq!(b.counters().used, 0);
    assert!(b.out.sent.is_empty());
}

#[test]
fn what_comes_after_the_end_is_dropped() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    let old = c.head(Flags::PSH, 10);
    b.say(&mut c, 10);
    b.fin(&mut c);
    assert_eq!(b.mirror(&old), Err(Unused::Duplicate));
    assert_eq!(b.mirror(&c.head(Flags::PSH, 10)), Err(Unused::AfterEnd));
    assert_eq!(b.mirror(&c.head(Flags::RST, 0)), Err(Unused::Duplicate));
    assert_eq!(b.receive(&mut t), (10, true));
    b.close(&mut t);
    b.assert_over();
}

#[test]
fn production_s_latency_is_that_of_the_first_byte() {
    let mut b = Bed::new();
    let (mut c, _) = b.open_both(4000);
    b.say(&mut c, 10);
    b.pass(30 * MS);
    b.answer(&mut c, 10);
    b.pass(30 * MS);
    b.answer(&mut c, 10);
    b.ack(&c);
    let h = &b.counters().production_latency;
    assert_eq!(h.count(), 1);
    let us = h.quantile_us(0.5);
    assert!((29_000..=31_000).contains(&us), "{us} us");
}

#[test]
fn a_syn_seen_again_after_the_reset_is_no_new_session() {
    let mut b = Bed::new();
    let mut again = Conv::new(4000);
    let (c, _) = b.open_both(4000);
    assert_eq!(b.mirror(&c.head(Flags::RST, 0)), Ok(()));
    assert_eq!(b.syn(&mut again), Err(Unused::Duplicate));
    assert_eq!(b.counters().sessions, 1);
    b.assert_over();
}

#[test]
fn nothing_joins_the_stream_behind_a_fin() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    let first = c.head(Flags::default(), 20);
    b.say_unseen(&mut c, 20);
    b.fin(&mut c);
    // A frame in several buffers that goes on beyond the FIN.
    let longer = Head {
        payload_len: 400,
        ..first
    };
    let _ = b.frame(&longer, 0, 64);
    assert_eq!(b.counters().turns, 1);
    b.receive(&mut t);
    b.close(&mut t);
    b.assert_over();
}
