//! A day of mixed and hostile traffic in simulated time: the worker over a port in memory, its
//! clients, production and two targets that are at times silent, closed, rude or confused.
//!
//! The books balance after every step. Every minute all lists and pointers are checked, and that no
//! table has grown beyond its limit. In the end nothing is left. Half an hour is simulated; the
//! variable `DAY_HOURS` says how many hours instead, and `DAY_SEED` which day.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails ends its test"
)]

mod target;
mod traffic;

use engine::egress::Outlet;
use engine::worker::{ResponseOwner, Worker};
use replay::{Core, Params, Transfer};
use rng::Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use target::{Moods, Targets};
use tests::memory::{MemoryPort, MemoryRx, MemoryTx, MemoryWire};
use tests::rng;
use traffic::{Traffic, frame};
use wire::host::{Host, HostConfig};
use wire::{Addr, Endpoint, Nanos, Prefix};

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MS;
const MINUTE: Nanos = 60 * SECOND;
/// When the day begins.
const MORNING: Nanos = 1_700_000_000 * SECOND;
/// The longest time without a step.
const TICK: Nanos = 10 * MS;
/// What the core may hold.
const SESSIONS: usize = 400;
const SEGMENTS: usize = 4_000;
/// Frames that a port has room for.
const QUEUE: usize = 1 << 14;

const PRODUCTION: [Endpoint; 2] = [
    Endpoint::new(Addr::v4([10, 10, 0, 2]), 80),
    Endpoint::new(Addr::v4([10, 10, 0, 3]), 6_379),
];
const TARGETS: [Endpoint; 2] = [
    Endpoint::new(Addr::v4([10, 20, 0, 2]), 8_080),
    Endpoint::new(Addr::v4([10, 20, 0, 3]), 6_380),
];

/// What happens at a time.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The mirror shows a frame.
    Mirror(Vec<u8>),
    /// A frame of a target's arrives.
    Answer(Vec<u8>),
}

/// The worker, its ports, and what is still to happen.
struct Day {
    worker: Worker<MemoryRx, MemoryTx>,
    mirror: MemoryWire,
    replay: MemoryWire,
    events: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    count: u64,
    now: Nanos,
    rng: Rng,
    targets: Targets,
    steps: u64,
    /// The most there were of sessions, segments and handshakes.
    most: [usize; 3],
}

impl Day {
    fn new(seed: u64) -> Self {
        let transfers: Vec<Transfer> = PRODUCTION
            .iter()
            .zip(TARGETS)
            .map(|(from, to)| Transfer::new(*from, to))
            .collect();
        let params = Params {
            session_bytes: 64 << 10,
            session_timeout: 120 * SECOND,
            keepalive_timeout: 20 * MINUTE,
            seed,
            start: MORNING,
            ..Params::new(transfers, SESSIONS, SEGMENTS)
        };
        let host = Host::new(HostConfig {
            mac: frame::LINK.dst,
            addresses: vec![Prefix::new(Addr::v4([10, 20, 0, 9]), 24)],
            gateways: Vec::new(),
            next_hop_mac: Some(frame::LINK.src),
            seed,
        });
        let owner = ResponseOwner::new(&params, Vec::new());
        let (mirror, replay) = (MemoryPort::new(QUEUE), MemoryPort::new(QUEUE));
        let core = Core::new(params, MORNING);
        let out = Outlet::new(replay.tx, host, frame::LINK.dst, TARGETS.to_vec(), None, 0);
        let mut worker = Worker::new(0, core, out, owner);
        worker.mirrors.push(mirror.rx);
        worker.replay = Some(replay.rx);
        Self {
            worker,
            mirror: mirror.wire,
            replay: replay.wire,
            events: BinaryHeap::new(),
            count: 0,
            now: MORNING,
            rng: Rng::new(seed),
            targets: Targets::new(),
            steps: 0,
            most: [0; 3],
        }
    }

    fn at(&mut self, time: Nanos, event: Event) {
        self.count += 1;
        self.events.push(Reverse((time, self.count, event)));
    }

