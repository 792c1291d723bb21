//! The traffic that the bench mirrors: client sessions whose every segment follows from the
//! session's number and the round, so that any number of them costs no memory here and making a
//! frame costs little.
//!
//! Segments come interleaved: each step of the [`Schedule`] begins one unit (a session, or a
//! request of one) and carries earlier units on by a stage, as many sessions at different points of
//! their lives look on a wire.

use crate::frames::{Buffer, ROOM};
use wire::build::{LinkHeader, tcp};
use wire::checksum::Sum;
use wire::head::HeaderBuf;
use wire::ipv4::protocol::TCP;
use wire::{Addr, Endpoint, Flags, Flow, Head, Options, Seq};

/// Bytes of a request.
pub const REQUEST: u32 = 200;
/// Bytes of a response, which fit one segment.
pub const RESPONSE: u32 = 1000;
/// Where production listens.
pub const PRODUCTION: Endpoint = Endpoint::new(Addr::v4([10, 10, 0, 2]), 80);
/// The target.
pub const TARGET: Endpoint = Endpoint::new(Addr::v4([10, 20, 0, 2]), 8080);
/// Sessions with the same client address.
const PORTS: u64 = 16;
/// Sessions begun between two segments of one that is short: more than the target's answers and
/// acknowledgments take, at every rate measured, so that the same segments are sent at each.
const SHORT_LAG: u64 = 256;
/// Clients there can be, so that addresses stay in 10.64.0.0/10.
pub const SESSIONS: u64 = PORTS << 22;

/// What a segment is in its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Client's SYN.
    Syn,
    /// Server's SYN and ACK.
    SynAck,
    /// Client's ACK of it.
    Ack,
    /// Client's request.
    Request,
    /// Server's response.
    Response,
    /// Client's ACK of the response.
    ResponseAck,
    /// Client's FIN.
    Fin,
    /// Server's FIN.
    ServerFin,
    /// Client's ACK of it.
    LastAck,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Syn,
        Self::SynAck,
        Self::Ack,
        Self::Request,
        Self::Response,
        Self::ResponseAck,
        Self::Fin,
        Self::ServerFin,
        Self::LastAck,
    ];

    const fn is_client(self) -> bool {
        !matches!(self, Self::SynAck | Self::Response | Self::ServerFin)
    }
}

/// One segment of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// What it is.
    pub kind: Kind,
    /// Whose; below [`SESSIONS`].
    pub session: u64,
    /// Requests and responses before it.
    pub round: u32,
}

impl Segment {
    /// The client's endpoint.
    #[inline]
    pub fn client(&self) -> Endpoint {
        let host = (self.session / PORTS) as u32 & ((1 << 22) - 1);
        let [a, b, c, d] = (0x0a40_0000 + host).to_be_bytes();
        Endpoint::new(
            Addr::v4([a, b, c, d]),
            20_000 + (self.session % PORTS) as u16 * 1_009,
        )
    }

    /// Sequence and acknowledgment number.
    #[inline]
    fn numbers(&self) -> (Seq, Seq) {
        let client = Seq((self.session as u32).wrapping_mul(0x9e37_79b9));
        let server = Seq(!client.0);
        let said = |rounds: u32| client + 1 + REQUEST.wrapping_mul(rounds);
        let answered = |rounds: u32| server + 1 + RESPONSE.wrapping_mul(rounds);
        let r = self.round;
        match self.kind {
            Kind::Syn => (client, Seq(0)),
            Kind::SynAck => (server, client + 1),
            Kind::Ack | Kind::Request => (said(r), answered(r)),
            Kind::Response => (answered(r), said(r + 1)),
            Kind::ResponseAck | Kind::Fin => (said(r + 1), answered(r + 1)),
            Kind::ServerFin => (answered(r + 1), said(r + 1) + 1),
            Kind::LastAck => (said(r + 1) + 1, answered(r + 1) + 1),
        }
    }

    /// Its header.
    pub fn head(&self) -> Head {
        let (seq, ack) = self.numbers();
        let up = Flow {
            src: self.client(),
            dst: PRODUCTION,
        };
        let psh = Flags::ACK.with(Flags::PSH);
        let (flags, payload_len) = match self.kind {
            Kind::Syn => (Flags::SYN, 0),
            Kind::SynAck => (Flags::SYN.with(Flags::ACK), 0),
            Kind::Ack | Kind::ResponseAck | Kind::LastAck => (Flags::ACK, 0),
            Kind::Request => (psh, REQUEST),
            Kind::Response => (psh, RESPONSE),
            Kind::Fin | Kind::ServerFin => (Flags::ACK.with(Flags::FIN), 0),
        };
        let mut options = Options {
            timestamps: Some((1, 1)),
            ..Options::default()
        };
        if flags.has(Flags::SYN) {
            options.mss = Some(1460);
            options.window_scale = Some(7);
            options.sack_permitted = true;
        }
        Head {
            flow: if self.kind.is_client() {
                up
            } else {
                up.reversed()
            },
            seq,
            ack,
            flags,
            window: 501,
            urgent: 0,
            options,
            payload_len,
        }
    }

