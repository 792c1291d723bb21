//! Encapsulations around mirrored traffic: what a tunnel header looks like, how long it is and what
//! it carries.
//!
//! Nothing here checks a tunnel's checksum or key: a mirror shows every tunnel, and whose it is
//! does not matter. Headers are recognised by EtherType, IP protocol or the assigned UDP
//! destination port alone.

use crate::Skip;
use crate::ethernet::ethertype;
use crate::ipv4::protocol;

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
}

/// An 802.11 frame inside GRE, as Aruba's access points send it; the type counts their heaps from
/// this value up.
const ARUBA_WLAN: u16 = 0x8200;
/// Most labels of one MPLS stack that are followed.
const MAX_LABELS: usize = 16;

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
            _ => None,
        }
    }

    /// Length of the header that `bytes` begin with, and what follows it. The length never exceeds
    /// that of `bytes`.
    pub fn open(self, bytes: &[u8]) -> Result<(usize, Inner), Skip> {
        let (len, inner) = match self {
            Self::Ip => (0, Inner::Ip),
            Self::Gre => gre(bytes)?,
            Self::Vxlan => {
                let h = bytes.first_chunk::<8>().ok_or(Skip::TooShort)?;
                // RFC 7348 section 5: the I flag must be set for a valid identifier.
                if h[0] & 0x08 == 0 {
                    return Err(Skip::BadEncapsulation);
                }
                (8, Inner::Ethernet)
            }
            Self::VxlanGpe => vxlan_gpe(bytes)?,
            Self::Geneve => geneve(bytes)?,
            Self::Mpls => mpls(bytes)?,
            Self::Pbb => (4, Inner::Ethernet),
            Self::Pppoe => pppoe(bytes)?,
            Self::EtherIp => match bytes.first() {
                Some(v) if v >> 4 == 3 => (2, Inner::Ethernet),
                Some(_) => return Err(Skip::BadEncapsulation),
                None => return Err(Skip::TooShort),
            },
        };
        if len > bytes.len() {
            Err(Skip::TooShort)
        } else {
            Ok((len, inner))
        }
    }
}

fn gre(bytes: &[u8]) -> Result<(usize, Inner), Skip> {
    let h = bytes.first_chunk::<4>().ok_or(Skip::TooShort)?;
    let (flags, version) = (h[0], h[1] & 0x07);
    // Version 1 carries PPP (RFC 2637); the routing field of RFC 1701 is deprecated and of open
    // length.
    if version != 0 || flags & 0x40 != 0 {
        return Err(Skip::UnknownEncapsulation);
    }
    let with = |bit: u8| if flags & bit != 0 { 4 } else { 0 };
    let len = 4 + with(0x80) + with(0x20) + with(0x10);
    let rest = bytes.get(len..).ok_or(Skip::TooShort)?;
    let proto = u16::from_be_bytes([h[2], h[3]]);
    match proto {
        ethertype::ETHERNET => Ok((len, Inner::Ethernet)),
        // Type I has neither sequence number nor header of its own; type II has both.
        ethertype::ERSPAN_II if flags & 0x10 == 0 => Ok((len, Inner::Ethernet)),
        ethertype::ERSPAN_II => match rest.first().ok_or(Skip::TooShort)? >> 4 {
            1 => Ok((len + 8, Inner::Ethernet)),
            _ => Err(Skip::UnknownEncapsulation),
        },
        ethertype::ERSPAN_III => {
            let (more, inner) = erspan_iii(rest)?;
            Ok((len + more, inner))
        }
        ARUBA_WLAN..=0x820f => {
            let (more, inner) = wlan(rest)?;
            Ok((len + more, inner))
        }
        t if t >= ethertype::MIN => Ok((len, Inner::EtherType(t))),
        _ => Err(Skip::UnknownEncapsulation),
    }
}

/// ERSPAN type III: twelve bytes, eight more if the O flag is set.
fn erspan_iii(bytes: &[u8]) -> Result<(usize, Inner), Skip> {
    let h = bytes.first_chunk::<12>().ok_or(Skip::TooShort)?;
    if h[0] >> 4 != 2 {
        return Err(Skip::UnknownEncapsulation);
    }
    let len = if h[11] & 1 != 0 { 20 } else { 12 };
    match h[10] >> 2 & 0x1f {
        0 => Ok((len, Inner::Ethernet)),
        2 => Ok((len, Inner::Ip)),
        _ => Err(Skip::UnknownEncapsulation),
    }
}

fn vxlan_gpe(bytes: &[u8]) -> Result<(usize, Inner), Skip> {
    let h = bytes.first_chunk::<8>().ok_or(Skip::TooShort)?;
    if h[0] & 0x30 != 0 {
        return Err(Skip::UnknownEncapsulation);
    }
    // Without the P flag it is plain VXLAN.
    let next = if h[0] & 0x04 != 0 { h[3] } else { 3 };
    match next {
        1 | 2 => Ok((8, Inner::Ip)),
        3 => Ok((8, Inner::Ethernet)),
        _ => Err(Skip::UnknownEncapsulation),
    }
}

fn geneve(bytes: &[u8]) -> Result<(usize, Inner), Skip> {
    let h = bytes.first_chunk::<8>().ok_or(Skip::TooShort)?;
    if h[0] >> 6 != 0 {
        return Err(Skip::UnknownEncapsulation);
    }
    let len = 8 + usize::from(h[0] & 0x3f) * 4;
    match u16::from_be_bytes([h[2], h[3]]) {
        ethertype::ETHERNET => Ok((len, Inner::Ethernet)),
        t if t >= ethertype::MIN => Ok((len, Inner::EtherType(t))),
        _ => Err(Skip::UnknownEncapsulation),
    }
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

fn pppoe(bytes: &[u8]) -> Result<(usize, Inner), Skip> {
    let h = bytes.first_chunk::<8>().ok_or(Skip::TooShort)?;
    if h[0] != 0x11 || h[1] != 0 {
        return Err(Skip::BadEncapsulation);
    }
    match u16::from_be_bytes([h[6], h[7]]) {
        0x0021 => Ok((8, Inner::EtherType(ethertype::IPV4))),
        0x0057 => Ok((8, Inner::EtherType(ethertype::IPV6))),
        _ => Err(Skip::NotIp),
    }
}

/// An 802.11 data frame with its LLC/SNAP header (IEEE 802.11 section 9.2.4.1). Its fields are
/// little-endian.
fn wlan(bytes: &[u8]) -> Result<(usize, Inner), Skip> {
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
    let t = crate::ethernet::snap_type(bytes.get(len..).ok_or(Skip::TooShort)?)?;
    Ok((len + 8, Inner::EtherType(t)))
}

#[cfg(test)]
mod tests;
