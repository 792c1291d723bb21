//! Addresses and ports that are used again, where the mirror shows neither the end of one
//! connection nor the handshake of the next.

use super::*;

/// The next connection of the same ports: hosts choose its numbers a little beyond those of the
/// last one, the client by its clock, and a server that has it in TIME-WAIT by 64 KiB.
fn next_connection(c: &mut Conv) {
    c.c += 12_000_000;
    c.s += (1 << 16) + 1;
    c.ack = c.s;
}

/// A connection that has come to nothing that anybody saw, and the first request and answer of the
/// next one.
fn reused(change: impl FnOnce(&mut Params)) -> (Bed, Conv) {
    let mut b = Bed::with(change);
    let mut c = b.open(4000);
    b.say(&mut c, 10);
    b.answer(&mut c, 50);
    next_connection(&mut c);
    assert_eq!(b.mirror(&c.head(Flags::PSH, 20)), Err(Unused::OutOfWindow));
    c.c += 20;
    b.answer(&mut c, 50);
    (b, c)
}

#[test]
fn what_lies_between_two_connections_of_the_same_ports_is_not_lost() {
    let (mut b, mut c) = reused(|_| {});
    assert_eq!(b.mirror(&c.head(Flags::PSH, 20)), Err(Unused::BeforeJoin));
    c.c += 20;
    b.answer(&mut c, 50);
    b.say(&mut c, 7);
    b.pass(SECOND);
    assert_eq!(b.counters().bytes, 37, "what was seen, and no more");
    assert_eq!(b.lost(Loss::Hole), (0, 0));
    assert_eq!(b.lost(Loss::Midstream), (1, 20));
    let syns = b.take().iter().filter(|h| h.flags == Flags::SYN).count();
    assert_eq!(syns, 2, "a connection of its own");
}

#[test]
fn nor_does_an_end_or_a_reset_of_the_next_one_tell_of_a_gap() {
    for flags in [Flags::FIN, Flags::RST] {
        let (mut b, c) = reused(|_| {});
        let _ = b.mirror(&c.head(flags, 0));
        b.pass(5 * SECOND);
        assert_eq!(b.counters().bytes, 10);
    }
}

#[test]
fn without_full_sessions_the_next_one_ends_the_last() {
    let (mut b, c) = reused(|p| p.full_sessions_only = true);
    assert_eq!(b.mirror(&c.head(Flags::PSH, 20)), Err(Unused::NotFull));
    assert_eq!(b.counters().bytes, 10);
}

#[test]
fn an_unknown_window_is_no_room_for_another_connection() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    assert!(b.mirror(&c.head(Flags::PSH, 30)).is_err());
    c.c += 30;
    b.answer(&mut c, 50);
    next_connection(&mut c);
    assert_eq!(b.mirror(&c.head(Flags::PSH, 20)), Err(Unused::OutOfWindow));
    c.c += 20;
    b.answer(&mut c, 50);
    b.pass(5 * SECOND);
    assert_eq!(b.counters().bytes, 30);
}
