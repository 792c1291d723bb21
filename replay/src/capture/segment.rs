//! What mirrored segments say: the client's payload, acknowledgments, FIN and RST, and what
//! production's server shows of its side.
//!
//! A client segment whose payload acknowledges more of the server's stream than the client's last
//! payload did begins a turn: the client had read an answer before it spoke. The bytes themselves
//! go to `stream`, what is out of order to `gap`.

use super::session::{End, Phase};
use super::{Capture, Sink, beginning};
use crate::counters::{Loss, Unused};
use crate::ledger::Amount;
use crate::piece::{Piece, offset_after};
use crate::pos::StreamPos;
use wire::decode::Packet;
use wire::io::{Frame, Payload};
use wire::{Flags, Flow, Head, Nanos};

/// Segments further than this from what is expected are not of this connection.
pub(super) const PLAUSIBLE: u64 = 1 << 30;
/// What is closer than this to the stream of a session that is over may still be of it: the largest
/// window without scaling.
const NEAR: u32 = 1 << 16;

/// `pos` may belong to a stream whose next byte is `expected`.
fn plausible(expected: StreamPos, pos: StreamPos) -> bool {
    expected.since(pos).max(pos.since(expected)) <= PLAUSIBLE
}

impl<P: Payload> Capture<P> {
    pub(super) fn client_segment<F: Frame<Payload = P>>(
        &mut self,
        now: Nanos,
        transfer: u16,
        packet: &Packet,
        frame: F,
        out: &mut impl Sink<P>,
    ) -> Result<(), Unused> {
        let head = &packet.head;
        let syn = head.flags.has(Flags::SYN) && !head.flags.has(Flags::ACK);
        let sid = match self.by_flow(&head.flow) {
            Some(sid) if syn && self.was_early(sid, head, out) => {
                self.begin_late(now, sid, head, out);
                sid
            }
            Some(sid) if syn => {
                if self.sessions[sid].isn == head.seq {
                    // The client's SYN again: the round trip is measured from this one.
                    self.sessions[sid].handshake_at = self.seen;
                    return Err(Unused::Duplicate);
                }
                self.replace(now, sid, out);
                self.open(now, transfer, head, Phase::Syn, out)?
            }
            Some(sid) if self.is_another(sid, head) => {
                self.replace(now, sid, out);
                self.open(now, transfer, head, Phase::Joining, out)?
            }
            Some(sid) => sid,
            None if syn => self.open(now, transfer, head, Phase::Syn, out)?,
            None if head.payload_len > 0
                && !head.flags.has(Flags::RST)
                && !head.flags.has(Flags::SYN) =>
            {
                self.open(now, transfer, head, Phase::Joining, out)?
            }
            None => return Err(self.stranger(now, &head.flow)),
        };
        self.sessions[sid].last_seen = now;
        if head.flags.has(Flags::RST) {
            return self.client_reset(now, sid, head, out);
        }
        if syn && head.payload_len == 0 {
            return Ok(());
        }
        if self.is_keep_alive(sid, head) {
            out.keep_alive(sid);
            return if head.payload_len == 0 {
                Ok(())
            } else {
                Err(Unused::Duplicate)
            };
        }
        let advanced = self.client_ack(sid, head, out);
        let news = self.client_payload(now, sid, packet, frame, out);
        let ended = head.flags.has(Flags::FIN) && self.client_fin(now, sid, head, out);
        let end = head.end() - u32::from(head.flags.has(Flags::FIN));
        let end = self.sessions[sid].rcv_nxt.near(end);
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
        let end = s.fin.unwrap_or(s.rcv_nxt).max(s.rcv_nxt);
        let pos = end.near(head.seq);
        pos > end + NEAR || pos + NEAR < beginning(s.isn)
    }

    /// A keep-alive probe: nothing, or one byte, that the server has had for long (RFC 9293 section
    /// 3.8.4).
    fn is_keep_alive(&self, sid: u32, head: &Head) -> bool {
        let s = &self.sessions[sid];
        s.phase == Phase::Synced
            && head.flags.0 == Flags::ACK.0
            && head.payload_len <= 1
            && head.seq + 1 == s.rcv_nxt.seq()
            && s.server_acked.is_none_or(|acked| acked == s.rcv_nxt)
            && head.ack == s.acked.seq()
    }

