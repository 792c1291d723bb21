//! How sessions begin, are looked at, and end.

use super::session::{End, List, Phase, Session};
use super::sink::Opening;
use super::{Capture, Sink, beginning};
use crate::counters::{Loss, Unused};
use crate::ledger::Amount;
use crate::pos::StreamPos;
use crate::tcp::connect::mss_for;
use wire::io::Payload;
use wire::{Flow, Head, Nanos};

/// A session that is over stays in the table for this long, so that late frames of it do not look
/// like a new one.
const LINGER: Nanos = 2_000_000_000;

impl<P: Payload> Capture<P> {
    /// A session begins: with the client's SYN, or in the middle.
    pub(super) fn open(
        &mut self,
        now: Nanos,
        transfer: u16,
        head: &Head,
        phase: Phase,
        out: &mut impl Sink<P>,
    ) -> Result<u32, Unused> {
        if !self.selected(now, &head.flow) {
            return Err(Unused::NotSelected);
        }
        let midstream = phase == Phase::Joining;
        if midstream && self.params.full_sessions_only {
            return Err(Unused::NotFull);
        }
        if self.draining || !out.accepts_sessions() {
            out.ledger().common.sessions_shed += u64::from(!midstream);
            return Err(Unused::Shed);
        }
        let limit = mss_for(self.params.mtu, head.flow.src.addr.is_v4());
        let isn = if midstream { head.seq - 1 } else { head.seq };
        let ack = StreamPos::first(head.ack);
        let session = Session {
            flow: head.flow,
            transfer,
            phase,
            listed: true,
            fin: None,
            ack_known: midstream,
            server_closed: None,
            join_loss: Loss::Midstream,
            isn,
            rcv_nxt: beginning(isn),
            shown: beginning(isn) - 1,
            shown_by_payload: false,
            acked: ack,
            acked_at_data: ack,
            server_acked: None,
            server_nxt: None,
            mss: head.options.mss.unwrap_or(limit).max(64).min(limit),
            waiting: List::default(),
            early: false,
            handshake_at: self.seen,
            gap_since: 0,
            last_seen: now,
        };
        let opening = Opening {
            transfer,
            mss: session.mss,
        };
        let at = session.rcv_nxt;
        let Ok(sid) = self.sessions.alloc(session) else {
            out.ledger().common.sessions_shed += u64::from(!midstream);
            return Err(Unused::Shed);
        };
        let sessions = &self.sessions;
        self.flows.insert(sid, |id| sessions[id].flow);
        out.opened(sid, &opening);
        let due = now + self.params.session_timeout;
        self.arm(sid, due.min(self.idle_check(now)));
        if midstream {
            self.lose(sid, Amount::new(1, 0), Loss::Midstream, out);
        } else {
            out.begun(sid, &head.flow, at);
            out.connected(sid);
        }
        Ok(sid)
    }

    /// True if the session is among those to be replayed; the answer for one client address and
    /// port never changes, but for the ramp.
    pub(super) fn selected(&self, now: Nanos, flow: &Flow) -> bool {
        let p = &self.params;
        let mut share = p.percent / 100.0;
        if p.ramp > 0 {
            share *= (now.saturating_sub(p.start) as f64 / p.ramp as f64).min(1.0);
        }
        share >= 1.0 || f64::from(wire::rss::client_hash(&flow.src)) < share * f64::from(u32::MAX)
    }

    /// A new connection from the same address and port: what the old one said is still replayed,
    /// then it is closed.
    pub(super) fn replace(&mut self, now: Nanos, sid: u32, out: &mut impl Sink<P>) {
        self.unlist(sid);
        if self.sessions[sid].phase != Phase::Ended {
            self.settle_gaps(now, sid, out);
            self.end_session(now, sid, End::Reset, out);
        }
        out.push(sid);
        self.arm(sid, now + LINGER);
    }

    fn unlist(&mut self, sid: u32) {
        let s = &mut self.sessions[sid];
        if s.listed {
            s.listed = false;
            let flow = s.flow;
            self.flows.remove(sid, &flow);
        }
    }

