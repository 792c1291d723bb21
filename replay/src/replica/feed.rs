//! What the capture half tells of a session reaches its replicas here.

use super::Replicas;
use super::data::{Feed, Seg, Turn, UNKNOWN_RTT};
use crate::capture::session::{End, List};
use crate::capture::sink::{Beginning, Opening, Sink};
use crate::core::Egress;
use crate::counters::Loss;
use crate::due::{Due, Moment};
use crate::ledger::{Amount, Ledger};
use crate::piece::{Charge, Piece};
use crate::pos::StreamPos;
use crate::slab::NIL;
use wire::io::Payload;
use wire::{Flow, Nanos};

/// Captured segments that bytes which come again are compared with at most: a frame's cost is
/// bounded.
const COMPARED: usize = 256;

/// The replica half as the capture half sees it, with where its segments go, at one moment.
pub(crate) struct Door<'a, P, E> {
    pub half: &'a mut Replicas<P>,
    pub tx: &'a mut E,
    pub now: Nanos,
}

impl<P: Payload, E: Egress<P>> Sink<P> for Door<'_, P, E> {
    fn accepts_sessions(&self, transfer: u16) -> bool {
        // The newest session goes first when buffers run short, so that those that are under way
        // can go on.
        self.half.has_room_for(transfer) && self.tx.accepts_sessions()
    }

    fn ledger(&mut self) -> &mut Ledger {
        &mut self.half.ledger
    }

    fn opened(&mut self, sid: u32, opening: &Opening) {
        let feed = Feed {
            segs: List::default(),
            turns: List::default(),
            next_turn: 0,
            first_replica: NIL,
            replica_count: 0,
            transfer: opening.transfer,
            mss: opening.mss,
            turn_open: false,
            turn_fresh: false,
            answered: false,
            end: None,
            end_after: 0,
            joined: false,
            spoke_at: Moment::NONE,
            held: 0,
            rtt_us: UNKNOWN_RTT,
        };
        let feeds = &mut self.half.feeds;
        match feeds.get_mut(sid as usize) {
            Some(free) => *free = feed,
            // Ids are handed out in order, and there is room for as many as the slab has.
            None => feeds.push(feed),
        }
        self.half.ledger.target(opening.transfer).sessions += 1;
    }

    fn segment_size(&mut self, sid: u32, mss: u16) {
        let feed = &mut self.half.feeds[sid as usize];
        feed.mss = mss.max(64).min(feed.mss);
    }

    fn begun(&mut self, sid: u32, flow: &Flow, at: StreamPos) {
        self.half.add_replicas(self.now, sid, flow, at, self.tx);
    }

    fn has_begun(&self, sid: u32) -> bool {
        self.half.feeds[sid as usize].replica_count > 0
    }

    fn connected(&mut self, sid: u32) {
        let (now, tx) = (self.now, &mut *self.tx);
        self.half
            .for_each(sid, |half, rid| half.connect(now, rid, tx));
    }

    fn rejoined(&mut self, sid: u32) {
        self.half.feeds[sid as usize].joined = true;
        self.half.for_each(sid, |half, rid| {
            let r = &mut half.replicas[rid];
            // The answer that the turn follows never came to this replica.
            r.gate_free |= r.una == NIL;
        });
    }

    fn round_trip(&mut self, sid: u32, rtt: Nanos) {
        let us = (rtt / 1_000).min(u64::from(UNKNOWN_RTT)) as u32;
        let feed = &mut self.half.feeds[sid as usize];
        // Whatever delays an acknowledgment makes the measure longer, and nothing makes it shorter.
        feed.rtt_us = feed.rtt_us.min(us);
    }

    fn append(
        &mut self,
        sid: u32,
        piece: Piece<P>,
        begins: Option<Beginning>,
        at: Nanos,
    ) -> Result<(), Loss> {
        self.half.ask_for_room(self.now, sid, self.tx);
        self.half.append(self.now, sid, piece, begins, at)
    }

    fn close_turn(&mut self, sid: u32) {
        self.half.close_turn(sid);
    }

    fn break_turn(&mut self, sid: u32, reason: Loss) {
        let half = &mut *self.half;
        let feed = &mut half.feeds[sid as usize];
        feed.turn_open = false;
        let turn = &mut half.turns[feed.turns.tail];
        turn.closed = true;
        turn.broken = Some(reason);
        let (number, start) = (turn.number, turn.start);
        half.for_each(sid, |half, rid| half.break_turn(rid, number, start, reason));
        half.free_turns(sid);
    }

    fn turn_is_open(&self, sid: u32) -> bool {
        self.half.feeds[sid as usize].turn_open
    }

    fn answer_seen(&mut self, sid: u32, at: Nanos) {
        let feed = &mut self.half.feeds[sid as usize];
        if feed.turn_open && !feed.answered {
            feed.answered = true;
            let latency = at.saturating_sub(self.half.turns[feed.turns.tail].last_at);
            let t = self.half.ledger.target(feed.transfer);
            t.production_latency.record(latency);
        }
    }

    fn keep_alive(&mut self, sid: u32) {
        let (now, tx) = (self.now, &mut *self.tx);
        self.half
            .for_each(sid, |half, rid| half.keep_alive(now, rid, tx));
    }

    fn ended(&mut self, sid: u32, end: End, after: u64) {
        let feed = &mut self.half.feeds[sid as usize];
        feed.end = Some(end);
        feed.end_after = after;
    }

    fn push(&mut self, sid: u32) {
        let (now, tx) = (self.now, &mut *self.tx);
        self.half.for_each(sid, |half, rid| half.pump(now, rid, tx));
        self.half.feeds[sid as usize].turn_fresh = false;
    }

    fn conflicts(&self, sid: u32, piece: &Piece<P>) -> u64 {
        let half = &self.half;
        let List { head, tail } = half.feeds[sid as usize].segs;
        // A mirror that shows all frames twice repeats the newest segment.
        let newest = tail != NIL && half.segs[tail].pos <= piece.pos;
        let mut id = if newest { tail } else { head };
        let mut differing = 0;
        for _ in 0..COMPARED {
            if id == NIL || half.segs[id].pos >= piece.end() {
                break;
            }
            let seg = &half.segs[id];
            differing += piece.conflicts(seg.payload.as_ref(), seg.pos);
            id = seg.next;
        }
        differing
    }

    fn reserve(&mut self, sid: u32, charge: Charge) -> bool {
        self.half.ask_for_room(self.now, sid, self.tx);
        let half = &mut *self.half;
        let full = half.is_full(charge);
        let feed = &mut half.feeds[sid as usize];
        if full || !feed.has_room(charge.bytes, half.params.session_bytes) {
            return false;
        }
        feed.held += charge.bytes;
        half.reserved += 1;
        half.frames += usize::from(charge.frame);
        half.ledger.target(feed.transfer).hold(charge);
        true
    }

    fn release(&mut self, sid: u32, charge: Charge) {
        let half = &mut *self.half;
        let feed = &mut half.feeds[sid as usize];
        feed.held -= charge.bytes;
        half.reserved -= 1;
        half.frames -= usize::from(charge.frame);
        half.ledger.target(feed.transfer).let_go(charge);
    }

    fn is_done(&self, sid: u32) -> bool {
        let half = &self.half;
        let mut rid = half.feeds[sid as usize].first_replica;
        while rid != NIL {
            if !half.replicas[rid].done {
                return false;
            }
            rid = half.replicas[rid].next;
        }
        true
    }

    fn is_idle(&self, sid: u32) -> bool {
        self.half.feeds[sid as usize].segs.is_empty()
    }

    fn give_up(&mut self, sid: u32, reason: Loss) {
        let (now, tx) = (self.now, &mut *self.tx);
        self.half.for_each(sid, |half, rid| {
            half.lose_through(rid, u32::MAX, reason);
            if !half.replicas[rid].done {
                half.abort(now, rid, tx);
                half.finish(now, rid, false, tx);
            }
        });
    }

    fn removed(&mut self, sid: u32) {
        let half = &mut *self.half;
        let feed = &mut half.feeds[sid as usize];
        debug_assert!(feed.segs.is_empty() && feed.turns.is_empty() && feed.held == 0);
        let mut rid = std::mem::replace(&mut feed.first_replica, NIL);
        while rid != NIL {
            let next = half.replicas[rid].next;
            half.timers.cancel(rid);
            half.replicas.free(rid);
            rid = next;
        }
    }

    fn ask_for(&self, sid: u32, more: bool) {
        self.half.ask_for::<E>(sid, more);
    }

    fn prefetch<T>(of: &T) {
        E::prefetch(of);
    }
}

