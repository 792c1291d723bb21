//! Which core owns a flow: receive-side scaling as network cards compute it, with the symmetric
//! key.
//!
//! With a key that repeats every 16 bits the Toeplitz hash depends only on the exclusive-or of the
//! input's 16-bit words, so it is the same for both directions of a connection, and costs two table
//! lookups.

use crate::{Addr, Endpoint, Flow};

/// The two bytes that the key repeats.
pub const KEY_WORD: u16 = 0x6d5a;

/// The 40-byte key to give to a network card (52-byte keys repeat it further).
pub const KEY: [u8; 40] = {
    let mut k = [0; 40];
    let mut i = 0;
    while i < 40 {
        k[i] = if i % 2 == 0 {
            (KEY_WORD >> 8) as u8
        } else {
            KEY_WORD as u8
        };
        i += 1;
    }
    k
};

/// The hash of a word with only this byte set, as its high byte.
const HIGH: [u32; 256] = table(8);
/// The hash of a word with only this byte set, as its low byte.
const LOW: [u32; 256] = table(0);

const fn table(shift: u32) -> [u32; 256] {
    let key = (KEY_WORD as u32) << 16 | KEY_WORD as u32;
    let mut t = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let word = (byte as u32) << shift;
        let mut bit = 0;
        // Bit 0 is the most significant one of the word; it takes the key unshifted.
        while bit < 16 {
            if word & (0x8000 >> bit) != 0 {
                t[byte] ^= key.rotate_left(bit);
            }
            bit += 1;
        }
        byte += 1;
    }
    t
}

/// Exclusive-or of an address's 16-bit words as they stand in the packet: two for IPv4, eight for
/// IPv6.
#[inline]
fn fold(a: &Addr) -> u16 {
    let w = if a.is_v4() {
        u32::from_be_bytes(a.v4_bytes())
    } else {
        let w = a.number();
        let w = (w >> 64) as u64 ^ w as u64;
        (w >> 32) as u32 ^ w as u32
    };
    (w >> 16) as u16 ^ w as u16
}

/// The hash a network card computes over source address, destination address, source port and
/// destination port with [`KEY`]; the same for both directions.
#[inline]
pub fn owner_hash(flow: &Flow) -> u32 {
    let w = fold(&flow.src.addr) ^ fold(&flow.dst.addr) ^ flow.src.port ^ flow.dst.port;
    HIGH[usize::from(w >> 8)] ^ LOW[usize::from(w & 0xff)]
}

/// Entries of a network card's redirection table.
pub const TABLE_ENTRIES: u32 = 128;

/// The receive queue that a network card with `queues` queues chooses for a hash, if its
/// redirection table has [`TABLE_ENTRIES`] entries and is filled with the queues in turn, as
/// drivers do it unless they are told otherwise.
///
/// The low bits of the hash choose the entry. So the queue is the hash modulo `queues` only if that
/// is a power of two. A card with a larger table chooses another queue for some hashes if it is
/// none: these frames are handed over by the core that receives them.
#[inline]
pub const fn queue_of(hash: u32, queues: u16) -> u16 {
    queue_in(hash, TABLE_ENTRIES as u16, queues)
}

/// The same with a redirection table of `table` entries, a power of two.
#[inline]
pub const fn queue_in(hash: u32, table: u16, queues: u16) -> u16 {
    match (table, queues) {
        (0, _) | (_, 0) => 0,
        (table, n) => (hash % table as u32 % n as u32) as u16,
    }
}

/// The finalizer of SplitMix64: a bijection with full avalanche.
pub(crate) const fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// A well-mixed hash of one endpoint: every bit depends on every bit of address and port. For
/// choices that must be the same whenever a client comes again, such as which sessions a percentage
/// takes.
#[inline]
pub fn client_hash(e: &Endpoint) -> u32 {
    let w = e.addr.number();
    let h = mix((w >> 64) as u64 ^ 0x9e37_79b9_7f4a_7c15);
    let h = mix(h ^ w as u64);
    let h = mix(h
        .wrapping_add(u64::from(e.port))
        .wrapping_add(0x9e37_79b9_7f4a_7c15));
    (h >> 32) as u32
}

/// A well-mixed hash of a connection, from its client to its server, that has nothing in common
/// with [`client_hash`]: what is chosen by one says nothing of what is chosen by the other.
#[inline]
pub fn session_hash(flow: &Flow) -> u32 {
    let h = u64::from(client_hash(&flow.dst)) << 32 | u64::from(client_hash(&flow.src));
    (mix(h.wrapping_add(0xd1b5_4a32_d192_ed03)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: for each set bit of the input, the 32 key bits that begin there.
    fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
        let bit = |b: &[u8], i: usize| b[i / 8] >> (7 - i % 8) & 1;
        (0..input.len() * 8)
            .filter(|i| bit(input, *i) == 1)
            .fold(0, |h, i| {
                h ^ (0..32).fold(0u32, |w, j| w << 1 | u32::from(bit(key, i + j)))
            })
    }

    fn input(f: &Flow) -> Vec<u8> {
        let addr = |a: &Addr| {
            if a.is_v4() {
                a.v4_bytes().to_vec()
            } else {
                a.bytes().to_vec()
            }
        };
        let mut v = addr(&f.src.addr);
        v.extend(addr(&f.dst.addr));
        v.extend(f.src.port.to_be_bytes());
        v.extend(f.dst.port.to_be_bytes());
        v
    }

    #[test]
    fn the_naive_hash_gives_the_published_values() {
        // Microsoft's RSS verification suite: 66.9.149.187:2794 to 161.142.100.80:1766, with their
        // key.
        let key = [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
            0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
            0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
        ];
        let f = Flow {
            src: Endpoint::new(Addr::v4([66, 9, 149, 187]), 2794),
            dst: Endpoint::new(Addr::v4([161, 142, 100, 80]), 1766),
        };
        assert_eq!(toeplitz(&key, &input(&f)), 0x51cc_c178);
    }

    #[test]
    fn clients_spread_evenly() {
        let mut bins = [0u32; 16];
        for host in 0..64u8 {
            for port in 0..256u16 {
                let e = Endpoint::new(Addr::v4([10, 0, 0, host]), 40_000 + port);
                bins[client_hash(&e) as usize % 16] += 1;
            }
        }
        // 16,384 keys in 16 bins: 1,024 each, standard deviation 31.
        assert!(bins.iter().all(|n| (860..1190).contains(n)), "{bins:?}");
    }

    proptest! {
        #[test]
        fn equals_what_a_card_computes(v6 in any::<bool>(), s in any::<[u8; 16]>(), d in any::<[u8; 16]>(), sp in any::<u16>(), dp in any::<u16>()) {
            let addr = |b: [u8; 16]| if v6 { Addr::v6(b) } else { Addr::v4([b[0], b[1], b[2], b[3]]) };
            let f = Flow { src: Endpoint::new(addr(s), sp), dst: Endpoint::new(addr(d), dp) };
            prop_assert_eq!(owner_hash(&f), toeplitz(&KEY, &input(&f)));
            prop_assert_eq!(owner_hash(&f), owner_hash(&f.reversed()));
        }
    }
}
