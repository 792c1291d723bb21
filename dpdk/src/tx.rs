//! Transmit queues.
//!
//! A frame is headers, copied from the caller, and payload, which is not copied wherever that is
//! possible. Three ways lead there:
//!
//! - *in place*: the payload's mbuf has no other holder, and the payload is sent from its first
//!   byte on. The headers go into the buffer just before it, and the driver gets a second
//!   reference. No other mbuf is needed.
//! - *indirect*: the buffer is shared (with a copy of the session, or with a driver that still
//!   sends it), or only a later part of the payload is sent, whose front must stay as it is for
//!   retransmission. A header mbuf is chained to an indirect one that refers to the bytes.
//! - *copied*: the port cannot send chains, or the buffer is of a kind that cannot be referred to.
//!
//! Whatever the driver does not take stays queued here. Every mbuf has one owner at all times: the
//! caller, this queue, or the driver.

use crate::mbuf::Mbuf;
use crate::mempool::Mempool;
use crate::payload::Payload;
use crate::port::Inner;
use crate::raw::{self, Kind};
use arrayvec::ArrayVec;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use wire::io::{BURST, TxError};

/// Frames that a queue holds back while the driver is full.
const CAPACITY: usize = 2 * BURST;
/// Calls to the driver per flush: it may take less than it could have at first, and must not be
/// asked for ever.
const ROUNDS: usize = 4;

/// What a transmit queue has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TxCounters {
    /// Frames the driver took.
    pub frames: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Frames queued without payload.
    pub header_only: u64,
    /// Frames queued with their headers put before the payload.
    pub in_place: u64,
    /// Frames queued with a reference to the payload.
    pub indirect: u64,
    /// Frames queued with a copy of the payload.
    pub copied: u64,
    /// Times that a frame was refused as the queue was full.
    pub full: u64,
    /// Times that a frame was refused for lack of a buffer.
    pub no_buffer: u64,
    /// Times that a frame was refused as too long, or as promising bytes that its payload has not.
    pub too_long: u64,
}

/// The one handle of a transmit queue. It moves to the core that uses it and can neither be copied
/// nor shared.
///
/// ```compile_fail
/// fn twice(q: dpdk::TxQueue) -> (dpdk::TxQueue, dpdk::TxQueue) {
///     (q.clone(), q)
/// }
/// ```
///
/// ```compile_fail
/// fn shared<T: Sync>() {}
/// shared::<dpdk::TxQueue>();
/// ```
#[derive(Debug)]
pub struct TxQueue {
    /// Frames accepted and not yet taken by the driver. Before `port`, so that they are gone when
    /// the port closes.
    pending: ArrayVec<Mbuf, CAPACITY>,
    counters: TxCounters,
    number: u16,
    queue: u16,
    mtu: usize,
    chains: bool,
    header_pool: Mempool,
    copy_pool: Mempool,
    port: Arc<Inner>,
    _unsync: PhantomData<Cell<()>>,
}

impl TxQueue {
    pub(crate) fn new(
        port: Arc<Inner>,
        queue: u16,
        header_pool: Mempool,
        copy_pool: Mempool,
    ) -> Self {
        let info = port.info();
        Self {
            pending: ArrayVec::new(),
            counters: TxCounters::default(),
            number: port.number(),
            queue,
            mtu: info.mtu.into(),
            chains: info.chains,
            header_pool,
            copy_pool,
            port,
            _unsync: PhantomData,
        }
    }

    /// Index of the queue in its port.
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// What its port is and can do.
    pub fn port(&self) -> &crate::PortInfo {
        self.port.info()
    }

    /// What it has done so far.
    pub fn counters(&self) -> TxCounters {
        self.counters
    }

    /// Frames accepted that the driver has not taken yet.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// See [`wire::io::Tx::send`]. A range that is not inside the payload is refused as
    /// [`TxError::TooLong`]: the headers would promise bytes that do not exist.
    #[inline]
    pub fn send(
        &mut self,
        headers: &[u8],
        payload: Option<(&mut Payload, Range<usize>)>,
    ) -> Result<(), TxError> {
        let result = self.queue_frame(headers, payload);
        match result {
            Ok(()) => {}
            Err(TxError::Full) => self.counters.full += 1,
            Err(TxError::NoBuffer) => self.counters.no_buffer += 1,
            Err(TxError::TooLong) => self.counters.too_long += 1,
        }
        result
    }

