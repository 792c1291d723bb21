//! Handshakes: a session begins when production has accepted its connection.
//!
//! Both SYNs are noted as they are shown. The client's acknowledgment of the server's SYN says that
//! the connection is accepted (and where the client's direction alone is mirrored, its first
//! acknowledgment is that); so does payload of the server behind its SYN. A handshake that comes
//! to nothing opens nothing.

use super::half_open::HalfOpen;
use super::lifecycle::Beginning;
use super::session::{NEAR, Phase, REACH, Session, UNKNOWN_SHIFT};
use super::{Capture, Sink, beginning};
use crate::Unused;
use crate::piece::{Piece, offset_after};
use crate::pos::StreamPos;
use wire::decode::Packet;
use wire::io::{Frame, Payload};
use wire::{Flags, Flow, Head, Nanos, Seq};

/// A bare acknowledgment that comes later than this behind the server's SYN is no measure of the
/// client's round trip.
const LONGEST_ROUND_TRIP: Nanos = 1_000_000_000;
/// And one with payload: the client may have waited for something to say.
const LONGEST_WITH_PAYLOAD: Nanos = 200_000_000;

/// The session that begins with a frame, if one does; or all that is to be said of the frame.
pub(super) type Begun = Result<Option<u32>, Result<(), Unused>>;

impl<P: Payload> Capture<P> {
    /// The client's SYN.
    pub(super) fn client_syn<F: Frame<Payload = P>>(
        &mut self,
        time: Nanos,
        transfer: u16,
        packet: &Packet,
        frame: F,
        out: &mut impl Sink<P>,
    ) -> Result<(), Unused> {
        let (head, scope) = (&packet.head, packet.scope);
        // One that began with an answer in the server's VLAN knows no other.
        let unseen = |s: &Session| s.server_shift == UNKNOWN_SHIFT && s.began_behind(head.seq);
        let same = |s: &Session| s.isn == head.seq || unseen(s);
        if let Some(sid) = self.by_flow(&head.flow, |s| s.scope == scope || same(s)) {
            if self.was_early(sid, head, out) {
                self.begin_late(time, sid, head, out);
                return Ok(());
            }
            let s = &mut self.sessions[sid];
            if s.began_behind(head.seq) {
                // Its own, shown again or late.
                return Err(Unused::Duplicate);
            }
            s.reopening = true;
        }
        let of_this = |e: &HalfOpen<P>| e.isn == head.seq;
        if let Some(id) = self.half_open.find(&head.flow, of_this) {
            // Its SYN again, perhaps with other options, or behind the server's.
            let (seen, entry) = (self.seen, self.half_open.get_mut(id));
            let news = !entry.client_shown;
            entry.client_shown = true;
            entry.scope = scope;
            entry.mss = head.options.mss;
            if entry.server_isn.is_none() {
                entry.at = seen;
            }
            self.keep_syn_payload(id, packet, frame);
            self.half_open.touch(time, id);
            return if news { Ok(()) } else { Err(Unused::Duplicate) };
        }
        if !self.selected(&head.flow) {
            return Err(Unused::NotSelected);
        }
        if self.draining {
            return Err(Unused::Shed);
        }
        // An older SYN that is shown late takes no place of a newer one, nor does any take that of
        // one that the server has answered.
        let given_up =
            |e: &HalfOpen<P>| e.scope == scope && e.server_isn.is_none() && e.isn.lt(head.seq);
        if let Some(old) = self.half_open.find(&head.flow, given_up) {
            self.half_open.remove(old);
            out.ledger().common.handshakes_unfinished += 1;
        }
        let mut entry = HalfOpen::new(head.flow, transfer, scope, head.seq);
        entry.client_shown = true;
        entry.mss = head.options.mss;
        entry.at = self.seen;
        self.begin_handshake(time, entry, out);
        if head.payload_len > 0
            && let Some(id) = self.half_open.find(&head.flow, of_this)
        {
            self.keep_syn_payload(id, packet, frame);
        }
        Ok(())
    }

    fn begin_handshake(&mut self, time: Nanos, entry: HalfOpen<P>, out: &mut impl Sink<P>) {
        let evicted = self.half_open.insert(time, entry);
        out.ledger().common.handshakes_evicted += u64::from(evicted);
    }

