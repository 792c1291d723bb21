//! How many turns were probably in the frames that nobody saw.
//!
//! All frames of sessions, seen and missed, are `S h + N t + S (e - t)`: S sessions begin with a
//! handshake of h frames, N turns have t frames each, and the last of a session e frames, with what
//! ends it. Workers follow a sample of sessions and tell h, t and e from what was seen of these
//! without a gap ([`Whole`]). Frames with SYN, FIN or RST tell S, as they are missed like any
//! other. That gives N; without the turns in the books it leaves those without a trace. So it does
//! not matter how many turns are in the books only because of a hole that they left.
//!
//! [`Unseen`] adds up only what was shown between reports that tell of missed frames: all else is
//! known exactly, however long it lasts. Where nothing was missed, nothing is unseen.
//!
//! It is an estimate. It takes for granted that sessions which begin about as often as they end are
//! missed no more and no less than their turns, and that what was seen as a whole is like what was
//! not: the longer a turn is, the more likely it has a gap, so it is off by more where turns are of
//! very different lengths and a large part of the frames is missed.

use replay::Counters;

/// What was seen and what was missed until now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sight {
    /// Frames of the mirror that were received.
    pub received: u64,
    /// Frames that nobody looked at: missed by the ports, or received by a core that could not
    /// hand them on. `None` if nobody can say.
    pub missed: Option<u64>,
    /// Frames of sessions that are to be replayed.
    pub frames: u64,
    /// Those among them with SYN.
    pub syns: u64,
    /// Those with FIN or RST.
    pub ends: u64,
    /// Turns in the books.
    pub turns: u64,
    /// What was seen as a whole.
    pub whole: Whole,
}

impl Sight {
    /// With these books, `received` frames and `missed` ones.
    pub const fn new(books: &Counters, received: u64, missed: Option<u64>) -> Self {
        Self {
            received,
            missed,
            frames: books.session_frames(),
            syns: books.syns,
            ends: books.ends,
            turns: books.turns,
            whole: Whole::of(books),
        }
    }
}

/// A number of things of one kind that were seen as a whole, their frames, and those among the
/// frames with SYN, FIN or RST.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Kind {
    number: f64,
    frames: f64,
    marks: f64,
}

impl Kind {
    const fn of(number: u64, frames: u64, marks: u64) -> Self {
        Self {
            number: number as f64,
            frames: frames as f64,
            marks: marks as f64,
        }
    }

    fn add(&mut self, now: Self, before: Self) {
        self.number += now.number - before.number;
        self.frames += now.frames - before.frames;
        self.marks += now.marks - before.marks;
    }

    /// Frames of one.
    fn mean(self) -> Option<f64> {
        (self.number > 0.0).then(|| self.frames / self.number)
    }

    /// How many there are if so many frames have SYN, FIN or RST: two each have as a rule.
    fn number_of(self, marks: f64) -> f64 {
        if self.marks > 0.0 {
            marks * self.number / self.marks
        } else {
            marks / 2.0
        }
    }
}

/// What was seen as a whole: handshakes, turns that another follows, and last turns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Whole {
    handshakes: Kind,
    turns: Kind,
    endings: Kind,
}

impl Whole {
    const fn of(c: &Counters) -> Self {
        Self {
            handshakes: Kind::of(c.whole_handshakes, c.handshake_frames, c.handshake_marks),
            turns: Kind::of(c.whole_turns, c.turn_frames, 0),
            endings: Kind::of(c.whole_endings, c.ending_frames, c.ending_marks),
        }
    }

    fn add(&mut self, now: Self, before: Self) {
        self.handshakes.add(now.handshakes, before.handshakes);
        self.turns.add(now.turns, before.turns);
        self.endings.add(now.endings, before.endings);
    }
}

/// An estimate of the turns that nobody saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unseen {
    before: Sight,
    /// Frames that were missed since anything was seen.
    pending: u64,
    /// Something was missed before the last look.
    missing: bool,
    /// It could not be told at least once.
    unknown: bool,
    /// Between looks that told of missed frames: all frames of sessions, seen and missed, those
    /// with SYN, and those with FIN or RST.
    frames: f64,
    syns: f64,
    ends: f64,
    /// Frames of sessions that were seen in this time.
    seen: f64,
    /// Turns in the books since, and what was seen as a whole.
    turns: f64,
    whole: Whole,
}

/// Frames of a handshake, and of the end of a session, where none was seen as a whole.
const HANDSHAKE: f64 = 3.0;
const END: f64 = 3.0;

