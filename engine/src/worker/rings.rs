//! What workers leave for one another: bounded single-producer rings, and waking who sleeps.

use super::Worker;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use wake::Waker;
use wire::decode::{Fragment, Packet};
use wire::defragment::Defragment;
use wire::io::{BURST, Frame, Rx, Tx};
use wire::{Addr, Flow, Head, Nanos, Seq};

/// What one core gives to another.
pub enum Parcel<F> {
    /// A mirrored frame of a session that the other core owns.
    Mirrored(Packet, F),
    /// A part of a datagram that is reassembled by the other core.
    Fragment(Fragment, F),
    /// The header of a response to a connection that the other core owns, and when it was received.
    Response(Head, Nanos),
    /// A segment of ours, and when it left.
    Sent(Head, Nanos),
    /// A segment of this flow was longer than the path's MTU, and that.
    TooBig(Flow, Seq, u32),
    /// A neighbour on this wire that answered.
    Neighbor(usize, Addr, [u8; 6]),
}

/// A single-producer ring from one core to another.
pub type Ring<F> = Arc<ArrayQueue<Parcel<F>>>;

impl<R, T, D> Worker<R, T, D>
where
    R: Rx,
    R::Frame: Frame<Payload = T::Payload>,
    T: Tx,
    D: Defragment<R::Frame>,
{
    #[inline]
    pub(super) fn hand_over(&mut self, owner: u16, parcel: Parcel<R::Frame>) {
        if self.leave(owner, parcel) {
            self.counters.handed_over += 1;
        } else {
            self.counters.handover_full += 1;
        }
    }

    /// Leaves something for another worker. False if its ring is full.
    #[inline]
    pub(super) fn leave(&mut self, owner: u16, parcel: Parcel<R::Frame>) -> bool {
        self.left |= 1 << (owner % 128);
        self.to[usize::from(owner)].push(parcel).is_ok()
    }

    /// Wakes the workers that something was left for, if they sleep.
    #[inline]
    pub(super) fn wake_others(&mut self) {
        let mut left = std::mem::take(&mut self.left);
        if self.wakers.is_empty() {
            return;
        }
        while left != 0 {
            let next = left.trailing_zeros() as usize;
            left &= left - 1;
            self.wakers
                .iter()
                .skip(next)
                .step_by(128)
                .for_each(Waker::wake);
        }
    }

    /// Takes what other workers have left for this one. Returns how much that was.
    #[inline]
    pub fn poll_rings(&mut self, now: Nanos) -> usize {
        let mut work = 0;
        for i in 0..self.from.len() {
            for _ in 0..BURST {
                let Some(parcel) = self.from[i].pop() else {
                    break;
                };
                work += 1;
                match parcel {
                    Parcel::Mirrored(packet, frame) => {
                        self.counters.taken_over += 1;
                        let _ = self.core.mirror(now, &packet, frame, &mut self.out);
                    }
                    Parcel::Fragment(part, frame) => {
                        self.counters.taken_over += 1;
                        self.reassemble(now, part, frame);
                    }
                    Parcel::Response(head, received_at) => self.response(now, received_at, &head),
                    Parcel::Sent(head, at) => self.core.sent(at.min(now), &head),
                    Parcel::TooBig(flow, seq, mtu) => {
                        self.core.too_big(now, &flow, seq, mtu, &mut self.out);
                    }
                    Parcel::Neighbor(wire, addr, mac) => {
                        self.out.wires()[wire].host.learn(addr, mac, now);
                    }
                }
            }
        }
        work
    }

    /// True if no worker has left anything for this one.
    pub fn has_taken_over(&self) -> bool {
        self.from.iter().all(|ring| ring.is_empty())
    }

    /// True if no other thread has left anything for this one.
    pub fn is_left_alone(&self) -> bool {
        self.has_taken_over() && !self.out.has_record()
    }
}
