//! Tests of the TCP client endpoint, by state. Each state has a fixture that gets there by
//! segments; sequence numbers of both sides lie close to the wrap, and time is an argument.

mod closing;

use super::*;
use wire::{Addr, Endpoint};

const MS: Nanos = 1_000_000;
const ISS: Seq = Seq(u32::MAX - 10);
const IRS: Seq = Seq(u32::MAX - 3);
/// What our side can send in a segment.
const LIMIT: u16 = 1460;
const WINDOW_FIELD: u16 = 500;
const SHIFT: u8 = 7;

fn flow() -> Flow {
    Flow {
        src: Endpoint::new(Addr::v4([10, 20, 0, 2]), 8080),
        dst: Endpoint::new(Addr::v4([192, 0, 2, 1]), 40_000),
    }
}

/// A segment of the target.
fn segment(flags: Flags, seq: Seq, ack: Seq, payload_len: u32) -> Head {
    Head {
        flow: flow(),
        seq,
        ack,
        flags,
        window: WINDOW_FIELD,
        urgent: 0,
        options: Options::default(),
        payload_len,
    }
}

fn stamped(mut head: Head, value: u32) -> Head {
    head.options.timestamps = Some((value, 0));
    head
}

/// Takes a segment and checks what always holds.
#[track_caller]
fn take(t: &mut Tcb, now: Nanos, head: &Head) -> Outcome {
    let before = t.rcv.nxt;
    let outcome = t.on_segment(now, head, LIMIT);
    assert!(t.snd_una.le(t.snd_nxt) && t.snd_nxt.le(t.snd_max));
    assert!(
        outcome.established || before.le(t.rcv.nxt),
        "rcv_nxt moved back"
    );
    outcome
}

fn syn_sent() -> Tcb {
    let mut t = Tcb::opening(ISS);
    t.time(t.snd_nxt, MS);
    t
}

fn syn_ack() -> Head {
    let mut head = segment(Flags::SYN.with(Flags::ACK), IRS, ISS + 1, 0);
    head.options.mss = Some(1000);
    head.options.window_scale = Some(SHIFT);
    head.options.sack_permitted = true;
    head
}

fn established() -> Tcb {
    let mut t = syn_sent();
    assert!(take(&mut t, 11 * MS, &syn_ack()).established);
    t.rcv.acknowledged_all();
    // The window of a SYN is not scaled; this one is.
    take(&mut t, 11 * MS, &segment(Flags::ACK, IRS + 1, ISS + 1, 0));
    t
}

/// Our 100 bytes are out.
fn sending() -> Tcb {
    let mut t = established();
    t.sent(20 * MS, 100);
    t
}

fn close_wait() -> Tcb {
    let mut t = established();
    assert!(
        take(
            &mut t,
            30 * MS,
            &segment(Flags::FIN.with(Flags::ACK), IRS + 1, ISS + 1, 0)
        )
        .fin
    );
    assert_eq!(t.state, State::CloseWait);
    t
}

fn fin_wait_1() -> Tcb {
    let mut t = established();
    t.sent_fin(30 * MS);
    assert_eq!(t.state, State::FinWait1);
    t
}

fn fin_wait_2() -> Tcb {
    let mut t = fin_wait_1();
    assert!(take(&mut t, 40 * MS, &segment(Flags::ACK, IRS + 1, ISS + 2, 0)).acked);
    assert_eq!(t.state, State::FinWait2);
    t
}

fn last_ack() -> Tcb {
    let mut t = close_wait();
    t.sent_fin(40 * MS);
    assert_eq!(t.state, State::LastAck);
    t
}

mod closed {
    use super::*;

    #[test]
    fn everything_but_a_reset_is_answered_with_one() {
        for flags in [
            Flags::ACK,
            Flags::SYN.with(Flags::ACK),
            Flags::FIN.with(Flags::ACK),
        ] {
            let mut t = Tcb::default();
            assert!(take(&mut t, 0, &segment(flags, IRS, ISS, 0)).reset_peer);
            assert_eq!(t.state, State::Closed);
        }
        let outcome = take(&mut Tcb::default(), 0, &segment(Flags::RST, IRS, ISS, 0));
        assert_eq!(outcome, Outcome::default());
    }
}

mod syn_sent {
    use super::*;

