//! From a frame to a TCP segment: one pass over the headers, no copy, no allocation.
//!
//! What always holds for a [`Packet`]: its payload begins inside the bytes that were given, and
//! `captured` bytes of it lie inside the whole frame. Payload is what the IP length says it is,
//! never the padding behind it; a frame cut short by a snap length is reported as cut.
//!
//! Checksums are verified on a port of our own, and on a mirror where that is asked for: a capture
//! taken on a host shows unfinished ones wherever the sender leaves them to its hardware, and what
//! was anonymised shows wrong ones. Where they are verified, one that is left at the sum of the
//! pseudo-header passes, as it does between virtual interfaces. What is not all in the first
//! buffer, or was cut, cannot be verified.

use crate::checksum::{Sum, checksum};
use crate::ethernet::{self, ethertype};
use crate::ipv4::{self, protocol};
use crate::tunnel::{Inner, Tunnel};
use crate::{Addr, Endpoint, Flags, Flow, Head, ipv6, tcp, vlan};
use std::ops::Range;

pub use crate::skip::Skip;

/// Encapsulations inside one another that are followed.
pub const MAX_DEPTH: usize = 8;
/// VLAN tags in a row that are followed on a mirror port.
pub const MAX_TAGS: usize = 4;

/// A decoded TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What the segment says.
    pub head: Head,
    /// Where its payload begins, counted from the start of the frame; inside the first buffer
    /// segment or at its end.
    pub payload_offset: usize,
    /// Payload bytes that the whole frame holds. Fewer than `head.payload_len` if the frame was
    /// cut by a snap length; they may go on beyond the first buffer segment.
    pub captured: usize,
    /// Encapsulations that were peeled off, VLAN tags not counted.
    pub depth: u8,
}

impl Packet {
    /// The part of the payload that lies in the first buffer segment, which is `first` bytes long.
    #[inline]
    pub fn payload_range(&self, first: usize) -> Range<usize> {
        let from = self.payload_offset.min(first);
        from..(self.payload_offset + self.captured).min(first).max(from)
    }

    /// True if bytes of the payload are missing from the frame.
    #[inline]
    pub const fn is_truncated(&self) -> bool {
        self.captured < self.head.payload_len as usize
    }
}

/// One part of a fragmented datagram, and where its IP header stands, as a reassembler needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where the IP header begins in the frame.
    pub ip_offset: usize,
    /// Length of the IP header: IPv4 with its options; IPv6 with all extension headers up to and
    /// including the fragment header.
    pub ip_header_len: usize,
    /// The sender.
    pub src: Addr,
    /// The receiver.
    pub dst: Addr,
    /// The protocol of what is fragmented; for IPv6 the fragment header's next header.
    pub protocol: u8,
    /// The identification that all parts share; 16 bits for IPv4.
    pub ident: u32,
    /// Where this part stands in the datagram's payload, in bytes.
    pub offset: usize,
    /// More parts follow.
    pub more: bool,
    /// Bytes of this part, as the IP length says.
    pub len: usize,
    /// Bytes of this part that the frame holds.
    pub captured: usize,
}

/// What a frame on a port of our own is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// A TCP segment.
    Tcp(Packet),
    /// ARP, ICMP or ICMPv6: for [`crate::host::Host::receive`].
    Control,
    /// Neither.
    Skip(Skip),
}

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
}

impl LinkType {
    /// The link type with this number in a pcap or pcapng file, if it is understood.
    pub const fn from_pcap(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Ethernet),
            0 | 108 => Some(Self::Null),
            12 | 14 | 101 | 228 | 229 => Some(Self::RawIp),
            113 => Some(Self::LinuxSll),
            276 => Some(Self::LinuxSll2),
            _ => None,
        }
    }
}

/// Which headers a port may show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Mirror,
    Local,
}

/// What to make of the checksums of IPv4 and TCP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checksums {
    Ignore,
    Verify,
}

/// Where the walk over the headers ended.
enum Stop {
    Tcp(Place),
    Fragment(Fragment),
    Control,
}

