//! One core's claims and releases on their way to the control links.
//!
//! A claim goes to all links or to none. It is only made if its release is sure to have a place
//! later: releases that find a ring full wait here, in memory that was reserved at the start, and
//! are tried again at each flush. So every claim that was made is released on every link, and
//! nothing here waits or allocates.
//!
//! What always holds: live claims and waiting releases together are no more than the limit; a
//! claim never overtakes a release, which may be of the same connection.

use crate::links::WorkerEnd;
use link::{Claim, Message, Record};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use wire::Flow;

/// Waiting releases that one call hands on at most, so that no call takes long.
const RELEASES_A_CALL: usize = 256;

/// The claims of one core.
pub struct Claims {
    links: WorkerEnd,
    owner: u16,
    limit: usize,
    /// Claims of connections that were made and not released yet.
    live: usize,
    /// Connections whose releases found no room.
    waiting: VecDeque<Flow>,
    /// The links have something to look at since they were last woken.
    changed: bool,
}

impl Claims {
    /// No claims yet. `owner` is the core's index; `limit` is how many connections may be claimed
    /// at a time, releases that wait included.
    pub fn new(links: WorkerEnd, owner: u16, limit: usize) -> Self {
        Self {
            links,
            owner,
            limit,
            live: 0,
            waiting: VecDeque::with_capacity(limit),
            changed: false,
        }
    }

    /// Claims a range of client addresses that is this core's for as long as it runs. False if a
    /// ring has no room: then no link has the claim.
    #[must_use]
    pub fn claim_slice(&mut self, claim: Claim) -> bool {
        self.push(Message::Claim(claim))
    }

    /// Claims the responses of a connection, client to target. False if it cannot be made now: then
    /// no link has it.
    #[must_use]
    pub fn claim(&mut self, connection: &Flow) -> bool {
        self.retry();
        let sure = self.waiting.is_empty() && self.live < self.limit;
        let made = sure && self.push(Message::Claim(self.exact(connection)));
        self.live += usize::from(made);
        made
    }

    /// Gives up the claim of a connection, which must have been made.
    pub fn release(&mut self, connection: &Flow) {
        debug_assert!(self.live > 0, "a release without a claim");
        if self.live == 0 {
            return;
        }
        self.live -= 1;
        let release = Message::Release(self.exact(connection));
        if !(self.waiting.is_empty() && self.push(release)) {
            self.waiting.push_back(*connection);
        }
    }

    /// Hands on releases that wait, and with `wake` makes links that sleep look at what they were
    /// given. To be called once a loop.
    pub fn flush(&mut self, wake: bool) {
        self.retry();
        if wake && std::mem::take(&mut self.changed) {
            self.links.wake();
        }
    }

    /// Claims that are live, and releases that wait for room.
    pub fn counts(&self) -> (usize, usize) {
        (self.live, self.waiting.len())
    }

    /// True if at least one link is up.
    pub fn is_up(&self) -> bool {
        self.links.up.load(Relaxed) > 0
    }

    /// The next record that came over a link.
    #[inline]
    pub fn next_record(&mut self) -> Option<Record> {
        self.links.responses.pop()
    }

    /// True if there is one.
    pub fn has_record(&self) -> bool {
        !self.links.responses.is_empty()
    }

    fn retry(&mut self) {
        for _ in 0..RELEASES_A_CALL {
            let Some(connection) = self.waiting.front() else {
                return;
            };
            let release = Message::Release(self.exact(connection));
            if !self.push(release) {
                return;
            }
            self.waiting.pop_front();
        }
    }

    fn exact(&self, connection: &Flow) -> Claim {
        Claim::exact(connection.src, connection.dst, self.owner)
    }

