//! Reassembly of fragmented datagrams by DPDK's librte_ip_frag (rte_ip_frag.h).
//!
//! DPDK's table holds the parts and chains them; round it stands what it asks of its caller. A part
//! goes in without what preceded its IP header, padding or extension headers, and a whole datagram
//! comes out with its IP header first, so tunnels of any depth need no more than the 7 bits that an
//! mbuf has for the length of what stands before. DPDK is told what the decoder found, in a header
//! made for it, rather than let read the frame once more.
//!
//! What always holds: the table has room for a fixed number of datagrams of at most [`MAX_PARTS`]
//! parts; every part that was handed in is held, given out within a datagram, or freed and counted
//! under a reason; the row of parts that DPDK wants freed is empty between calls. Time is the
//! caller's, in nanoseconds: DPDK compares but does not measure it.

use crate::eal::Eal;
use crate::error::{Error, errno, reason};
use crate::mbuf::Mbuf;
use dpdk_sys::{rte_ip_frag_death_row, rte_ip_frag_tbl, rte_mbuf};
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use wire::Nanos;
use wire::decode::Fragment;
use wire::defragment::{
    Defragment, FragmentCounters, FragmentDrop, Insert, Ledger, MAX_DATAGRAM, MAX_PARTS,
    PartStatus, plausible,
};
use wire::{ipv4, ipv6};

/// Datagrams that hash to the same place and yet all have room.
const BUCKET: u32 = 8;
/// Parts that the row has room for.
const ROW: usize = size_of::<rte_ip_frag_death_row>() / size_of::<*mut rte_mbuf>() - 1;
/// Length of the IPv6 header and the fragment header behind it, as DPDK wants them.
const V6_HEADERS: usize = ipv6::HEADER_LEN + 8;
/// Length of the longest IPv4 header (RFC 791 section 3.1).
const MAX_V4_HEADER: usize = 60;
/// What the first segment of a datagram holds at least, if there is as much: more than the headers
/// of a few tunnels and of TCP, whatever the length of the first part.
const HEADERS: usize = 256;

const _: () = assert!(MAX_PARTS == dpdk_sys::RTE_LIBRTE_IP_FRAG_MAX_FRAG as usize);

/// A table of datagrams that wait for their rest. One for each core: it moves to it and can neither
/// be copied nor shared.
///
/// ```compile_fail
/// fn shared<T: Sync>() {}
/// shared::<dpdk::Reassembly>();
/// ```
pub struct Reassembly {
    table: NonNull<rte_ip_frag_tbl>,
    /// What DPDK wants freed.
    row: Box<rte_ip_frag_death_row>,
    ledger: Ledger,
    counters: FragmentCounters,
    /// The table is memory of the EAL.
    _eal: Eal,
    _unsync: PhantomData<Cell<()>>,
}

// SAFETY: the table belongs to no thread, and this is its one handle. The mbufs in it may be freed
// by any thread.
unsafe impl Send for Reassembly {}

/// An IPv4 header, or an IPv6 header with a fragment header behind it.
#[repr(C, align(8))]
struct Headers([u8; V6_HEADERS]);

impl Reassembly {
    /// A table for `datagrams` incomplete datagrams at a time, at least 1, each of which is given
    /// up when its rest has not come `timeout` nanoseconds after its first part. `socket` is
    /// the NUMA node, `None` for any. At most `datagrams` times [`MAX_PARTS`] frames are held.
    pub fn new(
        eal: &Eal,
        datagrams: u32,
        timeout: Nanos,
        socket: Option<u32>,
    ) -> Result<Self, Error> {
        crate::logging::clear();
        let socket = socket.and_then(|s| i32::try_from(s).ok()).unwrap_or(-1);
        // SAFETY: the EAL runs; DPDK checks the sizes.
        let table = unsafe {
            dpdk_sys::rte_ip_frag_table_create(
                datagrams.div_ceil(BUCKET),
                BUCKET,
                datagrams,
                timeout,
                socket,
            )
        };
        let table = NonNull::new(table).ok_or_else(|| Error::Reassembly {
            datagrams,
            reason: reason(errno()),
        })?;
        Ok(Self {
            table,
            row: Box::new(rte_ip_frag_death_row {
                cnt: 0,
                row: [std::ptr::null_mut(); ROW],
            }),
            ledger: Ledger::new(datagrams as usize, timeout),
            counters: FragmentCounters::default(),
            _eal: eal.clone(),
            _unsync: PhantomData,
        })
    }

    /// See [`Defragment::insert`].
    pub fn insert(&mut self, now: Nanos, frame: Mbuf, part: &Fragment) -> Insert<Mbuf> {
        self.counters.received += 1;
        match self.try_insert(now, frame, part) {
            Ok(Some(datagram)) => return Insert::Whole(datagram),
            Ok(None) => {}
            // The frame is freed already.
            Err(reason) => self.counters.dropped[reason as usize] += 1,
        }
        Insert::Taken
    }

