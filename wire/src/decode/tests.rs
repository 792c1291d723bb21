use super::*;
use crate::samples;
use crate::{Options, Seq};
use etherparse::{PacketBuilder, TcpOptionElement, VlanId};
use proptest::prelude::*;

/// As a mirror whose checksums do not count.
fn unverified(bytes: &[u8], frame_len: usize) -> Result<Packet, Skip> {
    let options = MirrorOptions {
        verify_checksums: false,
        ..MirrorOptions::default()
    };
    mirrored_with(&options, bytes, frame_len)
}

/// What is found without a walk over the headers a walk finds, too.
fn plain_as_walked(bytes: &[u8], frame_len: usize) {
    for known in [Checksum::Unknown, Checksum::Good, Checksum::Bad] {
        let mirror = Rules::mirror(&MirrorOptions::default(), known);
        for rules in [
            mirror,
            Rules {
                known,
                ..Rules::LOCAL
            },
        ] {
            let Some(plain) = plain::segment(bytes, frame_len, &rules) else {
                continue;
            };
            let Ok(Stop::Tcp(place)) = walk(Layer::Ethernet, bytes, frame_len, &rules) else {
                panic!("a walk finds no segment");
            };
            let found = packet(&plain.place, &plain.tcp, plain.flow());
            assert_eq!(plain.place, place);
            assert_eq!(tcp_segment(bytes, frame_len, &place), Ok(found));
        }
    }
}

/// Reads a frame as a mirror and as a local port, checks what must hold for any bytes, and returns
/// the mirror's view.
fn checked(bytes: &[u8], frame_len: usize) -> Result<Packet, Skip> {
    let inside = |p: &Packet| {
        assert!(p.payload_offset <= bytes.len(), "{p:?}");
        assert!(
            p.payload_offset + p.captured <= frame_len.max(p.payload_offset),
            "{p:?}"
        );
        assert!(p.captured <= p.head.payload_len as usize, "{p:?}");
        let r = p.payload_range(bytes.len());
        assert!(r.start <= r.end && r.end <= bytes.len(), "{p:?}");
    };
    let m = mirrored(bytes, frame_len);
    m.iter().for_each(inside);
    plain_as_walked(bytes, frame_len);
    if let Local::Tcp(p) = local(bytes, frame_len) {
        inside(&p);
        assert_eq!(m, Ok(p), "what a local port reads a mirror reads too");
    }
    for link in [
        LinkType::RawIp,
        LinkType::Null,
        LinkType::LinuxSll,
        LinkType::LinuxSll2,
    ] {
        mirrored_on(link, bytes, frame_len).iter().for_each(inside);
    }
    // Whoever does not verify reads the same, and the corrupt besides.
    match (m, unverified(bytes, frame_len)) {
        (Err(Skip::BadChecksum), u) => u.iter().for_each(inside),
        (m, u) => assert_eq!(m, u),
    }
    let f = fragment(bytes, frame_len);
    assert_eq!(f.is_some(), m == Err(Skip::Fragment));
    if let Some(f) = f {
        assert!(
            f.ip_offset + f.ip_header_len <= bytes.len() && f.captured <= f.len,
            "{f:?}"
        );
        assert!(
            f.ip_offset + f.ip_header_len + f.captured <= frame_len,
            "{f:?}"
        );
    }
    m
}

