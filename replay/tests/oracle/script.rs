//! A client's conversation with production, generated from a seed: what the mirror port sees, and
//! the truth about it.

use crate::plan::{End, Opening, Plan, Strays, Talk};
use crate::rng::Rng;
use crate::stray;
use wire::{Addr, Endpoint, Flags, Flow, Head, Nanos, Options, Seq};

/// Conversations' sequence numbers are this far from one another: more than any of them says.
const APART: u32 = 1 << 20;
/// And where the same addresses and ports are in use several times at once: more than any window.
const FAR_APART: u32 = 1 << 28;
/// A try that comes to nothing has a sequence number so much lower than the next one.
const TRY: u32 = 150_000;
const MS: Nanos = 1_000_000;

/// Production's endpoint.
pub const fn production(v6: bool) -> Endpoint {
    Endpoint::new(address(v6, 1), 80)
}

/// The target's endpoint.
pub const fn target(v6: bool) -> Endpoint {
    Endpoint::new(address(v6, 2), 8080)
}

/// The endpoint of the target that is dead.
pub const fn dead_target(v6: bool) -> Endpoint {
    Endpoint::new(address(v6, 3), 8080)
}

/// Host `n` of the network that everything is on.
pub const fn address(v6: bool, n: u8) -> Addr {
    if v6 {
        Addr::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n])
    } else {
        Addr::v4([10, 10, 0, n])
    }
}

/// The client's byte at a sequence number.
pub fn byte_at(seq: Seq) -> u8 {
    (seq.0.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// What a segment in production belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The handshake, or a try that came to nothing.
    Handshake,
    /// The conversation.
    Talk,
    /// Nothing: nobody of the conversation has sent it.
    Stray,
}

/// A segment in production.
#[derive(Clone, Copy, Debug)]
pub struct Shot {
    /// When it passes the mirror port.
    pub at: Nanos,
    pub head: Head,
    pub part: Part,
}

/// What the client says in one go, and what the answer is. Offsets count from the stream's first
/// byte.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// End of the request.
    pub end: u32,
    /// Bytes of production's answer.
    pub answer: u32,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Script {
    pub client: Endpoint,
    /// Production has accepted the connection.
    pub accepted: bool,
    pub shots: Vec<Shot>,
    /// Sequence number of the client's first byte.
    pub first: Seq,
    /// Bytes of the client's stream.
    pub len: u32,
    /// Bytes production sends before the client speaks.
    pub greeting: u32,
    pub exchanges: Vec<Exchange>,
    /// Where the client had read more than before: offsets at which turns begin, the stream's end
    /// included.
    pub boundaries: Vec<u32>,
}

/// Writes a conversation, segment by segment.
struct Writer<'a> {
    plan: &'a Plan,
    talk: &'a Talk,
    rng: &'a mut Rng,
    now: Nanos,
    c: Seq,
    s: Seq,
    /// What the client has acknowledged, and what with its last payload.
    acked: Seq,
    acked_at_data: Option<Seq>,
    part: Part,
    script: Script,
}

