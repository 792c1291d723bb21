//! Runs a script: a session core, a clock that only the script moves, and what was sent, looked at
//! frame by frame.
//!
//! After every event the core is audited and every byte sent so far has been checked. A frame that
//! the script does not expect at the moment it is sent fails the script at its next line.

use crate::outlet::{LINK, Outlet, Sent, byte_at, clock};
use crate::segment::{Base, Spec, describe};
use crate::settings::{Client, SECOND, START, Settings};
use crate::syntax::{Block, Event, Family, Item, Line, Script, Shape, Step, When};
use crate::tally;
use replay::wheel::TICK;
use replay::{Core, Pace};
use std::fmt::Write;
use tests::memory::{MemoryFrame, MemoryPayload};
use wire::checksum::Sum;
use wire::decode::{self, LinkType, MirrorOptions, Skip, Use};
use wire::head::HeaderBuf;
use wire::io::{Checksum, Frame};
use wire::{Endpoint, Flags, Flow, Head, Nanos, Seq, build};

/// How far from its time a frame may be: a timer fires at the wheel's next tick, its time may have
/// been rounded to one before, and the line before may have been late itself. What a frame brings
/// about at once has no slack.
const SLACK: Nanos = 2 * TICK;
/// After this long nothing may be left of a session.
const LIMIT: Nanos = 2_000 * SECOND;
/// How much of the past a failure tells.
const TOLD: usize = 12;
const ETHERNET: usize = 14;
/// Length of both Ethernet addresses: what stands before a VLAN tag.
const ADDRESSES: usize = 12;
/// When a recording begins, in ns since the epoch.
const RECORDED: Nanos = 1_700_000_000 * SECOND;
/// Rounds of a repeated block between two audits.
const ROUNDS: u64 = 1 << 10;

/// A connection to the target.
struct Conn {
    name: String,
    local: Endpoint,
    target: Endpoint,
    /// Index of the client whose numbers it uses.
    client: usize,
    /// Sequence number of the payload that the script last expected on it.
    latest: Seq,
}

/// See the module's documentation.
pub struct Bed<'a> {
    settings: &'a Settings,
    core: Core<MemoryPayload>,
    out: Outlet,
    now: Nanos,
    conns: Vec<Conn>,
    /// By how much all numbers are moved on: in a repeated block.
    moved: Step,
    /// In most rounds of a repeated block nobody looks at everything.
    quick: bool,
    /// The latest frame's payload, if all of it was one byte: a long stream shares the buffer.
    filled: Option<(u8, MemoryFrame)>,
    /// What happened, for a failure's reader.
    past: Vec<String>,
}

/// Runs a script. The error says which line failed and why, and what happened before.
pub fn run(script: &Script) -> Result<(), (usize, String)> {
    let mut bed = Bed {
        settings: &script.settings,
        core: Core::new(script.settings.params.clone(), START),
        out: Outlet::new(&script.settings),
        now: START,
        conns: Vec::new(),
        moved: Step::default(),
        quick: false,
        filled: None,
        past: Vec::new(),
    };
    let named: Vec<_> = script
        .lines()
        .rev()
        .find_map(|l| match &l.event {
            Event::Expect(pairs) => Some(pairs.clone()),
            _ => None,
        })
        .unwrap_or_default();
    for item in &script.items {
        match item {
            Item::Line(line) => bed.line(line)?,
            Item::Block(block) => bed.block(block)?,
        }
    }
    let Some(last) = script.lines().next_back() else {
        return Ok(());
    };
    let trouble = tally::trouble(&bed.core, &named);
    if trouble.is_empty() {
        return Ok(());
    }
    let mut text = String::from("the last 'expect' does not name");
    for (name, value) in trouble {
        let _ = write!(text, " {name} {value},");
    }
    let text = format!("{} which is not 0 at the end", text.trim_end_matches(','));
    Err((last.number, bed.report(last, &text)))
}

