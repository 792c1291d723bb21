//! The gate: when a turn may go to the target.
//!
//! The client spoke because it had read an answer. So its turn *k* may go when the target has
//! answered turn *k - 1*: with exactly as many bytes as production; or with more or fewer, the last
//! of them with PSH or FIN, and nothing more for a quiet time. A time limit keeps a target that
//! never answers from holding the session for ever. Causality, not a timer: on a target as fast as
//! production the gate is open before the turn arrives.
//!
//! The quiet time is at least the client's round trip, and twice the longest pause that the answer
//! has made so far. An answer longer than production's is not expected to end where it does, so
//! its quiet time is also at least the time that the target took to begin it.

use crate::due::Due;
use crate::wheel::TICK;
use wire::Nanos;

/// Shortest quiet time that ends an answer of another length than production's.
pub const MIN_QUIET: Nanos = 1_000_000;
/// When the limit was over this often in a row, the target is taken not to answer where production
/// did: the session goes at production's own pace until an answer comes.
pub const LIMITS_IN_A_ROW: u8 = 3;
/// The part of the limit that a turn waits at most where it was over for the turn before.
const SHORTER: u64 = 8;

/// What a replica has seen of the answer to its last turn.
#[derive(Clone, Copy, Default, Debug)]
pub struct Answer {
    /// Bytes of it that arrived in order.
    pub bytes: u64,
    /// When the last of them arrived.
    pub last_at: Due,
    /// How long the target took to begin it, in ticks.
    first: u16,
    /// Twice its longest pause, in ticks, and in the lowest bit whether its last segment carried
    /// PSH or FIN.
    pause_ended: u16,
}

impl Answer {
    /// `bytes` more arrived at `at`, `after` the turn was sent; `ended`: with PSH or FIN.
    pub fn arrived(&mut self, at: Nanos, after: Nanos, bytes: u64, ended: bool) {
        let ticks = |t: Nanos| (t / TICK).min(u64::from(u16::MAX)) as u16;
        let mut pause = self.pause_ended & !1;
        if self.bytes == 0 {
            self.first = ticks(after);
        } else {
            let since = self.last_at.nanos(at).unwrap_or(at);
            pause = pause.max(ticks(2 * at.saturating_sub(since)) & !1);
        }
        self.bytes += bytes;
        self.last_at = Due::at(at);
        self.pause_ended = pause | u16::from(ended);
    }

    fn ended(&self) -> bool {
        self.pause_ended & 1 != 0 && self.bytes > 0
    }
}

/// What the gate goes by for one turn.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Bytes that production answered before it.
    pub after: u64,
    /// When the turn could first have gone.
    pub since: Nanos,
    /// The client's round-trip time, or what stands for it.
    pub quiet: Nanos,
    /// How long a turn waits at most.
    pub limit: Nanos,
    /// How often in a row the limit was over.
    pub timeouts: u8,
    /// The target has closed its side: its answer is over.
    pub closed: bool,
}

/// What the gate says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The turn may go.
    Open,
    /// The turn goes although the target has not answered.
    TimedOut,
    /// Ask again when more has arrived, at this time at the latest.
    Wait(Nanos),
}

