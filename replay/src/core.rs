//! One worker core's sessions: the capture half and the replica half, with the door between.
//!
//! [`Core::mirror`] takes decoded frames of the mirror, [`Core::response`] segments of the target,
//! [`Core::poll`] fires timers. Each is handed to the half that it concerns; [`Core::audit`] checks
//! both.

mod audit;
mod memory;
mod prefetch;

#[cfg(test)]
mod tests;

use crate::capture::Capture;
use crate::capture::session::Session;
use crate::counters::{Counters, TargetCounters, Unused};
use crate::fan::Fans;
use crate::params::Params;
use crate::replica::data::{Feed, Replica};
use crate::replica::{Door, Replicas};
use crate::servers::Sources;
use crate::table::FlowTable;
use crate::wheel::Wheel;
use std::ops::Range;
use std::sync::Arc;
use wire::decode::Packet;
use wire::io::{Frame, Payload};
use wire::{Flow, Head, Nanos, Seq};

/// Timers fired in one call at most, so that a burst of them does not starve receive.
const BUDGET: usize = 512;

/// Why a segment could not be handed to the transmit queue. Either way it is tried again later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The queue is full or buffers are short.
    Busy,
    /// The next hop towards the target has not answered ARP or ND.
    Unreachable,
}

/// Where a core's segments and claims go.
pub trait Egress<P> {
    /// Sends one segment to the target with this number: all transfers' targets are counted in
    /// order. `range` of the payload's bytes stands behind the header. The payload stays with the
    /// caller.
    fn send(
        &mut self,
        target: u16,
        head: &Head,
        payload: Option<(&mut P, Range<usize>)>,
    ) -> Result<(), Refused>;

    /// This connection, client to target, is about to open: responses to it belong to this core.
    /// Not called for pool addresses, which are claimed as a slice once. False if the claim could
    /// not be made: its responses would not come, so it must not open.
    fn claim(&mut self, connection: &Flow) -> bool;

    /// That connection is over.
    fn release(&mut self, connection: &Flow);

    /// False while new sessions are to be shed, as no intercept is up.
    fn accepts_sessions(&self) -> bool;

    /// Buffers are short: new sessions are to be shed, or those make room that hold too many.
    fn is_short(&self) -> bool {
        false
    }

    /// Asks the processor for the cache line at the beginning of `of`, without waiting for it. A
    /// hint: by default nothing is done.
    #[inline]
    fn prefetch<T>(of: &T) {
        let _ = of;
    }
}

/// What the flow of a mirrored segment tells, looked up once for all that is done with it.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// The transfer it belongs to.
    pub(crate) transfer: u16,
    /// The client sent it, not its server.
    pub(crate) of_client: bool,
    /// The hash of its flow, client to server.
    pub(crate) hash: u32,
}

/// The target has accepted or refused a connection.
fn has_answered(t: &TargetCounters) -> bool {
    t.connects > 0 && t.unconfirmed_cores == 0
}

/// The session core of one worker. See the crate's documentation for what always holds.
pub struct Core<P: Payload> {
    params: Arc<Params>,
    fans: Arc<Fans>,
    sources: Sources,
    capture: Capture<P>,
    replicas: Replicas<P>,
}

impl<P: Payload> Core<P> {
    /// A core with all its memory reserved. `now` is the time of the first call that follows, or
    /// before it.
    pub fn new(params: Params, now: Nanos) -> Self {
        let fans = Arc::new(Fans::new(&params));
        let params = Arc::new(params);
        Self {
            capture: Capture::new(&params, &fans, now),
            replicas: Replicas::new(&params, &fans, now),
            fans,
            sources: Sources::new(&params),
            params,
        }
    }

    /// Copies payloads that are short enough to the small buffers of `store`, so that they keep no
    /// buffer of a received frame.
    pub fn copy_short_to(&mut self, store: P::Store) {
        self.capture.copy_short_to(store);
    }

