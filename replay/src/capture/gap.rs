//! Gaps in what the mirror shows: segments beyond one wait in order until it is filled or found to
//! be a hole.
//!
//! A gap that production's server acknowledged is a hole, and so is one that stays: its bytes are
//! gone, never invented. The turn it lies in is lost, and the session joins again at the next turn
//! boundary. The first capture of a byte is the one that counts.

use super::session::{List, Phase, Waiting};
use super::{Capture, Sink};
use crate::counters::{Loss, Unused};
use crate::due::Due;
use crate::ledger::Amount;
use crate::piece::{Charge, Piece};
use crate::pos::StreamPos;
use crate::slab::NIL;
use wire::Nanos;
use wire::io::Payload;

/// A gap that production's server has acknowledged may still be filled by a mirror that reorders:
/// not after this.
const ACKED_GAP: Nanos = 50_000_000;
/// A gap that only the client's direction shows may still be filled by the client's retransmission:
/// not after this.
const SILENT_GAP: Nanos = 3_000_000_000;
/// A gap that the server's direction shows not to be acknowledged is one in production too, which
/// the client will fill: it stays one until nobody has been heard of for this long, the longest
/// that a retransmission timeout gets (RFC 6298 section 2.5).
const OPEN_GAP: Nanos = 60_000_000_000;

/// Segments beyond a gap that are looked at for the place of another one at most. One that comes
/// behind the last, or behind the one that came before it, needs no search.
const WALKED: u32 = 512;

impl<P: Payload> Capture<P> {
    /// Keeps a piece that lies beyond a gap, in order, without what is there already. True if any
    /// of it was new.
    ///
    /// # Errors
    /// There is no room for it: then it is as if the mirror had not shown it.
    pub(super) fn keep_beyond(
        &mut self,
        sid: u32,
        mut piece: Piece<P>,
        out: &mut impl Sink<P>,
    ) -> Result<bool, Unused> {
        let beyond = self.sessions[sid].waiting;
        // Most of what comes beyond a gap comes in order: the list is walked only for what does
        // not.
        if beyond.tail != NIL && self.waiting[beyond.tail].end() <= piece.pos {
            return self.link_beyond(sid, beyond.tail, piece, out);
        }
        let (mut prev, mut at) = self.walk_from(sid, piece.pos);
        let mut news = false;
        let mut walked = 0;
        while at != NIL {
            walked += 1;
            if walked > WALKED {
                return if news { Ok(true) } else { Err(Unused::NoRoom) };
            }
            let w = &self.waiting[at];
            let (pos, end, next) = (w.pos, w.end(), w.next);
            if piece.end() <= pos {
                break;
            }
            if end > piece.pos {
                out.ledger().common.conflicting_bytes += piece.conflicts(w.payload.as_ref(), pos);
                if piece.pos < pos {
                    let mut left = piece.payload.share();
                    left.truncate(pos.since(piece.pos) as usize);
                    let left = Piece {
                        payload: left,
                        pos: piece.pos,
                        ack: piece.ack,
                        push: false,
                        urgent: piece.urgent,
                    };
                    news |= self.link_beyond(sid, prev, left, out)?;
                }
                if piece.end() <= end {
                    return Ok(news);
                }
                piece.trim_front(end.since(piece.pos) as u32);
            }
            (prev, at) = (at, next);
        }
        self.link_beyond(sid, prev, piece, out)
    }

    /// Where the search for the place of a piece at `pos` begins: behind the segment that was
    /// linked last, if that lies before it, else at the front.
    fn walk_from(&self, sid: u32, pos: StreamPos) -> (u32, u32) {
        let (session, id) = self.linked;
        if session == sid && self.waiting[id].end() <= pos {
            (id, self.waiting[id].next)
        } else {
            (NIL, self.sessions[sid].waiting.head)
        }
    }

