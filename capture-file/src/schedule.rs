//! When frames are to be played: the capture's own time, without stretches in which nothing
//! happens.

use crate::Nanos;

/// Turns the times of frames into times from the beginning of the replay.
pub struct Schedule {
    most: Option<Nanos>,
    /// The first time, and the latest.
    first: Option<Nanos>,
    latest: Nanos,
    skipped: Nanos,
}

impl Schedule {
    /// A stretch without a frame is at most `most` long; with `None` it stays as it is.
    pub const fn new(most: Option<Nanos>) -> Self {
        Self {
            most,
            first: None,
            latest: 0,
            skipped: 0,
        }
    }

    /// The time of the next frame, which was captured at `at`: how long after the first it is, and
    /// when that is in capture time. A frame that is out of order goes back a little.
    #[inline]
    pub fn play(&mut self, at: Nanos) -> (Nanos, Nanos) {
        let first = match self.first {
            Some(first) => first,
            None => {
                self.first = Some(at);
                self.latest = at;
                at
            }
        };
        if at > self.latest {
            let idle = at - self.latest;
            if let Some(most) = self.most {
                self.skipped += idle.saturating_sub(most);
            }
            self.latest = at;
        }
        let at = at.saturating_sub(self.skipped);
        (at.saturating_sub(first), at)
    }

    /// How much time was left out.
    pub const fn skipped(&self) -> Nanos {
        self.skipped
    }

    /// How much of the capture's time there was so far, left out or not.
    pub fn position(&self) -> Nanos {
        self.first.map_or(0, |first| self.latest - first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_stretches_are_shortened_or_kept() {
        let times = [100, 105, 104, 125, 126, 1_000];
        let played = |most| {
            let mut s = Schedule::new(most);
            let all: Vec<_> = times.iter().map(|t| s.play(*t).0).collect();
            (all, s.skipped(), s.position())
        };
        assert_eq!(played(Some(10)), (vec![0, 5, 4, 15, 16, 26], 874, 900));
        assert_eq!(played(None), (vec![0, 5, 4, 25, 26, 900], 0, 900));
    }

    #[test]
    fn capture_time_goes_on_with_what_is_played() {
        let mut s = Schedule::new(Some(10));
        assert_eq!(s.play(1_000), (0, 1_000));
        assert_eq!(s.play(5_000), (10, 1_010));
        assert_eq!(s.play(5_001), (11, 1_011));
        // Before the first.
        assert_eq!(Schedule::new(None).play(7), (0, 7));
    }
}
