use super::*;
use crate::decode::{Local, local, mirrored};
use crate::samples::{self, LINK};
use crate::{Addr, Options, Seq};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

/// What an independent parser says is wrong with the frame.
fn oracle(frame: &[u8], head: &Head, payload: &[u8]) -> Result<(), String> {
    let p = SlicedPacket::from_ethernet(frame).map_err(|e| e.to_string())?;
    let Some(TransportSlice::Tcp(t)) = &p.transport else {
        return Err("no TCP".into());
    };
    let want = match &p.net {
        Some(NetSlice::Ipv4(ip)) => {
            let h = ip.header();
            if h.to_header().calc_header_checksum() != h.header_checksum() {
                return Err("IPv4 checksum".into());
            }
            if !h.dont_fragment() || h.ttl() != 64 || Addr::v4(h.source()) != head.flow.src.addr {
                return Err("IPv4 fields".into());
            }
            t.calc_checksum_ipv4(h.source(), h.destination())
        }
        Some(NetSlice::Ipv6(ip)) => {
            let h = ip.header();
            if Addr::v6(h.source()) != head.flow.src.addr
                || Addr::v6(h.destination()) != head.flow.dst.addr
            {
                return Err("IPv6 fields".into());
            }
            t.calc_checksum_ipv6(h.source(), h.destination())
        }
        other => return Err(format!("no IP: {other:?}")),
    };
    if want.map_err(|e| e.to_string())? != t.checksum() {
        return Err("TCP checksum".into());
    }
    let same = t.payload() == payload
        && (t.source_port(), t.destination_port()) == (head.flow.src.port, head.flow.dst.port)
        && (t.sequence_number(), t.acknowledgment_number()) == (head.seq.0, head.ack.0)
        && t.window_size() == head.window
        && t.urgent_pointer() == head.urgent;
    if same {
        Ok(())
    } else {
        Err("TCP fields".into())
    }
}

proptest! {
    #[test]
    fn decoding_gives_back_what_was_built((head, payload) in samples::segment()) {
        let frame = samples::frame(&head, &payload);
        let p = mirrored(&frame, frame.len()).unwrap();
        prop_assert_eq!(p.head, head);
        prop_assert_eq!(&frame[p.payload_range(frame.len())], &payload[..]);
        prop_assert!(!p.is_truncated());
        prop_assert_eq!(local(&frame, frame.len()), Local::Tcp(p));
        prop_assert_eq!(oracle(&frame, &head, &payload), Ok(()));
    }

    #[test]
    fn a_payload_in_pieces_sums_to_the_same((head, payload) in samples::segment(), cut in 0usize..600) {
        let (a, b) = payload.split_at(cut.min(payload.len()));
        let mut whole = HeaderBuf::new();
        tcp(&mut whole, &LINK, &head, 64, 1, &payload);
        let mut pieces = HeaderBuf::new();
        tcp_with_sum(&mut pieces, &LINK, &head, 64, 1, payload.len(), Sum::new().bytes(a).bytes(b));
        prop_assert_eq!(whole, pieces);
    }
}

#[test]
fn the_longest_headers_fit() {
    let (mut head, _) = samples::plain6(b"");
    head.options = Options {
        timestamps: Some((1, 2)),
        ..Options::default()
    };
    for i in 0..4 {
        head.options.push_sack(Seq(i), Seq(i + 1));
    }
    let mut out = HeaderBuf::new();
    tcp(&mut out, &LINK, &head, 64, 1, &[]);
    assert_eq!(out.len(), 14 + 40 + 60);
}

#[test]
fn a_buffer_is_used_again() {
    let (head, frame) = samples::plain(b"abc");
    let mut out = HeaderBuf::new();
    for _ in 0..3 {
        tcp(&mut out, &LINK, &head, 64, 1, b"abc");
    }
    assert_eq!(out[..], frame[..out.len()]);
}
