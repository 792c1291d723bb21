//! The Internet checksum (RFC 1071) and the pseudo-headers of IPv4 and IPv6.
//!
//! Sums are kept in little-endian words and swapped once at the end, which RFC 1071 section 2(B)
//! allows; that lets the inner loop load eight bytes at a time on every machine this runs on. A
//! [`Sum`] may be fed in pieces of any length, odd ones included.

use crate::Addr;

/// A running one's complement sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// The sum of little-endian 16-bit words, carries not folded.
    acc: u64,
    /// An odd number of bytes has been added: the next byte is the second of its word.
    odd: bool,
}

/// Folds carries back until the sum fits 16 bits (RFC 1071 section 4.1).
#[inline]
const fn fold(acc: u64) -> u16 {
    let a = (acc >> 32) + (acc & 0xffff_ffff);
    let a = (a >> 16) + (a & 0xffff);
    let a = (a >> 16) + (a & 0xffff);
    let a = (a >> 16) + (a & 0xffff);
    a as u16
}

/// Folds half of the carries back: a sum of many of these does not reach 2^64.
#[inline]
const fn halve(acc: u64) -> u64 {
    (acc >> 32) + (acc & 0xffff_ffff)
}

/// The sum of the little-endian words of `bytes`, the last one padded with zero; less than 2^35.
#[inline]
fn raw(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<64>();
    let mut sum = if blocks.is_empty() { 0 } else { long(blocks) };
    let (words, tail) = rest.as_chunks::<8>();
    for w in words {
        sum += u128::from(u64::from_le_bytes(*w));
    }
    // What is left is shorter than eight bytes: at most one word of each size.
    let (four, tail) = tail.as_chunks::<4>();
    let (two, one) = tail.as_chunks::<2>();
    let four = four.first().map_or(0, |w| u32::from_le_bytes(*w));
    let two = two.first().map_or(0, |w| u16::from_le_bytes(*w));
    let one = one.first().map_or(0, |b| *b);
    let carries = (sum >> 64) as u64;
    halve(sum as u64) + carries + u64::from(four) + u64::from(two) + u64::from(one)
}

/// The unfolded sum of long pieces.
///
/// Eight words of eight bytes a turn, each in its own lane, make a loop that compilers turn into
/// vector instructions. A lane keeps the sum of its words modulo 2^64 and the sum of their upper
/// halves; what the lower halves add up to follows from both. None of these two can reach 2^64 in a
/// frame.
fn long(blocks: &[[u8; 64]]) -> u128 {
    let (mut words, mut uppers) = ([0u64; 8], [0u64; 8]);
    for block in blocks {
        let lanes = words.iter_mut().zip(&mut uppers);
        for ((word, upper), b) in lanes.zip(block.as_chunks::<8>().0) {
            let w = u64::from_le_bytes(*b);
            *word = word.wrapping_add(w);
            *upper += w >> 32;
        }
    }
    let word = words.iter().fold(0u64, |sum, w| sum.wrapping_add(*w));
    let upper: u64 = uppers.iter().sum();
    let lower = word.wrapping_sub(upper << 32);
    u128::from(lower) + u128::from(upper)
}

impl Sum {
    /// The sum of nothing.
    #[inline]
    pub const fn new() -> Self {
        Self { acc: 0, odd: false }
    }

    /// Adds bytes behind those already added.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let r = raw(bytes);
        let r = if self.odd {
            u64::from(fold(r).swap_bytes())
        } else {
            r
        };
        Self {
            acc: self.acc + r,
            odd: self.odd ^ (bytes.len() & 1 == 1),
        }
    }

    /// Adds a 16-bit word, given in host order, that stands at an even place.
    #[inline]
    #[must_use]
    pub const fn word(self, w: u16) -> Self {
        Self {
            acc: self.acc + w.swap_bytes() as u64,
            odd: self.odd,
        }
    }

    /// Adds the sum of other bytes, which stand at an even place. With an odd number of bytes in
    /// `other` nothing may follow but words.
    #[inline]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            acc: self.acc + halve(other.acc),
            odd: self.odd ^ other.odd,
        }
    }

    /// Adds a pseudo-header: RFC 9293 section 3.1 for IPv4, RFC 8200 section 8.1 for IPv6, which is
    /// taken unless both addresses are IPv4. `len` is the length of the upper-layer header and
    /// its payload.
    #[inline]
    #[must_use]
    pub fn pseudo_header(self, src: &Addr, dst: &Addr, protocol: u8, len: u32) -> Self {
        let sum = if src.is_v4() && dst.is_v4() {
            u64::from(u32::from_le_bytes(src.v4_bytes()))
                + u64::from(u32::from_le_bytes(dst.v4_bytes()))
        } else {
            raw(src.bytes()) + raw(dst.bytes())
        };
        let len = u64::from(len.swap_bytes());
        Self {
            acc: self.acc + sum + len + u64::from(u16::from(protocol).swap_bytes()),
            odd: self.odd,
        }
    }

    /// [`Self::pseudo_header`] for addresses as they stand in an IP header, one behind the other.
    #[inline]
    #[must_use]
    pub fn pseudo_of(self, addresses: &[u8], protocol: u8, len: u32) -> Self {
        let protocol = u64::from(u16::from(protocol).swap_bytes());
        let sum = match <[u8; 8]>::try_from(addresses) {
            Ok(both) => halve(u64::from_le_bytes(both)),
            Err(_) => raw(addresses),
        };
        let acc = self.acc + sum + protocol;
        Self { acc, ..self }.long_word(len)
    }

    /// Adds a 32-bit word, given in host order, that stands at an even place.
    #[inline]
    #[must_use]
    pub const fn long_word(self, w: u32) -> Self {
        Self {
            acc: self.acc + w.swap_bytes() as u64,
            odd: self.odd,
        }
    }

    /// The checksum to write into the header, in host order.
    #[inline]
    pub const fn finish(self) -> u16 {
        !fold(self.acc).swap_bytes()
    }
}

/// The checksum of `bytes`, in host order. Over bytes that contain a right checksum it is 0.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().bytes(bytes).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, a word at a time.
    fn naive(bytes: &[u8]) -> u16 {
        let mut s = 0u32;
        for c in bytes.chunks(2) {
            s += u32::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)]));
            s = (s & 0xffff) + (s >> 16);
        }
        !(s as u16)
    }

    #[test]
    fn rfc_1071_example() {
        let b = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&b), !0xddf2);
        assert_eq!(checksum(&[]), 0xffff);
    }

    #[test]
    #[cfg_attr(miri, ignore = "long, and nothing that short ones do not show")]
    fn the_longest_one_sums_up_too() {
        assert_eq!(checksum(&[0xff; 65535]), naive(&[0xff; 65535]));
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(b in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(checksum(&b), naive(&b));
        }

        #[test]
        fn pieces_of_any_length_add_up(b in proptest::collection::vec(any::<u8>(), 0..400), cuts in proptest::collection::vec(0usize..400, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(b.len())).collect();
            cuts.sort_unstable();
            let mut sum = Sum::new();
            let mut from = 0;
            for c in cuts {
                sum = sum.bytes(&b[from..c]);
                from = c;
            }
            prop_assert_eq!(sum.bytes(&b[from..]).finish(), naive(&b));
        }
    }
}
