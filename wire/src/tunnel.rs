//! Encapsulations around mirrored traffic: what a tunnel header looks like, how long it is and what
//! it carries.
//!
//! Nothing here checks a tunnel's checksum or key: a mirror shows every tunnel. Which network it
//! belongs to is handed on, for the [scope](crate::scope) of what is inside. Headers are recognised
//! by EtherType, IP protocol or the assigned UDP destination port alone. Which of them are opened
//! is said by [`Ends`].

mod ends;

use crate::Skip;
use crate::ethernet::ethertype;
use crate::ipv4::protocol;
use crate::scope::Network;

pub use ends::{End, Ends};

/// UDP destination ports (IANA) behind which a tunnel is looked for.
pub mod port {
    /// VXLAN (RFC 7348).
    pub const VXLAN: u16 = 4789;
    /// VXLAN as Linux sent it before the port was assigned.
    pub const VXLAN_LINUX: u16 = 8472;
    /// VXLAN generic protocol extension (draft-ietf-nvo3-vxlan-gpe).
    pub const VXLAN_GPE: u16 = 4790;
    /// GENEVE (RFC 8926).
    pub const GENEVE: u16 = 6081;
    /// GRE in UDP (RFC 8086).
    pub const GRE: u16 = 4754;
    /// MPLS in UDP (RFC 7510).
    pub const MPLS: u16 = 6635;
    /// GTP-U (3GPP TS 29.281 section 4.4.2).
    pub const GTP_U: u16 = 2152;
    /// TZSP, as sniffers and MikroTik's routers send it.
    pub const TZSP: u16 = 37008;
    /// HP's encapsulated remote mirroring.
    pub const HP_ERM: u16 = 7932;
}

/// An 802.11 frame inside GRE, as Aruba's access points send it; the type counts their heaps from
/// this value up.
const ARUBA_WLAN: u16 = 0x8200;
/// Most labels of one MPLS stack that are followed.
const MAX_LABELS: usize = 16;
/// Most extension headers of GTP-U that are followed in one packet.
const MAX_GTP_EXTENSIONS: usize = 8;
/// Most tags of TZSP that are followed in one packet; about a dozen are defined.
const MAX_TZSP_TAGS: usize = 32;
/// Length of the header of HP's remote mirroring, of which only the length is known.
const HP_ERM_HEADER_LEN: usize = 12;

/// A kind of tunnel header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// IP directly inside IP (RFC 2003, RFC 4213, RFC 2473): no header of its own.
    Ip,
    /// GRE (RFC 2784, RFC 2890), NVGRE (RFC 7637), ERSPAN I to III (draft-foschiano-erspan).
    Gre,
    /// VXLAN.
    Vxlan,
    /// VXLAN with a next protocol field.
    VxlanGpe,
    /// GENEVE.
    Geneve,
    /// An MPLS label stack (RFC 3032).
    Mpls,
    /// A backbone service instance tag (802.1ah).
    Pbb,
    /// A PPPoE session header with its PPP protocol field (RFC 2516).
    Pppoe,
    /// Ethernet in IP (RFC 3378).
    EtherIp,
    /// VN-Tag, between a switch and its fabric extenders (Cisco).
    VnTag,
    /// E-tag, between a controlling bridge and its port extenders (802.1BR).
    ETag,
    /// Cisco MetaData: a security group tag in front of the type.
    CiscoMetadata,
    /// The user plane of GTP (3GPP TS 29.281).
    GtpU,
    /// TZSP, a sniffer's header with a list of tags.
    Tzsp,
    /// HP's encapsulated remote mirroring.
    HpErm,
}

/// A tunnel header that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Length of the header, in bytes.
    pub len: usize,
    /// What follows it.
    pub inner: Inner,
    /// The network that it names, if it names one.
    pub network: Option<Network>,
}

impl Opened {
    #[inline]
    const fn new(len: usize, inner: Inner) -> Self {
        Self {
            len,
            inner,
            network: None,
        }
    }

