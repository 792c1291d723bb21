//! Reassembly by DPDK: both families, any order, and every way in which parts do not make a
//! datagram. Each part that goes in is accounted for, and the pools lose no mbuf.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

#[path = "../common/mod.rs"]
mod common;
mod rig;

use arrayvec::ArrayVec;
use common::{Loop, Pool, eal, flatten, pattern, pcap, unique};
use dpdk::{HEADROOM, Mbuf, MirrorPort, PortOptions, Reassembly};
use rig::{Rig, SECOND, Style, TIMEOUT, insert_frame, payload, segment, sound_segment};
use wire::Nanos;
use wire::decode::{LinkType, MirrorOptions, Skip, Use, fragment, mirrored_frame, mirrored_on};
use wire::defragment::{FragmentDrop, MAX_PARTS};
use wire::io::BURST;

#[test]
fn every_order_of_the_parts_makes_the_datagram() {
    for v6 in [false, true] {
        let mut rig = Rig::new(64);
        let s = segment(1_001);
        let mut datagrams = 0;
        // All permutations of four parts, by Lehmer's code.
        for code in 0..24u32 {
            let style = Style {
                ident: code,
                ..Style::new(v6)
            };
            let mut parts = style.parts(&s, 256);
            assert_eq!(parts.len(), 4);
            let (mut left, mut whole) = (code as usize, None);
            for n in (1..=4).rev() {
                assert!(whole.is_none(), "before the last part came");
                whole = rig.insert(0, &parts.remove(left % n));
                left /= n;
            }
            assert_eq!(payload(whole.unwrap()), s[20..], "IPv6: {v6}, order {code}");
            datagrams += 1;
            let c = rig.table.counters();
            assert_eq!((c.datagrams, c.merged), (datagrams, 3 * datagrams));
            assert_eq!(c.dropped, [0; FragmentDrop::COUNT]);
            rig.check(0);
        }
    }
}

#[test]
fn as_many_parts_as_dpdk_takes_and_one_more() {
    for v6 in [false, true] {
        let mut rig = Rig::new(64);
        let s = segment(8 * 64 - 20);
        let parts = Style::new(v6).parts(&s, 64);
        assert_eq!(parts.len(), MAX_PARTS);
        rig.feed(0, &parts[..7]);
        assert_eq!(payload(rig.insert(0, &parts[7]).unwrap()), s[20..]);

        let style = Style {
            ident: 8,
            ..Style::new(v6)
        };
        let parts = style.parts(&segment(8 * 64 - 19), 64);
        assert_eq!(parts.len(), MAX_PARTS + 1);
        rig.feed(0, &parts);
        assert_eq!(rig.dropped(FragmentDrop::Invalid), 9);
        rig.check(0);
    }
}

#[test]
fn what_stands_before_and_behind_the_datagram_goes() {
    // A VLAN tag, IPv4 options, padding; and as much as no mbuf field could tell the length of.
    let mut tagged = Style::new(false);
    tagged
        .link
        .splice(12..12, [0x81, 0x00, 0x00, 0x07])
        .for_each(drop);
    tagged.more = vec![1; 12];
    tagged.padding = 9;
    let mut deep = Style::new(true);
    // Eight VLAN-tagged frames in one another would be refused; IP in IP in IP is not.
    let outer = |inner: usize| {
        let mut b = vec![0x45, 0];
        b.extend((20 + inner as u16).to_be_bytes());
        b.extend([0, 0, 0, 0, 64, 41, 0, 0, 192, 168, 0, 1, 192, 168, 0, 2]);
        b
    };
    let s = segment(700);
    let mut rig = Rig::new(64);
    let parts = tagged.parts(&s, 400);
    rig.feed(0, &parts[..1]);
    assert_eq!(payload(rig.insert(0, &parts[1]).unwrap()), s[20..]);

    deep.link.clear();
    let parts: Vec<_> = deep
        .parts(&s, 400)
        .into_iter()
        .map(|mut b| {
            for protocol in [41, 4, 4, 4, 4, 4, 4] {
                let mut ip = outer(b.len());
                ip[9] = protocol;
                b = [ip, b].concat();
            }
            [&[2; 12][..], &[8, 0], &b].concat()
        })
        .collect();
    assert!(fragment(&parts[0], parts[0].len()).unwrap().ip_offset > 127);
    rig.feed(0, &parts[..1]);
    assert_eq!(payload(rig.insert(0, &parts[1]).unwrap()), s[20..]);
    rig.check(0);
}

