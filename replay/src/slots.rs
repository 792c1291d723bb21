//! Client addresses from a pool: (address, port) slots, each in use by at most one connection, and
//! none used again while the target holds the old connection in TIME-WAIT (RFC 9293 section
//! 3.6.1), as one does that closed first. Where we closed first, or RST ended the connection, the
//! target has forgotten it.
//!
//! A core owns a range of ports on every pool address. Slots are dealt out round the whole range,
//! so that a slot rests as long as possible; the starting point is a seed, so that a restarted
//! engine does not meet its own TIME_WAIT at once.

use wire::{Addr, Endpoint, Nanos};

/// How long a slot rests after a connection that its target closed first: the TIME_WAIT of Linux,
/// and a little more.
pub const QUARANTINE: Nanos = 61_000_000_000;
const SECOND: Nanos = 1_000_000_000;
const IN_USE: u32 = u32::MAX;
/// Slots looked at before giving up: a bound on the time of one allocation.
const PROBES: usize = 256;
/// Slots of one slice at most; a larger pool is cut to its first addresses.
const MAX_SLOTS: u64 = 1 << 24;

/// A range of consecutive addresses and a range of ports on each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    /// The first address.
    pub first: Addr,
    /// How many addresses follow it, itself counted.
    pub addresses: u32,
    /// The first port.
    pub low: u16,
    /// The last port.
    pub high: u16,
}

impl Slice {
    /// True if `e` lies in it.
    pub fn contains(&self, e: &Endpoint) -> bool {
        let n = e.addr.number().wrapping_sub(self.first.number());
        n < u128::from(self.addresses) && (self.low..=self.high).contains(&e.port)
    }
}

/// The slots of one slice.
pub struct Slots {
    slice: Slice,
    /// For each slot 0, `IN_USE`, or the second from which it may be used again.
    state: Vec<u32>,
    cursor: usize,
    used: usize,
}

impl Slots {
    /// All slots of `slice`, none in use.
    pub fn new(mut slice: Slice, seed: u64) -> Self {
        let ports = u64::from(slice.high.saturating_sub(slice.low)) + 1;
        slice.addresses = slice.addresses.min((MAX_SLOTS / ports) as u32).max(1);
        let count = (u64::from(slice.addresses) * ports) as usize;
        Self {
            slice,
            state: vec![0; count],
            cursor: (seed % count as u64) as usize,
            used: 0,
        }
    }

    /// How many slots there are.
    pub fn capacity(&self) -> usize {
        self.state.len()
    }

    /// How many are in use.
    pub fn used(&self) -> usize {
        self.used
    }

    /// True if the slots are IPv4 addresses.
    pub fn is_v4(&self) -> bool {
        self.slice.first.is_v4()
    }

    /// True if `e` is one of these slots.
    pub fn contains(&self, e: &Endpoint) -> bool {
        self.slice.contains(e)
    }

    /// Whether [`Slots::take`] gives so many slots one after the other.
    pub fn has(&self, now: Nanos, many: usize) -> bool {
        let second = (now / SECOND) as u32;
        let (behind, next) = self.state.split_at(self.cursor);
        let probed = next.iter().chain(behind).take(PROBES);
        probed.filter(|s| **s <= second).take(many).count() == many
    }

    /// A slot that is neither in use nor resting.
    #[inline]
    pub fn take(&mut self, now: Nanos) -> Option<Endpoint> {
        self.take_that(now, |_| true)
    }

    /// The same; one that `suits`, if there is one among those looked at.
    #[inline]
    pub fn take_that(&mut self, now: Nanos, suits: impl Fn(&Endpoint) -> bool) -> Option<Endpoint> {
        let second = (now / SECOND) as u32;
        let (mut slot, mut found) = (self.cursor, None);
        for _ in 0..PROBES.min(self.state.len()) {
            let this = slot;
            slot = if this + 1 == self.state.len() {
                0
            } else {
                this + 1
            };
            if self.state[this] > second {
                continue;
            }
            if suits(&self.endpoint(this)) {
                found = Some((this, slot));
                break;
            }
            // The first one that is free, if none suits.
            found = found.or(Some((this, slot)));
        }
        let (taken, next) = found?;
        self.cursor = next;
        self.state[taken] = IN_USE;
        self.used += 1;
        Some(self.endpoint(taken))
    }

