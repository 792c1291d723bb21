//! From a server's address and port to what is configured for it: a transfer, or a target.
//!
//! Places are given as prefixes and ranges of ports, thousands of them. They are resolved when the
//! table is built: for each port there is the set of prefixes that hold for it. Of several that
//! contain an address the longest counts, of several that are the same the first that was given.
//! A look-up reads one number for the port, and then looks at a few prefixes, or at one place of a
//! hash table for each length that prefixes have; how many places there are makes no difference.

use crate::params::{Params, Place};
use std::collections::{BTreeSet, HashMap};
use wire::{Addr, Endpoint, Flow, Prefix};

/// So many prefixes are compared one after the other.
const FEW: usize = 4;
/// No set, or nothing in a slot.
const NONE: u16 = u16::MAX;
/// A server that is a target, and so is never production.
const TARGET: u16 = u16::MAX;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct ServerTable {
    /// The lowest port that any place has.
    low: u16,
    /// For each port from that one on the set of prefixes that hold for it, or [`NONE`].
    of_port: Vec<u16>,
    sets: Vec<Set>,
}

impl ServerTable {
    /// A table of these places, each with the number that is found for it.
    pub fn new(places: &[(Place, u16)]) -> Self {
        let mut edges: Vec<(u32, bool, u32)> = Vec::with_capacity(places.len() * 2);
        for (i, (place, _)) in places.iter().enumerate() {
            edges.push((u32::from(place.low), true, i as u32));
            edges.push((u32::from(place.high) + 1, false, i as u32));
        }
        edges.sort_unstable();
        let low = edges.first().map_or(0, |e| e.0);
        let end = edges.last().map_or(0, |e| e.0);
        let mut table = Self {
            low: low as u16,
            of_port: vec![NONE; (end - low) as usize],
            sets: Vec::new(),
        };
        let mut known: HashMap<Vec<u32>, u16> = HashMap::new();
        let mut here: BTreeSet<u32> = BTreeSet::new();
        let mut edges = edges.into_iter().peekable();
        while let Some((port, begins, place)) = edges.next() {
            if begins {
                here.insert(place);
            } else {
                here.remove(&place);
            }
            let next = edges.peek().map_or(port, |e| e.0);
            if next == port || here.is_empty() {
                continue;
            }
            let members: Vec<u32> = here.iter().copied().collect();
            let set = *known.entry(members).or_insert_with_key(|members| {
                let of = |i: &u32| {
                    let (place, number) = places[*i as usize];
                    (place.net, number)
                };
                table.sets.push(Set::new(members.iter().map(of)));
                (table.sets.len() - 1) as u16
            });
            table.of_port[(port - low) as usize..(next - low) as usize].fill(set);
        }
        table
    }

    /// The number of the place that this server is in.
    #[inline]
    pub fn get(&self, server: &Endpoint) -> Option<u16> {
        let set = *self
            .of_port
            .get(usize::from(server.port.wrapping_sub(self.low)))?;
        self.sets.get(usize::from(set))?.get(&server.addr)
    }
}

/// Prefixes, each with its number.
#[derive(Clone, Debug)]
enum Set {
    /// The longest first.
    Few(Vec<(Prefix, u16)>),
    /// By their lengths, the longest first.
    Many(Vec<SameLength>),
}

impl Set {
    fn new(prefixes: impl Iterator<Item = (Prefix, u16)>) -> Self {
        let mut all: Vec<(Prefix, u16)> = prefixes.collect();
        // Those of a length stay in the order in which they were given.
        all.sort_by_key(|(p, _)| (std::cmp::Reverse(p.bits()), p.is_v4()));
        if all.len() <= FEW {
            return Self::Few(all);
        }
        let same = |a: &(Prefix, u16), b: &(Prefix, u16)| {
            (a.0.bits(), a.0.is_v4()) == (b.0.bits(), b.0.is_v4())
        };
        Self::Many(all.chunk_by(same).map(SameLength::new).collect())
    }

    #[inline]
    fn get(&self, addr: &Addr) -> Option<u16> {
        match self {
            Self::Few(all) => all.iter().find(|(p, _)| p.contains(addr)).map(|(_, n)| *n),
            Self::Many(lengths) => lengths.iter().find_map(|l| l.get(addr)),
        }
    }
}

/// A hash table of prefixes of one length and family.
#[derive(Clone, Debug)]
struct SameLength {
    v4: bool,
    mask: u128,
    /// How far a hash is shifted to be the number of a slot.
    shift: u32,
    /// A network and its number, or [`NONE`] behind a network that is not there. At most half of
    /// them are in use.
    slots: Vec<(u128, Option<u16>)>,
}