#[test]
fn extension_headers_before_the_fragment_header_are_taken_out() {
    let mut rig = Rig::new(64);
    let style = Style {
        // Hop-by-hop options, then a destination header of 16 bytes.
        more: [vec![60, 0, 1, 4, 0, 0, 0, 0], vec![44, 1], vec![0; 14]].concat(),
        ..Style::new(true)
    };
    let s = segment(900);
    let parts = style.parts(&s, 312);
    let found = fragment(&parts[0], parts[0].len()).unwrap();
    assert_eq!(found.ip_header_len, 40 + 24 + 8);
    rig.feed(0, [&parts[1], &parts[0]]);
    assert_eq!(payload(rig.insert(0, &parts[2]).unwrap()), s[20..]);
    rig.check(0);
}

#[test]
fn copies_of_parts_are_dropped_and_the_datagram_is_whole_once() {
    for v6 in [false, true] {
        let mut rig = Rig::new(64);
        let s = segment(1_000);
        let parts = Style::new(v6).parts(&s, 400);
        let mut whole = vec![];
        // As a mirror of two ports shows them.
        for p in &parts {
            whole.extend(rig.insert(0, p));
            whole.extend(rig.insert(1_000, p));
        }
        assert_eq!(whole.len(), 1);
        assert_eq!(payload(whole.remove(0)), s[20..]);
        assert_eq!(rig.dropped(FragmentDrop::Duplicate), 3);
        rig.check(0);
    }
}

#[test]
fn overlaps_holes_and_contradictions_lose_the_datagram() {
    let data = pattern(2_000, 1);
    for v6 in [false, true] {
        let at = |ident, range: std::ops::Range<usize>, more| {
            let style = Style {
                ident,
                ..Style::new(v6)
            };
            style.part(range.start, more, &data[range])
        };
        let cases = [
            // A middle part over the first one.
            vec![
                at(1, 0..400, true),
                at(1, 392..800, true),
                at(1, 800..900, false),
            ],
            // Two first parts.
            vec![at(2, 0..400, true), at(2, 0..408, true)],
            // Two last parts.
            vec![at(3, 400..500, false), at(3, 400..501, false)],
            // As many bytes as there should be, but one part twice, shifted, and so a hole.
            vec![
                at(4, 0..400, true),
                at(4, 800..1200, true),
                at(4, 808..1208, true),
                at(4, 1200..1300, false),
            ],
            // The last part ends before others do.
            vec![at(5, 0..800, true), at(5, 400..408, false)],
        ];
        for (i, parts) in cases.iter().enumerate() {
            let mut rig = Rig::new(64);
            rig.feed(0, parts);
            let held = rig.table.counters().held();
            assert_eq!(
                rig.dropped(FragmentDrop::Invalid) + held,
                parts.len() as u64,
                "case {i}: {:?}",
                rig.table
            );
            assert_eq!(held, 0, "case {i}");
            rig.check(0);
        }
    }
}

#[test]
fn what_comes_of_a_spoilt_datagram_is_dropped_as_well() {
    let mut rig = Rig::new(64);
    let parts = Style::new(false).parts(&segment(1_500), 400);
    let overlap = Style::new(false).part(0, true, &pattern(392, 9));
    rig.feed(0, [&parts[0], &overlap, &parts[1], &parts[2], &parts[3]]);
    assert_eq!(rig.dropped(FragmentDrop::Invalid), 5);
    rig.check(0);
}

