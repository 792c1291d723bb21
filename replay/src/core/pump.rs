//! What a replica sends, and when: connection requests, turns the gate lets through, FIN and RST as
//! the client's, retransmissions.

use super::stream::less;
use super::{Core, Egress, Refused};
use crate::counters::Loss;
use crate::gate::{self, Answer, Verdict};
use crate::session::End;
use crate::slab::NIL;
use crate::tcp::connect::mss_for;
use crate::tcp::{State, Tcb};
use std::ops::Range;
use wire::io::Payload;
use wire::{Flags, Head, Nanos, Seq};

/// When to try again what the transmit queue or the next hop refused.
const RETRY: Nanos = 1_000_000;

/// Each retry for want of a next hop comes after twice the time, to this many doublings: about a
/// second.
const SLOWEST: u8 = 10;
/// So many such retries in a row are about a minute, as long as a SYN goes unanswered before the
/// target counts as unreachable.
pub(super) const UNREACHABLE: u8 = SLOWEST + 60;

/// What to do with the turn at the head of the queue.
enum Next {
    Send,
    Again,
    Stop,
}

impl<P: Payload> Core<P> {
    /// Hands one segment without payload to the transmit queue.
    pub(super) fn transmit(&mut self, transfer: u16, head: &Head, tx: &mut impl Egress<P>) -> bool {
        let sent = tx.send(transfer, head, None);
        self.count_sent(sent)
    }

    fn count_sent(&mut self, sent: Result<(), Refused>) -> bool {
        match sent {
            Ok(()) => self.counters.segments_sent += 1,
            Err(_) => self.counters.tx_full += 1,
        }
        sent.is_ok()
    }

    /// The largest payload the replay port can carry to that target.
    pub(super) fn mss_limit(&self, transfer: u16) -> u16 {
        mss_for(self.params.mtu, self.target(transfer).addr.is_v4())
    }

    /// Opens a connection for the replica, so that the next thing it sends has the sequence number
    /// it had in production.
    pub(super) fn connect(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        let first = if r.nxt == NIL {
            self.sessions[r.session].rcv_nxt
        } else {
            self.segs[r.nxt].seq
        };
        let r = &mut self.replicas[rid];
        r.tcb = Tcb::opening(first - 1);
        r.tcb.reopened = r.released > 0 || r.gate_free;
        self.counters.connects += 1;
        self.send_syn(now, rid, tx);
        self.rearm(now, rid);
    }

    /// Sends the SYN, first or again.
    pub(super) fn send_syn(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        let transfer = r.transfer;
        let mss = self.sessions[r.session].mss.min(self.mss_limit(transfer));
        let head = r.tcb.syn(now, r.flow(self.target(transfer)), mss);
        let sent = tx.send(transfer, &head, None);
        self.count_sent(sent);
        let r = &mut self.replicas[rid];
        if sent.is_ok() {
            if r.tcb.rto.backoff == 0 {
                r.tcb.time(r.tcb.snd_nxt, now);
            }
            r.retry_at = 0;
            r.unreachable = 0;
            r.rto_at = now + r.tcb.rto.timeout();
        } else if sent == Err(Refused::Unreachable) {
            // The answer to ARP or ND is a matter of a millisecond, or it does not come for long.
            r.retry_at = now + (RETRY << r.unreachable.min(SLOWEST));
            r.unreachable = r.unreachable.saturating_add(1);
        } else {
            r.retry_at = now + RETRY;
        }
    }

    /// Sends all that may be sent now, and notes when to look again.
    pub(super) fn pump(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        if self.replicas[rid].abort_pending {
            self.abort(now, rid, tx);
        }
        self.resend_lost(now, rid, tx);
        loop {
            let r = &self.replicas[rid];
            if r.done {
                return;
            }
            let again = match r.tcb.state {
                State::SynSent => false,
                State::Closed => self.pump_closed(now, rid, tx),
                State::TimeWait => {
                    self.finish(now, rid, true, tx);
                    return;
                }
                _ if r.nxt != NIL => self.pump_data(now, rid, tx),
                _ => self.pump_end(now, rid, tx),
            };
            if !again {
                break;
            }
        }
        self.rearm(now, rid);
    }

    /// No connection: open one if there is a turn to carry, finish if the session is over. True to
    /// go on.
    fn pump_closed(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) -> bool {
        let r = &self.replicas[rid];
        if r.nxt != NIL {
            let seg = &self.segs[r.nxt];
            let number = seg.turn_number;
            if let Some(reason) = self.turns[seg.turn].broken {
                self.skip_broken(rid, number, reason);
                return true;
            }
            self.connect(now, rid, tx);
        } else if self.sessions[r.session].end.is_some() {
            self.finish(now, rid, false, tx);
        }
        false
    }

