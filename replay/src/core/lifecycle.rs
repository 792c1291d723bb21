//! How sessions and replicas begin and end.

use super::{Core, Egress};
use crate::counters::{Loss, Unused};
use crate::gate::Answer;
use crate::session::{End, List, Phase, Replica, Session};
use crate::slab::NIL;
use crate::tcp::Tcb;
use crate::tcp::connect::mss_for;
use wire::io::Payload;
use wire::{Endpoint, Flow, Head, Nanos, Seq};

/// A session that is over stays in the table for this long, so that late frames of it do not look
/// like a new one.
const LINGER: Nanos = 2_000_000_000;
/// Ports tried for a client that cannot keep its own.
const PORT_TRIES: u32 = 256;

impl<P: Payload> Core<P> {
    /// A session begins: with the client's SYN, or in the middle.
    pub(super) fn open(
        &mut self,
        now: Nanos,
        transfer: u16,
        head: &Head,
        phase: Phase,
        tx: &mut impl Egress<P>,
    ) -> Result<u32, Unused> {
        if !self.selected(now, &head.flow) {
            return Err(Unused::NotSelected);
        }
        let midstream = phase == Phase::Joining;
        if midstream && self.params.full_sessions_only {
            return Err(Unused::NotFull);
        }
        // The newest session goes first when buffers run short, so that those that are under way
        // can go on.
        let crowded = self.segs.len() * 8 > self.segs.capacity() * 7;
        if self.draining || crowded || !tx.accepts_sessions() {
            self.counters.sessions_shed += u64::from(!midstream);
            return Err(Unused::Shed);
        }
        let limit = mss_for(self.params.mtu, head.flow.src.addr.is_v4());
        let session = Session {
            flow: head.flow,
            transfer,
            phase,
            listed: true,
            end: None,
            fin: None,
            end_after: 0,
            ack_known: midstream,
            turn_open: false,
            server_closed: None,
            join_loss: Loss::Midstream,
            answered: false,
            isn: if midstream { head.seq - 1 } else { head.seq },
            rcv_nxt: if midstream { head.seq } else { head.seq + 1 },
            shown: head.seq,
            shown_by_payload: false,
            acked: head.ack,
            acked_at_data: head.ack,
            server_acked: None,
            server_nxt: None,
            mss: head.options.mss.unwrap_or(limit).max(64).min(limit),
            replica_count: 0,
            first_replica: NIL,
            segs: List::default(),
            beyond: List::default(),
            turns: List::default(),
            next_turn: 0,
            held: 0,
            rtt: 0,
            handshake_at: self.seen,
            early: List::default(),
            gap_since: 0,
            last_seen: now,
        };
        let Ok(sid) = self.sessions.alloc(session) else {
            self.counters.sessions_shed += u64::from(!midstream);
            return Err(Unused::Shed);
        };
        let sessions = &self.sessions;
        self.flows.insert(sid, |id| sessions[id].flow);
        self.counters.sessions += 1;
        let due = now + self.params.session_timeout;
        self.arm_session(sid, due.min(self.idle_check(now)));
        if midstream {
            self.lose_uncaptured(1, 0, Loss::Midstream);
        } else {
            self.add_replicas(now, sid, tx);
            self.for_replicas(sid, |core, rid| core.connect(now, rid, tx));
        }
        Ok(sid)
    }

    /// True if the session is among those to be replayed; the answer for one client address and
    /// port never changes, but for the ramp.
    pub(super) fn selected(&self, now: Nanos, flow: &Flow) -> bool {
        let p = &self.params;
        let mut share = p.percent / 100.0;
        if p.ramp > 0 {
            share *= (now.saturating_sub(p.start) as f64 / p.ramp as f64).min(1.0);
        }
        share >= 1.0 || f64::from(wire::rss::client_hash(&flow.src)) < share * f64::from(u32::MAX)
    }

    /// A new connection from the same address and port: what the old one said is still replayed,
    /// then it is closed.
    pub(super) fn replace(&mut self, now: Nanos, sid: u32, tx: &mut impl Egress<P>) {
        self.unlist(sid);
        if self.sessions[sid].phase != Phase::Ended {
            self.settle_gaps(now, sid, tx);
            self.end_session(now, sid, End::Reset);
        }
        self.for_replicas(sid, |core, rid| core.pump(now, rid, tx));
        let due = now + LINGER;
        self.arm_session(sid, due);
    }

    fn unlist(&mut self, sid: u32) {
        let s = &mut self.sessions[sid];
        if s.listed {
            s.listed = false;
            let flow = s.flow;
            self.flows.remove(sid, &flow);
        }
    }

