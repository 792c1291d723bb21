//! From a frame to a TCP segment: one pass over the headers, no copy, no allocation.
//!
//! What always holds for a [`Packet`]: its payload begins inside the bytes that were given, and
//! `captured` bytes of it lie inside the whole frame. Payload is what the IP length says it is,
//! never the padding behind it; a frame cut short by a snap length is reported as cut.
//!
//! Checksums are verified on a port of our own and, unless [`MirrorOptions`] say otherwise, on a
//! mirror: what was damaged on its way to the mirror port must not become a request. A capture
//! taken on a host shows unfinished checksums wherever the sender leaves them to its hardware; the
//! module `verify` says which forms of these pass.

mod check;
mod ip;
mod link;
mod local;
mod options;
mod plain;
mod stopped;
mod verify;

use crate::ethernet::{self, ethertype};
use crate::io::{Checksum, Frame};
use crate::ipv4::{self, protocol};
use crate::scope::{self, Network};
use crate::tunnel::{Ends, Inner, Opened, Tunnel};
use crate::{Addr, Endpoint, Flags, Flow, Head, ipv6, tcp, vlan};
use ip::{Ip, addresses};
use std::ops::Range;
use verify::Unfinished;

pub use crate::skip::Skip;
pub use check::Check;
pub use link::LinkType;
pub use local::{local, local_frame};
pub use options::{MirrorOptions, UdpPorts};
pub use stopped::{fragment, fragment_on, fragment_with, refused_tunnel};

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
    /// The VLANs and virtual networks around the segment, folded into one number
    /// ([`crate::scope`]); 0 if there are none.
    pub scope: u32,
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
    /// The VLANs and virtual networks around it ([`crate::scope`]). For
    /// [`MirrorOptions::reassembled`], as the datagram itself does not show them.
    pub scope: u32,
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

/// Which headers a port may show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Mirror,
    Local,
}

/// What the walk over a frame's headers goes by.
struct Rules {
    port: Port,
    /// Which unfinished checksums pass; with `None` none is verified.
    verify: Option<Unfinished>,
    /// What the driver knows of the TCP checksum. It counts for plain frames alone: of a tunnel it
    /// may know the outer checksum, and some drivers find nothing wrong with what their NIC did
    /// not look into, as behind two tags or extension headers.
    known: Checksum,
    ip_in_udp: UdpPorts,
    tunnels: &'static Ends,
    scope: u32,
}

impl Rules {
    const LOCAL: Self = Self {
        port: Port::Local,
        verify: Some(Unfinished::Carried),
        known: Checksum::Unknown,
        ip_in_udp: MirrorOptions::on(LinkType::Ethernet).ip_in_udp,
        tunnels: Ends::ANYWHERE,
        scope: 0,
    };

    #[inline]
    fn mirror(options: &MirrorOptions, known: Checksum) -> Self {
        Self {
            port: Port::Mirror,
            verify: options.verify_checksums.then_some(Unfinished::Known),
            known,
            ip_in_udp: options.ip_in_udp,
            tunnels: options.tunnels,
            scope: options.scope,
        }
    }
}

/// Where the walk over the headers ended.
enum Stop {
    Tcp(Place),
    Fragment(Fragment),
    Control,
    /// At a tunnel to this address, where none may end.
    Refused(Addr),
}

/// Where a TCP segment stands in its frame, in bytes from the start.
#[derive(PartialEq, Eq, Debug)]
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
    /// VLANs and virtual networks around it.
    scope: u32,
    /// Which unfinished checksums pass, if its own is to be verified.
    verify: Option<Unfinished>,
}

impl Place {
    /// Whether the checksum of a segment that lies in the first buffer segment is sound. True if
    /// it is not to be verified, or goes on behind.
    #[inline]
    fn is_sound(&self, bytes: &[u8]) -> bool {
        match (self.verify, bytes.get(self.tcp..self.stated)) {
            (Some(passes), Some(segment)) => {
                verify::segment_is_sound(bytes.get(self.ip..).unwrap_or(&[]), segment, passes)
            }
            _ => true,
        }
    }
}

/// The header that comes next.
#[derive(Clone, Copy)]
enum Layer {
    Ethernet,
    EtherType(u16),
    Ip,
    Link(LinkType),
}

/// A frame of this many bytes is as long as Ethernet makes them. One that is cut short there is
/// what a kernel interface hands over where hosts leave segmentation to it, and was longer than the
/// driver has room for: of a local port its headers are all that is used.
const FULL_FRAME: usize = ethernet::HEADER_LEN + 1_500;

/// The tagged frame of minimum size: a zero IP length in a frame up to here would turn padding into
/// payload.
const MAX_PADDED_FRAME: usize = ethernet::MIN_FRAME + 2 * vlan::TAG_LEN;

/// The bytes from `at` to the end of what the enclosing headers cover, as far as the first buffer
/// segment goes.
#[inline]
fn rest(bytes: &[u8], at: usize, end: usize) -> Result<&[u8], Skip> {
    bytes.get(at..end.min(bytes.len())).ok_or(Skip::TooShort)
}

