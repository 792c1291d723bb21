//! How a thread that polls gives its core back: not at all while work comes, in short sleeps while
//! it may come any moment, and in poll(2) once it has been quiet.
//!
//! What always holds: a thread that rests is woken by a frame on one of its sockets and by its
//! waker, and looks again after a bounded time whatever happens.

use crate::Sleeper;
use arrayvec::ArrayVec;
use rustix::event::{PollFd, PollFlags};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Short sleeps before the thread waits in poll(2). They let frames gather, so that those of a
/// busy wire are taken in bursts.
const NAPS: u32 = 16;
/// How long to wait at most where every source of work wakes the thread.
const LONGEST: Duration = Duration::from_millis(5);
/// How long to wait at most where some do not.
const UNHEARD: Duration = Duration::from_micros(500);
/// Sockets that are listened to at most.
const SOCKETS: usize = 63;

/// How a thread that polls takes its rest.
pub struct Rest {
    sleeper: Sleeper,
    sockets: Vec<Arc<OwnedFd>>,
    longest: Duration,
    rounds: u32,
    nap: Duration,
    empty: u32,
    /// A socket ended the last wait.
    called: bool,
}

impl Rest {
    /// After `rounds` polls without work the thread sleeps for `nap` at a time, and after some of
    /// these until one of `sockets` has something to read, or the waker of `sleeper` is called.
    /// `all` says that work comes in no other way; otherwise it looks after 500 µs.
    pub fn new(
        sleeper: Sleeper,
        sockets: Vec<Arc<OwnedFd>>,
        all: bool,
        rounds: u32,
        nap: Duration,
    ) -> Self {
        let all = all && sockets.len() <= SOCKETS;
        Self {
            sleeper,
            sockets,
            longest: if all { LONGEST } else { UNHEARD },
            rounds,
            nap,
            empty: 0,
            called: false,
        }
    }

    /// To be called after each poll. `worked` says whether there was anything to do; if not, this
    /// may sleep. `quiet` says for how long nothing will be due, and `idle` that no other thread
    /// has left anything; they are asked only before a longer wait.
    pub fn after(
        &mut self,
        worked: bool,
        quiet: impl FnOnce() -> Duration,
        idle: impl FnOnce() -> bool,
    ) {
        // What a socket called for and no poll found stays: an error of its interface, or frames
        // that are not read any more. To wait for it again would end at once.
        let in_vain = std::mem::take(&mut self.called) && !worked;
        if worked {
            self.empty = 0;
            return;
        }
        self.empty = self.empty.saturating_add(1);
        if self.empty <= self.rounds {
            return;
        }
        let quiet = quiet().min(self.longest);
        if in_vain || self.empty <= self.rounds + NAPS || quiet <= self.nap {
            std::thread::sleep(self.nap);
            return;
        }
        let mut fds = ArrayVec::<_, { SOCKETS + 1 }>::new();
        fds.push(self.sleeper.poll_fd());
        let sockets = self.sockets.iter().take(SOCKETS);
        fds.extend(sockets.map(|s| PollFd::new(s, PollFlags::IN)));
        if self.sleeper.wait(&mut fds, quiet, idle).is_err() {
            std::thread::sleep(self.nap);
        }
        self.called = fds.iter().skip(1).any(|fd| !fd.revents().is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    const NEVER: Duration = Duration::from_secs(3_600);

    /// Rests until it has waited in poll(2) `waits` times. The longest wait is made so long that a
    /// test which is not woken does not end.
    fn rest(sockets: Vec<Arc<OwnedFd>>) -> (crate::Waker, Rest) {
        let (waker, sleeper) = crate::pair().unwrap();
        let mut rest = Rest::new(sleeper, sockets, true, 2, Duration::from_micros(1));
        rest.longest = NEVER;
        for _ in 0..2 + NAPS {
            rest.after(false, || NEVER, || panic!("it only naps"));
        }
        (waker, rest)
    }

    #[test]
    fn a_frame_on_a_socket_ends_the_wait() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let (_waker, mut rest) = rest(vec![Arc::new(here.into())]);
        let writer = std::thread::spawn(move || there.write_all(b"x").map(|()| there));
        rest.after(false, || NEVER, || true);
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn a_socket_that_calls_without_end_costs_a_sleep_each_time() {
        let (here, mut there) = UnixStream::pair().unwrap();
        there.write_all(b"x").unwrap();
        let (_waker, mut rest) = rest(vec![Arc::new(here.into())]);
        rest.nap = Duration::from_millis(1);
        let began = Instant::now();
        for _ in 0..20 {
            rest.after(false, || NEVER, || true);
        }
        assert!(began.elapsed() >= Duration::from_millis(10));
    }

    #[test]
    fn a_wake_ends_the_wait_and_so_does_work_that_came_just_before() {
        let (waker, mut rest) = rest(Vec::new());
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let handle = std::thread::spawn(move || {
            // A wake before the thread sleeps is not heard, so it goes on.
            while !ended.load(Ordering::Relaxed) {
                waker.wake();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        rest.after(false, || NEVER, || true);
        over.store(true, Ordering::Relaxed);
        handle.join().unwrap();
        rest.after(false, || NEVER, || false);
    }

    #[test]
    fn what_is_due_ends_the_wait_and_after_work_it_begins_anew() {
        let (_waker, mut rest) = rest(Vec::new());
        let began = Instant::now();
        rest.after(false, || Duration::from_millis(3), || true);
        assert!(began.elapsed() >= Duration::from_millis(3));
        rest.after(true, || panic!("there was work"), || true);
        rest.after(false, || panic!("it polls again at once"), || true);
    }
}
