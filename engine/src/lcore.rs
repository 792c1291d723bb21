//! What runs on a worker's lcore: the loop round [`Worker::step`], its idling, and the orders it
//! takes from the control core.

use crate::offline::{Backpressure, Player};
use crate::worker::{Snapshot, Worker};
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;
use wake::Rest;
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
pub const EMPTY_ROUNDS: u32 = 32;
/// How long it sleeps: far below a round trip that matters, far above what a round costs.
pub const NAP: Duration = Duration::from_micros(20);
/// How long giving up what is left may take without getting on.
const LAST_WORDS: Nanos = 500_000_000;
/// How often buffers are looked at.
const PRESSURE_INTERVAL: Nanos = 1_000_000;

/// Something that the control core asks of a worker again and again, and the worker's word that it
/// is done.
#[derive(Default)]
pub struct Request {
    asked: AtomicU32,
    done: AtomicU32,
}

impl Request {
    /// Asks once more.
    pub fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Release);
    }

    /// True if the worker has done what it was asked last.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire) == self.asked.load(Ordering::Relaxed)
    }

    /// The number of what is asked and not done yet.
    pub(crate) fn open(&self) -> Option<u32> {
        let asked = self.asked.load(Ordering::Acquire);
        (asked != self.done.load(Ordering::Relaxed)).then_some(asked)
    }

    /// The worker has done what was asked by this number.
    pub(crate) fn finish(&self, number: u32) {
        self.done.store(number, Ordering::Release);
    }
}

/// The control core's end and the worker's end of one worker.
pub struct Orders {
    /// A [`RunPhase`].
    phase: AtomicU8,
    /// Take what other workers have handed over until now.
    pub take_over: Request,
    /// End all sessions, and expect new ones: an offline replay begins its file again.
    pub end_sessions: Request,
    /// How many times the files were played to their end.
    pub played: AtomicU32,
    /// Snapshots to be filled in.
    pub empty: ArrayQueue<Box<Snapshot>>,
    /// Snapshots that are.
    pub full: ArrayQueue<Box<Snapshot>>,
}

impl Orders {
    /// The orders of a worker that is to run.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            phase: AtomicU8::new(RunPhase::Run as u8),
            take_over: Request::default(),
            end_sessions: Request::default(),
            played: AtomicU32::new(0),
            empty: ArrayQueue::new(1),
            full: ArrayQueue::new(1),
        })
    }

    /// Orders a later phase; phases never go back.
    pub fn set(&self, phase: RunPhase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
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
    /// How the core is given back when there is nothing to do; `None`: never.
    pub rest: Option<Rest>,
    /// How long nothing may move while capture files wait for room, in ns.
    pub patience: Nanos,
}

/// Runs a worker until it is ordered to stop. Returns it, so that its queues and buffers are let go
/// where the caller wants.
pub fn run<R, T, D, C, G>(
    mut worker: Worker<R, T, D>,
    mut player: Option<Player<R::Frame>>,
    orders: &Orders,
    mut settings: Settings<C, G>,
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
    // `ending` is the number of the request to end all sessions that the core is busy with.
    let (mut abandoned, mut ending) = (false, None);
    let mut next_look = 0;
    let mut backpressure = Backpressure::new(settings.patience);
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
            if let Some(number) = orders.end_sessions.open().filter(|n| ending != Some(*n)) {
                ending = Some(number);
                worker.core.end_all(now, &mut worker.out);
                // The file's identifications come again as well.
                worker.defragment.clear();
            }
        }
        let mut work = match player.as_mut() {
            Some(player) if phase == RunPhase::Run => {
                let played = play(&mut worker, player, &mut backpressure, now);
                orders.played.store(player.passes(), Ordering::Release);
                played
            }
            _ => 0,
        };
        let live = player.is_none() && reading;
        work += worker.step(now, live);
        if live && work == 0 && phase == RunPhase::Quiesce {
            reading = false;
        }
        if let Some(number) = orders.take_over.open()
            && worker.has_taken_over()
        {
            orders.take_over.finish(number);
        }
        if let Some(number) = ending.filter(|_| !worker.core.is_ending()) {
            ending = None;
            orders.end_sessions.finish(number);
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
        if let Some(rest) = &mut settings.rest {
            let due = player.as_ref().map_or(Nanos::MAX, Player::next_at);
            let until = || worker.core.quiet_until().min(due);
            let quiet = || Duration::from_nanos(until().saturating_sub(now));
            rest.after(work > 0, quiet, || worker.is_left_alone());
        }
    }
    finish(&mut worker, &settings.clock);
    worker
}

/// Gives up what is left, so that targets are told. In parts, as the core does it: for as long as
/// it gets on with that, and no longer than [`LAST_WORDS`] beyond.
fn finish<R, T, D>(worker: &mut Worker<R, T, D>, clock: &impl Fn() -> Nanos)
where
    R: Rx,
    R::Frame: Frame<Payload = T::Payload>,
    T: Tx,
    D: Defragment<R::Frame>,
{
    let mut now = clock();
    worker.core.abandon(now, &mut worker.out);
    let (mut left, mut end) = (worker.core.session_count(), now + LAST_WORDS);
    while !worker.core.is_drained() && now < end {
        worker.core.poll(now, &mut worker.out);
        worker.out.flush(true);
        now = clock();
        if worker.core.session_count() < left {
            left = worker.core.session_count();
            end = now + LAST_WORDS;
        }
    }
    worker.out.flush(true);
}

/// Feeds the frames of capture files that are due, as far as there is room for what comes of them.
fn play<R, T, D>(
    worker: &mut Worker<R, T, D>,
    player: &mut Player<R::Frame>,
    backpressure: &mut Backpressure,
    now: Nanos,
) -> usize
where
    R: Rx,
    R::Frame: Frame<Payload = T::Payload>,
    T: Tx,
    D: Defragment<R::Frame>,
{
    let (mut played, unpaced) = (0, player.is_unpaced());
    while played < BURST
        && let Some((due, decoded)) = player.due(now)
    {
        // What others have handed over stands before it in the file.
        worker.poll_rings(now);
        let decoded = *decoded.get_or_insert_with(|| worker.look(due.link, &due.frame));
        if backpressure.holds(worker, now, unpaced, decoded.packet.as_ref().ok()) {
            worker.core.hold_recording(now);
            break;
        }
        let Some(due) = player.take() else { break };
        if !unpaced {
            worker.counters.late.record(now.saturating_sub(due.at));
        }
        worker.recorded_frame(now, due.link, &decoded, due.frame);
        player.is_done();
        played += 1;
    }
    played
}
