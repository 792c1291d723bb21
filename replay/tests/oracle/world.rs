//! Virtual time: the mirror, the core, the wire and the target, and what must hold after every
//! event.

use crate::mirror::Shown;
use crate::packet;
use crate::plan::{Faults, MANY, Plan, Pool};
use crate::rng::Rng;
use crate::script::{self, Script, byte_at};
use crate::target::Target;
use replay::params::Transfer;
use replay::slots::Slice;
use replay::{Core, Counters, Egress, Pace, Params, Refused};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;
use tests::memory::MemoryPayload;
use wire::decode::Local;
use wire::io::Payload;
use wire::{Endpoint, Flags, Flow, Head, Nanos, Seq};

pub const MS: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MS;
/// Everything is over by then.
const LIMIT: Nanos = 7_200 * SECOND;
/// No run takes so many steps.
const STEPS: u64 = 20_000_000;

/// What the core knows of the target's window on one connection.
#[derive(Clone, Copy, Default)]
struct Window {
    shift: u8,
    edge: Option<Seq>,
}

/// The core's transmit queue.
pub struct Out {
    queue: Vec<Vec<u8>>,
    /// Which bytes of each client's stream were captured.
    pub captured: Vec<Vec<bool>>,
    scripts: Vec<Script>,
    rng: Rng,
    plan: Plan,
    windows: HashMap<Endpoint, Window>,
}

impl Egress<MemoryPayload> for Out {
    fn send(
        &mut self,
        _: u16,
        head: &Head,
        payload: Option<(&mut MemoryPayload, Range<usize>)>,
    ) -> Result<(), Refused> {
        let bytes = payload
            .as_ref()
            .map_or(&[][..], |(p, r)| &p.bytes()[r.clone()]);
        assert_eq!(bytes.len(), head.payload_len as usize);
        if head.flow.dst == script::dead_target(self.plan.v6) {
            assert_eq!(
                (head.flags, bytes.len()),
                (Flags::SYN, 0),
                "to the dead target"
            );
            return Ok(());
        }
        for (i, &b) in bytes.iter().enumerate() {
            let seq = head.seq + i as u32;
            let (talk, offset) = place(&self.scripts, seq);
            assert!(
                self.captured[talk].get(offset) == Some(&true),
                "byte {offset} of conversation {talk} was never captured"
            );
            assert_eq!(
                b,
                byte_at(seq),
                "byte {offset} is another than the client's"
            );
        }
        let window = self.windows.entry(head.flow.src).or_default();
        if head.flags.has(Flags::SYN) {
            *window = Window::default();
        }
        if bytes.len() > 1 {
            let edge = window.edge.expect("payload on an open connection");
            assert!(
                (head.seq + head.payload_len).le(edge),
                "{head:?} is beyond the window {edge:?}"
            );
        }
        if self.rng.percent(self.plan.busy) {
            return Err(Refused::Busy);
        }
        let packet = packet::packet(head, bytes);
        let most = usize::from(self.plan.mtu).min(self.plan.target_mtu);
        assert!(
            bytes.is_empty() || packet.len() <= most,
            "{} bytes in a packet of at most {most}",
            packet.len()
        );
        self.queue.push(packet);
        Ok(())
    }

    fn claim(&mut self, _: &Flow) -> bool {
        true
    }

    fn release(&mut self, _: &Flow) {}

    fn accepts_sessions(&self) -> bool {
        true
    }
}

/// What happens next.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Mirror(Shown),
    ToTarget(Vec<u8>),
    ToCore(Vec<u8>),
    End,
}

/// See the module's documentation.
pub struct World {
    pub plan: Plan,
    pub scripts: Vec<Script>,
    pub core: Core<MemoryPayload>,
    pub target: Target,
    /// How far each client's stream goes, as far as the mirror told.
    pub told: Vec<u32>,
    /// Packets that did not arrive on the wire to the target, in either direction, or not as they
    /// were sent.
    pub wire_losses: u64,
    /// Each client's FIN was seen on the mirror.
    pub fins: Vec<bool>,
    /// Resets that the core has received.
    pub resets: u64,
    /// The sessions were told that nothing more comes.
    pub ended: bool,
    pub out: Out,
    pub rng: Rng,
    pub now: Nanos,
    events: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    count: u64,
    trace: bool,
}

/// The conversation that `seq` belongs to, and where in its stream.
fn place(scripts: &[Script], seq: Seq) -> (usize, usize) {
    scripts
        .iter()
        .enumerate()
        .find_map(|(k, s)| s.offset(seq).map(|at| (k, at as usize)))
        .unwrap_or_else(|| panic!("{seq:?} belongs to no conversation"))
}