    /// Notes what the client acknowledges. True if that is more than before.
    fn client_ack(&mut self, sid: u32, head: &Head, out: &mut impl Sink<P>) -> bool {
        if !head.flags.has(Flags::ACK) {
            return false;
        }
        let s = &mut self.sessions[sid];
        if s.phase == Phase::Syn {
            s.phase = Phase::Synced;
            out.round_trip(sid, self.seen.saturating_sub(s.handshake_at));
        }
        if !s.ack_known {
            // The server's direction is not mirrored (or its SYN|ACK was lost): the client's first
            // ACK tells where the server's stream begins.
            s.ack_known = true;
            s.acked = StreamPos::first(head.ack);
            s.acked_at_data = s.acked;
            return true;
        }
        let ack = s.acked.near(head.ack);
        if ack <= s.acked || ack.since(s.acked) > PLAUSIBLE {
            return false;
        }
        s.acked = ack;
        let in_step =
            s.phase == Phase::Synced && head.seq == s.rcv_nxt.seq() && s.waiting.is_empty();
        self.note_production_answer(sid, out);
        if in_step && head.payload_len == 0 {
            out.close_turn(sid);
        }
        true
    }

    /// The answer to the open turn has begun.
    fn note_production_answer(&mut self, sid: u32, out: &mut impl Sink<P>) {
        if self.sessions[sid].phase == Phase::Synced {
            out.answer_seen(sid, self.seen);
        }
    }

    /// Feeds the segment's payload into the stream, buffer by buffer. True if any of it was new.
    fn client_payload<F: Frame<Payload = P>>(
        &mut self,
        now: Nanos,
        sid: u32,
        packet: &Packet,
        mut frame: F,
        out: &mut impl Sink<P>,
    ) -> Result<bool, Unused> {
        let head = &packet.head;
        if head.payload_len == 0 {
            return Ok(false);
        }
        let s = &self.sessions[sid];
        let (phase, fin, expected) = (s.phase, s.fin, s.rcv_nxt);
        let first = expected.near(head.seq + u32::from(head.flags.has(Flags::SYN)));
        let ack = s.acked.near(head.ack);
        match phase {
            Phase::Ended | Phase::Free => {
                let end = expected.near(head.end());
                let old = fin.is_none_or(|fin| end <= fin + 1_u32);
                return Err(if old {
                    Unused::Duplicate
                } else {
                    Unused::AfterEnd
                });
            }
            Phase::Joining if !self.is_boundary(sid, first, ack, out) => {
                let (reason, new) = self.before_join(sid, head, out);
                self.keep_early(now, sid, packet, frame, new, out);
                return Err(reason);
            }
            Phase::Joining => self.join(sid, first, out),
            Phase::Syn | Phase::Synced => {}
        }
        if !plausible(self.sessions[sid].rcv_nxt, first) {
            return Err(Unused::OutOfWindow);
        }
        // What the snap length cut off is not there: it stays a gap, to be filled by a
        // retransmission or found to be a hole.
        let mut left = packet.captured.min(head.payload_len as usize);
        let (mut pos, mut start) = (first, packet.payload_offset);
        let mut news = false;
        while left > 0 {
            let rest = frame.split_rest();
            let here = frame.bytes().len();
            let n = here.saturating_sub(start).min(left);
            left -= n;
            if n > 0 {
                let piece = Piece {
                    payload: frame.into_payload(start..start + n),
                    pos,
                    ack,
                    push: left == 0 && !packet.is_truncated() && head.flags.has(Flags::PSH),
                    urgent: offset_after(head.urgent, pos.seq().since(head.seq)),
                };
                news |= self.ingest(now, sid, piece, out);
                pos += n as u32;
                if self.sessions[sid].phase == Phase::Joining {
                    // Cut in the middle of a frame: its rest is no turn.
                    self.lose_before_join(sid, pos, left as u32, out);
                    self.look_beyond_again(now, sid, out);
                    break;
                }
            }
            start = start.saturating_sub(here);
            let Some(rest) = rest else { break };
            frame = rest;
        }
        Ok(news)
    }

    /// Payload at `pos` that acknowledges `ack` begins a turn that a session out of step can join
    /// at.
    pub(super) fn is_boundary(
        &mut self,
        sid: u32,
        pos: StreamPos,
        ack: StreamPos,
        out: &mut impl Sink<P>,
    ) -> bool {
        let s = &mut self.sessions[sid];
        // What the session had before, sent again with a newer acknowledgment, is none.
        if ack <= s.acked_at_data || pos < s.rcv_nxt {
            return false;
        }
        let missing = pos.since(s.rcv_nxt);
        if missing == 0 {
            return true;
        }
        // Bytes before it were not captured. They may be the beginning of this very turn, so it is
        // lost as well.
        s.acked_at_data = ack;
        s.rcv_nxt = pos;
        s.join_loss = Loss::Hole;
        self.lose(sid, Amount::new(1, missing), Loss::Hole, out);
        false
    }

    /// Payload that cannot be used because it may begin in the middle of a request. Why, and how
    /// many bytes of it were new.
    fn before_join(&mut self, sid: u32, head: &Head, out: &mut impl Sink<P>) -> (Unused, u32) {
        let pos = self.sessions[sid].rcv_nxt.near(head.seq);
        match self.lose_before_join(sid, pos, head.payload_len, out) {
            0 => (Unused::Duplicate, 0),
            new => (Unused::BeforeJoin, new),
        }
    }

