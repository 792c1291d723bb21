//! How often something may be logged that a peer can cause as often as it likes.
//!
//! What always holds: lines of one kind are a second apart, and every line that was left out is in
//! the number that a later one tells.

use wire::Nanos;

/// Lines of one kind are at least this far apart.
const EVERY: Nanos = 1_000_000_000;

/// The rate of one kind of line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogRate {
    /// The next line may go at this time.
    next: Nanos,
    left_out: u64,
}

impl LogRate {
    /// Asks for a line at `now`. `Some`: it may go, and is to tell how many were left out since the
    /// last one. `None`: it is left out.
    pub const fn admit(&mut self, now: Nanos) -> Option<u64> {
        if now < self.next {
            self.left_out += 1;
            return None;
        }
        self.next = now.saturating_add(EVERY);
        Some(std::mem::replace(&mut self.left_out, 0))
    }

    /// Lines that were left out, when it is time to say so and no other line has: to be asked now
    /// and then.
    pub const fn overdue(&mut self, now: Nanos) -> Option<u64> {
        if self.left_out == 0 {
            return None;
        }
        self.admit(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_the_others_are_counted() {
        let mut rate = LogRate::default();
        assert_eq!(rate.admit(5), Some(0));
        for ms in 0..1000 {
            assert_eq!(rate.admit(5 + ms * 1_000_000), None);
        }
        assert_eq!(rate.overdue(4 + EVERY), None);
        assert_eq!(rate.admit(5 + EVERY), Some(1001), "that one, too");
        assert_eq!(rate.overdue(5 + 9 * EVERY), None, "nothing was left out");
        assert_eq!(rate.admit(5 + 9 * EVERY), Some(0));
        assert_eq!(rate.admit(6 + 9 * EVERY), None);
        assert_eq!(rate.overdue(5 + 10 * EVERY), Some(1));
    }
}
