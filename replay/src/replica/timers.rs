//! A replica's timer, for whatever it waits for next.
//!
//! A timer that fires too early, because what it was set for has moved, is set again; so arming is
//! only needed when something comes nearer.

use super::Replicas;
use crate::core::Egress;
use crate::counters::Loss;
use crate::due::Due;
use crate::slab::NIL;
use crate::tcp::State;
use wire::Nanos;
use wire::io::Payload;

impl<P: Payload> Replicas<P> {
    /// Makes the replica's timer fire when the first thing it waits for is due, or before.
    pub(super) fn rearm(&mut self, now: Nanos, rid: u32) {
        let r = &self.replicas[rid];
        if r.is_done() {
            return;
        }
        let waits = [r.rto_at, r.gate_at];
        let waits = waits.into_iter().filter_map(|w| w.nanos(now));
        let stuck = r.progress_at.nanos(now).filter(|_| r.una != NIL);
        let stuck = stuck.map(|at| at + self.params.session_timeout);
        let due = waits.chain(r.tcb.rcv.ack_due(now)).chain(stuck).min();
        if let Some(due) = due
            && self.timers.deadline(rid).is_none_or(|d| due < d)
        {
            self.timers.arm(rid, due);
        }
    }

    pub(super) fn on_timer(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        if self.replicas[rid].is_done() {
            return;
        }
        if self.replicas[rid].gate_at.is_due(now) {
            self.replicas[rid].gate_at = Due::NONE;
        }
        self.acknowledge_due(now, rid, tx);
        let r = &self.replicas[rid];
        if r.rto_at.is_due(now) {
            self.on_retransmission_timeout(now, rid, tx);
        }
        self.give_up_if_stuck(now, rid, tx);
        self.pump(now, rid, tx);
    }

    fn on_retransmission_timeout(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &mut self.replicas[rid];
        r.rto_at = Due::NONE;
        if self.canary.is_waiting(rid) {
            self.never_confirmed(rid);
            return;
        }
        let r = &mut self.replicas[rid];
        if r.tcb.state == State::FinWait2 {
            // The target never closed its side: as a host's FIN-WAIT-2 timer does.
            self.abort(now, rid, tx);
            self.finish(now, rid, true, tx);
            return;
        }
        if r.tcb.window_closed() {
            // A closed window is no loss: probing goes on as long as the target answers (RFC 9293
            // section 3.8.6.1).
            if self.holds_released(rid) {
                let r = &mut self.replicas[rid];
                r.tcb.rto.backoff = (r.tcb.rto.backoff + 1).min(6);
                r.rto_at = Due::at(now + r.tcb.rto.timeout());
                self.probe_window(now, rid, tx);
            }
            return;
        }
        if !r.tcb.outstanding() {
            self.override_window(now, rid, tx);
            return;
        }
        if r.tcb.take_probe() {
            self.probe_loss(now, rid, tx);
            return;
        }
        let connecting = r.tcb.state == State::SynSent;
        if !r.tcb.on_timeout() {
            if connecting {
                self.connect_timed_out(now, rid, tx);
            } else {
                self.lose_released(rid, Loss::RetransmitTimeout);
                self.abort(now, rid, tx);
            }
            return;
        }
        if connecting {
            self.count(rid).retransmitted_segments += 1;
            self.send_syn(now, rid, tx);
            return;
        }
        // What the target has beyond a hole it may have dropped since (RFC 2018 section 8).
        self.free_board(rid);
        let r = &mut self.replicas[rid];
        r.nxt = r.una;
        r.rto_at = Due::at(now + r.tcb.rto.timeout());
    }
}
