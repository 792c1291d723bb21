//! Reads pcap and pcapng files, as much of them as the test data uses.

use wire::decode::LinkType;

fn u16_at(b: &[u8], at: usize, big: bool) -> u16 {
    let v = [b[at], b[at + 1]];
    if big {
        u16::from_be_bytes(v)
    } else {
        u16::from_le_bytes(v)
    }
}

fn u32_at(b: &[u8], at: usize, big: bool) -> u32 {
    let v = [b[at], b[at + 1], b[at + 2], b[at + 3]];
    if big {
        u32::from_be_bytes(v)
    } else {
        u32::from_le_bytes(v)
    }
}

fn link(number: u32) -> LinkType {
    LinkType::from_pcap(number as u16)
        .unwrap_or_else(|| panic!("link type {number} is not understood"))
}

/// The frames of a file: link type, captured bytes, original length.
pub fn frames(data: &[u8]) -> Vec<(LinkType, &[u8], usize)> {
    match u32_at(data, 0, true) {
        0x0a0d_0d0a => pcapng(data),
        magic => {
            let big = matches!(magic, 0xa1b2_c3d4 | 0xa1b2_3c4d);
            assert!(
                big || matches!(magic, 0xd4c3_b2a1 | 0x4d3c_b2a1),
                "magic {magic:08x}"
            );
            pcap(data, big)
        }
    }
}

fn pcap(data: &[u8], big: bool) -> Vec<(LinkType, &[u8], usize)> {
    let link = link(u32_at(data, 20, big) & 0xffff);
    let mut at = 24;
    let mut out = Vec::new();
    while at + 16 <= data.len() {
        let (len, original) = (
            u32_at(data, at + 8, big) as usize,
            u32_at(data, at + 12, big) as usize,
        );
        out.push((link, &data[at + 16..at + 16 + len], original));
        at += 16 + len;
    }
    out
}

fn pcapng(data: &[u8]) -> Vec<(LinkType, &[u8], usize)> {
    let big = u32_at(data, 8, true) == 0x1a2b_3c4d;
    let (mut at, mut links, mut out) = (0, Vec::new(), Vec::new());
    while at + 12 <= data.len() {
        let len = u32_at(data, at + 4, big) as usize;
        let body = &data[at + 8..at + len - 4];
        match u32_at(data, at, big) {
            1 => links.push(link(u32::from(u16_at(body, 0, big)))),
            6 => {
                let captured = u32_at(body, 12, big) as usize;
                let link = links[u32_at(body, 0, big) as usize];
                out.push((
                    link,
                    &body[20..20 + captured],
                    u32_at(body, 16, big) as usize,
                ));
            }
            _ => {}
        }
        at += len;
    }
    out
}
