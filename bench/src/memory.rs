//! The worker's whole loop body over ports in memory: what a packet costs, what a session takes,
//! and whether anything allocates.
//!
//! Time is made up: each step moves it on by what the traffic's rate says, so that timers and
//! acknowledgments fall the same way on every machine. What is measured is CPU time of this thread.
//! Three runs take turns in every window: the engine; the *harness* alone, which makes the mirror's
//! frames and the target's answers; and the *floor*, harness plus decoding every frame that is
//! received and building headers for every one that is sent, without any session. So both engine
//! and floor can be told without what the harness costs. Not in it: the clock, which the engine
//! reads once a round, and what a driver does.

use crate::frames::{BenchFrame, Pool};
use crate::measure::{Allocations, Spread, resident, thread_cpu};
use crate::target::{MemorySink, MemorySource, Mirror, Target};
use crate::traffic::{LINK, PRODUCTION, Schedule, TARGET};
use anyhow::{Context, Result, bail, ensure};
use arrayvec::ArrayVec;
use clap::ValueEnum;
use engine::egress::Outlet;
use engine::worker::{ResponseOwner, Worker};
use replay::{Core, Params, Transfer};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;
use wire::build::tcp;
use wire::decode::{Local, local, mirrored};
use wire::head::HeaderBuf;
use wire::host::{Host, HostConfig};
use wire::io::{BURST, Frame, Rx, Tx};
use wire::{Addr, Endpoint, Flags, Flow, Head, Nanos, Prefix};

/// Buffers of the mirror and of the target each: what a NIC's queue and pool cache may hold.
const BUFFERS: usize = 8192;
/// The clients' round-trip time.
pub const RTT: Nanos = 200_000;
/// How long the core keeps an ended session, and a little more for its life.
const LINGER: Nanos = 2_100_000_000;
/// Mirrored frames of one short session.
const SHORT_FRAMES: u64 = 9;
/// Time of one step with long-lived sessions: 32 frames at 2 million a second.
pub const LONG_STEP: Nanos = 16_000;
/// Steps after the last frame in which all must have come to rest.
const REST: u64 = 2_000;
/// When the made-up time begins.
const START: Nanos = 1_000_000_000;

type Sink = MemorySink;
type Bench = Worker<MemorySource, Sink>;

/// Which traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Sessions that stay, with request after request.
    Long,
    /// Sessions of one request.
    Short,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Sessions in the table.
    pub sessions: u64,
    /// Mirrored frames of one window.
    pub frames: u64,
    /// Windows.
    pub windows: usize,
    /// Transfers, of which the last is that of the sessions.
    pub transfers: u16,
}

/// What was measured. Times are nanoseconds of CPU per packet; a packet is a frame received on the
/// mirror or the replay port, or sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Which traffic.
    pub kind: Kind,
    /// Sessions in the table, on average.
    pub sessions: u64,
    /// Windows measured.
    pub windows: usize,
    /// Transfers.
    pub transfers: u16,
    /// Packets since the first one, warm-up and end included.
    pub packets: u64,
    /// Shares of frames of the mirror, frames of the target, and frames sent in the windows.
    pub mix: [f64; 3],
    /// Engine and harness.
    pub engine_ns: Spread,
    /// The harness alone.
    pub harness_ns: Spread,
    /// Harness, decoding and building.
    pub floor_ns: Spread,
    /// Engine over floor, the harness taken off both, window by window: what disturbs the machine
    /// meets both.
    pub ratio: Spread,
    /// Blocks allocated in all the steps that these packets took.
    pub allocations: u64,
    /// Memory that became resident per session, in bytes; only with long-lived ones.
    pub resident_per_session: Option<u64>,
    /// What the core says a session takes.
    pub counted_per_session: u64,
}

impl Outcome {
    /// CPU of the engine alone.
    pub fn net(&self) -> f64 {
        self.engine_ns.median - self.harness_ns.median
    }

    /// CPU of decoding and building alone.
    pub fn net_floor(&self) -> f64 {
        self.floor_ns.median - self.harness_ns.median
    }

