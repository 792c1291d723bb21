//! Why a frame is not used. Every reason is a counter of its own, so that what came in equals what
//! was used plus what was not.

crate::reasons! {
    /// Why a frame carries nothing for us.
    pub enum Skip {
        /// The frame, or its first buffer segment, ends inside a header.
        TooShort = "too_short",
        /// An IP header whose version is not what the layer before announced, or is neither 4 nor
        /// 6.
        BadVersion = "bad_version",
        /// Neither IPv4 nor IPv6: ARP, LLDP, spanning tree and the like.
        NotIp = "not_ip",
        /// IP, but neither TCP nor an encapsulation that is peeled.
        NotTcp = "not_tcp",
        /// A header length field smaller than the header or larger than what the IP length leaves
        /// for it, or an IPv4 option whose length cannot be.
        BadHeaderLength = "bad_header_length",
        /// An IP length field smaller than the IP header, or zero in a frame too small for
        /// segmentation offload to explain it; on a local port also one larger than the frame.
        BadLength = "bad_length",
        /// Part of a fragmented datagram: [`crate::decode::fragment`] says which.
        Fragment = "fragment",
        /// More encapsulations inside one another than are followed.
        Depth = "depth",
        /// An encapsulation that is recognised but cannot be opened: an unknown version or an
        /// unknown inner protocol.
        UnknownEncapsulation = "unknown_encapsulation",
        /// An encapsulation header that contradicts its specification.
        BadEncapsulation = "bad_encapsulation",
        /// A tunnel that is addressed to where none may end ([`crate::tunnel::Ends`]): a stranger may
        /// have sent it. [`crate::decode::refused_tunnel`] says where to.
        TunnelRefused = "tunnel_refused",
        /// Encrypted on the way (ESP, MACsec): there is nothing to read.
        Encrypted = "encrypted",
        /// More VLAN tags than are followed: four on a mirror port, one on a local port.
        Vlan = "vlan",
        /// An IPv6 header with an IPv4-mapped address, which must not appear on a wire (RFC 4942
        /// section 2.2).
        MappedAddress = "mapped_address",
        /// An IPv6 extension header chain longer than is followed.
        ExtensionHeaders = "extension_headers",
        /// The checksum of the IPv4 header or of the TCP segment is neither right nor in a form that
        /// is left to hardware: the frame was damaged on its way.
        BadChecksum = "bad_checksum",
        /// A frame of a capture file whose link type is not understood, or what is inside of a link
        /// header that holds another.
        LinkType = "link_type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        for s in Skip::ALL {
            assert!(
                s.name()
                    .bytes()
                    .all(|b| b == b'_' || b.is_ascii_lowercase())
            );
            assert_eq!(Skip::ALL.iter().filter(|o| o.name() == s.name()).count(), 1);
        }
    }
}
