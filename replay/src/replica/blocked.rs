//! Replicas whose segments the transmit queue or the next hop refused wait in two lists, one for
//! each reason, and not each for a timer of its own: however many they are, looking at them
//! costs a bounded part of a round.
//!
//! A full queue takes one after the other again as soon as it has room. A next hop that does not
//! answer ARP or ND is tried after 1 ms, 2 ms and so on to a second, with some of those that wait
//! for one.

use super::Replicas;
use crate::core::{Egress, Refused};
use crate::due::Due;
use crate::tcp::State;
use std::collections::VecDeque;
use wire::Nanos;
use wire::io::Payload;

/// Replicas that are tried again in one round at most.
const AT_ONCE: usize = 64;
/// The first and the longest wait for a next hop.
const FIRST_WAIT: Nanos = 1_000_000;
const LONGEST_WAIT: Nanos = 1 << 30;
/// A connection that could not be asked for within this time counts as one that was not answered:
/// about as long as a SYN goes unanswered.
pub(super) const UNREACHABLE: Nanos = 61_000_000_000;

/// See the module's documentation.
pub(crate) struct Blocked {
    /// Ids of replicas that wait for room in the transmit queue, and of those that wait for a next
    /// hop. Whether an id is still one of them, its replica says.
    queue: VecDeque<u32>,
    next_hop: VecDeque<u32>,
    /// For each id whether it is in one of the lists: an entry of a replica that is gone serves
    /// the one that has its id now, so that there is room for all.
    listed: Vec<bool>,
    /// When next hops are tried again, and how long the wait was.
    try_at: Nanos,
    wait: Nanos,
}

impl Blocked {
    /// Room for `replicas` replicas.
    pub fn new(replicas: usize) -> Self {
        Self {
            queue: VecDeque::with_capacity(replicas),
            next_hop: VecDeque::with_capacity(replicas),
            listed: vec![false; replicas],
            try_at: 0,
            wait: FIRST_WAIT,
        }
    }
}

/// Takes the first of a list out.
fn pop(list: &mut VecDeque<u32>, listed: &mut [bool]) -> Option<u32> {
    let rid = list.pop_front()?;
    listed[rid as usize] = false;
    Some(rid)
}

impl<P: Payload> Replicas<P> {
    /// The replica waits in one of the lists.
    pub fn is_blocked(&self, rid: u32) -> bool {
        self.replicas[rid].blocked_since.is_set() && self.blocked.listed[rid as usize]
    }

    /// Some replica waits in one of the lists.
    pub fn is_any_blocked(&self) -> bool {
        !self.blocked.queue.is_empty() || !self.blocked.next_hop.is_empty()
    }

    /// A segment of the replica's was refused: it is tried again.
    pub(super) fn block(&mut self, now: Nanos, rid: u32, refused: Refused) {
        let r = &mut self.replicas[rid];
        if r.blocked_since.is_set() || r.is_done() {
            return;
        }
        r.blocked_since = Due::at(now);
        if std::mem::replace(&mut self.blocked.listed[rid as usize], true) {
            return;
        }
        let list = match refused {
            Refused::Busy => &mut self.blocked.queue,
            Refused::Unreachable => &mut self.blocked.next_hop,
        };
        if refused == Refused::Unreachable && list.is_empty() {
            self.blocked.wait = FIRST_WAIT;
            self.blocked.try_at = now + FIRST_WAIT;
        }
        list.push_back(rid);
    }

    /// Tries again what was refused. Returns how much of it was taken.
    pub(super) fn poll_blocked(&mut self, now: Nanos, tx: &mut impl Egress<P>) -> usize {
        let mut tried = 0;
        for _ in 0..AT_ONCE.min(self.blocked.queue.len()) {
            let b = &mut self.blocked;
            let Some(rid) = pop(&mut b.queue, &mut b.listed) else {
                break;
            };
            if !self.unblock(now, rid, tx) {
                // There is no room for the others either; it is still the first of them.
                let list = &mut self.blocked.queue;
                if list.back() == Some(&rid) {
                    list.rotate_right(1);
                }
                break;
            }
            tried += 1;
        }
        if self.blocked.next_hop.is_empty() || now < self.blocked.try_at {
            return tried;
        }
        // What is refused again begins the wait anew, if nothing else is in the list.
        let (wait, mut sent) = (self.blocked.wait, false);
        for _ in 0..AT_ONCE.min(self.blocked.next_hop.len()) {
            let b = &mut self.blocked;
            let Some(rid) = pop(&mut b.next_hop, &mut b.listed) else {
                break;
            };
            let unblocked = self.unblock(now, rid, tx);
            sent |= unblocked;
            tried += usize::from(unblocked);
        }
        let b = &mut self.blocked;
        b.wait = if sent {
            FIRST_WAIT
        } else {
            (2 * wait).min(LONGEST_WAIT)
        };
        b.try_at = now + b.wait;
        tried
    }

    /// Tries again what the replica has to send. True unless it was refused again.
    fn unblock(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) -> bool {
        let r = &mut self.replicas[rid];
        if r.is_done() || !r.blocked_since.is_set() {
            return true;
        }
        r.blocked_since = Due::NONE;
        let asking = r.tcb.state == State::SynSent && !r.rto_at.is_set();
        if asking {
            let since = r.waiting_since.nanos(now).unwrap_or(now);
            if now >= since + UNREACHABLE {
                self.connect_timed_out(now, rid, tx);
            } else {
                self.send_syn(now, rid, tx);
            }
        }
        self.acknowledge_due(now, rid, tx);
        self.pump(now, rid, tx);
        !self.replicas[rid].blocked_since.is_set()
    }
}
