//! How a replica's turns end: every turn is settled once, as replayed or as lost, with its bytes.

use super::Replicas;
use crate::core::Egress;
use crate::counters::Loss;
use crate::ledger::Amount;
use crate::piece::Charge;
use crate::pos::StreamPos;
use crate::slab::NIL;
use crate::tcp::State;
use wire::io::Payload;
use wire::{Nanos, Seq};

use super::data::{Stage, on_wire};

impl<P: Payload> Replicas<P> {
    /// The target has acknowledged everything below `upto`.
    pub(super) fn settle_bytes(&mut self, rid: u32, upto: Seq) {
        let r = &self.replicas[rid];
        if r.turn == NIL {
            return;
        }
        let newest = self.feeds[r.feed as usize].turns.tail;
        // The acknowledgment may cover our FIN, which is no byte.
        let upto = r.place(upto).min(self.turns[newest].end);
        let bytes = upto.since(r.settled);
        self.ledger.replayed(r.target, Amount::bytes(bytes));
        self.replicas[rid].settled += bytes;
        self.settle_replayed(rid);
    }

    /// Counts the turns that are complete and acknowledged to their last byte.
    pub(super) fn settle_replayed(&mut self, rid: u32) {
        loop {
            let r = &self.replicas[rid];
            let id = r.turn;
            if id == NIL {
                break;
            }
            let t = &self.turns[id];
            if !t.closed || t.broken.is_some() || r.settled < t.end {
                break;
            }
            self.ledger.replayed(r.target, Amount::new(1, 0));
            let r = &mut self.replicas[rid];
            if r.dropping.is_none() {
                r.in_a_row.replayed();
            }
            self.leave_turn(rid, id);
        }
        let feed = self.replicas[rid].feed;
        self.free_turns(feed);
    }

