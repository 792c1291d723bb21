//! From the first FIN, ours or the target's, to the end.

use super::*;

#[test]
fn close_wait_takes_no_more_payload_and_acknowledges_the_fin_again() {
    let mut t = super::close_wait();
    let fin = segment(Flags::FIN.with(Flags::ACK), IRS + 1, ISS + 1, 0);
    let outcome = take(&mut t, 0, &fin);
    assert!(outcome.ack_now && !outcome.fin);
    assert!(take(&mut t, 0, &segment(Flags::ACK, IRS + 2, ISS + 1, 10)).ack_now);
    assert_eq!(t.rcv.nxt, IRS + 2);
    assert!(t.state.may_send() && t.peer_closed());
}

#[test]
fn fin_wait_1_takes_payload_and_counts_no_fin_as_acknowledged_too_early() {
    let mut t = sending();
    t.sent_fin(0);
    assert_eq!(t.fin_seq(), Some(ISS + 101));
    take(&mut t, 0, &segment(Flags::ACK, IRS + 1, ISS + 101, 10));
    assert_eq!(t.state, State::FinWait1);
    assert_eq!(t.rcv.nxt, IRS + 11);
    take(&mut t, 0, &segment(Flags::ACK, IRS + 11, ISS + 102, 0));
    assert_eq!(t.state, State::FinWait2);
}

#[test]
fn fin_and_its_acknowledgment_in_one_segment() {
    let mut t = super::fin_wait_1();
    let both = segment(Flags::FIN.with(Flags::ACK), IRS + 1, ISS + 2, 0);
    let outcome = take(&mut t, 0, &both);
    assert!(outcome.fin && outcome.acked && outcome.ack_now);
    assert_eq!(t.state, State::TimeWait);
}

#[test]
fn simultaneous_close() {
    let mut t = super::fin_wait_1();
    let crossing = segment(Flags::FIN.with(Flags::ACK), IRS + 1, ISS + 1, 0);
    assert!(take(&mut t, 0, &crossing).fin);
    assert_eq!(t.state, State::LastAck, "which is CLOSING by another name");
    take(&mut t, 0, &segment(Flags::ACK, IRS + 2, ISS + 2, 0));
    assert_eq!(t.state, State::PeerTimeWait);
}

#[test]
fn fin_wait_2_reads_on_until_the_target_closes() {
    let mut t = super::fin_wait_2();
    assert_eq!(
        take(&mut t, 0, &segment(Flags::ACK, IRS + 1, ISS + 2, 500)).received,
        500
    );
    assert_eq!(t.state, State::FinWait2);
    take(
        &mut t,
        0,
        &segment(Flags::FIN.with(Flags::ACK), IRS + 501, ISS + 2, 0),
    );
    assert_eq!(t.state, State::TimeWait);
}

#[test]
fn last_ack_ends_with_the_acknowledgment_of_our_fin() {
    let mut t = super::last_ack();
    take(&mut t, 0, &segment(Flags::ACK, IRS + 2, ISS + 1, 0));
    assert_eq!(t.state, State::LastAck);
    take(&mut t, 0, &segment(Flags::ACK, IRS + 2, ISS + 2, 0));
    assert_eq!(t.state, State::PeerTimeWait);
}

#[test]
fn a_lost_fin_is_sent_again() {
    let mut t = super::fin_wait_1();
    assert!(t.on_timeout());
    assert_eq!((t.snd_nxt, t.fin_seq()), (ISS + 1, Some(ISS + 1)));
    t.sent(0, 1);
    assert_eq!(t.snd_max, ISS + 2);
    take(&mut t, 0, &segment(Flags::ACK, IRS + 1, ISS + 2, 0));
    assert_eq!(t.state, State::FinWait2);
}

#[test]
fn a_reset_ends_each_synchronized_state() {
    for make in [
        super::close_wait,
        super::fin_wait_1,
        super::fin_wait_2,
        super::last_ack,
    ] {
        let mut t = make();
        let reset = segment(Flags::RST, t.rcv.nxt, t.snd_una, 0);
        assert!(take(&mut t, 0, &reset).reset);
        assert_eq!(t.state, State::Closed);
    }
}
