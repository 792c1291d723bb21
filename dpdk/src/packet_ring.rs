//! Receiving from a kernel interface: a packet socket's ring (packet(7), TPACKET_V2), with the time
//! at which the kernel took each frame.
//!
//! net_af_packet of DPDK 22.11 reads such a ring too, and leaves out the time. It also cuts what is
//! longer than a place in the ring, which frames put together by the kernel (GRO) are. So a port of
//! that driver receives here, and the driver's own sockets are given nothing.
//!
//! What always holds: a frame is whole, or it is counted as one without a buffer; the ring's places
//! are read in their order, each between the kernel's writing and its next.

use crate::clock::Clock;
use crate::error::{Error, reason};
use crate::frames::FrameMaker;
use crate::mbuf::Mbuf;
use arrayvec::ArrayVec;
use dpdk_sys as sys;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use wire::Nanos;
use wire::io::BURST;

/// Bytes of the longest frame: an IP packet of 64 KiB, headers in front of it.
const LONGEST: usize = 65_536 + 256;
/// Bytes of both Ethernet addresses, behind which a VLAN tag stands.
const ADDRESSES: usize = 12;
/// The tag's first half where the kernel does not tell (IEEE 802.1Q).
const TPID_8021Q: u16 = 0x8100;

/// The size of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RingSize {
    /// Bytes of each frame's place.
    pub(crate) frame: u32,
    /// How many places.
    pub(crate) frames: u32,
    /// Bytes of a block of them.
    pub(crate) block: u32,
}

/// What the rings of a port have counted, told by those who read them.
#[derive(Debug, Default)]
pub(crate) struct RingCounters {
    /// Frames received, without those that this host sent.
    pub(crate) frames: AtomicU64,
    /// Their bytes.
    pub(crate) bytes: AtomicU64,
    /// Frames that this host sent, whether they are told of or not.
    pub(crate) sent: AtomicU64,
    /// Frames that no buffer was there for, or whose rest the kernel had no room for.
    pub(crate) no_mbuf: AtomicU64,
}

/// The socket and its ring.
pub(crate) struct Ring {
    raw: sys::shim_ring,
    /// Shared with who asks it what it dropped, so that its number is no other file's meanwhile.
    socket: Arc<OwnedFd>,
    next: u32,
    outgoing: bool,
    clock: Clock,
    maker: FrameMaker,
    /// A frame that was too long for its place, or that gets its VLAN tag back.
    scratch: Box<[u8]>,
    counters: Arc<RingCounters>,
}

// SAFETY: the socket and the memory belong to this ring alone, and both may be used from any
// thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Opens a ring for each of `queues` at the interface with this index. They share its flows;
    /// both directions of one come to the same ring. With `outgoing` they also tell of the segments
    /// with payload that this host sends.
    pub(crate) fn open(
        port: &str,
        interface: u32,
        size: RingSize,
        queues: u16,
        outgoing: bool,
        clock: Clock,
        maker: impl Fn() -> Result<FrameMaker, Error>,
    ) -> Result<Vec<Self>, Error> {
        let mut group = -1;
        let mut rings = Vec::with_capacity(queues.into());
        for _ in 0..queues {
            let mut raw = sys::shim_ring {
                interface,
                frame_size: size.frame,
                frames: size.frames,
                block_size: size.block,
                shared_by: queues.into(),
                group,
                outgoing: outgoing.into(),
                fd: -1,
                ring: std::ptr::null_mut(),
            };
            let maker = maker()?;
            // SAFETY: a writable structure, whose sizes fit each other.
            let result = unsafe { sys::shim_ring_open(&mut raw) };
            if result < 0 {
                return Err(Error::Port {
                    port: port.to_owned(),
                    step: "opening a packet socket",
                    reason: reason(result),
                });
            }
            group = raw.group;
            // SAFETY: opened just now, and nobody else closes it: the number in `raw` is taken out.
            let socket = unsafe { OwnedFd::from_raw_fd(std::mem::replace(&mut raw.fd, -1)) };
            rings.push(Self {
                raw,
                socket: Arc::new(socket),
                next: 0,
                outgoing,
                clock,
                maker,
                scratch: vec![0; LONGEST + 4].into_boxed_slice(),
                counters: Arc::default(),
            });
        }
        Ok(rings)
    }

    /// What it counts.
    pub(crate) fn counters(&self) -> &Arc<RingCounters> {
        &self.counters
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// Moves frames to `out`, until that is full or no frame is there; no more than a burst, those
    /// that are dropped counted in. Returns how many.
    pub(crate) fn rx_burst(&mut self, out: &mut ArrayVec<Mbuf, BURST>) -> usize {
        let mut received = 0;
        let mut offset = None;
        for _ in 0..out.remaining_capacity() {
            let Some(place) = Place::filled(&self.raw, self.next) else {
                break;
            };
            let offset = *offset.get_or_insert_with(|| self.clock.beside_the_system());
            if let Some(frame) = self.frame(&place, offset.of(place.time())) {
                out.push(frame);
                received += 1;
            }
            place.give_back();
            self.next = (self.next + 1) % self.raw.frames;
        }
        received
    }

    /// The frame in a place of the ring, in buffers of ours.
    #[inline]
    fn frame(&mut self, place: &Place, at: Nanos) -> Option<Mbuf> {
        let (status, len) = (place.status, place.wire_len());
        let sent = place.is_outgoing();
        let here = place.bytes();
        let mut whole = None;
        if status & sys::SHIM_RING_COPY != 0 {
            // SAFETY: a writable buffer of this length, which no reference leads to.
            let got = unsafe {
                sys::shim_ring_long_frame(
                    self.socket.as_raw_fd(),
                    self.scratch.as_mut_ptr().cast(),
                    self.scratch.len(),
                )
            };
            whole = usize::try_from(got).ok().filter(|n| *n <= LONGEST);
            if whole.is_none() {
                return self.no_room();
            }
        }
        if sent {
            count(&self.counters.sent, 1);
            if !self.outgoing {
                return None;
            }
        }
        let got = whole.unwrap_or(here.len());
        if !sent && got < len {
            // The kernel had no room for a copy of it.
            return self.no_room();
        }
        let tag = place.vlan().filter(|_| (ADDRESSES..LONGEST).contains(&got));
        let frame = match (tag, whole) {
            (None, None) => self.maker.make(here, at),
            (None, Some(n)) => self.maker.make(&self.scratch[..n], at),
            (Some(tag), whole) => {
                let (behind, end) = (ADDRESSES + tag.len(), got + tag.len());
                match whole {
                    Some(n) => self.scratch.copy_within(ADDRESSES..n, behind),
                    None => {
                        self.scratch[..ADDRESSES].copy_from_slice(&here[..ADDRESSES]);
                        self.scratch[behind..end].copy_from_slice(&here[ADDRESSES..]);
                    }
                }
                self.scratch[ADDRESSES..behind].copy_from_slice(&tag);
                self.maker.make(&self.scratch[..end], at)
            }
        };
        let Some(mut frame) = frame else {
            return if sent { None } else { self.no_room() };
        };
        if sent {
            frame.set_sent();
        } else {
            count(&self.counters.frames, 1);
            count(&self.counters.bytes, frame.frame_len() as u64);
        }
        Some(frame)
    }

    #[cold]
    fn no_room(&self) -> Option<Mbuf> {
        self.counters.no_mbuf.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("socket", &self.socket)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped once, unmapped once; no place of it is referred to any more.
        unsafe { sys::shim_ring_close(&mut self.raw) };
    }
}

