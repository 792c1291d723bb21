//! Virtual time: the mirror, the core, the wire and the target, and what must hold after every
//! event.

use crate::packet;
use crate::plan::{End, Faults, MANY, Plan, Pool};
use crate::rng::Rng;
use crate::script::{self, Script, Shot, byte_at};
use crate::target::Target;
use replay::params::Transfer;
use replay::slots::Slice;
use replay::{Core, Egress, Params, Refused};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;
use tests::memory::{MemoryFrame, MemoryPayload};
use wire::decode::{LinkType, Local, verified_on};
use wire::io::{Frame, Payload};
use wire::{Endpoint, Flags, Head, Nanos, Seq};

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MS;
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
struct Out {
    queue: Vec<Vec<u8>>,
    /// Which bytes of each client's stream were captured.
    captured: Vec<Vec<bool>>,
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

    fn claim(&mut self, _: &Endpoint, _: u16) -> bool {
        true
    }

    fn release(&mut self, _: &Endpoint, _: u16) {}

    fn accepts_sessions(&self) -> bool {
        true
    }
}

/// What happens next.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Mirror {
        talk: usize,
        shot: usize,
        cut: usize,
        damaged: bool,
    },
    ToTarget(Vec<u8>),
    ToCore(Vec<u8>),
    Drain,
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
    out: Out,
    rng: Rng,
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
    let transfer = Transfer {
        wait_for_responses: plan.wait_for_responses,
        gate_timeout: 500 * MS,
        ..Transfer::new(production, script::target(plan.v6))
    };
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
        ..Params::new(vec![transfer], 16, plan.max_segments)
    }
}

