//! Owned packet buffers (rte_mbuf.h).
//!
//! An [`Mbuf`] is the one owner of a chain's metadata and frees the chain when dropped. It cannot
//! be cloned. What is held beyond it are [`Payload`]s, which count as references and are never
//! written while there is more than one: so [`Mbuf::bytes_mut`] and its sisters say `None` where
//! the buffer is shared.

use crate::payload::Payload;
use crate::raw;
use dpdk_sys::rte_mbuf;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use wire::Nanos;
use wire::io::Checksum;

/// One frame, in one segment or a chain of them.
///
/// ```compile_fail
/// fn twice(m: dpdk::Mbuf) -> (dpdk::Mbuf, dpdk::Mbuf) {
///     (m.clone(), m)
/// }
/// ```
#[repr(transparent)]
pub struct Mbuf {
    raw: NonNull<rte_mbuf>,
}

// SAFETY: an mbuf belongs to no thread; its pool takes it back from any. Reference counts are
// atomic.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes over an mbuf.
    ///
    /// # Safety
    /// `raw` is the head of a well-formed chain; the caller owns its metadata and one reference of
    /// each segment, and gives them up.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: NonNull<rte_mbuf>) -> Self {
        Self { raw }
    }

    /// Gives up ownership: the caller owes the chain a free.
    #[inline]
    pub(crate) fn into_raw(self) -> NonNull<rte_mbuf> {
        let raw = self.raw;
        std::mem::forget(self);
        raw
    }

    #[inline]
    pub(crate) fn ptr(&self) -> *mut rte_mbuf {
        self.raw.as_ptr()
    }

    /// The bytes of the first segment.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let m = self.ptr();
        // SAFETY: we own the metadata, which describes initialised bytes inside the buffer. Nobody
        // writes them while `self` is borrowed: a write needs `&mut` to the one holder of a
        // buffer with a single reference.
        unsafe {
            std::slice::from_raw_parts(
                raw::buf_addr(m).add(raw::data_off(m).into()),
                raw::data_len(m).into(),
            )
        }
    }

    /// Whether nobody else refers to the first segment's buffer.
    #[inline]
    pub fn is_unique(&self) -> bool {
        let m = self.ptr();
        // SAFETY: we hold a reference and own the metadata.
        unsafe { raw::kind(m) == raw::Kind::Direct && dpdk_sys::shim_refcnt_read(m) == 1 }
    }

    /// The bytes of the first segment, to be changed; `None` if a [`Payload`] or another frame
    /// shares the buffer.
    #[inline]
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        if !self.is_unique() {
            return None;
        }
        let m = self.ptr();
        // SAFETY: the buffer is the mbuf's own, ours is the one reference to it, and `self` is
        // borrowed mutably.
        Some(unsafe {
            std::slice::from_raw_parts_mut(
                raw::buf_addr(m).add(raw::data_off(m).into()),
                raw::data_len(m).into(),
            )
        })
    }

    /// Bytes that [`Mbuf::append`] has room for.
    #[inline]
    pub fn tailroom(&self) -> usize {
        let m = self.ptr();
        // SAFETY: we own the metadata.
        unsafe {
            usize::from(raw::buf_len(m))
                .saturating_sub(usize::from(raw::data_off(m)) + usize::from(raw::data_len(m)))
        }
    }

    /// Puts bytes behind those of a frame of one segment. False, and nothing changed, if they do
    /// not fit, the frame is chained, or the buffer is shared.
    #[inline]
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let m = self.ptr();
        if bytes.len() > self.tailroom() || !self.is_unique() || self.segments() != 1 {
            return false;
        }
        // SAFETY: the buffer is ours alone, and `tailroom` bytes behind the data are inside it.
        // `bytes` cannot overlap them: it would be a borrow of this buffer. The lengths
        // stay within 16 bits, as the buffer's own does.
        unsafe {
            let len = raw::data_len(m);
            let end = raw::buf_addr(m).add(usize::from(raw::data_off(m)) + usize::from(len));
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), end, bytes.len());
            let len = len + bytes.len() as u16;
            raw::set_data_len(m, len);
            raw::set_pkt_len(m, len.into());
        }
        true
    }

    /// Drops `n` bytes at the front of the first segment (all of its bytes, if there are fewer).
    #[inline]
    pub fn trim_front(&mut self, n: usize) {
        let m = self.ptr();
        // SAFETY: we own the metadata; the data shrinks towards its end.
        unsafe {
            let n = n.min(raw::data_len(m).into()) as u16;
            raw::set_data_off(m, raw::data_off(m) + n);
            raw::set_data_len(m, raw::data_len(m) - n);
            raw::set_pkt_len(m, raw::pkt_len(m) - u32::from(n));
        }
    }

    /// Length of the frame in bytes, all segments counted.
    #[inline]
    pub fn frame_len(&self) -> usize {
        // SAFETY: we own the metadata.
        unsafe { raw::pkt_len(self.ptr()) as usize }
    }

    /// Segments of the chain, at least 1.
    #[inline]
    pub fn segments(&self) -> usize {
        // SAFETY: we own the metadata.
        unsafe { raw::nb_segs(self.ptr()).into() }
    }

    /// Number of the port that received the frame; 65535 for one made here.
    #[inline]
    pub fn port(&self) -> u16 {
        // SAFETY: we own the metadata.
        unsafe { raw::port(self.ptr()) }
    }

    /// See [`wire::io::Frame::split_rest`].
    #[inline]
    pub fn split_rest(&mut self) -> Option<Self> {
        let m = self.ptr();
        // SAFETY: we own the chain. After the cut both parts are well-formed chains with one owner
        // each: segment counts and lengths add up to what they were.
        unsafe {
            let rest = NonNull::new(raw::next(m))?;
            let len = raw::data_len(m).into();
            raw::set_pkt_len(rest.as_ptr(), raw::pkt_len(m).saturating_sub(len));
            raw::set_nb_segs(rest.as_ptr(), raw::nb_segs(m).saturating_sub(1).max(1));
            raw::set_port(rest.as_ptr(), raw::port(m));
            raw::set_next(m, std::ptr::null_mut());
            raw::set_nb_segs(m, 1);
            raw::set_pkt_len(m, len);
            Some(Self::from_raw(rest))
        }
    }

    /// See [`wire::io::Frame::checksum`]. Drivers say nothing unless their port was asked to
    /// verify.
    #[inline]
    pub fn checksum(&self) -> Checksum {
        // SAFETY: we own the metadata.
        known(unsafe { raw::ol_flags(self.ptr()) })
    }

    /// Forgets what [`Mbuf::checksum`] says: it was about another frame.
    pub(crate) fn forget_checksum(&mut self) {
        let m = self.ptr();
        // SAFETY: we own the metadata; the flags tell nothing of buffers.
        unsafe {
            let flags = raw::ol_flags(m) & !dpdk_sys::SHIM_MBUF_F_RX_L4_CKSUM_MASK;
            raw::set_ol_flags(m, flags);
        }
    }

    /// See [`wire::io::Frame::visit_rest`].
    pub fn visit_rest(&self, visit: &mut dyn FnMut(&[u8])) {
        // SAFETY: we own the metadata.
        let mut next = unsafe { raw::next(self.ptr()) };
        while !next.is_null() {
            // SAFETY: a segment of a chain that is ours, with initialised bytes inside its buffer.
            // Nobody writes them while `self` is borrowed, as with the first segment's.
            unsafe {
                let data = raw::buf_addr(next).add(raw::data_off(next).into());
                visit(std::slice::from_raw_parts(data, raw::data_len(next).into()));
                next = raw::next(next);
            }
        }
    }

    /// See [`wire::io::Frame::captured_at`]: what a [`FrameMaker`](crate::FrameMaker) or the kernel
    /// told, or else what net_pcap read. Other drivers tell nothing, since their timestamps are
    /// never asked for.
    #[inline]
    pub fn captured_at(&self) -> Option<Nanos> {
        self.time(&CAPTURED)
            .or_else(|| Some(self.time(&RECEIVED)?.saturating_mul(1_000)))
    }

    /// Sets what [`Mbuf::captured_at`] says. Does nothing while nothing knows times.
    pub(crate) fn set_captured_at(&mut self, at: Nanos) {
        if !self.set_time(&CAPTURED, at) {
            self.set_time(&RECEIVED, at / 1_000);
        }
    }

    /// What the driver's own field says, in ns.
    #[inline]
    pub(crate) fn received_at(&self) -> Option<Nanos> {
        Some(self.time(&RECEIVED)?.saturating_mul(1_000))
    }

    /// This host sent the frame, as the kernel tells.
    pub(crate) fn set_sent(&mut self) {
        let m = self.ptr();
        let flag = SENT.load(Ordering::Relaxed);
        // SAFETY: we own the metadata; the flag is one that was registered for this.
        unsafe { raw::set_ol_flags(m, raw::ol_flags(m) | flag) };
    }

    /// See [`wire::io::Frame::was_sent`].
    #[inline]
    pub fn was_sent(&self) -> bool {
        // SAFETY: we own the metadata.
        unsafe { raw::ol_flags(self.ptr()) & SENT.load(Ordering::Relaxed) != 0 }
    }

    #[inline]
    fn time(&self, field: &TimeField) -> Option<u64> {
        let flag = field.flag.load(Ordering::Relaxed);
        let offset = field.offset.load(Ordering::Relaxed);
        let m = self.ptr();
        // SAFETY: we own the metadata; the offset is that of a registered 64-bit field of DPDK's,
        // which is aligned and inside the mbuf.
        unsafe {
            if flag == 0 || raw::ol_flags(m) & flag == 0 {
                return None;
            }
            Some(m.byte_add(offset as usize).cast::<u64>().read())
        }
    }

    /// False if there is no such field.
    fn set_time(&mut self, field: &TimeField, time: u64) -> bool {
        let flag = field.flag.load(Ordering::Relaxed);
        let offset = field.offset.load(Ordering::Relaxed);
        if flag == 0 {
            return false;
        }
        let m = self.ptr();
        // SAFETY: we own the metadata; the offset is that of a registered 64-bit field of DPDK's,
        // which is aligned and inside the mbuf.
        unsafe {
            raw::set_ol_flags(m, raw::ol_flags(m) | flag);
            m.byte_add(offset as usize).cast::<u64>().write(time);
        }
        true
    }

    /// See [`wire::io::Frame::into_payload`].
    #[inline]
    pub fn into_payload(mut self, range: Range<usize>) -> Payload {
        drop(self.split_rest());
        let m = self.ptr();
        // SAFETY: we own the metadata; nobody can change these fields.
        let (off, len, kind) = unsafe { (raw::data_off(m), raw::data_len(m), raw::kind(m)) };
        let start = range.start.min(len.into()) as u16;
        let end = range.end.min(len.into()).max(start.into()) as u16;
        // SAFETY: the reference is handed on, and the mbuf is a single segment now. The range lies
        // inside of the data.
        unsafe { Payload::from_raw(self.into_raw(), off + start, end - start, kind) }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: we own one reference of each segment.
        unsafe { dpdk_sys::shim_pktmbuf_free(self.ptr()) }
    }
}

