//! What a segment of the target brings about.

use super::Replicas;
use super::data::{Spoken, Stage};
use crate::core::Egress;
use crate::due::Due;
use crate::slab::NIL;
use crate::tcp::connect::mss_for;
use crate::tcp::{Outcome, State, TIMESTAMP_LEN};
use wire::io::Payload;
use wire::{Flags, Flow, Head, Nanos, Options, Seq};

/// What every IPv4 path carries in practice (RFC 1191 section 3 and 7).
const LEAST_MTU_V4: u32 = 576;
const HALF_AN_HOUR: Nanos = 1_800_000_000_000;
/// How long a target may keep its side open after ours was closed: Linux's `tcp_fin_timeout`.
const FIN_WAIT_2: Nanos = 60_000_000_000;

impl<P: Payload> Replicas<P> {
    /// Takes the header of one segment that the target sent to one of our connections, and that was
    /// received at `at`.
    pub fn response(&mut self, now: Nanos, at: Nanos, head: &Head, tx: &mut impl Egress<P>) {
        self.ledger.common.response_segments += 1;
        let Some(rid) = self.by_flow(&head.flow.reversed()) else {
            self.ledger.common.responses_unknown += 1;
            self.refuse(head, tx);
            return;
        };
        self.note_sack(now, rid, head);
        let limit = self.mss_limit(self.replicas[rid].target);
        let r = &mut self.replicas[rid];
        let outcome = r.tcb.on_segment(now, head, limit);
        if outcome.reset_peer {
            self.refuse(head, tx);
        }
        if outcome.established || outcome.refused {
            self.confirm(rid);
        }
        if outcome.refused || outcome.reset {
            if outcome.acked {
                let r = &self.replicas[rid];
                let (upto, in_a_row) = (r.tcb.snd_una, r.in_a_row);
                self.release_acknowledged(rid, upto);
                self.settle_bytes(rid, upto);
                // It is one more that was reset, whatever arrived before.
                self.replicas[rid].in_a_row = in_a_row;
            }
            self.connection_lost(now, rid, outcome.refused, tx);
            return;
        }
        if outcome.established {
            self.established(rid);
        }
        if outcome.acked {
            self.acknowledged(now, rid);
        }
        self.note_answer(now, at.min(now), rid, head, &outcome);
        if self.review_board(rid) || outcome.retransmit {
            self.retransmit_first(now, rid, tx);
        }
        if outcome.ack_now {
            let r = &mut self.replicas[rid];
            r.rcv_all_acknowledged();
            let upto = r.tcb.rcv.nxt;
            self.send_ack(now, rid, upto, tx);
        } else if outcome.established || outcome.received > 0 {
            self.acknowledge_later(now, rid, tx);
        }
        self.pump(now, rid, tx);
    }

    /// A segment for no connection of ours: RST, as any host would say (RFC 9293 section 3.10.7.1).
    /// It ends what the target still holds of an old connection.
    fn refuse(&mut self, head: &Head, tx: &mut impl Egress<P>) {
        if head.flags.has(Flags::RST) {
            return;
        }
        let Some(target) = self.ends.get(&head.flow.src) else {
            return;
        };
        let with_ack = head.flags.has(Flags::ACK);
        let rst = Head {
            flow: head.flow.reversed(),
            seq: if with_ack { head.ack } else { Seq(0) },
            ack: if with_ack { Seq(0) } else { head.end() },
            flags: if with_ack {
                Flags::RST
            } else {
                Flags::RST.with(Flags::ACK)
            },
            window: 0,
            urgent: 0,
            options: Options::default(),
            payload_len: 0,
        };
        self.send_alone(target, &rst, tx);
    }

