//! Which core a client belongs to.
//!
//! Both directions of a mirrored flow and the target's answers must meet on one core. One function
//! decides, from values that all of them show: the client's endpoint, and (where every target
//! stands for exactly one production address) production's. In the second form the value is the
//! symmetric Toeplitz hash that a NIC computes itself, so that frames arrive on their owner's queue
//! and nothing needs to be handed over.

use wire::{Endpoint, Flow};

/// What the owner is computed from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashBy {
    /// The client's address and port.
    Client,
    /// Both ends of the production flow, as RSS with the symmetric key does.
    Flow,
}

/// The rule that deals clients out to cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ownership {
    /// How many cores there are.
    pub cores: u16,
    /// The core that asks.
    pub me: u16,
    /// What counts.
    pub by: HashBy,
}

impl Ownership {
    /// A single core owns everything.
    pub const ALONE: Self = Self {
        cores: 1,
        me: 0,
        by: HashBy::Client,
    };

    /// The core that owns `client` talking to production's `server`.
    #[inline]
    pub fn owner(&self, client: &Endpoint, server: &Endpoint) -> u16 {
        if self.cores <= 1 {
            return 0;
        }
        let hash = match self.by {
            HashBy::Client => wire::rss::client_hash(client),
            HashBy::Flow => wire::rss::owner_hash(&Flow {
                src: *client,
                dst: *server,
            }),
        };
        (hash % u32::from(self.cores)) as u16
    }

    /// True if the asking core owns it.
    #[inline]
    pub fn is_mine(&self, client: &Endpoint, server: &Endpoint) -> bool {
        self.owner(client, server) == self.me
    }
}
