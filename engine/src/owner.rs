//! Which core a response belongs to.

use replay::slots::Slice;
use replay::{Ownership, Params, ServerTable, servers};
use wire::{Addr, Endpoint, Flow};

/// Which core the response to a client address belongs to.
#[derive(Clone)]
pub struct ResponseOwner {
    /// Each core's slices of the pool; empty without a pool.
    pub(crate) slices: Vec<Vec<Slice>>,
    /// The rule without a pool.
    ownership: Ownership,
    targets: ServerTable,
    /// For each target the production address it stands for, as far as that is one; port 0: the
    /// target's.
    production: Vec<Endpoint>,
}

impl ResponseOwner {
    /// For the targets of these parameters. `slices` are each core's of the pool.
    pub fn new(params: &Params, slices: Vec<Vec<Slice>>) -> Self {
        let production = params.transfers.iter().flat_map(|transfer| {
            let first = transfer.from.first();
            let addr = first.and_then(|origin| origin.addr());
            let addr = addr.unwrap_or(Addr::v4([0; 4]));
            let port = first.map_or(0, |origin| origin.low);
            transfer.to.iter().map(move |to| match to.to.port {
                0 => Endpoint::new(addr, 0),
                _ => Endpoint::new(addr, port),
            })
        });
        Self {
            slices,
            ownership: params.ownership,
            targets: servers::targets(params),
            production: production.collect(),
        }
    }

    /// The owner, or `None` if the segment comes from no target or goes to no client of ours.
    #[inline]
    pub(crate) fn of(&self, response: &Flow) -> Option<u16> {
        let target = self.targets.get(&response.src)?;
        let client = &response.dst;
        if self.slices.iter().all(Vec::is_empty) {
            let mut production = *self.production.get(usize::from(target))?;
            if production.port == 0 {
                production.port = response.src.port;
            }
            return Some(self.ownership.owner(client, &production));
        }
        self.slices
            .iter()
            .position(|s| s.iter().any(|s| s.contains(client)))
            .map(|i| i as u16)
    }
}
