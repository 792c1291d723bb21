//! Which core a response belongs to.

use replay::slots::Slice;
use replay::{Ownership, Params};
use wire::{Addr, Endpoint, Flow};

/// Which core the response to a client address belongs to.
#[derive(Clone)]
pub struct ResponseOwner {
    /// Each core's slices of the pool; empty without a pool.
    pub(crate) slices: Vec<Vec<Slice>>,
    /// The rule without a pool.
    ownership: Ownership,
    /// The targets, each with the production address it stands for, as far as that is one.
    targets: Vec<(Endpoint, Endpoint)>,
}

impl ResponseOwner {
    /// For the targets of these parameters. `slices` are each core's of the pool.
    pub fn new(params: &Params, slices: Vec<Vec<Slice>>) -> Self {
        let any = Addr::v4([0; 4]);
        let targets = params.transfers.iter().flat_map(|transfer| {
            let from = transfer.from;
            let production = Endpoint::new(from.addr.unwrap_or(any), from.port);
            transfer.to.iter().map(move |t| (t.to, production))
        });
        Self {
            slices,
            ownership: params.ownership,
            targets: targets.collect(),
        }
    }

    /// The owner, or `None` if the segment comes from no target or goes to no client of ours.
    #[inline]
    pub(crate) fn of(&self, response: &Flow) -> Option<u16> {
        let (_, production) = self.targets.iter().find(|(t, _)| *t == response.src)?;
        let client = &response.dst;
        if self.slices.iter().all(Vec::is_empty) {
            return Some(self.ownership.owner(client, production));
        }
        self.slices
            .iter()
            .position(|s| s.iter().any(|s| s.contains(client)))
            .map(|i| i as u16)
    }
}
