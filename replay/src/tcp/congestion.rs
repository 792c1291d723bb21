//! Congestion control: slow start, congestion avoidance, fast retransmit and fast recovery (RFC
//! 5681, RFC 6582), appropriate byte counting (RFC 3465), initial window of ten segments (RFC
//! 6928), limited transmit (RFC 3042). While there is a SACK scoreboard, what is on the way is
//! known and the window is not inflated to guess it (RFC 6675).

use wire::Seq;

/// Duplicate acknowledgments that mean a loss (RFC 5681 section 3.2).
const DUP_THRESHOLD: u8 = 3;

/// What the sender is doing about losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// There is none.
    #[default]
    Open,
    /// A fast retransmit is being followed up, until `recover` is acknowledged.
    Recovery,
    /// The last segment was sent again as a probe (RFC 8985 section 7.3), up to `recover`.
    Probed,
    /// The timer has fired, and not all that was out is acknowledged: duplicates are what was sent
    /// again without need (RFC 6582 section 4, RFC 6675 section 5.1).
    TimedOut,
}

/// State of the sender's congestion control, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Congestion {
    cwnd: u32,
    ssthresh: u32,
    /// Bytes acknowledged since the last growth in congestion avoidance.
    acked: u32,
    duplicates: u8,
    /// There is a scoreboard.
    sack: bool,
    phase: Phase,
    /// Unless the phase is open: what ends it when it is acknowledged (RFC 6582 section 3.2).
    recover: Seq,
}

impl Congestion {
    /// At the start of a connection.
    pub fn new(mss: u16) -> Self {
        Self {
            cwnd: 10 * u32::from(mss),
            ssthresh: u32::MAX,
            ..Self::default()
        }
    }

    /// At the start of a connection whose SYN was lost: one segment (RFC 5681 section 3.1).
    pub fn after_lost_syn(mss: u16) -> Self {
        Self {
            cwnd: u32::from(mss),
            ..Self::new(mss)
        }
    }

    /// How many bytes may be in flight. The first duplicate acknowledgments let new segments go
    /// (limited transmit).
    #[inline]
    pub fn window(&self, mss: u16) -> u32 {
        let extra = if self.recovering() {
            0
        } else {
            u32::from(self.duplicates) * u32::from(mss)
        };
        self.cwnd.saturating_add(extra)
    }

    /// Nothing was sent for longer than the retransmission timeout: what was known of the path is
    /// old (RFC 5681 section 4.1).
    pub fn after_idle(&mut self, mss: u16) {
        self.cwnd = self.cwnd.min(Self::new(mss).cwnd);
    }

    /// From now on there is a scoreboard, or there is none.
    pub fn use_sack(&mut self, sack: bool) {
        if sack && !self.sack && self.recovering() {
            self.cwnd = self.ssthresh;
        }
        self.sack = sack;
    }

    /// True between a fast retransmit and the acknowledgment of everything sent before it.
    #[inline]
    pub fn recovering(&self) -> bool {
        self.phase == Phase::Recovery
    }

    /// True between a time-out and the acknowledgment of everything sent before it: no recovery
    /// begins.
    #[inline]
    pub fn timed_out(&self) -> bool {
        self.phase == Phase::TimedOut
    }

    /// The last segment, which ends at `max`, was sent again to learn whether it had arrived.
    pub fn probed(&mut self, max: Seq) {
        self.phase = Phase::Probed;
        self.recover = max;
    }

    /// `ack` acknowledged new bytes; `twice`: the target says that it has got some twice. If the
    /// probe was what made the flight whole, that was a loss like any other (RFC 8985 section
    /// 7.4.2).
    #[inline]
    pub fn probe_answered(&mut self, ack: Seq, twice: bool, mss: u16) {
        if self.phase == Phase::Probed && ack.ge(self.recover) {
            self.phase = Phase::Open;
            if !twice {
                self.ssthresh = (self.cwnd / 2).max(2 * u32::from(mss));
                self.cwnd = self.cwnd.min(self.ssthresh);
            }
        }
    }