proptest! {
    #[test]
    fn agrees_with_etherparse(
        v6 in any::<bool>(), tags in 0usize..3, src in any::<[u8; 16]>(), dst in any::<[u8; 16]>(), ports in any::<[u16; 2]>(),
        seq in any::<u32>(), ack in any::<u32>(), window in any::<u16>(), urgent in any::<Option<u16>>(),
        stamps in any::<(u32, u32)>(), payload in proptest::collection::vec(any::<u8>(), 0..1400),
    ) {
        prop_assume!(!v6 || (src[0] != 0 && dst[0] != 0));
        let id = |n| VlanId::try_new(n).unwrap();
        let eth = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let four = |a: [u8; 16]| [a[0], a[1], a[2], a[3]];
        let (s4, d4) = (four(src), four(dst));
        let ip = match (tags, v6) {
            (0, false) => eth.ipv4(s4, d4, 9),
            (0, true) => eth.ipv6(src, dst, 9),
            (1, false) => eth.single_vlan(id(7)).ipv4(s4, d4, 9),
            (1, true) => eth.single_vlan(id(7)).ipv6(src, dst, 9),
            (_, false) => eth.double_vlan(id(7), id(8)).ipv4(s4, d4, 9),
            (_, true) => eth.double_vlan(id(7), id(8)).ipv6(src, dst, 9),
        };
        let mut b = ip.tcp(ports[0], ports[1], seq, window).ack(ack).psh();
        if let Some(u) = urgent {
            b = b.urg(u);
        }
        let b = b.options(&[TcpOptionElement::Noop, TcpOptionElement::Timestamp(stamps.0, stamps.1)]).unwrap();
        let mut frame = Vec::new();
        b.write(&mut frame, &payload).unwrap();
        let p = checked(&frame, frame.len()).unwrap();
        let addr = |a: [u8; 16]| if v6 { Addr::v6(a) } else { Addr::v4(four(a)) };
        let flow = Flow { src: Endpoint::new(addr(src), ports[0]), dst: Endpoint::new(addr(dst), ports[1]) };
        prop_assert_eq!(p.head.flow, flow);
        prop_assert_eq!((p.head.seq, p.head.ack, p.head.window), (Seq(seq), Seq(ack), window));
        prop_assert_eq!(p.head.options, Options { timestamps: Some(stamps), ..Options::default() });
        prop_assert_eq!((p.head.flags.has(Flags::URG), p.head.urgent), (urgent.is_some(), urgent.unwrap_or(0)));
        prop_assert_eq!(&frame[p.payload_range(frame.len())], &payload[..]);
        prop_assert_eq!(local(&frame, frame.len()), if tags == 2 { Local::Skip(Skip::Vlan) } else { Local::Tcp(p) });
    }

    #[test]
    fn any_bytes_are_read_without_harm(b in proptest::collection::vec(any::<u8>(), 0..200), more in 0usize..3000) {
        let _ = checked(&b, b.len() + more);
        let _ = checked(&b, b.len().saturating_sub(more));
    }

    #[test]
    fn damaged_frames_are_read_without_harm(
        (head, payload) in samples::segment(),
        damage in proptest::collection::vec((0usize..120, any::<u8>()), 1..6), cut in 0usize..700,
    ) {
        let mut f = samples::frame(&head, &payload);
        let len = f.len();
        for (at, v) in damage {
            f[at % len] = v;
        }
        let _ = checked(&f, len);
        let _ = checked(&f[..cut.min(len)], len);
        let _ = checked(&f[..cut.min(len)], cut.min(len));
    }

    #[test]
    fn a_frame_cut_anywhere_loses_payload_but_invents_none((head, payload) in samples::segment(), cut in 0usize..700) {
        let f = samples::frame(&head, &payload);
        let headers = f.len() - payload.len();
        let cut = cut.min(f.len());
        match checked(&f[..cut], cut) {
            Ok(p) => {
                prop_assert_eq!(p.head, head);
                prop_assert_eq!((p.payload_offset, p.captured), (headers, cut - headers));
                prop_assert_eq!(p.is_truncated(), cut < f.len());
            }
            Err(s) => {
                prop_assert!(cut < headers);
                prop_assert_eq!(s, Skip::TooShort);
            }
        }
    }
}

#[test]
fn padding_is_not_payload() {
    for (head, mut f) in [
        samples::plain(b""),
        samples::plain(b"x"),
        samples::plain6(b"yz"),
    ] {
        f.resize(f.len() + 40, 0xaa);
        let p = checked(&f, f.len()).unwrap();
        assert_eq!(p.head, head);
        assert_eq!(p.captured, head.payload_len as usize);
    }
}

#[test]
fn a_chained_frame_has_payload_beyond_its_first_segment() {
    let (head, f) = samples::plain(&[7; 500]);
    let p = checked(&f[..200], f.len()).unwrap();
    assert_eq!((p.head, p.captured), (head, 500));
    assert_eq!(p.payload_range(200), p.payload_offset..200);
}

#[test]
fn a_long_frame_that_the_driver_cut_has_its_headers_on_a_port_of_our_own() {
    for (head, f) in [samples::plain(&[7; 4_344]), samples::plain6(&[7; 4_344])] {
        for cut in [1_514, 2_048] {
            match local(&f[..cut], cut) {
                Local::Tcp(packet) => assert_eq!(packet.head, head),
                other => panic!("{other:?}"),
            }
        }
        for cut in [100, 1_513] {
            assert_eq!(local(&f[..cut], cut), Local::Skip(Skip::BadLength));
        }
    }
}