    #[test]
    fn the_syn_offers_what_we_can() {
        let head = super::syn_sent().syn(5 * MS, flow(), 1400);
        assert_eq!(
            (head.seq, head.flags, head.payload_len),
            (ISS, Flags::SYN, 0)
        );
        assert_eq!(head.options.mss, Some(1400));
        assert_eq!(head.options.window_scale, Some(WINDOW_SHIFT));
        assert!(head.options.sack_permitted);
        assert_eq!(head.options.timestamps, Some((5, 0)));
    }

    #[test]
    fn its_acknowledgment_establishes() {
        let mut t = super::syn_sent();
        let outcome = take(&mut t, 11 * MS, &syn_ack());
        assert!(outcome.established && !outcome.reset_peer);
        assert_eq!(t.state, State::Established);
        assert_eq!(
            (t.rcv.nxt, t.snd_una, t.snd_nxt),
            (IRS + 1, ISS + 1, ISS + 1)
        );
        assert_eq!(t.mss(), 1000);
        assert_eq!(
            t.snd_wnd,
            u32::from(WINDOW_FIELD),
            "the window of a SYN is not scaled"
        );
        assert!(t.rto.srtt().unwrap().abs_diff(10 * MS) <= 2_048);
    }

    #[test]
    fn the_mss_is_the_smaller_of_both_and_timestamps_take_their_part() {
        let mut t = super::syn_sent();
        let mut head = stamped(syn_ack(), 9);
        head.options.mss = Some(9000);
        take(&mut t, 0, &head);
        assert_eq!(t.mss(), LIMIT - 12);
        let mut t = super::syn_sent();
        head.options = Options::default();
        take(&mut t, 0, &head);
        assert_eq!(t.mss(), 536, "none offered");
        let mut t = super::syn_sent();
        head.options.mss = Some(0);
        take(&mut t, 0, &head);
        assert_eq!(t.mss(), 536, "no segment is empty");
    }

    #[test]
    fn what_was_not_offered_is_not_used() {
        let mut t = super::syn_sent();
        let mut head = syn_ack();
        head.options = Options::default();
        take(&mut t, 0, &head);
        let mut ack = segment(Flags::ACK, IRS + 1, ISS + 1, 0);
        ack.window = 5000;
        take(&mut t, 0, &ack);
        assert_eq!(t.snd_wnd, 5000);
        take(&mut t, 0, &segment(Flags::ACK, IRS + 50, ISS + 1, 10));
        let head = t.head(0, flow(), t.snd_nxt, Flags::default(), 0);
        assert_eq!(
            head.options,
            Options::default(),
            "neither SACK nor timestamps"
        );
    }

    #[test]
    fn a_wrong_acknowledgment_is_answered_with_reset() {
        for ack in [ISS, ISS + 2, ISS - 1000] {
            let mut t = super::syn_sent();
            for flags in [Flags::ACK, Flags::SYN.with(Flags::ACK)] {
                assert!(take(&mut t, 0, &segment(flags, IRS, ack, 0)).reset_peer);
            }
            let outcome = take(
                &mut t,
                0,
                &segment(Flags::RST.with(Flags::ACK), IRS, ack, 0),
            );
            assert_eq!(outcome, Outcome::default());
            assert_eq!(t.state, State::SynSent);
        }
    }

    #[test]
    fn a_reset_refuses_only_if_it_acknowledges_the_syn() {
        let mut t = super::syn_sent();
        assert!(!take(&mut t, 0, &segment(Flags::RST, IRS, ISS + 1, 0)).refused);
        let reset = segment(Flags::RST.with(Flags::ACK), Seq(0), ISS + 1, 0);
        assert!(take(&mut t, 0, &reset).refused);
        assert_eq!(t.state, State::Closed);
    }

    #[test]
    fn a_plain_acknowledgment_is_the_challenge_of_an_older_connection() {
        let ack = segment(Flags::ACK, IRS, ISS + 1, 0);
        let mut t = super::syn_sent();
        assert_eq!(take(&mut t, 0, &ack), Outcome::default());
        t.reopened = true;
        assert!(take(&mut t, 0, &ack).reset_peer);
        assert_eq!(t.state, State::SynSent);
    }