    #[inline]
    const fn of(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }
}

/// What a tunnel header is followed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner {
    /// An Ethernet frame.
    Ethernet,
    /// What this EtherType says.
    EtherType(u16),
    /// IPv4 or IPv6, as the version field says.
    Ip,
}

impl Tunnel {
    /// The tunnel that an EtherType announces.
    #[inline]
    pub const fn by_ether_type(t: u16) -> Option<Self> {
        match t {
            ethertype::MPLS | ethertype::MPLS_UPSTREAM => Some(Self::Mpls),
            ethertype::PBB => Some(Self::Pbb),
            ethertype::PPPOE_SESSION => Some(Self::Pppoe),
            ethertype::VN_TAG => Some(Self::VnTag),
            ethertype::E_TAG => Some(Self::ETag),
            ethertype::CISCO_METADATA => Some(Self::CiscoMetadata),
            _ => None,
        }
    }

    /// The tunnel that an IP protocol number announces.
    #[inline]
    pub const fn by_protocol(p: u8) -> Option<Self> {
        match p {
            protocol::IPV4 | protocol::IPV6 => Some(Self::Ip),
            protocol::GRE => Some(Self::Gre),
            protocol::ETHERIP => Some(Self::EtherIp),
            protocol::MPLS => Some(Self::Mpls),
            _ => None,
        }
    }

    /// The tunnel that a UDP destination port announces.
    #[inline]
    pub const fn by_udp_port(p: u16) -> Option<Self> {
        match p {
            port::VXLAN | port::VXLAN_LINUX => Some(Self::Vxlan),
            port::VXLAN_GPE => Some(Self::VxlanGpe),
            port::GENEVE => Some(Self::Geneve),
            port::GRE => Some(Self::Gre),
            port::MPLS => Some(Self::Mpls),
            port::GTP_U => Some(Self::GtpU),
            port::TZSP => Some(Self::Tzsp),
            port::HP_ERM => Some(Self::HpErm),
            _ => None,
        }
    }

    /// Reads the header that `bytes` begin with. Its length never exceeds that of `bytes`.
    pub fn open(self, bytes: &[u8]) -> Result<Opened, Skip> {
        let opened = match self {
            Self::Ip => Opened::new(0, Inner::Ip),
            Self::Gre => gre(bytes)?,
            Self::Vxlan => {
                let h = bytes.first_chunk::<8>().ok_or(Skip::TooShort)?;
                // RFC 7348 section 5: the I flag must be set for a valid identifier.
                if h[0] & 0x08 == 0 {
                    return Err(Skip::BadEncapsulation);
                }
                Opened::new(8, Inner::Ethernet).of(virtual_network(h[4], h[5], h[6]))
            }
            Self::VxlanGpe => vxlan_gpe(bytes)?,
            Self::Geneve => geneve(bytes)?,
            Self::Mpls => {
                let (len, inner) = mpls(bytes)?;
                Opened::new(len, inner)
            }
            Self::Pbb => {
                let h = bytes.first_chunk::<4>().ok_or(Skip::TooShort)?;
                Opened::new(4, Inner::Ethernet).of(virtual_network(h[1], h[2], h[3]))
            }
            Self::Pppoe => pppoe(bytes)?,
            Self::EtherIp => match bytes.first() {
                Some(v) if v >> 4 == 3 => Opened::new(2, Inner::Ethernet),
                Some(_) => return Err(Skip::BadEncapsulation),
                None => return Err(Skip::TooShort),
            },
            Self::VnTag => typed(bytes, 4)?,
            Self::ETag => typed(bytes, 6)?,
            Self::CiscoMetadata => cisco_metadata(bytes)?,
            Self::GtpU => gtp_u(bytes)?,
            Self::Tzsp => tzsp(bytes)?,
            Self::HpErm => Opened::new(HP_ERM_HEADER_LEN, Inner::Ethernet),
        };
        if opened.len > bytes.len() {
            Err(Skip::TooShort)
        } else {
            Ok(opened)
        }
    }
}

