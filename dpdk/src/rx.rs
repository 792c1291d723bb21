//! Receive queues.

use crate::clock::Clock;
use crate::mbuf::Mbuf;
use crate::packet_ring::Ring;
use crate::port::Inner;
use arrayvec::ArrayVec;
use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use wire::io::BURST;

/// The one handle of a receive queue. It moves to the core that polls it and can neither be copied
/// nor shared.
///
/// ```compile_fail
/// fn twice(q: dpdk::RxQueue) -> (dpdk::RxQueue, dpdk::RxQueue) {
///     (q.clone(), q)
/// }
/// ```
///
/// ```compile_fail
/// fn shared<T: Sync>() {}
/// shared::<dpdk::RxQueue>();
/// ```
#[derive(Debug)]
pub struct RxQueue {
    port: Arc<Inner>,
    number: u16,
    queue: u16,
    frames: u64,
    from: From,
    _unsync: PhantomData<Cell<()>>,
}

/// Where the frames of a queue come from, and who knows their times.
#[derive(Debug)]
enum From {
    /// The driver, which knows none, or those of a file.
    Driver,
    /// The driver, which has the system's times: they are told by this clock.
    Stamped(Clock),
    /// A packet socket.
    Socket(Box<Ring>),
}

impl RxQueue {
    pub(crate) fn new(port: Arc<Inner>, queue: u16) -> Self {
        let from = match (port.take_ring(queue), port.stamping_clock()) {
            (Some(ring), _) => From::Socket(Box::new(ring)),
            (None, Some(clock)) => From::Stamped(clock),
            (None, None) => From::Driver,
        };
        Self {
            from,
            number: port.number(),
            port,
            queue,
            frames: 0,
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

    /// Frames received.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The socket that the frames come over, if they do: poll(2) tells when there is one. Its file
    /// descriptor is for that alone.
    pub fn socket(&self) -> Option<Arc<OwnedFd>> {
        match &self.from {
            From::Socket(ring) => Some(Arc::clone(ring.socket())),
            From::Driver | From::Stamped(_) => None,
        }
    }

    /// See [`wire::io::Rx::rx_burst`]. The first bytes of each frame are prefetched.
    #[inline]
    pub fn rx_burst(&mut self, out: &mut ArrayVec<Mbuf, BURST>) -> usize {
        if let From::Socket(ring) = &mut self.from {
            let got = ring.rx_burst(out);
            self.frames += got as u64;
            return got;
        }
        let len = out.len();
        let got = self.driver_burst(out);
        if let From::Stamped(clock) = &self.from
            && got > 0
        {
            let offset = clock.beside_the_system();
            for frame in out.iter_mut().skip(len) {
                if let Some(at) = frame.received_at() {
                    frame.set_captured_at(offset.of(at));
                }
            }
        }
        got
    }

    #[inline]
    fn driver_burst(&mut self, out: &mut ArrayVec<Mbuf, BURST>) -> usize {
        let len = out.len();
        let room = out.remaining_capacity();
        if room == 0 {
            return 0;
        }
        // SAFETY: the port is started as long as `self.port` lives, and this is the one handle of
        // its queue. `Mbuf` is a transparent pointer to an mbuf, and the array has room for
        // `room` more of them; the driver fills in the first `got`, each a frame that is
        // ours from now on.
        unsafe {
            let free = out.as_mut_ptr().add(len).cast::<*mut dpdk_sys::rte_mbuf>();
            let got = usize::from(dpdk_sys::shim_rx_burst(
                self.number,
                self.queue,
                free,
                room as u16,
            ))
            .min(room);
            out.set_len(len + got);
            self.frames += got as u64;
            got
        }
    }
}

impl wire::io::Rx for RxQueue {
    type Frame = Mbuf;

    #[inline]
    fn rx_burst(&mut self, out: &mut ArrayVec<Mbuf, BURST>) -> usize {
        self.rx_burst(out)
    }

    #[inline]
    fn prefetch<T>(of: &T) {
        crate::prefetch(of);
    }
}

/// Asks for the cache line at the beginning of `of`, and goes on without it, as `rte_prefetch0`
/// (rte_prefetch.h) does. Other processors than x86-64 are not asked.
#[inline]
pub fn prefetch<T>(of: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction is part of every x86-64, reads nothing that the program could see,
    // and the address is a reference's.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
            std::ptr::from_ref(of).cast(),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = of;
}
