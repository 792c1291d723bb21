//! What comes in at the replay ports: answers of targets, ARP, ND and ICMP, and what the kernel
//! tells of the segments that left.
//!
//! An answer counts at whichever port it comes in: its addresses say whose it is.

use super::{Parcel, Worker, side};
use arrayvec::ArrayVec;
use wire::decode::{Local, local_frame, mirrored};
use wire::defragment::Defragment;
use wire::host::Kind;
use wire::io::{BURST, Checksum, Frame, Rx, Tx};
use wire::{Addr, Endpoint, Flow, Head, Nanos, Seq};

/// Responses that are asked for ahead of the one that is read.
const AHEAD: usize = 4;

impl<R, T, D> Worker<R, T, D>
where
    R: Rx,
    R::Frame: Frame<Payload = T::Payload>,
    T: Tx,
    D: Defragment<R::Frame>,
{
    pub(super) fn poll_replay_ports(&mut self, now: Nanos) -> usize {
        let before = std::mem::replace(&mut self.looked_at_replay, now);
        (0..self.replay.len())
            .map(|i| self.poll_replay(i, before, now))
            .sum()
    }

    /// One burst of a replay port's queue, which was looked at last at `before`.
    fn poll_replay(&mut self, queue: usize, before: Nanos, now: Nanos) -> usize {
        let mut frames = std::mem::take(&mut self.frames);
        let (wire, rx) = &mut self.replay[queue];
        let (wire, received) = (*wire, rx.rx_burst(&mut frames));
        if received > 0 && before > 0 {
            self.counters.replay_waits.record(now - before.min(now));
        }
        let mut seen = ArrayVec::<_, BURST>::new();
        // Each frame is asked for while some before it are summed up.
        let ask = |frame: &R::Frame| {
            if frame.checksum() != Checksum::Good {
                side::ask_for::<R>(frame.bytes());
            }
        };
        let (first, rest) = frames.split_at(AHEAD.min(frames.len()));
        first.iter().for_each(ask);
        let mut next = rest.iter();
        seen.extend(frames.iter().map(|frame| {
            next.next().into_iter().for_each(ask);
            local_frame(frame)
        }));
        let segments = seen.iter().filter_map(|s| match s {
            Local::Tcp(packet) => Some(&packet.head.flow),
            _ => None,
        });
        self.core.expect_responses::<R>(segments);
        for (frame, seen) in frames.drain(..).zip(&seen) {
            let at = frame.captured_at().map_or(now, |at| at.min(now));
            if frame.was_sent() {
                self.sent(at, &frame);
                continue;
            }
            self.counters.replay_frames += 1;
            match seen {
                Local::Tcp(packet) => self.replay_segment(now, at, &packet.head),
                Local::Control => self.control(now, wire, frame.bytes()),
                Local::Skip(_) => self.counters.replay_skipped += 1,
            }
        }
        self.frames = frames;
        received
    }

    /// The kernel tells of a segment of ours that it left at `at`. What is shown of it may be its
    /// headers alone.
    #[inline]
    fn sent(&mut self, at: Nanos, frame: &R::Frame) {
        let Ok(packet) = mirrored(frame.bytes(), frame.frame_len()) else {
            return;
        };
        match self.owner.of(&packet.head.flow.reversed()) {
            Some(owner) if owner == self.index => self.core.sent(at, &packet.head),
            // If the ring is full the time at which it was given to the driver serves.
            Some(owner) => {
                let _ = self.leave(owner, Parcel::Sent(packet.head, at));
            }
            None => {}
        }
    }

    /// A TCP segment on a replay port, received at `at`: a response, if this engine absorbs them
    /// itself.
    #[inline]
    fn replay_segment(&mut self, now: Nanos, at: Nanos, head: &Head) {
        let owner = if self.out.is_remote() {
            None
        } else {
            self.owner.of(&head.flow)
        };
        let Some(owner) = owner else {
            self.counters.replay_strays += 1;
            return;
        };
        self.counters.replay_responses += 1;
        if owner == self.index {
            return self.response(now, at, head);
        }
        if self.leave(owner, Parcel::Response(*head, at)) {
            self.counters.responses_handed_over += 1;
        } else {
            self.counters.response_full += 1;
        }
    }

    fn control(&mut self, now: Nanos, wire: usize, bytes: &[u8]) {
        self.counters.replay_control += 1;
        let slices = &self.owner.slices;
        // In remote mode the intercept is where responses go, so it is the one to answer for the
        // pool.
        let embedded = !self.out.is_remote();
        let proxied = |a: &Addr| {
            embedded
                && slices
                    .iter()
                    .flatten()
                    .any(|s| s.contains(&Endpoint::new(*a, s.low)))
        };
        let received = self
            .out
            .receive_control(now, wire, bytes, &proxied, &mut self.reply);
        if let Some((addr, mac)) = received.learned {
            let me = self.index;
            for i in (0..self.to.len() as u16).filter(|i| *i != me) {
                // If the ring is full the neighbour is asked again.
                let _ = self.leave(i, Parcel::Neighbor(wire, addr, mac));
            }
        }
        match received.kind {
            Kind::TooBig(segment, mtu) => {
                self.counters.icmp_errors += 1;
                if let Some((flow, seq)) = segment {
                    self.too_big(now, flow, seq, mtu);
                }
            }
            Kind::Unreachable(..) => self.counters.icmp_errors += 1,
            _ => {}
        }
    }

    /// A segment of ours was too long for the path: the core that sent it cuts smaller ones.
    fn too_big(&mut self, now: Nanos, flow: Flow, seq: Seq, mtu: u32) {
        let Some(owner) = self.owner.of(&flow.reversed()) else {
            return;
        };
        if owner == self.index {
            self.core.too_big(now, &flow, seq, mtu, &mut self.out);
        } else {
            // If the ring is full, the next segment is too long as well.
            let _ = self.leave(owner, Parcel::TooBig(flow, seq, mtu));
        }
    }
}
