//! A target that costs little: it keeps no state, since each segment of a client says itself where
//! both streams stand, and answers with headers that are copied and filled in.

use crate::flood::Flood;
use crate::frames::{BenchFrame, Buffer, Maker, Pool, ROOM};
use crate::traffic::{LINK, RESPONSE, Schedule, TARGET, Templates};
use arrayvec::ArrayVec;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use wire::build::{LinkHeader, tcp};
use wire::checksum::Sum;
use wire::head::HeaderBuf;
use wire::io::{BURST, Payload, Rx, Tx, TxError};
use wire::ipv4::protocol::TCP;
use wire::{Addr, Endpoint, Flags, Flow, Head, Options, Seq};

/// Polls of the replay port that pass before a response is there.
const DELAY: u64 = 16;
/// Responses that may wait.
const CAPACITY: usize = 1 << 16;

/// Headers of the three kinds of answer.
struct Answers {
    syn: HeaderBuf,
    data: HeaderBuf,
    fin: HeaderBuf,
}

impl Answers {
    fn new() -> Self {
        let build = |flags: Flags, payload: usize| {
            let syn = flags.has(Flags::SYN);
            let head = Head {
                flow: Flow {
                    src: TARGET,
                    dst: Endpoint::new(Addr::v4([10, 64, 0, 0]), 20_000),
                },
                seq: Seq(0),
                ack: Seq(0),
                flags: flags.with(Flags::ACK),
                window: u16::MAX,
                urgent: 0,
                options: Options {
                    mss: syn.then_some(1460),
                    window_scale: syn.then_some(7),
                    sack_permitted: syn,
                    timestamps: Some((1, 1)),
                    ..Options::default()
                },
                payload_len: payload as u32,
            };
            let link = LinkHeader {
                dst: LINK.src,
                src: LINK.dst,
            };
            let mut out = HeaderBuf::new();
            tcp(&mut out, &link, &head, 64, 1, &[b'x'; ROOM][..payload]);
            out
        };
        Self {
            syn: build(Flags::SYN, 0),
            data: build(Flags::PSH, RESPONSE as usize),
            fin: build(Flags::FIN, 0),
        }
    }

