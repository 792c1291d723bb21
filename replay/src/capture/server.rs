//! What production's server shows of its side: when it answered, what it has of the client's
//! stream, that it has closed.

use super::lifecycle::Beginning;
use super::session::{End, NEAR, Phase, REACH, UNKNOWN_SHIFT};
use super::{Capture, Sink, opens};
use crate::Unused;
use crate::due::{Due, Moment};
use crate::pos::StreamPos;
use wire::decode::Packet;
use wire::io::Payload;
use wire::{Flags, Flow, Head, Nanos};

impl<P: Payload> Capture<P> {
    pub(super) fn server_segment(
        &mut self,
        time: Nanos,
        transfer: u16,
        packet: &Packet,
        out: &mut impl Sink<P>,
    ) -> Result<(), Unused> {
        let head = &packet.head;
        if opens(head.flags) {
            return self.server_syn(time, transfer, packet, out);
        }
        let sid = match self.server_session(time, transfer, packet, out) {
            Ok(sid) => sid,
            Err(all) => return all,
        };
        self.follow(sid, head, false, out);
        if head.flags.has(Flags::RST) {
            return self.server_reset(time, sid, head, out);
        }
        let s = &mut self.sessions[sid];
        let expected = s.server_nxt.unwrap_or(s.acked).max(s.acked);
        let seq = expected.near(head.seq);
        // After an outage of the mirror the client's acknowledgments lead there. What acknowledges
        // less than any window reaches back to is of another connection (RFC 5961 section 5.2).
        let acks = head.flags.has(Flags::ACK);
        let old = acks && s.rcv_nxt.since(s.rcv_nxt.near(head.ack)) > REACH;
        if old || seq.since(expected).max(s.acked.since(seq)) > REACH {
            return Err(Unused::OutOfWindow);
        }
        s.last_seen = Due::at(time);
        s.note_leap(s.rcv_nxt.near(head.ack), seq);
        let news = self.server_payload(sid, seq, head, out);
        let told = self.server_ack(time, sid, seq, head);
        if self.fin_is_unseen(sid) {
            self.watch_gap(time, sid);
        }
        if news || told || head.payload_len == 0 {
            Ok(())
        } else {
            Err(Unused::Duplicate)
        }
    }

    /// The session that a segment of the server's belongs to, which may begin with it.
    fn server_session(
        &mut self,
        time: Nanos,
        transfer: u16,
        packet: &Packet,
        out: &mut impl Sink<P>,
    ) -> Result<u32, Result<(), Unused>> {
        let (head, scope) = (&packet.head, packet.scope);
        let flow = head.flow.reversed();
        let here = self.by_flow(&flow, |s| s.server_scope == scope);
        if here.is_none_or(|sid| self.sessions[sid].is_reopening())
            && let Some(sid) = self.server_accepts(time, &flow, head, here.is_some(), out)?
        {
            return Ok(sid);
        }
        let found = here.or_else(|| self.answered_elsewhere(&flow, scope, head));
        if let Some(sid) = found {
            return Ok(sid);
        }
        if self.over.repeats(self.hash, head.seq + head.payload_len) {
            return Err(Err(Unused::Duplicate));
        }
        let answers = head.payload_len > 0
            && head.flags.has(Flags::ACK)
            && !head.flags.has(Flags::RST)
            && !self.params.full_sessions_only;
        if !answers {
            return Err(Err(self.stranger(transfer, &flow)));
        }
        // An answer of a session that nothing was seen of: the turn that it answers is lost, and
        // the client's next one begins where the server has come to.
        let beginning = Beginning {
            flow,
            scope,
            server_scope: scope,
            transfer,
            isn: head.ack - 1,
            acked: StreamPos::first(head.seq),
            server_nxt: None,
            server_shift: None,
            server_window: 0,
            mss: None,
            syns: None,
            midstream: true,
        };
        self.open(time, &beginning, out).map_err(Err)
    }