/// There is one writer.
#[inline]
fn count(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

/// A place in the ring that the kernel has filled and given to us.
struct Place {
    at: *const u8,
    status: u32,
    size: usize,
}

impl Place {
    #[inline]
    fn filled(ring: &sys::shim_ring, index: u32) -> Option<Self> {
        // SAFETY: the ring has `frames` places of `frame_size` bytes each, and `index` is below
        // that. The status is an aligned 32-bit word, which the kernel writes at the same time, as
        // an atomic one is.
        unsafe {
            let offset = index as usize * ring.frame_size as usize;
            let at = ring.ring.cast::<u8>().add(offset).cast_const();
            let status = Self::status_at(at).load(Ordering::Acquire);
            (status & sys::SHIM_RING_USER != 0).then_some(Self {
                at,
                status,
                size: ring.frame_size as usize,
            })
        }
    }

    /// # Safety
    /// `at` is the beginning of a place in a ring that outlives the reference.
    unsafe fn status_at<'a>(at: *const u8) -> &'a AtomicU32 {
        // SAFETY: as the caller says; places are aligned to 16 bytes.
        unsafe { &*at.add(sys::SHIM_RING_STATUS as usize).cast() }
    }

    /// The bytes of a field.
    #[inline]
    fn field<const N: usize>(&self, field: u32) -> [u8; N] {
        // SAFETY: the fields are within the header of each place, and the kernel leaves it alone
        // until it is given back.
        unsafe { self.at.add(field as usize).cast::<[u8; N]>().read() }
    }

    #[inline]
    fn word(&self, field: u32) -> u32 {
        u32::from_ne_bytes(self.field(field))
    }

    /// The frame's length on the wire.
    #[inline]
    fn wire_len(&self) -> usize {
        self.word(sys::SHIM_RING_LEN) as usize
    }

    /// When the kernel took it, by the system's clock.
    #[inline]
    fn time(&self) -> Nanos {
        let seconds = u64::from(self.word(sys::SHIM_RING_SEC));
        seconds * 1_000_000_000 + u64::from(self.word(sys::SHIM_RING_NSEC))
    }

    #[inline]
    fn is_outgoing(&self) -> bool {
        u32::from(self.field::<1>(sys::SHIM_RING_PKTTYPE)[0]) == sys::SHIM_RING_OUTGOING
    }

    /// The VLAN tag that the kernel took out, if it did.
    #[inline]
    fn vlan(&self) -> Option<[u8; 4]> {
        if self.status & sys::SHIM_RING_VLAN_VALID == 0 {
            return None;
        }
        let half = |field| u16::from_ne_bytes(self.field(field)).to_be_bytes();
        let tpid = match self.status & sys::SHIM_RING_VLAN_TPID_VALID {
            0 => TPID_8021Q.to_be_bytes(),
            _ => half(sys::SHIM_RING_VLAN_TPID),
        };
        let tci = half(sys::SHIM_RING_VLAN_TCI);
        Some([tpid[0], tpid[1], tci[0], tci[1]])
    }

    /// The bytes that are in the place.
    #[inline]
    fn bytes(&self) -> &[u8] {
        let mac = usize::from(u16::from_ne_bytes(self.field(sys::SHIM_RING_MAC)));
        let mac = mac.min(self.size);
        let len = (self.word(sys::SHIM_RING_SNAPLEN) as usize).min(self.size - mac);
        // SAFETY: the range is inside of the place, whose bytes the kernel has initialised and
        // leaves alone until it is given back, which takes `self`.
        unsafe { std::slice::from_raw_parts(self.at.add(mac), len) }
    }

    #[inline]
    fn give_back(self) {
        // SAFETY: the place is in a ring that is mapped, and nothing refers to its bytes any more.
        unsafe { Self::status_at(self.at) }.store(0, Ordering::Release);
    }
}
