//! What a seed stands for: the conversations, and what goes wrong on the mirror, on the wire and at
//! the target.

use crate::rng::Rng;
use replay::Pace;
use wire::Nanos;

const MS: Nanos = 1_000_000;

/// How a conversation ends in production.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The client closes first.
    Client,
    /// The server closes first.
    Server,
    /// The client closes its side before the last answer.
    HalfClose,
    /// The client resets.
    Reset,
    /// It does not.
    Never,
}

/// How a connection comes about in production.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opening {
    /// SYN, SYN|ACK, ACK.
    Plain,
    /// So many tries before it are refused with RST, each with a sequence number of its own.
    Refused(u32),
    /// The server still has an older connection and challenges the SYN; the client answers that
    /// with RST, and sends its SYN again (RFC 5961 section 4.2).
    Challenged,
    /// Every segment of it is sent twice, the second time with other options.
    Repeated,
    /// It does not: every try is refused.
    Rejected,
    /// It does not: the server never answers.
    Unanswered,
}

/// Numbers in segments that no end of the conversation has sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strays {
    /// There are none.
    None,
    /// Far from what the windows allow: they must do no harm at all.
    Beyond,
    /// Where a segment of the conversation may be: what they claim is believed.
    Within,
}

/// What can happen to a frame on its way. Percent, and nanoseconds at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub loss: u64,
    pub duplicate: u64,
    pub reorder: u64,
    pub jitter: Nanos,
    /// Percent of frames that lose their tail to a snap length.
    pub cut: u64,
    /// Percent of frames of which a bit or a byte is another on arrival.
    pub damage: u64,
}

/// What the target's answers are, compared with production's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answers {
    Same,
    Shorter,
    Longer,
    None,
    /// The same, but as soon as a request has begun.
    Early,
    /// The same or shorter, in parts with pauses of so many milliseconds between.
    Paused(u64),
}

/// What the target does beside answering.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// Nothing else.
    Good,
    /// Closes its side after the answer to this exchange.
    ClosesAfter(usize),
    /// Resets after it has read this exchange.
    ResetsAfter(usize),
    /// Refuses so many connections.
    Refuses(u32),
    /// Answers nothing any more, not even with acknowledgments, after so many bytes of one
    /// connection.
    DiesAfter(u32),
}

/// Where replicas get their addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pool {
    /// The client's own.
    None,
    /// One for everybody.
    Enough,
    /// One in all.
    One,
}

/// One client's conversation.
#[derive(Clone, Debug)]
pub struct Talk {
    /// When it begins, counted from the start or from the end of the conversation that had the
    /// port before.
    pub begins: Nanos,
    /// The client's port; `None`: that of the conversation before.
    pub port: Option<u16>,
    pub client_mss: u16,
    /// Payload bytes of a captured frame: more than the MSS where the mirror shows what was sent
    /// before segmentation.
    pub capture_size: u32,
    pub rtt: Nanos,
    pub think: Nanos,
    pub greeting: u32,
    /// Request and answer, in bytes.
    pub exchanges: Vec<(u32, u32)>,
    /// Percent of requests that do not wait for the whole answer before.
    pub pipelined: u64,
    pub opening: Opening,
    pub end: End,
    pub mood: Mood,
    /// It runs at the same time as the one before, with the same addresses and ports, in another
    /// VLAN.
    pub twin: bool,
    /// Segments that belong to no conversation.
    pub strays: u64,
}