    /// See [`crate::Core::too_big`].
    pub fn too_big(
        &mut self,
        now: Nanos,
        flow: &Flow,
        seq: Seq,
        mtu: u32,
        tx: &mut impl Egress<P>,
    ) {
        let Some(rid) = self.by_flow(flow) else {
            return;
        };
        let v4 = flow.dst.addr.is_v4();
        let mtu = match mtu {
            0 => LEAST_MTU_V4,
            // No IPv6 link carries less, so smaller values are lies (RFC 8201 section 4).
            mtu if !v4 => mtu.max(1_280),
            mtu => mtu,
        };
        let r = &mut self.replicas[rid];
        let limit = mss_for(mtu.min(u32::from(u16::MAX)) as u16, v4).saturating_sub(TIMESTAMP_LEN);
        let on_the_way = r.tcb.snd_una.le(seq) && seq.lt(r.tcb.snd_max);
        if r.tcb.state.is_synchronized() && on_the_way && r.tcb.lower_mss(limit) {
            self.count(rid).path_mtu_lowered += 1;
            self.free_board(rid);
            let r = &mut self.replicas[rid];
            r.tcb.restart();
            r.nxt = r.una;
            self.pump(now, rid, tx);
        }
    }

    fn acknowledged(&mut self, now: Nanos, rid: u32) {
        let upto = self.replicas[rid].tcb.snd_una;
        self.release_acknowledged(rid, upto);
        self.settle_bytes(rid, upto);
        self.progressed(now, rid);
        let r = &mut self.replicas[rid];
        r.tcb.heard();
        r.tcb.timer_set(false);
        r.rto_at = match r.tcb.state {
            State::FinWait2 => Due::at(now + FIN_WAIT_2),
            _ => Due::NONE,
        };
        if r.rto_at == Due::NONE && r.tcb.outstanding() {
            self.await_answer(now, rid);
        }
    }

    /// Notes for the gate and for the latency what the target has answered.
    fn note_answer(&mut self, now: Nanos, at: Nanos, rid: u32, head: &Head, outcome: &Outcome) {
        self.count(rid).response_bytes += u64::from(outcome.received);
        if !outcome.payload && !outcome.fin {
            return;
        }
        let r = &self.replicas[rid];
        let quiet_since = r.progress_at.nanos(now).unwrap_or(now);
        self.progressed(now, rid);
        let r = &mut self.replicas[rid];
        r.in_a_row.answered();
        // The client acknowledges a FIN like a byte.
        let bytes = u64::from(outcome.received) + u64::from(outcome.fin);
        let ended = head.flags.has(Flags::PSH) || head.flags.has(Flags::FIN);
        // A moment is told apart from its like 73 minutes later by what the target did since.
        let latency = match at.saturating_sub(quiet_since) {
            long if long > HALF_AN_HOUR => long,
            _ => r.sent_at.elapsed(at),
        };
        r.answer.arrived(at, latency, bytes, ended);
        if r.tcb.state == State::FinWait2 {
            // A half-closed connection lives as long as the target has something to say.
            r.rto_at = Due::at(now + FIN_WAIT_2);
        }
        if outcome.payload && r.spoken != Spoken::Answered && r.released > 0 {
            r.spoken = Spoken::Answered;
            let t = self.ledger.target(r.target);
            t.responses += 1;
            // An answer before the turn's last byte went out (100 Continue, an early error) says
            // nothing about the latency.
            if r.nxt == NIL || self.segs[r.nxt].turn_number >= r.released {
                t.target_latency.record(latency);
            }
        }
    }

    /// The client would have acknowledged this after its round-trip time.
    fn acknowledge_later(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &mut self.replicas[rid];
        let rtt = self.fans.target(r.target).rtt;
        let delay = rtt.unwrap_or(self.feeds[r.feed as usize].rtt());
        r.tcb.rcv.acknowledge_at(now + delay);
        if delay < crate::wheel::TICK {
            // The wheel cannot tell it from none. The segment says the time it is now: a timestamp
            // from the future would make those that follow look old (PAWS).
            self.acknowledge_by(now, now + 2 * crate::wheel::TICK, rid, tx);
        }
    }

    /// Sends the acknowledgment that is due, if one is.
    pub(super) fn acknowledge_due(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        self.acknowledge_by(now, now, rid, tx);
    }

    /// Sends the acknowledgment that is due at `due`, if one is.
    fn acknowledge_by(&mut self, now: Nanos, due: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let r = &mut self.replicas[rid];
        if r.tcb.state == State::Closed {
            return;
        }
        let due = r.tcb.rcv.take_due(due);
        if due || r.leave(Stage::AckRefused) {
            let upto = r.tcb.rcv.acked;
            self.send_ack(now, rid, upto, tx);
        }
    }
}
