//! Packet I/O over plain memory: the worker loop that runs on an lcore runs over these ports in a
//! test or a bench.
//!
//! What always holds: a payload is a counted reference to the buffer it was received in, so nothing
//! is copied and a test can see from [`MemoryFrame::references`] who still holds a buffer; after
//! construction no call allocates (queues have the capacity they were made with, frames are built
//! beforehand); a full queue refuses and never grows. Ports may be used from several threads; a
//! lock is taken once a burst.

use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::Nanos;
use wire::head::{HeaderBuf, MAX_HEADERS};
use wire::host::{Answer, Answers};
use wire::io::{BURST, Checksum, Frame, Payload, Rx, Tx, TxError};

/// Longest buffer segment in bytes, as in an mbuf: offsets are 16 bits wide.
pub const MAX_SEGMENT: usize = u16::MAX as usize;

/// Length of an Ethernet header, which an MTU does not count.
const ETHERNET: usize = 14;

/// A frame in memory: one counted buffer, or a chain of them.
///
/// Cloning it makes another reference to the same buffers, which a driver never does: it is how a
/// bench sends one pre-built frame many times.
#[derive(Clone)]
pub struct MemoryFrame {
    data: Arc<Box<[u8]>>,
    rest: Option<Arc<MemoryFrame>>,
    captured_at: Option<Nanos>,
    checksum: Checksum,
}

impl MemoryFrame {
    /// A frame with these bytes, chained if they are longer than [`MAX_SEGMENT`].
    pub fn new(bytes: &[u8]) -> Self {
        Self::chained(bytes, MAX_SEGMENT)
    }

    /// A frame whose buffer segments hold at most `segment` bytes each, as a driver with small
    /// buffers delivers a long frame. `segment` is taken as at least 1 and at most
    /// [`MAX_SEGMENT`].
    pub fn chained(bytes: &[u8], segment: usize) -> Self {
        let segment = segment.clamp(1, MAX_SEGMENT);
        let mut rest = None;
        let mut end = bytes.len();
        while end > segment {
            let start = (end - 1) / segment * segment;
            let data = Arc::new(Box::from(&bytes[start..end]));
            rest = Some(Arc::new(Self {
                data,
                rest,
                captured_at: None,
                checksum: Checksum::Unknown,
            }));
            end = start;
        }
        Self {
            data: Arc::new(Box::from(&bytes[..end])),
            rest,
            captured_at: None,
            checksum: Checksum::Unknown,
        }
    }

    /// The same frame, of one buffer segment, with `rest` chained behind it: no byte is copied.
    #[must_use]
    pub fn followed_by(mut self, rest: &Self) -> Self {
        self.rest = Some(Arc::new(rest.clone()));
        self
    }

    /// The same frame with a time of capture, in ns since the epoch.
    #[must_use]
    pub fn captured_at(mut self, at: Nanos) -> Self {
        self.captured_at = Some(at);
        self
    }

    /// The same frame from a driver that knows this of its checksum.
    #[must_use]
    pub fn with_checksum(mut self, known: Checksum) -> Self {
        self.checksum = known;
        self
    }

    /// How many frames and payloads refer to the first buffer, this one included.
    pub fn references(&self) -> usize {
        Arc::strong_count(&self.data)
    }

    /// A copy of all bytes, chained segments included.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = self.data.to_vec();
        let mut next = self.rest.as_deref();
        while let Some(segment) = next {
            all.extend_from_slice(&segment.data);
            next = segment.rest.as_deref();
        }
        all
    }
}

impl fmt::Debug for MemoryFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryFrame({} bytes)", self.frame_len())
    }
}

impl Frame for MemoryFrame {
    type Payload = MemoryPayload;

    fn bytes(&self) -> &[u8] {
        &self.data
    }

    fn frame_len(&self) -> usize {
        let mut len = self.data.len();
        let mut next = self.rest.as_deref();
        while let Some(segment) = next {
            len += segment.data.len();
            next = segment.rest.as_deref();
        }
        len
    }

