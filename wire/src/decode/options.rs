//! How the frames of a mirror are to be read: their link type, whether checksums count, and what
//! the configuration says of encapsulations.

use super::LinkType;
use crate::tunnel::Ends;

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
