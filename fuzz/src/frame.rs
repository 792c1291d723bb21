//! Any frame: decoded as a mirror and as a local port see it, and handed to the host. Offsets must
//! lie inside, what was decoded must survive being built and decoded again, and verifying checksums
//! must take away and change nothing else, and so must refusing tunnels.
use wire::build::{self, LinkHeader};
use wire::decode::{self, LinkType, Local, MirrorOptions, Packet, Skip, UdpPorts};
use wire::head::HeaderBuf;
use wire::host::{FrameBuf, Host, HostConfig};
use wire::tunnel::Ends;
use wire::{Addr, Prefix};

/// The port that stands for configured ones.
const IP_IN_UDP: u16 = 40_001;
/// Where no tunnel ends.
const NO_ENDS: &Ends = &Ends::at(Vec::new());
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn check(p: &Packet, bytes: &[u8], frame_len: usize) {
    assert!(p.payload_offset <= bytes.len());
    assert!(p.payload_offset + p.captured <= frame_len);
    assert!(p.captured <= p.head.payload_len as usize);
    let payload = &bytes[p.payload_range(bytes.len())];
    if payload.len() > 1400 {
        return;
    }
    let mut head = p.head;
    head.payload_len = payload.len() as u32;
    let mut headers = HeaderBuf::new();
    build::tcp(
        &mut headers,
        &LinkHeader { dst: MAC, src: MAC },
        &head,
        64,
        1,
        payload,
    );
    let again = [&headers, payload].concat();
    let again = decode::mirrored(&again, again.len())
        .expect("what was built is decoded")
        .head;
    // Options that came in an odd layout may no longer fit beside one another.
    head.options = again.options;
    assert_eq!(again, head);
}

/// Judges one input; panics if something does not hold.
pub fn run(data: &[u8]) {
    // The first byte says how much longer the frame is than its first segment.
    let Some((more, bytes)) = data.split_first() else {
        return;
    };
    let frame_len = bytes.len() + usize::from(*more) * 16;
    if let Local::Tcp(p) = decode::local(bytes, frame_len) {
        check(&p, bytes, frame_len);
    }
    let links = [
        1, 101, 0, 113, 276, 9, 50, 104, 51, 100, 10, 105, 127, 192, 239, 117, 258,
    ];
    for link in links.into_iter().filter_map(LinkType::from_pcap) {
        let verified = MirrorOptions {
            ip_in_udp: UdpPorts::new(&[IP_IN_UDP]).unwrap_or_default(),
            ..MirrorOptions::on(link)
        };
        // What the fuzzer changes has a wrong checksum nearly always.
        let any = MirrorOptions {
            verify_checksums: false,
            ..verified
        };
        let decoded = decode::mirrored_with(&any, bytes, frame_len);
        let sound = decode::mirrored_with(&verified, bytes, frame_len);
        assert!(sound == decoded || sound == Err(Skip::BadChecksum));
        let closed = MirrorOptions {
            tunnels: NO_ENDS,
            ..any
        };
        let judged = decode::mirrored_with(&closed, bytes, frame_len);
        let refused = decode::refused_tunnel(&closed, bytes, frame_len).is_some();
        assert_eq!(refused, judged == Err(Skip::TunnelRefused));
        assert!(refused || judged == decoded);
        match decoded {
            Ok(p) => check(&p, bytes, frame_len),
            Err(reason) => {
                let f = decode::fragment_with(&any, bytes, frame_len);
                assert_eq!(f.is_some(), reason == Skip::Fragment);
                if let Some(f) = f {
                    assert!(f.ip_offset + f.ip_header_len + f.captured <= frame_len);
                }
            }
        }
    }
    let mut host = Host::new(HostConfig {
        mac: MAC,
        addresses: vec![
            Prefix::new(Addr::v4([10, 0, 0, 1]), 24),
            Prefix::new(Addr::v6([0xfd; 16]), 64),
        ],
        gateways: vec![Addr::v4([10, 0, 0, 2])],
        next_hop_mac: None,
        seed: 1,
    });
    let mut out = FrameBuf::new();
    let received = host.receive(1, bytes, &|a| a.is_v4(), &mut out);
    assert_eq!(received.replied, !out.is_empty());
    if let Some((addr, mac)) = received.learned {
        assert_eq!(host.next_hop(&addr), Some(mac));
    }
    // The most hopeful frame to be answered: the same one, addressed to us.
    let mut ours = bytes.to_vec();
    if let Some(dst) = ours.first_chunk_mut::<6>() {
        *dst = MAC;
        let received = host.receive(2, &ours, &|a| a.is_v4(), &mut out);
        assert_eq!(received.replied, !out.is_empty());
    }
    for second in 1..40 {
        host.poll(second * 1_000_000_000, &mut out);
    }
}