    /// Keeps what came with the SYN, if it is in one buffer.
    fn keep_syn_payload<F: Frame<Payload = P>>(&mut self, id: u32, packet: &Packet, mut frame: F) {
        let (head, entry) = (&packet.head, self.half_open.get_mut(id));
        let len = packet.captured.min(head.payload_len as usize);
        let range = packet.payload_offset..packet.payload_offset + len;
        let whole = frame.split_rest().is_none() && frame.bytes().len() >= range.end;
        if len > 0 && whole && entry.payload.is_none() {
            entry.payload = Some(Piece {
                payload: frame.into_payload(range),
                pos: beginning(head.seq),
                ack: StreamPos::first(Seq(0)),
                push: head.flags.has(Flags::PSH) && !packet.is_truncated(),
                urgent: offset_after(head.urgent, 1),
            });
        }
    }

    /// The server's SYN, with its acknowledgment of the client's as a rule.
    pub(super) fn server_syn(
        &mut self,
        time: Nanos,
        transfer: u16,
        packet: &Packet,
        out: &mut impl Sink<P>,
    ) -> Result<(), Unused> {
        let (head, scope) = (&packet.head, packet.scope);
        let flow = head.flow.reversed();
        let acknowledges = head.flags.has(Flags::ACK);
        // It acknowledges the SYN, and what came with it if the server wants that (RFC 7413).
        let behind = |isn: Seq| (head.ack - 1).0.wrapping_sub(isn.0);
        let answers = |isn: Seq| acknowledges && behind(isn) < 1 << 16;
        let shift = head.options.window_scale;
        let waits = |e: &HalfOpen<P>| acknowledges && e.isn + 1 == head.ack;
        let own = |s: &Session| answers(s.isn) || (acknowledges && s.began_behind(head.ack - 1));
        if self.half_open.find(&flow, waits).is_none()
            && let Some(sid) = self.by_flow(&flow, own)
        {
            // The client's acknowledgment was shown before it, or it comes again.
            let first = beginning(head.seq);
            let s = &mut self.sessions[sid];
            s.server_scope = scope;
            if s.phase == Phase::Joining
                || s.server_nxt.is_some()
                || s.acked.near(first.seq()).since(s.acked) > 0
            {
                return Err(Unused::Duplicate);
            }
            s.server_nxt = Some(s.acked.near(first.seq()));
            s.server_shift = shift.unwrap_or(0);
            return Ok(());
        }
        let found = self.half_open.find(&flow, |e| {
            if acknowledges {
                answers(e.isn)
            } else {
                // Both ends opened at the same time (RFC 9293 section 3.5).
                e.server_isn.is_none()
            }
        });
        if let Some(id) = found {
            let (seen, entry) = (self.seen, self.half_open.get_mut(id));
            entry.server_isn = Some(head.seq);
            entry.server_scope = scope;
            entry.server_shift = Some(shift.unwrap_or(0));
            entry.at = seen;
            self.half_open.touch(time, id);
            return Ok(());
        }
        if !acknowledges || !self.selected(&flow) || self.draining {
            return Err(self.stranger(&flow));
        }
        // The mirror lost the client's SYN: its number is one less than what the server has.
        let mut entry = HalfOpen::new(flow, transfer, scope, head.ack - 1);
        entry.server_isn = Some(head.seq);
        entry.server_shift = Some(shift.unwrap_or(0));
        entry.at = self.seen;
        if let Some(sid) = self.by_flow(&flow, |s| s.scope == scope) {
            self.sessions[sid].reopening = true;
        }
        self.begin_handshake(time, entry, out);
        Ok(())
    }

