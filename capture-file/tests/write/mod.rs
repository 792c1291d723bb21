//! Writes capture files for tests, byte by byte, right and wrong.
#![allow(dead_code, reason = "each test uses a part")]

use std::io::Write;

/// Puts numbers in one byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub big: bool,
}

pub const LITTLE: Order = Order { big: false };
pub const BIG: Order = Order { big: true };

impl Order {
    pub fn u16(self, v: u16) -> [u8; 2] {
        if self.big {
            v.to_be_bytes()
        } else {
            v.to_le_bytes()
        }
    }

    pub fn u32(self, v: u32) -> [u8; 4] {
        if self.big {
            v.to_be_bytes()
        } else {
            v.to_le_bytes()
        }
    }

    pub fn u64(self, v: u64) -> [u8; 8] {
        if self.big {
            v.to_be_bytes()
        } else {
            v.to_le_bytes()
        }
    }

    fn words(self, words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| self.u32(*w)).collect()
    }

    /// A pcap file's header.
    pub fn pcap(self, magic: u32, link: u32) -> Vec<u8> {
        self.pcap_version(magic, link, 2, 4)
    }

    pub fn pcap_version(self, magic: u32, link: u32, major: u16, minor: u16) -> Vec<u8> {
        let version = [self.u16(major), self.u16(minor)].concat();
        [
            &self.u32(magic)[..],
            &version,
            &self.words(&[0, 0, 65_535, link]),
        ]
        .concat()
    }

    /// A record: seconds, their part, the length it had, its bytes.
    pub fn record(self, s: u32, part: u32, len: u32, bytes: &[u8]) -> Vec<u8> {
        let mut r = self.words(&[s, part, bytes.len() as u32, len]);
        r.extend(bytes);
        r
    }

    /// A block of pcapng.
    pub fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let mut b = body.to_vec();
        b.resize(b.len().next_multiple_of(4), 0);
        let len = self.u32(b.len() as u32 + 12);
        [&self.u32(kind)[..], &len, &b, &len].concat()
    }

    pub fn section(self) -> Vec<u8> {
        let body = [
            &self.u32(0x1a2b_3c4d)[..],
            &self.u16(1),
            &self.u16(0),
            &self.u64(u64::MAX),
        ]
        .concat();
        self.block(0x0a0d_0d0a, &body)
    }

    pub fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut o = [self.u16(code), self.u16(value.len() as u16)].concat();
        o.extend(value);
        o.resize(o.len().next_multiple_of(4), 0);
        o
    }

    pub fn interface(self, link: u16, snaplen: u32, options: &[Vec<u8>]) -> Vec<u8> {
        let mut body = [&self.u16(link)[..], &[0; 2], &self.u32(snaplen)].concat();
        if !options.is_empty() {
            body.extend(options.concat());
            body.extend([0; 4]);
        }
        self.block(1, &body)
    }

    pub fn enhanced(self, interface: u32, ticks: u64, len: u32, bytes: &[u8]) -> Vec<u8> {
        let mut body = self.words(&[
            interface,
            (ticks >> 32) as u32,
            ticks as u32,
            bytes.len() as u32,
            len,
        ]);
        body.extend(bytes);
        self.block(6, &body)
    }

    pub fn simple(self, len: u32, bytes: &[u8]) -> Vec<u8> {
        self.block(3, &[&self.u32(len)[..], bytes].concat())
    }

    pub fn obsolete(self, interface: u16, ticks: u64, len: u32, bytes: &[u8]) -> Vec<u8> {
        let mut body = [self.u16(interface), self.u16(7)].concat();
        body.extend(self.words(&[(ticks >> 32) as u32, ticks as u32, bytes.len() as u32, len]));
        body.extend(bytes);
        self.block(2, &body)
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    e.write_all(bytes).unwrap();
    e.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}
