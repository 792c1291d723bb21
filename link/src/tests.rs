//! Encoding and decoding: round trips, every cut, garbage, and the words of each refusal.

use crate::*;
use proptest::prelude::*;
use wire::{Addr, Endpoint, Flags, Flow, Head, Options, Prefix, Seq};

pub(crate) fn head(v6: bool) -> Head {
    let addr = |n| {
        if v6 {
            Addr::v6([n; 16])
        } else {
            Addr::v4([10, 0, 0, n])
        }
    };
    let mut options = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some((1, u32::MAX)),
        ..Options::default()
    };
    options.push_sack(Seq(5), Seq(9));
    options.push_sack(Seq(u32::MAX), Seq(2));
    Head {
        flow: Flow {
            src: Endpoint::new(addr(1), 80),
            dst: Endpoint::new(addr(2), 40000),
        },
        seq: Seq(u32::MAX),
        ack: Seq(7),
        flags: Flags::ACK.with(Flags::PSH),
        window: 500,
        urgent: 0,
        options,
        payload_len: 70_000,
    }
}

fn addr(v6: bool) -> impl Strategy<Value = Addr> {
    any::<[u8; 16]>().prop_map(move |mut b| {
        b[0] |= 0x20; // never an IPv4-mapped one
        if v6 {
            Addr::v6(b)
        } else {
            Addr::v4([b[0], b[1], b[2], b[3]])
        }
    })
}

fn endpoint(v6: bool) -> impl Strategy<Value = Endpoint> {
    (addr(v6), any::<u16>()).prop_map(|(a, p)| Endpoint::new(a, p))
}

fn options() -> impl Strategy<Value = Options> {
    (
        any::<Option<u16>>(),
        any::<Option<u8>>(),
        any::<bool>(),
        any::<Option<(u32, u32)>>(),
        prop::collection::vec(any::<(u32, u32)>(), 0..=4),
    )
        .prop_map(|(mss, window_scale, sack_permitted, timestamps, blocks)| {
            let mut o = Options {
                mss,
                window_scale,
                sack_permitted,
                timestamps,
                ..Options::default()
            };
            for (l, r) in blocks {
                o.push_sack(Seq(l), Seq(r));
            }
            o
        })
}

fn record() -> impl Strategy<Value = Record> {
    any::<bool>()
        .prop_flat_map(|v6| {
            (
                (endpoint(v6), endpoint(v6), options()),
                any::<(u32, u32, u8, u16, u32, u64)>(),
                prop::collection::vec(any::<u8>(), 0..=64),
            )
        })
        .prop_map(
            |((src, dst, options), (seq, ack, flags, window, payload_len, at), prefix)| Record {
                head: Head {
                    flow: Flow { src, dst },
                    seq: Seq(seq),
                    ack: Seq(ack),
                    flags: Flags(flags),
                    window,
                    urgent: 0,
                    options,
                    payload_len,
                },
                received_at: at,
                prefix: prefix.into(),
                path_mtu: None,
            },
        )
}

/// What an intercept tells of a path's MTU.
fn path_mtu() -> impl Strategy<Value = Record> {
    (record(), any::<u32>()).prop_map(|(r, mtu)| Record {
        head: Head {
            seq: Seq(0),
            flags: Flags::default(),
            window: 0,
            options: Options::default(),
            payload_len: 0,
            ..r.head
        },
        prefix: Box::default(),
        path_mtu: Some(mtu),
        ..r
    })
}

