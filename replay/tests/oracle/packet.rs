//! Between heads and packets, with the project's own builder and decoder; and what a bad wire does
//! to a packet.

use crate::rng::Rng;
use wire::build::{self, LinkHeader};
use wire::checksum::Sum;
use wire::decode::{self, LinkType, Local, Packet};
use wire::head::HeaderBuf;
use wire::{Flow, Head};

const LINK: LinkHeader = LinkHeader {
    dst: [2; 6],
    src: [4; 6],
};
/// Length of an Ethernet header.
const ETHERNET: usize = 14;

/// Length of a VLAN tag.
const TAG: usize = 4;

/// An Ethernet frame.
fn frame(head: &Head, payload: &[u8]) -> Vec<u8> {
    let mut headers = HeaderBuf::new();
    build::tcp(&mut headers, &LINK, head, 64, 0, payload);
    [&headers, payload].concat()
}

/// An Ethernet frame, in this VLAN if there is one.
pub fn tagged(head: &Head, payload: &[u8], vlan: Option<u16>) -> Vec<u8> {
    let mut bytes = frame(head, payload);
    if let Some(vlan) = vlan {
        let [high, low] = vlan.to_be_bytes();
        bytes.splice(12..12, [0x81, 0x00, high, low]);
    }
    bytes
}

/// Where the IP packet of such a frame begins.
pub fn ip_at(vlan: Option<u16>) -> usize {
    ETHERNET + if vlan.is_some() { TAG } else { 0 }
}

/// An IP packet.
pub fn packet(head: &Head, payload: &[u8]) -> Vec<u8> {
    frame(head, payload).split_off(ETHERNET)
}

/// What an IP packet says; `None` if it is no sound TCP segment.
pub fn decode(packet: &[u8]) -> Option<Packet> {
    decode::verified_on(LinkType::RawIp, packet, packet.len()).ok()
}

/// What our own port makes of an IP packet that arrives in an Ethernet frame.
pub fn arrives(packet: &[u8]) -> Local {
    let mut frame = vec![2; 12];
    let v6 = packet.first().is_some_and(|b| b >> 4 == 6);
    frame.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame.extend_from_slice(packet);
    decode::local(&frame, frame.len())
}

/// The TCP checksum of an IP packet is that of the pseudo-header alone. Its IP header has no
/// options.
pub fn is_unfinished(packet: &Packet, ip: &[u8]) -> bool {
    let Flow { src, dst } = packet.head.flow;
    let tcp = &ip[if src.addr.is_v4() { 20 } else { 40 }..];
    let pseudo = Sum::new().pseudo_header(&src.addr, &dst.addr, 6, tcp.len() as u32);
    u16::from_be_bytes([tcp[16], tcp[17]]) == !pseudo.finish()
}

/// Changes a bit or a byte of an IP packet, anywhere.
pub fn damage(packet: &mut [u8], rng: &mut Rng) {
    let at = rng.range(0, packet.len() as u64 - 1) as usize;
    packet[at] ^= if rng.percent(50) {
        1 << rng.range(0, 7)
    } else {
        rng.range(1, 255) as u8
    };
}