    /// Lets time pass until `until`, and everything happen that falls into it.
    fn pass(&mut self, until: Nanos) {
        while self.now < until {
            let next = self.events.peek().map_or(until, |Reverse((at, ..))| *at);
            self.now = next.min(until).min(self.now + TICK).max(self.now);
            while self
                .events
                .peek()
                .is_some_and(|Reverse((at, ..))| *at <= self.now)
                && let Some(Reverse((_, _, event))) = self.events.pop()
            {
                match event {
                    Event::Mirror(bytes) => self.mirror.push_bytes(&bytes),
                    Event::Answer(bytes) => self.replay.push_bytes(&bytes),
                };
            }
            self.step();
        }
    }

    fn step(&mut self) {
        self.worker.step(self.now, true);
        self.steps += 1;
        while let Some(sent) = self.replay.pop() {
            let moods = &self.targets;
            for (delay, answer) in moods.answers(self.now, &sent.to_vec(), &mut self.rng) {
                self.at(self.now + delay, Event::Answer(answer));
            }
        }
        let c = self.worker.core.counters();
        if let Err(e) = c.balance() {
            panic!("after {} steps the books do not balance: {e}", self.steps);
        }
        let w = &self.worker.counters;
        assert_eq!(
            w.mirror_frames,
            c.frames + w.skipped.iter().sum::<u64>(),
            "frames of the mirror are with the core or skipped"
        );
        let core = &self.worker.core;
        let now = [
            core.session_count(),
            core.segment_count(),
            core.half_open_count(),
        ];
        for (most, now) in self.most.iter_mut().zip(now) {
            *most = now.max(*most);
        }
    }

    /// Looks at everything.
    fn audit(&self) {
        if let Err(e) = self.worker.core.audit() {
            panic!("after {} steps: {e}", self.steps);
        }
        // Handshakes have a table of at least 1,024 places.
        assert!(self.most[0] <= SESSIONS && self.most[1] <= SEGMENTS && self.most[2] <= 1_024);
    }

    /// The engine stops: nothing is left.
    fn end(&mut self) {
        self.targets.moods = [Moods::Well; 2];
        self.events.clear();
        self.worker.core.drain(self.now, &mut self.worker.out);
        self.pass(self.now + MINUTE);
        self.worker.core.abandon(self.now, &mut self.worker.out);
        self.pass(self.now + 10 * SECOND);
        self.audit();
        let core = &self.worker.core;
        let held = [
            core.session_count(),
            core.segment_count(),
            core.half_open_count(),
        ];
        assert_eq!(held, [0; 3], "nothing is left");
        let c = core.counters();
        assert_eq!((c.in_flight_turns, c.in_flight_bytes), (0, 0));
    }
}

fn setting(name: &str, default: f64) -> f64 {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    text.parse()
        .unwrap_or_else(|e| panic!("{name}={text}: it must be a number: {e}"))
}

#[test]
fn the_books_balance_at_every_step_of_a_day() {
    let hours = setting("DAY_HOURS", 0.5);
    let seed = setting("DAY_SEED", 1.0) as u64;
    let mut day = Day::new(seed);
    let mut traffic = Traffic::new(seed);
    let minutes = (hours * 60.0).ceil() as u64;
    for minute in 0..minutes {
        day.targets.change(minute, &mut day.rng);
        for (at, bytes) in traffic.minute(day.now) {
            day.at(at, Event::Mirror(bytes));
        }
        day.pass(MORNING + (minute + 1) * MINUTE);
        day.audit();
    }
    day.end();
    let c = day.worker.core.counters();
    println!(
        "{minutes} minutes in {} steps: {} frames, {} sessions, {} turns ({} replayed, {} lost); most held: {:?}",
        day.steps,
        day.worker.counters.mirror_frames,
        c.sessions,
        c.turns,
        c.replayed_turns,
        c.lost_turns_sum(),
        day.most
    );
    // Most of the time most of it is well.
    assert!(
        c.replayed_turns * 2 > c.turns,
        "{} of {}",
        c.replayed_turns,
        c.turns
    );
    assert!(c.handshakes_evicted + c.handshakes_unfinished > 1_000);
}
