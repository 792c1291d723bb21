//! Gaps in what the mirror shows: segments beyond one wait in order until it is filled or found to
//! be a hole.
//!
//! A gap that production's server acknowledged is a hole, and so is one that stays: its bytes are
//! gone, never invented. The turn it lies in is lost, and the session joins again at the next turn
//! boundary. The first capture of a byte is the one that counts.

use super::capture::PLAUSIBLE;
use super::stream::Piece;
use super::{Core, Egress};
use crate::counters::Loss;
use crate::session::{List, Phase, Seg, Session};
use crate::slab::NIL;
use wire::io::Payload;
use wire::{Nanos, Seq};

/// A gap that production's server has acknowledged may still be filled by a mirror that reorders:
/// not after this.
const ACKED_GAP: Nanos = 50_000_000;
/// A gap that only the client's direction shows may still be filled by the client's retransmission:
/// not after this.
const SILENT_GAP: Nanos = 3_000_000_000;

impl<P: Payload> Core<P> {
    /// Keeps a piece that lies beyond a gap, in order, without what is there already. True if any
    /// of it was new.
    pub(super) fn keep_beyond(&mut self, sid: u32, mut piece: Piece<P>) -> bool {
        let beyond = self.sessions[sid].beyond;
        // Most of what comes beyond a gap comes in order: the list is walked only for what does
        // not.
        if beyond.tail != NIL && self.segs[beyond.tail].end().le(piece.seq) {
            return self.link_beyond(sid, beyond.tail, piece).is_some();
        }
        let (mut prev, mut at) = (NIL, beyond.head);
        let mut news = false;
        while at != NIL {
            let (seq, end, next) = (self.segs[at].seq, self.segs[at].end(), self.segs[at].next);
            if piece.end().le(seq) {
                break;
            }
            if end.gt(piece.seq) {
                self.counters.conflicting_bytes += piece.conflicts(&self.segs[at]);
                if piece.seq.lt(seq) {
                    let mut left = piece.payload.share();
                    left.truncate(seq.since(piece.seq) as usize);
                    let left = Piece {
                        payload: left,
                        seq: piece.seq,
                        ack: piece.ack,
                        push: false,
                        urgent: piece.urgent,
                    };
                    news |= self.link_beyond(sid, prev, left).is_some();
                }
                if piece.end().le(end) {
                    return news;
                }
                piece.trim_front(end.since(piece.seq));
            }
            (prev, at) = (at, next);
        }
        self.link_beyond(sid, prev, piece).is_some() || news
    }

    /// Links a piece behind `prev` (`NIL`: at the front). `None` if there is no room: then it is as
    /// if the mirror had not shown it.
    fn link_beyond(&mut self, sid: u32, prev: u32, piece: Piece<P>) -> Option<u32> {
        let len = piece.len();
        if u64::from(self.sessions[sid].held) + u64::from(len) > self.params.session_bytes {
            return None;
        }
        let next = if prev == NIL {
            self.sessions[sid].beyond.head
        } else {
            self.segs[prev].next
        };
        let seg = Seg {
            seq: piece.seq,
            len,
            ack: piece.ack,
            next,
            turn_number: 0,
            turn: NIL,
            holders: 0,
            push: piece.push,
            urgent: piece.urgent,
            payload: Some(piece.payload),
        };
        let id = self.segs.alloc(seg).ok()?;
        let s = &mut self.sessions[sid];
        s.held += len;
        if prev == NIL {
            s.beyond.head = id;
        }
        if next == NIL {
            s.beyond.tail = id;
        }
        if prev != NIL {
            self.segs[prev].next = id;
        }
        self.counters.out_of_order += 1;
        Some(id)
    }

    /// Takes the first segment beyond the gap out of its list.
    fn pop_beyond(&mut self, sid: u32) -> Option<Piece<P>> {
        self.pop_waiting(sid, |s| &mut s.beyond)
    }

    /// Takes the first segment out of a list of the session's that waits to join the stream.
    pub(super) fn pop_waiting(
        &mut self,
        sid: u32,
        list: fn(&mut Session) -> &mut List,
    ) -> Option<Piece<P>> {
        let s = &mut self.sessions[sid];
        let id = list(s).head;
        if id == NIL {
            return None;
        }
        let seg = &mut self.segs[id];
        s.held -= seg.len;
        list(s).head = seg.next;
        if seg.next == NIL {
            list(s).tail = NIL;
        }
        let piece = seg.payload.take().map(|payload| Piece {
            payload,
            seq: seg.seq,
            ack: seg.ack,
            push: seg.push,
            urgent: seg.urgent,
        });
        self.segs.free(id);
        piece
    }

