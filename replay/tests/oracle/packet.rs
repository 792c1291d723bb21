//! Between heads and IP packets, with the project's own builder and decoder.

use wire::Head;
use wire::build::{self, LinkHeader};
use wire::decode::{self, LinkType, Packet};
use wire::head::HeaderBuf;

const LINK: LinkHeader = LinkHeader {
    dst: [2; 6],
    src: [4; 6],
};
const ETHERNET: usize = 14;

/// An Ethernet frame.
pub fn frame(head: &Head, payload: &[u8]) -> Vec<u8> {
    let mut headers = HeaderBuf::new();
    build::tcp(&mut headers, &LINK, head, 64, 0, payload);
    [&headers, payload].concat()
}

/// An IP packet.
pub fn packet(head: &Head, payload: &[u8]) -> Vec<u8> {
    frame(head, payload).split_off(ETHERNET)
}

/// What an IP packet says.
pub fn decode(packet: &[u8]) -> Packet {
    decode::mirrored_on(LinkType::RawIp, packet, packet.len()).expect("a TCP segment")
}
