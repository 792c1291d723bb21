//! Link headers of capture files: what stands before the first header that networks know.
//!
//! Of a mirror port all frames are Ethernet; a file has the link type of the interface that it was
//! captured on (<https://www.tcpdump.org/linktypes.html>). Each header is read to where EtherType,
//! IP or another link header follows.

use super::Layer;
use crate::Skip;
use crate::ethernet::{ethertype, snap_type};
use crate::tunnel;

/// How a frame begins; the link types of capture files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// Ethernet (LINKTYPE 1).
    Ethernet,
    /// IPv4 or IPv6 without a link header (LINKTYPE 101, 228, 229 and DLT_RAW 12 and 14).
    RawIp,
    /// BSD loopback: a 4-byte address family in the byte order of the machine that captured
    /// (LINKTYPE 0 and 108).
    Null,
    /// Linux "cooked" capture (LINKTYPE 113).
    LinuxSll,
    /// Linux "cooked" capture version 2 (LINKTYPE 276).
    LinuxSll2,
    /// PPP, with or without the address and control bytes of HDLC (LINKTYPE 9).
    Ppp,
    /// PPP in HDLC framing, or Cisco's HDLC, as the first byte says (LINKTYPE 50).
    PppHdlc,
    /// Cisco's HDLC (LINKTYPE 104).
    CiscoHdlc,
    /// A PPPoE session without the Ethernet header (LINKTYPE 51).
    Pppoe,
    /// LLC/SNAP at once, as behind ATM (LINKTYPE 100).
    LlcSnap,
    /// FDDI (LINKTYPE 10).
    Fddi,
    /// IEEE 802.11 (LINKTYPE 105).
    Wlan,
    /// IEEE 802.11 behind a radiotap header (LINKTYPE 127).
    Radiotap,
    /// Per-packet information, and behind it another link type (LINKTYPE 192).
    Ppi,
    /// Linux's netfilter log (LINKTYPE 239).
    Nflog,
    /// OpenBSD's firewall log (LINKTYPE 117).
    Pflog,
    /// Apple's packet tap, and behind it another link type (LINKTYPE 258, and DLT_USER2, 149, which
    /// Apple's systems write for it).
    Pktap,
}

/// PPP protocols (IANA, PPP DLL protocol numbers).
mod ppp {
    pub const IPV4: u16 = 0x0021;
    pub const IPV6: u16 = 0x0057;
    pub const MPLS: u16 = 0x0281;
    pub const MPLS_MULTICAST: u16 = 0x0283;
    /// The Encryption Control Protocol's packets (RFC 1968).
    pub const ENCRYPTED: u16 = 0x0053;
    pub const COMPRESSED: u16 = 0x00fd;
}