    fn split_rest(&mut self) -> Option<Self> {
        let rest = self.rest.take()?;
        let captured_at = self.captured_at;
        // A chain that was cloned is shared: then its head is another reference, otherwise it moves
        // out.
        Some(Self {
            captured_at,
            ..Arc::unwrap_or_clone(rest)
        })
    }

    fn captured_at(&self) -> Option<Nanos> {
        self.captured_at
    }

    fn checksum(&self) -> Checksum {
        self.checksum
    }

    fn visit_rest(&self, visit: &mut dyn FnMut(&[u8])) -> bool {
        let mut next = self.rest.as_deref();
        while let Some(segment) = next {
            visit(&segment.data);
            next = segment.rest.as_deref();
        }
        true
    }

    fn into_payload(self, range: Range<usize>) -> MemoryPayload {
        let end = range.end.min(self.data.len());
        let start = range.start.min(end);
        MemoryPayload {
            start: start as u16,
            len: (end - start) as u16,
            data: self.data,
        }
    }
}

/// Part of a received [`MemoryFrame`]: a pointer and two 16-bit numbers.
pub struct MemoryPayload {
    data: Arc<Box<[u8]>>,
    start: u16,
    len: u16,
}

impl MemoryPayload {
    /// How many frames and payloads refer to the buffer, this one included.
    pub fn references(&self) -> usize {
        Arc::strong_count(&self.data)
    }
}

impl fmt::Debug for MemoryPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryPayload({} bytes)", self.len)
    }
}

impl Payload for MemoryPayload {
    type Store = ();

    /// The bytes themselves, so that limits are easy to reckon with.
    fn footprint(&self) -> usize {
        usize::from(self.len)
    }

    fn holds_frame(&self) -> bool {
        true
    }

    fn compact(self, (): &()) -> Self {
        self
    }

    fn bytes(&self) -> &[u8] {
        let start = usize::from(self.start);
        &self.data[start..start + usize::from(self.len)]
    }

    fn share(&self) -> Self {
        Self {
            data: Arc::clone(&self.data),
            start: self.start,
            len: self.len,
        }
    }

    fn trim_front(&mut self, n: usize) {
        let n = n.min(usize::from(self.len)) as u16;
        self.start += n;
        self.len -= n;
    }

    fn truncate(&mut self, n: usize) {
        self.len = n.min(usize::from(self.len)) as u16;
    }
}

/// A frame as it was sent: the headers that were handed over and a reference to the payload behind
/// them.
#[derive(Debug)]
pub struct Sent {
    /// Ethernet to the last TCP option.
    pub headers: HeaderBuf,
    /// What follows, if anything does.
    pub payload: Option<MemoryPayload>,
}

impl Sent {
    /// The payload's bytes, none if there is no payload.
    pub fn payload_bytes(&self) -> &[u8] {
        self.payload.as_ref().map_or(&[], |p| p.bytes())
    }

    /// Length of the frame in bytes.
    pub fn frame_len(&self) -> usize {
        self.headers.len() + self.payload_bytes().len()
    }

    /// The frame in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = self.headers.to_vec();
        all.extend_from_slice(self.payload_bytes());
        all
    }

    /// The frame in one piece, ready to be received by another port.
    pub fn to_frame(&self) -> MemoryFrame {
        MemoryFrame::new(&self.to_vec())
    }
}

/// A bounded queue between a port and the test that stands in for the wire.
#[derive(Debug)]
struct Queue<T> {
    items: Mutex<VecDeque<T>>,
    capacity: usize,
}

impl<T> Queue<T> {
    fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            items: Mutex::new(VecDeque::with_capacity(capacity)),
            capacity,
        })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiving queue of a port in memory.
#[derive(Debug)]
pub struct MemoryRx {
    wire: Arc<Queue<MemoryFrame>>,
}

impl Rx for MemoryRx {
    type Frame = MemoryFrame;