    /// Packets a second that one core has the time for.
    pub fn packets_per_second(&self) -> f64 {
        1e9 / self.net()
    }

    /// Mirrored frames a second that one core has the time for, everything else included.
    pub fn mirrored_per_second(&self) -> f64 {
        self.packets_per_second() * self.mix[0]
    }

    /// Sessions or requests a second that one core has the time for.
    pub fn units_per_second(&self) -> f64 {
        let frames = match self.kind {
            Kind::Long => 3.0,
            Kind::Short => SHORT_FRAMES as f64,
        };
        self.mirrored_per_second() / frames
    }
}

/// The same with so many transfers, from servers with the same port.
fn params_of(transfers: u16, max_sessions: usize, start: Nanos) -> Params {
    let mut params = params(max_sessions, start);
    let more = (1..transfers).map(|i| {
        let [high, low] = i.to_be_bytes();
        let server = Endpoint::new(Addr::v4([10, 11, high, low]), PRODUCTION.port);
        let target = Endpoint::new(Addr::v4([10, 21, high, low]), TARGET.port);
        Transfer::new(server, target)
    });
    params.transfers.splice(..0, more);
    params
}

/// Parameters of a core for the bench's traffic.
pub fn params(max_sessions: usize, start: Nanos) -> Params {
    let target = replay::Target {
        rtt: Some(RTT),
        ..replay::Target::new(TARGET)
    };
    let transfer = Transfer::with(PRODUCTION, target);
    Params {
        session_bytes: 1 << 20,
        seed: 1,
        start,
        ..Params::new(vec![transfer], max_sessions, 65_536)
    }
}

/// A worker without ports on either mirror or replay side.
pub fn worker<R, T>(params: Params, tx: T) -> Worker<R, T>
where
    R: Rx,
    R::Frame: Frame<Payload = T::Payload>,
    T: Tx,
{
    let host = Host::new(HostConfig {
        mac: LINK.src,
        addresses: vec![Prefix::new(Addr::v4([10, 20, 0, 9]), 24)],
        gateways: Vec::new(),
        next_hop_mac: Some(LINK.dst),
        seed: 1,
    });
    let owner = ResponseOwner::new(&params, Vec::new());
    let targets = params.transfers.iter().map(|t| t.to[0].to).collect();
    let out = Outlet::new(tx, host, LINK.src, targets, None, 0);
    let start = params.start;
    Worker::new(0, Core::new(params, start), out, owner)
}

/// Says what of a worker's books is not as it must be when everything went well.
pub fn check<R, T>(worker: &Worker<R, T>, target_lost: u64, resets: u64) -> Result<()>
where
    R: Rx,
    R::Frame: Frame<Payload = T::Payload>,
    T: Tx,
{
    let c = worker.core.counters();
    if let Err(e) = c.balance() {
        bail!("the core's books do not balance: {e}");
    }
    let mut dropped = replay::Unused::ALL.iter().zip(c.dropped);
    if let Some((reason, n)) = dropped.find(|(_, n)| *n > 0) {
        bail!("there were {n} frames of no use, for {reason}, but must be none");
    }
    let none = [
        (
            "frames that could not be decoded",
            worker.counters.skipped.iter().sum(),
        ),
        ("sessions shed", c.sessions_shed),
        ("turns lost", c.lost_turns_sum()),
        (
            "turns sent without an answer to the one before",
            c.gate_timeouts,
        ),
        ("segments sent again", c.retransmitted_segments),
        ("responses for no connection", c.responses_unknown),
        (
            "frames on the replay port that are no responses",
            worker.counters.replay_strays + worker.counters.replay_skipped,
        ),
        ("segments refused by the transmit queue", c.tx_full),
        (
            "connections that failed",
            c.connect_failures + c.target_resets,
        ),
        ("resets sent", resets),
        ("answers the bench had no buffer for", target_lost),
    ];
    for (what, n) in none {
        ensure!(n == 0, "there were {n} {what}, but must be none");
    }
    Ok(())
}