impl SameLength {
    fn new(prefixes: &[(Prefix, u16)]) -> Self {
        let (v4, bits) = prefixes
            .first()
            .map_or((true, 32), |(p, _)| (p.is_v4(), p.bits()));
        let host_bits = u32::from(Prefix::max_len(v4) - bits);
        let size = (prefixes.len() * 2).next_power_of_two();
        let mut table = Self {
            v4,
            mask: u128::MAX.checked_shl(host_bits).unwrap_or(0),
            shift: 64 - size.trailing_zeros(),
            slots: vec![(0, None); size],
        };
        for (prefix, number) in prefixes {
            let network = prefix.addr().number() & table.mask;
            let mut at = table.home(network);
            while table.slots[at].1.is_some() && table.slots[at].0 != network {
                at = (at + 1) % size;
            }
            let slot = &mut table.slots[at];
            *slot = (network, slot.1.or(Some(*number)));
        }
        table
    }

    #[inline]
    fn home(&self, network: u128) -> usize {
        let folded = (network as u64) ^ ((network >> 64) as u64).rotate_left(29);
        (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    #[inline]
    fn get(&self, addr: &Addr) -> Option<u16> {
        if addr.is_v4() != self.v4 {
            return None;
        }
        let network = addr.number() & self.mask;
        let mut at = self.home(network);
        // There is always a free slot, so the search ends.
        loop {
            let (there, number) = self.slots[at];
            if number.is_none() || there == network {
                return number;
            }
            at = (at + 1) % self.slots.len();
        }
    }
}

/// Which transfer a mirrored segment belongs to.
#[derive(Clone, Debug)]
pub struct Sources(ServerTable);

impl Sources {
    /// The sources of these parameters' transfers.
    pub fn new(params: &Params) -> Self {
        let mut places: Vec<(Place, u16)> = target_places(params)
            .map(|(place, _)| (place, TARGET))
            .collect();
        for (i, transfer) in params.transfers.iter().enumerate() {
            let own = transfer.from.iter().flat_map(|origin| {
                let net = origin.net;
                let families = [true, false].into_iter().filter_map(move |v4| match net {
                    Some(net) => (net.is_v4() == v4).then_some(net),
                    None => {
                        // Without a pool a client keeps its address, so it has its target's family.
                        let mut to = transfer.to.iter();
                        let fits = !params.pool.is_empty() || to.any(|t| t.to.addr.is_v4() == v4);
                        fits.then(|| every(v4))
                    }
                });
                families.map(|net| Place {
                    net,
                    low: origin.low,
                    high: origin.high,
                })
            });
            places.extend(own.map(|place| (place, i as u16)));
        }
        Self(ServerTable::new(&places))
    }

    /// The transfer and the direction that a mirrored segment belongs to: `true` is client to
    /// server. The longest prefix wins, and a target is never production: a mirror that sees the
    /// replay too must not feed it back.
    #[inline]
    pub fn transfer_of(&self, flow: &Flow) -> Option<(u16, bool)> {
        self.transfer_from(&flow.dst)
            .map(|t| (t, true))
            .or_else(|| self.transfer_from(&flow.src).map(|t| (t, false)))
    }

    /// The transfer whose production side `server` is.
    #[inline]
    pub fn transfer_from(&self, server: &Endpoint) -> Option<u16> {
        self.0.get(server).filter(|number| *number != TARGET)
    }
}

/// The prefix of all addresses of a family.
fn every(v4: bool) -> Prefix {
    let first = if v4 {
        Addr::v4([0; 4])
    } else {
        Addr::v6([0; 16])
    };
    Prefix::new(first, 0)
}

/// Where the targets are, with their numbers: those of all transfers are counted in order.
fn target_places(params: &Params) -> impl Iterator<Item = (Place, u16)> {
    let targets = params
        .transfers
        .iter()
        .flat_map(|transfer| transfer.to.iter().map(move |target| (transfer, target)));
    targets
        .enumerate()
        .flat_map(|(number, (transfer, target))| {
            let net = Prefix::host(target.to.addr);
            let port = target.to.port;
            let fixed = (port != 0).then_some((port, port));
            let same = transfer.from.iter().filter(move |_| port == 0);
            let ranges = fixed.into_iter().chain(same.map(|o| (o.low, o.high)));
            ranges.map(move |(low, high)| (Place { net, low, high }, number as u16))
        })
}

/// A table of these parameters' targets, by their numbers. Where several transfers have the same
/// target, the first is found.
pub fn targets(params: &Params) -> ServerTable {
    ServerTable::new(&target_places(params).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{Origin, Target, Transfer};

    fn v4(n: u32) -> Addr {
        Addr::v4(n.to_be_bytes())
    }

    fn v6(last: u16) -> Addr {
        let mut a = [0; 16];
        a[0] = 0xfd;
        a[14..].copy_from_slice(&last.to_be_bytes());
        Addr::v6(a)
    }

    /// What is right, place by place.
    fn searched(places: &[(Place, u16)], server: &Endpoint) -> Option<u16> {
        let mut best: Option<(u8, u16)> = None;
        for (place, number) in places {
            let here =
                place.net.contains(&server.addr) && (place.low..=place.high).contains(&server.port);
            if here && best.is_none_or(|b| place.net.bits() > b.0) {
                best = Some((place.net.bits(), *number));
            }
        }
        best.map(|b| b.1)
    }

    #[test]
    fn a_look_up_finds_what_a_search_through_all_places_finds() {
        let mut x = 0x2545_f491_4f6c_dd1d_u64;
        let mut draw = |below: u32| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u32 % below
        };
        for round in 0..if cfg!(miri) { 2 } else { 200 } {
            let count = 1 + draw(if round % 2 == 0 { 6 } else { 120 });
            let places: Vec<(Place, u16)> = (0..count)
                .map(|_| {
                    let host = draw(64);
                    let net = if draw(4) == 0 {
                        Prefix::new(v6(host as u16), [0, 122, 126, 128][draw(4) as usize])
                    } else {
                        Prefix::new(v4(host), [0, 26, 30, 32, 32][draw(5) as usize])
                    };
                    let low = [0, 1, 80, 80, 8_000, 65_000][draw(6) as usize];
                    let wide = [0, 0, 0, 9, 535][draw(5) as usize];
                    let high = low + wide;
                    (Place { net, low, high }, draw(1_000) as u16)
                })
                .collect();
            let table = ServerTable::new(&places);
            for _ in 0..500 {
                let addr = if draw(4) == 0 {
                    v6(draw(80) as u16)
                } else {
                    v4(draw(80))
                };
                let port = [0, 1, 79, 80, 81, 89, 8_005, 8_010, 65_535][draw(9) as usize];
                let server = Endpoint::new(addr, port);
                assert_eq!(
                    table.get(&server),
                    searched(&places, &server),
                    "{server} in {places:?}"
                );
            }
        }
    }

    #[test]
    fn targets_are_no_production_and_the_longest_prefix_is_the_source() {
        let net = |a: [u8; 4], len, low, high| Origin {
            net: Some(Prefix::new(Addr::v4(a), len)),
            low,
            high,
        };
        let to = |a: [u8; 4], port| Target::new(Endpoint::new(Addr::v4(a), port));
        let params = Params::new(
            vec![
                Transfer {
                    from: vec![Origin::any(80), net([10, 10, 0, 0], 24, 8_000, 8_099)],
                    to: vec![to([10, 20, 0, 2], 0), to([10, 20, 0, 3], 9_000)],
                },
                Transfer {
                    from: vec![net([10, 10, 0, 7], 32, 8_050, 8_050)],
                    to: vec![to([10, 20, 0, 3], 9_000)],
                },
            ],
            16,
            64,
        );
        let (sources, ends) = (Sources::new(&params), targets(&params));
        for (addr, port, source, end) in [
            ([10, 10, 0, 7], 8_049, Some(0), None),
            ([10, 10, 0, 7], 8_050, Some(1), None),
            ([10, 10, 0, 8], 8_050, Some(0), None),
            ([10, 10, 1, 8], 8_050, None, None),
            ([10, 10, 1, 8], 80, Some(0), None),
            ([10, 10, 0, 8], 8_100, None, None),
            ([10, 20, 0, 2], 80, None, Some(0)),
            ([10, 20, 0, 2], 8_099, None, Some(0)),
            ([10, 20, 0, 2], 81, None, None),
            ([10, 20, 0, 3], 9_000, None, Some(1)),
            ([10, 20, 0, 3], 80, Some(0), None),
        ] {
            let server = Endpoint::new(Addr::v4(addr), port);
            assert_eq!(sources.transfer_from(&server), source, "{server}");
            assert_eq!(ends.get(&server), end, "{server}");
        }
        let v6 = Endpoint::new(v6(1), 80);
        assert_eq!(sources.transfer_from(&v6), None, "the other family");
    }

    #[test]
    fn an_empty_table_has_nothing() {
        let table = ServerTable::new(&[]);
        assert_eq!(table.get(&Endpoint::new(v4(1), 0)), None);
    }
}