impl LinkType {
    /// The link type with this number in a pcap or pcapng file, if it is understood.
    pub const fn from_pcap(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Ethernet,
            0 | 108 => Self::Null,
            12 | 14 | 101 | 228 | 229 => Self::RawIp,
            113 => Self::LinuxSll,
            276 => Self::LinuxSll2,
            9 => Self::Ppp,
            50 => Self::PppHdlc,
            104 => Self::CiscoHdlc,
            51 => Self::Pppoe,
            100 => Self::LlcSnap,
            10 => Self::Fddi,
            105 => Self::Wlan,
            127 => Self::Radiotap,
            192 => Self::Ppi,
            239 => Self::Nflog,
            117 => Self::Pflog,
            258 | 149 => Self::Pktap,
            _ => return None,
        })
    }

    /// Length of the link header and what follows it. What is another link type follows a header
    /// of at least 8 bytes, and is none that is followed by a third.
    #[inline]
    pub(super) fn header(self, bytes: &[u8]) -> Result<(usize, Layer), Skip> {
        match self {
            Self::Ethernet => Ok((0, Layer::Ethernet)),
            Self::RawIp => Ok((0, Layer::Ip)),
            Self::Null => null(bytes),
            Self::LinuxSll => {
                let h = bytes.first_chunk::<16>().ok_or(Skip::TooShort)?;
                Ok((16, Layer::EtherType(u16::from_be_bytes([h[14], h[15]]))))
            }
            Self::LinuxSll2 => {
                let h = bytes.first_chunk::<20>().ok_or(Skip::TooShort)?;
                Ok((20, Layer::EtherType(u16::from_be_bytes([h[0], h[1]]))))
            }
            Self::Ppp => ppp(bytes),
            Self::PppHdlc => match bytes.first() {
                // The addresses of Cisco's framing, unicast and broadcast.
                Some(0x0f | 0x8f) => cisco_hdlc(bytes),
                _ => ppp(bytes),
            },
            Self::CiscoHdlc => cisco_hdlc(bytes),
            Self::Pppoe => Ok((0, Layer::EtherType(ethertype::PPPOE_SESSION))),
            Self::LlcSnap => snap(bytes, 0),
            Self::Fddi => match bytes.first().ok_or(Skip::TooShort)? & 0x70 {
                // Frame control of LLC frames (ANSI X3.139); the first bit is the class.
                0x50 => snap(bytes, 13),
                _ => Err(Skip::NotIp),
            },
            Self::Wlan => wlan(bytes, 0, false),
            Self::Radiotap => radiotap(bytes),
            Self::Ppi => {
                let h = bytes.first_chunk::<8>().ok_or(Skip::TooShort)?;
                let len = usize::from(u16::from_le_bytes([h[2], h[3]]));
                let link = u32::from_le_bytes([h[4], h[5], h[6], h[7]]);
                within(link, len, 8)
            }
            Self::Nflog => nflog(bytes),
            Self::Pflog => {
                let h = bytes.first_chunk::<4>().ok_or(Skip::TooShort)?;
                // The length is that of the header without what pads it.
                Ok((usize::from(h[0]).next_multiple_of(4), family(h[1].into())?))
            }
            Self::Pktap => {
                let h = bytes.first_chunk::<52>().ok_or(Skip::TooShort)?;
                let word = |at: usize| u32::from_le_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
                // A packet, rather than nothing.
                if word(4) != 1 {
                    return Err(Skip::LinkType);
                }
                within(word(8), word(0) as usize, 52)
            }
        }
    }
}

/// A frame of another link type behind a header of `len` bytes, which has `least` at least.
fn within(link: u32, len: usize, least: usize) -> Result<(usize, Layer), Skip> {
    let known = u16::try_from(link).ok().and_then(LinkType::from_pcap);
    match known {
        _ if len < least => Err(Skip::BadEncapsulation),
        None | Some(LinkType::Ppi | LinkType::Pktap) => Err(Skip::LinkType),
        Some(inner) => Ok((len, Layer::Link(inner))),
    }
}

/// IP of an address family: AF_INET, and AF_INET6 as Linux, the BSDs and macOS number it.
#[inline]
fn family(f: u32) -> Result<Layer, Skip> {
    match f {
        2 | 10 | 24 | 28 | 30 => Ok(Layer::Ip),
        _ => Err(Skip::NotIp),
    }
}

#[inline]
fn null(bytes: &[u8]) -> Result<(usize, Layer), Skip> {
    let f = bytes.first_chunk::<4>().ok_or(Skip::TooShort)?;
    // Families are small numbers, so the byte order shows in where the zeros are.
    let f = u32::from_le_bytes(*f).min(u32::from_be_bytes(*f));
    Ok((4, family(f)?))
}

fn ppp(bytes: &[u8]) -> Result<(usize, Layer), Skip> {
    // Address and control may be left out (RFC 1661 section 6.6), and so may the upper byte of the
    // protocol, whose lower byte is odd where the upper is even (section 6.5).
    let at = if bytes.starts_with(&[0xff, 0x03]) {
        2
    } else {
        0
    };
    let (protocol, len) = match *bytes.get(at..).unwrap_or(&[]) {
        [p, ..] if p & 1 == 1 => (u16::from(p), at + 1),
        [a, b, ..] => (u16::from_be_bytes([a, b]), at + 2),
        _ => return Err(Skip::TooShort),
    };
    let t = match protocol {
        ppp::IPV4 => ethertype::IPV4,
        ppp::IPV6 => ethertype::IPV6,
        ppp::MPLS => ethertype::MPLS,
        ppp::MPLS_MULTICAST => ethertype::MPLS_UPSTREAM,
        ppp::ENCRYPTED => return Err(Skip::Encrypted),
        ppp::COMPRESSED => return Err(Skip::UnknownEncapsulation),
        _ => return Err(Skip::NotIp),
    };
    Ok((len, Layer::EtherType(t)))
}

