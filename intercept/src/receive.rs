//! The loop of one receive core: take responses off the wire, find whose they are, hand their
//! headers on, and answer the neighbours.
//!
//! It is generic over the port, so the loop that runs on an lcore runs in a test over memory. What
//! always holds: every frame is freed or, as an answer's payload, sent back; none is forwarded;
//! each is counted once. One [`ReceiveCore::step`] neither allocates nor waits.

use crate::claims::Claims;
use crate::counters::{Counters, Published, Unsent};
use crate::pending::Pending;
use crate::rings::{Command, CoreEnd};
use arrayvec::ArrayVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use wake::Rest;
use wire::decode::{self, Local, Packet};
use wire::head::MAX_HEADERS;
use wire::host::{FrameBuf, Host, Kind};
use wire::io::{BURST, Frame, Rx, Tx};
use wire::{Flow, Nanos, Seq};

/// Changes of claims that one step applies before it looks at the wire again.
const COMMANDS_A_STEP: usize = 64;

/// How often waiting responses are looked through, and the host is asked what is due.
const HOUSEKEEPING: Nanos = 1_000_000;

/// How long a response without a claim waits for one.
pub const PENDING_WAIT: Nanos = 50_000_000;

/// Responses without a claim that may wait on one core.
pub const PENDING_ROOM: u32 = 4096;

/// How long a core that gives itself back sleeps at a time while responses come.
pub const NAP: Duration = Duration::from_micros(50);

/// What one receive core works with.
pub struct Parts<R, T> {
    /// Where responses come in.
    pub rx: R,
    /// Where answers to neighbours go out.
    pub tx: T,
    /// Our own addresses on that wire.
    pub host: Host,
    /// The claims, empty.
    pub claims: Claims,
    /// The rings to the server.
    pub out: CoreEnd,
    /// Bytes of payload in each record, 0–[`link::MAX_PREFIX`].
    pub payload_prefix: u16,
    /// Where the counters are published.
    pub published: Arc<Published>,
    /// Makes the places in the core's tables unpredictable.
    pub seed: u64,
}

/// One receive core.
pub struct ReceiveCore<R: Rx, T> {
    parts: Parts<R, T>,
    pending: Pending,
    burst: ArrayVec<R::Frame, BURST>,
    answer: FrameBuf,
    counters: Counters,
    housekeeping_at: Nanos,
    pushed: u64,
}