    #[inline]
    fn queue_frame(
        &mut self,
        headers: &[u8],
        payload: Option<(&mut Payload, Range<usize>)>,
    ) -> Result<(), TxError> {
        if self.pending.len() >= BURST {
            self.flush();
            if self.pending.is_full() {
                return Err(TxError::Full);
            }
        }
        let len = payload.as_ref().map_or(0, |(_, r)| r.len());
        if headers.len() + len > self.mtu + link_header_len(headers) {
            return Err(TxError::TooLong);
        }
        let frame = match payload {
            Some((payload, range)) if len > 0 => {
                if range.end > payload.len() {
                    return Err(TxError::TooLong);
                }
                self.with_payload(headers, payload, range)?
            }
            _ => {
                let frame = header_mbuf(&self.header_pool, headers)?;
                self.counters.header_only += 1;
                frame
            }
        };
        self.pending.try_push(frame).map_err(|_| TxError::Full)
    }

    #[inline]
    fn with_payload(
        &mut self,
        headers: &[u8],
        payload: &mut Payload,
        range: Range<usize>,
    ) -> Result<Mbuf, TxError> {
        // Only from its first byte on: what lies before a later part is payload that may have to be
        // sent again.
        if range.start == 0
            && let Some(frame) = in_place(headers, payload, range.end)
        {
            self.counters.in_place += 1;
            return Ok(frame);
        }
        if self.chains && payload.kind() != Kind::External {
            let frame = self.indirect(headers, payload, range)?;
            self.counters.indirect += 1;
            return Ok(frame);
        }
        let frame = self.copied(headers, payload.bytes().get(range).unwrap_or_default())?;
        self.counters.copied += 1;
        Ok(frame)
    }

    #[inline]
    fn indirect(
        &self,
        headers: &[u8],
        payload: &Payload,
        range: Range<usize>,
    ) -> Result<Mbuf, TxError> {
        if !payload.has_room_for_reference() {
            return Err(TxError::NoBuffer);
        }
        let head = header_mbuf(&self.header_pool, headers)?;
        let tail = self.header_pool.alloc().ok_or(TxError::NoBuffer)?;
        let (head, tail) = (head.into_raw(), tail.into_raw());
        let len = range.len() as u16;
        // SAFETY: both are fresh, direct, single and ours. `payload` is alive, has no external
        // buffer, and the range is inside its bytes, hence inside the buffer. The chain
        // takes over the references of both.
        unsafe {
            dpdk_sys::shim_attach(
                tail.as_ptr(),
                payload.ptr(),
                payload.offset() + range.start as u16,
                len,
            );
            raw::set_next(head.as_ptr(), tail.as_ptr());
            raw::set_nb_segs(head.as_ptr(), 2);
            raw::set_pkt_len(head.as_ptr(), headers.len() as u32 + u32::from(len));
            Ok(Mbuf::from_raw(head))
        }
    }

    /// Queues a whole frame, copied into a buffer of those that frames are received into.
    pub(crate) fn send_whole(&mut self, frame: &[u8]) -> Result<(), TxError> {
        if self.pending.is_full() {
            return Err(TxError::Full);
        }
        if frame.len() > self.mtu + link_header_len(frame) {
            return Err(TxError::TooLong);
        }
        let frame = self.copied(frame, &[])?;
        self.pending.try_push(frame).map_err(|_| TxError::Full)
    }

    fn copied(&self, headers: &[u8], bytes: &[u8]) -> Result<Mbuf, TxError> {
        let mut frame = self.copy_pool.alloc().ok_or(TxError::NoBuffer)?;
        if frame.append(headers) && frame.append(bytes) {
            Ok(frame)
        } else {
            Err(TxError::TooLong)
        }
    }

    /// See [`wire::io::Tx::flush`].
    #[inline]
    pub fn flush(&mut self) -> usize {
        let mut taken = 0;
        for _ in 0..ROUNDS {
            if self.pending.is_empty() {
                break;
            }
            let n = hand_over(
                self.number,
                self.queue,
                &mut self.pending,
                &mut self.counters,
            );
            if n == 0 {
                break;
            }
            taken += n;
        }
        taken
    }

    /// Sends whole frames, in order, behind what is queued. What the driver does not take stays in
    /// `frames`. Returns how many it took.
    #[inline]
    pub fn tx_burst<const N: usize>(&mut self, frames: &mut ArrayVec<Mbuf, N>) -> usize {
        if !self.pending.is_empty() {
            self.flush();
            if !self.pending.is_empty() {
                return 0;
            }
        }
        if frames.is_empty() {
            return 0;
        }
        hand_over(self.number, self.queue, frames, &mut self.counters)
    }
}