#[test]
fn cut_empty_odd_and_overlong_parts_are_dropped() {
    let style = Style::new(false);
    let mut rig = Rig::new(64);
    let cut = style.part(0, true, &pattern(400, 1));
    rig.feed(0, [&cut[..100].to_vec()]);
    assert_eq!(rig.dropped(FragmentDrop::Truncated), 1);
    rig.feed(
        0,
        [
            &style.part(8, true, &[]),
            &style.part(8, true, &[1; 9]),
            &style.part(65_528, false, &[1; 100]),
        ],
    );
    assert_eq!(rig.dropped(FragmentDrop::Invalid), 3);
    rig.check(0);
}

#[test]
fn what_stays_incomplete_expires() {
    for v6 in [false, true] {
        let mut rig = Rig::new(512);
        let s = segment(1_000);
        // More than DPDK frees at a time.
        for ident in 0..200 {
            let style = Style {
                ident,
                ..Style::new(v6)
            };
            let parts = style.parts(&s, 400);
            rig.feed(Nanos::from(ident), [&parts[0], &parts[2]]);
        }
        rig.check(400);
        assert_eq!(rig.table.expire(TIMEOUT), 0, "the first is just in time");
        assert_eq!(rig.table.expire(TIMEOUT + 100), 200);
        rig.check(200);
        // The missing part comes too late for one of the first, and in time for one of the last.
        let missing = |ident| {
            Style {
                ident,
                ..Style::new(v6)
            }
            .parts(&s, 400)
            .remove(1)
        };
        assert!(rig.insert(TIMEOUT + 100, &missing(3)).is_none());
        assert_eq!(
            payload(rig.insert(TIMEOUT + 100, &missing(150)).unwrap()),
            s[20..]
        );
        assert_eq!(rig.table.clear() as u64, 200 - 2 + 1);
        assert_eq!(rig.dropped(FragmentDrop::Expired), 200 + 199);
        rig.check(0);
    }
}

/// Nobody calls [`Reassembly::expire`] here: DPDK finds by itself that the time of a datagram is
/// over.
#[test]
fn an_identification_that_is_used_again_later_is_another_datagram() {
    let mut rig = Rig::new(64);
    let (old, new) = (segment(500), segment(800));
    rig.feed(0, [&Style::new(false).parts(&old, 400)[0]]);
    let parts = Style::new(false).parts(&new, 416);
    let later = TIMEOUT + 1;
    rig.feed(later, [&parts[0]]);
    assert_eq!(rig.dropped(FragmentDrop::Expired), 1);
    assert_eq!(payload(rig.insert(later, &parts[1]).unwrap()), new[20..]);
    rig.check(0);
}