    /// Moves what has come into order from beyond the gap to the stream.
    pub(super) fn drain_beyond(&mut self, now: Nanos, sid: u32) {
        loop {
            let s = &self.sessions[sid];
            if s.beyond.is_empty()
                || self.segs[s.beyond.head].seq.gt(s.rcv_nxt)
                || s.phase != Phase::Synced
            {
                break;
            }
            let expected = s.rcv_nxt;
            let Some(mut piece) = self.pop_beyond(sid) else {
                break;
            };
            if piece.end().gt(expected) {
                piece.trim_front(expected.since(piece.seq));
                self.append(sid, piece);
            }
        }
        let s = &mut self.sessions[sid];
        if s.beyond.is_empty() && !s.shows_more() && s.fin.is_none_or(|fin| fin.le(s.rcv_nxt)) {
            s.gap_since = 0;
        }
        self.check_fin(now, sid);
    }

    /// Nothing more is to come that could fill the session's gaps: they are holes.
    pub(super) fn settle_gaps(&mut self, now: Nanos, sid: u32, tx: &mut impl Egress<P>) {
        while self.gap_is_open(sid) && self.sessions[sid].phase != Phase::Ended {
            self.hole(now, sid, tx);
        }
    }

    /// Bytes of the client's stream are known to be missing.
    pub(super) fn gap_is_open(&self, sid: u32) -> bool {
        let s = &self.sessions[sid];
        !s.beyond.is_empty() || s.shows_more()
    }

    /// The server has closed and acknowledged one number more than the client is known to have
    /// said: that is the client's FIN, unless a byte of this number comes yet.
    pub(super) fn fin_is_unseen(&self, sid: u32) -> bool {
        let s = &self.sessions[sid];
        s.server_closed.is_some()
            && s.fin.is_none()
            && s.server_acked == Some(s.rcv_nxt + 1)
            && !matches!(s.phase, Phase::Free | Phase::Ended)
            && !self.gap_is_open(sid)
    }

    /// Ends the session whose FIN the mirror did not show.
    fn end_unseen(&mut self, now: Nanos, sid: u32, tx: &mut impl Egress<P>) {
        let s = &mut self.sessions[sid];
        s.gap_since = 0;
        s.fin = Some(s.rcv_nxt);
        if s.server_closed == Some(true)
            && let Some(end) = s.server_nxt
        {
            // A client that closes second has read what there was to read.
            s.acked = s.acked.max(end);
        }
        self.check_fin(now, sid);
        self.for_replicas(sid, |core, rid| core.pump(now, rid, tx));
    }

    /// A frame tells that the client's stream goes to `end`. A sequence or acknowledgment number
    /// without payload may count an unseen FIN in: then it is not `certain` by one. True if it
    /// is further than was known.
    pub(super) fn note_extent(&mut self, now: Nanos, sid: u32, end: Seq, certain: bool) -> bool {
        let s = &mut self.sessions[sid];
        let missing = end.since(s.rcv_nxt);
        let known = match s.phase {
            Phase::Syn | Phase::Synced => s.fin.is_none_or(|fin| end.le(fin)),
            _ => false,
        };
        if !known || missing <= u32::from(!certain) || missing > PLAUSIBLE {
            return false;
        }
        let news = end.gt(s.shown);
        if news || end == s.shown && certain {
            s.shown_by_payload = certain;
        }
        s.shown = s.shown.max(end);
        self.watch_gap(now, sid);
        news
    }

    /// A gap is open: see to it that somebody looks at it again.
    pub(super) fn watch_gap(&mut self, now: Nanos, sid: u32) {
        if !self.gap_is_open(sid) && !self.fin_is_unseen(sid) {
            return;
        }
        let s = &mut self.sessions[sid];
        if s.gap_since == 0 {
            s.gap_since = now.max(1);
        }
        let due = self.gap_due(sid);
        self.arm_session(sid, due);
    }

    /// When the open gap counts as a hole.
    pub(super) fn gap_due(&self, sid: u32) -> Nanos {
        let s = &self.sessions[sid];
        let acked = s.server_acked.is_some_and(|a| a.gt(s.rcv_nxt));
        s.gap_since + if acked { ACKED_GAP } else { SILENT_GAP }
    }

