//! IP headers of both versions as the walk over a frame needs them.

use crate::ipv4::{self, protocol};
use crate::{Addr, Skip, ipv6};

/// An IP header of either version, but for its addresses: these are read once it is known whose
/// header it is.
pub(super) struct Ip {
    pub(super) protocol: u8,
    pub(super) header_len: usize,
    /// Length of header and payload as the header says; `None` if it leaves that to the frame's
    /// length.
    pub(super) total_len: Option<usize>,
    /// Identification, offset, more.
    pub(super) fragment: Option<(u32, usize, bool)>,
    /// TCP's pseudo-header may have other addresses than this header.
    pub(super) readdressed: bool,
}

impl Ip {
    #[inline]
    pub(super) fn v4(bytes: &[u8]) -> Result<Self, Skip> {
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
            readdressed: h.header_len() > ipv4::MIN_HEADER_LEN
                && ipv4::is_source_routed(bytes.get(..h.header_len()).unwrap_or(bytes)),
        };
        // An authentication header hides nothing; behind it stands what the datagram carries.
        if ip.protocol == protocol::AH && fragment.is_none() {
            ip.extend(bytes, ip.header_len)?;
        }
        Ok(ip)
    }

    #[inline]
    pub(super) fn v6(bytes: &[u8]) -> Result<Self, Skip> {
        let h = ipv6::Header::new_checked(bytes)?;
        let mut ip = Self {
            protocol: h.next_header(),
            header_len: ipv6::HEADER_LEN,
            total_len: (h.payload_len() != 0).then(|| ipv6::HEADER_LEN + h.payload_len()),
            fragment: None,
            readdressed: false,
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
        self.readdressed |= e.readdressed;
        Ok(())
    }
}

/// Source and destination in an IP header that was checked.
#[inline]
pub(super) fn addresses(header: &[u8]) -> Result<(Addr, Addr), Skip> {
    match *address_bytes(header).ok_or(Skip::TooShort)? {
        [a, b, c, d, e, f, g, h] => Ok((Addr::v4([a, b, c, d]), Addr::v4([e, f, g, h]))),
        ref both => {
            let (src, dst) = both.split_first_chunk().ok_or(Skip::TooShort)?;
            let dst = dst.first_chunk().ok_or(Skip::TooShort)?;
            Ok((Addr::v6(*src), Addr::v6(*dst)))
        }
    }
}

/// The same as they stand there, one behind the other.
#[inline]
pub(super) fn address_bytes(header: &[u8]) -> Option<&[u8]> {
    let v4 = header.first()? >> 4 == 4;
    header.get(if v4 { 12..20 } else { 8..40 })
}
