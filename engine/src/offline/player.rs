//! A worker's end of a capture file: frames that were read ahead, each played when it is due.

use crate::worker::Decoded;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wire::Nanos;
use wire::decode::LinkType;

/// A frame and when it is to be played.
pub struct Due<F> {
    /// The frame.
    pub frame: F,
    /// How it begins; `None` if that is not understood.
    pub link: Option<LinkType>,
    /// When it is due, by our clock; 0: as soon as it can be.
    pub at: Nanos,
}

/// What the reader leaves for a worker.
pub enum Played<F> {
    /// A frame that the worker owns.
    Frame(Due<F>),
    /// All files are read: this pass is over.
    End,
}

/// A ring from the reader to a worker.
pub struct Ring<F> {
    ring: ArrayQueue<Played<F>>,
    /// Frames that the worker is done with: they are with their session, or handed over.
    done: AtomicU64,
}

impl<F> Ring<F> {
    /// One with room for so many frames.
    pub fn new(frames: usize) -> Self {
        Self {
            ring: ArrayQueue::new(frames),
            done: AtomicU64::new(0),
        }
    }

    /// Leaves something. Gives it back if there is no room.
    ///
    /// # Errors
    /// There is no room.
    #[inline]
    pub fn push(&self, played: Played<F>) -> Result<(), Played<F>> {
        self.ring.push(played)
    }

    /// How many frames the worker is done with, of all passes.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }
}

/// Both ends of a [`Ring`].
pub type Ahead<F> = Arc<Ring<F>>;

/// Plays what was read ahead for one worker.
pub struct Player<F> {
    ahead: Ahead<F>,
    next: Option<(Due<F>, Option<Decoded>)>,
    unpaced: bool,
    /// Passes that are over.
    passes: u32,
}

impl<F> Player<F> {
    /// Plays what comes over `ahead`; `unpaced` if it is to go as fast as the targets answer.
    pub fn new(ahead: Ahead<F>, unpaced: bool) -> Self {
        Self {
            ahead,
            next: None,
            unpaced,
            passes: 0,
        }
    }

    /// The next frame if it is due, and what it was decoded as, once that is known. It stays the
    /// next until it is taken.
    #[inline]
    pub fn due(&mut self, now: Nanos) -> Option<&mut (Due<F>, Option<Decoded>)> {
        if self.next.is_none() {
            match self.ahead.ring.pop()? {
                Played::Frame(due) => self.next = Some((due, None)),
                Played::End => {
                    self.passes += 1;
                    return None;
                }
            }
        }
        self.next.as_mut().filter(|(due, _)| due.at <= now)
    }

    /// When the next frame is due; `Nanos::MAX` if none is there.
    pub fn next_at(&self) -> Nanos {
        self.next.as_ref().map_or(Nanos::MAX, |(due, _)| due.at)
    }

    /// Takes the next frame.
    #[inline]
    pub fn take(&mut self) -> Option<Due<F>> {
        self.next.take().map(|(due, _)| due)
    }

    /// A frame that was taken is dealt with.
    #[inline]
    pub fn is_done(&self) {
        // Nobody else writes it.
        let done = self.ahead.done.load(Ordering::Relaxed);
        self.ahead.done.store(done + 1, Ordering::Release);
    }

    /// How many times all files were played.
    pub const fn passes(&self) -> u32 {
        self.passes
    }

    /// True if it is to go as fast as the targets answer.
    pub const fn is_unpaced(&self) -> bool {
        self.unpaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_played_when_they_are_due_and_passes_are_counted() {
        let ahead: Ahead<u8> = Arc::new(Ring::new(8));
        let mut player = Player::new(Arc::clone(&ahead), false);
        for (frame, at) in [(1, 5), (2, 5), (3, 9)] {
            let link = Some(LinkType::Ethernet);
            assert!(ahead.push(Played::Frame(Due { frame, link, at })).is_ok());
        }
        assert!(ahead.push(Played::End).is_ok());
        let mut play = |now| {
            let mut played = Vec::new();
            while player.due(now).is_some() {
                played.extend(player.take().map(|d| d.frame));
            }
            (played, player.passes())
        };
        assert_eq!(play(4), (vec![], 0));
        assert_eq!(play(5), (vec![1, 2], 0));
        assert_eq!(play(8), (vec![], 0));
        assert_eq!(play(20), (vec![3], 1));
        assert_eq!(play(21), (vec![], 1));
    }
}
