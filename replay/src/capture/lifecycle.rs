//! How sessions begin, are looked at, and end.

use super::followed::Start;
use super::session::{End, List, Listed, Phase, Session, UNKNOWN_SHIFT};
use super::sink::Opening;
use super::{Capture, Sink, beginning};
use crate::counters::{Loss, Unused};
use crate::due::{Due, Moment};
use crate::ledger::Amount;
use crate::pos::StreamPos;
use crate::tcp::connect::mss_for;
use wire::io::Payload;
use wire::{Flow, Nanos, Seq};

/// A session that is over stays in the table for this long, so that late frames of it do not look
/// like a new one.
const LINGER: Nanos = 2_000_000_000;
/// Sessions that are looked at for the one that is idle longest, when the table is full.
const LOOKED_AT: u32 = 64;
/// A session that was heard of within this time is not idle.
const LEAST_IDLE: Nanos = 1_000_000_000;
/// Sessions ended in one round at most, when all are to be.
const ENDED_AT_ONCE: usize = 256;

/// What is known of a session when it begins.
pub(super) struct Beginning {
    /// Client to server, in production.
    pub flow: Flow,
    pub scope: u32,
    pub server_scope: u32,
    pub transfer: u16,
    /// The number of the client's SYN.
    pub isn: Seq,
    /// What the client has acknowledged.
    pub acked: StreamPos,
    /// Where the server's stream begins, if its SYN was shown, its window scale shift, and the
    /// window in it.
    pub server_nxt: Option<StreamPos>,
    pub server_shift: Option<u8>,
    pub server_window: u16,
    /// What the client's SYN says of segments it can receive.
    pub mss: Option<u16>,
    /// Frames with SYN that were shown, if both ends' were.
    pub syns: Option<u32>,
    /// It was running already.
    pub midstream: bool,
}

/// Why a session can go when the table is full, the best reason first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Idle {
    /// It is over and done.
    Over,
    /// It is over, and a target keeps it that others are done with.
    HeldUp,
    /// Nothing was heard of it for long.
    Alive,
}

/// What all sessions are to come to, one round after the other.
#[derive(Clone, Copy)]
pub(super) enum Ending {
    /// Nothing more is captured of them.
    End,
    /// What is left of them is lost.
    Abandon,
}

impl<P: Payload> Capture<P> {
    /// A session begins: accepted by production, or in the middle.
    pub(super) fn open(
        &mut self,
        time: Nanos,
        begin: &Beginning,
        out: &mut impl Sink<P>,
    ) -> Result<u32, Unused> {
        let flow = begin.flow;
        let Some(fan) = self.fan_of(begin.transfer, &flow) else {
            return Err(Unused::NotSelected);
        };
        if begin.midstream && self.params.full_sessions_only {
            return Err(Unused::NotFull);
        }
        let full = self.sessions.len() == self.sessions.capacity();
        let refused = self.draining || !out.accepts_sessions(fan);
        if refused || (full && !self.make_room(time, true, out)) {
            out.ledger().common.sessions_shed += u64::from(!begin.midstream);
            return Err(Unused::Shed);
        }
        let limit = mss_for(self.params.mtu, flow.src.addr.is_v4());
        let session = Session {
            flow,
            scope: begin.scope,
            server_scope: begin.server_scope,
            fan,
            phase: if begin.midstream {
                Phase::Joining
            } else {
                Phase::Synced
            },
            listed: Listed::Yes,
            server_closed: None,
            join_loss: Loss::Midstream,
            shown_by_payload: false,
            early: false,
            followed: false,
            doubted: false,
            leapt: false,
            server_shift: begin.server_shift.unwrap_or(UNKNOWN_SHIFT),
            isn: begin.isn,
            doubt: Seq(0),
            window: u32::from(begin.server_window),
            ahead: 0,
            fin: None,
            rcv_nxt: beginning(begin.isn),
            acked: begin.acked,
            acked_at_data: begin.acked,
            server_acked: None,
            server_nxt: begin.server_nxt,
            waiting: List::default(),
            timed_at: Moment::NONE,
            timed_end: Seq(0),
            gap_since: Due::NONE,
            last_seen: Due::at(time),
        };
        let at = session.rcv_nxt;
        let opening = Opening {
            fan,
            mss: begin.mss.unwrap_or(limit).max(64).min(limit),
        };
        let Ok(sid) = self.sessions.alloc(session) else {
            return Err(Unused::Shed);
        };
        self.flows.insert_hashed(self.hash, sid);
        let start = Start {
            running: begin.midstream,
            client_next: begin.isn + 1,
            server_next: begin.server_nxt.map(StreamPos::seq),
            acked: begin.acked.seq(),
            syns: begin.syns,
        };
        let sessions = self.sessions.len();
        self.sessions[sid].followed = self.followed.begin(sid, sessions, &start);
        out.opened(sid, &opening);
        self.arm(sid, time + self.params.keepalive_timeout);
        if begin.midstream {
            self.lose(sid, Amount::new(1, 0), Loss::Midstream, out);
        } else {
            out.begun(sid, &flow, at);
            out.connected(sid);
        }
        Ok(sid)
    }

