//! What mirrored segments say: the client's payload, acknowledgments, FIN and RST, and what
//! production's server shows of its side.
//!
//! A client segment whose payload acknowledges more of the server's stream than the client's last
//! payload did begins a turn: the client had read an answer before it spoke. The bytes themselves
//! go to `stream`, what is out of order to `gap`.

use super::lifecycle::Beginning;
use super::session::{End, NEAR, Phase, REACH};
use super::shed::Said;
use super::{Capture, Sink, beginning, opens};
use crate::counters::{Loss, Unused};
use crate::due::{Due, Moment};
use crate::ledger::Amount;
use crate::piece::{Piece, offset_after};
use crate::pos::StreamPos;
use wire::decode::Packet;
use wire::io::{Frame, Payload};
use wire::{Flags, Flow, Head, Nanos};

/// A number further than this from what is expected is no number of this connection.
const TRUSTED: u64 = 1 << 30;
/// A bare acknowledgment that comes later than this behind what it acknowledges is no measure of
/// the client's round trip.
const LONGEST_ROUND_TRIP: Nanos = 1_000_000_000;
/// And one with payload: the client may have waited for something to say.
const LONGEST_WITH_PAYLOAD: Nanos = 200_000_000;

/// How long a round trip that this segment of the client's ends may be.
pub(super) fn longest_round_trip(head: &Head) -> Nanos {
    if head.payload_len == 0 {
        LONGEST_ROUND_TRIP
    } else {
        LONGEST_WITH_PAYLOAD
    }
}

impl<P: Payload> Capture<P> {
    pub(super) fn client_segment<F: Frame<Payload = P>>(
        &mut self,
        time: Nanos,
        transfer: u16,
        packet: &Packet,
        frame: F,
        out: &mut impl Sink<P>,
    ) -> Result<(), Unused> {
        let head = &packet.head;
        if opens(head.flags) && !head.flags.has(Flags::ACK) {
            return self.client_syn(time, transfer, packet, frame, out);
        }
        let sid = match self.client_session(time, transfer, packet, out) {
            Ok(sid) => sid,
            Err(all) => return all,
        };
        self.follow(sid, head, true, out);
        if head.flags.has(Flags::RST) {
            return self.client_reset(time, sid, head, out);
        }
        if !self.is_plausible(sid, head) {
            return Err(Unused::OutOfWindow);
        }
        let s = &mut self.sessions[sid];
        s.last_seen = Due::at(time);
        s.note_leap(s.rcv_nxt.near(head.seq), s.acked.near(head.ack));
        if self.is_keep_alive(sid, head) {
            out.keep_alive(sid);
            return if head.payload_len == 0 {
                Ok(())
            } else {
                Err(Unused::Duplicate)
            };
        }
        let advanced = self.client_ack(sid, head, out);
        let news = self.client_payload(time, sid, packet, frame, out);
        let ended = head.flags.has(Flags::FIN) && self.client_fin(time, sid, head, out);
        let end = head.end() - u32::from(head.flags.has(Flags::FIN));
        let end = self.sessions[sid].rcv_nxt.near(end);
        let told = self.note_extent(time, sid, end, head.payload_len > 0);
        match news {
            Ok(false) if !ended && !advanced && !told && head.payload_len > 0 => {
                Err(Unused::Duplicate)
            }
            Ok(_) => Ok(()),
            Err(_) if ended => Ok(()),
            Err(reason) => Err(reason),
        }
    }

    /// The session that a segment of the client's belongs to, which may begin with it.
    fn client_session(
        &mut self,
        time: Nanos,
        transfer: u16,
        packet: &Packet,
        out: &mut impl Sink<P>,
    ) -> Result<u32, Result<(), Unused>> {
        let (head, scope) = (&packet.head, packet.scope);
        let here = self.by_flow(&head.flow, |s| s.scope == scope);
        let found = here.or_else(|| self.elsewhere(head));
        // A handshake in the segment's own scope comes before a session in another.
        let anywhere = found.is_none_or(|sid| self.sessions[sid].is_reopening());
        if (here.is_none() || anywhere)
            && let Some(sid) = self.client_accepts(time, packet, anywhere, out)?
        {
            return Ok(sid);
        }
        let payload = head.payload_len > 0 && !head.flags.has(Flags::RST);
        match found {
            Some(sid) if payload && self.is_another(sid, head) => {
                self.replace(time, sid, out);
            }
            Some(sid) => return Ok(sid),
            None if payload && !head.flags.has(Flags::SYN) => {}
            None => return Err(Err(self.stranger(transfer, &head.flow))),
        }
        let beginning = Beginning {
            flow: head.flow,
            scope,
            server_scope: scope,
            transfer,
            isn: head.seq - 1,
            acked: StreamPos::first(head.ack),
            server_nxt: None,
            server_shift: None,
            server_window: 0,
            mss: None,
            syns: None,
            midstream: true,
        };
        let opened = self.open(time, &beginning, out);
        if opened == Err(Unused::Shed) {
            self.lose_shed(transfer, &head.flow, Said::by(head), out);
        }
        opened.map_err(Err)
    }

