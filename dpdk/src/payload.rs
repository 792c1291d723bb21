//! Counted references to bytes of a received frame.
//!
//! A [`Payload`] holds one reference of a single-segment mbuf, and remembers where its bytes are,
//! so that it never reads the mbuf's metadata: that may belong to a driver which is sending the
//! very buffer. While a buffer has several references its bytes do not change. With only
//! one, its holder may write to the part of the buffer before its own bytes; the transmit queue
//! puts headers there.

use crate::mempool::{HEADROOM, MBUF_OVERHEAD, Mempool};
use crate::raw::{self, Kind};
use dpdk_sys::rte_mbuf;
use std::ptr::NonNull;

/// References beyond which [`Payload::share`] ends the process, as `Arc` does: half of what the
/// 16-bit counter holds, so that no number of threads can wrap it.
const MAX_REFERENCES: u16 = 0x8000;

/// Part of an mbuf's buffer, shared and read-only. 16 bytes.
///
/// ```compile_fail
/// fn elsewhere(p: dpdk::Payload) -> (dpdk::Payload, dpdk::Payload) {
///     (p.clone(), p)
/// }
/// ```
pub struct Payload {
    raw: NonNull<rte_mbuf>,
    /// From the start of the buffer to the first byte.
    off: u16,
    len: u16,
    /// Size of the buffer.
    room: u16,
    kind: Kind,
    /// Copied out of the frame.
    copied: bool,
}

// SAFETY: the reference counter is atomic, the bytes are only read while shared, and the mbuf may
// be freed by any thread.
unsafe impl Send for Payload {}

impl Payload {
    /// Takes over one reference of a single-segment mbuf.
    ///
    /// # Safety
    /// The caller gives up one reference and the metadata. The `len` bytes at `off` of the buffer
    /// are initialised and inside it; `kind` is how the mbuf comes by its buffer.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: NonNull<rte_mbuf>, off: u16, len: u16, kind: Kind) -> Self {
        Self {
            raw,
            off,
            len,
            // SAFETY: the buffer's size is fixed.
            room: unsafe { raw::buf_len(raw.as_ptr()) },
            kind,
            copied: false,
        }
    }

    /// See [`wire::io::Payload::compact`]. The copy has the room for headers before it that a
    /// received frame's payload has.
    #[inline]
    pub fn compact(self, store: &Mempool) -> Self {
        if usize::from(self.len) > usize::from(store.data_room() - HEADROOM) {
            return self;
        }
        let Some(mut copy) = store.alloc().filter(|_| self.room > store.data_room()) else {
            return self;
        };
        if !copy.append(self.bytes()) {
            return self;
        }
        let mut copy = copy.into_payload(0..usize::from(self.len));
        copy.copied = true;
        copy
    }

    /// See [`wire::io::Payload::footprint`].
    #[inline]
    pub fn footprint(&self) -> usize {
        MBUF_OVERHEAD + usize::from(self.room)
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: we hold a reference, so the buffer is alive and its address fixed; the range was
        // checked when this was made. Nobody writes into it: that takes `&mut` of the only
        // holder, and headers go before the first byte.
        unsafe {
            std::slice::from_raw_parts(
                raw::buf_addr(self.raw.as_ptr()).add(self.off.into()),
                self.len.into(),
            )
        }
    }

    /// Number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.into()
    }

    /// True without any bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Another reference to the same bytes. No copy is made. Ends the process at 32768 references
    /// to one mbuf, as `Arc` does at its own limit: going on would free memory in use.
    #[inline]
    pub fn share(&self) -> Self {
        // SAFETY: we hold a reference, so the mbuf is alive.
        if unsafe { dpdk_sys::shim_refcnt_update(self.raw.as_ptr(), 1) } > MAX_REFERENCES {
            std::process::abort();
        }
        Self {
            raw: self.raw,
            ..*self
        }
    }

    /// Drops `n` bytes at the front (all, if there are fewer).
    #[inline]
    pub fn trim_front(&mut self, n: usize) {
        let n = n.min(self.len.into()) as u16;
        self.off += n;
        self.len -= n;
    }

    /// Keeps the first `n` bytes (all, if there are fewer).
    #[inline]
    pub fn truncate(&mut self, n: usize) {
        self.len = n.min(self.len.into()) as u16;
    }

    /// References to the mbuf at this moment, this one and a driver's included. For tests and
    /// diagnosis.
    pub fn references(&self) -> usize {
        // SAFETY: we hold a reference.
        unsafe { dpdk_sys::shim_refcnt_read(self.raw.as_ptr()) }.into()
    }

    #[inline]
    pub(crate) fn ptr(&self) -> *mut rte_mbuf {
        self.raw.as_ptr()
    }

    #[inline]
    pub(crate) fn offset(&self) -> u16 {
        self.off
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// If this is the one reference to the mbuf and its buffer, and there are `n` bytes of buffer
    /// before the payload: those bytes, to be written. Nobody else can take a reference while
    /// they are borrowed.
    #[inline]
    pub(crate) fn front_mut(&mut self, n: usize) -> Option<&mut [u8]> {
        let m = self.ptr();
        if self.kind != Kind::Direct || n > self.off.into() {
            return None;
        }
        // The acquire in the read orders what a driver did with the buffer before what is written
        // to it now. SAFETY: we hold a reference.
        if unsafe { dpdk_sys::shim_refcnt_read(m) } != 1 {
            return None;
        }
        // SAFETY: the n bytes before `off` are inside the buffer, which is the mbuf's own. Ours is
        // its one reference, indirect mbufs included, and `self` is borrowed mutably, so
        // nobody reads or writes these bytes. They are memory of the pool, which DPDK
        // allocates zeroed, so they are initialised.
        Some(unsafe {
            std::slice::from_raw_parts_mut(raw::buf_addr(m).add(usize::from(self.off) - n), n)
        })
    }

    /// Whether one more reference may be taken of the buffer, for a transmission.
    #[inline]
    pub(crate) fn has_room_for_reference(&self) -> bool {
        // SAFETY: we hold a reference to the mbuf, and it holds one to the mbuf that has the
        // buffer. Not called for external buffers.
        unsafe { dpdk_sys::shim_base_refcnt_read(self.ptr()) < MAX_REFERENCES }
    }
}

impl Drop for Payload {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: we own one reference; the mbuf is a single segment, so this frees no more than
        // that.
        unsafe { dpdk_sys::shim_pktmbuf_free_seg(self.raw.as_ptr()) }
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payload")
            .field("len", &self.len)
            .field("references", &self.references())
            .finish()
    }
}

impl wire::io::Payload for Payload {
    type Store = Mempool;

    #[inline]
    fn footprint(&self) -> usize {
        self.footprint()
    }

    #[inline]
    fn holds_frame(&self) -> bool {
        !self.copied
    }

    #[inline]
    fn compact(self, store: &Mempool) -> Self {
        self.compact(store)
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.bytes()
    }

    #[inline]
    fn share(&self) -> Self {
        self.share()
    }

    #[inline]
    fn trim_front(&mut self, n: usize) {
        self.trim_front(n);
    }

    #[inline]
    fn truncate(&mut self, n: usize) {
        self.truncate(n);
    }
}

const _: () = assert!(size_of::<Payload>() == 16);