    /// The replica is through with its oldest turn.
    fn leave_turn(&mut self, rid: u32, id: u32) {
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
            let t = &self.turns[id];
            let (rest, closed) = (t.end.since(r.settled), t.closed);
            let reason = t.broken.unwrap_or(reason);
            self.ledger.lost(r.target, Amount::new(1, rest), reason);
            if !closed {
                self.replicas[rid].dropping = Some(reason);
            }
            self.leave_turn(rid, id);
        }
        self.skip_segments(rid, last);
        let feed = self.replicas[rid].feed;
        self.free_turns(feed);
    }

    fn skip_segments(&mut self, rid: u32, last: u32) {
        let feed = self.replicas[rid].feed;
        let mut at = self.replicas[rid].una;
        let (cursor, mut passed_cursor) = (self.cursor(rid), false);
        while at != NIL && self.segs[at].turn_number <= last {
            passed_cursor |= at == cursor;
            self.segs[at].holders -= 1;
            at = self.segs[at].next;
        }
        self.set_oldest(rid, at, passed_cursor);
        let nxt = self.replicas[rid].nxt;
        if nxt == NIL || self.segs[nxt].turn_number <= last {
            self.replicas[rid].nxt = at;
        }
        self.free_segments(feed);
    }

    /// Lets go of the segments that the target has acknowledged up to `upto`.
    pub(super) fn release_acknowledged(&mut self, rid: u32, upto: Seq) {
        let r = &self.replicas[rid];
        let (feed, mut at, upto) = (r.feed, r.una, r.place(upto));
        let (mut passed_nxt, mut passed_cursor) = (false, false);
        let cursor = self.cursor(rid);
        while at != NIL && self.segs[at].end() <= upto {
            passed_nxt |= at == self.replicas[rid].nxt;
            passed_cursor |= at == cursor;
            self.segs[at].holders -= 1;
            at = self.segs[at].next;
        }
        self.set_oldest(rid, at, passed_cursor);
        if passed_nxt {
            self.replicas[rid].nxt = at;
        }
        self.free_segments(feed);
    }

    fn free_segments(&mut self, feed: u32) {
        let feed = &mut self.feeds[feed as usize];
        loop {
            let id = feed.segs.head;
            if id == NIL || self.segs[id].holders > 0 {
                return;
            }
            let seg = &mut self.segs[id];
            if let Some(payload) = seg.payload.take() {
                let charge = Charge::of(&payload);
                feed.held -= charge.bytes;
                self.frames -= usize::from(charge.frame);
                self.ledger.target(feed.target).let_go(charge);
            }
            feed.segs.head = seg.next;
            if seg.next == NIL {
                feed.segs.tail = NIL;
            }
            self.segs.free(id);
        }
    }

    /// Frees turns at the front that every replica has settled.
    pub(super) fn free_turns(&mut self, feed: u32) {
        let feed = &mut self.feeds[feed as usize];
        loop {
            let id = feed.turns.head;
            if id == NIL || self.turns[id].open_for > 0 || !self.turns[id].closed {
                return;
            }
            feed.turns.head = self.turns[id].next;
            if feed.turns.head == NIL {
                feed.turns.tail = NIL;
            }
            self.turns.free(id);
        }
    }

    /// Part of turn `number`, which begins at `start`, was not captured. A replica that has begun
    /// to send it cannot finish it: its connection is given up. One that has not will skip it when
    /// it comes to it.
    pub(super) fn break_turn(&mut self, rid: u32, number: u32, start: StreamPos, reason: Loss) {
        let r = &mut self.replicas[rid];
        let unsent = r.tcb.snd_max.le(on_wire(start));
        if r.tcb.state.is_synchronized() && r.released == number + 1 && unsent {
            // The gate has let it through, but no byte of it found room in the windows: what is on
            // the way is not lost with it.
            r.released = number;
            // The answer before it has come, and nobody answers a turn that nobody was asked.
            r.gate_free = true;
            return;
        }
        if r.released > number {
            if r.tcb.state != State::Closed {
                r.stage = Stage::AbortPending;
            }
            self.lose_through(rid, number, reason);
        }
    }

    /// The target has acknowledged every byte so far of a turn that may still grow, and nothing but
    /// that turn is to be settled.
    pub(super) fn has_all_of_the_open_turn(&self, rid: u32) -> bool {
        let r = &self.replicas[rid];
        if r.turn == NIL || r.una != NIL {
            return false;
        }
        let t = &self.turns[r.turn];
        !t.closed && t.number < r.released && r.settled == t.end
    }

    /// The replica is given up, and the target has all of the open turn so far: that is not lost.
    pub(super) fn keep_open_turn(&mut self, rid: u32) {
        if self.has_all_of_the_open_turn(rid) {
            let (turn, target) = (self.replicas[rid].turn, self.replicas[rid].target);
            self.ledger.replayed(target, Amount::new(1, 0));
            self.leave_turn(rid, turn);
        }
    }

    /// The turn that a replica has lost its connection of grows: it is lost after all.
    pub(super) fn lose_grown(&mut self, rid: u32, reason: Loss) {
        let (turn, target) = (self.replicas[rid].turn, self.replicas[rid].target);
        if turn != NIL {
            self.ledger.lost(target, Amount::new(1, 0), reason);
            self.leave_turn(rid, turn);
        }
    }

    /// Turns that were on the way are lost with the connection.
    pub(super) fn lose_released(&mut self, rid: u32, reason: Loss) {
        let released = self.replicas[rid].released;
        if released > 0 {
            self.lose_through(rid, released - 1, reason);
        }
    }

    /// Loses a turn that was not captured whole and that nothing was sent of.
    pub(super) fn skip_broken(&mut self, rid: u32, number: u32, reason: Loss) {
        self.lose_through(rid, number, reason);
        let r = &mut self.replicas[rid];
        // Nobody answers a turn that nobody was asked; the one before it, if there was one, may
        // still be answered.
        r.gate_free |= r.released == 0;
    }

    /// The turn that the connection was opened for is lost.
    pub(super) fn lose_connecting(&mut self, rid: u32, reason: Loss) {
        let nxt = self.replicas[rid].nxt;
        if nxt != NIL {
            let number = self.segs[nxt].turn_number;
            self.lose_through(rid, number, reason);
            // Nobody answers a turn that nobody was asked.
            self.replicas[rid].gate_free = true;
        }
    }

    /// Everything the session said is replayed or given up: the replica's address is free again.
    pub(super) fn finish(&mut self, now: Nanos, rid: u32, in_order: bool, tx: &mut impl Egress<P>) {
        if self.replicas[rid].is_done() {
            return;
        }
        let rests = self.replicas[rid].tcb.state == State::PeerTimeWait;
        self.disconnected(rid);
        let r = &mut self.replicas[rid];
        r.stage = Stage::Done;
        let (target, flow) = (r.target, r.flow(self.fans.addr(r.target)));
        self.connections.remove(rid, &flow);
        self.timers.cancel(rid);
        self.free_address(now, target, &flow, rests, tx);
        self.count(rid).replayed_sessions += u64::from(in_order);
        self.active -= 1;
    }
}