/// A worker with its traffic, and the time.
pub struct Rig {
    /// The worker.
    pub worker: Bench,
    schedule: Rc<RefCell<Schedule>>,
    target: Rc<RefCell<Target<Pool>>>,
    now: Nanos,
    step: Nanos,
    /// Blocks allocated so far.
    allocations: u64,
}

/// Packets so far: of the mirror, of the target, sent.
type Packets = [u64; 3];

impl Rig {
    fn new(kind: Kind, sessions: u64, transfers: u16) -> Self {
        // A table that is nearly full, as limits are set to what is expected.
        let (step, room) = match kind {
            Kind::Long => (LONG_STEP, sessions),
            Kind::Short => (
                BURST as u64 * LINGER / (SHORT_FRAMES * sessions),
                sessions + sessions / 10 + 4_096,
            ),
        };
        let first = match kind {
            Kind::Long => Schedule::opening(sessions),
            Kind::Short => Schedule::short(),
        };
        let schedule = Rc::new(RefCell::new(first));
        let target = Target::new(Pool::new(BUFFERS));
        let mirror = Mirror::new(Rc::clone(&schedule), BUFFERS);
        let mut worker = worker(
            params_of(transfers, room as usize, START),
            MemorySink::new(Rc::clone(&target)),
        );
        worker.mirrors.push(MemorySource::Mirror(Box::new(mirror)));
        worker.replay = Some(MemorySource::Replay(Rc::clone(&target)));
        Self {
            worker,
            schedule,
            target,
            now: START,
            step,
            allocations: 0,
        }
    }

    /// One with so many long-lived sessions, which are established.
    pub fn established(sessions: u64, transfers: u16) -> Result<Self> {
        let mut rig = Self::new(Kind::Long, sessions, transfers);
        let opened = rig.settle(Some(sessions));
        opened.context("while sessions were opened")?;
        *rig.schedule.borrow_mut() = Schedule::turns(sessions);
        Ok(rig)
    }

    /// Steps so often.
    pub fn steps(&mut self, steps: u64) -> Result<()> {
        let heap = Allocations::begin();
        (0..steps).for_each(|_| self.step());
        let allocated = heap.count();
        ensure!(allocated == 0, "{allocated} blocks were allocated");
        Ok(())
    }

    #[inline]
    fn step(&mut self) {
        self.now += self.step;
        self.worker.step(self.now, true);
    }

    fn packets(&self) -> Packets {
        let c = &self.worker.counters;
        [
            c.mirror_frames,
            c.replay_frames,
            self.target.borrow().segments,
        ]
    }

    /// Steps until that many more frames of the mirror have come.
    pub fn drive(&mut self, frames: u64) -> Result<()> {
        let heap = Allocations::begin();
        let until = self.worker.counters.mirror_frames + frames;
        while self.worker.counters.mirror_frames < until {
            let before = self.worker.counters.mirror_frames;
            self.step();
            ensure!(
                self.worker.counters.mirror_frames > before,
                "the mirror has run out of buffers: sessions hold too many"
            );
        }
        self.allocations += heap.count();
        Ok(())
    }

    /// Begins nothing new and lets everything come to rest.
    pub fn settle(&mut self, units: Option<u64>) -> Result<()> {
        self.schedule.borrow_mut().finish(units);
        let heap = Allocations::begin();
        let mut quiet = 0;
        while quiet < REST {
            let before = self.packets();
            self.step();
            quiet = if self.packets() == before {
                quiet + 1
            } else {
                0
            };
        }
        self.allocations += heap.count();
        ensure!(
            self.target.borrow().waiting() == 0,
            "answers of the target were not fetched"
        );
        Ok(())
    }

    /// The books are as they must be.
    pub fn check(&self) -> Result<()> {
        let target = self.target.borrow();
        check(&self.worker, target.lost, target.resets)
    }
}

/// Harness and floor: the same traffic without an engine.
struct Bare {
    mirror: Mirror,
    target: Rc<RefCell<Target<Pool>>>,
    frames: ArrayVec<BenchFrame, BURST>,
    headers: HeaderBuf,
    packets: Packets,
    ident: u16,
}

