//! Link headers of capture files.

use super::*;

/// A TCP segment over IPv4 or IPv6.
fn packet(v6: bool) -> Vec<u8> {
    let payload = b"GET / HTTP/1.1\r\n\r\n";
    let mut out = Vec::new();
    let ip = if v6 {
        PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 64)
    } else {
        PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 1], 64)
    };
    ip.tcp(40_000, 80, 7, 500)
        .ack(9)
        .write(&mut out, payload)
        .unwrap();
    out
}

fn snap(v6: bool) -> Vec<u8> {
    let t = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    [&[0xaa, 0xaa, 3, 0, 0, 0][..], &t].concat()
}

/// An 802.11 header: subtype and flags, and bytes behind the first 24.
fn wlan(control: u8, flags: u8, more: usize) -> Vec<u8> {
    let mut h = vec![control, flags];
    h.resize(24 + more, 5);
    h
}

fn radiotap(present: &[u32], fields: &[u8]) -> Vec<u8> {
    let present: Vec<u8> = present.iter().flat_map(|p| p.to_le_bytes()).collect();
    let len = (4 + present.len() + fields.len()) as u16;
    [&[0, 0][..], &len.to_le_bytes(), &present, fields].concat()
}

fn nflog(v6: bool, word: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let attribute = |kind: u16, value: &[u8]| {
        let mut a = [word(4 + value.len() as u16), word(kind)].concat();
        a.extend(value);
        a.resize(a.len().next_multiple_of(4), 0);
        a
    };
    let family = if v6 { 10 } else { 2 };
    [
        &[family, 0, 0, 5][..],
        &attribute(1, &[8, 0, 1, 0]),
        &attribute(10, b"rule\0"),
        &word(4 + 58),
        &word(9),
    ]
    .concat()
}

fn pktap(link: u32, more: &[u8]) -> Vec<u8> {
    let mut h = [108u32, 1, link].map(u32::to_le_bytes).concat();
    h.resize(108, 0);
    h.extend(more);
    h
}

fn ethernet(v6: bool) -> Vec<u8> {
    let mut h = vec![2; 12];
    h.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    h
}

/// Every link type and what stands before IP.
fn headers(v6: bool) -> Vec<(u16, Vec<u8>)> {
    let family = |v4: u32, v6_as: u32| if v6 { v6_as } else { v4 };
    let t = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    let p = if v6 { 0x57 } else { 0x21 };
    let mut sll = vec![0; 14];
    sll.extend(t);
    let mut sll2 = t.to_vec();
    sll2.resize(20, 0);
    // 802.3 in a cooked capture.
    let sll_802_2 = [&[0; 14][..], &[0, 4], &snap(v6)].concat();
    let qos = [wlan(0x88, 0x01, 2), snap(v6)].concat();
    let padded = [wlan(0x88, 0x01, 2), vec![0; 2], snap(v6)].concat();
    let length = |h: Vec<u8>, len: u16, link: u32| {
        [&h[..], &len.to_le_bytes(), &link.to_le_bytes()].concat()
    };
    let mut pflog = vec![61, family(2, 24) as u8];
    pflog.resize(64, 0);
    vec![
        (1, ethernet(v6)),
        (12, vec![]),
        (14, vec![]),
        (101, vec![]),
        (228, vec![]),
        (229, vec![]),
        (0, family(2, 30).to_le_bytes().to_vec()),
        (0, family(2, 24).to_be_bytes().to_vec()),
        (108, family(2, 28).to_be_bytes().to_vec()),
        (113, sll),
        (113, sll_802_2),
        (276, sll2),
        (9, vec![0xff, 3, 0, p]),
        (9, vec![0, p]),
        (9, vec![p]),
        (9, vec![0xff, 3, p]),
        (9, [&[0x02, 0x81][..], &[0, 0, 0x11, 64]].concat()),
        (50, vec![0xff, 3, 0, p]),
        (50, [&[0x0f, 0][..], &t].concat()),
        (104, [&[0x8f, 0][..], &t].concat()),
        (51, vec![0x11, 0, 0, 1, 0, 60, 0, p]),
        (100, snap(v6)),
        (10, [vec![0x54; 13], snap(v6)].concat()),
        (105, [wlan(0x08, 0x01, 0), snap(v6)].concat()),
        (105, [wlan(0x08, 0x03, 6), snap(v6)].concat()),
        (105, qos.clone()),
        (127, [radiotap(&[0], &[]), qos.clone()].concat()),
        // The clock, and flags that say it is padded.
        (
            127,
            [
                radiotap(&[3], &[0, 0, 0, 0, 0, 0, 0, 0, 0x20]),
                padded.clone(),
            ]
            .concat(),
        ),
        // The same with a second word of what is present, and bytes up to the boundary.
        (
            127,
            [
                radiotap(
                    &[3 | 1 << 31, 0],
                    &[0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 0x20, 0, 0],
                ),
                padded.clone(),
            ]
            .concat(),
        ),
        (127, [radiotap(&[2], &[0x20]), padded].concat()),
        (192, [length(vec![0, 0], 8, 105), qos].concat()),
        (
            192,
            [length(vec![0, 0], 12, 1), vec![0; 4], ethernet(v6)].concat(),
        ),
        (239, nflog(v6, u16::to_le_bytes)),
        (239, nflog(v6, u16::to_be_bytes)),
        (117, pflog),
        (258, pktap(1, &ethernet(v6))),
        (149, pktap(12, &[])),
        (149, pktap(0, &family(2, 30).to_le_bytes())),
    ]
}

