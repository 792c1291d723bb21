//! What a seed stands for: the shape of the conversation, and what goes wrong on the mirror, on the wire and at the target.

use crate::rng::Rng;
use wire::Nanos;

const MS: Nanos = 1_000_000;

/// How the conversation ends in production.
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

/// What can happen to a frame on its way. Percent, and nanoseconds at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub loss: u64,
    pub duplicate: u64,
    pub reorder: u64,
    pub jitter: Nanos,
    /// Percent of frames that lose their tail to a snap length.
    pub cut: u64,
}

/// How long the target's answers are, compared with production's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answers {
    Same,
    Shorter,
    Longer,
    None,
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
    /// Answers nothing any more, not even with acknowledgments, after so many bytes.
    DiesAfter(u32),
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Plan {
    pub both_directions: bool,
    pub client_mss: u16,
    /// Payload bytes of a captured frame: more than the MSS where the mirror shows what was sent before segmentation.
    pub capture_size: u32,
    pub rtt: Nanos,
    pub think: Nanos,
    pub greeting: u32,
    /// Request and answer, in bytes.
    pub exchanges: Vec<(u32, u32)>,
    /// Percent of requests that do not wait for the whole answer before.
    pub pipelined: u64,
    pub end: End,
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
    pub mood: Mood,
    pub copies: u16,
    /// Percent of segments that the transmit queue refuses.
    pub busy: u64,
    pub wait_for_responses: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(rng: &mut Rng) -> Self {
        let end = rng.pick(&[
            End::Client,
            End::Client,
            End::Server,
            End::HalfClose,
            End::Reset,
            End::Never,
        ]);
        let receive_buffer = rng.pick(&[1, 50, 700, 4_000, 65_535, 300_000, 1 << 20]);
        let most = (receive_buffer as u64 * 60).clamp(120, 60_000);
        let turns = rng.range(1, 6);
        let exchanges: Vec<_> = (0..turns)
            .map(|_| (rng.spread(1, most) as u32, rng.spread(1, 30_000) as u32))
            .collect();
        let mut plan = Self {
            both_directions: rng.percent(60),
            client_mss: rng.range(64, 8960) as u16,
            capture_size: rng.pick(&[88, 536, 1448, 1448, 8960, 20_000]),
            rtt: rng.pick(&[0, 200_000, 5 * MS, 40 * MS]),
            think: rng.pick(&[0, MS, 50 * MS, 2_000 * MS]),
            greeting: if rng.percent(30) {
                rng.range(1, 400) as u32
            } else {
                0
            },
            pipelined: rng.pick(&[0, 0, 0, 40]),
            end,
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
            ]),
            mood: Mood::Good,
            copies: if rng.percent(20) { 2 } else { 1 },
            busy: rng.pick(&[0, 0, 0, 10]),
            wait_for_responses: !rng.percent(5),
            exchanges,
        };
        if rng.percent(60) {
            plan.mirror.duplicate = rng.pick(&[0, 5, 30]);
            // Frames that change places with a reset would come after the end.
            if end != End::Reset {
                plan.mirror.reorder = rng.pick(&[0, 5, 30]);
                plan.mirror.jitter = 3 * MS;
            }
        }
        if rng.percent(40) {
            plan.mirror.loss = rng.pick(&[1, 5, 20]);
            plan.mirror.cut = rng.pick(&[0, 0, 5]);
        }
        if rng.percent(60) {
            plan.wire = Faults {
                loss: rng.pick(&[0, 1, 5, 15]),
                duplicate: rng.pick(&[0, 0, 5]),
                reorder: rng.pick(&[0, 0, 10, 30]),
                jitter: rng.pick(&[MS, 20 * MS]),
                cut: 0,
            };
        }
        if rng.percent(25) {
            let k = rng.range(0, turns - 1) as usize;
            plan.mood = match rng.range(0, 3) {
                0 => Mood::ClosesAfter(k),
                1 => Mood::ResetsAfter(k),
                2 => Mood::Refuses(rng.range(1, 3) as u32),
                _ => Mood::DiesAfter(rng.range(0, most) as u32),
            };
        }
        plan
    }

    /// Every byte passes the mirror.
    pub fn mirror_is_whole(&self) -> bool {
        self.mirror.loss == 0 && self.mirror.cut == 0
    }
}