impl Bare {
    fn new(kind: Kind, sessions: u64) -> Self {
        let schedule = match kind {
            Kind::Long => Schedule::turns(sessions),
            Kind::Short => Schedule::short(),
        };
        Self {
            mirror: Mirror::new(Rc::new(RefCell::new(schedule)), BUFFERS),
            target: Target::new(Pool::new(BUFFERS)),
            frames: ArrayVec::new(),
            headers: HeaderBuf::new(),
            packets: [0; 3],
            ident: 0,
        }
    }

    /// Sends what the engine would send for the same frames, and drops the answers. With `FLOOR`
    /// each frame is decoded and what is sent is built from what it says; otherwise the headers
    /// that came are handed on as they are.
    #[inline]
    fn step<const FLOOR: bool>(&mut self) {
        self.packets[0] += self.mirror.rx_burst(&mut self.frames) as u64;
        let mut frames = std::mem::take(&mut self.frames);
        for frame in frames.drain(..) {
            let bytes = frame.bytes();
            if FLOOR {
                let Ok(p) = mirrored(bytes, bytes.len()) else {
                    continue;
                };
                let payload = bytes.get(p.payload_range(bytes.len())).unwrap_or(&[]);
                if p.head.flow.dst == PRODUCTION && asks(p.head.flags, payload.len()) {
                    let flow = Flow {
                        src: p.head.flow.src,
                        dst: TARGET,
                    };
                    self.send(Head { flow, ..p.head }, payload);
                }
                black_box(&p);
            } else {
                let from_client = bytes.get(36..38) == Some(&PRODUCTION.port.to_be_bytes()[..]);
                let flags = Flags(bytes.get(47).copied().unwrap_or(0));
                let header = 14 + 20 + bytes.get(46).map_or(20, |b| usize::from(b >> 4) * 4);
                let payload = bytes.len().saturating_sub(header);
                if from_client && asks(flags, payload) {
                    self.forward(bytes.get(..header).unwrap_or(&[]), payload);
                }
            }
        }
        self.packets[1] += self.target.borrow_mut().poll(&mut frames) as u64;
        for frame in frames.drain(..) {
            let bytes = frame.bytes();
            if FLOOR {
                if let Local::Tcp(p) = local(bytes, bytes.len()) {
                    let ack = Head {
                        flow: p.head.flow.reversed(),
                        seq: p.head.ack,
                        ack: p.head.end(),
                        flags: Flags::ACK,
                        options: wire::Options {
                            timestamps: p.head.options.timestamps,
                            ..wire::Options::default()
                        },
                        payload_len: 0,
                        ..p.head
                    };
                    self.send(ack, &[]);
                }
            } else {
                self.forward(ACK, 0);
            }
        }
        self.frames = frames;
    }

    #[inline]
    fn send(&mut self, head: Head, payload: &[u8]) {
        self.ident = self.ident.wrapping_add(1);
        tcp(&mut self.headers, &LINK, &head, 64, self.ident, payload);
        self.target
            .borrow_mut()
            .segment(&self.headers, payload.len());
        self.packets[2] += 1;
    }

    #[inline]
    fn forward(&mut self, headers: &[u8], payload: usize) {
        self.target.borrow_mut().segment(headers, payload);
        self.packets[2] += 1;
    }

    /// Time per packet over that many frames of the mirror.
    fn window<const FLOOR: bool>(&mut self, frames: u64) -> Result<f64> {
        let (before, cpu) = (self.packets, thread_cpu());
        while self.packets[0] < before[0] + frames {
            let seen = self.packets[0];
            self.step::<FLOOR>();
            ensure!(self.packets[0] > seen, "the mirror has run out of buffers");
        }
        Ok(per_packet(cpu, &before, &self.packets))
    }
}

/// Headers of an acknowledgment, as far as the target reads them.
const ACK: &[u8] = &{
    let mut h = [0; 66];
    h[46] = 0x80;
    h[47] = Flags::ACK.0;
    h
};

