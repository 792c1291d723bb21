//! The retransmission timeout (RFC 6298), and the shorter wait for a loss probe (RFC 8985 section
//! 7). Samples come from segments sent once (Karn's rule is the caller's part).

use wire::Nanos;

/// Before any sample (RFC 6298 section 2.1).
const INITIAL_US: u32 = 1_000_000;
/// The same for data behind a SYN that had to be sent again (section 5.7).
const INITIAL_SYN_LOST_US: u32 = 3_000_000;
/// The standard says one second; every large stack uses 200 ms, and a replay on a LAN needs it.
const MIN_US: u32 = 200_000;
const MAX_US: u32 = 60_000_000;
/// The least wait for a loss probe: short of it a busy target is no lossy path.
const MIN_PROBE_US: u32 = 10_000;

/// What a loss probe has to do with the timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The timer is set for the retransmission timeout.
    #[default]
    Idle,
    /// It is set for a probe.
    Armed,
    /// A probe went, and nothing was heard since: the next is the retransmission timeout.
    Sent,
}

/// Smoothed round-trip time and its variation, in µs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rto {
    srtt: u32,
    rttvar: u32,
    /// How often the timer has fired since the last new acknowledgment.
    pub(crate) backoff: u8,
    /// The connection's SYN was sent more than once.
    pub(crate) syn_lost: bool,
    pub(crate) probe: Probe,
}

impl Rto {
    /// A measured round trip (sections 2.2 and 2.3); it ends the back-off.
    #[inline]
    pub fn sample(&mut self, rtt: Nanos) {
        let r = (rtt / 1_000).clamp(1, u64::from(MAX_US)) as u32;
        if self.srtt == 0 {
            self.srtt = r;
            self.rttvar = r / 2;
        } else {
            self.rttvar = self.rttvar - self.rttvar / 4 + self.srtt.abs_diff(r) / 4;
            self.srtt = (self.srtt - self.srtt / 8 + r / 8).max(1);
        }
        self.backoff = 0;
    }

    /// How long to wait now, back-off included (section 2.4, 5.5).
    #[inline]
    pub fn timeout(&self) -> Nanos {
        let base = if self.srtt == 0 && self.syn_lost {
            INITIAL_SYN_LOST_US
        } else if self.srtt == 0 {
            INITIAL_US
        } else {
            self.srtt
                .saturating_add(self.rttvar.saturating_mul(4))
                .max(MIN_US)
        };
        let us = (u64::from(base) << self.backoff.min(16)).min(u64::from(MAX_US));
        us * 1_000
    }

    /// How long to wait for a sign of the target before a probe (RFC 8985 section 7.2); `None` if
    /// the retransmission timeout comes first or there is nothing to judge by.
    #[inline]
    pub(crate) fn probe_timeout(&self) -> Option<Nanos> {
        if self.srtt == 0 || self.backoff > 0 {
            return None;
        }
        let varied = self.srtt.saturating_add(self.rttvar.saturating_mul(4));
        let us = varied.max(self.srtt.saturating_mul(2)).max(MIN_PROBE_US);
        let wait = u64::from(us) * 1_000;
        (wait < self.timeout()).then_some(wait)
    }

    /// The smoothed round-trip time, if there is one.
    #[cfg(test)]
    pub fn srtt(&self) -> Option<Nanos> {
        (self.srtt != 0).then_some(u64::from(self.srtt) * 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn first_timeout_is_a_second_and_backs_off_to_a_minute() {
        let mut r = Rto::default();
        let mut waits = Vec::new();
        for _ in 0..9 {
            waits.push(r.timeout() / 1_000 / MS);
            r.backoff += 1;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn follows_the_standard_s_arithmetic() {
        let mut r = Rto::default();
        r.sample(400 * MS);
        assert_eq!(
            r.timeout(),
            1_200 * MS,
            "SRTT + 4 x RTTVAR with RTTVAR = R/2"
        );
        r.sample(400 * MS);
        assert_eq!(r.timeout(), 1_000 * MS, "RTTVAR falls by a quarter");
        for _ in 0..50 {
            r.sample(MS);
        }
        assert_eq!(r.timeout(), 200 * MS, "the floor");
    }
}
