//! The host of a port that is there to receive: it answers those who ask for its addresses, and
//! says nothing else.
//!
//! What it sends is an [`Answer`], which nobody else can make: a queue that takes answers alone
//! cannot be made to send anything else. An answer goes to the Ethernet address that has asked.

use super::{FrameBuf, Host, HostConfig};
use crate::{Nanos, Prefix};

/// A frame that answers a question: an ARP reply, a neighbour advertisement or an echo reply.
///
/// ```compile_fail
/// fn forge(frame: &[u8]) -> wire::host::Answer<'_> {
///     wire::host::Answer(frame)
/// }
/// ```
#[derive(Debug)]
pub struct Answer<'a>(&'a [u8]);

impl Answer<'_> {
    /// The whole frame.
    pub const fn bytes(&self) -> &[u8] {
        self.0
    }
}

/// A queue that answers can be sent on.
pub trait Answers {
    /// Sends it at once, or not at all. Returns whether it was sent.
    fn answer(&mut self, answer: &Answer<'_>) -> bool;
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It was answered.
    Answered,
    /// The answer could not be sent: whoever asked asks again.
    Unsent,
}

/// The host.
pub struct Responder {
    host: Host,
    frame: FrameBuf,
}

impl Responder {
    /// One that has these addresses on a port with this Ethernet address; `seed` as in
    /// [`HostConfig`].
    pub fn new(mac: [u8; 6], addresses: Vec<Prefix>, seed: u64) -> Self {
        Self {
            host: Host::new(HostConfig {
                mac,
                addresses,
                gateways: Vec::new(),
                next_hop_mac: None,
                seed,
            }),
            frame: FrameBuf::new(),
        }
    }

    /// Answers a received frame, if it is a question for one of the addresses. `None` if it is not.
    pub fn receive(&mut self, now: Nanos, frame: &[u8], queue: &mut dyn Answers) -> Option<Asked> {
        let received = self.host.receive(now, frame, &|_| false, &mut self.frame);
        received.replied.then(|| {
            if queue.answer(&Answer(&self.frame)) {
                Asked::Answered
            } else {
                Asked::Unsent
            }
        })
    }
}
