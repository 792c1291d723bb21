//! What a replica sends, and when: turns the gate lets through, FIN and RST as the client's,
//! acknowledgments.

use super::Replicas;
use super::data::{Passed, Spoken, Stage, on_wire};
use super::gate::{self, Answer, Verdict};
use crate::capture::session::End;
use crate::core::{Egress, Refused};
use crate::due::{Due, Moment};
use crate::piece::offset_after;
use crate::slab::NIL;
use crate::tcp::State;
use crate::tcp::connect::mss_for;
use std::ops::Range;
use wire::io::Payload;
use wire::{Flags, Head, Nanos, Seq};

/// What to do with the turn at the head of the queue.
enum Next {
    Send,
    Again,
    Stop,
}

impl<P: Payload> Replicas<P> {
    /// Hands one segment without payload to the transmit queue. One that is refused leaves the
    /// replica in the list of those that wait for it.
    pub(super) fn transmit(
        &mut self,
        now: Nanos,
        rid: u32,
        head: &Head,
        tx: &mut impl Egress<P>,
    ) -> bool {
        let sent = tx.send(self.replicas[rid].target, head, None);
        self.note_sent(now, rid, sent)
    }

    /// Hands over a segment that nobody sends again if it is refused.
    pub(super) fn send_alone(&mut self, target: u16, head: &Head, tx: &mut impl Egress<P>) {
        match tx.send(target, head, None) {
            Ok(()) => self.ledger.common.segments_sent += 1,
            Err(_) => self.ledger.common.tx_full += 1,
        }
    }

    /// Counts what became of a segment; false if it was refused.
    pub(super) fn note_sent(&mut self, now: Nanos, rid: u32, sent: Result<(), Refused>) -> bool {
        match sent {
            Ok(()) => self.ledger.common.segments_sent += 1,
            Err(refused) => {
                self.ledger.common.tx_full += 1;
                if refused == Refused::Unreachable {
                    self.hold_turn(rid);
                }
                self.block(now, rid, refused);
            }
        }
        sent.is_ok()
    }

    /// The largest payload the replay port can carry to that target.
    pub(super) fn mss_limit(&self, target: u16) -> u16 {
        mss_for(self.params.mtu, self.addr(target).is_v4())
    }

