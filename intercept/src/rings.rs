//! What receive cores and the server exchange: claims one way, batches of encoded records the
//! other, over bounded rings.
//!
//! The core writes records straight into a batch's buffer. Buffers are allocated at the start and
//! go round: empty ones to the core, full ones to the server, and back. What always holds: every
//! record that [`CoreEnd::push`] accepted is in a batch or in a counter; no call of the core
//! allocates, waits or makes a system call, [`CoreEnd::wake`] excepted.

use crate::claims::Route;
use crossbeam::queue::ArrayQueue;
use link::{BATCH_BYTES, BATCH_RECORDS, Claim, MAX_RECORD, encode_path_mtu, encode_record};
use std::sync::Arc;
use wake::Waker;
use wire::{Flow, Head, Nanos, Seq};

/// Batches that the server may have ahead of it before the core lets them fill up instead of
/// sending them at once: small ones cost most, and a busy server gains nothing from having them
/// early.
const SHORT_QUEUE: usize = 4;

/// Routes that a core fills batches for at the same time.
const OPEN_BATCHES: usize = 32;

/// Claims that may be on their way to one core.
const COMMANDS: usize = 4096;

/// A change of claims, from the server to a core.
#[derive(Clone, Debug)]
pub enum Command {
    /// This connection claims.
    Claim(Claim, u32),
    /// This connection releases.
    Release(Claim, u32),
}

/// Records of one route, encoded.
#[derive(Debug)]
pub struct Batch {
    /// Whom they are for.
    pub route: Route,
    /// How many.
    pub records: u16,
    /// The records as [`link::encode_record`] writes them.
    pub bytes: Vec<u8>,
}

struct Shared {
    commands: ArrayQueue<Command>,
    full: ArrayQueue<Batch>,
    empty: ArrayQueue<Vec<u8>>,
    /// Wakes the core.
    core: Waker,
}

/// The core's end.
pub struct CoreEnd {
    shared: Arc<Shared>,
    open: Vec<Batch>,
    waker: Waker,
    to_wake: bool,
    dropped: u64,
}

/// The server's end.
pub struct ServerEnd(Arc<Shared>);

/// The rings between one core and the server, with `batches` buffers (at least one). `waker` wakes
/// the server, `core` the core.
pub fn rings(batches: usize, waker: Waker, core: Waker) -> (CoreEnd, ServerEnd) {
    let batches = batches.max(1);
    let shared = Arc::new(Shared {
        commands: ArrayQueue::new(COMMANDS),
        full: ArrayQueue::new(batches),
        empty: ArrayQueue::new(batches),
        core,
    });
    for _ in 0..batches {
        // It has room for exactly this many.
        let _ = shared.empty.push(Vec::with_capacity(BATCH_BYTES));
    }
    let core = CoreEnd {
        shared: Arc::clone(&shared),
        open: Vec::with_capacity(OPEN_BATCHES),
        waker,
        to_wake: false,
        dropped: 0,
    };
    (core, ServerEnd(shared))
}

impl CoreEnd {
    /// The next change of claims.
    #[inline]
    pub fn command(&mut self) -> Option<Command> {
        self.shared.commands.pop()
    }

    /// True if no change of claims waits.
    pub fn is_idle(&self) -> bool {
        self.shared.commands.is_empty()
    }

    /// Puts a record into the batch of its route. If no buffer is left it is dropped and counted.
    pub fn push(&mut self, route: Route, head: &Head, received_at: Nanos, prefix: &[u8]) {
        let put = |bytes: &mut Vec<u8>| encode_record(head, received_at, prefix, bytes);
        self.dropped += u64::from(!self.put(route, put));
    }

    /// Puts a router's word about the path of what goes the other way than `flow` into the batch of
    /// its route. False if no buffer is left: the router will say it again.
    pub fn push_path_mtu(
        &mut self,
        route: Route,
        flow: &Flow,
        seq: Seq,
        mtu: u32,
        at: Nanos,
    ) -> bool {
        self.put(route, |bytes| encode_path_mtu(flow, seq, mtu, at, bytes))
    }

    fn put(&mut self, route: Route, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let at = match self.open.iter().position(|b| b.route == route) {
            Some(at) => at,
            None => {
                if self.open.len() == OPEN_BATCHES {
                    self.send(0);
                }
                let Some(bytes) = self.shared.empty.pop() else {
                    return false;
                };
                self.open.push(Batch {
                    route,
                    records: 0,
                    bytes,
                });
                self.open.len() - 1
            }
        };
        if let Some(batch) = self.open.get_mut(at) {
            encode(&mut batch.bytes);
            batch.records += 1;
            if batch.bytes.len() + MAX_RECORD > BATCH_BYTES
                || usize::from(batch.records) == BATCH_RECORDS
            {
                self.send(at);
            }
        }
        true
    }

