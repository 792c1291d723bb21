//! The client addresses that the targets see, and the replicas that have them.

use super::Replicas;
use super::data::{InARow, Passed, Replica, Spoken, Stage};
use super::gate::Answer;
use crate::core::Egress;
use crate::due::{Due, Moment};
use crate::owner::Ownership;
use crate::pos::StreamPos;
use crate::slab::NIL;
use crate::tcp::Tcb;
use wire::io::Payload;
use wire::{Endpoint, Flow, Nanos};

/// Ports tried for a client that cannot keep its own.
const PORT_TRIES: u32 = 256;
/// Addresses that are looked for ahead at most.
const MANY: usize = 64;

impl<P: Payload> Replicas<P> {
    /// One replica for each copy that the feed's target is to have, as far as addresses and room
    /// allow; what is missing counts as lost, turn by turn. The stream begins at `at`.
    pub(super) fn add_replicas(
        &mut self,
        now: Nanos,
        feed: u32,
        flow: &Flow,
        at: StreamPos,
        tx: &mut impl Egress<P>,
    ) {
        let target = self.feeds[feed as usize].target;
        let to = self.fans.end(target, &flow.dst);
        for copy in 0..self.fans.copies(target) {
            let Some(local) = self.local_address(now, flow, target, to, copy) else {
                continue;
            };
            let ours = Flow {
                src: local,
                dst: to,
            };
            if self.slots.is_empty() && !tx.claim(&ours) {
                continue;
            }
            let replica = Replica {
                feed,
                next: self.feeds[feed as usize].first_replica,
                target,
                port: to.port,
                local,
                stage: Stage::Going,
                dropping: None,
                gate_free: false,
                spoken: Spoken::Answered,
                in_a_row: InARow::default(),
                passed: Passed::Nothing,
                tcb: Tcb::default(),
                board: NIL,
                una: NIL,
                nxt: NIL,
                turn: NIL,
                released: 0,
                settled: at,
                answer: Answer::default(),
                waiting_since: Due::NONE,
                sent_at: Moment::NONE,
                progress_at: Due::at(now),
                rto_at: Due::NONE,
                gate_at: Due::NONE,
                blocked_since: Due::NONE,
            };
            let Ok(rid) = self.replicas.alloc(replica) else {
                self.free_address(now, target, &ours, false, tx);
                continue;
            };
            let feed = &mut self.feeds[feed as usize];
            feed.first_replica = rid;
            feed.replica_count += 1;
            self.active += 1;
            let (replicas, fans) = (&self.replicas, &self.fans);
            self.connections.insert(rid, |id| {
                let r = &replicas[id];
                r.flow(fans.addr(r.target))
            });
        }
    }

    /// Whether the pool has addresses for so many more sessions to these targets, as far as can be
    /// told.
    pub fn has_addresses(&self, now: Nanos, fan: u16, sessions: usize) -> bool {
        let has = |target: &u16| {
            let v4 = self.addr(*target).is_v4();
            let many = (usize::from(self.fans.copies(*target)) * sessions).min(MANY);
            let set = &self.slots[self.targets.addresses(*target)];
            let mut slots = set.iter().filter(|s| s.is_v4() == v4);
            slots.any(|s| s.has(now, many.min(s.capacity())))
        };
        self.slots.is_empty() || self.fans.targets(fan).iter().all(has)
    }

    /// The address that the target is to see: from the pool, or the client's own; for further
    /// copies, and where the client's own is still busy, another port of the client's that belongs
    /// to this core.
    fn local_address(
        &mut self,
        now: Nanos,
        flow: &Flow,
        target: u16,
        to: Endpoint,
        copy: u16,
    ) -> Option<Endpoint> {
        if !self.slots.is_empty() {
            let v4 = to.addr.is_v4();
            let Ownership { cores, me, .. } = self.params.ownership;
            let answers = self.params.answers;
            let arrives_here = |local: &Endpoint| {
                let response = Flow {
                    src: to,
                    dst: *local,
                };
                answers.is_none_or(|table| {
                    wire::rss::queue_in(wire::rss::owner_hash(&response), table, cores) == me
                })
            };
            return self.slots[self.targets.addresses(target)]
                .iter_mut()
                .filter(|s| s.is_v4() == v4)
                .find_map(|s| s.take_that(now, arrives_here));
        }
        if flow.src.addr.is_v4() != to.addr.is_v4() {
            return None;
        }
        let free = |half: &Self, e: &Endpoint| {
            let flow = Flow { src: *e, dst: to };
            half.by_flow(&flow).is_none()
        };
        if copy == 0 && free(self, &flow.src) {
            return Some(flow.src);
        }
        let cores = u32::from(self.params.ownership.cores.max(1));
        let mut port = u32::from(flow.src.port) + u32::from(copy) * 7_919;
        for _ in 0..PORT_TRIES * cores {
            // A step that has no factor in common with the 64,512 ports above the well-known ones.
            port += 4_099;
            let e = Endpoint::new(flow.src.addr, (1_024 + port % 64_512) as u16);
            if e.port != flow.src.port
                && self.params.ownership.is_mine(&e, &flow.dst)
                && free(self, &e)
            {
                return Some(e);
            }
        }
        None
    }

    /// The address of the connection `ours` is not used any more. One of the pool `rests` if the
    /// target still holds the connection.
    pub(super) fn free_address(
        &mut self,
        now: Nanos,
        target: u16,
        ours: &Flow,
        rests: bool,
        tx: &mut impl Egress<P>,
    ) {
        if self.slots.is_empty() {
            tx.release(ours);
            return;
        }
        for slots in &mut self.slots[self.targets.addresses(target)] {
            if slots.contains(&ours.src) {
                slots.give_back(now, &ours.src, rests);
            }
        }
    }
}
