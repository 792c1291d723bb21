//! DPDK's software drivers under the engine's own loop on one lcore, and under the simplest loop
//! there is.
//!
//! One process measures one case, since there is one EAL a process. The counters and the CPU clock
//! are read inside the loop, at the end of a warm-up and at the end of the time measured, so that
//! neither start nor end counts.

use crate::frames::{Buffer, Maker, ROOM};
use crate::measure::{Allocations, thread_cpu};
use crate::memory::{params, worker};
use crate::target::Target;
use crate::traffic::{Schedule, Segment};
use anyhow::{Context, Result, ensure};
use arrayvec::ArrayVec;
use clap::ValueEnum;
use dpdk::{
    Clock, DATA_ROOM, EalOptions, HEADER_ROOM, Hugepages, Mbuf, Memory, Mempool, MirrorPort, Port,
    PortOptions, RxQueue, TxQueue,
};
use engine::lcore::{self, Orders, RunPhase, Settings};
use engine::worker::{Snapshot, Worker};
use replay::Loss;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use wire::Nanos;
use wire::io::{BURST, Rx, Tx, TxError};

/// Packet memory, in MiB.
pub const MEMORY_MIB: usize = 256;
/// Sessions in the capture file; it is played again and again.
const CAPTURED: u64 = 2_048;
/// Buffers beyond those that hold the capture file.
const MBUFS: u32 = 16_384;
/// Sessions there may be: those that have ended stay for two seconds, and short ones come by the
/// hundred thousand.
const SESSIONS: usize = 2_000_000;

/// What runs on the lcore.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// Receive, exchange the Ethernet addresses, send, over the crate `dpdk`: what its safe layer
    /// costs beside testpmd.
    Swap,
    /// The engine.
    Engine,
}

/// Where frames come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// net_null: 64 bytes of zeros, which the engine can but refuse.
    Null,
    /// net_pcap: whole short sessions, again and again.
    Pcap,
}

impl Source {
    /// The driver's name.
    pub fn driver(self) -> &'static str {
        match self {
            Self::Null => "net_null",
            Self::Pcap => "net_pcap",
        }
    }

    /// The device, as DPDK calls it.
    pub fn device(self, pcap: &Path) -> String {
        match self {
            Self::Null => "net_null0".to_owned(),
            Self::Pcap => format!("net_pcap0,rx_pcap={},infinite_rx=1", pcap.display()),
        }
    }
}

/// The device that everything is sent to: it takes all and gives nothing.
pub const SINK: &str = "net_null1,no-rx=1";

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// What ran.
    pub case: Case,
    /// Where frames came from.
    pub source: Source,
    /// Frames received from there.
    pub frames: u64,
    /// Frames sent.
    pub sent: u64,
    /// Responses of the bench's target; the engine alone gets any.
    pub responses: u64,
    /// Seconds on the wall.
    pub seconds: f64,
    /// CPU of the lcore per frame received from the source, in ns, all that follows from it
    /// included.
    pub cpu_ns: f64,
    /// Of that, what the bench's target takes.
    pub target_ns: f64,
    /// Blocks allocated meanwhile.
    pub allocations: u64,
    /// Turns that were replayed, and segments that were sent again, since the start.
    pub turns: u64,
    /// See `turns`.
    pub retransmitted: u64,
    /// Whether hugepages were used.
    pub hugepages: bool,
}

/// Writes the capture file: short sessions from SYN to the last ACK (classic pcap,
/// draft-ietf-opsawg-pcap).
pub fn write_pcap(path: &Path) -> Result<()> {
    let mut schedule = Schedule::short();
    schedule.finish(Some(CAPTURED));
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 262_144, 1u32] {
        file.extend(word.to_le_bytes());
    }
    for (i, segment) in schedule.enumerate() {
        let frame = Segment::frame(&segment);
        for word in [0, i as u32, frame.len() as u32, frame.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    std::fs::write(path, file).with_context(|| format!("{} cannot be written", path.display()))
}

/// CPUs this process may run on (`Cpus_allowed_list`, proc(5)).
pub fn cpus() -> Result<Vec<usize>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let list = status
        .lines()
        .find_map(|l| l.strip_prefix("Cpus_allowed_list:"))
        .context("/proc/self/status has no Cpus_allowed_list")?;
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse()?, last.parse()?);
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

