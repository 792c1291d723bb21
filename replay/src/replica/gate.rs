//! The gate: when a turn may go to the target.
//!
//! The client spoke because it had read an answer. So its turn *k* may go when the target has
//! answered turn *k - 1*: with at least as many bytes as production, or with some that ended in PSH
//! or FIN and nothing more for a quiet time. A time limit keeps a target that never answers from
//! holding the session for ever. Causality, not a timer: on a target as fast as production the gate
//! is open before the turn arrives.

use crate::due::Due;
use wire::Nanos;

/// Shortest quiet time that ends an answer shorter than production's.
pub const MIN_QUIET: Nanos = 1_000_000;

/// What a replica has seen of the answer to its last turn.
#[derive(Clone, Copy, Default, Debug)]
pub struct Answer {
    /// Bytes of it that arrived in order.
    pub bytes: u64,
    /// When the last of them arrived.
    pub last_at: Due,
    /// The last segment carried PSH or FIN.
    pub ended: bool,
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

/// May a turn go at `now`? `after` is how many bytes production answered before it, `since` when
/// the turn could first have gone, `quiet` how long an answer must have been quiet to count as
/// ended, `limit` how long a turn waits at most.
#[inline]
pub fn ask(
    now: Nanos,
    after: u64,
    answer: &Answer,
    since: Nanos,
    quiet: Nanos,
    limit: Nanos,
) -> Verdict {
    if after == 0 || answer.bytes >= after {
        return Verdict::Open;
    }
    let last_at = answer.last_at.nanos(now).unwrap_or(now);
    let quiet_end = last_at + quiet.max(MIN_QUIET);
    let may_end = answer.ended && answer.bytes > 0;
    if may_end && now >= quiet_end {
        return Verdict::Open;
    }
    let end = since + limit;
    if now >= end {
        return Verdict::TimedOut;
    }
    Verdict::Wait(if may_end { quiet_end.min(end) } else { end })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// About a millisecond, and whole ticks of the timer wheel.
    const MS: Nanos = 16 * crate::wheel::TICK;

    fn answer(bytes: u64, last_ms: u64, ended: bool) -> Answer {
        Answer {
            bytes,
            last_at: Due::at(last_ms * MS),
            ended,
        }
    }

    #[test]
    fn client_first_needs_no_answer() {
        assert_eq!(
            ask(0, 0, &answer(0, 0, false), 0, 0, 100 * MS),
            Verdict::Open
        );
    }

    #[test]
    fn as_many_bytes_as_production_open_it_at_once() {
        assert_eq!(
            ask(10 * MS, 500, &answer(500, 10, false), 0, 5 * MS, 100 * MS),
            Verdict::Open
        );
        assert_eq!(
            ask(10 * MS, 500, &answer(499, 10, false), 0, 5 * MS, 100 * MS),
            Verdict::Wait(100 * MS)
        );
    }

    #[test]
    fn a_shorter_answer_opens_it_after_the_quiet_time_if_it_looks_ended() {
        let short = answer(20, 10, true);
        assert_eq!(
            ask(12 * MS, 500, &short, 0, 5 * MS, 100 * MS),
            Verdict::Wait(15 * MS)
        );
        assert_eq!(
            ask(15 * MS, 500, &short, 0, 5 * MS, 100 * MS),
            Verdict::Open
        );
        assert_eq!(
            ask(10 * MS, 500, &short, 0, 0, 100 * MS),
            Verdict::Wait(10 * MS + MIN_QUIET),
            "at least 1 ms"
        );
        assert_eq!(
            ask(50 * MS, 500, &answer(20, 10, false), 0, 5 * MS, 100 * MS),
            Verdict::Wait(100 * MS)
        );
        assert_eq!(
            ask(50 * MS, 500, &answer(0, 0, true), 0, 5 * MS, 100 * MS),
            Verdict::Wait(100 * MS)
        );
    }

    #[test]
    fn silence_lets_it_go_when_the_limit_is_over() {
        assert_eq!(
            ask(149 * MS, 1, &answer(0, 0, false), 50 * MS, MS, 100 * MS),
            Verdict::Wait(150 * MS)
        );
        assert_eq!(
            ask(150 * MS, 1, &answer(0, 0, false), 50 * MS, MS, 100 * MS),
            Verdict::TimedOut
        );
    }
}