fn params(plan: &Plan, seed: u64) -> Params {
    let production = script::production(plan.v6);
    let slice = |high| Slice {
        first: script::address(plan.v6, 100),
        addresses: 1,
        low: 2_000,
        high,
    };
    let target = replay::Target {
        wait_for_responses: plan.wait_for_responses,
        gate_timeout: 500 * MS,
        ..replay::Target::new(script::target(plan.v6))
    };
    let mut transfer = Transfer::with(production, target);
    if plan.dead_beside {
        let dead = replay::Target::new(script::dead_target(plan.v6));
        // Every other time it is the first to get what there is.
        transfer
            .to
            .insert(usize::from(seed.is_multiple_of(2)), dead);
    }
    Params {
        copies: plan.copies,
        session_bytes: plan.session_bytes,
        mtu: plan.mtu,
        pool: match plan.pool {
            Pool::None => Vec::new(),
            Pool::Enough => vec![slice(2_063)],
            Pool::One => vec![slice(2_000)],
        },
        seed,
        // One connection of all is tried first, or a few are.
        canaries: 1 + (seed % 8) as usize,
        pace: plan.pace,
        ..Params::new(vec![transfer], 16, plan.max_segments)
    }
}

impl World {
    /// The world of a seed. With `trace` it says what it does.
    pub fn new(seed: u64, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::new(&mut rng);
        // Where room is short each target has its share of it, which is no concern here.
        plan.dead_beside = seed % 9 < 2 && plan.max_segments == MANY;
        let plan = plan;
        let scripts = script::write(&plan, &mut rng);
        if trace {
            eprintln!("{plan:#?}");
            for s in &scripts {
                eprintln!(
                    "{}: {} bytes from {:?}, turns at {:?}",
                    s.client, s.len, s.first, s.boundaries
                );
            }
        }
        Self {
            core: Core::new(params(&plan, seed), 0),
            target: Target::new(&plan, &scripts),
            told: vec![0; scripts.len()],
            wire_losses: 0,
            fins: vec![false; scripts.len()],
            resets: 0,
            ended: false,
            out: Out {
                queue: Vec::new(),
                captured: scripts
                    .iter()
                    .map(|s| vec![false; s.len as usize])
                    .collect(),
                scripts: scripts.clone(),
                rng: Rng::new(!seed),
                plan: plan.clone(),
                windows: HashMap::new(),
            },
            plan,
            scripts,
            rng,
            now: 0,
            events: BinaryHeap::new(),
            count: 0,
            trace,
        }
    }

    pub fn at(&mut self, at: Nanos, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    /// Lets everything happen.
    pub fn run(&mut self) {
        self.show_scripts();
        for step in 0.. {
            let due = self.events.peek().map(|e| e.0.0);
            if due.is_none() && self.is_over() {
                break;
            }
            assert!(
                self.now < LIMIT && step < STEPS,
                "hang: {} sessions with {} segments are left after {} s and {step} steps",
                self.core.session_count(),
                self.core.segment_count(),
                self.now / SECOND
            );
            let tick = self.now + if due.is_some() { MS } else { 4 * MS };
            let target = self.target.poll_at(self.now).unwrap_or(tick);
            self.now = due.unwrap_or(tick).min(tick).min(target).max(self.now);
            while let Some(Reverse((at, ..))) = self.events.peek()
                && *at <= self.now
            {
                let Some(Reverse((_, _, event))) = self.events.pop() else {
                    break;
                };
                self.happen(event);
                self.settle();
            }
            let sent = self.target.poll(self.now);
            self.send(sent, false);
            if self.core.poll(self.now, &mut self.out) > 0 {
                self.settle();
            }
        }
        self.target.read_the_rest();
        self.audit();
    }

    /// Nothing is left to be done. The clock of a recording that has no pace stands still at its
    /// end, so that its sessions stay.
    fn is_over(&self) -> bool {
        let done = self.plan.pace == Pace::Unpaced && self.ended && self.core.is_drained();
        self.core.session_count() == 0 || done
    }

    /// Bytes that all clients said.
    pub fn said(&self) -> u64 {
        self.scripts.iter().map(|s| u64::from(s.len)).sum()
    }

    /// Which bytes of a client's stream were captured.
    pub fn captured(&self, talk: usize) -> &[bool] {
        &self.out.captured[talk]
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Mirror(shown) => self.mirror(&shown),
            Event::ToTarget(bytes) => {
                let sent = self.target.packet(self.now, bytes);
                self.send(sent, false);
            }
            Event::ToCore(bytes) => self.response(&bytes),
            Event::End => {
                self.ended = true;
                // A recording may begin again behind its end.
                if self.plan.pace == Pace::Live || self.rng.percent(50) {
                    self.core.drain(self.now, &mut self.out);
                } else {
                    self.core.end_all(self.now, &mut self.out);
                }
            }
        }
    }

