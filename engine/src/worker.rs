//! One worker core: receive, decode, hand over or process, transmit, once round and again.
//!
//! The loop is generic over the ports it polls, so that the very code that runs on an lcore runs in
//! a test over a memory port. On its way a frame meets no lock, no allocation, no system call and
//! no log line. Every frame that is received is used or counted under a reason.

mod counters;
mod rings;
mod side;

use crate::answering::Answering;
use crate::egress::Outlet;
use crate::tunnels::RefusedTunnels;
use arrayvec::ArrayVec;
use replay::{Core, Params};
use side::Place;
use wake::Waker;
use wire::decode::{
    Fragment, LinkType, Local, MirrorOptions, Packet, fragment_with, local_frame, mirrored,
    refused_tunnel,
};
use wire::defragment::{Defragment, Insert, NoDefragment, datagram_hash};
use wire::host::{Asked, FrameBuf, Kind};
use wire::io::{BURST, Checksum, Frame, Rx, Tx};
use wire::{Addr, Endpoint, Flow, Head, Nanos, Seq, Skip};

pub use crate::owner::ResponseOwner;
pub use crate::snapshots::Snapshot;
pub use counters::WorkerCounters;
pub use rings::{Parcel, Ring};
pub use side::Decoded;

/// Fragmented datagrams inside one another that are reassembled for one frame.
pub const NESTED: usize = 4;

/// Responses that are asked for ahead of the one that is read.
const AHEAD: usize = 4;

/// The core that owns the session of a segment of the mirror; `None` if there is but one core, or
/// no such session.
#[inline]
pub fn session_owner(params: &Params, flow: &Flow) -> Option<u16> {
    if params.ownership.cores <= 1 {
        return None;
    }
    match params.transfer_of(flow)? {
        (_, true) => Some(params.ownership.owner(&flow.src, &flow.dst)),
        (_, false) => Some(params.ownership.owner(&flow.dst, &flow.src)),
    }
}

/// One worker core. `R` receives from the mirror and from the replay port, `T` sends on the replay
/// port, `D` reassembles what the mirror shows in fragments.
pub struct Worker<R: Rx, T: Tx, D = NoDefragment> {
    /// Which worker it is.
    pub index: u16,
    /// Its mirror queues.
    pub mirrors: Vec<R>,
    /// What answers on them, in their order; empty if they have no addresses.
    pub answering: Vec<Answering>,
    /// How their frames are read.
    pub mirror_options: MirrorOptions,
    /// Its queue of the replay port.
    pub replay: Option<R>,
    /// Its sessions.
    pub core: Core<T::Payload>,
    /// Where its segments go.
    pub out: Outlet<T>,
    /// Rings to all workers, by index; its own is not used.
    pub to: Vec<Ring<R::Frame>>,
    /// Wakes each worker, by index; none if they do not sleep.
    pub wakers: Vec<Waker>,
    /// Workers that something was left for since they were last woken: a bit for each.
    left: u128,
    /// Rings from all workers.
    pub from: Vec<Ring<R::Frame>>,
    /// Who gets a response.
    pub owner: ResponseOwner,
    /// Where parts of datagrams wait for the rest.
    pub defragment: D,
    /// What it counts.
    pub counters: WorkerCounters,
    /// Tunnels that it did not open.
    pub refused: RefusedTunnels,
    looked_at_mirrors: Nanos,
    looked_at_replay: Nanos,
    frames: ArrayVec<R::Frame, BURST>,
    reply: FrameBuf,
}

