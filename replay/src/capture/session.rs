//! What the capture half keeps of a session: plain data; the rules are in the modules beside it.

use crate::due::{Due, Moment};
use crate::pos::StreamPos;
use crate::slab::NIL;
use wire::{Flow, Seq};

/// How far the capture of a session has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// The slab's entry is free.
    Free,
    /// In step with the client's stream.
    Synced,
    /// Not in step: waits for the next turn boundary.
    Joining,
    /// The client has ended the connection; nothing more is captured.
    Ended,
}

/// How the client ended its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// With FIN.
    Fin,
    /// With RST.
    Reset,
}

/// Whether a session is found by its addresses and ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Listed {
    /// Not any more.
    No,
    /// It is in the flow table.
    Yes,
    /// It is, and a handshake with the same addresses and ports is under way.
    Reopening,
}

/// The window scale shift of a server whose SYN was not shown.
pub(crate) const UNKNOWN_SHIFT: u8 = u8::MAX;
/// How far from what is known a number of a connection may lie where no window tells: more than
/// hosts on long and fast paths have on the way.
pub(crate) const REACH: u64 = 1 << 26;
/// And how far ahead a number of a client whose server's window is not known may lie.
const UNKNOWN_WINDOW: u64 = 1 << 20;
/// What lies no further from a stream than this is likely to be of it, if nothing else is known:
/// the largest window without scaling.
pub(crate) const NEAR: u64 = 1 << 16;
/// What is allowed beyond the windows that were advertised: frames of both directions may be shown
/// in another order than they were sent.
const SLACK: u64 = 1 << 16;
/// A client whose stream goes on by more than this, unseen, while the server's goes on by
/// [`NEAR`] or more, may be another one with the same port.
pub(crate) const LEAP: u64 = 1 << 14;

/// One client session as production saw it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Client to server, in production.
    pub flow: Flow,
    /// The VLANs or virtual networks in which the client's frames are shown, and the server's.
    pub scope: u32,
    pub server_scope: u32,
    pub fan: u16,
    pub phase: Phase,
    pub listed: Listed,
    /// The server has closed its side; true: before the client had.
    pub server_closed: Option<bool>,
    /// Why bytes before the next turn boundary are lost.
    pub join_loss: crate::Loss,
    /// A frame with payload told of what lies ahead; else the last number of it may as well be the
    /// client's FIN.
    pub shown_by_payload: bool,
    /// What waits was shown before any SYN, in case that comes yet, in the order it came.
    pub early: bool,
    /// Its frames are counted.
    pub followed: bool,
    /// `doubt` holds a number.
    pub doubted: bool,
    /// Both streams went on far at once, and nothing between was shown ([`Session::note_leap`]).
    pub leapt: bool,
    /// The server's window scale shift, or [`UNKNOWN_SHIFT`].
    pub server_shift: u8,
    /// The first sequence number of the client: that of its SYN.
    pub isn: Seq,
    /// A number of the client's stream that is further than it can be, unless another frame
    /// confirms it.
    pub doubt: Seq,
    /// The largest window that the server has advertised, in bytes; 0: none is known.
    pub window: u32,
    /// How far beyond `rcv_nxt` the client's stream goes, as far as any frame tells of it: what
    /// lies between was not captured.
    pub ahead: u32,
    /// The client's FIN was seen, at this place of its stream.
    pub fin: Option<StreamPos>,
    /// Next byte of the client expected.
    pub rcv_nxt: StreamPos,
    /// What the client had acknowledged in its latest segment, a place in the server's stream.
    pub acked: StreamPos,
    /// What it had acknowledged with its latest payload: a higher one begins a turn.
    pub acked_at_data: StreamPos,
    /// What production's server has acknowledged, where that direction is mirrored.
    pub server_acked: Option<StreamPos>,
    /// End of the server's stream as far as it was seen.
    pub server_nxt: Option<StreamPos>,
    /// Segments that wait to join the stream: beyond a gap, in order; or `early`.
    pub waiting: List,
    /// When payload of the server was shown that ends at `timed_end`: the client's acknowledgment
    /// gives a round-trip time. Of `early` payload: when the first of it was shown.
    pub timed_at: Moment,
    pub timed_end: Seq,
    /// When the open gap was first seen, if there is one.
    pub gap_since: Due,
    pub last_seen: Due,
}

impl Session {
    /// End of the client's stream as far as any frame tells of it.
    pub fn shown(&self) -> StreamPos {
        self.rcv_nxt + self.ahead
    }

    /// A frame tells that the client's stream goes to `end`.
    pub fn show(&mut self, end: StreamPos) {
        let ahead = end.since(self.rcv_nxt).min(u64::from(u32::MAX)) as u32;
        self.ahead = self.ahead.max(ahead);
    }