/// Where a TCP segment stands in its frame, in bytes from the start.
struct Place {
    /// Its IP header.
    ip: usize,
    /// Its own header.
    tcp: usize,
    /// Its end, as the IP length says.
    stated: usize,
    /// Its end in the frame: before `stated` if the frame was cut.
    end: usize,
    /// Encapsulations around it.
    depth: usize,
}

/// The header that comes next.
#[derive(Clone, Copy)]
enum Layer {
    Ethernet,
    EtherType(u16),
    Ip,
    Link(LinkType),
}

/// An IP header of either version, but for its addresses: these are read once it is known whose
/// header it is.
struct Ip {
    protocol: u8,
    header_len: usize,
    /// Length of header and payload as the header says; `None` if it leaves that to the frame's
    /// length.
    total_len: Option<usize>,
    /// Identification, offset, more.
    fragment: Option<(u32, usize, bool)>,
}

/// The tagged frame of minimum size: a zero IP length in a frame up to here would turn padding into
/// payload.
const MAX_PADDED_FRAME: usize = ethernet::MIN_FRAME + 2 * vlan::TAG_LEN;

impl Ip {
    #[inline]
    fn v4(bytes: &[u8]) -> Result<Self, Skip> {
        let h = ipv4::Header::new_checked(bytes)?;
        let fragment = h.is_fragment().then(|| {
            (
                u32::from(h.ident()),
                h.fragment_offset(),
                h.more_fragments(),
            )
        });
        let mut ip = Self {
            protocol: h.protocol(),
            header_len: h.header_len(),
            total_len: (h.total_len() != 0).then(|| h.total_len()),
            fragment,
        };
        // An authentication header hides nothing; behind it stands what the datagram carries.
        if ip.protocol == protocol::AH && fragment.is_none() {
            ip.extend(bytes, ip.header_len)?;
        }
        Ok(ip)
    }

    #[inline]
    fn v6(bytes: &[u8]) -> Result<Self, Skip> {
        let h = ipv6::Header::new_checked(bytes)?;
        let mut ip = Self {
            protocol: h.next_header(),
            header_len: ipv6::HEADER_LEN,
            total_len: (h.payload_len() != 0).then(|| ipv6::HEADER_LEN + h.payload_len()),
            fragment: None,
        };
        if ip.protocol != protocol::TCP {
            ip.extend(bytes, ipv6::HEADER_LEN)?;
        }
        Ok(ip)
    }

    /// Walks extension headers that begin at `at`.
    fn extend(&mut self, bytes: &[u8], at: usize) -> Result<(), Skip> {
        let end = self.total_len.unwrap_or(bytes.len()).min(bytes.len());
        let e = ipv6::extensions(self.protocol, bytes.get(at..end).unwrap_or(&[]))?;
        self.protocol = e.protocol;
        self.header_len = at + e.len;
        self.fragment = e.fragment.map(|f| (f.ident, f.offset, f.more));
        Ok(())
    }
}

/// Source and destination in an IP header that was checked.
#[inline]
fn addresses(header: &[u8]) -> Result<(Addr, Addr), Skip> {
    if header.first().is_some_and(|b| b >> 4 == 4) {
        let h = ipv4::Header::new_checked(header)?;
        Ok((h.src(), h.dst()))
    } else {
        let h = ipv6::Header::new_checked(header)?;
        Ok((h.src(), h.dst()))
    }
}

/// The bytes from `at` to the end of what the enclosing headers cover, as far as the first buffer
/// segment goes.
#[inline]
fn rest(bytes: &[u8], at: usize, end: usize) -> Result<&[u8], Skip> {
    bytes.get(at..end.min(bytes.len())).ok_or(Skip::TooShort)
}

