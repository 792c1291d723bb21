//! Handshakes under way: what is known of a connection before production has accepted it.
//!
//! They live in a table of their own, for a time, that takes no room from sessions. When it is full
//! the oldest goes first, and one that the server has not answered before one that it has, so that
//! a flood of SYNs costs a handshake its place only after all older ones have lost theirs.

use crate::piece::Piece;
use crate::slab::{NIL, Slab};
use crate::table::FlowTable;
use wire::io::Payload;
use wire::{Flow, Nanos, Seq};

/// How long a request waits for its next segment, on the capture's clock.
pub(super) const LIFETIME: Nanos = 10_000_000_000;
/// The same for one that the server has answered. Of one that was accepted the mirror may have lost
/// the acknowledgment, and the client may think before it speaks; of one that was not, the server
/// itself gives up after a minute.
pub(super) const ANSWERED_LIFETIME: Nanos = 120_000_000_000;
/// Handshakes that a core knows of at most.
const MOST: usize = 1 << 18;
const LEAST: usize = 1 << 10;

/// What comes with SYNs is kept of so many handshakes at most.
const PAYLOADS: usize = 1 << 12;

/// A handshake under way.
#[derive(Clone, Copy)]
pub(crate) struct HalfOpen {
    /// Client to server, in production, and its hash.
    pub flow: Flow,
    hash: u32,
    /// Of the client's segments, and of the server's.
    pub scope: u32,
    pub server_scope: u32,
    pub transfer: u16,
    /// The client's initial sequence number.
    pub isn: Seq,
    /// The client's SYN was shown, and not the server's answer alone.
    pub client_shown: bool,
    /// Frames with SYN that were shown, of both ends.
    pub syns: u32,
    /// What the client's SYN says of segments it can receive.
    pub mss: Option<u16>,
    /// The server's initial sequence number, if its SYN was shown.
    pub server_isn: Option<Seq>,
    /// The server's window scale shift, if it is known, and the window in its SYN.
    pub server_shift: Option<u8>,
    pub server_window: u16,
    /// When the latest of its segments was captured.
    pub at: Nanos,
    /// When it is forgotten.
    pub due: Nanos,
    /// What came with the SYN (RFC 7413): its length, and where it is kept.
    pub payload_len: u32,
    payload: u32,
    older: u32,
    newer: u32,
    /// The list it is in.
    listed: u8,
}

impl HalfOpen {
    /// Which of the table's lists it belongs to.
    fn list(&self) -> usize {
        usize::from(self.server_isn.is_some())
    }

    pub fn new(flow: Flow, hash: u32, transfer: u16, scope: u32, isn: Seq) -> Self {
        Self {
            flow,
            hash,
            scope,
            server_scope: scope,
            transfer,
            isn,
            client_shown: false,
            syns: 0,
            mss: None,
            server_isn: None,
            server_shift: None,
            server_window: 0,
            at: 0,
            due: 0,
            payload_len: 0,
            payload: NIL,
            older: NIL,
            newer: NIL,
            listed: 0,
        }
    }
}

/// The ends of a list in the order of age.
#[derive(Clone, Copy)]
struct Ages {
    oldest: u32,
    newest: u32,
}

/// See the module's documentation.
pub(crate) struct HalfOpenTable<P> {
    entries: Slab<HalfOpen>,
    payloads: Slab<Option<Piece<P>>>,
    flows: FlowTable,
    /// Of those that the server has not answered, and of those that it has: each lives equally
    /// long.
    ages: [Ages; 2],
}

