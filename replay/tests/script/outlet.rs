//! The transmit queue of a script: it keeps what was sent until the script has looked at it, and
//! checks every byte at once.

use crate::settings::{Client, SECOND, START, Settings};
use replay::{Egress, Refused};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use tests::memory::MemoryPayload;
use wire::build::{self, LinkHeader};
use wire::head::HeaderBuf;
use wire::io::Payload;
use wire::{Endpoint, Head, Nanos, Seq};

pub const LINK: LinkHeader = LinkHeader {
    dst: [2; 6],
    src: [4; 6],
};
const ETHERNET: usize = 14;

/// A segment, and when it was handed to the queue.
pub struct Sent {
    pub at: Nanos,
    pub head: Head,
    pub bytes: Vec<u8>,
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
    pub refuse: Option<Refused>,
    pub accepts: bool,
    pub claimed: HashSet<Endpoint>,
    clients: Vec<Client>,
    /// For each client the bytes that the mirror showed, the first of each.
    captured: Vec<HashMap<u32, u8>>,
    pooled: bool,
    mtu: usize,
}

impl Outlet {
    pub fn new(settings: &Settings) -> Self {
        Self {
            now: START,
            waiting: std::collections::VecDeque::new(),
            fault: None,
            refuse: None,
            accepts: true,
            claimed: HashSet::new(),
            captured: vec![HashMap::new(); settings.clients.len()],
            clients: settings.clients.clone(),
            pooled: !settings.params.pool.is_empty(),
            mtu: usize::from(settings.params.mtu),
        }
    }

    /// The mirror shows `bytes` of a client from `first` on. What it showed before of a place
    /// stays.
    pub fn show(&mut self, client: usize, first: Seq, bytes: &[u8]) {
        if let Some(captured) = self.captured.get_mut(client) {
            for (i, &byte) in bytes.iter().enumerate() {
                captured.entry((first + i as u32).0).or_insert(byte);
            }
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
            let bad = bytes.iter().enumerate().find_map(|(i, &byte)| {
                let seq = head.seq + i as u32;
                let place = seq.0.wrapping_sub(client.isn.0) as i32;
                match captured.get(&seq.0) {
                    None => Some(format!("byte {place} was sent, but never captured")),
                    Some(c) if *c != byte => Some(format!(
                        "byte {place} was sent as {byte:#04x}, but captured first as {c:#04x}"
                    )),
                    Some(_) => None,
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
        transfer: u16,
        head: &Head,
        payload: Option<(&mut MemoryPayload, Range<usize>)>,
    ) -> Result<(), Refused> {
        if let Some(reason) = self.refuse {
            return Err(reason);
        }
        let bytes = payload
            .as_ref()
            .and_then(|(p, r)| p.bytes().get(r.clone()))
            .unwrap_or(&[]);
        if bytes.len() != head.payload_len as usize {
            self.blame(format!(
                "{} bytes of payload were sent under a header that says {}",
                bytes.len(),
                head.payload_len
            ));
        }
        self.check_bytes(head, bytes);
        let mut headers = HeaderBuf::new();
        build::tcp(&mut headers, &LINK, head, 64, 0, bytes);
        let len = headers.len() + bytes.len() - ETHERNET;
        if len > self.mtu {
            self.blame(format!(
                "a packet of {len} bytes was sent, the MTU is {}",
                self.mtu
            ));
        }
        let v4 = head.flow.dst.addr.is_v4();
        if v4 != (transfer == 0) {
            self.blame(format!(
                "a segment for {} went out as transfer {transfer}",
                head.flow.dst
            ));
        }
        self.waiting.push_back(Sent {
            at: self.now,
            head: *head,
            bytes: bytes.to_vec(),
        });
        Ok(())
    }

    fn claim(&mut self, client: &Endpoint, _: u16) -> bool {
        if self.pooled || !self.claimed.insert(*client) {
            self.blame(format!(
                "{client} was claimed, but is claimed already or of the pool"
            ));
        }
        true
    }

    fn release(&mut self, client: &Endpoint, _: u16) {
        if !self.claimed.remove(client) {
            self.blame(format!("{client} was released, but was not claimed"));
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
