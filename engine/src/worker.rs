//! One worker core: receive, decode, hand over or process, transmit, once round and again.
//!
//! The loop is generic over the ports it polls, so that the very code that runs on an lcore runs in
//! a test over a memory port. On its way a frame meets no lock, no allocation, no system call and
//! no log line. Every frame that is received is used or counted under a reason.

mod answers;
mod counters;
mod rings;
mod side;

use crate::answering::Answering;
use crate::egress::Outlet;
use crate::tunnels::RefusedTunnels;
use arrayvec::ArrayVec;
use replay::{Core, Ownership, Sources};
use side::Place;
use wake::Waker;
use wire::decode::{Fragment, LinkType, MirrorOptions, Packet, fragment_with, refused_tunnel};
use wire::defragment::{Defragment, Insert, NoDefragment, datagram_hash};
use wire::host::{Asked, FrameBuf};
use wire::io::{BURST, Frame, Rx, Tx};
use wire::{Flow, Head, Nanos, Skip};

pub use crate::owner::ResponseOwner;
pub use crate::snapshots::Snapshot;
pub use counters::WorkerCounters;
pub use rings::{Parcel, Ring};
pub use side::Decoded;

/// Fragmented datagrams inside one another that are reassembled for one frame.
pub const NESTED: usize = 4;

/// The core that owns the session of a segment of the mirror; `None` if there is but one core, or
/// no such session.
#[inline]
pub fn session_owner(sources: &Sources, ownership: &Ownership, flow: &Flow) -> Option<u16> {
    if ownership.cores <= 1 {
        return None;
    }
    match sources.transfer_of(flow)? {
        (_, true) => Some(ownership.owner(&flow.src, &flow.dst)),
        (_, false) => Some(ownership.owner(&flow.dst, &flow.src)),
    }
}

/// One worker core. `R` receives from the mirror and from the replay ports, `T` sends on a replay
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
    /// Its queues of the replay ports, each with the place of its wire in `out`.
    pub replay: Vec<(usize, R)>,
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
            replay: Vec::new(),
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
        work += self.poll_replay_ports(now);
        work += self.poll_links(now);
        work += self.core.poll(now, &mut self.out);
        self.out.poll_hosts(now, &mut self.reply);
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
            room.follow(target);
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
        into.unresolved = self.out.unresolved().take(4).collect();
    }
}
