//! Prefixes: an address, and how many of its first bits name a network.

use crate::Addr;
use std::fmt;

/// An address and the length of the prefix of its network, in bits of its family. The bits behind
/// the prefix are kept, as an interface's own address has them, and do not count in comparisons
/// with other addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    addr: Addr,
    len: u8,
}

impl Prefix {
    /// The prefix of this length that `addr` is in. A length beyond [`Prefix::max_len`] is cut to
    /// that.
    #[inline]
    pub fn new(addr: Addr, len: u8) -> Self {
        let max = Self::max_len(addr.is_v4());
        Self {
            addr,
            len: if len > max { max } else { len },
        }
    }

    /// The prefix that has this address in it, and no other.
    #[inline]
    pub fn host(addr: Addr) -> Self {
        Self::new(addr, u8::MAX)
    }

    /// The longest prefix of a family, in bits: 32 for IPv4, 128 for IPv6.
    #[inline]
    pub const fn max_len(v4: bool) -> u8 {
        if v4 { 32 } else { 128 }
    }

    /// The address, as it was given.
    #[inline]
    pub const fn addr(&self) -> Addr {
        self.addr
    }

    /// The length in bits: 0–32 for IPv4, 0–128 for IPv6.
    #[inline]
    pub const fn bits(&self) -> u8 {
        self.len
    }

    /// True for a prefix of IPv4 addresses.
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.addr.is_v4()
    }

    /// True if it has a single address in it.
    #[inline]
    pub fn is_host(&self) -> bool {
        self.len == Self::max_len(self.is_v4())
    }

    /// True if this address is in it. An address of the other family never is.
    #[inline]
    pub fn contains(&self, addr: &Addr) -> bool {
        addr.is_v4() == self.is_v4() && (addr.number() ^ self.addr.number()) & self.mask() == 0
    }

    /// True if some address is in both: then one of the two contains the other.
    #[inline]
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.len <= other.len {
            self.contains(&other.addr)
        } else {
            other.contains(&self.addr)
        }
    }

    /// The first of its addresses.
    #[inline]
    pub fn first(&self) -> Addr {
        Addr::from_number(self.addr.number() & self.mask())
    }

    /// The last of its addresses.
    #[inline]
    pub fn last(&self) -> Addr {
        Addr::from_number(self.addr.number() | !self.mask())
    }

    /// How many addresses are in it; [`u128::MAX`] for all of IPv6.
    #[inline]
    pub fn count(&self) -> u128 {
        1u128.checked_shl(self.host_bits()).unwrap_or(u128::MAX)
    }

    /// The bits behind the prefix.
    #[inline]
    fn host_bits(&self) -> u32 {
        u32::from(Self::max_len(self.is_v4()) - self.len)
    }

    /// The bits that count. An IPv4 address is mapped, so its first 96 bits are always among them.
    #[inline]
    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(self.host_bits()).unwrap_or(0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V6: Addr = Addr::v6([0x20, 1, 0xd, 0xb8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);

    #[test]
    fn an_address_is_in_a_prefix_of_its_own_family() {
        let net = Prefix::new(Addr::v4([10, 0, 0, 9]), 24);
        assert!(net.contains(&Addr::v4([10, 0, 0, 255])));
        assert!(!net.contains(&Addr::v4([10, 0, 1, 0])));
        assert!(!net.contains(&V6));
        let (all_v4, all_v6) = (Prefix::new(Addr::v4([1; 4]), 0), Prefix::new(V6, 0));
        assert!(all_v4.contains(&Addr::v4([255; 4])) && !all_v4.contains(&V6));
        assert!(all_v6.contains(&Addr::v6([0xff; 16])) && !all_v6.contains(&Addr::v4([1; 4])));
        assert!(!all_v4.overlaps(&all_v6) && !all_v6.overlaps(&all_v4));
    }

    #[test]
    fn a_host_is_the_longest_prefix_and_a_longer_one_is_cut() {
        for addr in [Addr::v4([10, 0, 0, 9]), V6] {
            let host = Prefix::host(addr);
            assert!(host.is_host() && host.contains(&addr));
            assert_eq!((host.first(), host.count()), (addr, 1));
            assert_eq!(host, Prefix::new(addr, Prefix::max_len(addr.is_v4())));
            assert!(!Prefix::new(addr, 31).is_host());
        }
        assert_eq!(Prefix::host(Addr::v4([1; 4])).to_string(), "1.1.1.1/32");
    }

    #[test]
    fn it_knows_its_first_address_and_how_many_there_are() {
        let net = Prefix::new(Addr::v4([10, 0, 0, 200]), 25);
        assert_eq!((net.first(), net.count()), (Addr::v4([10, 0, 0, 128]), 128));
        assert_eq!(Prefix::new(V6, 64).count(), 1 << 64);
        assert_eq!(Prefix::new(V6, 0).count(), u128::MAX);
        assert_eq!(Prefix::new(Addr::v4([9; 4]), 0).first(), Addr::v4([0; 4]));
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        // Few different bits, so that two of them often meet.
        (any::<bool>(), 0..4u8, 0..4u8, 0..=128u8).prop_map(|(v4, a, b, len)| {
            let addr = if v4 {
                Addr::v4([a << 6, 0, 0, b])
            } else {
                let mut bytes = [0; 16];
                (bytes[0], bytes[15]) = (a << 6, b);
                Addr::v6(bytes)
            };
            Prefix::new(addr, len)
        })
    }

    proptest! {
        #[test]
        fn two_overlap_if_one_has_the_first_address_of_the_other(a in prefix(), b in prefix()) {
            let meet = a.contains(&b.first()) || b.contains(&a.first());
            prop_assert_eq!(a.overlaps(&b), meet);
            prop_assert_eq!(b.overlaps(&a), meet);
        }
    }
}
