//! The capture flow: from mirrored segments to the client's stream, cut into turns.
//!
//! A client segment whose payload acknowledges more of the server's stream than the client's last payload did begins a turn: the client had
//! read an answer before it spoke. Segments beyond a gap wait in order; a gap that production acknowledged is a hole, its bytes are
//! gone, and the session joins again at the next turn boundary. The first capture of a byte is the one that counts.

use super::{Core, Egress};
use crate::counters::{Drop, Loss};
use crate::session::{End, List, Phase, Seg, Turn};
use crate::slab::NIL;
use wire::decode::Packet;
use wire::io::{Frame, Payload};
use wire::{Flags, Head, Nanos, Seq};

/// A gap that production's server has acknowledged may still be filled by a mirror that reorders: not after this.
const ACKED_GAP: Nanos = 50_000_000;
/// A gap that only the client's direction shows may still be filled by the client's retransmission: not after this.
const SILENT_GAP: Nanos = 3_000_000_000;
/// Segments further than this from what is expected are not of this connection.
const PLAUSIBLE: u32 = 1 << 30;

/// A piece of client payload on its way into the stream.
struct Piece<P> {
    payload: P,
    seq: Seq,
    ack: Seq,
    push: bool,
}

impl<P: Payload> Piece<P> {
    fn len(&self) -> u32 {
        self.payload.bytes().len() as u32
    }

    fn end(&self) -> Seq {
        self.seq + self.len()
    }

    fn trim_front(&mut self, n: u32) {
        self.payload.trim_front(n as usize);
        self.seq += n;
    }
}

impl<P: Payload> Core<P> {
    /// Takes one decoded frame of the mirror; `frame` is the very frame that `packet` was decoded from. Says why, if it was of no use.
    pub fn mirror<F: Frame<Payload = P>>(
        &mut self,
        now: Nanos,
        packet: &Packet,
        frame: F,
        tx: &mut impl Egress<P>,
    ) -> Result<(), Drop> {
        self.counters.frames += 1;
        let result = match self.params.transfer_of(&packet.head.flow) {
            Some((transfer, true)) => self.client_segment(now, transfer, packet, frame, tx),
            Some((_, false)) => self.server_segment(now, &packet.head, tx),
            None => Err(Drop::NoTransfer),
        };
        match result {
            Ok(()) => self.counters.used += 1,
            Err(reason) => self.counters.dropped[reason as usize] += 1,
        }
        result
    }

    fn client_segment<F: Frame<Payload = P>>(
        &mut self,
        now: Nanos,
        transfer: u16,
        packet: &Packet,
        frame: F,
        tx: &mut impl Egress<P>,
    ) -> Result<(), Drop> {
        let head = &packet.head;
        let syn = head.flags.has(Flags::SYN) && !head.flags.has(Flags::ACK);
        let sid = match self.session_by_flow(&head.flow) {
            Some(sid) if syn => {
                if self.sessions[sid].isn == head.seq && self.sessions[sid].phase != Phase::Ended {
                    // The client's SYN again: the round trip is measured from this one.
                    self.sessions[sid].handshake_at = now;
                    return Err(Drop::Duplicate);
                }
                self.replace(now, sid, tx);
                self.open(now, transfer, head, Phase::Syn, tx)?
            }
            Some(sid) => sid,
            None if syn => self.open(now, transfer, head, Phase::Syn, tx)?,
            None if head.payload_len > 0
                && !head.flags.has(Flags::RST)
                && !head.flags.has(Flags::SYN) =>
            {
                self.open(now, transfer, head, Phase::Joining, tx)?
            }
            None => return Err(Drop::NoSession),
        };
        self.sessions[sid].last_seen = now;
        if head.flags.has(Flags::RST) {
            return self.client_reset(now, sid, head, tx);
        }
        if syn && head.payload_len == 0 {
            return Ok(());
        }
        let advanced = self.client_ack(now, sid, head);
        let news = self.client_payload(now, sid, packet, frame, tx);
        let ended = head.flags.has(Flags::FIN) && self.client_fin(now, sid, head, tx);
        match news {
            Ok(false) if !ended && !advanced && head.payload_len > 0 => Err(Drop::Duplicate),
            Ok(_) => Ok(()),
            Err(_) if ended => Ok(()),
            Err(reason) => Err(reason),
        }
    }