impl<P> HalfOpenTable<P> {
    /// A table beside one for `sessions` sessions.
    pub fn new(sessions: usize, seed: u64) -> Self {
        let capacity = sessions.clamp(LEAST, MOST);
        Self {
            entries: Slab::new(capacity),
            payloads: Slab::new(capacity.min(PAYLOADS)),
            flows: FlowTable::new(capacity, seed),
            ages: [Ages {
                oldest: NIL,
                newest: NIL,
            }; 2],
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The handshake of this flow, which has this hash, for which `is` holds, if its time is not
    /// over.
    #[inline]
    pub fn find(
        &self,
        time: Nanos,
        hash: u32,
        flow: &Flow,
        is: impl Fn(&HalfOpen) -> bool,
    ) -> Option<u32> {
        if self.entries.len() == 0 {
            return None;
        }
        let entries = &self.entries;
        let is = |id| entries[id].due > time && is(&entries[id]);
        self.flows.find(hash, flow, |id| entries[id].flow, is)
    }

    /// See [`FlowTable::longest_walk`].
    pub fn longest_walk(&self) -> usize {
        self.flows.longest_walk()
    }

    /// Where the search for a flow with this hash begins, and the entry that is likely found there:
    /// what is touched by it.
    #[inline]
    pub fn places(&self, hash: u32) -> (&u64, Option<&HalfOpen>) {
        let likely = self.flows.likely(hash).map(|id| &self.entries[id]);
        (self.flows.slot(hash), likely)
    }

    pub fn get(&self, id: u32) -> &HalfOpen {
        &self.entries[id]
    }

    /// Keeps what came with the SYN, the first of it.
    pub fn keep(&mut self, id: u32, piece: Piece<P>)
    where
        P: Payload,
    {
        let len = piece.len();
        let entry = &mut self.entries[id];
        if entry.payload == NIL
            && let Ok(kept) = self.payloads.alloc(Some(piece))
        {
            entry.payload = kept;
            entry.payload_len = len;
        }
    }

    pub fn get_mut(&mut self, id: u32) -> &mut HalfOpen {
        &mut self.entries[id]
    }

    /// Puts one in, as the newest. Its id, and whether the oldest had to go.
    pub fn insert(&mut self, time: Nanos, entry: HalfOpen) -> (u32, bool) {
        let full = self.entries.len() == self.entries.capacity();
        if full {
            let [asking, answered] = self.ages;
            let asks = asking.oldest != NIL;
            self.remove(if asks { asking.oldest } else { answered.oldest });
        }
        let hash = entry.hash;
        let id = self.entries.alloc(entry).unwrap_or(NIL);
        if id != NIL {
            self.flows.insert_hashed(hash, id);
            self.link(time, id);
        }
        (id, full)
    }

    /// Something was shown of it: it lives longer.
    pub fn touch(&mut self, time: Nanos, id: u32) {
        self.unlink(id);
        self.link(time, id);
    }

    /// Takes one out, with what came with its SYN.
    pub fn remove(&mut self, id: u32) -> Option<(HalfOpen, Option<Piece<P>>)> {
        if id == NIL {
            return None;
        }
        self.unlink(id);
        let entry = self.entries[id];
        self.flows.remove_hashed(entry.hash, id);
        self.entries.free(id);
        let mut payload = None;
        if entry.payload != NIL {
            payload = self.payloads[entry.payload].take();
            self.payloads.free(entry.payload);
        }
        Some((entry, payload))
    }

    /// Takes the oldest out, if its time is over at `time`.
    pub fn expire(&mut self, time: Nanos) -> Option<HalfOpen> {
        let oldest = self.ages.map(|a| a.oldest);
        let over = |id: u32| id != NIL && self.entries[id].due <= time;
        let id = oldest.into_iter().find(|id| over(*id))?;
        self.remove(id).map(|(entry, _)| entry)
    }

    fn link(&mut self, time: Nanos, id: u32) {
        let list = self.entries[id].list();
        let ages = &mut self.ages[list];
        let newest = std::mem::replace(&mut ages.newest, id);
        if newest == NIL {
            ages.oldest = id;
        } else {
            self.entries[newest].newer = id;
        }
        let entry = &mut self.entries[id];
        entry.due = time + [LIFETIME, ANSWERED_LIFETIME][list];
        entry.older = newest;
        entry.newer = NIL;
        entry.listed = list as u8;
    }

    fn unlink(&mut self, id: u32) {
        let entry = &self.entries[id];
        let (older, newer) = (entry.older, entry.newer);
        let list = usize::from(entry.listed);
        match older {
            NIL => self.ages[list].oldest = newer,
            older => self.entries[older].newer = newer,
        }
        match newer {
            NIL => self.ages[list].newest = older,
            newer => self.entries[newer].older = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tests::memory::MemoryPayload as NoPayload;
    use wire::{Addr, Endpoint};

    fn flow(n: u16) -> Flow {
        Flow {
            src: Endpoint::new(Addr::v4([10, 0, 0, 1]), n),
            dst: Endpoint::new(Addr::v4([10, 0, 0, 2]), 80),
        }
    }

    fn hash(n: u16) -> u32 {
        u32::from(n).wrapping_mul(0x9e37_79b1)
    }

    fn table() -> HalfOpenTable<NoPayload> {
        HalfOpenTable::new(0, 7)
    }

    fn entry(n: u16, scope: u32) -> HalfOpen {
        HalfOpen::new(flow(n), hash(n), 0, scope, Seq(u32::from(n)))
    }

    #[test]
    fn the_oldest_goes_first_when_it_is_full_and_when_its_time_is_over() {
        let mut t = table();
        for n in 0..LEAST as u16 {
            assert!(!t.insert(Nanos::from(n), entry(n, 0)).1);
        }
        let zero = t.find(0, hash(0), &flow(0), |_| true).unwrap();
        assert!(
            t.find(LIFETIME, hash(0), &flow(0), |_| true).is_none(),
            "too late"
        );
        t.touch(2_000, zero);
        assert!(t.insert(2_001, entry(5_000, 0)).1);
        assert_eq!(t.len(), LEAST);
        assert!(
            t.find(0, hash(1), &flow(1), |_| true).is_none(),
            "it was the oldest"
        );
        assert!(t.find(0, hash(0), &flow(0), |_| true).is_some());
        let mut gone = Vec::new();
        while let Some(e) = t.expire(LIFETIME + 10) {
            gone.push(e.isn.0);
        }
        assert_eq!(gone, (2..=10).collect::<Vec<_>>());
    }

    #[test]
    fn an_answered_one_outlives_those_that_only_ask() {
        let mut t = table();
        t.insert(0, entry(0, 0));
        let zero = t.find(0, hash(0), &flow(0), |_| true).unwrap();
        t.get_mut(zero).server_isn = Some(Seq(1));
        t.touch(0, zero);
        for n in 1..3_000 {
            t.insert(1, entry(n, 0));
        }
        assert!(t.find(1, hash(0), &flow(0), |_| true).is_some());
        while t.expire(LIFETIME + 1).is_some() {}
        assert_eq!(t.len(), 1);
        assert!(t.expire(ANSWERED_LIFETIME - 1).is_none());
        assert_eq!(t.expire(ANSWERED_LIFETIME).unwrap().flow, flow(0));
    }

    #[test]
    fn one_flow_in_two_scopes_is_two_handshakes() {
        let mut t = table();
        t.insert(0, entry(1, 10));
        t.insert(0, entry(1, 20));
        let ten = t.find(0, hash(1), &flow(1), |e| e.scope == 10).unwrap();
        let twenty = t.find(0, hash(1), &flow(1), |e| e.scope == 20).unwrap();
        assert_ne!(ten, twenty);
        assert_eq!(t.remove(ten).unwrap().0.scope, 10);
        assert!(t.find(0, hash(1), &flow(1), |e| e.scope == 10).is_none());
        assert_eq!(t.find(0, hash(1), &flow(1), |_| true), Some(twenty));
        assert_eq!(t.len(), 1);
    }
}
