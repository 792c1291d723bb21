use super::*;

const SECOND: Nanos = 1_000_000_000;
const TIMEOUT: Nanos = 2 * SECOND;

fn part(ident: u32, offset: usize, len: usize, more: bool) -> Fragment {
    Fragment {
        ip_offset: 14,
        ip_header_len: 20,
        src: Addr::v4([10, 0, 0, 1]),
        dst: Addr::v4([10, 0, 0, 2]),
        protocol: 6,
        ident,
        offset,
        more,
        len,
        captured: len,
        scope: 0,
    }
}

#[test]
fn all_is_indexed_by_discriminant_and_names_differ() {
    for (i, d) in FragmentDrop::ALL.into_iter().enumerate() {
        assert_eq!(d as usize, i);
        let same = |o: &&FragmentDrop| o.name() == d.name();
        assert_eq!(FragmentDrop::ALL.iter().filter(same).count(), 1);
        assert!(d.name().starts_with("fragment_"));
    }
}

#[test]
fn parts_that_can_belong_to_no_datagram_are_refused() {
    assert_eq!(plausible(&part(1, 0, 1480, true)), Ok(()));
    assert_eq!(plausible(&part(1, 1480, 7, false)), Ok(()));
    assert_eq!(plausible(&part(1, 65_528, 7, false)), Ok(()));
    let invalid = Err(FragmentDrop::Invalid);
    assert_eq!(
        plausible(&part(1, 0, 1481, true)),
        invalid,
        "not in units of 8"
    );
    assert_eq!(plausible(&part(1, 8, 0, false)), invalid, "empty");
    assert_eq!(plausible(&part(1, 65_528, 8, false)), invalid, "too long");
    let cut = Fragment {
        captured: 60,
        ..part(1, 0, 1480, true)
    };
    assert_eq!(plausible(&cut), Err(FragmentDrop::Truncated));
}

#[test]
fn the_parts_of_a_datagram_share_a_hash_that_others_do_not() {
    let a = part(7, 0, 1480, true);
    let b = Fragment {
        ip_offset: 18,
        ip_header_len: 24,
        ..part(7, 1480, 3, false)
    };
    assert_eq!(datagram_hash(&a), datagram_hash(&b));
    let back = Fragment {
        src: a.dst,
        dst: a.src,
        ..a
    };
    let udp = Fragment { protocol: 17, ..a };
    let vlan = Fragment { scope: 5, ..a };
    for other in [part(8, 0, 1480, true), back, udp, vlan] {
        assert_ne!(datagram_hash(&a), datagram_hash(&other));
    }
    let mut l = Ledger::new(1, TIMEOUT);
    assert_eq!(l.check(0, &a), PartStatus::New);
    assert_eq!(l.check(1, &vlan), PartStatus::New);
    // In IPv6 the later parts need not agree in their next header.
    let v6 = |protocol| Fragment {
        src: Addr::v6([0x20; 16]),
        dst: Addr::v6([0x21; 16]),
        protocol,
        ..a
    };
    assert_eq!(datagram_hash(&v6(6)), datagram_hash(&v6(60)));
}

#[test]
fn hashes_deal_datagrams_out_evenly() {
    let mut dealt = [0u32; 4];
    for ident in 0..4_000 {
        dealt[datagram_hash(&part(ident, 0, 8, true)) as usize % 4] += 1;
    }
    assert!(dealt.iter().all(|n| (800..1_200).contains(n)), "{dealt:?}");
}

#[test]
fn copies_are_known_while_the_datagram_is_open_and_for_a_moment_after() {
    let mut l = Ledger::new(16, TIMEOUT);
    let (a, b) = (part(1, 0, 1480, true), part(1, 1480, 20, false));
    assert_eq!(l.check(0, &a), PartStatus::New);
    assert_eq!(l.check(TIMEOUT, &a), PartStatus::Duplicate);
    assert_eq!(l.check(TIMEOUT, &b), PartStatus::New);
    l.complete(TIMEOUT, &b);
    assert_eq!(l.check(TIMEOUT + ECHO, &a), PartStatus::Duplicate);
    assert_eq!(l.check(TIMEOUT + ECHO, &b), PartStatus::Duplicate);
    // Later the sender may have come round to the same identification.
    assert_eq!(l.check(TIMEOUT + ECHO + 1, &a), PartStatus::New);
    assert_eq!(l.check(TIMEOUT + ECHO + 1, &b), PartStatus::New);
}

#[test]
fn a_part_that_differs_after_the_end_begins_another_datagram() {
    let mut l = Ledger::new(16, TIMEOUT);
    let (a, b) = (part(1, 0, 1480, true), part(1, 1480, 20, false));
    l.check(0, &a);
    l.check(0, &b);
    l.complete(0, &b);
    assert_eq!(l.check(1, &part(1, 0, 512, true)), PartStatus::New);
    assert_eq!(l.check(1, &b), PartStatus::New);
}

#[test]
fn an_open_datagram_is_forgotten_after_its_time() {
    let mut l = Ledger::new(16, TIMEOUT);
    let a = part(1, 0, 1480, true);
    assert_eq!(l.check(5, &a), PartStatus::New);
    assert_eq!(l.check(5 + TIMEOUT + 1, &a), PartStatus::New);
    l.clear();
    assert_eq!(l.check(5 + TIMEOUT + 1, &a), PartStatus::New);
}

#[test]
fn what_comes_of_a_refused_datagram_is_refused_as_well() {
    let mut l = Ledger::new(16, TIMEOUT);
    let (a, b) = (part(1, 0, 1480, true), part(1, 1480, 20, false));
    l.check(0, &a);
    l.refuse(0, &a, FragmentDrop::TableFull);
    let refused = PartStatus::Refused(FragmentDrop::TableFull);
    assert_eq!(l.check(TIMEOUT, &b), refused);
    assert_eq!(l.check(TIMEOUT, &a), refused);
    assert_eq!(l.check(TIMEOUT + 1, &b), PartStatus::New);
}

#[test]
fn a_place_taken_by_another_datagram_is_not_mistaken_for_it() {
    let mut l = Ledger::new(1, TIMEOUT);
    let (a, other) = (part(1, 0, 1480, true), part(2, 0, 1480, true));
    assert_eq!(l.check(0, &a), PartStatus::New);
    assert_eq!(l.check(0, &other), PartStatus::New);
    // Neither end of the first one touches the second.
    l.complete(0, &a);
    l.refuse(0, &a, FragmentDrop::Invalid);
    assert_eq!(l.check(0, &other), PartStatus::Duplicate);
    assert_eq!(l.check(0, &a), PartStatus::New);
}

#[test]
fn more_parts_than_it_remembers_do_no_harm() {
    let mut l = Ledger::new(4, TIMEOUT);
    for i in 0..3 * MAX_PARTS {
        assert_eq!(l.check(0, &part(1, i * 8, 8, true)), PartStatus::New);
    }
    assert_eq!(l.check(0, &part(1, 0, 8, true)), PartStatus::Duplicate);
}

#[test]
fn counters_add_up() {
    let c = FragmentCounters {
        received: 10,
        datagrams: 2,
        merged: 3,
        dropped: [1, 0, 1, 0, 1],
    };
    assert_eq!(c.held(), 2);
}
