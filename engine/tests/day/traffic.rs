//! What the mirror shows: clients that come, talk and go, some of them hostile, with frames that
//! are lost, doubled and late.

use crate::rng::Rng;
use crate::{MINUTE, MS, PRODUCTION, SECOND};
use wire::{Addr, Endpoint, Flags, Flow, Head, Nanos, Options, Seq};

/// Frames.
pub mod frame {
    use wire::Head;
    use wire::build::{LinkHeader, tcp};
    use wire::head::HeaderBuf;

    /// The Ethernet addresses of all frames.
    pub const LINK: LinkHeader = LinkHeader {
        dst: [2, 0, 0, 0, 0, 2],
        src: [2, 0, 0, 0, 0, 1],
    };

    /// A whole frame.
    pub fn build(head: &Head, payload: &[u8]) -> Vec<u8> {
        let mut headers = HeaderBuf::new();
        tcp(&mut headers, &LINK, head, 64, 1, payload);
        [&headers[..], payload].concat()
    }
}

/// Frames with the times at which they are shown.
type Frames = Vec<(Nanos, Vec<u8>)>;

/// One connection as production has it.
struct Talk {
    flow: Flow,
    /// Next number of the client and of the server.
    next: [Seq; 2],
    at: Nanos,
    rtt: Nanos,
    frames: Frames,
}

impl Talk {
    fn new(rng: &mut Rng, at: Nanos) -> Self {
        let src = client(rng);
        let dst = PRODUCTION[rng.range(0, 1) as usize];
        Self {
            flow: Flow { src, dst },
            next: [Seq(rng.bits() as u32), Seq(rng.bits() as u32)],
            at,
            rtt: rng.range(MS / 10, 50 * MS),
            frames: Vec::new(),
        }
    }

    fn segment(&mut self, server: bool, flags: Flags, len: usize) {
        let (me, other) = (usize::from(server), usize::from(!server));
        let syn = flags.has(Flags::SYN);
        let first = syn && !server;
        let head = Head {
            flow: if server {
                self.flow.reversed()
            } else {
                self.flow
            },
            seq: self.next[me],
            ack: if first { Seq(0) } else { self.next[other] },
            flags: if first { flags } else { flags.with(Flags::ACK) },
            window: 501,
            urgent: 0,
            options: Options {
                mss: syn.then_some(1_460),
                window_scale: syn.then_some(7),
                ..Options::default()
            },
            payload_len: len as u32,
        };
        self.next[me] = head.end();
        self.frames
            .push((self.at, frame::build(&head, &vec![b'q'; len])));
        self.at += 10_000;
    }

    fn open(&mut self) {
        self.segment(false, Flags::SYN, 0);
        self.segment(true, Flags::SYN, 0);
        self.at += self.rtt;
        self.segment(false, Flags::ACK, 0);
    }

    /// Bytes in segments of at most `mss`.
    fn say(&mut self, server: bool, mut len: usize, mss: usize) {
        while len > 0 {
            let n = len.min(mss);
            len -= n;
            let flags = if len == 0 { Flags::PSH } else { Flags::ACK };
            self.segment(server, flags, n);
        }
    }

    fn turn(&mut self, rng: &mut Rng, mss: usize) {
        let asks = 1 << rng.range(0, 11);
        self.say(false, rng.range(1, asks) as usize, mss);
        let answers = 1 << rng.range(0, 13);
        self.say(true, rng.range(1, answers) as usize, 1_460);
        self.at += self.rtt;
        self.segment(false, Flags::ACK, 0);
    }

    fn close(&mut self, rng: &mut Rng) {
        match rng.range(0, 9) {
            0 => self.segment(false, Flags::RST, 0),
            1 => self.segment(true, Flags::RST, 0),
            // It stays open.
            2 => {}
            first => {
                let server = first < 6;
                self.segment(server, Flags::FIN, 0);
                self.segment(!server, Flags::FIN, 0);
                self.segment(server, Flags::ACK, 0);
            }
        }
    }
}

/// A client, of few enough for ports to be used again.
fn client(rng: &mut Rng) -> Endpoint {
    let host = rng.range(1, 40) as u8;
    Endpoint::new(
        Addr::v4([192, 0, 2, host]),
        rng.range(40_000, 40_999) as u16,
    )
}

/// See the module's documentation.
pub struct Traffic {
    rng: Rng,
    /// Whom strangers meddle with.
    known: Vec<Flow>,
}

