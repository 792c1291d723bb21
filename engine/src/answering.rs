//! A mirror port that has addresses (`mirror.address`): remote mirrors are sent there only if
//! somebody answers ARP, neighbour discovery and ping.
//!
//! The port still cannot send. What is there beside its receive queue takes the answers of a
//! [`Responder`] and nothing else, and each of them is caused by a frame that asked for it.

use wire::host::{Answers, Asked, Responder};
use wire::{Nanos, Skip};

/// What answers on one queue of a mirror port.
pub struct Answering {
    responder: Responder,
    queue: Box<dyn Answers + Send>,
}

impl Answering {
    /// `responder` has the port's Ethernet address.
    pub fn new(responder: Responder, queue: impl Answers + Send + 'static) -> Self {
        Self {
            responder,
            queue: Box::new(queue),
        }
    }

    /// Answers a frame that was not decoded, for this reason, if it asks for an address of ours.
    pub fn look(&mut self, now: Nanos, skip: Skip, frame: &[u8]) -> Option<Asked> {
        // ARP is no IP; neighbour discovery and ping are no TCP.
        if !matches!(skip, Skip::NotIp | Skip::NotTcp) {
            return None;
        }
        self.responder.receive(now, frame, self.queue.as_mut())
    }
}
