//! The scope of a segment: one number for the VLANs and virtual networks around it.
//!
//! The same addresses and ports may be in use in two VLANs, or in two tenants' virtual networks, at
//! the same time. A scope tells such connections apart. It is folded from what names a network and
//! is the same in all frames of one direction of a connection: VLAN identifiers of all tags,
//! VXLAN's and GENEVE's VNI, the I-SID of 802.1ah and GRE keys. Priorities, MPLS labels, GTP's
//! TEID, ERSPAN's session and the tags of port extenders stay out: they change from hop to hop, or
//! from packet to packet.
//!
//! The two directions may still differ, where a router between two VLANs is mirrored or a switch
//! shows one direction untagged.

/// What names a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A VLAN identifier, 12 bits (IEEE 802.1Q). 0 is a tag that only carries a priority, and names
    /// none.
    Vlan(u16),
    /// A virtual network or service instance, 24 bits: VXLAN's or GENEVE's VNI, an I-SID.
    Virtual(u32),
    /// A GRE key, 32 bits (RFC 2890). NVGRE's has in its last 8 bits what is chosen for each flow
    /// (RFC 7637 section 3.2), so it may differ by direction.
    Key(u32),
}

/// Folds one more network into a scope, from the outside to the inside. Never 0 once something that
/// names a network has been folded in.
#[inline]
#[must_use]
pub const fn fold(scope: u32, network: Network) -> u32 {
    let value = match network {
        Network::Vlan(0) => return scope,
        Network::Vlan(id) => 0x8100_0000 | id as u32,
        Network::Virtual(id) => 0x4000_0000 | id & 0x00ff_ffff,
        Network::Key(key) => key,
    };
    // Odd multipliers are one-to-one: two scopes with a single network each never meet by chance.
    // The rotation makes the order count.
    let folded = (scope.rotate_left(13) ^ value).wrapping_mul(0x9e37_79b1);
    let folded = (folded ^ folded >> 15).wrapping_mul(0x85eb_ca77);
    if folded == 0 { 1 } else { folded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_differ_and_their_order_counts() {
        let n: u16 = if cfg!(miri) { 64 } else { 4096 };
        let mut all: Vec<u32> = (0..n).map(|id| fold(0, Network::Vlan(id))).collect();
        all.extend((0..n).map(|id| fold(0, Network::Virtual(id.into()))));
        all.extend((0..n).map(|key| fold(0, Network::Key(key.into()))));
        all.extend(
            (1..64).flat_map(|a| {
                (1..64).map(move |b| fold(fold(0, Network::Vlan(a)), Network::Vlan(b)))
            }),
        );
        // Only a priority tag names none.
        assert_eq!(all[0], 0);
        let n = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), n);
    }
}
