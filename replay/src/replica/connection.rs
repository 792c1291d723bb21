//! How a replica's connection to its target begins and ends.

use super::Replicas;
use super::data::{Passed, Stage, on_wire};
use crate::core::Egress;
use crate::counters::Loss;
use crate::due::Due;
use crate::slab::NIL;
use crate::tcp::{State, Tcb};
use wire::io::Payload;
use wire::{Flags, Nanos};

/// Connections of one replica of a session that was joined in the middle that the target may refuse
/// or reset in a row before it is given up.
const TRIES: u8 = 4;

impl<P: Payload> Replicas<P> {
    /// Opens a connection for the replica, so that the next thing it sends has the sequence number
    /// it had in production. It may be opened: see [`Replicas::connect`].
    pub(super) fn open(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        let first = if r.nxt == NIL {
            r.settled
        } else {
            self.segs[r.nxt].pos
        };
        let r = &mut self.replicas[rid];
        r.tcb = Tcb::opening(on_wire(first) - 1);
        r.tcb.reopened = r.released > 0 || r.gate_free;
        self.count(rid).connects += 1;
        self.send_syn(now, rid, tx);
        self.rearm(now, rid);
    }

    /// Sends the SYN, first or again.
    pub(super) fn send_syn(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        let target = r.target;
        let mss = self.feeds[r.feed as usize].mss.min(self.mss_limit(target));
        let head = r.tcb.syn(now, r.flow(self.addr(target)), mss);
        let sent = tx.send(target, &head, None);
        let r = &mut self.replicas[rid];
        if sent.is_ok() {
            if r.tcb.rto.backoff == 0 {
                r.tcb.time(r.tcb.snd_nxt, now);
            }
            r.waiting_since = Due::NONE;
            r.rto_at = Due::at(now + r.tcb.rto.timeout());
        } else if !r.waiting_since.is_set() {
            r.waiting_since = Due::at(now);
        }
        self.note_sent(now, rid, sent);
    }

    pub(super) fn established(&mut self, rid: u32) {
        let r = &mut self.replicas[rid];
        r.rto_at = Due::NONE;
        r.answer = Default::default();
    }

    /// The target has done something for the session.
    pub(super) fn progressed(&mut self, now: Nanos, rid: u32) {
        self.replicas[rid].progress_at = Due::at(now);
    }

    /// The target did nothing for too long: what waits for it is lost.
    pub(super) fn give_up_if_stuck(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        let limit = r.progress_at.nanos(now).unwrap_or(now) + self.params.session_timeout;
        if r.una != NIL && now >= limit {
            self.lose_through(rid, u32::MAX, Loss::SessionTimeout);
            self.abort(now, rid, tx);
            self.replicas[rid].gate_free = true;
        }
    }

    /// The target refused or reset the connection: what was on the way is lost, the session goes on
    /// with its next turn.
    pub(super) fn connection_lost(
        &mut self,
        now: Nanos,
        rid: u32,
        refused: bool,
        tx: &mut impl Egress<P>,
    ) {
        let r = &self.replicas[rid];
        let feed = r.feed as usize;
        let over = self.feeds[feed].end.is_some() && r.una == NIL && r.turn == NIL;
        if !refused && over && r.tcb.state != State::SynSent {
            // All was said and acknowledged: a target that keeps no TIME-WAIT answers the last
            // segment like this.
            self.count(rid).resets_at_end += 1;
            self.finish(now, rid, false, tx);
            return;
        }
        let reason = if refused {
            self.count(rid).connect_failures += 1;
            self.lose_connecting(rid, Loss::ConnectRefused);
            Loss::ConnectRefused
        } else {
            self.count(rid).target_resets += 1;
            if self.has_all_of_the_open_turn(rid) {
                // It may be whole: only if it grows is it lost.
                self.replicas[rid].dropping = Some(Loss::TargetReset);
            } else {
                self.lose_released(rid, Loss::TargetReset);
            }
            Loss::TargetReset
        };
        self.disconnected(rid);
        let r = &mut self.replicas[rid];
        r.in_a_row.failed();
        if r.in_a_row.failures() >= TRIES && self.feeds[feed].joined {
            // A connection that begins in the middle of the client's makes no sense to it.
            self.keep_open_turn(rid);
            self.give_up_replica(now, rid, reason, tx);
            return;
        }
        self.pump(now, rid, tx);
    }

    /// Nothing more of the session can be replayed here: what it still says is lost for `reason`.
    fn give_up_replica(&mut self, now: Nanos, rid: u32, reason: Loss, tx: &mut impl Egress<P>) {
        self.lose_through(rid, u32::MAX, reason);
        self.replicas[rid].dropping = Some(reason);
        self.finish(now, rid, false, tx);
    }

    /// The target does not answer, or nobody knows the way to it.
    pub(super) fn connect_timed_out(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        self.replicas[rid].waiting_since = Due::NONE;
        self.count(rid).connect_failures += 1;
        self.lose_connecting(rid, Loss::ConnectTimeout);
        self.abort(now, rid, tx);
    }

    /// Gives up the connection: RST to the target, which may still hold it. The replica goes on
    /// with its next turn on a new one.
    pub(super) fn abort(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        if r.tcb.state.is_synchronized() {
            let target = self.addr(r.target);
            // The target may have all that was ever sent, whatever is to be sent again. The byte of
            // a window probe it does not have, as long as its window is closed.
            let seq = if r.tcb.window_closed() {
                r.tcb.snd_nxt
            } else {
                r.tcb.snd_max
            };
            let mut head = r.tcb.head(now, r.flow(target), seq, Flags::RST, 0);
            head.options.sack_count = 0;
            // A RST that the queue does not take is not sent again: the target answers the next SYN
            // with a challenge instead.
            self.send_alone(r.target, &head, tx);
        }
        self.disconnected(rid);
    }

    /// The connection is gone; timers that belonged to it with it.
    pub(super) fn disconnected(&mut self, rid: u32) {
        self.free_board(rid);
        self.leave_canary(rid);
        let r = &mut self.replicas[rid];
        // Whatever the next turn waits for would have come over this connection (which was open if
        // the MSS is known).
        r.gate_free |= r.released > 0 || r.tcb.mss() > 0;
        r.tcb = Tcb::default();
        if !r.is_done() {
            r.stage = Stage::Going;
        }
        r.rto_at = Due::NONE;
        r.gate_at = Due::NONE;
        r.waiting_since = Due::NONE;
        r.passed = Passed::Nothing;
        r.nxt = r.una;
    }
}
