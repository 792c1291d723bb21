//! What is known of sessions that were turned away for want of room: enough to count the turns
//! that are lost with them.
//!
//! A fixed number of places, each for one flow at a time. Where two flows meet in one, a turn of
//! theirs may be counted twice; nothing else depends on it.

use crate::Loss;
use crate::ledger::{Amount, Ledger};
use wire::{Head, Seq};

const PLACES: usize = 1 << 14;

#[derive(Clone, Copy, Default)]
struct Place {
    /// Hash of the flow, never 0 where the place is taken.
    hash: u32,
    /// Next byte of the client expected, and what it acknowledged last.
    next: Seq,
    ack: Seq,
}

/// Payload of a client's.
#[derive(Clone, Copy)]
pub(crate) struct Said {
    /// Its first number, and how many bytes it has.
    pub seq: Seq,
    pub len: u32,
    /// What the client acknowledges with it.
    pub ack: Seq,
}

impl Said {
    /// What a segment brings.
    pub fn by(head: &Head) -> Self {
        Self {
            seq: head.seq,
            len: head.payload_len,
            ack: head.ack,
        }
    }
}

/// See the module's documentation.
pub(crate) struct ShedSessions(Vec<Place>);

impl ShedSessions {
    pub fn new() -> Self {
        Self(vec![Place::default(); PLACES])
    }

    /// Payload of a client whose session was turned away: its bytes are lost, and its turn if it
    /// begins one.
    pub fn payload(&mut self, fan: u16, said: Said, hash: u32, ledger: &mut Ledger) {
        let place = &mut self.0[hash as usize % PLACES];
        let end = said.seq + said.len;
        let known = place.hash == hash | 1;
        let away = said.seq.0.wrapping_sub(place.next.0) as i32;
        let far = away.unsigned_abs() > 1 << 26;
        let (turns, bytes) = if !known || far {
            place.ack = said.ack;
            (1, said.len)
        } else {
            let turns = u64::from(said.ack.gt(place.ack) && end.gt(place.next));
            place.ack = place.ack.max(said.ack);
            (turns, end.since(place.next.max(said.seq)))
        };
        place.hash = hash | 1;
        place.next = if known && !far {
            place.next.max(end)
        } else {
            end
        };
        ledger.uncaptured(fan, Amount::new(turns, u64::from(bytes)), Loss::Shed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_a_session_that_was_turned_away_are_counted_once() {
        let mut l = Ledger::for_tests(1, 2);
        let mut shed = ShedSessions::new();
        let mut say = |seq, ack, len| {
            let (seq, ack) = (Seq(seq), Seq(ack));
            shed.payload(0, Said { seq, len, ack }, 77, &mut l);
        };
        say(u32::MAX - 9, 500, 20);
        say(10, 500, 5);
        say(u32::MAX - 9, 500, 20);
        say(15, 600, 5);
        say(15, 600, 5);
        say(2_000_000_000, 9, 7);
        let sum = l.sum();
        assert_eq!((sum.turns, sum.bytes), (3, 37));
        assert_eq!(sum.lost_turns[Loss::Shed as usize], 6);
        assert_eq!(sum.balance(), Ok(()));
    }
}