    fn rx_burst(&mut self, out: &mut ArrayVec<MemoryFrame, BURST>) -> usize {
        let mut queue = self.wire.lock();
        let n = queue.len().min(out.remaining_capacity());
        out.extend(queue.drain(..n));
        n
    }
}

/// The transmitting queue of a port in memory.
///
/// It fails on demand in each way that a driver can: [`MemoryTx::set_mtu`], a queue of few
/// descriptors, [`MemoryWire::set_taking`] and [`MemoryWire::set_buffers`].
#[derive(Debug)]
pub struct MemoryTx {
    queued: VecDeque<Sent>,
    descriptors: usize,
    mtu: usize,
    wire: Arc<Queue<Sent>>,
    faults: Arc<Mutex<TxFaults>>,
}

#[derive(Debug)]
struct TxFaults {
    taking: usize,
    buffers: usize,
}

impl MemoryTx {
    /// Sets the MTU in bytes, Ethernet header not counted; 1500 from the start.
    pub fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
    }

    /// Frames that were sent and not yet taken by a flush.
    pub fn queued(&self) -> usize {
        self.queued.len()
    }

    fn faults(&self) -> MutexGuard<'_, TxFaults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tx for MemoryTx {
    type Payload = MemoryPayload;

    fn send(
        &mut self,
        headers: &[u8],
        payload: Option<(&mut MemoryPayload, Range<usize>)>,
    ) -> Result<(), TxError> {
        let payload = payload.map(|(payload, range)| {
            let mut part = payload.share();
            part.truncate(range.end);
            part.trim_front(range.start);
            part
        });
        let length = headers.len() + payload.as_ref().map_or(0, |p| p.bytes().len());
        if headers.len() > MAX_HEADERS || length > self.mtu + ETHERNET {
            return Err(TxError::TooLong);
        }
        if self.queued.len() >= self.descriptors {
            return Err(TxError::Full);
        }
        {
            let mut faults = self.faults();
            if faults.buffers == 0 {
                return Err(TxError::NoBuffer);
            }
            if faults.buffers != usize::MAX {
                faults.buffers -= 1;
            }
        }
        let headers = HeaderBuf::try_from(headers).map_err(|_| TxError::TooLong)?;
        self.queued.push_back(Sent { headers, payload });
        Ok(())
    }

    fn flush(&mut self) -> usize {
        let taking = self.faults().taking;
        let mut wire = self.wire.lock();
        let room = self.wire.capacity.saturating_sub(wire.len());
        let n = self.queued.len().min(room).min(taking);
        wire.extend(self.queued.drain(..n));
        n
    }
}

/// As a mirror port's queue for answers. What is behind the Ethernet header is sent as payload.
impl Answers for MemoryTx {
    fn answer(&mut self, answer: &Answer<'_>) -> bool {
        let (head, rest) = answer.bytes().split_at(ETHERNET);
        let mut rest = MemoryFrame::new(rest).into_payload(0..rest.len());
        let whole = 0..rest.bytes().len();
        let sent = self.send(head, Some((&mut rest, whole))).is_ok();
        self.flush();
        sent
    }
}

/// The other end of a port in memory: what a test puts on the wire and takes from it.
#[derive(Debug, Clone)]
pub struct MemoryWire {
    to_port: Arc<Queue<MemoryFrame>>,
    from_port: Arc<Queue<Sent>>,
    faults: Arc<Mutex<TxFaults>>,
}

impl MemoryWire {
    /// Puts a frame on the wire. False if the port's queue is full: the frame is lost, as in a NIC.
    pub fn push(&self, frame: MemoryFrame) -> bool {
        let mut queue = self.to_port.lock();
        let room = queue.len() < self.to_port.capacity;
        if room {
            queue.push_back(frame);
        }
        room
    }

    /// Puts a frame with these bytes on the wire; like [`MemoryWire::push`], but it allocates.
    pub fn push_bytes(&self, bytes: &[u8]) -> bool {
        self.push(MemoryFrame::new(bytes))
    }

