//! What mirrored segments say: the client's payload, acknowledgments, FIN and RST, and what
//! production's server shows of its side.
//!
//! A client segment whose payload acknowledges more of the server's stream than the client's last
//! payload did begins a turn: the client had read an answer before it spoke. The bytes themselves
//! go to `stream`, what is out of order to `gap`.

use super::stream::{Piece, less};
use super::{Core, Egress};
use crate::counters::{Loss, Unused};
use crate::session::{End, Phase};
use crate::slab::NIL;
use wire::decode::Packet;
use wire::io::{Frame, Payload};
use wire::{Flags, Flow, Head, Nanos, Seq};

/// Segments further than this from what is expected are not of this connection.
pub(super) const PLAUSIBLE: u32 = 1 << 30;
/// What is closer than this to the stream of a session that is over may still be of it: the largest
/// window without scaling.
const NEAR: u32 = 1 << 16;

/// `seq` may belong to a stream whose next byte is `expected`.
fn plausible(expected: Seq, seq: Seq) -> bool {
    let distance = seq.0.wrapping_sub(expected.0);
    distance.min(distance.wrapping_neg()) <= PLAUSIBLE
}

impl<P: Payload> Core<P> {
    /// Takes one decoded frame of the mirror; `frame` is the very frame that `packet` was decoded
    /// from. Says why, if it was of no use.
    pub fn mirror<F: Frame<Payload = P>>(
        &mut self,
        now: Nanos,
        packet: &Packet,
        frame: F,
        tx: &mut impl Egress<P>,
    ) -> Result<(), Unused> {
        self.counters.frames += 1;
        self.seen = frame.captured_at().unwrap_or(now);
        let result = match self.params.transfer_of(&packet.head.flow) {
            Some((transfer, true)) => self.client_segment(now, transfer, packet, frame, tx),
            Some((_, false)) => self.server_segment(now, &packet.head, tx),
            None => Err(Unused::NoTransfer),
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
    ) -> Result<(), Unused> {
        let head = &packet.head;
        let syn = head.flags.has(Flags::SYN) && !head.flags.has(Flags::ACK);
        let sid = match self.session_by_flow(&head.flow) {
            Some(sid) if syn && self.was_early(sid, head, tx) => {
                self.begin_late(now, sid, head, tx);
                sid
            }
            Some(sid) if syn => {
                if self.sessions[sid].isn == head.seq {
                    // The client's SYN again: the round trip is measured from this one.
                    self.sessions[sid].handshake_at = self.seen;
                    return Err(Unused::Duplicate);
                }
                self.replace(now, sid, tx);
                self.open(now, transfer, head, Phase::Syn, tx)?
            }
            Some(sid) if self.is_another(sid, head) => {
                self.replace(now, sid, tx);
                self.open(now, transfer, head, Phase::Joining, tx)?
            }
            Some(sid) => sid,
            None if syn => self.open(now, transfer, head, Phase::Syn, tx)?,
            None if head.payload_len > 0
                && !head.flags.has(Flags::RST)
                && !head.flags.has(Flags::SYN) =>
            {
                self.open(now, transfer, head, Phase::Joining, tx)?
            }
            None => return Err(self.stranger(now, &head.flow)),
        };
        self.sessions[sid].last_seen = now;
        if head.flags.has(Flags::RST) {
            return self.client_reset(now, sid, head, tx);
        }
        if syn && head.payload_len == 0 {
            return Ok(());
        }
        if self.is_keep_alive(sid, head) {
            self.for_replicas(sid, |core, rid| core.keep_alive(now, rid, tx));
            return if head.payload_len == 0 {
                Ok(())
            } else {
                Err(Unused::Duplicate)
            };
        }
        let advanced = self.client_ack(sid, head);
        let news = self.client_payload(now, sid, packet, frame, tx);
        let ended = head.flags.has(Flags::FIN) && self.client_fin(now, sid, head, tx);
        let end = head.end() - u32::from(head.flags.has(Flags::FIN));
        let told = self.note_extent(now, sid, end, head.payload_len > 0);
        match news {
            Ok(false) if !ended && !advanced && !told && head.payload_len > 0 => {
                Err(Unused::Duplicate)
            }
            Ok(_) => Ok(()),
            Err(_) if ended => Ok(()),
            Err(reason) => Err(reason),
        }
    }

    /// Why a frame that belongs to no session is of no use.
    fn stranger(&self, now: Nanos, flow: &Flow) -> Unused {
        if self.selected(now, flow) {
            Unused::NoSession
        } else {
            Unused::NotSelected
        }
    }

    /// Payload far from all that a session which is over has said: of another connection with the
    /// same ports, whose SYN was not shown.
    fn is_another(&self, sid: u32, head: &Head) -> bool {
        let s = &self.sessions[sid];
        let payload = head.payload_len > 0 && !head.flags.has(Flags::RST);
        if s.phase != Phase::Ended || !payload || self.params.full_sessions_only {
            return false;
        }
        let said = s.fin.unwrap_or(s.rcv_nxt).max(s.rcv_nxt).since(s.isn);
        head.seq.since(s.isn - NEAR) > said + 2 * NEAR
    }

    /// A keep-alive probe: nothing, or one byte, that the server has had for long (RFC 9293 section
    /// 3.8.4).
    fn is_keep_alive(&self, sid: u32, head: &Head) -> bool {
        let s = &self.sessions[sid];
        s.phase == Phase::Synced
            && head.flags.0 == Flags::ACK.0
            && head.payload_len <= 1
            && head.seq + 1 == s.rcv_nxt
            && s.server_acked.is_none_or(|acked| acked == s.rcv_nxt)
            && head.ack == s.acked
    }

    /// Notes what the client acknowledges. True if that is more than before.
    fn client_ack(&mut self, sid: u32, head: &Head) -> bool {
        if !head.flags.has(Flags::ACK) {
            return false;
        }
        let s = &mut self.sessions[sid];
        if s.phase == Phase::Syn {
            s.phase = Phase::Synced;
            s.rtt = self.seen.saturating_sub(s.handshake_at);
        }
        if !s.ack_known {
            // The server's direction is not mirrored (or its SYN|ACK was lost): the client's first
            // ACK tells where the server's stream begins.
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
        self.note_production_answer(sid);
        if in_step && head.payload_len == 0 {
            self.close_turn(sid);
        }
        true
    }

    /// The answer to the open turn has begun: production's latency, once a turn.
    fn note_production_answer(&mut self, sid: u32) {
        let s = &mut self.sessions[sid];
        let tail = s.turns.tail;
        if tail != NIL && !s.answered && s.phase == Phase::Synced && s.turn_open {
            s.answered = true;
            let latency = self.seen.saturating_sub(self.turns[tail].last_at);
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
    ) -> Result<bool, Unused> {
        let head = &packet.head;
        if head.payload_len == 0 {
            return Ok(false);
        }
        let phase = self.sessions[sid].phase;
        match phase {
            Phase::Ended | Phase::Free => {
                let fin = self.sessions[sid].fin;
                let old = fin.is_none_or(|fin| head.end().le(fin + 1));
                return Err(if old {
                    Unused::Duplicate
                } else {
                    Unused::AfterEnd
                });
            }
            Phase::Joining if !self.is_boundary(sid, head.seq, head.ack) => {
                let (reason, new) = self.before_join(sid, head);
                self.keep_early(now, sid, packet, frame, new);
                return Err(reason);
            }
            Phase::Joining => self.join(now, sid, head.seq, tx),
            Phase::Syn | Phase::Synced => {}
        }
        let expected = self.sessions[sid].rcv_nxt;
        let first = if head.flags.has(Flags::SYN) {
            head.seq + 1
        } else {
            head.seq
        };
        if !plausible(expected, first) {
            return Err(Unused::OutOfWindow);
        }
        // What the snap length cut off is not there: it stays a gap, to be filled by a
        // retransmission or found to be a hole.
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
                    push: left == 0 && !packet.is_truncated() && head.flags.has(Flags::PSH),
                    urgent: less(head.urgent, seq.since(head.seq)),
                };
                news |= self.ingest(now, sid, piece, tx);
                seq += n as u32;
                if self.sessions[sid].phase == Phase::Joining {
                    // Cut in the middle of a frame: its rest is no turn.
                    self.lose_before_join(sid, seq, left as u32);
                    self.look_beyond_again(now, sid, tx);
                    break;
                }
            }
            start = start.saturating_sub(here);
            let Some(rest) = rest else { break };
            frame = rest;
        }
        Ok(news)
    }

