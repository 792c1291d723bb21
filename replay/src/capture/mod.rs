//! The capture half: production's sessions, as the mirror shows them.
//!
//! Frames of the mirror come in, a session's events go out through [`Sink`]: begun, bytes at a
//! place in the stream, turn begun and closed, hole, answer seen, ended. This half knows
//! no target, no replica and no transmit queue, and lives on the capture's own clock.
//!
//! `handshake` waits until production has accepted a connection, `segment` reads what a client
//! says and `server` what its server does, `stream` puts the client's bytes in order and cuts
//! turns, `gap` waits for what is missing or finds that it is lost, `late_syn` keeps payload that
//! was shown before its SYN, `lifecycle` begins and ends sessions, `shed` counts what is lost with
//! those that are turned away, `followed` counts the frames of some.
//!
//! What always holds: a byte is told once, in order, as it was first captured; bytes that
//! production is known to have had and that were not captured are lost in the ledger; a number is
//! believed only as far as it can be true; somebody looks again at whatever waits.

mod clock;
mod ended;
mod followed;
mod gap;
mod half_open;
mod handshake;
mod late_syn;
mod lifecycle;
mod segment;
mod server;
pub(crate) mod session;
mod shed;
pub(crate) mod sink;
mod stream;

use crate::core::Side;
use crate::counters::{Counters, Loss, Unused};
use crate::fan::Fans;
use crate::ledger::Amount;
use crate::params::{Pace, Params};
use crate::pos::StreamPos;
use crate::slab::{NIL, Slab};
use crate::table::FlowTable;
use crate::wheel::Wheel;
use arrayvec::ArrayVec;
use clock::CaptureClock;
use ended::EndedSessions;
use followed::Followed;
use half_open::HalfOpenTable;
use lifecycle::Ending;
use session::{LEAP, Phase, Session, Waiting};
use shed::ShedSessions;
use sink::Sink;
use std::sync::Arc;
use wire::decode::Packet;
use wire::io::{Frame, Payload};
use wire::{Flags, Flow, Head, Nanos, Seq};

/// Frames that begin or end a session have one of these.
const MARKS: u8 = Flags::SYN.with(Flags::FIN).with(Flags::RST).0;

/// Timers whose sessions are asked for together.
const AT_ONCE: usize = 16;

/// Timers of a recording fired before one of its frames at most.
const DUE_BEFORE: usize = 512;

/// See the module's documentation.
pub(crate) struct Capture<P: Payload> {
    params: Arc<Params>,
    fans: Arc<Fans>,
    pub sessions: Slab<Session>,
    /// Segments that wait to join a stream.
    pub waiting: Slab<Waiting<P>>,
    /// The session whose list one of them was linked into last, and which; `NIL`: that one is gone.
    linked: (u32, u32),
    /// Production flow, client to server, to session; several where scopes differ.
    pub flows: FlowTable,
    pub half_open: HalfOpenTable<P>,
    /// Where short payloads are copied to.
    store: Option<P::Store>,
    shed: ShedSessions,
    over: EndedSessions,
    followed: Followed,
    pub timers: Wheel,
    clock: CaptureClock,
    /// Our own time.
    now: Nanos,
    /// When the frame of the mirror that is being looked at was captured.
    seen: Nanos,
    /// When what it tells was due, on our own clock.
    due: Nanos,
    /// The hash of its flow, client to server, in either table.
    hash: u32,
    /// Where the search for an idle session goes on.
    hand: u32,
    /// All sessions are being ended, from this one on.
    ending: Option<(Ending, u32)>,
    /// No new sessions, and nothing waits for more capture: the engine is stopping.
    draining: bool,
}

impl<P: Payload> Capture<P> {
    pub fn new(params: &Arc<Params>, fans: &Arc<Fans>, now: Nanos) -> Self {
        Self {
            params: Arc::clone(params),
            fans: Arc::clone(fans),
            sessions: Slab::new(params.max_sessions),
            waiting: Slab::new(params.max_segments),
            linked: (NIL, NIL),
            flows: FlowTable::new(params.max_sessions, params.seed),
            half_open: HalfOpenTable::new(params.max_sessions, params.seed),
            store: None,
            shed: ShedSessions::new(),
            over: EndedSessions::new(),
            followed: Followed::new(),
            timers: Wheel::new(params.max_sessions, now),
            clock: CaptureClock::new(params.pace, now),
            now,
            seen: now,
            due: now,
            hash: 0,
            hand: 0,
            ending: None,
            draining: false,
        }
    }

    /// Copies short payloads to `store` from now on.
    pub fn copy_short_to(&mut self, store: P::Store) {
        self.store = Some(store);
    }

    /// A payload as it is to be held.
    #[inline]
    fn keep(&self, payload: P) -> P {
        match &self.store {
            Some(store) => payload.compact(store),
            None => payload,
        }
    }

    /// Takes one decoded frame of the mirror; `frame` is the very frame that `packet` was decoded
    /// from, and `side` is what its flow tells. Says why, if it was of no use.
    pub fn mirror<F: Frame<Payload = P>>(
        &mut self,
        now: Nanos,
        packet: &Packet,
        side: Option<Side>,
        frame: F,
        out: &mut impl Sink<P>,
    ) -> Result<(), Unused> {
        out.ledger().common.frames += 1;
        self.now = now;
        self.seen = self.clock.frame(now, frame.captured_at());
        self.due = self.clock.due(now);
        let time = self.clock.time(now);
        if self.params.pace != Pace::Live {
            // Whatever the pace: what was due before the frame was captured comes before it.
            self.fire(time, DUE_BEFORE, out);
        }
        let result = match side {
            Some(side) => {
                self.hash = side.hash;
                if side.of_client {
                    self.client_segment(time, side.transfer, packet, frame, out)
                } else {
                    self.server_segment(time, side.transfer, packet, out)
                }
            }
            None => Err(Unused::NoTransfer),
        };
        let flags = packet.head.flags;
        if flags.0 & MARKS != 0 {
            count_marks(flags, result, &mut out.ledger().common);
        }
        match result {
            Ok(()) => out.ledger().common.used += 1,
            Err(reason) => out.ledger().common.dropped[reason as usize] += 1,
        }
        result
    }