    /// `ack` acknowledged `n` new bytes. True if the next hole must be sent again at once (a
    /// partial acknowledgment).
    #[inline]
    pub fn on_ack(&mut self, ack: Seq, n: u32, mss: u16) -> bool {
        let mss = u32::from(mss);
        self.duplicates = 0;
        // After a time-out an acknowledgment may cover what was not sent again: it tells of one
        // segment (RFC 3465 section 2.3).
        let most = if self.timed_out() { mss } else { 2 * mss };
        if self.timed_out() && ack.ge(self.recover) {
            self.phase = Phase::Open;
        }
        if self.recovering() {
            if ack.ge(self.recover) {
                self.cwnd = self.ssthresh;
                self.phase = Phase::Open;
                return false;
            }
            if self.sack {
                return false;
            }
            // Partial acknowledgment: deflate by what left the network, let one segment go (RFC
            // 6582 section 3.2 step 3).
            self.cwnd = self.cwnd.saturating_sub(n).saturating_add(mss).max(mss);
            return true;
        }
        if self.cwnd < self.ssthresh {
            self.cwnd = self.cwnd.saturating_add(n.min(most));
        } else {
            self.acked = self.acked.saturating_add(n);
            if self.acked >= self.cwnd {
                self.acked -= self.cwnd;
                self.cwnd = self.cwnd.saturating_add(mss);
            }
        }
        false
    }

    /// A duplicate acknowledgment came while `flight` bytes were out and `max` was the highest
    /// sequence number sent. True at the one that asks for a fast retransmit.
    #[inline]
    pub fn on_duplicate(&mut self, flight: u32, max: Seq, mss: u16) -> bool {
        if self.recovering() {
            if !self.sack {
                self.cwnd = self.cwnd.saturating_add(u32::from(mss));
            }
            return false;
        }
        if self.timed_out() {
            return false;
        }
        self.duplicates += 1;
        if self.duplicates < DUP_THRESHOLD {
            return false;
        }
        self.enter_recovery(flight, max, mss);
        true
    }

    /// A loss is certain: halve the window and recover until `max` is acknowledged.
    pub fn enter_recovery(&mut self, flight: u32, max: Seq, mss: u16) {
        // What limited transmit has sent beyond the window does not count (RFC 5681 section 3.2
        // step 2).
        let flight = flight.min(self.cwnd);
        self.ssthresh = (flight / 2).max(2 * u32::from(mss));
        let left = if self.sack { 0 } else { 3 * u32::from(mss) };
        self.cwnd = self.ssthresh.saturating_add(left);
        self.phase = Phase::Recovery;
        self.recover = max;
        self.duplicates = 0;
    }

    /// The retransmission timer fired with `flight` bytes out, up to `max` (RFC 5681 section 3.1,
    /// equation 4).
    pub fn on_timeout(&mut self, flight: u32, max: Seq, mss: u16, first: bool) {
        if first {
            self.ssthresh = (flight / 2).max(2 * u32::from(mss));
        }
        self.cwnd = u32::from(mss);
        self.duplicates = 0;
        self.acked = 0;
        self.phase = Phase::TimedOut;
        self.recover = max;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_start_doubles_and_avoidance_adds_one_segment_a_window() {
        let mut c = Congestion::new(1_000);
        assert_eq!(c.window(1_000), 10_000);
        for _ in 0..10 {
            c.on_ack(Seq(0), 1_000, 1_000);
        }
        assert_eq!(c.window(1_000), 20_000);
        c.on_timeout(20_000, Seq(0), 1_000, true);
        assert_eq!(c.window(1_000), 1_000);
        for _ in 0..9 {
            c.on_ack(Seq(0), 1_000, 1_000);
        }
        assert_eq!(
            c.window(1_000),
            10_000,
            "slow start ends at half the flight"
        );
        for _ in 0..10 {
            c.on_ack(Seq(0), 1_000, 1_000);
        }
        assert_eq!(c.window(1_000), 11_000);
    }

    #[test]
    fn third_duplicate_starts_recovery_and_partial_acks_keep_it() {
        let mut c = Congestion::new(1_000);
        let flight = 10_000;
        let max = Seq(10_000);
        assert!(!c.on_duplicate(flight, max, 1_000));
        assert!(!c.on_duplicate(flight, max, 1_000));
        assert_eq!(c.window(1_000), 12_000, "limited transmit");
        assert!(c.on_duplicate(flight, max, 1_000));
        assert_eq!(
            c.window(1_000),
            8_000,
            "half the flight and the three segments that left"
        );
        assert!(!c.on_duplicate(flight, max, 1_000));
        assert_eq!(c.window(1_000), 9_000);
        assert!(
            c.on_ack(Seq(3_000), 3_000, 1_000),
            "a partial acknowledgment asks for the next hole"
        );
        assert!(c.recovering());
        assert!(!c.on_ack(max, 7_000, 1_000));
        assert_eq!(c.window(1_000), 5_000);
        assert!(!c.recovering());
    }
}