fn claim() -> impl Strategy<Value = Claim> {
    any::<bool>()
        .prop_flat_map(|v6| {
            let len = if v6 { 0..=128u8 } else { 0..=32u8 };
            (
                addr(v6),
                len,
                any::<(u16, u16)>(),
                endpoint(v6),
                any::<u16>(),
            )
        })
        .prop_map(|(a, len, (p, q), target, owner)| Claim {
            prefix: Prefix::new(a, len),
            ports: p.min(q)..=p.max(q),
            target,
            owner,
        })
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<(u32, u64)>(), 0..=1024u16, "[ -~äß€]{0,16}").prop_map(
            |((features, instance), payload_prefix, name)| {
                Message::Hello(Hello {
                    version: VERSION,
                    features: Features(features),
                    payload_prefix,
                    instance,
                    name,
                })
            }
        ),
        "[ -~]{0,512}".prop_map(|reason| Message::Refuse { reason }),
        claim().prop_map(Message::Claim),
        claim().prop_map(Message::Release),
        (
            any::<u16>(),
            prop::collection::vec(prop_oneof![9 => record(), 1 => path_mtu()], 0..20)
        )
            .prop_map(|(owner, records)| Message::Responses { owner, records }),
        any::<(u64, u64, u64)>().prop_map(|(token, records, dropped)| Message::Heartbeat {
            token,
            stats: Stats { records, dropped }
        }),
        any::<(u64, u64)>().prop_map(|(token, at)| Message::Echo { token, at }),
        any::<(u64, u64)>()
            .prop_map(|(missed, resolution)| Message::Port(PortReport { missed, resolution })),
        Just(Message::Bye),
    ]
}

proptest! {
    #[test]
    fn every_message_survives_the_wire(message in message()) {
        let mut bytes = Vec::new();
        encode_frame(&message, &mut bytes).unwrap();
        let whole = bytes.len();
        bytes.extend_from_slice(b"next");
        prop_assert_eq!(decode_frame(&bytes), Ok(Some((message, whole))));
    }

    #[test]
    fn a_cut_frame_is_incomplete_and_a_cut_body_is_an_error(message in message()) {
        let mut bytes = Vec::new();
        encode_frame(&message, &mut bytes).unwrap();
        // Every length, and each decoded: for Miri that is too much of a long message.
        let step = if cfg!(miri) { 1 + bytes.len() / 16 } else { 1 };
        for n in (0..bytes.len()).step_by(step) {
            prop_assert_eq!(decode_frame(&bytes[..n]), Ok(None));
        }
        // The header says that the body ends here: a field is cut, unless the body is that of
        // another valid message, which none is.
        for n in (HEADER_LEN..bytes.len()).step_by(step) {
            let mut cut = bytes[..n].to_vec();
            cut[6..8].copy_from_slice(&((n - HEADER_LEN) as u16).to_be_bytes());
            let is_truncated = matches!(decode_frame(&cut), Err(Error::Truncated { .. }));
            prop_assert!(is_truncated, "{:?} cut to {n}", message);
        }
        let mut long = bytes.clone();
        long.push(0);
        long[6..8].copy_from_slice(&((bytes.len() + 1 - HEADER_LEN) as u16).to_be_bytes());
        let is_trailing = matches!(decode_frame(&long), Err(Error::Trailing { left: 1, .. }));
        prop_assert!(is_trailing);
    }

    #[test]
    fn garbage_is_decoded_or_refused(kind in 0..12u8, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = b"RPLK".to_vec();
        bytes.extend_from_slice(&[VERSION, kind, 0, body.len() as u8]);
        bytes.extend_from_slice(&body);
        if let Ok(Some((message, n))) = decode_frame(&bytes) {
            prop_assert_eq!(n, bytes.len());
            let mut again = Vec::new();
            encode_frame(&message, &mut again).unwrap();
            prop_assert_eq!(decode_frame(&again), Ok(Some((message, again.len()))));
        }
    }

    #[test]
    fn claims_cover_and_overlap_alike(a in claim(), b in claim(), host in any::<u128>(), port in any::<u16>()) {
        let inside = |c: &Claim| {
            let addr = Addr::from_number(c.prefix.first().number() | host & (c.prefix.count() - 1));
            let width = u32::from(c.ports.end() - c.ports.start()) + 1;
            let port = c.ports.start() + (u32::from(port) % width) as u16;
            Flow { src: c.target, dst: Endpoint::new(addr, port) }
        };
        let flow = inside(&a);
        prop_assert!(a.covers(&flow));
        prop_assert!(a.overlaps(&a));
        prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        if b.covers(&flow) {
            prop_assert!(a.overlaps(&b));
        }
    }
}