    /// The whole frame, checksums complete.
    pub fn frame(&self) -> Vec<u8> {
        let head = self.head();
        let payload = vec![b'x'; head.payload_len as usize];
        let mut headers = HeaderBuf::new();
        tcp(&mut headers, &LINK, &head, 64, 1, &payload);
        [&headers[..], &payload].concat()
    }
}

/// The Ethernet addresses of all frames.
pub const LINK: LinkHeader = LinkHeader {
    dst: [2, 0, 0, 0, 0, 2],
    src: [2, 0, 0, 0, 0, 1],
};

/// Headers of each kind of segment, so that a frame is made by copying and filling in what differs.
/// Checksums are those that a sender leaves to its hardware. The engine verifies them all the same.
pub struct Templates {
    headers: [HeaderBuf; Kind::ALL.len()],
}

impl Templates {
    /// Builds them.
    pub fn new() -> Self {
        Self {
            headers: Kind::ALL.map(|kind| {
                let head = Segment {
                    kind,
                    session: 0,
                    round: 0,
                }
                .head();
                let payload = [b'x'; ROOM];
                let mut headers = HeaderBuf::new();
                tcp(
                    &mut headers,
                    &LINK,
                    &head,
                    64,
                    1,
                    &payload[..head.payload_len as usize],
                );
                headers
            }),
        }
    }

    /// Writes the segment's headers; its payload is whatever is in the buffer. Returns the frame's
    /// length.
    #[inline]
    pub fn write(&self, s: &Segment, out: &mut Buffer) -> usize {
        let headers = &self.headers[s.kind as usize];
        out[..headers.len()].copy_from_slice(headers);
        let client = s.client();
        let (ip, port) = if s.kind.is_client() {
            (26, 34)
        } else {
            (30, 36)
        };
        out[ip..ip + 4].copy_from_slice(&client.addr.v4_bytes());
        out[port..port + 2].copy_from_slice(&client.port.to_be_bytes());
        let (seq, ack) = s.numbers();
        out[38..42].copy_from_slice(&seq.0.to_be_bytes());
        out[42..46].copy_from_slice(&ack.0.to_be_bytes());
        let payload = match s.kind {
            Kind::Request => REQUEST,
            Kind::Response => RESPONSE,
            _ => 0,
        };
        let len = headers.len() + payload as usize;
        // Addition knows no order: the pseudo-header is the same in both directions.
        let pseudo =
            Sum::new().pseudo_header(&client.addr, &PRODUCTION.addr, TCP, (len - 34) as u32);
        out[24..26].fill(0);
        out[50..52].copy_from_slice(&(!pseudo.finish()).to_be_bytes());
        len
    }
}

/// The stages of a unit: what comes, and how many times the lag after its beginning.
type Stages = &'static [(Kind, u64)];

const OPENING: Stages = &[(Kind::Syn, 0), (Kind::SynAck, 1), (Kind::Ack, 2)];
const TURN: Stages = &[
    (Kind::Request, 0),
    (Kind::Response, 1),
    (Kind::ResponseAck, 2),
];
const SHORT: Stages = &[
    (Kind::Syn, 0),
    (Kind::SynAck, 1),
    (Kind::Ack, 2),
    (Kind::Request, 2),
    (Kind::Response, 3),
    (Kind::ResponseAck, 4),
    (Kind::Fin, 4),
    (Kind::ServerFin, 5),
    (Kind::LastAck, 6),
];

/// Which units there are.
#[derive(Clone, Copy)]
enum Units {
    /// The same sessions again and again, in an order that no cache foresees.
    Rounds { sessions: u64, stride: u64 },
    /// One session after another.
    Each,
}

/// An order of segments.
#[derive(Clone)]
pub struct Schedule {
    stages: Stages,
    units: Units,
    lag: u64,
    /// Units from here to before `end` are played.
    first: u64,
    end: u64,
    step: u64,
    stage: usize,
}

impl Schedule {
    fn new(stages: Stages, units: Units, lag: u64, first: u64) -> Self {
        Self {
            stages,
            units,
            lag,
            first,
            end: u64::MAX / 2,
            step: first,
            stage: 0,
        }
    }

