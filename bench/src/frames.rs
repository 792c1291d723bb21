//! Frames for the bench: recycled buffers with counted references, as mbufs are, in safe code and
//! without an allocation while running.
//!
//! What always holds: a buffer is written only while nobody refers to it.

use std::ops::Range;
use std::rc::Rc;
use wire::Nanos;
use wire::io::{Frame, Payload};

/// Data room of a buffer in bytes, as in an mbuf.
pub const ROOM: usize = 2048;
/// Buffers looked at for a free one.
const PROBES: usize = 1024;

/// One buffer.
pub type Buffer = [u8; ROOM];

/// Where frames are made: a pool in memory, or a mempool.
pub trait Maker {
    /// What it makes.
    type Frame: Frame;

    /// A frame of `len` bytes, whose first ones `write` has put into a buffer; it returns `len`, at
    /// most [`ROOM`]. `None` if no buffer is free.
    fn make(&mut self, write: impl FnOnce(&mut Buffer) -> usize) -> Option<Self::Frame>;
}

/// A pool of buffers, dealt out round and round like a NIC's ring.
pub struct Pool {
    buffers: Vec<Rc<Buffer>>,
    next: usize,
}

impl Pool {
    /// A pool of `count` buffers, at least one.
    pub fn new(count: usize) -> Self {
        let buffers = (0..count.max(1)).map(|_| Rc::new([b'x'; ROOM])).collect();
        Self { buffers, next: 0 }
    }
}

impl Maker for Pool {
    type Frame = BenchFrame;

    #[inline]
    fn make(&mut self, write: impl FnOnce(&mut Buffer) -> usize) -> Option<BenchFrame> {
        for _ in 0..PROBES.min(self.buffers.len()) {
            let at = self.next;
            self.next = if at + 1 == self.buffers.len() {
                0
            } else {
                at + 1
            };
            let Some(data) = self.buffers.get_mut(at) else {
                break;
            };
            if let Some(bytes) = Rc::get_mut(data) {
                let len = write(bytes).min(ROOM) as u16;
                return Some(BenchFrame {
                    data: Rc::clone(data),
                    len,
                });
            }
        }
        None
    }
}

/// A frame in one buffer of a [`Pool`].
pub struct BenchFrame {
    data: Rc<Buffer>,
    len: u16,
}

impl Frame for BenchFrame {
    type Payload = BenchPayload;

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.data[..usize::from(self.len)]
    }

    #[inline]
    fn frame_len(&self) -> usize {
        usize::from(self.len)
    }

    #[inline]
    fn split_rest(&mut self) -> Option<Self> {
        None
    }

    #[inline]
    fn captured_at(&self) -> Option<Nanos> {
        None
    }

    #[inline]
    fn into_payload(self, range: Range<usize>) -> BenchPayload {
        let end = range.end.min(usize::from(self.len));
        let start = range.start.min(end);
        BenchPayload {
            data: self.data,
            start: start as u16,
            len: (end - start) as u16,
        }
    }
}

/// Part of a [`BenchFrame`]: a pointer and two 16-bit numbers.
pub struct BenchPayload {
    data: Rc<Buffer>,
    start: u16,
    len: u16,
}

impl Payload for BenchPayload {
    type Store = ();

    #[inline]
    fn footprint(&self) -> usize {
        ROOM
    }

    #[inline]
    fn holds_frame(&self) -> bool {
        true
    }

    #[inline]
    fn compact(self, (): &()) -> Self {
        self
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        let start = usize::from(self.start);
        &self.data[start..start + usize::from(self.len)]
    }

    #[inline]
    fn share(&self) -> Self {
        Self {
            data: Rc::clone(&self.data),
            ..*self
        }
    }

    #[inline]
    fn trim_front(&mut self, n: usize) {
        let n = n.min(usize::from(self.len)) as u16;
        self.start += n;
        self.len -= n;
    }

    #[inline]
    fn truncate(&mut self, n: usize) {
        self.len = n.min(usize::from(self.len)) as u16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_not_written_while_a_payload_refers_to_it() {
        let mut pool = Pool::new(2);
        let mut frame = |byte: u8| {
            pool.make(|b| {
                b[..4].fill(byte);
                4
            })
        };
        let kept = frame(1).unwrap().into_payload(1..4);
        for byte in 2..9 {
            assert_eq!(frame(byte).unwrap().bytes(), [byte; 4]);
        }
        let other = frame(9).unwrap();
        assert!(frame(10).is_none(), "both buffers are in use");
        drop(other);
        assert!(frame(11).is_some());
        assert_eq!(kept.bytes(), [1; 3]);
    }

    #[test]
    fn ranges_are_cut_to_the_frame() {
        let mut pool = Pool::new(1);
        let frame = pool.make(|_| 10).unwrap();
        let mut payload = frame.into_payload(4..99);
        assert_eq!(payload.bytes().len(), 6);
        payload.trim_front(2);
        payload.truncate(3);
        assert_eq!(payload.share().bytes().len(), 3);
        payload.trim_front(9);
        assert!(payload.bytes().is_empty());
    }
}