    /// Notes what the client acknowledges. True if that is more than before.
    fn client_ack(&mut self, now: Nanos, sid: u32, head: &Head) -> bool {
        if !head.flags.has(Flags::ACK) {
            return false;
        }
        let s = &mut self.sessions[sid];
        if s.phase == Phase::Syn {
            s.phase = Phase::Synced;
            s.rtt = now.saturating_sub(s.handshake_at);
        }
        if !s.ack_known {
            // The server's direction is not mirrored (or its SYN|ACK was lost): the client's first ACK tells where the server's stream begins.
            s.ack_known = true;
            s.acked = head.ack;
            s.acked_at_data = head.ack;
            return true;
        }
        if !head.ack.gt(s.acked) || head.ack.since(s.acked) > PLAUSIBLE {
            return false;
        }
        s.acked = head.ack;
        let in_step = s.phase == Phase::Synced && head.seq == s.rcv_nxt && s.beyond.is_empty();
        self.note_production_answer(now, sid);
        if in_step && head.payload_len == 0 {
            self.close_turn(sid);
        }
        true
    }

    /// The answer to the open turn has begun: production's latency, once a turn.
    fn note_production_answer(&mut self, now: Nanos, sid: u32) {
        let s = &mut self.sessions[sid];
        let tail = s.turns.tail;
        if tail != NIL && !s.answered && s.phase == Phase::Synced && s.turn_open {
            s.answered = true;
            let latency = now.saturating_sub(self.turns[tail].last_at);
            self.counters.production_latency.record(latency);
        }
    }

    /// Feeds the segment's payload into the stream, buffer by buffer. True if any of it was new.
    fn client_payload<F: Frame<Payload = P>>(
        &mut self,
        now: Nanos,
        sid: u32,
        packet: &Packet,
        mut frame: F,
        tx: &mut impl Egress<P>,
    ) -> Result<bool, Drop> {
        let head = &packet.head;
        if head.payload_len == 0 {
            return Ok(false);
        }
        let s = &self.sessions[sid];
        match s.phase {
            Phase::Ended | Phase::Free => {
                let old = s.fin.is_none_or(|fin| head.end().le(fin + 1));
                return Err(if old { Drop::Duplicate } else { Drop::AfterEnd });
            }
            Phase::Joining if !head.ack.gt(s.acked_at_data) => return self.before_join(sid, head),
            Phase::Joining => self.join(now, sid, head.seq, tx),
            Phase::Syn | Phase::Synced => {}
        }
        let expected = self.sessions[sid].rcv_nxt;
        let first = if head.flags.has(Flags::SYN) {
            head.seq + 1
        } else {
            head.seq
        };
        if first.since(expected).max(expected.since(first)) > PLAUSIBLE {
            return Err(Drop::OutOfWindow);
        }
        // What the snap length cut off is not there: it stays a gap, to be filled by a retransmission or found to be a hole.
        let mut left = packet.captured.min(head.payload_len as usize);
        let (mut seq, mut start) = (first, packet.payload_offset);
        let mut news = false;
        while left > 0 {
            let rest = frame.split_rest();
            let here = frame.bytes().len();
            let n = here.saturating_sub(start).min(left);
            left -= n;
            if n > 0 {
                let piece = Piece {
                    payload: frame.into_payload(start..start + n),
                    seq,
                    ack: head.ack,
                    push: left == 0 && head.flags.has(Flags::PSH),
                };
                news |= self.ingest(now, sid, piece, tx);
                seq += n as u32;
            }
            start = start.saturating_sub(here);
            let Some(rest) = rest else { break };
            frame = rest;
        }
        Ok(news)
    }