    /// The stream is expected to go on at `pos`.
    pub fn advance_to(&mut self, pos: StreamPos) {
        let n = pos.since(self.rcv_nxt).min(u64::from(u32::MAX)) as u32;
        self.ahead = self.ahead.saturating_sub(n);
        self.rcv_nxt = pos;
    }

    /// A handshake with the same addresses and ports is under way.
    pub fn is_reopening(&self) -> bool {
        self.listed == Listed::Reopening
    }

    /// A handshake with the same addresses and ports has begun.
    pub fn note_reopening(&mut self) {
        if self.listed == Listed::Yes {
            self.listed = Listed::Reopening;
        }
    }

    /// Bytes that the session does not have were told of: one at the end of the stream that no
    /// payload showed may as well be the client's FIN.
    pub fn shows_more(&self) -> bool {
        self.ahead > u32::from(!self.shown_by_payload)
    }

    /// The client's stream was captured to its FIN.
    pub fn has_all(&self) -> bool {
        self.fin.is_some_and(|fin| fin <= self.rcv_nxt)
    }

    /// Bytes of production's answer that the client has acknowledged since it last spoke.
    pub fn answered(&self) -> u64 {
        self.acked.since(self.acked_at_data)
    }

    /// Where the client's stream can have come to at most: two windows beyond what the server has
    /// acknowledged or anybody has shown.
    pub fn limit(&self) -> StreamPos {
        let known = self.shown().max(self.server_acked.unwrap_or(self.rcv_nxt));
        let reach = match self.window {
            0 => UNKNOWN_WINDOW,
            window => 2 * u64::from(window) + SLACK,
        };
        known + reach
    }

    /// The session is that of a SYN with this number: it began with it, or a little behind it,
    /// before the SYN was shown.
    pub fn began_behind(&self, isn: Seq) -> bool {
        u64::from(self.isn.0.wrapping_sub(isn.0)) <= NEAR
    }

    /// A segment of the client's at `pos` that acknowledges `ack` can be of this connection. Where
    /// no window is known, what is not near has to fit in what it acknowledges.
    pub fn reaches(&self, pos: StreamPos, ack: Seq) -> bool {
        let near = self.window > 0 || pos <= self.shown() + NEAR || self.ack_fits(ack);
        near && pos <= self.limit() && self.rcv_nxt.since(pos) <= REACH
    }

    /// A frame tells that the client's stream is at `pos` and the server's at `server`. If both are
    /// far beyond what was shown, what lies between may never have been: of a connection that
    /// follows another on the same port after milliseconds, hosts begin both streams that far
    /// beyond the last ones (RFC 9293 section 3.4.1; Linux a server's 65,537 beyond).
    #[inline]
    pub fn note_leap(&mut self, pos: StreamPos, server: StreamPos) {
        let said = self.shown().max(self.server_acked.unwrap_or(self.rcv_nxt));
        if pos.since(said) > LEAP {
            let known = self.acked.max(self.server_nxt.unwrap_or(self.acked));
            self.leapt |= server.since(known) >= NEAR;
        }
    }

    /// A number of the client's stream further than it can be: true if another frame has shown one
    /// that leads there.
    pub fn confirms(&mut self, pos: StreamPos) -> bool {
        let from = pos.near(self.doubt);
        let confirmed = self.doubted && pos > from && pos.since(from) <= REACH;
        self.doubt = pos.seq();
        self.doubted = !confirmed;
        confirmed
    }

    /// An acknowledgment number of the client's is near what it had acknowledged.
    pub fn ack_fits(&self, ack: Seq) -> bool {
        let ack = self.acked.near(ack);
        let known = self.acked.max(self.server_nxt.unwrap_or(self.acked));
        ack <= known + REACH && self.acked.since(ack) <= REACH
    }
}

/// Ends of a singly linked list in a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct List {
    pub head: u32,
    pub tail: u32,
}

impl Default for List {
    fn default() -> Self {
        Self {
            head: NIL,
            tail: NIL,
        }
    }
}

impl List {
    pub fn is_empty(&self) -> bool {
        self.head == NIL
    }
}

/// A captured segment that cannot join the stream yet.
pub(crate) struct Waiting<P> {
    /// Taken out when the entry is freed.
    pub payload: Option<P>,
    /// The place of its first byte.
    pub pos: StreamPos,
    /// What it acknowledges of the server's stream.
    pub ack: StreamPos,
    pub len: u32,
    pub next: u32,
    /// Of payload before its SYN: how many of its bytes were counted as lost.
    pub counted: u32,
    /// Where urgent data ends, counted from `pos`; 0: none in or behind this segment.
    pub urgent: u16,
    pub push: bool,
}

impl<P> Waiting<P> {
    pub fn end(&self) -> StreamPos {
        self.pos + self.len
    }
}