    /// See [`crate::Core::hold_recording`].
    pub fn hold(&mut self, now: Nanos) {
        self.clock.hold(now);
    }

    /// Fires the timers that are due, `budget` of them at most. Returns how many there were.
    pub fn poll(&mut self, now: Nanos, budget: usize, out: &mut impl Sink<P>) -> usize {
        (self.now, self.due) = (now, now);
        let time = self.clock.time(now);
        let ended = self.go_on_ending(time, out);
        ended + self.fire(time, budget.saturating_sub(ended), out)
    }

    fn fire(&mut self, time: Nanos, budget: usize, out: &mut impl Sink<P>) -> usize {
        let mut fired = self.expire_handshakes(time, budget, out);
        let mut due = ArrayVec::<u32, AT_ONCE>::new();
        loop {
            while !due.is_full()
                && fired < budget
                && let Some(sid) = self.timers.pop(time)
            {
                due.push(sid);
                fired += 1;
            }
            if due.is_empty() {
                return fired;
            }
            self.expect_timers(&due, out);
            for sid in due.drain(..) {
                self.on_timer(time, sid, out);
            }
        }
    }

    /// Asks for what the timers of these sessions will touch, so that they wait for memory together
    /// and not one after the other. Most are over and were not looked at for long.
    fn expect_timers<S: Sink<P>>(&self, sids: &[u32], out: &S) {
        for &sid in sids {
            let s = &self.sessions[sid];
            S::prefetch(s);
            S::prefetch(&s.last_seen);
            S::prefetch(self.sessions.link(sid));
            out.ask_for(sid, false);
        }
        for &sid in sids {
            out.ask_for(sid, true);
            let s = &self.sessions[sid];
            if s.phase == Phase::Ended {
                S::prefetch(self.flows.slot(self.flows.hash(&s.flow)));
            }
        }
    }

    /// Handshakes under way.
    pub fn half_open_count(&self) -> usize {
        self.half_open.len()
    }

    /// Makes the session's timer fire at `due` or before.
    fn arm(&mut self, sid: u32, due: Nanos) {
        if self.timers.deadline(sid).is_none_or(|d| due < d) {
            self.timers.arm(sid, due);
        }
    }

    /// The session of the flow of the frame that is being looked at for which `is` holds: as a rule
    /// there is one at most.
    #[inline]
    fn by_flow(&self, flow: &Flow, is: impl Fn(&Session) -> bool) -> Option<u32> {
        debug_assert_eq!(self.hash, self.flows.hash(flow));
        let sessions = &self.sessions;
        let is = |id| is(&sessions[id]);
        self.flows.find(self.hash, flow, |id| sessions[id].flow, is)
    }

    /// The session is found by its flow.
    pub fn is_found(&self, sid: u32) -> bool {
        let (sessions, flow) = (&self.sessions, &self.sessions[sid].flow);
        let hash = self.flows.hash(flow);
        let found = self
            .flows
            .find(hash, flow, |id| sessions[id].flow, |id| id == sid);
        found == Some(sid)
    }

    /// A segment of the session, of its client or its server: counted if the session is followed.
    #[inline]
    fn follow(&mut self, sid: u32, head: &Head, of_client: bool, out: &mut impl Sink<P>) {
        if self.sessions[sid].followed {
            let count = &mut out.ledger().common;
            self.followed.segment(sid, head, of_client, count);
        }
    }

    /// Counts turns and bytes of the session that production had and nobody will get to see.
    fn lose(&self, sid: u32, amount: Amount, why: Loss, out: &mut impl Sink<P>) {
        let fan = self.sessions[sid].fan;
        out.ledger().uncaptured(fan, amount, why);
    }

    /// Counts bytes of the session that nobody has shown as lost. False if they may never have
    /// been: then they are counted as doubtful.
    fn lose_missing(&mut self, sid: u32, missing: u64, why: Loss, out: &mut impl Sink<P>) -> bool {
        let s = &mut self.sessions[sid];
        if s.leapt && missing > LEAP {
            s.leapt = false;
            out.ledger().common.doubtful_bytes += missing;
            return false;
        }
        self.lose(sid, Amount::bytes(missing), why, out);
        true
    }
}

/// Counts a frame that begins or ends a session of those that are to be replayed.
fn count_marks(flags: Flags, result: Result<(), Unused>, count: &mut Counters) {
    if matches!(result, Err(Unused::NoTransfer | Unused::NotSelected)) {
        return;
    }
    if flags.has(Flags::SYN) {
        count.syns += 1;
    } else {
        count.ends += 1;
    }
}

/// Is this a SYN? One with RST is a reset (RFC 9293 section 3.10.7: RST is looked at first).
fn opens(flags: Flags) -> bool {
    flags.has(Flags::SYN) && !flags.has(Flags::RST)
}

/// The place a stream begins at whose SYN has this number.
fn beginning(isn: Seq) -> StreamPos {
    StreamPos::first(isn) + 1_u32
}
