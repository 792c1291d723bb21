//! The fields of `struct rte_mbuf` (rte_mbuf_core.h), read and written at the offsets that the
//! shim's compiler found.
//!
//! Two kinds of fields matter. *Fixed* ones, the buffer's address and length, do not change while
//! anyone holds a reference. All others are *metadata*, which belongs to one owner at a time: the
//! [`Mbuf`](crate::Mbuf) that holds the mbuf, or the driver it was given to, or whoever holds the
//! only reference.

use dpdk_sys::rte_mbuf;

macro_rules! fields {
    ($($(#[$doc:meta])* $get:ident, $set:ident: $type:ty = $offset:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// `m` is alive and nobody writes the field at the same time.
            #[inline(always)]
            #[allow(dead_code, reason = "not every field is read")]
            pub(crate) unsafe fn $get(m: *const rte_mbuf) -> $type {
                // SAFETY: the offset is that of a field of this type, aligned as the C compiler laid it out.
                unsafe { m.byte_add(dpdk_sys::$offset as usize).cast::<$type>().read() }
            }

            /// Sets it.
            ///
            /// # Safety
            /// `m` is alive and the caller owns its metadata.
            #[inline(always)]
            #[allow(dead_code, reason = "not every field is written")]
            pub(crate) unsafe fn $set(m: *mut rte_mbuf, value: $type) {
                // SAFETY: the offset is that of a field of this type, aligned as the C compiler laid it out.
                unsafe { m.byte_add(dpdk_sys::$offset as usize).cast::<$type>().write(value) }
            }
        )*
    };
}

fields! {
    /// Start of the buffer; fixed.
    buf_addr, set_buf_addr: *mut u8 = SHIM_MBUF_BUF_ADDR;
    /// Size of the buffer; fixed.
    buf_len, set_buf_len: u16 = SHIM_MBUF_BUF_LEN;
    /// Where the data starts in the buffer.
    data_off, set_data_off: u16 = SHIM_MBUF_DATA_OFF;
    /// Bytes of data in this segment.
    data_len, set_data_len: u16 = SHIM_MBUF_DATA_LEN;
    /// Bytes of data in all segments; valid in the first one.
    pkt_len, set_pkt_len: u32 = SHIM_MBUF_PKT_LEN;
    /// Segments; valid in the first one.
    nb_segs, set_nb_segs: u16 = SHIM_MBUF_NB_SEGS;
    /// Offload flags, and whether the buffer is the mbuf's own.
    ol_flags, set_ol_flags: u64 = SHIM_MBUF_OL_FLAGS;
    /// The next segment.
    next, set_next: *mut rte_mbuf = SHIM_MBUF_NEXT;
    /// Lengths of headers for offloads.
    tx_offload, set_tx_offload: u64 = SHIM_MBUF_TX_OFFLOAD;
    /// VLAN tag that the driver took off or shall put on.
    vlan_tci, set_vlan_tci: u16 = SHIM_MBUF_VLAN_TCI;
    /// The port it was received on.
    port, set_port: u16 = SHIM_MBUF_PORT;
}

/// How an mbuf comes by its buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The buffer follows the mbuf in its pool.
    Direct,
    /// The buffer is another mbuf's, of which this one holds a reference.
    Indirect,
    /// The buffer is of neither pool nor mbuf, as some drivers have it.
    External,
}

/// # Safety
/// `m` is alive and nobody writes its flags at the same time.
#[inline]
pub(crate) unsafe fn kind(m: *const rte_mbuf) -> Kind {
    // SAFETY: as the caller promises.
    let flags = unsafe { ol_flags(m) };
    if flags & dpdk_sys::SHIM_MBUF_F_EXTERNAL != 0 {
        Kind::External
    } else if flags & dpdk_sys::SHIM_MBUF_F_INDIRECT != 0 {
        Kind::Indirect
    } else {
        Kind::Direct
    }
}
