//! All claims of all engines, as the server knows them: it decides which are granted.
//!
//! What always holds: no response belongs to claims of two connections, and there are never more
//! claims than the receive cores have room for.

use link::Claim;
use std::collections::HashMap;
use wire::Flow;

/// Why a claim is not granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// A claim of this other connection has some of the same responses.
    Overlap(u32),
    /// The table for claims of its size is full: this many are allowed.
    Full(usize),
}

/// The claims of all connections.
pub struct Registry {
    exact: HashMap<Flow, (u32, u16)>,
    ranges: Vec<(Claim, u32)>,
    max_exact: usize,
    max_ranges: usize,
}

impl Registry {
    /// Allows this many claims of size one, and this many others.
    pub fn new(max_exact: usize, max_ranges: usize) -> Self {
        Self {
            exact: HashMap::new(),
            ranges: Vec::new(),
            max_exact,
            max_ranges,
        }
    }

    /// How many claims there are.
    pub fn len(&self) -> usize {
        self.exact.len() + self.ranges.len()
    }

    /// True if nothing is claimed.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Grants a claim to a connection, or says why not. The same claim of the same connection again
    /// is granted again.
    pub fn claim(&mut self, claim: &Claim, connection: u32) -> Result<(), Denied> {
        let other = |(c, owner): &&(Claim, u32)| *owner != connection && c.overlaps(claim);
        if let Some((_, owner)) = self.ranges.iter().find(other) {
            return Err(Denied::Overlap(*owner));
        }
        let Some(flow) = claim.response_flow() else {
            let covered = |(flow, (owner, _)): &(&Flow, &(u32, u16))| {
                *owner != connection && claim.covers(flow)
            };
            if let Some((_, (owner, _))) = self.exact.iter().find(covered) {
                return Err(Denied::Overlap(*owner));
            }
            if !self
                .ranges
                .iter()
                .any(|(c, owner)| *owner == connection && c.is_for_same(claim))
            {
                if self.ranges.len() >= self.max_ranges {
                    return Err(Denied::Full(self.max_ranges));
                }
                self.ranges.push((claim.clone(), connection));
            }
            return Ok(());
        };
        match self.exact.get(&flow) {
            Some((owner, _)) if *owner != connection => return Err(Denied::Overlap(*owner)),
            None if self.exact.len() >= self.max_exact => return Err(Denied::Full(self.max_exact)),
            _ => {}
        }
        self.exact.insert(flow, (connection, claim.owner));
        Ok(())
    }

    /// Gives up a claim. False if the connection has no such claim.
    pub fn release(&mut self, claim: &Claim, connection: u32) -> bool {
        let Some(flow) = claim.response_flow() else {
            let at = self
                .ranges
                .iter()
                .position(|(c, owner)| *owner == connection && c.is_for_same(claim));
            return at.map(|at| self.ranges.swap_remove(at)).is_some();
        };
        let ours = self
            .exact
            .get(&flow)
            .is_some_and(|(owner, _)| *owner == connection);
        if ours {
            self.exact.remove(&flow);
        }
        ours
    }

    /// Takes away all claims of a connection that has gone, and returns them.
    pub fn remove(&mut self, connection: u32) -> Vec<Claim> {
        let mut gone = Vec::new();
        self.ranges.retain(|(c, owner)| {
            let stays = *owner != connection;
            if !stays {
                gone.push(c.clone());
            }
            stays
        });
        self.exact.retain(|flow, (owner, core)| {
            let stays = *owner != connection;
            if !stays {
                gone.push(Claim::exact(flow.dst, flow.src, *core));
            }
            stays
        });
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Addr, Endpoint, Prefix};

    fn exact(last: u8, port: u16) -> Claim {
        let target = Endpoint::new(Addr::v4([10, 0, 0, 200]), 80);
        Claim::exact(Endpoint::new(Addr::v4([10, 0, 0, last]), port), target, 0)
    }

    fn range(len: u8, ports: std::ops::RangeInclusive<u16>) -> Claim {
        Claim {
            prefix: Prefix::new(Addr::v4([10, 0, 0, 0]), len),
            ports,
            ..exact(0, 1)
        }
    }

    #[test]
    fn claims_of_two_connections_never_overlap() {
        let mut r = Registry::new(10, 10);
        assert_eq!(r.claim(&range(24, 1..=99), 1), Ok(()));
        assert_eq!(r.claim(&range(28, 50..=150), 2), Err(Denied::Overlap(1)));
        assert_eq!(r.claim(&exact(3, 50), 2), Err(Denied::Overlap(1)));
        assert_eq!(r.claim(&exact(3, 100), 2), Ok(()));
        assert_eq!(r.claim(&exact(3, 100), 1), Err(Denied::Overlap(2)));
        assert_eq!(r.claim(&range(24, 100..=200), 1), Err(Denied::Overlap(2)));
        assert_eq!(
            r.claim(&range(28, 50..=99), 1),
            Ok(()),
            "its own claims may overlap"
        );
        assert!(!r.release(&exact(3, 100), 1));
        assert_eq!(r.remove(2), [exact(3, 100)]);
        assert_eq!(r.claim(&range(24, 100..=200), 1), Ok(()));
        assert_eq!(r.remove(1).len(), 3);
        assert!(r.is_empty());
    }

    #[test]
    fn there_is_a_limit_for_each_size() {
        let mut r = Registry::new(1, 1);
        assert_eq!(r.claim(&exact(1, 1), 1), Ok(()));
        assert_eq!(r.claim(&exact(1, 1), 1), Ok(()));
        assert_eq!(r.claim(&exact(1, 2), 1), Err(Denied::Full(1)));
        assert_eq!(r.claim(&range(32, 5..=6), 1), Ok(()));
        assert_eq!(r.claim(&range(32, 7..=8), 1), Err(Denied::Full(1)));
        assert!(r.release(&range(32, 5..=6), 1) && r.release(&exact(1, 1), 1));
        assert!(r.is_empty());
    }
}