    /// Payload that cannot be used because it may begin in the middle of a request.
    fn before_join(&mut self, sid: u32, head: &Head) -> Result<bool, Drop> {
        let s = &mut self.sessions[sid];
        let from = s.rcv_nxt.max(head.seq);
        let n = (head.seq + head.payload_len).since(from);
        s.rcv_nxt = s.rcv_nxt.max(head.seq + head.payload_len);
        if n == 0 {
            return Err(Drop::Duplicate);
        }
        let reason = s.join_loss;
        self.lose_uncaptured(0, n, reason);
        Err(Drop::BeforeJoin)
    }

    /// Puts one piece into the stream: in order, beyond a gap, or nowhere because it is old. True if any of it was new.
    fn ingest(
        &mut self,
        now: Nanos,
        sid: u32,
        mut piece: Piece<P>,
        tx: &mut impl Egress<P>,
    ) -> bool {
        let expected = self.sessions[sid].rcv_nxt;
        if piece.end().le(expected) {
            return false;
        }
        if piece.seq.lt(expected) {
            piece.trim_front(expected.since(piece.seq));
        }
        if piece.seq != expected {
            let news = self.keep_beyond(sid, piece);
            self.watch_gap(now, sid);
            return news;
        }
        if self.append(now, sid, piece) {
            self.drain_beyond(now, sid);
        }
        self.for_replicas(sid, |core, rid| core.pump(now, rid, tx));
        true
    }

    /// Appends a piece that begins exactly where the stream ended. False if the session had to be cut instead.
    fn append(&mut self, now: Nanos, sid: u32, piece: Piece<P>) -> bool {
        let len = piece.len();
        let s = &self.sessions[sid];
        if u64::from(s.held) + u64::from(len) > self.params.session_bytes {
            self.cut(sid, Loss::SessionBytes, len);
            return false;
        }
        if !s.turn_open || piece.ack.gt(s.acked_at_data) {
            let after = if s.ack_known {
                piece.ack.since(s.acked_at_data)
            } else {
                0
            };
            if !self.begin_turn(now, sid, piece.seq, after) {
                self.cut(sid, Loss::Buffers, len);
                return false;
            }
        }
        let s = &mut self.sessions[sid];
        s.acked_at_data = s.acked_at_data.max(piece.ack);
        let turn = s.turns.tail;
        let (tail, first, end) = (s.segs.tail, s.first_replica, piece.end());
        let (live, dropping) = self.count_holders(first);
        if live > 0 {
            let number = self.turns[turn].number;
            let seg = Seg {
                seq: piece.seq,
                len,
                ack: piece.ack,
                next: NIL,
                turn_number: number,
                turn,
                holders: live,
                push: piece.push,
                payload: Some(piece.payload),
            };
            let Ok(id) = self.segs.alloc(seg) else {
                self.cut(sid, Loss::Buffers, len);
                return false;
            };
            if tail == NIL {
                self.sessions[sid].segs.head = id;
            } else {
                self.segs[tail].next = id;
            }
            self.sessions[sid].segs.tail = id;
            self.sessions[sid].held += len;
            self.for_replicas(sid, |core, rid| {
                let r = &mut core.replicas[rid];
                if r.dropping.is_none() && !r.done {
                    r.una = if r.una == NIL { id } else { r.una };
                    r.nxt = if r.nxt == NIL { id } else { r.nxt };
                }
            });
        }
        self.sessions[sid].rcv_nxt = end;
        self.turns[turn].end = end;
        self.turns[turn].last_at = now;
        self.count_captured(sid, len, live, dropping);
        true
    }

