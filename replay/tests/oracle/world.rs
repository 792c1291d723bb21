//! Virtual time: the mirror, the core, the wire and the target, and what must hold after every event.

use crate::packet;
use crate::plan::{End, Faults, Plan};
use crate::rng::Rng;
use crate::script::{self, PRODUCTION, Script, byte_at};
use crate::target::{TARGET, Target};
use replay::params::{Origin, Transfer};
use replay::{Core, Egress, Ownership, Params, Refused};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;
use tests::memory::{MemoryFrame, MemoryPayload};
use wire::io::{Frame, Payload};
use wire::{Endpoint, Flags, Head, Nanos, Seq, decode};

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MS;
/// Everything is over by then.
const LIMIT: Nanos = 7_200 * SECOND;

/// What the core knows of the target's window on one connection.
#[derive(Clone, Copy, Default)]
struct Window {
    shift: u8,
    edge: Option<Seq>,
}

/// The core's transmit queue.
struct Out {
    queue: Vec<Vec<u8>>,
    /// Which bytes of the client's stream were captured.
    captured: Vec<bool>,
    first: Seq,
    rng: Rng,
    plan: Plan,
    windows: HashMap<u16, Window>,
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
            let offset = seq.since(self.first) as usize;
            assert!(
                self.captured.get(offset) == Some(&true),
                "byte {offset} was never captured"
            );
            assert_eq!(
                b,
                byte_at(seq),
                "byte {offset} is another than the client's"
            );
        }
        let window = self.windows.entry(head.flow.src.port).or_default();
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
    Mirror { shot: usize, cut: usize },
    ToTarget(Vec<u8>),
    ToCore(Vec<u8>),
    Drain,
}

/// See the module's documentation.
pub struct World {
    pub plan: Plan,
    pub script: Script,
    pub core: Core<MemoryPayload>,
    pub target: Target,
    /// How far the client's stream goes, as far as the mirror told.
    pub told: u32,
    out: Out,
    rng: Rng,
    now: Nanos,
    events: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    count: u64,
    trace: bool,
}

fn params(plan: &Plan, seed: u64) -> Params {
    Params {
        transfers: vec![Transfer {
            from: Origin {
                addr: Some(PRODUCTION.addr),
                port: PRODUCTION.port,
            },
            to: TARGET,
        }],
        copies: plan.copies,
        percent: 100.0,
        ramp: 0,
        full_sessions_only: false,
        wait_for_responses: plan.wait_for_responses,
        rtt: None,
        gate_timeout: 500 * MS,
        session_timeout: 600 * SECOND,
        keepalive_timeout: 720 * SECOND,
        max_sessions: 4,
        max_segments: 8_192,
        session_bytes: 4 << 20,
        mtu: plan.mtu,
        pool: Vec::new(),
        ownership: Ownership::ALONE,
        seed,
        start: 0,
    }
}

