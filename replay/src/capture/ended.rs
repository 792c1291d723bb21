//! How far servers had answered in sessions that are over and forgotten: a server that sends again
//! what it had sent, because its client is gone, tells of no session that nobody has seen.
//!
//! A fixed number of places, each for the session that took it last.

use wire::Seq;

const PLACES: usize = 1 << 14;

#[derive(Clone, Copy, Default)]
struct Place {
    /// Hash of the flow, never 0 where the place is taken.
    hash: u32,
    /// End of the server's stream.
    end: Seq,
}

/// See the module's documentation.
pub(crate) struct EndedSessions(Vec<Place>);

impl EndedSessions {
    pub fn new() -> Self {
        Self(vec![Place::default(); PLACES])
    }

    /// A session of a flow with this hash is over; its server's stream went to `end`.
    #[inline]
    pub fn note(&mut self, hash: u32, end: Seq) {
        self.0[hash as usize % PLACES] = Place {
            hash: hash | 1,
            end,
        };
    }

    /// What comes now is another recording, perhaps of the same sessions.
    pub fn clear(&mut self) {
        self.0.fill(Place::default());
    }

    /// A segment of a server's that goes to `end` repeats what was sent in a session that is over.
    pub fn repeats(&self, hash: u32, end: Seq) -> bool {
        let place = self.0[hash as usize % PLACES];
        let behind = place.end.0.wrapping_sub(end.0);
        place.hash == hash | 1 && u64::from(behind) <= super::session::REACH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_before_is_repeated_and_what_is_beyond_is_not() {
        let mut e = EndedSessions::new();
        assert!(!e.repeats(7, Seq(0)));
        e.note(7, Seq(100));
        assert!(e.repeats(7, Seq(100)) && e.repeats(7, Seq(u32::MAX)));
        assert!(!e.repeats(7, Seq(101)));
        assert!(!e.repeats(7 + (PLACES as u32), Seq(100)), "of another flow");
    }
}
