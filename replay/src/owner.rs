//! Which core a client belongs to.
//!
//! Both directions of a mirrored flow and the target's answers must meet on one core. One function
//! decides, from values that all of them show: the client's endpoint, and (where every target
//! stands for exactly one production address) production's. In the second form the value is the
//! symmetric Toeplitz hash that a NIC computes itself, and the owner is the queue that the NIC
//! chooses by it, so that frames arrive on their owner's queue and nothing needs to be handed over.

use wire::{Endpoint, Flow};

/// What the owner is computed from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashBy {
    /// The client's address and port.
    Client,
    /// Both ends of the production flow, as RSS with the symmetric key does.
    Flow {
        /// Entries of the NIC's redirection table, after which it repeats at the latest; a power of
        /// two.
        table: u16,
    },
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
        match self.by {
            HashBy::Client => (wire::rss::client_hash(client) % u32::from(self.cores)) as u16,
            HashBy::Flow { table } => {
                let flow = Flow {
                    src: *client,
                    dst: *server,
                };
                wire::rss::queue_in(wire::rss::owner_hash(&flow), table, self.cores)
            }
        }
    }

    /// True if the asking core owns it.
    #[inline]
    pub fn is_mine(&self, client: &Endpoint, server: &Endpoint) -> bool {
        self.owner(client, server) == self.me
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Addr;

    /// What drivers fill a redirection table of `entries` with for `queues`.
    fn round_robin(entries: u32, queues: u16) -> Vec<u16> {
        (0..entries)
            .map(|i| (i % u32::from(queues)) as u16)
            .collect()
    }

    #[test]
    fn a_flow_is_owned_by_the_queue_that_the_nic_chooses() {
        let server = Endpoint::new(Addr::v4([10, 10, 0, 2]), 80);
        for (entries, cores) in [64, 128, 512]
            .into_iter()
            .flat_map(|e| (1..=16).map(move |c| (e, c)))
        {
            let rule = Ownership {
                cores,
                me: 0,
                by: HashBy::Flow { table: entries },
            };
            let entries = u32::from(entries);
            let table = round_robin(entries, cores);
            let mut seen = vec![false; entries as usize];
            for port in 0..=u16::MAX {
                let client = Endpoint::new(Addr::v4([10, 0, 0, 1]), port);
                let hash = wire::rss::owner_hash(&Flow {
                    src: client,
                    dst: server,
                });
                let entry = (hash & (entries - 1)) as usize;
                seen[entry] = true;
                assert_eq!(rule.owner(&client, &server), table[entry], "{cores} cores");
            }
            assert!(seen.iter().all(|s| *s), "an entry that no flow has");
        }
    }
}
