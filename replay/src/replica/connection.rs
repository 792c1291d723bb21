//! How a replica's connection to its target begins and ends.

use super::Replicas;
use super::data::on_wire;
use super::send::RETRY;
use crate::core::{Egress, Refused};
use crate::counters::Loss;
use crate::due::Due;
use crate::slab::NIL;
use crate::tcp::Tcb;
use wire::io::Payload;
use wire::{Flags, Nanos};

/// Each retry for want of a next hop comes after twice the time, to this many doublings: about a
/// second.
const SLOWEST: u8 = 10;
/// So many such retries in a row are about a minute, as long as a SYN goes unanswered before the
/// target counts as unreachable.
pub(super) const UNREACHABLE: u8 = SLOWEST + 60;

impl<P: Payload> Replicas<P> {
    /// Opens a connection for the replica, so that the next thing it sends has the sequence number
    /// it had in production.
    pub(super) fn connect(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
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
        let transfer = r.transfer;
        let mss = self.feeds[r.session as usize]
            .mss
            .min(self.mss_limit(transfer));
        let head = r.tcb.syn(now, r.flow(self.target(transfer)), mss);
        let sent = tx.send(transfer, &head, None);
        self.count_sent(sent);
        let r = &mut self.replicas[rid];
        if sent.is_ok() {
            if r.tcb.rto.backoff == 0 {
                r.tcb.time(r.tcb.snd_nxt, now);
            }
            r.retry_at = Due::NONE;
            r.unreachable = 0;
            r.rto_at = Due::at(now + r.tcb.rto.timeout());
        } else if sent == Err(Refused::Unreachable) {
            // The answer to ARP or ND is a matter of a millisecond, or it does not come for long.
            r.retry_at = Due::at(now + (RETRY << r.unreachable.min(SLOWEST)));
            r.unreachable = r.unreachable.saturating_add(1);
        } else {
            r.retry_at = Due::at(now + RETRY);
        }
    }

    pub(super) fn established(&mut self, rid: u32) {
        let r = &mut self.replicas[rid];
        r.rto_at = Due::NONE;
        r.answer = Default::default();
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
        if refused {
            self.count(rid).connect_failures += 1;
            self.lose_connecting(rid, Loss::ConnectRefused);
        } else {
            self.count(rid).target_resets += 1;
            self.lose_released(rid, Loss::TargetReset);
        }
        self.disconnected(rid);
        self.pump(now, rid, tx);
    }

    /// The target does not answer, or nobody knows the way to it.
    pub(super) fn connect_timed_out(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        self.replicas[rid].unreachable = 0;
        self.count(rid).connect_failures += 1;
        self.lose_connecting(rid, Loss::ConnectTimeout);
        self.abort(now, rid, tx);
    }

    /// Gives up the connection: RST to the target, which may still hold it. The replica goes on
    /// with its next turn on a new one.
    pub(super) fn abort(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        if r.tcb.state.is_synchronized() {
            let target = self.target(r.transfer);
            let mut head = r
                .tcb
                .head(now, r.flow(target), r.tcb.snd_nxt, Flags::RST, 0);
            head.options.sack_count = 0;
            let transfer = r.transfer;
            // A RST that the queue does not take is not sent again: the target answers the next SYN
            // with a challenge instead.
            let _ = self.transmit(transfer, &head, tx);
        }
        self.disconnected(rid);
    }

    /// The connection is gone; timers that belonged to it with it.
    pub(super) fn disconnected(&mut self, rid: u32) {
        self.free_board(rid);
        let r = &mut self.replicas[rid];
        // Whatever the next turn waits for would have come over this connection (which was open if
        // the MSS is known).
        r.gate_free |= r.released > 0 || r.tcb.mss() > 0;
        r.tcb = Tcb::default();
        r.ack_refused = false;
        r.abort_pending = false;
        r.rto_at = Due::NONE;
        r.gate_at = Due::NONE;
        r.waiting_since = Due::NONE;
        r.end_released = false;
        r.nxt = r.una;
    }
}
