//! Capture files read on their own terms: what each client said, found without a line of the code
//! under test.
//!
//! It knows no encapsulation. The TCP segment of a frame is behind the first IPv4 header in it that
//! says TCP, whose header checksum is right (RFC 791 section 3.1) and whose length fits the frame,
//! or behind the IP header that the frame begins with. So it cannot share an error with a decoder
//! that walks from header to header. Bytes are put in order by sequence number; the first captured
//! copy of a byte counts.

use anyhow::{Context, Result, anyhow, bail};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// LINKTYPE_NULL, LINKTYPE_ETHERNET, LINKTYPE_RAW, LINKTYPE_LINUX_SLL, LINKTYPE_LINUX_SLL2.
pub mod link {
    /// BSD loopback.
    pub const NULL: u16 = 0;
    /// Ethernet.
    pub const ETHERNET: u16 = 1;
    /// IPv4 or IPv6 and nothing before it.
    pub const RAW: u16 = 101;
    /// Linux "cooked".
    pub const SLL: u16 = 113;
    /// Linux "cooked", version 2.
    pub const SLL2: u16 = 276;
}

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When, in µs.
    pub at_us: u64,
    /// How it begins.
    pub link: u16,
    /// What was captured of it.
    pub bytes: Vec<u8>,
    /// Its length on the wire.
    pub len: usize,
}

fn u16_at(bytes: &[u8], at: usize, big: bool) -> Option<u16> {
    let b: [u8; 2] = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(if big {
        u16::from_be_bytes(b)
    } else {
        u16::from_le_bytes(b)
    })
}

fn u32_at(bytes: &[u8], at: usize, big: bool) -> Option<u32> {
    let b: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(if big {
        u32::from_be_bytes(b)
    } else {
        u32::from_le_bytes(b)
    })
}

/// The frames of a pcap or pcapng file.
///
/// # Errors
/// It can't be read, is neither, or ends in the middle of a frame.
pub fn read(path: &Path) -> Result<Vec<Frame>> {
    let bytes =
        std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let frames = match u32_at(&bytes, 0, false) {
        Some(0xa1b2_c3d4) => pcap(&bytes, false, 1),
        Some(0xa1b2_3c4d) => pcap(&bytes, false, 1_000),
        Some(0xd4c3_b2a1) => pcap(&bytes, true, 1),
        Some(0x4d3c_b2a1) => pcap(&bytes, true, 1_000),
        Some(0x0a0d_0d0a) => pcapng(&bytes),
        _ => bail!("{}: is no capture file", path.display()),
    };
    frames.ok_or_else(|| anyhow!("{}: ends in the middle of a frame", path.display()))
}

fn pcap(file: &[u8], big: bool, per_us: u32) -> Option<Vec<Frame>> {
    let link = u32_at(file, 20, big)? as u16;
    let (mut at, mut frames) = (24, Vec::new());
    while at < file.len() {
        let kept = u32_at(file, at + 8, big)? as usize;
        let (seconds, rest) = (u32_at(file, at, big)?, u32_at(file, at + 4, big)? / per_us);
        frames.push(Frame {
            at_us: u64::from(seconds) * 1_000_000 + u64::from(rest),
            link,
            bytes: file.get(at + 16..at + 16 + kept)?.to_vec(),
            len: u32_at(file, at + 12, big)? as usize,
        });
        at += 16 + kept;
    }
    Some(frames)
}

fn pcapng(file: &[u8]) -> Option<Vec<Frame>> {
    let big = u32_at(file, 8, true)? == 0x1a2b_3c4d;
    let (mut at, mut links, mut frames) = (0, Vec::new(), Vec::new());
    while at < file.len() {
        let len = u32_at(file, at + 4, big)? as usize;
        let body = file.get(at + 8..(at + len).checked_sub(4)?)?;
        match u32_at(file, at, big)? {
            1 => links.push(u16_at(body, 0, big)?),
            6 => {
                let kept = u32_at(body, 12, big)? as usize;
                frames.push(Frame {
                    at_us: u64::from(u32_at(body, 4, big)?) << 32
                        | u64::from(u32_at(body, 8, big)?),
                    link: *links.get(u32_at(body, 0, big)? as usize)?,
                    bytes: body.get(20..20 + kept)?.to_vec(),
                    len: u32_at(body, 16, big)? as usize,
                });
            }
            _ => {}
        }
        at += len;
    }
    Some(frames)
}