    /// Payload at `seq` that acknowledges `ack` begins a turn that a session out of step can join
    /// at.
    pub(super) fn is_boundary(&mut self, sid: u32, seq: Seq, ack: Seq) -> bool {
        let s = &mut self.sessions[sid];
        // What the session had before, sent again with a newer acknowledgment, is none.
        if !ack.gt(s.acked_at_data) || seq.lt(s.rcv_nxt) {
            return false;
        }
        let missing = seq.since(s.rcv_nxt);
        if missing == 0 {
            return true;
        }
        // Bytes before it were not captured. They may be the beginning of this very turn, so it is
        // lost as well.
        s.acked_at_data = ack;
        s.rcv_nxt = seq;
        s.join_loss = Loss::Hole;
        self.lose_uncaptured(1, missing, Loss::Hole);
        false
    }

    /// Payload that cannot be used because it may begin in the middle of a request. Why, and how
    /// many bytes of it were new.
    fn before_join(&mut self, sid: u32, head: &Head) -> (Unused, u32) {
        match self.lose_before_join(sid, head.seq, head.payload_len) {
            0 => (Unused::Duplicate, 0),
            new => (Unused::BeforeJoin, new),
        }
    }

    /// `len` bytes from `seq` are of no use before the session is in step again. Returns how many
    /// of them were new.
    pub(super) fn lose_before_join(&mut self, sid: u32, seq: Seq, len: u32) -> u32 {
        let s = &mut self.sessions[sid];
        let end = seq + len;
        let n = end.since(s.rcv_nxt.max(seq));
        s.rcv_nxt = s.rcv_nxt.max(end);
        let reason = s.join_loss;
        self.lose_uncaptured(0, n, reason);
        n
    }