    /// Takes the next frame that the port has sent and flushed.
    pub fn pop(&self) -> Option<Sent> {
        self.from_port.lock().pop_front()
    }

    /// Takes all frames that the port has sent and flushed.
    pub fn drain(&self) -> Vec<Sent> {
        self.from_port.lock().drain(..).collect()
    }

    /// Forgets all frames that the port has sent and flushed, without allocating. Returns how many
    /// they were.
    pub fn discard(&self) -> usize {
        let mut queue = self.from_port.lock();
        let n = queue.len();
        queue.clear();
        n
    }

    /// Frames that the port has not received yet.
    pub fn unread(&self) -> usize {
        self.to_port.lock().len()
    }

    /// How many frames the driver takes in one flush from now on; `usize::MAX` from the start.
    pub fn set_taking(&self, frames: usize) {
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .taking = frames;
    }

    /// How many more sends find a buffer for their headers before [`TxError::NoBuffer`];
    /// `usize::MAX`, which is the start, is no limit.
    pub fn set_buffers(&self, frames: usize) {
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .buffers = frames;
    }
}

/// A port in memory.
#[derive(Debug)]
pub struct MemoryPort {
    /// Its receiving queue.
    pub rx: MemoryRx,
    /// Its transmitting queue.
    pub tx: MemoryTx,
    /// Its other end.
    pub wire: MemoryWire,
}

impl MemoryPort {
    /// A port whose queues have room for this many frames each.
    pub fn new(capacity: usize) -> Self {
        let to_port = Queue::new(capacity);
        let from_port = Queue::new(capacity);
        let faults = Arc::new(Mutex::new(TxFaults {
            taking: usize::MAX,
            buffers: usize::MAX,
        }));
        Self {
            rx: MemoryRx {
                wire: Arc::clone(&to_port),
            },
            tx: MemoryTx {
                queued: VecDeque::with_capacity(capacity),
                descriptors: capacity,
                mtu: 1500,
                wire: Arc::clone(&from_port),
                faults: Arc::clone(&faults),
            },
            wire: MemoryWire {
                to_port,
                from_port,
                faults,
            },
        }
    }
}

/// An endless mirror for benches: yields the same pre-built frames again and again, up to a number
/// of frames.
#[derive(Debug)]
pub struct RepeatRx {
    frames: Vec<MemoryFrame>,
    next: usize,
    left: u64,
}

impl RepeatRx {
    /// Yields `frames` in turn until `count` frames were received.
    pub fn new(frames: Vec<MemoryFrame>, count: u64) -> Self {
        let left = if frames.is_empty() { 0 } else { count };
        Self {
            frames,
            next: 0,
            left,
        }
    }

    /// Frames that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl Rx for RepeatRx {
    type Frame = MemoryFrame;

    fn rx_burst(&mut self, out: &mut ArrayVec<MemoryFrame, BURST>) -> usize {
        let n = out
            .remaining_capacity()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        for _ in 0..n {
            out.push(self.frames[self.next].clone());
            self.next = (self.next + 1) % self.frames.len();
        }
        self.left -= n as u64;
        n
    }
}

/// A wire that takes everything and counts it, for benches.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CountTx {
    /// Frames sent.
    pub frames: u64,
    /// Bytes of these frames.
    pub bytes: u64,
    queued: usize,
}

impl Tx for CountTx {
    type Payload = MemoryPayload;

    fn send(
        &mut self,
        headers: &[u8],
        payload: Option<(&mut MemoryPayload, Range<usize>)>,
    ) -> Result<(), TxError> {
        let payload = payload.map_or(0, |(payload, range)| {
            range
                .end
                .min(payload.bytes().len())
                .saturating_sub(range.start)
        });
        self.frames += 1;
        self.bytes += (headers.len() + payload) as u64;
        self.queued += 1;
        Ok(())
    }

    fn flush(&mut self) -> usize {
        std::mem::take(&mut self.queued)
    }
}

#[cfg(test)]
mod tests;
