//! Looking ahead: what the packets of a burst will touch is asked for before the first of them is
//! taken, so that they wait for memory together and not one after the other.
//!
//! Nothing depends on it. Each step reads what the step before has asked for: slots of the table,
//! then sessions or replicas, then what these refer to. A packet whose entry is not in the first
//! slot of its search is left to the search itself.

use super::{Core, Side};
use crate::slab::NIL;
use crate::table::FlowTable;
use arrayvec::ArrayVec;
use wire::Flow;
use wire::io::{BURST, Payload, Rx};

/// The ids that a table is likely to have for these flows, of a burst at most; `ask` is called with
/// each.
#[inline]
fn likely<R: Rx>(
    table: &FlowTable,
    flows: impl Iterator<Item = Flow>,
    ask: impl Fn(u32),
) -> ArrayVec<u32, BURST> {
    let hashes: ArrayVec<u32, BURST> = flows
        .take(BURST)
        .map(|flow| table.hash(&flow))
        .inspect(|hash| R::prefetch(table.slot(*hash)))
        .collect();
    let ids = hashes.iter().filter_map(|hash| table.likely(*hash));
    ids.inspect(|id| ask(*id)).collect()
}

impl<P: Payload> Core<P> {
    /// Asks for what mirrored segments of these flows will touch. What is beyond a burst is left
    /// out.
    #[inline]
    pub fn expect_mirrored<R: Rx>(&self, sides: impl Iterator<Item = Side> + Clone) {
        let sides = sides.take(BURST);
        let (flows, half_open) = (&self.capture.flows, &self.capture.half_open);
        for side in sides.clone() {
            R::prefetch(flows.slot(side.hash));
        }
        let mut sids = ArrayVec::<u32, BURST>::new();
        let mut strangers = ArrayVec::<u32, BURST>::new();
        for side in sides {
            match flows.likely(side.hash) {
                Some(sid) => {
                    self.ask_for_session::<R>(sid);
                    sids.push(sid);
                }
                // A handshake may be under way.
                None => {
                    R::prefetch(half_open.places(side.hash).0);
                    strangers.push(side.hash);
                }
            }
        }
        for hash in strangers {
            if let Some(entry) = half_open.places(hash).1 {
                R::prefetch(entry);
                R::prefetch(&entry.server_isn);
            }
        }
        for sid in sids {
            let feed = self.replicas.first_feed(sid) as usize;
            let rid = self.replicas.feeds[feed].first_replica;
            if rid != NIL {
                self.ask_for_replica::<R>(rid);
            }
        }
    }

    /// Asks for what responses of these flows will touch. What is beyond a burst is left out.
    #[inline]
    pub fn expect_responses<'a, R: Rx>(&self, flows: impl Iterator<Item = &'a Flow>) {
        let ours = flows.map(|flow| flow.reversed());
        let rids = likely::<R>(&self.replicas.connections, ours, |rid| {
            self.ask_for_replica::<R>(rid)
        });
        for rid in rids {
            let feed = self.replicas.replicas[rid].feed;
            self.ask_for_session::<R>(self.replicas.session(feed));
        }
    }

    /// One field for each cache line of a session, about.
    #[inline]
    fn ask_for_session<R: Rx>(&self, sid: u32) {
        let s = &self.capture.sessions[sid];
        R::prefetch(&s.flow);
        R::prefetch(&s.isn);
        R::prefetch(&s.acked);
        R::prefetch(&s.last_seen);
        let feed = self.replicas.first_feed(sid) as usize;
        R::prefetch(&self.replicas.feeds[feed].segs);
    }

    /// One field for each cache line of a replica, about.
    #[inline]
    fn ask_for_replica<R: Rx>(&self, rid: u32) {
        let r = &self.replicas.replicas[rid];
        R::prefetch(&r.feed);
        R::prefetch(&r.tcb);
        R::prefetch(&r.una);
        R::prefetch(&r.blocked_since);
        if let Some(timer) = self.replicas.timers.place(rid) {
            R::prefetch(timer);
        }
    }
}