    /// An error says why this one part was dropped, and is not counted yet.
    fn try_insert(
        &mut self,
        now: Nanos,
        mut frame: Mbuf,
        part: &Fragment,
    ) -> Result<Option<Mbuf>, FragmentDrop> {
        plausible(part)?;
        match self.ledger.check(now, part) {
            PartStatus::New => {}
            PartStatus::Duplicate => return Err(FragmentDrop::Duplicate),
            PartStatus::Refused(reason) => return Err(reason),
        }
        let l3_len =
            strip(&mut frame, part).inspect_err(|reason| self.ledger.refuse(now, part, *reason))?;
        frame.mark_part(l3_len);
        let captured_at = frame.captured_at();
        let mut headers = headers(part, l3_len);
        let (table, row, ip) = (
            self.table.as_ptr(),
            &raw mut *self.row,
            (&raw mut headers).cast(),
        );
        let inserted = frame.into_raw().as_ptr();
        // SAFETY: table and row are ours, and the row has room: it is empty, and one call puts at
        // most twice the parts of one datagram there. The mbuf is handed over. It is l3_len
        // bytes or longer in its first segment, marked with that length, and, if it is the
        // first part, nobody else refers to its header, which DPDK changes. The headers are
        // aligned, and long enough for either family.
        let whole = unsafe {
            if part.src.is_v4() {
                dpdk_sys::shim_ipv4_reassemble(table, row, inserted, now, ip)
            } else {
                dpdk_sys::shim_ipv6_reassemble(table, row, inserted, now, ip)
            }
        };
        // SAFETY: DPDK gives out a well-formed chain that is no longer in its table.
        let whole = NonNull::new(whole).map(|raw| unsafe { Mbuf::from_raw(raw) });
        self.free_row(now, part, inserted);
        let Some(mut datagram) = whole else {
            return Ok(None);
        };
        let parts = datagram.count_parts() as u64;
        datagram.clear_marks();
        // A NIC may have judged the first part as if it were all.
        datagram.forget_checksum();
        let most = MAX_DATAGRAM
            + if part.src.is_v4() {
                0
            } else {
                ipv6::HEADER_LEN
            };
        if datagram.frame_len() > most {
            // Its length field cannot say so.
            self.ledger.refuse(now, part, FragmentDrop::Invalid);
            self.counters.dropped[FragmentDrop::Invalid as usize] += parts;
            return Ok(None);
        }
        self.ledger.complete(now, part);
        self.counters.datagrams += 1;
        self.counters.merged += parts.saturating_sub(1);
        // It was there when its last part was.
        if let Some(at) = captured_at {
            datagram.set_captured_at(at);
        }
        datagram.pull_up(HEADERS);
        Ok(Some(datagram))
    }

    /// Frees what DPDK dropped while it took in `inserted`, and counts it. If the part itself is
    /// there, it found no room or spoilt its datagram; if not, it took the place of one that
    /// had expired.
    fn free_row(&mut self, now: Nanos, part: &Fragment, inserted: *mut rte_mbuf) {
        let reason = match &self.row.row[..(self.row.cnt as usize).min(ROW)] {
            [] => return,
            [only] if *only == inserted => FragmentDrop::TableFull,
            // DPDK may have begun to chain the parts before it found a hole, so this one need not
            // be the first in its chain.
            _ if self.dropped().any(|chain| chain.has(inserted)) => FragmentDrop::Invalid,
            _ => FragmentDrop::Expired,
        };
        if reason != FragmentDrop::Expired {
            self.ledger.refuse(now, part, reason);
        }
        self.bury(reason);
    }

    /// The chains in the row, to be looked at.
    fn dropped(&self) -> impl Iterator<Item = ManuallyDrop<Mbuf>> {
        let n = (self.row.cnt as usize).min(ROW);
        let row = self.row.row[..n].iter();
        row.filter_map(|raw| NonNull::new(*raw))
            // SAFETY: what is in the row are well-formed chains that nobody else refers to. They
            // are not taken over.
            .map(|raw| ManuallyDrop::new(unsafe { Mbuf::from_raw(raw) }))
    }

    /// Frees the row and counts the parts in it. Returns how many there were.
    fn bury(&mut self, reason: FragmentDrop) -> usize {
        let parts = self.dropped().map(|chain| chain.count_parts()).sum();
        // SAFETY: the row is ours, and this frees each chain in it once and leaves it empty.
        unsafe { dpdk_sys::rte_ip_frag_free_death_row(&raw mut *self.row, 3) };
        self.counters.dropped[reason as usize] += parts as u64;
        parts
    }

    /// See [`Defragment::expire`].
    #[inline]
    pub fn expire(&mut self, now: Nanos) -> usize {
        if self.counters.held() == 0 {
            return 0;
        }
        let mut expired = 0;
        // The row has room for some datagrams only, so it may take several rounds. Each frees what
        // it puts there.
        loop {
            // SAFETY: table and row are ours; DPDK minds the room in the row.
            unsafe {
                dpdk_sys::rte_ip_frag_table_del_expired_entries(
                    self.table.as_ptr(),
                    &raw mut *self.row,
                    now,
                );
            }
            if self.row.cnt == 0 {
                return expired;
            }
            expired += self.bury(FragmentDrop::Expired);
        }
    }