    /// Puts a message on the rings to all links, or on none. This core is the only one that pushes
    /// to them, so a ring that has room keeps it.
    fn push(&mut self, message: Message) -> bool {
        let rings = &self.links.commands;
        if rings.iter().any(|ring| ring.is_full()) {
            // A link that sleeps is to make room.
            self.changed = true;
            return false;
        }
        for ring in rings {
            let pushed = ring.push(message.clone());
            debug_assert!(pushed.is_ok());
        }
        self.changed = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::queue::ArrayQueue;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use wire::{Addr, Endpoint};

    const TARGET: Endpoint = Endpoint::new(Addr::v4([10, 2, 0, 1]), 80);

    fn connection(port: u16) -> Flow {
        Flow {
            src: Endpoint::new(Addr::v4([10, 1, 0, 1]), port),
            dst: TARGET,
        }
    }

    /// Claims over two links whose threads do not run, with rings of this capacity.
    fn claims(room: usize, limit: usize) -> (Claims, [Arc<ArrayQueue<Message>>; 2]) {
        let rings = [0, 1].map(|_| Arc::new(ArrayQueue::new(room)));
        let end = WorkerEnd {
            commands: rings.to_vec(),
            responses: Arc::new(ArrayQueue::new(1)),
            up: Arc::new(AtomicUsize::new(2)),
            waker: Vec::new(),
        };
        (Claims::new(end, 3, limit), rings)
    }

    fn claim_of(port: u16) -> Claim {
        Claim::exact(connection(port).src, TARGET, 3)
    }

    #[test]
    fn a_claim_goes_to_all_links_or_to_none() {
        let (mut claims, [a, b]) = claims(1, 10);
        assert!(claims.claim(&connection(1)));
        assert_eq!(a.pop(), Some(Message::Claim(claim_of(1))));
        assert!(!claims.claim(&connection(2)), "one ring is full");
        assert!(a.is_empty(), "half a claim");
        assert_eq!(b.pop(), Some(Message::Claim(claim_of(1))));
        assert!(claims.claim(&connection(2)));
        assert_eq!(claims.counts(), (2, 0));
    }

    #[test]
    fn a_release_that_finds_a_full_ring_is_tried_again_in_order() {
        let (mut claims, [a, b]) = claims(2, 10);
        assert!(claims.claim(&connection(1)) && claims.claim(&connection(2)));
        for port in [1, 2] {
            claims.release(&connection(port));
        }
        assert_eq!(claims.counts(), (0, 2));
        let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            at_a.extend(a.pop());
            claims.flush(true);
            at_b.extend(b.pop());
            claims.flush(true);
        }
        let all = [
            Message::Claim(claim_of(1)),
            Message::Claim(claim_of(2)),
            Message::Release(claim_of(1)),
            Message::Release(claim_of(2)),
        ];
        assert_eq!((&at_a[..], &at_b[..]), (&all[..], &all[..]));
        assert_eq!(claims.counts(), (0, 0));
    }

    #[test]
    fn a_claim_does_not_overtake_a_release_of_the_same_connection() {
        let (mut claims, [a, b]) = claims(1, 10);
        assert!(claims.claim(&connection(1)));
        claims.release(&connection(1));
        assert!(!claims.claim(&connection(1)), "the release still waits");
        a.pop();
        b.pop();
        assert!(!claims.claim(&connection(1)), "the release took the room");
        assert_eq!(a.pop(), Some(Message::Release(claim_of(1))));
        b.pop();
        assert!(claims.claim(&connection(1)));
    }

    #[test]
    fn every_claim_has_a_place_for_its_release() {
        let (mut claims, rings) = claims(8, 5);
        let room = claims.waiting.capacity();
        for port in 0..5 {
            assert!(claims.claim(&connection(port)));
        }
        assert!(!claims.claim(&connection(5)), "beyond the limit");
        for ring in &rings {
            while ring.push(Message::Bye).is_ok() {}
        }
        for port in 0..5 {
            claims.release(&connection(port));
        }
        assert_eq!(claims.counts(), (0, 5));
        assert_eq!(claims.waiting.capacity(), room);
        assert!(!claims.claim(&connection(9)));
    }
}
