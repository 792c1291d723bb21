//! Pools of mbufs (rte_mempool.h, rte_mbuf.h).
//!
//! A pool is freed when its last handle goes and every mbuf is back. An mbuf that is still out
//! keeps its memory valid: the pool, and the EAL under it, then stay until the process ends. So an
//! [`Mbuf`] or [`Payload`](crate::Payload) never dangles, whatever is dropped first.

use crate::eal::Eal;
use crate::error::{Error, errno, reason};
use crate::mbuf::Mbuf;
use crate::numa::Hugepages;
use arrayvec::ArrayVec;
use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes that every fresh mbuf leaves free before its data (`RTE_PKTMBUF_HEADROOM`).
pub const HEADROOM: u16 = dpdk_sys::RTE_PKTMBUF_HEADROOM as u16;

/// Size of buffer that holds a standard Ethernet frame: headroom and 2048 bytes
/// (`RTE_MBUF_DEFAULT_BUF_SIZE`).
pub const DATA_ROOM: u16 = HEADROOM + 2048;

/// Size of buffer for headers alone, as transmit queues need it.
pub const HEADER_ROOM: u16 = HEADROOM + 128;

/// Size of buffer that short payloads are copied to: headroom and 256 bytes.
pub const SMALL_ROOM: u16 = HEADROOM + 256;

/// Bytes that an mbuf takes beside its data room: `struct rte_mbuf`, two cache lines, and the
/// mempool's object header, one.
pub const MBUF_OVERHEAD: usize = 128 + 64;

/// No memory (errno(3)).
const ENOMEM: i32 = 12;

/// A pool of mbufs, shared by all who hold a handle.
#[derive(Clone)]
pub struct Mempool {
    inner: Arc<Inner>,
}

struct Inner {
    raw: NonNull<dpdk_sys::rte_mempool>,
    name: String,
    data_room: u16,
    /// Taken out and leaked with the pool when mbufs are still in use.
    eal: Option<Eal>,
}

// SAFETY: mempools are made for use from several threads at once: their common part is a
// multi-producer, multi-consumer ring, and each lcore has a cache of its own that threads without
// an lcore id do not use (rte_mempool.h).
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Mempool {
    /// Makes a pool of `count` mbufs.
    ///
    /// `data_room` is the size of each buffer in bytes, [`HEADROOM`] included; `cache` how many
    /// free mbufs each lcore keeps to itself, at most 512 and at most two thirds of `count`;
    /// `socket` the NUMA node, `None` for any. The name is unique in the process and has at most
    /// 25 characters.
    pub fn new(
        eal: &Eal,
        name: &str,
        count: u32,
        data_room: u16,
        cache: u32,
        socket: Option<u32>,
    ) -> Result<Self, Error> {
        let fail = |reason: String| Error::Pool {
            name: name.to_owned(),
            count,
            data_room,
            reason,
        };
        if name.is_empty() || name.len() > 25 {
            return Err(fail("its name must have 1 to 25 characters".to_owned()));
        }
        let c_name = CString::new(name).map_err(|_| fail("its name has a NUL byte".to_owned()))?;
        if data_room < HEADROOM {
            return Err(fail(format!(
                "each buffer needs at least the {HEADROOM} bytes of headroom"
            )));
        }
        if count == 0 {
            return Err(fail("it must have at least one mbuf".to_owned()));
        }
        let cache_most =
            dpdk_sys::RTE_MEMPOOL_CACHE_MAX_SIZE.min((u64::from(count) * 2 / 3) as u32);
        if cache > cache_most {
            return Err(fail(format!(
                "a cache of {cache} is too large, {cache_most} is the most for this size"
            )));
        }
        crate::logging::clear();
        let socket = socket.and_then(|s| i32::try_from(s).ok()).unwrap_or(-1);
        // SAFETY: the EAL runs, the name is a C string, and sizes were checked above.
        let raw = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create(c_name.as_ptr(), count, cache, 0, data_room, socket)
        };
        let Some(raw) = NonNull::new(raw) else {
            let (errno, bytes) = (errno(), u64::from(count) * u64::from(mbuf_bytes(data_room)));
            let mut why = reason(errno);
            if errno == ENOMEM {
                // SAFETY: the EAL runs.
                let huge = unsafe { dpdk_sys::rte_eal_has_hugepages() } != 0;
                why += &too_little(bytes, huge.then(Hugepages::of_machine), socket);
            }
            return Err(fail(why));
        };
        Ok(Self {
            inner: Arc::new(Inner {
                raw,
                name: name.to_owned(),
                data_room,
                eal: Some(eal.clone()),
            }),
        })
    }

    /// The same near a NUMA node, or elsewhere if there is no room; that is logged.
    ///
    /// # Errors
    /// As [`Mempool::new`].
    pub fn near(
        eal: &Eal,
        name: &str,
        count: u32,
        data_room: u16,
        cache: u32,
        node: Option<u32>,
    ) -> Result<Self, Error> {
        match Self::new(eal, name, count, data_room, cache, node) {
            Err(e) if node.is_some() => {
                log::warn!("{e}; now memory of other NUMA nodes is taken, which is slower");
                Self::new(eal, name, count, data_room, cache, None)
            }
            made => made,
        }
    }

    /// A fresh, empty mbuf with its full headroom; `None` if all are in use.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives as long as `self`.
        let raw = unsafe { dpdk_sys::shim_pktmbuf_alloc(self.as_ptr()) };
        // SAFETY: a fresh mbuf has one reference, which the new owner takes.
        NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// As many fresh, empty mbufs as `into` has room for, or none.
    #[inline]
    pub(crate) fn alloc_bulk<const N: usize>(&self, into: &mut ArrayVec<Mbuf, N>) -> bool {
        let mut raw = [std::ptr::null_mut(); N];
        let n = into.remaining_capacity();
        // SAFETY: the pool lives as long as `self`, and there is room for `n` pointers.
        let result =
            unsafe { dpdk_sys::shim_pktmbuf_alloc_bulk(self.as_ptr(), raw.as_mut_ptr(), n as u32) };
        if result != 0 {
            return false;
        }
        for raw in raw.into_iter().take(n).filter_map(NonNull::new) {
            // SAFETY: each fresh mbuf has one reference, which the new owner takes.
            into.push(unsafe { Mbuf::from_raw(raw) });
        }
        true
    }

    /// Mbufs that are free. Walks the caches of all lcores: not for the packet path's every turn.
    pub fn avail(&self) -> u32 {
        // SAFETY: the pool lives as long as `self`.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.as_ptr()) }
    }

    /// Mbufs that are out: held by sessions, queues and drivers.
    pub fn in_use(&self) -> u32 {
        self.size().saturating_sub(self.avail())
    }

    /// Mbufs in all.
    pub fn size(&self) -> u32 {
        // SAFETY: the pool lives as long as `self`.
        unsafe { dpdk_sys::shim_mempool_size(self.as_ptr()) }
    }

    /// Size of each buffer, headroom included.
    pub fn data_room(&self) -> u16 {
        self.inner.data_room
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut dpdk_sys::rte_mempool {
        self.inner.raw.as_ptr()
    }
}