    /// See [`Defragment::clear`].
    pub fn clear(&mut self) -> usize {
        let expired = self.expire(Nanos::MAX);
        self.ledger.clear();
        expired
    }

    /// What was counted so far.
    pub fn counters(&self) -> FragmentCounters {
        self.counters
    }
}

impl Drop for Reassembly {
    fn drop(&mut self) {
        // SAFETY: this is the one handle. The parts in the table are freed with it; the row is
        // empty.
        unsafe { dpdk_sys::rte_ip_frag_table_destroy(self.table.as_ptr()) }
    }
}

impl std::fmt::Debug for Reassembly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reassembly")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Defragment<Mbuf> for Reassembly {
    #[inline]
    fn insert(&mut self, now: Nanos, frame: Mbuf, part: &Fragment) -> Insert<Mbuf> {
        self.insert(now, frame, part)
    }

    #[inline]
    fn expire(&mut self, now: Nanos) -> usize {
        self.expire(now)
    }

    fn clear(&mut self) -> usize {
        self.clear()
    }

    fn counters(&self) -> FragmentCounters {
        self.counters
    }
}

/// Leaves the IP header, as DPDK wants it, and the data behind it. Returns the length of that
/// header.
fn strip(frame: &mut Mbuf, part: &Fragment) -> Result<usize, FragmentDrop> {
    let (at, header) = (part.ip_offset, part.ip_header_len);
    let v4 = part.src.is_v4();
    let shortest = if v4 { ipv4::MIN_HEADER_LEN } else { V6_HEADERS };
    // All of that holds for what the decoder finds in this very frame.
    let is_found = header >= shortest
        && (!v4 || header <= MAX_V4_HEADER)
        && at + header <= frame.bytes().len()
        && at + header + part.len <= frame.frame_len();
    if !is_found {
        return Err(FragmentDrop::Invalid);
    }
    let surplus = if v4 { 0 } else { header - V6_HEADERS };
    if part.offset == 0 {
        // This part's header becomes the datagram's.
        let bytes = frame.own_bytes_mut().ok_or(FragmentDrop::Invalid)?;
        if surplus > 0 {
            // DPDK wants the fragment header right behind the fixed one (as RFC 8200 section 4.5
            // has it, what stands between them is part of every fragment, and to end
            // systems it says nothing of what TCP carries).
            bytes.copy_within(at..at + ipv6::HEADER_LEN, at + surplus);
            if let Some(next) = bytes.get_mut(at + surplus + 6) {
                *next = ipv6::extension::FRAGMENT;
            }
        }
    }
    frame.trim_front(at + surplus);
    let l3_len = header - surplus;
    frame.truncate(l3_len + part.len);
    Ok(l3_len)
}

/// Makes an address stand for the VLAN or virtual network as well, in which addresses may be used
/// that are in use elsewhere, too.
fn fold_scope(addr: &mut [u8], scope: u32) {
    for (byte, s) in addr.iter_mut().zip(scope.to_be_bytes()) {
        *byte ^= s;
    }
}

/// The header that tells DPDK of a part.
fn headers(part: &Fragment, l3_len: usize) -> Headers {
    let mut h = Headers([0; V6_HEADERS]);
    // Their callers have checked that lengths and offsets fit into 16 bits.
    let word = |v: usize| (v as u16).to_be_bytes();
    let b = &mut h.0;
    if part.src.is_v4() {
        let flags = (part.offset / 8) | if part.more { 0x2000 } else { 0 };
        b[0] = 0x40 | (l3_len / 4) as u8;
        b[2..4].copy_from_slice(&word(l3_len + part.len));
        b[4..6].copy_from_slice(&word(part.ident as usize));
        b[6..8].copy_from_slice(&word(flags));
        b[9] = part.protocol;
        b[12..16].copy_from_slice(&part.src.v4_bytes());
        b[16..20].copy_from_slice(&part.dst.v4_bytes());
        // RFC 791 section 3.2 tells datagrams apart by protocol, too; DPDK 22.11 does not look at
        // it. It looks at the addresses.
        b[12] ^= part.protocol;
        fold_scope(&mut b[12..16], part.scope);
    } else {
        let fixed = ipv6::header(
            &part.src,
            &part.dst,
            ipv6::extension::FRAGMENT,
            0,
            part.len + 8,
        );
        b[..ipv6::HEADER_LEN].copy_from_slice(&fixed);
        fold_scope(&mut b[8..12], part.scope);
        b[40] = part.protocol;
        b[42..44].copy_from_slice(&word(part.offset | usize::from(part.more)));
        b[44..48].copy_from_slice(&part.ident.to_be_bytes());
    }
    h
}
