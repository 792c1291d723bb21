//! Time on the packet path: the CPU's time-stamp counter, read without a syscall and scaled to
//! nanoseconds.
//!
//! All clocks of a process begin with the system's time at the start of its EAL and run on by the
//! counter alone, so instants of different cores compare and none is before an earlier one. The
//! counter is taken to be invariant and in step across cores, as it is on every x86-64 server
//! CPU that DPDK supports.

use std::time::{Instant, SystemTime, UNIX_EPOCH};
use wire::Nanos;

/// A monotonic clock. Copy one into each worker.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: u64,
    /// Nanoseconds per cycle, as a 32.32 fixed-point number.
    scale: u64,
    /// The system's time at `start`.
    epoch: Nanos,
}

/// Shortest time over which the counter is measured against the system's clock: 20 ms make the
/// error a few parts per million.
const CALIBRATION_NS: u128 = 20_000_000;

impl Clock {
    /// Nanoseconds since 1970, by a clock that never goes back: it was right when the EAL was
    /// started. Costs one read of the counter and one multiplication.
    #[inline]
    pub fn now(&self) -> Nanos {
        let cycles = cycles().saturating_sub(self.start);
        self.epoch + ((u128::from(cycles) * u128::from(self.scale)) >> 32) as Nanos
    }

    /// What makes this clock's time of one of the system's, now.
    #[inline]
    pub(crate) fn beside_the_system(&self) -> Offset {
        Offset {
            ours: self.now(),
            system: unix(),
        }
    }

    /// Cycles of the counter per second.
    pub fn hz(&self) -> u64 {
        ((1_000_000_000u128 << 32) / u128::from(self.scale.max(1))) as u64
    }
}

/// The time of two clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offset {
    ours: Nanos,
    system: Nanos,
}

impl Offset {
    /// The system's time `at`, a short while ago, on our clock. What has not been yet is now: the
    /// system's clock was set meanwhile.
    #[inline]
    pub(crate) fn of(&self, at: Nanos) -> Nanos {
        self.ours.saturating_sub(self.system.saturating_sub(at))
    }
}

/// The system's time (CLOCK_REALTIME), which the kernel stamps frames with.
#[inline]
fn unix() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_nanos() as Nanos
}

/// The two clocks, read together before the EAL starts.
pub(crate) struct Calibration {
    cycles: u64,
    instant: Instant,
    epoch: Nanos,
}

impl Calibration {
    pub(crate) fn begin() -> Self {
        Self {
            cycles: cycles(),
            instant: Instant::now(),
            epoch: unix(),
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
            epoch: self.epoch,
        }
    }
}

#[inline]
fn cycles() -> u64 {
    // SAFETY: reads the time-stamp counter, no precondition.
    unsafe { dpdk_sys::shim_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_system_s_has_its_place_on_ours() {
        let o = Offset {
            ours: 5_000,
            system: 9_000,
        };
        assert_eq!(o.of(9_000), 5_000);
        assert_eq!(o.of(8_300), 4_300);
        assert_eq!(o.of(9_001), 5_000, "not after now");
        assert_eq!(o.of(1), 0, "not before the beginning");
    }
}