    /// How many replicas will carry the open turn, and how many have lost it.
    fn count_holders(&self, first: u32) -> (u16, u16) {
        let (mut live, mut dropping, mut rid) = (0, 0, first);
        while rid != NIL {
            let r = &self.replicas[rid];
            if r.dropping.is_some() || r.done {
                dropping += 1;
            } else {
                live += 1;
            }
            rid = r.next;
        }
        (live, dropping)
    }

    /// Bytes joined the stream: they are in flight for each replica that carries them, lost for the others.
    fn count_captured(&mut self, sid: u32, len: u32, live: u16, dropping: u16) {
        let len = u64::from(len);
        self.counters.bytes += len;
        self.counters.in_flight_bytes += len * u64::from(live);
        let missing = self.params.copies - live - dropping;
        self.counters.lost_bytes[Loss::NoAddress as usize] += len * u64::from(missing);
        if dropping > 0 {
            self.for_replicas(sid, |core, rid| {
                if let Some(reason) = core.replicas[rid].dropping {
                    core.counters.lost_bytes[reason as usize] += len;
                }
            });
        }
    }

    /// Begins a turn at `start`. False if there is no room for it.
    fn begin_turn(&mut self, now: Nanos, sid: u32, start: Seq, after: u32) -> bool {
        self.close_turn(sid);
        let s = &self.sessions[sid];
        let (number, count, tail) = (s.next_turn, s.replica_count, s.turns.tail);
        let turn = Turn {
            number,
            next: NIL,
            start,
            end: start,
            after,
            open_for: count,
            closed: false,
            broken: None,
            last_at: now,
        };
        let Ok(id) = self.turns.alloc(turn) else {
            return false;
        };
        if tail == NIL {
            self.sessions[sid].turns.head = id;
        } else {
            self.turns[tail].next = id;
        }
        let s = &mut self.sessions[sid];
        s.turns.tail = id;
        s.next_turn += 1;
        s.turn_open = true;
        s.answered = false;
        self.counters.turns += 1;
        self.counters.in_flight_turns += u64::from(count);
        self.counters.lost_turns[Loss::NoAddress as usize] += u64::from(self.params.copies - count);
        self.for_replicas(sid, |core, rid| {
            let r = &mut core.replicas[rid];
            r.dropping = None;
            if r.turn == NIL {
                r.turn = id;
                r.settled = start;
            }
        });
        true
    }

