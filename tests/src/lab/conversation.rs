//! A made-up TCP conversation as a mirror would have captured it: handshake, requests and answers
//! in turns, and the end.

use super::pcap::{Frame, link};

/// Payload bytes a segment carries at most, as a rule.
pub const MSS: usize = 1_000;
const SERVER_ISN: u32 = 0xffff_fff0;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// One connection between two IPv4 hosts. The server's numbers pass the wrap.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// The client's port.
    pub client_port: u16,
    /// The server's port.
    pub server_port: u16,
    /// What the client says in each turn; the server answers each with 100 bytes.
    pub turns: Vec<Vec<u8>>,
    /// When it begins, in µs.
    pub start_us: u64,
    /// Time from one turn to the next, in µs.
    pub pause_us: u64,
    /// Payload bytes a segment carries at most, such as [`MSS`].
    pub mss: usize,
}

struct Writer<'a> {
    of: &'a Conversation,
    now_us: u64,
    /// Next number of the client and of the server.
    next: [u32; 2],
    frames: Vec<Frame>,
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | w.get(1).map_or(0, |b| u32::from(*b)))
        .sum()
}

fn complement(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!sum as u16).to_be_bytes()
}

impl Writer<'_> {
    fn segment(&mut self, from_server: bool, flags: u8, payload: &[u8]) {
        let (hosts, ports) = (
            [[192, 0, 2, 1], [198, 51, 100, 1]],
            [self.of.client_port, self.of.server_port],
        );
        let (me, other) = (usize::from(from_server), usize::from(!from_server));
        let ack = if flags & ACK == 0 {
            0
        } else {
            self.next[other]
        };
        let mut tcp = Vec::new();
        tcp.extend(ports[me].to_be_bytes());
        tcp.extend(ports[other].to_be_bytes());
        tcp.extend(self.next[me].to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        tcp.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(payload);
        let pseudo = sum(&hosts[me]) + sum(&hosts[other]) + 6 + tcp.len() as u32;
        let checksum = complement(pseudo + sum(&tcp));
        tcp[16..18].copy_from_slice(&checksum);

        let total = (20 + tcp.len()) as u16;
        let mut ip = vec![0x45, 0];
        ip.extend(total.to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        ip.extend(hosts[me]);
        ip.extend(hosts[other]);
        let checksum = complement(sum(&ip));
        ip[10..12].copy_from_slice(&checksum);
        ip.extend(tcp);

        let counted = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        self.next[me] = self.next[me].wrapping_add(counted);
        self.frames.push(Frame {
            at_us: self.now_us,
            link: link::RAW,
            len: ip.len(),
            bytes: ip,
        });
        self.now_us += 100;
    }
}

impl Conversation {
    /// Its frames, as raw IP.
    pub fn frames(&self) -> Vec<Frame> {
        let mut w = Writer {
            of: self,
            now_us: self.start_us,
            next: [u32::from(self.client_port) << 16, SERVER_ISN],
            frames: Vec::new(),
        };
        w.segment(false, SYN, &[]);
        w.segment(true, SYN | ACK, &[]);
        w.segment(false, ACK, &[]);
        for (i, said) in self.turns.iter().enumerate() {
            w.now_us = w.now_us.max(self.start_us + self.pause_us * i as u64);
            let last = said.len().div_ceil(self.mss).saturating_sub(1);
            for (k, part) in said.chunks(self.mss).enumerate() {
                w.segment(false, if k == last { PSH | ACK } else { ACK }, part);
            }
            w.segment(true, PSH | ACK, &[b'.'; 100]);
            w.segment(false, ACK, &[]);
        }
        w.segment(false, FIN | ACK, &[]);
        w.segment(true, FIN | ACK, &[]);
        w.segment(false, ACK, &[]);
        w.frames
    }

    /// All that the client says.
    pub fn said(&self) -> Vec<u8> {
        self.turns.concat()
    }
}

/// The same frames as they would have been captured on another kind of link.
pub fn on_link(kind: u16, frames: &[Frame]) -> Vec<Frame> {
    let head: &[u8] = match kind {
        link::NULL => &[2, 0, 0, 0],
        link::ETHERNET => &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0],
        link::SLL => &[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0],
        link::SLL2 => &[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0],
        _ => &[],
    };
    let wrap = |f: &Frame| Frame {
        link: kind,
        len: f.len + head.len(),
        bytes: [head, &f.bytes].concat(),
        ..f.clone()
    };
    frames.iter().map(wrap).collect()
}
