//! Waking a thread that waits in poll(2): an eventfd, written only if the thread really sleeps.
//!
//! What always holds: a wake that comes after the sleeper has said it is about to sleep ends that
//! sleep, and a wake costs no system call while it is awake.
#![forbid(unsafe_code)]

mod rest;

pub use rest::Rest;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

struct Shared {
    fd: OwnedFd,
    asleep: AtomicBool,
}

/// Wakes the thread that waits with the [`Sleeper`] of the same pair.
#[derive(Clone)]
pub struct Waker(Arc<Shared>);

/// The waiting side.
pub struct Sleeper(Arc<Shared>);

/// A waker and its sleeper.
///
/// # Errors
/// The system has no file descriptor left.
pub fn pair() -> io::Result<(Waker, Sleeper)> {
    let shared = Arc::new(Shared {
        fd: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        asleep: AtomicBool::new(false),
    });
    Ok((Waker(Arc::clone(&shared)), Sleeper(shared)))
}

impl Waker {
    /// Wakes the sleeper; a system call only if it sleeps.
    pub fn wake(&self) {
        if self.0.asleep.swap(false, Ordering::SeqCst) {
            // It can only fail with a counter near 2^64, and then the sleeper is awake anyway.
            let _ = rustix::io::write(&self.0.fd, &1u64.to_ne_bytes());
        }
    }
}

impl Sleeper {
    /// What belongs into the list of descriptors to wait for, besides the caller's own.
    pub fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.0.fd, PollFlags::IN)
    }

    /// Waits until one of `fds`, [`Sleeper::poll_fd`] among them, is ready or `timeout` has passed.
    /// `idle` is asked once wakes are heard again: if it says false there is work already, and
    /// nothing is waited for.
    ///
    /// # Errors
    /// What poll(2) says, a signal excepted.
    pub fn wait(
        &self,
        fds: &mut [PollFd<'_>],
        timeout: Duration,
        idle: impl FnOnce() -> bool,
    ) -> io::Result<()> {
        self.0.asleep.store(true, Ordering::SeqCst);
        let timeout = if idle() { timeout } else { Duration::ZERO };
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
        let result = poll(fds, Some(&timeout));
        if !self.0.asleep.swap(false, Ordering::SeqCst) {
            // Someone woke us: take the count, or the next wait ends at once.
            let _ = rustix::io::read(&self.0.fd, &mut [0u8; 8]);
        }
        match result {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}