/// CPU of the main lcore and of the worker: the first one and the last one.
pub fn placement() -> Result<(usize, usize)> {
    let cpus = cpus()?;
    match (cpus.first(), cpus.last()) {
        (Some(first), Some(last)) => Ok((*first, *last)),
        _ => anyhow::bail!("this process may run on no CPU"),
    }
}

/// True if there are free hugepages enough.
pub fn hugepages() -> bool {
    Hugepages::of_machine().free_bytes >= (MEMORY_MIB as u64) << 20
}

/// Responses in mbufs.
struct MbufMaker {
    pool: Mempool,
    scratch: Box<Buffer>,
}

impl Maker for MbufMaker {
    type Frame = Mbuf;

    #[inline]
    fn make(&mut self, write: impl FnOnce(&mut Buffer) -> usize) -> Option<Mbuf> {
        let len = write(&mut self.scratch);
        let mut mbuf = self.pool.alloc()?;
        mbuf.append(self.scratch.get(..len)?).then_some(mbuf)
    }
}

type Replies = Rc<RefCell<Target<MbufMaker>>>;

/// What the worker receives from.
enum Receive {
    Queue(RxQueue),
    Replies(Replies),
}

impl Rx for Receive {
    type Frame = Mbuf;

    #[inline]
    fn rx_burst(&mut self, out: &mut ArrayVec<Mbuf, BURST>) -> usize {
        match self {
            Self::Queue(q) => q.rx_burst(out),
            Self::Replies(t) => t.borrow_mut().poll(out),
        }
    }

    #[inline]
    fn prefetch<T>(of: &T) {
        dpdk::prefetch(of);
    }
}

/// The transmit queue, with the target listening.
struct Send {
    queue: TxQueue,
    target: Replies,
}

impl Tx for Send {
    type Payload = dpdk::Payload;

    #[inline]
    fn send(
        &mut self,
        headers: &[u8],
        payload: Option<(&mut dpdk::Payload, Range<usize>)>,
    ) -> Result<(), TxError> {
        let len = payload.as_ref().map_or(0, |(_, range)| range.len());
        self.queue.send(headers, payload)?;
        self.target.borrow_mut().segment(headers, len);
        Ok(())
    }

    #[inline]
    fn prefetch<T>(of: &T) {
        dpdk::prefetch(of);
    }

    #[inline]
    fn flush(&mut self) -> usize {
        self.queue.flush()
    }
}

/// Where the measured time begins and ends.
#[derive(Clone, Copy)]
struct Span {
    warm: Nanos,
    end: Nanos,
}

/// CPU, heap and time at both ends of the span.
#[derive(Default)]
struct Marks {
    began: Cell<Nanos>,
    cpu: Cell<u64>,
    ended: Cell<Nanos>,
    heap: RefCell<Option<Allocations>>,
    allocations: Cell<u64>,
}

impl Marks {
    fn begin(&self, now: Nanos) {
        self.began.set(now);
        *self.heap.borrow_mut() = Some(Allocations::begin());
        self.cpu.set(thread_cpu());
    }

    fn end(&self, now: Nanos) {
        self.cpu.set(thread_cpu() - self.cpu.get());
        self.ended.set(now);
        self.allocations
            .set(self.heap.borrow().as_ref().map_or(0, Allocations::count));
    }

    fn seconds(&self) -> f64 {
        (self.ended.get() - self.began.get()) as f64 / 1e9
    }
}