impl<R, T> Worker<R, T>
where
    R: Rx,
    R::Frame: Frame<Payload = T::Payload>,
    T: Tx,
{
    /// A worker without mirror queues, replay queue, peers or reassembly.
    pub fn new(index: u16, core: Core<T::Payload>, out: Outlet<T>, owner: ResponseOwner) -> Self {
        Self {
            index,
            mirrors: Vec::new(),
            answering: Vec::new(),
            mirror_options: MirrorOptions::default(),
            replay: None,
            core,
            out,
            to: Vec::new(),
            wakers: Vec::new(),
            left: 0,
            from: Vec::new(),
            owner,
            defragment: NoDefragment,
            counters: WorkerCounters::default(),
            refused: RefusedTunnels::default(),
            looked_at_mirrors: 0,
            looked_at_replay: 0,
            frames: ArrayVec::new(),
            reply: FrameBuf::new(),
        }
    }

    /// The same worker, which reassembles fragments by `defragment`.
    pub fn reassembling<D: Defragment<R::Frame>>(self, defragment: D) -> Worker<R, T, D> {
        Worker {
            index: self.index,
            mirrors: self.mirrors,
            answering: self.answering,
            mirror_options: self.mirror_options,
            replay: self.replay,
            core: self.core,
            out: self.out,
            to: self.to,
            wakers: self.wakers,
            left: self.left,
            from: self.from,
            owner: self.owner,
            defragment,
            counters: self.counters,
            refused: self.refused,
            looked_at_mirrors: self.looked_at_mirrors,
            looked_at_replay: self.looked_at_replay,
            frames: self.frames,
            reply: self.reply,
        }
    }
}