/// The network that a 24-bit identifier names.
#[inline]
const fn virtual_network(high: u8, middle: u8, low: u8) -> Network {
    Network::Virtual(u32::from_be_bytes([0, high, middle, low]))
}

/// A tag of `len` bytes and the type that follows it.
#[inline]
fn typed(bytes: &[u8], len: usize) -> Result<Opened, Skip> {
    let t = bytes.get(len..).and_then(<[u8]>::first_chunk::<2>);
    let t = u16::from_be_bytes(*t.ok_or(Skip::TooShort)?);
    Ok(Opened::new(len + 2, Inner::EtherType(t)))
}

/// Version, length of the options in units of four bytes, options (the security group tag is one),
/// type.
fn cisco_metadata(bytes: &[u8]) -> Result<Opened, Skip> {
    let [version, units, ..] = *bytes else {
        return Err(Skip::TooShort);
    };
    match (version, units) {
        (1, 1..) => typed(bytes, 2 + usize::from(units) * 4),
        (1, 0) => Err(Skip::BadEncapsulation),
        _ => Err(Skip::UnknownEncapsulation),
    }
}

/// 3GPP TS 29.281 section 5.1. The tunnel endpoint identifier differs by direction, so it names no
/// network.
fn gtp_u(bytes: &[u8]) -> Result<Opened, Skip> {
    let h = bytes.first_chunk::<8>().ok_or(Skip::TooShort)?;
    // Version 1, and GTP rather than GTP'.
    if h[0] & 0xf0 != 0x30 {
        return Err(Skip::UnknownEncapsulation);
    }
    // All but G-PDUs are messages between the nodes themselves.
    if h[1] != 255 {
        return Err(Skip::NotTcp);
    }
    if h[0] & 0x07 == 0 {
        return Ok(Opened::new(8, Inner::Ip));
    }
    // Sequence number, N-PDU number and next extension header are there if one of them is used.
    let optional = bytes.get(8..).and_then(<[u8]>::first_chunk::<4>);
    let mut next = optional.ok_or(Skip::TooShort)?[3];
    if h[0] & 0x04 == 0 {
        next = 0;
    }
    let mut len = 12;
    for _ in 0..MAX_GTP_EXTENSIONS {
        if next == 0 {
            return Ok(Opened::new(len, Inner::Ip));
        }
        // Section 5.2.1: a length in units of four bytes, which counts itself and the next type.
        let units = usize::from(*bytes.get(len).ok_or(Skip::TooShort)?);
        if units == 0 {
            return Err(Skip::BadEncapsulation);
        }
        len += units * 4;
        next = *bytes.get(len - 1).ok_or(Skip::TooShort)?;
    }
    Err(Skip::Depth)
}

/// Version, type, encapsulated protocol, and tags up to the one that ends them.
fn tzsp(bytes: &[u8]) -> Result<Opened, Skip> {
    let h = bytes.first_chunk::<4>().ok_or(Skip::TooShort)?;
    match (h[0], h[1]) {
        // A received packet, and one to be sent.
        (1, 0 | 1) => {}
        // Configuration, keep-alive and the like: no packet.
        (1, _) => return Err(Skip::NotTcp),
        _ => return Err(Skip::UnknownEncapsulation),
    }
    let mut len = 4;
    for _ in 0..MAX_TZSP_TAGS {
        match *bytes.get(len..).unwrap_or(&[]) {
            // Padding.
            [0, ..] => len += 1,
            // The end.
            [1, ref frame @ ..] => {
                len += 1;
                return match u16::from_be_bytes([h[2], h[3]]) {
                    1 => Ok(Opened::new(len, Inner::Ethernet)),
                    18 => wlan(frame).map(|inner| Opened {
                        len: len + inner.len,
                        ..inner
                    }),
                    _ => Err(Skip::UnknownEncapsulation),
                };
            }
            [_, tag, ..] => len += 2 + usize::from(tag),
            [_] | [] => return Err(Skip::TooShort),
        }
    }
    Err(Skip::Depth)
}