    /// The handshakes of `sessions` sessions.
    pub fn opening(sessions: u64) -> Self {
        let mut s = Self::new(OPENING, rounds(sessions), lag(sessions), 0);
        s.end = sessions;
        s
    }

    /// Requests and responses on `sessions` open sessions, round after round until it is told to
    /// finish.
    pub fn turns(sessions: u64) -> Self {
        Self::new(TURN, rounds(sessions), lag(sessions), 0)
    }

    /// Sessions with one request each, from SYN to the last ACK, one after the other until it is
    /// told to finish.
    pub fn short() -> Self {
        Self::new(SHORT, Units::Each, SHORT_LAG, 0)
    }

    /// Leaves out the first `units` units.
    pub fn begin_at(&mut self, units: u64) {
        self.first = units;
        self.step = units;
        self.stage = 0;
    }

    /// Begins no unit any more but carries on those that have begun, up to `units` in all.
    pub fn finish(&mut self, units: Option<u64>) {
        let begun = self.step + u64::from(self.stage > 0);
        self.end = self.first + units.unwrap_or(begun - self.first);
    }
}

impl Iterator for Schedule {
    type Item = Segment;

    #[inline]
    fn next(&mut self) -> Option<Segment> {
        let last = self.stages.last().map_or(0, |(_, lags)| lags * self.lag);
        while self.step < self.end + last {
            while let Some(&(kind, lags)) = self.stages.get(self.stage) {
                self.stage += 1;
                if let Some(unit) = self.step.checked_sub(lags * self.lag)
                    && (self.first..self.end).contains(&unit)
                {
                    let (session, round) = self.units.of(unit);
                    return Some(Segment {
                        kind,
                        session,
                        round,
                    });
                }
            }
            self.stage = 0;
            self.step += 1;
        }
        None
    }
}

impl Units {
    /// Session and round of a unit.
    #[inline]
    fn of(self, unit: u64) -> (u64, u32) {
        match self {
            Self::Each => (unit % SESSIONS, 0),
            Self::Rounds { sessions, stride } => (
                (unit % sessions) * stride % sessions,
                (unit / sessions) as u32,
            ),
        }
    }
}

/// Steps between the segments of a unit: enough for their session to be out of the first-level
/// cache, and less than a round.
fn lag(sessions: u64) -> u64 {
    (sessions / 4).clamp(1, 1024)
}

/// Visits all sessions in strides of the golden section, so that neighbours in time are none in
/// memory.
fn rounds(sessions: u64) -> Units {
    let sessions = sessions.max(1);
    let mut stride = (sessions as f64 * 0.618) as u64 | 1;
    while gcd(stride, sessions) != 1 {
        stride += 2;
    }
    Units::Rounds { sessions, stride }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};
    use wire::decode::mirrored;

    #[test]
    fn a_template_says_what_the_segment_says() {
        let templates = Templates::new();
        let mut buffer = [b'x'; ROOM];
        for kind in Kind::ALL {
            for (session, round) in [(0, 0), (12_345_677, 3), (SESSIONS - 1, 4_000_000)] {
                let s = Segment {
                    kind,
                    session,
                    round,
                };
                let len = templates.write(&s, &mut buffer);
                let whole = s.frame();
                assert_eq!(len, whole.len());
                let quick = mirrored(&buffer[..len], len).unwrap();
                assert_eq!(quick, mirrored(&whole, whole.len()).unwrap());
                assert_eq!(quick.head, s.head());
            }
        }
    }

    #[test]
    fn a_round_visits_every_session_once() {
        for sessions in [4, 10, 1000, 10_000] {
            let mut s = Schedule::turns(sessions);
            s.finish(Some(2 * sessions));
            let mut seen = HashMap::<_, Vec<_>>::new();
            for segment in s {
                seen.entry(segment.session)
                    .or_default()
                    .push((segment.round, segment.kind));
            }
            assert_eq!(seen.len() as u64, sessions);
            let turn = |r| TURN.iter().map(move |(kind, _)| (r, *kind));
            let want: Vec<_> = turn(0).chain(turn(1)).collect();
            assert!(seen.values().all(|got| *got == want));
        }
    }

    #[test]
    fn finishing_completes_what_has_begun() {
        let mut s = Schedule::short();
        let mut got: Vec<_> = s.by_ref().take(5_000).collect();
        s.finish(None);
        got.extend(s);
        let clients: HashSet<_> = got.iter().map(Segment::client).collect();
        assert!(clients.len() > 500);
        assert_eq!(got.len(), clients.len() * SHORT.len());
    }
}