impl World {
    /// The world of a seed. With `trace` it says what it does.
    pub fn new(seed: u64, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
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

    fn at(&mut self, at: Nanos, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    /// Lets everything happen.
    pub fn run(&mut self) {
        self.show_scripts();
        for step in 0.. {
            let due = self.events.peek().map(|e| e.0.0);
            if due.is_none() && self.core.session_count() == 0 {
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
        // What the target still has to say about its last connection.
        self.audit();
    }

    /// Bytes that all clients said.
    pub fn said(&self) -> u64 {
        self.scripts.iter().map(|s| u64::from(s.len)).sum()
    }

    /// Which bytes of a client's stream were captured.
    pub fn captured(&self, talk: usize) -> &[bool] {
        &self.out.captured[talk]
    }

    /// Puts all of the scripts on the mirror, with the mirror's faults.
    fn show_scripts(&mut self) {
        for talk in 0..self.scripts.len() {
            // A port that is used again is told from what it was used for by the SYN.
            let alone = self.plan.talks[talk].port.is_some();
            let first = if alone { self.plan.late } else { 0 };
            for shot in first..self.scripts[talk].shots.len() {
                self.show(talk, shot);
            }
        }
        let limited = self.plan.max_segments != MANY;
        let ends = self.plan.talks.iter().all(|t| t.end != End::Never);
        if !ends || limited || !self.plan.mirror_is_whole() {
            let last = self.scripts.iter().map(Script::end).max().unwrap_or(0);
            self.at(last + 5 * SECOND, Event::Drain);
        }
    }

    fn show(&mut self, talk: usize, shot: usize) {
        let faults = self.plan.mirror;
        let Shot { at, head } = self.scripts[talk].shots[shot];
        let whole = head.flags.has(Flags::SYN) || (shot < 3 && head.payload_len == 0);
        if !whole && self.rng.percent(faults.loss) {
            return;
        }
        let late = if !whole && self.rng.percent(faults.reorder) {
            self.rng.range(0, faults.jitter)
        } else {
            0
        };
        let cut = if head.payload_len > 0 && self.rng.percent(faults.cut) {
            self.rng.range(1, u64::from(head.payload_len)) as usize
        } else {
            0
        };
        let event = |cut, damaged| Event::Mirror {
            talk,
            shot,
            cut,
            damaged,
        };
        // What was damaged before production got it, the client sends again.
        let damaged = !whole && self.rng.percent(faults.damage);
        if damaged && self.rng.percent(50) {
            let later = self.rng.range(0, faults.jitter);
            self.at(at + later, event(0, false));
        }
        if self.rng.percent(faults.duplicate) {
            let spoilt = damaged || cut > 0;
            let most = if spoilt { faults.jitter } else { 3 * MS };
            let later = self.rng.range(0, most);
            self.at(at + later, event(0, false));
            if !whole && cut == 0 && faults.reorder > 0 && self.rng.percent(50) {
                return;
            }
        }
        self.at(at + late, event(cut, damaged));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Mirror {
                talk,
                shot,
                cut,
                damaged,
            } => self.mirror(talk, shot, cut, damaged),
            Event::ToTarget(bytes) => {
                let sent = self.target.packet(self.now, bytes);
                self.send(sent, false);
            }
            Event::ToCore(bytes) => self.response(&bytes),
            Event::Drain => self.core.drain(self.now, &mut self.out),
        }
    }

    fn mirror(&mut self, talk: usize, shot: usize, cut: usize, damaged: bool) {
        let script = &self.scripts[talk];
        let head = script.shots[shot].head;
        let payload: Vec<u8> = (0..head.payload_len)
            .map(|i| byte_at(head.seq + i))
            .collect();
        let mut bytes = packet::frame(&head, &payload);
        if damaged {
            bytes = self.damaged(&bytes);
        } else {
            bytes.truncate(bytes.len() - cut);
        }
        // A checksum can be verified where all it covers is at hand.
        let buffer = if self.plan.mirror.damage > 0 {
            usize::MAX
        } else {
            self.rng.pick(&[100, 2048, usize::MAX])
        };
        let frame = MemoryFrame::chained(&bytes, buffer);
        let packet = match verified_on(LinkType::Ethernet, frame.bytes(), frame.frame_len()) {
            Ok(packet) => packet,
            Err(skip) => {
                assert!(damaged, "{head:?} is refused: {skip}");
                return self.tell("mirror", &head, &format!("damaged: {skip}"));
            }
        };
        if damaged {
            // What no checksum covers makes no difference.
            assert_eq!(packet.head, head, "damage was not noticed");
        }
        let script = &self.scripts[talk];
        let to_production = head.flow.src == script.client;
        self.fins[talk] |= to_production && head.flags.has(Flags::FIN);
        if to_production && !payload.is_empty() {
            let from = head.seq.since(script.first) as usize;
            let n = packet.captured;
            self.out.captured[talk][from..from + n].fill(true);
        }
        let tells = if to_production {
            head.seq + head.payload_len
        } else {
            head.ack
        };
        let mut tells = script.offset(tells).unwrap_or(0);
        if head.flags.has(Flags::RST) && !head.flags.has(Flags::ACK) {
            // A reset without an acknowledgment is not believed beyond what is known.
            tells = 0;
        }
        self.told[talk] = self.told[talk].max(tells);
        let result = self.core.mirror(self.now, &packet, frame, &mut self.out);
        self.tell("mirror", &head, &format!("cut {cut}: {result:?}"));
    }

    /// A frame of the mirror with damage. An IPv6 length that is larger than the frame is not told
    /// from a frame that was cut, nor a right checksum that has become the sum of the
    /// pseudo-header from one that hardware was to finish.
    fn damaged(&mut self, sound: &[u8]) -> Vec<u8> {
        loop {
            let mut bytes = sound.to_vec();
            packet::damage(&mut bytes[packet::ETHERNET..], &mut self.rng);
            let decoded = verified_on(LinkType::Ethernet, &bytes, bytes.len());
            if !decoded.is_ok_and(|p| p.is_truncated() || packet::is_unfinished(&p, &bytes)) {
                return bytes;
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
        self.core.response(self.now, self.now, &head, &mut self.out);
    }

    /// After every event: the invariants, and what the core has sent goes onto the wire.
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

    fn tell(&self, what: &str, head: &Head, more: &str) {
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
