//! The traits between packet logic and whatever carries packets: DPDK ports on an lcore, a memory
//! port in a test.
//!
//! A received [`Frame`] has one owner. What a session keeps of it becomes a [`Payload`]: a counted
//! reference to part of the very buffer that was received, so nothing is copied, unless it is so
//! short that a copy takes less memory. A [`Tx`] sends
//! headers that it is handed and, behind them, a payload that it takes from that buffer; the caller
//! keeps the payload until the peer has acknowledged it.

use crate::Nanos;
use arrayvec::ArrayVec;
use std::ops::Range;

/// Frames moved by one call to a driver.
pub const BURST: usize = 32;

/// What a driver knows of the TCP checksum of a frame, if it is no tunnel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing: it is to be summed up.
    #[default]
    Unknown,
    /// It is right, or was never needed as the segment did not leave the machine.
    Good,
    /// It is wrong, which one left to hardware is, too: it is to be summed up.
    Bad,
}

/// A received frame, owned by its holder. Dropping it gives the buffer back.
pub trait Frame: Sized {
    /// What remains of the frame when a session keeps part of it.
    type Payload: Payload;

    /// The bytes of the first segment of the buffer: all of the frame unless it came chained.
    fn bytes(&self) -> &[u8];

    /// Length of the whole frame in bytes, all segments counted.
    fn frame_len(&self) -> usize;

    /// Cuts the chain after the first segment and returns the rest, which is a frame without
    /// headers of its own. `None` when there is but one segment.
    fn split_rest(&mut self) -> Option<Self>;

    /// When the frame was captured, if the driver knows, in ns since the epoch: by the clock of
    /// who polls for a frame of a live port, or a capture file's time.
    fn captured_at(&self) -> Option<Nanos>;

    /// True if this host has sent the frame, and it tells when: [`Frame::captured_at`].
    #[inline]
    fn was_sent(&self) -> bool {
        false
    }

    /// What the driver knows of the checksum of the TCP segment that the frame holds. It counts for
    /// plain frames: of a tunnel it may mean the outer headers. By default nothing.
    #[inline]
    fn checksum(&self) -> Checksum {
        Checksum::Unknown
    }

    /// Shows the bytes of each segment of the buffer behind the first, in their order. False if it
    /// cannot, as by default; then a checksum over a chained frame cannot be verified.
    fn visit_rest(&self, visit: &mut dyn FnMut(&[u8])) -> bool {
        let _ = visit;
        false
    }

    /// Keeps `range` of [`Frame::bytes`] and gives up the rest of the frame. A range that is not
    /// inside is cut to what is.
    fn into_payload(self, range: Range<usize>) -> Self::Payload;
}

/// A counted reference to bytes of a received frame. It is as small as a pointer and two 16-bit
/// numbers.
pub trait Payload: Sized {
    /// Where short payloads are copied to.
    type Store;

    /// The bytes.
    fn bytes(&self) -> &[u8];

    /// Memory that it keeps from being used again, in bytes: that of its whole buffer, with what
    /// belongs to it. The same as long as the payload is neither trimmed nor truncated.
    fn footprint(&self) -> usize;

    /// It holds the buffer that the driver received the frame into.
    fn holds_frame(&self) -> bool;

    /// Copies a short payload to a small buffer of `store`, and gives the frame's back. One that
    /// does not fit, or for which no buffer is free, stays as it is.
    fn compact(self, store: &Self::Store) -> Self;

    /// Another reference to the same bytes; no copy is made.
    fn share(&self) -> Self;

    /// Drops `n` bytes at the front (all, if there are fewer).
    fn trim_front(&mut self, n: usize);

    /// Keeps the first `n` bytes (all, if there are fewer).
    fn truncate(&mut self, n: usize);
}

/// A queue that frames are received from.
pub trait Rx {
    /// The frames it yields.
    type Frame: Frame;

    /// Appends what has arrived, at most as many as `out` has room for. Never waits. Returns how
    /// many were appended.
    fn rx_burst(&mut self, out: &mut ArrayVec<Self::Frame, BURST>) -> usize;

    /// Asks the processor for the cache line at the beginning of `of`, without waiting for it. A
    /// hint: by default nothing is done.
    #[inline]
    fn prefetch<T>(of: &T) {
        let _ = of;
    }
}

/// Why a frame could not be queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxError {
    /// The queue is full: try again after the next [`Tx::flush`].
    Full,
    /// No buffer for the headers could be had.
    NoBuffer,
    /// Headers and payload are longer than the port's MTU allows.
    TooLong,
}

/// A queue that frames are sent on.
pub trait Tx {
    /// What it can send behind the headers without copying.
    type Payload: Payload;

    /// Queues one frame: `headers` (Ethernet to TCP options, checksums complete) and behind them
    /// `range` of the payload's bytes. The payload stays with the caller and may be sent again.
    /// On an error nothing was queued.
    fn send(
        &mut self,
        headers: &[u8],
        payload: Option<(&mut Self::Payload, Range<usize>)>,
    ) -> Result<(), TxError>;

    /// [`Rx::prefetch`], for whoever has no queue that frames are received from.
    #[inline]
    fn prefetch<T>(of: &T) {
        let _ = of;
    }

    /// Hands everything queued to the driver. What the driver does not take stays queued. Returns
    /// how many frames it took.
    fn flush(&mut self) -> usize;
}
