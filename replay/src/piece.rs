//! A piece of the client's stream, on its way from the frame that showed it to the buffers that
//! wait for the target.

use crate::pos::StreamPos;
use wire::io::Payload;

/// Payload with its place in the client's stream.
pub(crate) struct Piece<P> {
    pub payload: P,
    /// The place of its first byte.
    pub pos: StreamPos,
    /// What the client acknowledges with it, a place in the server's stream.
    pub ack: StreamPos,
    pub push: bool,
    /// Where urgent data ends, counted from `pos`; 0: none in or behind this piece.
    pub urgent: u16,
}

/// What is held for a piece of the stream.
#[derive(Clone, Copy)]
pub(crate) struct Charge {
    /// Memory, in bytes.
    pub bytes: u32,
    /// It is a buffer that the driver receives into.
    pub frame: bool,
}

impl Charge {
    pub fn of<P: Payload>(payload: &P) -> Self {
        Self {
            bytes: payload.footprint().try_into().unwrap_or(u32::MAX),
            frame: payload.holds_frame(),
        }
    }
}

/// An offset into a piece, counted from `n` bytes further on; 0 if it lies before that.
pub(crate) fn offset_after(offset: u16, n: u32) -> u16 {
    u32::from(offset).saturating_sub(n) as u16
}

impl<P: Payload> Piece<P> {
    pub fn len(&self) -> u32 {
        self.payload.bytes().len() as u32
    }

    pub fn end(&self) -> StreamPos {
        self.pos + self.len()
    }

    /// The same piece for another holder; the bytes are not copied.
    pub fn share(&self) -> Self {
        Self {
            payload: self.payload.share(),
            ..*self
        }
    }

    pub fn trim_front(&mut self, n: u32) {
        self.payload.trim_front(n as usize);
        self.pos += n;
        self.urgent = offset_after(self.urgent, n);
    }

    /// How many bytes are others than `captured` has, whose first byte lies at `pos`, at the same
    /// places of the stream.
    pub fn conflicts(&self, captured: Option<&P>, pos: StreamPos) -> u64 {
        let Some(captured) = captured.map(Payload::bytes) else {
            return 0;
        };
        let from = self.pos.max(pos);
        let to = self.end().min(pos + captured.len() as u64);
        let n = to.since(from) as usize;
        let range = |begin: StreamPos| {
            let at = from.since(begin) as usize;
            at..at + n
        };
        match (
            captured.get(range(pos)),
            self.payload.bytes().get(range(self.pos)),
        ) {
            (Some(old), Some(new)) if old != new => {
                old.iter().zip(new).filter(|(a, b)| a != b).count() as u64
            }
            _ => 0,
        }
    }
}
