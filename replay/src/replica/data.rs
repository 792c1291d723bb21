//! What the replica half keeps: for each session and each of its targets what the replicas there
//! are fed with, the captured segments and turns, and the replicas. Plain data; the rules are in
//! the modules beside it.
//!
//! A feed's captured segments form one list in stream order, shared by all its replicas; each
//! replica points at the oldest segment the target has not acknowledged and at the next to send. A
//! segment goes when no replica needs it any more.

use super::gate::Answer;
use crate::capture::session::{End, List};
use crate::due::{Due, Moment};
use crate::pos::StreamPos;
use crate::tcp::Tcb;
use wire::{Addr, Endpoint, Flow, Nanos, Seq};

/// What a feed that is not used has for a target.
pub(crate) const NO_TARGET: u16 = u16::MAX;

/// The round-trip time of a client that is not known.
pub(crate) const UNKNOWN_RTT: u32 = u32::MAX;

/// What the replicas of one session at one target share.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    /// Captured segments in stream order.
    pub segs: List,
    /// Turns not settled by all replicas.
    pub turns: List,
    pub next_turn: u32,
    pub first_replica: u32,
    pub replica_count: u16,
    /// The target.
    pub target: u16,
    /// Largest segment the client can receive.
    pub mss: u16,
    /// The newest turn may still grow.
    pub turn_open: bool,
    /// It has just begun, and replicas have not been told yet.
    pub turn_fresh: bool,
    /// The response to the open turn was seen and its latency noted.
    pub answered: bool,
    /// This target alone is out of step: it has not got the rest of the turn, for this reason.
    pub missing: Option<crate::Loss>,
    /// How the client ended its connection, if it has.
    pub end: Option<End>,
    /// Bytes of production's answer that the client had acknowledged since it last spoke, when it
    /// ended.
    pub end_after: u64,
    /// Memory that its captured segments take, those in the capture half included, in bytes.
    pub held: u32,
    /// It was running when it was first seen.
    pub joined: bool,
    /// When the client's latest payload was captured.
    pub spoke_at: Moment,
    /// The client's round-trip time in µs, or [`UNKNOWN_RTT`].
    pub rtt_us: u32,
}

impl Feed {
    /// Another `bytes` can be held, where `limit` may be.
    pub fn has_room(&self, bytes: u32, limit: u64) -> bool {
        let held = self.held.checked_add(bytes);
        held.is_some_and(|held| u64::from(held) <= limit)
    }

    /// The client's round-trip time; 0 where it is not known.
    pub fn rtt(&self) -> Nanos {
        match self.rtt_us {
            UNKNOWN_RTT => 0,
            us => Nanos::from(us) * 1_000,
        }
    }
}

/// A piece of the client's stream in the buffer that captured it.
pub(crate) struct Seg<P> {
    /// Taken out when the segment is freed.
    pub payload: Option<P>,
    /// The place of its first byte.
    pub pos: StreamPos,
    pub len: u32,
    pub next: u32,
    /// Number and id of its turn.
    pub turn_number: u32,
    pub turn: u32,
    /// Replicas that still need it.
    pub holders: u16,
    /// Where urgent data ends, counted from `pos`; 0: none in or behind this segment.
    pub urgent: u16,
    pub push: bool,
}

impl<P> Seg<P> {
    pub fn end(&self) -> StreamPos {
        self.pos + self.len
    }

    /// Its sequence numbers on the target's wire: of its first byte, and after its last.
    pub fn wire(&self) -> (Seq, Seq) {
        let first = on_wire(self.pos);
        (first, first + self.len)
    }
}

/// The sequence number under which a replica sends the byte at `pos`: the one it had in production.
pub(crate) fn on_wire(pos: StreamPos) -> Seq {
    pos.seq()
}

/// What the client said between two answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub number: u32,
    pub next: u32,
    /// Its bytes, so far.
    pub start: StreamPos,
    pub end: StreamPos,
    /// Bytes of production's answer that the client had acknowledged since it last spoke.
    pub after: u64,
    /// How long after the client's last payload it began, in µs.
    pub pause_us: u32,
    /// Replicas that have not settled it.
    pub open_for: u16,
    /// No more bytes will come.
    pub closed: bool,
    /// Part of it was not captured: it is not to be sent.
    pub broken: Option<crate::Loss>,
    /// When its last byte was captured.
    pub last_at: Nanos,
    /// When it is to go, on our own clock, as far as production's pace decides that.
    pub due: Nanos,
}