    /// The session of this flow whose client is shown in another scope than its server: the
    /// directions may be tagged each in its own way.
    fn answered_elsewhere(&mut self, flow: &Flow, scope: u32, head: &Head) -> Option<u32> {
        let sid = self.by_flow(flow, |s| {
            let (seq, ack) = (s.acked.near(head.seq), s.rcv_nxt.near(head.ack));
            let seq_fits = seq.since(s.acked).max(s.acked.since(seq)) <= REACH;
            let ack_fits = ack <= s.limit() && s.rcv_nxt.since(ack) <= REACH;
            seq_fits && (ack_fits || !head.flags.has(Flags::ACK))
        })?;
        let s = &mut self.sessions[sid];
        if s.server_nxt.is_none() {
            s.server_scope = scope;
        }
        Some(sid)
    }

    /// The server gave up on the client. The client says nothing more; the target's side is closed
    /// in good order.
    fn server_reset(
        &mut self,
        time: Nanos,
        sid: u32,
        head: &Head,
        out: &mut impl Sink<P>,
    ) -> Result<(), Unused> {
        let s = &mut self.sessions[sid];
        if s.phase == Phase::Ended {
            return Err(Unused::Duplicate);
        }
        let expected = s.server_nxt.unwrap_or(s.acked);
        let seq = expected.near(head.seq);
        // With a number that nobody expects it is not for this connection (RFC 5961 section 3.2);
        // a little payload before it may have been lost by the mirror. A reset that is overlooked
        // costs less than one that is taken for this session's.
        let reach = s.server_nxt.map_or(REACH, |_| NEAR);
        if seq.since(expected).max(s.acked.since(seq)) > reach {
            return Err(Unused::OutOfWindow);
        }
        s.last_seen = Due::at(time);
        self.settle_gaps(time, sid, out);
        self.end_session(time, sid, End::Fin, out);
        out.push(sid);
        Ok(())
    }

    /// Notes how far the server has answered. True if that is further than before.
    fn server_payload(
        &mut self,
        sid: u32,
        seq: StreamPos,
        head: &Head,
        out: &mut impl Sink<P>,
    ) -> bool {
        let s = &mut self.sessions[sid];
        let end = seq + head.payload_len;
        if s.server_nxt.is_some_and(|nxt| end <= nxt) {
            return false;
        }
        s.server_nxt = Some(end);
        if head.payload_len > 0 {
            if !s.timed_at.is_set() && !s.early {
                s.timed_at = Moment::at(self.seen);
                s.timed_end = end.seq();
            }
            self.note_production_answer(sid, out);
        }
        true
    }

    /// Notes what the server has of the client's stream. True if that is more than before.
    fn server_ack(&mut self, time: Nanos, sid: u32, seq: StreamPos, head: &Head) -> bool {
        if !head.flags.has(Flags::ACK) {
            return false;
        }
        let s = &mut self.sessions[sid];
        let ack = s.rcv_nxt.near(head.ack);
        let known = s.shown().max(s.server_acked.unwrap_or(s.rcv_nxt));
        if ack > known {
            // Bytes that nobody has shown: believed as far as the windows go. Beyond them it is of
            // another connection with the same addresses and ports, whatever else says so.
            let near = seq.since(s.acked).max(s.acked.since(seq)) <= REACH;
            if !near || ack > s.limit() {
                return false;
            }
        }
        if s.server_shift != UNKNOWN_SHIFT {
            let window = u32::from(head.window) << s.server_shift.min(14);
            s.window = s.window.max(window);
        }
        if head.flags.has(Flags::FIN) && s.server_closed.is_none() {
            s.server_closed = Some(ack <= s.rcv_nxt);
        }
        if s.server_acked.is_some_and(|acked| ack <= acked) {
            return false;
        }
        s.server_acked = Some(ack);
        if s.gap_since.is_set() {
            let due = self.gap_due(time, sid);
            self.arm(sid, due);
        }
        self.note_extent(time, sid, ack, false);
        true
    }
}