impl std::fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mbuf")
            .field("frame_len", &self.frame_len())
            .field("segments", &self.segments())
            .finish()
    }
}

impl wire::io::Frame for Mbuf {
    type Payload = Payload;

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.bytes()
    }

    #[inline]
    fn frame_len(&self) -> usize {
        self.frame_len()
    }

    #[inline]
    fn split_rest(&mut self) -> Option<Self> {
        self.split_rest()
    }

    #[inline]
    fn captured_at(&self) -> Option<Nanos> {
        self.captured_at()
    }

    #[inline]
    fn was_sent(&self) -> bool {
        self.was_sent()
    }

    #[inline]
    fn checksum(&self) -> Checksum {
        self.checksum()
    }

    fn visit_rest(&self, visit: &mut dyn FnMut(&[u8])) -> bool {
        self.visit_rest(visit);
        true
    }

    #[inline]
    fn into_payload(self, range: Range<usize>) -> Payload {
        self.into_payload(range)
    }
}

/// What offload flags say of the TCP checksum (rte_mbuf_core.h, `RTE_MBUF_F_RX_L4_CKSUM_*`).
#[inline]
fn known(flags: u64) -> Checksum {
    match flags & dpdk_sys::SHIM_MBUF_F_RX_L4_CKSUM_MASK {
        // "None": not in the packet, but the data is whole, as between virtual machines.
        dpdk_sys::SHIM_MBUF_F_RX_L4_CKSUM_GOOD | dpdk_sys::SHIM_MBUF_F_RX_L4_CKSUM_NONE => {
            Checksum::Good
        }
        dpdk_sys::SHIM_MBUF_F_RX_L4_CKSUM_BAD => Checksum::Bad,
        _ => Checksum::Unknown,
    }
}