    /// The answer to a segment with these IPv4 headers, if it asks for one: SYN, payload and FIN
    /// do. Returns the length of the frame whose headers it has written; their checksums are
    /// those that a sender leaves to its hardware, which the engine verifies all the same.
    #[inline]
    fn write(&self, sent: &[u8], payload: usize, out: &mut Buffer) -> Option<usize> {
        // Ethernet, IPv4 without options, TCP.
        let (fixed, options) = sent.split_first_chunk::<54>()?;
        let flags = Flags(fixed[47]);
        let word = |at: usize| {
            u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let (mut seq, ack) = (word(42), word(38));
        let syn = flags.has(Flags::SYN);
        let (headers, len, taken) = if flags.has(Flags::RST) {
            return None;
        } else if syn {
            seq = !ack;
            (&self.syn, 0, 1)
        } else if payload > 0 {
            (&self.data, RESPONSE as usize, payload as u32)
        } else if flags.has(Flags::FIN) {
            (&self.fin, 0, 1)
        } else {
            return None;
        };
        out[..headers.len()].copy_from_slice(headers);
        out[30..34].copy_from_slice(&fixed[26..30]);
        out[36..38].copy_from_slice(&fixed[34..36]);
        out[38..42].copy_from_slice(&seq.to_be_bytes());
        out[42..46].copy_from_slice(&ack.wrapping_add(taken).to_be_bytes());
        // Timestamps stand behind MSS and SACK permitted on a SYN, behind two NOPs otherwise.
        let at = if syn { 8 } else { 4 };
        let stamp = options.get(at..at + 4)?;
        out[54 + at..58 + at].copy_from_slice(stamp);
        out[58 + at..62 + at].copy_from_slice(stamp);
        let all = headers.len() + len;
        let client = Addr::v4([fixed[26], fixed[27], fixed[28], fixed[29]]);
        let pseudo = Sum::new().pseudo_header(&TARGET.addr, &client, TCP, (all - 34) as u32);
        out[24..26].fill(0);
        out[50..52].copy_from_slice(&(!pseudo.finish()).to_be_bytes());
        Some(all)
    }
}

/// The target, seen from the replay port.
pub struct Target<M: Maker> {
    maker: M,
    answers: Answers,
    /// Answers, and the poll from which they are there.
    queue: VecDeque<(u64, M::Frame)>,
    polls: u64,
    /// Segments that were sent to it.
    pub segments: u64,
    /// Answers that found no buffer or no room: there must be none.
    pub lost: u64,
    /// Resets among the segments: there must be none.
    pub resets: u64,
}

impl<M: Maker> Target<M> {
    /// A target whose answers `maker` makes.
    pub fn new(maker: M) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            maker,
            answers: Answers::new(),
            queue: VecDeque::with_capacity(CAPACITY),
            polls: 0,
            segments: 0,
            lost: 0,
            resets: 0,
        }))
    }

    /// A segment arrives.
    #[inline]
    pub fn segment(&mut self, headers: &[u8], payload: usize) {
        self.segments += 1;
        let flags = Flags(headers.get(47).copied().unwrap_or(0));
        self.resets += u64::from(flags.has(Flags::RST));
        // A bare ACK needs no buffer.
        if payload == 0 && !flags.has(Flags::SYN) && !flags.has(Flags::FIN) {
            return;
        }
        let mut written = None;
        let answers = &self.answers;
        let frame = self.maker.make(|out| {
            written = answers.write(headers, payload, out);
            written.unwrap_or(0)
        });
        match (written, frame) {
            (Some(_), Some(frame)) if self.queue.len() < CAPACITY => {
                self.queue.push_back((self.polls + DELAY, frame));
            }
            (None, Some(_)) => {}
            _ => self.lost += 1,
        }
    }

    /// Answers that have arrived.
    #[inline]
    pub fn poll(&mut self, out: &mut ArrayVec<M::Frame, BURST>) -> usize {
        self.polls += 1;
        let before = out.len();
        while !out.is_full()
            && self.queue.front().is_some_and(|(at, _)| *at <= self.polls)
            && let Some((_, frame)) = self.queue.pop_front()
        {
            out.push(frame);
        }
        out.len() - before
    }

    /// Answers on their way.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}

/// What the worker receives from, in memory: the mirror's schedule, or the target's answers.
pub enum MemorySource {
    /// A mirror port.
    Mirror(Box<Mirror>),
    /// A mirror port that shows SYNs alone.
    Flood(Box<Flood>),
    /// The replay port.
    Replay(Rc<RefCell<Target<Pool>>>),
}

/// A mirror port in memory that makes its frames as it is polled.
pub struct Mirror {
    /// What comes next.
    pub schedule: Rc<RefCell<Schedule>>,
    templates: Templates,
    pool: Pool,
}

impl Mirror {
    /// A mirror of what `schedule` says, through this many buffers.
    pub fn new(schedule: Rc<RefCell<Schedule>>, buffers: usize) -> Self {
        Self {
            schedule,
            templates: Templates::new(),
            pool: Pool::new(buffers),
        }
    }
}

impl Rx for Mirror {
    type Frame = BenchFrame;

    #[inline]
    fn rx_burst(&mut self, out: &mut ArrayVec<BenchFrame, BURST>) -> usize {
        let before = out.len();
        let mut schedule = self.schedule.borrow_mut();
        while !out.is_full()
            && let Some(segment) = schedule.next()
        {
            let templates = &self.templates;
            let Some(frame) = self.pool.make(|b| templates.write(&segment, b)) else {
                break;
            };
            out.push(frame);
        }
        out.len() - before
    }
}

impl Rx for MemorySource {
    type Frame = BenchFrame;

    #[inline]
    fn rx_burst(&mut self, out: &mut ArrayVec<BenchFrame, BURST>) -> usize {
        match self {
            Self::Mirror(m) => m.rx_burst(out),
            Self::Flood(f) => f.rx_burst(out),
            Self::Replay(t) => t.borrow_mut().poll(out),
        }
    }