    /// `len` bytes from `pos` are of no use before the session is in step again. Returns how many
    /// of them were new.
    pub(super) fn lose_before_join(
        &mut self,
        sid: u32,
        pos: StreamPos,
        len: u32,
        out: &mut impl Sink<P>,
    ) -> u32 {
        let s = &mut self.sessions[sid];
        let end = pos + len;
        let n = end.since(s.rcv_nxt.max(pos));
        s.rcv_nxt = s.rcv_nxt.max(end);
        let reason = s.join_loss;
        self.lose(sid, Amount::bytes(n), reason, out);
        n as u32
    }

    /// The client's FIN. True if it was news.
    fn client_fin(&mut self, now: Nanos, sid: u32, head: &Head, out: &mut impl Sink<P>) -> bool {
        let s = &mut self.sessions[sid];
        let end = s.rcv_nxt.near(head.end() - 1);
        if s.phase == Phase::Ended || s.fin.is_some() || !plausible(s.rcv_nxt, end) {
            return false;
        }
        s.fin = Some(end);
        // A number without payload may have counted the FIN in.
        s.shown = s.shown.min(end);
        if s.phase == Phase::Joining {
            s.rcv_nxt = s.rcv_nxt.max(end);
        }
        self.check_fin(now, sid, out);
        out.push(sid);
        let s = &mut self.sessions[sid];
        if s.phase != Phase::Ended && s.gap_since == 0 {
            // The FIN itself lies beyond a gap.
            s.gap_since = now.max(1);
            let due = self.gap_due(sid);
            self.arm(sid, due);
        }
        true
    }

    /// The stream has reached the client's FIN: the session's end.
    pub(super) fn check_fin(&mut self, now: Nanos, sid: u32, out: &mut impl Sink<P>) {
        let s = &self.sessions[sid];
        if s.phase != Phase::Ended && s.has_all() {
            self.end_session(now, sid, End::Fin, out);
        }
    }

    /// The client's RST: what it said before is still replayed.
    fn client_reset(
        &mut self,
        now: Nanos,
        sid: u32,
        head: &Head,
        out: &mut impl Sink<P>,
    ) -> Result<(), Unused> {
        let s = &self.sessions[sid];
        if s.phase == Phase::Ended {
            return Err(Unused::Duplicate);
        }
        let pos = s.rcv_nxt.near(head.seq);
        if !plausible(s.rcv_nxt, pos) {
            return Err(Unused::OutOfWindow);
        }
        self.note_extent(now, sid, pos, false);
        // It may tell what the client had read; the reset waits for as much.
        self.client_ack(sid, head, out);
        self.settle_gaps(now, sid, out);
        self.end_session(now, sid, End::Reset, out);
        out.push(sid);
        Ok(())
    }

    /// A frame of production's server: it tells where its stream begins, when it answered, what it
    /// has of the client's stream.
    pub(super) fn server_segment(
        &mut self,
        now: Nanos,
        head: &Head,
        out: &mut impl Sink<P>,
    ) -> Result<(), Unused> {
        let Some(sid) = self.by_flow(&head.flow.reversed()) else {
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
            self.settle_gaps(now, sid, out);
            self.end_session(now, sid, End::Fin, out);
            out.push(sid);
            return Ok(());
        }
        if head.flags.has(Flags::SYN) {
            if s.phase == Phase::Syn && head.flags.has(Flags::ACK) {
                let first = beginning(head.seq);
                s.ack_known = true;
                s.acked = first;
                s.acked_at_data = first;
                s.server_nxt = Some(first);
                s.handshake_at = self.seen;
                return Ok(());
            }
            return Err(Unused::Duplicate);
        }
        let end = s.server_nxt.unwrap_or(s.acked).near(head.seq) + head.payload_len;
        let mut news = false;
        if s.server_nxt.is_none_or(|nxt| end > nxt) {
            s.server_nxt = Some(end);
            news = true;
            if head.payload_len > 0 {
                self.note_production_answer(sid, out);
            }
        }
        let s = &mut self.sessions[sid];
        let ack = s.rcv_nxt.near(head.ack);
        if head.flags.has(Flags::FIN) && s.server_closed.is_none() {
            s.server_closed = Some(ack <= s.rcv_nxt);
        }
        if head.flags.has(Flags::ACK) && s.server_acked.is_none_or(|acked| ack > acked) {
            s.server_acked = Some(ack);
            news = true;
            if s.gap_since != 0 {
                let due = self.gap_due(sid);
                self.arm(sid, due);
            }
            self.note_extent(now, sid, ack, false);
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
