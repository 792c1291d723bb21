//! The pcap format (draft-ietf-opsawg-pcap; libpcap, sf-pcap.c).
//!
//! The file's header is read by `pcap-parser`. A record's is so small that it is read here, which
//! serves the variants that the crate leaves out: both byte orders of the format that Alexey
//! Kuznetsov's tcpdump wrote ("modified"), and files of before version 2.4, whose two lengths stand
//! in the other order.

use crate::{Nanos, What};
use pcap_parser::parse_pcap_header;

/// Length of the file's header.
pub(crate) const HEADER: usize = 24;

const MICRO: u32 = 0xa1b2_c3d4;
const NANO: u32 = 0xa1b2_3c4d;
const MODIFIED: u32 = 0xa1b2_cd34;

/// How the records of a file are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pcap {
    pub big: bool,
    /// ns in a unit of the part of a second.
    unit: u64,
    /// Length of a record's header.
    pub record: usize,
    pub link: u16,
    minor: u16,
}

/// What a record says of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub at: Nanos,
    pub captured: u32,
    pub len: u32,
}

/// Whether a file that begins so is pcap.
pub(crate) fn is_pcap(magic: [u8; 4]) -> bool {
    let known = |m| matches!(m, MICRO | NANO | MODIFIED);
    known(u32::from_le_bytes(magic)) || known(u32::from_be_bytes(magic))
}

impl Pcap {
    /// Reads the file's header, which is whole.
    pub fn new(header: &[u8; HEADER]) -> Result<Self, What> {
        let [a, b, c, d, ..] = *header;
        let little = u32::from_le_bytes([a, b, c, d]);
        let big = !matches!(little, MICRO | NANO | MODIFIED);
        let magic = if big { little.swap_bytes() } else { little };
        // The crate knows the modified format in one byte order; its header is the plain one's.
        let mut plain = *header;
        let first = if magic == NANO { NANO } else { MICRO };
        let first = if big {
            first.to_be_bytes()
        } else {
            first.to_le_bytes()
        };
        plain[..4].copy_from_slice(&first);
        let Ok((_, h)) = parse_pcap_header(&plain) else {
            return Err(What::Magic([a, b, c, d]));
        };
        if h.version_major != 2 {
            return Err(What::Version {
                format: "pcap",
                found: (h.version_major, h.version_minor),
                read: "2.4",
            });
        }
        Ok(Self {
            big,
            unit: if magic == NANO { 1 } else { 1_000 },
            record: if magic == MODIFIED { 24 } else { 16 },
            // The upper half tells of a frame check sequence behind each frame.
            link: h.network.0 as u16,
            minor: h.version_minor,
        })
    }

    /// Reads a record's header.
    #[inline]
    pub fn record(&self, head: &[u8; 16]) -> Record {
        let word = |at: usize| {
            let b = [head[at], head[at + 1], head[at + 2], head[at + 3]];
            if self.big {
                u32::from_be_bytes(b)
            } else {
                u32::from_le_bytes(b)
            }
        };
        let (mut captured, mut len) = (word(8), word(12));
        // Version 2.3 was written in both orders.
        if self.minor < 3 || (self.minor == 3 && captured > len) {
            std::mem::swap(&mut captured, &mut len);
        }
        Record {
            at: u64::from(word(0)) * 1_000_000_000 + u64::from(word(4)) * self.unit,
            captured,
            len: len.max(captured),
        }
    }
}
