//! Running closures on workers.
//!
//! A closure owns what it moves in, runs once on the worker's pinned thread, and its result, or its
//! panic, comes back through the handle. When [`LcoreHandle::join`] returns, the worker waits for
//! the next launch.

use crate::eal::{Eal, Inner};
use crate::error::Error;
use std::any::Any;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};

/// What runs on a worker. Joining it yields the closure's result; dropping it lets the closure run
/// on.
#[must_use = "join it to learn how the worker ended"]
pub struct LcoreHandle<R> {
    index: usize,
    result: Receiver<Result<R, Error>>,
    eal: Arc<Inner>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Eal {
    /// Runs `work` on a worker, counted from 0. Fails if the worker is busy or does not exist;
    /// `work` is then dropped.
    pub fn launch<R, F>(&self, worker: usize, work: F) -> Result<LcoreHandle<R>, Error>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        if worker >= self.inner.workers {
            return Err(Error::NoWorker {
                index: worker,
                workers: self.inner.workers,
            });
        }
        let (sender, result): (SyncSender<Result<R, Error>>, _) = sync_channel(1);
        // The closure may use DPDK's memory, so it keeps the EAL alive until its result is handed
        // over.
        let keep = self.clone();
        let job: Job = Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Error::Panicked {
                index: worker,
                message: message(payload.as_ref()),
            });
            // The handle may be gone; then nobody wants the result.
            let _ = sender.send(outcome);
            drop(keep);
        });
        let raw = Box::into_raw(Box::new(job));
        let launched = {
            let _guard = self
                .inner
                .control
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            // SAFETY: `run` takes back the box that `raw` is; the lcore exists, and launches are
            // serialised by the lock.
            unsafe { dpdk_sys::rte_eal_remote_launch(Some(run), raw.cast(), worker as u32 + 1) }
        };
        if launched != 0 {
            // SAFETY: the launch was refused, so `run` never sees `raw`, which came from
            // Box::into_raw above.
            drop(unsafe { Box::from_raw(raw) });
            return Err(Error::Busy(worker));
        }
        Ok(LcoreHandle {
            index: worker,
            result,
            eal: Arc::clone(&self.inner),
        })
    }
}

impl<R> LcoreHandle<R> {
    /// The worker that runs it.
    pub fn worker(&self) -> usize {
        self.index
    }

    /// True when [`LcoreHandle::join`] would not wait.
    pub fn is_finished(&self) -> bool {
        !is_running(self.index as u32 + 1)
    }

    /// Waits for the closure to end and returns its result; [`Error::Panicked`] if it panicked. A
    /// closure must not join itself: that is refused as [`Error::Busy`].
    pub fn join(self) -> Result<R, Error> {
        let lcore = self.index as u32 + 1;
        // SAFETY: reads a thread-local of DPDK.
        if lcore == unsafe { dpdk_sys::shim_lcore_id() } {
            return Err(Error::Busy(self.index));
        }
        let outcome = self.result.recv();
        // SAFETY: the lcore exists; this waits for the few instructions between the closure's end
        // and the worker's wait.
        unsafe { dpdk_sys::rte_eal_wait_lcore(lcore) };
        drop(self.eal);
        outcome.unwrap_or_else(|_| {
            Err(Error::Panicked {
                index: self.index,
                message: "it ended without a result".to_owned(),
            })
        })
    }
}

extern "C" fn run(raw: *mut c_void) -> c_int {
    // SAFETY: `raw` is the pointer that `launch` made with Box::into_raw, and this is its only use.
    let job = unsafe { Box::from_raw(raw.cast::<Job>()) };
    // The closure's own panics are caught inside; this is for a result or a capture whose drop
    // panics.
    let _ = catch_unwind(AssertUnwindSafe(*job));
    0
}

fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// True while a closure runs on this lcore, 1 or higher.
pub(crate) fn is_running(lcore: u32) -> bool {
    // SAFETY: reads a static table of DPDK; lcores are below RTE_MAX_LCORE.
    lcore < dpdk_sys::RTE_MAX_LCORE
        && unsafe { dpdk_sys::rte_eal_get_lcore_state(lcore) } == dpdk_sys::RUNNING
}

/// How many workers the EAL was started with.
pub(crate) fn count_workers() -> usize {
    // SAFETY: reads a counter of DPDK's configuration, which is set since the EAL was started.
    (unsafe { dpdk_sys::rte_lcore_count() } as usize).saturating_sub(1)
}
