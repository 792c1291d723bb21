//! Surgery on the chain of an mbuf's segments, as reassembly needs it. None of it is for frames
//! whose bytes are shared.

use crate::mbuf::Mbuf;
use crate::raw::{self, Kind};
use dpdk_sys::rte_mbuf;

/// Fields of an mbuf that says how long its IP header is; all else in the word is zero.
const fn l3_word(len: usize) -> u64 {
    (len as u64 & L3_MASK) << dpdk_sys::SHIM_MBUF_L3_LEN_SHIFT
}

const L3_MASK: u64 = (1 << dpdk_sys::SHIM_MBUF_L3_LEN_BITS) - 1;

impl Mbuf {
    /// The segments of the chain, the first one first. The pointers are good until the chain is
    /// changed.
    #[inline]
    fn chain(&self) -> impl Iterator<Item = *mut rte_mbuf> + use<> {
        let mut next = self.ptr();
        std::iter::from_fn(move || {
            let m = next;
            if m.is_null() {
                return None;
            }
            // SAFETY: the chain is well-formed and its owner leaves it alone meanwhile, as the
            // callers below do.
            next = unsafe { raw::next(m) };
            Some(m)
        })
    }

    /// The bytes of the first segment, to be changed, if nobody else may be reading them. Unlike
    /// [`Mbuf::bytes_mut`] it takes buffers that a driver attached from outside of the pool:
    /// each frame has its own part of them.
    #[inline]
    pub(crate) fn own_bytes_mut(&mut self) -> Option<&mut [u8]> {
        let m = self.ptr();
        // SAFETY: we own the metadata and hold a reference.
        let shared =
            unsafe { raw::kind(m) == Kind::Indirect || dpdk_sys::shim_refcnt_read(m) != 1 };
        if shared {
            return None;
        }
        // SAFETY: the bytes belong to this mbuf alone, which has one reference, and `self` is
        // borrowed mutably.
        Some(unsafe {
            std::slice::from_raw_parts_mut(
                raw::buf_addr(m).add(raw::data_off(m).into()),
                raw::data_len(m).into(),
            )
        })
    }

    /// Puts all segments of `rest` behind those of this frame. False, and `rest` is dropped, if
    /// that were more than an mbuf can count.
    pub(crate) fn append_chain(&mut self, rest: Self) -> bool {
        let (head, segments) = (self.ptr(), self.segments() + rest.segments());
        let Ok(segments) = u16::try_from(segments) else {
            return false;
        };
        let Some(last) = self.chain().last() else {
            return false;
        };
        let len = (self.frame_len() + rest.frame_len()) as u32;
        // SAFETY: `last` is a segment of our chain, whose metadata we own, and the last. `rest` is a
        // well-formed chain that nobody else owns, and becomes part of ours. The sums are those of
        // both.
        unsafe {
            raw::set_next(last, rest.into_raw().as_ptr());
            raw::set_nb_segs(head, segments);
            raw::set_pkt_len(head, len);
        }
        true
    }

    /// Drops all bytes behind the first `len`, and the segments that held nothing else.
    pub(crate) fn truncate(&mut self, len: usize) {
        if len >= self.frame_len() {
            return;
        }
        let (head, mut left, mut kept) = (self.ptr(), len, 0u16);
        for m in self.chain() {
            kept += 1;
            // SAFETY: `m` is a segment of our chain, whose metadata we own. Its data shrinks
            // towards its start; what is cut off behind it is a chain of its own that
            // nobody else refers to, which is freed once. The iterator is not used again after the
            // cut.
            unsafe {
                let here = usize::from(raw::data_len(m));
                if here < left {
                    left -= here;
                    continue;
                }
                raw::set_data_len(m, left as u16);
                let cut = raw::next(m);
                raw::set_next(m, std::ptr::null_mut());
                raw::set_nb_segs(head, kept);
                raw::set_pkt_len(head, len as u32);
                if !cut.is_null() {
                    dpdk_sys::shim_pktmbuf_free(cut);
                }
            }
            return;
        }
    }

    /// Moves bytes from the following segments into the first until it holds `n`, all there are, or
    /// all it has room for. Segments that are empty then go.
    pub(crate) fn pull_up(&mut self, n: usize) {
        let head = self.ptr();
        while self.bytes().len() < n && self.segments() > 1 && self.own_bytes_mut().is_some() {
            let room = self.tailroom();
            // SAFETY: we own the chain. The bytes go from the second segment's data to behind the
            // first one's, within its tailroom, and the two do not overlap: they are
            // parts of different mbufs, the first of which nobody else refers to. Lengths and
            // segment count keep adding up. An empty second segment is unlinked before
            // its one reference is given up.
            unsafe {
                let m = raw::next(head);
                if m.is_null() {
                    return;
                }
                let (len, here) = (raw::data_len(head), raw::data_len(m));
                let k = usize::from(here).min(room).min(n - usize::from(len)) as u16;
                if k == 0 && here != 0 {
                    return;
                }
                std::ptr::copy_nonoverlapping(
                    raw::buf_addr(m).add(raw::data_off(m).into()),
                    raw::buf_addr(head).add(usize::from(raw::data_off(head)) + usize::from(len)),
                    k.into(),
                );
                raw::set_data_len(head, len + k);
                raw::set_data_off(m, raw::data_off(m) + k);
                raw::set_data_len(m, here - k);
                if here == k {
                    raw::set_next(head, raw::next(m));
                    raw::set_nb_segs(head, raw::nb_segs(head) - 1);
                    dpdk_sys::shim_pktmbuf_free_seg(m);
                }
            }
        }
    }

    /// Marks the frame as a fragment whose data begins `l3_len` bytes into it, for DPDK (`l2_len`
    /// 0) and for [`Mbuf::count_parts`].
    pub(crate) fn mark_part(&mut self, l3_len: usize) {
        let mut word = l3_word(l3_len);
        for m in self.chain() {
            // SAFETY: `m` is a segment of our chain, whose metadata we own.
            unsafe { raw::set_tx_offload(m, std::mem::take(&mut word)) };
        }
    }

    /// How many fragments the chain was made from.
    pub(crate) fn count_parts(&self) -> usize {
        // SAFETY: the segments are of our chain, whose metadata we own.
        let marked = |m: &*mut rte_mbuf| unsafe { raw::tx_offload(*m) } & l3_word(usize::MAX) != 0;
        self.chain().filter(marked).count()
    }

    /// Whether this is a segment of the chain.
    pub(crate) fn has(&self, segment: *const rte_mbuf) -> bool {
        self.chain().any(|m| std::ptr::eq(m, segment))
    }

    /// Takes all marks away.
    pub(crate) fn clear_marks(&mut self) {
        for m in self.chain() {
            // SAFETY: `m` is a segment of our chain, whose metadata we own.
            unsafe { raw::set_tx_offload(m, 0) };
        }
    }
}