#[test]
fn a_full_table_refuses_and_what_it_holds_is_freed_with_it() {
    let mut rig = Rig::new(4);
    let s = segment(600);
    let style = |ident| Style {
        ident,
        ..Style::new(false)
    };
    for ident in 0..10 {
        rig.feed(0, [&style(ident).parts(&s, 320)[0]]);
    }
    let full = rig.dropped(FragmentDrop::TableFull);
    assert_eq!(full, 6);
    rig.check(4);
    // The others are not harmed.
    assert_eq!(
        payload(rig.insert(0, &style(0).parts(&s, 320)[1]).unwrap()),
        s[20..]
    );
    rig.check(3);
    let Rig { table, pool } = rig;
    drop(table);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn protocols_and_directions_are_kept_apart() {
    let mut rig = Rig::new(64);
    let s = segment(600);
    let tcp = Style::new(false);
    let udp = Style {
        protocol: 17,
        ..tcp.clone()
    };
    let (a, b) = (tcp.parts(&s, 320), udp.parts(&pattern(620, 5), 320));
    rig.feed(0, [&a[0], &b[0]]);
    assert_eq!(payload(rig.insert(0, &a[1]).unwrap()), s[20..]);
    assert!(rig.insert(0, &b[1]).is_some());
    let c = rig.table.counters();
    assert_eq!((c.datagrams, c.merged), (2, 2));
    rig.check(0);
}

#[test]
fn a_first_part_shorter_than_the_headers_is_filled_up() {
    for v6 in [false, true] {
        for len in [100, 3_000] {
            let mut rig = Rig::new(64);
            let s = segment(len);
            let style = Style::new(v6);
            let rest = &s[16..];
            let middle = rest.len() / 16 * 8;
            let parts = [
                style.part(0, true, &s[..8]),
                style.part(8, true, &s[8..16]),
                style.part(16, true, &rest[..middle]),
                style.part(16 + middle, false, &rest[middle..]),
            ];
            rig.feed(0, &parts[..3]);
            let whole = rig.insert(0, &parts[3]).unwrap();
            assert!(whole.bytes().len() >= whole.frame_len().min(256));
            assert_eq!(payload(whole), s[20..]);
            rig.check(0);
        }
    }
}

/// Longer than one buffer, as jumbo frames are: each part comes as a chain itself.
#[test]
fn parts_in_chains_from_a_capture_file_make_the_datagram() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.pcap");
    let s = segment(9_000);
    let mut frames = vec![];
    for v6 in [false, true] {
        let mut style = Style::new(v6);
        style.padding = 700;
        let parts = style.parts(&s, 4_000);
        for (i, n) in [2, 0, 1].into_iter().enumerate() {
            frames.push((1_000_000 + i as u64, parts[n].clone()));
        }
    }
    std::fs::write(&path, pcap(&frames)).unwrap();
    let pool = Pool::new(511, HEADROOM + 512);
    let device = format!("net_pcap{},rx_pcap={}", unique(), path.display());
    let (port, mut rx) = MirrorPort::open(&eal(), &device, &PortOptions::default(), &pool).unwrap();
    let mut table = Reassembly::new(&eal(), 16, TIMEOUT, None).unwrap();
    let mut whole = vec![];
    loop {
        let mut burst: ArrayVec<Mbuf, BURST> = ArrayVec::new();
        if rx[0].rx_burst(&mut burst) == 0 {
            break;
        }
        for frame in burst {
            assert!(frame.segments() > 1);
            whole.extend(insert_frame(&mut table, 0, frame));
        }
    }
    let c = table.counters();
    assert_eq!((c.received, c.datagrams, c.merged), (6, 2, 4));
    for datagram in whole {
        // The time of the part that came last, not of the one that stands first.
        assert_eq!(datagram.captured_at(), Some(1_000_002_000));
        assert_eq!(payload(datagram), s[20..]);
    }
    drop((table, rx, port));
    assert_eq!(pool.in_use(), 0);
}

/// Parts that crossed a port keep nothing of it, and what a datagram was made of can be sent on.
#[test]
fn parts_from_a_port_become_payloads_that_can_be_sent() {
    let mut l = Loop::new();
    let mut table = Reassembly::new(&eal(), 16, TIMEOUT, None).unwrap();
    let s = segment(2_000);
    for p in Style::new(true).parts(&s, 1_200) {
        l.tx.send(&p, None).unwrap_or_else(|_| {
            // Longer than a buffer for headers: the data goes as a payload.
            let mut data = l.frame(&p[54..]).into_payload(0..p.len());
            let len = data.len();
            l.tx.send(&p[..54], Some((&mut data, 0..len))).unwrap();
        });
    }
    l.tx.flush();
    let mut whole = None;
    for frame in l.receive() {
        // What a driver delivers is one frame with one owner; this loop delivers what was sent,
        // header and payload in a chain.
        let mut one = l.packets.alloc().unwrap();
        assert!(one.append(&flatten(frame)));
        whole = insert_frame(&mut table, 0, one);
    }
    let mut whole = whole.unwrap();
    let p = mirrored_on(LinkType::RawIp, whole.bytes(), whole.frame_len()).unwrap();
    let rest = whole.split_rest();
    let first = whole.bytes().len();
    let mut sent = vec![];
    for (m, range) in [(Some(whole), p.payload_range(first)), (rest, 0..1_200)] {
        let mut payload = m.unwrap().into_payload(range);
        let len = payload.len();
        l.tx.send(&common::headers(1), Some((&mut payload, 0..len)))
            .unwrap();
        l.tx.flush();
        sent.extend(flatten(l.receive().remove(0)).split_off(54));
    }
    assert_eq!(sent, s[20..]);
}