fn gre(bytes: &[u8]) -> Result<Opened, Skip> {
    let h = bytes.first_chunk::<4>().ok_or(Skip::TooShort)?;
    let (flags, version) = (h[0], h[1] & 0x07);
    // Version 1 carries PPP (RFC 2637); the routing field of RFC 1701 is deprecated and of open
    // length.
    if version != 0 || flags & 0x40 != 0 {
        return Err(Skip::UnknownEncapsulation);
    }
    let with = |bit: u8| if flags & bit != 0 { 4 } else { 0 };
    let key_at = 4 + with(0x80);
    let len = key_at + with(0x20) + with(0x10);
    let rest = bytes.get(len..).ok_or(Skip::TooShort)?;
    let proto = u16::from_be_bytes([h[2], h[3]]);
    let opened = match proto {
        ethertype::ETHERNET => Opened::new(0, Inner::Ethernet),
        // Type I has neither sequence number nor header of its own; type II has both.
        ethertype::ERSPAN_II if flags & 0x10 == 0 => Opened::new(0, Inner::Ethernet),
        ethertype::ERSPAN_II => match rest.first().ok_or(Skip::TooShort)? >> 4 {
            1 => Opened::new(8, Inner::Ethernet),
            _ => return Err(Skip::UnknownEncapsulation),
        },
        ethertype::ERSPAN_III => erspan_iii(rest)?,
        ARUBA_WLAN..=0x820f => wlan(rest)?,
        t if t >= ethertype::MIN => Opened::new(0, Inner::EtherType(t)),
        _ => return Err(Skip::UnknownEncapsulation),
    };
    let key = bytes.get(key_at..).and_then(<[u8]>::first_chunk::<4>);
    Ok(Opened {
        len: len + opened.len,
        network: key
            .filter(|_| flags & 0x20 != 0)
            .map(|key| Network::Key(u32::from_be_bytes(*key))),
        ..opened
    })
}

/// ERSPAN type III: twelve bytes, eight more if the O flag is set.
fn erspan_iii(bytes: &[u8]) -> Result<Opened, Skip> {
    let h = bytes.first_chunk::<12>().ok_or(Skip::TooShort)?;
    if h[0] >> 4 != 2 {
        return Err(Skip::UnknownEncapsulation);
    }
    let len = if h[11] & 1 != 0 { 20 } else { 12 };
    match h[10] >> 2 & 0x1f {
        0 => Ok(Opened::new(len, Inner::Ethernet)),
        2 => Ok(Opened::new(len, Inner::Ip)),
        _ => Err(Skip::UnknownEncapsulation),
    }
}

fn vxlan_gpe(bytes: &[u8]) -> Result<Opened, Skip> {
    let h = bytes.first_chunk::<8>().ok_or(Skip::TooShort)?;
    if h[0] & 0x30 != 0 {
        return Err(Skip::UnknownEncapsulation);
    }
    // Without the P flag it is plain VXLAN.
    let next = if h[0] & 0x04 != 0 { h[3] } else { 3 };
    let inner = match next {
        1 | 2 => Inner::Ip,
        3 => Inner::Ethernet,
        _ => return Err(Skip::UnknownEncapsulation),
    };
    Ok(Opened::new(8, inner).of(virtual_network(h[4], h[5], h[6])))
}

