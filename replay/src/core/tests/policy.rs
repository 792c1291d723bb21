//! Which sessions are replayed, how often, and from which addresses.

use super::*;
use crate::params::Shard;
use crate::slots::{QUARANTINE, Slice};

fn pool(addresses: u32, low: u16, high: u16) -> Slice {
    Slice {
        first: Addr::v4([62, 135, 200, 1]),
        addresses,
        low,
        high,
    }
}

fn selected(b: &mut Bed, ports: std::ops::Range<u16>) -> Vec<u16> {
    ports
        .filter(|&p| {
            let mut c = Conv::new(p);
            match b.syn(&mut c) {
                Ok(()) => {
                    b.core.abandon(b.now, &mut b.out);
                    b.pass(3 * SECOND);
                    true
                }
                Err(reason) => {
                    assert_eq!(reason, Unused::NotSelected);
                    // Whatever else comes of it is left out for the same reason, in both
                    // directions.
                    let client = c.head(Flags::default(), 0);
                    let server = Head {
                        flow: c.flow.reversed(),
                        ..client
                    };
                    for head in [client, server] {
                        assert_eq!(b.mirror(&head), Err(Unused::NotSelected));
                    }
                    false
                }
            }
        })
        .collect()
}

#[test]
#[cfg_attr(miri, ignore = "it takes Miri minutes")]
fn percent_takes_a_stable_share_of_the_clients() {
    let mut b = Bed::with(|p| p.percent = 30.0);
    let once = selected(&mut b, 1000..1400);
    assert!((80..=160).contains(&once.len()), "{} of 400", once.len());
    assert_eq!(once, selected(&mut b, 1000..1400));
    // A larger share holds all of the smaller one.
    let mut more = Bed::with(|p| p.percent = 60.0);
    let more = selected(&mut more, 1000..1400);
    assert!(more.len() > once.len() && once.iter().all(|p| more.contains(p)));
}

/// Whatever core it is on and whatever percentage is asked for.
#[test]
#[cfg_attr(miri, ignore = "it takes Miri minutes")]
fn all_shards_together_take_each_session_once() {
    let mut all = Vec::new();
    for index in 0..5 {
        let mut b = Bed::with(|p| p.shard = Shard { index, of: 5 });
        let mine = selected(&mut b, 1000..1400);
        assert!((50..=110).contains(&mine.len()), "{} of 400", mine.len());
        // Shards do not coincide with what a percentage takes.
        let mut half = Bed::with(|p| {
            p.shard = Shard { index, of: 5 };
            p.percent = 50.0;
        });
        let half = selected(&mut half, 1000..1400).len();
        assert!(mine.len() > half && half * 4 > mine.len(), "{half}");
        all.extend(mine);
    }
    all.sort_unstable();
    assert!(all.iter().copied().eq(1000..1400));
}

#[test]
#[cfg_attr(miri, ignore = "it takes Miri minutes")]
fn the_share_grows_over_the_ramp() {
    let mut b = Bed::with(|p| {
        p.ramp = 4000 * SECOND;
        p.start = SECOND;
    });
    assert_eq!(selected(&mut b, 1000..1100).len(), 0);
    b.pass(2000 * SECOND);
    let half = selected(&mut b, 1000..1200).len();
    assert!((50..=150).contains(&half), "{half} of 200");
    b.pass(2000 * SECOND);
    assert_eq!(selected(&mut b, 1000..1100).len(), 100);
}

#[test]
fn each_copy_has_a_connection_of_its_own_and_each_counts() {
    let mut b = Bed::with(|p| p.copies = 3);
    let mut c = b.open(4000);
    let syns: Vec<_> = b
        .take()
        .into_iter()
        .filter(|h| h.flags == Flags::SYN)
        .collect();
    assert_eq!(syns.len(), 3);
    let ports: HashSet<_> = syns.iter().map(|h| h.flow.src.port).collect();
    assert_eq!(ports.len(), 3);
    assert!(ports.contains(&4000) && syns.iter().all(|h| h.flow.src.addr == c.flow.src.addr));
    b.say(&mut c, 30);
    // Two accept, one refuses.
    let mut conns: Vec<_> = syns[1..].iter().map(|s| b.accept_syn(s)).collect();
    b.respond(&Head {
        flow: syns[0].flow.reversed(),
        ack: syns[0].seq + 1,
        flags: Flags::RST.with(Flags::ACK),
        ..syns[0]
    });
    for t in &mut conns {
        b.seen = 0;
        assert_eq!(b.receive(t), (30, false));
    }
    assert_eq!(b.core.segment_count(), 0, "every copy has it");
    b.answer(&mut c, 1);
    b.ack(&c);
    assert_eq!(b.counters().turns, 1);
    assert_eq!(b.counters().replayed_turns, 2);
    assert_eq!(b.lost(Loss::ConnectRefused), (1, 30));
}

