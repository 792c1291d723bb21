//! A segment arrives (RFC 9293 section 3.10.7.4, with the checks of RFC 5961 and PAWS of RFC 7323).

use super::{State, Tcb, WINDOW_BYTES};
use wire::{Flags, Head, Nanos};

/// What a segment of the target brought about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The connection is established.
    pub established: bool,
    /// The target refused the connection.
    pub refused: bool,
    /// The target reset the connection.
    pub reset: bool,
    /// The segment belongs to no connection of ours and is to be answered with RST.
    pub reset_peer: bool,
    /// `snd_una` moved.
    pub acked: bool,
    /// Payload bytes that came in order by this segment.
    pub received: u32,
    /// The segment carried payload that was new.
    pub payload: bool,
    /// The target's FIN came in order.
    pub fin: bool,
    /// An acknowledgment must go at once: a duplicate, a gap, a challenge.
    pub ack_now: bool,
    /// The oldest unacknowledged segment is to be sent again at once.
    pub retransmit: bool,
}

impl Tcb {
    /// Takes one segment of the target. `limit` is the largest payload our side can send in a
    /// segment.
    #[inline]
    pub fn on_segment(&mut self, now: Nanos, head: &Head, limit: u16) -> Outcome {
        match self.state {
            State::Closed => Outcome {
                reset_peer: !head.flags.has(Flags::RST),
                ..Outcome::default()
            },
            State::SynSent => self.on_syn_sent(now, head, limit),
            _ => self.on_synchronized(now, head),
        }
    }

    fn on_synchronized(&mut self, now: Nanos, head: &Head) -> Outcome {
        let mut outcome = Outcome::default();
        if !self.acceptable(head) {
            outcome.ack_now = !head.flags.has(Flags::RST);
            return outcome;
        }
        if head.flags.has(Flags::RST) {
            // Only the exact sequence number resets, any other in the window is challenged (RFC
            // 5961 section 3.2).
            if head.seq == self.rcv.nxt {
                // A host that gives a connection up says what it has received until then.
                let ack = head.ack;
                if head.flags.has(Flags::ACK) && ack.gt(self.snd_una) && ack.le(self.snd_max) {
                    self.snd_una = ack;
                    self.snd_nxt = self.snd_nxt.max(ack);
                    outcome.acked = true;
                }
                self.state = State::Closed;
                outcome.reset = true;
            } else {
                outcome.ack_now = true;
            }
            return outcome;
        }
        if head.flags.has(Flags::SYN) || !head.flags.has(Flags::ACK) {
            // A SYN on a live connection is challenged (RFC 5961 section 4.2): our ACK of its
            // SYN|ACK may have been lost.
            outcome.ack_now = head.flags.has(Flags::SYN);
            return outcome;
        }
        if head.ack.gt(self.snd_max) || head.ack.lt(self.snd_una - self.max_wnd) {
            // Acknowledges what was never sent, or what no window reaches back to: nothing of it
            // counts (RFC 5961 section 5.2).
            outcome.ack_now = true;
            return outcome;
        }
        if let Some((value, _)) = head.options.timestamps
            && head.seq.le(self.rcv.acked)
        {
            self.ts_recent = value;
        }
        self.on_ack(now, head, &mut outcome);
        self.on_payload(head, &mut outcome);
        outcome
    }

    /// The segment lies in the receive window (section 3.10.7.4, first check) and is not older than
    /// what came (PAWS).
    fn acceptable(&self, head: &Head) -> bool {
        if self.timestamps
            && let Some((value, _)) = head.options.timestamps
            && !head.flags.has(Flags::RST)
            && (value.wrapping_sub(self.ts_recent) as i32) < 0
        {
            return false;
        }
        let nxt = self.rcv.nxt;
        let edge = nxt + WINDOW_BYTES;
        let end = head.end();
        if end == head.seq {
            nxt.le(head.seq) && head.seq.lt(edge)
        } else {
            head.seq.lt(edge) && nxt.lt(end)
        }
    }

    fn on_ack(&mut self, now: Nanos, head: &Head, outcome: &mut Outcome) {
        let ack = head.ack;
        let window = u32::from(head.window) << self.snd_shift;
        if ack.gt(self.snd_una) {
            let n = ack.since(self.snd_una);
            self.take_sample(now, ack);
            self.rto.backoff = 0;
            self.snd_una = ack;
            self.snd_nxt = self.snd_nxt.max(ack);
            outcome.acked = true;
            let twice = head.options.sack_blocks().first();
            let twice = twice.is_some_and(|(_, right)| right.le(ack));
            self.cc.probe_answered(ack, twice, self.mss);
            outcome.retransmit = self.cc.on_ack(ack, n, self.mss);
            if self.fin_sent && ack == self.snd_max {
                self.state = match self.state {
                    State::FinWait1 => State::FinWait2,
                    State::LastAck => State::PeerTimeWait,
                    other => other,
                };
            }
        } else if ack == self.snd_una
            && head.payload_len == 0
            && !head.flags.has(Flags::FIN)
            && window == self.snd_wnd
            && self.outstanding()
            && self
                .cc
                .on_duplicate(self.snd_max.since(self.snd_una), self.snd_max, self.mss)
        {
            self.time_nothing();
            outcome.retransmit = true;
        }
        // Only a newer segment may set the window (section 3.10.7.4, fifth check). One that
        // acknowledges more is newer, even if it carries old data again: keeping the window
        // while `snd_una` moves would reach beyond what the target offers.
        let newer = outcome.acked
            || self.snd_wl1.lt(head.seq)
            || (self.snd_wl1 == head.seq && self.snd_wl2.le(ack));
        if ack.ge(self.snd_una) && newer {
            self.snd_wnd = window;
            self.max_wnd = self.max_wnd.max(window);
            self.snd_wl1 = head.seq;
            self.snd_wl2 = ack;
        }
    }

    fn on_payload(&mut self, head: &Head, outcome: &mut Outcome) {
        let fin = head.flags.has(Flags::FIN);
        if head.payload_len == 0 && !fin {
            return;
        }
        if self.peer_closed() {
            outcome.ack_now = true;
            return;
        }
        let before = self.rcv.nxt;
        let gaps = !self.rcv.gaps().is_empty();
        let end = head.seq + head.payload_len;
        let new = end.gt(before);
        if head.payload_len > 0 {
            outcome.received = self.rcv.arrived(head.seq, end);
        }
        outcome.payload = head.payload_len > 0 && new;
        if fin && self.rcv.nxt == end {
            self.rcv.nxt += 1;
            outcome.fin = true;
            self.state = match self.state {
                State::Established => State::CloseWait,
                State::FinWait1 => State::LastAck,
                State::FinWait2 => State::TimeWait,
                other => other,
            };
        }
        // At once: what is beyond a gap, and what fills one, be it the last (RFC 5681 section 4.2).
        outcome.ack_now = self.rcv.nxt == before || outcome.fin || gaps;
    }

    /// The target has closed its side.
    #[inline]
    pub fn peer_closed(&self) -> bool {
        matches!(
            self.state,
            State::CloseWait | State::LastAck | State::TimeWait | State::PeerTimeWait
        )
    }
}
