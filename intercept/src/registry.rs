//! All claims of all engines, as the server knows them: it decides which are granted.
//!
//! What always holds: no response belongs to claims of two connections, and there are never more
//! claims than the receive cores have room for, nor more of one connection than it may have.

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
    /// The connection has as many claims of its size as one may have: this many.
    LinkFull(usize),
}

/// How many claims there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Of size one, of all connections together.
    pub exact: usize,
    /// Others, of all connections together.
    pub ranges: usize,
    /// Of size one, of one connection.
    pub exact_a_link: usize,
    /// Others, of one connection.
    pub ranges_a_link: usize,
}

/// How many claims of each size one connection has.
#[derive(Clone, Copy, Default)]
struct Held {
    exact: usize,
    ranges: usize,
}

/// The claims of all connections.
pub struct Registry {
    exact: HashMap<Flow, (u32, u16)>,
    ranges: Vec<(Claim, u32)>,
    /// Of the connections that have claims.
    held: HashMap<u32, Held>,
    limits: Limits,
}

impl Registry {
    /// No claims yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            exact: HashMap::new(),
            ranges: Vec::new(),
            held: HashMap::new(),
            limits,
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
        let held = self.held.get(&connection).copied().unwrap_or_default();
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
                room(self.ranges.len(), self.limits.ranges, Denied::Full)?;
                room(held.ranges, self.limits.ranges_a_link, Denied::LinkFull)?;
                self.ranges.push((claim.clone(), connection));
                self.held.entry(connection).or_default().ranges += 1;
            }
            return Ok(());
        };
        match self.exact.get(&flow) {
            Some((owner, _)) if *owner != connection => return Err(Denied::Overlap(*owner)),
            Some(_) => {}
            None => {
                room(self.exact.len(), self.limits.exact, Denied::Full)?;
                room(held.exact, self.limits.exact_a_link, Denied::LinkFull)?;
                self.held.entry(connection).or_default().exact += 1;
            }
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
            let Some(at) = at else {
                return false;
            };
            self.ranges.swap_remove(at);
            self.has_less(connection, |held| held.ranges -= 1);
            return true;
        };
        let ours = self
            .exact
            .get(&flow)
            .is_some_and(|(owner, _)| *owner == connection);
        if ours {
            self.exact.remove(&flow);
            self.has_less(connection, |held| held.exact -= 1);
        }
        ours
    }

    fn has_less(&mut self, connection: u32, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.held.get_mut(&connection) {
            change(held);
            if held.exact + held.ranges == 0 {
                self.held.remove(&connection);
            }
        }
    }

    /// Takes away all claims of a connection that has gone, and returns them.
    pub fn remove(&mut self, connection: u32) -> Vec<Claim> {
        let mut gone = Vec::new();
        // Strangers come and go, and have none: they are not to cost a look at all of them.
        if self.held.remove(&connection).is_none() {
            return gone;
        }
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

/// An error if `used` has reached the limit.
fn room(used: usize, limit: usize, denied: fn(usize) -> Denied) -> Result<(), Denied> {
    if used < limit {
        Ok(())
    } else {
        Err(denied(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Addr, Endpoint, Prefix};

    fn limited(exact: usize, ranges: usize) -> Registry {
        Registry::new(Limits {
            exact,
            ranges,
            exact_a_link: exact,
            ranges_a_link: ranges,
        })
    }

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
        let mut r = limited(10, 10);
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
        let mut r = limited(1, 1);
        assert_eq!(r.claim(&exact(1, 1), 1), Ok(()));
        assert_eq!(r.claim(&exact(1, 1), 1), Ok(()));
        assert_eq!(r.claim(&exact(1, 2), 1), Err(Denied::Full(1)));
        assert_eq!(r.claim(&range(32, 5..=6), 1), Ok(()));
        assert_eq!(r.claim(&range(32, 7..=8), 1), Err(Denied::Full(1)));
        assert!(r.release(&range(32, 5..=6), 1) && r.release(&exact(1, 1), 1));
        assert!(r.is_empty());
    }

    #[test]
    fn one_connection_does_not_take_what_is_there_for_all() {
        let mut r = Registry::new(Limits {
            exact: 3,
            ranges: 3,
            exact_a_link: 2,
            ranges_a_link: 2,
        });
        for round in 0..3 {
            assert_eq!(r.claim(&exact(1, 1), 1), Ok(()));
            assert_eq!(r.claim(&exact(1, 2), 1), Ok(()));
            assert_eq!(r.claim(&exact(1, 2), 1), Ok(()), "the same again");
            assert_eq!(r.claim(&exact(1, 3), 1), Err(Denied::LinkFull(2)));
            assert_eq!(r.claim(&range(32, 5..=6), 1), Ok(()));
            assert_eq!(r.claim(&range(32, 7..=8), 1), Ok(()));
            assert_eq!(r.claim(&range(32, 9..=10), 1), Err(Denied::LinkFull(2)));
            assert_eq!(r.claim(&exact(1, 3), 2), Ok(()), "another has room");
            assert_eq!(r.claim(&exact(1, 4), 2), Err(Denied::Full(3)));
            // What is given back can be had again, one by one or all at once.
            assert!(r.release(&exact(1, 2), 1) && r.release(&range(32, 5..=6), 1));
            assert_eq!(r.claim(&exact(1, 2), 1), Ok(()));
            assert_eq!(r.claim(&exact(1, 4), 1), Err(Denied::Full(3)));
            assert_eq!(r.remove(1).len(), 3, "round {round}");
            assert_eq!(r.remove(2).len(), 1);
            assert!(r.is_empty() && r.held.is_empty());
        }
    }
}
