//! Frames that are made here, of bytes from elsewhere: those of a capture file.

use crate::eal::Eal;
use crate::error::Error;
use crate::mbuf::{Mbuf, register_captured_at};
use crate::mempool::Mempool;
use arrayvec::ArrayVec;
use wire::Nanos;

/// Mbufs taken out of the pool at a time.
const BULK: usize = 32;

/// Makes frames in mbufs of one pool. It may be used on a thread that is no lcore.
#[derive(Debug)]
pub struct FrameMaker {
    pool: Mempool,
    /// Takes mbufs out in bulk.
    ahead: bool,
    /// Fresh ones, for the next frames.
    spare: ArrayVec<Mbuf, BULK>,
}

impl FrameMaker {
    /// Makes frames in mbufs of `pool`.
    ///
    /// # Errors
    /// Mbufs have no room for a frame's time: drivers have taken it all for fields of their own.
    pub fn new(_eal: &Eal, pool: &Mempool) -> Result<Self, Error> {
        Self::of(pool, true)
    }

    /// The same for who has a pool already, and so the EAL.
    /// Without `ahead` no mbuf is out of the pool but those of frames, as on an lcore, which has a
    /// cache of its own.
    pub(crate) fn of(pool: &Mempool, ahead: bool) -> Result<Self, Error> {
        if !register_captured_at() {
            return Err(Error::Device {
                port: "capture file".to_owned(),
                what: "mbufs have no room left for the time of a frame".to_owned(),
            });
        }
        Ok(Self {
            pool: pool.clone(),
            ahead,
            spare: ArrayVec::new(),
        })
    }

    /// A frame of these bytes that was captured at `at`, chained if they are longer than a buffer.
    /// `None` if the pool is empty.
    #[inline]
    pub fn make(&mut self, bytes: &[u8], at: Nanos) -> Option<Mbuf> {
        let mut frame = self.fresh()?;
        let (first, rest) = bytes.split_at(bytes.len().min(frame.tailroom()));
        frame.append(first);
        if !rest.is_empty() && !self.chain(&mut frame, rest) {
            return None;
        }
        frame.set_captured_at(at);
        Some(frame)
    }

    #[cold]
    fn chain(&mut self, frame: &mut Mbuf, bytes: &[u8]) -> bool {
        let mut rest: Option<Mbuf> = None;
        let room = frame.tailroom().max(frame.bytes().len()).max(1);
        // From the end, so that each part is put before those that follow it.
        for part in bytes.chunks(room).rev() {
            let Some(mut segment) = self.fresh() else {
                return false;
            };
            if !segment.append(part) || rest.is_some_and(|rest| !segment.append_chain(rest)) {
                return false;
            }
            rest = Some(segment);
        }
        rest.is_none_or(|rest| frame.append_chain(rest))
    }

    #[inline]
    fn fresh(&mut self) -> Option<Mbuf> {
        if !self.ahead || (self.spare.is_empty() && !self.pool.alloc_bulk(&mut self.spare)) {
            // There may be a few.
            return self.pool.alloc();
        }
        self.spare.pop()
    }
}