    #[inline]
    fn prefetch<T>(of: &T) {
        dpdk::prefetch(of);
    }
}

/// The replay port's transmit side in memory.
pub struct MemorySink {
    /// Where everything goes.
    pub target: Rc<RefCell<Target<Pool>>>,
    queued: usize,
}

impl MemorySink {
    /// A port that leads to this target.
    pub fn new(target: Rc<RefCell<Target<Pool>>>) -> Self {
        Self { target, queued: 0 }
    }
}

impl Tx for MemorySink {
    type Payload = crate::frames::BenchPayload;

    #[inline]
    fn send(
        &mut self,
        headers: &[u8],
        payload: Option<(&mut Self::Payload, Range<usize>)>,
    ) -> Result<(), TxError> {
        // A driver keeps a reference until the NIC is done; here that is at once.
        let len = payload.map_or(0, |(p, range)| {
            let shared = p.share();
            shared.bytes().get(range).map_or(0, <[u8]>::len)
        });
        self.target.borrow_mut().segment(headers, len);
        self.queued += 1;
        Ok(())
    }

    #[inline]
    fn prefetch<T>(of: &T) {
        dpdk::prefetch(of);
    }

    #[inline]
    fn flush(&mut self) -> usize {
        std::mem::take(&mut self.queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::decode::{Local, local};
    use wire::io::Frame;

    fn ask(flags: Flags, payload: usize, syn: bool) -> Option<Head> {
        let head = Head {
            flow: Flow {
                src: Endpoint::new(Addr::v4([10, 64, 1, 2]), 4321),
                dst: TARGET,
            },
            seq: Seq(u32::MAX),
            ack: Seq(77),
            flags,
            window: 1,
            urgent: 0,
            options: Options {
                mss: syn.then_some(1460),
                window_scale: syn.then_some(7),
                sack_permitted: syn,
                timestamps: Some((1234, 5)),
                ..Options::default()
            },
            payload_len: payload as u32,
        };
        let mut headers = HeaderBuf::new();
        tcp(&mut headers, &LINK, &head, 64, 1, &vec![0; payload]);
        let target = Target::new(Pool::new(4));
        let mut target = target.borrow_mut();
        target.segment(&headers, payload);
        let mut out = ArrayVec::new();
        for _ in 1..DELAY {
            assert_eq!(target.poll(&mut out), 0, "too early");
        }
        target.poll(&mut out);
        assert_eq!(target.lost, 0);
        out.first().map(|f| match local(f.bytes(), f.frame_len()) {
            Local::Tcp(p) => p.head,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn what_asks_for_an_answer_gets_it() {
        let syn = ask(Flags::SYN, 0, true).unwrap();
        assert_eq!(syn.flags, Flags::SYN.with(Flags::ACK));
        assert_eq!((syn.seq, syn.ack), (Seq(0), Seq(0)));
        assert_eq!(syn.options.timestamps, Some((1234, 1234)));
        assert_eq!(syn.options.mss, Some(1460));
        assert_eq!(syn.flow.src, TARGET);
        assert_eq!(syn.flow.dst, Endpoint::new(Addr::v4([10, 64, 1, 2]), 4321));
        let data = ask(Flags::ACK.with(Flags::PSH), 10, false).unwrap();
        assert_eq!((data.seq, data.ack), (Seq(77), Seq(9)));
        assert_eq!(data.payload_len, RESPONSE);
        assert_eq!(data.options.timestamps, Some((1234, 1234)));
        let fin = ask(Flags::ACK.with(Flags::FIN), 0, false).unwrap();
        assert!(fin.flags.has(Flags::FIN));
        assert_eq!((fin.seq, fin.ack, fin.payload_len), (Seq(77), Seq(0), 0));
    }

    #[test]
    fn an_acknowledgment_and_a_reset_get_none() {
        assert_eq!(ask(Flags::ACK, 0, false), None);
        assert_eq!(ask(Flags::ACK.with(Flags::RST), 0, false), None);
    }
}
