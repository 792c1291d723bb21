//! Time on the packet path: the CPU's time-stamp counter, read without a syscall and scaled to
//! nanoseconds.
//!
//! All clocks of a process count from the start of its EAL, so instants of different cores compare.
//! The counter is taken to be invariant and in step across cores, as it is on every x86-64 server
//! CPU that DPDK supports.

use std::time::Instant;
use wire::Nanos;

/// A monotonic clock. Copy one into each worker.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: u64,
    /// Nanoseconds per cycle, as a 32.32 fixed-point number.
    scale: u64,
}

/// Shortest time over which the counter is measured against the system's clock: 20 ms make the
/// error a few parts per million.
const CALIBRATION_NS: u128 = 20_000_000;

impl Clock {
    /// Nanoseconds since the EAL was started. Costs one read of the counter and one multiplication.
    #[inline]
    pub fn now(&self) -> Nanos {
        let cycles = cycles().saturating_sub(self.start);
        ((u128::from(cycles) * u128::from(self.scale)) >> 32) as Nanos
    }

    /// Cycles of the counter per second.
    pub fn hz(&self) -> u64 {
        ((1_000_000_000u128 << 32) / u128::from(self.scale.max(1))) as u64
    }
}

/// The two clocks, read together before the EAL starts.
pub(crate) struct Calibration {
    cycles: u64,
    instant: Instant,
}

impl Calibration {
    pub(crate) fn begin() -> Self {
        Self {
            cycles: cycles(),
            instant: Instant::now(),
        }
    }

    /// The clock. DPDK rounds its own measurement of the counter to 10 MHz, so the time that
    /// starting the EAL took is used to measure it better; DPDK's figure serves when that was
    /// too short.
    pub(crate) fn finish(self) -> Clock {
        let elapsed = self.instant.elapsed().as_nanos();
        let passed = cycles().saturating_sub(self.cycles);
        // SAFETY: plain getter; the EAL has been started.
        let hz = u128::from(unsafe { dpdk_sys::rte_get_tsc_hz() });
        let scale = if elapsed >= CALIBRATION_NS && passed > 0 {
            (elapsed << 32) / u128::from(passed)
        } else {
            (1_000_000_000u128 << 32) / hz.max(1)
        };
        Clock {
            start: self.cycles,
            scale: u64::try_from(scale).unwrap_or(u64::MAX),
        }
    }
}

#[inline]
fn cycles() -> u64 {
    // SAFETY: reads the time-stamp counter, no precondition.
    unsafe { dpdk_sys::shim_rdtsc() }
}