fn geneve(bytes: &[u8]) -> Result<Opened, Skip> {
    let h = bytes.first_chunk::<8>().ok_or(Skip::TooShort)?;
    if h[0] >> 6 != 0 {
        return Err(Skip::UnknownEncapsulation);
    }
    let len = 8 + usize::from(h[0] & 0x3f) * 4;
    let inner = match u16::from_be_bytes([h[2], h[3]]) {
        ethertype::ETHERNET => Inner::Ethernet,
        t if t >= ethertype::MIN => Inner::EtherType(t),
        _ => return Err(Skip::UnknownEncapsulation),
    };
    Ok(Opened::new(len, inner).of(virtual_network(h[4], h[5], h[6])))
}

fn mpls(bytes: &[u8]) -> Result<(usize, Inner), Skip> {
    let (labels, _) = bytes.as_chunks::<4>();
    let mut len = 0;
    for label in labels.iter().take(MAX_LABELS) {
        len += 4;
        if label[2] & 1 != 0 {
            // Labels do not say what they carry. The first nibble does: a version, or zero for a
            // pseudowire's control word (RFC 4385 section 3).
            return match bytes.get(len).ok_or(Skip::TooShort)? >> 4 {
                4 | 6 => Ok((len, Inner::Ip)),
                0 if looks_like_control_word(bytes.get(len..).unwrap_or(&[])) => {
                    Ok((len + 4, Inner::Ethernet))
                }
                _ => Ok((len, Inner::Ethernet)),
            };
        }
    }
    if labels.len() > MAX_LABELS {
        Err(Skip::Depth)
    } else {
        Err(Skip::TooShort)
    }
}

/// A pseudowire without a control word begins with a destination address, whose first nibble is
/// zero for many vendors. With the control word skipped a type that is known must show up at the
/// Ethernet header's end; otherwise the frame begins at once.
fn looks_like_control_word(bytes: &[u8]) -> bool {
    let known = |at: usize| match bytes.get(at..).and_then(<[u8]>::first_chunk::<2>) {
        Some(t) => {
            let t = u16::from_be_bytes(*t);
            matches!(t, ethertype::IPV4 | ethertype::IPV6)
                || crate::vlan::is_tag(t)
                || Tunnel::by_ether_type(t).is_some()
        }
        None => false,
    };
    known(4 + 12) || !known(12)
}

fn pppoe(bytes: &[u8]) -> Result<Opened, Skip> {
    let h = bytes.first_chunk::<8>().ok_or(Skip::TooShort)?;
    if h[0] != 0x11 || h[1] != 0 {
        return Err(Skip::BadEncapsulation);
    }
    match u16::from_be_bytes([h[6], h[7]]) {
        0x0021 => Ok(Opened::new(8, Inner::EtherType(ethertype::IPV4))),
        0x0057 => Ok(Opened::new(8, Inner::EtherType(ethertype::IPV6))),
        _ => Err(Skip::NotIp),
    }
}

/// An 802.11 data frame with its LLC/SNAP header.
fn wlan(bytes: &[u8]) -> Result<Opened, Skip> {
    let len = wlan_header(bytes)?;
    let t = crate::ethernet::snap_type(bytes.get(len..).ok_or(Skip::TooShort)?)?;
    Ok(Opened::new(len + 8, Inner::EtherType(t)))
}

/// Length of the header of an 802.11 data frame (IEEE 802.11 section 9.2.4.1), behind which
/// LLC/SNAP follows. Its fields are little-endian.
pub(crate) fn wlan_header(bytes: &[u8]) -> Result<usize, Skip> {
    let [control, flags, ..] = *bytes else {
        return Err(Skip::TooShort);
    };
    // Type "data", and a subtype without the bit that says there is no payload.
    if control & 0x0f != 0x08 || control & 0x40 != 0 {
        return Err(Skip::NotIp);
    }
    if flags & 0x40 != 0 {
        return Err(Skip::Encrypted);
    }
    let mut len = 24;
    if flags & 0x03 == 0x03 {
        len += 6;
    }
    if control & 0x80 != 0 {
        len += if flags & 0x80 != 0 { 6 } else { 2 };
    }
    Ok(len)
}

#[cfg(test)]
mod tests;
