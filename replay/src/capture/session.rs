//! What the capture half keeps of a session: plain data; the rules are in the modules beside it.

use crate::pos::StreamPos;
use crate::slab::NIL;
use wire::{Flow, Nanos, Seq};

/// How far the capture of a session has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// The slab's entry is free.
    Free,
    /// The client's SYN was seen; its first acknowledgment was not.
    Syn,
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

/// One client session as production saw it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Client to server, in production.
    pub flow: Flow,
    pub transfer: u16,
    pub phase: Phase,
    /// Still in the flow table.
    pub listed: bool,
    /// `acked` and `acked_at_data` hold a value.
    pub ack_known: bool,
    /// The server has closed its side; true: before the client had.
    pub server_closed: Option<bool>,
    /// Why bytes before the next turn boundary are lost.
    pub join_loss: crate::Loss,
    /// A frame with payload told of `shown`; else the last number of it may as well be the
    /// client's FIN.
    pub shown_by_payload: bool,
    /// What waits was shown before any SYN, in case that comes yet, in the order it came.
    pub early: bool,
    /// Largest segment the client can receive.
    pub mss: u16,
    /// The first sequence number of the client: that of its SYN.
    pub isn: Seq,
    /// The client's FIN was seen, at this place of its stream.
    pub fin: Option<StreamPos>,
    /// Next byte of the client expected.
    pub rcv_nxt: StreamPos,
    /// End of the client's stream as far as any frame tells of it: what lies between `rcv_nxt` and
    /// this was not captured.
    pub shown: StreamPos,
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
    /// When the handshake's last segment before the client's first acknowledgment was seen. Where
    /// payload came before its SYN: when the first of it came.
    pub handshake_at: Nanos,
    /// When the open gap was first seen; 0: there is none.
    pub gap_since: Nanos,
    pub last_seen: Nanos,
}

impl Session {
    /// Bytes that the session does not have were told of: one at the end of the stream that no
    /// payload showed may as well be the client's FIN.
    pub fn shows_more(&self) -> bool {
        self.shown > self.rcv_nxt + u32::from(!self.shown_by_payload)
    }

    /// The client's stream was captured to its FIN.
    pub fn has_all(&self) -> bool {
        self.fin.is_some_and(|fin| fin <= self.rcv_nxt)
    }

    /// Bytes of production's answer that the client has acknowledged since it last spoke.
    pub fn answered(&self) -> u64 {
        if self.ack_known {
            self.acked.since(self.acked_at_data)
        } else {
            0
        }
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
