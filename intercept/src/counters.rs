//! What a receive core counts, and how others read it while it runs.
//!
//! The core counts in plain numbers of its own and publishes them once a burst; readers may see a
//! burst half published while it runs, and exact numbers once the core has stopped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use wire::Skip;

wire::reasons! {
    /// Why a response was not handed to the server.
    pub enum Unsent {
        /// Nobody claimed it in time.
        Unclaimed = "unclaimed",
        /// It had no claim, and there was no room to wait for one.
        PendingFull = "pending_full",
        /// The server did not keep up.
        RingFull = "ring_full",
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// The counters of one receive core. Every frame is in exactly one of `control`,
        /// `skipped`, `records`, `dropped` and `pending`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64,)*
            /// Frames that are no TCP segment, by [`Skip`].
            pub skipped: [u64; Skip::COUNT],
            /// Responses that were not handed to the server, by [`Unsent`].
            pub dropped: [u64; Unsent::COUNT],
        }

        /// How many numbers there are.
        const FIELDS: usize = [$(stringify!($field)),*].len() + Skip::COUNT + Unsent::COUNT;

        impl Counters {
            /// All of them, in the order of their declaration.
            fn each(&self) -> impl Iterator<Item = &u64> {
                [$(&self.$field),*].into_iter().chain(&self.skipped).chain(&self.dropped)
            }

            /// All of them, to be changed.
            fn each_mut(&mut self) -> impl Iterator<Item = &mut u64> {
                [$(&mut self.$field),*]
                    .into_iter()
                    .chain(&mut self.skipped)
                    .chain(&mut self.dropped)
            }
        }
    };
}

counters! {
    /// Frames received.
    frames,
    /// Bytes of these.
    bytes,
    /// ARP, neighbour discovery, ping and ICMP errors.
    control,
    /// Routers' words that a path carries smaller packets only, handed on to the engine whose
    /// segment it was. Part of `control`.
    path_mtu,
    /// Answers to these that were sent.
    replies,
    /// Answers that could not be sent.
    replies_failed,
    /// Responses handed to the server as records.
    records,
    /// Responses that wait for a claim now.
    pending,
    /// Claims for which this core had no room; the server's limits make sure that there are none.
    claims_failed,
}

impl Counters {
    /// The frames that are accounted for: equal to [`Counters::frames`].
    #[cfg(test)]
    pub fn accounted(&self) -> u64 {
        let skipped: u64 = self.skipped.iter().sum();
        let dropped: u64 = self.dropped.iter().sum();
        self.control + skipped + self.records + dropped + self.pending
    }

    /// Responses that were not handed to the server for this reason.
    pub const fn dropped(&self, reason: Unsent) -> u64 {
        self.dropped[reason as usize]
    }

    /// The counters of both.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (a, b) in self.each_mut().zip(other.each()) {
            *a += b;
        }
        self
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
        for (to, from) in self.0.iter().zip(counters.each()) {
            to.store(*from, Relaxed);
        }
    }

    /// Reads what was published last.
    pub fn load(&self) -> Counters {
        let mut counters = Counters::default();
        for (to, from) in counters.each_mut().zip(&self.0) {
            *to = from.load(Relaxed);
        }
        counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_what_is_read() {
        let mut counters = Counters::default();
        counters.each_mut().zip(1..).for_each(|(to, n)| *to = n);
        let count = FIELDS as u64;
        assert_eq!((counters.frames, counters.each().max()), (1, Some(&count)));
        assert_eq!(counters.dropped(Unsent::RingFull), count);
        let published = Published::default();
        published.store(&counters);
        assert_eq!(published.load(), counters);
        let double = counters.plus(&counters);
        assert!(double.each().zip(counters.each()).all(|(a, b)| *a == 2 * b));
    }
}
