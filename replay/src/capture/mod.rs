//! The capture half: production's sessions, as the mirror shows them.
//!
//! Frames of the mirror come in, a session's events go out through [`Sink`]: begun, bytes at a
//! place in the stream, turn begun and closed, hole, answer seen, ended. This half knows
//! no target, no replica and no transmit queue.
//!
//! `segment` reads what client and server say, `stream` puts the client's bytes in order and cuts
//! turns, `gap` waits for what is missing or finds that it is lost, `late_syn` keeps payload that
//! was shown before its SYN, `lifecycle` begins and ends sessions.
//!
//! What always holds: a byte is told once, in order, as it was first captured; bytes that
//! production is known to have had and that were not captured are lost in the ledger; somebody
//! looks again at whatever waits.

mod gap;
mod late_syn;
mod lifecycle;
mod segment;
pub(crate) mod session;
pub(crate) mod sink;
mod stream;

use crate::counters::Unused;
use crate::params::Params;
use crate::pos::StreamPos;
use crate::slab::Slab;
use crate::table::FlowTable;
use crate::wheel::Wheel;
use session::{Session, Waiting};
use sink::Sink;
use std::sync::Arc;
use wire::decode::Packet;
use wire::io::{Frame, Payload};
use wire::{Flow, Nanos};

/// See the module's documentation.
pub(crate) struct Capture<P> {
    params: Arc<Params>,
    pub sessions: Slab<Session>,
    /// Segments that wait to join a stream.
    pub waiting: Slab<Waiting<P>>,
    /// Production flow, client to server, to session.
    pub flows: FlowTable,
    pub timers: Wheel,
    /// When the frame of the mirror that is being looked at was captured: production's clock,
    /// which in an offline replay is the file's.
    seen: Nanos,
    /// No new sessions, and nothing waits for more capture: the engine is stopping.
    draining: bool,
}

impl<P: Payload> Capture<P> {
    pub fn new(params: &Arc<Params>, now: Nanos) -> Self {
        Self {
            params: Arc::clone(params),
            sessions: Slab::new(params.max_sessions),
            waiting: Slab::new(params.max_segments),
            flows: FlowTable::new(params.max_sessions, params.seed),
            timers: Wheel::new(params.max_sessions, now),
            seen: now,
            draining: false,
        }
    }

    /// Takes one decoded frame of the mirror; `frame` is the very frame that `packet` was decoded
    /// from. Says why, if it was of no use.
    pub fn mirror<F: Frame<Payload = P>>(
        &mut self,
        now: Nanos,
        packet: &Packet,
        frame: F,
        out: &mut impl Sink<P>,
    ) -> Result<(), Unused> {
        out.ledger().common.frames += 1;
        self.seen = frame.captured_at().unwrap_or(now);
        let result = match self.params.transfer_of(&packet.head.flow) {
            Some((transfer, true)) => self.client_segment(now, transfer, packet, frame, out),
            Some((_, false)) => self.server_segment(now, &packet.head, out),
            None => Err(Unused::NoTransfer),
        };
        match result {
            Ok(()) => out.ledger().common.used += 1,
            Err(reason) => out.ledger().common.dropped[reason as usize] += 1,
        }
        result
    }

    /// Fires the timers that are due, `budget` of them at most. Returns how many there were.
    pub fn poll(&mut self, now: Nanos, budget: usize, out: &mut impl Sink<P>) -> usize {
        let mut fired = 0;
        while fired < budget
            && let Some(sid) = self.timers.pop(now)
        {
            fired += 1;
            self.on_timer(now, sid, out);
        }
        fired
    }

    /// Makes the session's timer fire at `due` or before.
    fn arm(&mut self, sid: u32, due: Nanos) {
        if self.timers.deadline(sid).is_none_or(|d| due < d) {
            self.timers.arm(sid, due);
        }
    }

    pub fn by_flow(&self, flow: &Flow) -> Option<u32> {
        let sessions = &self.sessions;
        self.flows.get(flow, |id| sessions[id].flow)
    }

    /// Counts turns and bytes of the session that production had and nobody will get to see.
    fn lose(
        &self,
        sid: u32,
        amount: crate::ledger::Amount,
        why: crate::Loss,
        out: &mut impl Sink<P>,
    ) {
        out.ledger()
            .uncaptured(self.sessions[sid].transfer, amount, why);
    }
}

/// The place a stream begins at whose SYN has this number.
fn beginning(isn: wire::Seq) -> StreamPos {
    StreamPos::first(isn) + 1_u32
}