/// Measures one case for `seconds` after `warm_up`.
pub fn run(
    case: Case,
    source: Source,
    pcap: &Path,
    warm_up: Duration,
    seconds: Duration,
) -> Result<Outcome> {
    let (main_cpu, cpu) = placement()?;
    let hugepages = hugepages();
    let options = EalOptions {
        workers: vec![cpu],
        main_cpu,
        memory: if hugepages {
            Memory::Hugepages
        } else {
            Memory::NoHuge { mib: MEMORY_MIB }
        },
        ..EalOptions::default()
    };
    let eal = options.start()?;
    let held = match source {
        Source::Null => 0,
        Source::Pcap => CAPTURED as u32 * 9,
    };
    let pool = Mempool::new(&eal, "mirror", held + MBUFS, DATA_ROOM, 256, None)?;
    let headers = Mempool::new(&eal, "headers", MBUFS, HEADER_ROOM, 256, None)?;
    let options = PortOptions::default();
    let (mirror, mut rx) = MirrorPort::open(&eal, &source.device(pcap), &options, &pool)?;
    let (replay, unused, mut tx) = Port::open(&eal, SINK, &options, &pool, &headers)?;
    let (Some(rx), Some(tx)) = (rx.pop(), tx.pop()) else {
        anyhow::bail!("a port was opened without queues");
    };
    let clock = eal.clock();
    let span = Span {
        warm: clock.now() + warm_up.as_nanos() as Nanos,
        end: clock.now() + (warm_up + seconds).as_nanos() as Nanos,
    };
    let (replies, held) = (pool.clone(), eal.clone());
    let outcome = eal
        .launch(0, move || {
            let mut outcome = match case {
                Case::Swap => swap(rx, tx, clock, span, source),
                Case::Engine => replay_sessions(rx, tx, clock, span, source, replies),
            }?;
            outcome.hugepages = hugepages;
            Ok(outcome)
        })?
        .join()?;
    drop((mirror, replay, unused, held));
    outcome
}

fn swap(
    mut rx: RxQueue,
    mut tx: TxQueue,
    clock: Clock,
    span: Span,
    source: Source,
) -> Result<Outcome> {
    let marks = Marks::default();
    let mut frames: ArrayVec<Mbuf, BURST> = ArrayVec::new();
    let (mut received, mut sent, mut begun) = (0u64, 0u64, false);
    loop {
        let now = clock.now();
        if !begun && now >= span.warm {
            begun = true;
            (received, sent) = (0, 0);
            marks.begin(now);
        }
        if now >= span.end && begun {
            marks.end(now);
            break;
        }
        received += rx.rx_burst(&mut frames) as u64;
        for frame in &mut frames {
            if let Some(bytes) = frame.bytes_mut()
                && let Some((dst, rest)) = bytes.split_first_chunk_mut::<6>()
                && let Some(src) = rest.first_chunk_mut::<6>()
            {
                std::mem::swap(dst, src);
            }
        }
        sent += tx.tx_burst(&mut frames) as u64;
        frames.clear();
    }
    Ok(Outcome {
        case: Case::Swap,
        source,
        frames: received,
        sent,
        responses: 0,
        seconds: marks.seconds(),
        cpu_ns: marks.cpu.get() as f64 / received.max(1) as f64,
        target_ns: 0.0,
        allocations: marks.allocations.get(),
        turns: 0,
        retransmitted: 0,
        hugepages: false,
    })
}