#[test]
fn the_slower_copy_keeps_the_bytes_it_needs() {
    let mut b = Bed::with(|p| p.copies = 2);
    let mut c = b.open(4000);
    let syns = b.take();
    let mut fast = b.accept_syn(&syns[0]);
    b.say(&mut c, 30);
    assert_eq!(b.receive(&mut fast), (30, false));
    b.answer(&mut c, 5);
    b.say(&mut c, 40);
    b.reply(&mut fast, 5);
    assert_eq!(b.receive(&mut fast), (40, false));
    assert_eq!(b.core.segment_count(), 2);
    let mut slow = b.accept_syn(&syns[1]);
    assert_eq!(b.receive(&mut slow), (30, false));
    assert_eq!(b.core.segment_count(), 1);
    b.reply(&mut slow, 5);
    assert_eq!(b.receive(&mut slow), (40, false));
    assert_eq!(b.core.segment_count(), 0);
}

#[test]
fn pool_addresses_are_used_once_and_rest_after_the_target_closed_first() {
    let mut b = Bed::with(|p| p.pool = vec![pool(1, 2000, 2001)]);
    let mut first = b.open(4000);
    let mut t = b.accept();
    assert_eq!(t.flow.dst.addr, Addr::v4([62, 135, 200, 1]));
    let mut second = b.open(4001);
    let mut u = b.accept();
    assert_ne!(t.flow.dst, u.flow.dst);
    assert!(b.out.claimed.is_empty(), "the slice was claimed once");
    assert_eq!(b.core.slots(), (2, 2));
    // No slot: the session is kept, its turns are lost.
    let mut third = b.open(4002);
    assert!(b.take().iter().all(|h| h.flags != Flags::SYN));
    b.say(&mut third, 30);
    b.answer(&mut third, 10);
    b.say(&mut third, 20);
    b.fin(&mut third);
    assert_eq!(b.lost(Loss::NoAddress), (2, 50));
    b.exchange(&mut first, &mut t, 10, 10);
    for (c, t) in [(&mut first, &mut t), (&mut second, &mut u)] {
        // The target closes first, so it holds the connection in TIME-WAIT.
        b.close(t);
        b.fin(c);
        b.receive(t);
    }
    b.assert_over();
    let mut fourth = b.open(4003);
    b.say(&mut fourth, 10);
    assert_eq!(b.lost(Loss::NoAddress), (3, 60), "they rest");
    b.pass(QUARANTINE);
    b.open(4004);
    assert_eq!(b.core.slots(), (1, 2));
}

#[test]
fn a_session_without_an_address_is_forgotten_when_it_is_idle_and_leaves_nothing() {
    let mut b = Bed::with(|p| p.pool = vec![pool(1, 2000, 2000)]);
    let mut served = b.open(4000);
    let mut t = b.accept();
    // It stays in the middle of a turn, and nobody hears of it again.
    let mut c = b.open(4001);
    b.say(&mut c, 30);
    b.exchange(&mut served, &mut t, 10, 10);
    b.fin(&mut served);
    b.receive(&mut t);
    b.close(&mut t);
    b.pass(2 * b.core.params().keepalive_timeout + 10 * SECOND);
    assert_eq!(b.lost(Loss::NoAddress), (1, 30));
    b.assert_over();
    assert_eq!(b.core.audit(), Ok(()));
}

#[test]
fn a_session_without_an_address_leaves_nothing_behind() {
    let mut b = Bed::with(|p| p.pool = vec![pool(1, 2000, 2000)]);
    b.open(4000);
    let mut c = b.open(4001);
    b.say(&mut c, 30);
    b.say_unseen(&mut c, 30);
    b.pass(10 * MS);
    b.say(&mut c, 30);
    b.pass(200 * SECOND);
    b.assert_over();
}

#[test]
fn a_client_s_own_port_that_is_busy_is_replaced() {
    // Two production addresses, one target: the same client endpoint towards both.
    let other = Endpoint::new(Addr::v4([10, 10, 0, 3]), 80);
    let mut b = Bed::with(|p| {
        p.transfers.push(Transfer::new(other, TARGET));
    });
    let (_, t) = b.open_both(4000);
    let mut d = Conv::new(4000);
    d.flow.dst = other;
    let head = Head {
        flags: Flags::SYN,
        ack: Seq(0),
        ..d.head(Flags::SYN, 0)
    };
    assert_eq!(b.mirror(&head), Ok(()));
    d.c += 1;
    b.ack(&d);
    let u = b.accept();
    assert_eq!(t.flow.dst.addr, u.flow.dst.addr);
    assert_ne!(t.flow.dst.port, u.flow.dst.port);
    assert!(u.flow.dst.port >= 1024);
    assert_eq!(b.out.sent.last().unwrap().target, 1);
}