impl Traffic {
    /// The day that `seed` names.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed ^ 0xda7),
            known: Vec::new(),
        }
    }

    /// What begins in the minute that begins at `now`. It may go on for longer.
    pub fn minute(&mut self, now: Nanos) -> Frames {
        let mut all = Frames::new();
        for _ in 0..self.rng.range(200, 500) {
            let at = now + self.rng.range(0, MINUTE - 1);
            let talk = self.talk(at);
            all.extend(talk);
        }
        // Each of these comes once in some minutes.
        let hostile: [fn(&mut Self, Nanos) -> Frames; 6] = [
            Self::flood,
            Self::scan,
            Self::crumbs,
            Self::strays,
            Self::noise,
            Self::holes,
        ];
        for attack in hostile {
            if self.rng.per_mille(300) {
                let at = now + self.rng.range(0, MINUTE - 1);
                all.extend(attack(self, at));
            }
        }
        self.weather(all)
    }

    /// Frames are lost, doubled and late.
    fn weather(&mut self, all: Frames) -> Frames {
        let rng = &mut self.rng;
        let mut shown = Frames::with_capacity(all.len());
        for (at, bytes) in all {
            if rng.per_mille(3) {
                continue;
            }
            if rng.per_mille(5) {
                shown.push((at + rng.range(0, MS), bytes.clone()));
            }
            let late = if rng.per_mille(5) {
                rng.range(0, 5 * MS)
            } else {
                0
            };
            shown.push((at + late, bytes));
        }
        shown
    }

    /// An ordinary client.
    fn talk(&mut self, at: Nanos) -> Frames {
        let rng = &mut self.rng;
        let mut talk = Talk::new(rng, at);
        if self.known.len() < 200 {
            self.known.push(talk.flow);
        } else {
            let i = rng.range(0, 199) as usize;
            self.known[i] = talk.flow;
        }
        talk.open();
        for _ in 0..rng.range(0, 6) {
            let mss = [1_460, 1_460, 536, 48][rng.range(0, 3) as usize];
            talk.turn(rng, mss);
            talk.at += rng.range(0, 4 * SECOND);
        }
        talk.close(rng);
        talk.frames
    }

    /// SYNs from everywhere.
    fn flood(&mut self, at: Nanos) -> Frames {
        let rng = &mut self.rng;
        let mut all = Frames::new();
        for i in 0..3_000 {
            let mut talk = Talk::new(rng, at + i * MS / 2);
            let [_, b, c, d] = (rng.bits() as u32).to_be_bytes();
            talk.flow.src.addr = Addr::v4([100, b, c, d]);
            talk.segment(false, Flags::SYN, 0);
            all.extend(talk.frames);
        }
        all
    }

    /// Connections that production refuses, or that go no further than its answer.
    fn scan(&mut self, at: Nanos) -> Frames {
        let rng = &mut self.rng;
        let mut all = Frames::new();
        for i in 0..500 {
            let mut talk = Talk::new(rng, at + i * MS);
            talk.segment(false, Flags::SYN, 0);
            let answer = [Flags::RST, Flags::SYN][rng.range(0, 1) as usize];
            talk.segment(true, answer, 0);
            all.extend(talk.frames);
        }
        all
    }

    /// A segment for each byte, in order or every other first.
    fn crumbs(&mut self, at: Nanos) -> Frames {
        let rng = &mut self.rng;
        let mut talk = Talk::new(rng, at);
        talk.open();
        let begin = talk.frames.len();
        talk.say(false, 3_000, 1);
        if rng.per_mille(500) {
            let (said, times): (Vec<_>, Vec<_>) = talk
                .frames
                .drain(begin..)
                .map(|(at, bytes)| (bytes, at))
                .unzip();
            let odd = said.iter().skip(1).step_by(2);
            let even = said.iter().step_by(2);
            let bytes = odd.chain(even).cloned();
            talk.frames.extend(times.into_iter().zip(bytes));
        }
        talk.close(rng);
        talk.frames
    }

    /// Segments with any numbers, of connections that there are.
    fn strays(&mut self, at: Nanos) -> Frames {
        let rng = &mut self.rng;
        let mut all = Frames::new();
        for (i, flow) in self.known.iter().enumerate() {
            let server = rng.per_mille(500);
            let flags = [Flags::RST, Flags::ACK, Flags::FIN, Flags::PSH, Flags::SYN];
            let len = rng.range(0, 1) * rng.range(0, 1_000);
            let head = Head {
                flow: if server { flow.reversed() } else { *flow },
                seq: Seq(rng.bits() as u32),
                ack: Seq(rng.bits() as u32),
                flags: flags[rng.range(0, 4) as usize].with(Flags::ACK),
                window: rng.bits() as u16,
                urgent: 0,
                options: Options::default(),
                payload_len: len as u32,
            };
            let bytes = frame::build(&head, &vec![b's'; len as usize]);
            all.push((at + i as u64 * MS, bytes));
        }
        all
    }

    /// Frames of any bytes, some of which begin as a segment does.
    fn noise(&mut self, at: Nanos) -> Frames {
        let rng = &mut self.rng;
        let mut all = Frames::new();
        for i in 0..500 {
            let mut talk = Talk::new(rng, at + i * MS);
            talk.segment(false, Flags::PSH, rng.range(0, 300) as usize);
            let mut bytes = talk.frames.remove(0).1;
            for _ in 0..rng.range(1, 8) {
                let i = rng.range(0, bytes.len() as u64 - 1) as usize;
                bytes[i] = rng.bits() as u8;
            }
            bytes.truncate(rng.range(1, bytes.len() as u64) as usize);
            all.push((at + i * MS, bytes));
        }
        all
    }

    /// Clients of which half the frames are not shown.
    fn holes(&mut self, at: Nanos) -> Frames {
        let mut all = Frames::new();
        for i in 0..50 {
            let talk = self.talk(at + i * 20 * MS);
            all.extend(talk.into_iter().filter(|_| self.rng.per_mille(500)));
        }
        all
    }
}