#[test]
fn exact_claims_name_the_flow_of_their_responses() {
    let client = Endpoint::new(Addr::v4([192, 0, 2, 1]), 4242);
    let target = Endpoint::new(Addr::v4([192, 0, 2, 9]), 80);
    let claim = Claim::exact(client, target, 3);
    let flow = Flow {
        src: target,
        dst: client,
    };
    assert_eq!(claim.response_flow(), Some(flow));
    assert!(claim.covers(&flow) && !claim.covers(&flow.reversed()));
    let wide = Claim {
        prefix: Prefix::new(client.addr, 24),
        ..claim.clone()
    };
    assert_eq!(wide.response_flow(), None);
    assert!(wide.overlaps(&claim));
    let next_port = Claim {
        ports: 4243..=4243,
        ..claim.clone()
    };
    assert!(!next_port.overlaps(&claim));
    let elsewhere = Claim {
        target: Endpoint::new(target.addr, 81),
        ..claim
    };
    assert!(!elsewhere.overlaps(&wide));
}

#[test]
fn the_longest_record_fits_its_bound() {
    let mut head = head(true);
    head.options.push_sack(Seq(1), Seq(2));
    head.options.push_sack(Seq(3), Seq(4));
    let mut out = Vec::new();
    encode_record(&head, u64::MAX, &[7; 5000], &mut out);
    assert_eq!(out.len(), MAX_RECORD);
}

fn sentence(bytes: &[u8]) -> String {
    decode_frame(bytes).unwrap_err().to_string()
}

#[test]
fn refusals_say_what_was_wrong() {
    let http = sentence(b"GET / HTTP/1.1\r\n");
    assert!(
        http.contains("does not speak the control link's protocol"),
        "{http}"
    );
    // A wrong first byte is enough to know.
    assert!(matches!(decode_frame(b"G"), Err(Error::Magic { .. })));

    let claim = |family: u8, len: u8, first: u16, last: u16| {
        let mut b = b"RPLK\x02\x03\0\x12".to_vec();
        b.extend_from_slice(&[family, len, 1, 2, 3, 4]);
        b.extend_from_slice(&first.to_be_bytes());
        b.extend_from_slice(&last.to_be_bytes());
        b.extend_from_slice(&[9, 9, 9, 9, 0, 80, 0, 0]);
        b
    };
    assert!(matches!(decode_frame(&claim(4, 32, 1, 2)), Ok(Some(_))));
    assert_eq!(
        sentence(&claim(4, 33, 1, 2)),
        "a claim's prefix length is 33, accepted: 0\u{2013}32 for IPv4, 0\u{2013}128 for IPv6"
    );
    assert_eq!(
        sentence(&claim(5, 1, 1, 2)),
        "a claim's address family is 5, accepted: 4 or 6"
    );
    assert_eq!(
        sentence(&claim(4, 1, 3, 2)),
        "a claim's first port is 3, accepted: at most the last port"
    );
    assert_eq!(
        sentence(b"RPLK\x02\x63\0\0"),
        "frame kind 99 is unknown, version 2 has kinds 1\u{2013}11"
    );
    assert_eq!(
        sentence(b"RPLK\x03\x05\0\0"),
        "version 3 offered, this side speaks 2\u{2013}2"
    );
    assert_eq!(
        sentence(b"RPLK\x02\x05\xff\xff"),
        "a batch of responses frame of 65535 bytes is too long, at most 32768 are accepted"
    );
}

#[test]
fn texts_of_the_peer_cannot_reach_the_terminal_raw() {
    let mut bytes = Vec::new();
    let reason = "bad\x1b[2J\nline".to_owned();
    encode_frame(&Message::Refuse { reason }, &mut bytes).unwrap();
    let Ok(Some((Message::Refuse { reason }, _))) = decode_frame(&bytes) else {
        panic!("a refusal is read");
    };
    assert_eq!(reason, "bad\u{fffd}[2J\u{fffd}line");
}

#[test]
fn a_name_is_cut_at_a_character() {
    let mut bytes = Vec::new();
    let name = format!("{}€", "x".repeat(MAX_NAME - 1));
    let hello = Hello {
        version: VERSION,
        features: Features(0),
        payload_prefix: 0,
        instance: 0,
        name,
    };
    encode_frame(&Message::Hello(hello), &mut bytes).unwrap();
    let Ok(Some((Message::Hello(hello), _))) = decode_frame(&bytes) else {
        panic!("a hello is read");
    };
    assert_eq!(hello.name, "x".repeat(MAX_NAME - 1));
}
