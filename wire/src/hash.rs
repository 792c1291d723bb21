//! Where an entry of a table goes: a hash that strangers cannot work out.
//!
//! Addresses and ports are chosen by whoever sends the frames. With a hash that is known, or whose
//! seed only shifts or masks what comes out (as with Toeplitz or a CRC), a stranger makes any
//! number of flows that meet in one place, and every look-up there walks along all of them. So
//! every step of this one multiplies what it takes in by secret numbers. They come from a seed that
//! is an argument, and has to be the system's random generator's where strangers send.
//!
//! What always holds: the same seed gives the same hash. Two directions of a flow have different
//! ones; which core owns a flow is not decided here (see [`crate::rss`]).

use crate::{Addr, Endpoint, Flow};
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use std::hash::Hasher;

/// The keyed hash of one table.
#[derive(Clone, Debug)]
pub struct KeyedHash {
    /// What the hash begins with.
    first: u64,
    /// What every step multiplies by.
    steps: SharedSeed,
}

impl KeyedHash {
    /// The hash with this seed.
    pub const fn new(seed: u64) -> Self {
        Self {
            // Never zero, as the first half of every IPv4 address is: a step multiplies by both.
            first: seed | 1 << 63,
            // Numbers that have nothing to do with the first.
            steps: SharedSeed::from_u64(seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15),
        }
    }

    #[inline]
    fn hasher(&self) -> FoldHasher<'_> {
        FoldHasher::with_seed(self.first, &self.steps)
    }

    /// The hash of a flow.
    #[inline]
    pub fn flow(&self, flow: &Flow) -> u64 {
        self.ends(&flow.src, &flow.dst)
    }

    /// The hash of the flow from `src` to `dst`.
    #[inline]
    pub fn ends(&self, src: &Endpoint, dst: &Endpoint) -> u64 {
        let mut h = self.hasher();
        for end in [src, dst] {
            // Read as they were written, so that the reads need not wait for the writes.
            let address = u128::from_ne_bytes(*end.addr.bytes());
            h.write_u64(address as u64);
            h.write_u64((address >> 64) as u64);
        }
        h.write_u32(u32::from(src.port) << 16 | u32::from(dst.port));
        h.finish()
    }

    /// The hash of an address.
    #[inline]
    pub fn addr(&self, addr: &Addr) -> u64 {
        let mut h = self.hasher();
        h.write_u128(u128::from_ne_bytes(*addr.bytes()));
        h.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn flow(prefix: u64, interface: u64, port: u16) -> Flow {
        let client = u128::from(prefix) << 64 | u128::from(interface);
        Flow {
            src: Endpoint::new(Addr::from_number(client), port),
            dst: Endpoint::new(Addr::v4([192, 0, 2, 1]), 80),
        }
    }

    #[test]
    fn the_seed_decides_and_every_part_of_a_flow_counts() {
        let f = flow(1, 2, 3);
        let hash = |seed, f| KeyedHash::new(seed).flow(f);
        assert_eq!(hash(1, &f), hash(1, &f));
        let others = [flow(0, 2, 3), flow(1, 0, 3), flow(1, 2, 0), f.reversed()];
        let v4 = |last, port| Flow {
            src: Endpoint::new(Addr::v4([10, 0, 0, last]), port),
            ..f
        };
        let others_v4 = [v4(2, 3), v4(1, 4), v4(1, 3).reversed()];
        for seed in [0, 1, u64::MAX] {
            let v4s = others_v4.iter().chain([&f]).map(|f| hash(seed, f));
            assert_eq!(v4s.collect::<HashSet<_>>().len(), 4);
            let hashes: HashSet<u64> = others.iter().chain([&f]).map(|f| hash(seed, f)).collect();
            assert_eq!(hashes.len(), 5);
        }
        assert_ne!(hash(1, &f), hash(2, &f));
        let steps = |seed| format!("{:?}", KeyedHash::new(seed).steps);
        assert_ne!(steps(1), steps(2), "no step is known");
        let addr = |seed| KeyedHash::new(seed).addr(&f.src.addr);
        assert_ne!(addr(1), addr(2));
    }

    /// Whoever knows what a step multiplies by makes it zero, and so forgets all that came before.
    #[test]
    fn no_part_of_an_address_makes_the_others_forgotten() {
        // What foldhash's first step multiplies the second half of an address by, unless it is told
        // another number: with the same in the address it multiplies by zero.
        let known: u64 = 0xc0ac_29b7_c97c_50dd;
        let interface = known.swap_bytes();
        let flows: Vec<Flow> = (0..1_000).map(|n| flow(n, interface, 1)).collect();
        let distinct = |hash: &dyn Fn(&Flow) -> u64| flows.iter().map(hash).collect::<HashSet<_>>();
        let fixed = |f: &Flow| {
            let mut h = FoldHasher::with_seed(4711, SharedSeed::global_fixed());
            h.write_u128(u128::from_ne_bytes(*f.src.addr.bytes()));
            h.finish()
        };
        assert_eq!(distinct(&fixed).len(), 1, "the attack");
        for seed in [1, 2] {
            let keyed = KeyedHash::new(seed);
            assert_eq!(distinct(&|f| keyed.flow(f)).len(), flows.len());
        }
    }
}
