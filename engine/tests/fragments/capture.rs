//! Capture files: read, cut into fragments, written.

use std::path::PathBuf;
use wire::decode::{LinkType, mirrored};

/// Classic pcap file of Ethernet frames, one a microsecond.
pub fn write(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = vec![];
    file.extend(0xa1b2_c3d4u32.to_le_bytes());
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(262_144u32.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for (i, bytes) in frames.iter().enumerate() {
        file.extend(1u32.to_le_bytes());
        file.extend((i as u32).to_le_bytes());
        file.extend((bytes.len() as u32).to_le_bytes());
        file.extend((bytes.len() as u32).to_le_bytes());
        file.extend(bytes);
    }
    file
}

/// The frames of a classic pcap file in little-endian order.
pub fn read(file: &[u8]) -> Vec<Vec<u8>> {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!(word(0), 0xa1b2_c3d4);
    assert_eq!(
        LinkType::from_pcap(word(20) as u16),
        Some(LinkType::Ethernet)
    );
    let (mut at, mut frames) = (24, vec![]);
    while at + 16 <= file.len() {
        let len = word(at + 8) as usize;
        frames.push(file[at + 16..at + 16 + len].to_vec());
        at += 16 + len;
    }
    frames
}

/// A capture of the folder that `REPLAY_CAPTURES` names, by default `../shared/captures` beside the
/// workspace. `None`, and a word about it, without one.
pub fn real(name: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/captures");
    let folder =
        std::env::var_os("REPLAY_CAPTURES").map_or_else(|| PathBuf::from(default), PathBuf::from);
    let path = folder.join(name);
    if path.is_file() {
        return Some(path);
    }
    println!(
        "skipped: no {}; set REPLAY_CAPTURES to a folder of captures",
        path.display()
    );
    None
}

/// Every untagged IP frame with TCP payload, cut into fragments of `size` bytes of data, a multiple
/// of 8, or more, so that there are at most eight; all others as they are. The last part of every
/// other datagram goes first.
pub fn fragmented(frames: &[Vec<u8>], size: usize) -> Vec<Vec<u8>> {
    let mut out = vec![];
    for (i, frame) in frames.iter().enumerate() {
        let size = size.max(frame.len().div_ceil(8).next_multiple_of(8));
        let has_payload = mirrored(frame, frame.len()).is_ok_and(|p| p.captured > 0);
        let mut parts = match frame.get(12..14) {
            Some([0x08, 0x00]) if has_payload => v4(frame, size, i as u16),
            Some([0x86, 0xdd]) if has_payload => v6(frame, size, i as u32),
            _ => vec![frame.clone()],
        };
        if i % 2 == 0 {
            parts.rotate_right(1);
        }
        out.append(&mut parts);
    }
    out
}

fn v4(frame: &[u8], size: usize, ident: u16) -> Vec<Vec<u8>> {
    let header = usize::from(frame[14] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let data = &frame[14 + header..14 + total];
    let n = data.len().div_ceil(size);
    let part = |(i, data): (usize, &[u8])| {
        let mut b = frame[..14 + header].to_vec();
        let field = (i * size / 8) as u16 | if i + 1 < n { 0x2000 } else { 0 };
        b[16..18].copy_from_slice(&((header + data.len()) as u16).to_be_bytes());
        b[18..20].copy_from_slice(&ident.to_be_bytes());
        b[20..22].copy_from_slice(&field.to_be_bytes());
        b[24..26].fill(0);
        let sum = wire::checksum::checksum(&b[14..]);
        b[24..26].copy_from_slice(&sum.to_be_bytes());
        b.extend(data);
        b
    };
    data.chunks(size).enumerate().map(part).collect()
}

fn v6(frame: &[u8], size: usize, ident: u32) -> Vec<Vec<u8>> {
    let len = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
    let data = &frame[54..54 + len];
    let n = data.len().div_ceil(size);
    let part = |(i, data): (usize, &[u8])| {
        let mut b = frame[..54].to_vec();
        b[18..20].copy_from_slice(&((8 + data.len()) as u16).to_be_bytes());
        b[20] = 44;
        b.extend([frame[20], 0]);
        b.extend(((i * size) as u16 | u16::from(i + 1 < n)).to_be_bytes());
        b.extend(ident.to_be_bytes());
        b.extend(data);
        b
    };
    data.chunks(size).enumerate().map(part).collect()
}

/// In a tunnel: IPv4 and GRE round each frame (RFC 2784, transparent Ethernet bridging).
pub fn tunnelled(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let wrap = |(i, frame): (usize, &Vec<u8>)| {
        let mut b = vec![2; 12];
        b.extend([0x08, 0x00, 0x45, 0]);
        b.extend((24 + frame.len() as u16).to_be_bytes());
        b.extend((i as u16).to_be_bytes());
        b.extend([0, 0, 64, 47, 0, 0, 10, 200, 0, 3, 10, 200, 0, 224]);
        b.extend([0, 0, 0x65, 0x58]);
        b.extend(frame);
        b
    };
    frames.iter().enumerate().map(wrap).collect()
}
