//! Settling the books: every turn of every replica ends as replayed or as lost, once, with its
//! bytes.

use super::{Core, Egress};
use crate::counters::Loss;
use crate::slab::NIL;
use wire::io::Payload;
use wire::{Flags, Nanos, Seq};

impl<P: Payload> Core<P> {
    /// Counts turns and bytes that production had and no replica ever got to see.
    pub(super) fn lose_uncaptured(&mut self, turns: u64, bytes: u32, reason: Loss) {
        let copies = u64::from(self.params.copies);
        let c = &mut self.counters;
        c.turns += turns;
        c.bytes += u64::from(bytes);
        c.lost_turns[reason as usize] += turns * copies;
        c.lost_bytes[reason as usize] += u64::from(bytes) * copies;
    }

    /// No more bytes will come for the newest turn: replicas whose target has all of it have
    /// replayed it.
    pub(super) fn close_turn(&mut self, sid: u32) {
        let s = &mut self.sessions[sid];
        if !s.turn_open {
            return;
        }
        s.turn_open = false;
        let tail = s.turns.tail;
        self.turns[tail].closed = true;
        self.for_replicas(sid, |core, rid| core.settle_replayed(rid));
        self.free_turns(sid);
    }

    /// The target has acknowledged production's stream up to `upto`.
    pub(super) fn settle_bytes(&mut self, rid: u32, upto: Seq) {
        let r = &self.replicas[rid];
        if r.turn == NIL {
            return;
        }
        // The acknowledgment may cover our FIN, which is no byte.
        let n = upto.min(self.captured_end(r.session)).since(r.settled);
        self.counters.replayed_bytes += u64::from(n);
        self.counters.in_flight_bytes -= u64::from(n);
        self.replicas[rid].settled += n;
        self.settle_replayed(rid);
    }

    /// End of the newest turn.
    fn captured_end(&self, sid: u32) -> Seq {
        let tail = self.sessions[sid].turns.tail;
        if tail == NIL {
            self.sessions[sid].rcv_nxt
        } else {
            self.turns[tail].end
        }
    }

    /// Counts the turns that are complete and acknowledged to their last byte.
    fn settle_replayed(&mut self, rid: u32) {
        loop {
            let r = &self.replicas[rid];
            let id = r.turn;
            if id == NIL {
                break;
            }
            let t = &self.turns[id];
            if !t.closed || t.broken.is_some() || r.settled.lt(t.end) {
                break;
            }
            self.counters.replayed_turns += 1;
            self.leave_turn(rid, id);
        }
        let sid = self.replicas[rid].session;
        self.free_turns(sid);
    }

    /// The replica is through with its oldest turn.
    fn leave_turn(&mut self, rid: u32, id: u32) {
        self.counters.in_flight_turns -= 1;
        let t = &mut self.turns[id];
        t.open_for -= 1;
        let next = t.next;
        self.replicas[rid].turn = next;
        if next != NIL {
            // One acknowledgment may cover the end of a turn and the beginning of the next.
            let r = &mut self.replicas[rid];
            r.settled = r.settled.max(self.turns[next].start);
        }
    }

    /// Gives up every unsettled turn of the replica up to number `last`, and the segments that
    /// belong to them.
    pub(super) fn lose_through(&mut self, rid: u32, last: u32, reason: Loss) {
        loop {
            let r = &self.replicas[rid];
            let id = r.turn;
            if id == NIL || self.turns[id].number > last {
                break;
            }
            let (t, settled) = (&self.turns[id], r.settled);
            let (rest, closed) = (u64::from(t.end.since(settled)), t.closed);
            let reason = t.broken.unwrap_or(reason);
            self.counters.lost_turns[reason as usize] += 1;
            self.counters.lost_bytes[reason as usize] += rest;
            self.counters.in_flight_bytes -= rest;
            if !closed {
                self.replicas[rid].dropping = Some(reason);
            }
            self.leave_turn(rid, id);
        }
        self.skip_segments(rid, last);
        let sid = self.replicas[rid].session;
        self.free_turns(sid);
    }

    fn skip_segments(&mut self, rid: u32, last: u32) {
        let sid = self.replicas[rid].session;
        let mut at = self.replicas[rid].una;
        while at != NIL && self.segs[at].turn_number <= last {
            self.segs[at].holders -= 1;
            at = self.segs[at].next;
        }
        self.replicas[rid].una = at;
        let nxt = self.replicas[rid].nxt;
        if nxt == NIL || self.segs[nxt].turn_number <= last {
            self.replicas[rid].nxt = at;
        }
        self.free_segments(sid);
    }

    /// Lets go of the segments that the target has acknowledged up to `upto`.
    pub(super) fn release_acknowledged(&mut self, rid: u32, upto: Seq) {
        let sid = self.replicas[rid].session;
        let mut at = self.replicas[rid].una;
        let mut passed_nxt = false;
        while at != NIL && self.segs[at].end().le(upto) {
            passed_nxt |= at == self.replicas[rid].nxt;
            self.segs[at].holders -= 1;
            at = self.segs[at].next;
        }
        let r = &mut self.replicas[rid];
        r.una = at;
        if passed_nxt {
            r.nxt = at;
        }
        self.free_segments(sid);
    }

    fn free_segments(&mut self, sid: u32) {
        loop {
            let s = &mut self.sessions[sid];
            let id = s.segs.head;
            if id == NIL || self.segs[id].holders > 0 {
                return;
            }
            let seg = &mut self.segs[id];
            seg.payload = None;
            s.held -= seg.len;
            s.segs.head = seg.next;
            if seg.next == NIL {
                s.segs.tail = NIL;
            }
            self.segs.free(id);
        }
    }

    /// Frees turns at the front that every replica has settled.
    pub(super) fn free_turns(&mut self, sid: u32) {
        loop {
            let s = &mut self.sessions[sid];
            let id = s.turns.head;
            if id == NIL || self.turns[id].open_for > 0 || !self.turns[id].closed {
                return;
            }
            s.turns.head = self.turns[id].next;
            if s.turns.head == NIL {
                s.turns.tail = NIL;
            }
            self.turns.free(id);
        }
    }

    /// Part of turn `number`, which begins at `start`, was not captured. A replica that has begun
    /// to send it cannot finish it: its connection is given up. One that has not will skip it
    /// when it comes to it.
    pub(super) fn break_turn(&mut self, rid: u32, number: u32, start: Seq, reason: Loss) {
        let r = &mut self.replicas[rid];
        if r.tcb.state.is_synchronized() && r.released == number + 1 && r.tcb.snd_max.le(start) {
            // The gate has let it through, but no byte of it found room in the windows: what is on
            // the way is not lost with it.
            r.released = number;
            return;
        }
        if self.replicas[rid].released > number {
            self.replicas[rid].abort_pending =
                self.replicas[rid].tcb.state != crate::tcp::State::Closed;
            self.lose_through(rid, number, reason);
        }
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
        r.tcb = crate::tcp::Tcb::default();
        r.ack_refused = false;
        r.abort_pending = false;
        r.rto_at = 0;
        r.gate_at = 0;
        r.waiting_since = 0;
        r.end_released = false;
        r.nxt = r.una;
    }
}
