//! IPv6 headers and extension headers (RFC 8200).
//!
//! The walk over extension headers follows at most [`MAX_EXTENSIONS`] of them, so that a chain of
//! empty ones costs no more than a handful of loads.

use crate::ipv4::protocol;
use crate::{Addr, Skip};

/// Length of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Extension headers that are followed in one packet. RFC 8200 section 4.1 lists seven places,
/// destination options counted twice.
pub const MAX_EXTENSIONS: usize = 8;

/// Next header values of extension headers.
pub mod extension {
    /// Hop-by-hop options (RFC 8200 section 4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing (RFC 8200 section 4.4).
    pub const ROUTING: u8 = 43;
    /// Fragment (RFC 8200 section 4.5).
    pub const FRAGMENT: u8 = 44;
    /// Nothing follows (RFC 8200 section 4.7).
    pub const NONE: u8 = 59;
    /// Destination options (RFC 8200 section 4.6).
    pub const DESTINATION: u8 = 60;
    /// Mobility (RFC 6275 section 6.1).
    pub const MOBILITY: u8 = 135;
    /// Host identity protocol (RFC 7401).
    pub const HIP: u8 = 139;
    /// Shim6 (RFC 5533).
    pub const SHIM6: u8 = 140;
}

/// A complete fixed header.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    fixed: &'a [u8; HEADER_LEN],
}

impl<'a> Header<'a> {
    /// Checks version and length, and that neither address is an IPv4-mapped one.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Skip> {
        let fixed = bytes.first_chunk().ok_or(Skip::TooShort)?;
        let h = Self { fixed };
        if fixed[0] >> 4 != 6 {
            return Err(Skip::BadVersion);
        }
        if h.src().is_v4() || h.dst().is_v4() {
            return Err(Skip::MappedAddress);
        }
        Ok(h)
    }

    /// Length of what follows the fixed header, in bytes; 0 for a jumbogram or when the sender left
    /// it to the hardware.
    #[inline]
    pub const fn payload_len(&self) -> usize {
        u16::from_be_bytes([self.fixed[4], self.fixed[5]]) as usize
    }

    /// The type of the first header that follows.
    #[inline]
    pub const fn next_header(&self) -> u8 {
        self.fixed[6]
    }

    /// Hops left.
    #[inline]
    pub const fn hop_limit(&self) -> u8 {
        self.fixed[7]
    }

    /// The source address.
    #[inline]
    pub fn src(&self) -> Addr {
        let (_, rest) = self.fixed.split_at(8);
        Addr::v6(*rest.first_chunk().unwrap_or(&[0; 16]))
    }

    /// The destination address.
    #[inline]
    pub fn dst(&self) -> Addr {
        Addr::v6(*self.fixed.last_chunk().unwrap_or(&[0; 16]))
    }
}

/// A fragment header's fields (RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// The identification, which the fragments of one packet share.
    pub ident: u32,
    /// Where this fragment's payload stands in the packet's fragmentable part, in bytes.
    pub offset: usize,
    /// More fragments follow.
    pub more: bool,
    /// The type of the fragmentable part's first header.
    pub next_header: u8,
    /// Where the fragment header stands behind the fixed header.
    pub at: usize,
}

/// What a walk over the extension headers found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    /// The protocol that follows the last extension header.
    pub protocol: u8,
    /// Length of all extension headers together.
    pub len: usize,
    /// A fragment header that makes this a part of a packet. The walk ends behind it. An atomic
    /// fragment, which is whole (RFC 6946), is not reported.
    pub fragment: Option<FragmentHeader>,
    /// A routing header that is not used up, or destination options, of which one may name a home
    /// address (RFC 6275 section 6.3): the pseudo-header of what follows may have another address
    /// than the fixed header (RFC 8200 section 8.1).
    pub readdressed: bool,
}