    /// Payload of a session that is turned away is lost.
    pub(super) fn lose_shed(
        &mut self,
        transfer: u16,
        flow: &Flow,
        said: Said,
        out: &mut impl Sink<P>,
    ) {
        let hash = self.flows.hash(flow);
        if let Some(fan) = self.fan_of(transfer, flow) {
            self.shed.payload(fan, said, hash, out.ledger());
        }
    }

    /// A session of the same flow in another scope, to which the segment belongs by its numbers: a
    /// mirror may show a routed segment in two networks.
    fn elsewhere(&self, head: &Head) -> Option<u32> {
        self.by_flow(&head.flow, |s| {
            let pos = s.rcv_nxt.near(head.seq);
            s.reaches(pos, head.ack) && s.ack_fits(head.ack)
        })
    }

    /// Why a frame that belongs to no session is of no use.
    pub(super) fn stranger(&self, transfer: u16, flow: &Flow) -> Unused {
        if self.fan_of(transfer, flow).is_some() {
            Unused::NoSession
        } else {
            Unused::NotSelected
        }
    }

    /// Payload of another connection with the same addresses and ports, whose handshake was not
    /// shown: it is far from all that this session can have said. Of a session that is not over, a
    /// second frame has to confirm that. What it acknowledges tells nothing: hosts begin the next
    /// connection of the same ports a little beyond the last one (RFC 9293 section 3.4.1).
    fn is_another(&mut self, sid: u32, head: &Head) -> bool {
        let full_only = self.params.full_sessions_only;
        let s = &mut self.sessions[sid];
        if s.phase == Phase::Ended {
            if full_only {
                return false;
            }
            let end = s.fin.unwrap_or(s.rcv_nxt).max(s.rcv_nxt);
            let pos = end.near(head.seq);
            return pos > end + NEAR || pos + NEAR < beginning(s.isn);
        }
        let pos = s.rcv_nxt.near(head.seq);
        !s.reaches(pos, head.ack) && s.confirms(pos)
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
        let ack = s.acked.near(head.ack);
        // A segment that begins where one is expected is of this connection, whatever else it says.
        let trusted = if head.seq == s.rcv_nxt.seq() {
            TRUSTED
        } else {
            REACH
        };
        let seen = s.server_nxt.is_some_and(|nxt| ack <= nxt);
        if ack <= s.acked || (!seen && ack.since(s.acked) > trusted) {
            return false;
        }
        if s.timed_at.is_set() && ack >= ack.near(s.timed_end) {
            let rtt = s.timed_at.elapsed(self.seen);
            s.timed_at = Moment::NONE;
            // Frames that were taken from the wire together show no time between them.
            if rtt > 0 && rtt <= longest_round_trip(head) {
                out.round_trip(sid, rtt);
            }
        }
        let s = &mut self.sessions[sid];
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
    pub(super) fn note_production_answer(&mut self, sid: u32, out: &mut impl Sink<P>) {
        if self.sessions[sid].phase == Phase::Synced {
            out.answer_seen(sid, self.seen);
        }
    }

    /// Feeds the segment's payload into the stream, buffer by buffer. True if any of it was new.
    fn client_payload<F: Frame<Payload = P>>(
        &mut self,
        time: Nanos,
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
                self.keep_early(time, sid, packet, frame, new, out);
                return Err(reason);
            }
            Phase::Joining => self.join(sid, first, out),
            Phase::Synced => {}
        }
        // What the snap length cut off is not there: it stays a gap, to be filled by a
        // retransmission or found to be a hole.
        let mut left = packet.captured.min(head.payload_len as usize);
        let (mut pos, mut start) = (first, packet.payload_offset);
        let (mut news, mut refused) = (false, None);
        while left > 0 {
            let rest = frame.split_rest();
            let here = frame.bytes().len();
            let n = here.saturating_sub(start).min(left);
            left -= n;
            if n > 0 {
                let piece = Piece {
                    payload: self.keep(frame.into_payload(start..start + n)),
                    pos,
                    ack,
                    push: left == 0 && !packet.is_truncated() && head.flags.has(Flags::PSH),
                    urgent: offset_after(head.urgent, pos.seq().since(head.seq)),
                };
                match self.ingest(time, sid, piece, out) {
                    Ok(some) => news |= some,
                    Err(reason) => refused = Some(reason),
                }
                pos += n as u32;
                if self.sessions[sid].phase == Phase::Joining {
                    // Cut in the middle of a frame: its rest is no turn.
                    self.lose_before_join(sid, pos, left as u32, out);
                    self.look_beyond_again(time, sid, out);
                    // All up to a FIN that was shown before may be lost now.
                    self.check_fin(time, sid, out);
                    out.push(sid);
                    break;
                }
            }
            start = start.saturating_sub(here);
            let Some(rest) = rest else { break };
            frame = rest;
        }
        match refused {
            Some(reason) if !news => Err(reason),
            _ => Ok(news),
        }
    }

    /// A segment is of this connection: near what is known of it. Of any other nothing is believed.
    fn is_plausible(&self, sid: u32, head: &Head) -> bool {
        let s = &self.sessions[sid];
        let first = head.seq + u32::from(head.flags.has(Flags::SYN));
        s.reaches(s.rcv_nxt.near(first), head.ack)
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
        s.advance_to(pos);
        s.join_loss = Loss::Hole;
        self.lose_missing(sid, missing, Loss::Hole, out);
        self.lose(sid, Amount::new(1, 0), Loss::Hole, out);
        false
    }

    /// Payload that cannot be used because it may begin in the middle of a request. Why, and how
    /// many bytes are lost with it.
    fn before_join(&mut self, sid: u32, head: &Head, out: &mut impl Sink<P>) -> (Unused, u32) {
        let pos = self.sessions[sid].rcv_nxt.near(head.seq);
        match self.lose_before_join(sid, pos, head.payload_len, out) {
            0 => (Unused::Duplicate, 0),
            new => (Unused::BeforeJoin, new),
        }
    }

    /// `len` bytes from `pos` are of no use before the session is in step again, and neither is
    /// what is missing before them. Returns how many are lost with them.
    pub(super) fn lose_before_join(
        &mut self,
        sid: u32,
        pos: StreamPos,
        len: u32,
        out: &mut impl Sink<P>,
    ) -> u32 {
        let s = &mut self.sessions[sid];
        let end = pos + len;
        let (n, missing) = (end.since(s.rcv_nxt), pos.since(s.rcv_nxt));
        s.advance_to(s.rcv_nxt.max(end));
        let reason = s.join_loss;
        self.lose_missing(sid, missing, reason, out);
        self.lose(sid, Amount::bytes(n - missing), reason, out);
        n as u32
    }

    /// The client's FIN. True if it was news.
    fn client_fin(&mut self, time: Nanos, sid: u32, head: &Head, out: &mut impl Sink<P>) -> bool {
        let s = &mut self.sessions[sid];
        let end = s.rcv_nxt.near(head.end() - 1);
        if s.phase == Phase::Ended || s.fin.is_some() || end < s.rcv_nxt || end > s.limit() {
            return false;
        }
        s.fin = Some(end);
        // A number without payload may have counted the FIN in.
        s.ahead = s.ahead.min(end.since(s.rcv_nxt) as u32);
        if s.phase == Phase::Joining {
            self.lose_before_join(sid, end, 0, out);
        }
        self.check_fin(time, sid, out);
        out.push(sid);
        let s = &mut self.sessions[sid];
        if s.phase != Phase::Ended && !s.gap_since.is_set() {
            // The FIN itself lies beyond a gap.
            s.gap_since = Due::at(time);
            let due = self.gap_due(time, sid);
            self.arm(sid, due);
        }
        true
    }

    /// The stream has reached the client's FIN: the session's end.
    pub(super) fn check_fin(&mut self, time: Nanos, sid: u32, out: &mut impl Sink<P>) {
        let s = &self.sessions[sid];
        if s.phase != Phase::Ended && s.has_all() {
            self.end_session(time, sid, End::Fin, out);
        }
    }

    /// The client's RST: what it said before is still replayed.
    fn client_reset(
        &mut self,
        time: Nanos,
        sid: u32,
        head: &Head,
        out: &mut impl Sink<P>,
    ) -> Result<(), Unused> {
        let s = &self.sessions[sid];
        if s.phase == Phase::Ended {
            return Err(Unused::Duplicate);
        }
        let pos = s.rcv_nxt.near(head.seq);
        let known = s.shown().max(s.server_acked.unwrap_or(s.rcv_nxt));
        // Up to where the client is known to have spoken, or a little behind: it answers what the
        // server sent earlier. Any other number needs an acknowledgment that is of this connection:
        // without one it answers a segment of another (RFC 5961 section 3.2).
        let believed = if pos <= known {
            s.rcv_nxt.since(pos) <= NEAR
        } else {
            head.flags.has(Flags::ACK) && s.ack_fits(head.ack) && pos <= s.limit()
        };
        if !believed {
            return Err(Unused::OutOfWindow);
        }
        self.sessions[sid].last_seen = Due::at(time);
        self.note_extent(time, sid, pos, false);
        // It may tell what the client had read; the reset waits for as much.
        self.client_ack(sid, head, out);
        self.settle_gaps(time, sid, out);
        self.end_session(time, sid, End::Reset, out);
        out.push(sid);
        Ok(())
    }
}
