//! Few connections are opened to a target until its first answer has come back.

use super::*;
use std::collections::HashMap;

const CANARIES: usize = 8;

/// How many requests each connection has sent since the last call.
fn requests(b: &mut Bed) -> HashMap<Flow, usize> {
    let mut all = HashMap::new();
    for head in b.take().iter().filter(|h| h.flags == Flags::SYN) {
        *all.entry(head.flow).or_default() += 1;
    }
    all
}

/// Sessions of so many clients, each with a turn of 30 bytes.
fn sessions(b: &mut Bed, count: u16) -> Vec<Conv> {
    (0..count)
        .map(|n| {
            let mut c = b.open(4000 + n);
            b.say(&mut c, 30);
            c
        })
        .collect()
}

#[test]
fn a_target_whose_answers_go_elsewhere_is_asked_by_few() {
    let mut b = Bed::with(|p| p.session_timeout = 600 * SECOND);
    let mut all = sessions(&mut b, 14);
    let c = b.counters();
    assert_eq!(
        (c.connects, c.unconfirmed_cores, c.awaiting_replicas),
        (8, 1, 6)
    );
    b.pass(60 * SECOND);
    let asked = requests(&mut b);
    assert_eq!(asked.len(), CANARIES, "nothing for the others");
    assert!(asked.values().all(|n| *n == 6), "{asked:?}");
    b.pass(5 * SECOND);
    assert_eq!(b.lost(Loss::ConnectTimeout), (8, 8 * 30));
    assert_eq!(b.lost(Loss::TargetUnconfirmed), (6, 6 * 30));
    let c = b.counters();
    assert_eq!(
        (c.connects, c.connect_failures, c.awaiting_replicas),
        (8, 8, 0)
    );
    assert_eq!(c.unconfirmed_cores, 1);
    // With their next turns all of them come again: few of them ask, those that waited included.
    for c in &mut all {
        b.answer(c, 10);
        b.say(c, 20);
    }
    assert_eq!(requests(&mut b).len(), CANARIES);
    for c in &mut all {
        b.fin(c);
    }
    b.pass(66 * SECOND);
    assert_eq!(
        b.lost(Loss::ConnectTimeout).0 + b.lost(Loss::TargetUnconfirmed).0,
        28
    );
    b.assert_over();
}

#[test]
fn a_late_first_answer_finds_all_that_wait() {
    for refuses in [false, true] {
        let mut b = Bed::new();
        let mut all = sessions(&mut b, 14);
        b.pass(50 * SECOND);
        let first = b.out.sent[0].head;
        b.take();
        if refuses {
            b.respond(&Head {
                flow: first.flow.reversed(),
                ack: first.seq + 1,
                flags: Flags::RST.with(Flags::ACK),
                ..first
            });
        } else {
            b.accept_syn(&first);
        }
        b.pass(MS);
        let asked: Vec<Head> = b
            .take()
            .into_iter()
            .filter(|h| h.flags == Flags::SYN)
            .collect();
        assert_eq!(asked.len(), 6, "those that waited");
        let c = b.counters();
        assert_eq!(
            (c.connects, c.unconfirmed_cores, c.awaiting_replicas),
            (14, 0, 0)
        );
        for head in &asked {
            let mut conn = b.accept_syn(head);
            assert_eq!(b.receive(&mut conn), (30, false));
        }
        // From now on nobody waits.
        let mut more = b.open(5000);
        let mut conn = b.accept();
        b.say(&mut more, 10);
        assert_eq!(b.receive(&mut conn), (10, false));
        assert_eq!(b.counters().lost_turns_sum(), u64::from(refuses));
        assert_eq!(b.counters().awaiting_replicas, 0);
        all.clear();
    }
}

#[test]
fn a_session_that_ends_while_it_waits_gives_its_place_to_others() {
    let mut b = Bed::new();
    let mut all = sessions(&mut b, 14);
    // The first, one in the middle and the last of those that wait; and one that asks.
    for n in [8, 10, 13, 0] {
        b.fin(&mut all[n]);
    }
    let mut silent = b.open(5000);
    b.fin(&mut silent);
    assert_eq!(
        b.counters().awaiting_replicas,
        6,
        "what they said is still to be replayed"
    );
    b.pass(5 * SECOND);
    let first = b.out.sent[0].head;
    b.accept_syn(&first);
    b.pass(MS);
    let c = b.counters();
    assert_eq!(
        (c.connects, c.awaiting_replicas, c.lost_turns_sum()),
        (14, 0, 0)
    );
}

#[test]
fn what_waits_is_given_up_with_the_rest() {
    let mut b = Bed::new();
    sessions(&mut b, 14);
    b.core.drain(b.now, &mut b.out);
    b.audit();
    b.core.abandon(b.now, &mut b.out);
    b.audit();
    assert_eq!(b.lost(Loss::Stopped).0, 14);
    assert_eq!(b.counters().awaiting_replicas, 0);
    assert!(b.core.is_drained());
}

#[test]
fn targets_do_not_wait_for_one_another_and_transfers_to_one_target_ask_together() {
    let other = Endpoint::new(Addr::v4([10, 20, 0, 3]), 8080);
    let mut b = Bed::with(|p| {
        let from = |last| Endpoint::new(Addr::v4([10, 10, 0, last]), 80);
        p.transfers.push(Transfer::new(from(3), other));
        p.transfers.push(Transfer::new(from(4), TARGET));
    });
    let open = |b: &mut Bed, port: u16, server: u8| {
        let mut c = Conv::new(port);
        c.flow.dst.addr = Addr::v4([10, 10, 0, server]);
        let mut syn = c.head(Flags::SYN, 0);
        (syn.flags, syn.ack) = (Flags::SYN, Seq(0));
        assert_eq!(b.mirror(&syn), Ok(()));
        c.c += 1;
        (c.ack, c.s) = (c.s + 1, c.s + 1);
        b.ack(&c);
    };
    for port in 0..5 {
        open(&mut b, 4000 + port, 2);
        open(&mut b, 4100 + port, 4);
    }
    assert_eq!(b.counters().connects, 8, "of both transfers");
    for port in 0..3 {
        open(&mut b, 4200 + port, 3);
    }
    let c = b.counters();
    assert_eq!((c.connects, c.awaiting_replicas), (11, 2));
    let syn = b.last_syn();
    assert_eq!(syn.flow.dst, other);
    b.accept_syn(&syn);
    b.pass(MS);
    assert_eq!(b.counters().awaiting_replicas, 2, "another target's answer");
    let first = b.out.sent[0].head;
    b.accept_syn(&first);
    b.pass(MS);
    let c = b.counters();
    assert_eq!(
        (c.connects, c.awaiting_replicas, c.unconfirmed_cores),
        (13, 0, 0)
    );
}