/// Walks the extension headers in `bytes`, which begin behind the fixed header, whose next header
/// field is `next`.
#[inline]
pub fn extensions(mut next: u8, bytes: &[u8]) -> Result<Extensions, Skip> {
    let mut at = 0usize;
    let mut readdressed = false;
    for _ in 0..=MAX_EXTENSIONS {
        let unit = match next {
            extension::FRAGMENT => {
                let b = bytes
                    .get(at..)
                    .and_then(<[u8]>::first_chunk::<8>)
                    .ok_or(Skip::TooShort)?;
                let field = u16::from_be_bytes([b[2], b[3]]);
                let here = FragmentHeader {
                    ident: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
                    offset: usize::from(field & 0xfff8),
                    more: field & 1 != 0,
                    next_header: b[0],
                    at,
                };
                next = b[0];
                at += 8;
                if here.offset != 0 || here.more {
                    return Ok(Extensions {
                        protocol: next,
                        len: at,
                        fragment: Some(here),
                        readdressed,
                    });
                }
                continue;
            }
            extension::HOP_BY_HOP
            | extension::ROUTING
            | extension::DESTINATION
            | extension::MOBILITY
            | extension::HIP
            | extension::SHIM6 => 8,
            // The authentication header counts in 4-byte units, less two (RFC 4302 section 2.2).
            protocol::AH => 4,
            _ => {
                return Ok(Extensions {
                    protocol: next,
                    len: at,
                    fragment: None,
                    readdressed,
                });
            }
        };
        let b = bytes
            .get(at..)
            .and_then(<[u8]>::first_chunk::<2>)
            .ok_or(Skip::TooShort)?;
        let len = if unit == 8 {
            (usize::from(b[1]) + 1) * 8
        } else {
            (usize::from(b[1]) + 2) * 4
        };
        readdressed |= match next {
            // Segments left.
            extension::ROUTING => bytes.get(at + 3).is_some_and(|left| *left != 0),
            extension::DESTINATION => true,
            _ => false,
        };
        next = b[0];
        at += len;
        if at > bytes.len() {
            return Err(Skip::TooShort);
        }
    }
    Err(Skip::ExtensionHeaders)
}

/// A header with no extension headers, traffic class and flow label zero.
#[inline]
pub fn header(
    src: &Addr,
    dst: &Addr,
    next_header: u8,
    hop_limit: u8,
    payload_len: usize,
) -> [u8; HEADER_LEN] {
    let len = u16::try_from(payload_len).unwrap_or(u16::MAX).to_be_bytes();
    let mut h = [0; HEADER_LEN];
    h[0] = 0x60;
    h[4] = len[0];
    h[5] = len[1];
    h[6] = next_header;
    h[7] = hop_limit;
    h[8..24].copy_from_slice(src.bytes());
    h[24..40].copy_from_slice(dst.bytes());
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(last: u8) -> Addr {
        let mut b = [0; 16];
        b[0] = 0x20;
        b[15] = last;
        Addr::v6(b)
    }

    #[test]
    fn what_is_written_is_read() {
        let b = header(&addr(1), &addr(2), 6, 63, 500);
        let h = Header::new_checked(&b).unwrap();
        assert_eq!((h.src(), h.dst(), h.next_header()), (addr(1), addr(2), 6));
        assert_eq!((h.hop_limit(), h.payload_len()), (63, 500));
        assert_eq!(
            Header::new_checked(&b[..39]).map(|_| ()),
            Err(Skip::TooShort)
        );
    }

    #[test]
    fn mapped_addresses_and_other_versions_are_refused() {
        let mut b = header(&Addr::v4([1, 2, 3, 4]), &addr(2), 6, 63, 0);
        assert_eq!(
            Header::new_checked(&b).map(|_| ()),
            Err(Skip::MappedAddress)
        );
        b[0] = 0x45;
        assert_eq!(Header::new_checked(&b).map(|_| ()), Err(Skip::BadVersion));
    }

    #[test]
    fn the_walk_passes_every_kind_of_header() {
        let mut b = vec![43, 0, 0, 0, 0, 0, 0, 0];
        b.extend([60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        b.extend([44, 0, 0, 0, 0, 0, 0, 0]);
        b.extend([51, 0, 0, 0, 0, 0, 0, 7]);
        b.extend([
            6, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]);
        let e = extensions(0, &b).unwrap();
        assert_eq!(
            e,
            Extensions {
                protocol: 6,
                len: b.len(),
                fragment: None,
                readdressed: true,
            }
        );
        for cut in 0..b.len() {
            assert_eq!(
                extensions(0, &b[..cut]),
                Err(Skip::TooShort),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_fragment_ends_the_walk_and_an_atomic_one_does_not() {
        let f = extensions(44, &[6, 0, 0x05, 0xa9, 1, 2, 3, 4]).unwrap();
        let want = FragmentHeader {
            ident: 0x01020304,
            offset: 1448,
            more: true,
            next_header: 6,
            at: 0,
        };
        assert_eq!(
            f,
            Extensions {
                protocol: 6,
                len: 8,
                fragment: Some(want),
                readdressed: false,
            }
        );
        assert_eq!(
            extensions(44, &[6, 0, 0, 0, 1, 2, 3, 4]).unwrap().fragment,
            None
        );
    }

    #[test]
    fn an_endless_chain_is_refused() {
        let b = [0u8; 8 * 64];
        assert_eq!(extensions(0, &b), Err(Skip::ExtensionHeaders));
    }
}
