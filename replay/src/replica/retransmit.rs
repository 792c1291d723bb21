//! Mending losses on the way to the target: fast retransmit, recovery by the SACK scoreboard, loss
//! probes, window probes.

use super::Replicas;
use super::data::on_wire;
use crate::core::Egress;
use crate::due::Due;
use crate::slab::NIL;
use crate::tcp::sack::Scoreboard;
use wire::io::Payload;
use wire::{Flags, Head, Nanos, Seq};

impl<P: Payload> Replicas<P> {
    /// Enters the SACK blocks of a segment that came. A connection gets a scoreboard with its first
    /// hole; if none is left it recovers by duplicate acknowledgments alone.
    pub(super) fn note_sack(&mut self, now: Nanos, rid: u32, head: &Head) {
        let r = &self.replicas[rid];
        if head.options.sack_count == 0 || !r.tcb.sack || !r.tcb.outstanding() {
            return;
        }
        let (una, max) = (
            r.tcb.snd_una.max(head.ack.min(r.tcb.snd_max)),
            r.tcb.snd_max,
        );
        if r.board == NIL {
            let Ok(board) = self.boards.alloc(Scoreboard::new(una)) else {
                return;
            };
            let r = &mut self.replicas[rid];
            r.board = board;
            r.tcb.cc.use_sack(true);
        }
        let board = &mut self.boards[self.replicas[rid].board];
        if board.update(una, max, head.options.sack_blocks()) {
            self.replicas[rid].tcb.heard();
            self.await_answer(now, rid);
        }
    }

    /// The target has something beyond a hole.
    pub(super) fn holes(&self, rid: u32) -> bool {
        let board = self.replicas[rid].board;
        board != NIL && !self.boards[board].is_empty()
    }

    /// Something is out: sets the timer for it, or brings it nearer.
    pub(super) fn await_answer(&mut self, now: Nanos, rid: u32) {
        let (due, probe) = self.replicas[rid].tcb.due(now, self.holes(rid));
        let r = &mut self.replicas[rid];
        if r.rto_at.nanos(now).is_none_or(|at| due < at) {
            r.rto_at = Due::at(due);
            r.tcb.timer_set(probe);
        }
    }

    /// The target has answered, or the oldest of what is out was sent again: sets the timer anew.
    pub(super) fn await_anew(&mut self, now: Nanos, rid: u32) {
        self.replicas[rid].rto_at = Due::NONE;
        self.await_answer(now, rid);
    }

    /// After an acknowledgment was taken in: lets a scoreboard go that has no hole any more, begins
    /// a recovery that it asks for. True if the first unacknowledged segment is to be sent
    /// again now.
    pub(super) fn review_board(&mut self, rid: u32) -> bool {
        let r = &mut self.replicas[rid];
        if r.board == NIL {
            return false;
        }
        let board = &mut self.boards[r.board];
        board.forget_below(r.tcb.snd_una);
        if board.is_empty() && !r.tcb.cc.recovering() {
            self.free_board(rid);
            return false;
        }
        let mss = r.tcb.mss();
        let busy = r.tcb.cc.recovering() || r.tcb.cc.timed_out();
        if busy || !board.first_is_lost(u32::from(mss)) {
            return false;
        }
        let (flight, max) = (r.tcb.snd_max.since(r.tcb.snd_una), r.tcb.snd_max);
        r.tcb.begin_recovery(flight, max);
        true
    }

    /// The scoreboard is of no use any more.
    pub(super) fn free_board(&mut self, rid: u32) {
        let r = &mut self.replicas[rid];
        if r.board != NIL {
            self.boards.free(r.board);
            r.board = NIL;
            r.tcb.cc.use_sack(false);
        }
    }

    /// Bytes on the way to the target, if the scoreboard tells while a loss is being mended.
    pub(super) fn pipe(&self, rid: u32) -> Option<u32> {
        let r = &self.replicas[rid];
        if r.board == NIL || !r.tcb.cc.recovering() {
            return None;
        }
        let (una, max) = (r.tcb.snd_una, r.tcb.snd_max);
        Some(self.boards[r.board].pipe(una, max, u32::from(r.tcb.mss())))
    }

    /// Sends again what the scoreboard says is lost, as far as the window allows (RFC 6675 section
    /// 5, step C).
    pub(super) fn resend_lost(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        while let Some(pipe) = self.pipe(rid) {
            let r = &self.replicas[rid];
            let mss = u32::from(r.tcb.mss());
            if r.tcb.cc.window(r.tcb.mss()) < pipe.saturating_add(mss) {
                return;
            }
            let Some((left, right)) = self.boards[r.board].next_lost(r.tcb.snd_una, mss) else {
                return;
            };
            let sent = self.resend(now, rid, left, right, tx);
            if sent == 0 {
                return;
            }
            let r = &self.replicas[rid];
            self.boards[r.board].high_rxt = left + sent;
            if left == r.tcb.snd_una {
                self.await_anew(now, rid);
            }
        }
    }

    /// Where the search for the segment that holds `left` begins: at the one that was sent again
    /// last if that is not behind it, else at the oldest.
    fn search_from(&self, rid: u32, left: Seq) -> u32 {
        let r = &self.replicas[rid];
        match self.cursor(rid) {
            cursor if cursor != NIL && self.segs[cursor].wire().0.le(left) => cursor,
            _ => r.una,
        }
    }

    /// The segment that was sent again last, or `NIL`.
    pub(super) fn cursor(&self, rid: u32) -> u32 {
        match self.replicas[rid].board {
            NIL => NIL,
            board => self.boards[board].cursor,
        }
    }

