//! The client's stream: captured bytes in order, cut into turns.

use super::session::Phase;
use super::sink::Beginning;
use super::{Capture, Sink, beginning};
use crate::Unused;
use crate::piece::Piece;
use wire::Nanos;
use wire::io::Payload;

impl<P: Payload> Capture<P> {
    /// Puts one piece into the stream: in order, beyond a gap, or nowhere because it is old. True
    /// if any of it was new.
    ///
    /// # Errors
    /// It would have to wait, and there is no room.
    pub(super) fn ingest(
        &mut self,
        time: Nanos,
        sid: u32,
        mut piece: Piece<P>,
        out: &mut impl Sink<P>,
    ) -> Result<bool, Unused> {
        let expected = self.sessions[sid].rcv_nxt;
        if piece.pos < expected {
            // The first capture is the one that is replayed.
            let differing = out.conflicts(sid, &piece);
            out.ledger().common.conflicting_bytes += differing;
        }
        // A FIN ends the stream, whatever a frame has behind it.
        if piece.end() <= expected || self.sessions[sid].phase == Phase::Ended {
            return Ok(false);
        }
        if piece.pos < expected {
            piece.trim_front(expected.since(piece.pos) as u32);
        }
        if piece.pos != expected {
            let news = self.keep_beyond(sid, piece, out);
            self.watch_gap(time, sid);
            return news;
        }
        if self.append(sid, piece, out) {
            self.drain_beyond(time, sid, out);
        }
        out.push(sid);
        Ok(true)
    }

    /// Appends a piece that begins exactly where the stream ended. False if the session had to be
    /// cut instead.
    pub(super) fn append(&mut self, sid: u32, piece: Piece<P>, out: &mut impl Sink<P>) -> bool {
        let (len, end) = (piece.len(), piece.end());
        let s = &mut self.sessions[sid];
        if piece.pos == beginning(s.isn) {
            // The handshake's acknowledgment was shown behind a later one, or not at all.
            s.acked_at_data = s.acked_at_data.min(piece.ack);
        }
        let begins = !out.turn_is_open(sid) || piece.ack > s.acked_at_data;
        let after = piece.ack.since(s.acked_at_data);
        s.acked_at_data = s.acked_at_data.max(piece.ack);
        if begins {
            // If there is no room for this turn, the one before is none the worse for it.
            out.close_turn(sid);
        }
        let due = self.due;
        let begins = begins.then_some(Beginning { after, due });
        match out.append(sid, piece, begins, self.seen) {
            Ok(()) => {
                self.sessions[sid].advance_to(end);
                true
            }
            Err(reason) => {
                self.cut(sid, reason, u64::from(len), out);
                false
            }
        }
    }
}