impl Talk {
    /// Production accepts the connection.
    pub fn is_accepted(&self) -> bool {
        !matches!(self.opening, Opening::Rejected | Opening::Unanswered)
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Plan {
    pub v6: bool,
    pub talks: Vec<Talk>,
    pub both_directions: bool,
    /// Frames have VLAN tags, another one for each conversation.
    pub vlans: bool,
    /// The server's frames have other tags than the client's.
    pub routed: bool,
    /// The server's window scale shift in production.
    pub shift: Option<u8>,
    /// Frames are replayed from a recording, or mirrored live.
    pub pace: Pace,
    /// Live frames carry the time at which they were captured, by a clock of the driver's.
    pub stamped: bool,
    pub strays: Strays,
    /// Handshakes get lost as well as anything else.
    pub lossy_handshakes: bool,
    /// The target's answers were received so long before they are handed in, at most.
    pub lag: Nanos,
    /// Sequence numbers wrap soon after the beginning of this conversation, so many bytes behind
    /// it.
    pub wrap: Option<(usize, u32)>,
    /// The mirror begins in the middle of each conversation: so many of its frames are not there.
    pub late: usize,
    pub mirror: Faults,
    pub wire: Faults,
    /// One-way delay to the target.
    pub delay: Nanos,
    pub mtu: u16,
    pub target_mtu: usize,
    pub receive_buffer: usize,
    /// How long the target's application sleeps between two looks at its socket.
    pub lazy: Nanos,
    pub answers: Answers,
    /// Options of ours that do not reach the target.
    pub no_scale: bool,
    pub no_sack: bool,
    /// The target knows timestamps.
    pub timestamps: bool,
    pub copies: u16,
    pub pool: Pool,
    pub session_bytes: u64,
    pub max_segments: usize,
    /// Percent of segments that the transmit queue refuses.
    pub busy: u64,
    pub wait_for_responses: bool,
    /// Every session also goes to another target, which is dead.
    pub dead_beside: bool,
}

/// As much as no plan needs.
pub const PLENTY: u64 = 4 << 20;
/// As many segments as no plan needs.
pub const MANY: usize = 16_384;

fn talk(rng: &mut Rng, most: u64, turns: u64) -> Talk {
    Talk {
        begins: rng.range(0, 300) * MS,
        port: None,
        client_mss: rng.range(64, 8960) as u16,
        capture_size: rng.pick(&[88, 536, 1448, 1448, 8960, 20_000]),
        rtt: rng.pick(&[0, 200_000, 5 * MS, 40 * MS]),
        think: rng.pick(&[0, MS, 50 * MS, 2_000 * MS]),
        greeting: if rng.percent(30) {
            rng.range(1, 400) as u32
        } else {
            0
        },
        exchanges: (0..turns)
            .map(|_| (rng.spread(1, most) as u32, rng.spread(1, 30_000) as u32))
            .collect(),
        pipelined: rng.pick(&[0, 0, 0, 40]),
        opening: if rng.percent(25) {
            rng.pick(&[
                Opening::Refused(1),
                Opening::Refused(3),
                Opening::Challenged,
                Opening::Repeated,
                Opening::Rejected,
                Opening::Unanswered,
            ])
        } else {
            Opening::Plain
        },
        end: rng.pick(&[
            End::Client,
            End::Client,
            End::Server,
            End::HalfClose,
            End::Reset,
            End::Never,
        ]),
        mood: Mood::Good,
        twin: false,
        strays: 0,
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn new(rng: &mut Rng) -> Self {
        let receive_buffer = rng.pick(&[1, 50, 700, 4_000, 65_535, 300_000, 1 << 20]);
        let most = (receive_buffer as u64 * 60).clamp(120, 60_000);
        let several = rng.percent(25);
        let count = if several { rng.range(3, 8) } else { 1 };
        let mut talks: Vec<_> = (0..count)
            .map(|_| {
                let turns = rng.range(1, if several { 3 } else { 6 });
                talk(rng, if several { most.min(9_000) } else { most }, turns)
            })
            .collect();
        for (k, t) in talks.iter_mut().enumerate() {
            t.port = Some(rng.range(1_024, 9_000) as u16 + 8_000 * k as u16);
        }
        for t in talks.iter_mut().skip(1) {
            if rng.percent(30) {
                t.port = None;
                t.begins = rng.pick(&[10 * MS, 300 * MS, 3_000 * MS, 70_000 * MS]);
            }
        }
        let mut plan = Self {
            v6: rng.percent(50),
            both_directions: rng.percent(60),
            vlans: rng.percent(15),
            routed: rng.percent(30),
            shift: rng.pick(&[None, Some(0), Some(7)]),
            pace: Pace::Live,
            stamped: rng.percent(30),
            strays: Strays::None,
            lossy_handshakes: false,
            lag: rng.pick(&[0, 0, 100_000, 50 * MS]),
            wrap: rng
                .percent(50)
                .then(|| (rng.range(0, count - 1) as usize, rng.spread(1, most) as u32)),
            late: 0,
            mirror: Faults::default(),
            wire: Faults::default(),
            delay: rng.pick(&[0, 100_000, 3 * MS, 25 * MS]),
            mtu: rng.pick(&[128, 576, 1500, 1500, 9040]),
            target_mtu: rng.pick(&[128, 576, 1500, 1500, 9040]),
            receive_buffer,
            lazy: rng.pick(&[0, 0, MS, 30 * MS]),
            answers: rng.pick(&[
                Answers::Same,
                Answers::Same,
                Answers::Same,
                Answers::Shorter,
                Answers::Longer,
                Answers::None,
                Answers::Early,
                Answers::Paused(2),
                Answers::Paused(60),
            ]),
            no_scale: rng.percent(20),
            no_sack: rng.percent(30),
            timestamps: rng.percent(50),
            copies: if rng.percent(20) { 2 } else { 1 },
            pool: Pool::None,
            session_bytes: PLENTY,
            max_segments: MANY,
            busy: rng.pick(&[0, 0, 0, 10]),
            wait_for_responses: !rng.percent(5),
            dead_beside: false,
            talks,
        };
        if plan.v6 {
            // As much more as the header is longer.
            plan.mtu += 20;
            plan.target_mtu += 20;
        }
        if rng.percent(10) {
            plan.pool = rng.pick(&[Pool::Enough, Pool::One]);
        }
        match rng.range(0, 39) {
            0 => plan.session_bytes = rng.range(100, 20_000),
            1 => plan.max_segments = rng.range(8, 40) as usize,
            2 | 3 => plan.late = rng.range(1, 30) as usize,
            _ => {}
        }
        plan.weather(rng);
        plan.moods(rng, most);
        plan.surroundings(rng);
        plan
    }

    fn weather(&mut self, rng: &mut Rng) {
        // Frames that change places with a reset would come after the end.
        if self.talks.iter().all(|t| t.end != End::Reset) {
            self.mirror.jitter = 3 * MS;
        }
        if rng.percent(60) {
            self.mirror.duplicate = rng.pick(&[0, 5, 30]);
            if self.mirror.jitter > 0 {
                self.mirror.reorder = rng.pick(&[0, 5, 30]);
            }
        }
        if rng.percent(40) {
            self.mirror.loss = rng.pick(&[1, 5, 20]);
            self.mirror.cut = rng.pick(&[0, 0, 5]);
        }
        if rng.percent(25) {
            self.mirror.damage = rng.pick(&[1, 5, 20]);
        }
        if rng.percent(60) {
            self.wire = Faults {
                loss: rng.pick(&[0, 1, 5, 15]),
                duplicate: rng.pick(&[0, 0, 5]),
                reorder: rng.pick(&[0, 0, 10, 30]),
                jitter: rng.pick(&[MS, 20 * MS]),
                cut: 0,
                damage: 0,
            };
        }
        if rng.percent(40) {
            self.wire.damage = rng.pick(&[1, 5, 15]);
        }
    }

    fn moods(&mut self, rng: &mut Rng, most: u64) {
        let alone = self.talks.len() == 1;
        for t in &mut self.talks {
            if !rng.percent(25) {
                continue;
            }
            let k = rng.range(0, t.exchanges.len() as u64 - 1) as usize;
            // How the whole target behaves is one conversation's mood only where there is one.
            t.mood = match rng.range(0, if alone { 3 } else { 1 }) {
                0 => Mood::ClosesAfter(k),
                1 => Mood::ResetsAfter(k),
                2 => Mood::Refuses(rng.range(1, 3) as u32),
                _ => Mood::DiesAfter(rng.range(0, most) as u32),
            };
        }
    }

    /// What is around the conversations on the mirror, and how it comes to the core.
    fn surroundings(&mut self, rng: &mut Rng) {
        if self.vlans {
            for t in self.talks.iter_mut().skip(1) {
                t.twin = rng.percent(50);
                if t.twin {
                    t.port = None;
                    t.begins = rng.range(0, 30) * MS;
                }
            }
        }
        // A server that was never shown in another VLAN is another server.
        self.routed &= self.both_directions;
        if rng.percent(15) {
            self.pace = rng.pick(&[
                Pace::Recorded(0.5),
                Pace::Recorded(3.0),
                Pace::Recorded(40.0),
                Pace::Unpaced,
            ]);
        }
        self.lossy_handshakes = rng.percent(30);
        // One that comes before its session is known begins another, as it should.
        let known = self.late == 0 && self.max_segments == MANY && !self.lossy_handshakes;
        if known && rng.percent(25) {
            self.strays = rng.pick(&[Strays::Beyond, Strays::Beyond, Strays::Within]);
            for t in &mut self.talks {
                t.strays = rng.range(1, 5);
            }
        }
    }

    /// Every byte passes the mirror.
    pub fn mirror_is_whole(&self) -> bool {
        self.mirror.loss == 0 && self.mirror.cut == 0 && self.mirror.damage == 0 && self.late == 0
    }

    /// A handshake may be lost on the mirror, or shown behind what it began.
    pub fn loses_handshakes(&self) -> bool {
        let Faults {
            loss,
            damage,
            reorder,
            ..
        } = self.mirror;
        self.lossy_handshakes && loss + damage + reorder > 0
    }

    /// The VLAN of a conversation's frames, the server's or the client's.
    pub fn vlan(&self, talk: usize, server: bool) -> Option<u16> {
        let routed = u16::from(server && self.routed) * 1_000;
        self.vlans.then_some(100 + talk as u16 + routed)
    }

    /// Percent of packets that do not arrive on the wire to the target, or not as they were sent.
    pub fn wire_loss(&self) -> u64 {
        self.wire.loss + self.wire.damage
    }
}