impl<R, T, D> Worker<R, T, D>
where
    R: Rx,
    R::Frame: Frame<Payload = T::Payload>,
    T: Tx,
    D: Defragment<R::Frame>,
{
    /// Once round. `read_mirror` is false while draining and while an offline replay waits. Returns
    /// how much there was to do.
    #[inline]
    pub fn step(&mut self, now: Nanos, read_mirror: bool) -> usize {
        let mut work = 0;
        if read_mirror {
            work += self.poll_mirrors(now);
        }
        work += self.poll_rings(now);
        self.defragment.expire(now);
        work += self.poll_replay(now);
        work += self.poll_links(now);
        work += self.core.poll(now, &mut self.out);
        self.out.poll_host(now, &mut self.reply);
        work += self.out.flush(true);
        self.wake_others();
        self.counters.loops += 1;
        self.counters.idle_loops += u64::from(work == 0);
        work
    }

    fn poll_mirrors(&mut self, now: Nanos) -> usize {
        let mut received = 0;
        let before = std::mem::replace(&mut self.looked_at_mirrors, now);
        for i in 0..self.mirrors.len() {
            let mut frames = std::mem::take(&mut self.frames);
            received += self.mirrors[i].rx_burst(&mut frames);
            // Filled where it is: what is collected would be moved, all of its room.
            let mut packets = ArrayVec::<_, BURST>::new();
            let mut places = ArrayVec::<Place, BURST>::new();
            packets.extend(frames.iter().map(|frame| {
                let mut place = Place::default();
                let packet = self.decode(&self.mirror_options, frame, &mut place);
                if let Some(check) = place.check {
                    side::ask_for::<R>(check.reads(frame.bytes()));
                }
                places.push(place);
                packet
            }));
            let sides = places.iter().filter_map(|place| place.side);
            self.core.expect_mirrored::<R>(sides);
            for ((frame, packet), place) in frames.drain(..).zip(&packets).zip(&places) {
                self.decoded(now, Some(i), None, packet, place, frame);
            }
            self.frames = frames;
        }
        if received > 0 && before > 0 {
            self.counters.mirror_waits.record(now - before.min(now));
        }
        received
    }

    /// Decodes a frame of a capture file with this link type.
    #[inline]
    pub fn look(&self, link: Option<LinkType>, frame: &R::Frame) -> Decoded {
        let mut decoded = Decoded::of(Err(Skip::LinkType), self.index);
        if let Some(link) = link {
            decoded.packet = self.decode(&self.options_on(link), frame, &mut decoded.place);
        }
        decoded
    }

    /// One frame of a capture file, as [`Worker::look`] has decoded it: to the session core, to the
    /// core that owns it, to the reassembler, or to a counter.
    #[inline]
    pub fn recorded_frame(
        &mut self,
        now: Nanos,
        link: Option<LinkType>,
        decoded: &Decoded,
        frame: R::Frame,
    ) {
        self.decoded(now, None, link, &decoded.packet, &decoded.place, frame);
    }

    #[inline]
    fn options_on(&self, link: LinkType) -> MirrorOptions {
        MirrorOptions {
            link,
            ..self.mirror_options
        }
    }

    /// A frame of the mirror queue `from`, decoded.
    #[inline]
    fn decoded(
        &mut self,
        now: Nanos,
        from: Option<usize>,
        link: Option<LinkType>,
        packet: &Result<Packet, Skip>,
        place: &Place,
        frame: R::Frame,
    ) {
        self.counters.mirror_frames += 1;
        self.counters.mirror_bytes += frame.frame_len() as u64;
        match packet {
            Ok(packet) => self.segment(now, packet, place, frame),
            Err(Skip::Fragment) => {
                let options = self.options_on(link.unwrap_or(self.mirror_options.link));
                let part = fragment_with(&options, frame.bytes(), frame.frame_len());
                self.fragment(now, part, frame);
            }
            Err(skip) => {
                let options = self.options_on(link.unwrap_or(self.mirror_options.link));
                self.skip(*skip, &options, &frame);
                let asked = from.and_then(|from| self.answering.get_mut(from));
                match asked.and_then(|a| a.look(now, *skip, frame.bytes())) {
                    Some(Asked::Answered) => self.counters.answered += 1,
                    Some(Asked::Unsent) => self.counters.unanswered += 1,
                    None => {}
                }
            }
        }
    }

    /// Counts a frame that decoding, as `options` say, has refused.
    #[inline]
    fn skip(&mut self, skip: Skip, options: &MirrorOptions, frame: &R::Frame) {
        self.counters.skipped[skip as usize] += 1;
        if skip == Skip::TunnelRefused
            && let Some(to) = refused_tunnel(options, frame.bytes(), frame.frame_len())
        {
            self.refused.add(to, 1);
        }
    }

    /// A segment of the mirror, whose checksum may have to be verified.
    #[inline]
    fn segment(&mut self, now: Nanos, packet: &Packet, place: &Place, frame: R::Frame) {
        if let Some(check) = place.check
            && !check.is_sound(&frame)
        {
            self.counters.skipped[Skip::BadChecksum as usize] += 1;
        } else if place.owner == self.index {
            // A frame of no use is counted by the core.
            let out = &mut self.out;
            let _ = self.core.mirror_as(now, packet, place.side, frame, out);
        } else {
            self.hand_over(place.owner, Parcel::Mirrored(*packet, frame));
        }
    }

    /// A part of a datagram. No port tells whose it is, so a hash of what the parts have in common
    /// chooses the core where they meet.
    fn fragment(&mut self, now: Nanos, part: Option<Fragment>, frame: R::Frame) {
        let Some(part) = part else {
            self.counters.skipped[Skip::Fragment as usize] += 1;
            return;
        };
        let owner = self.fragment_owner(&part);
        if owner == self.index {
            self.reassemble(now, part, frame);
        } else {
            self.hand_over(owner, Parcel::Fragment(part, frame));
        }
    }

    #[inline]
    fn fragment_owner(&self, part: &Fragment) -> u16 {
        match self.core.params().ownership.cores {
            0 | 1 => self.index,
            cores => (datagram_hash(part) % u32::from(cores)) as u16,
        }
    }

    /// A part that belongs here. When its datagram is whole, that goes on as a frame would: it may
    /// be part of another datagram, which carried it through a tunnel.
    fn reassemble(&mut self, now: Nanos, mut part: Fragment, mut frame: R::Frame) {
        for _ in 0..NESTED {
            frame = match self.defragment.insert(now, frame, &part) {
                Insert::Whole(datagram) => datagram,
                Insert::Taken => return,
                Insert::Refused => {
                    self.counters.skipped[Skip::Fragment as usize] += 1;
                    return;
                }
            };
            let options = self.mirror_options.reassembled(part.scope);
            let mut place = Place::default();
            match self.decode(&options, &frame, &mut place) {
                Ok(packet) => return self.segment(now, &packet, &place, frame),
                Err(Skip::Fragment) => {}
                Err(skip) => return self.skip(skip, &options, &frame),
            }
            let inner = fragment_with(&options, frame.bytes(), frame.frame_len());
            let Some(inner) = inner else {
                self.counters.skipped[Skip::Fragment as usize] += 1;
                return;
            };
            let owner = self.fragment_owner(&inner);
            if owner != self.index {
                return self.hand_over(owner, Parcel::Fragment(inner, frame));
            }
            part = inner;
        }
        self.counters.skipped[Skip::Depth as usize] += 1;
    }

    fn poll_replay(&mut self, now: Nanos) -> usize {
        let Some(rx) = self.replay.as_mut() else {
            return 0;
        };
        let mut frames = std::mem::take(&mut self.frames);
        let received = rx.rx_burst(&mut frames);
        let before = std::mem::replace(&mut self.looked_at_replay, now);
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
                Local::Control => self.control(now, frame.bytes()),
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

    /// A TCP segment on the replay port, received at `at`: a response, if this engine absorbs them
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
            self.response(now, at, head);
        } else if !self.leave(owner, Parcel::Response(*head, at)) {
            self.counters.response_full += 1;
        }
    }

    fn control(&mut self, now: Nanos, bytes: &[u8]) {
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
        let received = self.out.host.receive(now, bytes, &proxied, &mut self.reply);
        if received.replied {
            self.out.send_control(&self.reply);
        }
        if let Some((addr, mac)) = received.learned {
            let me = self.index;
            for i in (0..self.to.len() as u16).filter(|i| *i != me) {
                // If the ring is full the neighbour is asked again.
                let _ = self.leave(i, Parcel::Neighbor(addr, mac));
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

    fn poll_links(&mut self, now: Nanos) -> usize {
        let mut work = 0;
        while work < 8 * BURST
            && let Some(record) = self.out.next_record()
        {
            work += 1;
            if let Some(mtu) = record.path_mtu {
                self.counters.icmp_errors += 1;
                let (flow, seq) = (record.head.flow.reversed(), record.head.ack);
                self.core.too_big(now, &flow, seq, mtu, &mut self.out);
                continue;
            }
            self.counters.link_responses += 1;
            self.response(now, record.received_at, &record.head);
        }
        work
    }

    /// A response to a connection that this core owns. It was received at `received_at`, which by
    /// the clock of another thread may be after the `now` of this turn of the loop.
    #[inline]
    fn response(&mut self, now: Nanos, received_at: Nanos, head: &Head) {
        self.core
            .response(now, received_at.min(now), head, &mut self.out);
    }

    /// Fills in what the worker tells.
    pub fn snapshot(&self, into: &mut Snapshot) {
        into.core = self.core.counters();
        // What is told is copied to where there is room: nothing is allocated here.
        for (room, target) in into.targets.iter_mut().zip(self.core.targets()) {
            room.clone_from(target);
        }
        into.worker.clone_from(&self.counters);
        into.refused = self.refused.clone();
        into.fragments = self.defragment.counters();
        into.egress = self.out.counters;
        into.sessions = self.core.session_count();
        into.half_open = self.core.half_open_count();
        into.longest_walk = self.core.longest_walk();
        into.segments = self.core.segment_count();
        into.slots = self.core.slots();
        into.unresolved = self.out.host.unresolved().take(4).collect();
    }
}