impl Bed<'_> {
    fn report(&self, line: &Line, error: &str) -> String {
        let mut text = format!(
            "{error}\n  the line: {}\n  what happened before:",
            line.text
        );
        for event in &self.past[self.past.len().saturating_sub(TOLD)..] {
            let _ = write!(text, "\n    {event}");
        }
        for sent in &self.out.waiting {
            let _ = write!(text, "\n    {}  SENT   {}", clock(sent.at), self.tell(sent));
        }
        text
    }

    fn line(&mut self, line: &Line) -> Result<(), (usize, String)> {
        self.step(line)
            .map_err(|e| (line.number, self.report(line, &e)))
    }

    fn block(&mut self, block: &Block) -> Result<(), (usize, String)> {
        for round in 0..block.times {
            let moved = |step: u64| step.wrapping_mul(round);
            self.moved = Step {
                client: moved(block.step.client),
                server: moved(block.step.server),
                port: moved(block.step.port),
            };
            self.quick = round % ROUNDS != 0 && round + 1 != block.times;
            for line in &block.lines {
                self.line(line)
                    .map_err(|(number, e)| (number, format!("round {}: {e}", round + 1)))?;
            }
        }
        self.moved = Step::default();
        Ok(())
    }

    fn note(&mut self, at: Nanos, what: &str) {
        if self.quick {
            return;
        }
        self.past.push(format!("{}  {what}", clock(at)));
    }

    /// A frame in the script's words.
    fn tell(&self, sent: &Sent) -> String {
        let conn = self.conns.iter().rfind(|c| c.local == sent.head.flow.src);
        let client = conn.map_or(0, |c| c.client);
        let name = conn.map_or("", |c| &c.name);
        let text = describe(&sent.head, self.base(client));
        let from = sent.head.flow.src;
        format!("{name} {text}  ({from})").trim_start().to_owned()
    }

    fn client(&self, client: usize) -> Result<&Client, String> {
        let clients = &self.settings.clients;
        clients.get(client).ok_or_else(|| "no such client".into())
    }

    /// Numbers of what a replica sends: the client's own.
    fn base(&self, client: usize) -> Base {
        let isn = self.settings.clients.get(client).map_or(Seq(0), |c| c.isn);
        Base {
            seq: isn + self.moved.client as u32,
            ack: self.settings.target_isn + self.moved.server as u32,
        }
    }

    fn step(&mut self, line: &Line) -> Result<(), String> {
        if let Event::Sent {
            name,
            spec,
            from,
            fill,
        } = &line.event
        {
            let sent = self.expect_sent(line.when, name, spec, *from)?;
            if let Some((fill, other)) =
                fill.and_then(|f| Some((f, sent.bytes().iter().find(|b| **b != f)?)))
            {
                return Err(format!(
                    "another byte is expected: {other:#04x} was sent, not {fill:#04x}"
                ));
            }
            self.note(self.now, &line.text);
            return self.check();
        }
        self.nothing_waits()?;
        self.run_to(self.now + line.when.from)?;
        self.nothing_waits()?;
        self.note(self.now, &line.text);
        self.happen(&line.event)?;
        self.check()
    }

    fn happen(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Sent { .. } | Event::Quiet => {}
            Event::Mirror {
                from_client,
                name,
                spec,
                shape,
            } => self.mirror(*from_client, name, spec, shape)?,
            Event::Target {
                name,
                spec,
                earlier,
            } => {
                let conn = self.conn(name)?;
                let flow = Flow {
                    src: conn.target,
                    dst: conn.local,
                };
                let Base { seq, ack } = self.base(conn.client);
                let head = spec.head(flow, Base { seq: ack, ack: seq });
                let received = self.now - earlier;
                self.core.response(self.now, received, &head, &mut self.out);
            }
            Event::Left(name, spec) => {
                let conn = self.conn(name)?;
                let flow = Flow {
                    src: conn.local,
                    dst: conn.target,
                };
                let head = spec.head(flow, self.base(conn.client));
                self.core.sent(self.now, &head);
            }
            Event::TooBig { name, mtu, seq } => {
                let conn = self.conn(name)?;
                let base = self.base(conn.client).seq;
                let seq = seq.map_or(conn.latest, |n| base + n);
                let flow = Flow {
                    src: conn.local,
                    dst: conn.target,
                };
                self.core.too_big(self.now, &flow, seq, *mtu, &mut self.out);
            }
            Event::Queue(refused, family) => {
                let all = [(Family::V4, 0), (Family::V6, 1)];
                for (_, i) in all
                    .into_iter()
                    .filter(|(f, _)| family.is_none_or(|x| x == *f))
                {
                    self.out.refuse[i] = *refused;
                }
            }
            Event::Intercept(up) => self.out.accepts = *up,
            Event::Drain => self.core.drain(self.now, &mut self.out),
            Event::EndAll => self.core.end_all(self.now, &mut self.out),
            Event::Abandon => self.core.abandon(self.now, &mut self.out),
            Event::Expect(pairs) => self.expect_counters(pairs)?,
            Event::End => self.end()?,
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if let Some(fault) = &self.out.fault {
            return Err(fault.clone());
        }
        if self.quick {
            return Ok(());
        }
        self.core.counters().balance()?;
        self.core.audit()
    }

    fn nothing_waits(&self) -> Result<(), String> {
        match self.out.waiting.front() {
            None => Ok(()),
            Some(sent) => Err(format!(
                "a frame is left over: at {} was sent  {}",
                clock(sent.at),
                self.tell(sent)
            )),
        }
    }

    /// Moves the clock, tick by tick, until something is sent or `end` has come.
    fn run_to(&mut self, end: Nanos) -> Result<(), String> {
        while self.now < end && self.out.waiting.is_empty() {
            self.now = ((self.now / TICK + 1) * TICK).min(end);
            self.out.now = self.now;
            let mut fired = false;
            while self.core.poll(self.now, &mut self.out) > 0 {
                fired = true;
            }
            if fired {
                self.check()?;
            }
        }
        Ok(())
    }

    fn expect_sent(
        &mut self,
        when: When,
        name: &str,
        spec: &Spec,
        from: Option<Endpoint>,
    ) -> Result<Sent, String> {
        let slack = if when.to == 0 { 0 } else { SLACK };
        let first = (self.now + when.from).saturating_sub(slack).max(self.now);
        let last = self.now + when.to + slack;
        self.run_to(last)?;
        let Some(sent) = self.out.waiting.front() else {
            return Err(format!("nothing was sent until {}", clock(last)));
        };
        let found = self.tell(sent);
        if sent.at < first {
            return Err(format!(
                "sent too early, at {} and not at {}: {found}",
                clock(sent.at),
                clock(first)
            ));
        }
        let head = sent.head;
        if from.is_some_and(|from| from != head.flow.src) {
            return Err(format!("sent from {}: {found}", head.flow.src));
        }
        let client = self.bind(name, &head)?;
        if let Some(difference) = spec.difference(&head, self.base(client)) {
            return Err(format!(
                "another {difference} is expected: was sent  {found}"
            ));
        }
        if head.payload_len > 0
            && let Some(conn) = self.conns.iter_mut().find(|c| c.name == name)
        {
            conn.latest = head.seq;
        }
        let sent = self.out.waiting.pop_front();
        sent.ok_or_else(|| "nothing was sent".into())
    }

    /// The client whose numbers a frame on connection `name` uses. A SYN makes the name known.
    fn bind(&mut self, name: &str, head: &Head) -> Result<usize, String> {
        if let Some(conn) = self.conns.iter().find(|c| c.name == name) {
            if conn.local == head.flow.src {
                return Ok(conn.client);
            }
            return Err(format!(
                "the frame is another connection's, from {}, and not from {}",
                head.flow.src, conn.local
            ));
        }
        if head.flags != Flags::SYN {
            return Err(format!(
                "no SYN of a connection '{name}' was sent before this frame from {}",
                head.flow.src
            ));
        }
        let client = self.named(name).unwrap_or(0);
        let target = Settings::target_of(self.client(client)?);
        if head.flow.dst != target {
            return Err(format!(
                "a SYN was sent to {}, not to {target}",
                head.flow.dst
            ));
        }
        self.conns.push(Conn {
            name: name.to_owned(),
            local: head.flow.src,
            target,
            client,
            latest: Seq(0),
        });
        Ok(client)
    }

    fn named(&self, name: &str) -> Option<usize> {
        self.settings.clients.iter().position(|c| c.name == name)
    }

    fn conn(&self, name: &str) -> Result<&Conn, String> {
        self.conns.iter().find(|c| c.name == name).ok_or_else(|| {
            format!("no connection '{name}' is known: it is, once its SYN was expected with 'sent'")
        })
    }

    fn mirror(
        &mut self,
        from_client: bool,
        name: &str,
        spec: &Spec,
        shape: &Shape,
    ) -> Result<(), String> {
        let Some(index) = self.named(name) else {
            return Err(format!(
                "no client '{name}' is known: 'client {name} ADDRESS.PORT' says who it is"
            ));
        };
        let head = self.mirrored_head(index, from_client, spec)?;
        let first = head.seq + u32::from(head.flags.has(Flags::SYN));
        let (frame, link) = match shape.fill {
            Some(fill) if self.is_long(shape) => {
                let (frame, payload) = self.long_frame(&head, fill);
                if from_client {
                    self.out.show(index, first, payload.bytes(), shape.fill);
                }
                (frame, LinkType::Ethernet)
            }
            _ => {
                let payload = payload(index, &head, shape);
                if from_client && !shape.unlisted {
                    let kept = &payload[..payload.len() - shape.cut];
                    self.out.show(index, first, kept, shape.fill);
                }
                frame(&head, &payload, shape)
            }
        };
        let frame = match shape.at {
            // Of a live mirror the times are told by our own clock.
            Some(at) if self.core.params().pace == Pace::Live => frame.captured_at(START + at),
            Some(at) => frame.captured_at(RECORDED + at),
            None => frame,
        };
        let decoded = decode::mirrored_frame(&MirrorOptions::on(link), &frame, |_| Use::All);
        let packet = match (decoded, shape.damaged) {
            (Err(Skip::BadChecksum), true) => return Ok(()),
            (Ok(_), true) => return Err("a damaged frame was taken for a sound one".into()),
            (Ok(packet), false) => packet,
            (Err(e), _) => return Err(format!("the frame cannot be decoded: {e:?}")),
        };
        // What became of it is told by the counters.
        let _ = self.core.mirror(self.now, &packet, frame, &mut self.out);
        Ok(())
    }

    /// The header of what the mirror shows of a client's connection.
    fn mirrored_head(&self, index: usize, from_client: bool, spec: &Spec) -> Result<Head, String> {
        let (client, moved) = (self.client(index)?, self.moved);
        let mut flow = client.flow;
        flow.src.port = flow.src.port.wrapping_add(moved.port as u16);
        let (c, s) = (
            client.isn + moved.client as u32,
            client.server_isn + moved.server as u32,
        );
        Ok(if from_client {
            spec.head(flow, Base { seq: c, ack: s })
        } else {
            spec.head(flow.reversed(), Base { seq: s, ack: c })
        })
    }

    /// The frame is one of many of a long stream.
    fn is_long(&self, shape: &Shape) -> bool {
        let plain = shape.buffers.is_none() && shape.fragments.is_none() && shape.vlans.is_empty();
        (self.moved.client > 0 || self.moved.server > 0)
            && plain
            && shape.cut == 0
            && !shape.damaged
    }

    /// A frame whose payload shares its buffer with the one before it, from a driver that has
    /// verified its checksum; and that payload.
    fn long_frame(&mut self, head: &Head, fill: u8) -> (MemoryFrame, MemoryFrame) {
        let len = head.payload_len as usize;
        let filled = self.filled.take();
        let filled = filled.filter(|(b, f)| *b == fill && f.frame_len() == len);
        let (_, rest) = self
            .filled
            .insert(filled.unwrap_or_else(|| (fill, MemoryFrame::new(&vec![fill; len]))));
        let mut headers = HeaderBuf::new();
        build::tcp_with_sum(&mut headers, &LINK, head, 64, 0, len, Sum::new());
        let frame = MemoryFrame::new(&headers).followed_by(rest);
        (frame.with_checksum(Checksum::Good), rest.clone())
    }

    fn expect_counters(&self, pairs: &[(String, u64)]) -> Result<(), String> {
        let mut wrong = Vec::new();
        for (name, want) in pairs {
            let Some(found) = tally::value(&self.core, name) else {
                return Err(format!(
                    "unknown counter '{name}': one of {}",
                    tally::names()
                ));
            };
            if found != *want {
                wrong.push(format!("{name} is {found}, not {want}"));
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join(", "))
        }
    }

    /// Lets every timer fire: nothing more is sent, and nothing is left.
    fn end(&mut self) -> Result<(), String> {
        let limit = self.now + LIMIT;
        // The clock of a recording that is played as fast as can be stands still at its end: the
        // sessions that are over stay in the table.
        let stands = self.settings.params.pace == Pace::Unpaced;
        let left = |core: &Core<_>| match stands {
            true => !core.is_drained(),
            false => core.session_count() + core.half_open_count() > 0,
        };
        while left(&self.core) {
            if self.now >= limit {
                return Err(format!("{} sessions never end", self.core.session_count()));
            }
            self.run_to(self.now + SECOND)?;
            self.nothing_waits()?;
        }
        let c = self.core.counters();
        let left = [
            ("segments", self.core.segment_count() as u64),
            ("slots in use", self.core.slots().0 as u64),
            ("claims", self.out.claimed.len() as u64),
            ("turns in flight", c.in_flight_turns),
            ("bytes in flight", c.in_flight_bytes),
            (
                "replicas with something to do",
                u64::from(!self.core.is_drained()),
            ),
        ];
        match left.iter().find(|l| l.1 > 0) {
            None => Ok(()),
            Some((what, n)) => Err(format!("at the end there are {what}: {n}")),
        }
    }
}

