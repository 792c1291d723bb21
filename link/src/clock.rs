//! The peer's clock compared with ours, by the times of echoes.
//!
//! An echo says what the peer's clock showed at some moment between the sending of our heartbeat
//! and the arrival of the echo. So the difference of the two clocks lies in an interval as long as
//! the round trip. Intervals of several echoes overlap, and the difference is in all of them: what
//! they have in common is shorter than each.

use wire::Nanos;

/// How fast two clocks drift apart at most, in ns each second: 100 ppm, two oscillators of 50 ppm.
const DRIFT: Nanos = 100_000;

const SECOND: Nanos = 1_000_000_000;

/// How the peer's clock stands to ours at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockOffset {
    /// What the peer's clock is ahead of ours, in ns.
    ahead: i64,
    error: Nanos,
}

impl ClockOffset {
    /// A time on the peer's clock as a time on ours, wrong by at most [`ClockOffset::error`].
    pub const fn to_local(self, peer_time: Nanos) -> Nanos {
        peer_time.saturating_add_signed(self.ahead.saturating_neg())
    }

    /// How wrong times are at most, in ns.
    pub const fn error(self) -> Nanos {
        self.error
    }
}

/// What echoes have told of the peer's clock.
#[derive(Clone, Copy, Default, Debug)]
pub struct PeerClock {
    known: Option<Interval>,
}

/// The peer's clock was ahead of ours by `low` to `high` ns at the time `at`, ours.
#[derive(Clone, Copy, Debug)]
struct Interval {
    at: Nanos,
    low: i64,
    high: i64,
}

impl Interval {
    /// The same at a later time: the clocks may have drifted.
    fn at(self, now: Nanos) -> Self {
        let age = now.saturating_sub(self.at);
        let drift = (age / SECOND)
            .saturating_mul(DRIFT)
            .saturating_add(age % SECOND * DRIFT / SECOND)
            .min(i64::MAX as u64) as i64;
        Self {
            at: now,
            low: self.low.saturating_sub(drift),
            high: self.high.saturating_add(drift),
        }
    }
}

impl PeerClock {
    /// Takes an echo: our heartbeat was sent at `sent`, the peer's clock then showed `peer`, and
    /// the echo arrived at `now`. `sent` must not be later than the heartbeat left, nor `now`
    /// earlier than the echo was there.
    pub fn echo(&mut self, sent: Nanos, peer: Nanos, now: Nanos) {
        // Differences of clocks whose beginnings are arbitrary: they wrap, and so does what is made
        // of them.
        let fresh = Interval {
            at: now,
            low: peer.wrapping_sub(now) as i64,
            high: peer.wrapping_sub(sent) as i64,
        };
        let common = self.known.map(|known| {
            let known = known.at(now);
            Interval {
                at: now,
                low: known.low.max(fresh.low),
                high: known.high.min(fresh.high),
            }
        });
        // If nothing is in common a clock was set: what was known before counts no more.
        self.known = Some(common.filter(|c| c.low <= c.high).unwrap_or(fresh));
    }

    /// How the clocks stand to each other at `now`. `None` before the first echo.
    pub fn offset(&self, now: Nanos) -> Option<ClockOffset> {
        let Interval { low, high, .. } = self.known?.at(now);
        let width = high.abs_diff(low);
        Some(ClockOffset {
            ahead: low.saturating_add_unsigned(width / 2),
            error: width.div_ceil(2),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn the_error_is_half_of_the_shortest_round_trip() {
        let mut clock = PeerClock::default();
        assert_eq!(clock.offset(0), None);
        // The peer is 1000 ms ahead. A slow echo, a quick one, a slow one.
        for (sent, there, back) in [(0, 9, 10), (10, 11, 12), (12, 13, 40)] {
            clock.echo(sent * MS, (1_000 + there) * MS, back * MS);
        }
        let offset = clock.offset(40 * MS).unwrap();
        assert!(offset.error() <= MS + 5_000, "{offset:?}");
        assert!(offset.to_local(1_020 * MS).abs_diff(20 * MS) <= offset.error());
    }

    #[test]
    fn an_old_echo_is_worth_less_and_a_new_one_mends_it() {
        let mut clock = PeerClock::default();
        clock.echo(0, 5, 10);
        assert_eq!(clock.offset(10).unwrap().error(), 5);
        let hour = 3_600 * SECOND;
        assert_eq!(clock.offset(hour + 10).unwrap().error(), 5 + 3_600 * DRIFT);
        // 100 ms later than it was: more than an hour's drift would be 360.
        clock.echo(hour, hour + 100 * MS, hour + 4);
        assert_eq!(clock.offset(hour + 4).unwrap().error(), 2);
    }

    #[test]
    fn a_clock_that_was_set_is_believed_at_once() {
        let mut clock = PeerClock::default();
        clock.echo(0, 5, 10);
        clock.echo(SECOND, SECOND + 77 * MS, SECOND + 10);
        let offset = clock.offset(SECOND + 10).unwrap();
        assert_eq!(offset.error(), 5);
        assert!(offset.to_local(SECOND + 77 * MS).abs_diff(SECOND) <= 5 + 5);
        // Whatever the peer says, nothing overflows.
        for peer in [0, Nanos::MAX, 1 << 63] {
            clock.echo(2 * SECOND, peer, 2 * SECOND + 1);
            clock.offset(Nanos::MAX).unwrap().to_local(peer);
        }
    }

    proptest! {
        /// Clocks that drift, echoes that take any time on either way: the truth is never further
        /// away than the error says.
        #[test]
        fn the_error_bounds_the_truth(
            ahead in 0..1u64 << 40,
            ppm in 0..=100u64,
            echoes in prop::collection::vec((0..50 * MS, 0..50 * MS, 0..3 * SECOND), 1..30),
        ) {
            let peer = |t: Nanos| ahead + t + (u128::from(t) * u128::from(ppm) / 1_000_000) as u64;
            let (mut clock, mut now) = (PeerClock::default(), SECOND);
            for (there, back, pause) in echoes {
                let sent = now;
                clock.echo(sent, peer(sent + there), sent + there + back);
                now = sent + there + back + pause;
                let offset = clock.offset(now).unwrap();
                let wrong = offset.to_local(peer(now)).abs_diff(now);
                // A nanosecond for the rounding of the peer's clock.
                prop_assert!(wrong <= offset.error() + 1, "{wrong} of {offset:?}");
            }
        }
    }
}