/// A 64-bit field of mbufs with a time, and the flag that says it is there (rte_mbuf_dyn.h). Both
/// are found or registered once; the flag is 0 before.
struct TimeField {
    offset: AtomicI32,
    flag: AtomicU64,
}

/// The field that drivers fill, net_pcap with microseconds since the epoch.
static RECEIVED: TimeField = TimeField::new();
/// Our own, in nanoseconds since the epoch.
static CAPTURED: TimeField = TimeField::new();
/// The flag of frames that this host sent; 0 as long as there is none.
static SENT: AtomicU64 = AtomicU64::new(0);

impl TimeField {
    const fn new() -> Self {
        Self {
            offset: AtomicI32::new(0),
            flag: AtomicU64::new(0),
        }
    }

    /// Takes what DPDK says of the field and the flag. False if there are none.
    fn set(&self, offset: i32, bit: i32) -> bool {
        let fits =
            offset >= 0 && offset as usize + size_of::<u64>() <= dpdk_sys::SHIM_MBUF_SIZE as usize;
        if !fits || !(0..64).contains(&bit) {
            return false;
        }
        self.offset.store(offset, Ordering::Relaxed);
        self.flag.store(1 << bit, Ordering::Relaxed);
        true
    }
}

/// Looks up the receive timestamp, which a driver registers when its first port starts.
pub(crate) fn find_timestamp() {
    // SAFETY: plain look-ups by C string; a null parameter pointer is allowed.
    let (offset, bit) = unsafe {
        (
            dpdk_sys::rte_mbuf_dynfield_lookup(
                c"rte_dynfield_timestamp".as_ptr(),
                std::ptr::null_mut(),
            ),
            dpdk_sys::rte_mbuf_dynflag_lookup(
                c"rte_dynflag_rx_timestamp".as_ptr(),
                std::ptr::null_mut(),
            ),
        )
    };
    RECEIVED.set(offset, bit);
}

