//! The client addresses that the targets see, and the replicas that have them.

use super::Replicas;
use super::data::{InARow, Passed, Replica, Spoken};
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
    /// One replica for each copy, as far as addresses and room allow; what is missing counts as
    /// lost, turn by turn. The stream begins at `at`.
    pub(super) fn add_replicas(
        &mut self,
        now: Nanos,
        sid: u32,
        flow: &Flow,
        at: StreamPos,
        tx: &mut impl Egress<P>,
    ) {
        let transfer = self.feeds[sid as usize].transfer;
        for copy in 0..self.params.copies {
            let Some(local) = self.local_address(now, flow, transfer, copy) else {
                continue;
            };
            if self.slots.is_empty() && !tx.claim(&local, transfer) {
                continue;
            }
            let replica = Replica {
                session: sid,
                next: self.feeds[sid as usize].first_replica,
                transfer,
                local,
                done: false,
                at_once: false,
                abort_pending: false,
                dropping: None,
                gate_free: false,
                spoken: Spoken::Answered,
                ack_refused: false,
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
                self.free_address(now, transfer, &local, false, tx);
                continue;
            };
            let feed = &mut self.feeds[sid as usize];
            feed.first_replica = rid;
            feed.replica_count += 1;
            self.active += 1;
            let (replicas, transfers) = (&self.replicas, &self.params.transfers);
            self.connections.insert(rid, |id| {
                let r = &replicas[id];
                r.flow(transfers[usize::from(r.transfer)].to)
            });
        }
    }

    /// Whether the pool has addresses for so many more sessions to a target, as far as can be told.
    pub fn has_addresses(&self, now: Nanos, transfer: u16, sessions: usize) -> bool {
        let v4 = self.target(transfer).addr.is_v4();
        let many = (usize::from(self.params.copies) * sessions).min(MANY);
        let mut slots = self.slots.iter().filter(|s| s.is_v4() == v4);
        self.slots.is_empty() || slots.any(|s| s.has(now, many.min(s.capacity())))
    }

    /// The address that the target is to see: from the pool, or the client's own; for further
    /// copies, and where the client's own is still busy, another port of the client's that belongs
    /// to this core.
    fn local_address(
        &mut self,
        now: Nanos,
        flow: &Flow,
        transfer: u16,
        copy: u16,
    ) -> Option<Endpoint> {
        let target = self.target(transfer);
        if !self.slots.is_empty() {
            let v4 = target.addr.is_v4();
            let Ownership { cores, me, .. } = self.params.ownership;
            let answers = self.params.answers;
            let arrives_here = |local: &Endpoint| {
                let response = Flow {
                    src: target,
                    dst: *local,
                };
                answers.is_none_or(|table| {
                    wire::rss::queue_in(wire::rss::owner_hash(&response), table, cores) == me
                })
            };
            return self
                .slots
                .iter_mut()
                .filter(|s| s.is_v4() == v4)
                .find_map(|s| s.take_that(now, arrives_here));
        }
        if flow.src.addr.is_v4() != target.addr.is_v4() {
            return None;
        }
        let free = |half: &Self, e: &Endpoint| {
            let flow = Flow {
                src: *e,
                dst: target,
            };
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

    /// The address is not used any more. One of the pool `rests` if the target still holds the
    /// connection.
    pub(super) fn free_address(
        &mut self,
        now: Nanos,
        transfer: u16,
        local: &Endpoint,
        rests: bool,
        tx: &mut impl Egress<P>,
    ) {
        if self.slots.is_empty() {
            tx.release(local, transfer);
        }
        for slots in &mut self.slots {
            if slots.contains(local) {
                slots.give_back(now, local, rests);
            }
        }
    }
}
