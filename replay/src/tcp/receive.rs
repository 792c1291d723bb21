//! The receiving side, by header alone: what of the target's stream has arrived, and when it is to
//! be acknowledged.
//!
//! No byte is stored. Acknowledgments go out after the emulated round-trip time, as the real
//! client's would have come; what arrives in between shares one acknowledgment.

use crate::due::Moment;
use arrayvec::ArrayVec;
use wire::{Nanos, Seq};

const GAPS: usize = 4;
const MARKS: usize = 2;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    /// Next sequence number expected.
    pub nxt: Seq,
    /// What was acknowledged last; `nxt` runs ahead of it by the emulated round-trip time.
    pub acked: Seq,
    /// Ranges received beyond `nxt`, most recent first (RFC 2018 section 4), none touching
    /// another.
    beyond: ArrayVec<(Seq, Seq), GAPS>,
    /// Acknowledgments to be sent: up to where, and when.
    marks: ArrayVec<(Seq, Moment), MARKS>,
}

impl Receiver {
    /// After the target's SYN with sequence number `irs`.
    pub fn new(irs: Seq) -> Self {
        Self {
            nxt: irs + 1,
            acked: irs,
            ..Self::default()
        }
    }

    /// Ranges received out of order, the most recent first.
    #[inline]
    pub fn gaps(&self) -> &[(Seq, Seq)] {
        &self.beyond
    }

    /// `start..end` arrived. Returns how many bytes came in order by it.
    #[inline]
    pub fn arrived(&mut self, start: Seq, end: Seq) -> u32 {
        let before = self.nxt;
        if start.le(self.nxt) {
            self.nxt = self.nxt.max(end);
            if !self.beyond.is_empty() {
                self.absorb();
            }
        } else {
            self.keep(start, end);
        }
        self.nxt.since(before)
    }

    fn absorb(&mut self) {
        loop {
            let Some(i) = self.beyond.iter().position(|&(l, _)| l.le(self.nxt)) else {
                return;
            };
            let (_, right) = self.beyond.remove(i);
            self.nxt = self.nxt.max(right);
        }
    }

    fn keep(&mut self, mut left: Seq, mut right: Seq) {
        while let Some(i) = self
            .beyond
            .iter()
            .position(|&(l, r)| l.le(right) && left.le(r))
        {
            let (l, r) = self.beyond.remove(i);
            left = left.min(l);
            right = right.max(r);
        }
        if self.beyond.is_full() {
            // The target will send that range again: forgetting is what RFC 2018 section 8 allows a
            // receiver.
            self.beyond.pop();
        }
        self.beyond.insert(0, (left, right));
    }

    /// Everything up to now is to be acknowledged at `due`.
    #[inline]
    pub fn acknowledge_at(&mut self, due: Nanos) {
        if self.marks.last().is_some_and(|m| m.0 == self.nxt) {
            return;
        }
        if let Err(full) = self.marks.try_push((self.nxt, Moment::at(due))) {
            let (nxt, _) = full.element();
            if let Some(last) = self.marks.last_mut() {
                last.0 = nxt;
            }
        }
    }

    /// When the next acknowledgment is due.
    #[inline]
    pub fn ack_due(&self, now: Nanos) -> Option<Nanos> {
        self.marks.first().map(|m| now + m.1.left(now))
    }

    /// Takes the acknowledgments that are due. True if one must be sent.
    #[inline]
    pub fn take_due(&mut self, now: Nanos) -> bool {
        let mut due = false;
        while let Some(&(upto, at)) = self.marks.first() {
            if at.left(now) > 0 {
                break;
            }
            due |= upto.gt(self.acked);
            self.acked = self.acked.max(upto);
            self.marks.remove(0);
        }
        due
    }

    /// A segment leaves that acknowledges all that has come: nothing is due any more.
    #[inline]
    pub fn acknowledged_all(&mut self) {
        self.marks.clear();
        self.acked = self.nxt;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_byte_once_whatever_the_order() {
        let mut r = Receiver::new(Seq(u32::MAX));
        assert_eq!(r.nxt, Seq(0));
        assert_eq!(r.arrived(Seq(0), Seq(10)), 10);
        assert_eq!(r.arrived(Seq(0), Seq(10)), 0);
        assert_eq!(r.arrived(Seq(20), Seq(30)), 0);
        assert_eq!(r.arrived(Seq(40), Seq(50)), 0);
        assert_eq!(r.arrived(Seq(28), Seq(40)), 0);
        assert_eq!(r.gaps(), [(Seq(20), Seq(50))]);
        assert_eq!(r.arrived(Seq(5), Seq(20)), 40);
        assert!(r.gaps().is_empty());
    }

    #[test]
    fn forgets_ranges_it_has_no_room_for() {
        let mut r = Receiver::new(Seq(0));
        for i in 1..=6 {
            r.arrived(Seq(i * 100), Seq(i * 100 + 10));
        }
        assert_eq!(r.gaps().len(), GAPS);
        assert_eq!(r.gaps()[0], (Seq(600), Seq(610)));
    }

    #[test]
    fn acknowledgments_wait_their_time_and_are_shared() {
        const US: Nanos = 1_024;
        let mut r = Receiver::new(Seq(0));
        r.arrived(Seq(1), Seq(11));
        r.acknowledge_at(100 * US);
        r.arrived(Seq(11), Seq(21));
        r.acknowledge_at(150 * US);
        r.arrived(Seq(21), Seq(31));
        r.acknowledge_at(200 * US);
        assert!(!r.take_due(99 * US));
        assert!(r.take_due(100 * US));
        let due = r.ack_due(100 * US);
        assert_eq!((r.acked, due), (Seq(11), Some(150 * US)));
        assert!(r.take_due(150 * US));
        assert_eq!((r.acked, r.ack_due(150 * US)), (Seq(31), None));
    }
}