#[test]
fn another_port_belongs_to_the_same_core() {
    let ownership = |me| Ownership {
        cores: 4,
        me,
        by: crate::owner::HashBy::Client,
    };
    let client = Conv::new(4000).flow.src;
    let me = ownership(0).owner(&client, &PRODUCTION);
    let mut b = Bed::with(|p| {
        p.copies = 8;
        p.ownership = ownership(me);
    });
    b.open(4000);
    let syns = b.take();
    assert_eq!(syns.len(), 8);
    assert!(
        syns.iter()
            .all(|h| ownership(me).is_mine(&h.flow.src, &PRODUCTION))
    );
}

#[test]
fn responses_to_pool_addresses_arrive_at_their_core() {
    let mut b = Bed::with(|p| {
        p.copies = 8;
        p.ownership = Ownership {
            cores: 3,
            me: 2,
            by: crate::owner::HashBy::Flow { table: 128 },
        };
        p.answers = Some(128);
        p.pool = vec![crate::slots::Slice {
            first: Addr::v4([62, 135, 200, 1]),
            addresses: 254,
            low: 1_024,
            high: 22_527,
        }];
    });
    b.open(4000);
    let syns = b.take();
    assert_eq!(syns.len(), 8);
    for syn in syns {
        let hash = wire::rss::owner_hash(&syn.flow.reversed());
        assert_eq!(wire::rss::queue_of(hash, 3), 2, "{:?}", syn.flow);
    }
}

#[test]
fn full_tables_and_a_missing_intercept_shed_new_sessions() {
    let mut b = Bed::with(|p| p.max_sessions = 2);
    b.open(4000);
    b.open(4001);
    let mut c = Conv::new(4002);
    assert_eq!(b.syn(&mut c), Ok(()));
    assert_eq!(b.mirror(&c.head(Flags::default(), 0)), Err(Unused::Shed));
    assert_eq!(b.counters().sessions_shed, 1);
    assert_eq!(b.mirror(&c.head(Flags::PSH, 10)), Err(Unused::Shed));
    assert_eq!(b.lost(Loss::Shed), (1, 10));
    let mut b = Bed::new();
    let (mut c, mut t) = b.open_both(4000);
    b.out.sheds = true;
    let mut d = Conv::new(4001);
    assert_eq!(b.syn(&mut d), Ok(()));
    assert_eq!(b.mirror(&d.head(Flags::default(), 0)), Err(Unused::Shed));
    b.exchange(&mut c, &mut t, 10, 10);
    assert_eq!(b.counters().replayed_turns, 1, "running sessions go on");
}

#[test]
fn a_client_of_the_other_family_needs_a_pool() {
    let mut b = Bed::with(|p| p.transfers[0].from = vec![crate::Origin::any(80)]);
    let v6 = |last: u8| {
        let mut a = [0; 16];
        (a[0], a[15]) = (0xfd, last);
        Addr::v6(a)
    };
    let mut c = Conv::new(4000);
    c.flow = Flow {
        src: Endpoint::new(v6(1), 4000),
        dst: Endpoint::new(v6(2), 80),
    };
    let head = Head {
        flags: Flags::SYN,
        ..c.head(Flags::SYN, 0)
    };
    assert_eq!(b.mirror(&head), Err(Unused::NoTransfer));
    b = Bed::with(|p| {
        p.transfers[0].from = vec![crate::Origin::any(80)];
        p.pool = vec![pool(4, 2000, 3000)];
    });
    assert_eq!(b.mirror(&head), Ok(()));
    c.c += 1;
    b.ack(&c);
    assert_eq!(b.take()[0].flow.dst, TARGET);
}

#[test]
fn an_idle_session_takes_at_most_512_bytes() {
    // A payload of DPDK's layer is a pointer and two 16-bit numbers.
    let bytes = Core::<MemoryPayload>::bytes_per_session();
    assert_eq!(size_of::<MemoryPayload>(), 16);
    assert!(bytes <= 512, "{bytes} bytes");
}

#[test]
fn the_smallest_mtu_carries_a_session() {
    let mut b = Bed::with(|p| p.mtu = 68);
    let (mut c, mut t) = b.open_both(4000);
    let start = c.c;
    b.say(&mut c, 60);
    assert_eq!(b.sent_since(start), [(0, 28), (28, 28), (56, 4)]);
    t.rcv += 60;
    b.respond(&t.head(Flags::default(), 0));
    b.fin(&mut c);
    assert_eq!(b.receive(&mut t), (0, true));
}
