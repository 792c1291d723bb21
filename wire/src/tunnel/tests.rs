use crate::decode::{MAX_DEPTH, Packet, mirrored};
use crate::samples;
use crate::{Addr, Head, Skip, ipv4, ipv6};

const ETH: [u8; 12] = [2; 12];

fn eth(t: u16, inner: &[u8]) -> Vec<u8> {
    [&ETH[..], &t.to_be_bytes(), inner].concat()
}

fn ip4(protocol: u8, inner: &[u8]) -> Vec<u8> {
    let h = ipv4::header(
        &Addr::v4([172, 16, 0, 1]),
        &Addr::v4([172, 16, 0, 2]),
        protocol,
        64,
        1,
        inner.len(),
    );
    [&h[..], inner].concat()
}

fn ip6(next: u8, inner: &[u8]) -> Vec<u8> {
    let a = Addr::v6([0xfd; 16]);
    [&ipv6::header(&a, &a, next, 64, inner.len())[..], inner].concat()
}

fn udp(port: u16, inner: &[u8]) -> Vec<u8> {
    let len = (inner.len() as u16 + 8).to_be_bytes();
    let [hi, lo] = port.to_be_bytes();
    ip4(
        17,
        &[&[0x9c, 0x40, hi, lo, len[0], len[1], 0, 0][..], inner].concat(),
    )
}

fn gre(head: &[u8], inner: &[u8]) -> Vec<u8> {
    ip4(47, &[head, inner].concat())
}

fn decode(frame: &[u8]) -> Result<Packet, Skip> {
    mirrored(frame, frame.len())
}

