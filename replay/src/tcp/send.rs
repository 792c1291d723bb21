//! What may be sent, and what is noted when it was.

use super::rto::Probe;
use super::{State, Tcb};
use wire::{Nanos, Seq};

/// Retransmissions of a SYN before the target counts as unreachable: with back-off about a minute,
/// as Linux does.
pub const SYN_RETRIES: u8 = 5;
/// Retransmissions of data before the connection is given up (R2 of RFC 9293 section 3.8.3): with
/// back-off more than 100 s.
pub const DATA_RETRIES: u8 = 12;

/// The least payload a segment is cut to, whatever a message claims of the path (the least IPv4 MTU
/// of RFC 791 section 3.2 is 68 bytes, but no link has had so little for decades).
const MIN_MSS: u16 = 88;
/// Time-outs in a row after which the path is suspected to swallow large segments: the third in a
/// row.
const BLACK_HOLE: u8 = 2;
/// Payload that fits every IPv4 path of 576 bytes with timestamps and room to spare, and every IPv6
/// path.
const SAFE_MSS: u16 = 512;

impl Tcb {
    /// The path carries no more than `mss` payload bytes in a segment. True if that is news.
    pub fn lower_mss(&mut self, mss: u16) -> bool {
        let lower = mss < self.mss;
        self.mss = self.mss.min(mss.max(MIN_MSS));
        lower
    }

    /// How many of `waiting` payload bytes may go in one segment now; 0 if none. Honours the
    /// target's window, the congestion window, the MSS, and avoids silly windows (RFC 9293
    /// section 3.8.6.2.1). `pipe` is how many bytes are on the way, where a scoreboard tells.
    #[inline]
    pub fn sendable(&self, waiting: u32, pipe: Option<u32>) -> u32 {
        let flight = self.in_flight();
        let allowed = self
            .cc
            .window(self.mss)
            .saturating_sub(pipe.unwrap_or(flight));
        let usable = self.snd_wnd.saturating_sub(flight).min(allowed);
        let n = waiting.min(u32::from(self.mss)).min(usable);
        // What is sent again is no new data that could wait for a larger window.
        let again = self.snd_nxt.lt(self.snd_max);
        if again || n == waiting || n == u32::from(self.mss) || n >= self.max_wnd / 2 {
            n
        } else {
            0
        }
    }

    /// True if the window is open, but so little that nothing is sent while nothing is on the way:
    /// when the override timer fires, what fits goes (RFC 9293 section 3.8.6.2.1).
    #[inline]
    pub fn window_is_silly(&self, waiting: u32) -> bool {
        self.snd_wnd > 0 && !self.outstanding() && self.sendable(waiting, None) == 0
    }

    /// What goes when the override timer fires.
    #[inline]
    pub fn overriding(&self, waiting: u32) -> u32 {
        waiting.min(u32::from(self.mss)).min(self.snd_wnd)
    }

    /// True if the target's window is what keeps data back while nothing but a probe is out: it
    /// must be probed (section 3.8.6.1).
    #[inline]
    pub fn window_closed(&self) -> bool {
        self.snd_wnd == 0 && self.in_flight() == 0
    }

    /// One byte from `snd_nxt` was sent as a probe: it may be acknowledged, but it does not count
    /// as sent.
    pub fn probed(&mut self) {
        self.snd_max = self.snd_max.max(self.snd_nxt + 1);
    }

    /// `n` sequence numbers from `snd_nxt` were sent. Times the segment if it is new and none is
    /// being timed.
    #[inline]
    pub fn sent(&mut self, now: Nanos, n: u32) {
        let end = self.snd_nxt + n;
        if self.snd_nxt == self.snd_max {
            self.time(end, now);
        }
        self.snd_nxt = end;
        self.snd_max = self.snd_max.max(end);
    }

    /// When the timer for what is out is to fire, and whether for a probe: if that may help, else
    /// for the retransmission timeout. `holes`: the target has something beyond a hole.
    ///
    /// A probe needs a target that answers it at once, and says what it has: one with SACK that is
    /// shown a hole or a second segment. A single segment may rightly wait for a delayed
    /// acknowledgment, as long as the timeout (RFC 8985 section 7.2).
    #[inline]
    pub fn due(&self, now: Nanos, holes: bool) -> (Nanos, bool) {
        let helps = self.sack && (holes || self.in_flight() > u32::from(self.mss));
        if helps
            && self.rto.probe != Probe::Sent
            && let Some(wait) = self.rto.probe_timeout()
        {
            return (now + wait, true);
        }
        (now + self.rto.timeout(), false)
    }

    /// The timer is set, for a probe or for the retransmission timeout.
    #[inline]
    pub fn timer_set(&mut self, probe: bool) {
        if probe {
            self.rto.probe = Probe::Armed;
        } else if self.rto.probe == Probe::Armed {
            self.rto.probe = Probe::Idle;
        }
    }

    /// The target told something new: a probe may go again.
    #[inline]
    pub fn heard(&mut self) {
        if self.rto.probe == Probe::Sent {
            self.rto.probe = Probe::Idle;
        }
    }

    /// The timer fired. True if it was set for a probe, which is to go now.
    pub fn take_probe(&mut self) -> bool {
        let due = self.rto.probe == Probe::Armed;
        if due {
            self.rto.probe = Probe::Sent;
        }
        due
    }

    /// The last segment was sent again as a probe.
    pub fn probed_tail(&mut self) {
        self.time_nothing();
        self.cc.probed(self.snd_max);
    }

    /// Our FIN was sent.
    pub fn sent_fin(&mut self, now: Nanos) {
        self.sent(now, 1);
        self.fin_sent = true;
        self.state = match self.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            other => other,
        };
    }

    /// Everything unacknowledged is to be sent again from `snd_una`, for a reason that is no
    /// congestion.
    pub fn restart(&mut self) {
        self.time_nothing();
        self.snd_nxt = self.snd_una;
    }

    /// A loss is certain while `flight` bytes are out and `max` ends what was sent.
    pub fn begin_recovery(&mut self, flight: u32, max: Seq) {
        self.time_nothing();
        self.cc.enter_recovery(flight, max, self.mss);
    }

    /// The retransmission timer fired: everything unacknowledged is to be sent again from `snd_una`
    /// (RFC 6298 section 5.4 to 5.6). Returns `false` when it has fired too often.
    pub fn on_timeout(&mut self) -> bool {
        let limit = if self.state == State::SynSent {
            SYN_RETRIES
        } else {
            DATA_RETRIES
        };
        if self.rto.backoff >= limit {
            return false;
        }
        if self.rto.backoff == BLACK_HOLE && self.state.may_send() {
            // Nothing gets through and no ICMP says why: perhaps full-sized segments do not (RFC
            // 4821 section 7.7).
            self.lower_mss(SAFE_MSS);
        }
        self.cc.on_timeout(
            self.snd_max.since(self.snd_una),
            self.snd_max,
            self.mss,
            self.rto.backoff == 0,
        );
        self.rto.backoff += 1;
        self.time_nothing();
        if self.state != State::SynSent {
            self.snd_nxt = self.snd_una;
        }
        true
    }

    /// Sequence number of our FIN, if it was sent.
    #[inline]
    pub fn fin_seq(&self) -> Option<Seq> {
        self.fin_sent.then(|| self.snd_max - 1)
    }
}