    /// Sends all that may be sent now, and notes when to look again.
    pub(super) fn pump(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        if self.replicas[rid].stage == Stage::AbortPending {
            self.abort(now, rid, tx);
        }
        self.resend_lost(now, rid, tx);
        loop {
            let r = &self.replicas[rid];
            if r.is_done() {
                return;
            }
            let again = match r.tcb.state {
                State::SynSent => false,
                State::Closed => self.pump_closed(now, rid, tx),
                State::TimeWait | State::PeerTimeWait => {
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
        } else if self.feeds[r.feed as usize].end.is_some() {
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
        let idle = r.sent_at.is_set() && r.sent_at.elapsed(now) > r.tcb.rto.timeout();
        if !r.tcb.outstanding() && idle {
            r.tcb.cc.after_idle(r.tcb.mss());
        }
        let r = &self.replicas[rid];
        let id = r.nxt;
        let seg = &self.segs[id];
        let at = r.tcb.snd_nxt.since(on_wire(seg.pos));
        let left = seg.len - at;
        let n = r.tcb.sendable(left, self.pipe(rid));
        if n == 0 {
            self.hold_turn(rid);
            let r = &self.replicas[rid];
            let waits = r.tcb.window_closed() || r.tcb.window_is_silly(left);
            if waits && r.rto_at == Due::NONE {
                let due = now + r.tcb.rto.timeout();
                self.replicas[rid].rto_at = Due::at(due);
            }
            return false;
        }
        if !self.send_piece(now, rid, id, at..at + n, tx) {
            return false;
        }
        self.sent_piece(now, rid, id, n);
        true
    }

    /// The turn that the gate has let through has to wait for the target.
    pub(super) fn hold_turn(&mut self, rid: u32) {
        let passed = &mut self.replicas[rid].passed;
        *passed = match *passed {
            Passed::Turn => Passed::HeldTurn,
            Passed::GoneAtOnce => Passed::Nothing,
            other => other,
        };
    }

    /// Bytes of segment `id` have gone: if they are the first of a turn, notes how long after it was
    /// due.
    #[inline]
    pub(super) fn note_departure(&mut self, now: Nanos, rid: u32, id: u32) {
        let (r, seg) = (&mut self.replicas[rid], &self.segs[id]);
        let is_turn = matches!(r.passed, Passed::Turn | Passed::HeldTurn);
        if !is_turn || seg.turn_number + 1 != r.released {
            return;
        }
        let turn = &self.turns[seg.turn];
        let (late, came) = (now.saturating_sub(turn.due), turn.last_at);
        let t = self.ledger.target(r.target);
        if r.passed == Passed::Turn {
            r.passed = Passed::GoneAtOnce;
            t.schedule_late.record(late);
            self.leaves(now, came);
        } else {
            r.passed = Passed::Nothing;
            t.schedule_held.record(late);
        }
    }

    /// `n` bytes from `snd_nxt`, in segment `id`, have gone.
    pub(super) fn sent_piece(&mut self, now: Nanos, rid: u32, id: u32, n: u32) {
        self.note_departure(now, rid, id);
        let ((_, end), next) = (self.segs[id].wire(), self.segs[id].next);
        let r = &mut self.replicas[rid];
        // What begins with the byte of a window probe may go on with new ones.
        let again = r.tcb.snd_max.since(r.tcb.snd_nxt).min(n);
        r.tcb.sent(now, n);
        r.rcv_all_acknowledged();
        let t = self.ledger.target(r.target);
        t.retransmitted_bytes += u64::from(again);
        if again == n {
            t.retransmitted_segments += 1;
        } else {
            r.sent_at = Moment::at(now);
            if r.spoken == Spoken::Left {
                r.spoken = Spoken::Queued;
            }
        }
        if r.tcb.snd_nxt == end {
            r.nxt = next;
        }
        self.await_answer(now, rid);
    }

    /// The kernel tells when a segment left. Only the newest payload's first transmission counts;
    /// whatever else it may tell of is of no use any more.
    pub fn sent(&mut self, at: Nanos, head: &Head) {
        let Some(rid) = self.by_flow(&head.flow) else {
            return;
        };
        let r = &mut self.replicas[rid];
        let end = r.tcb.snd_max - u32::from(r.tcb.fin_sent);
        if r.spoken == Spoken::Queued && head.seq + head.payload_len == end {
            r.spoken = Spoken::Left;
            r.sent_at = Moment::at(at);
            self.told_of_leaving(at, rid, end);
        }
    }

    /// At a turn's first byte: may the turn go, and over this connection?
    fn release(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) -> Next {
        let r = &self.replicas[rid];
        let seg = &self.segs[r.nxt];
        let number = seg.turn_number;
        if number < r.released {
            return Next::Send;
        }
        let (turn, seq) = (self.turns[seg.turn], on_wire(seg.pos));
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
        if !self.gate_lets(now, rid, turn.after, Nanos::from(turn.pause_us) * 1_000) {
            return Next::Stop;
        }
        if anew {
            let closed = self.replicas[rid].tcb.peer_closed();
            self.count(rid).target_closed_early += u64::from(closed);
            self.abort(now, rid, tx);
            self.replicas[rid].gate_free = true;
            return Next::Again;
        }
        let r = &mut self.replicas[rid];
        let feed = &self.feeds[r.feed as usize];
        // What was captured before this frame has waited for something.
        let fresh = feed.turn_fresh && number + 1 == feed.next_turn;
        r.passed = if fresh {
            Passed::Turn
        } else {
            Passed::HeldTurn
        };
        r.released = number + 1;
        r.answer = Answer::default();
        r.spoken = Spoken::Queued;
        r.gate_free = false;
        r.waiting_since = Due::NONE;
        r.progress_at = Due::at(now);
        Next::Send
    }

    /// Asks the gate; if it says wait, the timer is set. What waits is a turn, or the session's
    /// end, behind `after` bytes of answer, which the client began `pause` after what it said
    /// before.
    fn gate_lets(&mut self, now: Nanos, rid: u32, after: u64, pause: Nanos) -> bool {
        let r = &mut self.replicas[rid];
        let to = self.fans.target(r.target);
        if r.gate_free || !to.wait_for_responses {
            return true;
        }
        if r.waiting_since == Due::NONE {
            r.waiting_since = Due::at(now);
        }
        let t = self.ledger.target(r.target);
        if after > 0 && r.in_a_row.timeouts() >= gate::LIMITS_IN_A_ROW {
            let left = self
                .params
                .pace
                .ours(pause)
                .saturating_sub(r.sent_at.elapsed(now));
            if left > 0 {
                r.gate_at = Due::at(now + left);
                return false;
            }
            t.paced_turns += 1;
            r.gate_at = Due::NONE;
            return true;
        }
        let rtt = self.feeds[r.feed as usize].rtt();
        let question = gate::Question {
            after,
            since: r.waiting_since.nanos(now).unwrap_or(now),
            quiet: to.rtt.unwrap_or(rtt),
            limit: to.gate_timeout,
            timeouts: r.in_a_row.timeouts(),
            closed: r.tcb.peer_closed(),
        };
        match gate::ask(now, &question, &r.answer) {
            Verdict::Open => {}
            Verdict::TimedOut => {
                t.gate_timeouts += 1;
                r.in_a_row.timed_out();
            }
            Verdict::Wait(until) => {
                r.gate_at = Due::at(until);
                return false;
            }
        }
        r.gate_at = Due::NONE;
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
        let target = self.addr(r.target);
        let seg = &mut self.segs[id];
        let push = seg.push && range.end == seg.len;
        let mut flags = if push { Flags::PSH } else { Flags::default() };
        let urgent = offset_after(seg.urgent, range.start);
        if urgent > 0 {
            flags = flags.with(Flags::URG);
        }
        let mut head = r.tcb.head(
            now,
            r.flow(target),
            on_wire(seg.pos) + range.start,
            flags,
            range.end - range.start,
        );
        head.urgent = urgent;
        let Some(payload) = seg.payload.as_mut() else {
            return false;
        };
        let sent = tx.send(
            r.target,
            &head,
            Some((payload, range.start as usize..range.end as usize)),
        );
        self.note_sent(now, rid, sent)
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
        let feed = &self.feeds[r.feed as usize];
        let (Some(end), after) = (feed.end, feed.end_after) else {
            return false;
        };
        if !r.tcb.state.may_send() {
            return false;
        }
        if r.passed != Passed::End {
            if !self.gate_lets(now, rid, after, 0) {
                return false;
            }
            self.replicas[rid].passed = Passed::End;
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
        let target = r.target;
        let head = r
            .tcb
            .head(now, r.flow(self.addr(target)), r.tcb.snd_nxt, Flags::FIN, 0);
        let sent = self.transmit(now, rid, &head, tx);
        if !sent {
            return;
        }
        let r = &mut self.replicas[rid];
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
        let target = r.target;
        let flow = r.flow(self.addr(target));
        let head = r.tcb.head(now, flow, r.tcb.snd_nxt - 1, Flags::ACK, 0);
        self.count(rid).keep_alives += u64::from(self.transmit(now, rid, &head, tx));
    }

    /// Acknowledges what has come, up to `upto`.
    pub(super) fn send_ack(&mut self, now: Nanos, rid: u32, upto: Seq, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        let target = r.target;
        let mut head = r.tcb.head(
            now,
            r.flow(self.addr(target)),
            r.tcb.snd_nxt.max(r.tcb.snd_max),
            Flags::ACK,
            0,
        );
        head.ack = upto;
        if !self.transmit(now, rid, &head, tx) {
            let r = &mut self.replicas[rid];
            if r.stage == Stage::Going {
                r.stage = Stage::AckRefused;
            }
        }
    }
}