/// The frame decodes to this segment, also with padding behind it, and cut anywhere it neither
/// fails oddly nor invents a byte.
fn carries(name: &str, frame: Vec<u8>, head: &Head) {
    let p = decode(&frame).unwrap_or_else(|s| panic!("{name}: {s}"));
    assert_eq!(p.head, *head, "{name}");
    assert_eq!(&frame[p.payload_range(frame.len())], b"hello", "{name}");
    let padded = [&frame[..], &[0; 30]].concat();
    assert_eq!(decode(&padded), Ok(p), "{name} padded");
    for cut in 0..frame.len() {
        match decode(&frame[..cut]) {
            Ok(q) => assert!(
                q.head == *head && q.captured == cut - p.payload_offset,
                "{name} cut at {cut}"
            ),
            // A frame with an open end cannot be told from a shorter one of another kind.
            Err(s) => assert!(
                matches!(s, Skip::TooShort | Skip::NotIp | Skip::BadVersion),
                "{name} cut at {cut}: {s}"
            ),
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "it takes Miri minutes")]
fn every_tunnel_is_opened() {
    for (head, inner) in [samples::plain(b"hello"), samples::plain6(b"hello")] {
        let ip = &inner[14..];
        let t = u16::from_be_bytes([inner[12], inner[13]]);
        let [t0, t1] = t.to_be_bytes();
        let proto = if head.flow.src.addr.is_v4() { 4 } else { 41 };
        let cat = |a: &[u8], b: &[u8]| [a, b].concat();

        carries("IP in IPv4", eth(0x0800, &ip4(proto, ip)), &head);
        carries("IP in IPv6", eth(0x86dd, &ip6(proto, ip)), &head);
        carries("GRE", eth(0x0800, &gre(&[0, 0, t0, t1], ip)), &head);
        carries(
            "GRE in IPv6",
            eth(0x86dd, &ip6(47, &cat(&[0, 0, t0, t1], ip))),
            &head,
        );
        let all = [0xb0, 0, t0, t1, 9, 9, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1];
        carries(
            "GRE with checksum, key and sequence",
            eth(0x0800, &gre(&all, ip)),
            &head,
        );
        carries(
            "NVGRE",
            eth(0x0800, &gre(&[0x20, 0, 0x65, 0x58, 0, 0, 1, 0], &inner)),
            &head,
        );
        carries(
            "ERSPAN I",
            eth(0x0800, &gre(&[0, 0, 0x88, 0xbe], &inner)),
            &head,
        );
        let two = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 1, 0, 1, 0, 0, 0, 0];
        carries("ERSPAN II", eth(0x0800, &gre(&two, &inner)), &head);
        let three = [
            0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        carries("ERSPAN III", eth(0x0800, &gre(&three, &inner)), &head);
        let mut sub = [0; 28];
        sub[..20].copy_from_slice(&three);
        sub[19] = 1;
        carries(
            "ERSPAN III with subheader",
            eth(0x0800, &gre(&sub, &inner)),
            &head,
        );
        let mut ip_only = three;
        ip_only[18] = 2 << 2;
        carries(
            "ERSPAN III with an IP packet",
            eth(0x0800, &gre(&ip_only, ip)),
            &head,
        );
        carries(
            "VXLAN",
            eth(0x0800, &udp(4789, &cat(&[8, 0, 0, 0, 0, 0, 1, 0], &inner))),
            &head,
        );
        let next = if proto == 4 { 1 } else { 2 };
        carries(
            "VXLAN-GPE",
            eth(
                0x0800,
                &udp(4790, &cat(&[0x0c, 0, 0, next, 0, 0, 1, 0], ip)),
            ),
            &head,
        );
        carries(
            "GENEVE",
            eth(
                0x0800,
                &udp(6081, &cat(&[0, 0, 0x65, 0x58, 0, 0, 1, 0], &inner)),
            ),
            &head,
        );
        let options = [2, 0, t0, t1, 0, 0, 1, 0, 0, 0, 0, 1, 5, 5, 5, 5];
        carries(
            "GENEVE with options",
            eth(0x0800, &udp(6081, &cat(&options, ip))),
            &head,
        );
        carries(
            "GRE in UDP",
            eth(0x0800, &udp(4754, &cat(&[0, 0, t0, t1], ip))),
            &head,
        );
        carries(
            "MPLS in UDP",
            eth(0x0800, &udp(6635, &cat(&[0, 1, 1, 64], ip))),
            &head,
        );
        carries(
            "MPLS",
            eth(0x8847, &cat(&[0, 1, 0, 64, 0, 2, 1, 64], ip)),
            &head,
        );
        carries(
            "MPLS in IP",
            eth(0x0800, &ip4(137, &cat(&[0, 1, 1, 64], ip))),
            &head,
        );
        carries(
            "EtherIP",
            eth(0x0800, &ip4(97, &cat(&[0x30, 0], &inner))),
            &head,
        );
        carries(
            "PBB",
            eth(0x88a8, &cat(&[0, 5, 0x88, 0xe7, 0, 0, 1, 1], &inner)),
            &head,
        );
        let ppp = if proto == 4 { 0x21 } else { 0x57 };
        carries(
            "PPPoE",
            eth(0x8864, &cat(&[0x11, 0, 0, 1, 0, 99, 0, ppp], ip)),
            &head,
        );
        carries(
            "LLC/SNAP",
            eth(60, &cat(&[0xaa, 0xaa, 3, 0, 0, 0, t0, t1], ip)),
            &head,
        );
        carries("AH in front of TCP", ah(&inner, &head), &head);
    }
}

/// The frame with an authentication header between IP and TCP.
fn ah(frame: &[u8], head: &Head) -> Vec<u8> {
    let (ip_len, proto_at, len_at) = if head.flow.src.addr.is_v4() {
        (20, 23, 17)
    } else {
        (40, 20, 19)
    };
    let ah = [
        6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let mut f = [&frame[..14 + ip_len], &ah, &frame[14 + ip_len..]].concat();
    f[proto_at] = 51;
    f[len_at] += 24;
    f
}

#[test]
fn a_pseudowire_is_opened_with_and_without_control_word() {
    let (head, inner) = samples::plain(b"hello");
    // A destination that begins with a zero nibble, as many vendors' do, looks like a control word.
    for with_control in [true, false] {
        let control: &[u8] = if with_control { &[0, 0, 0, 0] } else { &[] };
        let f = eth(0x8847, &[&[0, 1, 1, 64], control, &inner[..]].concat());
        assert_eq!(decode(&f).unwrap().head, head);
    }
}

#[test]
fn the_802_11_frames_of_access_points_are_opened() {
    let (head, inner) = samples::plain(b"hello");
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &inner[14..]].concat();
    let wlan = |control: u8, flags: u8, len: usize| {
        let mut h = vec![control, flags];
        h.resize(len, 0);
        eth(0x0800, &gre(&[0, 0, 0x82, 0], &[&h[..], &snap].concat()))
    };
    for (control, flags, len) in [
        (0x88, 1, 26),
        (0x08, 2, 24),
        (0x88, 3, 32),
        (0x88, 0x81, 30),
    ] {
        assert_eq!(decode(&wlan(control, flags, len)).unwrap().head, head);
    }
    assert_eq!(decode(&wlan(0x88, 0x41, 26)), Err(Skip::Encrypted));
    assert_eq!(decode(&wlan(0x80, 0, 24)), Err(Skip::NotIp));
}

#[test]
fn tunnels_in_tunnels_end() {
    let (head, inner) = samples::plain(b"hello");
    let nested = |n: usize| {
        let ip = (0..n).fold(inner[14..].to_vec(), |f, _| ip4(4, &f));
        eth(0x0800, &ip)
    };
    let p = decode(&nested(MAX_DEPTH)).unwrap();
    assert_eq!((p.head, usize::from(p.depth)), (head, MAX_DEPTH));
    assert_eq!(decode(&nested(MAX_DEPTH + 1)), Err(Skip::Depth));
}

#[test]
fn what_cannot_be_opened_has_a_reason() {
    let (_, inner) = samples::plain(b"hello");
    let ip = &inner[14..];
    let case = |f: Vec<u8>| decode(&f).map(|_| ());
    assert_eq!(
        case(eth(0x0800, &gre(&[0, 1, 0x88, 0x0b, 0, 0, 0, 0], ip))),
        Err(Skip::UnknownEncapsulation),
        "PPTP"
    );
    assert_eq!(
        case(eth(0x0800, &gre(&[0x40, 0, 8, 0], ip))),
        Err(Skip::UnknownEncapsulation),
        "source routes"
    );
    assert_eq!(
        case(eth(0x0800, &gre(&[0, 0, 0, 0], ip))),
        Err(Skip::UnknownEncapsulation),
        "keepalive"
    );
    let vxlan = [&[0, 0, 0, 0, 0, 0, 1, 0], &inner[..]].concat();
    assert_eq!(
        case(eth(0x0800, &udp(4789, &vxlan))),
        Err(Skip::BadEncapsulation),
        "VXLAN without the I flag"
    );
    let geneve = [&[0x40, 0, 0x65, 0x58, 0, 0, 1, 0], &inner[..]].concat();
    assert_eq!(
        case(eth(0x0800, &udp(6081, &geneve))),
        Err(Skip::UnknownEncapsulation),
        "GENEVE version 1"
    );
    assert_eq!(case(eth(0x0800, &udp(53, ip))), Err(Skip::NotTcp));
    assert_eq!(
        case(eth(0x8847, &[0u8; 4 * 17])),
        Err(Skip::Depth),
        "no bottom of the label stack"
    );
    assert_eq!(
        case(eth(0x0800, &ip4(4, &[0x55; 40]))),
        Err(Skip::BadVersion)
    );
}