    /// The session is in step from `pos` on, which begins a turn.
    pub(super) fn join(&mut self, sid: u32, pos: StreamPos, out: &mut impl Sink<P>) {
        self.forget_early(sid, out);
        let s = &mut self.sessions[sid];
        let missing = pos.since(s.rcv_nxt);
        s.phase = Phase::Synced;
        s.rcv_nxt = pos;
        let (flow, reason) = (s.flow, s.join_loss);
        self.lose(sid, Amount::bytes(missing), reason, out);
        if !out.has_begun(sid) {
            out.begun(sid, &flow, pos);
        }
        out.rejoined(sid);
    }

    /// The client has ended its connection, or production has.
    pub(super) fn end_session(&mut self, now: Nanos, sid: u32, end: End, out: &mut impl Sink<P>) {
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
        self.arm(sid, now + LINGER);
    }

    /// The session's timer: remove it if it is over, give it up if nothing has happened for too
    /// long, look at its gap.
    pub(super) fn on_timer(&mut self, now: Nanos, sid: u32, out: &mut impl Sink<P>) {
        let s = &self.sessions[sid];
        if s.phase == Phase::Free {
            return;
        }
        if s.gap_since != 0 && s.phase != Phase::Ended && now >= self.gap_due(sid) {
            self.hole(now, sid, out);
        }
        if self.early_due(sid).is_some_and(|due| now >= due) {
            self.forget_early(sid, out);
        }
        let s = &self.sessions[sid];
        let done = out.is_done(sid);
        let due = if s.phase == Phase::Ended && done {
            s.last_seen + LINGER
        } else if out.is_idle(sid) && (s.early || s.waiting.is_empty()) {
            s.last_seen + self.params.keepalive_timeout
        } else {
            s.last_seen + self.params.session_timeout
        };
        if now >= due {
            // One without replicas has nothing to do, and may hold a turn all the same.
            if !done || s.phase != Phase::Ended {
                self.give_up(now, sid, Loss::SessionTimeout, out);
            }
            self.remove(sid, out);
            return;
        }
        let s = &self.sessions[sid];
        let due = if s.gap_since != 0 && s.phase != Phase::Ended {
            due.min(self.gap_due(sid))
        } else {
            due
        };
        // An ended session is looked at now and then until its replicas are done; any other may
        // have become idle since it was last heard of.
        let due = if s.phase == Phase::Ended {
            due.min(now + LINGER)
        } else {
            due.min(self.idle_check(now))
        };
        let due = self.early_due(sid).map_or(due, |early| due.min(early));
        self.arm(sid, due);
    }

    /// When to see whether a session that has something to do now is idle by then.
    fn idle_check(&self, now: Nanos) -> Nanos {
        now + self.params.keepalive_timeout.max(LINGER)
    }

    /// Gives up what a session still has, for `reason`, and tells its targets.
    fn give_up(&mut self, now: Nanos, sid: u32, reason: Loss, out: &mut impl Sink<P>) {
        if self.sessions[sid].phase != Phase::Ended {
            self.end_session(now, sid, End::Reset, out);
        }
        out.give_up(sid, reason);
    }

    fn remove(&mut self, sid: u32, out: &mut impl Sink<P>) {
        debug_assert!(self.sessions[sid].waiting.is_empty());
        self.unlist(sid);
        out.removed(sid);
        self.timers.cancel(sid);
        self.sessions[sid].phase = Phase::Free;
        self.sessions.free(sid);
        out.ledger().common.sessions_ended += 1;
    }

    /// The engine is stopping: no new sessions, and an end to those there are.
    pub fn drain(&mut self, now: Nanos, out: &mut impl Sink<P>) {
        self.draining = true;
        self.end_all(now, out);
    }

    /// See [`crate::Core::end_all`].
    pub fn end_all(&mut self, now: Nanos, out: &mut impl Sink<P>) {
        for sid in self.sessions.ids() {
            if !matches!(self.sessions[sid].phase, Phase::Free | Phase::Ended) {
                self.settle_gaps(now, sid, out);
                self.end_session(now, sid, End::Fin, out);
                out.push(sid);
            }
            if !self.draining && self.sessions[sid].phase != Phase::Free {
                self.unlist(sid);
            }
        }
    }

    /// Gives up whatever is left, counted as [`Loss::Stopped`].
    pub fn abandon(&mut self, now: Nanos, out: &mut impl Sink<P>) {
        for sid in self.sessions.ids() {
            if self.sessions[sid].phase != Phase::Free {
                self.give_up(now, sid, Loss::Stopped, out);
            }
        }
    }
}