    /// Both halves: one, and the other as the first sees it.
    fn halves<'a, E>(
        &'a mut self,
        now: Nanos,
        tx: &'a mut E,
    ) -> (&'a mut Capture<P>, Door<'a, P, E>) {
        let door = Door {
            half: &mut self.replicas,
            tx,
            now,
        };
        (&mut self.capture, door)
    }

    /// What a mirrored segment's flow tells, of which [`Core::sources`] has told the transfer
    /// and whether it is the client's.
    #[inline]
    pub fn side(&self, flow: &Flow, (transfer, of_client): (u16, bool)) -> Side {
        let flows = &self.capture.flows;
        Side {
            transfer,
            of_client,
            hash: if of_client {
                flows.hash(flow)
            } else {
                flows.hash_reversed(flow)
            },
        }
    }

    /// Takes one decoded frame of the mirror; `frame` is the very frame that `packet` was decoded
    /// from. Says why, if it was of no use.
    pub fn mirror<F: Frame<Payload = P>>(
        &mut self,
        now: Nanos,
        packet: &Packet,
        frame: F,
        tx: &mut impl Egress<P>,
    ) -> Result<(), Unused> {
        let flow = &packet.head.flow;
        let side = self.sources.transfer_of(flow).map(|t| self.side(flow, t));
        self.mirror_as(now, packet, side, frame, tx)
    }

    /// [`Core::mirror`] for a frame whose flow was looked up: `side` is what [`Core::side`] tells,
    /// `None` if no transfer wants it.
    pub fn mirror_as<F: Frame<Payload = P>>(
        &mut self,
        now: Nanos,
        packet: &Packet,
        side: Option<Side>,
        frame: F,
        tx: &mut impl Egress<P>,
    ) -> Result<(), Unused> {
        let (capture, mut door) = self.halves(now, tx);
        capture.mirror(now, packet, side, frame, &mut door)
    }

    /// Takes the header of one segment that the target sent to one of our connections, and that was
    /// received at `received_at`, which is `now` or earlier.
    pub fn response(
        &mut self,
        now: Nanos,
        received_at: Nanos,
        head: &Head,
        tx: &mut impl Egress<P>,
    ) {
        self.replicas.response(now, received_at, head, tx);
    }

    /// A segment with payload that went out as `head` left at `at`, which is not after now, as the
    /// kernel tells: that is when the turn's last byte was sent, if it was this.
    pub fn sent(&mut self, at: Nanos, head: &Head) {
        self.replicas.sent(at, head);
    }

    /// A router said that the segment of `flow` (ours, towards the target) with this sequence
    /// number was longer than the `mtu` bytes the path carries; 0 if it did not say. Believed
    /// only of what is on the way (RFC 5927 section 7.2); the segments are cut smaller and sent
    /// again.
    pub fn too_big(
        &mut self,
        now: Nanos,
        flow: &Flow,
        seq: Seq,
        mtu: u32,
        tx: &mut impl Egress<P>,
    ) {
        self.replicas.too_big(now, flow, seq, mtu, tx);
    }

    /// Fires the timers that are due. Returns how many there were.
    pub fn poll(&mut self, now: Nanos, tx: &mut impl Egress<P>) -> usize {
        let fired = self.replicas.poll(now, BUDGET, tx);
        fired + self.poll_capture(now, BUDGET - fired, tx)
    }

    /// No answer to a target, and nothing that a target waits for, is due before this time, unless
    /// something comes in. The waits of the capture half are long, and are left out.
    pub fn quiet_until(&self) -> Nanos {
        if self.is_ending() {
            return 0;
        }
        self.replicas.quiet_until()
    }

    fn poll_capture(&mut self, now: Nanos, budget: usize, tx: &mut impl Egress<P>) -> usize {
        let (capture, mut door) = self.halves(now, tx);
        capture.poll(now, budget, &mut door)
    }

    /// The engine is stopping: no new sessions, and an end to those there are. Like the two below
    /// it begins that; [`Core::poll`] goes on with it, some sessions at a time.
    pub fn drain(&mut self, now: Nanos, tx: &mut impl Egress<P>) {
        self.capture.drain();
        self.poll_capture(now, BUDGET, tx);
    }

    /// Nothing more will be captured of the sessions there are: what was is still replayed, then
    /// every connection is closed in good order. Unless the core is draining, what comes next is
    /// another recording: a SYN in it that these sessions began with begins others.
    pub fn end_all(&mut self, now: Nanos, tx: &mut impl Egress<P>) {
        self.capture.end_all();
        self.poll_capture(now, BUDGET, tx);
    }

    /// Gives up whatever is left, counted as [`crate::Loss::Stopped`].
    pub fn abandon(&mut self, now: Nanos, tx: &mut impl Egress<P>) {
        self.capture.abandon();
        self.poll_capture(now, BUDGET, tx);
    }

    /// Sessions are still being ended, as [`Core::drain`], [`Core::end_all`] or [`Core::abandon`]
    /// have begun: no frame is to be handed in before that is done.
    pub fn is_ending(&self) -> bool {
        self.capture.is_ending()
    }

    /// True when no replica has anything left to do.
    pub fn is_drained(&self) -> bool {
        !self.is_ending() && self.replicas.active == 0
    }

    /// What it has counted, all targets together.
    pub fn counters(&self) -> Counters {
        self.replicas.ledger.sum()
    }

    /// What it has counted about each target of each transfer, in their order.
    pub fn targets(&self) -> &[TargetCounters] {
        self.replicas.ledger.targets()
    }

    /// Which transfer a segment of the mirror belongs to.
    #[inline]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Its parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Sessions it holds now.
    pub fn session_count(&self) -> usize {
        self.capture.sessions.len()
    }

    /// Handshakes of production under way.
    pub fn half_open_count(&self) -> usize {
        self.capture.half_open_count()
    }

    /// Most places of a flow table that were ever walked to place a flow: the worst of all tables.
    pub fn longest_walk(&self) -> usize {
        let capture = self.capture.flows.longest_walk();
        let half_open = self.capture.half_open.longest_walk();
        let replica = self.replicas.connections.longest_walk();
        capture.max(half_open).max(replica)
    }

    /// Captured segments it holds now.
    pub fn segment_count(&self) -> usize {
        self.replicas.held_segments()
    }

    /// A recording waits for room: its time stands still until its next frame.
    pub fn hold_recording(&mut self, now: Nanos) {
        self.capture.hold(now);
    }

    /// Captured segments that are held for targets that answer: what may be waited for. If none has
    /// ever answered, all of them.
    pub fn segments_for_answering(&self) -> usize {
        let held = |t: &TargetCounters| t.held_segments as usize;
        let (mut answering, mut any) = (0, false);
        for t in self.targets().iter().filter(|t| has_answered(t)) {
            (answering, any) = (answering + held(t), true);
        }
        if any { answering } else { self.segment_count() }
    }

    /// Captured bytes that are neither replayed nor lost, of one replica each, at the target that
    /// has most of them. Those that have never answered do not count beside one that has.
    pub fn bytes_in_flight(&self) -> u64 {
        let targets = || self.targets().iter().enumerate();
        let of = |(i, t): (usize, &TargetCounters)| {
            t.in_flight_bytes / u64::from(self.fans.copies(i as u16))
        };
        let answered = targets().filter(|(_, t)| has_answered(t));
        answered
            .map(of)
            .max()
            .or_else(|| targets().map(of).max())
            .unwrap_or(0)
    }

    /// A number that changes whenever a target does something, or a session is done.
    pub fn progress(&self) -> u64 {
        let of_target = |t: &TargetCounters| {
            let lost = t.lost_turns.iter().sum::<u64>();
            t.replayed_bytes + t.replayed_turns + t.responses + t.response_bytes + lost
        };
        let ended = self.replicas.ledger.common.sessions_ended;
        let sent = self.replicas.ledger.common.segments_sent;
        ended + sent + self.targets().iter().map(of_target).sum::<u64>()
    }

    /// Whether another session of this transfer can begin, the handshakes under way counted as
    /// sessions, without that one goes which is not over. Those that are over and done make room.
    pub fn has_room(&mut self, now: Nanos, transfer: u16, tx: &mut impl Egress<P>) -> bool {
        let fan = self.fans.largest(transfer);
        let (capture, mut door) = self.halves(now, tx);
        capture.has_room(now, fan, &mut door)
    }

    /// Whether the pool has an address for each copy of another session to this transfer's targets,
    /// as far as can be told, the handshakes under way counted as sessions. True without a pool.
    pub fn has_addresses(&self, now: Nanos, transfer: u16) -> bool {
        let sessions = self.half_open_count() + 1;
        let fan = self.fans.largest(transfer);
        self.replicas.has_addresses(now, fan, sessions)
    }

    /// Pool addresses in use and in all; each counts once for every host that may have it at a time.
    pub fn slots(&self) -> (usize, usize) {
        let slots = self.replicas.slots.iter().flatten();
        slots.fold((0, 0), |(u, c), s| (u + s.used(), c + s.capacity()))
    }

    /// Bytes of one session with one replica, tables and timers included: what an idle session
    /// costs.
    pub const fn bytes_per_session() -> usize {
        const TABLE_ENTRY: usize = FlowTable::BYTES_PER_FLOW;
        const TIMER: usize = Wheel::BYTES_PER_TIMER;
        const FREE_LINK: usize = 4;
        size_of::<Session>()
            + size_of::<Feed>()
            + size_of::<Replica>()
            + 2 * (TABLE_ENTRY + TIMER + FREE_LINK)
    }
}
