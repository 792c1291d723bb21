use super::{End, Ends};
use crate::decode::{
    MAX_DEPTH, MirrorOptions, Packet, UdpPorts, fragment_with, mirrored, mirrored_with,
    refused_tunnel,
};
use crate::samples::tunnels::{IP_IN_UDP, Sample, around, eth, gre, ip4, ip6, udp};
use crate::scope::Network;
use crate::{Addr, Head, Prefix, Skip, samples};
use proptest::prelude::*;
use std::sync::Mutex;

/// As a mirror with a configured port for IP in UDP reads it.
fn decode(frame: &[u8]) -> Result<Packet, Skip> {
    let options = MirrorOptions {
        ip_in_udp: UdpPorts::new(&[9, IP_IN_UDP]).unwrap(),
        ..MirrorOptions::default()
    };
    mirrored_with(&options, frame, frame.len())
}

/// The frame decodes to this segment, also with padding behind it, and cut anywhere it neither
/// fails oddly nor invents a byte.
fn carries(sample: &Sample, head: &Head) {
    let Sample { name, frame, scope } = sample;
    let p = decode(frame).unwrap_or_else(|s| panic!("{name}: {s}"));
    assert_eq!((p.head, p.scope), (*head, *scope), "{name}");
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
        for sample in around(&head, &inner) {
            carries(&sample, &head);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "it takes Miri minutes")]
fn damage_is_noticed_in_every_tunnel() {
    for (head, inner) in [samples::plain(b"hello"), samples::plain6(b"hello")] {
        for Sample { name, frame, .. } in around(&head, &inner) {
            let at = decode(&frame).unwrap().payload_offset;
            for at in [at - 30, at - 15, at, at + 4] {
                let mut damaged = frame.clone();
                damaged[at] ^= 0x10;
                let got = decode(&damaged).map(|p| p.head);
                assert_eq!(got, Err(Skip::BadChecksum), "{name}, byte {at}");
            }
        }
    }
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "it takes Miri minutes")]
    fn damaged_tunnels_are_read_without_harm(
        (head, payload) in samples::segment(),
        damage in proptest::collection::vec((0usize..160, any::<u8>()), 1..6), cut in 0usize..900,
    ) {
        let frame = samples::frame(&head, &payload);
        for sample in around(&head, &frame) {
            let mut f = sample.frame;
            let p = decode(&f);
            prop_assert_eq!(p.map(|p| (p.head, p.scope)), Ok((head, sample.scope)), "{}", sample.name);
            let len = f.len();
            for (at, v) in &damage {
                f[at % len] = *v;
            }
            for end in [len, cut.min(len)] {
                if let Ok(p) = decode(&f[..end]) {
                    prop_assert!(p.payload_offset + p.captured <= end, "{}", sample.name);
                    prop_assert!(p.captured <= p.head.payload_len as usize, "{}", sample.name);
                }
            }
        }
    }
}

