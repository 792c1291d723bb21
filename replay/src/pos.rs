//! Places in a session's two streams: 64 bits, so that a stream of any length has an order.
//!
//! Sequence numbers are 32 bits wide and wrap. They stand at two edges only: in a segment that is
//! captured, and in one that is built for the target. Between the two a place is a [`StreamPos`].

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Add, AddAssign, Sub};
use wire::Seq;

/// A place in one direction of a session's stream: production's sequence number, extended to 64
/// bits as RFC 4304 extends one. The low half is the sequence number itself.
///
/// The high half begins at one, so that what lies before the first number that was seen has a
/// place as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct StreamPos(NonZeroU64);

impl StreamPos {
    fn new(place: u64) -> Self {
        Self(NonZeroU64::new(place).unwrap_or(NonZeroU64::MIN))
    }

    /// The first place that is known of a stream.
    #[inline]
    pub fn first(seq: Seq) -> Self {
        Self::new(1 << 32 | u64::from(seq.0))
    }

    /// The place of `seq` that is closest to this one: right for all that is less than 2^31 away.
    #[inline]
    pub fn near(self, seq: Seq) -> Self {
        let away = seq.0.wrapping_sub(self.0.get() as u32) as i32;
        Self::new(self.0.get().wrapping_add_signed(i64::from(away)))
    }

    /// Its sequence number.
    #[inline]
    pub fn seq(self) -> Seq {
        Seq(self.0.get() as u32)
    }

    /// Bytes from `earlier` to this place; 0 if this is before it.
    #[inline]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.get().saturating_sub(earlier.0.get())
    }
}

impl Add<u32> for StreamPos {
    type Output = Self;
    #[inline]
    fn add(self, n: u32) -> Self {
        self + u64::from(n)
    }
}

impl Add<u64> for StreamPos {
    type Output = Self;
    #[inline]
    fn add(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }
}

impl AddAssign<u32> for StreamPos {
    #[inline]
    fn add_assign(&mut self, n: u32) {
        *self = *self + n;
    }
}

impl AddAssign<u64> for StreamPos {
    #[inline]
    fn add_assign(&mut self, n: u64) {
        *self = *self + n;
    }
}

impl Sub<u32> for StreamPos {
    type Output = Self;
    #[inline]
    fn sub(self, n: u32) -> Self {
        Self::new(self.0.get().saturating_sub(u64::from(n)))
    }
}

impl fmt::Debug for StreamPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.seq().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_a_stream_over_many_wraps_in_steps_below_two_gib() {
        let mut place = StreamPos::first(Seq(u32::MAX - 5));
        let begin = place;
        for step in 1..=20_u64 {
            let seq = place.seq() + 0x7fff_ffff;
            place = place.near(seq);
            assert_eq!(place.since(begin), step * 0x7fff_ffff);
            assert_eq!(place.seq(), seq);
        }
        assert_eq!(begin.since(place), 0);
    }

    #[test]
    fn what_lies_before_the_first_place_has_a_place() {
        let first = StreamPos::first(Seq(3));
        let before = first.near(Seq(u32::MAX - 6));
        assert!(before < first);
        assert_eq!(first.since(before), 10);
        assert_eq!(before.near(Seq(3)), first);
        assert_eq!(first - 10, before);
    }

    #[test]
    fn an_option_of_it_takes_no_more_room() {
        assert_eq!(size_of::<Option<StreamPos>>(), 8);
    }
}