/// Walks from the start of a frame to TCP. Every turn of the loop either ends it or moves on to a
/// header further inside; `depth` bounds tunnels and the tag loop bounds itself, so it ends.
fn walk(start: Layer, bytes: &[u8], frame_len: usize, rules: &Rules) -> Result<Stop, Skip> {
    let bytes = bytes.get(..frame_len).unwrap_or(bytes);
    let port = rules.port;
    let mut layer = start;
    let mut at = 0usize;
    // The end of what counts in the frame: each IP and UDP length can only bring it nearer.
    let mut end = frame_len;
    let mut depth = 0usize;
    let mut scope = rules.scope;
    // Whether a NIC that verifies checksums is sure to have found TCP.
    let mut plain = true;
    loop {
        let here = rest(bytes, at, end)?;
        // With a tunnel that IP addresses goes where that header begins.
        let (tunnel, outer) = match layer {
            Layer::Ethernet => {
                let t = ethernet::Frame::new_checked(here)?.ether_type();
                at += ethernet::HEADER_LEN;
                layer = Layer::EtherType(t);
                continue;
            }
            Layer::Link(link) => {
                let (len, next) = link.header(here)?;
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
                    let tag = vlan::Tag::new_checked(rest(bytes, at, end)?)?;
                    scope = scope::fold(scope, Network::Vlan(tag.id()));
                    t = tag.inner();
                    at += vlan::TAG_LEN;
                    tags += 1;
                }
                plain &= tags <= 1;
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
                        plain = false;
                        // Once only: what SNAP announces must be a type again.
                        if t < ethertype::MIN {
                            return Err(Skip::NotIp);
                        }
                        layer = Layer::EtherType(t);
                        continue;
                    }
                    (_, Port::Mirror) => (Tunnel::by_ether_type(t).ok_or(Skip::NotIp)?, None),
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
                // A tunnel's outer header was verified by whoever sent its packets on to here.
                let counts = ip.protocol == protocol::TCP || ip.fragment.is_some();
                if counts
                    && rules.verify.is_some()
                    && !verify::header_is_sound(bytes.get(ip_at..at).unwrap_or(&[]))
                {
                    return Err(Skip::BadChecksum);
                }
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
                        scope,
                    }));
                }
                match (ip.protocol, port) {
                    (protocol::TCP, _) => {
                        // Nothing cuts a shorter frame on a port of our own: its length is damaged.
                        if port == Port::Local && stated > frame_len && frame_len < FULL_FRAME {
                            return Err(Skip::BadLength);
                        }
                        // One that the driver finds wrong may be unfinished. What was cut has no
                        // end to sum up to.
                        let known = rules.known == Checksum::Good
                            && plain
                            && depth == 0
                            && matches!(ip.header_len, ipv4::MIN_HEADER_LEN | ipv6::HEADER_LEN);
                        let spared = known || ip.readdressed || end < stated;
                        return Ok(Stop::Tcp(Place {
                            ip: ip_at,
                            tcp: at,
                            stated,
                            end,
                            depth,
                            scope,
                            verify: rules.verify.filter(|_| !spared),
                        }));
                    }
                    (protocol::ICMP | protocol::ICMPV6, Port::Local) => return Ok(Stop::Control),
                    (protocol::ESP, _) => return Err(Skip::Encrypted),
                    (_, Port::Local) => return Err(Skip::NotTcp),
                    (protocol::UDP, Port::Mirror) => {
                        let u = rest(bytes, at, end)?
                            .first_chunk::<8>()
                            .ok_or(Skip::TooShort)?;
                        let port = u16::from_be_bytes([u[2], u[3]]);
                        let tunnel = if rules.ip_in_udp.contains(port) {
                            Tunnel::Ip
                        } else {
                            Tunnel::by_udp_port(port).ok_or(Skip::NotTcp)?
                        };
                        let len = usize::from(u16::from_be_bytes([u[4], u[5]]));
                        if len >= 8 {
                            end = end.min(at + len);
                        }
                        at += 8;
                        (tunnel, Some(ip_at))
                    }
                    (p, Port::Mirror) => (Tunnel::by_protocol(p).ok_or(Skip::NotTcp)?, Some(ip_at)),
                }
            }
        };
        if depth == MAX_DEPTH {
            return Err(Skip::Depth);
        }
        depth += 1;
        let Opened {
            len,
            inner,
            network,
        } = tunnel.open(rest(bytes, at, end)?)?;
        if let Some(ip_at) = outer {
            let (_, dst) = addresses(rest(bytes, ip_at, end)?)?;
            if !rules.tunnels.opens(&dst, network) {
                return Ok(Stop::Refused(dst));
            }
        }
        at += len;
        if let Some(network) = network {
            scope = scope::fold(scope, network);
        }
        layer = match inner {
            Inner::Ethernet => Layer::Ethernet,
            Inner::EtherType(t) => Layer::EtherType(t),
            Inner::Ip => Layer::Ip,
        };
    }
}

/// Reads the segment at a place that the walk has found.
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
    let addresses = addresses(rest(bytes, place.ip, end)?)?;
    Ok(packet(place, &t, flow(addresses, &t)))
}