#[test]
fn a_configured_port_is_for_ip_in_udp_and_no_other_is() {
    let (head, inner) = samples::plain(b"hello");
    let f = eth(0x0800, &udp(4789, &inner[14..]));
    assert_eq!(mirrored(&f, f.len()), Err(Skip::BadEncapsulation));
    let mut options = MirrorOptions {
        ip_in_udp: UdpPorts::new(&[4789]).unwrap(),
        ..MirrorOptions::default()
    };
    let p = mirrored_with(&options, &f, f.len()).unwrap();
    assert_eq!((p.head, p.depth), (head, 1));
    options.ip_in_udp = UdpPorts::new(&[53]).unwrap();
    assert_eq!(
        mirrored_with(&options, &f, f.len()),
        Err(Skip::BadEncapsulation)
    );
    let unasked = eth(0x0800, &udp(0, &inner[14..]));
    assert_eq!(decode(&unasked), Err(Skip::NotTcp));
    assert_eq!(UdpPorts::new(&[1; UdpPorts::MAX + 1]), None);
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
    let inside =
        |port, head: &[u8], frame: &[u8]| case(eth(0x0800, &udp(port, &[head, frame].concat())));
    let unknown = Err(Skip::UnknownEncapsulation);
    let bad = Err(Skip::BadEncapsulation);
    let cases: [(&str, _, _); 14] = [
        (
            "GTP echo",
            inside(2152, &[0x32, 1, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0], &[]),
            Err(Skip::NotTcp),
        ),
        (
            "GTP'",
            inside(2152, &[0x20, 255, 0, 40, 0, 0, 0, 0], ip),
            unknown,
        ),
        (
            "GTP version 2",
            inside(2152, &[0x50, 255, 0, 40, 0, 0, 0, 0], ip),
            unknown,
        ),
        (
            "an empty extension of GTP",
            inside(
                2152,
                &[0x34, 255, 0, 48, 0, 0, 0, 0, 0, 0, 0, 0x85, 0, 0, 0, 0],
                ip,
            ),
            bad,
        ),
        (
            "endless extensions of GTP",
            inside(
                2152,
                &[&[0x34, 255, 0, 48, 0, 0, 0, 0, 0, 0, 0, 1][..], &[1; 400]].concat(),
                ip,
            ),
            Err(Skip::Depth),
        ),
        (
            "TZSP keep-alive",
            inside(37008, &[1, 4, 0, 1], &[]),
            Err(Skip::NotTcp),
        ),
        (
            "TZSP version 2",
            inside(37008, &[2, 0, 0, 1, 1], &inner),
            unknown,
        ),
        (
            "TZSP with Prism headers",
            inside(37008, &[1, 0, 0, 119, 1], &inner),
            unknown,
        ),
        (
            "TZSP without an end",
            inside(37008, &[&[1, 0, 0, 1][..], &[0; 64]].concat(), &inner),
            Err(Skip::Depth),
        ),
        (
            "TZSP that ends in a tag",
            inside(37008, &[1, 0, 0, 1, 10], &[]),
            Err(Skip::TooShort),
        ),
        (
            "HP ERM of another kind",
            inside(7932, &[0; 40], &[]),
            Err(Skip::NotIp),
        ),
        (
            "Cisco MetaData version 2",
            case(eth(0x8909, &[&[2, 1, 0, 1, 0, 9, 8, 0], ip].concat())),
            unknown,
        ),
        (
            "Cisco MetaData without options",
            case(eth(0x8909, &[&[1, 0, 8, 0], ip].concat())),
            bad,
        ),
        (
            "E-tag in front of nothing known",
            case(eth(0x893f, &[&[0; 6][..], &[0x12, 0x34], ip].concat())),
            Err(Skip::NotIp),
        ),
    ];
    for (name, got, want) in cases {
        assert_eq!(got, want, "{name}");
    }
}

/// The ends, for as long as the process lives, and never out of its reach.
fn kept(ends: Ends) -> &'static Ends {
    static KEPT: Mutex<Vec<&Ends>> = Mutex::new(Vec::new());
    let ends = Box::leak(Box::new(ends));
    KEPT.lock().unwrap().push(ends);
    ends
}

/// As [`decode`], with tunnels that end here alone.
fn ending_at(ends: Ends) -> MirrorOptions {
    MirrorOptions {
        ip_in_udp: UdpPorts::new(&[IP_IN_UDP]).unwrap(),
        tunnels: kept(ends),
        ..MirrorOptions::default()
    }
}

/// The outer destinations of the samples.
const ENDS: [Addr; 2] = [Addr::v4([172, 16, 0, 2]), Addr::v6([0xfd; 16])];

