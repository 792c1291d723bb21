//! Which connection a response belongs to, as one receive core knows it.
//!
//! Claims of size one are in a hash map, others in a list that is sorted by their targets: of many
//! targets' claims those of the response's are looked at. The map has its whole capacity from the
//! start: half of its slots always stay free, so neither a look-up nor an insertion
//! allocates.

use crate::hash::{Seeded, seeded};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use link::Claim;
use wire::{Addr, Endpoint, Flow, Prefix};

/// Who gets a response.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Route {
    /// The connection, numbered by the server and never reused.
    pub connection: u32,
    /// The engine's worker core, as its claim says.
    pub owner: u16,
}

/// The claims of one receive core.
pub struct Claims {
    exact: HashMap<Flow, Route, Seeded>,
    /// In the order of their targets.
    ranges: Vec<(Claim, Route)>,
    /// Client addresses of exact claims that lie in our own prefixes, and how many claims each
    /// has.
    neighbours: HashMap<Addr, u32, Seeded>,
    on_link: Vec<Prefix>,
    max_exact: usize,
    max_ranges: usize,
}

impl Claims {
    /// Room for this many claims of size one and ranges. `on_link` are the prefixes of our own
    /// addresses: for claimed clients inside them [`Claims::is_neighbour`] says true. `seed` makes
    /// the places of entries unpredictable.
    pub fn new(max_exact: usize, max_ranges: usize, on_link: Vec<Prefix>, seed: u64) -> Self {
        Self {
            exact: HashMap::with_capacity_and_hasher(max_exact.saturating_mul(2), seeded(seed)),
            ranges: Vec::with_capacity(max_ranges),
            neighbours: HashMap::with_capacity_and_hasher(
                max_exact.saturating_mul(2),
                seeded(seed),
            ),
            on_link,
            max_exact,
            max_ranges,
        }
    }

    /// Whose the response of this flow is, from target to client.
    #[inline]
    pub fn find(&self, response: &Flow) -> Option<Route> {
        if let Some(route) = self.exact.get(response) {
            return Some(*route);
        }
        let own = self.ranges_from(&response.src);
        let mut own = own.take_while(|(claim, _)| claim.target == response.src);
        own.find(|(claim, _)| claim.covers(response))
            .map(|(_, route)| *route)
    }

    /// The ranges that stand at or behind those of this target.
    #[inline]
    fn ranges_from(&self, target: &Endpoint) -> impl Iterator<Item = &(Claim, Route)> {
        let key = |e: &Endpoint| (e.port, e.addr);
        let before = |(claim, _): &(Claim, Route)| key(&claim.target) < key(target);
        self.ranges[self.ranges.partition_point(before)..].iter()
    }

    /// Adds a claim of this connection. The same claim again changes the owner. False if there is
    /// no room.
    pub fn claim(&mut self, claim: &Claim, connection: u32) -> bool {
        let route = Route {
            connection,
            owner: claim.owner,
        };
        let Some(flow) = claim.response_flow() else {
            if let Some(known) = self
                .ranges
                .iter_mut()
                .find(|(c, r)| c.is_for_same(claim) && r.connection == connection)
            {
                known.1 = route;
                return true;
            }
            let room = self.ranges.len() < self.max_ranges;
            if room {
                let at = self.ranges.len() - self.ranges_from(&claim.target).count();
                self.ranges.insert(at, (claim.clone(), route));
            }
            return room;
        };
        let full = self.exact.len() >= self.max_exact;
        match self.exact.entry(flow) {
            Entry::Occupied(mut known) => {
                known.insert(route);
            }
            Entry::Vacant(_) if full => return false,
            Entry::Vacant(slot) => {
                slot.insert(route);
                if is_on_link(&self.on_link, &flow.dst.addr) {
                    *self.neighbours.entry(flow.dst.addr).or_insert(0) += 1;
                }
            }
        }
        true
    }

