//! Looking ahead: what the packets of a burst will touch is asked for before the first of them is taken, so that they wait for memory together
//! and not one after the other.
//!
//! Nothing depends on it. Each step reads what the step before has asked for: slots of the table, then sessions or replicas, then what these
//! refer to. A packet whose entry is not in the first slot of its search is left to the search itself.

use super::Core;
use crate::slab::NIL;
use arrayvec::ArrayVec;
use wire::Flow;
use wire::io::{BURST, Payload, Rx};

impl<P: Payload> Core<P> {
    /// Asks for what mirrored segments of these flows will touch. What is beyond a burst is left out.
    #[inline]
    pub fn expect_mirrored<'a, R: Rx>(&self, flows: impl Iterator<Item = &'a Flow>) {
        let hashes: ArrayVec<u32, BURST> = flows
            .take(BURST)
            .filter_map(|flow| match self.params.transfer_of(flow)? {
                (_, true) => Some(self.flows.hash(flow)),
                (_, false) => Some(self.flows.hash(&flow.reversed())),
            })
            .inspect(|hash| R::prefetch(self.flows.slot(*hash)))
            .collect();
        let sids: ArrayVec<u32, BURST> = hashes
            .iter()
            .filter_map(|hash| self.flows.likely(*hash))
            .inspect(|sid| self.ask_for_session::<R>(*sid))
            .collect();
        for sid in sids {
            let rid = self.sessions[sid].first_replica;
            if rid != NIL {
                self.ask_for_replica::<R>(rid);
            }
        }
    }

    /// Asks for what responses of these flows will touch. What is beyond a burst is left out.
    #[inline]
    pub fn expect_responses<'a, R: Rx>(&self, flows: impl Iterator<Item = &'a Flow>) {
        let hashes: ArrayVec<u32, BURST> = flows
            .take(BURST)
            .map(|flow| self.connections.hash(&flow.reversed()))
            .inspect(|hash| R::prefetch(self.connections.slot(*hash)))
            .collect();
        let rids: ArrayVec<u32, BURST> = hashes
            .iter()
            .filter_map(|hash| self.connections.likely(*hash))
            .inspect(|rid| self.ask_for_replica::<R>(*rid))
            .collect();
        for rid in rids {
            self.ask_for_session::<R>(self.replicas[rid].session);
        }
    }

    /// One field for each cache line of a session, about.
    #[inline]
    fn ask_for_session<R: Rx>(&self, sid: u32) {
        let s = &self.sessions[sid];
        R::prefetch(&s.flow);
        R::prefetch(&s.isn);
        R::prefetch(&s.segs);
        R::prefetch(&s.last_seen);
    }

    /// One field for each cache line of a replica, about.
    #[inline]
    fn ask_for_replica<R: Rx>(&self, rid: u32) {
        let r = &self.replicas[rid];
        R::prefetch(&r.session);
        R::prefetch(&r.tcb);
        R::prefetch(&r.una);
        R::prefetch(&r.retry_at);
        if let Some(timer) = self.replica_timers.place(rid) {
            R::prefetch(timer);
        }
    }
}