    /// The session is in step from `seq` on, which begins a turn.
    pub(super) fn join(&mut self, now: Nanos, sid: u32, seq: Seq, tx: &mut impl Egress<P>) {
        self.forget_early(sid);
        let s = &mut self.sessions[sid];
        let missing = seq.since(s.rcv_nxt);
        s.phase = Phase::Synced;
        s.rcv_nxt = seq;
        s.turn_open = false;
        let reason = s.join_loss;
        if missing > 0 {
            self.lose_uncaptured(0, missing, reason);
        }
        if self.sessions[sid].replica_count == 0 {
            self.add_replicas(now, sid, tx);
        }
        self.for_replicas(sid, |core, rid| {
            let r = &mut core.replicas[rid];
            // The answer that the turn follows never came to this replica.
            r.gate_free |= r.una == NIL;
        });
    }

    /// One replica for each copy, as far as addresses and room allow; what is missing counts as
    /// lost, turn by turn.
    pub(super) fn add_replicas(&mut self, now: Nanos, sid: u32, tx: &mut impl Egress<P>) {
        let (flow, transfer, isn) = {
            let s = &self.sessions[sid];
            (s.flow, s.transfer, s.isn)
        };
        for copy in 0..self.params.copies {
            let Some(local) = self.local_address(now, &flow, transfer, copy) else {
                continue;
            };
            if self.slots.is_empty() && !tx.claim(&local, transfer) {
                continue;
            }
            let replica = Replica {
                session: sid,
                next: self.sessions[sid].first_replica,
                transfer,
                local,
                done: false,
                abort_pending: false,
                dropping: None,
                gate_free: false,
                answered: true,
                ack_refused: false,
                unreachable: 0,
                end_released: false,
                tcb: Tcb::default(),
                board: NIL,
                una: NIL,
                nxt: NIL,
                turn: NIL,
                released: 0,
                settled: isn + 1,
                released_at: Seq(0),
                answer: Answer::default(),
                waiting_since: 0,
                sent_at: 0,
                rto_at: 0,
                gate_at: 0,
                retry_at: 0,
            };
            let Ok(rid) = self.replicas.alloc(replica) else {
                self.free_address(now, transfer, &local, tx);
                continue;
            };
            self.sessions[sid].first_replica = rid;
            self.sessions[sid].replica_count += 1;
            self.active += 1;
            let (replicas, transfers) = (&self.replicas, &self.params.transfers);
            self.connections.insert(rid, |id| {
                let r = &replicas[id];
                r.flow(transfers[usize::from(r.transfer)].to)
            });
        }
    }

