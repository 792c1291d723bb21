//! Tests of the core, by topic, over one test bed: a mirror that shows scripted frames, a transmit
//! queue that keeps what was sent, and targets that do what the test says.
//!
//! After every event the bed audits the core, and it checks every payload byte that was sent: the
//! byte at a sequence number is a function of that number, and a number that was never captured may
//! never be sent.

mod budget;
mod canary;
mod capture;
mod early;
mod fan;
mod gate;
mod join;
mod lifecycle;
mod loss;
mod numbers;
mod policy;
mod reuse;
mod target;

use super::{Core, Egress, Refused};
use crate::counters::{Counters, Loss, Unused};
use crate::owner::Ownership;
use crate::params::{Params, Transfer};
use ::tests::memory::{MemoryFrame, MemoryPayload};
use std::collections::HashSet;
use std::ops::Range;
use wire::build::{self, LinkHeader};
use wire::head::HeaderBuf;
use wire::io::{Frame, Payload};
use wire::{Addr, Endpoint, Flags, Flow, Head, Nanos, Options, Seq, decode};

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MS;
/// The clients' round-trip time in the tests, if production's server answers at once.
const RTT: Nanos = 10 * MS;

const PRODUCTION: Endpoint = Endpoint::new(Addr::v4([10, 10, 0, 2]), 80);
const TARGET: Endpoint = Endpoint::new(Addr::v4([10, 20, 0, 2]), 8080);

fn params() -> Params {
    let transfer = Transfer::new(PRODUCTION, TARGET);
    Params {
        session_timeout: 60 * SECOND,
        keepalive_timeout: 120 * SECOND,
        session_bytes: 1 << 20,
        seed: 7,
        ..Params::new(vec![transfer], 16, 64)
    }
}

