//! The TCP client endpoint of a replica: RFC 9293 for one connection that we open ourselves.
//!
//! [`Tcb`] is the transmission control block. It holds no data: which bytes a sequence number
//! stands for is known to the session, so that payload stays in the buffers that captured it. Each
//! phase has its module: [`connect`] (SYN to ESTABLISHED), [`incoming`] (segment arrives), [`send`]
//! (what may go), [`rto`] (RFC 6298), [`congestion`] (RFC 5681, 6582), [`sack`] (what arrived
//! beyond a hole), [`receive`] (what the target sent, by header alone).
//! Nothing here reads a clock or sends: every method takes the time and returns what is to be done.
//!
//! What always holds while connected: `snd_una <= snd_nxt <= snd_max`, and `rcv_nxt` never moves
//! back.

pub mod congestion;
pub mod connect;
pub mod incoming;
pub mod receive;
pub mod rto;
pub mod sack;
pub mod send;

pub use incoming::Outcome;

use crate::due::Moment;
use congestion::Congestion;
use receive::Receiver;
use rto::Rto;
use wire::{Flags, Flow, Head, Nanos, Options, Seq};

/// Connection states (RFC 9293 section 3.3.2) that a client can be in. LISTEN and SYN-RECEIVED
/// belong to servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// No connection.
    #[default]
    Closed,
    /// SYN sent.
    SynSent,
    /// Open in both directions.
    Established,
    /// The target has sent its FIN; we have not.
    CloseWait,
    /// Our FIN is sent and not acknowledged; the target's has not come.
    FinWait1,
    /// Our FIN is acknowledged; the target's has not come.
    FinWait2,
    /// Both FINs are sent, ours is not acknowledged.
    LastAck,
    /// Both FINs are sent and acknowledged, ours before the target sent its own: the waiting is
    /// ours, and the target has forgotten the connection.
    TimeWait,
    /// The same, and the target sent its own before: it is in TIME-WAIT, where we are CLOSED.
    PeerTimeWait,
}

impl State {
    /// Payload may be sent.
    #[inline]
    pub fn may_send(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait)
    }

    /// There is a connection that has been established.
    #[inline]
    pub fn is_synchronized(self) -> bool {
        !matches!(self, Self::Closed | Self::SynSent)
    }
}

/// Our window scale shift (RFC 7323 section 2): with it the largest window field says 8 MiB.
pub const WINDOW_SHIFT: u8 = 7;
/// The window field of every segment but SYN. The window never closes: nothing that arrives is
/// stored.
pub const WINDOW: u16 = u16::MAX;
/// The receive window in bytes.
pub const WINDOW_BYTES: u32 = (WINDOW as u32) << WINDOW_SHIFT;
/// Bytes the timestamps option takes in each segment, padding included.
pub(crate) const TIMESTAMP_LEN: u16 = 12;

/// The transmission control block. Sequence numbers are those on the target's wire.
#[derive(Clone, Debug, Default)]
pub struct Tcb {
    /// The state.
    pub state: State,
    /// Peer offered window scaling, so both shifts hold.
    pub(crate) snd_shift: u8,
    pub(crate) timestamps: bool,
    pub(crate) sack: bool,
    /// Our FIN was sent (it may have to be sent again).
    pub(crate) fin_sent: bool,
    /// The target may still hold an older connection on the same ports, whose sequence numbers go
    /// on where that one ended.
    pub(crate) reopened: bool,
    /// Payload bytes a segment may carry, options already taken off.
    pub(crate) mss: u16,
    /// Oldest unacknowledged sequence number.
    pub snd_una: Seq,
    /// Next sequence number to send.
    pub snd_nxt: Seq,
    /// Highest sequence number sent so far, plus one.
    pub snd_max: Seq,
    /// The target's window in bytes.
    pub snd_wnd: u32,
    /// The largest window the target has offered.
    pub(crate) max_wnd: u32,
    pub(crate) snd_wl1: Seq,
    pub(crate) snd_wl2: Seq,
    pub(crate) ts_recent: u32,
    /// Retransmission timer's length.
    pub rto: Rto,
    /// Congestion control.
    pub(crate) cc: Congestion,
    /// The receiving side.
    pub rcv: Receiver,
    /// When the segment that is being timed was sent (RFC 6298 section 4), if one
    /// is.
    timed_at: Moment,
    /// The sequence number that ends it.
    timed_end: Seq,
}

/// Our timestamp clock (RFC 7323 section 5.4): milliseconds. It never restarts while the machine
/// runs.
#[inline]
pub fn timestamp(now: Nanos) -> u32 {
    (now / 1_000_000) as u32
}

impl Tcb {
    /// Header of a segment of this connection.
    #[inline]
    pub fn head(&self, now: Nanos, flow: Flow, seq: Seq, flags: Flags, payload_len: u32) -> Head {
        let mut options = Options::default();
        if self.timestamps {
            options.timestamps = Some((timestamp(now), self.ts_recent));
        }
        // Blocks on a segment with payload would make it longer than the MSS allows (RFC 6691
        // section 3); acknowledgments carry them.
        if self.sack && payload_len == 0 {
            for &(left, right) in self.rcv.gaps() {
                options.push_sack(left, right);
            }
            // 40 bytes hold three blocks beside timestamps (RFC 2018 section 3).
            options.sack_count = options.sack_count.min(if self.timestamps { 3 } else { 4 });
        }
        Head {
            flow,
            seq,
            ack: self.rcv.nxt,
            flags: flags.with(Flags::ACK),
            window: WINDOW,
            urgent: 0,
            options,
            payload_len,
        }
    }

    /// Times the segment that ends at `end` and is sent now, unless one is being timed already.
    #[inline]
    pub(crate) fn time(&mut self, end: Seq, now: Nanos) {
        if !self.timed_at.is_set() {
            self.timed_at = Moment::at(now);
            self.timed_end = end;
        }
    }

    /// Something is sent again: what is being timed would be ambiguous (Karn's rule, RFC 6298
    /// section 3).
    #[inline]
    fn time_nothing(&mut self) {
        self.timed_at = Moment::NONE;
    }

    /// `ack` was acknowledged: a round-trip time, if it covers the segment that was timed.
    #[inline]
    fn take_sample(&mut self, now: Nanos, ack: Seq) {
        if self.timed_at.is_set() && ack.ge(self.timed_end) {
            self.rto.sample(self.timed_at.elapsed(now));
            self.timed_at = Moment::NONE;
        }
    }

    /// Payload bytes one segment may carry.
    #[inline]
    pub fn mss(&self) -> u16 {
        self.mss
    }

    /// Bytes sent and not acknowledged.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.snd_nxt.since(self.snd_una)
    }

    /// True if anything sent is still to be acknowledged, FIN included.
    #[inline]
    pub fn outstanding(&self) -> bool {
        self.snd_una.lt(self.snd_max)
    }
}

#[cfg(test)]
mod tests;
