//! The sender's SACK scoreboard (RFC 2018, RFC 6675): what the target has beyond the first hole,
//! what counts as lost, and how much is still on the way.
//!
//! A connection has one only while it has holes. It is bounded: ranges it has no room for are
//! forgotten, the highest first, which costs a needless retransmission and never correctness, since
//! only a cumulative acknowledgment frees data.

use crate::slab::NIL;
use arrayvec::ArrayVec;
use wire::Seq;

/// Ranges kept.
const RANGES: usize = 16;
/// Discontiguous ranges, or this many segments' bytes less one, above a hole make it lost (RFC 6675
/// section 2).
const DUP_THRESHOLD: usize = 3;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Scoreboard {
    /// Ascending, none touching another, all above `snd_una`.
    ranges: ArrayVec<(Seq, Seq), RANGES>,
    /// Everything below was sent again in this recovery (HighRxt).
    pub high_rxt: Seq,
    /// Every hole below counts as lost, however little is above it.
    lost: Seq,
    /// The captured segment that was sent again last, if the target has not acknowledged it: the
    /// search for the next one begins there.
    pub cursor: u32,
}

impl Scoreboard {
    /// An empty one for a connection whose oldest unacknowledged sequence number is `una`.
    pub fn new(una: Seq) -> Self {
        Self {
            ranges: ArrayVec::new(),
            high_rxt: una,
            lost: una,
            cursor: NIL,
        }
    }

    /// Takes the blocks of a segment that acknowledges `una`, where `max` ends what was ever sent.
    /// True if they tell something new.
    pub fn update(&mut self, una: Seq, max: Seq, blocks: &[(Seq, Seq)]) -> bool {
        self.forget_below(una);
        let mut news = false;
        for &(left, right) in blocks {
            // Blocks at or below the acknowledgment are D-SACK (RFC 2883), others are checked (RFC
            // 2018 section 4).
            if left.lt(right) && left.gt(una) && right.le(max) {
                news |= self.add(left, right);
            }
        }
        news
    }

    fn add(&mut self, mut left: Seq, mut right: Seq) -> bool {
        if self.ranges.iter().any(|&(l, r)| l.le(left) && right.le(r)) {
            return false;
        }
        while let Some(i) = self
            .ranges
            .iter()
            .position(|&(l, r)| l.le(right) && left.le(r))
        {
            let (l, r) = self.ranges.remove(i);
            left = left.min(l);
            right = right.max(r);
        }
        let at = self
            .ranges
            .iter()
            .position(|&(l, _)| left.lt(l))
            .unwrap_or(self.ranges.len());
        if self.ranges.is_full() {
            if at == self.ranges.len() {
                return false;
            }
            self.ranges.pop();
        }
        self.ranges.insert(at, (left, right));
        true
    }

    /// `una` was acknowledged.
    pub fn forget_below(&mut self, una: Seq) {
        self.ranges.retain(|&mut (_, r)| r.gt(una));
        self.high_rxt = self.high_rxt.max(una);
        self.lost = self.lost.max(una);
    }

    /// The holes have stayed for too long to be reordering: they count as lost (RFC 8985 section
    /// 5).
    pub fn lose_holes(&mut self) {
        if let Some(&(_, highest)) = self.ranges.last() {
            self.lost = highest;
        }
    }

