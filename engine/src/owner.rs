//! Which core a response belongs to.

use replay::Ownership;
use wire::{Endpoint, Flow};

/// Which core the response to a client address belongs to.
#[derive(Clone)]
pub struct ResponseOwner {
    /// Each core's slices of the pool; empty without a pool.
    pub slices: Vec<Vec<replay::slots::Slice>>,
    /// The rule without a pool.
    pub ownership: Ownership,
    /// The transfers' targets, each with the production address it stands for, as far as that is
    /// one.
    pub targets: Vec<(Endpoint, Endpoint)>,
}

impl ResponseOwner {
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
