//! How the frames of a mirror are to be read: their link type, whether checksums count, and what
//! the configuration says of encapsulations.

use super::Layer;
use crate::Skip;
use crate::tunnel::Ends;

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

    /// Length of the link header and what follows it.
    #[inline]
    pub(super) fn header(self, bytes: &[u8]) -> Result<(usize, Layer), Skip> {
        match self {
            Self::Ethernet => Ok((0, Layer::Ethernet)),
            Self::RawIp => Ok((0, Layer::Ip)),
            Self::Null => {
                let f = bytes.first_chunk::<4>().ok_or(Skip::TooShort)?;
                // Families are small numbers, so the byte order shows in where the zeros are.
                match u32::from_le_bytes(*f).min(u32::from_be_bytes(*f)) {
                    // AF_INET, and AF_INET6 as the BSDs, Linux and macOS number it.
                    2 | 10 | 24 | 28 | 30 => Ok((4, Layer::Ip)),
                    _ => Err(Skip::NotIp),
                }
            }
            Self::LinuxSll => {
                let h = bytes.first_chunk::<16>().ok_or(Skip::TooShort)?;
                Ok((16, Layer::EtherType(u16::from_be_bytes([h[14], h[15]]))))
            }
            Self::LinuxSll2 => {
                let h = bytes.first_chunk::<20>().ok_or(Skip::TooShort)?;
                Ok((20, Layer::EtherType(u16::from_be_bytes([h[0], h[1]]))))
            }
        }
    }
}

/// A few UDP ports, none at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpPorts {
    /// Zero fills up: it is no port that a datagram can be sent to.
    ports: [u16; Self::MAX],
}

impl UdpPorts {
    /// How many ports there can be.
    pub const MAX: usize = 8;

    /// These ports. `None` if there are more than [`UdpPorts::MAX`].
    pub fn new(ports: &[u16]) -> Option<Self> {
        let mut all = Self::default();
        all.ports.get_mut(..ports.len())?.copy_from_slice(ports);
        Some(all)
    }

    /// Whether `port` is among them; 0 never is.
    #[inline]
    pub fn contains(&self, port: u16) -> bool {
        port != 0 && self.ports.contains(&port)
    }
}

/// How the frames of a mirror are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorOptions {
    /// What a frame begins with.
    pub link: LinkType,
    /// Whether a segment with a wrong checksum is refused as [`Skip::BadChecksum`]. What was
    /// anonymised without mending checksums can only be read without.
    pub verify_checksums: bool,
    /// UDP destination ports behind which an IP packet follows at once. They win over the assigned
    /// meaning of a port.
    pub ip_in_udp: UdpPorts,
    /// Where tunnels may end. It is made once, when a program starts, and so never given back.
    pub tunnels: &'static Ends,
    /// The [scope](crate::scope) that the frame is in already: 0 for one off the wire, that of its
    /// parts for a reassembled datagram.
    pub scope: u32,
}

impl Default for MirrorOptions {
    /// Ethernet, checksums verified, no configured ports, tunnels that end anywhere.
    fn default() -> Self {
        Self::on(LinkType::Ethernet)
    }
}

impl MirrorOptions {
    /// The default for another link type.
    pub const fn on(link: LinkType) -> Self {
        Self {
            link,
            verify_checksums: true,
            ip_in_udp: UdpPorts {
                ports: [0; UdpPorts::MAX],
            },
            tunnels: Ends::ANYWHERE,
            scope: 0,
        }
    }

    /// The same for a datagram that was reassembled from parts in this scope
    /// ([`super::Fragment::scope`]): it begins with its IP header.
    #[must_use]
    pub const fn reassembled(mut self, scope: u32) -> Self {
        self.link = LinkType::RawIp;
        self.scope = scope;
        self
    }
}