    /// Links a piece behind `prev` (`NIL`: at the front).
    fn link_beyond(
        &mut self,
        sid: u32,
        prev: u32,
        piece: Piece<P>,
        out: &mut impl Sink<P>,
    ) -> Result<bool, Unused> {
        if !self.link_waiting(sid, prev, piece, 0, out) {
            return Err(Unused::NoRoom);
        }
        out.ledger().common.out_of_order += 1;
        Ok(true)
    }

    /// Links a piece into the list of those that wait, behind `prev` (`NIL`: at the front). False
    /// if there is no room.
    pub(super) fn link_waiting(
        &mut self,
        sid: u32,
        prev: u32,
        piece: Piece<P>,
        counted: u32,
        out: &mut impl Sink<P>,
    ) -> bool {
        let (len, charge) = (piece.len(), Charge::of(&piece.payload));
        if !out.reserve(sid, charge) {
            return false;
        }
        let next = if prev == NIL {
            self.sessions[sid].waiting.head
        } else {
            self.waiting[prev].next
        };
        let waiting = Waiting {
            payload: Some(piece.payload),
            pos: piece.pos,
            ack: piece.ack,
            len,
            next,
            counted,
            urgent: piece.urgent,
            push: piece.push,
        };
        let Ok(id) = self.waiting.alloc(waiting) else {
            out.release(sid, charge);
            return false;
        };
        let list = &mut self.sessions[sid].waiting;
        if prev == NIL {
            list.head = id;
        }
        if next == NIL {
            list.tail = id;
        }
        if prev != NIL {
            self.waiting[prev].next = id;
        }
        self.linked = (sid, id);
        true
    }

    /// Takes the first of the segments that wait out of their list.
    pub(super) fn pop_waiting(&mut self, sid: u32, out: &mut impl Sink<P>) -> Option<Piece<P>> {
        let head = self.sessions[sid].waiting.head;
        if head == NIL {
            return None;
        }
        let (piece, next) = self.take_waiting(sid, head, out);
        let list = &mut self.sessions[sid].waiting;
        list.head = next;
        if next == NIL {
            list.tail = NIL;
        }
        piece
    }

    /// Takes the session's list of segments that wait.
    pub(super) fn detach_waiting(&mut self, sid: u32) -> List {
        self.linked = (NIL, NIL);
        std::mem::take(&mut self.sessions[sid].waiting)
    }

    /// Takes a segment that waits, which is in no list any more. Tells which was behind it.
    pub(super) fn take_waiting(
        &mut self,
        sid: u32,
        id: u32,
        out: &mut impl Sink<P>,
    ) -> (Option<Piece<P>>, u32) {
        if self.linked.1 == id {
            self.linked = (NIL, NIL);
        }
        let w = &mut self.waiting[id];
        let next = w.next;
        let piece = w.payload.take().map(|payload| Piece {
            payload,
            pos: w.pos,
            ack: w.ack,
            push: w.push,
            urgent: w.urgent,
        });
        self.waiting.free(id);
        if let Some(piece) = &piece {
            out.release(sid, Charge::of(&piece.payload));
        }
        (piece, next)
    }

    /// Moves what has come into order from beyond the gap to the stream.
    pub(super) fn drain_beyond(&mut self, time: Nanos, sid: u32, out: &mut impl Sink<P>) {
        loop {
            let s = &self.sessions[sid];
            if s.phase != Phase::Synced
                || s.waiting.is_empty()
                || self.waiting[s.waiting.head].pos > s.rcv_nxt
            {
                break;
            }
            let expected = s.rcv_nxt;
            let Some(mut piece) = self.pop_waiting(sid, out) else {
                break;
            };
            if piece.end() > expected {
                piece.trim_front(expected.since(piece.pos) as u32);
                self.append(sid, piece, out);
            }
        }
        let s = &mut self.sessions[sid];
        if s.waiting.is_empty() && !s.shows_more() && s.fin.is_none_or(|fin| fin <= s.rcv_nxt) {
            s.gap_since = Due::NONE;
            s.leapt = false;
        }
        self.check_fin(time, sid, out);
    }

