//! What a core keeps: sessions, their captured segments and turns, and their replicas. Plain data;
//! the rules are in [`crate::core`].
//!
//! A session's captured segments form one list in stream order, shared by all its replicas; each
//! replica points at the oldest segment the target has not acknowledged and at the next to send. A
//! segment goes when no replica needs it any more.

use crate::gate::Answer;
use crate::slab::NIL;
use crate::tcp::Tcb;
use wire::{Endpoint, Flow, Nanos, Seq};

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
    /// The client's FIN or RST was seen, at this place of its stream.
    pub end: Option<End>,
    pub fin: Option<Seq>,
    /// Bytes of production's answer that the client had acknowledged since it last spoke, when it
    /// ended.
    pub end_after: u32,
    /// `acked` and `acked_at_data` hold a value.
    pub ack_known: bool,
    /// The newest turn may still grow.
    pub turn_open: bool,
    /// The server has closed its side; true: before the client had.
    pub server_closed: Option<bool>,
    /// Why bytes before the next turn boundary are lost.
    pub join_loss: crate::Loss,
    /// The response to the open turn was seen and its latency noted.
    pub answered: bool,
    /// The first sequence number of the client: that of its SYN.
    pub isn: Seq,
    /// Next byte of the client expected.
    pub rcv_nxt: Seq,
    /// End of the client's stream as far as any frame tells of it: what lies between `rcv_nxt` and
    /// this was not captured.
    pub shown: Seq,
    /// A frame with payload told so; else the last number of it may as well be the client's FIN.
    pub shown_by_payload: bool,
    /// What the client had acknowledged in its latest segment.
    pub acked: Seq,
    /// What it had acknowledged with its latest payload: a higher one begins a turn.
    pub acked_at_data: Seq,
    /// What production's server has acknowledged, where that direction is mirrored.
    pub server_acked: Option<Seq>,
    /// End of the server's stream as far as it was seen.
    pub server_nxt: Option<Seq>,
    /// Largest segment the client can receive.
    pub mss: u16,
    pub replica_count: u16,
    pub first_replica: u32,
    /// Captured segments in stream order.
    pub segs: List,
    /// Captured segments beyond a gap, in stream order.
    pub beyond: List,
    /// Turns not settled by all replicas.
    pub turns: List,
    pub next_turn: u32,
    /// Captured bytes held.
    pub held: u32,
    /// The client's round-trip time.
    pub rtt: Nanos,
    /// When the handshake's last segment before the client's first acknowledgment was seen. Where
    /// there is early payload: when the first of it came.
    pub handshake_at: Nanos,
    /// Payload that was shown before any SYN, in case that comes yet, in the order it came.
    pub early: List,
    /// When the open gap was first seen; 0: there is none.
    pub gap_since: Nanos,
    pub last_seen: Nanos,
}

impl Session {
    /// Bytes that the session does not have were told of: one at the end of the stream that no
    /// payload showed may as well be the client's FIN.
    pub(crate) fn shows_more(&self) -> bool {
        self.shown
            .gt(self.rcv_nxt + u32::from(!self.shown_by_payload))
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

/// A piece of the client's stream in the buffer that captured it.
pub(crate) struct Seg<P> {
    /// Taken out when the segment is freed.
    pub payload: Option<P>,
    /// Production's sequence number of the first byte.
    pub seq: Seq,
    pub len: u32,
    /// Production's acknowledgment number in it.
    pub ack: Seq,
    pub next: u32,
    /// Number and id of its turn.
    pub turn_number: u32,
    pub turn: u32,
    /// Replicas that still need it.
    pub holders: u16,
    pub push: bool,
    /// Where urgent data ends, counted from `seq`; 0: none in or behind this segment.
    pub urgent: u16,
}

impl<P> Seg<P> {
    pub fn end(&self) -> Seq {
        self.seq + self.len
    }
}

/// What the client said between two answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub number: u32,
    pub next: u32,
    /// Its bytes, so far.
    pub start: Seq,
    pub end: Seq,
    /// Bytes of production's answer that the client had acknowledged since it last spoke.
    pub after: u32,
    /// Replicas that have not settled it.
    pub open_for: u16,
    /// No more bytes will come.
    pub closed: bool,
    /// Part of it was not captured: it is not to be sent.
    pub broken: Option<crate::Loss>,
    /// When its last byte was captured.
    pub last_at: Nanos,
}

/// A client connection to the target.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub session: u32,
    /// The session's next replica.
    pub next: u32,
    /// Index of the transfer it belongs to.
    pub transfer: u16,
    /// The address the target sees.
    pub local: Endpoint,
    /// Everything the session said is replayed, or given up.
    pub done: bool,
    /// Its connection is to be given up: it carries a turn that cannot be finished.
    pub abort_pending: bool,
    /// It lost the turn that is still being captured: the rest of that turn is lost for the same
    /// reason.
    pub dropping: Option<crate::Loss>,
    /// The next turn needs no answer: the connection is new and the answer went to an old one.
    pub gate_free: bool,
    /// The first byte of the target's answer to the released turn has come.
    pub answered: bool,
    /// The transmit queue refused an acknowledgment.
    pub ack_refused: bool,
    /// How often in a row the connection request had no next hop to go to.
    pub unreachable: u8,
    /// The gate was opened for the session's end.
    pub end_released: bool,
    pub tcb: Tcb,
    /// Scoreboard, while the target has received something beyond a hole.
    pub board: u32,
    /// Oldest segment not acknowledged.
    pub una: u32,
    /// Segment that holds `snd_nxt`.
    pub nxt: u32,
    /// Oldest turn not settled.
    pub turn: u32,
    /// The number of the last turn the gate let through, plus one.
    pub released: u32,
    /// The first byte (production's numbering) neither replayed nor lost.
    pub settled: Seq,
    /// The target's `rcv_nxt` when that turn was released.
    pub released_at: Seq,
    pub answer: Answer,
    /// When the next turn began to wait; 0: it does not.
    pub waiting_since: Nanos,
    /// When the last byte of the turn was sent first.
    pub sent_at: Nanos,
    /// Retransmission or probe; 0: none.
    pub rto_at: Nanos,
    /// The gate's next look; 0: none.
    pub gate_at: Nanos,
    /// When to try again what a full queue or an unknown next hop refused, or when to stop
    /// lingering; 0: none.
    pub retry_at: Nanos,
}

impl Replica {
    /// Target-side flow of what it sends.
    pub fn flow(&self, target: Endpoint) -> Flow {
        Flow {
            src: self.local,
            dst: target,
        }
    }

    /// A segment leaves that acknowledges all that has come.
    pub fn rcv_all_acknowledged(&mut self) {
        self.tcb.rcv.acknowledged_all();
        self.ack_refused = false;
    }
}
