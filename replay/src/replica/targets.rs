//! Which transfers have the same target.

use crate::params::Params;

/// For each transfer the first that has the same target: what is known of a target is kept there.
#[derive(Clone, Debug)]
pub(crate) struct Targets(Vec<u16>);

impl Targets {
    pub fn new(params: &Params) -> Self {
        let to = params.transfers.iter().map(|t| t.to);
        let first = |target| to.clone().position(|other| other == target);
        let of = to.clone().map(|t| first(t).unwrap_or_default() as u16);
        Self(of.collect())
    }

    /// The transfer that stands for the target of this one.
    #[inline]
    pub fn of(&self, transfer: u16) -> u16 {
        self.0[usize::from(transfer)]
    }

    /// The transfers of a target.
    pub fn transfers(&self, target: u16) -> impl Iterator<Item = u16> + '_ {
        let same = move |(i, of): (usize, &u16)| (*of == target).then_some(i as u16);
        self.0.iter().enumerate().filter_map(same)
    }

    /// All targets.
    pub fn all(&self) -> impl Iterator<Item = u16> + '_ {
        let own = |(i, of): (usize, &u16)| (i == usize::from(*of)).then_some(*of);
        self.0.iter().enumerate().filter_map(own)
    }
}