    /// See [`crate::Core::has_room`].
    pub fn has_room(&mut self, now: Nanos, fan: u16, out: &mut impl Sink<P>) -> bool {
        if !out.accepts_sessions(fan) {
            return false;
        }
        let time = self.clock.time(now);
        let is_full = |c: &Self| c.sessions.len() + c.half_open.len() >= c.sessions.capacity();
        while is_full(self) {
            if !self.make_room(time, false, out) {
                return false;
            }
        }
        true
    }

    /// The table is full: of some sessions the one that is idle longest goes, those that are over
    /// before the others, and one that is not over only if it `may_be_alive`. False if all of them
    /// are busy.
    fn make_room(&mut self, time: Nanos, may_be_alive: bool, out: &mut impl Sink<P>) -> bool {
        let ids = self.sessions.ids().end;
        let mut best: Option<(Idle, Nanos, u32)> = None;
        for _ in 0..LOOKED_AT.min(ids) {
            self.hand = if self.hand + 1 < ids {
                self.hand + 1
            } else {
                0
            };
            let (sid, s) = (self.hand, &self.sessions[self.hand]);
            let seen = s.last_seen.nanos(time).unwrap_or(0);
            let over = s.phase == Phase::Ended;
            let long = seen + LEAST_IDLE <= time;
            let idle = match s.phase {
                Phase::Free => None,
                _ if !s.waiting.is_empty() => None,
                Phase::Ended if out.is_done(sid) && out.is_idle(sid) => Some(Idle::Over),
                Phase::Ended if long && out.is_held_up(sid) => Some(Idle::HeldUp),
                _ if !over && may_be_alive && long && out.is_idle(sid) => Some(Idle::Alive),
                _ => None,
            };
            // Those that are over first, then those that were not heard of for longest.
            if let Some(idle) = idle
                && best.is_none_or(|b| (idle, seen, sid) < b)
            {
                best = Some((idle, seen, sid));
            }
        }
        let Some((idle, _, sid)) = best else {
            return false;
        };
        match idle {
            Idle::Over => {}
            Idle::HeldUp => out.give_up(sid, Loss::TargetBudget),
            Idle::Alive => {
                out.ledger().common.sessions_evicted += 1;
                self.give_up(time, sid, Loss::Shed, out);
            }
        }
        self.remove(sid, out);
        true
    }

    /// The targets that the session goes to; `None` if it is not among those to be replayed.
    #[inline]
    pub(super) fn fan_of(&self, transfer: u16, flow: &Flow) -> Option<u16> {
        self.fans.of_session(&self.params, transfer, flow, self.now)
    }

    /// A new connection from the same address and port: what the old one said is still replayed,
    /// then it is closed.
    pub(super) fn replace(&mut self, time: Nanos, sid: u32, out: &mut impl Sink<P>) {
        self.unlist(sid, self.flows.hash(&self.sessions[sid].flow));
        if self.sessions[sid].phase != Phase::Ended {
            self.settle_gaps(time, sid, out);
            self.end_session(time, sid, End::Reset, out);
        }
        out.push(sid);
        self.arm(sid, time + LINGER);
    }

    /// Takes the session, whose flow has this hash, out of the flow table.
    fn unlist(&mut self, sid: u32, hash: u32) {
        let s = &mut self.sessions[sid];
        if s.listed != Listed::No {
            s.listed = Listed::No;
            self.flows.remove_hashed(hash, sid);
        }
    }

    /// The session is in step from `pos` on, which begins a turn.
    pub(super) fn join(&mut self, sid: u32, pos: StreamPos, out: &mut impl Sink<P>) {
        self.forget_early(sid, out);
        let s = &mut self.sessions[sid];
        let missing = pos.since(s.rcv_nxt);
        s.phase = Phase::Synced;
        s.advance_to(pos);
        let (flow, reason) = (s.flow, s.join_loss);
        self.lose_missing(sid, missing, reason, out);
        if !out.has_begun(sid) {
            out.begun(sid, &flow, pos);
        }
        out.rejoined(sid);
    }

