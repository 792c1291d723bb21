//! The ledger: the one place where a turn or a byte changes its state.
//!
//! Production said it; from then on it is *in flight* for each replica that carries it, until it
//! is *replayed* or *lost* for a reason. What no replica ever gets to see is lost at once. The
//! books are kept for each target, and always hold:
//!
//! `owed = replayed + lost + in flight`, for turns and for bytes,
//!
//! where a turn is owed once for every replica that its session should have.

use crate::counters::{Counters, Loss, TargetCounters};

/// An amount of turns and bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Amount {
    pub turns: u64,
    pub bytes: u64,
}

impl Amount {
    /// Bytes of a turn that is counted already, or elsewhere.
    pub fn bytes(bytes: u64) -> Self {
        Self { turns: 0, bytes }
    }

    /// Turns, and bytes that belong to them.
    pub fn new(turns: u64, bytes: u64) -> Self {
        Self { turns, bytes }
    }
}

/// See the module's documentation.
pub(crate) struct Ledger {
    /// What concerns no target; its fields about targets stay 0.
    pub common: Counters,
    targets: Vec<TargetCounters>,
    /// Replicas that a session should have.
    copies: u64,
}

impl Ledger {
    /// Empty books for `targets` targets, each owed `copies` replicas of every session.
    pub fn new(targets: usize, copies: u16) -> Self {
        Self {
            common: Counters::default(),
            targets: vec![TargetCounters::default(); targets],
            copies: u64::from(copies),
        }
    }

    /// What was counted about a target, to count more.
    #[inline]
    pub fn target(&mut self, target: u16) -> &mut TargetCounters {
        &mut self.targets[usize::from(target)]
    }

    /// What was counted, target by target.
    pub fn targets(&self) -> &[TargetCounters] {
        &self.targets
    }

    /// Everything together.
    pub fn sum(&self) -> Counters {
        let mut sum = self.common.clone();
        for target in &self.targets {
            sum.add_target(target);
        }
        sum
    }

    /// Production's client said `amount`, which is owed to every replica of the session.
    #[inline]
    fn said(&mut self, target: u16, amount: Amount) {
        let copies = self.copies;
        let t = self.target(target);
        t.turns += amount.turns;
        t.bytes += amount.bytes;
        t.owed_turns += amount.turns * copies;
        t.owed_bytes += amount.bytes * copies;
    }

    /// Production had it, and `replicas` replicas carry it; for those that the session could not
    /// have it is lost for want of an address.
    #[inline]
    pub fn captured(&mut self, target: u16, amount: Amount, replicas: u16) {
        self.said(target, amount);
        let missing = self.copies.saturating_sub(u64::from(replicas));
        let replicas = u64::from(replicas);
        let t = self.target(target);
        t.in_flight_turns += amount.turns * replicas;
        t.in_flight_bytes += amount.bytes * replicas;
        t.lost_turns[Loss::NoAddress as usize] += amount.turns * missing;
        t.lost_bytes[Loss::NoAddress as usize] += amount.bytes * missing;
    }

    /// Production had it, and no replica ever gets to see it.
    pub fn uncaptured(&mut self, target: u16, amount: Amount, reason: Loss) {
        self.said(target, amount);
        let copies = self.copies;
        let t = self.target(target);
        t.lost_turns[reason as usize] += amount.turns * copies;
        t.lost_bytes[reason as usize] += amount.bytes * copies;
    }

    /// What was counted as uncaptured is there after all.
    pub fn taken_back(&mut self, target: u16, amount: Amount, reason: Loss) {
        let copies = self.copies;
        let t = self.target(target);
        t.turns -= amount.turns;
        t.bytes -= amount.bytes;
        t.owed_turns -= amount.turns * copies;
        t.owed_bytes -= amount.bytes * copies;
        t.lost_turns[reason as usize] -= amount.turns * copies;
        t.lost_bytes[reason as usize] -= amount.bytes * copies;
    }

    /// One replica's target has acknowledged it.
    #[inline]
    pub fn replayed(&mut self, target: u16, amount: Amount) {
        let t = self.target(target);
        t.in_flight_turns -= amount.turns;
        t.in_flight_bytes -= amount.bytes;
        t.replayed_turns += amount.turns;
        t.replayed_bytes += amount.bytes;
    }

    /// One replica has given it up.
    pub fn lost(&mut self, target: u16, amount: Amount, reason: Loss) {
        let t = self.target(target);
        t.in_flight_turns -= amount.turns;
        t.in_flight_bytes -= amount.bytes;
        t.lost_turns[reason as usize] += amount.turns;
        t.lost_bytes[reason as usize] += amount.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_replayed_lost_or_in_flight_for_each_target() {
        let mut l = Ledger::new(2, 3);
        l.captured(0, Amount::new(2, 100), 2);
        l.uncaptured(1, Amount::new(1, 50), Loss::Hole);
        l.replayed(0, Amount::new(1, 60));
        l.lost(0, Amount::new(1, 40), Loss::TargetReset);
        let sum = l.sum();
        assert_eq!(sum.balance(), Ok(()));
        assert_eq!((sum.owed_turns, sum.owed_bytes), (9, 450));
        assert_eq!((sum.in_flight_turns, sum.in_flight_bytes), (2, 100));
        let t = &l.targets()[0];
        assert_eq!(t.lost_turns[Loss::NoAddress as usize], 2);
        assert_eq!(t.lost_bytes[Loss::NoAddress as usize], 100);
        l.taken_back(1, Amount::new(1, 50), Loss::Hole);
        assert_eq!((l.sum().owed_turns, l.sum().balance()), (6, Ok(())));
        assert_eq!(l.targets()[1].lost_turns[Loss::Hole as usize], 0);
    }
}