    /// A segment of the client's that may say that production has accepted a connection: the
    /// session that begins with it, if so.
    pub(super) fn client_accepts(
        &mut self,
        time: Nanos,
        packet: &Packet,
        out: &mut impl Sink<P>,
    ) -> Begun {
        let (head, scope) = (&packet.head, packet.scope);
        let first = head.seq + u32::from(head.flags.has(Flags::SYN));
        // What follows the acknowledgment may be shown before it, or alone. Without the server's
        // SYN the client's number is all there is to go by: it may as well be of another try.
        let behind = |isn: Seq, seq: Seq| u64::from((seq - 1).0.wrapping_sub(isn.0));
        let fits = |e: &HalfOpen<P>| match e.server_isn {
            None => behind(e.isn, first) <= NEAR,
            Some(isn) => {
                let answers = !head.flags.has(Flags::ACK) || behind(isn, head.ack) <= REACH;
                behind(e.isn, first) <= REACH && answers
            }
        };
        let id = self
            .half_open
            .find(&head.flow, |e| e.scope == scope && fits(e))
            .or_else(|| self.half_open.find(&head.flow, fits));
        let Some(id) = id else { return Ok(None) };
        if head.flags.has(Flags::RST) {
            self.half_open.remove(id);
            out.ledger().common.handshakes_refused += 1;
            return Err(Ok(()));
        }
        if !head.flags.has(Flags::ACK) {
            return Ok(None);
        }
        let Some(entry) = self.half_open.remove(id) else {
            return Ok(None);
        };
        let acked = entry
            .server_isn
            .map_or(StreamPos::first(head.ack), beginning);
        let longest = match head.payload_len {
            0 => LONGEST_ROUND_TRIP,
            _ => LONGEST_WITH_PAYLOAD,
        };
        let rtt = self
            .seen
            .checked_sub(entry.at)
            .filter(|rtt| *rtt <= longest);
        self.accept(time, entry, acked, rtt, out)
            .map(Some)
            .map_err(Err)
    }

    /// A segment of the server's that may end a handshake: payload behind its SYN says that the
    /// client had acknowledged that, RST that the connection is refused. The session that begins
    /// with it, if it does.
    pub(super) fn server_accepts(
        &mut self,
        time: Nanos,
        flow: &Flow,
        head: &Head,
        out: &mut impl Sink<P>,
    ) -> Begun {
        let answers = |e: &HalfOpen<P>| head.ack == e.isn + 1;
        let behind = |e: &HalfOpen<P>| e.server_isn.is_some_and(|isn| head.seq == isn + 1);
        let refused = head.flags.has(Flags::RST);
        let found = self.half_open.find(flow, |e| {
            if refused {
                (head.flags.has(Flags::ACK) && answers(e)) || behind(e)
            } else {
                head.payload_len > 0 && answers(e) && behind(e)
            }
        });
        let Some(entry) = found.and_then(|id| self.half_open.remove(id)) else {
            return Ok(None);
        };
        if refused {
            out.ledger().common.handshakes_refused += 1;
            return Err(Ok(()));
        }
        let acked = beginning(head.seq - 1);
        self.accept(time, entry, acked, None, out)
            .map(Some)
            .map_err(Err)
    }

    /// Production has accepted the connection.
    fn accept(
        &mut self,
        time: Nanos,
        mut entry: HalfOpen<P>,
        acked: StreamPos,
        rtt: Option<Nanos>,
        out: &mut impl Sink<P>,
    ) -> Result<u32, Unused> {
        if let Some(sid) = self.by_flow(&entry.flow, |s| s.scope == entry.scope) {
            self.replace(time, sid, out);
        }
        let sid = self.open(
            time,
            &Beginning {
                flow: entry.flow,
                scope: entry.scope,
                server_scope: entry.server_scope,
                transfer: entry.transfer,
                isn: entry.isn,
                acked,
                server_nxt: entry.server_isn.map(|_| acked),
                server_shift: entry.server_shift,
                mss: entry.mss,
                midstream: false,
            },
            out,
        )?;
        if let Some(rtt) = rtt {
            out.round_trip(sid, rtt);
        }
        if let Some(mut piece) = entry.payload.take() {
            piece.ack = acked;
            self.ingest(time, sid, piece, out);
        }
        Ok(sid)
    }

    /// Forgets handshakes whose time is over, `budget` of them at most. Returns how many there were.
    pub(super) fn expire_handshakes(
        &mut self,
        time: Nanos,
        budget: usize,
        out: &mut impl Sink<P>,
    ) -> usize {
        let mut expired = 0;
        while expired < budget && self.half_open.expire(time).is_some() {
            out.ledger().common.handshakes_unfinished += 1;
            expired += 1;
        }
        expired
    }
}
