//! Handshakes: a session begins when production has accepted its connection.
//!
//! Both SYNs are noted as they are shown. The client's acknowledgment of the server's SYN says that
//! the connection is accepted (and where the client's direction alone is mirrored, its first
//! acknowledgment is that); so does payload of the server behind its SYN. A handshake that comes
//! to nothing opens nothing.

use super::half_open::HalfOpen;
use super::lifecycle::Beginning;
use super::segment::longest_round_trip;
use super::session::{NEAR, Phase, REACH, Session, UNKNOWN_SHIFT};
use super::shed::Said;
use super::{Capture, Sink, beginning};
use crate::Unused;
use crate::piece::{Piece, offset_after};
use crate::pos::StreamPos;
use crate::slab::NIL;
use wire::decode::Packet;
use wire::io::{Frame, Payload};
use wire::{Flags, Flow, Head, Nanos, Seq};

/// What may come with a SYN, in bytes: less than a segment.
const MOST_WITH_SYN: u32 = 1 << 11;

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
            s.note_reopening();
        }
        // An older SYN that is shown late takes no place of a newer one, nor any that of one that
        // the server has answered.
        let of_this = |e: &HalfOpen| e.isn == head.seq;
        let given_up =
            |e: &HalfOpen| e.scope == scope && e.server_isn.is_none() && e.isn.lt(head.seq);
        let either = |e: &HalfOpen| of_this(e) || given_up(e);
        let mut found = self.half_open.find(time, self.hash, &head.flow, either);
        if found.is_some_and(|id| !of_this(self.half_open.get(id))) {
            // There may be both.
            let this = self.half_open.find(time, self.hash, &head.flow, of_this);
            found = this.or(found);
        }
        if let Some(id) = found.filter(|id| of_this(self.half_open.get(*id))) {
            // Its SYN again, perhaps with other options, or behind the server's.
            let (seen, entry) = (self.seen, self.half_open.get_mut(id));
            let news = !entry.client_shown;
            entry.client_shown = true;
            entry.syns += 1;
            entry.scope = scope;
            entry.mss = head.options.mss;
            if entry.server_isn.is_none() {
                entry.at = seen;
            }
            self.keep_syn_payload(id, packet, frame);
            self.half_open.touch(time, id);
            return if news { Ok(()) } else { Err(Unused::Duplicate) };
        }
        if self.fan_of(transfer, &head.flow).is_none() {
            return Err(Unused::NotSelected);
        }
        if self.draining {
            return Err(Unused::Shed);
        }
        if let Some(old) = found {
            self.half_open.remove(old);
            out.ledger().common.handshakes_unfinished += 1;
        }
        let mut entry = HalfOpen::new(head.flow, self.hash, transfer, scope, head.seq);
        entry.client_shown = true;
        entry.syns = 1;
        entry.mss = head.options.mss;
        entry.at = self.seen;
        let id = self.begin_handshake(time, entry, out);
        self.keep_syn_payload(id, packet, frame);
        Ok(())
    }

    fn begin_handshake(&mut self, time: Nanos, entry: HalfOpen, out: &mut impl Sink<P>) -> u32 {
        let (id, evicted) = self.half_open.insert(time, entry);
        out.ledger().common.handshakes_evicted += u64::from(evicted);
        id
    }

    /// Keeps what came with the SYN, if it is in one buffer.
    fn keep_syn_payload<F: Frame<Payload = P>>(&mut self, id: u32, packet: &Packet, mut frame: F) {
        let head = &packet.head;
        let len = packet.captured.min(head.payload_len as usize);
        if len == 0 || id == NIL {
            return;
        }
        let range = packet.payload_offset..packet.payload_offset + len;
        if frame.split_rest().is_none() && frame.bytes().len() >= range.end {
            let piece = Piece {
                payload: self.keep(frame.into_payload(range)),
                pos: beginning(head.seq),
                ack: StreamPos::first(Seq(0)),
                push: head.flags.has(Flags::PSH) && !packet.is_truncated(),
                urgent: offset_after(head.urgent, 1),
            };
            self.half_open.keep(id, piece);
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
        let answers = |isn: Seq, data: u32| {
            let beyond = head.ack.0.wrapping_sub(isn.0).wrapping_sub(1);
            acknowledges && beyond <= data
        };
        let shift = head.options.window_scale;
        let waits = |e: &HalfOpen| answers(e.isn, 0);
        let own = |s: &Session| {
            answers(s.isn, MOST_WITH_SYN) || (acknowledges && s.began_behind(head.ack - 1))
        };
        if self.half_open.find(time, self.hash, &flow, waits).is_none()
            && let Some(sid) = self.by_flow(&flow, own)
        {
            // The client's acknowledgment was shown before it, or it comes again.
            let s = &mut self.sessions[sid];
            let first = s.acked.near(head.seq + 1);
            if s.phase == Phase::Joining || s.server_nxt.is_some() || first > s.acked {
                return Err(Unused::Duplicate);
            }
            s.server_scope = scope;
            s.server_nxt = Some(first);
            s.server_shift = shift.unwrap_or(0);
            s.window = s.window.max(u32::from(head.window));
            return Ok(());
        }
        let found = self.half_open.find(time, self.hash, &flow, |e| {
            if acknowledges {
                answers(e.isn, e.payload_len)
            } else {
                // Both ends opened at the same time (RFC 9293 section 3.5).
                e.server_isn.is_none()
            }
        });
        if let Some(id) = found {
            let (seen, entry) = (self.seen, self.half_open.get_mut(id));
            entry.server_isn = Some(head.seq);
            entry.syns += 1;
            entry.server_scope = scope;
            entry.server_shift = Some(shift.unwrap_or(0));
            entry.server_window = head.window;
            entry.at = seen;
            self.half_open.touch(time, id);
            return Ok(());
        }
        if !acknowledges || self.fan_of(transfer, &flow).is_none() || self.draining {
            return Err(self.stranger(transfer, &flow));
        }
        // The mirror lost the client's SYN: its number is one less than what the server has.
        let mut entry = HalfOpen::new(flow, self.hash, transfer, scope, head.ack - 1);
        entry.server_isn = Some(head.seq);
        entry.syns = 1;
        entry.server_shift = Some(shift.unwrap_or(0));
        entry.server_window = head.window;
        entry.at = self.seen;
        if let Some(sid) = self.by_flow(&flow, |s| s.scope == scope) {
            self.sessions[sid].note_reopening();
        }
        self.begin_handshake(time, entry, out);
        Ok(())
    }

    /// A segment of the client's that may say that production has accepted a connection: the
    /// session that begins with it, if so. `anywhere`: its SYN may have been shown in another
    /// scope.
    pub(super) fn client_accepts(
        &mut self,
        time: Nanos,
        packet: &Packet,
        anywhere: bool,
        out: &mut impl Sink<P>,
    ) -> Begun {
        let (head, scope) = (&packet.head, packet.scope);
        let first = head.seq + u32::from(head.flags.has(Flags::SYN));
        // What follows the acknowledgment may be shown before it, or alone. Without the server's
        // SYN the client's number is all there is to go by: it may as well be of another try.
        let behind = |isn: Seq, seq: Seq| u64::from((seq - 1).0.wrapping_sub(isn.0));
        let fits = |e: &HalfOpen| match e.server_isn {
            None => behind(e.isn, first) <= NEAR,
            Some(isn) => {
                let answers = !head.flags.has(Flags::ACK) || behind(isn, head.ack) <= REACH;
                behind(e.isn, first) <= REACH && answers
            }
        };
        let here = |e: &HalfOpen| e.scope == scope && fits(e);
        let mut id = self.half_open.find(time, self.hash, &head.flow, here);
        if anywhere && id.is_none() {
            id = self.half_open.find(time, self.hash, &head.flow, fits);
        }
        let Some(id) = id else { return Ok(None) };
        if head.flags.has(Flags::RST) {
            self.half_open.remove(id);
            out.ledger().common.handshakes_refused += 1;
            return Err(Ok(()));
        }
        if !head.flags.has(Flags::ACK) {
            return Ok(None);
        }
        let Some((entry, payload)) = self.half_open.remove(id) else {
            return Ok(None);
        };
        let acked = entry
            .server_isn
            .map_or(StreamPos::first(head.ack), beginning);
        let rtt = self.seen.checked_sub(entry.at);
        let rtt = rtt.filter(|rtt| *rtt <= longest_round_trip(head));
        let transfer = entry.transfer;
        let opened = self.accept(time, (entry, payload), acked, rtt, out);
        if opened == Err(Unused::Shed) && head.payload_len > 0 {
            self.lose_shed(transfer, &head.flow, Said::by(head), out);
        }
        opened.map(Some).map_err(Err)
    }

    /// A segment of the server's that may end a handshake: payload behind its SYN says that the
    /// client had acknowledged that, RST that the connection is refused. The session that begins
    /// with it, if it does. `running`: of a session that runs there may be payload as well, so it
    /// has to be the very first.
    pub(super) fn server_accepts(
        &mut self,
        time: Nanos,
        flow: &Flow,
        head: &Head,
        running: bool,
        out: &mut impl Sink<P>,
    ) -> Begun {
        let answers = |e: &HalfOpen| head.ack == e.isn + 1;
        let behind = |e: &HalfOpen| e.server_isn.is_some_and(|isn| head.seq == isn + 1);
        // What came before it, of either side, the mirror may have lost, or show a moment later.
        // Without the server's SYN the client's number is all there is to go by.
        let past = |from: Seq, to: Seq| u64::from((to - 1).0.wrapping_sub(from.0));
        let follows = |e: &HalfOpen| match e.server_isn {
            Some(isn) => past(e.isn, head.ack) <= REACH && past(isn, head.seq) <= REACH,
            None => past(e.isn, head.ack) <= NEAR,
        };
        let refused = head.flags.has(Flags::RST);
        let found = self.half_open.find(time, self.hash, flow, |e| {
            if refused {
                (head.flags.has(Flags::ACK) && answers(e)) || behind(e)
            } else {
                let first = answers(e) && behind(e);
                head.payload_len > 0 && (first || (!running && follows(e)))
            }
        });
        let Some((entry, payload)) = found.and_then(|id| self.half_open.remove(id)) else {
            return Ok(None);
        };
        if refused {
            out.ledger().common.handshakes_refused += 1;
            return Err(Ok(()));
        }
        let isn = entry.server_isn.unwrap_or(head.seq - 1);
        self.accept(time, (entry, payload), beginning(isn), None, out)
            .map(Some)
            .map_err(Err)
    }

    /// Production has accepted the connection.
    fn accept(
        &mut self,
        time: Nanos,
        (entry, payload): (HalfOpen, Option<Piece<P>>),
        acked: StreamPos,
        rtt: Option<Nanos>,
        out: &mut impl Sink<P>,
    ) -> Result<u32, Unused> {
        if let Some(sid) = self.by_flow(&entry.flow, |s| s.scope == entry.scope) {
            self.replace(time, sid, out);
        }
        let both = entry.client_shown && entry.server_isn.is_some();
        let opened = self.open(
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
                server_window: entry.server_window,
                mss: entry.mss,
                syns: both.then_some(entry.syns),
                midstream: false,
            },
            out,
        );
        if opened == Err(Unused::Shed)
            && let Some(piece) = &payload
        {
            let said = Said {
                seq: piece.pos.seq(),
                len: piece.len(),
                ack: acked.seq(),
            };
            self.lose_shed(entry.transfer, &entry.flow, said, out);
        }
        let sid = opened?;
        if let Some(rtt) = rtt {
            out.round_trip(sid, rtt);
        }
        if let Some(mut piece) = payload {
            piece.ack = acked;
            let _ = self.ingest(time, sid, piece, out);
        }
        Ok(sid)
    }

    /// Forgets handshakes whose time is over, `budget` of them at most. Returns how many there
    /// were.
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