    /// Keeps a piece that lies beyond a gap, in order, without what is there already. True if any of it was new.
    fn keep_beyond(&mut self, sid: u32, mut piece: Piece<P>) -> bool {
        let (mut prev, mut at) = (NIL, self.sessions[sid].beyond.head);
        let mut news = false;
        while at != NIL {
            let (seq, end, next) = (self.segs[at].seq, self.segs[at].end(), self.segs[at].next);
            if piece.end().le(seq) {
                break;
            }
            if end.gt(piece.seq) {
                if piece.seq.lt(seq) {
                    let mut left = piece.payload.share();
                    left.truncate(seq.since(piece.seq) as usize);
                    let left = Piece {
                        payload: left,
                        seq: piece.seq,
                        ack: piece.ack,
                        push: false,
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

    /// Links a piece behind `prev` (`NIL`: at the front). `None` if there is no room: then it is as if the mirror had not shown it.
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
        let id = self.sessions[sid].beyond.head;
        if id == NIL {
            return None;
        }
        let seg = &mut self.segs[id];
        let (next, len) = (seg.next, seg.len);
        let piece = seg.payload.take().map(|payload| Piece {
            payload,
            seq: seg.seq,
            ack: seg.ack,
            push: seg.push,
        });
        self.segs.free(id);
        let s = &mut self.sessions[sid];
        s.held -= len;
        s.beyond.head = next;
        if next == NIL {
            s.beyond.tail = NIL;
        }
        piece
    }

    /// Moves what has come into order from beyond the gap to the stream.
    fn drain_beyond(&mut self, now: Nanos, sid: u32) {
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
                self.append(now, sid, piece);
            }
        }
        if self.sessions[sid].beyond.is_empty() {
            self.sessions[sid].gap_since = 0;
        }
        self.check_fin(now, sid);
    }

    /// A gap is open: see to it that somebody looks at it again.
    fn watch_gap(&mut self, now: Nanos, sid: u32) {
        let s = &mut self.sessions[sid];
        if s.beyond.is_empty() {
            return;
        }
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

    /// The gap is a hole: the bytes are gone. What lies beyond it is looked at again for a turn boundary.
    pub(super) fn hole(&mut self, now: Nanos, sid: u32, tx: &mut impl Egress<P>) {
        let head = self.sessions[sid].beyond.head;
        let missing = if head == NIL {
            self.sessions[sid]
                .fin
                .map_or(0, |fin| fin.since(self.sessions[sid].rcv_nxt))
        } else {
            self.segs[head].seq.since(self.sessions[sid].rcv_nxt)
        };
        let (baseline, at) = if head == NIL {
            (None, None)
        } else {
            (Some(self.segs[head].ack), Some(self.segs[head].seq))
        };
        // The hole may hold the beginning of another turn: what follows it acknowledges more than what came before it.
        let another = baseline.is_some_and(|ack| ack.gt(self.sessions[sid].acked_at_data))
            && self.sessions[sid].turn_open;
        self.cut(sid, Loss::Hole, missing);
        if another {
            self.lose_uncaptured(1, 0, Loss::Hole);
        }
        let s = &mut self.sessions[sid];
        s.gap_since = 0;
        if let (Some(ack), Some(seq)) = (baseline, at) {
            s.acked_at_data = ack;
            s.rcv_nxt = seq;
        }
        let mut waiting = std::mem::take(&mut s.beyond);
        while waiting.head != NIL {
            let id = waiting.head;
            waiting.head = self.segs[id].next;
            self.reconsider(now, sid, id, tx);
        }
        self.check_fin(now, sid);
        self.for_replicas(sid, |core, rid| core.pump(now, rid, tx));
    }

    /// Feeds a segment from beyond a hole into the stream again.
    fn reconsider(&mut self, now: Nanos, sid: u32, id: u32, tx: &mut impl Egress<P>) {
        let seg = &mut self.segs[id];
        let (seq, len, ack, push, payload) =
            (seg.seq, seg.len, seg.ack, seg.push, seg.payload.take());
        self.segs.free(id);
        let s = &mut self.sessions[sid];
        s.held -= len;
        let Some(payload) = payload else { return };
        if s.phase == Phase::Joining {
            if !ack.gt(s.acked_at_data) {
                let n = (seq + len).since(s.rcv_nxt.max(seq));
                s.rcv_nxt = s.rcv_nxt.max(seq + len);
                let reason = s.join_loss;
                self.lose_uncaptured(0, n, reason);
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
            },
            tx,
        );
    }

    /// The session is out of step at `rcv_nxt`, with `missing` bytes gone: what was captured of the open turn is lost with them, and the
    /// session waits for the next turn boundary.
    fn cut(&mut self, sid: u32, reason: Loss, missing: u32) {
        let s = &mut self.sessions[sid];
        s.phase = Phase::Joining;
        s.join_loss = reason;
        s.rcv_nxt += missing;
        let (open, tail) = (s.turn_open, s.turns.tail);
        s.turn_open = false;
        if !open {
            // The turn that the missing bytes belong to was never begun.
            self.lose_uncaptured(1, missing, reason);
            return;
        }
        self.lose_uncaptured(0, missing, reason);
        let turn = &mut self.turns[tail];
        turn.closed = true;
        turn.broken = Some(reason);
        let number = turn.number;
        self.for_replicas(sid, |core, rid| core.break_turn(rid, number, reason));
        self.free_turns(sid);
    }

    /// The client's FIN. True if it was news.
    fn client_fin(&mut self, now: Nanos, sid: u32, head: &Head, tx: &mut impl Egress<P>) -> bool {
        let s = &mut self.sessions[sid];
        if s.end.is_some() || s.fin.is_some() {
            return false;
        }
        s.fin = Some(head.seq + head.payload_len);
        if s.phase == Phase::Joining {
            s.rcv_nxt = s.rcv_nxt.max(head.seq + head.payload_len);
        }
        self.check_fin(now, sid);
        self.for_replicas(sid, |core, rid| core.pump(now, rid, tx));
        if self.sessions[sid].end.is_none() && self.sessions[sid].gap_since == 0 {
            // The FIN itself lies beyond a gap.
            self.sessions[sid].gap_since = now.max(1);
            let due = self.gap_due(sid);
            self.arm_session(sid, due);
        }
        true
    }

    /// The stream has reached the client's FIN: the session's end.
    fn check_fin(&mut self, now: Nanos, sid: u32) {
        let s = &self.sessions[sid];
        if s.end.is_none() && s.fin.is_some_and(|fin| fin.le(s.rcv_nxt)) {
            self.end_session(now, sid, End::Fin);
        }
    }

    /// The client's RST: what it said before is still replayed.
    fn client_reset(
        &mut self,
        now: Nanos,
        sid: u32,
        head: &Head,
        tx: &mut impl Egress<P>,
    ) -> Result<(), Drop> {
        let s = &self.sessions[sid];
        if s.phase == Phase::Ended {
            return Err(Drop::Duplicate);
        }
        let distance = head.seq.since(s.rcv_nxt).max(s.rcv_nxt.since(head.seq));
        if distance > PLAUSIBLE {
            return Err(Drop::OutOfWindow);
        }
        self.end_session(now, sid, End::Reset);
        self.for_replicas(sid, |core, rid| core.pump(now, rid, tx));
        Ok(())
    }

    /// A frame of production's server: it tells where its stream begins, when it answered, what it has of the client's stream.
    fn server_segment(
        &mut self,
        now: Nanos,
        head: &Head,
        tx: &mut impl Egress<P>,
    ) -> Result<(), Drop> {
        let Some(sid) = self.session_by_flow(&head.flow.reversed()) else {
            return Err(Drop::NoSession);
        };
        let s = &mut self.sessions[sid];
        s.last_seen = now;
        if head.flags.has(Flags::RST) {
            if s.phase == Phase::Ended {
                return Err(Drop::Duplicate);
            }
            // The server gave up on the client. The client says nothing more; the target's side is closed in good order.
            self.end_session(now, sid, End::Fin);
            self.for_replicas(sid, |core, rid| core.pump(now, rid, tx));
            return Ok(());
        }
        if head.flags.has(Flags::SYN) {
            if s.phase == Phase::Syn && head.flags.has(Flags::ACK) {
                s.ack_known = true;
                s.acked = head.seq + 1;
                s.acked_at_data = head.seq + 1;
                s.server_nxt = Some(head.seq + 1);
                s.handshake_at = now;
                return Ok(());
            }
            return Err(Drop::Duplicate);
        }
        let end = head.seq + head.payload_len;
        let mut news = false;
        if s.server_nxt.is_none_or(|nxt| end.gt(nxt)) {
            s.server_nxt = Some(end);
            news = true;
            if head.payload_len > 0 {
                self.note_production_answer(now, sid);
            }
        }
        let s = &mut self.sessions[sid];
        if head.flags.has(Flags::ACK) && s.server_acked.is_none_or(|acked| head.ack.gt(acked)) {
            s.server_acked = Some(head.ack);
            news = true;
            if s.gap_since != 0 {
                let due = self.gap_due(sid);
                self.arm_session(sid, due);
            }
        }
        if news || head.payload_len == 0 {
            Ok(())
        } else {
            Err(Drop::Duplicate)
        }
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
