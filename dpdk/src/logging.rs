//! DPDK's log lines, led into the `log` crate and remembered for error messages.
//!
//! Drivers explain a failure only in their log; [`said`] brings the complaint into the error that
//! the caller sees. DPDK logs while it sets things up and not while it moves packets, so the lock
//! is never taken on the packet path.

use std::ffi::{c_char, c_int};
use std::sync::{Mutex, Once, PoisonError};

/// Lines kept since [`clear`].
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
const KEPT: usize = 64;
/// Lines of these that make a reason: the first ones are nearest to the cause, later ones only say
/// that the caller failed as well.
pub(crate) const TOLD: usize = 3;
static OPEN: Once = Once::new();

/// Leads DPDK's log here from now on.
pub(crate) fn open() {
    OPEN.call_once(|| {
        // SAFETY: `sink` is a plain function that lives as long as the process and does not unwind.
        let result: c_int = unsafe { dpdk_sys::shim_log_to(Some(sink)) };
        if result < 0 {
            log::warn!(
                "DPDK's log stays on stderr: it could not be redirected (errno {})",
                -result
            );
        }
    });
}

/// Forgets what was said so far, so that the next error quotes only its own cause.
pub(crate) fn clear() {
    SAID.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Takes what DPDK said since [`clear`], on one line; `None` if it kept silent.
pub(crate) fn said() -> Option<String> {
    let lines = take();
    let told = lines.get(..TOLD).unwrap_or(&lines);
    (!told.is_empty()).then(|| told.join("; "))
}

/// Takes all lines since [`clear`].
pub(crate) fn take() -> Vec<String> {
    std::mem::take(&mut *SAID.lock().unwrap_or_else(PoisonError::into_inner))
}

extern "C" fn sink(text: *const c_char, len: usize) {
    if text.is_null() {
        return;
    }
    // SAFETY: stdio hands over `len` readable bytes that stay valid during this call.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    // A logger that panics must not unwind into C.
    let _ = std::panic::catch_unwind(|| {
        for line in String::from_utf8_lossy(bytes)
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
        {
            log::debug!(target: "dpdk", "{line}");
            let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
            if said.len() < KEPT {
                said.push(line.to_owned());
            }
        }
    });
}
