//! Sessions that were running when the mirror began, and sessions that join again after a loss.

use super::*;

#[test]
fn a_session_seen_in_the_middle_joins_at_its_next_turn() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    assert_eq!(b.mirror(&c.head(Flags::PSH, 30)), Err(Unused::BeforeJoin));
    c.c += 30;
    assert_eq!(b.mirror(&c.head(Flags::PSH, 10)), Err(Unused::BeforeJoin));
    c.c += 10;
    assert!(b.take().is_empty());
    b.answer(&mut c, 50);
    b.say(&mut c, 20);
    let mut t = b.accept();
    assert_eq!(t.rcv, c.c - 20, "its own sequence numbers");
    assert_eq!(
        b.receive(&mut t),
        (20, false),
        "the answer before went to nobody here"
    );
    assert_eq!(b.lost(Loss::Midstream), (1, 40));
    b.answer(&mut c, 5);
    b.say(&mut c, 7);
    assert_eq!(b.receive(&mut t), (0, false), "from now on it waits");
    b.reply(&mut t, 5);
    assert_eq!(b.receive(&mut t), (7, false));
}

#[test]
fn a_retransmission_from_before_does_not_look_like_a_turn() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    let old = c.head(Flags::PSH, 30);
    let _ = b.mirror(&old);
    c.c += 30;
    b.answer(&mut c, 50);
    // The client sends the request again, and acknowledges the answer by the same segment.
    let again = Head { ack: c.ack, ..old };
    assert!(b.mirror(&again).is_err());
    assert!(b.take().is_empty(), "half a request is no turn");
    let half = Head {
        seq: c.c - 10,
        ..c.head(Flags::PSH, 20)
    };
    assert!(b.mirror(&half).is_err());
    assert!(b.take().is_empty());
    assert_eq!(b.lost(Loss::Midstream), (1, 40));
}

#[test]
fn full_sessions_only_refuses_it() {
    let mut b = Bed::with(|p| p.full_sessions_only = true);
    let mut c = Conv::new(4000);
    for _ in 0..3 {
        assert_eq!(b.mirror(&c.head(Flags::PSH, 30)), Err(Unused::NotFull));
        c.c += 30;
        c.ack += 10;
    }
    assert_eq!((b.counters().sessions, b.counters().turns), (0, 0));
    let (mut c, mut t) = b.open_both(4001);
    b.exchange(&mut c, &mut t, 100, 100);
    assert_eq!(b.counters().replayed_turns, 1);
}

#[test]
fn a_session_that_never_joins_leaves_nothing_behind() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    let _ = b.mirror(&c.head(Flags::PSH, 30));
    c.c += 30;
    b.fin(&mut c);
    assert!(b.take().is_empty());
    b.assert_over();
    assert_eq!(b.lost(Loss::Midstream), (1, 30));
    let c = Conv::new(4001);
    let _ = b.mirror(&c.head(Flags::PSH, 30));
    b.pass(130 * SECOND);
    assert_eq!(b.core.session_count(), 0);
}

#[test]
fn a_turn_whose_beginning_may_be_missing_is_not_joined() {
    let mut b = Bed::new();
    let mut c = Conv::new(4000);
    let _ = b.mirror(&c.head(Flags::PSH, 30));
    c.c += 30;
    b.answer(&mut c, 50);
    // The first segment of the next request is lost, the second is not.
    b.say_unseen(&mut c, 100);
    assert_eq!(b.mirror(&c.head(Flags::PSH, 20)), Err(Unused::BeforeJoin));
    c.c += 20;
    assert!(b.take().is_empty());
    assert_eq!(b.lost(Loss::Hole), (1, 120));
    b.answer(&mut c, 50);
    b.say(&mut c, 10);
    let mut t = b.accept();
    assert_eq!(b.receive(&mut t), (10, false));
}
