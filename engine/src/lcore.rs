//! What runs on a worker's lcore: the loop round [`Worker::step`], its idling, and the orders it
//! takes from the control core.

use crate::offline::Player;
use crate::worker::{Snapshot, Worker};
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::Duration;
use wire::Nanos;
use wire::defragment::Defragment;
use wire::io::{BURST, Frame, Rx, Tx};

/// What the worker is to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum RunPhase {
    /// Everything.
    Run,
    /// Read what the mirror has delivered so far, and no more.
    Quiesce,
    /// Replay what was captured and close every connection in good order.
    Drain,
    /// Give up what is left, and count it.
    Abandon,
    /// End.
    Stop,
}

/// How long a worker that quiesces still reads the mirror at most.
const LAST_READ: Nanos = 50_000_000;
/// Empty rounds before a worker sleeps: what follows closely is taken without a sleep.
const EMPTY_ROUNDS: u32 = 32;
/// How long it sleeps: far below a round trip that matters, far above what a round costs.
const NAP: Duration = Duration::from_micros(20);
/// How often buffers are looked at.
const PRESSURE_INTERVAL: Nanos = 1_000_000;
/// Captured segments a core may hold while an unpaced file is read on.
const UNPACED_SEGMENTS: usize = 1_024;

/// The control core's end and the worker's end of one worker.
pub struct Orders<R> {
    /// A [`RunPhase`].
    phase: AtomicU8,
    /// Counts up when all sessions are to be ended: an offline replay begins its file again.
    ends: AtomicU32,
    /// The file is played to its end.
    pub played: AtomicBool,
    /// Snapshots to be filled in.
    pub empty: ArrayQueue<Box<Snapshot>>,
    /// Snapshots that are.
    pub full: ArrayQueue<Box<Snapshot>>,
    /// Mirror queues that are read to the end of their file.
    pub spent: ArrayQueue<R>,
    /// Queues that begin the file again.
    pub fresh: ArrayQueue<R>,
}

impl<R> Orders<R> {
    /// The orders of a worker that is to run.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            phase: AtomicU8::new(RunPhase::Run as u8),
            ends: AtomicU32::new(0),
            played: AtomicBool::new(false),
            empty: ArrayQueue::new(1),
            full: ArrayQueue::new(1),
            spent: ArrayQueue::new(1),
            fresh: ArrayQueue::new(1),
        })
    }

    /// Orders a later phase; phases never go back.
    pub fn set(&self, phase: RunPhase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    /// All sessions are to be ended, and new ones are to be expected.
    pub fn end_sessions(&self) {
        self.ends.fetch_add(1, Ordering::Relaxed);
    }

    fn phase(&self) -> RunPhase {
        match self.phase.load(Ordering::Relaxed) {
            0 => RunPhase::Run,
            1 => RunPhase::Quiesce,
            2 => RunPhase::Drain,
            3 => RunPhase::Abandon,
            _ => RunPhase::Stop,
        }
    }
}

/// How the loop runs.
pub struct Settings<C, G> {
    /// The time.
    pub clock: C,
    /// True while buffers are short.
    pub pressure: G,
    /// Give the core back when there is nothing to do.
    pub sleep: bool,
}

/// Runs a worker until it is ordered to stop. Returns it, so that its queues and buffers are let go
/// where the caller wants.
pub fn run<R, T, D, C, G>(
    mut worker: Worker<R, T, D>,
    mut player: Option<Player<R>>,
    orders: &Orders<R>,
    settings: Settings<C, G>,
) -> Worker<R, T, D>
where
    R: Rx,
    R::Frame: Frame<Payload = T::Payload>,
    T: Tx,
    D: Defragment<R::Frame>,
    C: Fn() -> Nanos,
    G: Fn() -> bool,
{
    let (mut quiesced_at, mut reading, mut draining) = (None, true, false);
    let mut abandoned = false;
    let (mut next_look, mut ends, mut empty_rounds) = (0, 0, 0);
    loop {
        let now = (settings.clock)();
        let phase = orders.phase();
        if phase == RunPhase::Stop {
            break;
        }
        if phase >= RunPhase::Quiesce && reading {
            let began = *quiesced_at.get_or_insert(now);
            reading = now < began + LAST_READ && phase == RunPhase::Quiesce;
        }
        if phase >= RunPhase::Drain && !draining {
            draining = true;
            worker.core.drain(now, &mut worker.out);
        }
        if phase == RunPhase::Abandon && !abandoned {
            abandoned = true;
            worker.core.abandon(now, &mut worker.out);
        }
        if now >= next_look {
            next_look = now + PRESSURE_INTERVAL;
            worker.out.pressure = (settings.pressure)();
            let ordered = orders.ends.load(Ordering::Relaxed);
            if ordered != ends {
                ends = ordered;
                worker.core.end_all(now, &mut worker.out);
                // The file's identifications come again as well.
                worker.defragment.clear();
            }
        }
        let mut work = match player.as_mut() {
            Some(player) if phase == RunPhase::Run => play(&mut worker, player, orders, now),
            _ => 0,
        };
        let live = player.is_none() && reading;
        work += worker.step(now, live);
        if live && work == 0 && phase == RunPhase::Quiesce {
            reading = false;
        }
        if draining {
            // What is still missing will not come, and sessions need not wait for it.
            worker.defragment.clear();
        }
        if let Some(mut snapshot) = orders.empty.pop() {
            worker.snapshot(&mut snapshot);
            snapshot.drained = draining && worker.core.is_drained();
            // There is one snapshot a worker, so the ring has room.
            let _ = orders.full.push(snapshot);
        }
        empty_rounds = if work == 0 { empty_rounds + 1 } else { 0 };
        if settings.sleep && empty_rounds > EMPTY_ROUNDS {
            std::thread::sleep(NAP);
        }
    }
    let now = (settings.clock)();
    worker.core.abandon(now, &mut worker.out);
    worker.out.flush(true);
    worker
}

/// Feeds the frames of a capture file that are due.
fn play<R, T, D>(
    worker: &mut Worker<R, T, D>,
    player: &mut Player<R>,
    orders: &Orders<R>,
    now: Nanos,
) -> usize
where
    R: Rx,
    R::Frame: Frame<Payload = T::Payload>,
    T: Tx,
    D: Defragment<R::Frame>,
{
    if let Some(queue) = orders.fresh.pop() {
        player.again(queue);
    }
    let mut played = 0;
    let crowded = worker
        .to
        .iter()
        .any(|ring| ring.len() * 2 > ring.capacity())
        || worker.out.pressure
        || (player.is_unpaced() && worker.core.segment_count() > UNPACED_SEGMENTS);
    while !crowded
        && played < BURST
        && let Some(frame) = player.next(now)
    {
        worker.mirror_frame(now, frame);
        played += 1;
    }
    if let Some(queue) = player.take_spent() {
        let _ = orders.spent.push(queue);
        orders.played.store(true, Ordering::Relaxed);
    }
    played
}