impl Unseen {
    /// Takes in what was seen and missed since the last time.
    pub fn look(&mut self, now: Sight) {
        let Some(missed) = now.missed else {
            self.unknown = true;
            return;
        };
        let before = self.before;
        let missed = missed.saturating_sub(before.missed.unwrap_or(0));
        let received = now.received.saturating_sub(before.received);
        let frames = now.frames.saturating_sub(before.frames);
        if received == 0 || frames == 0 {
            // What was missed is judged by what is seen next; what comes into the books is of
            // before.
            self.pending = missed;
            if now.missed != Some(0) {
                self.turns += now.turns as f64 - before.turns as f64;
            }
            self.before.turns = now.turns;
            return;
        }
        (self.before, self.pending) = (now, 0);
        // What is found missing may come into the books a moment later.
        let missing = std::mem::replace(&mut self.missing, missed > 0);
        if missed == 0 && !missing {
            return;
        }
        // What is missed has like parts of what is seen, others' frames included.
        let all = 1.0 + missed as f64 / received as f64;
        self.frames += all * frames as f64;
        self.seen += frames as f64;
        self.syns += all * now.syns.saturating_sub(before.syns) as f64;
        self.ends += all * now.ends.saturating_sub(before.ends) as f64;
        self.turns += now.turns as f64 - before.turns as f64;
        self.whole.add(now.whole, before.whole);
    }

    /// Turns that left no trace: 0 if nothing was missed, `None` if nobody can say.
    pub fn turns(&self) -> Option<u64> {
        let missed = self.before.missed.unwrap_or(0) + self.pending;
        if self.unknown {
            return None;
        }
        if missed == 0 {
            return Some(0);
        }
        let all = self.all_turns();
        let (frames, turns) = if self.frames > 0.0 {
            (self.frames, all)
        } else {
            (self.before.received as f64, self.before.turns as f64)
        };
        // With nothing to judge it by, each frame may have been a turn.
        let pending = self.pending as f64 * if frames > 0.0 { turns / frames } else { 1.0 };
        let unseen = all + pending - self.turns;
        Some((unseen.round().max(0.0) as u64).min(missed))
    }

