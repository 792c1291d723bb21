//! Connections that have not proved yet that they are engines. Anybody can make them.
//!
//! What always holds: there are at most [`MOST`] of them, at most [`MOST_OF_ONE`] from one source;
//! a source that has more of them than others pushes out its own alone.

use std::net::{IpAddr, Ipv6Addr};

/// Connections that may wait at the same time.
pub(super) const MOST: usize = 64;

/// Of these, from one source.
pub(super) const MOST_OF_ONE: usize = 16;

/// Whoever can choose the rest of an IPv6 address is one source.
const SOURCE_V6: u128 = u128::MAX << 64;

/// Where a connection comes from: an IPv4 address, or the first half of an IPv6 address.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & SOURCE_V6).into(),
        v4 => v4,
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Waiting {
    /// Number and source of each, the oldest first.
    list: Vec<(u32, IpAddr)>,
}

impl Waiting {
    pub(super) const fn len(&self) -> usize {
        self.list.len()
    }

    /// Lets connection `number` wait. Returns the one that has to go for it: the oldest of the same
    /// source if that has its share, the oldest of the source with most of them if there is no
    /// room at all.
    pub(super) fn enter(&mut self, number: u32, address: IpAddr) -> Option<u32> {
        let newcomer = source(address);
        let of = |list: &[(u32, IpAddr)], s: IpAddr| list.iter().filter(|(_, x)| *x == s).count();
        let goes = if of(&self.list, newcomer) >= MOST_OF_ONE {
            Some(newcomer)
        } else if self.list.len() >= MOST {
            // The newcomer counts with its source. Of several, the one that waits longest.
            let rank = |s: IpAddr| of(&self.list, s) + usize::from(s == newcomer);
            let most = self.list.iter().map(|(_, s)| rank(*s)).max();
            self.list
                .iter()
                .map(|(_, s)| *s)
                .find(|s| Some(rank(*s)) == most)
        } else {
            None
        };
        let at = goes.and_then(|goes| self.list.iter().position(|(_, s)| *s == goes));
        let gone = at.map(|at| self.list.remove(at).0);
        self.list.push((number, newcomer));
        gone
    }

    /// Connection `number` waits no more: it is an engine, or is gone.
    pub(super) fn leave(&mut self, number: u32) {
        self.list.retain(|(n, _)| *n != number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn one_source_pushes_out_its_own_alone() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.enter(0, v4(200)), None);
        for n in 1..1000 {
            let gone = waiting.enter(n, v4(1));
            let expected = n.checked_sub(MOST_OF_ONE as u32).filter(|n| *n > 0);
            assert_eq!(gone, expected);
        }
        assert_eq!(waiting.len(), MOST_OF_ONE + 1);
    }

    #[test]
    fn a_full_room_takes_from_the_source_with_most() {
        let mut waiting = Waiting::default();
        // The engine's host is the first; then three sources with their share, and others.
        assert_eq!(waiting.enter(0, v4(200)), None);
        let mut number = 0;
        let mut come = |waiting: &mut Waiting, address| {
            number += 1;
            waiting.enter(number, address)
        };
        for source in 1..=3 {
            for _ in 0..MOST_OF_ONE {
                assert_eq!(come(&mut waiting, v4(source)), None);
            }
        }
        for source in 10..25 {
            assert_eq!(come(&mut waiting, v4(source)), None);
        }
        assert_eq!(waiting.len(), MOST);
        // A new source takes from the greatest, of which there are three, then two, then one.
        assert_eq!(come(&mut waiting, v4(30)), Some(1));
        assert_eq!(come(&mut waiting, v4(30)), Some(17));
        assert_eq!(come(&mut waiting, v4(30)), Some(33));
        assert_eq!(come(&mut waiting, v4(1)), Some(2), "its own");
        assert_eq!(waiting.len(), MOST);
    }

    #[test]
    fn with_one_connection_each_the_oldest_goes_and_nobody_gets_a_second_for_it() {
        let mut waiting = Waiting::default();
        for n in 0..MOST as u32 {
            assert_eq!(waiting.enter(n, v4(n as u8)), None);
        }
        assert_eq!(waiting.enter(100, v4(63)), Some(63), "its own");
        assert_eq!(waiting.enter(101, v4(101)), Some(0));
        waiting.leave(1);
        waiting.leave(1);
        assert_eq!(waiting.enter(102, v4(102)), None);
    }

    #[test]
    fn a_source_is_what_one_host_can_choose_from() {
        let address = |s: &str| source(s.parse().unwrap());
        assert_eq!(address("2001:db8:1:2:3::4"), address("2001:db8:1:2:ffff::"));
        assert_ne!(address("2001:db8:1:2::"), address("2001:db8:1:3::"));
        assert_eq!(address("::ffff:192.0.2.1"), v4(1));
    }
}