    /// The address that the target is to see: from the pool, or the client's own; for further
    /// copies, and where the client's own is still busy, another port of the client's that
    /// belongs to this core.
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
            return self
                .slots
                .iter_mut()
                .filter(|s| s.is_v4() == v4)
                .find_map(|s| s.take(now));
        }
        if flow.src.addr.is_v4() != target.addr.is_v4() {
            return None;
        }
        let free = |core: &Self, e: &Endpoint| {
            core.replica_by_flow(&Flow {
                src: *e,
                dst: target,
            })
            .is_none()
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

    fn free_address(
        &mut self,
        now: Nanos,
        transfer: u16,
        local: &Endpoint,
        tx: &mut impl Egress<P>,
    ) {
        if self.slots.is_empty() {
            tx.release(local, transfer);
        }
        for slots in &mut self.slots {
            if slots.contains(local) {
                slots.give_back(now, local);
            }
        }
    }

    /// The client has ended its connection, or production has.
    pub(super) fn end_session(&mut self, now: Nanos, sid: u32, end: End) {
        self.close_turn(sid);
        self.forget_early(sid);
        if self.sessions[sid].phase == Phase::Joining {
            // What the client was answered since it was out of step, no replica was.
            self.for_replicas(sid, |core, rid| {
                let r = &mut core.replicas[rid];
                r.gate_free |= r.una == NIL;
            });
        }
        let s = &mut self.sessions[sid];
        s.phase = Phase::Ended;
        s.end = Some(end);
        s.end_after = if s.ack_known {
            s.acked.since(s.acked_at_data)
        } else {
            0
        };
        let reason = s.join_loss;
        self.clear_beyond(
            sid,
            if reason == Loss::Midstream {
                Loss::Hole
            } else {
                reason
            },
        );
        self.arm_session(sid, now + LINGER);
    }

    /// Everything the session said is replayed or given up: the replica's address is free again.
    pub(super) fn finish(&mut self, now: Nanos, rid: u32, in_order: bool, tx: &mut impl Egress<P>) {
        if self.replicas[rid].done {
            return;
        }
        self.disconnected(rid);
        let r = &mut self.replicas[rid];
        r.done = true;
        let (local, transfer) = (r.local, r.transfer);
        let flow = r.flow(self.params.transfers[usize::from(transfer)].to);
        self.connections.remove(rid, &flow);
        self.replica_timers.cancel(rid);
        self.free_address(now, transfer, &local, tx);
        self.counters.replayed_sessions += u64::from(in_order);
        self.active -= 1;
    }

    /// The session's timer: remove it if it is over, give it up if nothing has happened for too
    /// long, look at its gap.
    pub(super) fn on_session_timer(&mut self, now: Nanos, sid: u32, tx: &mut impl Egress<P>) {
        let s = &self.sessions[sid];
        if s.phase == Phase::Free {
            return;
        }
        if s.gap_since != 0 && s.phase != Phase::Ended && now >= self.gap_due(sid) {
            self.hole(now, sid, tx);
        }
        if self.early_due(sid).is_some_and(|due| now >= due) {
            self.forget_early(sid);
        }
        let s = &self.sessions[sid];
        let done = self.all_done(sid);
        let due = if s.phase == Phase::Ended && done {
            s.last_seen + LINGER
        } else if s.segs.is_empty() && s.beyond.is_empty() {
            s.last_seen + self.params.keepalive_timeout
        } else {
            s.last_seen + self.params.session_timeout
        };
        if now >= due {
            // One without replicas has nothing to do, and may hold a turn all the same.
            if !done || s.phase != Phase::Ended {
                self.give_up(now, sid, Loss::SessionTimeout, tx);
            }
            self.remove(sid);
            return;
        }
        let s = &self.sessions[sid];
        let due = if s.gap_since != 0 && s.phase != Phase::Ended {
            due.min(self.gap_due(sid))
        } else {
            due
        };
        // An ended session is looked at now and then until its replicas are done; any other may
        // have become idle since it was last heard of.
        let due = if s.phase == Phase::Ended {
            due.min(now + LINGER)
        } else {
            due.min(self.idle_check(now))
        };
        let due = self.early_due(sid).map_or(due, |early| due.min(early));
        self.arm_session(sid, due);
    }

    /// When to see whether a session that has something to do now is idle by then.
    fn idle_check(&self, now: Nanos) -> Nanos {
        now + self.params.keepalive_timeout.max(LINGER)
    }

    fn all_done(&self, sid: u32) -> bool {
        let mut rid = self.sessions[sid].first_replica;
        while rid != NIL {
            if !self.replicas[rid].done {
                return false;
            }
            rid = self.replicas[rid].next;
        }
        true
    }

    /// Gives up what a session still has, for `reason`, and tells its targets.
    pub(super) fn give_up(&mut self, now: Nanos, sid: u32, reason: Loss, tx: &mut impl Egress<P>) {
        if self.sessions[sid].phase != Phase::Ended {
            self.end_session(now, sid, End::Reset);
        }
        self.for_replicas(sid, |core, rid| {
            core.lose_through(rid, u32::MAX, reason);
            if !core.replicas[rid].done {
                core.abort(now, rid, tx);
                core.finish(now, rid, false, tx);
            }
        });
    }

    fn remove(&mut self, sid: u32) {
        let s = &self.sessions[sid];
        debug_assert!(
            [s.segs, s.beyond, s.turns, s.early]
                .iter()
                .all(List::is_empty)
        );
        self.unlist(sid);
        let mut rid = self.sessions[sid].first_replica;
        while rid != NIL {
            let next = self.replicas[rid].next;
            self.replica_timers.cancel(rid);
            self.replicas.free(rid);
            rid = next;
        }
        self.session_timers.cancel(sid);
        self.sessions[sid].phase = Phase::Free;
        self.sessions.free(sid);
        self.counters.sessions_ended += 1;
    }

    /// The engine is stopping: no new sessions, and an end to those there are.
    pub fn drain(&mut self, now: Nanos, tx: &mut impl Egress<P>) {
        self.draining = true;
        self.end_all(now, tx);
    }

    /// Nothing more will be captured of the sessions there are: what was is still replayed, then
    /// every connection is closed in good order. Unless the core is draining, what comes next
    /// is another recording: a SYN in it that these sessions began with begins others.
    pub fn end_all(&mut self, now: Nanos, tx: &mut impl Egress<P>) {
        for sid in self.sessions.ids() {
            if !matches!(self.sessions[sid].phase, Phase::Free | Phase::Ended) {
                self.settle_gaps(now, sid, tx);
                self.end_session(now, sid, End::Fin);
                self.for_replicas(sid, |core, rid| core.pump(now, rid, tx));
            }
            if !self.draining && self.sessions[sid].phase != Phase::Free {
                self.unlist(sid);
            }
        }
    }

    /// True when no replica has anything left to do.
    pub fn is_drained(&self) -> bool {
        self.active == 0
    }

    /// Gives up whatever is left, counted as [`Loss::Stopped`].
    pub fn abandon(&mut self, now: Nanos, tx: &mut impl Egress<P>) {
        for sid in self.sessions.ids() {
            if self.sessions[sid].phase != Phase::Free {
                self.give_up(now, sid, Loss::Stopped, tx);
            }
        }
    }
}
