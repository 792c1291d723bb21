//! The replica half: client connections to the targets, which carry what was captured.
//!
//! A session's events come in through the capture half's [`Sink`](crate::capture::sink::Sink)
//! (`feed`), answers of the target through [`Replicas::response`] (`receive`), time through
//! [`Replicas::poll`] (`timers`). Segments leave through [`Egress`] (`send`); what is lost on the
//! way is sent again by `retransmit`. `gate` decides when a turn may go, `turns` settles each as
//! replayed or lost, `connection` opens and ends connections, `canary` says how many may be opened
//! to a target that has not answered yet, `budget` what a target may hold when room is short,
//! `address` finds the client addresses that the targets see. This half knows no mirror.
//!
//! What always holds: a byte that is sent was captured, and goes out under the sequence number it
//! had in production; every turn of every replica is settled once, with its bytes; somebody looks
//! again at whatever waits.

mod address;
mod blocked;
mod budget;
pub(crate) mod canary;
mod connection;
pub(crate) mod data;
mod feed;
pub(crate) mod gate;
mod passage;
mod receive;
mod retransmit;
mod send;
mod targets;
mod timers;
mod turns;

pub(crate) use feed::Door;

use crate::core::Egress;
use crate::counters::TargetCounters;
use crate::ledger::Ledger;
use crate::params::Params;
use crate::piece::Charge;
use crate::slab::{NIL, Slab};
use crate::slots::Slots;
use crate::table::FlowTable;
use crate::tcp::sack::Scoreboard;
use crate::wheel::Wheel;
use blocked::Blocked;
use budget::Budget;
use canary::Canary;
use data::{Feed, Replica, Seg, Turn};
use passage::Leaving;
use std::sync::Arc;
use targets::Targets;
use wire::io::Payload;
use wire::{Endpoint, Flow, Nanos};

/// Connections a core has room for, unless it has more sessions than that: a thousand copies of a
/// million sessions are no plan. Copies beyond count as lost for [`crate::Loss::NoAddress`].
const MAX_REPLICAS: usize = 1 << 22;

/// See the module's documentation.
pub(crate) struct Replicas<P> {
    params: Arc<Params>,
    pub ledger: Ledger,
    /// For each session, by its id in the capture half, what its replicas are fed with.
    pub feeds: Vec<Feed>,
    pub replicas: Slab<Replica>,
    pub segs: Slab<Seg<P>>,
    /// Segments that the capture half holds: they count like those here.
    pub reserved: usize,
    /// Segments of both halves that hold the buffer of a received frame.
    pub frames: usize,
    pub turns: Slab<Turn>,
    /// Scoreboards of replicas that recover from a loss.
    pub boards: Slab<Scoreboard>,
    /// Target-side flow, client to target, to replica.
    pub connections: FlowTable,
    pub timers: Wheel,
    pub slots: Vec<Slots>,
    blocked: Blocked,
    pub canary: Canary,
    budget: Budget,
    pub targets: Targets,
    leaving: Leaving,
    /// Replicas that are not done.
    pub active: usize,
    /// Segments passed over in search of those to be sent again.
    #[cfg(test)]
    pub steps: u64,
}

/// Replicas there is room for.
pub(crate) fn max_replicas(params: &Params) -> usize {
    let copies = usize::from(params.copies.max(1));
    params
        .max_sessions
        .saturating_mul(copies)
        .min(MAX_REPLICAS.max(params.max_sessions))
}

impl<P: Payload> Replicas<P> {
    pub fn new(params: &Arc<Params>, now: Nanos) -> Self {
        let replicas = max_replicas(params);
        let slots = params
            .pool
            .iter()
            .map(|s| Slots::new(*s, params.seed))
            .collect();
        let targets = Targets::new(params);
        Self {
            params: Arc::clone(params),
            ledger: Ledger::new(params.transfers.len(), params.copies),
            feeds: Vec::with_capacity(params.max_sessions),
            replicas: Slab::new(replicas),
            segs: Slab::new(params.max_segments),
            reserved: 0,
            frames: 0,
            // Every unsettled turn but the newest of a session holds a segment.
            turns: Slab::new(params.max_segments.saturating_add(params.max_sessions)),
            boards: Slab::new((replicas / 16).max(64)),
            connections: FlowTable::new(replicas, params.seed.rotate_left(32)),
            timers: Wheel::new(replicas, now),
            slots,
            blocked: Blocked::new(replicas),
            canary: Canary::new(params, &targets, replicas),
            budget: Budget::new(targets.all().count()),
            targets,
            leaving: Leaving::default(),
            active: 0,
            #[cfg(test)]
            steps: 0,
        }
    }

    /// Fires the timers that are due, `budget` of them at most. Returns how many there were.
    pub fn poll(&mut self, now: Nanos, budget: usize, tx: &mut impl Egress<P>) -> usize {
        self.has_left(now);
        let mut fired = self.poll_blocked(now, tx);
        fired += self.poll_canary(now, tx) + self.poll_budget(now, tx);
        while fired < budget
            && let Some(rid) = self.timers.pop(now)
        {
            fired += 1;
            self.on_timer(now, rid, tx);
        }
        fired
    }

    /// When [`Replicas::poll`] has something to do, if nothing else happens before: not earlier than
    /// this.
    pub fn quiet_until(&self) -> Nanos {
        if self.is_any_blocked() || self.budget.is_owed() {
            return 0;
        }
        self.timers.quiet_until()
    }

    /// Tests count how far is searched for what is sent again.
    #[inline]
    fn step(&mut self) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
    }

    /// Captured segments that are held, by either half.
    pub fn held_segments(&self) -> usize {
        self.segs.len() + self.reserved
    }

    /// There is no room for another segment that takes this.
    pub fn is_full(&self, charge: Charge) -> bool {
        self.held_segments() >= self.segs.capacity()
            || (charge.frame && self.frames >= self.params.max_frames)
    }

    /// There is no room for another segment in the buffer of a frame.
    pub fn is_exhausted(&self) -> bool {
        self.held_segments() >= self.segs.capacity() || self.frames >= self.params.max_frames
    }

    /// A quarter of the room is free.
    pub fn is_roomy(&self) -> bool {
        self.held_segments() * 4 <= self.segs.capacity() * 3
            && self.frames * 4 <= self.params.max_frames * 3
    }

    /// Room is getting short.
    pub fn is_crowded(&self) -> bool {
        self.held_segments() * 8 > self.segs.capacity() * 7
            || self.frames * 8 > self.params.max_frames * 7
    }

    /// The target of a replica.
    pub fn target(&self, transfer: u16) -> Endpoint {
        self.params.transfers[usize::from(transfer)].to
    }

    pub fn by_flow(&self, flow: &Flow) -> Option<u32> {
        let (replicas, transfers) = (&self.replicas, &self.params.transfers);
        self.connections.get(flow, |id| {
            let r = &replicas[id];
            r.flow(transfers[usize::from(r.transfer)].to)
        })
    }

    /// What is counted about the replica's target.
    #[inline]
    fn count(&mut self, rid: u32) -> &mut TargetCounters {
        self.ledger.target(self.replicas[rid].transfer)
    }

    /// Calls `f` with each replica of a session.
    fn for_each(&mut self, sid: u32, mut f: impl FnMut(&mut Self, u32)) {
        let mut rid = self.feeds[sid as usize].first_replica;
        while rid != NIL {
            let next = self.replicas[rid].next;
            f(self, rid);
            rid = next;
        }
    }
}