    #[test]
    fn six_requests_and_no_more() {
        let mut t = super::syn_sent();
        let mut waits = vec![t.rto.timeout() / MS];
        while t.on_timeout() {
            waits.push(t.rto.timeout() / MS);
        }
        assert_eq!(waits, [1000, 2000, 4000, 8000, 16_000, 32_000]);
        assert_eq!(t.snd_nxt, ISS + 1);
    }

    #[test]
    fn no_sample_is_taken_from_a_request_sent_twice() {
        let mut t = super::syn_sent();
        assert!(t.on_timeout());
        take(&mut t, 1500 * MS, &syn_ack());
        assert_eq!(t.rto.srtt(), None);
    }
}

mod established {
    use super::*;

    #[test]
    fn acknowledgments_move_and_sample() {
        let mut t = sending();
        let outcome = take(&mut t, 50 * MS, &segment(Flags::ACK, IRS + 1, ISS + 51, 0));
        assert!(outcome.acked && !outcome.ack_now);
        assert_eq!((t.snd_una, t.in_flight()), (ISS + 51, 50));
        let before = t.rto.srtt();
        take(&mut t, 50 * MS, &segment(Flags::ACK, IRS + 1, ISS + 101, 0));
        assert!(!t.outstanding());
        assert_ne!(t.rto.srtt(), before, "the segment's end was timed");
    }

    #[test]
    fn an_acknowledgment_of_what_was_never_sent_is_challenged() {
        let mut t = sending();
        let outcome = take(&mut t, 0, &segment(Flags::ACK, IRS + 1, ISS + 102, 0));
        assert!(outcome.ack_now && !outcome.acked);
        assert_eq!(t.snd_una, ISS + 1);
    }

    #[test]
    fn payload_with_an_acknowledgment_out_of_all_windows_is_challenged() {
        let mut t = sending();
        let edge = t.snd_una - t.max_wnd;
        for (ack, taken) in [(edge - 1, false), (t.snd_max + 1, false), (edge, true)] {
            let outcome = take(&mut t, 0, &segment(Flags::ACK, IRS + 1, ack, 10));
            assert_eq!(outcome.payload, taken, "{ack:?}");
            assert!(taken || outcome.ack_now);
        }
    }

    #[test]
    fn old_acknowledgments_change_nothing() {
        let mut t = sending();
        take(&mut t, 0, &segment(Flags::ACK, IRS + 1, ISS + 101, 0));
        let mut old = segment(Flags::ACK, IRS + 1, ISS + 50, 0);
        old.window = 1;
        let outcome = take(&mut t, 0, &old);
        assert!(!outcome.acked);
        assert_eq!(t.snd_wnd, u32::from(WINDOW_FIELD) << SHIFT);
    }

    #[test]
    fn the_window_follows_the_newest_segment() {
        let mut t = sending();
        let mut head = segment(Flags::ACK, IRS + 11, ISS + 1, 10);
        head.window = 7;
        take(&mut t, 0, &head);
        assert_eq!(t.snd_wnd, 7 << SHIFT);
        head = segment(Flags::ACK, IRS + 1, ISS + 1, 10);
        head.window = 300;
        take(&mut t, 0, &head);
        assert_eq!(t.snd_wnd, 7 << SHIFT, "an older segment that came late");
        head.seq = IRS + 5;
        head.payload_len = 20;
        head.ack = ISS + 61;
        head.window = 2;
        take(&mut t, 0, &head);
        assert_eq!(
            t.snd_wnd,
            2 << SHIFT,
            "old data again, but it acknowledges more"
        );
    }

    #[test]
    fn payload_is_counted_once_in_order_and_gaps_are_told() {
        let mut t = super::established();
        let late = segment(Flags::ACK, IRS + 1, ISS + 1, 20);
        let outcome = take(&mut t, 0, &segment(Flags::ACK, IRS + 21, ISS + 1, 30));
        assert!(outcome.ack_now && outcome.payload && outcome.received == 0);
        let head = t.head(0, flow(), t.snd_nxt, Flags::default(), 0);
        assert_eq!(head.options.sack_blocks(), [(IRS + 21, IRS + 51)]);
        assert_eq!(head.ack, IRS + 1);
        let data = t.head(0, flow(), t.snd_nxt, Flags::default(), 1000);
        assert!(
            data.options.sack_blocks().is_empty(),
            "it would exceed the MSS"
        );
        let outcome = take(&mut t, 0, &late);
        assert_eq!(outcome.received, 50);
        assert_eq!(t.rcv.nxt, IRS + 51);
        let outcome = take(&mut t, 0, &late);
        assert!(outcome.ack_now && !outcome.payload && outcome.received == 0);
    }