impl<P: Payload> Replicas<P> {
    /// Asks for what a timer of the session will touch.
    #[inline]
    fn ask_for<E: Egress<P>>(&self, sid: u32, more: bool) {
        let feed = &self.feeds[sid as usize];
        if !more {
            E::prefetch(feed);
            return;
        }
        let rid = feed.first_replica;
        if rid != NIL {
            E::prefetch(&self.replicas[rid].done);
            E::prefetch(self.replicas.link(rid));
            if let Some(timer) = self.timers.place(rid) {
                E::prefetch(timer);
            }
        }
    }

    fn append(
        &mut self,
        now: Nanos,
        sid: u32,
        piece: Piece<P>,
        begins: Option<Beginning>,
        at: Nanos,
    ) -> Result<(), Loss> {
        let (len, end) = (piece.len(), piece.end());
        let charge = Charge::of(&piece.payload);
        let feed = &self.feeds[sid as usize];
        if !feed.has_room(charge.bytes, self.params.session_bytes) {
            return Err(Loss::SessionBytes);
        }
        if self.owes(feed.transfer) {
            return Err(Loss::TargetBudget);
        }
        if feed.replica_count > 0 && self.is_full(charge) {
            return Err(Loss::Buffers);
        }
        if let Some(beginning) = begins
            && !self.begin_turn(sid, piece.pos, &beginning, at)
        {
            return Err(Loss::Buffers);
        }
        let feed = &self.feeds[sid as usize];
        let (turn, tail) = (feed.turns.tail, feed.segs.tail);
        let (transfer, first, count) = (feed.transfer, feed.first_replica, feed.replica_count);
        let live = self.count_holders(first);
        if live > 0 {
            let seg = Seg {
                pos: piece.pos,
                len,
                next: NIL,
                turn_number: self.turns[turn].number,
                turn,
                holders: live,
                push: piece.push,
                urgent: piece.urgent,
                payload: Some(piece.payload),
            };
            let Ok(id) = self.segs.alloc(seg) else {
                return Err(Loss::Buffers);
            };
            if tail == NIL {
                self.feeds[sid as usize].segs.head = id;
            } else {
                self.segs[tail].next = id;
            }
            let feed = &mut self.feeds[sid as usize];
            feed.segs.tail = id;
            feed.held += charge.bytes;
            self.frames += usize::from(charge.frame);
            self.ledger.target(transfer).hold(charge);
            self.for_each(sid, |half, rid| {
                let r = &mut half.replicas[rid];
                if r.dropping.is_none() && !r.done {
                    if r.una == NIL {
                        r.progress_at = Due::at(now);
                    }
                    r.una = if r.una == NIL { id } else { r.una };
                    r.nxt = if r.nxt == NIL { id } else { r.nxt };
                }
            });
        }
        self.turns[turn].end = end;
        self.turns[turn].last_at = at;
        self.feeds[sid as usize].spoke_at = Moment::at(at);
        let bytes = Amount::bytes(u64::from(len));
        self.ledger.captured(transfer, bytes, count);
        if live < count {
            self.lose_at_once(first, bytes);
        }
        Ok(())
    }