#[test]
fn a_zero_ip_length_means_the_frame_says_it() {
    let (head, mut f) = samples::plain(&[7; 3000]);
    f[16..18].fill(0);
    f[24..26].fill(0);
    assert_eq!(checked(&f, f.len()).unwrap().head, head);
    let (head, mut f) = samples::plain6(&[7; 3000]);
    f[18..20].fill(0);
    assert_eq!(checked(&f, f.len()).unwrap().head, head);
    let (_, mut small) = samples::plain(b"");
    small[16..18].fill(0);
    assert_eq!(checked(&small, small.len()), Err(Skip::BadLength));
}

#[test]
fn headers_that_the_ip_length_cuts_off_are_refused() {
    let (_, mut f) = samples::plain(b"abcdefgh");
    f[17] = 20 + 31;
    assert_eq!(unverified(&f, f.len()), Err(Skip::BadHeaderLength));
    f[17] = 20 + 32;
    assert_eq!(unverified(&f, f.len()).unwrap().head.payload_len, 0);
}

#[test]
fn fragments_are_named_with_what_reassembly_needs() {
    let (_, mut f) = samples::plain(&[1; 80]);
    f[18..20].copy_from_slice(&[0x12, 0x34]);
    f[20] = 0x20;
    f[21] = 5;
    assert_eq!(checked(&f, f.len()), Err(Skip::BadChecksum));
    assert_eq!(fragment(&f, f.len()), None);
    f[24..26].fill(0);
    assert_eq!(checked(&f, f.len()), Err(Skip::Fragment));
    let got = fragment(&f, f.len()).unwrap();
    let want = Fragment {
        ip_offset: 14,
        ip_header_len: 20,
        src: Addr::v4([10, 0, 0, 1]),
        dst: Addr::v4([10, 0, 0, 2]),
        protocol: 6,
        ident: 0x1234,
        offset: 40,
        more: true,
        len: 112,
        captured: 112,
        scope: 0,
    };
    assert_eq!(got, want);
    assert_eq!(local(&f, f.len()), Local::Skip(Skip::Fragment));
    assert_eq!(fragment(&f[..100], 100).unwrap().captured, 66);

    let (_, f6) = samples::plain6(&[1; 80]);
    let mut f6 = [&f6[..54], &[6, 0, 0, 0x51, 1, 2, 3, 4], &f6[54..]].concat();
    f6[20] = 44;
    f6[19] += 8;
    let got = fragment(&f6, f6.len()).unwrap();
    assert_eq!(
        (got.ip_offset, got.ip_header_len, got.protocol),
        (14, 48, 6)
    );
    assert_eq!(
        (got.ident, got.offset, got.more, got.len),
        (0x01020304, 80, true, 112)
    );
}

#[test]
fn what_is_no_tcp_has_a_reason() {
    let (_, f) = samples::plain(b"x");
    let with = |at: usize, v: &[u8]| {
        let mut f = f.clone();
        f[at..at + v.len()].copy_from_slice(v);
        checked(&f, f.len()).map(|_| ())
    };
    assert_eq!(with(12, &[0x08, 0x06]), Err(Skip::NotIp));
    assert_eq!(with(12, &[0x86, 0xdd]), Err(Skip::BadVersion));
    assert_eq!(with(12, &[0x88, 0xe5]), Err(Skip::Encrypted));
    assert_eq!(with(12, &[0x00, 0x26]), Err(Skip::NotIp));
    assert_eq!(with(23, &[17]), Err(Skip::NotTcp));
    assert_eq!(with(23, &[1]), Err(Skip::NotTcp));
    assert_eq!(with(23, &[50]), Err(Skip::Encrypted));
    assert_eq!(with(46, &[0x40]), Err(Skip::BadHeaderLength));
    let (_, mut mapped) = samples::plain6(b"x");
    mapped[22..38].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4]);
    assert_eq!(checked(&mapped, mapped.len()), Err(Skip::MappedAddress));
}