    /// Nothing more is to come that could fill the session's gaps: they are holes.
    pub(super) fn settle_gaps(&mut self, time: Nanos, sid: u32, out: &mut impl Sink<P>) {
        while self.gap_is_open(sid) && self.sessions[sid].phase != Phase::Ended {
            self.hole(time, sid, out);
        }
    }

    /// Bytes of the client's stream are known to be missing.
    pub(super) fn gap_is_open(&self, sid: u32) -> bool {
        let s = &self.sessions[sid];
        (!s.early && !s.waiting.is_empty()) || s.shows_more()
    }

    /// The server has closed and acknowledged one number more than the client is known to have
    /// said: that is the client's FIN, unless a byte of this number comes yet.
    pub(super) fn fin_is_unseen(&self, sid: u32) -> bool {
        let s = &self.sessions[sid];
        s.server_closed.is_some()
            && s.fin.is_none()
            && s.server_acked == Some(s.rcv_nxt + 1_u32)
            && !matches!(s.phase, Phase::Free | Phase::Ended)
            && !self.gap_is_open(sid)
    }

    /// Ends the session whose FIN the mirror did not show.
    fn end_unseen(&mut self, time: Nanos, sid: u32, out: &mut impl Sink<P>) {
        let s = &mut self.sessions[sid];
        s.gap_since = Due::NONE;
        s.fin = Some(s.rcv_nxt);
        if s.server_closed == Some(true)
            && let Some(end) = s.server_nxt
        {
            // A client that closes second has read what there was to read.
            s.acked = s.acked.max(end);
        }
        self.check_fin(time, sid, out);
        out.push(sid);
    }

    /// A frame tells that the client's stream goes to `end`. A sequence or acknowledgment number
    /// without payload may count an unseen FIN in: then it is not `certain` by one. True if it is
    /// further than was known.
    pub(super) fn note_extent(
        &mut self,
        time: Nanos,
        sid: u32,
        end: StreamPos,
        certain: bool,
    ) -> bool {
        let s = &mut self.sessions[sid];
        let missing = end.since(s.rcv_nxt);
        let known = s.phase == Phase::Synced && s.fin.is_none_or(|fin| end <= fin);
        if !known || missing <= u64::from(!certain) || end > s.limit() {
            return false;
        }
        let shown = s.shown();
        let news = end > shown;
        if news || end == shown && certain {
            s.shown_by_payload = certain;
        }
        s.show(end);
        self.watch_gap(time, sid);
        news
    }

    /// A gap is open: see to it that somebody looks at it again.
    pub(super) fn watch_gap(&mut self, time: Nanos, sid: u32) {
        if !self.gap_is_open(sid) && !self.fin_is_unseen(sid) {
            return;
        }
        let s = &mut self.sessions[sid];
        if !s.gap_since.is_set() {
            s.gap_since = Due::at(time);
        }
        let due = self.gap_due(time, sid);
        self.arm(sid, due);
    }

    /// When the open gap counts as a hole, as far as is known at `time`.
    pub(super) fn gap_due(&self, time: Nanos, sid: u32) -> Nanos {
        let s = &self.sessions[sid];
        let since = s.gap_since.nanos(time).unwrap_or(time);
        match s.server_acked {
            Some(acked) if acked > s.rcv_nxt => since + ACKED_GAP,
            Some(_) => s.last_seen.nanos(time).unwrap_or(since).max(since) + OPEN_GAP,
            None => since + SILENT_GAP,
        }
    }