/// A kind of capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// pcap, little-endian, times in µs.
    Pcap,
    /// pcap, big-endian, times in ns.
    PcapBigEndianNano,
    /// pcapng (draft-ietf-opsawg-pcapng), little-endian: one section, one interface, times in µs.
    PcapNg,
}

/// Writes a capture file.
///
/// # Errors
/// It can't be written.
pub fn write(path: &Path, format: Format, link: u16, frames: &[Frame]) -> Result<()> {
    let file = match format {
        Format::Pcap => as_pcap(link, frames, 0xa1b2_c3d4, 1, u32::to_le_bytes),
        Format::PcapBigEndianNano => as_pcap(link, frames, 0xa1b2_3c4d, 1_000, u32::to_be_bytes),
        Format::PcapNg => as_pcapng(link, frames),
    };
    std::fs::write(path, file).with_context(|| format!("{}: cannot be written", path.display()))
}

fn as_pcap(
    link: u16,
    frames: &[Frame],
    magic: u32,
    per_us: u32,
    word: fn(u32) -> [u8; 4],
) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(word(magic));
    // Version 2.4: two numbers of 16 bits.
    file.extend(if word(1)[0] == 1 {
        [2, 0, 4, 0]
    } else {
        [0, 2, 0, 4]
    });
    for w in [0, 0, 65_535, u32::from(link)] {
        file.extend(word(w));
    }
    for f in frames {
        let (seconds, rest) = (f.at_us / 1_000_000, f.at_us % 1_000_000);
        let words = [
            seconds as u32,
            rest as u32 * per_us,
            f.bytes.len() as u32,
            f.len as u32,
        ];
        file.extend(words.map(word).concat());
        file.extend(&f.bytes);
    }
    file
}

fn as_pcapng(link: u16, frames: &[Frame]) -> Vec<u8> {
    fn block(file: &mut Vec<u8>, kind: u32, words: &[u32], data: &[u8]) {
        let padding = data.len().next_multiple_of(4) - data.len();
        let len = (12 + words.len() * 4 + data.len() + padding) as u32;
        for word in [kind, len].iter().chain(words) {
            file.extend(word.to_le_bytes());
        }
        file.extend(data);
        file.extend(&[0; 4][..padding]);
        file.extend(len.to_le_bytes());
    }
    let mut file = Vec::new();
    block(
        &mut file,
        0x0a0d_0d0a,
        &[0x1a2b_3c4d, 1, u32::MAX, u32::MAX],
        &[],
    );
    block(&mut file, 1, &[u32::from(link), 65_535], &[]);
    for f in frames {
        let words = [
            0,
            (f.at_us >> 32) as u32,
            f.at_us as u32,
            f.bytes.len() as u32,
            f.len as u32,
        ];
        block(&mut file, 6, &words, &f.bytes);
    }
    file
}

/// A TCP segment as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sender.
    pub src: SocketAddr,
    /// Receiver.
    pub dst: SocketAddr,
    /// Sequence number of the first byte or of the SYN.
    pub seq: u32,
    /// Control bits.
    pub flags: u8,
    /// Payload bytes that the IP length announces.
    pub len: usize,
    /// Those that were captured.
    pub payload: Vec<u8>,
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Where the link header ends, if the IP header follows at once.
fn network_at(frame: &Frame) -> Option<usize> {
    let ip = |at: usize| matches!(u16_at(&frame.bytes, at, true), Some(0x0800 | 0x86dd));
    match frame.link {
        link::NULL => Some(4),
        link::RAW => Some(0),
        link::ETHERNET => ip(12).then_some(14),
        link::SLL => ip(14).then_some(16),
        link::SLL2 => ip(0).then_some(20),
        _ => None,
    }
}

/// The frame's TCP segment. `None` if it has none, or only a fragment of one.
pub fn segment(frame: &Frame) -> Option<Segment> {
    let start = network_at(frame);
    if let Some(at) = start
        && frame.bytes.get(at)? >> 4 == 6
    {
        return ipv6(frame, at);
    }
    (0..frame.bytes.len()).find_map(|at| ipv4(frame, at, start == Some(at)))
}

fn ipv4(frame: &Frame, at: usize, trusted: bool) -> Option<Segment> {
    let b = frame.bytes.get(at..)?;
    let header = usize::from(b.first()? & 0x0f) * 4;
    let (total, fragment) = (usize::from(u16_at(b, 2, true)?), u16_at(b, 6, true)?);
    let fits = header >= 20 && total >= header + 20 && at + total <= frame.len;
    if b[0] >> 4 != 4 || b.get(9)? != &6 || fragment & 0x3fff != 0 || !fits {
        return None;
    }
    let sum: u32 = b
        .get(..header)?
        .chunks_exact(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
        .sum();
    if !trusted && (sum & 0xffff) + (sum >> 16) != 0xffff {
        return None;
    }
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = b.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::from(octets))
    };
    tcp(b.get(header..)?, total - header, address(12)?, address(16)?)
}