    /// How many replicas can carry a turn.
    fn count_live(&self, first: u32) -> u16 {
        let (mut live, mut rid) = (0, first);
        while rid != NIL {
            live += u16::from(!self.replicas[rid].done);
            rid = self.replicas[rid].next;
        }
        live
    }

    /// How many replicas will carry the open turn.
    fn count_holders(&self, first: u32) -> u16 {
        let (mut live, mut rid) = (0, first);
        while rid != NIL {
            let r = &self.replicas[rid];
            live += u16::from(r.dropping.is_none() && !r.done);
            rid = r.next;
        }
        live
    }

    /// Bytes joined a turn that some replicas, from `first` on, have lost already.
    fn lose_at_once(&mut self, first: u32, bytes: Amount) {
        let mut rid = first;
        while rid != NIL {
            let r = &self.replicas[rid];
            let (transfer, next) = (r.transfer, r.next);
            if let Some(reason) = r.dropping {
                self.ledger.lost(transfer, bytes, reason);
                self.lose_grown(rid, reason);
            }
            rid = next;
        }
    }

    /// Begins a turn at `start`. False if there is no room for it.
    fn begin_turn(&mut self, sid: u32, start: StreamPos, of: &Beginning, at: Nanos) -> bool {
        self.close_turn(sid);
        let feed = &self.feeds[sid as usize];
        let (number, count, tail) = (feed.next_turn, feed.replica_count, feed.turns.tail);
        let pause = if feed.spoke_at.is_set() {
            feed.spoke_at.elapsed(at)
        } else {
            0
        };
        let live = self.count_live(feed.first_replica);
        let turn = Turn {
            number,
            next: NIL,
            start,
            end: start,
            after: of.after,
            pause_us: (pause / 1_000).min(u64::from(u32::MAX)) as u32,
            open_for: live,
            closed: false,
            broken: None,
            last_at: at,
            due: of.due,
        };
        let Ok(id) = self.turns.alloc(turn) else {
            return false;
        };
        if tail == NIL {
            self.feeds[sid as usize].turns.head = id;
        } else {
            self.turns[tail].next = id;
        }
        let feed = &mut self.feeds[sid as usize];
        feed.turns.tail = id;
        feed.next_turn += 1;
        feed.turn_open = true;
        feed.turn_fresh = true;
        feed.answered = false;
        self.ledger
            .captured(feed.transfer, Amount::new(1, 0), count);
        self.for_each(sid, |half, rid| {
            let r = &mut half.replicas[rid];
            if r.done {
                // It was given up.
                let reason = r.dropping.unwrap_or(Loss::Stopped);
                half.ledger.lost(r.transfer, Amount::new(1, 0), reason);
                return;
            }
            r.dropping = None;
            if r.turn == NIL {
                r.turn = id;
                r.settled = start;
            }
        });
        true
    }

    /// No more bytes will come for the newest turn: replicas whose target has all of it have
    /// replayed it.
    fn close_turn(&mut self, sid: u32) {
        let feed = &mut self.feeds[sid as usize];
        if !feed.turn_open {
            return;
        }
        feed.turn_open = false;
        let tail = feed.turns.tail;
        self.turns[tail].closed = true;
        self.for_each(sid, |half, rid| half.settle_replayed(rid));
        self.free_turns(sid);
    }
}