/// Walks from the start of a frame to TCP. Every turn of the loop either ends it or moves on to a
/// header further inside; `depth` bounds tunnels and the tag loop bounds itself, so it ends.
fn walk(
    start: Layer,
    bytes: &[u8],
    frame_len: usize,
    port: Port,
    checksums: Checksums,
) -> Result<Stop, Skip> {
    let bytes = bytes.get(..frame_len).unwrap_or(bytes);
    let mut layer = start;
    let mut at = 0usize;
    // The end of what counts in the frame: each IP and UDP length can only bring it nearer.
    let mut end = frame_len;
    let mut depth = 0usize;
    loop {
        let here = rest(bytes, at, end)?;
        let tunnel = match layer {
            Layer::Ethernet => {
                let t = ethernet::Frame::new_checked(here)?.ether_type();
                at += ethernet::HEADER_LEN;
                layer = Layer::EtherType(t);
                continue;
            }
            Layer::Link(link) => {
                let (len, next) = link_header(link, here)?;
                at += len;
                layer = next;
                continue;
            }
            Layer::EtherType(mut t) => {
                let mut tags = 0;
                while vlan::is_tag(t) {
                    if tags == if port == Port::Mirror { MAX_TAGS } else { 1 } {
                        return Err(Skip::Vlan);
                    }
                    t = vlan::Tag::new_checked(rest(bytes, at, end)?)?.inner();
                    at += vlan::TAG_LEN;
                    tags += 1;
                }
                match (t, port) {
                    (ethertype::IPV4 | ethertype::IPV6, _) => {
                        let version = rest(bytes, at, end)?.first().ok_or(Skip::TooShort)? >> 4;
                        if version != if t == ethertype::IPV4 { 4 } else { 6 } {
                            return Err(Skip::BadVersion);
                        }
                        layer = Layer::Ip;
                        continue;
                    }
                    (ethertype::ARP, Port::Local) => return Ok(Stop::Control),
                    (ethertype::MACSEC, _) => return Err(Skip::Encrypted),
                    (_, Port::Local) => return Err(Skip::NotIp),
                    (..ethertype::MIN, Port::Mirror) => {
                        t = ethernet::snap_type(rest(bytes, at, end)?)?;
                        at += 8;
                        // Once only: what SNAP announces must be a type again.
                        if t < ethertype::MIN {
                            return Err(Skip::NotIp);
                        }
                        layer = Layer::EtherType(t);
                        continue;
                    }
                    (_, Port::Mirror) => Tunnel::by_ether_type(t).ok_or(Skip::NotIp)?,
                }
            }
            Layer::Ip => {
                let ip = match here.first().ok_or(Skip::TooShort)? >> 4 {
                    4 => Ip::v4(here)?,
                    6 => Ip::v6(here)?,
                    _ => return Err(Skip::BadVersion),
                };
                let ip_at = at;
                at += ip.header_len;
                let stated = match ip.total_len {
                    Some(len) => ip_at + len,
                    None if frame_len > MAX_PADDED_FRAME => end,
                    None => return Err(Skip::BadLength),
                };
                end = end.min(stated);
                if let Some((ident, offset, more)) = ip.fragment {
                    let (src, dst) = addresses(here)?;
                    return Ok(Stop::Fragment(Fragment {
                        ip_offset: ip_at,
                        ip_header_len: ip.header_len,
                        src,
                        dst,
                        protocol: ip.protocol,
                        ident,
                        offset,
                        more,
                        len: stated.saturating_sub(at),
                        captured: end.saturating_sub(at),
                    }));
                }
                match (ip.protocol, port) {
                    (protocol::TCP, _) => {
                        // Nothing cuts a frame on a port of our own: its length is damaged.
                        if port == Port::Local && stated > frame_len {
                            return Err(Skip::BadLength);
                        }
                        if checksums == Checksums::Verify {
                            let whole = bytes.get(at..stated).filter(|_| end == stated);
                            let header = bytes.get(ip_at..at).unwrap_or(&[]);
                            if !header_is_sound(header)
                                || whole.is_some_and(|segment| !segment_is_sound(here, segment))
                            {
                                return Err(Skip::BadChecksum);
                            }
                        }
                        return Ok(Stop::Tcp(Place {
                            ip: ip_at,
                            tcp: at,
                            stated,
                            end,
                            depth,
                        }));
                    }
                    (protocol::ICMP | protocol::ICMPV6, Port::Local) => return Ok(Stop::Control),
                    (protocol::ESP, _) => return Err(Skip::Encrypted),
                    (_, Port::Local) => return Err(Skip::NotTcp),
                    (protocol::UDP, Port::Mirror) => {
                        let u = rest(bytes, at, end)?
                            .first_chunk::<8>()
                            .ok_or(Skip::TooShort)?;
                        let tunnel = Tunnel::by_udp_port(u16::from_be_bytes([u[2], u[3]]))
                            .ok_or(Skip::NotTcp)?;
                        let len = usize::from(u16::from_be_bytes([u[4], u[5]]));
                        if len >= 8 {
                            end = end.min(at + len);
                        }
                        at += 8;
                        tunnel
                    }
                    (p, Port::Mirror) => Tunnel::by_protocol(p).ok_or(Skip::NotTcp)?,
                }
            }
        };
        if depth == MAX_DEPTH {
            return Err(Skip::Depth);
        }
        depth += 1;
        let (len, inner) = tunnel.open(rest(bytes, at, end)?)?;
        at += len;
        layer = match inner {
            Inner::Ethernet => Layer::Ethernet,
            Inner::EtherType(t) => Layer::EtherType(t),
            Inner::Ip => Layer::Ip,
        };
    }
}

