//! Which targets of transfers are the same.

use crate::fan::Fans;
use std::collections::{HashMap, HashSet};
use wire::Addr;

/// Where several transfers have the same target, it is named by the first of its numbers.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    /// For each number the name of the target.
    of: Vec<u16>,
    /// For each name the target's numbers; none where a number is no name.
    numbers: Vec<Vec<u16>>,
    /// For each number the set of pool addresses that are its clients'.
    addresses: Vec<u16>,
}

impl Targets {
    pub fn new(fans: &Fans) -> Self {
        let all = fans.all();
        let mut targets = Self {
            of: Vec::with_capacity(all.len()),
            numbers: vec![Vec::new(); all.len()],
            addresses: address_sets(fans),
        };
        let mut names = HashMap::with_capacity(all.len());
        for (i, t) in all.iter().enumerate() {
            let name = *names.entry(t.to).or_insert(i as u16);
            targets.of.push(name);
            targets.numbers[usize::from(name)].push(i as u16);
        }
        targets
    }

    /// The name of the target with this number.
    #[inline]
    pub fn of(&self, number: u16) -> u16 {
        self.of[usize::from(number)]
    }

    /// The numbers of a target.
    pub fn numbers(&self, name: u16) -> &[u16] {
        &self.numbers[usize::from(name)]
    }

    /// The set of pool addresses that clients of the target have.
    #[inline]
    pub fn addresses(&self, number: u16) -> usize {
        usize::from(self.addresses[usize::from(number)])
    }

    /// How many such sets there are.
    pub fn address_sets(&self) -> usize {
        self.addresses
            .iter()
            .max()
            .map_or(1, |most| usize::from(*most) + 1)
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// The names of all targets.
    pub fn all(&self) -> impl Iterator<Item = u16> + '_ {
        let own = |(i, of): (usize, &u16)| (i == usize::from(*of)).then_some(*of);
        self.of.iter().enumerate().filter_map(own)
    }
}

/// For each number a set of pool addresses. Hosts that get the same sessions have sets of their
/// own, so that one that is dead and keeps its clients' addresses busy takes none from the others;
/// a host has one set, in which an address and port is used for one connection alone.
fn address_sets(fans: &Fans) -> Vec<u16> {
    let mut beside: HashMap<Addr, HashSet<Addr>> = HashMap::new();
    for fan in fans.fans() {
        for target in fan {
            let others = fan.iter().map(|t| fans.addr(*t));
            beside.entry(fans.addr(*target)).or_default().extend(others);
        }
    }
    let mut sets: HashMap<Addr, u16> = HashMap::new();
    for target in fans.all() {
        let addr = target.to.addr;
        if sets.contains_key(&addr) {
            continue;
        }
        let taken: HashSet<u16> = beside
            .get(&addr)
            .into_iter()
            .flatten()
            .filter_map(|other| sets.get(other).copied())
            .collect();
        let set = (0..).find(|set| !taken.contains(set)).unwrap_or(0);
        sets.insert(addr, set);
    }
    let set = |t: &crate::params::Target| sets.get(&t.to.addr).copied().unwrap_or(0);
    fans.all().iter().map(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{Params, Target, Transfer};
    use wire::Endpoint;

    #[test]
    fn hosts_that_get_the_same_sessions_have_addresses_of_their_own() {
        let host = |last| Endpoint::new(Addr::v4([10, 20, 0, last]), 80);
        let transfer = |port, to: &[Endpoint]| Transfer {
            to: to.iter().map(|to| Target::new(*to)).collect(),
            ..Transfer::new(Endpoint::new(Addr::v4([10, 10, 0, 2]), port), to[0])
        };
        let other_port = Endpoint {
            port: 81,
            ..host(2)
        };
        let params = Params::new(
            vec![
                transfer(1, &[host(2)]),
                transfer(2, &[host(3), host(2), other_port]),
                transfer(3, &[host(4)]),
                transfer(4, &[host(3), host(4)]),
            ],
            16,
            64,
        );
        let targets = Targets::new(&Fans::new(&params));
        let sets: Vec<usize> = (0..targets.len() as u16)
            .map(|t| targets.addresses(t))
            .collect();
        assert_eq!(sets, [0, 1, 0, 0, 0, 1, 0]);
        assert_eq!(targets.address_sets(), 2);
        assert_eq!(targets.all().collect::<Vec<_>>(), [0, 1, 3, 4]);
        assert_eq!(targets.numbers(0), [0, 2]);
    }
}