#[test]
fn every_link_type_leads_to_the_same_segment() {
    for v6 in [false, true] {
        let packet = packet(v6);
        let plain = mirrored_on(LinkType::RawIp, &packet, packet.len()).unwrap();
        assert_eq!(plain.head.payload_len, 18);
        for (number, header) in headers(v6) {
            let link = LinkType::from_pcap(number).unwrap();
            let frame = [&header[..], &packet].concat();
            let case = format!("link type {number}, {header:02x?}, IPv6: {v6}");
            let seen = mirrored_on(link, &frame, frame.len());
            let seen = seen.unwrap_or_else(|skip| panic!("{case}: {skip:?}"));
            assert_eq!(seen.head, plain.head, "{case}");
            assert_eq!(
                seen.payload_offset,
                plain.payload_offset + header.len(),
                "{case}"
            );
            for len in 0..frame.len() {
                // What is cut short is never more than it is.
                if let Ok(p) = mirrored_on(link, &frame[..len], len) {
                    assert!(p.payload_offset + p.captured <= len, "{case}");
                }
            }
        }
    }
}

#[test]
fn what_is_no_ip_behind_a_link_header_is_told_apart() {
    let packet = packet(false);
    for (number, header, why) in [
        (0, vec![7, 0, 0, 0], Skip::NotIp),
        (9, vec![0xff, 3, 0xc0, 0x21], Skip::NotIp),
        (9, vec![0, 0x53], Skip::Encrypted),
        (9, vec![0xff, 3, 0, 0xfd], Skip::UnknownEncapsulation),
        (
            51,
            vec![0x12, 0, 0, 1, 0, 60, 0, 0x21],
            Skip::BadEncapsulation,
        ),
        (10, [vec![0xc1; 13], snap(false)].concat(), Skip::NotIp),
        // A beacon, a null function, an encrypted frame.
        (105, wlan(0x80, 0, 8), Skip::NotIp),
        (105, wlan(0x48, 0, 8), Skip::NotIp),
        (105, wlan(0x08, 0x41, 8), Skip::Encrypted),
        (127, vec![1, 0, 8, 0, 0, 0, 0, 0], Skip::BadEncapsulation),
        (127, vec![0, 0, 7, 0, 0, 0, 0, 0], Skip::BadEncapsulation),
        (192, vec![0, 0, 7, 0, 1, 0, 0, 0], Skip::BadEncapsulation),
        (192, vec![0, 0, 8, 0, 192, 0, 0, 0], Skip::LinkType),
        (192, vec![0, 0, 8, 0, 195, 0, 0, 0], Skip::LinkType),
        (239, vec![2, 1, 0, 0], Skip::UnknownEncapsulation),
        (239, vec![7, 0, 0, 0], Skip::NotIp),
        (239, vec![2, 0, 0, 0, 3, 0, 1, 0], Skip::BadEncapsulation),
        (117, vec![61, 7, 0, 0], Skip::NotIp),
        (149, vec![0x45; 108], Skip::LinkType),
        (258, pktap(195, &[]), Skip::LinkType),
    ] {
        let frame = [&header[..], &packet].concat();
        let link = LinkType::from_pcap(number).unwrap();
        let seen = mirrored_on(link, &frame, frame.len());
        assert_eq!(seen, Err(why), "link type {number}, {header:02x?}");
    }
    for number in [195, 230, 147, 252, 65_535] {
        assert_eq!(LinkType::from_pcap(number), None);
    }
}

proptest! {
    #[test]
    fn any_bytes_of_any_link_type_are_read_without_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), longer in 0usize..100,
    ) {
        let len = bytes.len() + longer;
        for link in (0..300).filter_map(LinkType::from_pcap) {
            if let Ok(p) = mirrored_on(link, &bytes, len) {
                prop_assert!(p.payload_offset <= bytes.len() && p.captured <= len);
            }
        }
    }
}
