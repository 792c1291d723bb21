//! Flow tables: from a connection's two endpoints to the id of what is kept for it, with one hash
//! and, as a rule, one cache line a packet.
//!
//! Open addressing with linear probing. An entry is eight bytes, half a hash and a 32-bit id; the
//! key lives in the slab the id points into, so it is not kept twice and is only looked at when the
//! half hash agrees. Removal closes the gap it leaves, so there are no tombstones: a table never
//! grows and never needs to be rebuilt, however long it is used. The hash is seeded, so that
//! addresses chosen by a stranger cannot make chains.

use wire::hash::KeyedHash;
use wire::{Endpoint, Flow};

/// See the module's documentation.
pub struct FlowTable {
    /// Half a hash above an id plus one; 0 is free. Zeroed memory, so that pages of a large table
    /// are touched only when used.
    slots: Vec<u64>,
    used: usize,
    capacity: usize,
    longest: usize,
    hasher: KeyedHash,
}

#[inline]
fn hash(hasher: &KeyedHash, src: &Endpoint, dst: &Endpoint) -> u32 {
    (hasher.ends(src, dst) >> 32) as u32
}

const fn entry(hash: u32, id: u32) -> u64 {
    (hash as u64) << 32 | (id as u64 + 1)
}

const fn hash_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

const fn id_of(entry: u64) -> u32 {
    (entry as u32).wrapping_sub(1)
}

impl FlowTable {
    /// What room for one flow costs: two thirds of the slots are used at most, which keeps chains
    /// at about two entries.
    pub const BYTES_PER_FLOW: usize = size_of::<u64>() * 3 / 2;