impl Writer<'_> {
    fn client(&mut self, flags: Flags, len: u32) {
        let head = Head {
            flow: Flow {
                src: self.script.client,
                dst: production(self.plan.v6),
            },
            seq: self.c,
            ack: self.acked,
            flags,
            window: 1000,
            urgent: 0,
            options: Options::default(),
            payload_len: len,
        };
        self.c += len + flags.sequence_len();
        self.shot(head);
    }

    fn server(&mut self, flags: Flags, len: u32) {
        let head = Head {
            flow: Flow {
                src: production(self.plan.v6),
                dst: self.script.client,
            },
            seq: self.s,
            ack: self.c,
            flags: flags.with(Flags::ACK),
            window: 1000,
            urgent: 0,
            options: Options::default(),
            payload_len: len,
        };
        self.s += len + flags.sequence_len();
        if self.plan.both_directions {
            self.shot(head);
        }
    }

    fn shot(&mut self, mut head: Head) {
        if head.flags.has(Flags::SYN) {
            head.options.mss = Some(self.talk.client_mss);
            head.options.window_scale = self.plan.shift;
        }
        self.script.shots.push(Shot {
            at: self.now,
            head,
            part: self.part,
        });
    }

    /// The last segment is sent again.
    fn again(&mut self) {
        let Some(&Shot { mut head, .. }) = self.script.shots.last() else {
            return;
        };
        if head.flags.has(Flags::SYN) {
            head.options.mss = Some(self.talk.client_mss / 2 + 1);
            head.options.sack_permitted = true;
        }
        self.script.shots.push(Shot {
            at: self.now,
            head,
            part: self.part,
        });
    }

    /// The handshake, and what comes before it.
    fn open(&mut self) {
        let isn = self.c;
        let opening = self.talk.opening;
        let tries = match opening {
            Opening::Refused(n) => n,
            Opening::Rejected | Opening::Unanswered => 3,
            _ => 0,
        };
        for k in (1..=tries).rev() {
            let same = opening == Opening::Unanswered;
            self.c = isn - if same { TRY } else { TRY * k };
            self.client(Flags::SYN, 0);
            self.pass(5 * MS);
            if !same {
                // It has no sequence number of its own.
                let s = std::mem::replace(&mut self.s, Seq(0));
                self.server(Flags::RST, 0);
                self.s = s;
            }
            self.now += self.rng.pick(&[MS, 100 * MS, 1_000 * MS]);
        }
        self.c = isn;
        if !self.script.accepted {
            return;
        }
        if opening == Opening::Challenged {
            self.client(Flags::SYN, 0);
            let (c, s) = (self.c, self.s);
            (self.c, self.s) = (Seq(self.rng.bits() as u32), Seq(self.rng.bits() as u32));
            self.server(Flags::ACK, 0);
            self.now += self.talk.rtt;
            self.client(Flags::RST, 0);
            self.now += 200 * MS;
            (self.c, self.s) = (c - 1, s);
        }
        let repeated = opening == Opening::Repeated;
        self.client(Flags::SYN, 0);
        if repeated {
            self.now += 1_000 * MS;
            self.again();
        }
        self.server(Flags::SYN, 0);
        if repeated && self.plan.both_directions {
            self.pass(5 * MS);
            self.again();
        }
        self.acked = self.s;
        self.now += self.talk.rtt;
        self.client(Flags::ACK, 0);
        if repeated {
            self.pass(5 * MS);
            self.again();
        }
        self.part = Part::Talk;
    }

    fn pass(&mut self, most: Nanos) {
        self.now += self.rng.range(0, most);
    }

    /// The client says `n` bytes; the server acknowledges some of the segments.
    fn request(&mut self, n: u32) {
        let mut left = n;
        while left > 0 {
            if self.acked_at_data.is_none_or(|a| self.acked.gt(a)) {
                let offset = self.c.since(self.script.first);
                self.script.boundaries.push(offset);
            }
            self.acked_at_data = Some(self.acked);
            let len = left.min(self.talk.capture_size);
            left -= len;
            let push = if left == 0 {
                Flags::PSH
            } else {
                Flags::default()
            };
            self.client(Flags::ACK.with(push), len);
            self.pass(300_000);
            if self.rng.percent(50) {
                self.server(Flags::ACK, 0);
            }
        }
        self.server(Flags::ACK, 0);
    }

    /// The server answers with `n` bytes, and the client acknowledges `read` of them.
    fn answer(&mut self, n: u32, read: u32) {
        let goal = self.s + read;
        let mut left = n;
        while left > 0 {
            let len = left.min(1448);
            left -= len;
            self.pass(100_000);
            self.server(if left == 0 { Flags::PSH } else { Flags::ACK }, len);
            if self.rng.percent(40) && self.s.le(goal) {
                self.acked = self.acked.max(self.s);
                self.client(Flags::ACK, 0);
            }
        }
        self.acked = self.acked.max(goal);
        if self.rng.percent(60) {
            self.now += self.talk.rtt;
            self.client(Flags::ACK, 0);
        }
    }

    /// All that is said.
    fn converse(&mut self) {
        let talk = self.talk;
        if talk.greeting > 0 {
            self.answer(talk.greeting, talk.greeting);
        }
        for (k, &(request, answer)) in talk.exchanges.iter().enumerate() {
            self.pass(talk.think);
            self.request(request);
            self.script.exchanges.push(Exchange {
                end: self.c.since(self.script.first),
                answer,
            });
            let last = k + 1 == talk.exchanges.len();
            if last && talk.end == End::HalfClose {
                break;
            }
            self.pass(talk.think);
            let read = if !last && self.rng.percent(talk.pipelined) {
                self.rng.range(1, u64::from(answer)) as u32
            } else {
                answer
            };
            self.answer(answer, read);
        }
        self.pass(talk.think);
        self.end();
    }

    fn end(&mut self) {
        match self.talk.end {
            End::Client | End::HalfClose => {
                self.client(Flags::FIN.with(Flags::ACK), 0);
                self.now += self.talk.rtt;
                self.server(Flags::FIN, 0);
                self.acked = self.s;
                self.client(Flags::ACK, 0);
            }
            End::Server => {
                self.server(Flags::FIN, 0);
                self.now += self.talk.rtt;
                self.acked = self.s;
                self.client(Flags::FIN.with(Flags::ACK), 0);
            }
            End::Reset => {
                let flags = if self.rng.percent(50) {
                    Flags::RST
                } else {
                    Flags::RST.with(Flags::ACK)
                };
                self.client(flags, 0);
            }
            End::Never => {}
        }
    }
}