/// True if the engine sends a segment of its own for such a one of the client.
#[inline]
fn asks(flags: Flags, payload: usize) -> bool {
    payload > 0 || flags.has(Flags::SYN) || flags.has(Flags::FIN)
}

fn per_packet(cpu: u64, before: &Packets, after: &Packets) -> f64 {
    let packets: u64 = after.iter().zip(before).map(|(a, b)| a - b).sum();
    (thread_cpu() - cpu) as f64 / packets.max(1) as f64
}

/// Measures one kind of traffic with one number of sessions.
pub fn run(kind: Kind, size: Size) -> Result<Outcome> {
    let n = size.sessions;
    ensure!(
        (1_000..=16_000_000).contains(&n),
        "--sessions {n}: between 1,000 and 16,000,000 can be measured"
    );
    let mut bare = [Bare::new(kind, n), Bare::new(kind, n)];
    for b in &mut bare {
        b.window::<false>(BUFFERS as u64 * 2)?;
    }
    let before = resident()?;
    let mut rig = match kind {
        Kind::Long => Rig::established(n, size.transfers)?,
        Kind::Short => Rig::new(kind, n, size.transfers),
    };
    let own = 2 * BUFFERS as u64 * crate::frames::ROOM as u64;
    let mut resident_per_session = None;
    match kind {
        Kind::Long => {
            rig.settle(Some(n)).context("in the first round")?;
            rig.check().context("after the first round")?;
            ensure!(
                rig.worker.core.session_count() as u64 == n
                    && rig.worker.core.counters().replayed_turns == n,
                "{} sessions are open and {} turns replayed, but it must be {n} of each",
                rig.worker.core.session_count(),
                rig.worker.core.counters().replayed_turns
            );
            resident_per_session = Some(resident()?.saturating_sub(before + own) / n);
            let mut turns = Schedule::turns(n);
            turns.begin_at(n);
            *rig.schedule.borrow_mut() = turns;
            rig.drive(n.min(size.frames))?;
        }
        Kind::Short => rig.drive(SHORT_FRAMES * (n + n / 4))?,
    }
    let (mut engine, mut harness, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    let (mut packets, mut sessions) = ([0; 3], 0);
    for _ in 0..size.windows.max(1) {
        let (begin, cpu) = (rig.packets(), thread_cpu());
        rig.drive(size.frames)?;
        engine.push(per_packet(cpu, &begin, &rig.packets()));
        for (sum, (a, b)) in packets.iter_mut().zip(rig.packets().iter().zip(&begin)) {
            *sum += a - b;
        }
        sessions += rig.worker.core.session_count() as u64;
        harness.push(bare[0].window::<false>(size.frames)?);
        floor.push(bare[1].window::<true>(size.frames)?);
    }
    rig.settle(None)?;
    rig.check()?;
    let c = rig.worker.core.counters();
    ensure!(
        c.in_flight_turns == 0 && c.replayed_turns == c.turns,
        "of {} turns {} were replayed and {} are in flight, but all must be replayed",
        c.turns,
        c.replayed_turns,
        c.in_flight_turns
    );
    let total: u64 = packets.iter().sum();
    let ratios: Vec<f64> = engine
        .iter()
        .zip(&floor)
        .zip(&harness)
        .map(|((e, f), h)| (e - h) / (f - h))
        .collect();
    Ok(Outcome {
        kind,
        sessions: sessions / size.windows.max(1) as u64,
        windows: engine.len(),
        transfers: size.transfers,
        packets: rig.packets().iter().sum(),
        mix: packets.map(|p| p as f64 / total as f64),
        engine_ns: Spread::of(&engine),
        harness_ns: Spread::of(&harness),
        floor_ns: Spread::of(&floor),
        ratio: Spread::of(&ratios),
        allocations: rig.allocations,
        resident_per_session,
        counted_per_session: Core::<crate::frames::BenchPayload>::bytes_per_session() as u64,
    })
}

#[cfg(test)]
mod tests;