/// The checksum of an IP header is right, or was left to hardware (RFC 1122 section 3.2.1.2). IPv6
/// has none. An authentication header may follow an IPv4 header.
#[inline]
fn header_is_sound(bytes: &[u8]) -> bool {
    let Ok(h) = ipv4::Header::new_checked(bytes) else {
        return true;
    };
    let own = bytes.get(..h.header_len()).unwrap_or(bytes);
    own.get(10..12) == Some(&[0, 0]) || checksum(own) == 0
}

/// The checksum of a whole segment is right (RFC 9293 section 3.1), or was left at the sum of the
/// pseudo-header for hardware to finish.
#[inline]
fn segment_is_sound(ip: &[u8], segment: &[u8]) -> bool {
    let Ok((src, dst)) = addresses(ip) else {
        return true;
    };
    let len = u32::try_from(segment.len()).unwrap_or(u32::MAX);
    let pseudo = Sum::new().pseudo_header(&src, &dst, protocol::TCP, len);
    let found = match segment.get(16..18) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        // Too short for a header: said by who reads it.
        _ => return true,
    };
    pseudo.bytes(segment).finish() == 0 || found == !pseudo.finish()
}

/// Length of a capture file's link header and what follows it.
fn link_header(link: LinkType, bytes: &[u8]) -> Result<(usize, Layer), Skip> {
    match link {
        LinkType::Ethernet => Ok((0, Layer::Ethernet)),
        LinkType::RawIp => Ok((0, Layer::Ip)),
        LinkType::Null => {
            let f = bytes.first_chunk::<4>().ok_or(Skip::TooShort)?;
            // Families are small numbers, so the byte order shows in where the zeros are.
            match u32::from_le_bytes(*f).min(u32::from_be_bytes(*f)) {
                // AF_INET, and AF_INET6 as the BSDs, Linux and macOS number it.
                2 | 10 | 24 | 28 | 30 => Ok((4, Layer::Ip)),
                _ => Err(Skip::NotIp),
            }
        }
        LinkType::LinuxSll => {
            let h = bytes.first_chunk::<16>().ok_or(Skip::TooShort)?;
            Ok((16, Layer::EtherType(u16::from_be_bytes([h[14], h[15]]))))
        }
        LinkType::LinuxSll2 => {
            let h = bytes.first_chunk::<20>().ok_or(Skip::TooShort)?;
            Ok((20, Layer::EtherType(u16::from_be_bytes([h[0], h[1]]))))
        }
    }
}