    /// Sends what is open, unless the server has enough ahead of it; then it goes when the server
    /// has caught up. To be called once a loop.
    #[inline]
    pub fn flush(&mut self) {
        while !self.open.is_empty() && self.shared.full.len() < SHORT_QUEUE {
            self.send(0);
        }
    }

    /// Sends everything: for the end.
    pub fn flush_all(&mut self) {
        while !self.open.is_empty() {
            self.send(0);
        }
    }

    /// Wakes the server if something was sent since the last time. A system call: for cores that
    /// are about to sleep themselves.
    pub fn wake(&mut self) {
        if std::mem::take(&mut self.to_wake) {
            self.waker.wake();
        }
    }

    /// Records that are in open batches.
    pub fn open_records(&self) -> u64 {
        self.open.iter().map(|b| u64::from(b.records)).sum()
    }

    /// Records that were dropped because the server had not given back a buffer.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn send(&mut self, at: usize) {
        // In order, so that two batches of one route stay in theirs; the list is short.
        if at >= self.open.len() {
            return;
        }
        let batch = self.open.remove(at);
        self.to_wake = true;
        if let Err(mut batch) = self.shared.full.push(batch) {
            // There are as many places as buffers, so this cannot be; it would still be counted.
            self.dropped += u64::from(batch.records);
            batch.bytes.clear();
            let _ = self.shared.empty.push(batch.bytes);
        }
    }
}

impl ServerEnd {
    /// Tells the core of a change of claims; gives it back if the ring is full.
    ///
    /// # Errors
    /// The command, when the ring is full.
    pub fn command(&self, command: Command) -> Result<(), Command> {
        self.shared().commands.push(command)?;
        self.shared().core.wake();
        Ok(())
    }

    /// The next batch. Its buffer must go back with [`ServerEnd::give_back`].
    pub fn batch(&self) -> Option<Batch> {
        self.shared().full.pop()
    }

    /// True if no batch waits.
    pub fn is_empty(&self) -> bool {
        self.shared().full.is_empty()
    }

    /// Gives a batch's buffer back to the core.
    pub fn give_back(&self, mut batch: Batch) {
        batch.bytes.clear();
        // There are as many places as buffers.
        let _ = self.shared().empty.push(batch.bytes);
    }

    fn shared(&self) -> &Shared {
        &self.0
    }
}

// An empty batch has room for at least one record, and none grows beyond its capacity.
const _: () = assert!(MAX_RECORD <= BATCH_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Addr, Endpoint, Flags, Options};

    fn head(seq: u32) -> Head {
        let end = Endpoint::new(Addr::v4([10, 0, 0, 1]), 1);
        Head {
            flow: Flow { src: end, dst: end },
            seq: Seq(seq),
            ack: Seq(0),
            flags: Flags::ACK,
            window: 0,
            urgent: 0,
            options: Options::default(),
            payload_len: 0,
        }
    }

    const fn route(connection: u32) -> Route {
        Route {
            connection,
            owner: 0,
        }
    }

    #[test]
    fn every_record_is_in_a_batch_or_counted() {
        let (waker, _sleeper) = wake::pair().unwrap();
        let (mut core, server) = rings(8, waker.clone(), waker);
        let mut pushed = 0;
        for n in 0..10_000 {
            core.push(route(n % 3), &head(n), 0, &[0; 1024]);
            core.flush();
            pushed += 1;
        }
        core.flush_all();
        let mut got = 0;
        while let Some(batch) = server.batch() {
            assert!(batch.bytes.len() <= BATCH_BYTES && batch.bytes.capacity() == BATCH_BYTES);
            got += u64::from(batch.records);
            server.give_back(batch);
        }
        assert!(core.dropped() > 0 && got > 0);
        assert_eq!(got + core.dropped(), pushed);
        // Everything came back: as much fits again.
        let before = core.dropped();
        for n in 0..8 * 15 {
            core.push(route(1), &head(n), 0, &[0; 1024]);
        }
        assert_eq!(core.dropped(), before);
        assert_eq!(core.open_records(), 0);
    }

    #[test]
    fn small_batches_go_at_once_to_a_server_that_waits_and_fill_up_for_one_that_is_busy() {
        let (waker, _sleeper) = wake::pair().unwrap();
        let (mut core, server) = rings(64, waker.clone(), waker);
        for n in 0..20 {
            core.push(route(1), &head(n), 0, &[]);
            core.flush();
        }
        let sizes: Vec<_> = std::iter::from_fn(|| server.batch())
            .map(|b| b.records)
            .collect();
        assert_eq!(sizes, [1, 1, 1, 1]);
        core.flush();
        assert_eq!(server.batch().map(|b| b.records), Some(16));
    }
}