    /// A connection and bytes to send. True to go on.
    fn pump_data(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) -> bool {
        match self.release(now, rid, tx) {
            Next::Send => {}
            Next::Again => return true,
            Next::Stop => return false,
        }
        let r = &mut self.replicas[rid];
        if !r.tcb.outstanding() && now.saturating_sub(r.sent_at) > r.tcb.rto.timeout() {
            r.tcb.cc.after_idle(r.tcb.mss());
        }
        let r = &self.replicas[rid];
        let id = r.nxt;
        let seg = &self.segs[id];
        let at = r.tcb.snd_nxt.since(seg.seq);
        let n = r.tcb.sendable(seg.len - at, self.pipe(rid));
        if n == 0 {
            let waits = r.tcb.window_closed() || r.tcb.window_is_silly(seg.len - at);
            if waits && r.rto_at == 0 {
                let due = now + r.tcb.rto.timeout();
                self.replicas[rid].rto_at = due;
            }
            return false;
        }
        if !self.send_piece(now, rid, id, at..at + n, tx) {
            self.replicas[rid].retry_at = now + RETRY;
            return false;
        }
        self.sent_piece(now, rid, id, n);
        true
    }

    /// `n` bytes from `snd_nxt`, in segment `id`, have gone.
    pub(super) fn sent_piece(&mut self, now: Nanos, rid: u32, id: u32, n: u32) {
        let (end, next) = (self.segs[id].end(), self.segs[id].next);
        let r = &mut self.replicas[rid];
        // What begins with the byte of a window probe may go on with new ones.
        let again = r.tcb.snd_max.since(r.tcb.snd_nxt).min(n);
        r.tcb.sent(now, n);
        r.rcv_all_acknowledged();
        self.counters.retransmitted_bytes += u64::from(again);
        if again == n {
            self.counters.retransmitted_segments += 1;
        } else {
            r.sent_at = now;
        }
        if r.tcb.snd_nxt == end {
            r.nxt = next;
        }
        self.await_answer(now, rid);
    }

    /// At a turn's first byte: may the turn go, and over this connection?
    fn release(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) -> Next {
        let r = &self.replicas[rid];
        let seg = &self.segs[r.nxt];
        let number = seg.turn_number;
        if number < r.released {
            return Next::Send;
        }
        let (turn, seq) = (self.turns[seg.turn], seg.seq);
        // The target has closed, or turns between this and the last one were lost: the session goes
        // on over a new connection.
        let tcb = &r.tcb;
        let anew = seq != tcb.snd_nxt || tcb.peer_closed() || !tcb.state.may_send();
        if (anew || turn.broken.is_some()) && tcb.outstanding() {
            // First what is on the way arrives, or is found to be lost.
            return Next::Stop;
        }
        if let Some(reason) = turn.broken {
            self.skip_broken(rid, number, reason);
            return Next::Again;
        }
        if !self.gate_lets(now, rid, turn.after) {
            return Next::Stop;
        }
        if anew {
            let closed = self.replicas[rid].tcb.peer_closed();
            self.counters.target_closed_early += u64::from(closed);
            self.abort(now, rid, tx);
            self.replicas[rid].gate_free = true;
            return Next::Again;
        }
        let r = &mut self.replicas[rid];
        r.released = number + 1;
        r.released_at = r.tcb.rcv.nxt;
        r.answer = Answer::default();
        r.answered = false;
        r.gate_free = false;
        r.waiting_since = 0;
        Next::Send
    }

    /// Loses a turn that was not captured whole and that nothing was sent of.
    fn skip_broken(&mut self, rid: u32, number: u32, reason: Loss) {
        self.lose_through(rid, number, reason);
        let r = &mut self.replicas[rid];
        // Nobody answers a turn that nobody was asked; the one before it, if there was one, may
        // still be answered.
        r.gate_free |= r.released == 0;
    }

    /// Asks the gate; if it says wait, the timer is set.
    fn gate_lets(&mut self, now: Nanos, rid: u32, after: u32) -> bool {
        let transfer = *self.transfer(self.replicas[rid].transfer);
        let r = &mut self.replicas[rid];
        if r.gate_free || !transfer.wait_for_responses {
            return true;
        }
        if r.waiting_since == 0 {
            r.waiting_since = now;
        }
        let quiet = transfer.rtt.unwrap_or(self.sessions[r.session].rtt);
        match gate::ask(
            now,
            after,
            &r.answer,
            r.waiting_since,
            quiet,
            transfer.gate_timeout,
        ) {
            Verdict::Open => {}
            Verdict::TimedOut => self.counters.gate_timeouts += 1,
            Verdict::Wait(until) => {
                r.gate_at = until;
                return false;
            }
        }
        r.gate_at = 0;
        true
    }

