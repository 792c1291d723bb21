//! Addresses, endpoints and flows: the keys of every table.
//!
//! One fixed-size form serves both families, so that a key needs no discriminant and tables need no
//! second copy: IPv4 is kept as an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2). Such
//! addresses never appear on a wire (RFC 4942 section 2.2), and the decoder refuses an IPv6 frame
//! that carries one, so the two families cannot collide.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An IPv4 or IPv6 address in 16 bytes, network order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Addr([u8; 16]);

const V4_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Addr {
    /// The IPv4 address with these four bytes.
    #[inline]
    pub const fn v4(b: [u8; 4]) -> Self {
        // As one number, not byte by byte: what is written in pieces cannot be read as a whole at
        // once.
        Self::from_number(0xffff << 32 | u32::from_be_bytes(b) as u128)
    }

    /// The IPv6 address with these sixteen bytes. A mapped IPv4 address becomes that IPv4 address.
    #[inline]
    pub const fn v6(b: [u8; 16]) -> Self {
        Self(b)
    }

    /// True for an IPv4 address.
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.0[..12] == V4_PREFIX
    }

    /// The four bytes of an IPv4 address; the low four bytes of an IPv6 address.
    #[inline]
    pub const fn v4_bytes(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// All sixteen bytes.
    #[inline]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The sixteen bytes as a number, so that the address that follows has the next one.
    #[inline]
    pub const fn number(&self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// The address with this number.
    #[inline]
    pub const fn from_number(n: u128) -> Self {
        Self(n.to_be_bytes())
    }

    /// The address as the standard library writes it.
    pub fn to_ip(self) -> IpAddr {
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::from(self.v4_bytes()))
        } else {
            IpAddr::V6(Ipv6Addr::from(self.0))
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(a) => Self::v4(a.octets()),
            IpAddr::V6(a) => Self::v6(a.octets()),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

/// One end of a TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Its address.
    pub addr: Addr,
    /// Its port, host order.
    pub port: u16,
}

impl Endpoint {
    /// The endpoint with this address and port.
    #[inline]
    pub const fn new(addr: Addr, port: u16) -> Self {
        Self { addr, port }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(s: SocketAddr) -> Self {
        Self {
            addr: s.ip().into(),
            port: s.port(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.addr.to_ip(), self.port).fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The two ends of a TCP connection, in the direction of one segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Who sent the segment.
    pub src: Endpoint,
    /// Whom it was sent to.
    pub dst: Endpoint,
}

impl Flow {
    /// The same connection seen from the other side.
    #[inline]
    pub const fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.src, self.dst)
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