fn ipv6(frame: &Frame, at: usize) -> Option<Segment> {
    let b = frame.bytes.get(at..)?;
    let end = 40 + usize::from(u16_at(b, 4, true)?);
    let (mut next, mut at) = (*b.get(6)?, 40);
    // Hop-by-hop options, routing and destination options (RFC 8200 sections 4.3, 4.4, 4.6), and a
    // fragment header on a datagram that is whole (RFC 6946).
    while next != 6 {
        let len = match next {
            0 | 43 | 60 => 8 + usize::from(*b.get(at + 1)?) * 8,
            44 if u16_at(b, at + 2, true)? & 0xfff9 == 0 => 8,
            _ => return None,
        };
        next = *b.get(at)?;
        at += len;
    }
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = b.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(octets))
    };
    tcp(
        b.get(at..)?,
        end.checked_sub(at)?,
        address(8)?,
        address(24)?,
    )
}

fn tcp(b: &[u8], announced: usize, src: IpAddr, dst: IpAddr) -> Option<Segment> {
    let header = usize::from(b.get(12)? >> 4) * 4;
    let len = announced.checked_sub(header)?;
    let payload = b.get(header.max(20)..).unwrap_or(&[]);
    Some(Segment {
        src: SocketAddr::new(src, u16_at(b, 0, true)?),
        dst: SocketAddr::new(dst, u16_at(b, 2, true)?),
        seq: u32_at(b, 4, true)?,
        flags: *b.get(13)?,
        len,
        payload: payload.get(..len).unwrap_or(payload).to_vec(),
    })
}

/// What a client said in one connection, as far as it was captured. Places count from the first
/// byte after the SYN, or, without one, from the first that was captured.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The end that sent the SYN; without one, the end with the higher port.
    pub client: SocketAddr,
    /// The other end.
    pub server: SocketAddr,
    /// Its SYN was captured.
    pub syn: bool,
    base: u32,
    /// Captured bytes by place.
    bytes: BTreeMap<i64, u8>,
    /// Places where captured pieces begin, and where they end.
    starts: BTreeSet<i64>,
    ends: BTreeSet<i64>,
    /// End of what the client is known to have said.
    said: i64,
    /// The place of its FIN.
    fin: Option<i64>,
}

impl Stream {
    fn new(client: SocketAddr, server: SocketAddr, first: Option<u32>, base: u32) -> Self {
        Self {
            client,
            server,
            syn: first.is_some(),
            base: first.unwrap_or(base),
            bytes: BTreeMap::new(),
            starts: BTreeSet::new(),
            ends: BTreeSet::new(),
            said: 0,
            fin: None,
        }
    }

    fn take(&mut self, s: &Segment) {
        let at = i64::from(
            s.seq
                .wrapping_add(u32::from(s.flags & SYN != 0))
                .wrapping_sub(self.base) as i32,
        );
        // A keep-alive sends the byte before (RFC 9293 section 3.8.4), nothing was said before the
        // SYN, and a RST may have any number.
        if s.flags & RST != 0 || (self.syn && at < 0) {
            return;
        }
        let end = at + s.len as i64;
        if s.flags & FIN != 0 {
            self.fin = Some(end);
        }
        self.said = self.said.max(end);
        if s.payload.is_empty() {
            return;
        }
        self.starts.insert(at);
        self.ends.insert(at + s.payload.len() as i64);
        for (place, byte) in (at..).zip(&s.payload) {
            self.bytes.entry(place).or_insert(*byte);
        }
    }

    /// True if it was captured from the SYN on, without a hole.
    pub fn is_whole(&self) -> bool {
        // What comes after the FIN stands one place behind it, as the FIN takes a number (RFC 9293
        // section 3.4).
        let said = self.fin.map_or(self.said, |fin| self.said.min(fin));
        self.syn && self.bytes.len() as i64 == said
    }

    /// The captured bytes in order.
    pub fn captured(&self) -> Vec<u8> {
        self.bytes.values().copied().collect()
    }

