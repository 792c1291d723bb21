//! What a connection has to write: bytes in order, and which records are among them.
//!
//! What always holds: a batch of records counts as unsent until its last byte was consumed.

use std::collections::VecDeque;

/// Bytes to be written, and how many records are among them.
#[derive(Default)]
pub(crate) struct Output {
    /// What was consumed and not yet removed stands before `start`.
    pub(crate) bytes: Vec<u8>,
    start: usize,
    /// Bytes ever consumed.
    consumed: u64,
    /// For each batch that is not written yet: where in the stream it ends, and how many records
    /// it has.
    batches: VecDeque<(u64, u32)>,
}

impl Output {
    /// What is not written yet.
    pub(crate) fn pending(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn end(&self) -> u64 {
        self.consumed + (self.bytes.len() - self.start) as u64
    }

    /// The first `n` bytes were written.
    pub(crate) fn consume(&mut self, n: usize) {
        let n = n.min(self.bytes.len() - self.start);
        self.start += n;
        self.consumed += n as u64;
        while self
            .batches
            .front()
            .is_some_and(|(end, _)| *end <= self.consumed)
        {
            self.batches.pop_front();
        }
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Remembers that a batch of `count` records ends where the output ends now.
    pub(crate) fn mark(&mut self, count: usize) {
        let end = self.end();
        self.batches.push_back((end, count as u32));
    }

    /// Records whose bytes are not all written.
    pub(crate) fn unsent_records(&self) -> u64 {
        self.batches.iter().map(|(_, n)| u64::from(*n)).sum()
    }
}