/// Reads the segment at a place that the walk has found.
#[inline]
fn tcp_segment(bytes: &[u8], frame_len: usize, place: &Place) -> Result<Packet, Skip> {
    let bytes = bytes.get(..frame_len).unwrap_or(bytes);
    let (stated, end) = (place.stated, place.end);
    let t = match tcp::Segment::new_checked(rest(bytes, place.tcp, end)?) {
        // The header is cut off by the IP length itself, not by the capture.
        Err(Skip::TooShort) if end == stated && end <= bytes.len() => {
            return Err(Skip::BadHeaderLength);
        }
        other => other?,
    };
    let (src, dst) = addresses(rest(bytes, place.ip, end)?)?;
    let payload_offset = place.tcp + t.header_len();
    let payload_len = stated.saturating_sub(payload_offset);
    Ok(Packet {
        head: Head {
            flow: Flow {
                src: Endpoint::new(src, t.src_port()),
                dst: Endpoint::new(dst, t.dst_port()),
            },
            seq: t.seq(),
            ack: t.ack(),
            flags: t.flags(),
            window: t.window(),
            urgent: if t.flags().has(Flags::URG) {
                t.urgent()
            } else {
                0
            },
            options: t.options(),
            payload_len: payload_len as u32,
        },
        payload_offset,
        captured: end.saturating_sub(payload_offset).min(payload_len),
        depth: place.depth as u8,
    })
}

/// Decodes a mirrored Ethernet frame through all encapsulations to the innermost TCP segment.
/// `bytes` are the first buffer segment, which must hold all headers; `frame_len` is the length of
/// the whole frame.
#[inline]
pub fn mirrored(bytes: &[u8], frame_len: usize) -> Result<Packet, Skip> {
    mirrored_on(LinkType::Ethernet, bytes, frame_len)
}

/// [`mirrored`] for a frame of another link type, as capture files have them.
#[inline]
pub fn mirrored_on(link: LinkType, bytes: &[u8], frame_len: usize) -> Result<Packet, Skip> {
    on_mirror(link, bytes, frame_len, Checksums::Ignore)
}

/// [`mirrored_on`] that refuses what is corrupt, as a receiver does: [`Skip::BadChecksum`].
#[inline]
pub fn verified_on(link: LinkType, bytes: &[u8], frame_len: usize) -> Result<Packet, Skip> {
    on_mirror(link, bytes, frame_len, Checksums::Verify)
}

#[inline]
fn on_mirror(
    link: LinkType,
    bytes: &[u8],
    frame_len: usize,
    checksums: Checksums,
) -> Result<Packet, Skip> {
    match &walk(Layer::Link(link), bytes, frame_len, Port::Mirror, checksums) {
        Ok(Stop::Tcp(place)) => tcp_segment(bytes, frame_len, place),
        Ok(Stop::Fragment(_)) => Err(Skip::Fragment),
        Ok(Stop::Control) => Err(Skip::NotTcp),
        Err(skip) => Err(*skip),
    }
}

/// What [`mirrored`] refused as [`Skip::Fragment`]: which part of which datagram it is. `None` for
/// every other frame. The fragmented datagram may be the tunnel's own, outside of what it carries.
pub fn fragment(bytes: &[u8], frame_len: usize) -> Option<Fragment> {
    fragment_on(LinkType::Ethernet, bytes, frame_len)
}

/// [`fragment`] for a frame of another link type.
pub fn fragment_on(link: LinkType, bytes: &[u8], frame_len: usize) -> Option<Fragment> {
    match walk(
        Layer::Link(link),
        bytes,
        frame_len,
        Port::Mirror,
        Checksums::Ignore,
    ) {
        Ok(Stop::Fragment(f)) => Some(f),
        _ => None,
    }
}

/// Decodes a frame received on a port of our own: no encapsulation, at most one VLAN tag. One that
/// is corrupt is refused as [`Skip::BadChecksum`], so that its sender sends it again.
#[inline]
pub fn local(bytes: &[u8], frame_len: usize) -> Local {
    match &walk(
        Layer::Ethernet,
        bytes,
        frame_len,
        Port::Local,
        Checksums::Verify,
    ) {
        Ok(Stop::Tcp(place)) => match tcp_segment(bytes, frame_len, place) {
            Ok(packet) => Local::Tcp(packet),
            Err(skip) => Local::Skip(skip),
        },
        Ok(Stop::Control) => Local::Control,
        Ok(Stop::Fragment(_)) => Local::Skip(Skip::Fragment),
        Err(skip) => Local::Skip(*skip),
    }
}

#[cfg(test)]
mod tests;