/// Bytes of memory that an mbuf takes.
const fn mbuf_bytes(data_room: u16) -> u32 {
    data_room as u32 + MBUF_OVERHEAD as u32
}

/// What to do when memory is short: `free` are the hugepages that are left, if it comes from these,
/// and `socket` the node that it was asked of, or -1.
fn too_little(bytes: u64, free: Option<Hugepages>, socket: i32) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let needed = mib(bytes);
    let Some(free) = free else {
        return format!(
            ": it takes {needed} MiB, and as much again in whole pages; give less in limits.mbufs, or use hugepages"
        );
    };
    let node = match socket {
        -1 => String::new(),
        node => format!(" --node {node}"),
    };
    let reserve = mib(free.total_bytes - free.free_bytes) + needed * 5 / 4 + 64;
    format!(
        ": it takes {needed} MiB, and {} MiB of hugepages are free; reserve more with scripts/hugepages.sh{node} --mib {reserve}, or give less in limits.mbufs",
        mib(free.free_bytes)
    )
}

impl std::fmt::Debug for Mempool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mempool")
            .field("name", &self.inner.name)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let raw = self.raw.as_ptr();
        let Some(eal) = self.eal.take() else { return };
        // An lcore that hands an mbuf back counts it in its cache a moment before it is done
        // writing there. So mbufs in the cache of an lcore that may be busy are not known
        // to be back. That cache is read after the sum: it only grows, as no handle is left to
        // allocate through, so an empty one took no part in the sum.
        // SAFETY: the pool is alive.
        let (size, back) = unsafe {
            let (size, avail) = (
                dpdk_sys::shim_mempool_size(raw),
                dpdk_sys::rte_mempool_avail_count(raw),
            );
            let unsure: u32 = (0..=eal.inner.workers as u32)
                .filter(|lcore| !eal.inner.is_quiet(*lcore))
                .map(|lcore| dpdk_sys::shim_mempool_cached(raw, lcore))
                .sum();
            (size, avail.saturating_sub(unsure))
        };
        if back == size {
            // SAFETY: all mbufs are back and no thread is inside a call that uses the pool.
            unsafe { dpdk_sys::rte_mempool_free(raw) };
        } else {
            log::warn!(
                "mempool {} stays allocated: {} of its {size} mbufs are not known to be back",
                self.name,
                size - back.min(size)
            );
            std::mem::forget(eal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_is_told_with_sizes_and_what_to_do() {
        let free = Hugepages {
            total: 20,
            free: 10,
            free_bytes: 20 << 20,
            total_bytes: 40 << 20,
        };
        let said = too_little(400 << 20, Some(free), -1);
        assert!(
            said.contains("400 MiB, and 20 MiB of hugepages are free")
                && said.contains("scripts/hugepages.sh --mib 584,")
                && said.contains("limits.mbufs"),
            "{said}"
        );
        let said = too_little(1, Some(free), 1);
        assert!(said.contains("hugepages.sh --node 1 --mib 85,"), "{said}");
        let said = too_little(1, None, -1);
        assert!(
            said.contains("takes 1 MiB") && said.contains("limits.mbufs"),
            "{said}"
        );
    }
}