impl wire::io::Tx for TxQueue {
    type Payload = Payload;

    #[inline]
    fn send(
        &mut self,
        headers: &[u8],
        payload: Option<(&mut Payload, Range<usize>)>,
    ) -> Result<(), TxError> {
        self.send(headers, payload)
    }

    #[inline]
    fn prefetch<T>(of: &T) {
        crate::prefetch(of);
    }

    #[inline]
    fn flush(&mut self) -> usize {
        self.flush()
    }
}

/// One call to the driver. What it takes leaves `frames`, the rest moves to the front.
#[inline]
fn hand_over<const N: usize>(
    port: u16,
    queue: u16,
    frames: &mut ArrayVec<Mbuf, N>,
    counters: &mut TxCounters,
) -> usize {
    let len = frames.len();
    let ask = len.min(u16::MAX.into());
    // Lengths are read before the call: what the driver has taken is no longer ours to read.
    let mut lengths = [0u32; CAPACITY];
    for (length, frame) in lengths.iter_mut().zip(frames.iter().take(ask)) {
        *length = frame.frame_len() as u32;
    }
    let ask = ask.min(CAPACITY);
    // SAFETY: the port is started while the queue's handle lives, and this is the one handle of its
    // queue. `Mbuf` is a transparent pointer. The driver takes over the first `taken` frames,
    // which are forgotten here without being freed, and leaves the others alone.
    let taken = unsafe {
        let start = frames.as_mut_ptr();
        let taken = usize::from(dpdk_sys::shim_tx_burst(
            port,
            queue,
            start.cast(),
            ask as u16,
        ))
        .min(ask);
        std::ptr::copy(start.add(taken), start, len - taken);
        frames.set_len(len - taken);
        taken
    };
    counters.frames += taken as u64;
    counters.bytes += lengths
        .iter()
        .take(taken)
        .map(|l| u64::from(*l))
        .sum::<u64>();
    taken
}

/// A fresh mbuf with these bytes.
#[inline]
fn header_mbuf(pool: &Mempool, headers: &[u8]) -> Result<Mbuf, TxError> {
    let mut frame = pool.alloc().ok_or(TxError::NoBuffer)?;
    if frame.append(headers) {
        Ok(frame)
    } else {
        Err(TxError::TooLong)
    }
}

/// Puts the headers before the first `len` bytes of the payload and makes a frame of both, if its
/// buffer is not shared and has the room.
#[inline]
fn in_place(headers: &[u8], payload: &mut Payload, len: usize) -> Option<Mbuf> {
    payload.front_mut(headers.len())?.copy_from_slice(headers);
    let off = payload.offset() - headers.len() as u16;
    let total = headers.len() + len;
    let m = NonNull::new(payload.ptr())?;
    // SAFETY: `front_mut` has found that the payload's reference is the only one and the mbuf
    // direct, so its metadata is the holder's, who is borrowed mutably. Headers and payload are
    // adjacent and inside the buffer, so their length fits 16 bits. The second reference is the
    // frame's; from here on the metadata belongs to it, and the payload reads none.
    unsafe {
        dpdk_sys::shim_refcnt_update(m.as_ptr(), 1);
        raw::set_data_off(m.as_ptr(), off);
        raw::set_data_len(m.as_ptr(), total as u16);
        raw::set_pkt_len(m.as_ptr(), total as u32);
        raw::set_nb_segs(m.as_ptr(), 1);
        raw::set_next(m.as_ptr(), std::ptr::null_mut());
        raw::set_ol_flags(m.as_ptr(), 0);
        raw::set_tx_offload(m.as_ptr(), 0);
        raw::set_vlan_tci(m.as_ptr(), 0);
        Some(Mbuf::from_raw(m))
    }
}

/// Bytes before the IP header, by the EtherTypes: 14, and 4 for each of at most two VLAN tags (IEEE
/// 802.1Q, 802.1ad).
#[inline]
fn link_header_len(headers: &[u8]) -> usize {
    let tagged = |at: usize| matches!(headers.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]));
    match (tagged(12), tagged(16)) {
        (false, _) => 14,
        (true, false) => 18,
        (true, true) => 22,
    }
}