    /// True if there is no hole.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The holes from `una` on, ascending, each with whether it counts as lost.
    fn holes(&self, una: Seq, mss: u32) -> impl Iterator<Item = (Seq, Seq, bool)> + '_ {
        let mut left = una;
        (0..self.ranges.len()).map(move |i| {
            let (start, end) = self.ranges[i];
            let hole = (left, start, self.lost_below(i, mss));
            left = end;
            hole
        })
    }

    /// What lies right below range `i` counts as lost.
    fn lost_below(&self, i: usize, mss: u32) -> bool {
        let above = &self.ranges[i..];
        if above[0].0.le(self.lost) {
            return true;
        }
        let bytes: u32 = above.iter().map(|(l, r)| r.since(*l)).sum();
        above.len() >= DUP_THRESHOLD || bytes > (DUP_THRESHOLD as u32 - 1) * mss
    }

    /// The first unacknowledged byte counts as lost.
    pub fn first_is_lost(&self, mss: u32) -> bool {
        !self.is_empty() && self.lost_below(0, mss)
    }

    /// Bytes that are on the way (RFC 6675 section 4, SetPipe), with everything from `una` to `max`
    /// sent at least once.
    pub fn pipe(&self, una: Seq, max: Seq, mss: u32) -> u32 {
        let mut pipe = 0;
        for (left, right, lost) in self.holes(una, mss) {
            pipe += if lost { 0 } else { right.since(left) };
            pipe += self.high_rxt.min(right).since(left);
        }
        let highest = self.ranges.last().map_or(una, |r| r.1);
        pipe + max.since(highest)
    }

    /// What is to be sent again next: the first part of a lost hole that was not sent again yet
    /// (RFC 6675 section 4, NextSeg rule 1).
    pub fn next_lost(&self, una: Seq, mss: u32) -> Option<(Seq, Seq)> {
        self.holes(una, mss)
            .find(|&(_, right, lost)| lost && right.gt(self.high_rxt))
            .map(|(left, right, _)| (left.max(self.high_rxt), right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 100;

    fn board(blocks: &[(u32, u32)]) -> Scoreboard {
        let mut b = Scoreboard::new(Seq(0));
        for &(l, r) in blocks {
            assert!(b.update(Seq(0), Seq(10_000), &[(Seq(l), Seq(r))]));
        }
        b
    }

    #[test]
    fn merges_and_orders_ranges_and_ignores_old_news() {
        let mut b = board(&[(500, 600), (200, 300), (300, 400)]);
        assert_eq!(b.ranges[..], [(Seq(200), Seq(400)), (Seq(500), Seq(600))]);
        assert!(!b.update(Seq(0), Seq(10_000), &[(Seq(250), Seq(350))]));
        assert!(
            !b.update(Seq(0), Seq(550), &[(Seq(540), Seq(560))]),
            "beyond what was sent"
        );
        assert!(b.update(Seq(0), Seq(10_000), &[(Seq(400), Seq(500))]));
        assert_eq!(b.ranges[..], [(Seq(200), Seq(600))]);
        b.forget_below(Seq(600));
        assert!(b.is_empty());
    }

    #[test]
    fn three_ranges_or_more_than_two_segments_above_make_a_hole_lost() {
        assert!(!board(&[(100, 200), (300, 400)]).first_is_lost(MSS));
        assert!(board(&[(100, 200), (300, 400), (500, 501)]).first_is_lost(MSS));
        assert!(!board(&[(100, 300)]).first_is_lost(MSS));
        assert!(board(&[(100, 301)]).first_is_lost(MSS));
    }

    #[test]
    fn pipe_counts_what_is_neither_lost_nor_arrived_and_what_was_sent_again() {
        let mut b = board(&[(100, 400), (500, 600)]);
        // 0..100 lost; 400..500 not; 600..1000 on the way.
        assert_eq!(b.pipe(Seq(0), Seq(1_000), MSS), 500);
        assert_eq!(b.next_lost(Seq(0), MSS), Some((Seq(0), Seq(100))));
        b.high_rxt = Seq(60);
        assert_eq!(b.pipe(Seq(0), Seq(1_000), MSS), 560);
        assert_eq!(b.next_lost(Seq(0), MSS), Some((Seq(60), Seq(100))));
        b.high_rxt = Seq(100);
        assert_eq!(b.next_lost(Seq(0), MSS), None);
    }

    #[test]
    fn holes_that_stayed_are_lost_and_later_ones_are_not() {
        let mut b = board(&[(100, 200), (300, 400)]);
        b.lose_holes();
        assert!(b.first_is_lost(MSS));
        b.high_rxt = Seq(100);
        assert_eq!(b.next_lost(Seq(0), MSS), Some((Seq(200), Seq(300))));
        b.high_rxt = Seq(300);
        b.update(Seq(0), Seq(10_000), &[(Seq(500), Seq(600))]);
        assert_eq!(b.next_lost(Seq(0), MSS), None);
        b.forget_below(Seq(400));
        assert!(!b.first_is_lost(MSS));
    }

    #[test]
    fn forgets_the_highest_when_full() {
        let mut b = Scoreboard::new(Seq(0));
        for i in (1..=20).rev() {
            b.update(Seq(0), Seq(10_000), &[(Seq(i * 100), Seq(i * 100 + 50))]);
        }
        assert_eq!(b.ranges.len(), RANGES);
        assert_eq!(b.ranges[0].0, Seq(100));
        assert_eq!(b.ranges[RANGES - 1].0, Seq(1_600));
    }
}