/// Damage to a part shows in the checksum of the whole, which goes on from buffer to buffer.
#[test]
fn a_datagram_is_verified_when_it_is_whole() {
    let mut rig = Rig::new(16);
    let options = MirrorOptions::on(LinkType::RawIp);
    for v6 in [false, true] {
        let style = Style::new(v6);
        let s = sound_segment(v6, 4_001);
        for damaged in [None, Some(0), Some(1), Some(2)] {
            let mut parts = style.parts(&s, 1_480);
            if let Some(last) = damaged.and_then(|i: usize| parts[i].last_mut()) {
                *last ^= 1;
            }
            let now = SECOND * (1 + damaged.map_or(0, |i| 10 * (i as u64 + 1)));
            rig.feed(now, &parts[1..]);
            let whole = rig.insert(now, &parts[0]).unwrap();
            assert!(whole.segments() > 1);
            let got = mirrored_frame(&options, &whole, |_| Use::All).map(|p| p.head.payload_len);
            let want = match damaged {
                None => Ok(4_001),
                Some(_) => Err(Skip::BadChecksum),
            };
            assert_eq!(got, want, "v6 {v6}, part {damaged:?}");
        }
    }
    rig.check(0);
}

/// Two tenants, the same addresses and the same identification at the same time.
#[test]
fn parts_from_two_vlans_make_no_datagram_together() {
    for v6 in [false, true] {
        let mut rig = Rig::new(16);
        let styles = [1, 2].map(|vlan| {
            let mut style = Style::new(v6);
            style.link.splice(12..12, [0x81, 0, 0, vlan]);
            style
        });
        let segments = [segment(2_000), sound_segment(v6, 2_000)];
        let parts = [0, 1].map(|i| styles[i].parts(&segments[i], 1_200));
        rig.feed(SECOND, [&parts[0][0], &parts[1][0]]);
        for i in [1, 0] {
            let whole = rig.insert(SECOND, &parts[i][1]).unwrap();
            assert_eq!(payload(whole), segments[i][20..]);
        }
        rig.check(0);
    }
}

#[test]
fn a_table_that_cannot_be_made_says_so() {
    let error = Reassembly::new(&eal(), 0, TIMEOUT, None).unwrap_err();
    assert!(error.to_string().contains("up to 0 datagrams"), "{error}");
    // Far more than the memory that the tests' EAL has.
    let error = Reassembly::new(&eal(), 1 << 24, TIMEOUT, None).unwrap_err();
    assert!(error.to_string().contains("16777216 datagrams"), "{error}");
}

/// Parts at random places of a few datagrams, at random times: whatever comes of it, the books
/// balance, no mbuf is lost, and a datagram that comes out has no byte that was not sent at its
/// place.
#[test]
fn random_parts_are_all_accounted_for() {
    let mut rig = Rig::new(8);
    let data = pattern(4_096, 77);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 20) % n
    };
    let (mut now, mut datagrams) = (0, 0);
    for _ in 0..20_000 {
        now += random(SECOND / 40);
        if random(10) == 0 {
            rig.table.expire(now);
        }
        let style = Style {
            ident: random(6) as u32,
            protocol: 99,
            ..Style::new(random(2) == 0)
        };
        let offset = random(4) as usize * 64;
        let len = (1 + random(3) as usize) * 64;
        let more = random(4) != 0 || offset == 0;
        let bytes = style.part(offset, more, &data[offset..offset + len]);
        if let Some(datagram) = rig.insert(now, &bytes) {
            let header = if style.v6 { 40 } else { 20 };
            let bytes = flatten(datagram);
            assert_eq!(bytes[header..], data[..bytes.len() - header]);
            datagrams += 1;
        }
        let held = rig.table.counters().held();
        assert_eq!(u64::from(rig.pool.in_use()), held);
    }
    assert!(datagrams > 100, "only {datagrams} datagrams became whole");
    for reason in FragmentDrop::ALL {
        let never = reason == FragmentDrop::Truncated;
        assert_eq!(rig.dropped(reason) == 0, never, "{reason:?}");
    }
    rig.table.clear();
    rig.check(0);
}