/// The client's byte at a sequence number.
fn byte_at(seq: Seq) -> u8 {
    (seq.0.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// A segment as it was handed to the transmit queue.
struct Sent {
    target: u16,
    head: Head,
}

/// The transmit queue, and what the test has it do.
#[derive(Default)]
struct Out {
    sent: Vec<Sent>,
    claimed: Vec<Endpoint>,
    released: Vec<Endpoint>,
    captured: HashSet<u32>,
    refuse: Option<Refused>,
    sheds: bool,
}

impl Egress<MemoryPayload> for Out {
    fn send(
        &mut self,
        target: u16,
        head: &Head,
        payload: Option<(&mut MemoryPayload, Range<usize>)>,
    ) -> Result<(), Refused> {
        if let Some(reason) = self.refuse {
            return Err(reason);
        }
        let bytes = payload
            .as_ref()
            .map_or(&[][..], |(p, r)| &p.bytes()[r.clone()]);
        assert_eq!(bytes.len(), head.payload_len as usize, "{head:?}");
        for (i, &b) in bytes.iter().enumerate() {
            let seq = head.seq + i as u32;
            assert!(self.captured.contains(&seq.0), "{seq:?} was never captured");
            assert_eq!(b, byte_at(seq), "another byte than the client's at {seq:?}");
        }
        self.sent.push(Sent {
            target,
            head: *head,
        });
        Ok(())
    }

    fn claim(&mut self, connection: &Flow) -> bool {
        self.claimed.push(connection.src);
        true
    }

    fn release(&mut self, connection: &Flow) {
        self.released.push(connection.src);
    }

    fn accepts_sessions(&self) -> bool {
        !self.sheds
    }
}

/// A conversation in production, as far as it has come.
#[derive(Clone, Copy)]
struct Conv {
    flow: Flow,
    /// Next sequence number of the client and of the server.
    c: Seq,
    s: Seq,
    /// What the client acknowledges with its next segment.
    ack: Seq,
}

impl Conv {
    /// The client at `port`, both sequence numbers close to the wrap.
    fn new(port: u16) -> Self {
        let flow = Flow {
            src: Endpoint::new(Addr::v4([192, 0, 2, 1]), port),
            dst: PRODUCTION,
        };
        Self {
            flow,
            c: Seq(u32::MAX - 40),
            s: Seq(u32::MAX - 90),
            ack: Seq(u32::MAX - 90),
        }
    }

    fn head(&self, flags: Flags, payload_len: u32) -> Head {
        Head {
            flow: self.flow,
            seq: self.c,
            ack: self.ack,
            flags: flags.with(Flags::ACK),
            window: 1000,
            urgent: 0,
            options: Options::default(),
            payload_len,
        }
    }
}

/// One connection as the target sees it.
#[derive(Clone, Copy, Debug)]
struct Conn {
    /// Target to client.
    flow: Flow,
    /// Next byte expected and next to send.
    rcv: Seq,
    snd: Seq,
    window: u16,
}

impl Conn {
    fn head(&self, flags: Flags, payload_len: u32) -> Head {
        Head {
            flow: self.flow,
            seq: self.snd,
            ack: self.rcv,
            flags: flags.with(Flags::ACK),
            window: self.window,
            urgent: 0,
            options: Options::default(),
            payload_len,
        }
    }
}

/// See the module's documentation.
struct Bed {
    core: Core<MemoryPayload>,
    out: Out,
    now: Nanos,
    /// How many of the sent segments the target has seen.
    seen: usize,
}

impl Bed {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Params)) -> Self {
        let mut p = params();
        change(&mut p);
        Self {
            core: Core::new(p, 0),
            out: Out::default(),
            now: SECOND,
            seen: 0,
        }
    }

    fn counters(&self) -> Counters {
        self.core.counters()
    }

    fn lost(&self, reason: Loss) -> (u64, u64) {
        let c = self.counters();
        (c.lost_turns[reason as usize], c.lost_bytes[reason as usize])
    }

    #[track_caller]
    fn audit(&self) {
        if let Err(e) = self.core.audit() {
            panic!("{e}");
        }
    }

    /// Lets time pass, in steps of a millisecond.
    #[track_caller]
    fn pass(&mut self, time: Nanos) {
        let end = self.now + time;
        while self.now < end {
            // Looks each millisecond, but for those at which no timer is due.
            let core = &self.core;
            let sessions = core.capture.sessions.ids();
            let replicas = core.replicas.replicas.ids();
            let due = sessions
                .filter_map(|id| core.capture.timers.deadline(id))
                .chain(replicas.filter_map(|id| core.replicas.timers.deadline(id)))
                .min()
                .unwrap_or(end);
            let wait = due.saturating_sub(self.now).div_ceil(MS).max(1) * MS;
            self.now = (self.now + wait).min(end);
            if self.core.poll(self.now, &mut self.out) > 0 {
                self.audit();
            }
        }
    }

    /// Shows one frame on the mirror: the segment `head` with the client's bytes, `cut` of them
    /// missing at the end, in buffers of `buffer` bytes.
    #[track_caller]
    fn frame(&mut self, head: &Head, cut: usize, buffer: usize) -> Result<(), Unused> {
        self.frame_saying(head, cut, buffer, byte_at)
    }

    /// [`Self::frame`] with other bytes: what `says` gives for each sequence number.
    #[track_caller]
    fn frame_saying(
        &mut self,
        head: &Head,
        cut: usize,
        buffer: usize,
        says: impl Fn(Seq) -> u8,
    ) -> Result<(), Unused> {
        let from_client = head.flow.dst.port == PRODUCTION.port;
        let len = head.payload_len as usize;
        let first = head.seq + u32::from(head.flags.has(Flags::SYN));
        let payload: Vec<u8> = (0..len as u32).map(|i| says(first + i)).collect();
        let mut headers = HeaderBuf::new();
        let link = LinkHeader {
            dst: [2; 6],
            src: [4; 6],
        };
        build::tcp(&mut headers, &link, head, 64, 0, &payload);
        let mut bytes = headers.to_vec();
        bytes.extend_from_slice(&payload[..len - cut]);
        if from_client {
            let there = (0..(len - cut) as u32).map(|i| (first + i).0);
            self.out.captured.extend(there);
        }
        let frame = MemoryFrame::chained(&bytes, buffer);
        let packet = decode::mirrored(frame.bytes(), frame.frame_len()).unwrap();
        let result = self.core.mirror(self.now, &packet, frame, &mut self.out);
        self.audit();
        result
    }

    #[track_caller]
    fn mirror(&mut self, head: &Head) -> Result<(), Unused> {
        self.frame(head, 0, usize::MAX)
    }

    /// The client's SYN alone.
    #[track_caller]
    fn syn(&mut self, c: &mut Conv) -> Result<(), Unused> {
        let mut head = c.head(Flags::SYN, 0);
        head.flags = Flags::SYN;
        head.ack = Seq(0);
        head.options.mss = Some(1460);
        c.c += 1;
        self.mirror(&head)
    }

    /// The server's SYN|ACK, a round trip later.
    #[track_caller]
    fn syn_ack(&mut self, c: &mut Conv) {
        let head = Head {
            flow: c.flow.reversed(),
            seq: c.s,
            ack: c.c,
            ..c.head(Flags::SYN, 0)
        };
        c.s += 1;
        c.ack = c.s;
        assert_eq!(self.mirror(&head), Ok(()));
    }

    /// A whole handshake in production, seen in both directions; the round-trip time is [`RTT`].
    #[track_caller]
    fn open(&mut self, port: u16) -> Conv {
        let mut c = Conv::new(port);
        assert_eq!(self.syn(&mut c), Ok(()));
        self.syn_ack(&mut c);
        self.pass(RTT);
        self.ack(&c);
        c
    }

    /// A handshake in production and one at the target.
    #[track_caller]
    fn open_both(&mut self, port: u16) -> (Conv, Conn) {
        let c = self.open(port);
        let conn = self.accept();
        (c, conn)
    }

    /// The client says `n` bytes.
    #[track_caller]
    fn say(&mut self, c: &mut Conv, n: u32) {
        assert_eq!(self.mirror(&c.head(Flags::PSH, n)), Ok(()));
        c.c += n;
    }

    /// The client says `n` bytes that the mirror does not show.
    fn say_unseen(&mut self, c: &mut Conv, n: u32) {
        c.c += n;
    }

    /// The client acknowledges.
    #[track_caller]
    fn ack(&mut self, c: &Conv) {
        assert_eq!(self.mirror(&c.head(Flags::default(), 0)), Ok(()));
    }

    /// Production's server answers with `n` bytes, which acknowledge the client's, and the client
    /// will acknowledge with its next segment.
    #[track_caller]
    fn answer(&mut self, c: &mut Conv, n: u32) {
        let head = Head {
            flow: c.flow.reversed(),
            seq: c.s,
            ack: c.c,
            ..c.head(Flags::PSH, n)
        };
        c.s += n;
        c.ack = c.s;
        assert_eq!(self.mirror(&head), Ok(()));
    }

    /// The client ends with FIN.
    #[track_caller]
    fn fin(&mut self, c: &mut Conv) {
        assert_eq!(self.mirror(&c.head(Flags::FIN, 0)), Ok(()));
        c.c += 1;
    }

    /// Segments sent since the last call.
    fn take(&mut self) -> Vec<Head> {
        let new = self.out.sent[self.seen..].iter().map(|s| s.head).collect();
        self.seen = self.out.sent.len();
        new
    }

    /// The newest connection request; whatever was sent is taken.
    #[track_caller]
    fn last_syn(&mut self) -> Head {
        self.take();
        let syn = self.out.sent.iter().rfind(|s| s.head.flags == Flags::SYN);
        syn.expect("a SYN was sent").head
    }

    /// Payload ranges among the segments sent since the last call, as offsets from `start`.
    fn sent_since(&mut self, start: Seq) -> Vec<(u32, u32)> {
        self.take()
            .iter()
            .filter(|h| h.payload_len > 0)
            .map(|h| (h.seq.since(start), h.payload_len))
            .collect()
    }

    /// A segment of the target.
    #[track_caller]
    fn respond(&mut self, head: &Head) {
        self.core.response(self.now, self.now, head, &mut self.out);
        self.audit();
    }

    /// The target accepts the newest connection request.
    #[track_caller]
    fn accept(&mut self) -> Conn {
        let heads = self.take();
        let syn = heads
            .iter()
            .rfind(|h| h.flags == Flags::SYN)
            .expect("a SYN was sent");
        self.accept_syn(syn)
    }

    #[track_caller]
    fn accept_syn(&mut self, syn: &Head) -> Conn {
        let mut conn = Conn {
            flow: syn.flow.reversed(),
            rcv: syn.seq + 1,
            snd: Seq(u32::MAX - 3),
            window: 60_000,
        };
        let mut head = conn.head(Flags::SYN, 0);
        head.options.mss = Some(1460);
        conn.snd += 1;
        self.respond(&head);
        conn
    }

    /// The target takes what was sent to `conn` in order, and says whether a FIN came. It
    /// acknowledges.
    #[track_caller]
    fn receive(&mut self, conn: &mut Conn) -> (u32, bool) {
        let (before, mut fin) = (conn.rcv, false);
        loop {
            let heads = self.take();
            let ours: Vec<_> = heads
                .iter()
                .filter(|h| h.flow == conn.flow.reversed())
                .collect();
            let at = conn.rcv;
            for h in ours {
                assert!(!h.flags.has(Flags::RST), "reset at {:?}", h.seq);
                if h.seq.le(conn.rcv) && h.end().gt(conn.rcv) {
                    conn.rcv = h.end();
                    fin |= h.flags.has(Flags::FIN);
                }
            }
            if conn.rcv == at {
                break;
            }
            self.respond(&conn.head(Flags::default(), 0));
        }
        (conn.rcv.since(before) - u32::from(fin), fin)
    }

    /// The target answers with `n` bytes and PSH.
    #[track_caller]
    fn reply(&mut self, conn: &mut Conn, n: u32) {
        let head = conn.head(Flags::PSH, n);
        conn.snd += n;
        self.respond(&head);
    }

    /// The target closes its side.
    #[track_caller]
    fn close(&mut self, conn: &mut Conn) {
        let head = conn.head(Flags::FIN, 0);
        conn.snd += 1;
        self.respond(&head);
    }

    /// The target resets.
    #[track_caller]
    fn reset(&mut self, conn: &Conn) {
        self.respond(&conn.head(Flags::RST, 0));
    }

    /// One request of `n` bytes and its answer of `m`, in production and at the target.
    #[track_caller]
    fn exchange(&mut self, c: &mut Conv, conn: &mut Conn, n: u32, m: u32) {
        self.say(c, n);
        assert_eq!(self.receive(conn), (n, false));
        self.answer(c, m);
        self.reply(conn, m);
        self.pass(RTT);
        self.ack(c);
        self.receive(conn);
    }

    /// Lets the lingering pass: nothing is left.
    #[track_caller]
    fn assert_over(&mut self) {
        self.pass(10 * SECOND);
        assert!(self.core.is_drained());
        assert_eq!(
            (self.core.session_count(), self.core.segment_count()),
            (0, 0)
        );
        assert_eq!(self.core.slots().0, 0);
        let c = self.counters();
        assert_eq!((c.in_flight_turns, c.in_flight_bytes), (0, 0));
    }
}
