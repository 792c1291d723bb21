//! Timers: one per replica, for whatever it waits for next, and one per session.
//!
//! A timer that fires too early, because what it was set for has moved, is set again; so arming is
//! only needed when something comes nearer.

use super::pump::UNREACHABLE;
use super::{Core, Egress};
use crate::counters::Loss;
use crate::tcp::State;
use wire::Nanos;
use wire::io::Payload;

/// Timers fired in one call at most, so that a burst of them does not starve receive.
const BUDGET: usize = 512;

impl<P: Payload> Core<P> {
    /// Fires the timers that are due. Returns how many there were.
    pub fn poll(&mut self, now: Nanos, tx: &mut impl Egress<P>) -> usize {
        let mut fired = 0;
        while fired < BUDGET
            && let Some(rid) = self.replica_timers.pop(now)
        {
            fired += 1;
            self.on_replica_timer(now, rid, tx);
        }
        while fired < BUDGET
            && let Some(sid) = self.session_timers.pop(now)
        {
            fired += 1;
            self.on_session_timer(now, sid, tx);
        }
        fired
    }

    /// Makes the session's timer fire at `due` or before.
    pub(super) fn arm_session(&mut self, sid: u32, due: Nanos) {
        if self.session_timers.deadline(sid).is_none_or(|d| due < d) {
            self.session_timers.arm(sid, due);
        }
    }

    /// Makes the replica's timer fire when the first thing it waits for is due, or before.
    pub(super) fn rearm(&mut self, now: Nanos, rid: u32) {
        let r = &self.replicas[rid];
        if r.done {
            return;
        }
        let ack = r.tcb.rcv.ack_due(now).unwrap_or(0);
        let due = [r.rto_at, r.gate_at, r.retry_at, ack]
            .into_iter()
            .filter(|t| *t != 0)
            .min();
        if let Some(due) = due
            && self.replica_timers.deadline(rid).is_none_or(|d| due < d)
        {
            self.replica_timers.arm(rid, due);
        }
    }

    fn on_replica_timer(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &mut self.replicas[rid];
        if r.done {
            return;
        }
        if r.retry_at != 0 && r.retry_at <= now {
            r.retry_at = 0;
            if r.tcb.state == State::SynSent && r.rto_at == 0 {
                if r.unreachable < UNREACHABLE {
                    self.send_syn(now, rid, tx);
                } else {
                    self.connect_timed_out(now, rid, tx);
                }
            }
        }
        if self.replicas[rid].gate_at <= now {
            self.replicas[rid].gate_at = 0;
        }
        self.acknowledge_due(now, rid, tx);
        let r = &self.replicas[rid];
        if r.rto_at != 0 && r.rto_at <= now {
            self.on_retransmission_timeout(now, rid, tx);
        }
        self.pump(now, rid, tx);
    }

    /// The target does not answer, or nobody knows the way to it.
    fn connect_timed_out(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        self.replicas[rid].unreachable = 0;
        self.counters.connect_failures += 1;
        self.lose_connecting(rid, Loss::ConnectTimeout);
        self.abort(now, rid, tx);
    }

    fn on_retransmission_timeout(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &mut self.replicas[rid];
        r.rto_at = 0;
        if r.tcb.state == State::FinWait2 {
            // The target never closed its side: as a host's FIN-WAIT-2 timer does.
            self.abort(now, rid, tx);
            self.finish(now, rid, true, tx);
            return;
        }
        if r.tcb.window_closed() {
            // A closed window is no loss: probing goes on as long as the target answers (RFC 9293
            // section 3.8.6.1).
            r.tcb.rto.backoff = (r.tcb.rto.backoff + 1).min(6);
            r.rto_at = now + r.tcb.rto.timeout();
            self.probe_window(now, rid, tx);
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
            self.counters.retransmitted_segments += 1;
            self.send_syn(now, rid, tx);
            return;
        }
        // What the target has beyond a hole it may have dropped since (RFC 2018 section 8).
        self.free_board(rid);
        let r = &mut self.replicas[rid];
        r.nxt = r.una;
        r.rto_at = now + r.tcb.rto.timeout();
    }
}
