//! Where tunnels may end: which of those that IP addresses are opened.
//!
//! Whoever can send a datagram to an address that is mirrored can put into it whatever he likes:
//! segments of connections of others, resets among them. So a tunnel is opened only where one may
//! end. Encapsulations without an IP address (tags, MPLS, PBB) are none of a stranger's choice and
//! are not judged here.
//!
//! A tunnel inside another is judged as one that is not: what a switch mirrors through a tunnel of
//! its own may have been sent by anybody.

use crate::scope::Network;
use crate::{Addr, Prefix};

/// One place where tunnels may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The outer destination.
    pub to: Prefix,
    /// The VNI, or the GRE key, that the tunnel must have; `None`: any, or none at all.
    pub network: Option<Network>,
}

impl End {
    /// The end of all tunnels to these addresses.
    #[inline]
    pub const fn at(to: Prefix) -> Self {
        Self { to, network: None }
    }
}

/// What holds for a tunnel to an address that is not listed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Others {
    Opened,
    Refused,
    /// Refused to the addresses from the first to the last of each pair. They are sorted, and none
    /// meets another.
    RefusedTo(Vec<(Addr, Addr)>),
}

/// Where tunnels may end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    listed: Vec<End>,
    others: Others,
}

impl Ends {
    /// Everywhere.
    pub const ANYWHERE: &'static Self = &Self {
        listed: Vec::new(),
        others: Others::Opened,
    };

    /// At these places, and nowhere else.
    pub const fn at(listed: Vec<End>) -> Self {
        Self {
            listed,
            others: Others::Refused,
        }
    }

    /// Everywhere but in these networks.
    pub fn anywhere_but(networks: &[Prefix]) -> Self {
        let mut ranges: Vec<(Addr, Addr)> =
            networks.iter().map(|n| (n.first(), n.last())).collect();
        ranges.sort_unstable();
        // A network is in another, or they do not meet; the wider one comes first, or the same.
        ranges.dedup_by(|next, before| {
            let inside = next.1 <= before.1;
            if next.0 == before.0 {
                before.1 = before.1.max(next.1);
            }
            inside || next.0 == before.0
        });
        Self {
            listed: Vec::new(),
            others: Others::RefusedTo(ranges),
        }
    }

    /// The same, and at this place as well.
    #[must_use]
    pub fn and(mut self, end: End) -> Self {
        self.listed.push(end);
        self
    }

    /// True if a tunnel to `to`, of the network that its header names, is opened. Takes a
    /// comparison for each place that is listed.
    #[inline]
    pub fn opens(&self, to: &Addr, network: Option<Network>) -> bool {
        let fits =
            |end: &End| end.to.contains(to) && (end.network.is_none() || end.network == network);
        self.listed.iter().any(fits)
            || match &self.others {
                Others::Opened => true,
                Others::Refused => false,
                Others::RefusedTo(ranges) => {
                    let after = ranges.partition_point(|(first, _)| first <= to);
                    let before = after.checked_sub(1).and_then(|i| ranges.get(i));
                    before.is_none_or(|(_, last)| last < to)
                }
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Addr = Addr::v4([10, 9, 0, 1]);
    const ELEVEN: Addr = Addr::v4([10, 9, 0, 11]);
    const FAR: Addr = Addr::v4([192, 0, 2, 1]);
    const SIX: Addr = Addr::v6([0xfd; 16]);

    fn listed() -> Vec<End> {
        vec![
            End::at(Prefix::host(TEN)),
            End {
                to: Prefix::new(ELEVEN, 24),
                network: Some(Network::Virtual(77)),
            },
            End {
                to: Prefix::new(SIX, 64),
                network: Some(Network::Key(5)),
            },
        ]
    }

    #[test]
    fn a_tunnel_is_opened_where_one_may_end() {
        let (vni, key) = (Network::Virtual, Network::Key);
        let production = [Prefix::new(FAR, 24), Prefix::host(FAR), Prefix::host(TEN)];
        for (ends, opened) in [
            (Ends::ANYWHERE.clone(), [true; 9]),
            (Ends::at(Vec::new()), [false; 9]),
            (
                Ends::at(listed()),
                [true, true, false, true, false, false, true, false, false],
            ),
            (
                Ends::anywhere_but(&production),
                [false, false, true, true, true, true, true, true, false],
            ),
            // Listed is listed, production or not.
            (
                Ends::anywhere_but(&production).and(End::at(Prefix::host(TEN))),
                [true, true, true, true, true, true, true, true, false],
            ),
        ] {
            let asked = [
                (TEN, None),
                (TEN, Some(vni(1))),
                (ELEVEN, None),
                (ELEVEN, Some(vni(77))),
                (ELEVEN, Some(vni(78))),
                // A number is a VNI or a key, not both.
                (ELEVEN, Some(key(77))),
                (SIX, Some(key(5))),
                (SIX, Some(key(6))),
                (FAR, None),
            ];
            for ((to, network), opened) in asked.iter().zip(opened) {
                assert_eq!(
                    ends.opens(to, *network),
                    opened,
                    "{to} {network:?} {ends:?}"
                );
            }
        }
    }
}
