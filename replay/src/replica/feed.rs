//! What the capture half tells of a session reaches its replicas here.

use super::Replicas;
use super::data::{Feed, NO_TARGET, Seg, Turn, UNKNOWN_RTT};
use crate::capture::session::{End, List};
use crate::capture::sink::{Beginning, Opening, Sink};
use crate::core::Egress;
use crate::counters::Loss;
use crate::due::{Due, Moment};
use crate::ledger::{Amount, Ledger};
use crate::params::MAX_TARGETS;
use crate::piece::{Charge, Piece};
use crate::pos::StreamPos;
use crate::slab::NIL;
use arrayvec::ArrayVec;
use std::ops::Range;
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

impl<P: Payload, E: Egress<P>> Door<'_, P, E> {
    /// Calls `f` with each replica of a session, at whichever target.
    fn for_each(&mut self, sid: u32, f: impl Fn(&mut Replicas<P>, u32, Nanos, &mut E)) {
        let (now, tx) = (self.now, &mut *self.tx);
        for feed in self.half.feeds_of(sid) {
            self.half.for_each(feed, |half, rid| f(half, rid, now, tx));
        }
    }

    /// The feeds of a session.
    fn feeds(&self, sid: u32) -> impl Iterator<Item = &Feed> {
        let feeds = &self.half.feeds;
        self.half.feeds_of(sid).map(|feed| &feeds[feed as usize])
    }

    /// [`Sink::append`] for a session with several targets: one that has no room misses the rest of
    /// the turn, and the others miss nothing. An error if none has any.
    #[inline(never)]
    fn append_to_each(
        &mut self,
        feeds: Range<u32>,
        piece: &Piece<P>,
        said: Amount,
        begins: Option<Beginning>,
        at: Nanos,
    ) -> Result<(), Loss> {
        let mut missing = ArrayVec::<(u32, Loss), MAX_TARGETS>::new();
        let all = feeds.len();
        for id in feeds {
            let half = &mut *self.half;
            let feed = &half.feeds[id as usize];
            if let Some(reason) = feed.missing {
                if begins.is_none() {
                    missing.push((id, reason));
                    continue;
                }
                half.rejoined(id);
            }
            half.ask_for_room(self.now, id, self.tx);
            if let Err(reason) = half.append(self.now, id, piece.share(), begins, at) {
                missing.push((id, reason));
            }
        }
        if missing.len() == all {
            return missing.first().map_or(Ok(()), |(_, reason)| Err(*reason));
        }
        for (id, reason) in missing {
            let half = &mut *self.half;
            half.break_open_turn(id, reason);
            let feed = &mut half.feeds[id as usize];
            feed.missing = Some(reason);
            let target = feed.target;
            half.ledger.withheld(target, said, reason);
        }
        Ok(())
    }
}

