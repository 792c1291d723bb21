//! Which transfers have the same target.

use crate::params::Params;

/// A target is named by the first transfer that has it.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    /// For each transfer the name of its target.
    of: Vec<u16>,
    /// For each name the target's transfers; none where a transfer names no target.
    transfers: Vec<Vec<u16>>,
}

impl Targets {
    pub fn new(params: &Params) -> Self {
        let mut targets = Self {
            of: Vec::new(),
            transfers: vec![Vec::new(); params.transfers.len()],
        };
        for (i, t) in params.transfers.iter().enumerate() {
            let first = params.transfers.iter().position(|o| o.to == t.to);
            let name = first.unwrap_or(i);
            targets.of.push(name as u16);
            targets.transfers[name].push(i as u16);
        }
        targets
    }

    /// The target of a transfer.
    #[inline]
    pub fn of(&self, transfer: u16) -> u16 {
        self.of[usize::from(transfer)]
    }

    /// The transfers of a target.
    pub fn transfers(&self, target: u16) -> &[u16] {
        &self.transfers[usize::from(target)]
    }

    /// All targets.
    pub fn all(&self) -> impl Iterator<Item = u16> + '_ {
        let own = |(i, of): (usize, &u16)| (i == usize::from(*of)).then_some(*of);
        self.of.iter().enumerate().filter_map(own)
    }
}
