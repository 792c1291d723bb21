//! Why a frame is not used. Every reason is a counter of its own, so that what came in equals what
//! was used plus what was not.

use std::fmt;

/// Why a frame carries nothing for us.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Skip {
    /// The frame, or its first buffer segment, ends inside a header.
    TooShort,
    /// An IP header whose version is not what the layer before announced, or is neither 4 nor 6.
    BadVersion,
    /// Neither IPv4 nor IPv6: ARP, LLDP, spanning tree and the like.
    NotIp,
    /// IP, but neither TCP nor an encapsulation that is peeled.
    NotTcp,
    /// A header length field smaller than the header or larger than what the IP length leaves for
    /// it, or an IPv4 option whose length cannot be.
    BadHeaderLength,
    /// An IP length field smaller than the IP header, or zero in a frame too small for segmentation
    /// offload to explain it; on a local port also one larger than the frame.
    BadLength,
    /// Part of a fragmented datagram: [`crate::decode::fragment`] says which.
    Fragment,
    /// More encapsulations inside one another than are followed.
    Depth,
    /// An encapsulation that is recognised but cannot be opened: an unknown version or an unknown
    /// inner protocol.
    UnknownEncapsulation,
    /// An encapsulation header that contradicts its specification.
    BadEncapsulation,
    /// Encrypted on the way (ESP, MACsec): there is nothing to read.
    Encrypted,
    /// More VLAN tags than are followed: four on a mirror port, one on a local port.
    Vlan,
    /// An IPv6 header with an IPv4-mapped address, which must not appear on a wire (RFC 4942
    /// section 2.2).
    MappedAddress,
    /// An IPv6 extension header chain longer than is followed.
    ExtensionHeaders,
    /// The checksum of the IPv4 header or of the TCP segment is neither right nor in a form that is
    /// left to hardware: the frame was damaged on its way.
    BadChecksum,
}

impl Skip {
    /// How many reasons there are.
    pub const COUNT: usize = 15;

    /// All reasons, in the order of their discriminants, so that `ALL[reason as usize] == reason`.
    pub const ALL: [Self; Self::COUNT] = [
        Self::TooShort,
        Self::BadVersion,
        Self::NotIp,
        Self::NotTcp,
        Self::BadHeaderLength,
        Self::BadLength,
        Self::Fragment,
        Self::Depth,
        Self::UnknownEncapsulation,
        Self::BadEncapsulation,
        Self::Encrypted,
        Self::Vlan,
        Self::MappedAddress,
        Self::ExtensionHeaders,
        Self::BadChecksum,
    ];

    /// The name under which the report counts it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::BadVersion => "bad_version",
            Self::NotIp => "not_ip",
            Self::NotTcp => "not_tcp",
            Self::BadHeaderLength => "bad_header_length",
            Self::BadLength => "bad_length",
            Self::Fragment => "fragment",
            Self::Depth => "depth",
            Self::UnknownEncapsulation => "unknown_encapsulation",
            Self::BadEncapsulation => "bad_encapsulation",
            Self::Encrypted => "encrypted",
            Self::Vlan => "vlan",
            Self::MappedAddress => "mapped_address",
            Self::ExtensionHeaders => "extension_headers",
            Self::BadChecksum => "bad_checksum",
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_indexed_by_discriminant_and_names_differ() {
        for (i, s) in Skip::ALL.into_iter().enumerate() {
            assert_eq!(s as usize, i);
            assert!(
                s.name()
                    .bytes()
                    .all(|b| b == b'_' || b.is_ascii_lowercase())
            );
            assert_eq!(Skip::ALL.iter().filter(|o| o.name() == s.name()).count(), 1);
        }
    }
}