/// Registers our own field for times. Again does no harm. False if mbufs have no room for it.
pub(crate) fn register_captured_at() -> bool {
    let mut field = dpdk_sys::rte_mbuf_dynfield {
        name: [0; _],
        size: size_of::<u64>(),
        align: align_of::<u64>(),
        flags: 0,
    };
    let mut flag = dpdk_sys::rte_mbuf_dynflag {
        name: [0; _],
        flags: 0,
    };
    let name = |into: &mut [std::ffi::c_char], name: &std::ffi::CStr| {
        for (to, from) in into.iter_mut().zip(name.to_bytes_with_nul()) {
            *to = *from as std::ffi::c_char;
        }
    };
    name(&mut field.name, c"replay_dynfield_captured_at");
    name(&mut flag.name, c"replay_dynflag_captured_at");
    // SAFETY: the EAL runs, as the caller holds it; both structures live during the call, which
    // copies them.
    let (offset, bit) = unsafe {
        (
            dpdk_sys::rte_mbuf_dynfield_register(&field),
            dpdk_sys::rte_mbuf_dynflag_register(&flag),
        )
    };
    name(&mut flag.name, c"replay_dynflag_sent");
    // SAFETY: as above.
    let sent = unsafe { dpdk_sys::rte_mbuf_dynflag_register(&flag) };
    if let Some(flag) = u32::try_from(sent)
        .ok()
        .and_then(|bit| 1_u64.checked_shl(bit))
    {
        SENT.store(flag, Ordering::Relaxed);
    }
    sent >= 0 && CAPTURED.set(offset, bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_tell_what_a_driver_knows() {
        // Bits 3 and 8, among others.
        let others = !(1 << 3 | 1 << 8);
        for (bits, want) in [
            (0, Checksum::Unknown),
            (1 << 3, Checksum::Bad),
            (1 << 8, Checksum::Good),
            (1 << 3 | 1 << 8, Checksum::Good),
        ] {
            assert_eq!(known(bits), want);
            assert_eq!(known(bits | others), want);
        }
    }
}
