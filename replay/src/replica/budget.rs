//! What a target may hold of a core's buffers when they are short.
//!
//! What was captured is held until the target has acknowledged it. A target that hangs so comes to
//! hold more and more. As long as no other target needs the room, that is no harm. When one does
//! that holds no more than its share, the target that holds most has to make room: its sessions
//! lose what they hold, by a reason of their own, and go on with their next turn.
//!
//! What always holds: a target that holds less than its share (the core's segments, and the frames'
//! buffers among them, divided by the number of targets) makes no room for others; looking for what
//! has to go takes a bounded time.

use super::Replicas;
use crate::core::Egress;
use crate::counters::Loss;
use crate::slab::NIL;
use wire::Nanos;
use wire::io::Payload;

/// Sessions that are looked at in a round, or for one frame, at most.
const LOOKS: usize = 64;

/// All that a core may hold, in the unit in which shares of it are reckoned.
const ALL: u64 = 1 << 20;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Budget {
    /// What each target may hold when buffers are short, of [`ALL`].
    share: u64,
    /// The target that has to make room for others.
    owing: Option<u16>,
    /// The session that is looked at next.
    cursor: usize,
    /// Buffers are short, as the transmit side sees it.
    pressed: bool,
}

impl Budget {
    /// For this many targets.
    pub fn new(targets: usize) -> Self {
        Self {
            share: ALL / targets.max(1) as u64,
            ..Self::default()
        }
    }

    /// A target has to make room.
    pub const fn is_owed(&self) -> bool {
        self.owing.is_some()
    }
}

impl<P: Payload> Replicas<P> {
    /// Buffers are short: new sessions are turned away, unless others have to make room for them.
    pub(super) fn is_short(&self) -> bool {
        self.budget.pressed || self.is_crowded()
    }

    /// What a target's sessions hold, of [`ALL`]: of segments or of the frames' buffers among them,
    /// whichever is more.
    fn held_by(&self, target: u16) -> u64 {
        let (mut segments, mut frames) = (0, 0);
        for number in self.targets.numbers(target) {
            let held = &self.ledger.targets()[usize::from(*number)];
            segments += held.held_segments;
            frames += held.held_frames;
        }
        let of = |held: u64, all: usize| held * ALL / all.max(1) as u64;
        of(segments, self.segs.capacity()).max(of(frames, self.params.max_frames))
    }

    /// The target that has to make room for a session that goes to this one: the one that holds
    /// most, if that is more than its share, and this one holds less.
    fn debtor(&self, number: u16) -> Option<u16> {
        let share = self.budget.share;
        if self.held_by(self.targets.of(number)) >= share {
            return None;
        }
        let over = |t: &u16| self.held_by(*t) > share;
        self.targets
            .all()
            .filter(over)
            .max_by_key(|t| self.held_by(*t))
    }

    /// What a new session sends to this target has room, or gets it.
    pub(super) fn has_room_for(&self, number: u16) -> bool {
        !self.is_short() || self.debtor(number).is_some()
    }

    /// The feed is about to hold another segment: if these are short, the target that holds most
    /// begins to make room.
    #[inline]
    pub(super) fn ask_for_room(&mut self, now: Nanos, feed: u32, tx: &mut impl Egress<P>) {
        if self.is_short() {
            self.make_room(now, feed, tx);
        }
    }

    #[cold]
    fn make_room(&mut self, now: Nanos, feed: u32, tx: &mut impl Egress<P>) {
        let number = self.feeds[feed as usize].target;
        if let Some(debtor) = self.debtor(number) {
            self.budget.owing = Some(debtor);
            if self.is_exhausted() {
                self.shed_over_budget(now, tx);
            }
        }
    }

    /// Feeds of this target may not hold more: it has to make room.
    #[inline]
    pub(super) fn owes(&self, number: u16) -> bool {
        let owing = self.budget.owing;
        owing.is_some_and(|target| target == self.targets.of(number))
    }

    /// Looks at buffers, and goes on with making room. Returns how many sessions lost something.
    pub(super) fn poll_budget(&mut self, now: Nanos, tx: &mut impl Egress<P>) -> usize {
        self.budget.pressed = tx.is_short();
        if self.budget.owing.is_none() {
            return 0;
        }
        self.shed_over_budget(now, tx)
    }

    fn shed_over_budget(&mut self, now: Nanos, tx: &mut impl Egress<P>) -> usize {
        let mut shed = 0;
        let Some(debtor) = self.budget.owing else {
            return shed;
        };
        for _ in 0..LOOKS.min(self.feeds.len()) {
            // Some more than is short, so that the next frame does not find it short again.
            let roomy = self.is_roomy();
            if (roomy && !self.budget.pressed) || self.held_by(debtor) <= self.budget.share {
                self.budget.owing = None;
                break;
            }
            let at = self.budget.cursor;
            self.budget.cursor = if at + 1 < self.feeds.len() { at + 1 } else { 0 };
            let feed = &self.feeds[at];
            if !feed.segs.is_empty() && self.targets.of(feed.target) == debtor {
                self.shed_held(now, at as u32, tx);
                shed += 1;
            }
        }
        shed
    }

    /// The session loses what it holds for this target, and goes on with its next turn.
    fn shed_held(&mut self, now: Nanos, feed: u32, tx: &mut impl Egress<P>) {
        self.for_each(feed, |half, rid| {
            let r = &half.replicas[rid];
            if r.is_done() || r.una == NIL {
                return;
            }
            half.lose_through(rid, u32::MAX, Loss::TargetBudget);
            half.abort(now, rid, tx);
            half.replicas[rid].gate_free = true;
            half.pump(now, rid, tx);
        });
    }
}
