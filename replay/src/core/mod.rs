//! One worker core's sessions, and what happens to them.
//!
//! [`Core::mirror`] takes decoded frames of the mirror (`capture`, `stream`, `gap`),
//! [`Core::response`] segments of the target (`respond`), [`Core::poll`] fires timers (`timers`).
//! Each pumps the replicas it concerns (`pump`); losses on the way to the target are mended in
//! `recover`; what cannot be kept is settled as lost in `settle`; sessions begin and end in
//! `lifecycle`. [`Core::audit`] checks all of it.

mod ahead;
mod audit;
mod capture;
mod early;
mod gap;
mod lifecycle;
mod pump;
mod recover;
mod respond;
mod settle;
mod stream;
mod timers;

#[cfg(test)]
mod tests;

use crate::counters::Counters;
use crate::params::{Params, Transfer};
use crate::session::{Replica, Seg, Session, Turn};
use crate::slab::{NIL, Slab};
use crate::slots::Slots;
use crate::table::FlowTable;
use crate::tcp::sack::Scoreboard;
use crate::wheel::Wheel;
use std::ops::Range;
use wire::io::Payload;
use wire::{Endpoint, Flow, Head, Nanos};

/// Connections a core has room for, unless it has more sessions than that: a thousand copies of a
/// million sessions are no plan. Copies beyond count as lost for [`crate::Loss::NoAddress`].
const MAX_REPLICAS: usize = 1 << 22;

/// Why a segment could not be handed to the transmit queue. Either way it is tried again later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The queue is full or buffers are short.
    Busy,
    /// The next hop towards the target has not answered ARP or ND.
    Unreachable,
}

/// Where a core's segments and claims go.
pub trait Egress<P> {
    /// Sends one segment to `transfers[transfer].to`; `range` of the payload's bytes stands behind
    /// the header. The payload stays with the caller.
    fn send(
        &mut self,
        transfer: u16,
        head: &Head,
        payload: Option<(&mut P, Range<usize>)>,
    ) -> Result<(), Refused>;

    /// A connection from `client` to that target is about to open: responses to it belong to this
    /// core. Not called for pool addresses, which are claimed as a slice once. False if the
    /// claim could not be made: its responses would not come, so it must not open.
    fn claim(&mut self, client: &Endpoint, transfer: u16) -> bool;

    /// That connection is over.
    fn release(&mut self, client: &Endpoint, transfer: u16);

    /// False while new sessions are to be shed: no intercept is up, or buffers are short.
    fn accepts_sessions(&self) -> bool;
}

/// The session core of one worker. See the crate's documentation for what always holds.
pub struct Core<P> {
    params: Params,
    sessions: Slab<Session>,
    replicas: Slab<Replica>,
    segs: Slab<Seg<P>>,
    turns: Slab<Turn>,
    /// Scoreboards of replicas that recover from a loss.
    boards: Slab<Scoreboard>,
    /// Production flow, client to server, to session.
    flows: FlowTable,
    /// Target-side flow, client to target, to replica.
    connections: FlowTable,
    session_timers: Wheel,
    replica_timers: Wheel,
    slots: Vec<Slots>,
    counters: Counters,
    /// When the frame of the mirror that is being looked at was captured: production's clock,
    /// which in an offline replay is the file's.
    seen: Nanos,
    /// Replicas that are not done.
    active: usize,
    /// No new sessions, and nothing waits for more capture: the engine is stopping.
    draining: bool,
}

impl<P: Payload> Core<P> {
    /// A core with all its memory reserved. `now` is the time of the first call that follows, or
    /// before it.
    pub fn new(params: Params, now: Nanos) -> Self {
        let copies = usize::from(params.copies.max(1));
        let replicas = params
            .max_sessions
            .saturating_mul(copies)
            .min(MAX_REPLICAS.max(params.max_sessions));
        let slots = params
            .pool
            .iter()
            .map(|s| Slots::new(*s, params.seed))
            .collect();
        Self {
            sessions: Slab::new(params.max_sessions),
            replicas: Slab::new(replicas),
            segs: Slab::new(params.max_segments),
            // Every unsettled turn but the newest of a session holds a segment.
            turns: Slab::new(params.max_segments.saturating_add(params.max_sessions)),
            boards: Slab::new((replicas / 16).max(64)),
            flows: FlowTable::new(params.max_sessions, params.seed),
            connections: FlowTable::new(replicas, params.seed.rotate_left(32)),
            session_timers: Wheel::new(params.max_sessions, now),
            replica_timers: Wheel::new(replicas, now),
            slots,
            counters: Counters::default(),
            seen: now,
            active: 0,
            draining: false,
            params,
        }
    }

    /// What it has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Its parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Sessions it holds now.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Captured segments it holds now.
    pub fn segment_count(&self) -> usize {
        self.segs.len()
    }

    /// Pool addresses in use and in all.
    pub fn slots(&self) -> (usize, usize) {
        self.slots
            .iter()
            .fold((0, 0), |(u, c), s| (u + s.used(), c + s.capacity()))
    }

    /// Bytes of one session with one replica, tables and timers included: what an idle session
    /// costs.
    pub const fn bytes_per_session() -> usize {
        const TABLE_ENTRY: usize = FlowTable::BYTES_PER_FLOW;
        const TIMER: usize = Wheel::BYTES_PER_TIMER;
        const FREE_LINK: usize = 4;
        size_of::<Session>() + size_of::<Replica>() + 2 * (TABLE_ENTRY + TIMER + FREE_LINK)
    }

    /// The transfer of a session or a replica.
    fn transfer(&self, transfer: u16) -> &Transfer {
        &self.params.transfers[usize::from(transfer)]
    }

    /// The target of a replica.
    fn target(&self, transfer: u16) -> Endpoint {
        self.transfer(transfer).to
    }

    fn session_by_flow(&self, flow: &Flow) -> Option<u32> {
        let sessions = &self.sessions;
        self.flows.get(flow, |id| sessions[id].flow)
    }

    fn replica_by_flow(&self, flow: &Flow) -> Option<u32> {
        let (replicas, transfers) = (&self.replicas, &self.params.transfers);
        self.connections.get(flow, |id| {
            let r = &replicas[id];
            r.flow(transfers[usize::from(r.transfer)].to)
        })
    }

    /// Calls `f` with each replica of a session.
    fn for_replicas(&mut self, sid: u32, mut f: impl FnMut(&mut Self, u32)) {
        let mut rid = self.sessions[sid].first_replica;
        while rid != NIL {
            let next = self.replicas[rid].next;
            f(self, rid);
            rid = next;
        }
    }
}