fn cisco_hdlc(bytes: &[u8]) -> Result<(usize, Layer), Skip> {
    let h = bytes.first_chunk::<4>().ok_or(Skip::TooShort)?;
    Ok((4, Layer::EtherType(u16::from_be_bytes([h[2], h[3]]))))
}

/// An LLC/SNAP header `at` bytes into the frame.
fn snap(bytes: &[u8], at: usize) -> Result<(usize, Layer), Skip> {
    let t = snap_type(bytes.get(at..).ok_or(Skip::TooShort)?)?;
    // What SNAP announces is a type, never a length.
    if t < ethertype::MIN {
        return Err(Skip::NotIp);
    }
    Ok((at + 8, Layer::EtherType(t)))
}

/// An 802.11 frame `at` bytes into the frame; `padded` to four bytes behind its header.
fn wlan(bytes: &[u8], at: usize, padded: bool) -> Result<(usize, Layer), Skip> {
    let frame = bytes.get(at..).ok_or(Skip::TooShort)?;
    let mut len = tunnel::wlan_header(frame)?;
    if padded {
        len = len.next_multiple_of(4);
    }
    snap(bytes, at + len)
}

/// Radiotap (<https://www.radiotap.org>). All is little-endian; of its fields one is of interest,
/// the flags, which stand behind the first, of eight bytes on an eight-byte boundary, if that is
/// there.
fn radiotap(bytes: &[u8]) -> Result<(usize, Layer), Skip> {
    const MORE: u32 = 1 << 31;
    const CLOCK: u32 = 1;
    const FLAGS: u32 = 2;
    const PADDED: u8 = 0x20;
    let h = bytes.first_chunk::<8>().ok_or(Skip::TooShort)?;
    let len = usize::from(u16::from_le_bytes([h[2], h[3]]));
    if h[0] != 0 || len < 8 {
        return Err(Skip::BadEncapsulation);
    }
    let header = bytes.get(..len).ok_or(Skip::TooShort)?;
    let (words, _) = header.get(4..).unwrap_or(&[]).as_chunks::<4>();
    let present = words.first().copied().map_or(0, u32::from_le_bytes);
    // Further words of what is present follow as long as the last bit says so.
    let more = |w: &&[u8; 4]| u32::from_le_bytes(**w) & MORE != 0;
    let mut at = 8 + 4 * words.iter().take_while(more).count();
    if present & CLOCK != 0 {
        at = at.next_multiple_of(8) + 8;
    }
    let flags = match header.get(at) {
        Some(flags) if present & FLAGS != 0 => *flags,
        _ => 0,
    };
    wlan(bytes, len, flags & PADDED != 0)
}

/// Attributes, each with its length, its type and a value, padded to four bytes; the value of one
/// is the packet. Lengths and types are in the byte order of the machine that captured.
fn nflog(bytes: &[u8]) -> Result<(usize, Layer), Skip> {
    const PAYLOAD: u16 = 9;
    let h = bytes.first_chunk::<4>().ok_or(Skip::TooShort)?;
    if h[1] != 0 {
        return Err(Skip::UnknownEncapsulation);
    }
    let layer = family(h[0].into())?;
    let mut at = 4;
    while let Some(a) = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>) {
        // Types are small numbers.
        let big = a[2] == 0 && a[3] != 0;
        let word = |b: [u8; 2]| {
            if big {
                u16::from_be_bytes(b)
            } else {
                u16::from_le_bytes(b)
            }
        };
        let (len, kind) = (usize::from(word([a[0], a[1]])), word([a[2], a[3]]));
        if kind == PAYLOAD {
            return Ok((at + 4, layer));
        }
        if len < 4 {
            return Err(Skip::BadEncapsulation);
        }
        at += len.next_multiple_of(4);
    }
    Err(Skip::TooShort)
}