    /// A table for `capacity` flows.
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self {
            slots: vec![0; capacity + capacity / 2 + 8],
            used: 0,
            capacity,
            longest: 0,
            hasher: KeyedHash::new(seed),
        }
    }

    /// Where the search for a hash begins: hashes are spread over the slots in their order.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.slots.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() {
            0
        } else {
            at + 1
        }
    }

    /// The id kept for `flow`; `key` tells the flow of an id.
    #[inline]
    pub fn get(&self, flow: &Flow, key: impl Fn(u32) -> Flow) -> Option<u32> {
        let hash = self.hash(flow);
        let mut at = self.home(hash);
        // There is always a free slot, so the search ends.
        while self.slots[at] != 0 {
            let found = self.slots[at];
            if hash_of(found) == hash && key(id_of(found)) == *flow {
                return Some(id_of(found));
            }
            at = self.after(at);
        }
        None
    }

    /// The first id kept for `flow`, which has this hash, for which `is` holds: more than one may
    /// be.
    #[inline]
    pub fn find(
        &self,
        hash: u32,
        flow: &Flow,
        key: impl Fn(u32) -> Flow,
        is: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let mut at = self.home(hash);
        while self.slots[at] != 0 {
            let found = self.slots[at];
            let id = id_of(found);
            if hash_of(found) == hash && key(id) == *flow && is(id) {
                return Some(id);
            }
            at = self.after(at);
        }
        None
    }

    /// What [`Self::slot`] and [`Self::likely`] find a flow by.
    #[inline]
    pub fn hash(&self, flow: &Flow) -> u32 {
        hash(&self.hasher, &flow.src, &flow.dst)
    }

    /// [`Self::hash`] of the same flow in the other direction.
    #[inline]
    pub fn hash_reversed(&self, flow: &Flow) -> u32 {
        hash(&self.hasher, &flow.dst, &flow.src)
    }

    /// The slot at which the search for a hash begins.
    #[inline]
    pub fn slot(&self, hash: u32) -> &u64 {
        &self.slots[self.home(hash)]
    }

    /// The id in that slot, if it is likely to be the one that is searched for.
    #[inline]
    pub fn likely(&self, hash: u32) -> Option<u32> {
        let found = *self.slot(hash);
        (found != 0 && hash_of(found) == hash).then(|| id_of(found))
    }

    /// Keeps `id` for its flow, beside others that may be kept for it. A table that is full, which
    /// the slab of its ids rules out, takes no more.
    #[inline]
    pub fn insert(&mut self, id: u32, key: impl Fn(u32) -> Flow) {
        self.insert_hashed(self.hash(&key(id)), id);
    }

    /// [`Self::insert`] for a flow with this hash.
    #[inline]
    pub fn insert_hashed(&mut self, hash: u32, id: u32) {
        debug_assert!(self.used < self.capacity);
        if self.used >= self.capacity {
            return;
        }
        let mut at = self.home(hash);
        let mut walked = 0;
        while self.slots[at] != 0 {
            at = self.after(at);
            walked += 1;
        }
        self.longest = self.longest.max(walked);
        self.slots[at] = entry(hash, id);
        self.used += 1;
    }

    /// Forgets `id`, if the table holds that very id for `flow`.
    #[inline]
    pub fn remove(&mut self, id: u32, flow: &Flow) {
        self.remove_hashed(self.hash(flow), id);
    }

    /// [`Self::remove`] for a flow with this hash.
    #[inline]
    pub fn remove_hashed(&mut self, hash: u32, id: u32) {
        let wanted = entry(hash, id);
        let mut at = self.home(hash_of(wanted));
        while self.slots[at] != wanted {
            if self.slots[at] == 0 {
                return;
            }
            at = self.after(at);
        }
        self.used -= 1;
        self.close(at);
    }

    /// Frees the slot `gap` and moves up what would not be found beyond it.
    fn close(&mut self, mut gap: usize) {
        let mut at = gap;
        loop {
            at = self.after(at);
            let moved = self.slots[at];
            if moved == 0 {
                break;
            }
            let home = self.home(hash_of(moved));
            // An entry stays if its home lies behind the gap, on the way from the gap to where it
            // is.
            let stays = if gap <= at {
                gap < home && home <= at
            } else {
                gap < home || home <= at
            };
            if !stays {
                self.slots[gap] = moved;
                gap = at;
            }
        }
        self.slots[gap] = 0;
    }

    /// Most slots that were ever walked to place a flow. It grows with the logarithm of the
    /// capacity, unless flows were chosen to meet.
    pub fn longest_walk(&self) -> usize {
        self.longest
    }

    /// How many flows it holds.
    pub fn len(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldhash::fast::FixedState;
    use std::collections::hash_map::Entry;
    use std::collections::{HashMap, HashSet};
    use std::hash::{BuildHasher, Hasher};
    use wire::Addr;

    fn flow(n: u32) -> Flow {
        let [a, b, c, d] = n.to_be_bytes();
        Flow {
            src: Endpoint::new(Addr::v4([10, b, c, d]), 1_000 + u16::from(a)),
            dst: Endpoint::new(Addr::v4([192, 0, 2, 1]), 80),
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn agrees_with_a_map_through_a_long_churn_at_full_load_and_never_grows() {
        const CAPACITY: usize = 500;
        let mut table = FlowTable::new(CAPACITY, 7);
        let slots = (table.slots.len(), table.slots.as_ptr());
        let mut flows = vec![None; CAPACITY];
        let mut model = HashMap::new();
        let mut x = 88_172_645_463_325_252_u64;
        for round in 0..200_000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let id = (x % CAPACITY as u64) as usize;
            // Mostly full: a free id is taken at once, a taken one is freed now and then.
            match flows[id].take() {
                Some(old) if x >> 32 & 1 == 0 => {
                    table.remove(id as u32, &old);
                    assert_eq!(model.remove(&old), Some(id as u32));
                }
                Some(old) => flows[id] = Some(old),
                None => {
                    let new = flow((x >> 16) as u32);
                    if let Entry::Vacant(vacant) = model.entry(new) {
                        vacant.insert(id as u32);
                        flows[id] = Some(new);
                        table.insert(id as u32, |id| flows[id as usize].unwrap());
                    }
                }
            }
            let asked = flow((x >> 20) as u32);
            for f in flows[id].iter().chain([&asked]) {
                let found = table.get(f, |id| flows[id as usize].unwrap());
                assert_eq!(found, model.get(f).copied(), "round {round}");
                let hash = table.hash(f);
                if hash_of(*table.slot(hash)) == hash {
                    assert_eq!(table.likely(hash), found, "round {round}");
                }
            }
            assert_eq!(table.len(), model.len());
        }
        for (f, id) in &model {
            assert_eq!(table.get(f, |id| flows[id as usize].unwrap()), Some(*id));
        }
        assert_eq!(slots, (table.slots.len(), table.slots.as_ptr()));
    }

    #[test]
    fn an_id_that_is_not_kept_for_the_flow_is_not_removed() {
        let mut table = FlowTable::new(4, 0);
        let flows = [flow(1), flow(2)];
        table.insert(0, |id| flows[id as usize]);
        table.remove(1, &flows[0]);
        table.remove(0, &flows[1]);
        assert_eq!(table.get(&flows[0], |id| flows[id as usize]), Some(0));
        table.remove(0, &flows[0]);
        assert_eq!(table.len(), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn flows_made_to_collide_in_a_hash_with_known_steps_spread() {
        const FLOWS: usize = 100_000;
        // An interface identifier that foldhash's own first step multiplies to zero whatever the
        // seed is; the client's network is then forgotten.
        let known: u64 = 0xc0ac_29b7_c97c_50dd;
        let flows: Vec<Flow> = (0..FLOWS as u64)
            .map(|n| {
                let client = u128::from(n) << 64 | u128::from(known.swap_bytes());
                Flow {
                    src: Endpoint::new(Addr::from_number(client), 1_000),
                    ..flow(1)
                }
            })
            .collect();
        for seed in [7, 0xfeed_f00d_dead_beef] {
            let fixed = FixedState::with_seed(seed);
            let distinct: HashSet<u64> =
                flows.iter().map(|f| with_known_steps(&fixed, f)).collect();
            assert_eq!(distinct.len(), 1, "the attack");
            let mut table = FlowTable::new(FLOWS, seed);
            for id in 0..FLOWS as u32 {
                table.insert(id, |id| flows[id as usize]);
            }
            // At two thirds full, as with flows that nobody has chosen.
            let longest = table.longest_walk();
            assert!(longest < 200, "seed {seed}: {longest}");
            let last = FLOWS - 1;
            let found = table.get(&flows[last], |id| flows[id as usize]);
            assert_eq!(found, Some(last as u32));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn flows_that_meet_under_one_seed_do_not_under_another() {
        // A stranger who knew the seed could choose these: all in one hundredth of a table.
        let mut table = FlowTable::new(1_000, 1);
        let near = |table: &FlowTable, f: &Flow| table.home(table.hash(f)) < 15;
        let chosen: Vec<Flow> = (0..)
            .map(flow)
            .filter(|f| near(&table, f))
            .take(1_000)
            .collect();
        for (seed, chains) in [(1, true), (2, false)] {
            table = FlowTable::new(1_000, seed);
            for id in 0..1_000 {
                table.insert(id, |id| chosen[id as usize]);
            }
            let longest = table.longest_walk();
            assert_eq!(longest > 900, chains, "seed {seed}: {longest}");
            assert!(chains || longest < 100, "seed {seed}: {longest}");
        }
    }

    fn with_known_steps(hasher: &FixedState, flow: &Flow) -> u64 {
        let mut h = hasher.build_hasher();
        h.write_u128(u128::from_ne_bytes(*flow.src.addr.bytes()));
        h.write_u128(u128::from_ne_bytes(*flow.dst.addr.bytes()));
        h.write_u32(u32::from(flow.src.port) << 16 | u32::from(flow.dst.port));
        h.finish()
    }
}
