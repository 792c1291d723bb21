//! Ethernet II frames and IEEE 802.3 frames with an LLC/SNAP header (RFC 1042).

use crate::Skip;

/// Length of the header without tags.
pub const HEADER_LEN: usize = 14;
/// The smallest frame without its checksum; shorter ones are padded by the sender (IEEE 802.3
/// section 4.2.3.3).
pub const MIN_FRAME: usize = 60;
/// The broadcast address.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// EtherTypes of what is understood here (IEEE 802 numbers, IANA registry).
pub mod ethertype {
    /// IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad service tag.
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// Service tags from before 802.1ad.
    pub const OLD_SERVICE_VLANS: [u16; 3] = [0x9100, 0x9200, 0x9300];
    /// 802.1ah backbone service instance tag.
    pub const PBB: u16 = 0x88e7;
    /// MPLS, downstream-assigned label (RFC 5332).
    pub const MPLS: u16 = 0x8847;
    /// MPLS, upstream-assigned label (RFC 5332).
    pub const MPLS_UPSTREAM: u16 = 0x8848;
    /// PPPoE session stage (RFC 2516).
    pub const PPPOE_SESSION: u16 = 0x8864;
    /// Cisco MetaData, with a security group tag.
    pub const CISCO_METADATA: u16 = 0x8909;
    /// VN-Tag of Cisco's fabric extenders, later standardised as the E-tag.
    pub const VN_TAG: u16 = 0x8926;
    /// E-tag of port extenders (802.1BR).
    pub const E_TAG: u16 = 0x893f;
    /// MACsec (802.1AE).
    pub const MACSEC: u16 = 0x88e5;
    /// Transparent Ethernet bridging, inside GRE and GENEVE (RFC 1701, RFC 7637).
    pub const ETHERNET: u16 = 0x6558;
    /// ERSPAN types I and II inside GRE.
    pub const ERSPAN_II: u16 = 0x88be;
    /// ERSPAN type III inside GRE.
    pub const ERSPAN_III: u16 = 0x22eb;
    /// The smallest EtherType; lower values are an 802.3 length.
    pub const MIN: u16 = 0x0600;
}

/// A frame with a complete header.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    fixed: &'a [u8; HEADER_LEN],
    rest: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Checks that the header is complete.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Skip> {
        let (fixed, rest) = bytes.split_first_chunk().ok_or(Skip::TooShort)?;
        Ok(Self { fixed, rest })
    }

    /// The destination address.
    #[inline]
    pub const fn dst(&self) -> [u8; 6] {
        let f = self.fixed;
        [f[0], f[1], f[2], f[3], f[4], f[5]]
    }

    /// The source address.
    #[inline]
    pub const fn src(&self) -> [u8; 6] {
        let f = self.fixed;
        [f[6], f[7], f[8], f[9], f[10], f[11]]
    }

    /// The type, or the length of an 802.3 frame.
    #[inline]
    pub const fn ether_type(&self) -> u16 {
        u16::from_be_bytes([self.fixed[12], self.fixed[13]])
    }

    /// What follows the header: tags, payload, padding.
    #[inline]
    pub const fn payload(&self) -> &'a [u8] {
        self.rest
    }
}

/// The EtherType behind an LLC/SNAP header with the RFC 1042 organization code, which is eight
/// bytes long.
#[inline]
pub fn snap_type(bytes: &[u8]) -> Result<u16, Skip> {
    match bytes.first_chunk::<8>() {
        Some([0xaa, 0xaa, 0x03, 0, 0, 0, hi, lo]) => Ok(u16::from_be_bytes([*hi, *lo])),
        Some(_) => Err(Skip::NotIp),
        None => Err(Skip::TooShort),
    }
}

/// A complete header.
#[inline]
pub const fn header(dst: [u8; 6], src: [u8; 6], ether_type: u16) -> [u8; HEADER_LEN] {
    let t = ether_type.to_be_bytes();
    [
        dst[0], dst[1], dst[2], dst[3], dst[4], dst[5], src[0], src[1], src[2], src[3], src[4],
        src[5], t[0], t[1],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let h = header([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12], ethertype::IPV6);
        let f = Frame::new_checked(&h).unwrap();
        assert_eq!(
            (f.dst(), f.src(), f.ether_type()),
            ([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12], 0x86dd)
        );
        assert!(f.payload().is_empty());
        assert_eq!(Frame::new_checked(&h[..13]).unwrap_err(), Skip::TooShort);
    }

    #[test]
    fn snap_needs_the_rfc_1042_organization() {
        assert_eq!(
            snap_type(&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]),
            Ok(ethertype::IPV4)
        );
        assert_eq!(
            snap_type(&[0xaa, 0xaa, 3, 0, 0, 0x0c, 1, 0]),
            Err(Skip::NotIp)
        );
        assert_eq!(snap_type(&[0x42, 0x42, 3]), Err(Skip::TooShort));
    }
}
