//! What a client says before its SYN was shown: a mirror that reorders may show the SYN a moment
//! later.
//!
//! Such a session counts as one that was running already, and its payload as lost, from its first
//! frame on. For a moment the payload is kept all the same. If the SYN comes in this time, the
//! session begins with it, and what was counted as lost is taken back: it was not lost. Otherwise
//! nothing is different from a session that was running.

use super::stream::{Piece, less};
use super::{Core, Egress};
use crate::counters::Loss;
use crate::session::{Phase, Seg, Session};
use crate::slab::NIL;
use wire::decode::Packet;
use wire::io::{Frame, Payload};
use wire::{Head, Nanos};

/// How much later than the first payload a SYN may be shown. A mirror that reorders does so by far
/// less.
const WAIT: Nanos = 50_000_000;
/// How far behind the SYN payload may lie that was shown before it, in bytes: an initial window is
/// far less.
const REACH: u32 = 1 << 16;

impl Session {
    /// Payload without a SYN, `new` bytes of which nobody had seen, may be kept: it was the
    /// session's first, or follows it soon and acknowledges no more than that.
    fn is_early(&self, now: Nanos, head: &Head, new: u32) -> bool {
        let fresh = self.join_loss == Loss::Midstream && self.replica_count == 0;
        let soon = if self.early.is_empty() {
            new > 0 && head.seq == self.isn + 1
        } else {
            now <= self.handshake_at + WAIT
        };
        fresh && soon && head.ack == self.acked_at_data
    }
}

impl<P: Payload> Core<P> {
    /// Keeps payload that was counted as lost, with `new` of its bytes, in case the SYN comes yet.
    pub(super) fn keep_early<F: Frame<Payload = P>>(
        &mut self,
        now: Nanos,
        sid: u32,
        packet: &Packet,
        mut frame: F,
        new: u32,
    ) {
        let (head, s) = (&packet.head, &self.sessions[sid]);
        let len = packet.captured.min(head.payload_len as usize);
        let range = packet.payload_offset..packet.payload_offset + len;
        let room = u64::from(s.held) + len as u64 <= self.params.session_bytes;
        let whole = frame.split_rest().is_none() && frame.bytes().len() >= range.end;
        if !s.is_early(now, head, new) || !room || !whole || len == 0 {
            self.forget_early(sid);
            return;
        }
        let seg = Seg {
            seq: head.seq,
            len: len as u32,
            ack: head.ack,
            next: NIL,
            // It has no turn yet; what was counted is to be known if it gets one.
            turn_number: new,
            turn: NIL,
            holders: 0,
            push: head.flags.has(wire::Flags::PSH),
            urgent: less(head.urgent, 0),
            payload: Some(frame.into_payload(range)),
        };
        let Ok(id) = self.segs.alloc(seg) else {
            self.forget_early(sid);
            return;
        };
        let s = &mut self.sessions[sid];
        s.held += len as u32;
        if s.early.is_empty() {
            s.handshake_at = now;
            s.early.head = id;
            self.arm_session(sid, now + WAIT);
        } else {
            let tail = s.early.tail;
            self.segs[tail].next = id;
        }
        self.sessions[sid].early.tail = id;
    }

    /// Takes the first early segment out of its list.
    fn pop_early(&mut self, sid: u32) -> Option<Piece<P>> {
        self.pop_waiting(sid, |s| &mut s.early)
    }

    /// The session was running already, or it is over: what was kept is lost, as it was counted.
    pub(super) fn forget_early(&mut self, sid: u32) {
        while self.pop_early(sid).is_some() {}
    }

    /// When to see whether early payload is to be forgotten.
    pub(super) fn early_due(&self, sid: u32) -> Option<Nanos> {
        let s = &self.sessions[sid];
        (!s.early.is_empty()).then_some(s.handshake_at + WAIT)
    }

    /// The SYN `head` is that of a session whose first payload was shown before it.
    pub(super) fn was_early(&self, sid: u32, head: &Head, tx: &impl Egress<P>) -> bool {
        let s = &self.sessions[sid];
        if s.phase != Phase::Joining
            || s.early.is_empty()
            || self.draining
            || !tx.accepts_sessions()
        {
            return false;
        }
        let first = head.seq + 1;
        let mut id = s.early.head;
        while id != NIL && self.segs[id].seq.since(first) <= REACH {
            id = self.segs[id].next;
        }
        id == NIL
    }

    /// Bytes of the early payload that were counted as lost.
    fn counted_early(&self, sid: u32) -> u64 {
        let (mut bytes, mut id) = (0, self.sessions[sid].early.head);
        while id != NIL {
            bytes += u64::from(self.segs[id].turn_number);
            id = self.segs[id].next;
        }
        bytes
    }

    /// The session begins after all, with its SYN and what was shown before it.
    pub(super) fn begin_late(
        &mut self,
        now: Nanos,
        sid: u32,
        head: &Head,
        tx: &mut impl Egress<P>,
    ) {
        let copies = u64::from(self.params.copies);
        let bytes = self.counted_early(sid);
        let s = &mut self.sessions[sid];
        s.phase = Phase::Synced;
        s.isn = head.seq;
        s.rcv_nxt = head.seq + 1;
        s.shown = head.seq;
        s.mss = head.options.mss.unwrap_or(s.mss).max(64).min(s.mss);
        let c = &mut self.counters;
        c.turns -= 1;
        c.bytes -= bytes;
        c.lost_turns[Loss::Midstream as usize] -= copies;
        c.lost_bytes[Loss::Midstream as usize] -= bytes * copies;
        self.add_replicas(now, sid, tx);
        self.for_replicas(sid, |core, rid| core.connect(now, rid, tx));
        while let Some(piece) = self.pop_early(sid) {
            self.ingest(now, sid, piece, tx);
        }
    }
}
