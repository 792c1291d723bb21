//! What a client says before its SYN was shown: a mirror that reorders may show the SYN a moment
//! later.
//!
//! Such a session counts as one that was running already, and its payload as lost, from its first
//! frame on. For a moment the payload is kept all the same. If the SYN comes in this time, the
//! session begins with it, and what was counted as lost is taken back: it was not lost. Otherwise
//! nothing is different from a session that was running.
//!
//! The server's answer may be shown first of all, too. Then nothing is kept: the SYN says where the
//! client's stream begins, and what the server has acknowledged of it is a gap until it is shown.

use super::session::Phase;
use super::{Capture, Sink};
use crate::counters::Loss;
use crate::due::Moment;
use crate::ledger::Amount;
use crate::piece::{Piece, offset_after};
use crate::slab::NIL;
use wire::decode::Packet;
use wire::io::{Frame, Payload};
use wire::{Flags, Head, Nanos, Seq};

/// How much later than the first payload a SYN may be shown. A mirror that reorders does so by far
/// less.
const WAIT: Nanos = 50_000_000;
/// How far behind the SYN payload may lie that was shown before it, in bytes: an initial window is
/// far less.
const REACH: u64 = 1 << 16;

/// The number of the segment's first byte of payload: a SYN has one before it.
fn first(head: &Head) -> Seq {
    head.seq + u32::from(head.flags.has(Flags::SYN))
}

impl<P: Payload> Capture<P> {
    /// Payload without a SYN, `new` bytes of which nobody had seen, may be kept: it was the
    /// session's first, or follows it soon and acknowledges no more than that.
    fn is_early(&self, time: Nanos, sid: u32, head: &Head, new: u32, out: &impl Sink<P>) -> bool {
        let s = &self.sessions[sid];
        let fresh = s.join_loss == Loss::Midstream && !out.has_begun(sid);
        let soon = if s.waiting.is_empty() {
            new > 0 && first(head) == s.isn + 1
        } else {
            s.timed_at.elapsed(time) <= WAIT
        };
        fresh && soon && head.ack == s.acked_at_data.seq()
    }

    /// Keeps payload that was counted as lost, with `new` of its bytes, in case the SYN comes yet.
    pub(super) fn keep_early<F: Frame<Payload = P>>(
        &mut self,
        time: Nanos,
        sid: u32,
        packet: &Packet,
        mut frame: F,
        new: u32,
        out: &mut impl Sink<P>,
    ) {
        let head = &packet.head;
        let len = packet.captured.min(head.payload_len as usize);
        let range = packet.payload_offset..packet.payload_offset + len;
        let whole = frame.split_rest().is_none() && frame.bytes().len() >= range.end;
        let early = len > 0 && whole && self.is_early(time, sid, head, new, out);
        let s = &self.sessions[sid];
        let (alone, tail) = (s.waiting.is_empty(), s.waiting.tail);
        let piece = early.then(|| Piece {
            pos: s.rcv_nxt.near(first(head)),
            ack: s.acked.near(head.ack),
            push: head.flags.has(Flags::PSH),
            urgent: offset_after(head.urgent, first(head).since(head.seq)),
            payload: self.keep(frame.into_payload(range)),
        });
        let kept = piece.is_some_and(|piece| self.link_waiting(sid, tail, piece, new, out));
        if !kept {
            self.forget_early(sid, out);
        } else if alone {
            let s = &mut self.sessions[sid];
            s.early = true;
            s.timed_at = Moment::at(time);
            self.arm(sid, time + WAIT);
        }
    }

    /// The session was running already, or it is over: what was kept is lost, as it was counted.
    pub(super) fn forget_early(&mut self, sid: u32, out: &mut impl Sink<P>) {
        let s = &mut self.sessions[sid];
        if std::mem::take(&mut s.early) {
            s.timed_at = Moment::NONE;
            while self.pop_waiting(sid, out).is_some() {}
        }
    }

    /// When to see whether early payload is to be forgotten.
    pub(super) fn early_due(&self, time: Nanos, sid: u32) -> Option<Nanos> {
        let s = &self.sessions[sid];
        let left = WAIT.saturating_sub(s.timed_at.elapsed(time));
        s.early.then_some(time + left)
    }

    /// The SYN `head` is that of a session whose first payload was shown before it, or whose first
    /// answer was.
    pub(super) fn was_early(&self, sid: u32, head: &Head, out: &impl Sink<P>) -> bool {
        let s = &self.sessions[sid];
        if s.phase != Phase::Joining || self.draining || !out.accepts_sessions(s.fan) {
            return false;
        }
        let first = s.rcv_nxt.near(head.seq + 1);
        if !s.early {
            let answered = s.began_behind(head.seq) && s.server_acked == Some(s.rcv_nxt);
            let fresh = s.join_loss == Loss::Midstream && !out.has_begun(sid);
            let soon = s.timed_at.is_set() && s.timed_at.elapsed(self.seen) <= WAIT;
            return answered && fresh && soon && s.waiting.is_empty();
        }
        let mut id = s.waiting.head;
        while id != NIL && self.waiting[id].pos.since(first) <= REACH {
            id = self.waiting[id].next;
        }
        id == NIL
    }

    /// Bytes of the early payload that were counted as lost.
    fn counted_early(&self, sid: u32) -> u64 {
        let (mut bytes, mut id) = (0, self.sessions[sid].waiting.head);
        while id != NIL {
            bytes += u64::from(self.waiting[id].counted);
            id = self.waiting[id].next;
        }
        bytes
    }

    /// The session begins after all, with its SYN and what was shown before it.
    pub(super) fn begin_late(
        &mut self,
        time: Nanos,
        sid: u32,
        head: &Head,
        out: &mut impl Sink<P>,
    ) {
        let bytes = self.counted_early(sid);
        let s = &mut self.sessions[sid];
        s.phase = Phase::Synced;
        s.isn = head.seq;
        s.rcv_nxt = s.rcv_nxt.near(head.seq + 1);
        s.ahead = 0;
        s.early = false;
        s.timed_at = Moment::NONE;
        let (fan, at) = (s.fan, s.rcv_nxt);
        let counted = Amount::new(1, bytes);
        out.ledger().taken_back(fan, counted, Loss::Midstream);
        if let Some(mss) = head.options.mss {
            out.segment_size(sid, mss);
        }
        out.begun(sid, &head.flow, at);
        out.connected(sid);
        // What the server has answered was said, shown or not.
        if let Some(acked) = self.sessions[sid].server_acked {
            self.note_extent(time, sid, acked, false);
        }
        let mut waiting = self.detach_waiting(sid);
        while waiting.head != NIL {
            let (piece, next) = self.take_waiting(sid, waiting.head, out);
            waiting.head = next;
            if let Some(piece) = piece {
                let _ = self.ingest(time, sid, piece, out);
            }
        }
    }
}