    #[test]
    fn payload_outside_of_the_window_is_refused() {
        let mut t = super::established();
        for seq in [IRS + 1 + WINDOW_BYTES, IRS - 5000] {
            let outcome = take(&mut t, 0, &segment(Flags::ACK, seq, ISS + 1, 10));
            assert!(outcome.ack_now && !outcome.payload);
        }
        assert_eq!(t.rcv.nxt, IRS + 1);
    }

    #[test]
    fn a_reset_counts_at_the_exact_number_and_is_challenged_elsewhere() {
        let mut t = super::established();
        let outcome = take(&mut t, 0, &segment(Flags::RST, IRS + 2, ISS + 1, 0));
        assert!(outcome.ack_now && !outcome.reset);
        let outcome = take(&mut t, 0, &segment(Flags::RST, IRS, ISS + 1, 0));
        assert_eq!(outcome, Outcome::default(), "outside of the window");
        assert!(take(&mut t, 0, &segment(Flags::RST, IRS + 1, ISS + 1, 0)).reset);
        assert_eq!(t.state, State::Closed);
    }

    #[test]
    fn a_syn_is_challenged() {
        let mut t = super::established();
        assert!(take(&mut t, 0, &segment(Flags::SYN, IRS + 1, ISS + 1, 0)).ack_now);
        assert!(take(&mut t, 0, &syn_ack()).ack_now, "our ACK was lost");
        assert_eq!(t.state, State::Established);
    }

    #[test]
    fn a_segment_without_ack_says_nothing() {
        let mut t = super::established();
        let outcome = take(&mut t, 0, &segment(Flags::PSH, IRS + 1, ISS + 1, 10));
        assert_eq!(outcome, Outcome::default());
        assert_eq!(t.rcv.nxt, IRS + 1);
    }

    #[test]
    fn old_timestamps_are_refused() {
        let mut t = super::syn_sent();
        take(&mut t, 0, &stamped(syn_ack(), u32::MAX - 1));
        t.rcv.acknowledged_all();
        let next = stamped(segment(Flags::ACK, IRS + 1, ISS + 1, 10), 3);
        assert_eq!(take(&mut t, 0, &next).received, 10, "the clock wraps");
        t.rcv.acknowledged_all();
        let head = t.head(7 * MS, flow(), t.snd_nxt, Flags::default(), 0);
        assert_eq!(head.options.timestamps, Some((7, 3)));
        let old = stamped(segment(Flags::ACK, IRS + 11, ISS + 1, 10), u32::MAX);
        let outcome = take(&mut t, 0, &old);
        assert!(outcome.ack_now && outcome.received == 0);
    }

    #[test]
    fn a_segment_is_as_long_as_window_and_mss_allow() {
        let mut t = super::established();
        assert_eq!(t.sendable(5000, None), 1000);
        assert_eq!(t.sendable(10, None), 10);
        t.snd_wnd = 300;
        t.max_wnd = 600;
        assert_eq!(t.sendable(5000, None), 300, "half of the largest window");
        t.max_wnd = 602;
        assert_eq!(t.sendable(5000, None), 0, "less than that");
        assert!(t.window_is_silly(5000) && !t.window_is_silly(300));
        assert_eq!(t.overriding(5000), 300);
        assert_eq!(t.sendable(300, None), 300, "all there is to send");
        t.sent(0, 100);
        assert!(
            !t.window_is_silly(5000),
            "the target will answer what is out"
        );
        assert_eq!(t.sendable(5000, None), 0);
        assert_eq!(t.sendable(150, None), 150);
        t.snd_nxt = t.snd_una;
        assert_eq!(
            t.sendable(5000, None),
            300,
            "what is sent again does not wait"
        );
        t.snd_nxt = t.snd_max;
        t.snd_wnd = 50;
        assert_eq!(t.sendable(10, None), 0, "the target took its offer back");
    }

    #[test]
    fn the_congestion_window_limits_what_is_out() {
        let mut t = super::established();
        t.snd_wnd = 1 << 20;
        let mut out = 0;
        while t.sendable(100_000, None) > 0 {
            t.sent(0, 1000);
            out += 1;
        }
        assert_eq!(out, 10, "the initial window");
    }

