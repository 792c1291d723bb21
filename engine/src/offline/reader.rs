//! Reading ahead: frame by frame from the files into the rings of the workers.
//!
//! It runs on a thread of its own. Where a ring is full or no buffer is free it waits, so that it
//! is never far ahead of what is played.

use super::player::{Ahead, Due, Played};
use super::tape::Shared;
use capture_file::{Merge, Schedule};
use config::replay::Speed;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;
use wire::Nanos;
use wire::decode::LinkType;

/// How long it waits for room or for a buffer before it looks again.
const NAP: Duration = Duration::from_micros(50);
/// Frames between two accounts of how far it is.
const ACCOUNT: u64 = 1_024;

/// Makes a frame of bytes that were captured at a time; `None` if no buffer is free.
pub type Make<F> = Box<dyn FnMut(&[u8], Nanos) -> Option<F> + Send>;

/// Which worker a frame goes to, by its index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The owner of its session.
    Owner(usize),
    /// Part of a datagram: this worker puts it together, and hands it to the owner of its session.
    Part(usize),
}

/// Says whose a frame of a capture file is, by its link type and its bytes.
pub type Owner = Box<dyn Fn(Option<LinkType>, &[u8]) -> Whose + Send>;

/// What reading needs. `F` is a frame, as a worker gets it.
pub struct Reading<F> {
    /// A ring to each worker.
    pub rings: Vec<Ahead<F>>,
    /// Frames that each worker was given, of all passes.
    pub pushed: Vec<u64>,
    /// Makes frames.
    pub make: Make<F>,
    /// Whose a frame is.
    pub owner: Owner,
    /// Our clock.
    pub clock: Box<dyn Fn() -> Nanos + Send>,
    /// How fast it is to be played.
    pub speed: Speed,
    /// The longest time without a frame, in capture time.
    pub max_idle: Option<Nanos>,
}

/// Reads all files once, and leaves each worker the frames that it owns, and the end. Stops early
/// if it is told to.
pub fn read_ahead<F>(reading: &mut Reading<F>, mut merge: Merge, shared: &Shared) {
    if shared.stop.load(Ordering::Relaxed) {
        return;
    }
    let mut schedule = Schedule::new(reading.max_idle);
    let mut begun = None;
    let (mut frames, mut known) = (0, 0);
    loop {
        let more = merge.advance();
        if merge.errors().len() > known {
            // A pipe that was left because reading stops is not cut.
            if !shared.stop.load(Ordering::Relaxed) {
                shared.failed(merge.errors().get(known..).unwrap_or_default());
            }
            known = merge.errors().len();
        }
        if !more {
            break;
        }
        let Some((captured, file, frame)) = merge.frame() else {
            break;
        };
        let (offset, captured) = schedule.play(captured);
        let link = LinkType::from_pcap(frame.link);
        if link.is_none() {
            shared.warn_of(frame.link, file);
        }
        let at = match reading.speed {
            Speed::Max => 0,
            Speed::Factor(factor) => {
                let begun = *begun.get_or_insert_with(|| (reading.clock)());
                begun + (offset as f64 / factor) as Nanos
            }
        };
        let whose = (reading.owner)(link, frame.bytes);
        let Some(made) = until(shared, || (reading.make)(frame.bytes, captured)) else {
            return;
        };
        shared.count(file, frame.bytes.len());
        let due = Due {
            frame: made,
            link,
            at,
        };
        if !reading.give(shared, whose, due) {
            return;
        }
        frames += 1;
        if frames % ACCOUNT == 0 {
            shared.account(&merge, &schedule);
        }
    }
    shared.account(&merge, &schedule);
    if shared.stop.load(Ordering::Relaxed) {
        return;
    }
    for ring in &reading.rings {
        if !push(shared, ring, Played::End) {
            return;
        }
    }
}

impl<F> Reading<F> {
    /// Gives a frame to a worker. False if reading is to stop.
    #[inline]
    fn give(&mut self, shared: &Shared, whose: Whose, due: Due<F>) -> bool {
        match whose {
            Whose::Owner(worker) => self.push(shared, worker, due),
            // It reaches its session by way of another worker. What is of the session before it
            // must be there by then, and what is behind it must not.
            Whose::Part(worker) if self.rings.len() > 1 => {
                self.wait_for(shared, 0..self.rings.len())
                    && self.push(shared, worker, due)
                    && self.wait_for(shared, worker..worker + 1)
            }
            Whose::Part(worker) => self.push(shared, worker, due),
        }
    }

    #[inline]
    fn push(&mut self, shared: &Shared, worker: usize, due: Due<F>) -> bool {
        let (Some(ring), Some(pushed)) = (self.rings.get(worker), self.pushed.get_mut(worker))
        else {
            return true;
        };
        *pushed += 1;
        push(shared, ring, Played::Frame(due))
    }

    /// Waits until workers are done with all that they were given. False if reading is to stop.
    #[cold]
    fn wait_for(&self, shared: &Shared, workers: Range<usize>) -> bool {
        let all = self.rings.iter().zip(&self.pushed);
        let mut asked = all.skip(workers.start).take(workers.len());
        asked.all(|(ring, pushed)| {
            until(shared, || (ring.done() == *pushed).then_some(())).is_some()
        })
    }
}

/// Tries until it is there. `None` if reading is to stop.
#[inline]
fn until<T>(shared: &Shared, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(there) = attempt() {
            return Some(there);
        }
        if shared.stop.load(Ordering::Relaxed) {
            return None;
        }
        std::thread::sleep(NAP);
    }
}

/// Leaves something in a ring once it has room. False if reading is to stop.
#[inline]
fn push<F>(shared: &Shared, ring: &Ahead<F>, played: Played<F>) -> bool {
    let mut left = Some(played);
    let pushed = until(shared, || {
        let Err(full) = ring.push(left.take()?) else {
            return Some(());
        };
        left = Some(full);
        None
    });
    pushed.is_some()
}