impl World {
    /// The world of a seed. With `trace` it says what it does.
    pub fn new(seed: u64, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let script = script::write(&plan, &mut rng);
        if trace {
            eprintln!(
                "{plan:#?}\n{} bytes from {:?}, turns at {:?}",
                script.len, script.first, script.boundaries
            );
        }
        Self {
            core: Core::new(params(&plan, seed), 0),
            target: Target::new(&plan, &script),
            told: 0,
            out: Out {
                queue: Vec::new(),
                captured: vec![false; script.len as usize],
                first: script.first,
                rng: Rng::new(!seed),
                plan: plan.clone(),
                windows: HashMap::new(),
            },
            plan,
            script,
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
        self.show_script();
        loop {
            let due = self.events.peek().map(|e| e.0.0);
            if due.is_none() && self.core.session_count() == 0 {
                break;
            }
            assert!(self.now < LIMIT, "it does not end");
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

    /// Puts all of the script on the mirror, with the mirror's faults.
    fn show_script(&mut self) {
        let faults = self.plan.mirror;
        let mut last = 0;
        for i in 0..self.script.shots.len() {
            let shot = self.script.shots[i];
            let head = shot.head;
            last = shot.at;
            let whole = head.flags.has(Flags::SYN) || (i < 3 && head.payload_len == 0);
            if !whole && self.rng.percent(faults.loss) {
                continue;
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
            if self.rng.percent(faults.duplicate) {
                let later = self.rng.range(0, 3 * MS);
                self.at(shot.at + later, Event::Mirror { shot: i, cut: 0 });
                if !whole && cut == 0 && faults.reorder > 0 && self.rng.percent(50) {
                    continue;
                }
            }
            self.at(shot.at + late, Event::Mirror { shot: i, cut });
        }
        if self.plan.end == End::Never || !self.plan.mirror_is_whole() {
            self.at(last + 5 * SECOND, Event::Drain);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Mirror { shot, cut } => self.mirror(shot, cut),
            Event::ToTarget(bytes) => {
                let sent = self.target.packet(self.now, bytes);
                self.send(sent, false);
            }
            Event::ToCore(bytes) => self.response(&bytes),
            Event::Drain => self.core.drain(self.now, &mut self.out),
        }
    }

    fn mirror(&mut self, shot: usize, cut: usize) {
        let head = self.script.shots[shot].head;
        let payload: Vec<u8> = (0..head.payload_len)
            .map(|i| byte_at(head.seq + i))
            .collect();
        let mut bytes = packet::frame(&head, &payload);
        bytes.truncate(bytes.len() - cut);
        if head.flow.dst == PRODUCTION && !payload.is_empty() {
            let from = head.seq.since(self.script.first) as usize;
            let n = payload.len() - cut;
            self.out.captured[from..from + n].fill(true);
        }
        let tells = if head.flow.dst == PRODUCTION {
            head.seq + head.payload_len
        } else {
            head.ack
        };
        self.told = self.told.max(tells.since(self.script.first));
        let buffer = self.rng.pick(&[100, 2048, usize::MAX]);
        let frame = MemoryFrame::chained(&bytes, buffer);
        let packet = decode::mirrored(frame.bytes(), frame.frame_len()).expect("a frame");
        let result = self.core.mirror(self.now, &packet, frame, &mut self.out);
        self.tell("mirror", &head, &format!("cut {cut}: {result:?}"));
    }

    fn response(&mut self, bytes: &[u8]) {
        let head = packet::decode(bytes).head;
        self.tell("  <--", &head, "");
        let window = self.out.windows.entry(head.flow.dst.port).or_default();
        let syn = head.flags.has(Flags::SYN);
        if syn {
            window.shift = head.options.window_scale.unwrap_or(0);
        }
        let shift = if syn { 0 } else { window.shift };
        let edge = head.ack + (u32::from(head.window) << shift);
        window.edge = Some(window.edge.map_or(edge, |e| e.max(edge)));
        self.core.response(self.now, &head, &mut self.out);
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
            ..
        } = self.plan.wire;
        for bytes in packets {
            if to_target && self.trace {
                let head = packet::decode(&bytes).head;
                self.tell("  -->", &head, "");
            }
            let copies = 1 + u64::from(self.rng.percent(duplicate));
            for _ in 0..copies {
                if self.rng.percent(loss) {
                    continue;
                }
                let late = if self.rng.percent(reorder) {
                    self.rng.range(0, jitter)
                } else {
                    0
                };
                let event = if to_target {
                    Event::ToTarget(bytes.clone())
                } else {
                    Event::ToCore(bytes.clone())
                };
                self.at(self.now + self.plan.delay + late, event);
            }
        }
    }

    fn tell(&self, what: &str, head: &Head, more: &str) {
        if self.trace {
            let place = |s: Seq| i64::from(s.0.wrapping_sub(self.script.first.0) as i32);
            let (seq, ack) = if head.flow.src == PRODUCTION || head.flow.src == TARGET {
                (i64::from(head.seq.0), place(head.ack))
            } else {
                (place(head.seq), i64::from(head.ack.0))
            };
            eprintln!(
                "{:>12} us {what} {:?} :{} seq {seq} ack {ack} len {} win {} {:?} {more}",
                self.now / 1_000,
                head.flags,
                head.flow.src.port,
                head.payload_len,
                head.window,
                head.options.sack_blocks(),
            );
        }
    }
}
