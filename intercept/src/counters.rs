//! What a receive core counts, and how others read it while it runs.
//!
//! The core counts in plain numbers of its own and publishes them once a burst; readers may see a
//! burst half published while it runs, and exact numbers once the core has stopped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use wire::Skip;

/// The counters of one receive core. Every frame is in exactly one of `control`, `skipped`,
/// `records`, `ring_full`, `unclaimed`, `pending_full` and `pending`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Frames received.
    pub frames: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// ARP, neighbour discovery, ping and ICMP errors.
    pub control: u64,
    /// Routers' words that a path carries smaller packets only, handed on to the engine whose
    /// segment it was. Part of `control`.
    pub path_mtu: u64,
    /// Answers to these that were sent.
    pub replies: u64,
    /// Answers that could not be sent.
    pub replies_failed: u64,
    /// Frames that are no TCP segment, by reason, as in [`Skip::ALL`].
    pub skipped: [u64; Skip::COUNT],
    /// Responses handed to the server as records.
    pub records: u64,
    /// Responses dropped because the server did not keep up.
    pub ring_full: u64,
    /// Responses that nobody claimed in time.
    pub unclaimed: u64,
    /// Responses without a claim that found no room to wait.
    pub pending_full: u64,
    /// Responses that wait for a claim now.
    pub pending: u64,
    /// Claims for which this core had no room; the server's limits make sure that there are none.
    pub claims_failed: u64,
}

const PLAIN: usize = 12;
const FIELDS: usize = PLAIN + Skip::COUNT;

impl Counters {
    /// The frames that are accounted for: equal to [`Counters::frames`].
    pub fn accounted(&self) -> u64 {
        let skipped: u64 = self.skipped.iter().sum();
        self.control
            + skipped
            + self.records
            + self.ring_full
            + self.unclaimed
            + self.pending_full
            + self.pending
    }

    /// The counters of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let (mut sum, add) = (self.to_array(), other.to_array());
        for (a, b) in sum.iter_mut().zip(add) {
            *a += b;
        }
        Self::from_array(&sum)
    }

    fn to_array(self) -> [u64; FIELDS] {
        let plain = [
            self.frames,
            self.bytes,
            self.control,
            self.path_mtu,
            self.replies,
            self.replies_failed,
            self.records,
            self.ring_full,
            self.unclaimed,
            self.pending_full,
            self.pending,
            self.claims_failed,
        ];
        let mut all = [0; FIELDS];
        for (to, from) in all.iter_mut().zip(plain.into_iter().chain(self.skipped)) {
            *to = from;
        }
        all
    }

    fn from_array(all: &[u64; FIELDS]) -> Self {
        let [
            frames,
            bytes,
            control,
            path_mtu,
            replies,
            replies_failed,
            records,
            ring_full,
            unclaimed,
            pending_full,
            pending,
            claims_failed,
            skipped @ ..,
        ] = *all;
        Self {
            frames,
            bytes,
            control,
            path_mtu,
            replies,
            replies_failed,
            skipped,
            records,
            ring_full,
            unclaimed,
            pending_full,
            pending,
            claims_failed,
        }
    }
}

/// Counters that one core writes and anybody reads.
#[derive(Debug)]
pub struct Published([AtomicU64; FIELDS]);

impl Default for Published {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Published {
    /// Publishes; for the one core that owns the counters.
    #[inline]
    pub fn store(&self, counters: &Counters) {
        for (to, from) in self.0.iter().zip(counters.to_array()) {
            to.store(from, Relaxed);
        }
    }

    /// Reads what was published last.
    pub fn load(&self) -> Counters {
        Counters::from_array(&std::array::from_fn(|n| {
            self.0.get(n).map_or(0, |v| v.load(Relaxed))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_what_is_read() {
        let mut all = [0; FIELDS];
        all.iter_mut().zip(1..).for_each(|(to, n)| *to = n);
        let counters = Counters::from_array(&all);
        assert_eq!(counters.to_array(), all);
        assert_eq!(
            (counters.frames, counters.claims_failed, counters.skipped[0]),
            (1, PLAIN as u64, PLAIN as u64 + 1)
        );
        let published = Published::default();
        published.store(&counters);
        assert_eq!(published.load(), counters);
        assert_eq!(counters.plus(&counters).skipped[1], 2 * (PLAIN as u64 + 2));
    }
}