#[test]
fn a_local_port_hands_control_to_the_host_and_opens_no_tunnel() {
    let (_, f) = samples::plain(b"x");
    let with = |at: usize, v: &[u8]| {
        let mut f = f.clone();
        f[at..at + v.len()].copy_from_slice(v);
        local(&f, f.len())
    };
    assert_eq!(with(12, &[0x08, 0x06]), Local::Control);
    assert_eq!(with(23, &[1]), Local::Control);
    assert_eq!(with(23, &[4]), Local::Skip(Skip::NotTcp));
    assert_eq!(with(23, &[47]), Local::Skip(Skip::NotTcp));
    assert_eq!(with(12, &[0x88, 0x47]), Local::Skip(Skip::NotIp));
    let (_, mut icmp6) = samples::plain6(b"x");
    icmp6[20] = 58;
    assert_eq!(local(&icmp6, icmp6.len()), Local::Control);
}

#[test]
fn tags_are_counted() {
    let (head, f) = samples::plain(b"x");
    let tagged = |n: usize| [&f[..12], &[0x81, 0, 0, 5].repeat(n), &f[12..]].concat();
    for n in 0..=4 {
        let p = checked(&tagged(n), tagged(n).len()).unwrap();
        let scope = (0..n).fold(0, |scope, _| scope::fold(scope, Network::Vlan(5)));
        assert_eq!((p.head, p.scope), (head, scope));
    }
    assert_eq!(checked(&tagged(5), tagged(5).len()), Err(Skip::Vlan));
    assert!(matches!(local(&tagged(1), tagged(1).len()), Local::Tcp(p) if p.head == head));
    assert_eq!(local(&tagged(2), tagged(2).len()), Local::Skip(Skip::Vlan));
}

#[test]
fn link_types_of_capture_files() {
    let (head, f) = samples::plain(b"x");
    let ip = &f[14..];
    let raw = mirrored_on(LinkType::RawIp, ip, ip.len()).unwrap();
    assert_eq!((raw.head, raw.payload_offset), (head, ip.len() - 1));
    for family in [[2, 0, 0, 0], [0, 0, 0, 2], [30, 0, 0, 0]] {
        let b = [&family[..], ip].concat();
        assert_eq!(mirrored_on(LinkType::Null, &b, b.len()).unwrap().head, head);
    }
    let sll = [&[0u8; 14][..], &[8, 0], ip].concat();
    assert_eq!(
        mirrored_on(LinkType::LinuxSll, &sll, sll.len())
            .unwrap()
            .head,
        head
    );
    let sll2 = [&[8, 0][..], &[0u8; 18], ip].concat();
    assert_eq!(
        mirrored_on(LinkType::LinuxSll2, &sll2, sll2.len())
            .unwrap()
            .head,
        head
    );
    assert_eq!(LinkType::from_pcap(147), None);
}

#[test]
fn a_scope_is_that_of_the_networks_around_a_segment() {
    let (_, f) = samples::plain(b"x");
    let scope = |tags: &[[u8; 4]]| {
        let f = [&f[..12], &tags.concat()[..], &f[12..]].concat();
        let p = checked(&f, f.len()).unwrap();
        if tags.len() < 2 {
            assert_eq!(local(&f, f.len()), Local::Tcp(p));
        }
        p.scope
    };
    let tag =
        |kind: u8, control: u8, id: u8| [kind, if kind == 0x81 { 0 } else { 0xa8 }, control, id];
    assert_eq!(scope(&[]), 0);
    // A priority names no network, with an identifier or without.
    assert_eq!(scope(&[tag(0x81, 0xe0, 0)]), 0);
    assert_eq!(scope(&[tag(0x81, 0xe0, 5)]), scope(&[tag(0x81, 0, 5)]));
    assert_ne!(scope(&[tag(0x81, 0, 5)]), scope(&[tag(0x81, 1, 5)]));
    let double = [tag(0x88, 0, 5), tag(0x81, 0, 6)];
    assert_ne!(scope(&double), scope(&[double[1], double[0]]));

    // Parts of a datagram are in it, and what was reassembled from them stays in it.
    let mut part = [&f[..12], &tag(0x81, 0, 5), &f[12..]].concat();
    part[24] = 0x20;
    part[28..30].fill(0);
    let named = fragment(&part, part.len()).unwrap();
    assert_eq!(named.scope, scope(&[tag(0x81, 0, 5)]));
    let options = MirrorOptions::default().reassembled(named.scope);
    let p = mirrored_with(&options, &f[14..], f.len() - 14).unwrap();
    assert_eq!(p.scope, named.scope);
}

mod checksums;
mod links;
