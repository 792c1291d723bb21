//! From the mirror to the wire: how long after a frame of the mirror had come what it released
//! left.
//!
//! Only turns count that nothing of the target's held up, on a live mirror. Where the kernel tells
//! when segments left, that is when they did, and a turn is measured by its last frame. Elsewhere
//! they have left when the core is called with a later time: by then its transmit queue was
//! flushed.

use super::Replicas;
use super::data::{Passed, Replica, on_wire};
use crate::histogram::Histogram;
use crate::params::Pace;
use crate::slab::NIL;
use wire::io::Payload;
use wire::{Nanos, Seq};

/// Turns that were given to the transmit queue a moment ago.
#[derive(Default)]
pub(crate) struct Leaving {
    /// The kernel tells when they leave.
    told: bool,
    turns: u64,
    /// When they were given, and when the oldest of their frames had come.
    given: Nanos,
    came: Nanos,
}

impl Leaving {
    /// Time goes on: what was given before `now` has left.
    #[inline]
    fn left(&mut self, now: Nanos, passage: &mut Histogram) {
        if self.turns > 0 && now > self.given {
            passage.record_many(now.saturating_sub(self.came), self.turns);
            self.turns = 0;
        }
    }
}

impl<P: Payload> Replicas<P> {
    /// The core is called at `now`.
    #[inline]
    pub(super) fn has_left(&mut self, now: Nanos) {
        self.leaving.left(now, &mut self.ledger.common.passage);
    }

    /// The first bytes of a turn whose frame came at `came` are given to the transmit queue at once.
    #[inline]
    pub(super) fn leaves(&mut self, now: Nanos, came: Nanos) {
        if self.leaving.told || !matches!(self.params.pace, Pace::Live) {
            return;
        }
        self.has_left(now);
        let leaving = &mut self.leaving;
        leaving.came = if leaving.turns == 0 {
            came
        } else {
            leaving.came.min(came)
        };
        leaving.turns += 1;
        leaving.given = now;
    }

    /// The kernel tells that the payload up to `end` left at `at`, a replica's newest.
    #[inline]
    pub(super) fn told_of_leaving(&mut self, at: Nanos, rid: u32, end: Seq) {
        if !std::mem::replace(&mut self.leaving.told, true) {
            // What was estimated before the first word of it counts no more.
            self.leaving.turns = 0;
            self.ledger.common.passage = Histogram::default();
        }
        let Replica {
            feed,
            passed,
            released,
            ..
        } = self.replicas[rid];
        let tail = self.feeds[feed as usize].turns.tail;
        if passed != Passed::GoneAtOnce || tail == NIL || !matches!(self.params.pace, Pace::Live) {
            return;
        }
        let turn = &self.turns[tail];
        if turn.number + 1 == released && on_wire(turn.end) == end {
            let passage = &mut self.ledger.common.passage;
            passage.record(at.saturating_sub(turn.last_at));
        }
    }
}
