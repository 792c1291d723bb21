//! Segments and frames for tests: strategies that cover both families, all flags and all options.

use crate::build::{self, LinkHeader};
use crate::head::HeaderBuf;
use crate::{Addr, Endpoint, Flags, Flow, Head, Options, Seq};
use proptest::prelude::*;

pub mod tunnels;

/// The Ethernet addresses that all samples use.
pub const LINK: LinkHeader = LinkHeader {
    dst: [2, 0, 0, 0, 0, 2],
    src: [2, 0, 0, 0, 0, 1],
};

fn flow() -> impl Strategy<Value = Flow> {
    (
        any::<bool>(),
        any::<[[u8; 16]; 2]>(),
        any::<u16>(),
        any::<u16>(),
    )
        .prop_map(|(v6, [a, b], sp, dp)| {
            let addr = |mut b: [u8; 16]| {
                b[0] = 0x20;
                if v6 {
                    Addr::v6(b)
                } else {
                    Addr::v4([b[1], b[2], b[3], b[4]])
                }
            };
            Flow {
                src: Endpoint::new(addr(a), sp),
                dst: Endpoint::new(addr(b), dp),
            }
        })
}

/// Options that fit one segment, those of a SYN only with `syn`.
fn options(syn: bool) -> impl Strategy<Value = Options> {
    let on_syn = (
        any::<Option<u16>>(),
        proptest::option::of(0u8..=14),
        any::<bool>(),
    );
    let always = (
        any::<Option<(u32, u32)>>(),
        proptest::collection::vec(any::<(u32, u32)>(), 0..=4),
    );
    (on_syn, always).prop_map(
        move |((mss, window_scale, sack_permitted), (timestamps, blocks))| {
            let mut o = Options {
                timestamps,
                ..Options::default()
            };
            if syn {
                o = Options {
                    mss,
                    window_scale,
                    sack_permitted,
                    ..o
                };
            } else {
                let room = if timestamps.is_some() { 3 } else { 4 };
                blocks
                    .into_iter()
                    .take(room)
                    .for_each(|(l, r)| o.push_sack(Seq(l), Seq(r)));
            }
            o
        },
    )
}

/// A segment with its payload.
pub fn segment() -> impl Strategy<Value = (Head, Vec<u8>)> {
    let payload = proptest::collection::vec(any::<u8>(), 0..600);
    (
        flow(),
        any::<[u32; 2]>(),
        any::<u8>(),
        any::<[u16; 2]>(),
        payload,
    )
        .prop_flat_map(|(flow, [s, a], f, [window, u], payload)| {
            let flags = Flags(f);
            (options(flags.has(Flags::SYN)), Just(payload)).prop_map(move |(options, payload)| {
                let payload_len = payload.len() as u32;
                (
                    Head {
                        flow,
                        seq: Seq(s),
                        ack: Seq(a),
                        flags,
                        window,
                        urgent: if flags.has(Flags::URG) { u } else { 0 },
                        options,
                        payload_len,
                    },
                    payload,
                )
            })
        })
}

/// The whole frame of a segment.
pub fn frame(head: &Head, payload: &[u8]) -> Vec<u8> {
    let mut out = HeaderBuf::new();
    build::tcp(&mut out, &LINK, head, 64, 1, payload);
    [&out[..], payload].concat()
}

/// A plain segment from 10.0.0.1:40000 to 10.0.0.2:80 with this payload.
pub fn plain(payload: &[u8]) -> (Head, Vec<u8>) {
    let flow = Flow {
        src: Endpoint::new(Addr::v4([10, 0, 0, 1]), 40000),
        dst: Endpoint::new(Addr::v4([10, 0, 0, 2]), 80),
    };
    let head = Head {
        flow,
        seq: Seq(1000),
        ack: Seq(2000),
        flags: Flags::ACK.with(Flags::PSH),
        window: 501,
        urgent: 0,
        options: Options {
            timestamps: Some((7, 8)),
            ..Options::default()
        },
        payload_len: payload.len() as u32,
    };
    let f = frame(&head, payload);
    (head, f)
}

/// [`plain`] over IPv6.
pub fn plain6(payload: &[u8]) -> (Head, Vec<u8>) {
    let (mut head, _) = plain(payload);
    head.flow.src.addr = Addr::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    head.flow.dst.addr = Addr::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    let f = frame(&head, payload);
    (head, f)
}