/// Between whom the segment is.
#[inline(always)]
fn flow((src, dst): (Addr, Addr), t: &tcp::Segment) -> Flow {
    Flow {
        src: Endpoint::new(src, t.src_port()),
        dst: Endpoint::new(dst, t.dst_port()),
    }
}

/// What the segment says.
#[inline(always)]
fn packet(place: &Place, t: &tcp::Segment, flow: Flow) -> Packet {
    let payload_offset = place.tcp + t.header_len();
    let payload_len = place.stated.saturating_sub(payload_offset);
    let captured = place.end.saturating_sub(payload_offset).min(payload_len);
    Packet {
        head: Head {
            flow,
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
        captured,
        depth: place.depth as u8,
        scope: place.scope,
    }
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
    mirrored_with(&MirrorOptions::on(link), bytes, frame_len)
}

/// [`mirrored`] for a frame that is read as `options` say.
#[inline]
pub fn mirrored_with(
    options: &MirrorOptions,
    bytes: &[u8],
    frame_len: usize,
) -> Result<Packet, Skip> {
    let rules = Rules::mirror(options, Checksum::Unknown);
    on_mirror(options.link, bytes, frame_len, &rules, |place, _| {
        place.is_sound(bytes)
    })
}

/// How much of a mirrored segment is of use, and so worth verifying.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Nothing: most of what a mirror shows may be of no concern, and it stays out of the cache.
    Nothing,
    /// Its headers: its checksum is summed up where it has little or no payload.
    Headers,
    /// Its payload as well.
    All,
}

/// What a segment has at most, headers included, that is verified for its headers alone: in bytes,
/// about what decoding has brought into the cache.
const SHORT: usize = 128;

/// [`mirrored_with`] for a whole frame. What its driver knows of the checksum spares summing it up,
/// and one that goes on behind the first buffer segment is verified, too. `used` is asked once for
/// each segment how much of it is of use.
#[inline]
pub fn mirrored_frame<F: Frame>(
    options: &MirrorOptions,
    frame: &F,
    used: impl FnMut(&Flow) -> Use,
) -> Result<Packet, Skip> {
    let mut check = None;
    let packet = mirrored_headers(options, frame, used, &mut check)?;
    match check {
        Some(check) if !check.is_sound(frame) => Err(Skip::BadChecksum),
        _ => Ok(packet),
    }
}

/// [`mirrored_frame`] but for the checksum: `check` is what is left to be done, if that is not to
/// be taken for right.
#[inline]
pub fn mirrored_headers<F: Frame>(
    options: &MirrorOptions,
    frame: &F,
    mut used: impl FnMut(&Flow) -> Use,
    check: &mut Option<Check>,
) -> Result<Packet, Skip> {
    let known = frame.checksum();
    let rules = Rules::mirror(options, known);
    let is_sound = |place: &Place, flow: &Flow| {
        let used = used(flow);
        // A driver that calls a segment damaged is heard: it may be, or unfinished.
        let suspect = known == Checksum::Bad;
        let spared = match used {
            Use::Nothing => true,
            Use::Headers => !suspect && place.stated - place.tcp > SHORT,
            Use::All => false,
        };
        *check = Check::of(place).filter(|_| !spared);
        true
    };
    on_mirror(
        options.link,
        frame.bytes(),
        frame.frame_len(),
        &rules,
        is_sound,
    )
}

/// [`mirrored_on`] with the checks of a port of our own: of the unfinished checksums only those
/// pass that virtual interfaces carry.
#[inline]
pub fn verified_on(link: LinkType, bytes: &[u8], frame_len: usize) -> Result<Packet, Skip> {
    let rules = Rules {
        port: Port::Mirror,
        ..Rules::LOCAL
    };
    on_mirror(link, bytes, frame_len, &rules, |place, _| {
        place.is_sound(bytes)
    })
}

#[inline]
fn on_mirror(
    link: LinkType,
    bytes: &[u8],
    frame_len: usize,
    rules: &Rules,
    mut is_sound: impl FnMut(&Place, &Flow) -> bool,
) -> Result<Packet, Skip> {
    if link == LinkType::Ethernet
        && let Some(plain) = plain::segment(bytes, frame_len, rules)
    {
        return if is_sound(&plain.place, &plain.flow()) {
            Ok(packet(&plain.place, &plain.tcp, plain.flow()))
        } else {
            Err(Skip::BadChecksum)
        };
    }
    let place = match walk(Layer::Link(link), bytes, frame_len, rules)? {
        Stop::Tcp(place) => place,
        Stop::Fragment(_) => return Err(Skip::Fragment),
        Stop::Control => return Err(Skip::NotTcp),
        Stop::Refused(_) => return Err(Skip::TunnelRefused),
    };
    let packet = tcp_segment(bytes, frame_len, &place)?;
    if is_sound(&place, &packet.head.flow) {
        Ok(packet)
    } else {
        Err(Skip::BadChecksum)
    }
}

#[cfg(test)]
mod tests;