    fn response(&mut self, bytes: &[u8]) {
        let head = match packet::arrives(bytes) {
            Local::Tcp(packet) => packet.head,
            // Damaged, or what the target says of damaged packets.
            _ => return,
        };
        self.resets += u64::from(head.flags.has(Flags::RST));
        self.tell("  <--", &head, "");
        let window = self.out.windows.entry(head.flow.dst).or_default();
        let syn = head.flags.has(Flags::SYN);
        if syn {
            window.shift = head.options.window_scale.unwrap_or(0);
        }
        let shift = if syn { 0 } else { window.shift };
        let edge = head.ack + (u32::from(head.window) << shift);
        window.edge = Some(window.edge.map_or(edge, |e| e.max(edge)));
        let received_at = self.now - self.rng.range(0, self.plan.lag).min(self.now);
        self.core
            .response(self.now, received_at, &head, &mut self.out);
    }

    /// After every event: the invariants, and what the core has sent goes onto the wire.
    /// What was counted, of the target that is alive.
    pub fn counters(&self) -> Counters {
        let all = self.core.counters();
        if !self.plan.dead_beside {
            return all;
        }
        let mut of_it = Counters {
            sessions: all.sessions,
            turns: all.turns,
            bytes: all.bytes,
            frames: all.frames,
            used: all.used,
            dropped: all.dropped,
            conflicting_bytes: all.conflicting_bytes,
            handshakes_refused: all.handshakes_refused,
            handshakes_unfinished: all.handshakes_unfinished,
            handshakes_evicted: all.handshakes_evicted,
            production_latency: all.production_latency,
            ..Counters::default()
        };
        let [a, b] = self.core.targets() else {
            panic!("two targets")
        };
        let dead_is_first =
            self.core.params().transfers[0].to[0].to != script::target(self.plan.v6);
        let (alive, dead) = if dead_is_first { (b, a) } else { (a, b) };
        assert_eq!(
            (alive.turns, alive.bytes),
            (all.turns, all.bytes),
            "the live target"
        );
        assert_eq!(
            (dead.turns, dead.bytes),
            (all.turns, all.bytes),
            "the dead target"
        );
        assert_eq!((dead.replayed_turns, dead.replayed_bytes), (0, 0));
        of_it.add_target(alive);
        of_it
    }

    fn settle(&mut self) {
        self.audit();
        let sent = std::mem::take(&mut self.out.queue);
        self.send(sent, true);
    }

    fn audit(&self) {
        if let Err(e) = self.core.audit() {
            panic!("at {} us: {e}", self.now / 1_000);
        }
    }

    fn send(&mut self, packets: Vec<Vec<u8>>, to_target: bool) {
        let Faults {
            loss,
            duplicate,
            reorder,
            jitter,
            damage,
            ..
        } = self.plan.wire;
        for bytes in packets {
            if to_target
                && self.trace
                && let Some(p) = packet::decode(&bytes)
            {
                self.tell("  -->", &p.head, "");
            }
            let copies = 1 + u64::from(self.rng.percent(duplicate));
            for _ in 0..copies {
                if self.rng.percent(loss) {
                    self.wire_losses += 1;
                    continue;
                }
                let mut bytes = bytes.clone();
                if self.rng.percent(damage) {
                    self.wire_losses += 1;
                    packet::damage(&mut bytes, &mut self.rng);
                }
                let late = if self.rng.percent(reorder) {
                    self.rng.range(0, jitter)
                } else {
                    0
                };
                let event = if to_target {
                    Event::ToTarget(bytes)
                } else {
                    Event::ToCore(bytes)
                };
                self.at(self.now + self.plan.delay + late, event);
            }
        }
    }

    pub fn tell(&self, what: &str, head: &Head, more: &str) {
        if self.trace {
            let place = |seq: Seq| {
                let near = self
                    .scripts
                    .iter()
                    .enumerate()
                    .find_map(|(k, s)| Some((k, s.offset(seq + 1)?)));
                near.map_or_else(
                    || format!("{seq:?}"),
                    |(k, at)| format!("#{k}:{}", i64::from(at) - 1),
                )
            };
            let (seq, ack) = (place(head.seq), place(head.ack));
            eprintln!(
                "{:>12} us {what} {:?}  {} seq {seq} ack {ack} len {} win {} {:?} {more}",
                self.now / 1_000,
                head.flags,
                head.flow.src,
                head.payload_len,
                head.window,
                head.options.sack_blocks(),
            );
        }
    }
}
