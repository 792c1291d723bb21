//! Mirrors that reorder so much that a SYN is shown after the first payload.

use super::*;

/// The frames of a session's beginning: SYN, the client's acknowledgment, and requests of these
/// lengths in one flight.
fn beginning(port: u16, parts: &[u32]) -> (Conv, Vec<Head>) {
    let mut c = Conv::new(port);
    let mut syn = c.head(Flags::SYN, 0);
    syn.flags = Flags::SYN;
    syn.ack = Seq(0);
    syn.options.mss = Some(1460);
    c.c += 1;
    c.s += 1;
    c.ack = c.s;
    let mut frames = vec![syn, c.head(Flags::default(), 0)];
    for n in parts {
        frames.push(c.head(Flags::PSH, *n));
        c.c += *n;
    }
    (c, frames)
}

#[test]
fn a_syn_that_is_shown_late_begins_the_session() {
    for order in [
        &[1, 2, 3, 0][..],
        &[3, 2, 1, 0],
        &[2, 0, 3, 1],
        &[3, 0, 1, 2],
        &[2, 2, 0, 3, 2],
    ] {
        let mut b = Bed::new();
        let (mut c, frames) = beginning(4000, &[30, 20]);
        for i in order {
            let _ = b.mirror(&frames[*i]);
            b.pass(MS);
        }
        let mut t = b.accept();
        assert_eq!(b.receive(&mut t), (50, false), "{order:?}");
        b.answer(&mut c, 10);
        b.reply(&mut t, 10);
        b.say(&mut c, 7);
        assert_eq!(b.receive(&mut t), (7, false), "{order:?}");
        let n = b.counters();
        assert_eq!((n.sessions, n.turns, n.bytes), (1, 2, 57), "{order:?}");
        assert_eq!(b.lost(Loss::Midstream), (0, 0), "{order:?}");
    }
}

#[test]
fn a_syn_that_does_not_come_costs_the_first_turn() {
    let mut b = Bed::new();
    let (mut c, frames) = beginning(4000, &[30]);
    let _ = b.mirror(&frames[2]);
    assert_eq!(b.core.segment_count(), 1, "kept for a moment");
    b.pass(60 * MS);
    assert_eq!(b.core.segment_count(), 0, "and not for longer");
    assert_eq!(b.lost(Loss::Midstream), (1, 30));
    b.answer(&mut c, 10);
    b.say(&mut c, 7);
    let mut t = b.accept();
    assert_eq!(b.receive(&mut t), (7, false));
}

#[test]
fn a_syn_of_another_connection_does_not_take_it_over() {
    let mut b = Bed::new();
    let (_, frames) = beginning(4000, &[30]);
    let _ = b.mirror(&frames[2]);
    let far = Head {
        seq: frames[0].seq - (1 << 20),
        ..frames[0]
    };
    assert_eq!(b.mirror(&far), Ok(()));
    assert_eq!(b.lost(Loss::Midstream), (1, 30));
    assert_eq!(b.counters().sessions, 1, "nobody has accepted that one yet");
}

#[test]
fn what_ends_a_session_ends_what_is_kept_of_it() {
    let mut b = Bed::new();
    let (mut c, frames) = beginning(4000, &[30]);
    let _ = b.mirror(&frames[2]);
    b.fin(&mut c);
    assert_eq!(b.core.segment_count(), 0);
    b.assert_over();
    // The next turn shows that it was running.
    let mut b = Bed::new();
    let (mut c, frames) = beginning(4001, &[30]);
    let _ = b.mirror(&frames[2]);
    b.answer(&mut c, 10);
    b.say(&mut c, 7);
    let mut t = b.accept();
    assert_eq!(b.receive(&mut t), (7, false));
    assert_eq!(b.lost(Loss::Midstream), (1, 30));
}

#[test]
fn copies_that_were_lost_are_taken_back_as_well() {
    let mut b = Bed::with(|p| p.copies = 3);
    let (_, frames) = beginning(4000, &[30]);
    let _ = b.mirror(&frames[2]);
    assert_eq!(b.lost(Loss::Midstream), (3, 90));
    assert_eq!(b.mirror(&frames[0]), Ok(()));
    assert_eq!(b.lost(Loss::Midstream), (0, 0));
    assert_eq!(b.counters().turns, 1);
}

#[test]
fn nothing_is_begun_while_sessions_are_shed() {
    let mut b = Bed::new();
    let (_, frames) = beginning(4000, &[30]);
    let _ = b.mirror(&frames[2]);
    b.out.sheds = true;
    assert_eq!(b.mirror(&frames[0]), Err(Unused::Duplicate));
    assert!(b.take().is_empty());
    assert_eq!(b.lost(Loss::Midstream), (1, 30));
}

#[test]
fn a_port_that_is_used_again_begins_another_session_even_before_its_syn_is_shown() {
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.exchange(&mut c, &mut t, 100, 100);
    b.fin(&mut c);
    let near = c.head(Flags::PSH, 10);
    assert_eq!(b.mirror(&near), Err(Unused::AfterEnd), "not far enough");
    let (_, frames) = beginning(4000, &[30]);
    let again = |i: usize| {
        let mut head: Head = frames[i];
        head.seq += 1 << 20;
        head
    };
    assert_eq!(b.mirror(&again(2)), Err(Unused::BeforeJoin));
    assert_eq!(b.lost(Loss::Midstream), (1, 30));
    assert_eq!(b.mirror(&again(0)), Ok(()));
    assert_eq!(b.lost(Loss::Midstream), (0, 0));
    assert_eq!((b.counters().sessions, b.counters().turns), (2, 2));
}