/// What went wrong with a replica several times in a row: two counts up to 15 in one byte, as a
/// replica is to be small.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct InARow(u8);

impl InARow {
    /// How often the gate's limit was over before the target had answered.
    pub fn timeouts(self) -> u8 {
        self.0 & 15
    }

    /// How many connections the target refused or reset before a turn of them was replayed.
    pub fn failures(self) -> u8 {
        self.0 >> 4
    }

    pub fn timed_out(&mut self) {
        self.0 += u8::from(self.timeouts() < 15);
    }

    pub fn failed(&mut self) {
        self.0 += u8::from(self.failures() < 15) << 4;
    }

    /// The target has answered.
    pub fn answered(&mut self) {
        self.0 &= !15;
    }

    /// A turn was replayed.
    pub fn replayed(&mut self) {
        self.0 &= 15;
    }
}

/// What the gate has let through last.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Passed {
    /// Nothing, or a turn of which bytes were sent.
    #[default]
    Nothing,
    /// A turn that waits for nothing of the target's.
    Turn,
    /// A turn that had to wait for the target.
    HeldTurn,
    /// A turn of which bytes were sent, and which nothing of the target's has held up so far.
    GoneAtOnce,
    /// The session's end.
    End,
}

/// How far a replica has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Going,
    /// The transmit queue refused an acknowledgment.
    AckRefused,
    /// Its connection is to be given up: it carries a turn that cannot be finished.
    AbortPending,
    /// Everything the session said is replayed, or given up.
    Done,
}

/// A client connection to the target.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    /// What it is fed with.
    pub feed: u32,
    /// The feed's next replica.
    pub next: u32,
    /// Its target, and the port there.
    pub target: u16,
    pub port: u16,
    /// The address the target sees.
    pub local: Endpoint,
    pub stage: Stage,
    /// It lost the turn that is still being captured, or the connection that the target had all of
    /// that turn over: what more of the turn comes is lost for this reason, and the turn with it.
    pub dropping: Option<crate::Loss>,
    /// The next turn needs no answer: the connection is new and the answer went to an old one.
    pub gate_free: bool,
    pub spoken: Spoken,
    pub in_a_row: InARow,
    /// What the gate was opened for last.
    pub passed: Passed,
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
    /// The first byte neither replayed nor lost.
    pub settled: StreamPos,
    pub answer: Answer,
    /// When the next turn began to wait, if it does.
    pub waiting_since: Due,
    /// When the last byte of the turn was sent first.
    pub sent_at: Moment,
    /// When the target last did anything for the session, or was first to.
    pub progress_at: Due,
    /// Retransmission or probe.
    pub rto_at: Due,
    /// The gate's next look.
    pub gate_at: Due,
    /// Since when it waits in a list for the transmit queue or the next hop, if it does.
    pub blocked_since: Due,
}

/// How far the released turn has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spoken {
    /// Its newest payload was given to the transmit queue.
    Queued,
    /// The kernel has told when that left.
    Left,
    /// The first byte of the target's answer has come.
    Answered,
}

impl Replica {
    /// Everything the session said is replayed, or given up.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Goes on, if it was in this stage. True if so.
    pub fn leave(&mut self, stage: Stage) -> bool {
        let was = self.stage == stage;
        if was {
            self.stage = Stage::Going;
        }
        was
    }

    /// Target-side flow of what it sends to its target, which has this address.
    pub fn flow(&self, target: Addr) -> Flow {
        Flow {
            src: self.local,
            dst: Endpoint::new(target, self.port),
        }
    }

    /// The place in the stream that a sequence number of the target's wire stands for.
    pub fn place(&self, seq: Seq) -> StreamPos {
        self.settled.near(seq)
    }

    /// A segment leaves that acknowledges all that has come.
    pub fn rcv_all_acknowledged(&mut self) {
        self.tcb.rcv.acknowledged_all();
        self.leave(Stage::AckRefused);
    }
}
