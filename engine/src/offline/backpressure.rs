//! When a capture file waits: nothing of it is dropped because something is full that empties again
//! as the targets answer.
//!
//! A file may ask for more than there can be, as when more sessions are open in it at a time than
//! `limits.sessions`. Then waiting leads nowhere: what is full stays full, since what would empty
//! it stands further on in the file. So it waits no longer than it takes to be sure, which is as
//! long as nothing moves, and each time it was in vain it is sure sooner.

use crate::worker::Worker;
use replay::Egress;
use replay::slots::QUARANTINE;
use wire::decode::Packet;
use wire::defragment::Defragment;
use wire::io::{Frame, Rx, Tx};
use wire::{Flags, Nanos};

/// Captured segments a core may hold while an unpaced file is read on.
const UNPACED_SEGMENTS: usize = 1_024;
/// It is never sure sooner than this.
const LEAST: Nanos = 10_000_000;
/// Frames that go on in spite of it when waiting was in vain, at first and at most.
const BURSTS: (u32, u32) = (8, 4_096);

/// See the module's documentation.
pub struct Backpressure {
    /// How long nothing may move before the file goes on, now and at most.
    patience: Nanos,
    most: Nanos,
    /// Since when nothing has moved, and by what that shows.
    since: Option<(Nanos, u64)>,
    /// Frames that still go on in spite of it, and how many do next time.
    allowed: u32,
    burst: u32,
}

/// What a file waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Full {
    /// A ring to another worker: it empties by itself.
    Ring,
    /// Addresses, which rest when they were used.
    Addresses,
    /// Sessions, buffers or bytes, which go as the targets answer.
    Other,
}

impl Backpressure {
    /// `most` is how long nothing may move before waiting is in vain.
    pub const fn new(most: Nanos) -> Self {
        Self {
            patience: most,
            most,
            since: None,
            allowed: 0,
            burst: BURSTS.0,
        }
    }

    /// True if a frame is to wait, which was decoded as `packet` if it is a segment.
    #[inline]
    pub fn holds<R, T, D>(
        &mut self,
        worker: &mut Worker<R, T, D>,
        now: Nanos,
        unpaced: bool,
        packet: Option<&Packet>,
    ) -> bool
    where
        R: Rx,
        R::Frame: Frame<Payload = T::Payload>,
        T: Tx,
        D: Defragment<R::Frame>,
    {
        match full(worker, now, unpaced, packet) {
            Some(full) => self.waits(full, now, worker.core.progress()),
            None => {
                if self.since.take().is_some() {
                    self.patience = (self.patience * 2).min(self.most);
                    self.burst = (self.burst / 2).max(BURSTS.0);
                }
                false
            }
        }
    }

    #[cold]
    fn waits(&mut self, full: Full, now: Nanos, progress: u64) -> bool {
        if full != Full::Ring && self.allowed > 0 {
            self.allowed -= 1;
            return false;
        }
        let since = match self.since {
            Some((since, last)) if last == progress => since,
            _ => {
                self.since = Some((now, progress));
                now
            }
        };
        let patience = match full {
            Full::Ring => return true,
            Full::Addresses => self.patience + QUARANTINE,
            Full::Other => self.patience,
        };
        if now.saturating_sub(since) < patience {
            return true;
        }
        self.patience = (self.patience / 4).max(LEAST);
        self.allowed = self.burst - 1;
        self.burst = (self.burst * 2).min(BURSTS.1);
        // What comes then waits anew.
        self.since = Some((now, progress));
        false
    }
}

/// What is full that the next frame needs.
#[inline]
fn full<R, T, D>(
    worker: &mut Worker<R, T, D>,
    now: Nanos,
    unpaced: bool,
    packet: Option<&Packet>,
) -> Option<Full>
where
    R: Rx,
    R::Frame: Frame<Payload = T::Payload>,
    T: Tx,
    D: Defragment<R::Frame>,
{
    let crowded = |ring: &crate::worker::Ring<R::Frame>| ring.len() * 2 > ring.capacity();
    if worker.to.len() > 1 && worker.to.iter().any(crowded) {
        return Some(Full::Ring);
    }
    let (held, most) = (
        worker.core.segments_for_answering(),
        worker.core.params().max_segments,
    );
    // Beyond seven eighths the core sheds sessions, and there is no room for bytes soon.
    if worker.out.pressure || held * 8 > most * 7 {
        return Some(Full::Other);
    }
    let begins = packet
        .map(|p| &p.head)
        .filter(|h| h.flags.has(Flags::SYN) && !h.flags.has(Flags::ACK));
    // No intercept is up.
    if begins.is_some() && !worker.out.accepts_sessions() {
        return Some(Full::Other);
    }
    if !unpaced {
        return None;
    }
    let core = &mut worker.core;
    if held > UNPACED_SEGMENTS.min(most / 2)
        || core.bytes_in_flight() > core.params().session_bytes / 2
    {
        return Some(Full::Other);
    }
    let head = begins?;
    let (transfer, of_client) = core.sources().transfer_of(&head.flow)?;
    if !of_client {
        return None;
    }
    if !core.has_room(now, transfer, &mut worker.out) {
        return Some(Full::Other);
    }
    (!core.has_addresses(now, transfer)).then_some(Full::Addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;

    #[test]
    fn it_waits_while_something_moves_and_then_ever_shorter() {
        let mut b = Backpressure::new(10 * S);
        // Something moves all the time.
        for i in 0..100 {
            assert!(b.waits(Full::Other, i * 9 * S, i));
        }
        let start = 1_000 * S;
        assert!(b.waits(Full::Other, start, 100));
        assert!(b.waits(Full::Other, start + 10 * S - 1, 100));
        assert!(!b.waits(Full::Other, start + 10 * S, 100));
        // A few frames go; the next waits again, but not for so long, and more go then.
        let gone = |b: &mut Backpressure, now| {
            let waits = |_: &usize| !b.waits(Full::Other, now, 100);
            (0..10_000).take_while(waits).count()
        };
        assert_eq!(gone(&mut b, start + 10 * S), 7);
        assert_eq!(gone(&mut b, start + 12 * S), 0);
        assert_eq!(gone(&mut b, start + 13 * S), 16);
        for i in 0..40 {
            gone(&mut b, start + 20 * S + i * S);
        }
        assert_eq!(gone(&mut b, start + 100 * S), 4_096);
        assert!(b.waits(Full::Other, start + 100 * S + LEAST - 1, 100));
        assert!(b.waits(Full::Ring, start + 1_000 * S, 100));
    }

    #[test]
    fn addresses_are_waited_for_until_they_have_rested() {
        let mut b = Backpressure::new(10 * S);
        assert!(b.waits(Full::Addresses, 0, 7));
        assert!(b.waits(Full::Addresses, 70 * S, 7));
        assert!(!b.waits(Full::Addresses, 71 * S, 7));
    }
}
