//! Moments in four bytes: a session keeps many of them, and none lies far from now.

use crate::wheel::TICK;
use wire::Nanos;

/// A moment at most 39 hours from now, rounded up to a tick of the timer wheel; or none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Due(u32);

impl Due {
    /// No moment.
    pub const NONE: Self = Self(0);

    /// The tick at or after `t`.
    #[inline]
    pub fn at(t: Nanos) -> Self {
        // One tick later is as good, and zero says that there is none.
        Self((t.div_ceil(TICK) as u32).max(1))
    }

    /// There is one.
    #[inline]
    pub fn is_set(self) -> bool {
        self.0 != 0
    }

    /// When it is, as seen from `now`, if there is one.
    #[inline]
    pub fn nanos(self, now: Nanos) -> Option<Nanos> {
        let tick = now / TICK;
        let away = self.0.wrapping_sub(tick as u32) as i32;
        let nanos = tick.saturating_add_signed(i64::from(away)) * TICK;
        self.is_set().then_some(nanos)
    }

    /// There is one, and it has come.
    #[inline]
    pub fn is_due(self, now: Nanos) -> bool {
        self.nanos(now).is_some_and(|t| t <= now)
    }
}

/// A moment at most 36 minutes from now, in units of 1,024 ns, rounded up; or none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Moment(u32);

impl Moment {
    /// No moment.
    pub const NONE: Self = Self(0);

    /// This one.
    #[inline]
    pub fn at(t: Nanos) -> Self {
        // One unit later is as good, and zero says that there is none.
        Self((t.div_ceil(1 << 10) as u32).max(1))
    }

    /// There is one.
    #[inline]
    pub fn is_set(self) -> bool {
        self.0 != 0
    }

    /// Time left at `now`; 0 if it has come.
    #[inline]
    pub fn left(self, now: Nanos) -> Nanos {
        let left = self.0.wrapping_sub((now >> 10) as u32) as i32;
        (left.max(0) as Nanos) << 10
    }

    /// Time gone by at `now`; 0 if it has not come.
    #[inline]
    pub fn elapsed(self, now: Nanos) -> Nanos {
        let gone = ((now >> 10) as u32).wrapping_sub(self.0) as i32;
        (gone.max(0) as Nanos) << 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Nanos = 3_600_000_000_000;

    #[test]
    fn is_never_early_and_at_most_a_tick_late_on_both_sides_of_now() {
        for now in [0, 5, TICK, 700 * HOUR + 17] {
            for away in [0, 1, TICK - 1, TICK, HOUR, 38 * HOUR] {
                let later = Due::at(now + away);
                let at = later.nanos(now).unwrap();
                assert!(
                    (now + away..=now + away + TICK).contains(&at),
                    "{now} {away}"
                );
                assert_eq!(later.is_due(now), at <= now);
                assert!(later.is_due(now + away + TICK));
                let earlier = Due::at(now.saturating_sub(away));
                assert!(earlier.is_due(now + TICK));
            }
        }
        assert!(!Due::NONE.is_set() && !Due::NONE.is_due(HOUR));
        assert_eq!(Due::NONE.nanos(5), None);
    }
}