    /// The client has ended its connection, or production has.
    pub(super) fn end_session(&mut self, time: Nanos, sid: u32, end: End, out: &mut impl Sink<P>) {
        out.close_turn(sid);
        self.forget_early(sid, out);
        let s = &mut self.sessions[sid];
        if s.phase == Phase::Joining {
            out.rejoined(sid);
        }
        s.phase = Phase::Ended;
        let reason = match s.join_loss {
            Loss::Midstream => Loss::Hole,
            other => other,
        };
        out.ended(sid, end, s.answered());
        self.clear_beyond(sid, reason, out);
        self.arm(sid, time + LINGER);
    }

    /// The session's timer: remove it if it is over, give it up if nothing was heard of it for too
    /// long, look at its gap.
    pub(super) fn on_timer(&mut self, time: Nanos, sid: u32, out: &mut impl Sink<P>) {
        let s = &self.sessions[sid];
        if s.phase == Phase::Free {
            return;
        }
        if s.gap_since.is_set() && s.phase != Phase::Ended && time >= self.gap_due(time, sid) {
            self.hole(time, sid, out);
        }
        if self.early_due(time, sid).is_some_and(|due| time >= due) {
            self.forget_early(sid, out);
        }
        let s = &self.sessions[sid];
        let seen = s.last_seen.nanos(time).unwrap_or(time);
        if s.phase == Phase::Ended {
            let done = out.is_done(sid);
            if done && time >= seen + LINGER {
                self.remove(sid, out);
                return;
            }
            // It is looked at now and then until its replicas are done.
            self.arm(sid, if done { seen + LINGER } else { time + LINGER });
            return;
        }
        let mut due = seen + self.params.keepalive_timeout;
        if time >= due {
            self.give_up(time, sid, Loss::SessionTimeout, out);
            self.remove(sid, out);
            return;
        }
        if s.gap_since.is_set() {
            due = due.min(self.gap_due(time, sid));
        }
        if let Some(early) = self.early_due(time, sid) {
            due = due.min(early);
        }
        self.arm(sid, due);
    }

    /// Gives up what a session still has, for `reason`, and tells its targets.
    fn give_up(&mut self, time: Nanos, sid: u32, reason: Loss, out: &mut impl Sink<P>) {
        if self.sessions[sid].phase != Phase::Ended {
            self.end_session(time, sid, End::Reset, out);
        }
        out.give_up(sid, reason);
    }

    fn remove(&mut self, sid: u32, out: &mut impl Sink<P>) {
        let s = &self.sessions[sid];
        debug_assert!(s.waiting.is_empty());
        let hash = self.flows.hash(&s.flow);
        if s.phase == Phase::Ended
            && let Some(end) = s.server_nxt
        {
            self.over.note(hash, end.seq());
        }
        self.unlist(sid, hash);
        if self.sessions[sid].followed {
            self.followed.removed(sid, &mut out.ledger().common);
        }
        out.removed(sid);
        self.timers.cancel(sid);
        self.sessions[sid].phase = Phase::Free;
        self.sessions.free(sid);
        out.ledger().common.sessions_ended += 1;
    }

    /// The engine is stopping: no new sessions, and an end to those there are.
    pub fn drain(&mut self) {
        self.draining = true;
        self.begin_ending(Ending::End);
    }

    /// See [`crate::Core::end_all`].
    pub fn end_all(&mut self) {
        self.over.clear();
        self.clock.restart(self.now);
        self.begin_ending(Ending::End);
    }

    /// Gives up whatever is left, counted as [`Loss::Stopped`].
    pub fn abandon(&mut self) {
        self.begin_ending(Ending::Abandon);
    }

    fn begin_ending(&mut self, ending: Ending) {
        self.ending = Some((ending, 0));
    }

    /// All sessions are being ended, which is not done yet.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Ends some more sessions, if all are to be. Returns how many.
    pub(super) fn go_on_ending(&mut self, time: Nanos, out: &mut impl Sink<P>) -> usize {
        let Some((ending, from)) = self.ending else {
            return 0;
        };
        let ids = self.sessions.ids().end;
        let to = ids.min(from + ENDED_AT_ONCE as u32);
        for sid in from..to {
            let phase = self.sessions[sid].phase;
            if phase == Phase::Free {
                continue;
            }
            match ending {
                Ending::Abandon => self.give_up(time, sid, Loss::Stopped, out),
                Ending::End => {
                    if phase != Phase::Ended {
                        self.settle_gaps(time, sid, out);
                        self.end_session(time, sid, End::Fin, out);
                        out.push(sid);
                    }
                    if !self.draining {
                        self.unlist(sid, self.flows.hash(&self.sessions[sid].flow));
                    }
                }
            }
        }
        // Handshakes that are under way come to nothing.
        let handshakes = self.expire_handshakes(Nanos::MAX, ENDED_AT_ONCE, out);
        let more = to < ids || handshakes == ENDED_AT_ONCE;
        self.ending = more.then_some((ending, to));
        (to - from) as usize + handshakes
    }
}
