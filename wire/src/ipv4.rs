//! IPv4 headers (RFC 791).

use crate::{Addr, Skip};

/// Length of the header without options.
pub const MIN_HEADER_LEN: usize = 20;

/// Protocol numbers (IANA), shared with IPv6's next header field.
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPV4: u8 = 4;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 4213).
    pub const IPV6: u8 = 41;
    /// GRE (RFC 2784).
    pub const GRE: u8 = 47;
    /// Encapsulating security payload (RFC 4303).
    pub const ESP: u8 = 50;
    /// Authentication header (RFC 4302).
    pub const AH: u8 = 51;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// Ethernet in IP (RFC 3378).
    pub const ETHERIP: u8 = 97;
    /// MPLS in IP (RFC 4023).
    pub const MPLS: u8 = 137;
}

/// Option types (RFC 791 section 3.1).
mod option {
    pub const END: u8 = 0;
    pub const NOP: u8 = 1;
    pub const LOOSE_ROUTE: u8 = 131;
    pub const STRICT_ROUTE: u8 = 137;
}

/// A header that is complete, options included, and whose lengths do not contradict one another.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    fixed: &'a [u8; MIN_HEADER_LEN],
}

impl<'a> Header<'a> {
    /// Checks version, header length, total length and the lengths of options. A total length of
    /// zero is let through: segmentation offload leaves it so in frames that a host mirrors to
    /// itself, and only the frame's length tells then.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Skip> {
        let fixed = bytes.first_chunk().ok_or(Skip::TooShort)?;
        let h = Self { fixed };
        if fixed[0] >> 4 != 4 {
            return Err(Skip::BadVersion);
        }
        let len = h.header_len();
        if len < MIN_HEADER_LEN {
            return Err(Skip::BadHeaderLength);
        }
        if h.total_len() != 0 && h.total_len() < len {
            return Err(Skip::BadLength);
        }
        if len > MIN_HEADER_LEN {
            let options = bytes.get(MIN_HEADER_LEN..len).ok_or(Skip::TooShort)?;
            walk_options(options, |_| ())?;
        }
        Ok(h)
    }

    /// Length of the header with its options, in bytes.
    #[inline]
    pub const fn header_len(&self) -> usize {
        (self.fixed[0] & 0x0f) as usize * 4
    }

    /// Length of header and payload, in bytes; 0 if the sender left it to the hardware.
    #[inline]
    pub const fn total_len(&self) -> usize {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]]) as usize
    }

    /// The identification, which the fragments of one datagram share.
    #[inline]
    pub const fn ident(&self) -> u16 {
        u16::from_be_bytes([self.fixed[4], self.fixed[5]])
    }

    /// Where this fragment's payload stands in the datagram's, in bytes.
    #[inline]
    pub const fn fragment_offset(&self) -> usize {
        (u16::from_be_bytes([self.fixed[6], self.fixed[7]]) & 0x1fff) as usize * 8
    }

    /// More fragments follow.
    #[inline]
    pub const fn more_fragments(&self) -> bool {
        self.fixed[6] & 0x20 != 0
    }

    /// Routers must not fragment it.
    #[inline]
    pub const fn dont_fragment(&self) -> bool {
        self.fixed[6] & 0x40 != 0
    }

    /// It is one part of a datagram.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]]) & 0x3fff != 0
    }

    /// Hops left.
    #[inline]
    pub const fn ttl(&self) -> u8 {
        self.fixed[8]
    }

    /// The protocol of the payload.
    #[inline]
    pub const fn protocol(&self) -> u8 {
        self.fixed[9]
    }

    /// The source address.
    #[inline]
    pub const fn src(&self) -> Addr {
        let f = self.fixed;
        Addr::v4([f[12], f[13], f[14], f[15]])
    }

    /// The destination address.
    #[inline]
    pub const fn dst(&self) -> Addr {
        let f = self.fixed;
        Addr::v4([f[16], f[17], f[18], f[19]])
    }
}

