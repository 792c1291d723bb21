//! Production's clock: the time at which frames were captured.
//!
//! On a live mirror it is ours, and so are the times of its frames: none is after now. In a
//! recording it is the file's, whatever the pace it is played at: all that the capture half waits
//! for is measured on it, so that every pace gives the same result.
//!
//! It also tells when a frame of a recording was due on our own clock. That it came later than that
//! is our fault, unless the recording was held up.
//!
//! It never goes back. A recording's clock is moved so that it begins at our own time, and again
//! where the recording begins again.

use crate::params::Pace;
use wire::Nanos;

/// See the module's documentation.
pub(crate) struct CaptureClock {
    pace: Pace,
    /// What is added to the time of a frame that carries one, in ns.
    offset: Option<i64>,
    /// The latest time there was, and when that was on our clock.
    latest: Nanos,
    at: Nanos,
    /// The latest time of capture of any frame.
    newest: Nanos,
    /// A recording is held up: its clock stands still until its next frame.
    held: bool,
}

impl CaptureClock {
    pub fn new(pace: Pace, now: Nanos) -> Self {
        Self {
            pace,
            offset: None,
            latest: now,
            at: now,
            newest: 0,
            held: false,
        }
    }

    /// A frame that carries the time `captured`, or none, has come. When it was captured, on this
    /// clock; frames out of order go back a little.
    #[inline]
    pub fn frame(&mut self, now: Nanos, captured: Option<Nanos>) -> Nanos {
        let Some(captured) = captured else {
            return now;
        };
        if self.pace == Pace::Live {
            return captured.min(now);
        }
        let begin = self.time(now);
        if std::mem::take(&mut self.held) {
            self.at = now;
        }
        let offset = *self
            .offset
            .get_or_insert_with(|| begin.wrapping_sub(captured) as i64);
        // What was captured before our time began was captured when it did.
        let at = (captured.wrapping_add_signed(offset) as i64).max(0) as Nanos;
        self.newest = self.newest.max(at);
        if at > self.latest {
            self.latest = self.time(now).max(at);
            self.at = now;
        }
        at
    }

    /// What time it is. Between two frames a recording's clock runs at the pace of the replay; it
    /// stands still where that has none.
    #[inline]
    pub fn time(&self, now: Nanos) -> Nanos {
        match self.pace {
            Pace::Live => now,
            Pace::Unpaced => self.latest,
            Pace::Recorded(_) if self.held => self.latest,
            Pace::Recorded(speed) => {
                self.latest + (now.saturating_sub(self.at) as f64 * speed) as Nanos
            }
        }
    }

    /// When the frame that has just come was due, on our own clock. One that stands behind later ones
    /// was due when they were, as it cannot come before them.
    #[inline]
    pub fn due(&self, now: Nanos) -> Nanos {
        match self.pace {
            Pace::Live | Pace::Unpaced => now,
            pace => now.saturating_sub(pace.ours(self.time(now).saturating_sub(self.newest))),
        }
    }

    /// The recording waits for room, and its next frame comes later than it should.
    pub fn hold(&mut self, now: Nanos) {
        if !self.held {
            self.latest = self.time(now);
            self.held = true;
        }
    }

    /// The next frame is the first of another recording.
    pub fn restart(&mut self, now: Nanos) {
        self.latest = self.time(now);
        self.at = now;
        self.newest = 0;
        self.offset = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;

    #[test]
    fn a_recording_has_its_own_time_at_every_pace() {
        let file = 7_000 * S;
        for (pace, half_way) in [
            (Pace::Recorded(1.0), 101 * S),
            (Pace::Recorded(0.5), 100 * S + S / 2),
            (Pace::Unpaced, 100 * S),
        ] {
            let mut c = CaptureClock::new(pace, 100 * S);
            assert_eq!(c.frame(100 * S, Some(file)), 100 * S);
            assert_eq!(c.time(101 * S), half_way);
            assert_eq!(c.frame(102 * S, Some(file + 3 * S)), 103 * S);
            assert!(c.time(102 * S) >= 103 * S);
            // Out of order: the frame's own time is told, and the clock does not go back.
            assert_eq!(c.frame(102 * S, Some(file + S)), 101 * S);
            assert!(c.time(102 * S) >= 103 * S);
            // The file begins again.
            c.restart(102 * S);
            let again = c.time(102 * S);
            assert_eq!(c.frame(102 * S, Some(file)), again);
        }
    }

    #[test]
    fn a_recording_that_is_held_up_has_no_time_meanwhile() {
        let mut c = CaptureClock::new(Pace::Recorded(2.0), 100 * S);
        c.frame(100 * S, Some(7_000 * S));
        c.hold(101 * S);
        c.hold(105 * S);
        assert_eq!(c.time(200 * S), 102 * S);
        // The next frame should have come at 102 s, and comes at 200 s.
        assert_eq!(c.frame(200 * S, Some(7_004 * S)), 104 * S);
        assert_eq!(c.time(200 * S), 104 * S);
        assert_eq!(c.time(201 * S), 106 * S);
        // A frame that is out of order lets it go on from where it stood.
        c.hold(201 * S);
        c.frame(300 * S, Some(7_003 * S));
        assert_eq!(c.time(301 * S), 108 * S);
    }

    #[test]
    fn frames_are_due_as_they_were_captured_and_not_while_the_recording_is_held_up() {
        let file = 7_000 * S;
        let mut c = CaptureClock::new(Pace::Recorded(2.0), 100 * S);
        c.frame(100 * S, Some(file));
        assert_eq!(c.due(100 * S), 100 * S);
        // Due at 101 s.
        c.frame(104 * S, Some(file + 2 * S));
        assert_eq!(c.due(104 * S), 101 * S);
        // Captured before that one, and due when it was.
        c.frame(104 * S, Some(file + S));
        assert_eq!(c.due(104 * S), 101 * S);
        c.frame(105 * S, Some(file + 10 * S));
        assert_eq!(c.due(105 * S), 105 * S);
        c.hold(106 * S);
        c.frame(200 * S, Some(file + 12 * S));
        assert_eq!(c.due(200 * S), 200 * S);
        c.frame(202 * S, Some(file + 14 * S));
        assert_eq!(c.due(202 * S), 201 * S);
        // Another recording.
        c.restart(300 * S);
        c.frame(301 * S, Some(file));
        assert_eq!(c.due(301 * S), 301 * S);
        for pace in [Pace::Live, Pace::Unpaced] {
            let mut c = CaptureClock::new(pace, 100 * S);
            c.frame(100 * S, Some(file));
            c.frame(105 * S, Some(file + S));
            assert_eq!(c.due(105 * S), 105 * S);
        }
    }

    #[test]
    fn a_frame_from_before_our_time_does_not_move_the_clock() {
        for pace in [Pace::Recorded(1.0), Pace::Unpaced] {
            let mut c = CaptureClock::new(pace, 0);
            assert_eq!(c.frame(S, Some(7_000 * S)), c.time(S));
            assert_eq!(c.frame(S, Some(6_000 * S)), 0);
            assert!(c.time(S) <= S);
        }
    }

    #[test]
    fn a_live_mirror_has_ours() {
        let mut c = CaptureClock::new(Pace::Live, 5);
        assert_eq!(c.frame(10, None), 10);
        assert_eq!(c.time(11), 11);
        // What the driver tells is on it, and nothing comes before it is there.
        assert_eq!(c.frame(20, Some(17)), 17);
        assert_eq!(c.frame(25, Some(26)), 25);
        assert_eq!(c.time(25), 25);
    }
}