    #[test]
    fn the_third_duplicate_asks_for_a_retransmission_and_a_timeout_goes_back() {
        let mut t = super::established();
        for _ in 0..5 {
            t.sent(0, 1000);
        }
        let dup = segment(Flags::ACK, IRS + 1, ISS + 1, 0);
        assert!(!take(&mut t, 0, &dup).retransmit);
        assert!(!take(&mut t, 0, &dup).retransmit);
        let with_data = segment(Flags::ACK, IRS + 1, ISS + 1, 10);
        assert!(
            !take(&mut t, 0, &with_data).retransmit,
            "payload is no duplicate"
        );
        let dup = segment(Flags::ACK, IRS + 11, ISS + 1, 0);
        assert!(take(&mut t, 0, &dup).retransmit);
        assert!(!take(&mut t, 0, &dup).retransmit);
        let partial = segment(Flags::ACK, IRS + 11, ISS + 2001, 0);
        assert!(take(&mut t, 0, &partial).retransmit);
        let all = segment(Flags::ACK, IRS + 11, ISS + 5001, 0);
        assert!(!take(&mut t, 0, &all).retransmit);
        t.sent(0, 1000);
        assert!(t.on_timeout());
        assert_eq!((t.snd_nxt, t.in_flight()), (ISS + 5001, 0));
        assert!(t.outstanding());
        assert_eq!(t.sendable(5000, None), 1000, "one segment");
    }

    #[test]
    fn a_probe_counts_only_when_it_is_acknowledged() {
        let mut t = super::established();
        let mut closed = segment(Flags::ACK, IRS + 1, ISS + 1, 0);
        closed.window = 0;
        take(&mut t, 0, &closed);
        assert!(t.window_closed());
        t.probed();
        assert_eq!((t.snd_nxt, t.in_flight()), (ISS + 1, 0));
        assert!(t.outstanding());
        assert!(take(&mut t, 0, &segment(Flags::ACK, IRS + 1, ISS + 2, 0)).acked);
        assert_eq!(t.snd_nxt, ISS + 2);
        assert!(!t.window_closed());
    }

    #[test]
    fn a_fin_beyond_a_gap_waits() {
        let mut t = super::established();
        let fin = segment(Flags::FIN.with(Flags::ACK), IRS + 11, ISS + 1, 5);
        let outcome = take(&mut t, 0, &fin);
        assert!(!outcome.fin && outcome.ack_now);
        take(&mut t, 0, &segment(Flags::ACK, IRS + 1, ISS + 1, 10));
        assert_eq!((t.state, t.rcv.nxt), (State::Established, IRS + 16));
        assert!(take(&mut t, 0, &fin).fin, "it comes again");
        assert_eq!((t.state, t.rcv.nxt), (State::CloseWait, IRS + 17));
    }
}

/// Whatever a target sends, what always holds holds.
#[test]
#[cfg_attr(miri, ignore = "it takes Miri minutes")]
fn arbitrary_segments_in_each_state() {
    let makes = [
        syn_sent as fn() -> Tcb,
        established,
        sending,
        close_wait,
        fin_wait_1,
        fin_wait_2,
        last_ack,
    ];
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |n: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x % n
    };
    for round in 0..20_000 {
        let mut t = makes[round % makes.len()]();
        for _ in 0..8 {
            let near = |base: Seq, d: u64| base + (d as u32).wrapping_sub(60);
            let flags = Flags(random(32) as u8);
            let seq = if random(8) == 0 {
                Seq(random(1 << 32) as u32)
            } else {
                near(t.rcv.nxt, random(120))
            };
            let ack = if random(8) == 0 {
                Seq(random(1 << 32) as u32)
            } else {
                near(t.snd_una, random(200))
            };
            let mut head = segment(flags, seq, ack, random(100) as u32);
            head.window = random(3) as u16;
            if random(4) == 0 {
                head = stamped(head, random(1 << 32) as u32);
            }
            take(&mut t, 50 * MS, &head);
            if t.state.may_send() {
                let n = t.sendable(random(3000) as u32, None);
                assert!(n <= u32::from(t.mss()) && n <= t.snd_wnd);
                t.sent(51 * MS, n);
            }
        }
    }
}
