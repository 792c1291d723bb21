//! When a turn may go.

use super::*;

/// A session whose first turn is answered with 100 bytes in production, and whose second waits for
/// that.
fn waiting(b: &mut Bed) -> (Conv, Conn) {
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 10);
    assert_eq!(b.receive(&mut t), (10, false));
    b.answer(&mut c, 100);
    b.say(&mut c, 20);
    assert_eq!(b.receive(&mut t), (0, false));
    (c, t)
}

#[test]
fn as_many_bytes_as_production_open_it() {
    let mut b = Bed::new();
    let (_, mut t) = waiting(&mut b);
    let mut head = t.head(Flags::default(), 99);
    t.snd += 99;
    b.respond(&head);
    b.pass(SECOND);
    assert_eq!(b.receive(&mut t), (0, false));
    head = t.head(Flags::default(), 1);
    t.snd += 1;
    b.respond(&head);
    assert_eq!(b.receive(&mut t), (20, false));
    assert_eq!(b.counters().gate_timeouts, 0);
}

#[test]
fn bytes_out_of_order_do_not_open_it() {
    let mut b = Bed::new();
    let (_, mut t) = waiting(&mut b);
    let late = t.head(Flags::default(), 60);
    t.snd += 60;
    let early = t.head(Flags::PSH, 40);
    t.snd += 40;
    b.respond(&early);
    let acks = b.take();
    assert_eq!(acks.len(), 1, "a gap is told at once");
    assert_eq!(acks[0].ack, late.seq);
    b.pass(SECOND);
    assert_eq!(b.receive(&mut t), (0, false));
    b.respond(&late);
    assert_eq!(b.receive(&mut t), (20, false));
}

#[test]
fn a_shorter_answer_opens_it_after_the_quiet_time() {
    let mut b = Bed::new();
    let (_, mut t) = waiting(&mut b);
    b.reply(&mut t, 30);
    b.pass(RTT - MS);
    assert_eq!(b.receive(&mut t), (0, false));
    b.pass(2 * MS);
    assert_eq!(b.receive(&mut t), (20, false));
    assert_eq!(b.counters().gate_timeouts, 0);
}

#[test]
fn the_quiet_time_begins_anew_with_each_byte() {
    let mut b = Bed::new();
    let (_, mut t) = waiting(&mut b);
    for _ in 0..5 {
        b.reply(&mut t, 3);
        b.pass(RTT - 2 * MS);
        assert_eq!(b.receive(&mut t), (0, false));
    }
    // It may make another pause as long as those before, and as long again.
    b.pass(RTT - 3 * MS);
    assert_eq!(b.receive(&mut t), (0, false));
    b.pass(3 * MS);
    assert_eq!(b.receive(&mut t), (20, false));
}

#[test]
fn a_target_that_never_answers_holds_a_turn_until_the_limit() {
    let mut b = Bed::new();
    let (_, mut t) = waiting(&mut b);
    b.pass(5 * SECOND - 10 * MS);
    assert_eq!(b.receive(&mut t), (0, false));
    b.pass(20 * MS);
    assert_eq!(b.receive(&mut t), (20, false));
    assert_eq!(b.counters().gate_timeouts, 1);
}

#[test]
fn an_answer_that_does_not_look_ended_waits_for_the_limit() {
    let mut b = Bed::new();
    let (_, mut t) = waiting(&mut b);
    let head = t.head(Flags::default(), 30);
    t.snd += 30;
    b.respond(&head);
    b.pass(4 * SECOND);
    assert_eq!(b.receive(&mut t), (0, false));
    b.pass(SECOND + 10 * MS);
    assert_eq!(b.receive(&mut t), (20, false));
    assert_eq!(b.counters().gate_timeouts, 1);
}

#[test]
fn without_the_gate_turns_go_at_once() {
    let mut b = Bed::with(|p| p.transfers[0].to[0].wait_for_responses = false);
    let (mut c, mut t) = b.open_both(4000);
    for _ in 0..3 {
        b.say(&mut c, 10);
        assert_eq!(b.receive(&mut t), (10, false));
        b.answer(&mut c, 100);
    }
    b.fin(&mut c);
    assert_eq!(b.receive(&mut t), (0, true));
    assert_eq!(b.counters().gate_timeouts, 0);
}

#[test]
fn the_client_s_fin_waits_for_the_answer_it_had_read() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 10);
    b.answer(&mut c, 100);
    b.fin(&mut c);
    assert_eq!(b.receive(&mut t), (10, false));
    b.reply(&mut t, 100);
    assert_eq!(b.receive(&mut t), (0, true));
}

#[test]
fn the_client_s_reset_waits_for_the_answer_it_had_read() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.say(&mut c, 10);
    b.answer(&mut c, 100);
    assert_eq!(b.mirror(&c.head(Flags::RST, 0)), Ok(()));
    assert_eq!(b.receive(&mut t), (10, false));
    b.reply(&mut t, 100);
    assert!(
        b.take()
            .iter()
            .any(|h| h.flags.has(Flags::RST) && h.seq == t.rcv)
    );
    b.assert_over();
    assert_eq!(b.counters().replayed_turns, 1);
}

#[test]
fn the_configured_round_trip_time_replaces_the_measured_one() {
    let mut b = Bed::with(|p| p.transfers[0].to[0].rtt = Some(80 * MS));
    let (_, mut t) = waiting(&mut b);
    b.reply(&mut t, 30);
    b.pass(78 * MS);
    assert_eq!(b.receive(&mut t), (0, false));
    b.pass(4 * MS);
    assert_eq!(b.receive(&mut t), (20, false));
}