    /// Sends `range` of a captured segment under the sequence number it had in production.
    pub(super) fn send_piece(
        &mut self,
        now: Nanos,
        rid: u32,
        id: u32,
        range: Range<u32>,
        tx: &mut impl Egress<P>,
    ) -> bool {
        let r = &self.replicas[rid];
        let target = self.target(r.transfer);
        let seg = &mut self.segs[id];
        let push = seg.push && range.end == seg.len;
        let mut flags = if push { Flags::PSH } else { Flags::default() };
        let urgent = less(seg.urgent, range.start);
        if urgent > 0 {
            flags = flags.with(Flags::URG);
        }
        let mut head = r.tcb.head(
            now,
            r.flow(target),
            seg.seq + range.start,
            flags,
            range.end - range.start,
        );
        head.urgent = urgent;
        let Some(payload) = seg.payload.as_mut() else {
            return false;
        };
        let sent = tx.send(
            r.transfer,
            &head,
            Some((payload, range.start as usize..range.end as usize)),
        );
        self.count_sent(sent)
    }

    /// A connection and nothing left to send: FIN or RST when the client's comes and the gate lets
    /// it. True to go on.
    fn pump_end(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) -> bool {
        let r = &self.replicas[rid];
        if r.tcb.fin_sent {
            if r.tcb.snd_nxt.lt(r.tcb.snd_max) {
                self.send_fin(now, rid, tx);
            }
            return false;
        }
        let s = &self.sessions[r.session];
        let (Some(end), after) = (s.end, s.end_after) else {
            return false;
        };
        if !r.tcb.state.may_send() {
            return false;
        }
        if !r.end_released {
            if !self.gate_lets(now, rid, after) {
                return false;
            }
            self.replicas[rid].end_released = true;
        }
        match end {
            End::Fin => {
                self.send_fin(now, rid, tx);
                false
            }
            End::Reset => {
                // What the client said arrived in production before it reset: so it does at the
                // target.
                if self.replicas[rid].tcb.outstanding() {
                    return false;
                }
                self.abort(now, rid, tx);
                self.finish(now, rid, true, tx);
                false
            }
        }
    }

    fn send_fin(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        let transfer = r.transfer;
        let head = r.tcb.head(
            now,
            r.flow(self.target(transfer)),
            r.tcb.snd_nxt,
            Flags::FIN,
            0,
        );
        let sent = self.transmit(transfer, &head, tx);
        let r = &mut self.replicas[rid];
        if !sent {
            r.retry_at = now + RETRY;
            return;
        }
        if r.tcb.fin_sent {
            r.tcb.sent(now, 1);
        } else {
            r.tcb.sent_fin(now);
        }
        r.rcv_all_acknowledged();
        self.await_answer(now, rid);
    }

    /// Asks the target for a sign of life, as the client has just asked production's server.
    pub(super) fn keep_alive(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        if !r.tcb.state.may_send() || r.tcb.outstanding() {
            return;
        }
        let transfer = r.transfer;
        let flow = r.flow(self.target(transfer));
        let head = r.tcb.head(now, flow, r.tcb.snd_nxt - 1, Flags::ACK, 0);
        self.counters.keep_alives += u64::from(self.transmit(transfer, &head, tx));
    }

    /// Acknowledges what has come, up to `upto`.
    pub(super) fn send_ack(&mut self, now: Nanos, rid: u32, upto: Seq, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        let transfer = r.transfer;
        let mut head = r.tcb.head(
            now,
            r.flow(self.target(transfer)),
            r.tcb.snd_nxt.max(r.tcb.snd_max),
            Flags::ACK,
            0,
        );
        head.ack = upto;
        if !self.transmit(transfer, &head, tx) {
            let r = &mut self.replicas[rid];
            r.ack_refused = true;
            r.retry_at = now + RETRY;
        }
    }

    /// Turns that were on the way are lost with the connection.
    pub(super) fn lose_released(&mut self, rid: u32, reason: Loss) {
        let released = self.replicas[rid].released;
        if released > 0 {
            self.lose_through(rid, released - 1, reason);
        }
    }
}