impl<P: Payload, E: Egress<P>> Sink<P> for Door<'_, P, E> {
    fn accepts_sessions(&self, fan: u16) -> bool {
        // The newest session goes first when buffers run short, so that those that are under way
        // can go on. A target that is short of them is none the less for the others.
        let mut targets = self.half.fans.targets(fan).iter();
        self.tx.accepts_sessions() && targets.any(|t| self.half.has_room_for(*t))
    }

    fn ledger(&mut self) -> &mut Ledger {
        &mut self.half.ledger
    }

    fn opened(&mut self, sid: u32, opening: &Opening) {
        let half = &mut *self.half;
        half.ledger.common.sessions += 1;
        let first = half.first_feed(sid) as usize;
        let targets = half.fans.targets(opening.fan);
        for i in 0..half.width as usize {
            let feed = Feed {
                segs: List::default(),
                turns: List::default(),
                next_turn: 0,
                first_replica: NIL,
                replica_count: 0,
                target: targets.get(i).copied().unwrap_or(NO_TARGET),
                mss: opening.mss,
                turn_open: false,
                turn_fresh: false,
                answered: false,
                missing: None,
                end: None,
                end_after: 0,
                joined: false,
                spoke_at: Moment::NONE,
                held: 0,
                rtt_us: UNKNOWN_RTT,
            };
            if feed.target != NO_TARGET {
                half.ledger.target(feed.target).sessions += 1;
            }
            match half.feeds.get_mut(first + i) {
                Some(free) => *free = feed,
                // Ids are handed out in order, and there is room for as many as the slab has.
                None => half.feeds.push(feed),
            }
        }
    }

    fn segment_size(&mut self, sid: u32, mss: u16) {
        for feed in self.half.feeds_of(sid) {
            let feed = &mut self.half.feeds[feed as usize];
            feed.mss = mss.max(64).min(feed.mss);
        }
    }

    fn begun(&mut self, sid: u32, flow: &Flow, at: StreamPos) {
        for feed in self.half.feeds_of(sid) {
            if self.half.feeds[feed as usize].replica_count == 0 {
                self.half.add_replicas(self.now, feed, flow, at, self.tx);
            }
        }
    }

    fn has_begun(&self, sid: u32) -> bool {
        self.feeds(sid).all(|feed| feed.replica_count > 0)
    }

    fn connected(&mut self, sid: u32) {
        self.for_each(sid, |half, rid, now, tx| half.connect(now, rid, tx));
    }

    fn rejoined(&mut self, sid: u32) {
        for feed in self.half.feeds_of(sid) {
            self.half.rejoined(feed);
        }
    }

    fn round_trip(&mut self, sid: u32, rtt: Nanos) {
        let us = (rtt / 1_000).min(u64::from(UNKNOWN_RTT)) as u32;
        for feed in self.half.feeds_of(sid) {
            let feed = &mut self.half.feeds[feed as usize];
            // Whatever delays an acknowledgment makes the measure longer, and nothing makes it
            // shorter.
            feed.rtt_us = feed.rtt_us.min(us);
        }
    }

    fn append(
        &mut self,
        sid: u32,
        piece: Piece<P>,
        begins: Option<Beginning>,
        at: Nanos,
    ) -> Result<(), Loss> {
        let said = Amount::new(u64::from(begins.is_some()), u64::from(piece.len()));
        let feeds = self.half.feeds_of(sid);
        if feeds.len() == 1 {
            self.half.ask_for_room(self.now, feeds.start, self.tx);
            self.half.append(self.now, feeds.start, piece, begins, at)?;
        } else {
            self.append_to_each(feeds, &piece, said, begins, at)?;
        }
        self.half.ledger.said(said);
        Ok(())
    }

    fn close_turn(&mut self, sid: u32) {
        for feed in self.half.feeds_of(sid) {
            self.half.close_turn(feed);
        }
    }

    fn break_turn(&mut self, sid: u32, reason: Loss) {
        for feed in self.half.feeds_of(sid) {
            self.half.break_open_turn(feed, reason);
        }
    }

    fn turn_is_open(&self, sid: u32) -> bool {
        self.feeds(sid).any(|feed| feed.turn_open)
    }

    fn answer_seen(&mut self, sid: u32, at: Nanos) {
        let half = &mut *self.half;
        let mut first = None;
        for feed in half.feeds_of(sid) {
            let feed = &mut half.feeds[feed as usize];
            if feed.turn_open && !feed.answered {
                feed.answered = true;
                let latency = at.saturating_sub(half.turns[feed.turns.tail].last_at);
                let t = half.ledger.target(feed.target);
                t.production_latency.record(latency);
                first = first.or(Some(latency));
            }
        }
        if let Some(latency) = first {
            half.ledger.common.production_latency.record(latency);
        }
    }

    fn keep_alive(&mut self, sid: u32) {
        self.for_each(sid, |half, rid, now, tx| half.keep_alive(now, rid, tx));
    }

    fn ended(&mut self, sid: u32, end: End, after: u64) {
        for feed in self.half.feeds_of(sid) {
            let feed = &mut self.half.feeds[feed as usize];
            feed.end = Some(end);
            feed.end_after = after;
        }
    }

    fn push(&mut self, sid: u32) {
        self.for_each(sid, |half, rid, now, tx| half.pump(now, rid, tx));
        for feed in self.half.feeds_of(sid) {
            self.half.feeds[feed as usize].turn_fresh = false;
        }
    }

    fn conflicts(&self, sid: u32, piece: &Piece<P>) -> u64 {
        // The one that holds most knows most.
        let conflicts = self.feeds(sid).map(|feed| self.half.conflicts(feed, piece));
        conflicts.max().unwrap_or(0)
    }

    fn reserve(&mut self, sid: u32, charge: Charge) -> bool {
        let feeds = self.half.feeds_of(sid);
        let first = feeds.start;
        for feed in feeds.clone() {
            self.half.ask_for_room(self.now, feed, self.tx);
        }
        let half = &mut *self.half;
        // What waits in the capture half is counted at the first target, but there is room for it
        // as long as there is at any: one that hangs is not to make holes in the others' streams.
        let limit = half.params.session_bytes;
        let mut own = half.feeds[first as usize..feeds.end as usize].iter();
        if half.is_full(charge) || !own.any(|feed| feed.has_room(charge.bytes, limit)) {
            return false;
        }
        let feed = &mut half.feeds[first as usize];
        let Some(held) = feed.held.checked_add(charge.bytes) else {
            return false;
        };
        feed.held = held;
        half.reserved += 1;
        half.frames += usize::from(charge.frame);
        half.ledger.target(feed.target).hold(charge);
        true
    }

    fn release(&mut self, sid: u32, charge: Charge) {
        let half = &mut *self.half;
        let first = half.first_feed(sid);
        let feed = &mut half.feeds[first as usize];
        feed.held -= charge.bytes;
        half.reserved -= 1;
        half.frames -= usize::from(charge.frame);
        half.ledger.target(feed.target).let_go(charge);
    }

    fn is_done(&self, sid: u32) -> bool {
        self.feeds(sid).all(|feed| self.half.is_done(feed))
    }

    fn is_held_up(&self, sid: u32) -> bool {
        self.half.width > 1 && self.feeds(sid).any(|feed| self.half.is_done(feed))
    }

    fn is_idle(&self, sid: u32) -> bool {
        self.feeds(sid).all(|feed| feed.segs.is_empty())
    }

    fn give_up(&mut self, sid: u32, reason: Loss) {
        self.for_each(sid, |half, rid, now, tx| {
            half.lose_through(rid, u32::MAX, reason);
            if !half.replicas[rid].is_done() {
                half.abort(now, rid, tx);
                half.finish(now, rid, false, tx);
            }
        });
    }

    fn removed(&mut self, sid: u32) {
        let half = &mut *self.half;
        for feed in half.feeds_of(sid) {
            let feed = &mut half.feeds[feed as usize];
            debug_assert!(feed.segs.is_empty() && feed.turns.is_empty() && feed.held == 0);
            let mut rid = std::mem::replace(&mut feed.first_replica, NIL);
            while rid != NIL {
                let next = half.replicas[rid].next;
                half.timers.cancel(rid);
                half.replicas.free(rid);
                rid = next;
            }
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
        let feed = &self.feeds[self.first_feed(sid) as usize];
        if !more {
            E::prefetch(feed);
            return;
        }
        let rid = feed.first_replica;
        if rid != NIL {
            E::prefetch(&self.replicas[rid].stage);
            E::prefetch(self.replicas.link(rid));
            if let Some(timer) = self.timers.place(rid) {
                E::prefetch(timer);
            }
        }
    }

    fn append(
        &mut self,
        now: Nanos,
        feed: u32,
        piece: Piece<P>,
        begins: Option<Beginning>,
        at: Nanos,
    ) -> Result<(), Loss> {
        let (len, end) = (piece.len(), piece.end());
        let charge = Charge::of(&piece.payload);
        let id = feed;
        let feed = &self.feeds[id as usize];
        if !feed.has_room(charge.bytes, self.params.session_bytes) {
            return Err(Loss::SessionBytes);
        }
        if self.owes(feed.target) {
            return Err(Loss::TargetBudget);
        }
        if feed.replica_count > 0 && self.is_full(charge) {
            return Err(Loss::Buffers);
        }
        if let Some(beginning) = begins
            && !self.begin_turn(id, piece.pos, &beginning, at)
        {
            return Err(Loss::Buffers);
        }
        let feed = &self.feeds[id as usize];
        let (turn, tail) = (feed.turns.tail, feed.segs.tail);
        let (target, first, count) = (feed.target, feed.first_replica, feed.replica_count);
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
            let Ok(seg) = self.segs.alloc(seg) else {
                return Err(Loss::Buffers);
            };
            if tail == NIL {
                self.feeds[id as usize].segs.head = seg;
            } else {
                self.segs[tail].next = seg;
            }
            let feed = &mut self.feeds[id as usize];
            feed.segs.tail = seg;
            feed.held += charge.bytes;
            self.frames += usize::from(charge.frame);
            self.ledger.target(target).hold(charge);
            self.for_each(id, |half, rid| {
                let r = &mut half.replicas[rid];
                if r.dropping.is_none() && !r.is_done() {
                    if r.una == NIL {
                        r.progress_at = Due::at(now);
                    }
                    r.una = if r.una == NIL { seg } else { r.una };
                    r.nxt = if r.nxt == NIL { seg } else { r.nxt };
                }
            });
        }
        self.turns[turn].end = end;
        self.turns[turn].last_at = at;
        self.feeds[id as usize].spoke_at = Moment::at(at);
        let bytes = Amount::bytes(u64::from(len));
        self.ledger.captured(target, bytes, count);
        if live < count {
            self.lose_at_once(first, bytes);
        }
        Ok(())
    }

    /// How many replicas can carry a turn.
    fn count_live(&self, first: u32) -> u16 {
        let (mut live, mut rid) = (0, first);
        while rid != NIL {
            live += u16::from(!self.replicas[rid].is_done());
            rid = self.replicas[rid].next;
        }
        live
    }

    /// How many replicas will carry the open turn.
    fn count_holders(&self, first: u32) -> u16 {
        let (mut live, mut rid) = (0, first);
        while rid != NIL {
            let r = &self.replicas[rid];
            live += u16::from(r.dropping.is_none() && !r.is_done());
            rid = r.next;
        }
        live
    }

    /// Bytes joined a turn that some replicas, from `first` on, have lost already.
    fn lose_at_once(&mut self, first: u32, bytes: Amount) {
        let mut rid = first;
        while rid != NIL {
            let r = &self.replicas[rid];
            let (target, next) = (r.target, r.next);
            if let Some(reason) = r.dropping {
                self.ledger.lost(target, bytes, reason);
                self.lose_grown(rid, reason);
            }
            rid = next;
        }
    }

    /// Begins a turn at `start`. False if there is no room for it.
    fn begin_turn(&mut self, id: u32, start: StreamPos, of: &Beginning, at: Nanos) -> bool {
        self.close_turn(id);
        let feed = &self.feeds[id as usize];
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
        let Ok(turn) = self.turns.alloc(turn) else {
            return false;
        };
        if tail == NIL {
            self.feeds[id as usize].turns.head = turn;
        } else {
            self.turns[tail].next = turn;
        }
        let feed = &mut self.feeds[id as usize];
        feed.turns.tail = turn;
        feed.next_turn += 1;
        feed.turn_open = true;
        feed.turn_fresh = true;
        feed.answered = false;
        self.ledger.captured(feed.target, Amount::new(1, 0), count);
        self.for_each(id, |half, rid| {
            let r = &mut half.replicas[rid];
            if r.is_done() {
                // It was given up.
                let reason = r.dropping.unwrap_or(Loss::Stopped);
                half.ledger.lost(r.target, Amount::new(1, 0), reason);
                return;
            }
            r.dropping = None;
            if r.turn == NIL {
                r.turn = turn;
                r.settled = start;
            }
        });
        true
    }

    /// No more bytes will come for the newest turn: replicas whose target has all of it have
    /// replayed it.
    fn close_turn(&mut self, id: u32) {
        let feed = &mut self.feeds[id as usize];
        if !feed.turn_open {
            return;
        }
        feed.turn_open = false;
        let tail = feed.turns.tail;
        self.turns[tail].closed = true;
        self.for_each(id, |half, rid| half.settle_replayed(rid));
        self.free_turns(id);
    }

    /// The rest of the feed's open turn is not there, if it has one.
    fn break_open_turn(&mut self, id: u32, reason: Loss) {
        let feed = &mut self.feeds[id as usize];
        if !feed.turn_open {
            return;
        }
        feed.turn_open = false;
        let turn = &mut self.turns[feed.turns.tail];
        turn.closed = true;
        turn.broken = Some(reason);
        let (number, start) = (turn.number, turn.start);
        self.for_each(id, |half, rid| half.break_turn(rid, number, start, reason));
        self.free_turns(id);
    }

    /// The feed was out of step.
    fn rejoined(&mut self, id: u32) {
        let feed = &mut self.feeds[id as usize];
        feed.joined = true;
        feed.missing = None;
        self.for_each(id, |half, rid| {
            let r = &mut half.replicas[rid];
            // The answer that the turn follows never came to this replica.
            r.gate_free |= r.una == NIL;
        });
    }

    /// All replicas of the feed are.
    fn is_done(&self, feed: &Feed) -> bool {
        let mut rid = feed.first_replica;
        while rid != NIL {
            if !self.replicas[rid].is_done() {
                return false;
            }
            rid = self.replicas[rid].next;
        }
        true
    }

    /// Bytes of `piece` that are others than those that the feed holds.
    fn conflicts(&self, feed: &Feed, piece: &Piece<P>) -> u64 {
        let List { head, tail } = feed.segs;
        // A mirror that shows all frames twice repeats the newest segment.
        let newest = tail != NIL && self.segs[tail].pos <= piece.pos;
        let mut id = if newest { tail } else { head };
        let mut differing = 0;
        for _ in 0..COMPARED {
            if id == NIL || self.segs[id].pos >= piece.end() {
                break;
            }
            let seg = &self.segs[id];
            differing += piece.conflicts(seg.payload.as_ref(), seg.pos);
            id = seg.next;
        }
        differing
    }
}
