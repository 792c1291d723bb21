//! The transmit queue of a script: it keeps what was sent until the script has looked at it, and
//! checks every byte at once.

use crate::settings::{Client, SECOND, START, Settings};
use crate::shown::Shown;
use replay::{Egress, Refused};
use std::collections::HashSet;
use std::ops::Range;
use tests::memory::MemoryPayload;
use wire::build::{self, LinkHeader};
use wire::checksum::Sum;
use wire::head::HeaderBuf;
use wire::io::Payload;
use wire::{Flow, Head, Nanos, Seq};

pub const LINK: LinkHeader = LinkHeader {
    dst: [2; 6],
    src: [4; 6],
};
const ETHERNET: usize = 14;

/// A segment, and when it was handed to the queue.
pub struct Sent {
    pub at: Nanos,
    pub head: Head,
    pub payload: Option<MemoryPayload>,
}

impl Sent {
    pub fn bytes(&self) -> &[u8] {
        self.payload.as_ref().map_or(&[], |p| p.bytes())
    }
}

/// The byte of client number `client` at a sequence number.
pub fn byte_at(client: usize, seq: Seq) -> u8 {
    let mixed = seq.0.wrapping_add(client as u32 * 0x0101_0101);
    (mixed.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// See the module's documentation.
pub struct Outlet {
    pub now: Nanos,
    /// Not looked at yet.
    pub waiting: std::collections::VecDeque<Sent>,
    /// The first thing that must never happen and did.
    pub fault: Option<String>,
    /// What becomes of the segments of each transfer, if they are refused.
    pub refuse: [Option<Refused>; 2],
    pub accepts: bool,
    pub claimed: HashSet<Flow>,
    clients: Vec<Client>,
    /// What the mirror showed of each client.
    captured: Vec<Shown>,
    pooled: bool,
    mtu: usize,
}

impl Outlet {
    pub fn new(settings: &Settings) -> Self {
        Self {
            now: START,
            waiting: std::collections::VecDeque::new(),
            fault: None,
            refuse: [None; 2],
            accepts: true,
            claimed: HashSet::new(),
            captured: settings.clients.iter().map(|c| Shown::new(c.isn)).collect(),
            clients: settings.clients.clone(),
            pooled: !settings.params.pool.is_empty(),
            mtu: usize::from(settings.params.mtu),
        }
    }

    /// The mirror shows `bytes` of a client from `first` on, all of them `fill` if that is some
    /// byte. What it showed before of a place stays.
    pub fn show(&mut self, client: usize, first: Seq, bytes: &[u8], fill: Option<u8>) {
        if let Some(captured) = self.captured.get_mut(client) {
            captured.show(first, bytes, fill);
        }
    }

    fn blame(&mut self, what: String) {
        self.fault.get_or_insert(what);
    }

    /// Checks that the bytes are one client's, and were captured. A connection from a client's own
    /// endpoint carries that client's bytes.
    fn check_bytes(&mut self, head: &Head, bytes: &[u8]) {
        let own = |c: &Client| c.flow.src == head.flow.src;
        let any = !self.clients.iter().any(own);
        let mut wrong = String::from("there is no client");
        for (client, captured) in self.clients.iter().zip(&self.captured) {
            if !any && !own(client) {
                continue;
            }
            let bad = captured.check(head.seq, bytes).err().map(|(place, there)| {
                let i = (place as u32).wrapping_sub(head.seq.0);
                let place = (head.seq + i).0.wrapping_sub(client.isn.0) as i32;
                match there {
                    None => format!("byte {place} was sent, but never captured"),
                    Some(c) => {
                        let byte = bytes[i as usize];
                        format!(
                            "byte {place} was sent as {byte:#04x}, but captured first as {c:#04x}"
                        )
                    }
                }
            });
            match bad {
                None => return,
                Some(bad) => wrong = bad,
            }
        }
        self.blame(wrong);
    }
}

impl Egress<MemoryPayload> for Outlet {
    fn send(
        &mut self,
        target: u16,
        head: &Head,
        payload: Option<(&mut MemoryPayload, Range<usize>)>,
    ) -> Result<(), Refused> {
        if let Some(Some(reason)) = self.refuse.get(usize::from(target)) {
            return Err(*reason);
        }
        let payload = payload.map(|(payload, range)| {
            let mut part = payload.share();
            part.truncate(range.end);
            part.trim_front(range.start);
            part
        });
        let bytes = payload.as_ref().map_or(&[][..], |p| p.bytes());
        if bytes.len() != head.payload_len as usize {
            self.blame(format!(
                "{} bytes of payload were sent under a header that says {}",
                bytes.len(),
                head.payload_len
            ));
        }
        self.check_bytes(head, bytes);
        let mut headers = HeaderBuf::new();
        // Its length is what counts here: its checksum is of no concern.
        build::tcp_with_sum(&mut headers, &LINK, head, 64, 0, bytes.len(), Sum::new());
        let len = headers.len() + bytes.len() - ETHERNET;
        if len > self.mtu {
            self.blame(format!(
                "a packet of {len} bytes was sent, the MTU is {}",
                self.mtu
            ));
        }
        let v4 = head.flow.dst.addr.is_v4();
        if v4 != (target == 0) {
            self.blame(format!(
                "a segment for {} went out to target {target}",
                head.flow.dst
            ));
        }
        self.waiting.push_back(Sent {
            at: self.now,
            head: *head,
            payload,
        });
        Ok(())
    }

    fn claim(&mut self, connection: &Flow) -> bool {
        if self.pooled || !self.claimed.insert(*connection) {
            self.blame(format!(
                "{connection} was claimed, but is claimed already or of the pool"
            ));
        }
        true
    }

    fn release(&mut self, connection: &Flow) {
        if !self.claimed.remove(connection) {
            self.blame(format!("{connection} was released, but was not claimed"));
        }
    }

    fn accepts_sessions(&self) -> bool {
        self.accepts
    }
}

/// A time for a reader: milliseconds since the script's start.
pub fn clock(at: Nanos) -> String {
    let us = at.saturating_sub(START) / 1_000;
    format!("{}.{:06} s", us * 1_000 / SECOND, us % 1_000_000)
}