impl Script {
    /// Where the client's stream and the server's have come to behind a segment of the
    /// conversation, as far as that tells.
    pub fn state(&self, shot: usize) -> (Seq, Seq) {
        let upto = || self.shots[..=shot].iter().rev();
        let said = |s: &&Shot| s.part != Part::Stray;
        let by_client = |s: &&Shot| said(s) && s.head.flow.src == self.client;
        let client = upto().find(by_client).map_or(self.first, |s| s.head.end());
        let server = upto().find(said).map_or(Seq(0), |s| {
            if s.head.flow.src == self.client {
                s.head.ack
            } else {
                s.head.end()
            }
        });
        (client, server)
    }

    /// Where `seq` stands in the client's stream; `None` if it belongs to another conversation.
    pub fn offset(&self, seq: Seq) -> Option<u32> {
        let at = seq.0.wrapping_sub(self.first.0);
        (at < APART / 2).then_some(at)
    }

    /// When its first segment passes the mirror port.
    pub fn start(&self) -> Nanos {
        self.shots.first().map_or(0, |s| s.at)
    }

    /// When its last segment passes the mirror port.
    pub fn end(&self) -> Nanos {
        self.shots.last().map_or(0, |s| s.at)
    }
}

/// The conversations that `plan` describes.
pub fn write(plan: &Plan, rng: &mut Rng) -> Vec<Script> {
    let apart = if plan.vlans { FAR_APART } else { APART };
    let base = match plan.wrap {
        Some((k, behind)) => Seq(0u32.wrapping_sub(behind)) - (k as u32).wrapping_mul(apart),
        None => {
            let any = rng.bits() as u32;
            Seq(rng.pick(&[0, 77, 1 << 31, any]))
        }
    };
    let mut scripts: Vec<Script> = Vec::new();
    for (k, talk) in plan.talks.iter().enumerate() {
        let before = scripts.last().filter(|_| talk.port.is_none());
        let (port, start) = match (talk.port, before) {
            (None, Some(before)) if talk.twin => (before.client.port, before.start()),
            (None, Some(before)) => (before.client.port, before.end()),
            (port, _) => (port.unwrap_or(40_000), 1_000_000_000),
        };
        let client = Endpoint::new(address(plan.v6, 3), port);
        let isn = base + (k as u32).wrapping_mul(apart);
        let mut script = write_one(plan, talk, client, isn, start + talk.begins, rng);
        if plan.strays != Strays::None && script.accepted {
            stray::add(&mut script, plan, talk, rng);
        }
        scripts.push(script);
    }
    scripts
}

fn write_one(
    plan: &Plan,
    talk: &Talk,
    client: Endpoint,
    isn: Seq,
    start: Nanos,
    rng: &mut Rng,
) -> Script {
    let server_isn = Seq(rng.bits() as u32);
    let mut w = Writer {
        plan,
        talk,
        rng,
        now: start,
        c: isn,
        s: server_isn,
        acked: Seq(0),
        acked_at_data: None,
        part: Part::Handshake,
        script: Script {
            client,
            accepted: talk.is_accepted(),
            shots: Vec::new(),
            first: isn + 1,
            len: 0,
            greeting: talk.greeting,
            exchanges: Vec::new(),
            boundaries: Vec::new(),
        },
    };
    w.open();
    if w.script.accepted {
        w.converse();
    }
    let mut script = w.script;
    script.len = script.exchanges.last().map_or(0, |e| e.end);
    script.boundaries.push(script.len);
    script
}
