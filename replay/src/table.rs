//! Flow tables: from a connection's two endpoints to the id of what is kept for it, with one hash and one probe a packet.
//!
//! Entries are bare 32-bit ids (5 bytes each, control byte included); the key lives in the slab the id points into, so it is
//! not kept twice. The hash is seeded, so that addresses chosen by a stranger cannot make chains.

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};
use wire::Flow;

/// See the module's documentation.
pub struct FlowTable {
    ids: HashTable<u32>,
    hasher: FixedState,
}

#[inline]
fn hash(hasher: &FixedState, flow: &Flow) -> u64 {
    let words = |b: &[u8; 16]| {
        let v = u128::from_ne_bytes(*b);
        (v as u64, (v >> 64) as u64)
    };
    let ((s0, s1), (d0, d1)) = (words(flow.src.addr.bytes()), words(flow.dst.addr.bytes()));
    let mut h = hasher.build_hasher();
    h.write_u64(s0);
    h.write_u64(s1);
    h.write_u64(d0);
    h.write_u64(d1);
    h.write_u32(u32::from(flow.src.port) << 16 | u32::from(flow.dst.port));
    h.finish()
}

impl FlowTable {
    /// A table for `capacity` flows.
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self {
            ids: HashTable::with_capacity(capacity),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// The id kept for `flow`; `key` tells the flow of an id.
    #[inline]
    pub fn get(&self, flow: &Flow, key: impl Fn(u32) -> Flow) -> Option<u32> {
        self.ids
            .find(hash(&self.hasher, flow), |&id| key(id) == *flow)
            .copied()
    }

    /// Keeps `id` for its flow, which must not be in the table.
    #[inline]
    pub fn insert(&mut self, id: u32, key: impl Fn(u32) -> Flow) {
        let hasher = &self.hasher;
        // The capacity is the slab's, so this re-hashes only to clear away tombstones.
        self.ids
            .insert_unique(hash(hasher, &key(id)), id, |&id| hash(hasher, &key(id)));
    }

    /// Forgets `id`, if the table holds that very id for `flow`.
    #[inline]
    pub fn remove(&mut self, id: u32, flow: &Flow) {
        if let Ok(entry) = self
            .ids
            .find_entry(hash(&self.hasher, flow), |&other| other == id)
        {
            entry.remove();
        }
    }

    /// How many flows it holds.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if it holds none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}