impl<R, T> ReceiveCore<R, T>
where
    R: Rx,
    T: Tx<Payload = <R::Frame as Frame>::Payload>,
{
    /// A core that has seen nothing yet.
    pub fn new(parts: Parts<R, T>) -> Self {
        Self {
            pending: Pending::new(PENDING_ROOM, parts.payload_prefix, PENDING_WAIT, parts.seed),
            parts,
            burst: ArrayVec::new(),
            answer: FrameBuf::new(),
            counters: Counters::default(),
            housekeeping_at: 0,
            pushed: 0,
        }
    }

    /// The counters up to now.
    #[cfg(test)]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Steps until `stop`, then hands everything on. With `rest` the core is given back whenever
    /// there was nothing to do.
    pub fn run(
        mut self,
        stop: &AtomicBool,
        mut rest: Option<Rest>,
        clock: impl Fn() -> Nanos,
    ) -> Counters {
        while !stop.load(Relaxed) {
            let worked = self.step(clock());
            if let Some(rest) = &mut rest {
                if !worked {
                    self.parts.out.wake();
                }
                let quiet = || self.quiet();
                rest.after(worked, quiet, || self.parts.out.is_idle());
            }
        }
        self.finish(clock())
    }

    /// How long it may wait for a response or a claim.
    fn quiet(&self) -> Duration {
        let is_quiet = self.pending.is_empty() && self.parts.out.open_records() == 0;
        Duration::from_nanos(if is_quiet { Nanos::MAX } else { HOUSEKEEPING })
    }

    /// One round: changed claims, one burst, what is due. True if there was something to do.
    pub fn step(&mut self, now: Nanos) -> bool {
        let changed = self.commands();
        self.parts.rx.rx_burst(&mut self.burst);
        let received = !self.burst.is_empty();
        let mut burst = std::mem::take(&mut self.burst);
        for frame in burst.drain(..) {
            self.frame(frame, now);
        }
        self.burst = burst;
        let due = now >= self.housekeeping_at;
        if due {
            self.housekeeping_at = now.saturating_add(HOUSEKEEPING);
            let expired = self.pending.expire(now);
            self.drop_responses(Unsent::Unclaimed, expired);
            if self.parts.host.poll(now, &mut self.answer) {
                // A question that cannot be sent is asked again.
                let _ = self.parts.tx.send(&self.answer, None);
            }
        }
        self.parts.out.flush();
        if received || changed || due {
            self.parts.tx.flush();
            self.publish();
        }
        received || changed
    }

    /// Gives up what waits, hands on what is batched, and says what came of everything.
    pub fn finish(mut self, now: Nanos) -> Counters {
        self.step(now);
        let expired = self.pending.expire(Nanos::MAX);
        self.drop_responses(Unsent::Unclaimed, expired);
        self.parts.out.flush_all();
        self.parts.out.wake();
        self.publish();
        self.counters
    }

    fn drop_responses(&mut self, reason: Unsent, count: u64) {
        self.counters.dropped[reason as usize] += count;
    }

    fn publish(&mut self) {
        let ring_full = self.parts.out.dropped();
        self.counters.dropped[Unsent::RingFull as usize] = ring_full;
        self.counters.records = self.pushed - ring_full;
        self.counters.pending = self.pending.len() as u64;
        self.parts.published.store(&self.counters);
    }

    fn commands(&mut self) -> bool {
        for n in 0..COMMANDS_A_STEP {
            match self.parts.out.command() {
                None => return n > 0,
                Some(Command::Release(claim, connection)) => {
                    self.parts.claims.release(&claim, connection);
                }
                Some(Command::Claim(claim, connection)) => {
                    if !self.parts.claims.claim(&claim, connection) {
                        self.counters.claims_failed += 1;
                        continue;
                    }
                    let route = crate::claims::Route {
                        connection,
                        owner: claim.owner,
                    };
                    let (out, pushed) = (&mut self.parts.out, &mut self.pushed);
                    self.pending.take(&claim, |head, at, prefix| {
                        *pushed += 1;
                        out.push(route, head, at, prefix);
                    });
                }
            }
        }
        true
    }

    fn frame(&mut self, frame: R::Frame, now: Nanos) {
        let len = frame.frame_len();
        self.counters.frames += 1;
        self.counters.bytes += len as u64;
        match decode::local_frame(&frame) {
            Local::Tcp(packet) => {
                let at = frame.captured_at().map_or(now, |at| at.min(now));
                self.response(&packet, frame.bytes(), at);
            }
            Local::Control => self.control(frame, now),
            Local::Skip(why) => {
                if let Some(counter) = self.counters.skipped.get_mut(why as usize) {
                    *counter += 1;
                }
            }
        }
    }

    /// A response that was received at `at`.
    fn response(&mut self, packet: &Packet, bytes: &[u8], at: Nanos) {
        let payload = bytes
            .get(packet.payload_range(bytes.len()))
            .unwrap_or_default();
        let prefix = payload
            .get(..usize::from(self.parts.payload_prefix))
            .unwrap_or(payload);
        match self.parts.claims.find(&packet.head.flow) {
            Some(route) => {
                self.pushed += 1;
                self.parts.out.push(route, &packet.head, at, prefix);
            }
            None if self.pending.push(&packet.head, at, prefix) => {}
            None => self.drop_responses(Unsent::PendingFull, 1),
        }
    }

    fn control(&mut self, frame: R::Frame, now: Nanos) {
        self.counters.control += 1;
        let claims = &self.parts.claims;
        let proxied = |addr: &wire::Addr| claims.is_neighbour(addr);
        let received = self
            .parts
            .host
            .receive(now, frame.bytes(), &proxied, &mut self.answer);
        if let Kind::TooBig(Some((sent, seq)), mtu) = received.kind {
            self.too_big(&sent.reversed(), seq, mtu, now);
        }
        if !received.replied {
            return;
        }
        if self.answer(frame) {
            self.counters.replies += 1;
        } else {
            self.counters.replies_failed += 1;
        }
    }

    /// A router had no way for a segment that went against `flow`: the engine that sent it is to
    /// cut smaller ones.
    fn too_big(&mut self, flow: &Flow, seq: Seq, mtu: u32, now: Nanos) {
        if let Some(route) = self.parts.claims.find(flow) {
            let batched = self.parts.out.push_path_mtu(route, flow, seq, mtu, now);
            self.counters.path_mtu += u64::from(batched);
        }
    }

    /// Sends the answer to `frame`. What does not fit in the header buffer is what the asker sent,
    /// so it goes back from its own buffer.
    fn answer(&mut self, frame: R::Frame) -> bool {
        let Some((headers, rest)) = self.answer.split_at_checked(MAX_HEADERS) else {
            return self.parts.tx.send(&self.answer, None).is_ok();
        };
        let range = MAX_HEADERS..MAX_HEADERS + rest.len();
        if frame.bytes().get(range.clone()) != Some(rest) {
            return false;
        }
        let mut payload = frame.into_payload(range);
        self.parts
            .tx
            .send(headers, Some((&mut payload, 0..rest.len())))
            .is_ok()
    }
}

#[cfg(test)]
mod tests;
