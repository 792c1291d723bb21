//! TCP sequence numbers: arithmetic modulo 2^32 (RFC 9293 section 3.4).
//!
//! Comparisons are right as long as the two numbers are less than 2^31 apart, which every window
//! guarantees (RFC 7323 section 2.3).

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A sequence or acknowledgment number.
///
/// It has no `Ord`: the order is not transitive over the whole circle. Compare with [`Seq::lt`] and
/// its sisters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Seq(pub u32);

impl Seq {
    /// `self` comes before `other`.
    #[inline]
    pub const fn lt(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// `self` comes before `other` or is the same.
    #[inline]
    pub const fn le(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) <= 0
    }

    /// `self` comes after `other`.
    #[inline]
    pub const fn gt(self, other: Self) -> bool {
        other.lt(self)
    }

    /// `self` comes after `other` or is the same.
    #[inline]
    pub const fn ge(self, other: Self) -> bool {
        other.le(self)
    }

    /// The later of the two.
    #[inline]
    pub const fn max(self, other: Self) -> Self {
        if self.lt(other) { other } else { self }
    }

    /// The earlier of the two.
    #[inline]
    pub const fn min(self, other: Self) -> Self {
        if self.lt(other) { self } else { other }
    }

    /// Bytes from `earlier` to `self`; 0 if `self` is before it.
    #[inline]
    pub const fn since(self, earlier: Self) -> u32 {
        let d = self.0.wrapping_sub(earlier.0);
        if d as i32 > 0 { d } else { 0 }
    }
}

impl Add<u32> for Seq {
    type Output = Self;
    #[inline]
    fn add(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }
}

impl AddAssign<u32> for Seq {
    #[inline]
    fn add_assign(&mut self, n: u32) {
        self.0 = self.0.wrapping_add(n);
    }
}

impl Sub<u32> for Seq {
    type Output = Self;
    #[inline]
    fn sub(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_across_the_wrap() {
        let before = Seq(u32::MAX - 1);
        let after = before + 4;
        assert_eq!(after, Seq(2));
        assert!(before.lt(after) && after.gt(before) && before.le(before) && !before.lt(before));
        assert_eq!(after.since(before), 4);
        assert_eq!(before.since(after), 0);
        assert_eq!(before.max(after), after);
        assert_eq!(before.min(after), before);
    }
}