/// Passes each option of more than one byte (RFC 791 section 3.1) to `each`, type and length
/// included. No router or host would take a header with an option whose length does not even count
/// its type and itself, or goes past the header's end: [`Skip::BadHeaderLength`].
fn walk_options(mut options: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Skip> {
    loop {
        options = match *options {
            [] | [option::END, ..] => return Ok(()),
            [option::NOP, ref rest @ ..] => rest,
            [_, len, ..] if len >= 2 => {
                let (this, rest) = options
                    .split_at_checked(len.into())
                    .ok_or(Skip::BadHeaderLength)?;
                each(this);
                rest
            }
            _ => return Err(Skip::BadHeaderLength),
        };
    }
}

/// Whether a checked header, whose bytes these are, has a source route that is not used up: then
/// its destination is the next router on the way, and who shall get it stands in the route.
pub fn is_source_routed(header: &[u8]) -> bool {
    let mut routed = false;
    let options = header.get(MIN_HEADER_LEN..).unwrap_or(&[]);
    let _ = walk_options(options, |o| {
        if let [option::LOOSE_ROUTE | option::STRICT_ROUTE, len, pointer, ..] = *o {
            routed |= pointer <= len;
        }
    });
    routed
}

/// A header without options and with its checksum; "don't fragment" is set. Addresses that are not
/// IPv4 give their last four bytes.
#[inline]
pub fn header(
    src: &Addr,
    dst: &Addr,
    protocol: u8,
    ttl: u8,
    ident: u16,
    payload_len: usize,
) -> [u8; MIN_HEADER_LEN] {
    let len = (u16::try_from(MIN_HEADER_LEN + payload_len).unwrap_or(u16::MAX)).to_be_bytes();
    let (s, d, id) = (src.v4_bytes(), dst.v4_bytes(), ident.to_be_bytes());
    let mut h = [
        0x45, 0, len[0], len[1], id[0], id[1], 0x40, 0, ttl, protocol, 0, 0, s[0], s[1], s[2],
        s[3], d[0], d[1], d[2], d[3],
    ];
    let c = crate::checksum::checksum(&h).to_be_bytes();
    h[10] = c[0];
    h[11] = c[1];
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (s, d) = (Addr::v4([10, 0, 0, 1]), Addr::v4([10, 0, 0, 2]));
        let b = header(&s, &d, protocol::TCP, 64, 77, 100);
        assert_eq!(crate::checksum::checksum(&b), 0);
        let h = Header::new_checked(&b).unwrap();
        assert_eq!(
            (h.src(), h.dst(), h.protocol(), h.ttl(), h.ident()),
            (s, d, 6, 64, 77)
        );
        assert_eq!((h.header_len(), h.total_len()), (20, 120));
        assert!(h.dont_fragment() && !h.is_fragment() && !h.more_fragments());
    }

    #[test]
    fn contradictions_are_refused() {
        let good = header(&Addr::v4([1; 4]), &Addr::v4([2; 4]), 6, 1, 1, 0);
        let with = |at: usize, v: u8| {
            let mut b = good;
            b[at] = v;
            Header::new_checked(&b).map(|h| h.total_len())
        };
        assert_eq!(with(0, 0x65), Err(Skip::BadVersion));
        assert_eq!(with(0, 0x44), Err(Skip::BadHeaderLength));
        assert_eq!(with(0, 0x46), Err(Skip::BadLength));
        assert_eq!(with(3, 19), Err(Skip::BadLength));
        assert_eq!(with(3, 0), Ok(0));
        let mut options = good;
        options[0] = 0x46;
        options[3] = 24;
        assert_eq!(
            Header::new_checked(&options).map(|h| h.total_len()),
            Err(Skip::TooShort)
        );
        assert_eq!(
            Header::new_checked(&good[..19]).map(|h| h.total_len()),
            Err(Skip::TooShort)
        );
    }

    #[test]
    fn impossible_options_are_refused() {
        let with = |options: &[u8]| {
            let mut b = header(&Addr::v4([1; 4]), &Addr::v4([2; 4]), 6, 1, 1, 8).to_vec();
            b[0] = 0x47;
            b.extend(options);
            Header::new_checked(&b).map(|_| is_source_routed(&b))
        };
        // Record route, router alert, timestamps, no more than padding, and junk behind the end.
        for good in [
            [7, 7, 4, 0, 0, 0, 0, 0],
            [0x94, 4, 0, 0, 1, 1, 1, 1],
            [1, 0x44, 7, 5, 0, 0, 0, 0],
            [1; 8],
            [0, 7, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(with(&good), Ok(false), "{good:?}");
        }
        for bad in [
            [7, 0, 4, 0, 0, 0, 0, 0],
            [7, 1, 4, 0, 0, 0, 0, 0],
            [7, 9, 4, 0, 0, 0, 0, 0],
            [1, 0x94, 8, 0, 0, 0, 0, 0],
            [1, 1, 1, 1, 1, 1, 1, 7],
        ] {
            assert_eq!(with(&bad), Err(Skip::BadHeaderLength), "{bad:?}");
        }
        assert_eq!(with(&[131, 7, 4, 9, 9, 9, 9, 0]), Ok(true));
        assert_eq!(with(&[137, 7, 8, 9, 9, 9, 9, 0]), Ok(false));
        assert_eq!(with(&[1; 7]), Err(Skip::TooShort));
    }

    #[test]
    fn fragment_fields() {
        let mut b = header(&Addr::v4([1; 4]), &Addr::v4([2; 4]), 6, 1, 1, 0);
        b[6] = 0x20;
        b[7] = 0x02;
        let h = Header::new_checked(&b).unwrap();
        assert!(h.is_fragment() && h.more_fragments() && !h.dont_fragment());
        assert_eq!(h.fragment_offset(), 16);
    }
}