    /// Gives up a claim, if it is this connection's. False if there was none.
    pub fn release(&mut self, claim: &Claim, connection: u32) -> bool {
        let Some(flow) = claim.response_flow() else {
            let at = self
                .ranges
                .iter()
                .position(|(c, r)| c.is_for_same(claim) && r.connection == connection);
            return at.map(|at| self.ranges.remove(at)).is_some();
        };
        if self
            .exact
            .get(&flow)
            .is_none_or(|r| r.connection != connection)
        {
            return false;
        }
        self.exact.remove(&flow);
        if let Entry::Occupied(mut count) = self.neighbours.entry(flow.dst.addr) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        true
    }

    /// True if this address is claimed and lies in one of our own prefixes: then its neighbours
    /// look for it here.
    pub fn is_neighbour(&self, addr: &Addr) -> bool {
        let claimed = || {
            let range = |c: &Claim| c.prefix.contains(addr);
            self.neighbours.contains_key(addr) || self.ranges.iter().any(|(c, _)| range(c))
        };
        is_on_link(&self.on_link, addr) && claimed()
    }

    /// How many claims there are.
    pub fn len(&self) -> usize {
        self.exact.len() + self.ranges.len()
    }

    /// True if nothing is claimed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn is_on_link(prefixes: &[Prefix], addr: &Addr) -> bool {
    prefixes.iter().any(|p| p.contains(addr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    fn end(last: u8, port: u16) -> Endpoint {
        Endpoint::new(Addr::v4([10, 0, 0, last]), port)
    }

    fn flow(client: Endpoint) -> Flow {
        Flow {
            src: end(200, 80),
            dst: client,
        }
    }

    fn range(len: u8, ports: std::ops::RangeInclusive<u16>, owner: u16) -> Claim {
        Claim {
            prefix: Prefix::new(Addr::v4([10, 0, 0, 0]), len),
            ports,
            target: end(200, 80),
            owner,
        }
    }

    #[test]
    fn exact_claims_go_before_ranges_and_only_their_owner_releases_them() {
        let mut claims = Claims::new(10, 10, vec![], 1);
        let client = end(1, 1000);
        let exact = Claim::exact(client, end(200, 80), 7);
        assert!(claims.claim(&range(24, 1..=2000, 1), 5));
        assert!(claims.claim(&exact, 6));
        assert_eq!(
            claims.find(&flow(client)),
            Some(Route {
                connection: 6,
                owner: 7
            })
        );
        assert_eq!(
            claims.find(&flow(end(2, 1000))),
            Some(Route {
                connection: 5,
                owner: 1
            })
        );
        assert_eq!(claims.find(&flow(end(2, 2001))), None);
        assert!(!claims.release(&exact, 5));
        assert!(claims.release(&exact, 6));
        assert_eq!(
            claims.find(&flow(client)),
            Some(Route {
                connection: 5,
                owner: 1
            })
        );
        assert!(claims.release(&range(24, 1..=2000, 9), 5));
        assert!(claims.is_empty());
    }

    #[test]
    fn ranges_of_many_targets_are_told_apart() {
        const TARGETS: u16 = 300;
        let mut claims = Claims::new(10, 1_000, vec![], 1);
        let of = |n: u16, owner| Claim {
            target: end((n % 7) as u8, 1_000 + n),
            ..range(24, 1..=500, owner)
        };
        let response = |n: u16, port| Flow {
            src: end((n % 7) as u8, 1_000 + n),
            dst: end(1, port),
        };
        // In an order of their own.
        let order = || (0..TARGETS).map(|i| i * 77 % TARGETS);
        for n in order() {
            assert!(claims.claim(&of(n, n), 5));
            let other_ports = Claim {
                ports: 501..=600,
                ..of(n, n + 1)
            };
            assert!(claims.claim(&other_ports, 5));
        }
        let owner = |claims: &Claims, n, port| claims.find(&response(n, port)).map(|r| r.owner);
        for n in 0..TARGETS {
            assert_eq!(owner(&claims, n, 500), Some(n));
            assert_eq!(owner(&claims, n, 501), Some(n + 1));
            assert_eq!(owner(&claims, n, 601), None);
        }
        assert_eq!(owner(&claims, TARGETS, 1), None, "no target");
        for n in order().filter(|n| n % 3 == 0) {
            assert!(claims.release(&of(n, 0), 5));
        }
        for n in 0..TARGETS {
            assert_eq!(owner(&claims, n, 1), (n % 3 != 0).then_some(n));
            assert_eq!(owner(&claims, n, 600), Some(n + 1));
        }
    }

    #[test]
    fn a_claim_said_again_is_one_claim() {
        let mut claims = Claims::new(10, 10, vec![], 1);
        for owner in 0..3 {
            assert!(claims.claim(&range(24, 1..=5, owner), 1));
            assert!(claims.claim(&Claim::exact(end(1, 9), end(200, 80), owner), 1));
        }
        assert_eq!(claims.len(), 2);
        assert_eq!(
            claims.find(&flow(end(1, 9))),
            Some(Route {
                connection: 1,
                owner: 2
            })
        );
        assert_eq!(
            claims.find(&flow(end(1, 5))),
            Some(Route {
                connection: 1,
                owner: 2
            })
        );
    }

    #[test]
    fn a_full_table_refuses_and_does_not_grow() {
        let mut claims = Claims::new(100, 1, vec![], 1);
        let capacity = claims.exact.capacity();
        for round in 0..50 {
            for port in 0..100 {
                assert!(claims.claim(&Claim::exact(end(round, port), end(200, 80), 0), 1));
            }
            assert!(!claims.claim(&Claim::exact(end(250, 1), end(200, 80), 0), 1));
            for port in 0..100 {
                assert!(claims.release(&Claim::exact(end(round, port), end(200, 80), 0), 1));
            }
        }
        assert_eq!(claims.exact.capacity(), capacity);
        assert!(claims.claim(&range(24, 1..=1, 0), 1));
        assert!(!claims.claim(&range(24, 2..=2, 0), 1));
    }

    #[test]
    fn claimed_clients_on_our_own_wire_are_neighbours_until_released() {
        let mut claims = Claims::new(10, 10, vec![Prefix::new(Addr::v4([10, 0, 0, 9]), 24)], 1);
        let near = Claim::exact(end(1, 1), end(200, 80), 0);
        let also = Claim::exact(end(1, 2), end(200, 80), 0);
        let far = Claim::exact(Endpoint::new(Addr::v4([10, 0, 1, 1]), 1), end(200, 80), 0);
        for c in [&near, &also, &far] {
            claims.claim(c, 1);
        }
        assert!(claims.is_neighbour(&end(1, 0).addr));
        assert!(!claims.is_neighbour(&end(2, 0).addr));
        assert!(!claims.is_neighbour(&Addr::v4([10, 0, 1, 1])));
        claims.release(&near, 1);
        assert!(claims.is_neighbour(&end(1, 0).addr));
        claims.release(&also, 1);
        assert!(!claims.is_neighbour(&end(1, 0).addr));
        claims.claim(&range(28, 1..=9, 0), 1);
        assert!(claims.is_neighbour(&end(15, 0).addr) && !claims.is_neighbour(&end(16, 0).addr));
    }

    /// How long claims of these flows make the longest look-up does not depend on who chose them:
    /// an address's half that is zero in one step of a hash with known steps makes nothing zero
    /// here.
    #[test]
    fn flows_made_to_collide_in_a_hash_with_known_steps_spread() {
        let known: u64 = 0xc0ac_29b7_c97c_50dd;
        let flows: Vec<Flow> = (0..20_000)
            .map(|n| {
                let client =
                    Addr::from_number(u128::from(n as u64) << 64 | u128::from(known.swap_bytes()));
                flow(Endpoint::new(client, 1_000))
            })
            .collect();
        for seed in [7, 0xfeed_f00d_dead_beef] {
            let hasher = seeded(seed);
            // As many in each 64th of all hashes as in the others, about.
            let mut places = [0; 64];
            for f in &flows {
                places[(hasher.hash_one(f) >> 58) as usize] += 1;
            }
            let fair = flows.len() / places.len();
            let even = places.iter().all(|n| (fair / 2..fair * 2).contains(n));
            assert!(even, "seed {seed}: {places:?}");
        }
    }
}