    /// Can these bytes be what is captured behind the places `from`, piece by piece and in order,
    /// with pieces left out? Returns the places where it can have ended; none if it can't be.
    pub fn explains(&self, from: &BTreeSet<i64>, said: &[u8]) -> BTreeSet<i64> {
        let mut at = from.clone();
        for (i, byte) in said.iter().enumerate() {
            // Where a piece ends another one may begin.
            let leave = at
                .iter()
                .filter(|p| i == 0 || self.ends.contains(p))
                .min()
                .copied();
            let jumps = leave.into_iter().flat_map(|p| self.starts.range(p..));
            let next: BTreeSet<i64> = at
                .iter()
                .chain(jumps)
                .filter(|p| self.bytes.get(p) == Some(byte))
                .map(|p| p + 1)
                .collect();
            at = next;
        }
        at
    }

    /// The place before everything.
    pub fn beginning(&self) -> BTreeSet<i64> {
        BTreeSet::from([i64::MIN])
    }
}

/// Who said what in a capture: a stream for each connection, in the order of their first segments.
pub fn streams(frames: &[Frame]) -> Vec<Stream> {
    let mut all: Vec<Stream> = Vec::new();
    let mut latest: HashMap<[SocketAddr; 2], usize> = HashMap::new();
    let segments: Vec<Segment> = frames.iter().filter_map(segment).collect();
    let key = |s: &Segment| {
        let mut ends = [s.src, s.dst];
        ends.sort();
        ends
    };
    // Who opened it may be seen late only.
    let mut opened: HashMap<[SocketAddr; 2], SocketAddr> = HashMap::new();
    for s in &segments {
        match s.flags & (SYN | ACK) {
            SYN => opened.insert(key(s), s.src),
            flags if flags == SYN | ACK => Some(*opened.entry(key(s)).or_insert(s.dst)),
            _ => None,
        };
    }
    for s in &segments {
        let client = opened.get(&key(s)).copied().unwrap_or_else(|| {
            if s.src.port() >= s.dst.port() {
                s.src
            } else {
                s.dst
            }
        });
        if client != s.src {
            continue;
        }
        let first = (s.flags & (SYN | ACK) == SYN).then(|| s.seq.wrapping_add(1));
        let known = latest.get(&key(s)).copied();
        let is_new = known.is_none_or(|i| first.is_some_and(|f| all[i].base != f || !all[i].syn));
        if is_new {
            latest.insert(key(s), all.len());
            all.push(Stream::new(s.src, s.dst, first, s.seq));
        }
        if let Some(stream) = latest.get(&key(s)).and_then(|i| all.get_mut(*i)) {
            stream.take(s);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::conversation::{Conversation, on_link};
    use super::*;

    fn talk() -> Conversation {
        Conversation {
            client_port: 40_000,
            server_port: 80,
            turns: vec![b"first".to_vec(), vec![b'x'; 1_500], b"last".to_vec()],
            start_us: 7_000_000,
            pause_us: 10,
            mss: super::super::conversation::MSS,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcap");
        for format in [Format::Pcap, Format::PcapBigEndianNano, Format::PcapNg] {
            for kind in [link::NULL, link::ETHERNET, link::RAW, link::SLL, link::SLL2] {
                let frames = on_link(kind, &talk().frames());
                write(&path, format, kind, &frames).unwrap();
                let again = read(&path).unwrap();
                assert_eq!(again, frames, "{format:?} {kind}");
                let said = streams(&again);
                assert_eq!(said.len(), 1);
                assert!(said[0].is_whole());
                assert_eq!(said[0].captured(), talk().said());
            }
        }
        std::fs::write(&path, b"no capture").unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn only_captured_bytes_in_order_are_explained() {
        let mut frames = talk().frames();
        // The second turn's first frame is gone: the client's frames are 3, 6, 7 and 10.
        frames.remove(6);
        let s = streams(&frames).remove(0);
        assert!(!s.is_whole());
        let fits = |said: &[u8]| !s.explains(&s.beginning(), said).is_empty();
        let rest = [b'x'; 500];
        for good in [
            &b""[..],
            b"first",
            b"firstlast",
            b"last",
            &[b"first", &rest[..], b"last"].concat(),
        ] {
            assert!(fits(good), "{good:?}");
        }
        for bad in [
            &b"lastfirst"[..],
            b"firstfirst",
            b"firslast",
            b"First",
            b"firstlast.",
            &[b"first", &[b'x'; 501][..]].concat(),
        ] {
            assert!(!fits(bad), "{bad:?}");
        }
        // A second connection goes on behind the first.
        let behind = s.explains(&s.beginning(), b"first");
        assert!(s.explains(&behind, b"first").is_empty());
        assert!(!s.explains(&behind, b"last").is_empty());
    }
}