    /// Turns in all frames, seen and missed.
    fn all_turns(&self) -> f64 {
        let Whole {
            handshakes,
            turns,
            endings,
        } = self.whole;
        let handshake = handshakes.mean().unwrap_or(HANDSHAKE);
        let ending = endings.mean();
        // Without turns that another follows, each turn is a session.
        let Some(turn) = turns.mean().or_else(|| Some(handshake + ending?)) else {
            return self.turns * self.frames / self.seen.max(1.0);
        };
        let end = ending.map_or(END, |ending| ending - turn);
        // Some kinds of frames are missed more often than others: the mean of beginnings and ends
        // is nearer to the truth than either.
        let sessions = (handshakes.number_of(self.syns) + endings.number_of(self.ends)) / 2.0;
        (self.frames - sessions * (handshake + end)) / turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replay::Unused;

    /// Sessions of `turns` turns each, as the books have them if all is seen: handshakes of 3
    /// frames, turns of 4, and 5 more at the end.
    fn books(sessions: u64, turns: u64) -> Counters {
        let followed = sessions / 10;
        Counters {
            frames: sessions * (8 + 4 * turns),
            turns: sessions * turns,
            syns: sessions * 2,
            ends: sessions * 2,
            whole_handshakes: followed,
            handshake_frames: followed * 3,
            handshake_marks: followed * 2,
            whole_turns: followed * (turns - 1),
            turn_frames: followed * (turns - 1) * 4,
            whole_endings: followed,
            ending_frames: followed * 9,
            ending_marks: followed * 2,
            ..Counters::default()
        }
    }

    fn sight(books: &Counters, missed: u64) -> Sight {
        Sight::new(books, books.frames, Some(missed))
    }

    /// Of such sessions one in five is missed, with all of its frames.
    fn a_fifth(turns: u64) -> Unseen {
        let mut unseen = Unseen::default();
        let seen = books(4_000, turns);
        unseen.look(sight(&seen, seen.frames / 4));
        unseen
    }

    #[test]
    fn whole_sessions_that_were_missed_are_estimated() {
        assert_eq!(a_fifth(3).turns(), Some(3_000));
        assert_eq!(a_fifth(100).turns(), Some(100_000));
    }

    #[test]
    fn a_turn_is_a_session_where_none_follows() {
        assert_eq!(a_fifth(1).turns(), Some(1_000));
    }

    #[test]
    fn turns_in_the_books_are_not_counted_again() {
        let mut unseen = Unseen::default();
        let mut seen = books(4_000, 3);
        // 2,900 of the 3,000 left holes.
        seen.turns += 2_900;
        unseen.look(sight(&seen, seen.frames / 4));
        assert_eq!(unseen.turns(), Some(100));
        // Others come into the books when all is silent.
        seen.turns += 90;
        unseen.look(sight(&seen, seen.frames / 4));
        assert_eq!(unseen.turns(), Some(10));
        seen.turns += 90;
        unseen.look(sight(&seen, seen.frames / 4));
        assert_eq!(unseen.turns(), Some(0), "never less");
    }

    #[test]
    fn turns_without_whole_sessions_are_enough() {
        let mut unseen = Unseen::default();
        let seen = Counters {
            syns: 0,
            ends: 0,
            whole_handshakes: 0,
            whole_endings: 0,
            frames: 40_000,
            turns: 10_000,
            ..books(100, 100)
        };
        unseen.look(sight(&seen, 10_000));
        assert_eq!(unseen.turns(), Some(2_500));
    }

    #[test]
    fn sessions_that_end_with_a_reset_count_like_others() {
        let mut unseen = Unseen::default();
        // One RST instead of two FINs, and no acknowledgments of these.
        let seen = Counters {
            frames: 4_000 * 16,
            ends: 4_000,
            ending_frames: 400 * 5,
            ending_marks: 400,
            ..books(4_000, 3)
        };
        unseen.look(sight(&seen, 16_000));
        assert_eq!(unseen.turns(), Some(3_000));
    }

    #[test]
    fn frames_of_others_are_missed_as_well() {
        let mut unseen = Unseen::default();
        let mut seen = books(4_000, 3);
        let others = seen.frames;
        seen.dropped[Unused::NoTransfer as usize] = others / 2;
        seen.dropped[Unused::NotSelected as usize] = others / 2;
        seen.frames += others;
        unseen.look(sight(&seen, others / 2));
        assert_eq!(unseen.turns(), Some(3_000));
    }

    #[test]
    fn what_was_seen_while_nothing_was_missed_does_not_matter() {
        let mut unseen = Unseen::default();
        // Long answers, and turns in the books that the mirror did not show as a whole.
        let quiet = Counters {
            turn_frames: 1_000_000,
            turns: 99_999,
            ..books(10_000, 9)
        };
        unseen.look(sight(&quiet, 0));
        assert_eq!(unseen.turns(), Some(0));
        let mut both = quiet.clone();
        both.add(&books(4_000, 3));
        unseen.look(sight(&both, 20_000));
        assert_eq!(unseen.turns(), Some(3_000));
        // The last holes come into the books with what is seen next.
        let mut later = both.clone();
        later.add(&books(10, 3));
        later.turns += 7;
        unseen.look(sight(&later, 20_000));
        assert_eq!(unseen.turns(), Some(2_993));
        later.add(&quiet);
        unseen.look(sight(&later, 20_000));
        assert_eq!(unseen.turns(), Some(2_993));
    }

    #[test]
    fn frames_missed_while_nothing_was_seen_are_judged_by_what_was() {
        let mut unseen = Unseen::default();
        unseen.look(sight(&Counters::default(), 10));
        assert_eq!(unseen.turns(), Some(10), "as many as there can be");
        let seen = books(4_000, 3);
        unseen.look(sight(&seen, 20_000));
        assert_eq!(unseen.turns(), Some(3_000));
        unseen.look(sight(&seen, 22_000));
        assert_eq!(unseen.turns(), Some(3_300));
    }

    #[test]
    fn nothing_whole_means_that_frames_have_as_many_turns_as_those_seen() {
        let mut unseen = Unseen::default();
        let seen = Counters {
            frames: 10_000,
            turns: 1_000,
            ..Counters::default()
        };
        unseen.look(sight(&seen, 2_000));
        assert_eq!(unseen.turns(), Some(200));
    }

    #[test]
    fn nothing_missed_means_nothing_unseen_and_what_is_unknown_stays_so() {
        let mut unseen = Unseen::default();
        let seen = Counters {
            turns: 1,
            ..books(1_000, 3)
        };
        unseen.look(sight(&seen, 0));
        unseen.look(sight(&seen, 0));
        assert_eq!(unseen.turns(), Some(0));
        unseen.look(Sight::new(&seen, seen.frames, None));
        unseen.look(sight(&seen, 0));
        assert_eq!(unseen.turns(), None);
    }
}