    /// The client's FIN. True if it was news.
    fn client_fin(&mut self, now: Nanos, sid: u32, head: &Head, tx: &mut impl Egress<P>) -> bool {
        let s = &mut self.sessions[sid];
        let end = head.end() - 1;
        if s.end.is_some() || s.fin.is_some() || !plausible(s.rcv_nxt, end) {
            return false;
        }
        s.fin = Some(end);
        // A number without payload may have counted the FIN in.
        s.shown = s.shown.min(end);
        if s.phase == Phase::Joining {
            s.rcv_nxt = s.rcv_nxt.max(end);
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
    pub(super) fn check_fin(&mut self, now: Nanos, sid: u32) {
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
    ) -> Result<(), Unused> {
        let s = &self.sessions[sid];
        if s.phase == Phase::Ended {
            return Err(Unused::Duplicate);
        }
        if !plausible(s.rcv_nxt, head.seq) {
            return Err(Unused::OutOfWindow);
        }
        self.note_extent(now, sid, head.seq, false);
        // It may tell what the client had read; the reset waits for as much.
        self.client_ack(sid, head);
        self.settle_gaps(now, sid, tx);
        self.end_session(now, sid, End::Reset);
        self.for_replicas(sid, |core, rid| core.pump(now, rid, tx));
        Ok(())
    }

    /// A frame of production's server: it tells where its stream begins, when it answered, what it
    /// has of the client's stream.
    fn server_segment(
        &mut self,
        now: Nanos,
        head: &Head,
        tx: &mut impl Egress<P>,
    ) -> Result<(), Unused> {
        let Some(sid) = self.session_by_flow(&head.flow.reversed()) else {
            return Err(self.stranger(now, &head.flow.reversed()));
        };
        let s = &mut self.sessions[sid];
        s.last_seen = now;
        if head.flags.has(Flags::RST) {
            if s.phase == Phase::Ended {
                return Err(Unused::Duplicate);
            }
            // The server gave up on the client. The client says nothing more; the target's side is
            // closed in good order.
            self.settle_gaps(now, sid, tx);
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
                s.handshake_at = self.seen;
                return Ok(());
            }
            return Err(Unused::Duplicate);
        }
        let end = head.seq + head.payload_len;
        let mut news = false;
        if s.server_nxt.is_none_or(|nxt| end.gt(nxt)) {
            s.server_nxt = Some(end);
            news = true;
            if head.payload_len > 0 {
                self.note_production_answer(sid);
            }
        }
        let s = &mut self.sessions[sid];
        if head.flags.has(Flags::FIN) && s.server_closed.is_none() {
            s.server_closed = Some(head.ack.le(s.rcv_nxt));
        }
        if head.flags.has(Flags::ACK) && s.server_acked.is_none_or(|acked| head.ack.gt(acked)) {
            s.server_acked = Some(head.ack);
            news = true;
            if s.gap_since != 0 {
                let due = self.gap_due(sid);
                self.arm_session(sid, due);
            }
            self.note_extent(now, sid, head.ack, false);
        }
        if self.fin_is_unseen(sid) {
            self.watch_gap(now, sid);
        }
        if news || head.payload_len == 0 {
            Ok(())
        } else {
            Err(Unused::Duplicate)
        }
    }
}