    /// Gives a slot back; if it `rests`, for [`QUARANTINE`].
    #[inline]
    pub fn give_back(&mut self, now: Nanos, e: &Endpoint, rests: bool) {
        let slot = self.slot(e);
        if let Some(s) = self.state.get_mut(slot).filter(|s| **s == IN_USE) {
            *s = if rests {
                ((now + QUARANTINE).div_ceil(SECOND) as u32).min(IN_USE - 1)
            } else {
                0
            };
            self.used -= 1;
        }
    }

    fn endpoint(&self, slot: usize) -> Endpoint {
        let n = self.slice.addresses as usize;
        let addr = self.slice.first.number() + (slot % n) as u128;
        Endpoint::new(Addr::from_number(addr), self.slice.low + (slot / n) as u16)
    }

    fn slot(&self, e: &Endpoint) -> usize {
        let n = e.addr.number().wrapping_sub(self.slice.first.number()) as usize;
        usize::from(e.port.wrapping_sub(self.slice.low)) * self.slice.addresses as usize + n
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn slots(addresses: u32, low: u16, high: u16, seed: u64) -> Slots {
        Slots::new(
            Slice {
                first: Addr::v4([62, 135, 200, 250]),
                addresses,
                low,
                high,
            },
            seed,
        )
    }

    #[test]
    fn what_can_be_taken_is_known_before() {
        let mut s = slots(1, 2_000, 2_009, 17);
        assert!(s.has(0, 10) && !s.has(0, 11));
        for left in (0..10).rev() {
            let slot = s.take(0).unwrap();
            assert!(s.has(0, left) && !s.has(0, left + 1));
            if left == 5 {
                s.give_back(0, &slot, true);
            }
        }
        assert!(!s.has(QUARANTINE - SECOND, 1) && s.has(QUARANTINE, 1));
    }

    #[test]
    fn every_slot_once_and_then_none() {
        let mut s = slots(5, 2_000, 2_009, 17);
        let taken: Vec<_> = std::iter::from_fn(|| s.take(0)).collect();
        assert_eq!(taken.len(), 50);
        assert_eq!(taken.iter().collect::<HashSet<_>>().len(), 50);
        assert!(
            taken
                .iter()
                .all(|e| s.contains(e) && e.addr.is_v4() && (2_000..=2_009).contains(&e.port))
        );
        assert_eq!(s.used(), 50);
    }

    #[test]
    fn slots_that_suit_are_taken_first_and_the_others_then() {
        let mut s = slots(1, 2_000, 2_099, 17);
        let even = |e: &Endpoint| e.port.is_multiple_of(2);
        let ports: Vec<u16> = std::iter::from_fn(|| s.take_that(0, even))
            .map(|e| e.port)
            .collect();
        assert_eq!(ports.len(), 100);
        assert!(ports[..50].iter().all(|port| port.is_multiple_of(2)));
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 100);
    }

    #[test]
    fn a_slot_rests_before_it_is_used_again_or_does_not() {
        let mut s = slots(1, 2_000, 2_001, 0);
        let a = s.take(0).unwrap();
        let b = s.take(0).unwrap();
        assert_ne!(a, b);
        s.give_back(5 * SECOND, &a, true);
        // What was given back is not taken back by a second word.
        s.give_back(5 * SECOND, &a, false);
        assert_eq!(s.used(), 1);
        assert_eq!(s.take(5 * SECOND + QUARANTINE - 1), None);
        assert_eq!(s.take(5 * SECOND + QUARANTINE), Some(a));
        s.give_back(100 * SECOND, &b, false);
        assert_eq!(s.take(100 * SECOND), Some(b));
        assert_eq!(s.take(100 * SECOND), None);
    }

    #[test]
    fn slices_of_cores_do_not_meet_and_large_pools_are_cut() {
        let a = Slice {
            first: Addr::v4([10, 0, 0, 0]),
            addresses: 1 << 20,
            low: 1_024,
            high: 33_279,
        };
        let s = Slots::new(a, 0);
        assert!(s.capacity() as u64 <= MAX_SLOTS && s.capacity() > 1 << 23);
        let outside = Endpoint::new(Addr::v4([10, 0, 0, 1]), 33_280);
        assert!(!s.contains(&outside));
    }
}