/// May the turn go at `now`?
#[inline]
pub fn ask(now: Nanos, q: &Question, answer: &Answer) -> Verdict {
    let longer = answer.bytes > q.after;
    if q.after == 0 || answer.bytes == q.after || (longer && q.closed) {
        return Verdict::Open;
    }
    let mut quiet = q.quiet.max(MIN_QUIET);
    quiet = quiet.max(Nanos::from(answer.pause_ended & !1) * TICK);
    if longer {
        quiet = quiet.max(Nanos::from(answer.first) * TICK);
    }
    let quiet_end = answer.last_at.nanos(now).unwrap_or(now) + quiet;
    if answer.ended() && now >= quiet_end {
        return Verdict::Open;
    }
    let limit = if q.timeouts > 0 {
        q.limit / SHORTER
    } else {
        q.limit
    };
    let end = q.since + limit;
    if now >= end {
        return Verdict::TimedOut;
    }
    Verdict::Wait(if answer.ended() {
        quiet_end.min(end)
    } else {
        end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// About a millisecond, and whole ticks of the timer wheel.
    const MS: Nanos = 16 * TICK;

    fn answer(bytes: u64, last_ms: u64, ended: bool) -> Answer {
        let mut a = Answer::default();
        a.arrived(last_ms * MS, 0, bytes, ended);
        a
    }

    fn question(after: u64) -> Question {
        Question {
            after,
            since: 0,
            quiet: 5 * MS,
            limit: 100 * MS,
            timeouts: 0,
            closed: false,
        }
    }

    #[test]
    fn client_first_needs_no_answer() {
        assert_eq!(ask(0, &question(0), &Answer::default()), Verdict::Open);
    }

    #[test]
    fn as_many_bytes_as_production_open_it_at_once() {
        let q = question(500);
        assert_eq!(ask(10 * MS, &q, &answer(500, 10, false)), Verdict::Open);
        let wait = Verdict::Wait(100 * MS);
        assert_eq!(ask(10 * MS, &q, &answer(499, 10, false)), wait);
    }

    #[test]
    fn an_answer_of_another_length_opens_it_after_the_quiet_time_if_it_looks_ended() {
        for bytes in [20, 5_000] {
            let q = question(500);
            let a = answer(bytes, 10, true);
            assert_eq!(ask(12 * MS, &q, &a), Verdict::Wait(15 * MS));
            assert_eq!(ask(15 * MS, &q, &a), Verdict::Open);
            let at_once = Question { quiet: 0, ..q };
            let least = Verdict::Wait(10 * MS + MIN_QUIET);
            assert_eq!(ask(10 * MS, &at_once, &a), least, "at least 1 ms");
            let open = answer(bytes, 10, false);
            assert_eq!(ask(50 * MS, &q, &open), Verdict::Wait(100 * MS));
        }
        let none = answer(0, 0, true);
        assert_eq!(ask(50 * MS, &question(500), &none), Verdict::Wait(100 * MS));
    }

    #[test]
    fn an_answer_that_makes_pauses_may_make_another_as_long() {
        let q = question(500);
        let mut a = Answer::default();
        a.arrived(20 * MS, 20 * MS, 1_000, true);
        // It is longer than production's, and began after 20 ms.
        assert_eq!(ask(39 * MS, &q, &a), Verdict::Wait(40 * MS));
        a.arrived(38 * MS, 38 * MS, 1_000, true);
        assert_eq!(ask(40 * MS, &q, &a), Verdict::Wait(74 * MS));
        assert_eq!(ask(74 * MS, &q, &a), Verdict::Open);
        let closed = Question { closed: true, ..q };
        assert_eq!(ask(40 * MS, &closed, &a), Verdict::Open);
        // A shorter one has to keep quiet for its pauses alone.
        let mut short = Answer::default();
        short.arrived(20 * MS, 20 * MS, 10, true);
        assert_eq!(ask(25 * MS, &q, &short), Verdict::Open);
        short.arrived(26 * MS, 26 * MS, 10, true);
        assert_eq!(ask(30 * MS, &q, &short), Verdict::Wait(38 * MS));
    }

    #[test]
    fn silence_lets_it_go_when_the_limit_is_over_and_sooner_the_next_time() {
        let q = Question {
            since: 50 * MS,
            ..question(1)
        };
        let none = answer(0, 0, false);
        assert_eq!(ask(149 * MS, &q, &none), Verdict::Wait(150 * MS));
        assert_eq!(ask(150 * MS, &q, &none), Verdict::TimedOut);
        let again = Question { timeouts: 1, ..q };
        assert_eq!(ask(63 * MS, &again, &none), Verdict::TimedOut);
    }
}
