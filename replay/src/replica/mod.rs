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
use crate::fan::Fans;
use crate::ledger::Ledger;
use crate::params::Params;
use crate::piece::Charge;
use crate::servers::{self, ServerTable};
use crate::slab::{NIL, Slab};
use crate::slots::Slots;
use crate::table::FlowTable;
use crate::tcp::sack::Scoreboard;
use crate::wheel::Wheel;
use blocked::Blocked;
use budget::Budget;
use canary::Canary;
use data::{Feed, NO_TARGET, Replica, Seg, Turn};
use passage::Leaving;
use std::ops::Range;
use std::sync::Arc;
use targets::Targets;
use wire::io::Payload;
use wire::{Addr, Flow, Nanos};

/// Connections a core has room for, unless it has more sessions than that: a thousand copies of a
/// million sessions are no plan. Copies beyond count as lost for [`crate::Loss::NoAddress`].
const MAX_REPLICAS: usize = 1 << 22;

/// See the module's documentation.
pub(crate) struct Replicas<P> {
    params: Arc<Params>,
    fans: Arc<Fans>,
    pub ledger: Ledger,
    /// What replicas are fed with: for each session, by its id in the capture half, as many in a
    /// row as a session may have targets. Those that one does not need have [`NO_TARGET`].
    pub feeds: Vec<Feed>,
    /// How many that are.
    width: u32,
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
    /// The pool's, for each set of the targets' clients.
    pub slots: Vec<Vec<Slots>>,
    blocked: Blocked,
    pub canary: Canary,
    budget: Budget,
    pub targets: Targets,
    /// The targets by their addresses and ports.
    ends: ServerTable,
    leaving: Leaving,
    /// Replicas that are not done.
    pub active: usize,
    /// Segments passed over in search of those to be sent again.
    #[cfg(test)]
    pub steps: u64,
}

/// Replicas there is room for.
pub(crate) fn max_replicas(params: &Params, fans: &Fans) -> usize {
    params
        .max_sessions
        .saturating_mul(fans.replicas())
        .min(MAX_REPLICAS.max(params.max_sessions))
}

impl<P: Payload> Replicas<P> {
    pub fn new(params: &Arc<Params>, fans: &Arc<Fans>, now: Nanos) -> Self {
        let width = fans.width();
        let replicas = max_replicas(params, fans);
        let targets = Targets::new(fans);
        let slots = match params.pool[..] {
            [] => Vec::new(),
            _ => (0..targets.address_sets())
                .map(|_| {
                    params
                        .pool
                        .iter()
                        .map(|s| Slots::new(*s, params.seed))
                        .collect()
                })
                .collect(),
        };
        Self {
            params: Arc::clone(params),
            fans: Arc::clone(fans),
            ledger: Ledger::new(fans),
            feeds: Vec::with_capacity(params.max_sessions * width),
            width: width as u32,
            replicas: Slab::new(replicas),
            segs: Slab::new(params.max_segments),
            reserved: 0,
            frames: 0,
            // Every unsettled turn but the newest of a feed holds a segment.
            turns: Slab::new(
                params
                    .max_segments
                    .saturating_add(params.max_sessions * width),
            ),
            boards: Slab::new((replicas / 16).max(64)),
            connections: FlowTable::new(replicas, params.seed.rotate_left(32)),
            timers: Wheel::new(replicas, now),
            slots,
            blocked: Blocked::new(replicas),
            canary: Canary::new(params, &targets, replicas),
            budget: Budget::new(targets.all().count()),
            targets,
            ends: servers::targets(params),
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

    /// The address of a target.
    #[inline]
    pub fn addr(&self, target: u16) -> Addr {
        self.fans.addr(target)
    }

    /// The first of a session's feeds.
    #[inline]
    pub fn first_feed(&self, sid: u32) -> u32 {
        sid * self.width
    }

    /// The session of a feed.
    #[inline]
    pub fn session(&self, feed: u32) -> u32 {
        feed / self.width
    }

    /// A session's feeds: one for each of its targets.
    #[inline]
    pub fn feeds_of(&self, sid: u32) -> Range<u32> {
        if self.width == 1 {
            return sid..sid + 1;
        }
        let first = self.first_feed(sid);
        let all = self.feeds.get(first as usize..).unwrap_or(&[]);
        let own = all.iter().take(self.width as usize);
        first..first + own.take_while(|f| f.target != NO_TARGET).count() as u32
    }

    pub fn by_flow(&self, flow: &Flow) -> Option<u32> {
        let (replicas, fans) = (&self.replicas, &self.fans);
        self.connections.get(flow, |id| {
            let r = &replicas[id];
            r.flow(fans.addr(r.target))
        })
    }

    /// What is counted about the replica's target.
    #[inline]
    fn count(&mut self, rid: u32) -> &mut TargetCounters {
        self.ledger.target(self.replicas[rid].target)
    }

    /// Calls `f` with each replica of a feed.
    fn for_each(&mut self, feed: u32, mut f: impl FnMut(&mut Self, u32)) {
        let mut rid = self.feeds[feed as usize].first_replica;
        while rid != NIL {
            let next = self.replicas[rid].next;
            f(self, rid);
            rid = next;
        }
    }
}
