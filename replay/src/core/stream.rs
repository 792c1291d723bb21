//! The client's stream: captured bytes in order, cut into turns, held for the replicas that carry
//! them.

use super::{Core, Egress};
use crate::counters::Loss;
use crate::session::{List, Phase, Seg, Turn};
use crate::slab::NIL;
use wire::io::Payload;
use wire::{Nanos, Seq};

/// Captured segments that bytes which come again are compared with at most: a frame's cost is
/// bounded.
const COMPARED: usize = 256;

/// A piece of client payload on its way into the stream.
pub(super) struct Piece<P> {
    pub payload: P,
    pub seq: Seq,
    pub ack: Seq,
    pub push: bool,
    /// Where urgent data ends, counted from `seq`; 0: none in or behind this piece.
    pub urgent: u16,
}

/// An offset into a piece, counted from `n` bytes further on; 0 if it lies before that.
pub(super) fn less(offset: u16, n: u32) -> u16 {
    u32::from(offset).saturating_sub(n) as u16
}

impl<P: Payload> Piece<P> {
    /// How many bytes are others than a captured segment has at the same place of the stream.
    pub fn conflicts(&self, seg: &Seg<P>) -> u64 {
        let (from, to) = (self.seq.max(seg.seq), self.end().min(seg.end()));
        let (at, there, n) = (from.since(self.seq), from.since(seg.seq), to.since(from));
        let range = |at: u32| at as usize..(at + n) as usize;
        let old = seg
            .payload
            .as_ref()
            .and_then(|p| p.bytes().get(range(there)));
        let new = self.payload.bytes().get(range(at));
        match (old, new) {
            (Some(old), Some(new)) if old != new => {
                old.iter().zip(new).filter(|(a, b)| a != b).count() as u64
            }
            _ => 0,
        }
    }

    pub fn len(&self) -> u32 {
        self.payload.bytes().len() as u32
    }

    pub fn end(&self) -> Seq {
        self.seq + self.len()
    }

    pub fn trim_front(&mut self, n: u32) {
        self.payload.trim_front(n as usize);
        self.seq += n;
        self.urgent = less(self.urgent, n);
    }
}

impl<P: Payload> Core<P> {
    /// Puts one piece into the stream: in order, beyond a gap, or nowhere because it is old. True
    /// if any of it was new.
    pub(super) fn ingest(
        &mut self,
        now: Nanos,
        sid: u32,
        mut piece: Piece<P>,
        tx: &mut impl Egress<P>,
    ) -> bool {
        let expected = self.sessions[sid].rcv_nxt;
        if piece.seq.lt(expected) {
            self.compare_again(sid, &piece);
        }
        // A FIN ends the stream, whatever a frame has behind it.
        if piece.end().le(expected) || self.sessions[sid].phase == Phase::Ended {
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
        if self.append(sid, piece) {
            self.drain_beyond(now, sid);
        }
        self.for_replicas(sid, |core, rid| core.pump(now, rid, tx));
        true
    }

    /// Bytes of the stream have come again: counts those that are not what they were. The first
    /// capture is the one that is replayed.
    fn compare_again(&mut self, sid: u32, piece: &Piece<P>) {
        let List { head, tail } = self.sessions[sid].segs;
        // A mirror that shows all frames twice repeats the newest segment.
        let newest = tail != NIL && self.segs[tail].seq.le(piece.seq);
        let mut id = if newest { tail } else { head };
        let mut differing = 0;
        for _ in 0..COMPARED {
            if id == NIL || self.segs[id].seq.ge(piece.end()) {
                break;
            }
            differing += piece.conflicts(&self.segs[id]);
            id = self.segs[id].next;
        }
        self.counters.conflicting_bytes += differing;
    }

    /// Appends a piece that begins exactly where the stream ended. False if the session had to be
    /// cut instead.
    pub(super) fn append(&mut self, sid: u32, piece: Piece<P>) -> bool {
        let len = piece.len();
        let s = &mut self.sessions[sid];
        let begins = !s.turn_open || piece.ack.gt(s.acked_at_data);
        let after = if s.ack_known {
            piece.ack.since(s.acked_at_data)
        } else {
            0
        };
        s.acked_at_data = s.acked_at_data.max(piece.ack);
        if begins {
            // If there is no room for this turn, the one before is none the worse for it.
            self.close_turn(sid);
        }
        let s = &self.sessions[sid];
        if u64::from(s.held) + u64::from(len) > self.params.session_bytes {
            self.cut(sid, Loss::SessionBytes, len);
            return false;
        }
        let full = s.replica_count > 0 && self.segs.len() == self.segs.capacity();
        if full || (begins && !self.begin_turn(sid, piece.seq, after)) {
            self.cut(sid, Loss::Buffers, len);
            return false;
        }
        let s = &self.sessions[sid];
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
                urgent: piece.urgent,
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
        self.turns[turn].last_at = self.seen;
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

    /// Bytes joined the stream: they are in flight for each replica that carries them, lost for the
    /// others.
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
    pub(super) fn begin_turn(&mut self, sid: u32, start: Seq, after: u32) -> bool {
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
            last_at: self.seen,
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
}
