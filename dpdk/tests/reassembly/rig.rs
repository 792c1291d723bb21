//! Parts of datagrams, and a table that is checked for what it holds.

use crate::common::{Pool, eal, flatten, frame, pattern};
use dpdk::{DATA_ROOM, Mbuf, Mempool, Reassembly};
use wire::checksum::Sum;
use wire::decode::{Fragment, LinkType, fragment, mirrored_on};
use wire::defragment::{FragmentDrop, Insert};
use wire::{Addr, Nanos};

pub const SECOND: Nanos = 1_000_000_000;
pub const TIMEOUT: Nanos = 2 * SECOND;

/// A pool and a table that give back all they held. The fields drop in order.
pub struct Rig {
    pub table: Reassembly,
    pub pool: Pool,
}

impl Rig {
    pub fn new(datagrams: u32) -> Self {
        Self {
            table: Reassembly::new(&eal(), datagrams, TIMEOUT, None).unwrap(),
            pool: Pool::new(1023, DATA_ROOM),
        }
    }

    pub fn insert(&mut self, now: Nanos, bytes: &[u8]) -> Option<Mbuf> {
        insert(&mut self.table, &self.pool, now, bytes)
    }

    /// Inserts parts that make no datagram.
    pub fn feed<'a>(&mut self, now: Nanos, parts: impl IntoIterator<Item = &'a Vec<u8>>) {
        for p in parts {
            assert!(self.insert(now, p).is_none());
        }
    }

    pub fn dropped(&self, reason: FragmentDrop) -> u64 {
        self.table.counters().dropped[reason as usize]
    }

    /// Everything is accounted for: what is held, and nothing else, is out of the pool.
    pub fn check(&self, held: u64) {
        assert_eq!(self.table.counters().held(), held);
        assert_eq!(u64::from(self.pool.in_use()), held);
    }
}

pub fn insert(table: &mut Reassembly, pool: &Mempool, now: Nanos, bytes: &[u8]) -> Option<Mbuf> {
    insert_frame(table, now, frame(pool, bytes))
}

pub fn insert_frame(table: &mut Reassembly, now: Nanos, frame: Mbuf) -> Option<Mbuf> {
    let part: Fragment = fragment(frame.bytes(), frame.frame_len()).unwrap();
    let before = table.counters();
    let whole = match table.insert(now, frame, &part) {
        Insert::Whole(m) => Some(m),
        Insert::Taken => None,
        Insert::Refused => unreachable!("DPDK reassembles"),
    };
    let after = table.counters();
    assert_eq!(after.received, before.received + 1);
    assert_eq!(
        after.datagrams - before.datagrams,
        u64::from(whole.is_some())
    );
    whole
}

/// How the parts of a datagram are framed.
#[derive(Clone)]
pub struct Style {
    pub v6: bool,
    pub ident: u32,
    pub protocol: u8,
    /// Bytes in front of the IP header.
    pub link: Vec<u8>,
    /// IPv6: extension headers in front of the fragment header. IPv4: options.
    pub more: Vec<u8>,
    pub padding: usize,
}

impl Style {
    pub fn new(v6: bool) -> Self {
        let mut link = vec![2; 12];
        link.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        Self {
            v6,
            ident: 7,
            protocol: 6,
            link,
            more: vec![],
            padding: 0,
        }
    }

    pub fn part(&self, offset: usize, more: bool, data: &[u8]) -> Vec<u8> {
        let word = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
        let mut b = self.link.clone();
        if self.v6 {
            b.extend([0x60, 0, 0, 0]);
            b.extend(word(self.more.len() + 8 + data.len()));
            // Hop-by-hop options, if there are extension headers.
            b.extend([if self.more.is_empty() { 44 } else { 0 }, 64]);
            b.extend([0x20; 16]);
            b.extend([0x21; 16]);
            b.extend(&self.more);
            b.extend([self.protocol, 0]);
            b.extend(word(offset | usize::from(more)));
            b.extend(self.ident.to_be_bytes());
        } else {
            let header = 20 + self.more.len();
            b.extend([0x40 | (header / 4) as u8, 0]);
            b.extend(word(header + data.len()));
            b.extend(word(self.ident as usize));
            b.extend(word((offset / 8) | if more { 0x2000 } else { 0 }));
            b.extend([64, self.protocol, 0, 0]);
            b.extend([10, 0, 0, 1, 10, 0, 0, 2]);
            b.extend(&self.more);
        }
        b.extend(data);
        b.extend(vec![0xee; self.padding]);
        b
    }

    /// The parts of a datagram with this payload, `size` bytes in each but the last.
    pub fn parts(&self, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let n = payload.len().div_ceil(size);
        let cut = payload.chunks(size).enumerate();
        cut.map(|(i, data)| self.part(i * size, i + 1 < n, data))
            .collect()
    }
}

/// A TCP segment from port 4000 to port 80, as an IP datagram carries it.
pub fn segment(len: usize) -> Vec<u8> {
    let mut s = vec![
        0x0f, 0xa0, 0, 80, 0, 0, 1, 0, 0, 0, 2, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0,
    ];
    s.extend(pattern(len, 3));
    s
}

/// [`segment`] with the checksum that it has between the addresses of [`Style`].
pub fn sound_segment(v6: bool, len: usize) -> Vec<u8> {
    let mut s = segment(len);
    let (src, dst) = if v6 {
        (Addr::v6([0x20; 16]), Addr::v6([0x21; 16]))
    } else {
        (Addr::v4([10, 0, 0, 1]), Addr::v4([10, 0, 0, 2]))
    };
    let sum = Sum::new().pseudo_header(&src, &dst, 6, s.len() as u32);
    let sum = sum.bytes(&s).finish();
    s[16..18].copy_from_slice(&sum.to_be_bytes());
    s
}

/// The segment's payload, as decoded from a reassembled datagram.
pub fn payload(datagram: Mbuf) -> Vec<u8> {
    let p = mirrored_on(LinkType::RawIp, datagram.bytes(), datagram.frame_len()).unwrap();
    assert_eq!((p.head.flow.src.port, p.head.flow.dst.port), (4_000, 80));
    assert!(!p.is_truncated());
    let bytes = flatten(datagram);
    assert_eq!(bytes.len(), p.payload_offset + p.captured, "no padding");
    bytes[p.payload_offset..].to_vec()
}