    /// The gap is a hole: the bytes are gone. What lies beyond it is looked at again for a turn
    /// boundary.
    pub(super) fn hole(&mut self, now: Nanos, sid: u32, tx: &mut impl Egress<P>) {
        if self.fin_is_unseen(sid) {
            self.end_unseen(now, sid, tx);
            return;
        }
        let s = &self.sessions[sid];
        let head = s.beyond.head;
        let end = if head == NIL {
            s.fin.map_or(s.shown, |fin| fin.max(s.shown))
        } else {
            self.segs[head].seq
        };
        let missing = end.since(s.rcv_nxt);
        if head == NIL && missing == 0 {
            self.sessions[sid].gap_since = 0;
            return;
        }
        let (baseline, at) = if head == NIL {
            (None, None)
        } else {
            (Some(self.segs[head].ack), Some(self.segs[head].seq))
        };
        // The hole may hold the beginning of another turn: what follows it acknowledges more than
        // what came before it.
        let another = baseline.is_some_and(|ack| ack.gt(self.sessions[sid].acked_at_data))
            && self.sessions[sid].turn_open;
        self.cut(sid, Loss::Hole, missing);
        if another {
            self.lose_uncaptured(1, 0, Loss::Hole);
        }
        let s = &mut self.sessions[sid];
        s.gap_since = 0;
        if let (Some(ack), Some(seq)) = (baseline, at) {
            s.acked_at_data = s.acked_at_data.max(ack);
            s.rcv_nxt = s.rcv_nxt.max(seq);
        }
        self.look_beyond_again(now, sid, tx);
        self.check_fin(now, sid);
        if self.sessions[sid].phase != Phase::Ended {
            self.watch_gap(now, sid);
        }
        self.for_replicas(sid, |core, rid| core.pump(now, rid, tx));
    }

    /// The session is out of step at `rcv_nxt`: what waits beyond a gap is lost with it, up to
    /// where the session can join again.
    pub(super) fn look_beyond_again(&mut self, now: Nanos, sid: u32, tx: &mut impl Egress<P>) {
        // What joins may be cut again, with part of the rest beyond another gap: each round takes
        // the first away for good.
        while self.sessions[sid].phase == Phase::Joining && !self.sessions[sid].beyond.is_empty() {
            let mut waiting = std::mem::take(&mut self.sessions[sid].beyond);
            while waiting.head != NIL {
                let id = waiting.head;
                waiting.head = self.segs[id].next;
                self.reconsider(now, sid, id, tx);
            }
        }
    }

    /// Feeds a segment from beyond a hole into the stream again.
    fn reconsider(&mut self, now: Nanos, sid: u32, id: u32, tx: &mut impl Egress<P>) {
        let seg = &mut self.segs[id];
        let (seq, len, ack, push, urgent) = (seg.seq, seg.len, seg.ack, seg.push, seg.urgent);
        let payload = seg.payload.take();
        self.segs.free(id);
        let s = &mut self.sessions[sid];
        s.held -= len;
        let Some(payload) = payload else { return };
        if s.phase == Phase::Joining {
            if !self.is_boundary(sid, seq, ack) {
                self.lose_before_join(sid, seq, len);
                return;
            }
            self.join(now, sid, seq, tx);
        }
        self.ingest(
            now,
            sid,
            Piece {
                payload,
                seq,
                ack,
                push,
                urgent,
            },
            tx,
        );
    }

    /// The session is out of step at `rcv_nxt`, with `missing` bytes gone: what was captured of the
    /// open turn is lost with them, and the session waits for the next turn boundary.
    pub(super) fn cut(&mut self, sid: u32, reason: Loss, missing: u32) {
        let s = &mut self.sessions[sid];
        let joining = s.phase == Phase::Joining;
        s.phase = Phase::Joining;
        s.join_loss = reason;
        s.rcv_nxt += missing;
        let (open, tail) = (s.turn_open, s.turns.tail);
        s.turn_open = false;
        if !open {
            // The turn that the missing bytes belong to was never begun; one that is being lost
            // already is not lost again.
            self.lose_uncaptured(u64::from(!joining), missing, reason);
            return;
        }
        self.lose_uncaptured(0, missing, reason);
        let turn = &mut self.turns[tail];
        turn.closed = true;
        turn.broken = Some(reason);
        let (number, start) = (turn.number, turn.start);
        self.for_replicas(sid, |core, rid| core.break_turn(rid, number, start, reason));
        self.free_turns(sid);
    }

    /// Forgets the segments beyond a gap: the session is going.
    pub(super) fn clear_beyond(&mut self, sid: u32, reason: Loss) {
        let mut bytes = 0;
        while let Some(piece) = self.pop_beyond(sid) {
            bytes += piece.len();
        }
        self.sessions[sid].beyond = List::default();
        if bytes > 0 {
            self.lose_uncaptured(0, bytes, reason);
        }
    }
}