/// The payload of a mirrored segment, all of it.
fn payload(client: usize, head: &Head, shape: &Shape) -> Vec<u8> {
    let first = head.seq + u32::from(head.flags.has(Flags::SYN));
    let len = head.payload_len;
    match shape.fill {
        Some(fill) => vec![fill; len as usize],
        None => (0..len).map(|i| byte_at(client, first + i)).collect(),
    }
}

/// What the mirror shows, and with what it begins.
fn frame(head: &Head, payload: &[u8], shape: &Shape) -> (MemoryFrame, LinkType) {
    let mut headers = HeaderBuf::new();
    build::tcp(&mut headers, &LINK, head, 64, 0, payload);
    let mut bytes = [&headers, &payload[..payload.len() - shape.cut]].concat();
    if let Some(last) = bytes.last_mut().filter(|_| shape.damaged) {
        *last ^= 0x10;
    }
    for id in shape.vlans.iter().rev() {
        let [a, b] = id.to_be_bytes();
        bytes.splice(ADDRESSES..ADDRESSES, [0x81, 0x00, a, b]);
    }
    if let Some(n) = shape.fragments {
        let datagram = bytes.get(ETHERNET..).unwrap_or(&[]);
        return (MemoryFrame::chained(datagram, n), LinkType::RawIp);
    }
    let n = shape.buffers.unwrap_or(usize::MAX);
    (MemoryFrame::chained(&bytes, n), LinkType::Ethernet)
}