fn replay_sessions(
    rx: RxQueue,
    tx: TxQueue,
    clock: Clock,
    span: Span,
    source: Source,
    pool: Mempool,
) -> Result<Outcome> {
    let maker = || MbufMaker {
        pool: pool.clone(),
        scratch: Box::new([0; ROOM]),
    };
    let target = Target::new(maker());
    let sink = Send {
        queue: tx,
        target: Rc::clone(&target),
    };
    let mut worker: Worker<Receive, Send> = worker(params(SESSIONS, clock.now()), sink);
    worker.mirrors.push(Receive::Queue(rx));
    worker
        .replay
        .push((0, Receive::Replies(Rc::clone(&target))));

    let orders = Orders::new();
    let marks = Rc::new(Marks::default());
    let timer = {
        let (orders, marks) = (std::sync::Arc::clone(&orders), Rc::clone(&marks));
        let (asked, begun) = (Cell::new(false), Cell::new(false));
        let blank = Cell::new(Some(Box::new(Snapshot::default())));
        move || {
            let now = clock.now();
            if begun.get() {
                if now >= span.end && marks.ended.get() == 0 {
                    marks.end(now);
                    orders.set(RunPhase::Stop);
                }
            } else if asked.get() {
                // The round before has filled the snapshot in.
                begun.set(true);
                marks.begin(now);
            } else if now >= span.warm
                && let Some(snapshot) = blank.take()
            {
                asked.set(true);
                let _ = orders.empty.push(snapshot);
            }
            now
        }
    };
    let low_water = pool.size() / 8;
    let buffers = pool.clone();
    let settings = Settings {
        clock: timer,
        pressure: move || buffers.avail() < low_water,
        rest: None,
        patience: 0,
    };
    let worker = lcore::run(worker, None, &orders, settings);
    let before = orders.full.pop().context("the worker took no snapshot")?;
    let c = worker.core.counters();
    if let Err(e) = c.balance() {
        anyhow::bail!("the core's books do not balance: {e}");
    }
    let lost = c.lost_turns_sum() - c.lost_turns[Loss::Stopped as usize];
    ensure!(
        lost == 0 && c.sessions_shed == 0 && target.borrow().lost == 0,
        "{lost} turns were lost, {} sessions shed, {} answers lost, but must be none",
        c.sessions_shed,
        target.borrow().lost
    );
    let skipped: u64 = worker.counters.skipped.iter().sum();
    ensure!(
        match source {
            Source::Null => skipped == worker.counters.mirror_frames,
            Source::Pcap => skipped == 0 && c.replayed_turns > 0,
        },
        "{skipped} of {} frames could not be decoded",
        worker.counters.mirror_frames
    );
    let frames = worker.counters.mirror_frames - before.worker.mirror_frames;
    let sent = c.segments_sent - before.core.segments_sent;
    let per_segment = match source {
        Source::Null => 0.0,
        Source::Pcap => target_cost(maker())?,
    };
    Ok(Outcome {
        case: Case::Engine,
        source,
        frames,
        sent,
        responses: worker.counters.replay_responses - before.worker.replay_responses,
        seconds: marks.seconds(),
        cpu_ns: marks.cpu.get() as f64 / frames.max(1) as f64,
        target_ns: per_segment * sent as f64 / frames.max(1) as f64,
        allocations: marks.allocations.get(),
        turns: c.replayed_turns,
        retransmitted: c.retransmitted_segments,
        hugepages: false,
    })
}

/// CPU of the target per segment sent to it, in ns, when half of them ask for an answer.
fn target_cost(maker: MbufMaker) -> Result<f64> {
    const ROUNDS: u64 = 100_000;
    const SEGMENTS: u64 = 6;
    let segment = |flags: u8| {
        let mut h = [0u8; 66];
        h[46] = 0x80;
        h[47] = flags;
        h
    };
    let (request, ack) = (segment(0x18), segment(0x10));
    let target = Target::new(maker);
    let mut answers = ArrayVec::new();
    let mut got = 0;
    let cpu = thread_cpu();
    for _ in 0..ROUNDS {
        for _ in 0..SEGMENTS / 2 {
            target.borrow_mut().segment(&request, 200);
            target.borrow_mut().segment(&ack, 0);
        }
        got += target.borrow_mut().poll(&mut answers);
        answers.clear();
    }
    let cpu = thread_cpu() - cpu;
    ensure!(got > 0, "the target gave no answers");
    Ok(cpu as f64 / (ROUNDS * SEGMENTS) as f64)
}
