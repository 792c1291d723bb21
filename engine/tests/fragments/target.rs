//! A target for the worker loop: it accepts every connection, keeps what clients send, acknowledges
//! it and closes when they do.

use arrayvec::ArrayVec;
use dpdk::Payload;
use std::collections::BTreeMap;
use std::ops::Range;
use wire::decode::{Local, local};
use wire::io::{Tx, TxError};
use wire::{Flags, Flow, Head, Options, Seq};

/// The transmit queue that leads to the target.
#[derive(Default)]
pub struct Wire {
    frames: Vec<Vec<u8>>,
}

impl Tx for Wire {
    type Payload = Payload;

    fn send(
        &mut self,
        headers: &[u8],
        payload: Option<(&mut Payload, Range<usize>)>,
    ) -> Result<(), TxError> {
        let mut frame = headers.to_vec();
        if let Some((payload, range)) = payload {
            frame.extend(&payload.bytes()[range]);
        }
        self.frames.push(frame);
        Ok(())
    }

    fn flush(&mut self) -> usize {
        0
    }
}

impl Wire {
    /// The frames sent since the last call.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.frames)
    }
}

const ISN: Seq = Seq(7_000);

#[derive(Default)]
struct Connection {
    next: Seq,
    bytes: Vec<u8>,
    closed: bool,
}

/// All connections there were.
#[derive(Default)]
pub struct Target {
    connections: BTreeMap<String, Vec<Connection>>,
}

impl Target {
    /// Takes a frame, and says what the target answers.
    pub fn receive(&mut self, frame: &[u8]) -> ArrayVec<Head, 2> {
        let mut answers = ArrayVec::new();
        let Local::Tcp(p) = local(frame, frame.len()) else {
            return answers;
        };
        let (head, data) = (&p.head, &frame[p.payload_range(frame.len())]);
        let list = self.connections.entry(key(&head.flow)).or_default();
        if head.flags.has(Flags::SYN) {
            list.push(Connection {
                next: head.seq + 1,
                ..Connection::default()
            });
            let options = Options {
                mss: Some(1_460),
                ..Options::default()
            };
            answers.push(Head {
                options,
                ..answer(head, ISN, head.seq + 1, Flags::SYN)
            });
            return answers;
        }
        let Some(c) = list.last_mut() else {
            return answers;
        };
        if !data.is_empty() && head.seq == c.next {
            c.bytes.extend(data);
            c.next += data.len() as u32;
        }
        let sent = ISN + 1 + u32::from(c.closed);
        if head.flags.has(Flags::FIN) && head.end() == c.next + 1 && !c.closed {
            c.next += 1;
            c.closed = true;
            answers.push(answer(head, sent, c.next, Flags::FIN));
        } else if !data.is_empty() {
            answers.push(answer(head, sent, c.next, Flags::PSH));
        }
        answers
    }

    /// What each client has sent on each of its connections.
    pub fn received(self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let bytes = |c: Vec<Connection>| c.into_iter().map(|c| c.bytes).collect();
        let list = self.connections.into_iter();
        list.map(|(k, c)| (k, bytes(c))).collect()
    }
}

fn key(flow: &Flow) -> String {
    flow.src.to_string()
}

fn answer(to: &Head, seq: Seq, ack: Seq, flags: Flags) -> Head {
    Head {
        flow: to.flow.reversed(),
        seq,
        ack,
        flags: flags.with(Flags::ACK),
        window: 65_535,
        urgent: 0,
        options: Options::default(),
        payload_len: 0,
    }
}
