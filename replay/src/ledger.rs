//! The ledger: the one place where a turn or a byte changes its state.
//!
//! Production said it; from then on it is *in flight* for each replica that carries it, until it
//! is *replayed* or *lost* for a reason. What no replica ever gets to see is lost at once. The
//! books are kept for each target, and always hold:
//!
//! `owed = replayed + lost + in flight`, for turns and for bytes,
//!
//! where a turn is owed once for every replica that its session should have at the target. What
//! production said is counted for each target, and once for all of them.

use crate::counters::{Counters, Loss, TargetCounters};
use crate::fan::Fans;

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
    /// What concerns no target; its fields about targets stay 0, but for what production said.
    pub common: Counters,
    targets: Vec<TargetCounters>,
    /// For each fan its targets.
    fans: Vec<Vec<u16>>,
    /// Replicas that a session should have at each target.
    copies: Vec<u64>,
}

impl Ledger {
    /// Empty books for the targets of these fans.
    pub fn new(fans: &Fans) -> Self {
        let targets = fans.all().len();
        let copies = |target| u64::from(fans.copies(target as u16));
        Self {
            common: Counters::default(),
            targets: vec![TargetCounters::default(); targets],
            fans: fans.fans().to_vec(),
            copies: (0..targets).map(copies).collect(),
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
        // Of many targets some may have had nothing to do.
        let used = |t: &&TargetCounters| t.turns > 0 || t.sessions > 0;
        for target in self.targets.iter().filter(used) {
            sum.add_target(target);
        }
        sum
    }

    /// Production's client said `amount`, which is owed to its replicas at this target.
    #[inline]
    fn owe(&mut self, target: u16, amount: Amount) {
        let copies = self.copies[usize::from(target)];
        let t = self.target(target);
        t.turns += amount.turns;
        t.bytes += amount.bytes;
        t.owed_turns += amount.turns * copies;
        t.owed_bytes += amount.bytes * copies;
    }

    /// Production's client said `amount`, to however many targets it goes.
    #[inline]
    pub fn said(&mut self, amount: Amount) {
        self.common.turns += amount.turns;
        self.common.bytes += amount.bytes;
    }

    /// Of what was said, `replicas` replicas carry this to the target; for those that the session
    /// could not have it is lost for want of an address.
    #[inline]
    pub fn captured(&mut self, target: u16, amount: Amount, replicas: u16) {
        self.owe(target, amount);
        let missing = self.copies[usize::from(target)].saturating_sub(u64::from(replicas));
        let replicas = u64::from(replicas);
        let t = self.target(target);
        t.in_flight_turns += amount.turns * replicas;
        t.in_flight_bytes += amount.bytes * replicas;
        t.lost_turns[Loss::NoAddress as usize] += amount.turns * missing;
        t.lost_bytes[Loss::NoAddress as usize] += amount.bytes * missing;
    }

    /// Of what was said, no replica of this target ever gets to see this.
    pub fn withheld(&mut self, target: u16, amount: Amount, reason: Loss) {
        self.owe(target, amount);
        let copies = self.copies[usize::from(target)];
        let t = self.target(target);
        t.lost_turns[reason as usize] += amount.turns * copies;
        t.lost_bytes[reason as usize] += amount.bytes * copies;
    }

    /// Production had it, and no replica of any target of the fan ever gets to see it.
    pub fn uncaptured(&mut self, fan: u16, amount: Amount, reason: Loss) {
        self.said(amount);
        for i in 0..self.fans[usize::from(fan)].len() {
            self.withheld(self.fans[usize::from(fan)][i], amount, reason);
        }
    }

    /// What was counted as uncaptured is there after all.
    pub fn taken_back(&mut self, fan: u16, amount: Amount, reason: Loss) {
        self.common.turns -= amount.turns;
        self.common.bytes -= amount.bytes;
        for i in 0..self.fans[usize::from(fan)].len() {
            let target = self.fans[usize::from(fan)][i];
            let copies = self.copies[usize::from(target)];
            let t = self.target(target);
            t.turns -= amount.turns;
            t.bytes -= amount.bytes;
            t.owed_turns -= amount.turns * copies;
            t.owed_bytes -= amount.bytes * copies;
            t.lost_turns[reason as usize] -= amount.turns * copies;
            t.lost_bytes[reason as usize] -= amount.bytes * copies;
        }
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
impl Ledger {
    /// Books for this many targets, each a fan of its own.
    pub fn for_tests(targets: usize, copies: u64) -> Self {
        Self {
            common: Counters::default(),
            targets: vec![TargetCounters::default(); targets],
            fans: (0..targets).map(|t| vec![t as u16]).collect(),
            copies: vec![copies; targets],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_replayed_lost_or_in_flight_for_each_target() {
        let mut l = Ledger::for_tests(2, 3);
        l.said(Amount::new(2, 100));
        l.captured(0, Amount::new(2, 100), 2);
        l.uncaptured(1, Amount::new(1, 50), Loss::Hole);
        l.replayed(0, Amount::new(1, 60));
        l.lost(0, Amount::new(1, 40), Loss::TargetReset);
        let sum = l.sum();
        assert_eq!(sum.balance(), Ok(()));
        assert_eq!((sum.turns, sum.bytes), (3, 150));
        assert_eq!((sum.owed_turns, sum.owed_bytes), (9, 450));
        assert_eq!((sum.in_flight_turns, sum.in_flight_bytes), (2, 100));
        let t = &l.targets()[0];
        assert_eq!(t.lost_turns[Loss::NoAddress as usize], 2);
        assert_eq!(t.lost_bytes[Loss::NoAddress as usize], 100);
        l.taken_back(1, Amount::new(1, 50), Loss::Hole);
        assert_eq!((l.sum().owed_turns, l.sum().balance()), (6, Ok(())));
        assert_eq!(l.targets()[1].lost_turns[Loss::Hole as usize], 0);
    }

    #[test]
    fn what_several_targets_are_owed_was_said_once() {
        let mut l = Ledger::for_tests(2, 1);
        l.fans = vec![vec![0, 1]];
        l.copies = vec![1, 3];
        l.uncaptured(0, Amount::new(1, 50), Loss::Hole);
        l.said(Amount::new(1, 10));
        l.captured(0, Amount::new(1, 10), 1);
        l.withheld(1, Amount::new(1, 10), Loss::TargetBudget);
        let sum = l.sum();
        assert_eq!(sum.balance(), Ok(()));
        assert_eq!((sum.turns, sum.bytes), (2, 60));
        assert_eq!((sum.owed_turns, sum.owed_bytes), (8, 240));
        for (t, copies) in l.targets().iter().zip([1, 3]) {
            assert_eq!((t.turns, t.owed_turns), (2, 2 * copies));
        }
        assert_eq!(l.targets()[1].lost_turns[Loss::TargetBudget as usize], 3);
        l.taken_back(0, Amount::new(1, 50), Loss::Hole);
        assert_eq!((l.sum().turns, l.sum().owed_turns), (1, 4));
        assert_eq!(l.sum().balance(), Ok(()));
    }
}
