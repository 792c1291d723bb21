//! From CLOSED to ESTABLISHED: the SYN we send and the answers to it (RFC 9293 section 3.10.7.3).

use super::{
    Congestion, Outcome, Receiver, State, TIMESTAMP_LEN, Tcb, WINDOW, WINDOW_SHIFT, timestamp,
};
use wire::{Flags, Flow, Head, Nanos, Options, Seq};

/// MSS to assume when the peer does not say (RFC 9293 section 3.7.1, MUST-15).
const fn default_mss(v4: bool) -> u16 {
    if v4 { 536 } else { 1_220 }
}

/// The least that a peer may ask for, options included: less than Linux's `tcp_min_snd_mss` would
/// cost more in headers than it carries.
const LEAST_MSS: u16 = 48;

/// The largest segment that fits an IP packet of `mtu` bytes, without TCP options.
pub const fn mss_for(mtu: u16, v4: bool) -> u16 {
    mtu.saturating_sub(if v4 { 40 } else { 60 })
}

impl Tcb {
    /// A connection that begins with initial sequence number `iss`; its SYN is still to be sent.
    pub fn opening(iss: Seq) -> Self {
        Self {
            state: State::SynSent,
            snd_una: iss,
            snd_nxt: iss + 1,
            snd_max: iss + 1,
            ..Self::default()
        }
    }

    /// The SYN, first or again. `mss` is what we can receive.
    pub fn syn(&self, now: Nanos, flow: Flow, mss: u16) -> Head {
        let options = Options {
            mss: Some(mss),
            window_scale: Some(WINDOW_SHIFT),
            sack_permitted: true,
            timestamps: Some((timestamp(now), 0)),
            ..Options::default()
        };
        Head {
            flow,
            seq: self.snd_una,
            ack: Seq(0),
            flags: Flags::SYN,
            window: WINDOW,
            urgent: 0,
            options,
            payload_len: 0,
        }
    }

    /// A segment arrives in SYN-SENT. `limit` is the largest payload our side can send in a
    /// segment.
    pub(super) fn on_syn_sent(&mut self, now: Nanos, head: &Head, limit: u16) -> Outcome {
        let mut outcome = Outcome::default();
        let acceptable = head.flags.has(Flags::ACK) && head.ack == self.snd_nxt;
        if head.flags.has(Flags::ACK) && !acceptable {
            // An old connection of the target's: told to go away (first check of section 3.10.7.3).
            outcome.reset_peer = !head.flags.has(Flags::RST);
            return outcome;
        }
        if head.flags.has(Flags::RST) {
            if acceptable {
                self.state = State::Closed;
                outcome.refused = true;
            }
            return outcome;
        }
        if !head.flags.has(Flags::SYN) || !acceptable {
            // The challenge of an old connection that had all of the stream before this SYN looks
            // acceptable, since the client's sequence numbers are kept: it has to go,
            // or it answers every SYN like this.
            outcome.reset_peer = acceptable && self.reopened;
            return outcome;
        }
        let v4 = head.flow.src.addr.is_v4();
        let options = &head.options;
        let said = options.mss.filter(|mss| *mss > 0);
        let peer_mss = said.unwrap_or(default_mss(v4)).max(LEAST_MSS);
        self.timestamps = options.timestamps.is_some();
        self.sack = options.sack_permitted;
        // A peer that does not scale its window must not see ours scaled (RFC 7323 section 2.2):
        // 65535 bytes do as well.
        self.snd_shift = options.window_scale.map_or(0, |s| s.min(14));
        let taken = if self.timestamps { TIMESTAMP_LEN } else { 0 };
        self.mss = peer_mss.min(limit).saturating_sub(taken).max(1);
        // It was sent again, so it counts as lost (RFC 6298 section 5.7, RFC 5681 section 3.1).
        self.rto.syn_lost = self.rto.backoff > 0;
        self.cc = if self.rto.syn_lost {
            Congestion::after_lost_syn(self.mss)
        } else {
            Congestion::new(self.mss)
        };
        self.rcv = Receiver::new(head.seq);
        self.ts_recent = options.timestamps.map_or(0, |t| t.0);
        self.snd_una = head.ack;
        self.snd_wnd = u32::from(head.window);
        self.max_wnd = self.snd_wnd;
        self.snd_wl1 = head.seq;
        self.snd_wl2 = head.ack;
        self.take_sample(now, head.ack);
        self.rto.backoff = 0;
        self.state = State::Established;
        outcome.established = true;
        outcome
    }
}