    /// The oldest segment that the target has not acknowledged is `una` now; `passed`: the one that
    /// was sent again last is among those that are let go.
    pub(super) fn set_oldest(&mut self, rid: u32, una: u32, passed: bool) {
        let r = &mut self.replicas[rid];
        r.una = una;
        if passed && r.board != NIL {
            self.boards[r.board].cursor = NIL;
        }
    }

    /// Sends again one segment of at most the MSS from `left`, none of it beyond `right`. Returns
    /// how many sequence numbers that were; 0 if the queue refused it.
    fn resend(
        &mut self,
        now: Nanos,
        rid: u32,
        left: Seq,
        right: Seq,
        tx: &mut impl Egress<P>,
    ) -> u32 {
        let mut id = self.search_from(rid, left);
        while id != NIL && self.segs[id].wire().1.le(left) {
            id = self.segs[id].next;
            self.step();
        }
        let r = &self.replicas[rid];
        if r.board != NIL {
            self.boards[r.board].cursor = id;
        }
        if id == NIL || left.lt(self.segs[id].wire().0) {
            if r.tcb.fin_seq() != Some(left) {
                return 0;
            }
            let target = self.addr(r.target);
            let head = r.tcb.head(now, r.flow(target), left, Flags::FIN, 0);
            return u32::from(self.transmit(now, rid, &head, tx));
        }
        let seg = &self.segs[id];
        let (first, end) = seg.wire();
        let at = left.since(first);
        let end = right.min(r.tcb.snd_max).min(end).since(first);
        let n = end.saturating_sub(at).min(u32::from(r.tcb.mss()));
        if n == 0 || !self.send_piece(now, rid, id, at..at + n, tx) {
            return 0;
        }
        self.count(rid).retransmitted_bytes += u64::from(n);
        self.count(rid).retransmitted_segments += 1;
        n
    }

    /// Sends the oldest unacknowledged segment again, without moving `snd_nxt` (RFC 5681 section
    /// 3.2 step 3).
    pub(super) fn retransmit_first(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        let (una, max) = (r.tcb.snd_una, r.tcb.snd_max);
        let sent = self.resend(now, rid, una, max, tx);
        if sent > 0 {
            self.await_anew(now, rid);
            let r = &self.replicas[rid];
            if r.board != NIL {
                let board = &mut self.boards[r.board];
                board.high_rxt = board.high_rxt.max(una + sent);
            }
        }
    }

    /// Nothing was heard for two round trips: what a hole tells of, or else what was sent last,
    /// goes again long before the retransmission timeout (RFC 8985 sections 5 and 7). What
    /// stays out after that is left to the timeout.
    pub(super) fn probe_loss(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let holes = self.holes(rid);
        let r = &mut self.replicas[rid];
        r.rto_at = Due::at(now + r.tcb.rto.timeout());
        let (una, max) = (r.tcb.snd_una, r.tcb.snd_max);
        if r.tcb.cc.timed_out() {
            self.retransmit_first(now, rid, tx);
        } else if holes || r.tcb.cc.recovering() {
            // A hole that stayed is no reordering; one that stays in a recovery has swallowed what
            // was sent again, which counts as another loss (RFC 5681 section 4.3).
            r.tcb.begin_recovery(max.since(una), max);
            if r.board != NIL {
                self.boards[r.board].lose_holes();
            }
            self.retransmit_first(now, rid, tx);
        } else if self.retransmit_last(now, rid, tx) {
            self.replicas[rid].tcb.probed_tail();
        }
    }

    /// Sends the last segment again, or FIN if that was it. False if the queue refused it.
    fn retransmit_last(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) -> bool {
        let r = &self.replicas[rid];
        let max = r.tcb.snd_max;
        let left = if r.tcb.fin_sent {
            max - 1
        } else {
            let mut id = self.search_from(rid, max - 1);
            while id != NIL && self.segs[id].wire().1.lt(max) {
                id = self.segs[id].next;
                self.step();
            }
            if id == NIL {
                return false;
            }
            let r = &self.replicas[rid];
            let mss = u32::from(r.tcb.mss());
            r.tcb.snd_una.max(self.segs[id].wire().0).max(max - mss)
        };
        self.resend(now, rid, left, max, tx) > 0
    }

    /// A window too small to be worth a segment has stayed so: what fits it goes (RFC 9293 section
    /// 3.8.6.2.1).
    pub(super) fn override_window(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        let id = r.nxt;
        if id == NIL || !r.tcb.state.may_send() {
            return;
        }
        let seg = &self.segs[id];
        let at = r.tcb.snd_nxt.since(on_wire(seg.pos));
        if !self.holds_released(rid) || !r.tcb.window_is_silly(seg.len - at) {
            return;
        }
        let n = r.tcb.overriding(seg.len - at);
        if self.send_piece(now, rid, id, at..at + n, tx) {
            self.sent_piece(now, rid, id, n);
        }
    }

    /// The next byte to send is of a turn that the gate has let through. Nothing may go of any
    /// other.
    pub(super) fn holds_released(&self, rid: u32) -> bool {
        let r = &self.replicas[rid];
        r.nxt != NIL && self.segs[r.nxt].turn_number < r.released
    }

    /// One byte beyond a closed window: the answer tells whether it has opened (RFC 9293 section
    /// 3.8.6.1).
    pub(super) fn probe_window(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &self.replicas[rid];
        let id = r.nxt;
        if id == NIL {
            return;
        }
        let at = r.tcb.snd_nxt.since(on_wire(self.segs[id].pos));
        if self.send_piece(now, rid, id, at..at + 1, tx) {
            self.note_departure(now, rid, id);
            self.replicas[rid].tcb.probed();
        }
    }
}