#[test]
fn a_tunnel_of_any_kind_is_refused_by_its_outer_destination() {
    let nowhere = ending_at(Ends::at(vec![]));
    let here = ending_at(Ends::at(ENDS.map(|a| End::at(Prefix::host(a))).to_vec()));
    let elsewhere = ending_at(Ends::anywhere_but(&ENDS.map(Prefix::host)));
    for (head, inner) in [samples::plain(b"hello"), samples::plain6(b"hello")] {
        let mut refused = 0;
        for Sample { name, frame, .. } in around(&head, &inner) {
            let len = frame.len();
            let opened = decode(&frame).unwrap();
            assert_eq!(mirrored_with(&here, &frame, len), Ok(opened), "{name}");
            assert_eq!(refused_tunnel(&here, &frame, len), None, "{name}");
            // What IP does not address is opened whatever the rule is.
            let t = u16::from_be_bytes([frame[12], frame[13]]);
            let in_ip = matches!(t, 0x0800 | 0x86dd) && opened.depth > 0;
            for rule in [&nowhere, &elsewhere] {
                let got = mirrored_with(rule, &frame, len);
                let to = refused_tunnel(rule, &frame, len);
                if in_ip {
                    refused += 1;
                    assert_eq!(got, Err(Skip::TunnelRefused), "{name}");
                    assert_eq!(to, Some(ENDS[usize::from(t == 0x86dd)]), "{name}");
                } else {
                    assert_eq!((got, to), (Ok(opened), None), "{name}");
                }
            }
        }
        assert!(refused >= 2 * 20, "{refused}");
    }
}

#[test]
fn a_tunnel_to_a_network_of_its_end_is_opened_and_no_other() {
    let (_, inner) = samples::plain(b"hello");
    let only = |network| {
        let (to, network) = (Prefix::host(ENDS[0]), Some(network));
        ending_at(Ends::at(vec![End { to, network }]))
    };
    let (vni, key) = (only(Network::Virtual(77)), only(Network::Key(77)));
    let vxlan = |vni| {
        let head = [8, 0, 0, 0, 0, 0, vni, 0];
        eth(0x0800, &udp(4789, &[&head, &inner[..]].concat()))
    };
    let keyed = |key| {
        let head = [0x20, 0, 8, 0, 0, 0, 0, key];
        eth(0x0800, &gre(&head, &inner[14..]))
    };
    let plain = eth(0x0800, &gre(&[0, 0, 8, 0], &inner[14..]));
    for (rule, frame, opened) in [
        (&vni, vxlan(77), true),
        (&vni, vxlan(78), false),
        (&vni, keyed(77), false),
        (&vni, plain.clone(), false),
        (&key, keyed(77), true),
        (&key, keyed(78), false),
        (&key, vxlan(77), false),
        (&key, plain, false),
    ] {
        let got = mirrored_with(rule, &frame, frame.len());
        assert_eq!(got.is_ok(), opened, "{rule:?} {frame:?} {got:?}");
    }
}

/// A switch mirrors through a tunnel of its own what strangers have sent to production.
#[test]
fn a_tunnel_within_one_that_is_opened_is_judged_by_its_own_destination() {
    let (_, inner) = samples::plain(b"hello");
    let forged = eth(0x0800, &ip4(4, &inner[14..]));
    let erspan = ip6(47, &[&[0, 0, 0x88, 0xbe], &forged[..]].concat());
    let frame = eth(0x86dd, &erspan);
    assert!(decode(&frame).is_ok());
    let rule = ending_at(Ends::at(vec![End::at(Prefix::host(ENDS[1]))]));
    let got = mirrored_with(&rule, &frame, frame.len());
    assert_eq!(got, Err(Skip::TunnelRefused));
    assert_eq!(refused_tunnel(&rule, &frame, frame.len()), Some(ENDS[0]));
}

/// Reassembled or not: the outer datagram of a tunnel may come in parts.
#[test]
fn a_tunnel_in_fragments_is_refused_once_it_is_whole() {
    let (_, inner) = samples::plain(b"hello");
    let whole = ip4(4, &inner[14..]);
    let mut part = whole.clone();
    part[6] = 0x20;
    part[10..12].fill(0);
    let sum = crate::checksum::checksum(&part[..20]).to_be_bytes();
    part[10..12].copy_from_slice(&sum);
    let frame = eth(0x0800, &part);
    let rule = ending_at(Ends::at(vec![]));
    let got = mirrored_with(&rule, &frame, frame.len());
    assert_eq!(got, Err(Skip::Fragment));
    assert!(fragment_with(&rule, &frame, frame.len()).is_some());
    let datagram = rule.reassembled(7);
    let got = mirrored_with(&datagram, &whole, whole.len());
    assert_eq!(got, Err(Skip::TunnelRefused));
}