    /// The gap is a hole: the bytes are gone. What lies beyond it is looked at again for a turn
    /// boundary.
    pub(super) fn hole(&mut self, time: Nanos, sid: u32, out: &mut impl Sink<P>) {
        if self.fin_is_unseen(sid) {
            self.end_unseen(time, sid, out);
            return;
        }
        let s = &self.sessions[sid];
        let head = if s.early { NIL } else { s.waiting.head };
        let end = if head == NIL {
            s.fin.map_or(s.shown(), |fin| fin.max(s.shown()))
        } else {
            self.waiting[head].pos
        };
        let missing = end.since(s.rcv_nxt);
        if head == NIL && missing == 0 {
            self.sessions[sid].gap_since = Due::NONE;
            return;
        }
        let behind = (head != NIL).then(|| (self.waiting[head].ack, self.waiting[head].pos));
        // The hole may hold the beginning of another turn: what follows it acknowledges more than
        // what came before it.
        let another = out.turn_is_open(sid) && behind.is_some_and(|(ack, _)| ack > s.acked_at_data);
        self.cut(sid, Loss::Hole, missing, out);
        if another {
            self.lose(sid, Amount::new(1, 0), Loss::Hole, out);
        }
        let s = &mut self.sessions[sid];
        s.gap_since = Due::NONE;
        if let Some((ack, pos)) = behind {
            s.acked_at_data = s.acked_at_data.max(ack);
            s.advance_to(s.rcv_nxt.max(pos));
        }
        self.look_beyond_again(time, sid, out);
        self.check_fin(time, sid, out);
        if self.sessions[sid].phase != Phase::Ended {
            self.watch_gap(time, sid);
        }
        out.push(sid);
    }

    /// The session is out of step at `rcv_nxt`: what waits beyond a gap is lost with it, up to
    /// where the session can join again.
    pub(super) fn look_beyond_again(&mut self, time: Nanos, sid: u32, out: &mut impl Sink<P>) {
        // What joins may be cut again, with part of the rest beyond another gap: each round takes
        // the first away for good.
        while self.sessions[sid].phase == Phase::Joining && !self.sessions[sid].waiting.is_empty() {
            let waiting = self.detach_waiting(sid);
            self.reconsider(time, sid, waiting, out);
        }
    }

    /// Feeds segments from beyond a hole into the stream again.
    fn reconsider(&mut self, time: Nanos, sid: u32, mut waiting: List, out: &mut impl Sink<P>) {
        while waiting.head != NIL {
            let (piece, next) = self.take_waiting(sid, waiting.head, out);
            waiting.head = next;
            let Some(piece) = piece else { continue };
            if self.sessions[sid].phase == Phase::Joining {
                if !self.is_boundary(sid, piece.pos, piece.ack, out) {
                    self.lose_before_join(sid, piece.pos, piece.len(), out);
                    continue;
                }
                self.join(sid, piece.pos, out);
            }
            let _ = self.ingest(time, sid, piece, out);
        }
    }

    /// The session is out of step at `rcv_nxt`, with `missing` bytes gone: what was captured of the
    /// open turn is lost with them, and the session waits for the next turn boundary.
    pub(super) fn cut(&mut self, sid: u32, reason: Loss, missing: u64, out: &mut impl Sink<P>) {
        let s = &mut self.sessions[sid];
        let joining = s.phase == Phase::Joining;
        s.phase = Phase::Joining;
        s.join_loss = reason;
        s.advance_to(s.rcv_nxt + missing);
        let open = out.turn_is_open(sid);
        // The turn that the missing bytes belong to was never begun; one that is being lost already
        // is not lost again.
        if self.lose_missing(sid, missing, reason, out) && !open && !joining {
            self.lose(sid, Amount::new(1, 0), reason, out);
        }
        if open {
            out.break_turn(sid, reason);
        }
    }

    /// Forgets the segments beyond a gap: the session is going.
    pub(super) fn clear_beyond(&mut self, sid: u32, reason: Loss, out: &mut impl Sink<P>) {
        let mut bytes = 0;
        while let Some(piece) = self.pop_waiting(sid, out) {
            bytes += u64::from(piece.len());
        }
        self.sessions[sid].waiting = List::default();
        self.lose(sid, Amount::bytes(bytes), reason, out);
    }
}
